//! The reader reads what others wrote: an independent writer (`tests/python/make_repository.py`), which makes what voltool does not make
//! yet, and every released version of voltool (`tests/fixtures`), for ever.

// A test that cannot run here says so.
#![allow(clippy::print_stdout)]

#[path = "support/tree.rs"]
mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use age::secrecy::{ExposeSecret, SecretString};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use tree::{Facts, Place, copy_dir, describe, differences, files_below, noise};
use voltool::repo::{ChunkerParams, Lock, RepoError, Repository, SnapshotRecord, Unlock};
use voltool::snapshot;
use voltool::store::local::LocalStore;

fn root_of_the_project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn python(program: &str, arguments: &[&str]) {
    let output = Command::new("python3").arg(root_of_the_project(program)).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Owners and devices come back for root only.
fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: this needs root");
    }
    root
}

/// Opens the repository in the place's folder with `unlock`, with no cache of before.
async fn open(place: &Place, unlock: &[Unlock]) -> Arc<Repository> {
    let cache = place.path(&format!("cache-{}", ulid::Ulid::generate()));
    let repo = Repository::open(place.store(), unlock, &cache).await.unwrap();
    repo.load_index().await.unwrap();
    Arc::new(repo)
}

/// Restores with `unlock` and compares with the tree.
async fn assert_is_tree(place: &Place, unlock: &[Unlock]) -> Vec<Arc<SnapshotRecord>> {
    let repo = open(place, unlock).await;
    let found = repo.snapshots().await.unwrap();
    assert!(found.damaged.is_empty(), "{:?}", found.damaged);
    let latest = found.records.iter().rfind(|r| r.volume == "everything").unwrap();
    let (restored, facts) = place.restore(&repo, latest).await.unwrap();
    assert_eq!(restored.problems, []);
    assert_eq!(differences(&describe(&place.path("tree")), &facts), [""; 0]);
    found.records
}

/// A repository that the independent writer made of `tree`, and what opens it.
fn made(place: &Place, mode: &str) -> Vec<Unlock> {
    let path = |name: &str| place.path(name).to_str().unwrap().to_owned();
    let (out, source, secret) = (path("repository"), path("tree"), path("secret"));
    let mut arguments = vec!["--encrypt", mode, "--out", &out, "--source", &source];
    match mode {
        "identity" => arguments.extend(["--identity", &secret]),
        "passphrase" => arguments.extend(["--passphrase-file", &secret]),
        _ => {}
    }
    python("tests/python/make_repository.py", &arguments);
    match mode {
        "identity" => {
            let text = fs::read_to_string(&secret).unwrap();
            let line = text.lines().find(|line| line.starts_with("AGE-SECRET-KEY-")).unwrap();
            vec![Unlock::Identity(line.parse().unwrap())]
        }
        "passphrase" => vec![Unlock::Passphrase(SecretString::from(fs::read_to_string(&secret).unwrap().trim_end()))],
        _ => vec![],
    }
}

async fn reads(mode: &str) {
    if !is_root() {
        return;
    }
    let place = Place::new(false);
    python("tests/python/make_tree.py", &[place.path("tree").to_str().unwrap(), "--huge", "1"]);
    let unlock = made(&place, mode);
    let records = assert_is_tree(&place, &unlock).await;
    let names: Vec<&str> = records.iter().map(|r| r.volume.as_str()).collect();
    assert_eq!(names, ["everything", "everything", "nothing", "twice", "twice"], "neither forgotten nor rejected ones");
    check_older(&place, &open(&place, &unlock).await, &records[0]).await;
    check_what_is_in_it(&place, &unlock).await;
    export_is_tree(&place, &unlock, &records[1]).await;

    // The indexes are damaged, or there are none.
    for gone in [false, true] {
        for (number, index) in files_below(&place.path("repository/index")).iter().enumerate() {
            let path = place.path("repository/index").join(index);
            let data = fs::read(&path).unwrap();
            match number % 3 {
                _ if gone => fs::remove_file(&path).unwrap(),
                0 => fs::write(&path, [&data[..data.len().saturating_sub(40)], &[0; 40]].concat()).unwrap(),
                1 => fs::write(&path, &data[..data.len() / 2]).unwrap(),
                _ => fs::write(&path, b"").unwrap(),
            }
        }
        assert_is_tree(&place, &unlock).await;
    }
}

