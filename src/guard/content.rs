//! What can be said of a volume's content: the scan, and what is in the repository.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::Verdict;
use super::judge::JudgeError;
use crate::repo::{Keys, Repository, SnapshotRecord, SourceKind};
use crate::snapshot::{self, Changes, Excludes, Source};

/// The repository that would hold the snapshots.
#[derive(Clone)]
pub enum RepositoryAccess {
    /// It can be asked. Its index is loaded.
    Open(Arc<Repository>),
    /// It cannot, for this reason: "no repository is configured".
    Unavailable(String),
}

/// What a look at a volume came to.
#[derive(Debug)]
pub struct Found {
    /// The verdict.
    pub verdict: Verdict,
    /// Why, in a few words.
    pub reason: String,
    /// What differs from the snapshot, or all that is there.
    pub changes: Option<Changes>,
    /// The snapshot that it was compared with.
    pub compared: Option<Arc<SnapshotRecord>>,
    /// A running container that may write to it.
    pub written_by: Option<String>,
    /// It would be fine without that container.
    pub fine_when_stopped: bool,
}

impl Found {
    /// A verdict without a scan.
    pub fn new(verdict: Verdict, reason: impl Into<String>) -> Found {
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

/// Looks at content.
#[derive(Clone, Copy)]
pub struct Content<'a> {
    /// What the engine is called in snapshots.
    pub engine_name: &'a str,
    /// Where the snapshots are.
    pub repository: &'a RepositoryAccess,
    /// `guard.max_age`.
    pub max_age: Option<SignedDuration>,
    /// Where local state is kept.
    pub state_dir: &'a Path,
}

impl Content<'_> {
    /// Scans the folder that holds a volume's content, and compares it with the volume's newest snapshot. Whether anybody still writes to it is
    /// not asked here.
    ///
    /// # Errors
    /// [`JudgeError::Pattern`] if a record has patterns that are none; what cannot be read or reached is a verdict.
    pub async fn look(&self, name: &str, root: PathBuf, now: Timestamp) -> Result<Found, JudgeError> {
        if std::fs::read_dir(&root).is_ok_and(|mut entries| entries.next().is_none()) {
            return Ok(Found::new(Verdict::Empty, "there is nothing in it"));
        }
        let source = Source {
            engine: self.engine_name.to_owned(),
            name: name.to_owned(),
            kind: SourceKind::Volume,
            root: root.clone(),
            docker: None,
            lease: None,
        };
        let (listing, keys, unavailable) = match self.repository {
            RepositoryAccess::Open(repo) => match snapshot::last_listing(repo, &source, self.state_dir).await {
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
            (verdict, &compared, self.repository)
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
        match self.max_age {
            Some(limit) if now.duration_since(record.time) <= limit => {
                (Verdict::StaleOk, format!("{what}, which is younger than guard.max_age"))
            }
            _ => (Verdict::AtRisk, what),
        }
    }
}
