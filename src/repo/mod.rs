//! The repository format on top of [`store`](crate::store); `docs/format.md` is its contract.

pub mod monitor;

pub use monitor::Monitor;
