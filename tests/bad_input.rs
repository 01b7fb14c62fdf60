//! What people and machines do wrong: each ends with its exit code, a message that names the object, and what to do.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use support::cli::tree::{chmod, noise, write};
use support::cli::{Lock, PASSPHRASE, Ran, Sandbox, assert_same_tree, is_root};
use support::mem_s3::{BUCKET, MemS3, Server};

/// A sandbox with a repository and one backup of `source`.
fn backed_up(lock: Lock) -> (Sandbox, PathBuf) {
    let sandbox = Sandbox::new(lock);
    let source = sandbox.folder("source");
    write(&source.join("f"), b"content");
    write(&source.join("d/large"), &noise(1, 300_000));
    sandbox.backup(&source, "database");
    (sandbox, source)
}

const VERBS: [&[&str]; 4] = [
    &["snapshots"],
    &["restore", "database", "--to-dir", "to"],
    &["export", "database"],
    &["backup", "--path", "source", "--name", "database"],
];

#[test]
fn a_wrong_identity() {
    let (mut sandbox, _) = backed_up(Lock::Identity);
    let other = Sandbox::new(Lock::Identity);
    let wrong = other.path("identity.txt").to_str().expect("UTF-8").to_owned();
    for forget in [false, true] {
        for verb in VERBS {
            if forget {
                sandbox.forget_local();
            }
            let ran = sandbox.run([&["--identity", &wrong], verb].concat());
            ran.fails(12, &["none of the given keys opens the repository", &sandbox.repo]);
        }
    }
    std::fs::remove_file(sandbox.path("identity.txt")).expect("removed");
    for verb in VERBS {
        let ran = sandbox.run(verb);
        ran.fails(12, &["is encrypted, and no identity or passphrase was given", &sandbox.repo]);
    }
    sandbox.set("VOLTOOL_IDENTITY", "/nonexistent/identity");
    sandbox.run(["snapshots"]).fails_plainly(1, &["/nonexistent/identity", "VOLTOOL_IDENTITY"]);
    assert!(!sandbox.path("to").exists());
}

#[test]
fn a_wrong_passphrase() {
    let (sandbox, source) = backed_up(Lock::Passphrase);
    let wrong = sandbox.file("wrong", "another passphrase\n");
    for verb in VERBS {
        let ran = sandbox.run([&["--passphrase-file", &wrong], verb].concat());
        ran.fails(12, &["none of the given keys opens the repository", &sandbox.repo]);
        assert!(!ran.err.contains("another passphrase"));
    }
    // From the environment, without the file that the configuration names.
    let config = sandbox.file("other.toml", &format!("repo = {:?}\n", sandbox.repo));
    let run = |value: &str| sandbox.run_with("VOLTOOL_PASSPHRASE", value, ["--config", &config, "snapshots"]);
    run("wrong").fails(12, &["none of the given keys"]);
    run(PASSPHRASE).ok();
    assert_same_tree(&source, &sandbox.restore("database", "restored"));
}

#[test]
fn an_unreadable_or_senseless_secret_is_an_error_and_never_plain_text() {
    let sandbox = Sandbox::bare();
    let file = |name: &str, content: &str| sandbox.file(name, content);
    let (empty, lines) = (file("empty", "\n"), file("lines", "a\nb\n"));
    let folder = sandbox.folder("folder").to_str().expect("UTF-8").to_owned();
    let init = |args: &[&str]| sandbox.run([&["--repo", &sandbox.repo], args, &["init"]].concat());
    for (path, text) in [
        ("/nonexistent/p", "cannot read"),
        (&folder, "cannot read"),
        (&empty, "is empty"),
        (&lines, "more than one line"),
    ] {
        init(&["--passphrase-file", path]).fails_plainly(1, &["passphrase file", path, text]);
    }
    let nonsense = file("nonsense", "AGE-SECRET-KEY-1NONSENSE\n");
    init(&["--identity", &nonsense]).fails(1, &["cannot use identity file", &nonsense]);
    assert!(!init(&["--identity", &nonsense]).err.contains("NONSENSE\n"));
    let run = |name: &str, value: &str, args: &[&str]| {
        sandbox.run_with(name, value, [&["--repo", &sandbox.repo], args].concat())
    };
    run("VOLTOOL_PASSPHRASE", "", &["init"]).fails(2, &["VOLTOOL_PASSPHRASE", "empty"]);
    run("VOLTOOL_PASSPHRASE_FILE", "", &["init"]).fails(2, &["VOLTOOL_PASSPHRASE_FILE", "empty"]);
    let good = file("good", "good\n");
    run("VOLTOOL_PASSPHRASE", "value", &["--passphrase-file", &good, "init"]).fails(2, &["given twice"]);
    run("VOLTOOL_PASSPHRASE", "value", &["init", "--no-encrypt"]).fails(2, &["--no-encrypt"]);
    run("VOLTOOL_PASSPHRASE_FILE", &good, &["init", "--no-encrypt"]).fails(2, &["--no-encrypt"]);
    assert!(sandbox.objects("").iter().all(|path| !path.ends_with("voltool.json")), "a repository was made");
    assert!(!sandbox.path("config.toml").exists() && !sandbox.path("identity.txt").exists());
    init(&[]).ok();
    run("VOLTOOL_PASSPHRASE", "", &["snapshots"]).fails(2, &["VOLTOOL_PASSPHRASE", "empty"]);
}

