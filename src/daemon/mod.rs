//! What runs all the time: feeds the catalog from the engine's events.

pub mod events;
