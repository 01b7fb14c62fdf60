//! `restore` on real engines: Debian's, or the one that `VOLTOOL_TEST_DOCKERD` names.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use support::cli::{Lock, Sandbox};
use support::engine::{BUSYBOX, WITH_VOLUME};
use support::host::{Host, assert_same, make_tree};

/// A host that has nothing but the repository of another one and its key.
fn new_host(old: &Sandbox) -> Host {
    let mut sandbox = Sandbox::bare();
    sandbox.file("config.toml", "");
    let key = std::fs::read_to_string(old.path("identity.txt")).expect("the identity");
    let key = sandbox.file("key.txt", &key);
    sandbox.repo.clone_from(&old.repo);
    sandbox.set("VOLTOOL_REPO", &old.repo);
    sandbox.set("VOLTOOL_IDENTITY", &key);
    Host::with(sandbox)
}

/// Content that cannot be compressed.
fn noise(host: &Host, volume: &str, file: &str, megabytes: usize) {
    let mut content = vec![0; megabytes << 20];
    let mut random = blake3::Hasher::new();
    random.update(volume.as_bytes()).update(file.as_bytes()).finalize_xof().fill(&mut content);
    std::fs::write(host.mountpoint(volume).join(file), content).expect("written");
}

/// Flips a bit in the middle of the largest pack.
fn damage(sandbox: &Sandbox) -> String {
    let size = |path: &PathBuf| std::fs::metadata(path).expect("there").len();
    let pack = sandbox.objects("packs").into_iter().max_by_key(size).expect("a pack");
    let mut data = std::fs::read(&pack).expect("read");
    let middle = data.len() / 2;
    data[middle] ^= 1;
    std::fs::write(&pack, data).expect("written");
    pack.file_name().and_then(|name| name.to_str()).expect("UTF-8").to_owned()
}

/// What is beside a volume's content, which should be nothing.
fn beside(host: &Host, volume: &str) -> Vec<PathBuf> {
    let root = host.mountpoint(volume);
    let all = std::fs::read_dir(root.parent().expect("a folder")).expect("listed").map(|e| e.expect("read").path());
    // Engines keep a file of options there.
    all.filter(|path| *path != root && path.is_dir()).collect()
}

#[test]
fn a_deleted_volume_comes_back_with_everything() {
    let host = Host::new();
    let labels = ["--label", "app=shop", "--label", "empty=", "--label", "com.docker.compose.project=shop"];
    host.docker(&[&["volume", "create"][..], &labels, &["db"]].concat());
    make_tree(&host.sandbox, &host.mountpoint("db"));
    let (definition, copy) = (host.definition("db"), host.keep(&host.mountpoint("db"), "copy"));
    host.ok(&["backup"]);

    host.docker(&["volume", "rm", "db"]);
    host.ok(&["restore", "db"]);
    assert_same(&copy, &host.mountpoint("db"));
    assert_eq!(host.definition("db"), definition);
    assert_eq!(beside(&host, "db"), Vec::<PathBuf>::new());

    // What came back is what is in the snapshot: nothing is at risk, and the next backup stores nothing but new inode numbers.
    let row = host.row("db");
    assert_eq!((&row["at_risk"], &row["changed"]), (&json!(false), &json!(0)), "{row}");
    let again = &host.json(&["backup", "--json"])[0];
    assert!(again["added_bytes"].as_u64().expect("a number") < 1 << 20, "{again}");
    // But for what is changed after that, also between names of one file.
    let root = host.mountpoint("db");
    std::fs::hard_link(root.join("linked/one"), root.join("linked/four")).expect("linked");
    std::fs::hard_link(root.join("README"), root.join("linked/README")).expect("linked");
    std::fs::write(root.join("empty"), "no longer").expect("written");
    assert_eq!(host.row("db")["at_risk"], json!(true));
    host.ok(&["backup"]);
    let changed = host.keep(&root, "changed");
    assert_same(&changed, &host.sandbox.restore("db", "to-dir"));
    let first = host.sandbox.snapshots()[0]["id"].as_str().expect("an id").to_owned();
    host.ok(&["restore", &format!("db@{first}"), "--replace"]);
    assert_same(&copy, &root);
    let row = host.row("db");
    let reason = format!("unchanged since snapshot {first}");
    assert_eq!((&row["at_risk"], &row["reason"]), (&json!(false), &json!(reason)), "{row}");

    // The same without anything that is kept on this host but the key, and with the reader that needs no voltool.
    host.docker(&["volume", "rm", "db"]);
    host.sandbox.forget_local();
    let first = format!("db@{first}");
    host.ok(&["restore", &first]);
    assert_same(&copy, &host.mountpoint("db"));
    let tar = host.sandbox.restore_py(Lock::Identity, Path::new(&host.sandbox.repo), &first, "db.tar");
    // A tar has no sockets.
    std::fs::remove_file(copy.join("special/socket")).expect("removed");
    let folder = copy.join("special");
    let time = std::fs::metadata(host.mountpoint("db").join("special")).expect("there").modified().expect("a time");
    std::fs::File::open(&folder).expect("opened").set_modified(time).expect("set");
    assert_same(&copy, &host.sandbox.untar(&tar, "from-python"));
}

