//! The local copy of metadata: disposable, checked on every read, shared by processes.
//!
//! ```text
//! <cache folder>/<repository id>/
//!   keys/<ulid>.age              as stored (still locked)
//!   snapshots/<source>/<id>.json as stored (still encrypted)
//!   gc/…                         as stored, then BLAKE3 of it: nothing in it would show that it was changed
//!   index/<name>.idx             the segment's plain bytes, then BLAKE3 of them: mapped into memory
//!   meta/<2 digits>/<chunk id>   the zstd frame of a metadata chunk; the id checks it
//!   packs/…                      (reserved for data packs)
//! ```
//!
//! What cannot be kept, because the disk is full for one, is used all the same and fetched again next time: a cache is no reason for a
//! backup to fail.
//!
//! Files are written under a temporary name and renamed, so a reader never sees half of one; they are not synced, because what is
//! lost or damaged is fetched again.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::ChunkId;
use super::entry::check_path;
use super::error::{RepoError, Result};
use super::mmap::Mapped;

/// The cache of one repository.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens (and makes) the cache of the repository with that id below `folder`.
    pub fn open(folder: &Path, repository: &str) -> Result<Self> {
        let root = folder.join(repository);
        create_private_dir(&root)?;
        Ok(Cache { root })
    }

    /// Returns a cached object, if it is there. The caller checks what it gets.
    pub fn object(&self, key: &str) -> Option<Bytes> {
        fs::read(self.path(key)?).ok().map(Bytes::from)
    }

    /// Keeps an object.
    pub fn keep_object(&self, key: &str, data: &[u8]) {
        let _ = self.path(key).map(|path| self.write(&path, &[data]));
    }

    /// Forgets an object, because it turned out to be damaged.
    pub fn drop_object(&self, key: &str) {
        let _ = self.path(key).map(fs::remove_file);
    }

    /// Returns a cached object that was kept with its checksum, if it is there and undamaged.
    pub fn checked_object(&self, key: &str) -> Option<Bytes> {
        let mut data = self.object(key)?;
        let sum = data.split_off(data.len().checked_sub(32)?);
        (blake3::hash(&data).as_bytes()[..] == sum[..]).then_some(data)
    }

    /// Keeps an object that cannot be checked by what is in it.
    pub fn keep_checked_object(&self, key: &str, data: &[u8]) {
        let _ = self.path(key).map(|path| self.write(&path, &[data, blake3::hash(data).as_bytes()]));
    }

    /// Where the object of that key is kept. `None` for a key that could lead out of the cache: keys come from a storage that others can
    /// write to.
    fn path(&self, key: &str) -> Option<PathBuf> {
        (key != "." && check_path(key.as_bytes())).then(|| self.root.join(key))
    }

    /// Maps a segment of the index, if it is there and undamaged.
    pub fn segment(&self, name: &str) -> Option<Mapped> {
        let path = self.segment_path(name);
        let mut data = Mapped::open(&path).ok()?;
        let len = data.len().checked_sub(32)?;
        if blake3::hash(&data[..len]).as_bytes()[..] != data[len..] {
            let _ = fs::remove_file(path);
            return None;
        }
        data.truncate(len);
        Some(data)
    }

    /// Keeps a segment's plain bytes, and maps them.
    pub fn keep_segment(&self, name: &str, plain: &[u8]) -> Result<Mapped> {
        let path = self.segment_path(name);
        if self.write(&path, &[plain, blake3::hash(plain).as_bytes()]).is_err() {
            return Ok(Mapped::in_memory(plain.to_vec()));
        }
        let mut data = Mapped::open(&path)?;
        data.truncate(plain.len());
        Ok(data)
    }

    /// Keeps a segment that `fill` writes to the path that it is given.
    pub fn keep_large_segment(&self, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<Mapped> {
        let path = self.segment_path(name);
        let temporary = temporary_name(&path);
        let parent = path.parent().unwrap_or(&self.root);
        create_private_dir(parent)?;
        let result = fill(&temporary).and_then(|()| {
            let local = |e| RepoError::local("write", &temporary, e);
            let mut hasher = blake3::Hasher::new();
            let plain = Mapped::open(&temporary)?;
            hasher.update(&plain);
            let mut file = fs::OpenOptions::new().append(true).open(&temporary).map_err(local)?;
            file.write_all(hasher.finalize().as_bytes()).map_err(local)?;
            fs::rename(&temporary, &path).map_err(local)
        });
        if result.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        result?;
        self.segment(name)
            .ok_or_else(|| RepoError::damaged(path.display().to_string(), "it changed while it was written"))
    }

    /// The names of the segments that are here.
    pub fn segment_names(&self) -> Vec<String> {
        let Ok(dir) = fs::read_dir(self.root.join("index")) else { return Vec::new() };
        dir.filter_map(|e| Some(e.ok()?.file_name().to_str()?.strip_suffix(".idx")?.to_owned())).collect()
    }

    /// Removes a segment that is no longer of use.
    pub fn drop_segment(&self, name: &str) {
        let _ = fs::remove_file(self.segment_path(name));
    }

    /// Returns the zstd frame of a metadata chunk, if it is here.
    pub fn chunk(&self, id: &ChunkId) -> Option<Vec<u8>> {
        fs::read(self.chunk_path(id)).ok()
    }

    /// Keeps the zstd frame of a metadata chunk.
    pub fn keep_chunk(&self, id: &ChunkId, frame: &[u8]) {
        let _ = self.write(&self.chunk_path(id), &[frame]);
    }

    /// Forgets a metadata chunk, because it turned out to be damaged.
    pub fn drop_chunk(&self, id: &ChunkId) {
        let _ = fs::remove_file(self.chunk_path(id));
    }

    fn segment_path(&self, name: &str) -> PathBuf {
        self.root.join("index").join(format!("{name}.idx"))
    }

    fn chunk_path(&self, id: &ChunkId) -> PathBuf {
        let name = id.to_string();
        self.root.join("meta").join(&name[..2]).join(&name)
    }

    fn write(&self, path: &Path, parts: &[&[u8]]) -> Result<()> {
        let temporary = temporary_name(path);
        let attempt = || -> std::io::Result<()> {
            let mut file = fs::File::create(&temporary)?;
            parts.iter().try_for_each(|part| file.write_all(part))?;
            fs::rename(&temporary, path)
        };
        let result = attempt().or_else(|e| {
            if e.kind() != std::io::ErrorKind::NotFound {
                return Err(e);
            }
            fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
            attempt()
        });
        result.map_err(|e| {
            let _ = fs::remove_file(&temporary);
            RepoError::local("write", path, e)
        })
    }
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", ulid::Ulid::generate()));
    path.with_file_name(name)
}

/// Makes a folder (and those above it) that only its owner may enter.
pub fn create_private_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| RepoError::local("create", path, e))
}
