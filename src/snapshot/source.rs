//! What is backed up, and the lock that keeps two runs from doing it at once.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::repo::cache::create_private_dir;
use crate::repo::{DockerContext, HeldLease, RepoError, Repository, Result, SourceKind};

/// A volume, or a folder.
#[derive(Debug, Clone)]
pub struct Source {
    /// The engine's name: with the volume's name, the identity of what is backed up. Never the name of the container that voltool
    /// happens to run in.
    pub engine: String,
    /// The volume's name, or the name given to a folder.
    pub name: String,
    /// Which of both it is.
    pub kind: SourceKind,
    /// Where its content can be read.
    pub root: PathBuf,
    /// What rebuilds its surroundings.
    pub docker: Option<DockerContext>,
    /// The lease under which it is backed up, if it is shared between hosts.
    pub lease: Option<HeldLease>,
}

impl Source {
    /// Where the last listing of this source is kept.
    pub fn state_path(&self, repo: &Repository, state_dir: &Path) -> PathBuf {
        self.folder(repo, state_dir).join(format!("{}.state", self.key(repo)))
    }

    fn folder(&self, repo: &Repository, state_dir: &Path) -> PathBuf {
        state_dir.join("sources").join(repo.id())
    }

    fn key(&self, repo: &Repository) -> String {
        repo.keys().source_name(&self.engine, &self.name)
    }

    /// Takes the lock of this source, or fails at once with [`RepoError::Busy`]. The kernel gives it back when the process ends, however
    /// it ends, so no lock is ever stale.
    pub fn lock(&self, repo: &Repository, state_dir: &Path) -> Result<SourceLock> {
        let folder = self.folder(repo, state_dir);
        create_private_dir(&folder)?;
        let path = folder.join(format!("{}.lock", self.key(repo)));
        let local = |e| RepoError::local("open", &path, e);
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(local)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(SourceLock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(RepoError::Busy { what: self.name.clone() }),
            Err(e) => Err(local(e.into())),
        }
    }
}

/// Held while a source is backed up.
#[derive(Debug)]
pub struct SourceLock {
    _file: File,
}
