//! The list of a snapshot's leaves.

use super::entry::LeafRef;
use super::{RepoError, Repository, Result, SnapshotRecord};

impl Repository {
    /// Reads which leaves make up the listing of a snapshot. Lines may run across the chunks of the list.
    pub async fn leaves(&self, record: &SnapshotRecord) -> Result<Vec<LeafRef>> {
        let mut leaves = Vec::new();
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
        Ok(leaves)
    }
}

fn parse(record: &SnapshotRecord, line: &[u8]) -> Result<LeafRef> {
    serde_json::from_slice(line)
        .map_err(|e| RepoError::damaged(format!("the list of leaves of snapshot {}", record.id), e))
}