/// The older snapshot is the tree with other bytes at the beginning of each chunk of a page-structured file.
async fn check_older(place: &Place, repo: &Arc<Repository>, older: &SnapshotRecord) {
    let (restored, facts) = place.restore(repo, older).await.unwrap();
    assert_eq!(restored.problems, []);
    let is_paged = |line: &String| line.split(": ").next().is_some_and(|p| p.ends_with(".db") || p.ends_with(".img"));
    let differ = differences(&describe(&place.path("tree")), &facts);
    assert!(differ.len() >= 4 && differ.iter().all(is_paged), "{differ:?}");
}

/// That the repository has what this is about: deltas, and lists of segments.
async fn check_what_is_in_it(place: &Place, unlock: &[Unlock]) {
    let bare = Repository::open(place.store(), unlock, &place.path("bare")).await.unwrap();
    let learnt = bare.learn_packs("packs/").await.unwrap().0;
    let deltas = learnt.iter().flat_map(|(_, entries)| entries).filter(|e| e.base.is_some()).count();
    assert!(deltas > 20, "{deltas} deltas");
    let repo = open(place, unlock).await;
    let records = repo.snapshots().await.unwrap().records;
    let mut listed = 0;
    for leaf in repo.leaves(&records[1]).await.unwrap() {
        let text = repo.meta_chunk(&leaf.leaf).await.unwrap();
        listed += String::from_utf8_lossy(&text).matches("\"cl\"").count();
    }
    assert!(listed > 0, "no file has its segments in lists");
}

