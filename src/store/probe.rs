//! What a storage really does. (placeholder merged from the store branch)
#![allow(missing_docs)]
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct StorageReport {}
