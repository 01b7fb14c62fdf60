//! What can be said of one volume, and of the whole.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Request;
use crate::inventory::Kind;

/// Whether a command may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Nothing is lost by it.
    Allow,
    /// Something would be.
    Refuse,
}

/// What would happen to a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The engine would remove it.
    Destroy,
    /// No container would refer to it any more. An anonymous volume is then one prune away from being gone, and nothing tells what
    /// it was.
    Orphan,
}

/// What can be said of a volume's content. In the order from harmless to not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// There is nothing in it.
    Empty,
    /// Somebody declared that it may go: the label `voltool.ephemeral=true`, or a pattern in the configuration.
    Ephemeral,
    /// Its content is in a committed snapshot, or is not kept by the engine in the first place.
    Safe,
    /// It differs from its newest snapshot, which is younger than `guard.max_age`, as the configuration allows.
    StaleOk,
    /// Somebody gave it up by its name (`--lose`).
    GivenUp,
    /// Its content is in no snapshot.
    AtRisk,
    /// Nobody can tell: counts as at risk.
    Unknown,
}

impl Verdict {
    /// Whether a volume of which this is said may be removed.
    pub fn is_fine(self) -> bool {
        self < Verdict::AtRisk
    }

    /// As people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Empty => "empty",
            Verdict::Ephemeral => "ephemeral",
            Verdict::Safe => "safe",
            Verdict::StaleOk => "stale-ok",
            Verdict::GivenUp => "given-up",
            Verdict::AtRisk => "at-risk",
            Verdict::Unknown => "unknown",
        }
    }
}

/// What is known of one volume that a command would take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedVolume {
    /// Its name.
    pub name: String,
    /// Whether somebody chose that name.
    pub kind: Kind,
    /// What would happen to it.
    pub action: Action,
    /// Whether that is certain. It is not where the engine's own bookkeeping, which cannot be seen, decides.
    pub certain: bool,
    /// What can be said of its content.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
    /// The apparent size of its files in bytes; absent if it cannot be read.
    pub size_bytes: Option<u64>,
    /// Its regular files; absent if it cannot be read.
    pub files: Option<u64>,
    /// The id of the snapshot that it was compared with.
    pub newest_snapshot: Option<String>,
    /// When that snapshot was taken.
    pub newest_snapshot_time: Option<Timestamp>,
    /// Objects that differ from that snapshot; absent if that is not known.
    pub changed_files: Option<u64>,
    /// Their bytes.
    pub changed_bytes: Option<u64>,
    /// The running container that could still write to it.
    pub written_by: Option<String>,
    /// Whether that container is all that stands in the way: as it is now, the content is safe.
    pub fine_when_stopped: bool,
    /// Who used it last: a container that is there, or that the catalog remembers.
    pub last_used_by: Option<String>,
}

impl PlannedVolume {
    /// Whether it stands in the way of the command.
    ///
    /// What a named volume loses when its last container goes is nothing: its name stays, and prune is guarded too.
    pub fn refuses(&self) -> bool {
        !self.verdict.is_fine() && (self.action == Action::Destroy || self.kind == Kind::Anonymous)
    }
}

/// A container that a command would remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedContainer {
    /// Its full id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether it is there to hold volumes.
    pub data_only: bool,
    /// Whether it runs now.
    pub running: bool,
}

/// What a command would do, and whether it may.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The command, as a person would type it.
    pub command: String,
    /// Whether it may go on.
    pub verdict: Decision,
    /// Every volume that it would destroy or orphan.
    pub volumes: Vec<PlannedVolume>,
    /// Every container that it would remove.
    pub containers: Vec<PlannedContainer>,
    /// What the engine would refuse by itself, in words: the rest of the command may still be done.
    pub notes: Vec<String>,
    /// What was asked for.
    pub request: Request,
    /// The engine's name.
    pub engine: String,
    /// When this was worked out.
    pub time: Timestamp,
}

impl Plan {
    /// Whether the command may go on.
    pub fn allows(&self) -> bool {
        self.verdict == Decision::Allow
    }

    /// The volumes that stand in its way.
    pub fn refusing(&self) -> impl Iterator<Item = &PlannedVolume> {
        self.volumes.iter().filter(|volume| volume.refuses())
    }

    /// The volumes that it would destroy.
    pub fn destroyed(&self) -> impl Iterator<Item = &PlannedVolume> {
        self.volumes.iter().filter(|volume| volume.action == Action::Destroy)
    }
}
