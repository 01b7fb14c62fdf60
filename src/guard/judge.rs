//! From effects to a plan: reads the volumes and asks the repository.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};

use super::effects::{Effect, Pending};
use super::{Action, Decision, Effects, Plan, PlannedContainer, PlannedVolume, Request, Verdict};
use crate::docker::{Engine, EngineError};
use crate::inventory::{Inventory, Kind, VolumeInfo, readable_root};
use crate::repo::{Keys, RepoError, Repository, SnapshotRecord, SourceKind};
use crate::snapshot::{self, Changes, Excludes, Source};

/// What the user allows.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Globs of names of volumes that may go (`guard.ephemeral`).
    pub ephemeral: Vec<String>,
    /// A volume that differs from a snapshot younger than this may go (`guard.max_age`).
    pub max_age: Option<SignedDuration>,
    /// Volumes that somebody gave up by their full names (`--lose`).
    pub lose: BTreeSet<String>,
    /// What the engine may be carrying out at this moment: judged as if it had been done before.
    pub pending: Vec<Pending>,
}

/// The repository that would hold the snapshots.
#[derive(Clone)]
pub enum RepositoryAccess {
    /// It can be asked. Its index is loaded.
    Open(Arc<Repository>),
    /// It cannot, for this reason: "no repository is configured".
    Unavailable(String),
}

/// Why no plan could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JudgeError {
    /// The engine did not answer.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The repository, or local state, cannot be read.
    #[error(transparent)]
    Repository(#[from] RepoError),
    /// A filter that cannot be understood: what it would select is not known.
    #[error("cannot tell what {command:?} would remove: {source}")]
    Filter {
        /// The command.
        command: String,
        /// What is wrong.
        source: super::filter::FilterError,
    },
    /// A pattern of the configuration is not a glob.
    #[error("guard.ephemeral: {0}")]
    Pattern(String),
}

/// Makes plans. Cheap to clone.
#[derive(Clone)]
pub struct Judge {
    /// The engine that is asked to remove something.
    pub engine: Engine,
    /// What it is called in snapshots.
    pub engine_name: String,
    /// Where the snapshots are.
    pub repository: RepositoryAccess,
    /// What the user allows.
    pub policy: Policy,
    /// Where local state is kept.
    pub state_dir: PathBuf,
}

/// How many volumes are read at once.
const AT_ONCE: usize = 4;
/// The label by which somebody declares that a volume may go.
pub const EPHEMERAL_LABEL: &str = "voltool.ephemeral";

/// What a look at a volume came to.
struct Found {
    verdict: Verdict,
    reason: String,
    changes: Option<Changes>,
    compared: Option<Arc<SnapshotRecord>>,
    written_by: Option<String>,
    fine_when_stopped: bool,
}

impl Found {
    fn new(verdict: Verdict, reason: impl Into<String>) -> Found {
        Found {
            verdict,
            reason: reason.into(),
            changes: None,
            compared: None,
            written_by: None,
            fine_when_stopped: false,
        }
    }
}

impl Judge {
    /// Works out what a request would do to what is there now, and whether it may.
    ///
    /// `last_used` says who used a volume last, as far as the catalog remembers.
    ///
    /// # Errors
    /// See [`JudgeError`]. Whoever cannot show an error to a person takes it for a refusal.
    pub async fn plan(
        &self,
        request: &Request,
        inventory: &Inventory,
        last_used: &(dyn Fn(&str) -> Option<String> + Sync),
    ) -> Result<Plan, JudgeError> {
        let now = Timestamp::now();
        let filter = |source| JudgeError::Filter { command: request.command.clone(), source };
        let effects = Effects::after(&self.policy.pending, request, inventory, now).map_err(filter)?;
        let ephemeral = Excludes::new(self.policy.ephemeral.iter().cloned()).map_err(JudgeError::Pattern)?;
        let (inventory_, ephemeral, effects_) = (inventory, &ephemeral, &effects);
        let looks =
            inventory.volumes.iter().filter_map(|volume| Some((volume, effects_.volumes.get(&volume.name)?))).map(
                |(volume, effect)| async move {
                    let found = self.look(volume, effect, inventory_, ephemeral, now).await?;
                    Ok::<_, JudgeError>(planned(volume, effect, found, last_used(&volume.name)))
                },
            );
        let volumes: Vec<PlannedVolume> = futures_util::stream::iter(looks).buffered(AT_ONCE).try_collect().await?;
        let data_only: BTreeSet<&str> = inventory
            .volumes
            .iter()
            .flat_map(|volume| &volume.used_by)
            .filter(|usage| usage.data_only)
            .map(|usage| usage.container_id.as_str())
            .collect();
        let containers = effects.containers.iter().filter_map(|id| {
            let container = inventory.container(id)?;
            Some(PlannedContainer {
                id: container.id.clone(),
                name: container.name.clone(),
                data_only: data_only.contains(container.id.as_str()),
                running: container.is_running(),
            })
        });
        let containers = containers.collect();
        let refused = volumes.iter().any(PlannedVolume::refuses);
        Ok(Plan {
            command: request.command.clone(),
            verdict: if refused { Decision::Refuse } else { Decision::Allow },
            volumes,
            containers,
            notes: effects.notes,
            request: request.clone(),
            engine: self.engine_name.clone(),
            time: now,
        })
    }

