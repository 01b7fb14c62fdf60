//! What is known of a volume's content: found out in the background, so that engines get their answers at once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{Driver, Volume, lock};
use crate::repo::{Repository, SnapshotRecord};
use crate::snapshot::state::StateReader;
use crate::snapshot::{self, Excludes};

/// After how long a volume is looked at again although nothing has happened that we know of.
const FRESH: Duration = Duration::from_secs(5 * 60);
/// Of one that takes long to look at, a number is not worth more than this part of the time.
const EFFORT: u32 = 100;

/// What was found out, and when.
#[derive(Debug, Default)]
pub struct Facts {
    found: Option<Found>,
    looked: Option<Instant>,
    took: Duration,
    /// When the listing of the last backup was written that was compared with.
    listing: Option<SystemTime>,
}

#[derive(Debug)]
struct Found {
    at: Timestamp,
    bytes: u64,
    files: u64,
    newest: Option<(String, Timestamp)>,
    /// Objects and bytes that differ from the newest snapshot; `None` if that cannot be told without reading the repository.
    changed: Option<(u64, u64)>,
}

impl Driver {
    /// Looks at those volumes at which nobody has looked for a while, or of which a snapshot was taken since. A repository that does not
    /// answer leaves its part out.
    pub async fn find_facts(&self) {
        let Ok(engine) = self.engine_name().await else { return };
        let repo = self.outside().repository().await.ok();
        let mut due = Vec::new();
        for volume in self.all() {
            // What is on a server is not walked for the sake of a number.
            if volume.is_wanting() || volume.trouble.is_some() || volume.options.mount.is_some() {
                continue;
            }
            let state = match (&repo, self.source(&volume).await) {
                (Some(repo), Ok(source)) => Some(source.state_path(repo, &self.shared.state_dir)),
                _ => None,
            };
            let written = state.as_deref().and_then(|path| std::fs::metadata(path).ok()?.modified().ok());
            let facts = lock(&volume.facts);
            let fresh = facts.looked.is_some_and(|at| at.elapsed() < FRESH.max(facts.took * EFFORT));
            let fresh = fresh && facts.listing == written;
            drop(facts);
            if !fresh {
                due.push((volume, state, written));
            }
        }
        if due.is_empty() {
            return;
        }
        // One listing for all of them: every request may cost something.
        let newest = match &repo {
            Some(repo) => newest_of(repo, &engine).await,
            None => BTreeMap::new(),
        };
        for (volume, state, written) in due {
            let record = newest.get(&volume.name).cloned();
            let looked = volume.clone();
            let (repo, begun) = (repo.clone(), Instant::now());
            let job = tokio::task::spawn_blocking(move || look(&looked, repo.as_deref(), record.as_deref(), state));
            let mut facts = lock_after(job.await.ok().flatten(), &volume);
            (facts.looked, facts.took) = (Some(Instant::now()), begun.elapsed());
            facts.listing = written;
        }
    }

    /// Sees to it that the volume is looked at soon.
    pub(super) fn look_again(&self, volume: &Volume) {
        lock(&volume.facts).looked = None;
    }

    /// What `docker volume inspect` shows as `Status`.
    pub(super) fn status(&self, volume: &Volume) -> Map<String, Value> {
        let mut status = Map::new();
        let state = match volume.progress.now() {
            Some((_, 0)) => "restoring".to_owned(),
            Some((done, total)) => format!("restoring: {} %", done.min(total).saturating_mul(100) / total),
            None if volume.is_wanting() => "to be restored when it is mounted".to_owned(),
            None => "ready".to_owned(),
        };
        status.insert("state".to_owned(), state.into());
        status.insert("mounts".to_owned(), lock(&volume.mounts).count().into());
        if let Some(found) = &lock(&volume.facts).found {
            status.insert("size_bytes".to_owned(), found.bytes.into());
            status.insert("files".to_owned(), found.files.into());
            let (id, time) = found.newest.clone().unzip();
            status.insert("newest_snapshot".to_owned(), json!(id));
            status.insert("newest_snapshot_time".to_owned(), json!(time));
            if let Some((objects, bytes)) = found.changed {
                status.insert("changed_since".to_owned(), json!({ "objects": objects, "bytes": bytes }));
            }
            status.insert("as_of".to_owned(), json!(found.at));
        }
        let own = Some(&self.shared.state_dir).filter(|_| self.shared.settings.publish.is_none());
        if let Some(host) = self.shared.settings.host_state_dir.as_ref().or(own) {
            status.insert("content".to_owned(), json!(super::publish::content_below(host, &volume.name)));
        }
        if let Some(origin) = &lock(&volume.file).origin {
            status.insert("restored_from".to_owned(), json!(origin));
        }
        let policy = volume.options.describe();
        if !policy.is_empty() {
            status.insert("policy".to_owned(), json!(policy));
        }
        if let Some(error) = volume.last_error() {
            status.insert("last_error".to_owned(), json!(error));
        }
        status
    }
}

fn lock_after(found: Option<Found>, volume: &Volume) -> std::sync::MutexGuard<'_, Facts> {
    let mut facts = lock(&volume.facts);
    // What cannot be looked at now is as old as it is; it says as of when.
    if found.is_some() {
        facts.found = found;
    }
    facts
}

/// The newest snapshot of each volume of an engine.
async fn newest_of(repo: &Repository, engine: &str) -> BTreeMap<String, Arc<SnapshotRecord>> {
    let Ok(found) = repo.snapshots().await else { return BTreeMap::new() };
    // In their order: the last one of each is its newest.
    found.records.into_iter().filter(|r| r.engine == engine).map(|r| (r.volume.clone(), r)).collect()
}

/// Walks the volume. Blocks.
fn look(
    volume: &Volume,
    repo: Option<&Repository>,
    newest: Option<&SnapshotRecord>,
    state: Option<PathBuf>,
) -> Option<Found> {
    // Without the listing of that very snapshot, the leaves would have to be fetched: that is not worth it.
    let listing = state
        .and_then(|path| StateReader::open(&path))
        .filter(|reader| newest.is_some_and(|record| record.id == reader.header().snapshot));
    let known = listing.is_some();
    let patterns = newest.map(|record| record.excludes.clone()).unwrap_or_default();
    let excludes = Excludes::new(patterns).ok()?;
    let keys = repo.map_or_else(crate::repo::Keys::plain, |repo| repo.keys().clone());
    let changes = snapshot::compare(&volume.data(), listing, &excludes, &keys).ok()?;
    Some(Found {
        at: Timestamp::now(),
        bytes: changes.bytes,
        files: changes.files,
        newest: newest.map(|record| (record.id.clone(), record.time)),
        changed: known.then_some((changes.added + changes.changed + changes.removed, changes.changed_bytes)),
    })
}
