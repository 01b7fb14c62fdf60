//! From a volume to a snapshot.
//!
//! | file | what is in it |
//! | --- | --- |
//! | [`source`] | what is backed up, and its lock |
//! | [`walk`], [`describe`] | the tree: what is there, and with which attributes |
//! | [`state`] | the last listing, kept locally |
//! | `pipeline`, `content`, [`listing`] | reading, cutting and listing (see the picture in `pipeline`) |
//! | [`chunker`], [`exclude`], [`budget`], [`later`] | their tools |
//! | [`mod@compare`] | has the content changed since? |
//! | [`mod@adopt`] | after a restore, the content is what was restored |

pub mod adopt;
pub mod budget;
pub mod chunker;
pub mod compare;
mod content;
pub mod describe;
pub mod exclude;
pub mod later;
pub mod listing;
mod pipeline;
pub mod source;
pub mod state;
pub mod walk;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jiff::Timestamp;

use crate::repo::entry::Entry;
use crate::repo::session::{Commit, Session, TOOL};
use crate::repo::{Lease, Monitor, RepoError, Repository, Result, SnapshotRecord};

pub use adopt::adopt;
pub use budget::ByteBudget;
pub use compare::{Changes, compare};
pub use exclude::Excludes;
pub use source::Source;
use state::{Stamp, StateHeader, StateReader, StateWriter};

/// The zstd level: the best ratio at which two cores keep up with a disk.
pub const DEFAULT_LEVEL: i32 = 3;
/// A collector that fences a writer off this often in a row is not waiting at all.
const ATTEMPTS: u32 = 3;

/// How a backup is made.
#[derive(Clone)]
pub struct BackupOptions {
    /// Where local state is kept.
    pub state_dir: PathBuf,
    /// Tags for the record.
    pub tags: Vec<String>,
    /// Bytes of content that may be in memory, shared by all backups of a run.
    pub budget: Arc<ByteBudget>,
    /// What is left out.
    pub excludes: Excludes,
    /// The zstd level.
    pub level: i32,
    /// Set to make every backup of the run stop soon.
    pub cancelled: Arc<AtomicBool>,
}

/// A finished backup.
#[derive(Debug)]
pub struct Backup {
    /// The committed record.
    pub record: SnapshotRecord,
    /// How many things could not be stored as they were. The record names the first of them.
    pub problems: u64,
}

/// Takes a snapshot of `source` and commits it. The repository's index must be loaded.
///
/// Nothing is reported as done before the record is in the repository and no collector has fenced it off. If anything fails before,
/// what was uploaded stays and is used by the next attempt.
pub async fn backup(
    repo: &Arc<Repository>,
    source: &Source,
    options: &BackupOptions,
    monitor: Arc<dyn Monitor>,
) -> Result<Backup> {
    let _lock = source.lock(repo, &options.state_dir)?;
    let lease = source.lease.map(|held| Lease::resume(repo, &source.engine, &source.name, held));
    if let Some(lease) = &lease {
        // Before everything is read and uploaded in vain. What counts is asked again around the commit.
        lease.ensure().await?;
    }
    for _ in 0..ATTEMPTS {
        if let Some(done) = attempt(repo, source, lease.as_ref(), options, &monitor).await? {
            return Ok(done);
        }
    }
    Err(RepoError::Fenced(ATTEMPTS))
}

