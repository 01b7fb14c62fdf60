//! Reading back what was written: the last thing before old content is given up.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use super::OwnerMap;
use super::listing;
use super::target::{cstring, open_parent, split};
use crate::repo::entry::{Entry, EntryType, Segment, display_path};
use crate::repo::pack::MAX_CHUNK;
use crate::repo::{RepoError, Repository, Result, SnapshotRecord};

/// Compares the folder `root` with a whole snapshot: every entry's type, owner, mode, modification time and target, and every byte of
/// every file by its chunk ids, after owners were shifted by `owners`. Returns the first few differences; none means that the folder is the snapshot. Blocks.
pub fn verify(
    repo: &Repository,
    record: &SnapshotRecord,
    root: &Path,
    owners: &OwnerMap,
    cancelled: &AtomicBool,
) -> Result<Vec<String>> {
    let runtime = tokio::runtime::Handle::current();
    let open = rustix::fs::open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root_fd = std::sync::Arc::new(open.map_err(|e| RepoError::local("open", root, e.into()))?);
    let mut differences = Vec::new();
    let mut entries = 0u64;
    for leaf in runtime.block_on(repo.leaves(record))? {
        for mut entry in runtime.block_on(listing::entries(repo, record, &leaf.leaf))? {
            if cancelled.load(Ordering::Relaxed) {
                return Err(RepoError::Interrupted);
            }
            entries += 1;
            owners.shift(&mut entry, |_| ());
            let path = entry.path().into_owned();
            let looked = (|| -> std::io::Result<Option<String>> {
                let parent = open_parent(&root_fd, &path)?;
                let name = cstring(split(&path).1)?;
                let stat = rustix::fs::statat(&*parent, &name, AtFlags::SYMLINK_NOFOLLOW)?;
                if let Some(what) = attribute_difference(&entry, &stat) {
                    return Ok(Some(what.to_owned()));
                }
                match entry.kind {
                    EntryType::Symlink => {
                        let target = rustix::fs::readlinkat(&*parent, &name, Vec::new())?;
                        Ok((target.as_bytes() != &*entry.target()).then(|| "another target".to_owned()))
                    }
                    EntryType::File => {
                        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                        let file = File::from(rustix::fs::openat(&*parent, &name, flags, Mode::empty())?);
                        content_difference(repo, &runtime, file, &entry)
                    }
                    _ => Ok(None),
                }
            })();
            let difference = looked.unwrap_or_else(|e| Some(e.to_string()));
            if let Some(what) = difference {
                differences.push(format!("{}: {what}", display_path(&path)));
                if differences.len() >= 10 {
                    return Ok(differences);
                }
            }
        }
    }
    if entries != record.entries {
        differences.push(format!("the listing has {entries} entries, the record says {}", record.entries));
    }
    Ok(differences)
}

#[allow(clippy::unnecessary_cast)]
fn attribute_difference(entry: &Entry, stat: &Stat) -> Option<&'static str> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Some(EntryType::File),
        FileType::Directory => Some(EntryType::Dir),
        FileType::Symlink => Some(EntryType::Symlink),
        FileType::Fifo => Some(EntryType::Fifo),
        FileType::Socket => Some(EntryType::Socket),
        FileType::CharacterDevice => Some(EntryType::CharDevice),
        FileType::BlockDevice => Some(EntryType::BlockDevice),
        FileType::Unknown => None,
    };
    if kind != Some(entry.kind) {
        return Some("another type");
    }
    if (stat.st_uid, stat.st_gid) != (entry.uid, entry.gid) {
        return Some("another owner");
    }
    if entry.kind != EntryType::Symlink && stat.st_mode & 0o7777 != entry.mode {
        return Some("another mode");
    }
    if (stat.st_mtime as i64, stat.st_mtime_nsec as u32) != entry.mtime {
        return Some("another modification time");
    }
    (entry.kind == EntryType::File && Some(stat.st_size as u64) != entry.size).then_some("another size")
}

fn content_difference(
    repo: &Repository,
    runtime: &tokio::runtime::Handle,
    mut file: File,
    entry: &Entry,
) -> std::io::Result<Option<String>> {
    if let Some(id) = entry.content_id {
        let mut data = Vec::new();
        file.read_to_end(&mut data)?;
        return Ok((repo.keys().chunk_id(&data) != id).then(|| "another content".to_owned()));
    }
    let mut at = 0u64;
    let mut check = |segments: &[Segment]| -> std::io::Result<Option<String>> {
        for segment in segments {
            let len = segment.len();
            let mut data = vec![0; len.min(MAX_CHUNK as u64) as usize];
            match segment {
                Segment::Hole { len } => std::io::Seek::seek_relative(&mut file, *len as i64)?,
                Segment::Data { id, .. } => {
                    file.read_exact(&mut data)?;
                    if repo.keys().chunk_id(&data) != *id {
                        return Ok(Some(format!("another content between byte {at} and {}", at + len)));
                    }
                }
            }
            at += len;
        }
        Ok(None)
    };
    if let Some(what) = check(&entry.segments)? {
        return Ok(Some(what));
    }
    for (list, _) in &entry.segment_lists {
        let segments = runtime.block_on(repo.listed_segments(list)).map_err(std::io::Error::other)?;
        if let Some(what) = check(&segments)? {
            return Ok(Some(what));
        }
    }
    Ok(None)
}