    /// What can be said of one volume's content.
    async fn look(
        &self,
        volume: &VolumeInfo,
        effect: &Effect,
        inventory: &Inventory,
        ephemeral: &Excludes,
        now: Timestamp,
    ) -> Result<Found, JudgeError> {
        // Nothing happens to it, so nothing is read: people remove containers all day.
        if effect.action == Action::Orphan && volume.kind == Kind::Named {
            return Ok(Found::new(Verdict::Safe, "it stays, under its name"));
        }
        if self.policy.lose.contains(&volume.name) {
            return Ok(Found::new(Verdict::GivenUp, "given up with --lose"));
        }
        if volume.labels.get(EPHEMERAL_LABEL).is_some_and(|value| value == "true") {
            return Ok(Found::new(Verdict::Ephemeral, format!("labelled {EPHEMERAL_LABEL}=true")));
        }
        if ephemeral.matches(volume.name.as_bytes()) {
            return Ok(Found::new(Verdict::Ephemeral, "guard.ephemeral in the configuration matches its name"));
        }
        if effect.action == Action::Destroy
            && let Some(by) = effect.still_used_by.first()
        {
            let why = format!("container {by} uses it, which the engine may not know any more");
            return Ok(Found::new(Verdict::AtRisk, why));
        }
        if volume.driver != "local" {
            let why = format!("its driver {} decides what removing means, and voltool cannot tell", volume.driver);
            return Ok(Found::new(Verdict::Unknown, why));
        }
        // Removing such a volume removes an entry and an empty folder: what is mounted there stays where it is.
        if let Some(device) = volume.options.get("device").filter(|device| !device.is_empty()) {
            return Ok(match volume.options.get("type").map(String::as_str) {
                Some(kind @ ("tmpfs" | "ramfs")) => Found::new(Verdict::Safe, format!("a {kind}, which keeps nothing")),
                _ => Found::new(
                    Verdict::Safe,
                    format!("the engine removes its entry only: the content stays in {device}"),
                ),
            });
        }
        let root = match readable_root(volume, &self.engine) {
            Ok(root) => root,
            Err(error) => return Ok(Found::new(Verdict::Unknown, error.to_string())),
        };
        let mut found = self.compare(volume, root, now).await?;
        // What a running process still writes is in no snapshot, however well things look now.
        let writer = volume.used_by.iter().find(|usage| {
            usage.rw && inventory.container(&usage.container_id).is_some_and(|container| container.is_running())
        });
        found.written_by = writer.map(|writer| writer.name.clone());
        if let Some(writer) = writer.filter(|_| found.verdict.is_fine()) {
            found.fine_when_stopped = true;
            found.reason =
                format!("container {} is running and may still write to it; now: {}", writer.name, found.reason);
            found.verdict = Verdict::Unknown;
        }
        Ok(found)
    }