async fn export_is_tree(place: &Place, unlock: &[Unlock], record: &SnapshotRecord) {
    let (problems, facts) = place.export(&open(place, unlock).await, record).await.unwrap();
    // A tar has no sockets, and no attributes whose name is not UTF-8.
    let no_tar = |line: &&String| line.starts_with("special/socket: ") || line.starts_with("meta/attributes: ");
    let differ = differences(&describe(&place.path("tree")), &facts);
    assert!(differ.iter().all(|line| no_tar(&line)), "{differ:?}");
    assert_eq!(problems.len(), 1, "{problems:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_independent_writer_plain() {
    reads("none").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_independent_writer_with_an_identity() {
    reads("identity").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_independent_writer_with_a_passphrase() {
    let place = Place::new(false);
    tree::plant(&place.path("tree"), "tree", 20);
    let unlock = made(&place, "passphrase");
    let records = assert_is_tree(&place, &unlock).await;
    let wrong = [Unlock::Passphrase(SecretString::from("wrong"))];
    let refused = Repository::open(place.store(), &wrong, &place.path("other")).await.unwrap_err();
    assert!(matches!(refused, RepoError::WrongKey { .. }), "{refused} {}", records.len());
}

/// A backup whose parent somebody else wrote carries over what has not changed, deltas and lists too.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_goes_on_from_it() {
    if !is_root() {
        return;
    }
    let place = Place::new(false);
    tree::plant(&place.path("tree"), "tree", 20);
    fs::write(place.path("tree/pages.db"), noise("pages", 100_000)).unwrap();
    tree::age(&place.path("tree"));
    made(&place, "none");
    let repo = open(&place, &[]).await;
    fs::write(place.path("tree/new"), noise("new", 20_000)).unwrap();
    let mut source = place.source("everything");
    (source.engine, source.root) = ("engine-1".into(), place.path("tree"));
    let done = snapshot::backup(&repo, &source, &place.options("state"), Arc::new(())).await.unwrap();
    assert!(done.record.parent.is_some());
    assert!(done.record.added_bytes < 80_000, "{} bytes are new", done.record.added_bytes);
    assert_is_tree(&place, &[]).await;
}

const FIXTURES: &str = "tests/fixtures/format-1";
/// Everything that a format has, in few bytes.
const TINY: ChunkerParams = ChunkerParams { fixed: 4096, ..tree::SMALL };

/// The tree in the fixture. What is here need not stay the same: the manifests say what was stored.
fn plant_fixture(root: &Path) {
    fs::create_dir_all(root.join("folder/empty")).unwrap();
    for n in 0..265 {
        fs::write(root.join(format!("folder/{n:03}")), format!("file {n}\n")).unwrap();
    }
    fs::write(root.join("empty"), b"").unwrap();
    fs::write(root.join("cdc"), noise("cdc", 16_000)).unwrap();
    // 400 equal pages, and holes between others: its segments stand in lists.
    use std::os::unix::fs::FileExt;
    let image = fs::File::create(root.join("pages.img")).unwrap();
    image.set_len(4 << 20).unwrap();
    (0..400).for_each(|n| image.write_all_at(&noise("page", 4096), n * 8192).unwrap());
    fs::hard_link(root.join("cdc"), root.join("linked")).unwrap();
    std::os::unix::fs::symlink("folder/000", root.join("symlink")).unwrap();
    let name = |bytes| root.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes));
    fs::write(name(b"not \xff UTF-8\n"), b"strange").unwrap();
    std::os::unix::fs::symlink(name(b"\xfe").file_name().unwrap(), root.join("to-strange")).unwrap();
    rustix::fs::mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    rustix::fs::mknodat(CWD, root.join("socket"), FileType::Socket, Mode::from_raw_mode(0o600), 0).unwrap();
    let device = rustix::fs::makedev(4000, 1_000_000);
    rustix::fs::mknodat(CWD, root.join("device"), FileType::CharacterDevice, Mode::from_raw_mode(0o600), device)
        .unwrap();
    rustix::fs::setxattr(root.join("empty"), "user.name", b"value\0\xff", XattrFlags::empty()).unwrap();
    std::os::unix::fs::chown(root.join("folder/007"), Some(70), Some(4_000_000_000)).unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(root.join("folder/008"), fs::Permissions::from_mode(0o4711)).unwrap();
    tree::age(root);
    tree::touch(&root.join("folder/009"), -1_500_000_000, 250_000_000);
}

fn write_manifest(path: &Path, facts: &Facts) {
    let lines: String = facts.iter().map(|(path, fact)| format!("{path}\t{fact}\n")).collect();
    fs::write(path, lines).unwrap();
}

fn read_manifest(path: &Path) -> Facts {
    let text = fs::read_to_string(path).unwrap();
    let split = |line: &str| line.split_once('\t').map(|(path, fact)| (path.to_owned(), fact.to_owned())).unwrap();
    text.lines().map(split).collect()
}

