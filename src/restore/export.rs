//! A snapshot as a POSIX (pax) tar, which GNU tar reads without a warning.
//!
//! Everything that the old header cannot hold goes into pax records: times below a second, long and strange names, extended attributes
//! (`SCHILY.xattr.`), holes (`GNU.sparse.`, version 1.0). A tar has no sockets: they are left out.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::runtime::Handle;

use super::listing::{self, Selection};
use crate::repo::entry::{Entry, EntryType, Segment, display_path};
use crate::repo::index::PackName;
use crate::repo::{ChunkId, Monitor, RepoError, Repository, Result, SnapshotRecord};

const BLOCK: u64 = 512;
/// What of a pack is read ahead when a chunk is wanted: its neighbours are wanted next.
const AHEAD: u64 = 4 << 20;
/// Decoded chunks that are kept.
const KEEP: usize = 8;

/// Writes what is selected of a snapshot to `out`. Returns what could not be written as it was. Blocks.
///
/// Content that is damaged ends the export with an error, because a tar that is already on its way cannot take back a file.
pub fn to_tar(
    repo: &Arc<Repository>,
    record: &SnapshotRecord,
    selection: &Selection,
    out: impl Write,
    monitor: &dyn Monitor,
    cancelled: &AtomicBool,
) -> Result<Vec<(String, String)>> {
    let runtime = Handle::current();
    let mut export = Export {
        repo,
        reader: ChunkReader { repo, runtime: runtime.clone(), chunks: Vec::new(), ranges: Vec::new() },
        tar: tar::Builder::new(out),
        links: HashMap::new(),
        problems: Vec::new(),
        monitor,
    };
    monitor.total(record.bytes, record.files);
    let leaves = runtime.block_on(repo.leaves(record))?;
    let mut matched = HashSet::new();
    for index in 0..leaves.len() {
        if !listing::leaf_wanted(&leaves, index, selection) {
            continue;
        }
        for entry in runtime.block_on(listing::entries(repo, record, &leaves[index].leaf))? {
            if cancelled.load(Ordering::Relaxed) {
                return Err(RepoError::Interrupted);
            }
            let path = entry.path();
            if selection.paths().any(|wanted| *wanted == *path) {
                matched.insert(path.to_vec());
            }
            if selection.has(&path) || (entry.kind == EntryType::Dir && selection.touches(&path)) {
                export.add(&entry)?;
            }
        }
    }
    listing::check_matched(selection, &matched, record)?;
    export.tar.into_inner().and_then(|mut out| out.flush()).map_err(write_error)?;
    Ok(export.problems)
}

fn write_error(source: io::Error) -> RepoError {
    RepoError::Local { action: "write", path: "the tar stream".to_owned(), source }
}

struct Export<'a, W: Write> {
    repo: &'a Repository,
    reader: ChunkReader<'a>,
    tar: tar::Builder<W>,
    links: HashMap<String, Vec<u8>>,
    problems: Vec<(String, String)>,
    monitor: &'a dyn Monitor,
}