    /// Scans the volume, and compares with its newest snapshot.
    async fn compare(&self, volume: &VolumeInfo, root: PathBuf, now: Timestamp) -> Result<Found, JudgeError> {
        if std::fs::read_dir(&root).is_ok_and(|mut entries| entries.next().is_none()) {
            return Ok(Found::new(Verdict::Empty, "there is nothing in it"));
        }
        let source = Source {
            engine: self.engine_name.clone(),
            name: volume.name.clone(),
            kind: SourceKind::Volume,
            root: root.clone(),
            docker: None,
            lease: None,
        };
        let (listing, keys, unavailable) = match &self.repository {
            RepositoryAccess::Open(repo) => match snapshot::last_listing(repo, &source, &self.state_dir).await {
                Ok(listing) => (listing, repo.keys().clone(), None),
                // A repository that fails while it is asked cannot be reached: nothing is known to be safe.
                Err(error) => (None, Keys::plain(), Some(error.to_string())),
            },
            RepositoryAccess::Unavailable(why) => (None, Keys::plain(), Some(why.clone())),
        };
        let compared = listing.as_ref().map(|(record, _)| record.clone());
        let patterns = compared.as_ref().map(|record| record.excludes.clone()).unwrap_or_default();
        let excludes = Excludes::new(patterns).map_err(JudgeError::Pattern)?;
        let scan = move || snapshot::compare(&root, listing.map(|(_, reader)| reader), &excludes, &keys);
        let changes = match tokio::task::spawn_blocking(scan).await {
            Ok(Ok(changes)) => changes,
            Ok(Err(error)) => return Ok(Found::new(Verdict::Unknown, error.to_string())),
            Err(_) => return Ok(Found::new(Verdict::Unknown, "the scan ended unexpectedly")),
        };
        let (mut verdict, mut reason) = self.weigh(&changes, compared.as_deref(), unavailable, now);
        // The record says that the content is stored. That it is still there, the storage has to say.
        if let (Verdict::Safe | Verdict::StaleOk, Some(record), RepositoryAccess::Open(repo)) =
            (verdict, &compared, &self.repository)
        {
            let missing = async { repo.first_missing(record, &repo.packs_there().await?).await };
            match missing.await {
                Ok(None) => {}
                Ok(Some(what)) => {
                    verdict = Verdict::AtRisk;
                    reason = format!(
                        "snapshot {} cannot be restored whole any more: {what} is not in the repository",
                        record.id
                    );
                }
                Err(error) => (verdict, reason) = (Verdict::Unknown, error.to_string()),
            }
        }
        Ok(Found { verdict, reason, changes: Some(changes), compared, written_by: None, fine_when_stopped: false })
    }

    /// From what a scan found to a verdict.
    fn weigh(
        &self,
        changes: &Changes,
        compared: Option<&SnapshotRecord>,
        unavailable: Option<String>,
        now: Timestamp,
    ) -> (Verdict, String) {
        if let Some(problem) = changes.problems.first() {
            return (Verdict::Unknown, format!("it cannot be read: {problem}"));
        }
        let Some(record) = compared else {
            return match unavailable {
                Some(why) => (Verdict::Unknown, format!("nobody knows whether there is a snapshot: {why}")),
                None => (Verdict::AtRisk, "no snapshot".to_owned()),
            };
        };
        let differing = changes.added + changes.changed + changes.removed;
        if !record.errors.is_empty() {
            return (Verdict::AtRisk, format!("snapshot {} is not complete: some files could not be read", record.id));
        }
        if differing == 0 {
            let but = match record.excludes.is_empty() {
                true => String::new(),
                false => format!(", but for what the backup leaves out ({})", record.excludes.join(", ")),
            };
            return (Verdict::Safe, format!("unchanged since snapshot {}{but}", record.id));
        }
        let what = match differing {
            1 => format!("1 file or folder differs from snapshot {}", record.id),
            n => format!("{n} files or folders differ from snapshot {}", record.id),
        };
        match self.policy.max_age {
            Some(limit) if now.duration_since(record.time) <= limit => {
                (Verdict::StaleOk, format!("{what}, which is younger than guard.max_age"))
            }
            _ => (Verdict::AtRisk, what),
        }
    }
}

fn planned(volume: &VolumeInfo, effect: &Effect, found: Found, remembered: Option<String>) -> PlannedVolume {
    let Found { verdict, reason, changes, compared, written_by, fine_when_stopped } = found;
    let user = volume.used_by.first().map(|usage| format!("{} at {}", usage.name, usage.path));
    let differing = changes.as_ref().filter(|_| compared.is_some()).map(|c| c.added + c.changed + c.removed);
    PlannedVolume {
        name: volume.name.clone(),
        kind: volume.kind,
        action: effect.action,
        certain: effect.certain,
        verdict,
        reason,
        size_bytes: changes.as_ref().map(|changes| changes.bytes),
        files: changes.as_ref().map(|changes| changes.files),
        newest_snapshot: compared.as_ref().map(|record| record.id.clone()),
        newest_snapshot_time: compared.as_ref().map(|record| record.time),
        changed_files: differing,
        changed_bytes: changes.as_ref().filter(|_| compared.is_some()).map(|changes| changes.changed_bytes),
        written_by,
        fine_when_stopped,
        last_used_by: user.or(remembered),
    }
}
