//! What the tests share: an S3 server in the process, and private Docker engines.
//!
//! Each test binary includes this with `mod support;` and uses a part of it.
#![allow(dead_code, unused_imports)]

pub mod cli;
pub mod engine;
pub mod fake_outside;
pub mod host;
pub mod mem_s3;
pub mod namespace;
pub mod no_volumes;
pub mod plugin_host;
pub mod raw_api;
pub mod volume_plugin;
