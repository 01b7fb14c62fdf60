//! Trees to back up, everything that a restore has to bring back of them, and a place with a repository, a cache and a state folder.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use voltool::repo::entry::display_path;
use voltool::repo::{ChunkerParams, Lock, Repository, SnapshotRecord, SourceKind, Unlock};
use voltool::restore::{self, Restored, Selection};
use voltool::snapshot::{self, Backup, BackupOptions, ByteBudget, Excludes, Source};
use voltool::store::Store;
use voltool::store::local::LocalStore;

/// Everything about a tree that a restore has to bring back: a line for each path (`display_path`), in path order.
pub type Facts = BTreeMap<String, String>;

/// Files are cut so small that a tree of a few hundred kilobytes has chunks of every kind.
pub const SMALL: ChunkerParams = ChunkerParams {
    bundle_max_file: 4096,
    bundle_target: 16384,
    cdc_min: 4096,
    cdc_avg: 8192,
    cdc_max: 16384,
    fixed: 16384,
};

/// Bytes that do not compress, and are the same for the same `seed`.
pub fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn at(seconds: i64, nanos: u32) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Sets the modification time of whatever is at `path`.
pub fn touch(path: &Path, seconds: i64, nanos: u32) {
    rustix::fs::utimensat(CWD, path, &at(seconds, nanos), AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Makes a tree with about `small` small files and at least one of everything else that who is not root can make. Times lie in the
/// past, so that no time stamp is too young to be trusted.
pub fn plant(root: &Path, seed: &str, small: usize) {
    fs::create_dir_all(root.join("many/deep/er")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    for n in 0..small {
        let content = noise(&format!("{seed} {n}"), 40 + n % 7 * 150);
        fs::write(root.join(format!("many/file-{n:04}")), content).unwrap();
    }
    fs::write(root.join("nothing"), b"").unwrap();
    fs::write(root.join("many/deep/er/text"), format!("{seed}\n").repeat(300)).unwrap();
    fs::write(root.join("large"), noise(&format!("{seed} large"), 150_000)).unwrap();
    fs::write(root.join("repeated"), format!("{seed} again and again\n").repeat(5_000)).unwrap();
    let image = fs::File::create(root.join("disk.img")).unwrap();
    image.set_len(400_000).unwrap();
    use std::os::unix::fs::FileExt;
    image.write_all_at(&noise(&format!("{seed} image"), 70_000), 98_304).unwrap();
    fs::hard_link(root.join("large"), root.join("many/large-again")).unwrap();
    std::os::unix::fs::symlink("many/deep", root.join("link")).unwrap();
    std::os::unix::fs::symlink("/nowhere", root.join("dangling")).unwrap();
    rustix::fs::mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    let strange = std::ffi::OsStr::from_bytes(b"strange\n\xff name");
    fs::write(root.join(strange), format!("{seed} strange")).unwrap();
    fs::set_permissions(root.join("large"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o1777)).unwrap();
    // Not every file system has attributes; what is there is compared.
    let _ = rustix::fs::setxattr(root.join("nothing"), "user.color", b"blue\0", XattrFlags::empty());
    age(root);
}

/// Gives everything below `root` a time of its own in the past, the deepest first.
pub fn age(root: &Path) {
    fn below(path: &Path, count: &mut i64) {
        if path.symlink_metadata().unwrap().is_dir() {
            let mut names: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect();
            names.sort();
            names.iter().for_each(|p| below(p, count));
        }
        *count += 1;
        touch(path, 1_700_000_000 + *count, (*count % 1_000) as u32 * 1_000_003 % 1_000_000_000);
    }
    below(root, &mut 0);
}

/// Describes everything below `root`, the root too.
pub fn describe(root: &Path) -> Facts {
    let mut facts = Facts::new();
    let mut links = HashMap::new();
    let mut paths = vec![PathBuf::new()];
    let mut all = Vec::new();
    while let Some(path) = paths.pop() {
        if root.join(&path).symlink_metadata().unwrap().is_dir() {
            paths.extend(fs::read_dir(root.join(&path)).unwrap().map(|e| path.join(e.unwrap().file_name())));
        }
        all.push(path);
    }
    all.sort();
    for path in all {
        let name = if path.as_os_str().is_empty() { b"." } else { path.as_os_str().as_bytes() };
        facts.insert(display_path(name), describe_one(&root.join(&path), name, &mut links));
    }
    facts
}

fn describe_one(path: &Path, name: &[u8], links: &mut HashMap<(u64, u64), String>) -> String {
    let meta = path.symlink_metadata().unwrap();
    let kind = meta.file_type();
    let letter = match () {
        () if kind.is_file() => 'f',
        () if kind.is_dir() => 'd',
        () if kind.is_symlink() => 'l',
        () if kind.is_fifo() => 'p',
        () if kind.is_socket() => 's',
        () if kind.is_char_device() => 'c',
        () => 'b',
    };
    let mut said = format!("{letter} {:04o} {}:{}", meta.mode() & 0o7777, meta.uid(), meta.gid());
    said += &format!(" {}.{:09}", meta.mtime(), meta.mtime_nsec());
    if kind.is_file() {
        said += &format!(" {} {}", meta.len(), content(path, meta.len()));
    }
    if kind.is_symlink() {
        said += &format!(" -> {}", display_path(fs::read_link(path).unwrap().as_os_str().as_bytes()));
    }
    if letter == 'c' || letter == 'b' {
        said += &format!(" device {:x}", meta.rdev());
    }
    if !kind.is_dir() && meta.nlink() > 1 {
        let first = links.entry((meta.dev(), meta.ino())).or_insert_with(|| display_path(name));
        said += &format!(" is {first}");
    }
    for (name, value) in xattrs(path) {
        said += &format!(" {name}={value}");
    }
    said
}

fn xattrs(path: &Path) -> BTreeMap<String, String> {
    let mut names = vec![0u8; 65_536];
    let Ok(len) = rustix::fs::llistxattr(path, &mut names) else { return BTreeMap::new() };
    let value = |name: &[u8]| {
        let mut value = vec![0u8; 65_536];
        let len = rustix::fs::lgetxattr(path, std::ffi::OsStr::from_bytes(name), &mut value).unwrap();
        (display_path(name), hex::encode(&value[..len]))
    };
    // A label that a security module gives to everything is not the tree's.
    let own = |name: &&[u8]| !name.is_empty() && *name != b"security.selinux";
    names[..len].split(|b| *b == 0).filter(own).map(value).collect()
}

/// The SHA-256 of a file; of a large one, which has holes, of its blocks that are not zeros.
fn content(path: &Path, len: u64) -> String {
    if len <= 16 << 20 {
        return sha256(&fs::read(path).unwrap());
    }
    use sha2::Digest;
    use std::os::unix::fs::FileExt;
    let file = fs::File::open(path).unwrap();
    let (mut hasher, zeros, mut block) = (sha2::Sha256::new(), vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0;
    while let Ok(data) = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
        at = data - data % block.len() as u64;
        let size = block.len().min((len - at) as usize);
        file.read_exact_at(&mut block[..size], at).unwrap();
        if block[..size] != zeros[..size] {
            hasher.update(at.to_le_bytes());
            hasher.update(&block[..size]);
        }
        at += size as u64;
    }
    hex::encode(hasher.finalize())
}

pub fn sha256(data: &[u8]) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(data))
}

/// The paths that are not the same in both.
pub fn differences(want: &Facts, got: &Facts) -> Vec<String> {
    let paths: BTreeSet<&String> = want.keys().chain(got.keys()).collect();
    let differ = |path: &&&String| want.get(**path) != got.get(**path);
    let show = |path: &String| format!("{path}: {:?} became {:?}", want.get(path), got.get(path));
    paths.iter().filter(differ).map(|path| show(path)).collect()
}

/// What a restore that met damage may have left: what is there is right, and what is not there was named.
pub fn check_partial(want: &Facts, got: &Facts, problems: &[(String, String)]) {
    let leaf_lost = problems.iter().any(|(_, reason)| reason.contains("entries from here on are lost"));
    // A folder whose own entry was lost is there all the same if it is the target.
    for (path, fact) in got.iter().filter(|(path, _)| !(leaf_lost && *path == ".")) {
        assert_eq!(want.get(path), Some(fact), "{path} is wrong; problems: {problems:?}");
    }
    for path in want.keys().filter(|path| !got.contains_key(*path)) {
        let named = problems.iter().any(|(named, _)| named == path);
        assert!(named || leaf_lost, "{path} is missing, and nothing was said of it; problems: {problems:?}");
    }
}

/// A temporary folder with a repository, a cache, a state folder, and sources.
pub struct Place {
    pub dir: tempfile::TempDir,
    /// What opens the repository; none if it is not encrypted.
    pub identity: Option<age::x25519::Identity>,
}

impl Place {
    /// A place without a repository.
    pub fn new(encrypted: bool) -> Place {
        let dir = tempfile::Builder::new().prefix("voltool-test-").tempdir().unwrap();
        Place { dir, identity: encrypted.then(age::x25519::Identity::generate) }
    }

    /// A place with the repository, the state and the sources of this one, but no cache. The sources are the same folders.
    pub fn copy(&self) -> Place {
        let dir = tempfile::Builder::new().prefix("voltool-test-").tempdir().unwrap();
        for name in ["repository", "state"] {
            if self.path(name).exists() {
                copy_dir(&self.path(name), &dir.path().join(name));
            }
        }
        std::os::unix::fs::symlink(self.path("sources"), dir.path().join("sources")).unwrap();
        Place { dir, identity: self.identity.clone() }
    }

    fn unlock(&self) -> Vec<Unlock> {
        self.identity.iter().cloned().map(Unlock::Identity).collect()
    }

    /// A place with an empty repository.
    pub async fn with_repository(encrypted: bool) -> Place {
        let place = Place::new(encrypted);
        place.create(place.store()).await;
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The repository's folder.
    pub fn repository(&self) -> PathBuf {
        self.path("repository")
    }

    pub fn store(&self) -> Arc<dyn Store> {
        Arc::new(LocalStore::new(self.repository()))
    }

    pub async fn create(&self, store: Arc<dyn Store>) -> Arc<Repository> {
        store.prepare().await.unwrap();
        let lock = match &self.identity {
            Some(identity) => Lock::Recipients(vec![identity.to_public()]),
            None => Lock::Nobody,
        };
        let made = Repository::create(store, &lock, SMALL, None, &self.path("cache")).await;
        Arc::new(made.unwrap())
    }

    /// Opens the repository with its index, with the cache `cache`.
    pub async fn try_open(&self, store: Arc<dyn Store>, cache: &str) -> voltool::repo::Result<Arc<Repository>> {
        let repo = Arc::new(Repository::open(store, &self.unlock(), &self.path(cache)).await?);
        repo.load_index().await?;
        Ok(repo)
    }

    /// Opens the repository in its folder.
    pub async fn open(&self) -> Arc<Repository> {
        self.try_open(self.store(), "cache").await.unwrap()
    }

    /// The source named `name`, whose content is in a folder of that name.
    pub fn source(&self, name: &str) -> Source {
        let root = self.path(&format!("sources/{name}"));
        Source { engine: "engine".into(), name: name.into(), kind: SourceKind::Volume, root, docker: None, lease: None }
    }

    /// Makes the source named `name`.
    pub fn plant(&self, name: &str, small: usize) -> Source {
        let source = self.source(name);
        fs::create_dir_all(&source.root).unwrap();
        plant(&source.root, name, small);
        source
    }

    pub fn options(&self, state: &str) -> BackupOptions {
        BackupOptions {
            state_dir: self.path(state),
            tags: Vec::new(),
            budget: ByteBudget::new(64 << 20),
            excludes: Excludes::default(),
            level: 3,
            cancelled: Arc::new(AtomicBool::new(false)),
        }
    }

    pub async fn backup(&self, repo: &Arc<Repository>, name: &str) -> voltool::repo::Result<Backup> {
        snapshot::backup(repo, &self.source(name), &self.options("state"), Arc::new(())).await
    }

    /// Restores a snapshot into a new folder: what the restore said, and what is there now.
    pub async fn restore(
        &self,
        repo: &Arc<Repository>,
        record: &SnapshotRecord,
    ) -> voltool::repo::Result<(Restored, Facts)> {
        self.restore_some(repo, record, &[]).await
    }

    pub async fn restore_some(
        &self,
        repo: &Arc<Repository>,
        record: &SnapshotRecord,
        paths: &[&str],
    ) -> voltool::repo::Result<(Restored, Facts)> {
        let target = tempfile::tempdir_in(self.dir.path()).unwrap();
        let selection = Selection::new(paths.iter().map(|path| path.as_bytes().to_vec()));
        let (repo, record, root) = (repo.clone(), record.clone(), target.path().to_owned());
        let restored = tokio::task::spawn_blocking(move || {
            restore::to_dir(&repo, &record, &root, &selection, &Default::default(), &(), &AtomicBool::new(false))
        });
        let restored = restored.await.expect("a restore does not panic")?;
        Ok((restored, describe(target.path())))
    }

    /// Exports a snapshot and unpacks it with GNU tar.
    pub async fn export(
        &self,
        repo: &Arc<Repository>,
        record: &SnapshotRecord,
    ) -> voltool::repo::Result<(Vec<(String, String)>, Facts)> {
        let (repo, record) = (repo.clone(), record.clone());
        let (result, tar) = tokio::task::spawn_blocking(move || {
            let mut tar = Vec::new();
            let none = AtomicBool::new(false);
            let result = restore::export::to_tar(&repo, &record, &Selection::default(), &mut tar, &(), &none);
            (result, tar)
        })
        .await
        .expect("an export does not panic");
        Ok((result?, self.unpack(&tar)))
    }

    fn unpack(&self, tar: &[u8]) -> Facts {
        use std::io::Write;
        let target = tempfile::tempdir_in(self.dir.path()).unwrap();
        let mut child = std::process::Command::new("tar")
            .args(["-x", "-p", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C"])
            .arg(target.path())
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(tar).unwrap();
        assert!(child.wait().unwrap().success());
        describe(target.path())
    }
}

/// Copies a folder of plain files and folders.
pub fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Every file below `dir`, with `/` between the parts, sorted.
pub fn files_below(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}
