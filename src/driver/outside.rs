//! What the driver needs of others: the engine, the repository, and somebody to tell.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;

use super::Step;
use crate::docker::VolumeUser;
use crate::repo::{Repository, SnapshotRecord};
use crate::snapshot::BackupOptions;

/// What the driver asks. A failure is a sentence without a period.
#[async_trait]
pub trait Outside: Send + Sync + 'static {
    /// The containers that have a volume in their definition: one volume, or any. Asked while the engine waits for an answer.
    async fn users(&self, volume: Option<&str>) -> Result<Vec<VolumeUser>, String>;

    /// What the engine is called in snapshots.
    async fn engine_name(&self) -> Result<String, String>;

    /// The labels of all volumes of this driver that the engine knows. Never asked while the engine waits.
    async fn labels(&self) -> Result<BTreeMap<String, BTreeMap<String, String>>, String>;

    /// The repository, with its index loaded.
    async fn repository(&self) -> Result<Arc<Repository>, String>;

    /// The snapshot that is meant, if there is one. `engine` says whose, where several have a volume of that name; `snapshot` is an id, its
    /// beginning, or a time, as on the command line; none is the newest.
    async fn find(
        &self,
        volume: &str,
        snapshot: Option<&str>,
        engine: Option<&str>,
    ) -> Result<Arc<SnapshotRecord>, String>;

    /// How snapshots are taken.
    fn backup_options(&self) -> BackupOptions;

    /// Is told what is worth a line in a log.
    fn log(&self, text: &str);

    /// Is told how far something has come.
    fn reached(&self, _step: Step) {}
}

/// How the driver does what it does.
#[derive(Debug, Clone)]
pub struct DriverSettings {
    /// How long the trash is kept.
    pub trash_keep: SignedDuration,
    /// Under what name several hosts share the volumes, if they do.
    pub shared_as: Option<String>,
    /// Globs of names of volumes that may be destroyed (`guard.ephemeral`).
    pub ephemeral: Vec<String>,
    /// `guard.max_age`.
    pub max_age: Option<SignedDuration>,
    /// How long a mount waits for a lease that another host holds.
    pub lease_wait: Duration,
    /// How long a use that no running container accounts for is believed all the same. Between `Mount` and the moment at which the
    /// container counts as running, other volumes may have to be restored.
    pub quiet: Duration,
    /// The folder below which the engine looks for what is mounted, if it is not where the volumes are: in a plugin that the engine manages.
    pub publish: Option<std::path::PathBuf>,
    /// The state folder's path on the host, for a plugin that the engine manages: with it, voltool on the host finds the content.
    pub host_state_dir: Option<std::path::PathBuf>,
}

impl Default for DriverSettings {
    fn default() -> Self {
        DriverSettings {
            // Long enough for a week of holidays.
            trash_keep: SignedDuration::from_hours(24 * 7),
            shared_as: None,
            ephemeral: Vec::new(),
            max_age: None,
            // Less than engines wait: 120 s.
            lease_wait: Duration::from_secs(100),
            quiet: Duration::from_secs(5 * 60),
            publish: None,
            host_state_dir: None,
        }
    }
}
