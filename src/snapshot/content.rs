//! Reading files: what is in them, cut into chunks, and whether they held still meanwhile.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use super::describe;
use super::later::Later;
use super::listing::PendingSegment;
use super::pipeline::{FileJob, Member, Shared};
use super::state::Stamp;
use super::walk::{Meta, Node};
use crate::repo::entry::{Cut, Entry};
use crate::repo::{ChunkId, ChunkKind};

/// A file that changes under the reader is read again this often, if it is not large.
const ATTEMPTS: usize = 3;
/// Larger files that change are not read again: they would change again.
const RETRY_UP_TO: u64 = 16 << 20;
const CHANGED: &str = "changed while it was read";

/// What reading a file came to.
pub enum FileResult {
    /// The entry is complete.
    Done(Box<Entry>, Stamp),
    /// The content is part of a bundle.
    Bundled { entry: Box<Entry>, stamp: Stamp, chunk: Arc<Later<ChunkId>>, offset: u64 },
    /// The content has chunks of its own.
    Segments { entry: Box<Entry>, stamp: Stamp, segments: Vec<PendingSegment> },
    /// The file is not there any more.
    Gone,
    /// It could not be read; that has been reported.
    Failed,
}

/// Opens a file of the walk for reading, without following a link and without waiting for anyone.
pub fn open(node: &Node) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    // Only the owner may ask for the access time to be left alone; where that is refused, it is read all the same.
    let fd = rustix::fs::openat(&*node.dir, &node.name, flags | OFlags::NOATIME, Mode::empty())
        .or_else(|_| rustix::fs::openat(&*node.dir, &node.name, flags, Mode::empty()))?;
    Ok(File::from(fd))
}

/// What `stat` says of an open file.
pub fn meta_of(file: &File) -> io::Result<Meta> {
    Ok(rustix::fs::fstat(file)?.into())
}

fn same(a: &Meta, b: &Meta) -> bool {
    (a.size, a.mtime, a.ctime) == (b.size, b.mtime, b.ctime)
}

fn describe_file(member: &Member, file: &File, meta: &Meta) -> io::Result<Box<Entry>> {
    let mut entry = describe::entry(&member.node.path, meta);
    entry.xattrs = describe::file_xattrs(file)?;
    entry.hard_link.clone_from(&member.hard_link);
    Ok(Box::new(entry))
}

/// A stamp for the local state. A file that did not hold still gets one that never matches, so that it is read next time.
fn stamp_of(meta: &Meta, entry: &Entry) -> Stamp {
    if entry.bad.is_some() { Stamp { inode: 0, ctime: (i64::MIN, 0), ..Stamp::of(meta) } } else { Stamp::of(meta) }
}

