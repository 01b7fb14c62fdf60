//! What voltool's own commands do to what engines know: an engine is made to forget a volume, and its content stays.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::files::{Removed, VolumeFile};
use super::{Driver, Volume, lock, name};

/// What is in the trash, as voltool's own commands are told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Discarded {
    /// Its name in the trash.
    pub trash: String,
    /// The volume's name.
    pub volume: String,
    /// How it got there.
    pub removed: Removed,
}

impl Driver {
    /// Lets an engine forget a volume: its next `Remove` succeeds, the volume is not there any more for engines, and its folder stays as it is.
    ///
    /// # Errors
    /// If there is no such volume, or it is in use.
    pub fn detach(&self, name: &str) -> Result<(), String> {
        let volume = self.volume(name).ok_or_else(|| format!("there is no volume {name}"))?;
        if !lock(&volume.mounts).is_empty() {
            return Err(format!("volume {name} is in use"));
        }
        volume.change(|file| file.detached = true).map_err(|e| e.to_string())
    }

    /// Takes that back, also when the engine has forgotten it already: the volume is there again.
    ///
    /// # Errors
    /// If nothing is kept under that name.
    pub async fn attach(&self, name: &str) -> Result<(), String> {
        let _one_at_a_time = self.shared.naming.lock().await;
        let volume = match self.volume(name) {
            Some(volume) => volume,
            None => {
                name::validate_name(name).map_err(|e| e.to_string())?;
                let folder = self.shared.layout.folder(name);
                VolumeFile::read(&folder).map_err(|_| format!("nothing is kept under the name {name}"))?;
                let volume = Arc::new(Volume::open(name, folder, self.outside()));
                self.volumes_mut().insert(name.to_owned(), volume.clone());
                volume
            }
        };
        volume.change(|file| file.detached = false).map_err(|e| e.to_string())
    }

    /// Refuses the next `Remove`, whatever is in the volume. An engine whose `rm -f` is refused forgets the labels, options and references
    /// that it had, which may be wrong: it takes new ones only then.
    /// `held` takes it back.
    ///
    /// # Errors
    /// If there is no such volume.
    pub fn hold(&self, name: &str, held: bool) -> Result<(), String> {
        let volume = self.volume(name).ok_or_else(|| format!("there is no volume {name}"))?;
        volume.held.store(held, Ordering::SeqCst);
        Ok(())
    }

    /// What is in the trash and has to be kept for a while, oldest first.
    pub fn discarded(&self) -> Vec<Discarded> {
        let discarded = self.shared.layout.discarded().unwrap_or_default();
        discarded.into_iter().filter_map(|(trash, folder)| kept(trash, &folder)).collect()
    }
}

fn kept(trash: String, folder: &Path) -> Option<Discarded> {
    let file = VolumeFile::read(folder).ok()?;
    let removed = file.removed?;
    removed.keep_until?;
    Some(Discarded { trash, volume: file.name, removed })
}
