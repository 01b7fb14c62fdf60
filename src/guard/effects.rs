//! What the engine would do with a request, by its own rules. Pure.

/// What a request would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {}
