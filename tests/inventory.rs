//! Volumes and containers of a real engine.

mod support;

use support::engine::{BUSYBOX, TestEngine};

#[test]
fn smoke() {
    let engine = TestEngine::start();
    println!("{}", engine.docker(&["version"]));
    println!("{}", engine.docker(&["images"]));
    println!("{}", engine.docker(&["run", "-v", "/x", BUSYBOX, "ls", "-la", "/image-volume", "/x"]));
    println!("{}", engine.docker(&["info"]));
    println!("{}", engine.log());
}