/// Writes the fixture of this version, once for each version of the format:
/// `cargo test --test deltas -- --ignored write_the_fixture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes into the source tree"]
async fn write_the_fixture() {
    let folder = root_of_the_project(FIXTURES);
    assert!(!folder.exists(), "what was written once is never written again");
    fs::create_dir_all(&folder).unwrap();
    let identity = age::x25519::Identity::generate();
    let text = format!("# for tests only\n{}\n", identity.to_string().expose_secret());
    fs::write(folder.join("identity.txt"), text).unwrap();
    for (name, lock) in [("plain", Lock::Nobody), ("encrypted", Lock::Recipients(vec![identity.to_public()]))] {
        let place = Place::new(false);
        let root = place.source("volume").root;
        plant_fixture(&root);
        place.store().prepare().await.unwrap();
        let repo = Repository::create(place.store(), &lock, TINY, None, &place.path("cache")).await.unwrap();
        let repo = Arc::new(repo);
        let mut ids = BTreeMap::new();
        for snapshot in ["first", "second"] {
            if snapshot == "second" {
                fs::write(root.join("added"), noise("added", 5_000)).unwrap();
                fs::remove_file(root.join("folder/100")).unwrap();
                tree::touch(&root.join("added"), 1_750_000_000, 1);
                tree::touch(&root.join("folder"), 1_750_000_000, 2);
                tree::touch(&root, 1_750_000_000, 3);
            }
            let record = place.backup(&repo, "volume").await.unwrap().record;
            ids.insert(snapshot, record.id);
            write_manifest(&folder.join(format!("{snapshot}.manifest")), &describe(&root));
        }
        copy_dir(&place.repository(), &folder.join(name));
        if name != "plain" {
            // One copy of it will do.
            fs::remove_file(folder.join(name).join("restore.py")).unwrap();
        }
        let json = serde_json::to_string_pretty(&ids).unwrap();
        fs::write(folder.join(format!("{name}.json")), json + "\n").unwrap();
    }
}

fn fixture_identity() -> age::x25519::Identity {
    let text = fs::read_to_string(root_of_the_project(FIXTURES).join("identity.txt")).unwrap();
    text.lines().find(|line| line.starts_with("AGE-SECRET-KEY-")).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_format_1() {
    if !is_root() {
        return;
    }
    for name in ["plain", "encrypted"] {
        let folder = root_of_the_project(FIXTURES);
        let before = files_below(&folder);
        let ids: BTreeMap<String, String> =
            serde_json::from_slice(&fs::read(folder.join(format!("{name}.json"))).unwrap()).unwrap();
        let place = Place::new(false);
        let unlock = if name == "plain" { vec![] } else { vec![Unlock::Identity(fixture_identity())] };
        let store = Arc::new(LocalStore::new(folder.join(name)));
        let repo = Arc::new(Repository::open(store, &unlock, &place.path("cache")).await.unwrap());
        assert!(repo.load_index().await.unwrap().is_empty());
        let records = repo.snapshots().await.unwrap().records;
        assert_eq!(records.len(), 2);
        for (snapshot, record) in ["first", "second"].iter().zip(&records) {
            assert_eq!((&record.id, record.volume.as_str()), (&ids[*snapshot], "volume"));
            let want = read_manifest(&folder.join(format!("{snapshot}.manifest")));
            assert_eq!(record.entries, want.len() as u64);
            let (restored, facts) = place.restore(&repo, record).await.unwrap();
            assert_eq!(restored.problems, [], "{name} {snapshot}");
            assert_eq!(differences(&want, &facts), [""; 0], "{name} {snapshot}");
            let facts = restore_py(&folder, name, &record.id);
            let socket = |line: &String| line.starts_with("socket: ");
            let differ = differences(&want, &facts);
            assert!(differ.iter().all(socket) && differ.len() == 1, "{name} {snapshot}: {differ:?}");
        }
        assert_eq!(files_below(&folder), before, "reading changes nothing");
    }
}

/// Restores with the independent reader, as it was stored in the repository.
fn restore_py(folder: &Path, name: &str, snapshot: &str) -> Facts {
    let target = tempfile::tempdir().unwrap();
    let mut reader = Command::new("python3");
    reader.arg(folder.join("plain/restore.py"));
    if name == "encrypted" {
        reader.arg("--identity").arg(folder.join("identity.txt"));
    }
    let mut reader =
        reader.arg(folder.join(name)).arg(format!("volume@{snapshot}")).stdout(Stdio::piped()).spawn().unwrap();
    let status = Command::new("tar")
        .args(["-x", "-p", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C"])
        .arg(target.path())
        .stdin(reader.stdout.take().unwrap())
        .status()
        .unwrap();
    assert!(status.success() && reader.wait().unwrap().success());
    describe(target.path())
}
