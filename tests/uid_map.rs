//! Owners that are shifted by a restore, for engines with user namespaces.

mod support;

use std::os::unix::fs::{MetadataExt, chown, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;

use support::cli::tree::write;
use support::cli::{Lock, Ran, Sandbox, assert_same_tree, is_root};

fn owner(path: &Path) -> (u32, u32) {
    let stat = std::fs::symlink_metadata(path).expect("there");
    (stat.uid(), stat.gid())
}

fn acl(path: &Path) -> Vec<String> {
    let output = Command::new("getfacl").args(["--numeric", "--omit-header", "--absolute-names"]).arg(path).output();
    let text = String::from_utf8(output.expect("getfacl runs").stdout).expect("UTF-8");
    text.lines()
        .filter(|line| !line.is_empty())
        .map(|line| line.split('\t').next().unwrap_or_default().to_owned())
        .collect()
}

/// A database as a container sees it: root's folder, files of user 999, ACLs, and one stranger.
fn database(sandbox: &Sandbox) -> PathBuf {
    let root = sandbox.folder("db");
    for name in ["a", "dir/b", "stranger"] {
        write(&root.join(name), name.as_bytes());
    }
    std::os::unix::fs::symlink("nowhere", root.join("link")).expect("made");
    std::fs::hard_link(root.join("a"), root.join("z")).expect("made");
    chown(root.join("a"), Some(999), Some(998)).expect("changed");
    lchown(root.join("link"), Some(5), Some(65_535)).expect("changed");
    chown(root.join("stranger"), Some(70_000), Some(0)).expect("changed");
    for (acl, name) in [("u:7:r,g:8:r", "dir/b"), ("d:u:9:rw", "dir")] {
        let done = Command::new("setfacl").args(["-m", acl]).arg(root.join(name)).status();
        assert!(done.expect("setfacl runs").success());
    }
    chown(&root, Some(999), Some(0)).expect("changed");
    root
}

const MAP: &str = "0:100000:65536,70000:70000:1";

#[test]
fn owners_and_acls_are_shifted_and_shifted_back() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new(Lock::None);
    let source = database(&sandbox);
    sandbox.backup(&source, "db");
    let shifted = sandbox.restore_with("db", "shifted", &["--uid-map", MAP]);
    for (name, is) in [
        ("", (100_999, 100_000)),
        ("a", (100_999, 100_998)),
        ("z", (100_999, 100_998)),
        ("dir", (100_000, 100_000)),
        ("dir/b", (100_000, 100_000)),
        ("link", (100_005, 165_535)),
        ("stranger", (70_000, 100_000)),
    ] {
        assert_eq!(owner(&shifted.join(name)), is, "{name}");
    }
    let (file, folder) = (acl(&shifted.join("dir/b")), acl(&shifted.join("dir")));
    assert!(file.contains(&"user:100007:r--".into()) && file.contains(&"group:100008:r--".into()), "{file:?}");
    assert!(folder.contains(&"default:user:100009:rw-".into()), "{folder:?}");

    // Content is put in place of other content only after it was compared with the snapshot, by the same map.
    write(&shifted.join("a"), b"changed");
    sandbox.restore_with("db", "shifted", &["--uid-map", MAP, "--replace"]);
    assert_eq!(owner(&shifted.join("z")), (100_999, 100_998));
    assert_eq!(std::fs::read(shifted.join("a")).expect("there"), b"a");

    sandbox.backup(&shifted, "shifted");
    let back = sandbox.restore_with("shifted", "back", &["--uid-map", "100000:0:65536,70000:70000:1"]);
    assert_same_tree(&source, &back);
    // Without a map nothing is shifted.
    assert_same_tree(&source, &sandbox.restore("db", "plain"));
}

#[test]
fn an_owner_in_no_range_is_kept_and_reported() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new(Lock::None);
    let source = database(&sandbox);
    chown(source.join("dir/b"), Some(0), Some(70_000)).expect("changed");
    sandbox.backup(&source, "db");
    let to = sandbox.path("to");
    let restore = |more: &[&str]| {
        let mut command = sandbox.command(["restore", "db", "--json", "--uid-map", "0:100000:65536", "--to-dir"]);
        Ran::of(command.arg(&to).args(more).output().expect("voltool runs"))
    };
    let ran = restore(&[]);
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    let rows: serde_json::Value = serde_json::from_slice(&ran.out).expect("JSON");
    let problems = rows[0]["problems"].as_array().expect("a list");
    assert_eq!(problems.len(), 1, "each id is named once: {problems:?}");
    let text = problems[0]["error"].as_str().expect("a text");
    assert!(text.contains("70000 is in no range") && text.contains("70000:70000:1"), "{text}");
    assert_eq!(owner(&to.join("stranger")), (70_000, 100_000));
    assert_eq!(owner(&to.join("dir/b")), (100_000, 70_000));

    // What is there is not replaced by something that is not as asked for.
    restore(&["--replace"]).fails(1, &["70000", "nothing was replaced"]);

    // What the map leads to passes: a volume that was shifted once has such owners in its own snapshots.
    chown(to.join("stranger"), Some(100_000), None).expect("changed");
    chown(to.join("dir/b"), None, Some(100_000)).expect("changed");
    sandbox.backup(&to, "shifted");
    assert_same_tree(&to, &sandbox.restore_with("shifted", "again", &["--uid-map", "0:100000:65536"]));
}

#[test]
fn a_map_that_is_none_is_refused() {
    let sandbox = Sandbox::bare();
    for map in ["", "0", "0:1", "0:100000:0", "root:100000:1", "0:1:10,5:100:10"] {
        let ran = sandbox.run(["restore", "db", "--uid-map", map]);
        assert_eq!(ran.code, Some(2), "{map:?}: {}", ran.err);
        assert!(ran.err.contains("--uid-map"), "{map:?}: {}", ran.err);
    }
}
