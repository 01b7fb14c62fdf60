//! Random histories: whatever happened to a folder between its backups, each snapshot gives back what was there.

mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use proptest::test_runner::Config;
use support::cli::tree::{chmod, noise, set_mtime, set_xattr};
use support::cli::{Lock, Sandbox, assert_same_tree};

/// Something that people and programs do. Names are numbers of a small pool, so that they meet.
#[derive(Debug, Clone)]
enum Step {
    Write { name: usize, seed: u64, size: usize },
    Append { name: usize, seed: u64, size: usize },
    Overwrite { name: usize, seed: u64, at: u64, size: usize },
    Truncate { name: usize, to: u64 },
    Hole { name: usize, size: u64 },
    Folder { name: usize },
    Remove { name: usize },
    Rename { from: usize, to: usize },
    Link { from: usize, to: usize },
    Symlink { name: usize, target: usize },
    Mode { name: usize, mode: u32 },
    Touch { name: usize, nanos: u32 },
    Attribute { name: usize, value: u8 },
    Backup { forget: bool },
}

const NAMES: [&str; 12] = ["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "e", "e/a", "e/\u{fc}", "f.img", "a.b"];

fn name() -> impl Strategy<Value = usize> {
    0..NAMES.len()
}

/// Sizes around the limits: of bundled files, of chunks.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0usize..3000, 2 => 60_000usize..70_000, 1 => 500_000usize..2_500_000, 1 => Just(0)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (name(), 0u64..4, size()).prop_map(|(name, seed, size)| Step::Write { name, seed, size }),
        2 => (name(), 0u64..4, size()).prop_map(|(name, seed, size)| Step::Append { name, seed, size }),
        3 => (name(), any::<u64>(), 0u64..2_000_000, 1usize..9000)
            .prop_map(|(name, seed, at, size)| Step::Overwrite { name, seed, at, size }),
        1 => (name(), 0u64..200_000).prop_map(|(name, to)| Step::Truncate { name, to }),
        1 => (name(), 0u64..5_000_000).prop_map(|(name, size)| Step::Hole { name, size }),
        3 => name().prop_map(|name| Step::Folder { name }),
        2 => name().prop_map(|name| Step::Remove { name }),
        3 => (name(), name()).prop_map(|(from, to)| Step::Rename { from, to }),
        3 => (name(), name()).prop_map(|(from, to)| Step::Link { from, to }),
        1 => (name(), name()).prop_map(|(name, target)| Step::Symlink { name, target }),
        2 => (name(), prop::sample::select(vec![0o600, 0o644, 0o755, 0o4711, 0o1777]))
            .prop_map(|(name, mode)| Step::Mode { name, mode }),
        2 => (name(), 0u32..1_000_000_000).prop_map(|(name, nanos)| Step::Touch { name, nanos }),
        1 => (name(), any::<u8>()).prop_map(|(name, value)| Step::Attribute { name, value }),
        5 => any::<bool>().prop_map(|forget| Step::Backup { forget }),
    ]
}

/// Does a step, if it can be done: most of them need something that may not be there.
fn act(root: &Path, step: &Step, number: i64) {
    let at = |name: &usize| root.join(NAMES[*name]);
    let is_file = |path: &Path| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file());
    let is_there = |path: &Path| fs::symlink_metadata(path).is_ok();
    let open = |path: &Path| fs::File::options().write(true).open(path).expect("opened");
    match step {
        Step::Write { name, seed, size } if !at(name).is_dir() && !at(name).is_symlink() => {
            let _ = fs::write(at(name), noise(*seed, *size));
        }
        Step::Append { name, seed, size } if is_file(&at(name)) => {
            let file = open(&at(name));
            let end = file.metadata().expect("there").len();
            file.write_all_at(&noise(*seed, *size), end).expect("written");
        }
        Step::Overwrite { name, seed, at: offset, size } if is_file(&at(name)) => {
            let file = open(&at(name));
            let offset = offset % (file.metadata().expect("there").len() + 1);
            file.write_all_at(&noise(*seed, *size), offset).expect("written");
        }
        Step::Truncate { name, to } if is_file(&at(name)) => open(&at(name)).set_len(*to).expect("set"),
        Step::Hole { name, size } if !is_there(&at(name)) => {
            if let Ok(file) = fs::File::create(at(name)) {
                file.set_len(*size).expect("set");
                file.write_all_at(b"data", size / 2).expect("written");
            }
        }
        Step::Folder { name } => drop(fs::create_dir(at(name))),
        Step::Remove { name } if at(name).is_dir() && !at(name).is_symlink() => {
            fs::remove_dir_all(at(name)).expect("removed");
        }
        Step::Remove { name } => drop(fs::remove_file(at(name))),
        Step::Rename { from, to } => drop(fs::rename(at(from), at(to))),
        Step::Link { from, to } => drop(fs::hard_link(at(from), at(to))),
        Step::Symlink { name, target } => drop(std::os::unix::fs::symlink(NAMES[*target], at(name))),
        Step::Mode { name, mode } if is_there(&at(name)) && !at(name).is_symlink() => chmod(&at(name), *mode),
        // Never the same time twice: who sets back a time after a change hides it, and means to.
        Step::Touch { name, nanos } if is_there(&at(name)) => set_mtime(&at(name), 1_000_000_000 + number, *nanos),
        Step::Attribute { name, value } if is_there(&at(name)) && !at(name).is_symlink() => {
            set_xattr(&at(name), "user.value", &[*value]);
        }
        _ => {}
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().expect("cp runs").success());
}

fn each_snapshot_is_what_was_there(lock: Lock, steps: &[Step]) {
    let sandbox = Sandbox::new(lock);
    let source = sandbox.folder("source");
    let mut kept: Vec<(String, PathBuf)> = Vec::new();
    let mut back_up = |forget: bool| {
        if forget {
            sandbox.forget_local();
        }
        let row = sandbox.backup(&source, "v");
        let copied = sandbox.path(&format!("copy {}", kept.len()));
        copy(&source, &copied);
        kept.push((row["id"].as_str().expect("an id").to_owned(), copied));
    };
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Backup { forget } => back_up(*forget),
            step => act(&source, step, number as i64),
        }
    }
    back_up(false);
    for (n, (id, copied)) in kept.iter().enumerate() {
        assert_same_tree(copied, &sandbox.restore(&format!("v@{id}"), &format!("restored {n}")));
    }
    // And over one another, oldest onto newest.
    let target = sandbox.path("restored 0");
    for (id, copied) in kept.iter().rev() {
        let to = target.to_str().expect("UTF-8");
        sandbox.run(["restore", &format!("v@{id}"), "--replace", "--to-dir", to]).ok();
        assert_same_tree(copied, &target);
    }
}

proptest! {
    // Each case is a dozen runs of voltool. `PROPTEST_CASES` makes it more thorough.
    #![proptest_config(Config {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(12),
        max_shrink_iters: 40,
        failure_persistence: None,
        ..Config::default()
    })]

    #[test]
    fn plain(steps in prop::collection::vec(step(), 10..40)) {
        each_snapshot_is_what_was_there(Lock::None, &steps);
    }

    #[test]
    fn encrypted(steps in prop::collection::vec(step(), 10..40)) {
        each_snapshot_is_what_was_there(Lock::Identity, &steps);
    }
}