impl Shared<'_> {
    /// Does a reader's job.
    pub(super) fn read(&self, job: FileJob) {
        let FileJob { members, results } = job;
        if self.stopped() {
            return;
        }
        let small = self.params.bundle_max_file;
        let mut done = Vec::with_capacity(members.len());
        if let [member] = &members[..]
            && member.node.meta.size > small
        {
            done.push(Some(self.read_large(member)));
            return results.keep(done);
        }
        let size: u64 = members.iter().map(|m| m.node.meta.size).sum();
        let reserved = self.budget.take(size);
        let mut bundle = Vec::with_capacity(size as usize);
        let (promise, chunk) = Later::new();
        for member in &members {
            if self.stopped() {
                return;
            }
            done.push(Some(self.read_small(member, &mut bundle, &chunk)));
        }
        if !bundle.is_empty() {
            self.send(ChunkKind::Bundle, bundle, reserved, promise);
        }
        results.keep(done);
    }

    fn failed(&self, member: &Member, error: &io::Error) -> FileResult {
        match error.kind() {
            io::ErrorKind::NotFound => FileResult::Gone,
            _ => {
                self.problem(&member.node.path, error);
                FileResult::Failed
            }
        }
    }

    fn read_small(&self, member: &Member, bundle: &mut Vec<u8>, chunk: &Arc<Later<ChunkId>>) -> FileResult {
        let begin = bundle.len();
        let limit = self.params.bundle_max_file;
        for attempt in 1..=ATTEMPTS {
            bundle.truncate(begin);
            let mut read = || -> io::Result<Option<(File, Meta, Meta, u64)>> {
                let mut file = open(&member.node)?;
                let before = meta_of(&file)?;
                if !before.file_type().is_file() {
                    return Err(io::Error::other("it is no longer a regular file"));
                }
                if before.size > limit {
                    return Ok(None);
                }
                // One byte more than it should have shows that it grew.
                let len = (&mut file).take(limit + 1).read_to_end(bundle)? as u64;
                let after = meta_of(&file)?;
                Ok(Some((file, before, after, len)))
            };
            let (file, before, after, len) = match read() {
                Ok(Some(read)) => read,
                Ok(None) => {
                    bundle.truncate(begin);
                    return self.read_large(member);
                }
                Err(e) => {
                    bundle.truncate(begin);
                    return self.failed(member, &e);
                }
            };
            let steady = same(&before, &after) && len == before.size;
            if !steady && attempt < ATTEMPTS {
                continue;
            }
            let mut entry = match describe_file(member, &file, &after) {
                Ok(entry) => entry,
                Err(e) => {
                    bundle.truncate(begin);
                    return self.failed(member, &e);
                }
            };
            let len = len.min(limit);
            bundle.truncate(begin + len as usize);
            entry.size = Some(len);
            if !steady {
                entry.bad = Some(CHANGED.to_owned());
                self.problem(&member.node.path, &io::Error::other(CHANGED));
            }
            self.monitor.advance(len, 1);
            let stamp = stamp_of(&after, &entry);
            if len == 0 {
                return FileResult::Done(entry, stamp);
            }
            let id = self.session.repo().keys().chunk_id(&bundle[begin..]);
            entry.cut = Some(Cut::Bundle);
            entry.content_id = Some(id);
            // Touched, or moved back: the content is what the parent has.
            if let Some(old) = member.old.as_deref().filter(|old| old.content_id == Some(id) && self.may_carry(old)) {
                bundle.truncate(begin);
                entry.set_content_of(old);
                return FileResult::Done(entry, stamp);
            }
            return FileResult::Bundled { entry, stamp, chunk: chunk.clone(), offset: begin as u64 };
        }
        FileResult::Failed
    }

    fn read_large(&self, member: &Member) -> FileResult {
        let mut attempt = 1;
        loop {
            match self.read_large_once(member) {
                Ok((entry, stamp, segments)) => {
                    let again = entry.bad.is_some() && entry.size.unwrap_or(0) <= RETRY_UP_TO && attempt < ATTEMPTS;
                    if again && !self.stopped() {
                        attempt += 1;
                        continue;
                    }
                    if entry.bad.is_some() {
                        self.problem(&member.node.path, &io::Error::other(CHANGED));
                    }
                    self.monitor.advance(0, 1);
                    return FileResult::Segments { entry, stamp, segments };
                }
                Err(e) => return self.failed(member, &e),
            }
        }
    }

    #[allow(clippy::type_complexity)]
    fn read_large_once(&self, member: &Member) -> io::Result<(Box<Entry>, Stamp, Vec<PendingSegment>)> {
        let mut file = open(&member.node)?;
        let before = meta_of(&file)?;
        if !before.file_type().is_file() {
            return Err(io::Error::other("it is no longer a regular file"));
        }
        let mut head = [0; 64];
        let head_len = file.read_at(&mut head, 0)?;
        let cut = match member.old.as_deref().and_then(|old| old.cut) {
            Some(cut @ (Cut::Cdc | Cut::Fixed)) => cut,
            _ if is_page_structured(&member.node.path, &head[..head_len]) => Cut::Fixed,
            _ => Cut::Cdc,
        };
        let mut segments = Vec::new();
        let mut end = 0;
        for (from, to, is_data) in regions(&file, &before) {
            if !is_data {
                segments.push(PendingSegment::Hole(to - from));
                end = to;
                continue;
            }
            file.seek(SeekFrom::Start(from))?;
            let read = match cut {
                Cut::Fixed => self.cut_fixed(&file, from, to, &mut segments)?,
                Cut::Cdc | Cut::Bundle => self.cut_cdc(&mut file, to - from, &mut segments)?,
            };
            end = from + read;
            if end < to {
                break;
            }
        }
        let after = meta_of(&file)?;
        let mut entry = describe_file(member, &file, &after)?;
        entry.size = Some(end);
        if end > 0 {
            entry.cut = Some(cut);
        }
        if !same(&before, &after) || end != before.size {
            entry.bad = Some(CHANGED.to_owned());
        }
        let stamp = stamp_of(&after, &entry);
        Ok((entry, stamp, segments))
    }

    /// Cuts `len` bytes from where `file` stands by their content. Returns how many there were.
    fn cut_cdc(&self, file: &mut File, len: u64, segments: &mut Vec<PendingSegment>) -> io::Result<u64> {
        let max = self.cdc.max();
        let mut buffer = vec![0; len.min(2 * max as u64) as usize];
        let (mut begin, mut filled, mut read) = (0, 0, 0u64);
        loop {
            while filled - begin < max && read < len {
                if filled == buffer.len() {
                    buffer.copy_within(begin..filled, 0);
                    filled -= begin;
                    begin = 0;
                }
                let room = (buffer.len() - filled).min((len - read) as usize);
                let n = match file.read(&mut buffer[filled..filled + room]) {
                    Ok(0) => break,
                    Ok(n) => n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(e) => return Err(e),
                };
                filled += n;
                read += n as u64;
            }
            if filled == begin {
                return Ok(read);
            }
            if self.stopped() {
                return Err(io::Error::other("interrupted"));
            }
            let n = self.cdc.cut(&buffer[begin..filled]);
            let reserved = self.budget.take(n as u64);
            let (promise, id) = Later::new();
            self.send(ChunkKind::Cdc, buffer[begin..begin + n].to_vec(), reserved, promise);
            self.monitor.advance(n as u64, 0);
            segments.push(PendingSegment::Data(id, n as u64));
            begin += n;
        }
    }

    /// Cuts the bytes from `from` to `to` at fixed places of the file. Returns how many there were.
    fn cut_fixed(&self, file: &File, from: u64, to: u64, segments: &mut Vec<PendingSegment>) -> io::Result<u64> {
        let size = u64::from(self.params.fixed);
        let mut at = from;
        while at < to {
            if self.stopped() {
                return Err(io::Error::other("interrupted"));
            }
            let want = (size - at % size).min(to - at);
            let reserved = self.budget.take(want);
            let mut data = Vec::with_capacity(want as usize);
            let n = file.take(want).read_to_end(&mut data)? as u64;
            if n > 0 {
                let (promise, id) = Later::new();
                self.send(ChunkKind::Fixed, data, reserved, promise);
                self.monitor.advance(n, 0);
                segments.push(PendingSegment::Data(id, n));
            }
            at += n;
            if n < want {
                break;
            }
        }
        Ok(at - from)
    }
}