#[test]
fn a_volume_whose_options_name_a_folder() {
    let host = Host::new();
    let folder = host.sandbox.folder("srv/www");
    let device = format!("device={}", folder.display());
    host.docker(&["volume", "create", "--label", "a=b", "-o", "type=none", "-o", "o=bind", "-o", &device, "www"]);
    host.docker(&["run", "--rm", "--network", "none", "-v", "www:/w", BUSYBOX, "sh", "-c", "echo 1 >/w/index.html"]);
    let (definition, copy) = (host.definition("www"), host.keep(&folder, "copy"));
    host.ok(&["backup"]);

    // Removing the volume leaves the folder as it is, and so does a restore that is not asked to replace it.
    host.docker(&["volume", "rm", "www"]);
    host.voltool(&["restore", "www"]).fails(4, &["www has content", "--replace"]);
    assert_same(&copy, &folder);
    std::fs::write(folder.join("index.html"), "wrong").expect("written");
    host.ok(&["restore", "www", "--replace"]);
    assert_same(&copy, &folder);
    assert_eq!(host.definition("www"), definition);

    // A copy under another name is not a second name for the same folder.
    std::fs::write(folder.join("index.html"), "newer").expect("written");
    host.ok(&["restore", "www", "--to", "copy-of-www"]);
    assert_eq!(std::fs::read_to_string(folder.join("index.html")).expect("read"), "newer");
    assert_same(&copy, &host.mountpoint("copy-of-www"));

    // On a new host there is no such folder; a container needs one.
    host.docker(&["volume", "rm", "www"]);
    std::fs::remove_dir_all(host.sandbox.path("srv")).expect("removed");
    host.ok(&["restore", "www"]);
    assert_same(&copy, &folder);
    assert_eq!(host.definition("www"), definition);
    let read = ["run", "--rm", "--network", "none", "-v", "www:/w", BUSYBOX, "cat", "/w/index.html"];
    assert_eq!(host.docker(&read), "1");
}

#[test]
fn anonymous_volumes_and_what_data_only_containers_hold() {
    let host = Host::new();
    host.docker(&[
        "run",
        "--name",
        "app",
        "--network",
        "none",
        "-v",
        "/cache",
        WITH_VOLUME,
        "sh",
        "-c",
        "echo 1 >/cache/x",
    ]);
    host.docker(&["create", "--name", "holder", "-v", "/srv", BUSYBOX]);
    host.docker(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--volumes-from",
        "holder",
        BUSYBOX,
        "sh",
        "-c",
        "echo 2 >/srv/x",
    ]);
    let volumes =
        [("app", "/cache"), ("app", "/image-volume"), ("holder", "/srv")].map(|(name, at)| host.volume_at(name, at));
    let before: Vec<_> = volumes
        .iter()
        .enumerate()
        .map(|(n, volume)| (host.definition(volume), host.keep(&host.mountpoint(volume), &format!("copy-{n}"))))
        .collect();
    host.ok(&["backup"]);
    host.docker(&["rm", "-v", "app", "holder"]);
    for (volume, (definition, copy)) in volumes.iter().zip(&before) {
        assert!(!host.has_volume(volume), "the engine takes it along");
        host.ok(&["restore", volume]);
        assert_eq!(host.definition(volume), *definition);
        assert_same(copy, &host.mountpoint(volume));
        assert_eq!(host.row(volume)["kind"], json!("anonymous"));
    }
    // The holder holds it again, and others take it from there.
    host.docker(&["create", "--name", "holder", "-v", &format!("{}:/srv", volumes[2]), BUSYBOX]);
    let from = ["run", "--rm", "--network", "none", "--volumes-from", "holder", BUSYBOX, "cat", "/srv/x"];
    assert_eq!(host.docker(&from), "2");

    // Under a name that somebody chose it is no longer anonymous: no prune may take it.
    host.ok(&["restore", &volumes[0], "--to", "rescued"]);
    assert_eq!(host.row("rescued")["kind"], json!("named"));
    assert_eq!(host.definition("rescued").get("Labels"), None);
}

