//! After a restore: the folder is what the snapshot says, and the next comparison should know that.
//!
//! Everything that was restored has a new inode number and a new change time, so compared with the snapshot's listing all of it
//! would count as changed: `ls` would call it at risk, and the next backup would read it all again. [`adopt`] writes the listing
//! that a backup of the folder would have made at this moment, without reading content.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::pipeline::link_name;
use super::source::Source;
use super::state::{Row, Stamp, StateHeader, StateReader, StateWriter};
use super::walk::{Step, Walk};
use crate::repo::entry::{Entry, EntryType};
use crate::repo::{RepoError, Repository, Result, SnapshotRecord};

/// Keeps the listing of `record` as the last one of `source`, whose folder was restored from it just now, with nothing missing.
///
/// What was modified since then differs in size or modification time, stays as the snapshot lists it, and so counts as changed.
pub async fn adopt(
    repo: &Arc<Repository>,
    source: &Source,
    record: &Arc<SnapshotRecord>,
    state_dir: &Path,
) -> Result<()> {
    let lock = source.lock(repo, state_dir)?;
    let path = source.state_path(repo, state_dir);
    let listed = path.with_extension("restored");
    super::rebuild(repo, record, &listed).await?;
    let (root, id) = (source.root.clone(), record.id.clone());
    let merge = move || {
        let _lock = lock;
        let Some(reader) = StateReader::open(&listed) else {
            return Err(RepoError::damaged(listed.display().to_string(), "it changed since it was written"));
        };
        // Open, it can be read to its end.
        std::fs::remove_file(&listed).map_err(|e| RepoError::local("remove", &listed, e))?;
        let header = StateHeader { snapshot: id, scanned: Timestamp::now().as_second() };
        let writer = StateWriter::create(&path, &header)?;
        merge(reader, writer, &root)
    };
    tokio::task::spawn_blocking(merge)
        .await
        .map_err(|e| RepoError::Codec(format!("the listing stopped unexpectedly: {e}")))?
}

fn merge(mut listed: StateReader, mut writer: StateWriter, root: &Path) -> Result<()> {
    let local = |e| RepoError::local("read", root, e);
    let mut root_device = None;
    for step in Walk::new(root).map_err(local)? {
        // What cannot be looked at now stays as it is listed.
        let Step::Node(node) = step else { continue };
        let root_device = *root_device.get_or_insert(node.meta.device);
        let mut keep = |row: &Row| writer.add(&row.path, &row.stamp, &row.line);
        let Some(row) = listed.seek(&node.path, &mut keep).map_err(local)? else { continue };
        let stamp = Stamp::of(&node.meta);
        let entry = serde_json::from_slice::<Entry>(&row.line).ok();
        let restored = (row.stamp.size, row.stamp.mtime) == (stamp.size, stamp.mtime);
        let owned = |e: &Entry| (e.mode, e.uid, e.gid) == (node.meta.mode & 0o7777, node.meta.uid, node.meta.gid);
        match entry.filter(|entry| restored && entry.bad.is_none() && owned(entry)) {
            Some(mut entry) => {
                entry.ctime = node.meta.ctime;
                entry.inode = node.meta.inode;
                let linked = node.meta.links > 1 && entry.kind != EntryType::Dir;
                entry.hard_link = linked.then(|| link_name(&node.meta, root_device));
                writer.add(&node.path, &stamp, &super::pipeline::to_line(&entry)?);
            }
            None => keep(&row),
        }
    }
    listed.drain(|row| writer.add(&row.path, &row.stamp, &row.line)).map_err(local)?;
    writer.finish()
}
