//! `docs/cli.md` is what `voltool markdown-help` prints. With `VOLTOOL_UPDATE_DOCS=1`, this test writes it instead.

use assert_cmd::Command;

#[test]
fn the_page_is_up_to_date() {
    let out = Command::new(env!("CARGO_BIN_EXE_voltool")).arg("markdown-help").output().expect("voltool runs");
    assert!(out.status.success(), "{out:?}");
    let now = String::from_utf8(out.stdout).expect("UTF-8");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cli.md");
    if std::env::var_os("VOLTOOL_UPDATE_DOCS").is_some_and(|value| value == "1") {
        std::fs::write(file, now).expect("docs/cli.md can be written");
        return;
    }
    let checked_in = std::fs::read_to_string(file).expect("docs/cli.md can be read");
    let differs = checked_in.lines().zip(now.lines()).enumerate().find(|(_, (a, b))| a != b);
    assert!(
        checked_in == now,
        "docs/cli.md is not what the command line says (first difference: {differs:?}); \
         run VOLTOOL_UPDATE_DOCS=1 cargo test --test cli_docs"
    );
}
