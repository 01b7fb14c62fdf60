//! The storage traps of Docker, found on an engine: what loses data, or will.
