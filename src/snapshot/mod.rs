//! From a volume to a snapshot.
