//! What went in comes out: every kind of entry, from every storage, with every lock, by every reader.

mod support;

use std::path::Path;

use support::cli::tree::{self, chmod, noise, set_mtime, write};
use support::cli::{Lock, Sandbox, assert_same_tree, assert_same_tree_by_walk, copy_bucket, is_root};
use support::mem_s3::{MemS3, Server};

/// An S3 server that runs as long as the runtime that comes with it.
fn s3() -> (tokio::runtime::Runtime, Server) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let server = runtime.block_on(MemS3::new().serve());
    (runtime, server)
}

/// A tar knows no sockets.
fn remove_socket(root: &Path) {
    let times = std::fs::metadata(root).expect("there");
    std::fs::remove_file(root.join("socket")).expect("removed");
    use std::os::unix::fs::MetadataExt;
    set_mtime(root, times.mtime(), times.mtime_nsec() as u32);
}

/// Everything comes back, also without cache and state; a second backup adds nothing; other readers agree.
fn everything_comes_back(sandbox: &Sandbox, lock: Lock, directory: impl Fn() -> std::path::PathBuf) {
    let source = sandbox.folder("source");
    tree::everything(&source);
    let first = sandbox.backup(&source, "v");
    assert!(first["added_bytes"].as_u64() > Some(10 << 20), "{first}");
    assert_same_tree(&source, &sandbox.restore("v", "restored"));

    let second = sandbox.backup(&source, "v");
    assert_eq!(second["added_bytes"], 0, "{second}");
    assert_eq!((&first["files"], &first["bytes"]), (&second["files"], &second["bytes"]));
    sandbox.forget_local();
    assert_same_tree(&source, &sandbox.restore("v", "restored without cache"));
    sandbox.forget_local();
    let third = sandbox.backup(&source, "v");
    assert_eq!(third["added_bytes"], 0, "after the state was lost: {third}");
    assert_same_tree(&source, &sandbox.restore("v@latest", "restored again"));

    remove_socket(&source);
    let exported = sandbox.export("v", "exported.tar");
    assert_same_tree(&source, &sandbox.untar(&exported, "from export"));
    let python = sandbox.restore_py(lock, &directory(), "v", "python.tar");
    assert_same_tree(&source, &sandbox.untar(&python, "from restore.py"));
}

#[test]
fn everything_in_a_directory_plain() {
    let sandbox = Sandbox::new(Lock::None);
    everything_comes_back(&sandbox, Lock::None, || sandbox.repo.clone().into());
}

#[test]
fn everything_in_a_directory_for_an_identity() {
    let sandbox = Sandbox::new(Lock::Identity);
    everything_comes_back(&sandbox, Lock::Identity, || sandbox.repo.clone().into());
}

#[test]
fn everything_in_a_directory_with_a_passphrase() {
    let sandbox = Sandbox::new(Lock::Passphrase);
    everything_comes_back(&sandbox, Lock::Passphrase, || sandbox.repo.clone().into());
}

#[test]
fn everything_on_s3_plain() {
    let (_runtime, server) = s3();
    let sandbox = Sandbox::on_s3(&server, "some/prefix");
    sandbox.init(Lock::None).ok();
    everything_comes_back(&sandbox, Lock::None, || copied(&sandbox, &server));
}

#[test]
fn everything_on_s3_for_an_identity() {
    let (_runtime, server) = s3();
    let sandbox = Sandbox::on_s3(&server, "some/prefix");
    sandbox.init(Lock::Identity).ok();
    everything_comes_back(&sandbox, Lock::Identity, || copied(&sandbox, &server));
}

fn copied(sandbox: &Sandbox, server: &Server) -> std::path::PathBuf {
    copy_bucket(server, "some/prefix", &sandbox.path("copy"));
    sandbox.path("copy")
}

#[test]
fn on_s3_the_endpoint_is_remembered() {
    let (_runtime, server) = s3();
    let mut sandbox = Sandbox::on_s3(&server, "p");
    sandbox.unset("AWS_ENDPOINT_URL");
    let endpoint = server.endpoint();
    sandbox.run(["--repo", &sandbox.repo, "--s3-endpoint", &endpoint, "init"]).ok();
    let source = sandbox.folder("source");
    write(&source.join("f"), b"content");
    sandbox.backup(&source, "v");
    assert_same_tree(&source, &sandbox.restore("v", "restored"));
    assert!(server.s3.keys().iter().all(|key| key.starts_with("p/")), "{:?}", server.s3.keys());
}