/// The allocated and the unallocated parts of a file, in order: from, to, whether it is allocated.
///
/// Asked of the file system each time: the number of blocks does not tell, because attributes and extents take blocks, too.
pub fn regions(file: &File, meta: &Meta) -> Vec<(u64, u64, bool)> {
    let size = meta.size;
    let mut regions = Vec::new();
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => data.min(size),
            Err(rustix::io::Errno::NXIO) => size,
            // The file system does not know: all of it is data.
            Err(_) => at,
        };
        if data > at {
            regions.push((at, data, false));
        }
        if data >= size {
            break;
        }
        let hole = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(data)).unwrap_or(size).min(size);
        let hole = if hole > data { hole } else { size };
        regions.push((data, hole, true));
        at = hole;
    }
    regions
}

/// Whether a file is rewritten in place, page by page: a database, a disk image. Those are cut at fixed places, because their content
/// never shifts. Told by the first bytes where there is a signature, else by the names that PostgreSQL, InnoDB, MongoDB, LMDB
/// and the usual hypervisors use.
fn is_page_structured(path: &[u8], head: &[u8]) -> bool {
    const MAGICS: &[&[u8]] = &[b"SQLite format 3\0", b"QFI\xfb", b"KDMV", b"vhdxfile", b"conectix", b"<<< Oracle VM"];
    if MAGICS.iter().any(|magic| head.starts_with(magic)) {
        return true;
    }
    let Ok(path) = std::str::from_utf8(path) else { return false };
    let path = Path::new(path);
    let (Some(name), parent) = (path.file_name().and_then(|n| n.to_str()), path.parent()) else { return false };
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // PostgreSQL: base/<database>/<relation>[.<segment>], global/<relation>.
    let relation = digits(name.split(['.', '_']).next().unwrap_or_default());
    let in_folder = |folder: &str, above: Option<&Path>| {
        above.and_then(|p| p.file_name()).and_then(|n| n.to_str()).is_some_and(|n| n == folder)
    };
    let postgres = relation
        && (in_folder("global", parent)
            || in_folder("base", parent.and_then(Path::parent))
            || in_folder("pg_wal", parent));
    const EXTENSIONS: &[&str] = &["ibd", "mdb", "wt", "vmdk", "vdi", "vhd", "vhdx", "qcow2", "raw", "img"];
    postgres || EXTENSIONS.contains(&extension) || name.starts_with("ibdata") || name.starts_with("ib_logfile")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_and_images_are_recognised() {
        let yes: &[(&str, &[u8])] = &[
            ("a/b", b"SQLite format 3\0"),
            ("base/16384/2619", b""),
            ("pg/base/1/16397.3", b""),
            ("global/1262", b""),
            ("x/t.ibd", b""),
        ];
        for (path, head) in yes {
            assert!(is_page_structured(path.as_bytes(), head), "{path}");
        }
        for path in ["a/16384", "base/x", "video.mp4", "notes", "logs/2024.log"] {
            assert!(!is_page_structured(path.as_bytes(), b"hello"), "{path}");
        }
    }
}
