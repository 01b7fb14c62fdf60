//! Mounting and unmounting: a container begins, or ends, to use a volume.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::backing::{self, Backing, Unmounted};
use super::create::in_one_line;
use super::{Driver, Volume, create, lock};

/// How long a mount may wait for content. Engines give up after 120 s, and then never say that the mount has ended; podman after 5 s.
const PATIENCE: Duration = Duration::from_secs(110);
/// How long the program that mounts what is elsewhere may take.
const HELPER: Duration = Duration::from_secs(60);
/// How long after the last use has ended what follows from that is done: a container that is started again at once finds everything as it was.
const LINGER: Duration = Duration::from_secs(2);

impl Driver {
    /// Sees to it that the content is there, notes that `id` uses it, and says where it is. The same id may come again: each counts.
    ///
    /// If the future is dropped, as when the engine does not wait any more, nobody uses it; what is being restored goes on.
    ///
    /// # Errors
    /// If there is no such volume, or its content cannot be had, or not in time.
    pub async fn mount(&self, name: &str, id: &str) -> Result<PathBuf, String> {
        let volume = self.volume(name).ok_or_else(|| format!("there is no volume {name}"))?;
        if let Some(trouble) = &volume.trouble {
            return Err(format!("volume {name} cannot be used: {trouble}"));
        }
        // Before anything else, so that nobody removes it meanwhile.
        let using = Use::begin(&volume, id)?;
        match tokio::time::timeout(PATIENCE, self.ready(&volume)).await {
            Ok(ready) => ready.inspect_err(|reason| volume.failed(reason))?,
            Err(_) => {
                let how_far = match volume.progress.now() {
                    Some((done, total)) if total > 0 => format!(" ({} %)", done.saturating_mul(100) / total),
                    _ => String::new(),
                };
                return Err(format!(
                    "volume {name} is still being restored{how_far}, which goes on: start the container again in a while"
                ));
            }
        }
        self.publish(&volume).inspect_err(|reason| volume.failed(reason))?;
        using.keep();
        volume.works();
        Ok(self.mountpoint(&volume))
    }

    /// Makes a volume ready to be used.
    async fn ready(&self, volume: &Arc<Volume>) -> Result<(), String> {
        self.take_lease(volume).await?;
        if volume.is_wanting() {
            // A task of its own: it goes on when nobody waits for it any more.
            let (driver, filled) = (self.clone(), volume.clone());
            let task = tokio::spawn(async move { driver.fill(&filled).await });
            task.await.map_err(|e| format!("the restore ended unexpectedly: {e}"))??;
        }
        self.mount_backing(volume).await?;
        let data = volume.data();
        if !data.is_dir() {
            return Err(format!(
                "volume {} has lost its folder {}; `voltool restore {} --to NAME` brings its newest snapshot back",
                volume.name,
                data.display(),
                volume.name
            ));
        }
        // What is elsewhere has its own owners.
        if volume.options.mount.is_none() {
            create::set_empty_root(&data, &volume.options).map_err(|e| format!("{}: {e}", data.display()))?;
        }
        Ok(())
    }

    /// Notes that a use has ended. An id that is not known is no error: engines send more than one, or none.
    ///
    /// # Errors
    /// If there is no such volume.
    pub async fn unmount(&self, name: &str, id: &str) -> Result<(), String> {
        let volume = self.volume(name).ok_or_else(|| format!("there is no volume {name}"))?;
        if lock(&volume.mounts).end(id) {
            self.rest(&volume);
        }
        Ok(())
    }

    /// After what seems to have been the last use: whatever follows from that, unless somebody uses it again.
    pub(super) fn rest(&self, volume: &Arc<Volume>) {
        let (driver, volume) = (self.clone(), volume.clone());
        tokio::spawn(async move {
            tokio::time::sleep(LINGER).await;
            let _one_at_a_time = volume.work.lock().await;
            // Counts can be wrong; the engine knows what runs.
            driver.compare_with_engine(&volume).await;
            if lock(&volume.mounts).is_empty() {
                driver.withdraw(&volume);
                driver.unmount_backing(&volume).await;
                driver.give_back(&volume).await;
                driver.look_again(&volume);
            }
        });
    }

    /// Mounts what is elsewhere, if it is; nothing happens if it is mounted already.
    async fn mount_backing(&self, volume: &Arc<Volume>) -> Result<(), String> {
        let Some(url) = volume.options.mount.clone() else { return Ok(()) };
        let _one_at_a_time = volume.work.lock().await;
        let at = volume.data();
        let job = tokio::task::spawn_blocking(move || Backing::new(url).mount(&at, HELPER));
        let mounted = job.await.map_err(|e| format!("the mount ended unexpectedly: {e}"))?;
        mounted.inspect(|()| volume.works()).map_err(|e| in_one_line(&e, e.hint()))
    }

    /// Unmounts what is elsewhere. The caller works on the volume alone, and nobody uses it.
    async fn unmount_backing(&self, volume: &Arc<Volume>) {
        if volume.options.mount.is_none() {
            return;
        }
        match unmount_blocking(volume).await {
            Ok(Unmounted::ByForce(why)) => {
                self.outside().log(&format!("volume {} was unmounted by force: {why}", volume.name));
            }
            Ok(_) => {}
            Err(reason) => {
                self.outside().log(&format!("volume {}: {reason}", volume.name));
                volume.failed(&reason);
            }
        }
    }
}

/// Unmounts whatever is mounted at a volume's root.
pub(super) async fn unmount_blocking(volume: &Arc<Volume>) -> Result<Unmounted, String> {
    let at = volume.data();
    let job = tokio::task::spawn_blocking(move || backing::unmount(&at));
    job.await.map_err(|e| format!("the unmount ended unexpectedly: {e}"))?.map_err(|e| in_one_line(&e, e.hint()))
}

/// A use that has begun, and ends with this unless it is kept.
struct Use<'a> {
    volume: &'a Volume,
    id: &'a str,
    kept: bool,
}

impl<'a> Use<'a> {
    fn begin(volume: &'a Volume, id: &'a str) -> Result<Use<'a>, String> {
        let begun = lock(&volume.mounts).begin(id);
        begun.map_err(|_| format!("volume {} is being removed", volume.name))?;
        Ok(Use { volume, id, kept: false })
    }

    fn keep(mut self) {
        self.kept = true;
        lock(&self.volume.mounts).keep(self.id);
    }
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        if !self.kept {
            lock(&self.volume.mounts).abandon(self.id);
        }
    }
}