async fn attempt(
    repo: &Arc<Repository>,
    source: &Source,
    lease: Option<&Lease>,
    options: &BackupOptions,
    monitor: &Arc<dyn Monitor>,
) -> Result<Option<Backup>> {
    let records = repo.snapshots_of(&source.engine, &source.name).await?.records;
    if lease.is_none() && records.last().is_some_and(|newest| newest.lease.is_some()) {
        // It would never be the newest, and whoever makes it would not know.
        return Err(RepoError::LeaseRequired { volume: source.name.clone() });
    }
    let parent = last_listing_among(repo, source, &options.state_dir, &records).await?;
    let parent_id = parent.as_ref().map(|(record, _)| record.id.clone());
    if let Some((record, _)) = &parent {
        monitor.total(record.bytes, record.files);
    }
    let session = Session::begin(repo).await?;
    let started = Timestamp::now();
    let id = session.id().to_string();
    let header = StateHeader { snapshot: id.clone(), scanned: started.as_second() };
    let state = StateWriter::create(&source.state_path(repo, &options.state_dir), &header)?;

    let (root, options_, monitor_) = (source.root.clone(), options.clone(), monitor.clone());
    let scanned = tokio::task::spawn_blocking(move || {
        let result = pipeline::run(pipeline::Run {
            session: &session,
            root: &root,
            parent: parent.map(|(_, reader)| reader),
            state,
            budget: options_.budget.clone(),
            level: options_.level,
            monitor: &*monitor_,
            excludes: &options_.excludes,
            cancelled: &options_.cancelled,
        });
        (session, result)
    });
    let (session, result) =
        scanned.await.map_err(|e| RepoError::Codec(format!("the backup stopped unexpectedly: {e}")))?;
    let (scanned, state) = match result {
        Ok(scanned) => scanned,
        Err(e) => {
            session.abandon().await;
            return Err(e);
        }
    };
    let (added_bytes, stored_bytes) = session.added();
    let record = SnapshotRecord {
        version: 1,
        id,
        volume: source.name.clone(),
        engine: source.engine.clone(),
        kind: source.kind,
        time: started,
        finished: Timestamp::now(),
        parent: parent_id,
        root: scanned.root,
        entries: scanned.entries,
        files: scanned.files,
        bytes: scanned.bytes,
        added_bytes,
        stored_bytes,
        errors: scanned.problems,
        tags: options.tags.clone(),
        excludes: options.excludes.patterns().to_vec(),
        tool: TOOL.to_owned(),
        docker: source.docker.clone(),
        lease: lease.map(|lease| lease.held().epoch),
    };
    let key = repo.keys().source_name(&source.engine, &source.name);
    match session.commit(&key, record, lease).await? {
        Commit::Committed(record) => {
            // The snapshot is safe. Without the state the next run only reads more.
            let _ = state.finish();
            Ok(Some(Backup { record: *record, problems: scanned.problem_count }))
        }
        Commit::Fenced => Ok(None),
    }
}

/// Opens the last listing of the source: the local one if it belongs to a snapshot that counts, else that of the newest snapshot, rebuilt
/// from its leaves. `None` if there is no snapshot, or its listing cannot be read: then everything is read anew.
pub async fn last_listing(
    repo: &Arc<Repository>,
    source: &Source,
    state_dir: &Path,
) -> Result<Option<(Arc<SnapshotRecord>, StateReader)>> {
    let records = repo.snapshots_of(&source.engine, &source.name).await?.records;
    last_listing_among(repo, source, state_dir, &records).await
}

/// As [`last_listing`], where the snapshots of the source are known.
async fn last_listing_among(
    repo: &Arc<Repository>,
    source: &Source,
    state_dir: &Path,
    records: &[Arc<SnapshotRecord>],
) -> Result<Option<(Arc<SnapshotRecord>, StateReader)>> {
    let path = source.state_path(repo, state_dir);
    let Some(newest) = records.last() else { return Ok(None) };
    // Reading the state checks all of it, which takes a moment for a large one.
    let open = || {
        tokio::task::spawn_blocking({
            let path = path.clone();
            move || StateReader::open(&path)
        })
    };
    if let Ok(Some(reader)) = open().await
        && let Some(record) = records.iter().find(|r| r.id == reader.header().snapshot)
    {
        return Ok(Some((record.clone(), reader)));
    }
    match rebuild(repo, newest, &path).await {
        Ok(()) => {
            let reader = open().await.ok().flatten().filter(|reader| reader.header().snapshot == newest.id);
            Ok(reader.map(|reader| (newest.clone(), reader)))
        }
        // No room for it: everything is read anew.
        Err(RepoError::Local { .. }) => Ok(None),
        Err(e) if e.is_about_one_object() => Ok(None),
        Err(e) => Err(e),
    }
}

async fn rebuild(repo: &Repository, record: &SnapshotRecord, path: &Path) -> Result<()> {
    let header = StateHeader { snapshot: record.id.clone(), scanned: record.time.as_second() };
    let mut writer = StateWriter::create(path, &header)?;
    for leaf in repo.leaves(record).await? {
        let leaf = repo.meta_chunk(&leaf.leaf).await?;
        for line in leaf.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            let entry: Entry = serde_json::from_slice(line).map_err(|e| RepoError::damaged("a leaf", e))?;
            let mut stamp = Stamp::remembered(&entry);
            if entry.bad.is_some() {
                stamp.inode = 0;
                stamp.ctime = (i64::MIN, 0);
            }
            writer.add(&entry.path(), &stamp, line);
        }
    }
    writer.finish()
}
