//! What can go wrong with a repository.

use crate::store::StoreError;

use super::ChunkId;
use super::lease::Holder;

/// A failure of the repository engine. Each variant names the object that it is about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepoError {
    /// The storage failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no `voltool.json` at that place.
    #[error("no repository at {url}")]
    NoRepository {
        /// Where it was looked for.
        url: String,
    },
    /// `init` found a repository already.
    #[error("{url} already holds a repository ({id})")]
    AlreadyExists {
        /// Where it is.
        url: String,
        /// Its id.
        id: String,
    },
    /// The repository needs a newer voltool.
    #[error("the repository at {url} needs a newer voltool: {what}")]
    TooNew {
        /// Where it is.
        url: String,
        /// The format or the feature that this version does not know.
        what: String,
    },
    /// No identity or passphrase was given, and the repository is encrypted.
    #[error("the repository at {url} is encrypted, and no identity or passphrase was given")]
    NoKey {
        /// Where it is.
        url: String,
    },
    /// None of the identities or passphrases opens the repository.
    #[error("none of the given keys opens the repository at {url}")]
    WrongKey {
        /// Where it is.
        url: String,
    },
    /// An object is not what was written.
    #[error("{key} is damaged: {reason}")]
    Damaged {
        /// The object's key.
        key: String,
        /// How that shows.
        reason: String,
    },
    /// A chunk is in no pack that can be read.
    #[error("chunk {id} is missing: {reason}")]
    MissingChunk {
        /// The chunk.
        id: ChunkId,
        /// What was tried.
        reason: String,
    },
    /// Another run holds this source.
    #[error("another run is backing up {what}")]
    Busy {
        /// The source.
        what: String,
    },
    /// There is no such snapshot, or more than one.
    #[error("{0}")]
    NoSnapshot(String),
    /// A collector kept fencing this writer off.
    #[error("a collector fenced this backup off {0} times in a row")]
    Fenced(u32),
    /// Another host has taken over the lease of a shared volume; or it was released, or its objects were removed.
    #[error("the lease of volume {volume} (epoch {epoch}) is lost: {}", lost_to(to.as_deref()))]
    LeaseLost {
        /// The volume.
        volume: String,
        /// The epoch that is over.
        epoch: u64,
        /// Who holds it now, if anybody.
        to: Option<Box<Holder>>,
    },
    /// Several hosts kept asking for a lease at the same time.
    #[error("other hosts keep asking for the lease of volume {volume} at the same time")]
    LeaseContended {
        /// The volume.
        volume: String,
    },
    /// A backup without a lease, of a volume whose snapshots are made under one.
    #[error("volume {volume} is shared between hosts: only the host that holds its lease can back it up")]
    LeaseRequired {
        /// The volume.
        volume: String,
    },
    /// A local file (cache, state) could not be used.
    #[error("cannot {action} {path}: {source}")]
    Local {
        /// The verb in plain words.
        action: &'static str,
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The work was cancelled.
    #[error("interrupted")]
    Interrupted,
    /// Encryption or compression failed; never expected.
    #[error("{0}")]
    Codec(String),
}

fn lost_to(holder: Option<&Holder>) -> String {
    match holder {
        Some(holder) => format!("it is now that of {holder}"),
        None => "it was released or removed".to_owned(),
    }
}

impl RepoError {
    /// An object that is not what was written.
    pub fn damaged(key: impl Into<String>, reason: impl ToString) -> Self {
        RepoError::Damaged { key: key.into(), reason: reason.to_string() }
    }

    /// Whether one object is damaged, cut off or gone, while the storage and everything else may be well: what does not need that object
    /// goes on.
    pub fn is_about_one_object(&self) -> bool {
        use crate::store::ErrorKind::{Integrity, NotFound};
        match self {
            RepoError::Damaged { .. } | RepoError::MissingChunk { .. } => true,
            RepoError::Store(e) => matches!(e.kind, NotFound | Integrity),
            _ => false,
        }
    }

    /// A local file that could not be used.
    pub fn local(action: &'static str, path: &std::path::Path, source: std::io::Error) -> Self {
        RepoError::Local { action, path: path.display().to_string(), source }
    }
}

/// A `Result` of the repository engine.
pub type Result<T> = std::result::Result<T, RepoError>;