#[test]
fn a_file_of_100_gib_with_1_mib_of_data() {
    let sandbox = Sandbox::new(Lock::Identity);
    let source = sandbox.folder("source");
    tree::sparse(&source.join("huge"), 100 << 30, &[(0, 4096), (50 << 30, 1 << 20), ((100 << 30) - 4096, 4096)]);
    tree::sparse(&source.join("only a hole"), 100 << 30, &[]);
    let row = sandbox.backup(&source, "v");
    assert_eq!(row["bytes"], 200u64 << 30);
    assert!(sandbox.pack_bytes() < 2 << 20);
    // rsync would read all of it.
    let restored = sandbox.restore("v", "restored");
    assert_same_tree_by_walk(&source, &restored);
    assert_eq!(sandbox.backup(&source, "v")["added_bytes"], 0);
    sandbox.run(["restore", "v", "--replace", "--to-dir", restored.to_str().expect("UTF-8")]).ok();
    assert_same_tree_by_walk(&source, &restored);
    let exported = sandbox.export("v", "exported.tar");
    assert_same_tree_by_walk(&source, &sandbox.untar(&exported, "from export"));
    let python = sandbox.restore_py(Lock::Identity, Path::new(&sandbox.repo), "v", "python.tar");
    assert_same_tree_by_walk(&source, &sandbox.untar(&python, "from restore.py"));
}

#[test]
fn a_file_of_so_many_pieces_that_they_are_listed_elsewhere() {
    let sandbox = Sandbox::new(Lock::Identity);
    let source = sandbox.folder("source");
    // Every run of data is a piece, and every hole.
    let runs = |first: u64, count: u64| (0..count).map(|n| (first + n * 16_384, 4096)).collect::<Vec<_>>();
    tree::sparse(&source.join("many"), 700 * 16_384, &runs(4096, 700));
    tree::sparse(&source.join("disk.img"), 300 * 16_384, &runs(0, 300));
    tree::sparse(&source.join("exactly 256"), 128 * 16_384, &runs(0, 128));
    tree::sparse(&source.join("257"), 128 * 16_384 + 10, &[runs(0, 128), vec![(128 * 16_384, 10)]].concat());
    sandbox.backup(&source, "v");
    assert_same_tree(&source, &sandbox.restore("v", "restored"));
    assert_eq!(sandbox.backup(&source, "v")["added_bytes"], 0);
    // One piece changes: the list is written anew, the other pieces are not.
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().write(true).open(source.join("many")).expect("opened");
    file.write_all_at(b"changed", 300 * 16_384 + 4096).expect("written");
    let added = sandbox.backup(&source, "v")["added_bytes"].as_u64().expect("a number");
    assert!((1..400_000).contains(&added), "{added}");
    sandbox.forget_local();
    assert_same_tree(&source, &sandbox.restore("v", "restored again"));
    let exported = sandbox.export("v", "exported.tar");
    assert_same_tree(&source, &sandbox.untar(&exported, "from export"));
    let python = sandbox.restore_py(Lock::Identity, Path::new(&sandbox.repo), "v", "python.tar");
    assert_same_tree(&source, &sandbox.untar(&python, "from restore.py"));
}

#[test]
fn a_path_of_4000_bytes() {
    let sandbox = Sandbox::new(Lock::Identity);
    let source = sandbox.folder("source");
    let path = tree::long_path(&source, 4000);
    sandbox.backup(&source, "v");
    let restored = sandbox.restore("v", "restored");
    assert_same_tree_by_walk(&source, &restored);
    let some = sandbox.restore_with("v", "only it", &["--path", path.to_str().expect("UTF-8")]);
    assert_same_content(&some, &path, b"far");
    let exported = sandbox.export("v", "exported.tar");
    assert_same_tree_by_walk(&source, &sandbox.untar(&exported, "from export"));
    let python = sandbox.restore_py(Lock::Identity, Path::new(&sandbox.repo), "v", "python.tar");
    assert_same_tree_by_walk(&source, &sandbox.untar(&python, "from restore.py"));
}

fn assert_same_content(root: &Path, below: &Path, content: &[u8]) {
    let output = std::process::Command::new("cat").arg(below).current_dir(root).output().expect("cat runs");
    assert_eq!(output.stdout, content);
}

