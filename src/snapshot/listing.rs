//! From entries in path order to leaves, and from leaves to the list that a snapshot record names.

use super::later::Later;
use crate::repo::entry::{Entry, INLINE_SEGMENTS, LEAF_MAX, LEAF_MIN, LeafRef, Segment};
use crate::repo::session::{Compressor, Session};
use crate::repo::{ChunkId, ChunkKind, RepoError, Result};

/// One path in this many ends a leaf, once it has [`LEAF_MIN`] entries.
const LEAF_CUT: u32 = 256;
/// One leaf, or one segment, in this many ends a list.
const LIST_CUT: u32 = 1024;
/// References in a list: not more than this.
const LIST_MAX: usize = 4096;

/// Cuts the lines of a listing into leaves, and stores them.
pub struct ListingWriter<'a> {
    session: &'a Session,
    cut_key: [u8; 32],
    leaf: Vec<u8>,
    leaf_entries: usize,
    leaf_first: Vec<u8>,
    list: Vec<u8>,
    list_refs: usize,
    root: Vec<ChunkId>,
    entries: u64,
}

fn line_error(e: serde_json::Error) -> RepoError {
    RepoError::Codec(format!("cannot write an entry: {e}"))
}

impl<'a> ListingWriter<'a> {
    /// Begins a listing.
    pub fn new(session: &'a Session) -> Self {
        ListingWriter {
            session,
            cut_key: session.repo().keys().writer_key("voltool 1 leaf cut"),
            leaf: Vec::new(),
            leaf_entries: 0,
            leaf_first: Vec::new(),
            list: Vec::new(),
            list_refs: 0,
            root: Vec::new(),
            entries: 0,
        }
    }

    /// Adds the line of the entry at `path`.
    pub fn add(&mut self, path: &[u8], line: &[u8], compressor: &mut Compressor) -> Result<()> {
        if self.leaf_entries == 0 {
            self.leaf_first = path.to_vec();
        }
        self.leaf.extend_from_slice(line);
        self.leaf.push(b'\n');
        self.leaf_entries += 1;
        self.entries += 1;
        // A leaf of entries with many attributes or segments is also cut by its size: a chunk has a limit.
        let large = self.leaf.len() >= (4 << 20);
        let cut = self.leaf_entries >= LEAF_MIN && spread(&self.cut_key, path).is_multiple_of(LEAF_CUT);
        if cut || large || self.leaf_entries == LEAF_MAX {
            self.end_leaf(compressor)?;
        }
        Ok(())
    }

    fn end_leaf(&mut self, compressor: &mut Compressor) -> Result<()> {
        if self.leaf_entries == 0 {
            return Ok(());
        }
        let id = self.session.put(ChunkKind::Leaf, &self.leaf, compressor)?;
        let leaf = LeafRef::new(id, self.leaf_entries as u64, &self.leaf_first);
        serde_json::to_writer(&mut self.list, &leaf).map_err(line_error)?;
        self.list.push(b'\n');
        self.list_refs += 1;
        self.leaf.clear();
        self.leaf_entries = 0;
        if id.spread().is_multiple_of(LIST_CUT) || self.list_refs == LIST_MAX {
            self.end_list(compressor)?;
        }
        Ok(())
    }

    fn end_list(&mut self, compressor: &mut Compressor) -> Result<()> {
        if self.list_refs > 0 {
            self.root.push(self.session.put(ChunkKind::List, &self.list, compressor)?);
            self.list.clear();
            self.list_refs = 0;
        }
        Ok(())
    }

    /// Ends the listing: the record's `root`, and the number of entries.
    pub fn finish(mut self, compressor: &mut Compressor) -> Result<(Vec<ChunkId>, u64)> {
        self.end_leaf(compressor)?;
        self.end_list(compressor)?;
        Ok((self.root, self.entries))
    }
}

/// A number in which every bit depends on `path`, the same in every run on this repository.
pub fn spread(key: &[u8; 32], path: &[u8]) -> u32 {
    let hash = blake3::keyed_hash(key, path);
    let bytes = hash.as_bytes();
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// A run of a file whose chunk may still be on its way through the workers.
pub enum PendingSegment {
    /// A chunk of that length.
    Data(std::sync::Arc<Later<ChunkId>>, u64),
    /// A hole of that length.
    Hole(u64),
}

/// Gives an entry its segments: in the entry itself, or in lists if there are many.
pub fn set_segments(
    entry: &mut Entry,
    pending: Vec<PendingSegment>,
    session: &Session,
    compressor: &mut Compressor,
) -> Result<()> {
    let resolve = |segment: PendingSegment| -> Result<Segment> {
        Ok(match segment {
            PendingSegment::Hole(len) => Segment::Hole { len },
            PendingSegment::Data(id, len) => {
                Segment::Data { id: id.wait().ok_or(RepoError::Interrupted)?, len, offset: 0 }
            }
        })
    };
    if pending.len() <= INLINE_SEGMENTS {
        entry.segments = pending.into_iter().map(resolve).collect::<Result<_>>()?;
        return Ok(());
    }
    let fixed = entry.cut == Some(crate::repo::entry::Cut::Fixed);
    let (mut list, mut refs, mut covered) = (Vec::new(), 0usize, 0u64);
    for segment in pending {
        let segment = resolve(segment)?;
        serde_json::to_writer(&mut list, &segment).map_err(line_error)?;
        list.push(b'\n');
        refs += 1;
        covered += segment.len();
        // Lists of a fixed file are cut at fixed places, those of others where a chunk's id says so: either way a change
        // touches few lists.
        let cut = match (fixed, &segment) {
            (true, _) => refs == 1024,
            (false, Segment::Data { id, .. }) => refs >= 256 && id.spread().is_multiple_of(LIST_CUT),
            (false, Segment::Hole { .. }) => false,
        };
        if cut || refs == LIST_MAX {
            entry.segment_lists.push((session.put(ChunkKind::List, &list, compressor)?, covered));
            (refs, covered) = (0, 0);
            list.clear();
        }
    }
    if refs > 0 {
        entry.segment_lists.push((session.put(ChunkKind::List, &list, compressor)?, covered));
    }
    Ok(())
}