#[test]
fn no_repository() {
    let sandbox = Sandbox::bare();
    sandbox.file("config.toml", "");
    let source = sandbox.folder("source");
    write(&source.join("f"), b"x");
    for verb in VERBS {
        sandbox.run(verb).fails(10, &["no repository is configured"]);
        sandbox.run([&["--repo", &sandbox.repo], verb].concat()).fails(10, &["no repository at", &sandbox.repo]);
    }
    let empty = sandbox.folder("empty").to_str().expect("UTF-8").to_owned();
    sandbox.run(["--repo", &empty, "snapshots"]).fails(10, &["no repository at", &empty]);
    let file = sandbox.file("file", "");
    sandbox.run(["--repo", &file, "init"]).fails(10, &[&file, "not a directory"]);
    assert!(!Path::new(&sandbox.repo).exists() && !sandbox.path("to").exists());
}

#[test]
fn init_never_overwrites() {
    let (sandbox, source) = backed_up(Lock::Identity);
    let state = || {
        let objects = sandbox.objects("").into_iter().map(|path| std::fs::read(path).expect("read"));
        let files = ["config.toml", "identity.txt"].map(|name| std::fs::read(sandbox.path(name)).expect("read"));
        objects.chain(files).collect::<Vec<_>>()
    };
    let before = state();
    for lock in [Lock::Identity, Lock::None, Lock::Passphrase] {
        sandbox.init(lock).fails(1, &["already holds a repository", &sandbox.repo]);
    }
    assert!(before == state(), "init has changed something");
    assert_same_tree(&source, &sandbox.restore("database", "restored"));
    // Neither are other people's files.
    let other = sandbox.folder("photos");
    write(&other.join("keys/holiday.jpg"), b"photo");
    let ran = sandbox.run(["--repo", other.to_str().expect("UTF-8"), "init", "--no-config"]);
    assert_eq!(std::fs::read(other.join("keys/holiday.jpg")).expect("read"), b"photo", "{}", ran.err);
}

#[test]
fn a_repository_of_a_later_version() {
    let (sandbox, _) = backed_up(Lock::None);
    let file = Path::new(&sandbox.repo).join("voltool.json");
    let good = std::fs::read_to_string(&file).expect("read");
    for (from, to, text) in [
        ("\"format\": 1", "\"format\": 2, \"new\": {}", "format 2"),
        ("\"features\": []", "\"features\": [\"time-travel\"]", "time-travel"),
    ] {
        assert!(good.contains(from), "{good}");
        std::fs::write(&file, good.replace(from, to)).expect("written");
        for verb in VERBS {
            sandbox.run(verb).fails(1, &["needs a newer voltool", text, &sandbox.repo]);
        }
    }
    std::fs::write(&file, &good[..good.len() / 2]).expect("written");
    sandbox.run(["snapshots"]).fails(1, &["voltool.json is damaged"]);
}

