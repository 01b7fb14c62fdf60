//! The list of a snapshot's leaves.

use super::entry::{LeafRef, compare_paths};
use super::{RepoError, Repository, Result, SnapshotRecord};

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
}

fn list_of(record: &SnapshotRecord) -> String {
    format!("the list of leaves of snapshot {}", record.id)
}

fn parse(record: &SnapshotRecord, line: &[u8]) -> Result<LeafRef> {
    serde_json::from_slice(line).map_err(|e| RepoError::damaged(list_of(record), e))
}
