//! (being written)
/// x
#[derive(Debug, Clone)]
pub struct StoreUrl;
