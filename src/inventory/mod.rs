//! Volumes, containers, and who references what.
