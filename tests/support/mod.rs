//! What several test binaries share. Each uses another part of it.
#![allow(dead_code)]

pub mod mem_s3;