#[test]
fn content_is_replaced_only_when_asked_for_and_only_as_a_whole() {
    let host = Host::new();
    host.volume("db", "old");
    noise(&host, "db", "table", 3);
    let good = host.keep(&host.mountpoint("db"), "good");
    let snapshot = host.json(&["backup", "db", "--json"])[0]["id"].as_str().expect("an id").to_owned();
    host.write("db", "file", "new");
    host.write("db", "more", "newer");
    let newer = host.keep(&host.mountpoint("db"), "newer");

    let refused = host.voltool(&["restore", "db"]);
    refused.fails(4, &["db has content", "--replace", "--to db-restored"]);
    host.voltool(&["restore", "--all"]).fails(4, &["db has content"]);
    assert_same(&newer, &host.mountpoint("db"));

    host.ok(&["restore", &format!("db@{}", &snapshot[..20]), "--replace"]);
    assert_same(&good, &host.mountpoint("db"));
    assert_eq!(beside(&host, "db"), Vec::<PathBuf>::new());

    // A snapshot that cannot be read whole replaces nothing.
    host.write("db", "file", "new");
    host.write("db", "more", "newer");
    let newer = host.keep(&host.mountpoint("db"), "newer-again");
    let pack = damage(&host.sandbox);
    let ran = host.voltool(&["restore", "db", "--replace"]);
    ran.fails(1, &[&snapshot, "table", &pack, "nothing was replaced"]);
    assert_same(&newer, &host.mountpoint("db"));
    assert_eq!(beside(&host, "db"), Vec::<PathBuf>::new());

    // Beside it, what there is can be looked at: what is lost is named, and the code says that it is not all.
    let ran = host.voltool(&["restore", "db", "--to", "db-rest"]);
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    assert!(ran.err.contains("table"), "{}", ran.err);
    assert_eq!(host.read("db-rest", "file"), "old");
}

#[test]
fn a_volume_that_was_made_for_a_restore_that_failed_is_taken_away_again() {
    let host = Host::new();
    host.volume("db", "old");
    host.ok(&["backup"]);
    host.docker(&["volume", "rm", "db"]);
    for pack in host.sandbox.objects("packs") {
        std::fs::remove_file(pack).expect("removed");
    }
    host.sandbox.forget_local();
    host.voltool(&["restore", "db"]).fails_plainly(1, &["pack"]);
    assert!(!host.has_volume("db"), "an application would take an empty volume for a new beginning");
}