#[test]
fn folders_nested_deeper_than_any_path() {
    let sandbox = Sandbox::new(Lock::None);
    let source = sandbox.folder("source");
    tree::nested(&source, &"d".repeat(250), 40);
    std::fs::create_dir(source.join("e")).expect("made");
    tree::nested(&source.join("e"), "x", 2500);
    sandbox.backup(&source, "v");
    let restored = sandbox.restore("v", "restored");
    assert_same_tree_by_walk(&source, &restored);
    assert_eq!(sandbox.backup(&source, "v")["added_bytes"], 0);
    // The old content, just as deep, goes away whole.
    sandbox.run(["restore", "v", "--replace", "--to-dir", restored.to_str().expect("UTF-8")]).ok();
    assert_same_tree_by_walk(&source, &restored);
    let left: Vec<_> =
        std::fs::read_dir(sandbox.path("")).expect("read").map(|e| e.expect("read").file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("voltool-restore")), "{left:?}");
}

#[test]
fn a_hundred_thousand_files_in_one_folder() {
    let sandbox = Sandbox::new(Lock::Identity);
    let source = sandbox.folder("source");
    let many = source.join("many");
    std::fs::create_dir(&many).expect("made");
    for n in 0..100_000u32 {
        // Most are empty, so that the test is about entries.
        let content = if n % 16 == 0 { n.to_le_bytes().to_vec() } else { Vec::new() };
        std::fs::write(many.join(format!("{n:x}")), content).expect("written");
    }
    write(&source.join("zzz"), b"behind them");
    let row = sandbox.backup(&source, "v");
    assert_eq!(row["files"], 100_001);
    assert_same_tree(&source, &sandbox.restore("v", "restored"));
    std::fs::remove_file(many.join("5000")).expect("removed");
    write(&many.join("5000a"), b"new");
    let added = sandbox.backup(&source, "v")["added_bytes"].as_u64().expect("a number");
    // One or two leaves, and what lists the leaves: not the whole listing, which is about 15 MiB.
    assert!((1..500_000).contains(&added), "{added}");
    sandbox.forget_local();
    let one = sandbox.restore_with("v", "one", &["--path", "many/5000a", "--path", "many/fff0", "--path", "zzz"]);
    let names = std::fs::read_dir(one.join("many")).expect("read").count();
    assert_eq!((names, std::fs::read(one.join("many/5000a")).expect("read")), (2, b"new".to_vec()));
}

