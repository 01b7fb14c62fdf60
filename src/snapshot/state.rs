//! The last listing of a source, kept locally so that the next backup knows what has not changed without reading it.
//!
//! One file for each source, sorted as a listing, read from front to back beside the walk (a merge join), so that memory does not grow
//! with the number of files. Disposable: it is rebuilt from the newest snapshot's leaves when it is missing, damaged, or does not
//! belong to a snapshot that counts.
//!
//! ```text
//! "VTSTATE1", length of the header (u32), header (JSON)
//! rows: path length (u32, never 0), path, size, mtime, ctime, inode, line length (u32), the entry's line
//! 0 (u32), BLAKE3 of everything before it
//! ```

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::walk::Meta;
use crate::repo::cache::create_private_dir;
use crate::repo::entry::{Entry, compare_paths};
use crate::repo::{RepoError, Result};

const MAGIC: &[u8; 8] = b"VTSTATE1";
/// A line longer than this is no entry that voltool writes.
const MAX_LINE: u32 = 64 << 20;

/// What the state belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateHeader {
    /// The snapshot whose listing it is.
    pub snapshot: String,
    /// When that snapshot's scan began: seconds since 1970.
    pub scanned: i64,
}

/// What is compared with `stat` to tell whether an object has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes; 0 for anything but a file.
    pub size: u64,
    /// Modification time.
    pub mtime: (i64, u32),
    /// Status change time.
    pub ctime: (i64, u32),
    /// Inode number.
    pub inode: u64,
}

impl Stamp {
    /// The stamp of what `stat` says now.
    pub fn of(meta: &Meta) -> Self {
        let size = if meta.file_type().is_file() { meta.size } else { 0 };
        Stamp { size, mtime: meta.mtime, ctime: meta.ctime, inode: meta.inode }
    }

    /// The stamp that an entry remembers.
    pub fn remembered(entry: &Entry) -> Self {
        Stamp { size: entry.size.unwrap_or(0), mtime: entry.mtime, ctime: entry.ctime, inode: entry.inode }
    }
}

/// One row.
#[derive(Debug, Clone)]
pub struct Row {
    /// The path below the source's root.
    pub path: Vec<u8>,
    /// What `stat` said when the entry was made.
    pub stamp: Stamp,
    /// The entry, as it stands in the leaf (without the line feed).
    pub line: Vec<u8>,
}

struct HashWriter<W> {
    inner: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for HashWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hasher.update(&buf[..n]);
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes a new state beside the old one; only [`StateWriter::finish`] puts it in its place.
///
/// What cannot be written, because the disk is full for one, is said at the end: the state only saves reading, so it must not fail a
/// backup half-way.
pub struct StateWriter {
    file: Option<BufWriter<HashWriter<File>>>,
    path: PathBuf,
    temporary: PathBuf,
    failure: Option<RepoError>,
    finished: bool,
}

impl Drop for StateWriter {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// Removes what runs that were killed have left behind, once it is a day old: nobody writes a listing for that long.
fn sweep(path: &Path) {
    let (Some(dir), Some(stem)) = (path.parent(), path.file_stem().and_then(|s| s.to_str())) else { return };
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|n| n.starts_with(stem) && n.ends_with(".new"));
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        if ours && age.is_some_and(|age| age > std::time::Duration::from_secs(24 * 3600)) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

impl StateWriter {
    /// Begins a state that will stand at `path`.
    pub fn create(path: &Path, header: &StateHeader) -> Result<Self> {
        create_private_dir(path.parent().unwrap_or(Path::new(".")))?;
        sweep(path);
        let temporary = path.with_extension(format!("{}.new", ulid::Ulid::generate()));
        let local = |e| RepoError::local("write", &temporary, e);
        let file = File::create(&temporary).map_err(local)?;
        let writer = HashWriter { inner: file, hasher: blake3::Hasher::new() };
        let mut file = BufWriter::with_capacity(256 * 1024, writer);
        let json = serde_json::to_vec(header).map_err(|e| RepoError::Codec(e.to_string()))?;
        file.write_all(MAGIC)
            .and_then(|()| file.write_all(&(json.len() as u32).to_le_bytes()))
            .and_then(|()| file.write_all(&json))
            .map_err(local)?;
        Ok(StateWriter { file: Some(file), path: path.to_owned(), temporary, failure: None, finished: false })
    }