#[test]
fn running_containers_are_stopped_only_when_asked_for_and_always_started_again() {
    let host = Host::new();
    host.volume("db", "old");
    noise(&host, "db", "table", 3);
    host.run_container("shop", &["-v", "db:/db"]);
    host.run_container("report", &["-v", "db:/db:ro"]);
    host.docker(&["create", "--name", "idle", "-v", "db:/db", BUSYBOX]);
    let good = host.keep(&host.mountpoint("db"), "good");
    host.ok(&["backup"]);
    host.write("db", "file", "new");

    let ran = host.voltool(&["restore", "db", "--replace"]);
    ran.fails(4, &["containers run on volume db", "shop", "report", "--stop-containers"]);
    assert!(!ran.err.contains("idle"), "{}", ran.err);
    assert_eq!(host.read("db", "file"), "new");
    let started = host.docker(&["inspect", "--format", "{{.State.StartedAt}}", "shop"]);

    host.ok(&["restore", "db", "--replace", "--stop-containers"]);
    assert_same(&good, &host.mountpoint("db"));
    assert_eq!(["shop", "report", "idle"].map(|name| host.is_running(name)), [true, true, false]);
    assert_ne!(host.docker(&["inspect", "--format", "{{.State.StartedAt}}", "shop"]), started);
    // They see the new content, not the folder that was there when they started.
    assert_eq!(host.docker(&["exec", "shop", "cat", "/db/file"]), "old");

    host.write("db", "file", "new");
    damage(&host.sandbox);
    host.voltool(&["restore", "db", "--replace", "--stop-containers"]).fails(1, &["nothing was replaced"]);
    assert_eq!(host.read("db", "file"), "new");
    assert_eq!(["shop", "report", "idle"].map(|name| host.is_running(name)), [true, true, false]);
    assert_eq!(host.docker(&["exec", "shop", "cat", "/db/file"]), "new");

    // A volume without content that a container runs on is the container's, too.
    host.docker(&["volume", "create", "empty"]);
    host.run_container("waits", &["-v", "empty:/e"]);
    host.voltool(&["restore", "db", "--to", "empty"]).fails(4, &["containers run on volume empty", "waits"]);
}

