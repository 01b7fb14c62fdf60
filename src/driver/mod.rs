//! The volumes that voltool keeps for engines: `docker volume create -d voltool`.
//!
//! Nothing here speaks HTTP: [`crate::plugin`] does, and asks.

pub mod backing;
pub mod mount_url;
pub mod name;
pub mod options;
pub mod policy;
pub mod quota;
pub mod tool;
