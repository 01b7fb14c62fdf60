//! Where engines look for volumes that is not where they are kept.
//!
//! A plugin that the engine manages has a file system of its own, and the engine sees of it only what is mounted below one folder
//! (`propagatedMount`). So while a volume is used, its content is bound to `<folder>/NAME`, and that is what engines are told.
//!
//! What is mounted there outlives the plugin's process: the kernel's table of mounts says what there is.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, mount_bind, unmount};

use super::{Driver, Volume, lock};
use crate::mounts::mounted_at;

impl Driver {
    /// Where engines are told that the content is.
    pub(super) fn mountpoint(&self, volume: &Volume) -> PathBuf {
        self.published(volume).unwrap_or_else(|| volume.data())
    }

    fn published(&self, volume: &Volume) -> Option<PathBuf> {
        self.shared.settings.publish.as_ref().map(|folder| folder.join(&volume.name))
    }

    /// Lets engines see the content, if they do not see it anyway. Somebody uses the volume by now.
    pub(super) fn publish(&self, volume: &Volume) -> Result<(), String> {
        let Some(place) = self.published(volume) else { return Ok(()) };
        let _one_at_a_time = lock(&volume.publishing);
        bind(&volume.data(), &place)
            .map_err(|e| format!("volume {} cannot be mounted at {}: {e}", volume.name, place.display()))
    }

    /// Takes that back, unless somebody uses the volume.
    pub(super) fn withdraw(&self, volume: &Volume) {
        let Some(place) = self.published(volume) else { return };
        let _one_at_a_time = lock(&volume.publishing);
        // Whoever begins to use it now, publishes it afterwards.
        if !lock(&volume.mounts).is_empty() {
            return;
        }
        if let Err(e) = unbind(&place) {
            self.outside().log(&format!("volume {}: cannot unmount {}: {e}", volume.name, place.display()));
        }
    }
}

fn bind(content: &Path, place: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(place)?;
    if mounted_at(place)?.is_some() {
        let (there, wanted) = (std::fs::metadata(place)?, std::fs::metadata(content)?);
        if (there.dev(), there.ino()) == (wanted.dev(), wanted.ino()) {
            return Ok(());
        }
        // Of an earlier volume of that name.
        unmount(place, UnmountFlags::DETACH)?;
    }
    Ok(mount_bind(content, place)?)
}

fn unbind(place: &Path) -> io::Result<()> {
    while mounted_at(place)?.is_some() {
        // Whoever still reads in it, such as a backup, finishes.
        unmount(place, UnmountFlags::DETACH)?;
    }
    match std::fs::remove_dir(place) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Where the content of a volume is below a state folder: for those who know that folder by another path.
pub(super) fn content_below(state_dir: &Path, name: &str) -> PathBuf {
    state_dir.join("volumes").join(name).join(super::files::DATA)
}