/// Starts a restore that replaces much, and returns when it has begun to write. A container runs on the volume.
fn begin_restore(host: &Host) -> Child {
    host.docker(&["volume", "create", "db"]);
    noise(host, "db", "table", 150);
    host.ok(&["backup"]);
    host.write("db", "file", "new");
    host.run_container("shop", &["-v", "db:/db"]);
    let mut command = host.sandbox.command(["restore", "db", "--replace", "--stop-containers"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("voltool starts");
    let root = host.mountpoint("db").parent().expect("a folder").to_owned();
    let begun = Instant::now();
    let written = || {
        let all = std::fs::read_dir(&root).expect("listed").map(|e| e.expect("read").path());
        all.filter(|path| path.to_string_lossy().contains(".voltool-restore-")).any(|path| path.join("table").exists())
    };
    while !written() {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing was written");
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

#[test]
fn an_interrupted_restore_leaves_everything_as_it_was() {
    let host = Host::new();
    let child = begin_restore(&host);
    let status = Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status();
    assert!(status.expect("kill starts").success());
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    assert_eq!(host.read("db", "file"), "new");
    assert_eq!(beside(&host, "db"), Vec::<PathBuf>::new());
    assert!(host.is_running("shop"));
}

#[test]
fn an_engine_that_goes_away_during_a_restore_is_told_with_what_is_left_to_do() {
    let mut host = Host::new();
    let child = begin_restore(&host);
    host.engine.kill();
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("not started again: shop") && said.contains("the old content is kept in"), "{said}");
    host.engine.restart();
    assert!(!host.mountpoint("db").join("file").exists(), "the restored content is in place");
    let old = beside(&host, "db");
    assert_eq!(std::fs::read_to_string(old[0].join("file")).expect("the old content"), "new");
    assert!(said.contains(old[0].to_str().expect("UTF-8")), "{said}");
}

#[test]
fn another_name_is_another_volume() {
    let host = Host::new();
    let project = ["--label", "com.docker.compose.project=shop", "--label", "com.docker.compose.volume=db"];
    host.docker(&[&["volume", "create", "--label", "app=shop"][..], &project, &["shop_db"]].concat());
    host.write("shop_db", "file", "old");
    let copy = host.keep(&host.mountpoint("shop_db"), "copy");
    host.ok(&["backup"]);
    host.write("shop_db", "file", "new");
    host.ok(&["restore", "shop_db", "--to", "db-check"]);
    assert_same(&copy, &host.mountpoint("db-check"));
    assert_eq!(host.read("shop_db", "file"), "new");
    // `docker compose down -v` removes what has the project's labels.
    assert_eq!(host.definition("db-check")["Labels"], json!({"app": "shop"}));
    host.voltool(&["restore", "shop_db", "--to", "db-check"]).fails(4, &["db-check has content"]);
    host.ok(&["restore", "shop_db", "--to", "db-check", "--replace"]);
    // Into a volume that is there and empty, which stays as it was made.
    host.docker(&["volume", "create", "--label", "own=1", "prepared"]);
    host.ok(&["restore", "shop_db", "--to", "prepared", "--path", "file"]);
    assert_eq!(
        (host.read("prepared", "file"), host.definition("prepared")["Labels"].clone()),
        ("old".into(), json!({"own": "1"}))
    );
}

#[test]
fn everything_comes_back_on_an_empty_host_from_the_url_and_the_key() {
    let old = Host::new();
    old.docker(&["volume", "create", "--label", "app=shop", "db"]);
    make_tree(&old.sandbox, &old.mountpoint("db"));
    old.docker(&["run", "--name", "app", "--network", "none", "-v", "/cache", BUSYBOX, "sh", "-c", "echo 1 >/cache/x"]);
    old.docker(&["volume", "create", "vacant"]);
    let folder = old.sandbox.folder("srv");
    old.docker(&[
        "volume",
        "create",
        "-o",
        "type=none",
        "-o",
        "o=bind",
        "-o",
        &format!("device={}", folder.display()),
        "www",
    ]);
    std::fs::write(folder.join("index.html"), "hello").expect("written");
    let cache = old.volume_at("app", "/cache");
    old.ok(&["backup"]);
    old.write("db", "README", "newer");
    old.ok(&["backup"]);
    old.sandbox.backup(&folder, "a-folder");
    let kept: Vec<_> = ["db", &cache, "vacant"]
        .iter()
        .enumerate()
        .map(|(n, volume)| (*volume, old.definition(volume), old.keep(&old.mountpoint(volume), &format!("copy-{n}"))))
        .collect();
    let www = old.keep(&folder, "copy-www");
    std::fs::remove_dir_all(&folder).expect("removed");

    let new = new_host(&old.sandbox);
    new.ok(&["restore", "--all"]);
    for (volume, definition, copy) in kept {
        assert_same(&copy, &new.mountpoint(volume));
        let (mut found, mut definition) = (new.definition(volume), definition);
        for one in [&mut found, &mut definition] {
            one.as_object_mut().expect("an object").remove("Mountpoint");
        }
        assert_eq!(found, definition);
    }
    assert_same(&www, &folder);
    assert!(!new.has_volume("a-folder"));
    assert_eq!(new.docker(&["volume", "ls", "-q"]).lines().count(), 4);

    // Once more: each that has content is refused, and told.
    let ran = new.voltool(&["restore", "--all"]);
    ran.fails_plainly(4, &["db has content", "www has content", "3 of 4 volumes could not be restored"]);
    // The new host goes on where the old one stopped.
    let row = new.row("db");
    assert!(row["reason"].as_str().expect("text").starts_with("unchanged since snapshot"), "{row}");
}

#[test]
fn a_volume_that_the_engine_mounts_only_for_containers() {
    let host = Host::new();
    let share = ["-o", "type=nfs", "-o", "o=addr=192.0.2.1", "-o", "device=:/export"];
    host.docker(&[&["volume", "create"][..], &share, &["share"]].concat());
    let root = host.mountpoint("share");
    let definition = host.definition("share");
    let mounted = Mounted::at(&root);
    std::fs::write(root.join("file"), "1").expect("written");
    let copy = host.keep(&root, "copy");
    host.ok(&["backup"]);

    // While it is mounted its content can be filled in, but not exchanged as a whole.
    host.voltool(&["restore", "share", "--replace"]).fails_plainly(1, &["mount point"]);
    assert_same(&copy, &root);
    drop(mounted);
    host.docker(&["volume", "rm", "share"]);
    host.volume("other", "2");
    host.ok(&["backup", "other"]);
    host.docker(&["volume", "rm", "other"]);
    let ran = host.voltool(&["restore", "--all"]);
    ran.fails_plainly(1, &["share", "only while a container uses it"]);
    assert_eq!(host.read("other", "file"), "2");
    // It is there, so that a container can be started on it.
    assert_eq!(host.definition("share"), definition);
    let _mounted = Mounted::at(&root);
    host.ok(&["restore", "share"]);
    assert_same(&copy, &root);
}

/// A file system in memory that stands for one of the network.
struct Mounted(PathBuf);

impl Mounted {
    fn at(path: &Path) -> Mounted {
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755", "stands-for-nfs"]).arg(path).status();
        assert!(status.expect("mount starts").success());
        Mounted(path.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
