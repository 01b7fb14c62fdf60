//! A directory as storage: each object is a file, its key the path below the directory.
//!
//! A PUT writes a temporary file beside its place, syncs it, renames it and syncs the directory, so that a reader sees the
//! whole object or none, and an object that was reported as stored survives a power cut.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{CWD, RenameFlags};

use super::{ErrorKind, ObjectInfo, PutIfAbsent, Result, Store, StoreError};

/// The names of files that are still being written begin with this.
const TEMP_PREFIX: &str = ".tmp-";

/// A temporary file of this age was left behind by a process that died; a listing that comes across it removes it.
const TEMP_MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// No key of a repository has that many parts: deeper is a loop of symbolic links.
const MAX_DEPTH: usize = 32;

/// A directory of objects. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LocalStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    url: String,
    /// Directories whose own entries this process has synced, up to the root.
    durable_dirs: Mutex<HashSet<PathBuf>>,
}

impl LocalStore {
    /// Makes a store of the directory `root`, which need not exist until [`Store::prepare`] makes it.
    pub fn new(root: PathBuf) -> LocalStore {
        let url = root.display().to_string();
        LocalStore { inner: Arc::new(Inner { root, url, durable_dirs: Mutex::default() }) }
    }

    /// Runs `work` where blocking is allowed.
    async fn blocking<T, F>(&self, action: &'static str, key: &str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Inner, &str) -> Result<T> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        let owned = key.to_owned();
        match tokio::task::spawn_blocking(move || work(&inner, &owned)).await {
            Ok(result) => result,
            Err(error) => Err(StoreError::new(ErrorKind::Other, action, key, &self.inner.url, error)),
        }
    }
}

impl Inner {
    fn fail(&self, kind: ErrorKind, action: &'static str, key: &str, reason: impl std::fmt::Display) -> StoreError {
        StoreError::new(kind, action, key, &self.url, reason)
    }