impl<W: Write> Export<'_, W> {
    fn add(&mut self, entry: &Entry) -> Result<()> {
        let path = entry.path().into_owned();
        let mut pax: Vec<(String, Vec<u8>)> = Vec::new();
        let mut header = tar::Header::new_ustar();
        header.set_mode(entry.mode);
        header.set_uid(entry.uid.into());
        header.set_gid(entry.gid.into());
        header.set_size(0);
        header.set_mtime(entry.mtime.0.clamp(0, 0o77_777_777_777) as u64);
        if entry.mtime.1 != 0 || entry.mtime.0 < 0 || entry.mtime.0 > 0o77_777_777_777 {
            pax.push(("mtime".to_owned(), pax_time(entry.mtime).into_bytes()));
        }
        for xattr in &entry.xattrs {
            match std::str::from_utf8(&xattr.name) {
                Ok(name) => {
                    // With `--acls` GNU tar reads ACLs only in this form, without it only as attributes.
                    if let Some(which) = name.strip_prefix("system.posix_acl_")
                        && let Some(text) = acl_text(&xattr.value)
                    {
                        pax.push((format!("SCHILY.acl.{which}"), text.into_bytes()));
                    }
                    // A keyword ends at the first `=`; this is how GNU tar writes and reads it.
                    let name = name.replace('%', "%25").replace('=', "%3D");
                    pax.push((format!("SCHILY.xattr.{name}"), xattr.value.clone()));
                }
                Err(_) => self.problem(&path, "an attribute whose name is not UTF-8 has no place in a tar"),
            }
        }
        let first_name = entry.hard_link.as_ref().and_then(|link| self.links.get(link)).cloned();
        let kind = match (entry.kind, &first_name) {
            // The program that listens on it makes it anew.
            (EntryType::Socket, _) => return Ok(()),
            (_, Some(_)) => tar::EntryType::Link,
            (EntryType::File, _) => tar::EntryType::Regular,
            (EntryType::Dir, _) => tar::EntryType::Directory,
            (EntryType::Symlink, _) => tar::EntryType::Symlink,
            (EntryType::Fifo, _) => tar::EntryType::Fifo,
            (EntryType::CharDevice, _) => tar::EntryType::Char,
            (EntryType::BlockDevice, _) => tar::EntryType::Block,
        };
        header.set_entry_type(kind);
        if let Some((major, minor)) = entry.device {
            header.set_device_major(major).and_then(|()| header.set_device_minor(minor)).map_err(write_error)?;
        }
        if let Some(link) = &entry.hard_link {
            self.links.entry(link.clone()).or_insert_with(|| path.clone());
        }
        let mut name = path.clone();
        if kind == tar::EntryType::Directory {
            name.push(b'/');
        }
        let target = match (&first_name, entry.kind) {
            (Some(first), _) => first.clone(),
            (None, EntryType::Symlink) => entry.target().into_owned(),
            _ => Vec::new(),
        };
        set_field(&mut header.as_ustar_mut().map(|h| &mut h.linkname[..]), &target, "linkpath", &mut pax);

        let segments = if kind == tar::EntryType::Regular { self.segments(entry)? } else { Vec::new() };
        let size = if kind == tar::EntryType::Regular { entry.size.unwrap_or(0) } else { 0 };
        let map = sparse_map(&segments, size);
        let (mut stored, mut prefix) = (size, Vec::new());
        match map {
            Some(map) => {
                prefix = map.block;
                stored = map.data + prefix.len() as u64;
                pax.push(("GNU.sparse.major".to_owned(), b"1".to_vec()));
                pax.push(("GNU.sparse.minor".to_owned(), b"0".to_vec()));
                pax.push(("GNU.sparse.name".to_owned(), name.clone()));
                pax.push(("GNU.sparse.realsize".to_owned(), size.to_string().into_bytes()));
                set_field(
                    &mut header.as_ustar_mut().map(|h| &mut h.name[..]),
                    b"GNUSparseFile.0/sparse",
                    "path",
                    &mut pax,
                );
            }
            None => set_field(&mut header.as_ustar_mut().map(|h| &mut h.name[..]), &name, "path", &mut pax),
        }
        if stored > 0o77_777_777_777 {
            pax.push(("size".to_owned(), stored.to_string().into_bytes()));
        } else {
            header.set_size(stored);
        }
        for (id, field) in [(entry.uid, "uid"), (entry.gid, "gid")] {
            if id > 0o7_777_777 {
                pax.push((field.to_owned(), id.to_string().into_bytes()));
                if field == "uid" { header.set_uid(0) } else { header.set_gid(0) }
            }
        }
        header.set_cksum();
        // Names that are not UTF-8 go in as they are, as GNU tar writes them: it knows no `hdrcharset` and would warn.
        if !pax.is_empty() {
            let records = pax.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
            self.tar.append_pax_extensions(records).map_err(write_error)?;
        }
        self.write(&header, stored, &prefix, &segments)?;
        if kind == tar::EntryType::Regular {
            self.monitor.advance(0, 1);
        }
        Ok(())
    }

    fn problem(&mut self, path: &[u8], reason: &str) {
        let path = display_path(path);
        self.monitor.problem(&path, reason);
        self.problems.push((path, reason.to_owned()));
    }

    fn segments(&self, entry: &Entry) -> Result<Vec<Segment>> {
        let mut segments = entry.segments.clone();
        for (list, _) in &entry.segment_lists {
            segments.extend(self.reader.runtime.block_on(self.repo.listed_segments(list))?);
        }
        let covered = segments.iter().try_fold(0u64, |sum, segment| sum.checked_add(segment.len()));
        if covered != Some(entry.size.unwrap_or(0)) {
            let path = display_path(&entry.path());
            return Err(RepoError::damaged(path, "its segments do not add up to its size"));
        }
        Ok(segments)
    }

    fn write(&mut self, header: &tar::Header, stored: u64, prefix: &[u8], segments: &[Segment]) -> Result<()> {
        let out = self.tar.get_mut();
        out.write_all(header.as_bytes()).map_err(write_error)?;
        out.write_all(prefix).map_err(write_error)?;
        for segment in segments {
            if let Segment::Data { id, len, offset } = segment {
                let raw = self.reader.chunk(id)?;
                let piece = raw.get(*offset as usize..offset.saturating_add(*len) as usize);
                let piece =
                    piece.ok_or_else(|| RepoError::damaged("an entry", "it reaches beyond the end of a chunk"))?;
                out.write_all(piece).map_err(write_error)?;
                self.monitor.advance(*len, 0);
            }
        }
        let padding = stored.next_multiple_of(BLOCK) - stored;
        out.write_all(&vec![0; padding as usize]).map_err(write_error)
    }
}

/// Puts a value into a field of the old header if it fits and is plain, else into a pax record.
fn set_field(field: &mut Option<&mut [u8]>, value: &[u8], key: &str, pax: &mut Vec<(String, Vec<u8>)>) {
    let fits = value.len() <= 100 && value.is_ascii();
    if let Some(field) = field {
        let n = value.len().min(field.len());
        field[..n].copy_from_slice(&value[..n]);
    }
    if !fits {
        pax.push((key.to_owned(), value.to_vec()));
    }
}

