//! voltool
