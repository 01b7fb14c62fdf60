//! What runs all the time: feeds the catalog from the engine's events, and keeps the volume driver's knowledge up to date.

pub mod events;
pub mod upkeep;
