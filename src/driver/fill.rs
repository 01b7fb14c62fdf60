//! Restoring a snapshot into a volume that nobody has mounted yet.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::files::{self, Wanted};
use super::{Driver, Step, Volume, VolumeOptions, create, lock};
use crate::repo::{Repository, SnapshotRecord};
use crate::restore::{self, OwnerMap, Selection};
use crate::snapshot;

impl VolumeOptions {
    /// Whether the content is restored as soon as the volume is made, rather than when it is mounted for the first time.
    pub(super) fn begins_at_once(&self) -> bool {
        self.from.is_some() && !self.on_empty_restore
    }
}

impl Driver {
    /// Begins to fill the volume, and does not wait for it. What goes wrong is in its status.
    pub(super) fn fill_in_background(&self, volume: &Arc<Volume>) {
        let (driver, volume) = (self.clone(), volume.clone());
        tokio::spawn(async move {
            if let Err(reason) = driver.fill(&volume).await {
                driver.outside().log(&format!("volume {}: {reason}", volume.name));
            }
        });
    }

    /// Goes on with what an earlier daemon has left half done: what is restored without being asked for is restored now, one after the other;
    /// of anything else, what had arrived goes.
    pub async fn resume(&self) {
        for volume in self.all() {
            if !volume.is_wanting() || volume.trouble.is_some() {
                continue;
            }
            if volume.options.begins_at_once() {
                if let Err(reason) = self.fill(&volume).await {
                    self.outside().log(&format!("volume {}: {reason}", volume.name));
                }
                continue;
            }
            let _one_at_a_time = volume.work.lock().await;
            if volume.is_wanting() {
                let filling = files::filling(&volume.folder);
                // What cannot be removed now is removed when it is restored.
                let _ = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(filling)).await;
            }
        }
    }

    /// Sees to it that the content that is wanted is there. Only one does it at a time; the others find it done.
    ///
    /// # Errors
    /// If there is nothing to restore from, or not all of it can be read back: an application must not begin on half of its data.
    pub(super) async fn fill(&self, volume: &Arc<Volume>) -> Result<(), String> {
        let _one_at_a_time = volume.work.lock().await;
        let wanted = lock(&volume.file).wanted.clone();
        let Some(wanted) = wanted else { return Ok(()) };
        volume.progress.begin();
        let filled = self.fill_with(volume, &wanted).await;
        volume.progress.end();
        match &filled {
            Ok(()) => volume.works(),
            Err(reason) => volume.failed(reason),
        }
        filled
    }

    /// Lets a volume begin empty that was to begin with a snapshot: somebody else is going to fill it.
    ///
    /// # Errors
    /// If there is no such volume, somebody uses it, or the disk refuses.
    pub async fn begin_empty(&self, name: &str) -> Result<(), String> {
        let volume = self.volume(name).ok_or_else(|| format!("there is no volume {name}"))?;
        let _one_at_a_time = volume.work.lock().await;
        if !volume.is_wanting() {
            return Ok(());
        }
        if !lock(&volume.mounts).is_empty() {
            return Err(format!("volume {name} is being mounted"));
        }
        create::make_root(&volume.data(), &volume.options)?;
        volume.change(|file| file.wanted = None).map_err(|e| e.to_string())
    }

    async fn fill_with(&self, volume: &Arc<Volume>, wanted: &Wanted) -> Result<(), String> {
        let repo = self.outside().repository().await?;
        let record = self.record_of(volume, wanted, &repo).await?;
        let (driver, volume_, repo_, record_) = (self.clone(), volume.clone(), repo.clone(), record.clone());
        let job = tokio::task::spawn_blocking(move || driver.fill_blocking(&volume_, &repo_, record_.as_deref()));
        job.await.map_err(|e| format!("the restore ended unexpectedly: {e}"))??;
        // What was shifted is not what the snapshot lists.
        let as_listed = volume.options.uid_map == OwnerMap::default();
        if let Some(record) = record.filter(|record| as_listed && record.volume == volume.name) {
            self.adopt(volume, &repo, &record).await;
        }
        Ok(())
    }

    /// The snapshot to begin with; `None` if the volume begins empty.
    async fn record_of(
        &self,
        volume: &Volume,
        wanted: &Wanted,
        repo: &Arc<Repository>,
    ) -> Result<Option<Arc<SnapshotRecord>>, String> {
        let mut wanted = wanted;
        if let Wanted::Newest { otherwise } = wanted {
            let found = repo.snapshots_of(&self.engine_name().await?, &volume.name).await.map_err(|e| e.to_string())?;
            // One that cannot be read may be the newest.
            if let Some(damaged) = found.damaged.first() {
                return Err(format!("it cannot be said which snapshot of {} is the newest: {damaged}", volume.name));
            }
            if let Some(newest) = found.records.last() {
                return Ok(Some(newest.clone()));
            }
            match otherwise {
                Some(otherwise) => wanted = otherwise,
                // The repository has answered: there never was one.
                None => return Ok(None),
            }
        }
        let Wanted::Snapshot { engine, volume: name, id } = wanted else { return Ok(None) };
        let found = repo.snapshots_of(engine, name).await.map_err(|e| e.to_string())?;
        let record = found.records.into_iter().find(|record| record.id == *id);
        record.map(Some).ok_or_else(|| format!("snapshot {id} of {name} is not in the repository any more"))
    }

    fn fill_blocking(
        &self,
        volume: &Volume,
        repo: &Arc<Repository>,
        record: Option<&SnapshotRecord>,
    ) -> Result<(), String> {
        let filling = files::filling(&volume.folder);
        match std::fs::remove_dir_all(&filling) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(format!("{}: {e}", filling.display())),
            _ => {}
        }
        create::make_root(&filling, &volume.options)?;
        self.outside().reached(Step::FillBegun);
        if let Some(record) = record {
            let never = AtomicBool::new(false);
            let everything = Selection::default();
            let owners = &volume.options.uid_map;
            let restored = restore::to_dir(repo, record, &filling, &everything, owners, &volume.progress, &never)
                .map_err(|e| format!("snapshot {} cannot be restored: {e}", record.id))?;
            if let Some((path, reason)) = restored.problems.first() {
                let count = restored.problems.len();
                return Err(format!(
                    "snapshot {} cannot be restored whole ({count} problems; {path}: {reason})",
                    record.id
                ));
            }
        }
        restore::replace::sync(&filling).map_err(|e| e.to_string())?;
        self.outside().reached(Step::FillWritten);
        std::fs::rename(&filling, volume.data()).map_err(|e| format!("{}: {e}", filling.display()))?;
        files::sync(&volume.folder).map_err(|e| format!("{}: {e}", volume.folder.display()))?;
        self.outside().reached(Step::FillNamed);
        let origin = record.map(|record| record.id.clone());
        let change = volume.change(|file| {
            file.wanted = None;
            file.origin = origin;
        });
        change.map_err(|e| e.to_string())
    }

    /// Tells the next backup that the content is what was restored. Without that it reads everything, which is no failure.
    async fn adopt(&self, volume: &Volume, repo: &Arc<Repository>, record: &Arc<SnapshotRecord>) {
        if let Ok(source) = self.source(volume).await {
            let _ = snapshot::adopt(repo, &source, record, &self.shared.state_dir).await;
        }
    }
}
