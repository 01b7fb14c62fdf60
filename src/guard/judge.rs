//! From effects to a plan: reads the volumes and asks the repository.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{Decision, Effects, Plan, Request};
use crate::docker::{Engine, EngineError};
use crate::inventory::Inventory;
use crate::repo::{RepoError, Repository};

/// What the user allows.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Globs of names of volumes that may go (`guard.ephemeral`).
    pub ephemeral: Vec<String>,
    /// A volume that differs from a snapshot younger than this may go (`guard.max_age`).
    pub max_age: Option<SignedDuration>,
    /// Volumes that somebody gave up by their full names (`--lose`).
    pub lose: BTreeSet<String>,
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
        let _ = (inventory, last_used, Effects::default());
        Ok(Plan {
            command: request.command.clone(),
            verdict: Decision::Refuse,
            volumes: Vec::new(),
            containers: Vec::new(),
            notes: Vec::new(),
            request: request.clone(),
            engine: self.engine_name.clone(),
            time: Timestamp::now(),
        })
    }
}
