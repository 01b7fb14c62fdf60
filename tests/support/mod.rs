//! What several test files share. Not every file uses all of it.
#![allow(dead_code)]

pub mod engine;
