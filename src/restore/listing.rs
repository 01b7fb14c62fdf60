//! Reading a snapshot's listing, leaf by leaf, with every path checked.

use std::collections::HashSet;

use crate::repo::entry::{Entry, LeafRef, check_path, compare_paths, display_path};
use crate::repo::{ChunkId, RepoError, Repository, Result, SnapshotRecord};

/// Which entries are wanted.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    paths: Vec<Vec<u8>>,
}

impl Selection {
    /// Selects what is at or below one of `paths` (as written by a person: a leading or trailing `/` does not matter); everything if
    /// there are none.
    pub fn new(paths: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let tidy = |path: Vec<u8>| {
            let parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".").collect();
            parts.join(&b'/')
        };
        let paths: Vec<Vec<u8>> = paths.into_iter().map(tidy).collect();
        // The root was asked for: that is everything.
        Selection { paths: if paths.iter().any(Vec::is_empty) { Vec::new() } else { paths } }
    }

    /// Whether everything is wanted.
    pub fn is_all(&self) -> bool {
        self.paths.is_empty()
    }

    /// Whether the entry is wanted itself.
    pub fn has(&self, path: &[u8]) -> bool {
        self.is_all() || self.paths.iter().any(|wanted| is_below(path, wanted))
    }

    /// Whether the entry is wanted, or leads to one that is.
    pub fn touches(&self, path: &[u8]) -> bool {
        self.has(path) || path == b"." || self.paths.iter().any(|wanted| is_below(wanted, path))
    }

    /// The selected paths.
    pub fn paths(&self) -> impl Iterator<Item = &[u8]> {
        self.paths.iter().map(Vec::as_slice)
    }
}

fn is_below(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// Names the first selected path that is not among those that the listing has.
pub fn check_matched(selection: &Selection, matched: &HashSet<Vec<u8>>, record: &SnapshotRecord) -> Result<()> {
    match selection.paths().find(|wanted| !matched.contains(*wanted)) {
        None => Ok(()),
        Some(wanted) => {
            let (path, id, volume) = (display_path(wanted), &record.id, &record.volume);
            Err(RepoError::NoSnapshot(format!("there is no {path} in snapshot {id} of {volume}")))
        }
    }
}

/// Whether the leaf at `index` can hold anything that is selected, or a folder on the way there.
pub fn leaf_wanted(leaves: &[LeafRef], index: usize, selection: &Selection) -> bool {
    if selection.is_all() || index == 0 {
        return true;
    }
    let first = leaves[index].first_path();
    let next = leaves.get(index + 1).map(LeafRef::first_path);
    let before_next = |path: &[u8]| next.as_deref().is_none_or(|next| compare_paths(path, next).is_lt());
    selection.paths().any(|wanted| {
        let above = wanted.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| &wanted[..at]);
        let on_the_way = above.into_iter().any(|folder| compare_paths(&first, folder).is_le() && before_next(folder));
        on_the_way || (before_next(wanted) && (compare_paths(&first, wanted).is_le() || is_below(&first, wanted)))
    })
}

/// The entries of one leaf, checked: paths that could lead out of the target are refused, because the repository may be hostile.
pub async fn entries(repo: &Repository, record: &SnapshotRecord, leaf: &ChunkId) -> Result<Vec<Entry>> {
    let data = repo.meta_chunk(leaf).await?;
    let mut entries: Vec<Entry> = Vec::new();
    for line in data.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        let entry: Entry = serde_json::from_slice(line).map_err(|e| damaged(record, leaf, e))?;
        if !check_path(&entry.path()) {
            let path = display_path(&entry.path());
            return Err(damaged(
                record,
                leaf,
                format!("it names the path {path:?}, which could lead out of the target"),
            ));
        }
        if entries.last().is_some_and(|last| compare_paths(&last.path(), &entry.path()).is_ge()) {
            let path = display_path(&entry.path());
            return Err(damaged(record, leaf, format!("{path:?} stands where it does not belong in the order")));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn damaged(record: &SnapshotRecord, chunk: &ChunkId, why: impl std::fmt::Display) -> RepoError {
    RepoError::damaged(format!("the listing of snapshot {} (chunk {chunk:?})", record.id), why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_takes_what_is_below_and_what_leads_there() {
        let some = Selection::new([b"/a/b/".to_vec()]);
        assert!(some.has(b"a/b") && some.has(b"a/b/c") && !some.has(b"a/bc") && !some.has(b"a"));
        assert!(some.touches(b"a") && some.touches(b".") && !some.touches(b"b"));
        assert!(Selection::new([b"/".to_vec()]).is_all());
    }
}
