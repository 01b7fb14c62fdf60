//! The volumes that voltool keeps for engines: `docker volume create -d voltool`.
//!
//! Nothing here speaks HTTP: [`crate::plugin`] does, and asks.