#[test]
fn what_changed_is_stored_and_older_snapshots_stay() {
    let sandbox = Sandbox::new(Lock::Identity);
    let source = sandbox.folder("source");
    let copy = |name: &str| {
        let to = sandbox.path(name);
        let status = std::process::Command::new("cp").arg("-a").arg(&source).arg(&to).status().expect("cp runs");
        assert!(status.success());
        to
    };
    for n in 0..40 {
        write(&source.join(format!("small/{n}")), &noise(n, 3000));
    }
    write(&source.join("large"), &noise(100, 3 << 20));
    write(&source.join("data.db"), &[b"SQLite format 3\0", &noise(101, 3 << 20)[..]].concat());
    write(&source.join("becomes a folder"), b"file");
    write(&source.join("becomes a link"), &noise(102, 100_000));
    write(&source.join("becomes a file/inside"), b"i");
    let id = |row: &serde_json::Value| row["id"].as_str().expect("an id").to_owned();
    let added = |row: &serde_json::Value| row["added_bytes"].as_u64().expect("a number");
    let mut versions = vec![(copy("v0"), id(&sandbox.backup(&source, "v")))];
    let mut step = |name: &str, limit: u64, change: &dyn Fn()| {
        change();
        let row = sandbox.backup(&source, "v");
        assert!(added(&row) <= limit, "{name}: {row}");
        versions.push((copy(name), id(&row)));
    };
    // Content is not stored again; the listing is, in one leaf and its list.
    const LISTING: u64 = 40_000;
    step("touched", LISTING, &|| set_mtime(&source.join("large"), 1_000_000_000, 42));
    step("mode and owner", LISTING, &|| {
        chmod(&source.join("large"), 0o4711);
        chmod(&source.join("small/3"), 0o600);
        if is_root() {
            std::os::unix::fs::chown(source.join("data.db"), Some(5), Some(6)).expect("given");
        }
    });
    step("attribute", LISTING, &|| tree::set_xattr(&source.join("small/4"), "user.new", b"value"));
    step("renamed", LISTING + (2 << 20), &|| {
        std::fs::rename(source.join("large"), source.join("renamed")).expect("renamed");
        std::fs::rename(source.join("small"), source.join("smaller")).expect("renamed");
    });
    step("linked", LISTING, &|| std::fs::hard_link(source.join("renamed"), source.join("link")).expect("linked"));
    step("grown", LISTING + (3 << 20), &|| {
        use std::io::Write;
        for name in ["renamed", "data.db", "smaller/1"] {
            let mut file = std::fs::File::options().append(true).open(source.join(name)).expect("opened");
            file.write_all(&noise(200, 100_000)).expect("written");
        }
    });
    step("a page", LISTING + (1 << 20) + 5000, &|| {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::options().write(true).open(source.join("data.db")).expect("opened");
        file.write_all_at(&noise(201, 8192), 1_500_000).expect("written");
    });
    step("shrunk", LISTING + (3 << 20), &|| {
        for name in ["renamed", "data.db", "smaller/2"] {
            let file = std::fs::File::options().write(true).open(source.join(name)).expect("opened");
            file.set_len(file.metadata().expect("there").len() / 3).expect("set");
        }
    });
    step("replaced", LISTING, &|| {
        std::fs::remove_file(source.join("becomes a folder")).expect("removed");
        write(&source.join("becomes a folder/inside"), b"now");
        std::fs::remove_file(source.join("becomes a link")).expect("removed");
        std::os::unix::fs::symlink("renamed", source.join("becomes a link")).expect("made");
        std::fs::remove_dir_all(source.join("becomes a file")).expect("removed");
        write(&source.join("becomes a file"), b"f");
        // The same size, and in another inode.
        write(&source.join("other"), &noise(300, 3000));
        std::fs::rename(source.join("other"), source.join("smaller/5")).expect("renamed");
    });
    step("deleted", LISTING, &|| {
        std::fs::remove_file(source.join("link")).expect("removed");
        std::fs::remove_dir_all(source.join("smaller")).expect("removed");
    });
    step("empty", LISTING, &|| {
        for entry in std::fs::read_dir(&source).expect("read") {
            let path = entry.expect("read").path();
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }.expect("removed");
        }
    });
    let listed: Vec<_> = sandbox.snapshots().iter().map(|row| (id(row), row["time"].to_string())).collect();
    assert_eq!(
        listed.iter().map(|(id, _)| id).collect::<Vec<_>>(),
        versions.iter().map(|(_, id)| id).collect::<Vec<_>>()
    );
    sandbox.forget_local();
    for (n, (copy, id)) in versions.iter().enumerate() {
        // By id, by a prefix that is unique, and by time.
        let unique = (1..=26).find(|len| listed.iter().filter(|(other, _)| other[..*len] == id[..*len]).count() == 1);
        let time = listed[n].1.trim_matches('"');
        let how = [id.clone(), id[..unique.expect("ids differ")].to_lowercase(), time.to_owned()];
        assert_same_tree(copy, &sandbox.restore(&format!("v@{}", how[n % 3]), &format!("restored {n}")));
    }
    let shared = &versions[0].1[..versions[0].1.len() - 25];
    sandbox.run(["restore", &format!("v@{shared}"), "--to-dir", "x"]).fails_plainly(1, &["several snapshots of v"]);
}

