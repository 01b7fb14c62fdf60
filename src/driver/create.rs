//! Making a volume.

use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::sync::Arc;

use super::backing::Backing;
use super::files::{self, VolumeFile, Wanted};
use super::quota::{Quota, QuotaError};
use super::{Driver, Step, Volume, VolumeOptions, name};

/// The mode of a fresh volume's root if nothing else is asked for: as in the engine's own driver.
const MODE: u32 = 0o755;

impl Driver {
    /// Makes a volume. One that is there already stays as it is, whatever its options: the engine asks again when an answer got lost.
    ///
    /// Returns before anything is restored: with `from=` that begins at once, and mounting waits for it.
    ///
    /// # Errors
    /// If the name or the options are wrong, what is to be restored is not there, or the disk refuses. Then there is no volume.
    pub async fn create(&self, name: &str, options: BTreeMap<String, String>) -> Result<Arc<Volume>, String> {
        name::validate_name(name).map_err(|e| e.to_string())?;
        let parsed = VolumeOptions::parse(&options).map_err(|e| e.in_one_line())?;
        if let Some(volume) = self.volume(name) {
            return Ok(volume);
        }
        if let Some(url) = &parsed.mount {
            Backing::new(url.clone()).check().map_err(|e| in_one_line(&e, e.hint()))?;
        }
        // The repository may take its time; who needs nothing of it does not wait for it.
        let wanted = self.wanted(&parsed).await?;
        let one_at_a_time = self.shared.naming.lock().await;
        if let Some(volume) = self.volume(name) {
            return Ok(volume);
        }
        // The tools behind a limit take a while.
        let (driver, new) = (self.clone(), name.to_owned());
        let made = tokio::task::spawn_blocking(move || driver.make(&new, options, parsed, wanted)).await;
        let volume = made
            .unwrap_or_else(|e| Err(format!("it ended unexpectedly: {e}")))
            .map_err(|e| format!("cannot make volume {name}: {e}"))?;
        drop(one_at_a_time);
        if volume.options.begins_at_once() && volume.is_wanting() {
            self.fill_in_background(&volume);
        }
        self.learn_soon();
        self.outside().log(&format!("made volume {name}"));
        Ok(volume)
    }

    /// What has to be in it before it is mounted.
    async fn wanted(&self, options: &VolumeOptions) -> Result<Option<Wanted>, String> {
        let from = match &options.from {
            None => None,
            Some(origin) => {
                let engine = options.from_engine.as_deref();
                let record = self.outside().find(&origin.volume, origin.snapshot.as_deref(), engine).await?;
                Some(Wanted::Snapshot {
                    engine: record.engine.clone(),
                    volume: record.volume.clone(),
                    id: record.id.clone(),
                })
            }
        };
        // Hosts that share volumes begin with what the others have left.
        let follows = options.on_empty_restore || self.sharing(options).is_some();
        Ok(if follows { Some(Wanted::Newest { otherwise: from.map(Box::new) }) } else { from })
    }

    fn make(
        &self,
        name: &str,
        given: BTreeMap<String, String>,
        options: VolumeOptions,
        wanted: Option<Wanted>,
    ) -> Result<Arc<Volume>, String> {
        let layout = &self.shared.layout;
        let begun = layout.begin().map_err(|e| e.to_string())?;
        let made = (|| {
            self.outside().reached(Step::CreateBegun);
            // Content that is restored arrives whole, under this name.
            if wanted.is_none() {
                make_root(&files::data(&begun), &options)?;
            }
            VolumeFile::new(name, given, wanted).write(&begun).map_err(|e| e.to_string())?;
            self.outside().reached(Step::CreateWritten);
            layout.establish(&begun, name).map_err(|e| e.to_string())
        })();
        let folder = made.inspect_err(|_| drop(std::fs::remove_dir_all(&begun)))?;
        let volume = Arc::new(Volume::open(name, folder, self.outside()));
        self.volumes_mut().insert(name.to_owned(), volume.clone());
        self.outside().reached(Step::CreateNamed);
        Ok(volume)
    }
}

/// Makes the root of a volume, with the limit, owner and mode that were asked for. Blocks.
pub(super) fn make_root(path: &Path, options: &VolumeOptions) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    std::fs::DirBuilder::new().mode(0o700).create(path).map_err(failed)?;
    if let Some(size) = options.size {
        limit(path, size).map_err(|e| in_one_line(&e, e.hint()))?;
    }
    set_root(path, options).map_err(failed)
}

/// Limits what an empty folder may hold. Blocks.
///
/// # Errors
/// If its file system has no such limits, or the tools for them are not there.
pub fn limit(path: &Path, size: u64) -> Result<(), QuotaError> {
    let quota = Quota::find(path)?;
    quota.prepare(path)?;
    quota.limit(path, size)
}

/// All that is to be said, for somebody who gets one line from the engine.
pub(super) fn in_one_line(error: &dyn std::fmt::Display, hint: Option<String>) -> String {
    hint.map_or_else(|| error.to_string(), |hint| format!("{error}; {hint}"))
}

/// Gives the root of an empty volume the owner and mode that were asked for, if any were: an engine that finds a folder in the image in
/// that place gives an empty volume the owner and mode of that folder, after it has mounted it and before it starts the container.
pub(super) fn set_empty_root(path: &Path, options: &VolumeOptions) -> std::io::Result<()> {
    let asked = options.uid.is_some() || options.gid.is_some() || options.mode.is_some();
    if asked && std::fs::read_dir(path)?.next().is_none() {
        return set_root(path, options);
    }
    Ok(())
}

fn set_root(path: &Path, options: &VolumeOptions) -> std::io::Result<()> {
    if options.uid.is_some() || options.gid.is_some() {
        chown(path, options.uid, options.gid)?;
    }
    // Not left to the umask, nor to chown, which takes bits away.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(options.mode.unwrap_or(MODE)))
}
