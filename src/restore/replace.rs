//! Putting a restored folder in the place of an old one, so that a failure at any point leaves the old one as it was.
//!
//! ```text
//! <name>                          the old content
//! <name>.voltool-restore-<ulid>   the new content, until it is complete and verified
//! ```
//!
//! The two are exchanged in one step of the file system. Then the old content stands under the second name, and is removed only when the
//! caller says that the new one is proved.

use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, RenameFlags};

use crate::repo::{RepoError, Result};

const MARK: &str = ".voltool-restore-";

/// A folder beside another, to be filled and then put in its place. Removed when it is dropped before that.
#[derive(Debug)]
pub struct Staging {
    target: PathBuf,
    path: PathBuf,
    armed: bool,
}

/// The old content, after the exchange.
#[derive(Debug)]
#[must_use = "the old content stays on the disk until it is discarded"]
pub struct Replaced {
    old: PathBuf,
}

impl Staging {
    /// Makes an empty folder beside `target`. Fails if `target` is a mount point: then there is no beside on the same file system.
    pub fn beside(target: &Path) -> Result<Staging> {
        let local = |e| RepoError::local("prepare", target, e);
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(local(std::io::Error::other("it has no parent folder")));
        };
        if is_mount_point(target).map_err(local)? {
            let why = "it is a mount point, so nothing can be exchanged with it";
            return Err(local(std::io::Error::other(why)));
        }
        let mut staged = name.to_owned();
        staged.push(format!("{MARK}{}", ulid::Ulid::generate()));
        let path = parent.join(staged);
        rustix::fs::mkdir(&path, Mode::RWXU).map_err(|e| RepoError::local("create", &path, e.into()))?;
        Ok(Staging { target: target.to_owned(), path, armed: true })
    }

    /// The folder to fill.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes sure that the new content is on the disk, and exchanges it with the old.
    pub fn exchange(mut self) -> Result<Replaced> {
        let local = |e: rustix::io::Errno| RepoError::local("replace", &self.target, e.into());
        sync(&self.path)?;
        rustix::fs::renameat_with(rustix::fs::CWD, &self.path, rustix::fs::CWD, &self.target, RenameFlags::EXCHANGE)
            .map_err(local)?;
        self.armed = false;
        if let Some(parent) = self.target.parent() {
            sync(parent)?;
        }
        Ok(Replaced { old: self.path.clone() })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.armed {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

impl Replaced {
    /// Where the old content is now.
    pub fn old(&self) -> &Path {
        &self.old
    }

    /// Removes the old content.
    pub fn discard(self) -> Result<()> {
        std::fs::remove_dir_all(&self.old).map_err(|e| RepoError::local("remove", &self.old, e))
    }
}

/// Sees to it that what was written to the file system of `path` is on the disk.
///
/// # Errors
/// If the system says that it is not.
pub fn sync(path: &Path) -> Result<()> {
    let local = |e: rustix::io::Errno| RepoError::local("sync", path, e.into());
    let fd =
        rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(local)?;
    rustix::fs::syncfs(&fd).map_err(local)
}

/// Whether a folder is where a file system is mounted: it is on another device than its parent, or the kernel lists it.
fn is_mount_point(path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let above = path.parent().unwrap_or(Path::new("/"));
    if std::fs::metadata(path)?.dev() != std::fs::metadata(above)?.dev() {
        return Ok(true);
    }
    // A bind mount can be on the same device.
    Ok(crate::mounts::mounted_at(path)?.is_some())
}

/// Removes everything in a folder that was filled where it is and did not become whole.
pub fn clear(root: &Path) -> Result<()> {
    let local = |e| RepoError::local("clear", root, e);
    for entry in std::fs::read_dir(root).map_err(local)? {
        let entry = entry.map_err(local)?;
        let is_dir = entry.file_type().map_err(local)?.is_dir();
        if is_dir { std::fs::remove_dir_all(entry.path()) } else { std::fs::remove_file(entry.path()) }
            .map_err(local)?;
    }
    Ok(())
}

/// Gives the new folder the owner and mode of the old one.
pub fn copy_root_attributes(old: &Path, new: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let local = |e| RepoError::local("prepare", new, e);
    let meta = std::fs::metadata(old).map_err(local)?;
    // Who is not root keeps what is theirs.
    let _ = std::os::unix::fs::chown(new, Some(meta.uid()), Some(meta.gid()));
    std::fs::set_permissions(new, meta.permissions()).map_err(local)
}

/// Whether a folder has anything in it.
pub fn is_empty(path: &Path) -> Result<bool> {
    let mut dir = std::fs::read_dir(path).map_err(|e| RepoError::local("read", path, e))?;
    Ok(dir.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_staging_that_is_given_up_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("data");
        std::fs::create_dir(&target).unwrap();
        std::fs::write(target.join("old"), b"1").unwrap();
        let staging = Staging::beside(&target).unwrap();
        std::fs::write(staging.path().join("new"), b"2").unwrap();
        drop(staging);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(target.join("old").exists());
    }

    #[test]
    fn the_exchange_keeps_the_old_until_it_is_discarded() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("data");
        std::fs::create_dir(&target).unwrap();
        std::fs::write(target.join("old"), b"1").unwrap();
        let staging = Staging::beside(&target).unwrap();
        std::fs::write(staging.path().join("new"), b"2").unwrap();
        let replaced = staging.exchange().unwrap();
        assert!(target.join("new").exists() && replaced.old().join("old").exists());
        replaced.discard().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_mount_point_is_recognised() {
        assert!(is_mount_point(Path::new("/proc")).unwrap());
        assert!(!is_mount_point(tempfile::tempdir().unwrap().path()).unwrap());
    }
}
