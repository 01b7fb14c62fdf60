//! What the catalog survives, and that it never begins anew without a word.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rusqlite::Connection;

use super::support::cli::{Ran, Sandbox};
use super::support::host::Host;
use super::{catalog, file};

/// Runs `ls`, asserts that it did its work, and returns what it had to say on the side.
#[track_caller]
fn ls(host: &Host) -> String {
    let ran = host.voltool(&["ls", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(String::from_utf8_lossy(&ran.out).contains("\"db\""));
    ran.err
}

/// Asserts that the catalog cannot be used, of which `ls` warns and `history` fails, and that the file stays as it is.
#[track_caller]
fn is_refused(host: &Host, texts: &[&str]) {
    let before = std::fs::read(file(&host.sandbox)).expect("there");
    let err = ls(host);
    for text in [&["warning: the catalog ", "catalog.db"], texts].concat() {
        assert!(err.contains(text), "{text:?} is not in: {err}");
    }
    assert_eq!(err.matches("warning").count(), 1, "said once: {err}");
    host.voltool(&["history"]).fails(1, texts);
    assert!(std::fs::read(file(&host.sandbox)).expect("there") == before, "it was changed");
}

/// Puts the catalog back as it was.
fn put(sandbox: &Sandbox, content: &[u8]) {
    for end in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(sandbox.path(&format!("state/catalog.db{end}")));
    }
    std::fs::write(file(sandbox), content).expect("written");
}

#[test]
fn a_file_that_cannot_be_used_is_named_and_left_alone() {
    let host = Host::bare();
    host.run_container("pg", &["-v", "db:/data"]);
    assert_eq!(ls(&host), "");
    assert_eq!(std::fs::metadata(file(&host.sandbox)).expect("made").permissions().mode() & 0o777, 0o600);
    let names = |folder: &Path| {
        let entries = std::fs::read_dir(folder).expect("a folder");
        entries.map(|entry| entry.expect("one").file_name().into_string().expect("UTF-8")).collect::<Vec<_>>()
    };
    let folder = host.sandbox.path("state");
    assert_eq!(names(&folder).iter().filter(|name| name.starts_with("catalog")).count(), 1, "{:?}", names(&folder));
    let good = std::fs::read(file(&host.sandbox)).expect("read");

    put(&host.sandbox, b"");
    is_refused(&host, &["is damaged: the file is empty", "move it aside"]);
    put(&host.sandbox, b"not a database at all\n");
    is_refused(&host, &["is not an SQLite database", "move it aside"]);
    put(&host.sandbox, &good[..60]);
    is_refused(&host, &["move it aside"]);
    put(&host.sandbox, &good[..good.len() / 2]);
    is_refused(&host, &["is damaged", "move it aside"]);
    for at in [100, 4096 * 2, good.len() - 4096] {
        let mut bad = good.clone();
        bad[at..at + 64].fill(0xa5);
        put(&host.sandbox, &bad);
        is_refused(&host, &["is damaged", "move it aside"]);
    }
    let mut other = good.clone();
    other[68..72].copy_from_slice(&0_u32.to_be_bytes());
    put(&host.sandbox, &other);
    is_refused(&host, &["is a database, but not voltool's"]);

    // Of a newer voltool, as SQLite would leave it: checkpointed, or still in its journal.
    put(&host.sandbox, &good);
    let newer = Connection::open(file(&host.sandbox)).expect("opened");
    newer.pragma_update(None, "user_version", 99).expect("set");
    let err = ls(&host);
    assert!(err.contains("is of version 99") && err.contains("update voltool"), "{err}");
    drop(newer);
    is_refused(&host, &["is of version 99", "update voltool"]);

    // A table that is missing is damage, too.
    put(&host.sandbox, &good);
    Connection::open(file(&host.sandbox)).expect("opened").execute_batch("DROP TABLE uses").expect("dropped");
    let err = ls(&host);
    assert!(err.contains("is damaged: no such table: uses"), "{err}");

    // A journal without its database would be applied to a new one.
    put(&host.sandbox, &good);
    std::fs::rename(file(&host.sandbox), host.sandbox.path("state/away")).expect("moved");
    std::fs::write(host.sandbox.path("state/catalog.db-wal"), "left").expect("written");
    let err = ls(&host);
    assert!(err.contains("is gone, but the journal") && !file(&host.sandbox).exists(), "{err}");

    // Put back, it is as before; moved away as the hint says, a new one begins.
    put(&host.sandbox, &good);
    assert_eq!(ls(&host), "");
    assert_eq!(host.json(&["history", "db", "--json"])["incarnations"][0]["uses"][0]["container"], "pg");
    std::fs::rename(file(&host.sandbox), host.sandbox.path("state/away")).expect("moved");
    assert_eq!(ls(&host), "");

    // A folder in its place, and a folder above it that is a file.
    std::fs::remove_file(file(&host.sandbox)).expect("removed");
    std::fs::create_dir(file(&host.sandbox)).expect("made");
    assert!(ls(&host).contains("is not a file"));
    host.sandbox.file("no-folder", "");
    let ran = host.sandbox.run_with(
        "VOLTOOL_STATE_DIR",
        &format!("{}/state", host.sandbox.path("no-folder").display()),
        ["ls"],
    );
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("the catalog") && ran.err.contains("Not a directory"), "{}", ran.err);
}

