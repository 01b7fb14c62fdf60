//! What a local directory does when things go wrong.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use voltool::store::local::LocalStore;
use voltool::store::{ErrorKind, PutIfAbsent, S3Options, Store, StoreUrl};

/// All files below a directory, hidden ones too.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[tokio::test]
async fn a_missing_directory_is_not_a_missing_object() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("repository");
    let store = LocalStore::new(root.clone());
    let data = Bytes::from_static(b"x");
    let errors = [
        store.get("a").await.unwrap_err(),
        store.get_range("a", 0, 1).await.unwrap_err(),
        store.get_tail("a", 1).await.unwrap_err(),
        store.size("a").await.unwrap_err(),
        store.list("").await.unwrap_err(),
        store.list("a/b").await.unwrap_err(),
        store.put("a/b", data.clone()).await.unwrap_err(),
        store.put_if_absent("a", data).await.unwrap_err(),
        store.delete("a").await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind, ErrorKind::NoContainer, "{error}");
        assert!(error.to_string().contains(&root.display().to_string()), "{error}");
    }
    assert!(!root.exists(), "only prepare makes it");

    fs::write(&root, "").unwrap();
    for error in
        [store.prepare().await.unwrap_err(), store.list("").await.unwrap_err(), store.get("a").await.unwrap_err()]
    {
        assert_eq!(error.kind, ErrorKind::NoContainer, "{error}");
        assert!(error.to_string().contains("it is not a directory"), "{error}");
    }
}

#[tokio::test]
async fn others_cannot_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let url = StoreUrl::Local(dir.path().join("a/b"));
    let store = voltool::store::open(&url, &S3Options::default()).await.unwrap();
    store.prepare().await.unwrap();
    store.put("packs/x", Bytes::from_static(b"x")).await.unwrap();
    let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode("a/b"), mode("a/b/packs"), mode("a/b/packs/x")], [0o700, 0o700, 0o600]);
}

#[tokio::test]
async fn keys_that_leave_the_directory_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    let store = LocalStore::new(dir.path().join("repository"));
    store.prepare().await.unwrap();
    let outside = dir.path().join("secret").display().to_string();
    for key in ["../secret", "a/../../secret", "./a", "", "a//b", "a/", "/a", "a/.tmp-b", "a\0b", &outside] {
        assert_eq!(store.get(key).await.unwrap_err().kind, ErrorKind::Invalid, "{key:?}");
        assert_eq!(store.put(key, Bytes::new()).await.unwrap_err().kind, ErrorKind::Invalid, "{key:?}");
        assert_eq!(store.delete(key).await.unwrap_err().kind, ErrorKind::Invalid, "{key:?}");
    }
    for prefix in ["../", "../sec", "a/../../"] {
        assert_eq!(store.list(prefix).await.unwrap_err().kind, ErrorKind::Invalid, "{prefix:?}");
    }
    assert_eq!(fs::read(dir.path().join("secret")).unwrap(), b"secret");
}

#[tokio::test]
async fn an_object_cannot_be_a_directory_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::new(dir.path().to_owned());
    store.put("a/b", Bytes::from_static(b"1")).await.unwrap();
    assert_eq!(store.put("a", Bytes::new()).await.unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(store.put("a/b/c", Bytes::new()).await.unwrap_err().kind, ErrorKind::Invalid);
    let long = "n".repeat(256);
    assert_eq!(store.put(&long, Bytes::new()).await.unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(files(dir.path()), [dir.path().join("a/b")], "no temporary file is left");
}

#[tokio::test]
async fn unfinished_writes_are_never_listed_and_go_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::new(dir.path().to_owned());
    store.put("packs/s/0.pack", Bytes::from_static(b"1")).await.unwrap();
    let (fresh, stale) = (dir.path().join("packs/s/.tmp-fresh"), dir.path().join("packs/s/.tmp-stale"));
    for path in [&fresh, &stale] {
        fs::write(path, "half").unwrap();
    }
    let long_ago = SystemTime::now() - Duration::from_secs(3 * 24 * 3600);
    fs::File::options().write(true).open(&stale).unwrap().set_modified(long_ago).unwrap();
    for prefix in ["", "packs/", "packs/s/", "packs/s/.", "packs/s/.tmp-"] {
        assert!(store.list(prefix).await.unwrap().iter().all(|object| object.key == "packs/s/0.pack"), "{prefix}");
    }
    assert!(fresh.exists(), "its writer may be alive");
    assert!(!stale.exists());
}

