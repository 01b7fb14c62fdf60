//! What the documents tell people to type is run as it stands, on private engines; see `tests/docs/run_blocks.py`.

use std::process::Command;

/// Runs the commands of a document. `VOLTOOL_TEST_DOCKERD` names the engine, as for all tests.
fn run_blocks(document: &str) {
    let output = Command::new("python3")
        .args(["tests/docs/run_blocks.py", "--voltool", env!("CARGO_BIN_EXE_voltool"), document])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("python3 starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains(" 0 failed"), "{said}");
}

#[test]
fn the_runbook() {
    run_blocks("docs/runbook.md");
}

#[test]
fn the_tour_of_the_readme() {
    run_blocks("README.md");
}