/// Seconds as a decimal number. A fraction counts forward also before 1970, so that -1.25 is (-2, 750000000).
fn pax_time((seconds, nanos): (i64, u32)) -> String {
    if seconds >= 0 || nanos == 0 {
        return format!("{seconds}.{nanos:09}");
    }
    format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos)
}

/// A POSIX ACL as text, from the bytes of its attribute (`linux/posix_acl_xattr.h`: a version, then tag, permissions and id of each
/// entry). `None` if it is not one.
fn acl_text(value: &[u8]) -> Option<String> {
    let entries = value.strip_prefix(&2u32.to_le_bytes())?;
    let mut texts = Vec::new();
    for entry in entries.chunks(8) {
        let &[t0, t1, p0, _, i0, i1, i2, i3] = entry else { return None };
        let id = u32::from_le_bytes([i0, i1, i2, i3]);
        let who = match u16::from_le_bytes([t0, t1]) {
            0x01 => "user:".to_owned(),
            0x02 => format!("user:{id}"),
            0x04 => "group:".to_owned(),
            0x08 => format!("group:{id}"),
            0x10 => "mask:".to_owned(),
            0x20 => "other:".to_owned(),
            _ => return None,
        };
        let bit = |bit: u8, letter: char| if p0 & bit == 0 { '-' } else { letter };
        texts.push(format!("{who}:{}{}{}", bit(4, 'r'), bit(2, 'w'), bit(1, 'x')));
    }
    Some(texts.join(","))
}

struct SparseMap {
    /// The map as it stands before the data, padded.
    block: Vec<u8>,
    /// Bytes of data behind it.
    data: u64,
}

/// The map of a file with holes (GNU tar's manual, "PAX Format, Version 1.0"): a count, then offset and length of each run of data,
/// one decimal number a line, padded with NUL to whole blocks. `None` if there are no holes.
fn sparse_map(segments: &[Segment], size: u64) -> Option<SparseMap> {
    if !segments.iter().any(|s| matches!(s, Segment::Hole { .. })) {
        return None;
    }
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let mut at = 0;
    for segment in segments {
        if let Segment::Data { len, .. } = segment {
            match runs.last_mut() {
                Some((from, run)) if *from + *run == at => *run += len,
                _ => runs.push((at, *len)),
            }
        }
        at += segment.len();
    }
    // The end has to be named, so that a hole there is kept.
    if runs.last().is_none_or(|(from, len)| from + len < size) {
        runs.push((size, 0));
    }
    let mut text = format!("{}\n", runs.len());
    runs.iter().for_each(|(from, len)| text.push_str(&format!("{from}\n{len}\n")));
    let mut block = text.into_bytes();
    block.resize((block.len() as u64).next_multiple_of(BLOCK) as usize, 0);
    Some(SparseMap { block, data: runs.iter().map(|(_, len)| len).sum() })
}

/// Reads chunks one after another, with their neighbours in the pack.
struct ChunkReader<'a> {
    repo: &'a Repository,
    runtime: Handle,
    chunks: Vec<(ChunkId, Arc<Vec<u8>>)>,
    ranges: Vec<(PackName, u64, Bytes)>,
}

impl ChunkReader<'_> {
    fn chunk(&mut self, id: &ChunkId) -> Result<Arc<Vec<u8>>> {
        if let Some((_, raw)) = self.chunks.iter().find(|(have, _)| have == id) {
            return Ok(raw.clone());
        }
        let raw = Arc::new(match self.with_neighbours(id) {
            Some(raw) => raw,
            // Wherever a good copy is.
            None => self.runtime.block_on(self.repo.read_chunk(id))?,
        });
        if self.chunks.len() == KEEP {
            self.chunks.remove(0);
        }
        self.chunks.push((*id, raw.clone()));
        Ok(raw)
    }

    fn with_neighbours(&mut self, id: &ChunkId) -> Option<Vec<u8>> {
        let locations = self.runtime.block_on(self.repo.locate_or_learn(id)).ok()?;
        let location = locations.into_iter().find(|l| l.entry.base.is_none())?;
        let (offset, len) = (u64::from(location.entry.offset), u64::from(location.entry.len));
        let covers = |(pack, from, data): &&(PackName, u64, Bytes)| {
            *pack == location.pack.name && *from <= offset && offset + len <= from + data.len() as u64
        };
        let have = self.ranges.iter().find(covers).map(|(_, from, data)| (*from, data.clone()));
        let (from, data) = match have {
            Some(have) => have,
            None => {
                let end = self.repo.keys().sealer.plain_len(location.pack.header.len(), location.pack.size);
                let want = AHEAD.max(len).min(end.checked_sub(offset)?);
                let data = self.runtime.block_on(self.repo.read_range(&location.pack, offset, want)).ok()?;
                if self.ranges.len() == KEEP {
                    self.ranges.remove(0);
                }
                self.ranges.push((location.pack.name, offset, data.clone()));
                (offset, data)
            }
        };
        self.repo.decode_chunk(&location, &data, from, None).ok()
    }
}