#[test]
fn a_part_of_a_snapshot() {
    let sandbox = Sandbox::new(Lock::Identity);
    let source = sandbox.folder("source");
    // So many entries that they are in several leaves.
    for n in 0..3000 {
        write(&source.join(format!("d{}/e/{n}", n % 30)), n.to_string().as_bytes());
    }
    write(&source.join("a/linked"), &noise(1, 1000));
    std::fs::hard_link(source.join("a/linked"), source.join("d3/linked")).expect("linked");
    std::fs::hard_link(source.join("a/linked"), source.join("d3/linked too")).expect("linked");
    chmod(&source.join("d7"), 0o2711);
    set_mtime(&source.join("d7/e"), 1_234_567_890, 1);
    sandbox.backup(&source, "v");
    sandbox.forget_local();

    let one = sandbox.restore_with("v", "one", &["--path", "d7/e/7", "--path", "/d3/linked/"]);
    assert_eq!(std::fs::read(one.join("d7/e/7")).expect("read"), b"7");
    assert_eq!(std::fs::read(one.join("d3/linked")).expect("read"), noise(1, 1000));
    assert_eq!(support::cli::differences(&source, &one).iter().filter(|d| d.contains("should not be")).count(), 0);
    assert_eq!(std::fs::read_dir(&one).expect("read").count(), 2);
    // The folders on the way there are as they were.
    use std::os::unix::fs::MetadataExt;
    let (was, is) = (source.join("d7").metadata().expect("there"), one.join("d7").metadata().expect("there"));
    assert_eq!((was.mode(), was.mtime_nsec(), was.uid()), (is.mode(), is.mtime_nsec(), is.uid()));

    let folder = sandbox.restore_with("v", "folder", &["--path", "d3"]);
    assert_same_tree(&source.join("d3"), &folder.join("d3"));
    assert_eq!(std::fs::read_dir(&folder).expect("read").count(), 1);
    let tar = sandbox.path("part.tar");
    let mut command = sandbox.command(["export", "v", "--path", "d3"]);
    assert!(command.stdout(std::fs::File::create(&tar).expect("made")).status().expect("runs").success());
    assert_same_tree(&source.join("d3"), &sandbox.untar(&tar, "part").join("d3"));

    let ran = sandbox.run(["restore", "v", "--path", "d7/e/7", "--path", "d7/nowhere", "--to-dir", "missing"]);
    ran.fails_plainly(1, &["d7/nowhere", "snapshot"]);
    assert!(!sandbox.path("missing").exists());
    sandbox.run(["export", "v", "--path", "d7/nowhere"]).fails_plainly(1, &["d7/nowhere", "snapshot"]);
}

#[test]
fn excludes_and_tags() {
    let sandbox = Sandbox::new(Lock::Identity);
    let (source, kept) = (sandbox.folder("source"), sandbox.folder("kept"));
    for dir in [&source, &kept] {
        write(&dir.join("a/keep"), b"k");
        write(&dir.join("cachet"), b"k");
        set_mtime(&dir.join("a/keep"), 1, 0);
        set_mtime(&dir.join("cachet"), 1, 0);
    }
    write(&source.join("a/x.tmp"), b"t");
    write(&source.join("x.tmp/deep/er"), b"t");
    write(&source.join("cache/large"), &noise(1, 100_000));
    std::fs::hard_link(source.join("a/keep"), source.join("a/x2.tmp")).expect("linked");
    for dir in [&source, &kept] {
        set_mtime(&dir.join("a"), 5, 5);
        set_mtime(dir, 5, 5);
    }
    let row =
        sandbox.backup_with(&source, "v", &["--exclude", "*.tmp", "--exclude", "/cache", "--tag", "t1", "--tag", "t2"]);
    assert_eq!((&row["tags"], &row["files"]), (&serde_json::json!(["t1", "t2"]), &serde_json::json!(2)));
    assert_same_tree(&kept, &sandbox.restore("v", "restored"));
    assert_eq!(sandbox.snapshots()[0]["tags"], row["tags"]);
    // What is no longer left out comes back in.
    sandbox.backup(&source, "v");
    assert_same_tree(&source, &sandbox.restore("v", "all"));
    let dry = sandbox.run(["backup", "--dry-run", "--json", "--name", "v", "--path", source.to_str().expect("UTF-8")]);
    let dry: serde_json::Value = serde_json::from_str(&dry.ok()).expect("JSON");
    assert_eq!((&dry[0]["added"], &dry[0]["changed"], &dry[0]["removed"]), (&0.into(), &0.into(), &0.into()), "{dry}");
    assert_eq!(sandbox.snapshots().len(), 2);
}

#[test]
fn a_target_below_a_folder_with_default_acls_is_not_touched_by_them() {
    let sandbox = Sandbox::new(Lock::None);
    let (source, beside) = (sandbox.folder("source"), sandbox.folder("beside"));
    write(&source.join("a/f"), b"f");
    chmod(&source.join("a/f"), 0o664);
    sandbox.backup(&source, "v");
    let status = std::process::Command::new("setfacl").args(["-m", "d:u:1234:rwx"]).arg(&beside).status();
    assert!(status.expect("setfacl runs").success());
    assert_same_tree(&source, &sandbox.restore("v", "beside/restored"));
}
