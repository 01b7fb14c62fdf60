//! Is everything that a snapshot needs still in the storage?
//!
//! Nothing is read but listings and metadata: each chunk must be in a pack that is there and has the size that it should have. Who
//! deletes packs behind the repository's back (a lifecycle rule of the bucket, an `rm` in the wrong folder) is found out by that
//! without reading a byte of content; who damages them is not.

use std::collections::{BTreeMap, HashSet};

use super::entry::{Entry, Segment};
use super::index::{Location, PackName};
use super::{ChunkId, RepoError, Repository, Result, SnapshotRecord};

/// The packs that are in the storage, with their sizes in bytes.
#[derive(Debug, Clone, Default)]
pub struct PacksThere(BTreeMap<PackName, u64>);

impl Repository {
    /// Lists the packs.
    ///
    /// # Errors
    /// If the storage cannot list them.
    pub async fn packs_there(&self) -> Result<PacksThere> {
        let objects = self.store().list("packs/").await?;
        Ok(PacksThere(objects.iter().filter_map(|o| Some((PackName::from_key(&o.key)?, o.size))).collect()))
    }

    /// Says what of a snapshot is not in the storage any more, or `None` if all of it is.
    ///
    /// # Errors
    /// If the storage cannot be read.
    pub async fn first_missing(&self, record: &SnapshotRecord, there: &PacksThere) -> Result<Option<String>> {
        let mut checked = HashSet::new();
        for id in &record.root {
            if !self.is_there(id, there, &mut checked).await? {
                return Ok(Some("the list of its leaves".to_owned()));
            }
        }
        let unreadable = |e: RepoError| if e.is_about_one_object() { Ok(Some(e.to_string())) } else { Err(e) };
        let leaves = match self.leaves(record).await {
            Ok(leaves) => leaves,
            Err(e) => return unreadable(e),
        };
        for leaf in leaves {
            if !self.is_there(&leaf.leaf, there, &mut checked).await? {
                return Ok(Some("a part of its listing".to_owned()));
            }
            let lines = match self.meta_chunk(&leaf.leaf).await {
                Ok(lines) => lines,
                Err(e) => return unreadable(e),
            };
            for line in lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
                let entry: Entry = serde_json::from_slice(line).map_err(|e| RepoError::damaged("a leaf", e))?;
                if !self.content_is_there(&entry, there, &mut checked).await? {
                    return Ok(Some(super::entry::display_path(&entry.path())));
                }
            }
        }
        Ok(None)
    }

    async fn content_is_there(
        &self,
        entry: &Entry,
        there: &PacksThere,
        checked: &mut HashSet<ChunkId>,
    ) -> Result<bool> {
        for id in entry.chunk_ids() {
            if !self.is_there(&id, there, checked).await? {
                return Ok(false);
            }
        }
        for (list, _) in &entry.segment_lists {
            for segment in self.listed_segments(list).await? {
                if let Segment::Data { id, .. } = segment
                    && !self.is_there(&id, there, checked).await?
                {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Whether a chunk, and the base that it may need, is in a pack that is there.
    async fn is_there(&self, id: &ChunkId, there: &PacksThere, checked: &mut HashSet<ChunkId>) -> Result<bool> {
        if checked.contains(id) {
            return Ok(true);
        }
        let locations = match self.locate_or_learn(id).await {
            Ok(locations) => locations,
            Err(e) if e.is_about_one_object() => return Ok(false),
            Err(e) => return Err(e),
        };
        let stored = |location: &&Location| there.0.get(&location.pack.name) == Some(&location.pack.size);
        for location in locations.iter().filter(stored) {
            let base_is_there = match &location.entry.base {
                None => true,
                // Deltas are one deep: the base must be whole somewhere.
                Some(base) => self.locate(base).iter().filter(stored).any(|base| base.entry.base.is_none()),
            };
            if base_is_there {
                checked.insert(*id);
                return Ok(true);
            }
        }
        Ok(false)
    }
}
