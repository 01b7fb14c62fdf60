//! Killed at any moment: what is committed stays, what was uploaded is used, and nothing is half-done.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::cli::tree::{noise, write};
use support::cli::{Lock, Ran, Sandbox, assert_same_tree, differences};

const BACKUP: [&str; 5] = ["backup", "--name", "v", "--path", "source"];

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("sent");
}

fn start(sandbox: &Sandbox, args: &[&str]) -> Child {
    sandbox.command(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("voltool runs")
}

fn end(child: Child) -> Ran {
    Ran::of(child.wait_with_output().expect("it ends"))
}

/// Waits until something is so, while the child runs. Returns whether it came to be.
fn until(child: &mut Child, mut so: impl FnMut() -> bool) -> bool {
    loop {
        if so() {
            return true;
        }
        if child.try_wait().expect("waited").is_some() {
            return so();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// How long a command takes when nobody kills it: kills are spread over that.
fn measured(sandbox: &Sandbox, args: &[&str]) -> Duration {
    let begin = Instant::now();
    sandbox.run(args).ok();
    begin.elapsed()
}

/// Content that does not compress, in large and in small files.
fn incompressible(root: &Path) -> u64 {
    for n in 0..5u64 {
        write(&root.join(format!("large {n}")), &noise(n, 12 << 20));
    }
    for n in 0..200u64 {
        write(&root.join(format!("small/{n}")), &noise(1000 + n, 20_000));
    }
    5 * (12 << 20) + 200 * 20_000
}

#[test]
fn a_backup_that_is_killed_again_and_again() {
    let sandbox = Sandbox::new(Lock::Identity);
    let source = sandbox.folder("source");
    let size = incompressible(&source);
    // What it takes without a kill, in a repository of its own.
    let other = Sandbox::new(Lock::Identity);
    let path = source.to_str().expect("UTF-8");
    let whole = measured(&other, &["backup", "--name", "v", "--path", path]);
    let clean = other.pack_bytes();
    assert!(clean > size);

    let mut kept = 0;
    for n in 1..=12u32 {
        let mut child = start(&sandbox, &BACKUP);
        std::thread::sleep(whole * n / 13);
        // It may have been faster this time.
        let done = child.try_wait().expect("waited").is_some();
        child.kill().expect("killed");
        child.wait().expect("it ends");
        let listed = sandbox.snapshots().len();
        assert!(!done || listed > 0, "kill {n}: it ended, and there is no snapshot");
        // What is there is never fewer than before.
        let now = sandbox.pack_bytes();
        assert!(now >= kept, "kill {n}: {now} bytes of {kept} are left");
        kept = now;
    }
    let before = sandbox.pack_bytes();
    let row = sandbox.backup(&source, "v");
    let after = sandbox.pack_bytes();
    assert!(after as f64 <= clean as f64 * 1.3, "{after} bytes are stored; without a kill {clean}");
    let added = row["stored_bytes"].as_u64().expect("a number");
    assert!(added <= (after - before) && added + before <= after + (1 << 20), "{row} {before} {after}");
    for row in sandbox.snapshots() {
        let id = row["id"].as_str().expect("an id");
        assert_eq!(row["bytes"], size);
        sandbox.forget_local();
        assert_same_tree(&source, &sandbox.restore(&format!("v@{id}"), id));
    }
    // An unchanged tree needs nothing, whatever lies about.
    assert_eq!(sandbox.backup(&source, "v")["added_bytes"], 0);
}

#[test]
fn what_a_killed_backup_uploaded_is_not_uploaded_again() {
    let sandbox = Sandbox::new(Lock::None);
    let source = sandbox.folder("source");
    let size = incompressible(&source);
    let mut child = start(&sandbox, &BACKUP);
    // Killed as soon as two packs are there, whenever that is.
    assert!(until(&mut child, || sandbox.objects("packs").len() >= 2), "it ended before");
    send(&child, Signal::KILL);
    child.wait().expect("it ends");
    let left = sandbox.pack_bytes();
    let committed = sandbox.snapshots().len();
    assert!(committed == 0 && left > 30 << 20, "{committed} {left}");
    // The host is another one: cache and state are gone.
    sandbox.forget_local();
    let row = sandbox.backup(&source, "v");
    let added = row["added_bytes"].as_u64().expect("a number");
    assert!(added <= size - left + (4 << 20), "{added} of {size} added, {left} were there");
    assert_same_tree(&source, &sandbox.restore("v", "restored"));
}

#[test]
fn a_signal_ends_a_backup_with_130() {
    for signal in [Signal::INT, Signal::TERM] {
        let sandbox = Sandbox::new(Lock::Identity);
        let source = sandbox.folder("source");
        incompressible(&source);
        let mut child = start(&sandbox, &BACKUP);
        assert!(until(&mut child, || !sandbox.objects("packs").is_empty()));
        send(&child, signal);
        let ran = end(child);
        ran.fails_plainly(130, &["voltool: interrupted: what was uploaded is kept"]);
        assert!(sandbox.snapshots().is_empty());
        sandbox.backup(&source, "v");
        assert_same_tree(&source, &sandbox.restore("v", "restored"));
    }
}

/// A backup that stands still where it is, in the middle of its work, until it is told to go on.
fn stopped_backup(sandbox: &Sandbox) -> Child {
    let mut child = start(sandbox, &BACKUP);
    assert!(until(&mut child, || !sandbox.objects("sessions").is_empty()));
    send(&child, Signal::STOP);
    child
}

#[test]
fn two_backups_of_one_volume_at_once() {
    let sandbox = Sandbox::new(Lock::Identity);
    let source = sandbox.folder("source");
    incompressible(&source);
    write(&sandbox.path("other/f"), b"f");
    let first = stopped_backup(&sandbox);
    sandbox.run(BACKUP).fails(11, &["another run is backing up v"]);
    // Another volume is nobody's business.
    sandbox.backup(&sandbox.path("other"), "w");
    send(&first, Signal::CONT);
    assert_eq!(end(first).code, Some(0));
    let volumes: Vec<_> = sandbox.snapshots().iter().map(|row| row["volume"].clone()).collect();
    assert_eq!(volumes.len(), 2);
    // A dead run holds nothing.
    write(&source.join("new"), &noise(77, 1 << 20));
    let second = stopped_backup(&sandbox);
    send(&second, Signal::KILL);
    end(second);
    sandbox.backup(&source, "v");
    assert_same_tree(&source, &sandbox.restore("v", "restored"));
}

#[test]
fn a_restore_that_is_killed_leaves_the_old_or_the_new() {
    let sandbox = Sandbox::new(Lock::Identity);
    let source = sandbox.folder("source");
    incompressible(&source);
    std::fs::hard_link(source.join("large 1"), source.join("small/link")).expect("linked");
    sandbox.backup(&source, "v");
    let old = sandbox.folder("old");
    for n in 0..300u64 {
        write(&old.join(format!("small/{n}")), &noise(5000 + n, 3000));
    }
    let target = sandbox.path("place/target");
    let reset = || {
        let _ = std::fs::remove_dir_all(sandbox.path("place"));
        std::fs::create_dir(sandbox.path("place")).expect("made");
        let status = Command::new("cp").arg("-a").args([&old, &target]).status().expect("cp runs");
        assert!(status.success());
    };
    let args = ["restore", "v", "--replace", "--to-dir", "place/target"];
    reset();
    let whole = measured(&sandbox, &args);
    let (mut olds, mut news) = (0, 0);
    reset();
    for n in 1..=12u32 {
        let mut child = start(&sandbox, &args);
        std::thread::sleep(whole * n / 12);
        child.kill().expect("killed");
        child.wait().expect("it ends");
        match differences(&old, &target).is_empty() {
            true => olds += 1,
            false => {
                assert_same_tree(&source, &target);
                news += 1;
                reset();
            }
        }
    }
    assert!(olds > 0, "every kill came too late: {news} are new");
    // Leftovers are in nobody's way.
    sandbox.run(args).ok();
    assert_same_tree(&source, &target);
}

#[test]
fn a_restore_that_is_killed_at_the_exchange() {
    let sandbox = Sandbox::new(Lock::None);
    let source = sandbox.folder("source");
    for n in 0..3000u64 {
        write(&source.join(format!("d{}/{n}", n % 10)), b"new");
    }
    sandbox.backup(&source, "v");
    let (old, target) = (sandbox.folder("old"), sandbox.path("place/target"));
    for n in 0..3000u64 {
        write(&old.join(format!("e{}/{n}", n % 10)), b"old");
    }
    std::fs::create_dir(sandbox.path("place")).expect("made");
    assert!(Command::new("cp").arg("-a").args([&old, &target]).status().expect("cp runs").success());
    let inode = std::fs::metadata(&target).expect("there").ino();
    let mut child = start(&sandbox, &["restore", "v", "--replace", "--to-dir", "place/target"]);
    assert!(until(&mut child, || std::fs::metadata(&target).is_ok_and(|meta| meta.ino() != inode)));
    send(&child, Signal::KILL);
    child.wait().expect("it ends");
    assert_same_tree(&source, &target);
    // Restored once more, now without what the old content left beside it being touched or in the way.
    sandbox.run(["restore", "v", "--replace", "--to-dir", "place/target"]).ok();
    assert_same_tree(&source, &target);
}

#[test]
fn a_signal_ends_a_restore_with_everything_as_it_was() {
    let sandbox = Sandbox::new(Lock::Identity);
    let source = sandbox.folder("source");
    incompressible(&source);
    sandbox.backup(&source, "v");
    write(&sandbox.path("place/target/old"), b"old");
    let staged = || {
        let names = std::fs::read_dir(sandbox.path("place")).expect("read").map(|e| e.expect("read").file_name());
        names.filter(|name| name.to_string_lossy().contains(".voltool-restore-")).count()
    };
    let mut child = start(&sandbox, &["restore", "v", "--replace", "--to-dir", "place/target"]);
    assert!(until(&mut child, || staged() > 0));
    send(&child, Signal::INT);
    let ran = end(child);
    ran.fails_plainly(130, &["interrupted"]);
    assert_eq!(std::fs::read(sandbox.path("place/target/old")).expect("read"), b"old");
    assert_eq!(std::fs::read_dir(sandbox.path("place/target")).expect("read").count(), 1);
    assert_eq!(staged(), 0, "what was half-restored is left over");
}

#[test]
fn an_export_whose_reader_goes_away() {
    let sandbox = Sandbox::new(Lock::None);
    let source = sandbox.folder("source");
    incompressible(&source);
    sandbox.backup(&source, "v");
    let mut child =
        sandbox.command(["export", "v"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("voltool runs");
    let mut out = child.stdout.take().expect("piped");
    out.read_exact(&mut [0; 1000]).expect("a beginning");
    drop(out);
    let ran = end(child);
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
    // What writes a tar must not say that it did when it did not.
    assert_ne!((ran.code, ran.err.contains("exported")), (Some(0), true), "{}", ran.err);
}

#[test]
fn progress_goes_to_stderr_and_nothing_to_stdout() {
    let sandbox = Sandbox::new(Lock::None);
    let source = sandbox.folder("source");
    write(&source.join("f"), b"f");
    let mut child =
        sandbox.command(BACKUP).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("voltool runs");
    let (sender, lines) = mpsc::channel();
    for pipe in [
        Box::new(child.stdout.take().expect("piped")) as Box<dyn Read + Send>,
        Box::new(child.stderr.take().expect("piped")),
    ]
    .into_iter()
    .enumerate()
    {
        let sender = sender.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe.1).lines() {
                let _ = sender.send((pipe.0, line.expect("UTF-8")));
            }
        });
    }
    drop(sender);
    let lines: Vec<_> = lines.iter().collect();
    assert!(child.wait().expect("it ends").success());
    assert!(lines.iter().all(|(pipe, _)| *pipe == 1), "{lines:?}");
    assert!(lines[0].1.contains("backing up v") && lines[1].1.contains("backed up v"), "{lines:?}");
    let quiet = sandbox.run([&["--quiet"], &BACKUP[..]].concat());
    assert_eq!((quiet.code, quiet.err.as_str(), quiet.out.len()), (Some(0), "", 0));
}