#[test]
fn a_volume_or_a_snapshot_that_does_not_exist() {
    let (sandbox, _) = backed_up(Lock::None);
    for verb in [&["restore", "databse", "--to-dir", "to"][..], &["export", "databse"], &["snapshots", "databse"]] {
        sandbox.run(verb).fails(1, &["there is no snapshot of databse", "hint: did you mean database?"]);
    }
    for verb in [&["restore", "zzz", "--to-dir", "to"][..], &["export", "zzz"], &["snapshots", "zzz"]] {
        sandbox.run(verb).fails(1, &["there is no snapshot of zzz", "'voltool snapshots'"]);
    }
    for which in ["00000000000000000000000000", "7", "2001-01-01", "2001-01-01T03:00:00Z"] {
        let what = format!("database@{which}");
        sandbox.run(["restore", &what, "--to-dir", "to"]).fails(1, &["database has no such snapshot"]);
        sandbox.run(["export", &what]).fails(1, &["database has no such snapshot"]);
    }
    sandbox.run(["backup", "--name", "x", "--path", "nowhere"]).fails_plainly(1, &["cannot read nowhere"]);
    sandbox.run(["backup", "--name", "x", "--path", "source/f"]).fails_plainly(1, &["source/f is not a folder"]);
    sandbox.run(["backup", "nothing"]).fails(1, &["/nonexistent/docker.sock"]);
    assert!(!sandbox.path("to").exists());
}

fn s3() -> (tokio::runtime::Runtime, Server) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let server = runtime.block_on(MemS3::new().serve());
    (runtime, server)
}

#[test]
fn trouble_with_a_bucket() {
    let (_runtime, server) = s3();
    let mut sandbox = Sandbox::on_s3(&server, "p");
    let source = sandbox.folder("source");
    write(&source.join("f"), b"x");
    sandbox.run(["--repo", "s3://nosuchbucket/p", "init"]).fails(10, &["s3://nosuchbucket", "hint: create the bucket"]);
    assert!(!sandbox.path("identity.txt").exists() && !sandbox.path("config.toml").exists());
    sandbox.file("config.toml", "");
    sandbox.run(["--repo", &sandbox.repo, "snapshots"]).fails(10, &["no repository at", &sandbox.repo]);
    sandbox.init(Lock::Identity).ok();
    sandbox.run(["--repo", "s3://nosuchbucket/p", "snapshots"]).fails(10, &["s3://nosuchbucket"]);

    let secret = sandbox.file("unused", "");
    for (name, value) in [("AWS_SECRET_ACCESS_KEY", secret.as_str()), ("AWS_ACCESS_KEY_ID", "nobody")] {
        for verb in VERBS {
            let ran = sandbox.run_with(name, value, verb);
            ran.fails(1, &[&sandbox.repo, "hint: check the credentials"]);
            assert!(!ran.err.contains(support::mem_s3::SECRET_KEY) && !ran.err.contains(&secret));
        }
    }
    sandbox.unset("AWS_ACCESS_KEY_ID");
    sandbox.unset("AWS_SECRET_ACCESS_KEY");
    sandbox.run(["snapshots"]).fails(1, &[&sandbox.repo, "hint: check the credentials"]);
    assert!(server.s3.keys().iter().all(|key| !key.starts_with("p/snapshots")));
}

#[test]
fn an_endpoint_that_nobody_answers_at() {
    let (_runtime, server) = s3();
    let mut sandbox = Sandbox::on_s3(&server, "p");
    let source = sandbox.folder("source");
    write(&source.join("f"), b"x");
    sandbox.init(Lock::Identity).ok();
    sandbox.backup(&source, "database");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address");
    let endpoint = format!("http://{free}");
    sandbox.set("AWS_ENDPOINT_URL", &endpoint);
    for verb in VERBS {
        sandbox.run(verb).fails(1, &[BUCKET, "hint: check the network and the endpoint"]);
    }
    assert!(!sandbox.path("to").exists());
}

