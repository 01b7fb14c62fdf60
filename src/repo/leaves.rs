//! The lists that a snapshot is made of: of its leaves, and of the segments of large files.

use super::entry::{LeafRef, Segment, compare_paths};
use super::{ChunkId, RepoError, Repository, Result, SnapshotRecord};

impl Repository {
    /// Reads which leaves make up the listing of a snapshot. Lines may run across the chunks of the list.
    pub async fn leaves(&self, record: &SnapshotRecord) -> Result<Vec<LeafRef>> {
        let mut leaves: Vec<LeafRef> = Vec::new();
        let mut open: Vec<u8> = Vec::new();
        for id in &record.root {
            open.extend_from_slice(&self.meta_chunk(id).await?);
            let whole = open.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            for line in open[..whole].split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
                leaves.push(parse(record, line)?);
            }
            open.drain(..whole);
        }
        if !open.is_empty() {
            leaves.push(parse(record, &open)?);
        }
        if !leaves.is_sorted_by(|a, b| compare_paths(&a.first_path(), &b.first_path()).is_lt()) {
            return Err(RepoError::damaged(list_of(record), "its leaves are not in order"));
        }
        Ok(leaves)
    }

    /// Reads the segments of a file that keeps them in a list.
    pub async fn listed_segments(&self, list: &ChunkId) -> Result<Vec<Segment>> {
        let data = self.meta_chunk(list).await?;
        let parse = |line: &[u8]| {
            serde_json::from_slice(line).map_err(|e| RepoError::damaged(format!("the list of segments {list:?}"), e))
        };
        data.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(parse).collect()
    }
}

fn list_of(record: &SnapshotRecord) -> String {
    format!("the list of leaves of snapshot {}", record.id)
}

fn parse(record: &SnapshotRecord, line: &[u8]) -> Result<LeafRef> {
    serde_json::from_slice(line).map_err(|e| RepoError::damaged(list_of(record), e))
}
