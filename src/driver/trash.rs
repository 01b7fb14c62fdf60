//! What was removed: deleted if it is in a snapshot, kept for a while if not, and brought back by `voltool undo`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::files::{VolumeFile, data};
use super::quota::Quota;
use super::{Driver, Step, Volume, name};
use crate::guard::undo::Notes;
use crate::inventory::OWN_DRIVER;

/// Content that is being deleted.
const GONE: &str = "_gone";

impl Driver {
    /// Deletes what is in the trash and may go: what is in a snapshot, and what has been kept long enough. Blocks.
    pub fn empty_trash(&self) {
        let discarded = match self.shared.layout.discarded() {
            Ok(discarded) => discarded,
            Err(e) => return self.outside().log(&e.to_string()),
        };
        for (_, folder) in discarded {
            // What cannot be understood is kept.
            let Ok(VolumeFile { removed: Some(removed), options, .. }) = VolumeFile::read(&folder) else { continue };
            if removed.keep_until.is_some_and(|until| until > Timestamp::now()) {
                continue;
            }
            if let Err(e) = self.delete(&folder, &options) {
                self.outside().log(&format!("cannot delete {}: {e}", folder.display()));
            }
        }
    }

    /// Deletes a removed volume. Its content is renamed first: who brings it back has all of it, or finds that it is gone.
    fn delete(&self, folder: &Path, options: &BTreeMap<String, String>) -> std::io::Result<()> {
        let (data, gone) = (data(folder), folder.join(GONE));
        // Content that is elsewhere is not deleted.
        let own = !options.contains_key("mount");
        if own && data.exists() {
            let _nobody_brings_it_back = self.shared.naming.blocking_lock();
            std::fs::rename(&data, &gone)?;
        }
        if data.exists() || gone.exists() {
            self.outside().reached(Step::TrashBegun);
        }
        // The file last: until then the next start knows what this is.
        delete_content(if own { &gone } else { &data }, options)?;
        std::fs::remove_dir_all(folder)
    }

    /// Puts the notes right that an earlier daemon did not finish: what is still there was not removed, what is not there was.
    pub(super) fn settle_notes(&self) {
        let notes = Notes::of(&self.shared.state_dir);
        let Ok((removals, _)) = notes.list() else { return };
        let discarded = self.shared.layout.discarded().unwrap_or_default();
        for mut note in removals.into_iter().filter(|note| !note.done) {
            let [volume] = note.volumes.as_mut_slice() else { continue };
            if volume.definition.driver != OWN_DRIVER || !note.containers.is_empty() {
                continue;
            }
            let settled = if self.volume(&volume.definition.name).is_some() {
                notes.forget(&note.id)
            } else {
                let own = |folder: &&(String, std::path::PathBuf)| {
                    VolumeFile::read(&folder.1).ok().and_then(|file| file.removed).is_some_and(|r| r.note == note.id)
                };
                let kept = discarded.iter().find(own);
                let keeps = |file: VolumeFile| file.removed.is_some_and(|removed| removed.keep_until.is_some());
                volume.trash =
                    kept.filter(|(_, folder)| VolumeFile::read(folder).is_ok_and(keeps)).map(|(name, _)| name.clone());
                note.done = true;
                notes.write(&note)
            };
            if let Err(e) = settled {
                self.outside().log(&e.to_string());
            }
        }
    }

    /// Brings a volume back from the trash under its name, with all that is in it.
    ///
    /// # Errors
    /// If it is not in the trash any more, or there is a volume of its name again.
    pub async fn bring_back(&self, discarded: &str) -> Result<Arc<Volume>, String> {
        let _one_at_a_time = self.shared.naming.lock().await;
        let found = self.shared.layout.discarded().map_err(|e| e.to_string())?;
        let folder = found.into_iter().find(|(name, _)| name == discarded).map(|(_, folder)| folder);
        let folder = folder.ok_or_else(|| format!("{discarded} is not in the trash any more"))?;
        let file = VolumeFile::read(&folder).map_err(|e| e.to_string())?;
        let volume = file.name.clone();
        if folder.join(GONE).exists() {
            return Err(format!("{discarded} was kept for as long as the trash is kept, and is being deleted"));
        }
        name::validate_name(&volume).map_err(|e| e.to_string())?;
        if self.volume(&volume).is_some() {
            return Err(format!("there is a volume {volume} again; remove it first, or restore into another one"));
        }
        let folder = self.shared.layout.establish(&folder, &volume).map_err(|e| e.to_string())?;
        // Opening it takes back that it was removed.
        let volume = Arc::new(Volume::open(&volume, folder, self.outside()));
        self.volumes_mut().insert(volume.name.clone(), volume.clone());
        self.outside().log(&format!("volume {} is back from the trash", volume.name));
        Ok(volume)
    }
}

/// Lifts the limit of a folder that is going to be deleted, if it has one: that of a project would outlive it. If it cannot be lifted, the content
/// goes all the same.
pub fn lift_limit(folder: &Path) {
    let _ = Quota::find(folder).and_then(|quota| quota.remove(folder));
}

/// Deletes a volume's content, and the limit that it had.
fn delete_content(data: &Path, options: &BTreeMap<String, String>) -> std::io::Result<()> {
    if options.contains_key("size") && data.exists() {
        lift_limit(data);
    }
    let deleted = match options.contains_key("mount") {
        // An empty folder, or something is mounted there after all.
        true => std::fs::remove_dir(data),
        false => std::fs::remove_dir_all(data),
    };
    match deleted {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
