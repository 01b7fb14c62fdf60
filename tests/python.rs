//! The tests in Python, so that `cargo test` runs every test there is.

use std::process::Command;

fn discover(folder: &str) {
    let output = Command::new("python3")
        .args(["-m", "unittest", "discover", "-s", folder])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("python3 starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // Finding none would be a success to unittest before Python 3.12.
    assert!(!said.contains("Ran 0 tests"), "{said}");
}

/// The independent reader of repositories, `examples/restore.py`, against an independent writer of the format.
#[test]
fn the_independent_reader() {
    discover("tests/python");
}

/// The program that runs the commands in the documents.
#[test]
fn the_runner_of_documents() {
    discover("tests/docs");
}