/// Runs shell commands with a file system of its own at `$S`, which is voltool's state folder; `$V` is voltool.
#[track_caller]
fn on_own_file_system(host: &Host, script: &str) -> String {
    let state = host.sandbox.folder("small");
    let mut command = Command::new("unshare");
    host.sandbox.settle(&mut command);
    command.args(["--mount", "sh", "-euc", &format!("mount -t tmpfs -o size=1m none $S\n{script}")]);
    command.env("S", &state).env("V", env!("CARGO_BIN_EXE_voltool")).env("VOLTOOL_STATE_DIR", &state);
    let ran = Ran::of(command.output().expect("unshare (package util-linux) starts"));
    assert_eq!(ran.code, Some(0), "{}{}", ran.err, String::from_utf8_lossy(&ran.out));
    format!("{}{}", String::from_utf8_lossy(&ran.out), ran.err)
}

#[test]
fn a_full_or_read_only_disk_is_a_warning() {
    let host = Host::bare();
    host.run_container("pg", &["-v", "db:/data"]);

    // Full before there is a catalog; then there is room; then full again; then room again.
    let said = on_own_file_system(
        &host,
        "cat /dev/zero >$S/ballast 2>/dev/null || true
         $V ls; echo \"= first $?\"
         rm $S/ballast; $V ls; echo \"= second $?\"
         cat /dev/zero >$S/ballast 2>/dev/null || true
         $V ls; echo \"= third $?\"
         rm $S/ballast; $V history db; echo \"= fourth $?\"
         ls -A $S",
    );
    for part in ["= first 0", "= second 0", "= third 0", "= fourth 0"] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    assert_eq!(said.matches("warning: the catalog").count(), 2, "{said}");
    assert_eq!(said.matches("cannot be written: no space left on its file system (make room").count(), 2, "{said}");
    assert!(said.contains("/data"), "{said}");
    assert!(!said.contains(".new-"), "nothing half-made is left: {said}");

    // With a little room: for the file to be opened, and not for what is to be written.
    let said = on_own_file_system(
        &host,
        "$V ls >/dev/null
         for n in $(seq 40); do docker -H $DOCKER_HOST volume create filler-$n-$(head -c 60 /dev/zero | tr '\\0' x); done >/dev/null
         (cat /dev/zero >$S/ballast) 2>/dev/null || true
         for n in 1 2 3 4 5 6 7 8 9 10 11 12; do truncate -s -8k $S/ballast; $V ls >/dev/null; echo \"= full $?\"; done
         rm $S/ballast; $V ls >/dev/null; echo \"= room $?\"; $V history | grep -c filler-",
    );
    eprintln!("{said}");
    assert_eq!(said.matches("= full 0").count(), 12, "{said}");
    assert!(said.contains("cannot be written: no space left") && said.contains("= room 0"), "{said}");
    assert!(said.contains("\n40\n"), "{said}");

    // Read-only, without a catalog and with one.
    let said = on_own_file_system(
        &host,
        "mount -o remount,ro $S; $V ls; echo \"= first $?\"
         mount -o remount,rw $S; $V ls; mount -o remount,ro $S; $V ls; echo \"= second $?\"",
    );
    assert!(said.contains("= first 0") && said.contains("= second 0"), "{said}");
    assert_eq!(said.matches("warning: the catalog").count(), 2, "{said}");
    assert_eq!(said.matches("Read-only file system").count(), 2, "{said}");
}

#[test]
fn killed_processes_and_many_at_once() {
    let host = Host::bare();
    host.run_container("pg", &["-v", "db:/data", "-v", "/more"]);
    let start = || {
        let mut command = host.sandbox.command(["ls", "--json"]);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("voltool starts")
    };
    // Killed wherever they happen to be, also while the catalog is made; two at a time, so that one is at work while another dies.
    for round in 0..25 {
        let mut children = [start(), start()];
        std::thread::sleep(Duration::from_millis(round * 3));
        for child in &mut children {
            child.kill().expect("killed");
        }
        for child in children {
            let output = child.wait_with_output().expect("ended");
            assert_eq!(String::from_utf8_lossy(&output.stderr), "", "round {round}");
        }
    }
    assert_eq!(ls(&host), "");
    assert_eq!(host.json(&["history", "db", "--json"])["incarnations"][0]["uses"][0]["container"], "pg");

    // Many at once wait for each other, and all of it is kept.
    let engine = catalog(&host.sandbox).engines().expect("told").remove(0).key;
    let processes: Vec<_> = (0..6).map(|_| start()).collect();
    let path = file(&host.sandbox);
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let (path, engine) = (&path, &engine);
            scope.spawn(move || {
                for n in 0..60 {
                    // A connection of its own each time, as processes have.
                    let catalog = voltool::inventory::Catalog::open(path).expect("opened");
                    let command = format!("{writer} {n}");
                    catalog.note_decision(engine, "cli", &command, "allow", "{}").expect("noted");
                }
            });
        }
    });
    for process in processes {
        let output = process.wait_with_output().expect("ended");
        assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stderr)), (Some(0), ""));
    }
    let db = Connection::open(&path).expect("opened");
    let kept: i64 = db.query_row("SELECT count(*) FROM decisions", [], |row| row.get(0)).expect("told");
    assert_eq!(kept, 180);

    // One that does not let go is not waited for without end, and is no failure.
    let lock = Connection::open(&path).expect("opened");
    lock.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let err = ls(&host);
    assert!(err.contains("is being written by another process for too long"), "{err}");
    assert!(!err.contains("locked"), "{err}");
}