#[tokio::test]
async fn a_part_may_live_on_another_disk() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(elsewhere.path(), dir.path().join("packs")).unwrap();
    let store = LocalStore::new(dir.path().to_owned());
    store.put("packs/s/0.pack", Bytes::from_static(b"1")).await.unwrap();
    assert!(elsewhere.path().join("s/0.pack").exists());
    assert_eq!(store.list("packs/").await.unwrap().len(), 1);
    // A loop of links ends with an error, not with a full memory.
    symlink(dir.path(), dir.path().join("loop")).unwrap();
    assert!(store.list("loop/").await.is_err());
}

/// A file system of its own, gone when dropped. `None` where mounting is not allowed.
struct Mount(tempfile::TempDir);

impl Mount {
    fn tmpfs(options: &str) -> Option<Mount> {
        let dir = tempfile::tempdir().unwrap();
        let made = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir.path()).output();
        if made.is_ok_and(|output| output.status.success()) {
            return Some(Mount(dir));
        }
        println!("skipped: a tmpfs cannot be mounted here");
        None
    }

    fn remount(&self, options: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(self.0.path()).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk() {
    let Some(mount) = Mount::tmpfs("size=1m") else { return };
    let store = LocalStore::new(mount.0.path().join("repository"));
    store.prepare().await.unwrap();
    store.put("packs/small", Bytes::from(vec![1; 1000])).await.unwrap();
    let large = Bytes::from(vec![2; 2 << 20]);
    for error in [
        store.put("packs/large", large.clone()).await.unwrap_err(),
        store.put("packs/small", large.clone()).await.unwrap_err(),
        store.put_if_absent("other/large", large).await.unwrap_err(),
    ] {
        assert_eq!(error.kind, ErrorKind::Full, "{error}");
    }
    assert_eq!(
        files(mount.0.path()),
        [mount.0.path().join("repository/packs/small")],
        "what was half written is removed"
    );
    assert_eq!(store.get("packs/small").await.unwrap(), vec![1; 1000], "the old object survives a failed replacement");
    assert_eq!(store.put_if_absent("packs/b", Bytes::from_static(b"b")).await.unwrap(), PutIfAbsent::Created);
}

#[tokio::test]
async fn a_read_only_disk() {
    let Some(mount) = Mount::tmpfs("size=1m") else { return };
    let store = LocalStore::new(mount.0.path().to_owned());
    store.put("a", Bytes::from_static(b"a")).await.unwrap();
    mount.remount("ro");
    for error in [
        store.put("b", Bytes::new()).await.unwrap_err(),
        store.put_if_absent("b", Bytes::new()).await.unwrap_err(),
        store.delete("a").await.unwrap_err(),
        store.prepare().await.unwrap_err(),
    ] {
        assert_eq!(error.kind, ErrorKind::Denied, "{error}");
    }
    assert_eq!(store.get("a").await.unwrap(), "a");
    assert_eq!(store.list("").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_directory_of_somebody_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::new(dir.path().join("repository"));
    store.prepare().await.unwrap();
    store.put("a/b", Bytes::from_static(b"a")).await.unwrap();
    let closed = dir.path().join("repository/a");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o0)).unwrap();
    if fs::read_dir(&closed).is_ok() {
        println!("skipped: permissions do not bind this user");
        return;
    }
    let errors = [
        store.get("a/b").await.unwrap_err(),
        store.size("a/b").await.unwrap_err(),
        store.list("a/").await.unwrap_err(),
        store.put("a/c", Bytes::new()).await.unwrap_err(),
        store.delete("a/b").await.unwrap_err(),
    ];
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    for error in errors {
        assert_eq!(error.kind, ErrorKind::Denied, "{error}");
    }
}