#[test]
fn a_target_with_content() {
    let (sandbox, source) = backed_up(Lock::Identity);
    let target = sandbox.folder("target");
    write(&target.join("precious"), b"old");
    let before = sandbox.folder("before");
    write(&before.join("precious"), b"old");
    let run = |more: &[&str]| sandbox.run([&["restore", "database", "--to-dir", "target"], more].concat());
    run(&[]).fails(4, &["target is not empty", "--replace"]);
    assert_eq!(std::fs::read(target.join("precious")).expect("read"), b"old");
    // A part cannot replace the whole.
    assert_eq!(run(&["--replace", "--path", "f"]).code, Some(2));

    // A repository that cannot give it back changes nothing.
    let good: Vec<(PathBuf, Vec<u8>)> =
        sandbox.objects("packs").into_iter().map(|path| (path.clone(), std::fs::read(path).expect("read"))).collect();
    for (path, content) in &good {
        let mut bad = content.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        std::fs::write(path, bad).expect("written");
        sandbox.forget_local();
        run(&["--replace"]).fails(1, &["pack"]);
        assert_eq!(std::fs::read_dir(&target).expect("read").count(), 1, "{}", path.display());
        assert_eq!(std::fs::read(target.join("precious")).expect("read"), b"old");
        std::fs::write(path, content).expect("written");
    }
    let beside = || std::fs::read_dir(sandbox.path("")).expect("read").map(|e| e.expect("read").file_name());
    assert!(beside().all(|name| !name.to_string_lossy().contains(".voltool-")));
    sandbox.forget_local();
    run(&["--replace"]).ok();
    assert_same_tree(&source, &target);
    assert!(beside().all(|name| !name.to_string_lossy().contains(".voltool-")));
    let file = sandbox.file("file", "");
    sandbox.run(["restore", "database", "--to-dir", &file]).fails_plainly(1, &[&file]);
}

/// A file system of its own that is full soon; unmounted when dropped.
struct Small(PathBuf);

impl Small {
    /// `None` where nothing may be mounted.
    fn mount(at: PathBuf, size: &str) -> Option<Small> {
        std::fs::create_dir_all(&at).expect("made");
        let options = format!("size={size},mode=0755");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(&at).output().ok()?;
        output.status.success().then_some(Small(at))
    }

