//! What was removed, and how it comes back.
