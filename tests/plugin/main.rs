//! The volume driver: what engines see of it, and what survives.

#[path = "../support/mod.rs"]
mod support;

mod crash;
mod engine;
mod kinds;
mod postgres;
mod protocol;
mod sharing;
mod swarm;
mod volumes;
mod ways;