    /// Turns an error of the operating system into one that names the object and says what kind it is.
    fn io(&self, action: &'static str, key: &str, error: &io::Error) -> StoreError {
        use io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::NotFound | Io::NotADirectory => match fs::metadata(&self.root) {
                // A part of the key is an object itself: S3 could hold both, a directory cannot.
                Ok(meta) if meta.is_dir() && action == "write" => ErrorKind::Invalid,
                Ok(meta) if meta.is_dir() => ErrorKind::NotFound,
                Ok(_) => return self.fail(ErrorKind::NoContainer, action, key, "it is not a directory"),
                Err(e) if matches!(e.kind(), Io::NotFound | Io::NotADirectory) => {
                    return self.fail(ErrorKind::NoContainer, action, key, "the directory does not exist");
                }
                Err(e) => return self.fail(ErrorKind::Denied, action, key, e),
            },
            Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::Denied,
            Io::StorageFull | Io::QuotaExceeded => ErrorKind::Full,
            Io::InvalidFilename | Io::IsADirectory | Io::FileTooLarge => ErrorKind::Invalid,
            Io::StaleNetworkFileHandle | Io::TimedOut | Io::HostUnreachable | Io::NetworkUnreachable => {
                ErrorKind::Unreachable
            }
            Io::UnexpectedEof => ErrorKind::Integrity,
            _ => ErrorKind::Other,
        };
        self.fail(kind, action, key, error)
    }

    /// The file of `key`. Refuses keys that would leave the directory or collide with temporary files.
    fn path(&self, action: &'static str, key: &str) -> Result<PathBuf> {
        let sound = |part: &str| !matches!(part, "" | "." | "..") && !part.starts_with(TEMP_PREFIX);
        if key.contains('\0') || !key.split('/').all(sound) {
            return Err(self.fail(ErrorKind::Invalid, action, key, "this is not a key that a directory can hold"));
        }
        Ok(self.root.join(key))
    }

    fn durable_dirs(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        // The set is only a memory of what was synced: it stays true even if another thread panicked over it.
        self.durable_dirs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the directory `dir` below the root, and sees to it that its entry is durable.
    ///
    /// Another task may have made it a moment ago and not have synced its parent yet, so "it is there" is not enough: each
    /// process syncs the parents of each directory once before it relies on them.
    fn ensure_dir(&self, dir: &Path) -> io::Result<()> {
        if dir == self.root || self.durable_dirs().contains(dir) {
            return Ok(());
        }
        let Some(parent) = dir.parent() else { return Ok(()) };
        self.ensure_dir(parent)?;
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => sync_dir(parent)?,
        }
        self.durable_dirs().insert(dir.to_owned());
        Ok(())
    }

    /// Writes `data` to a synced temporary file in `dir`.
    fn write_temp(&self, dir: &Path, data: &[u8]) -> io::Result<TempFile> {
        let mut tries = 0;
        let (mut file, temp) = loop {
            self.ensure_dir(dir)?;
            let path = dir.join(format!("{TEMP_PREFIX}{}", ulid::Ulid::generate()));
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => break (file, TempFile { path: Some(path) }),
                // A delete that emptied the directory has just removed it, so what was known of it is void.
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries < 8 && dir != self.root => {
                    tries += 1;
                    self.durable_dirs().retain(|known| !known.starts_with(dir) && !dir.starts_with(known));
                }
                Err(error) => return Err(error),
            }
        };
        file.write_all(data)?;
        file.sync_all()?;
        Ok(temp)
    }

    fn put(&self, key: &str, data: &[u8]) -> Result<()> {
        let path = self.path("write", key)?;
        let dir = path.parent().unwrap_or(&self.root);
        let write = || {
            self.write_temp(dir, data)?.rename(&path)?;
            sync_dir(dir)
        };
        write().map_err(|error| self.io("write", key, &error))
    }

    fn put_if_absent(&self, key: &str, data: &[u8]) -> Result<PutIfAbsent> {
        let path = self.path("write", key)?;
        let dir = path.parent().unwrap_or(&self.root);
        let write = || {
            let done = self.write_temp(dir, data)?.rename_if_absent(&path)?;
            if done == PutIfAbsent::Created {
                sync_dir(dir)?;
            }
            Ok(done)
        };
        write().map_err(|error: io::Error| self.io("write", key, &error))
    }

    fn open(&self, key: &str) -> Result<(File, u64)> {
        let path = self.path("read", key)?;
        let file = File::open(&path).map_err(|error| self.io("read", key, &error))?;
        let meta = file.metadata().map_err(|error| self.io("read", key, &error))?;
        if !meta.is_file() {
            return Err(self.fail(ErrorKind::NotFound, "read", key, "there is no file of that name"));
        }
        Ok((file, meta.len()))
    }

    fn get(&self, key: &str) -> Result<Bytes> {
        let (mut file, size) = self.open(key)?;
        let mut data = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        file.read_to_end(&mut data).map_err(|error| self.io("read", key, &error))?;
        if data.len() as u64 != size {
            let reason = format!("{} bytes could be read of a file of {size}", data.len());
            return Err(self.fail(ErrorKind::Integrity, "read", key, reason));
        }
        Ok(data.into())
    }

    fn get_range(&self, key: &str, offset: u64, len: u64) -> Result<Bytes> {
        let (file, size) = self.open(key)?;
        // Compared before anything is allocated: the numbers may come from a damaged index.
        if offset.checked_add(len).is_none_or(|end| end > size) {
            let reason = format!("{len} bytes at {offset} were asked for, but the object has {size} bytes");
            return Err(self.fail(ErrorKind::Integrity, "read", key, reason));
        }
        self.read_at(key, &file, offset, len)
    }

    fn get_tail(&self, key: &str, len: u64) -> Result<(Bytes, u64)> {
        let (file, size) = self.open(key)?;
        let len = len.min(size);
        Ok((self.read_at(key, &file, size - len, len)?, size))
    }

    fn read_at(&self, key: &str, file: &File, offset: u64, len: u64) -> Result<Bytes> {
        let len = usize::try_from(len).map_err(|error| self.fail(ErrorKind::Invalid, "read", key, error))?;
        let mut data = vec![0; len];
        file.read_exact_at(&mut data, offset).map_err(|error| self.io("read", key, &error))?;
        Ok(data.into())
    }

    fn size(&self, key: &str) -> Result<Option<u64>> {
        match fs::metadata(self.path("look up", key)?) {
            Ok(meta) => Ok(meta.is_file().then_some(meta.len())),
            Err(error) => match self.io("look up", key, &error) {
                error if error.is_not_found() => Ok(None),
                error => Err(error),
            },
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        let mut found = Vec::new();
        // Everything that begins with `a/b/c` is in `a/b`, below names that begin with `c`.
        let (dir, start) = prefix.rsplit_once('/').map_or(("", prefix), |(dir, start)| (dir, start));
        let missing =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
        if dir.is_empty() && !prefix.starts_with('/') {
            self.walk("", start, 0, &mut found).map_err(|error| self.io("list", prefix, &error))?;
        } else {
            let dir = self.path("list", dir)?.strip_prefix(&self.root).map(Path::to_owned);
            let dir = dir.ok().and_then(|dir| dir.to_str().map(str::to_owned)).unwrap_or_default();
            match self.walk(&format!("{dir}/"), start, 0, &mut found) {
                Err(error) if missing(&error) => match self.io("list", prefix, &error) {
                    error if error.is_not_found() => {}
                    error => return Err(error),
                },
                other => other.map_err(|error| self.io("list", prefix, &error))?,
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Adds the objects below `dir` (empty, or ending with a slash) whose first part begins with `start`.
    fn walk(&self, dir: &str, start: &str, depth: usize, found: &mut Vec<ObjectInfo>) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::new(io::ErrorKind::InvalidFilename, format!("{dir} is too deep, or a loop")));
        }
        for entry in fs::read_dir(self.root.join(dir))? {
            let entry = entry?;
            // A name that is not UTF-8 cannot be a key of ours.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with(TEMP_PREFIX) {
                remove_if_stale(&entry);
                continue;
            }
            if !name.starts_with(start) {
                continue;
            }
            // Links are followed: people move `packs` to a larger disk and leave a link. What vanished meanwhile is no object.
            let meta = match fs::metadata(entry.path()) {
                Ok(meta) => meta,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let key = format!("{dir}{name}");
            if meta.is_file() {
                found.push(ObjectInfo { key, size: meta.len() });
            } else if meta.is_dir() {
                match self.walk(&format!("{key}/"), "", depth + 1, found) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }

    fn delete(&self, key: &str) -> Result<()> {
        let path = self.path("delete", key)?;
        match fs::remove_file(&path) {
            Ok(()) => {}
            // A directory is no object: S3 would answer that there is nothing of that key.
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => return Ok(()),
            Err(error) => {
                return match self.io("delete", key, &error) {
                    error if error.is_not_found() => Ok(()),
                    error => Err(error),
                };
            }
        }
        let mut dir = path.parent().unwrap_or(&self.root);
        // Directories that became empty go too, as S3 has none. One that is in use again refuses, and that is fine.
        while dir != self.root && fs::remove_dir(dir).is_ok() {
            self.durable_dirs().retain(|known| !known.starts_with(dir));
            dir = dir.parent().unwrap_or(&self.root);
        }
        match sync_dir(dir) {
            // Another delete removed it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|error| self.io("delete", key, &error)),
        }
    }

    fn prepare(&self) -> Result<()> {
        let prepare = || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root)?;
            if let Some(parent) = self.root.parent() {
                sync_dir(parent)?;
            }
            // Whether it may be written to is better known now than after the first gigabyte.
            self.write_temp(&self.root, b"")
        };
        match prepare() {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory) => {
                Err(self.fail(ErrorKind::NoContainer, "prepare", "", "it is not a directory"))
            }
            Err(error) => Err(self.io("prepare", "", &error)),
        }
    }
}