    /// Adds a row. Rows come in the order of a listing.
    pub fn add(&mut self, path: &[u8], stamp: &Stamp, line: &[u8]) {
        let Some(file) = &mut self.file else { return };
        let mut head = Vec::with_capacity(path.len() + 56);
        head.extend_from_slice(&(path.len() as u32).to_le_bytes());
        head.extend_from_slice(path);
        head.extend_from_slice(&stamp.size.to_le_bytes());
        for (seconds, nanos) in [stamp.mtime, stamp.ctime] {
            head.extend_from_slice(&seconds.to_le_bytes());
            head.extend_from_slice(&nanos.to_le_bytes());
        }
        head.extend_from_slice(&stamp.inode.to_le_bytes());
        head.extend_from_slice(&(line.len() as u32).to_le_bytes());
        if let Err(e) = file.write_all(&head).and_then(|()| file.write_all(line)) {
            self.failure = Some(RepoError::local("write", &self.temporary, e));
            self.file = None;
            // The room is somebody else's now.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }

    /// Puts the state in its place.
    pub fn finish(mut self) -> Result<()> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let local = |e| RepoError::local("write", &self.path, e);
        let Some(mut file) = self.file.take() else { return Ok(()) };
        file.write_all(&0u32.to_le_bytes()).map_err(local)?;
        let HashWriter { mut inner, hasher } = file.into_inner().map_err(|e| local(e.into_error()))?;
        inner.write_all(hasher.finalize().as_bytes()).map_err(local)?;
        std::fs::rename(&self.temporary, &self.path).map_err(local)?;
        self.finished = true;
        Ok(())
    }
}

/// Reads a state from front to back, beside a walk.
pub struct StateReader {
    file: BufReader<File>,
    header: StateHeader,
    next: Option<Row>,
}

impl StateReader {
    /// Opens the state at `path`. `None` if there is none, or if it is damaged.
    pub fn open(path: &Path) -> Option<Self> {
        let mut file = File::open(path).ok()?;
        verify(&mut file)?;
        let mut file = BufReader::with_capacity(256 * 1024, File::open(path).ok()?);
        let mut magic = [0; 8];
        file.read_exact(&mut magic).ok()?;
        let len = read_u32(&mut file).ok()?;
        if &magic != MAGIC || len > 65_536 {
            return None;
        }
        let mut json = vec![0; len as usize];
        file.read_exact(&mut json).ok()?;
        let header = serde_json::from_slice(&json).ok()?;
        let mut reader = StateReader { file, header, next: None };
        reader.next = reader.read().ok()?;
        Some(reader)
    }

    /// What it belongs to.
    pub fn header(&self) -> &StateHeader {
        &self.header
    }

    /// Goes forward to `path` and returns its row if there is one. Paths must be asked for in the order of a listing. Rows on the way
    /// (what is no longer there) are given to `passed`.
    pub fn seek(&mut self, path: &[u8], mut passed: impl FnMut(&Row)) -> io::Result<Option<Row>> {
        while let Some(row) = &self.next {
            match compare_paths(&row.path, path) {
                std::cmp::Ordering::Less => passed(row),
                std::cmp::Ordering::Equal => {
                    let next = self.read()?;
                    return Ok(std::mem::replace(&mut self.next, next));
                }
                std::cmp::Ordering::Greater => return Ok(None),
            }
            self.next = self.read()?;
        }
        Ok(None)
    }

    /// Gives all that is left to `passed`.
    pub fn drain(&mut self, mut passed: impl FnMut(&Row)) -> io::Result<()> {
        while let Some(row) = self.next.take() {
            passed(&row);
            self.next = self.read()?;
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<Option<Row>> {
        let len = read_u32(&mut self.file)?;
        if len == 0 {
            return Ok(None);
        }
        let mut path = vec![0; bounded(len)?];
        self.file.read_exact(&mut path)?;
        let mut fixed = [0u8; 44];
        self.file.read_exact(&mut fixed)?;
        let eight = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&fixed[at..at + 8]);
            bytes
        };
        let four = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let stamp = Stamp {
            size: u64::from_le_bytes(eight(0)),
            mtime: (i64::from_le_bytes(eight(8)), four(16)),
            ctime: (i64::from_le_bytes(eight(20)), four(28)),
            inode: u64::from_le_bytes(eight(32)),
        };
        let mut line = vec![0; bounded(four(40))?];
        self.file.read_exact(&mut line)?;
        Ok(Some(Row { path, stamp, line }))
    }
}

fn bounded(len: u32) -> io::Result<usize> {
    if len > MAX_LINE { Err(io::Error::other("the local state is damaged")) } else { Ok(len as usize) }
}

fn read_u32(from: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

/// Checks the hash at the end; a state that was cut off or changed is not used.
fn verify(file: &mut File) -> Option<()> {
    let len = file.metadata().ok()?.len().checked_sub(32)?;
    let mut hasher = blake3::Hasher::new();
    let mut rest = file.take(len);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let n = rest.read(&mut buffer).ok()?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
    }
    let mut said = [0; 32];
    rest.into_inner().read_exact(&mut said).ok()?;
    (hasher.finalize() == said).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(n: u64) -> Stamp {
        Stamp { size: n, mtime: (-5, 7), ctime: (i64::MAX, 999), inode: n }
    }

    #[test]
    fn rows_come_back_and_what_is_gone_is_passed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let header = StateHeader { snapshot: "x".into(), scanned: 5 };
        let mut writer = StateWriter::create(&path, &header).unwrap();
        for (n, p) in ["a", "a/b", "b", "c"].iter().enumerate() {
            writer.add(p.as_bytes(), &stamp(n as u64), p.as_bytes());
        }
        assert!(StateReader::open(&path).is_none());
        writer.finish().unwrap();
        let mut reader = StateReader::open(&path).unwrap();
        assert_eq!(reader.header(), &header);
        let mut gone = Vec::new();
        assert_eq!(reader.seek(b"a", |_| panic!()).unwrap().unwrap().stamp, stamp(0));
        assert!(reader.seek(b"aa", |r| gone.push(r.path.clone())).unwrap().is_none());
        assert_eq!(reader.seek(b"b", |r| gone.push(r.path.clone())).unwrap().unwrap().line, b"b");
        reader.drain(|r| gone.push(r.path.clone())).unwrap();
        assert_eq!(gone, [b"a/b".to_vec(), b"c".to_vec()]);
    }

    #[test]
    fn damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mut writer = StateWriter::create(&path, &StateHeader { snapshot: "x".into(), scanned: 5 }).unwrap();
        writer.add(b"a", &stamp(1), b"line");
        writer.finish().unwrap();
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert!(StateReader::open(&path).is_none(), "byte {at}");
            std::fs::write(&path, &good[..at]).unwrap();
            assert!(StateReader::open(&path).is_none(), "cut at {at}");
        }
    }
}