    fn grow(&self) {
        let status = Command::new("mount").args(["-o", "remount,size=200m"]).arg(&self.0).status().expect("runs");
        assert!(status.success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_repository_on_a_full_disk() {
    let mut sandbox = Sandbox::bare();
    let Some(disk) = Small::mount(sandbox.path("disk"), "24m") else { return };
    sandbox.repo = disk.0.join("repository").to_str().expect("UTF-8").to_owned();
    sandbox.init(Lock::Identity).ok();
    let source = sandbox.folder("source");
    write(&source.join("small"), b"x");
    sandbox.backup(&source, "v");
    write(&source.join("large"), &noise(1, 60 << 20));
    let backup = ["backup", "--name", "v", "--path", "source"];
    sandbox.run(backup).fails(1, &["backup of v failed", &sandbox.repo, "No space left", "hint: make room"]);
    assert_eq!(sandbox.snapshots().len(), 1);
    assert_eq!(sandbox.run(["export", "v"]).code, Some(0), "what is committed is not affected");
    disk.grow();
    sandbox.backup(&source, "v");
    assert_same_tree(&source, &sandbox.restore("v", "restored"));
}

#[test]
fn local_state_on_a_full_disk() {
    let mut sandbox = Sandbox::new(Lock::None);
    let source = sandbox.folder("source");
    for n in 0..4000 {
        write(&source.join(format!("{n} {}", "n".repeat(200))), b"");
    }
    for (variable, folder) in [("VOLTOOL_STATE_DIR", "small state"), ("VOLTOOL_CACHE_DIR", "small cache")] {
        let Some(disk) = Small::mount(sandbox.path(folder), "64k") else { return };
        sandbox.set(variable, disk.0.to_str().expect("UTF-8"));
        let before = sandbox.snapshots().len();
        let ran = sandbox.run(["backup", "--name", "v", "--path", "source"]);
        // It may do without, or say so.
        if ran.code != Some(0) {
            ran.fails_plainly(1, &["backup of v failed", disk.0.to_str().expect("UTF-8"), "No space left"]);
            assert_eq!(sandbox.snapshots().len(), before);
        }
        disk.grow();
        sandbox.backup(&source, "v");
        assert_same_tree(&source, &sandbox.restore("v", &format!("restored {folder}")));
    }
}

#[test]
fn a_target_on_a_full_disk() {
    let (sandbox, source) = backed_up(Lock::Identity);
    for n in 0..20 {
        write(&source.join(format!("more/{n}")), &noise(n, 1 << 20));
    }
    sandbox.backup(&source, "database");
    let Some(disk) = Small::mount(sandbox.path("disk"), "8m") else { return };
    // A folder on it, and the file system itself, beside which nothing can be prepared.
    for target in [disk.0.join("folder"), disk.0.clone()] {
        let to = target.to_str().expect("UTF-8");
        sandbox.run(["restore", "database", "--to-dir", to]).fails(1, &["cannot write more/", "No space left"]);
        let left: Vec<_> = std::fs::read_dir(&disk.0).expect("read").map(|e| e.expect("read").path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    let folder = disk.0.join("folder");
    write(&folder.join("old"), b"old");
    let to = folder.to_str().expect("UTF-8");
    sandbox.run(["restore", "database", "--replace", "--to-dir", to]).fails(1, &["No space left"]);
    assert_eq!(std::fs::read_dir(&disk.0).expect("read").count(), 1);
    assert_eq!(std::fs::read(folder.join("old")).expect("read"), b"old");
    disk.grow();
    sandbox.run(["restore", "database", "--replace", "--to-dir", to]).ok();
    assert_same_tree(&source, &folder);
    std::fs::remove_dir_all(&folder).expect("removed");
    sandbox.run(["restore", "database", "--to-dir", disk.0.to_str().expect("UTF-8")]).ok();
    assert_same_tree(&source, &disk.0);
}

/// Does something again and again until it is dropped.
struct Busy<'a> {
    stop: &'a AtomicBool,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[test]
fn files_that_change_while_they_are_read() {
    let sandbox = Sandbox::new(Lock::None);
    let source = sandbox.folder("source");
    for n in 0..300 {
        write(&source.join(format!("steady/{n}")), &noise(n, 10_000));
    }
    write(&source.join("steady/large"), &noise(1000, 2 << 20));
    let secret = sandbox.folder("outside");
    write(&secret.join("secret"), b"must not be read");
    let steady = sandbox.path("steady");
    assert!(Command::new("cp").arg("-a").args([source.join("steady"), steady.clone()]).status().expect("cp").success());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _busy = Busy { stop: &stop };
        for n in 0..3u64 {
            let (source, secret, stop) = (&source, &secret, &stop);
            scope.spawn(move || change(&source.join(format!("changing {n}")), secret, stop, n));
        }
        for round in 0..8 {
            let ran = sandbox.run(["backup", "--json", "--name", "v", "--path", "source"]);
            assert!(matches!(ran.code, Some(0 | 3)), "{:?} {}", ran.code, ran.err);
            let rows: serde_json::Value = serde_json::from_slice(&ran.out).expect("JSON");
            let errors = rows[0]["errors"].as_array().expect("errors");
            assert_eq!(ran.code == Some(3), !errors.is_empty(), "{rows}");
            // Whatever went wrong is about what was changing.
            assert!(errors.iter().all(|e| e["path"].as_str().is_some_and(|p| p.starts_with("changing"))), "{rows}");
            let restored = sandbox.restore("v", &format!("restored {round}"));
            assert_same_tree(&steady, &restored.join("steady"));
            let found = Command::new("grep").args(["-rlE", "must not be read"]).arg(&restored).output().expect("runs");
            assert!(found.stdout.is_empty(), "a link was followed: {}", String::from_utf8_lossy(&found.stdout));
        }
    });
    sandbox.backup(&source, "v");
    assert_same_tree(&source, &sandbox.restore("v", "restored"));
}

/// Makes files vanish, grow, shrink, and become links and folders.
fn change(dir: &Path, secret: &Path, stop: &AtomicBool, mut seed: u64) {
    use std::fs;
    std::fs::create_dir_all(dir).expect("made");
    while !stop.load(Ordering::Relaxed) {
        seed += 1;
        let size = if seed.is_multiple_of(3) { 200_000 } else { 5_000 };
        let (file, name) = (dir.join("file"), dir.join("name"));
        // Whatever is in the way of one step is what the last one left; only the changes matter.
        let _ = fs::write(&file, noise(seed, size));
        let _ = fs::File::options().append(true).open(&file).and_then(|f| f.set_len(size as u64 * 2));
        let _ = fs::File::options().append(true).open(&file).and_then(|f| f.set_len(size as u64 / 2));
        let _ = fs::remove_file(&file);
        let _ = std::os::unix::fs::symlink(secret.join("secret"), &file);
        let _ = fs::remove_file(&file);
        let _ = fs::create_dir(&name);
        let _ = fs::write(name.join("secret"), b"inside");
        let _ = fs::remove_dir_all(&name);
        let _ = std::os::unix::fs::symlink(secret, &name);
        let _ = fs::remove_file(&name);
        let _ = fs::write(&name, noise(seed, 100));
        let _ = fs::hard_link(&name, dir.join("other name"));
        let _ = fs::remove_file(&name);
        let _ = fs::remove_file(dir.join("other name"));
    }
}

/// One of the processors that this process may run on.
fn a_processor() -> String {
    let status = std::fs::read_to_string("/proc/self/status").expect("read");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("listed").trim();
    list.split([',', '-']).next().expect("a number").to_owned()
}

#[test]
fn files_that_changed_between_being_seen_and_being_read() {
    let (_runtime, server) = s3();
    let sandbox = Sandbox::on_s3(&server, "p");
    sandbox.init(Lock::None).ok();
    let (source, outside) = (sandbox.folder("source"), sandbox.folder("outside"));
    write(&outside.join("secret"), b"must not be read");
    // On one processor files are read one after another: everything else comes after this one.
    write(&source.join("a large"), &noise(1, 64 << 20));
    let names = ["m grows", "n grows much", "o shrinks", "p vanishes", "q link", "r folder", "s fifo", "t replaced"];
    for name in names {
        write(&source.join(name), b"as it was seen");
    }
    write(&source.join("u folder/secret"), b"in the folder");
    let changed = AtomicBool::new(false);
    let (at, to) = (source.clone(), outside.clone());
    // The first pack is on its way: everything has been seen, and most of the first file is still to be read.
    server.s3.on_request(move |operation, key, _| {
        if operation == "PutObject" && key.contains("/packs/") && !changed.swap(true, Ordering::SeqCst) {
            use std::io::Write;
            let append = std::fs::File::options().append(true).open(at.join("a large"));
            append.and_then(|mut file| file.write_all(b"more")).expect("written");
            write(&at.join("m grows"), &[b'm'; 5000]);
            write(&at.join("n grows much"), &[b'n'; 500_000]);
            write(&at.join("o shrinks"), b"");
            for name in ["p vanishes", "q link", "r folder", "s fifo", "t replaced"] {
                std::fs::remove_file(at.join(name)).expect("removed");
            }
            std::os::unix::fs::symlink(to.join("secret"), at.join("q link")).expect("made");
            write(&at.join("r folder/secret"), b"must not be read");
            assert!(Command::new("mkfifo").arg(at.join("s fifo")).status().expect("mkfifo runs").success());
            write(&at.join("t replaced"), b"another");
            std::fs::rename(at.join("u folder"), to.join("moved")).expect("renamed");
            std::os::unix::fs::symlink(&to, at.join("u folder")).expect("made");
        }
        None
    });
    let mut command = Command::new("taskset");
    sandbox.settle(&mut command);
    command.args(["-c", &a_processor(), env!("CARGO_BIN_EXE_voltool")]);
    command.args(["backup", "--json", "--name", "v", "--path", "source"]);
    let ran = Ran::of(command.output().expect("taskset runs"));
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    let rows: serde_json::Value = serde_json::from_slice(&ran.out).expect("JSON");
    let errors = rows[0]["errors"].as_array().expect("errors");
    let mut paths: Vec<_> = errors.iter().map(|e| e["path"].as_str().expect("a path")).collect();
    paths.sort();
    assert_eq!(paths, ["a large", "q link", "r folder", "s fifo"], "{rows}");
    assert!(errors.iter().any(|e| e["error"] == "changed while it was read"), "{rows}");
    let restored = sandbox.restore("v", "restored");
    let read = |name: &str| std::fs::read(restored.join(name)).ok();
    assert_eq!(read("m grows"), Some(vec![b'm'; 5000]));
    assert_eq!(read("n grows much"), Some(vec![b'n'; 500_000]));
    assert_eq!((read("o shrinks"), read("t replaced")), (Some(Vec::new()), Some(b"another".to_vec())));
    // The folder that was seen is the one that was read, wherever it is by now.
    assert_eq!(read("u folder/secret"), Some(b"in the folder".to_vec()));
    for name in ["p vanishes", "q link", "r folder", "s fifo"] {
        assert!(std::fs::symlink_metadata(restored.join(name)).is_err(), "{name}");
    }
    // The next one has it all.
    sandbox.backup(&source, "v");
    assert_same_tree(&source, &sandbox.restore("v", "restored again"));
}

/// voltool as somebody who is not root.
fn as_nobody(sandbox: &Sandbox, args: &[&str]) -> Ran {
    let voltool = sandbox.path("voltool");
    if !voltool.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_voltool"), &voltool).expect("copied");
    }
    let mut command = Command::new("setpriv");
    sandbox.settle(&mut command);
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(voltool).args(args);
    Ran::of(command.output().expect("setpriv runs"))
}

#[test]
fn what_may_not_be_read_or_set_is_named() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::bare();
    let own = |path: &Path| std::os::unix::fs::chown(path, Some(65_534), Some(65_534)).expect("given");
    own(&sandbox.path(""));
    let source = sandbox.folder("source");
    for (name, mode) in [("open", 0o644), ("closed", 0o600)] {
        write(&source.join(name), name.as_bytes());
        chmod(&source.join(name), mode);
    }
    write(&source.join("shut/in it"), b"x");
    chmod(&source.join("shut"), 0o700);
    as_nobody(&sandbox, &["--repo", &sandbox.repo, "init"]).ok();
    let ran = as_nobody(&sandbox, &["backup", "--json", "--name", "v", "--path", "source"]);
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    let rows: serde_json::Value = serde_json::from_slice(&ran.out).expect("JSON");
    let mut paths: Vec<_> = rows[0]["errors"].as_array().expect("errors").iter().map(|e| e["path"].as_str()).collect();
    paths.sort();
    assert_eq!(paths, [Some("closed"), Some("shut")], "{rows}");
    assert!(ran.err.contains("closed: ") && ran.err.contains("shut: "), "{}", ran.err);
    let listed: serde_json::Value =
        serde_json::from_str(&as_nobody(&sandbox, &["snapshots", "--json"]).ok()).expect("JSON");
    assert_eq!(listed[0]["errors"], rows[0]["errors"]);

    // What is somebody else's cannot be given back to them; its content is there all the same.
    let ran = as_nobody(&sandbox, &["restore", "v", "--to-dir", "restored"]);
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    assert!(ran.err.contains("open: cannot give it to 0:0"), "{}", ran.err);
    assert_eq!(std::fs::read(sandbox.path("restored/open")).expect("read"), b"open");

    // What is their own comes back whole, also below a folder that gives its group to what is made in it.
    let mine = sandbox.folder("mine");
    write(&mine.join("folder/file"), b"mine");
    for path in [mine.clone(), mine.join("folder"), mine.join("folder/file")] {
        own(&path);
    }
    as_nobody(&sandbox, &["backup", "--name", "mine", "--path", "mine"]).ok();
    let place = sandbox.folder("place");
    std::os::unix::fs::chown(&place, Some(65_534), Some(1234)).expect("given");
    chmod(&place, 0o2777);
    as_nobody(&sandbox, &["restore", "mine", "--to-dir", "place/restored"]).ok();
    assert_same_tree(&mine, &place.join("restored"));

    let closed = sandbox.folder("closed");
    chmod(&closed, 0o755);
    let ran = as_nobody(&sandbox, &["restore", "mine", "--to-dir", "closed/restored"]);
    ran.fails_plainly(1, &["cannot create closed/restored", "Permission denied"]);

    // The repository of somebody else.
    chmod(Path::new(&sandbox.repo), 0o700);
    std::os::unix::fs::chown(&sandbox.repo, Some(0), Some(0)).expect("given");
    as_nobody(&sandbox, &["snapshots"]).fails(1, &[&sandbox.repo, "hint: check who owns"]);
    as_nobody(&sandbox, &["--identity", "/etc/shadow", "snapshots"]).fails_plainly(1, &["/etc/shadow"]);
}
