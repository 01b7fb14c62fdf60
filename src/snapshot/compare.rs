//! Has the content of a source changed since its last listing?
//!
//! A stat scan: nothing is read but files that were modified so shortly before the last scan that their time stamp proves
//! nothing; those are compared byte for byte by their chunk ids.

use std::io::Read;
use std::path::Path;

use super::content;
use super::exclude::Excludes;
use super::state::{Stamp, StateReader};
use super::walk::{Node, Step, Walk};
use crate::repo::entry::{Entry, Segment, display_path};
use crate::repo::{Keys, RepoError, Result};

/// The difference between a folder and a listing.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Objects that are new.
    pub added: u64,
    /// Objects that differ.
    pub changed: u64,
    /// Objects that are gone.
    pub removed: u64,
    /// Bytes of files that are new or differ.
    pub changed_bytes: u64,
    /// Regular files that are there now.
    pub files: u64,
    /// Their apparent size in bytes, each hard-linked file once.
    pub bytes: u64,
    /// The first path that differs, for people.
    pub example: Option<String>,
    /// What could not be looked at.
    pub problems: Vec<String>,
}

impl Changes {
    /// Whether the listing still describes the folder.
    pub fn is_none(&self) -> bool {
        self.added == 0 && self.changed == 0 && self.removed == 0 && self.problems.is_empty()
    }

    fn note(&mut self, path: &[u8]) {
        if self.example.is_none() {
            self.example = Some(display_path(path));
        }
    }
}

/// Compares what is below `root`, but for `excludes`, with `listing`; without one everything is new. Blocks.
pub fn compare(root: &Path, mut listing: Option<StateReader>, excludes: &Excludes, keys: &Keys) -> Result<Changes> {
    let scanned = listing.as_ref().map_or(0, |l| l.header().scanned);
    let mut changes = Changes::default();
    let mut links = std::collections::HashSet::new();
    let state_error = |e| RepoError::local("read", root, e);
    let mut walk = Walk::new(root).map_err(|e| RepoError::local("read", root, e))?;
    while let Some(step) = walk.next() {
        let node = match step {
            Step::Node(node) => node,
            Step::Problem { path, error } => {
                changes.problems.push(format!("{}: {error}", display_path(&path)));
                continue;
            }
        };
        if excludes.matches(&node.path) {
            walk.skip_folder();
            continue;
        }
        let is_file = node.meta.file_type().is_file();
        if is_file && (node.meta.links == 1 || links.insert((node.meta.device, node.meta.inode))) {
            changes.files += 1;
            changes.bytes += node.meta.size;
        }
        let Some(reader) = &mut listing else {
            // The root of an empty volume is nothing that could be lost.
            if node.path != b"." {
                changes.added += 1;
                changes.changed_bytes += if is_file { node.meta.size } else { 0 };
                changes.note(&node.path);
            }
            continue;
        };
        let mut removed = Vec::new();
        let row = reader.seek(&node.path, |row| removed.push(row.path.clone())).map_err(state_error)?;
        changes.removed += removed.len() as u64;
        if let Some(path) = removed.first() {
            changes.note(path);
        }
        let stamp = Stamp::of(&node.meta);
        match row {
            None => {
                changes.added += 1;
                changes.changed_bytes += stamp.size;
                changes.note(&node.path);
            }
            Some(row) => {
                let racy = is_file && row.stamp.mtime.0 + super::pipeline::RACY >= scanned;
                let same = row.stamp == stamp && (!racy || same_content(&node, &row.line, keys));
                if !same {
                    changes.changed += 1;
                    changes.changed_bytes += stamp.size;
                    changes.note(&node.path);
                }
            }
        }
    }
    if let Some(reader) = &mut listing {
        reader
            .drain(|row| {
                changes.removed += 1;
                changes.note(&row.path);
            })
            .map_err(state_error)?;
    }
    Ok(changes)
}

/// Whether the file still has the content that the entry describes. When in doubt, it has not.
fn same_content(node: &Node, line: &[u8], keys: &Keys) -> bool {
    let Ok(entry) = serde_json::from_slice::<Entry>(line) else { return false };
    if entry.size == Some(0) {
        return node.meta.size == 0;
    }
    let Ok(mut file) = content::open(node) else { return false };
    if let Some(id) = entry.content_id {
        let mut data = Vec::new();
        return file.read_to_end(&mut data).is_ok() && keys.chunk_id(&data) == id;
    }
    if entry.segments.is_empty() {
        return false;
    }
    entry.segments.iter().all(|segment| {
        let mut data = vec![0; segment.len().min(crate::repo::pack::MAX_CHUNK as u64) as usize];
        match segment {
            Segment::Hole { len } => std::io::Seek::seek_relative(&mut file, *len as i64).is_ok(),
            Segment::Data { id, .. } => file.read_exact(&mut data).is_ok() && keys.chunk_id(&data) == *id,
        }
    })
}
