//! The `voltool` command.

fn main() {}