/// A temporary file that is removed unless it got its name.
struct TempFile {
    path: Option<PathBuf>,
}

impl TempFile {
    fn rename(mut self, to: &Path) -> io::Result<()> {
        if let Some(from) = &self.path {
            fs::rename(from, to)?;
        }
        self.path = None;
        Ok(())
    }

    /// Gives the file its name only if no file has it. Atomic: renameat2 with NOREPLACE, or a hard link where the file system
    /// does not know that.
    fn rename_if_absent(mut self, to: &Path) -> io::Result<PutIfAbsent> {
        use rustix::io::Errno;
        let Some(from) = &self.path else { return Ok(PutIfAbsent::Unsupported) };
        match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.path = None;
                Ok(PutIfAbsent::Created)
            }
            Err(Errno::EXIST) => Ok(PutIfAbsent::Exists),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => match rustix::fs::link(from, to) {
                Ok(()) => Ok(PutIfAbsent::Created),
                Err(Errno::EXIST) => Ok(PutIfAbsent::Exists),
                Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(PutIfAbsent::Unsupported),
                Err(errno) => Err(errno.into()),
            },
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // The error that brought us here is the one to report.
            let _ = fs::remove_file(path);
        }
    }
}

fn remove_if_stale(entry: &fs::DirEntry) {
    let age = entry.metadata().and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
    if age.is_some_and(|age| age > TEMP_MAX_AGE) {
        // If it cannot be removed it only takes space; a live writer that slept this long gets a loud error from its rename.
        let _ = fs::remove_file(entry.path());
    }
}

/// Makes the entries of a directory durable.
fn sync_dir(dir: &Path) -> io::Result<()> {
    match File::open(dir)?.sync_all() {
        // Some network and FUSE file systems do not sync directories, and make renames durable by themselves.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        other => other,
    }
}

#[async_trait]
impl Store for LocalStore {
    fn url(&self) -> String {
        self.inner.url.clone()
    }

    async fn put(&self, key: &str, data: Bytes) -> Result<()> {
        self.blocking("write", key, move |inner, key| inner.put(key, &data)).await
    }

    async fn put_if_absent(&self, key: &str, data: Bytes) -> Result<PutIfAbsent> {
        self.blocking("write", key, move |inner, key| inner.put_if_absent(key, &data)).await
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        self.blocking("read", key, Inner::get).await
    }

    async fn get_range(&self, key: &str, offset: u64, len: u64) -> Result<Bytes> {
        self.blocking("read", key, move |inner, key| inner.get_range(key, offset, len)).await
    }

    async fn get_tail(&self, key: &str, len: u64) -> Result<(Bytes, u64)> {
        self.blocking("read", key, move |inner, key| inner.get_tail(key, len)).await
    }

    async fn size(&self, key: &str) -> Result<Option<u64>> {
        self.blocking("look up", key, Inner::size).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        self.blocking("list", prefix, Inner::list).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.blocking("delete", key, Inner::delete).await
    }

    async fn prepare(&self) -> Result<()> {
        self.blocking("prepare", "", |inner, _| inner.prepare()).await
    }
}
