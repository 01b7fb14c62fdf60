//! The authorization plugin: its protocol on a socket, and real engines that ask it.

#[path = "../support/mod.rs"]
mod support;

mod enabling;
mod engine;
mod guarded;
mod protocol;
