//! From a snapshot to a volume, a directory or a tar.
