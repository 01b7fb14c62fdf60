//! Removing a volume: refused, or what is at risk is kept.
//!
//! What happens on `docker volume rm`, and on everything else that ends in the driver's `Remove`:
//!
//! 1. A volume that somebody uses stays: what is counted here, and the engine's list of all containers, running or not. What
//!    the engine itself believes is not asked, because it forgets.
//! 2. An empty one goes, and one that may be destroyed (`guard.ephemeral`, label `voltool.ephemeral=true`).
//! 3. One whose content is in a snapshot goes.
//! 4. Of any other, `on-remove` says: `refuse`, `snapshot` (take one first; the default), or `trash`.
//!
//! A volume goes in one rename, into the trash; what is in a snapshot is deleted there. For each there is a note for `voltool undo`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;

use super::files::{self, Removed};
use super::policy::OnRemove;
use super::{Driver, Step, Volume, WHO, lock, mount};
use crate::guard::content::{Content, Found};
use crate::guard::undo::{Notes, Removal, RemovedVolume};
use crate::guard::{RepositoryAccess, Verdict, judge};
use crate::inventory::OWN_DRIVER;
use crate::repo::{DockerContext, SourceKind, VolumeDefinition};
use crate::snapshot::{self, Excludes, Source};

/// How long a removal may take a snapshot. Engines wait 60 s for it, and hold up `docker volume ls` meanwhile.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long all may take that has to be found out before a volume goes: an answer has to come before the engine gives up.
const DECISION: Duration = Duration::from_secs(50);
/// How long to wait for what follows from the end of the last use: mostly one question to the engine.
const SETTLING: Duration = Duration::from_secs(5);
/// The tag of such a snapshot.
const TAG: &str = "before-removal";

impl Driver {
    /// Removes a volume, or says why not and what to do.
    ///
    /// # Errors
    /// If it is in use, or at risk and to be kept, or nothing can be written down. Then it is as it was.
    pub async fn remove(&self, name: &str) -> Result<(), String> {
        let volume = self.volume(name).ok_or_else(|| format!("there is no volume {name}"))?;
        if let Some(trouble) = &volume.trouble {
            return Err(format!("volume {name} is left as it is: {trouble}"));
        }
        if volume.held.swap(false, Ordering::SeqCst) {
            return Err(format!("volume {name} stays, and the engine forgets what it knew of it"));
        }
        let busy = || format!("volume {name} is being restored, or put away; try again in a while");
        if volume.progress.now().is_some() {
            return Err(busy());
        }
        let Ok(_one_at_a_time) = tokio::time::timeout(SETTLING, volume.work.lock()).await else { return Err(busy()) };
        let Some(closing) = self.close(&volume).await else { return Err(self.in_use(&volume).await) };
        let removed = self.remove_closed(&volume).await;
        match &removed {
            Ok(()) => closing.for_good(),
            Err(reason) => {
                volume.failed(reason);
                self.outside().log(&format!("volume {name} was not removed: {reason}"));
            }
        }
        removed
    }

    /// Lets nobody begin to use the volume any more, unless somebody does. What is counted may be out of date: then the engine is asked.
    async fn close<'a>(&self, volume: &'a Arc<Volume>) -> Option<Closing<'a>> {
        if !lock(&volume.mounts).close() {
            self.compare_with_engine(volume).await;
            if !lock(&volume.mounts).close() {
                return None;
            }
        }
        Some(Closing { volume })
    }

    async fn in_use(&self, volume: &Volume) -> String {
        let count = lock(&volume.mounts).count();
        match self.users_of(volume).await {
            Ok(users) if !users.is_empty() => format!("volume {} is in use by {}", volume.name, users.join(", ")),
            _ => format!(
                "volume {} is mounted ({count}x), and no container that is known mounts it: the engine has not said that it has ended. \
                 That is found out within 5 minutes",
                volume.name
            ),
        }
    }

    async fn users_of(&self, volume: &Volume) -> Result<Vec<String>, String> {
        let users = self.outside().users(Some(&volume.name)).await?;
        Ok(users.into_iter().map(|user| format!("container {}", user.name)).collect())
    }

    async fn remove_closed(&self, volume: &Arc<Volume>) -> Result<(), String> {
        let name = &volume.name;
        let users = self.users_of(volume).await;
        let users = users.map_err(|e| format!("nobody can say whether containers use volume {name}: {e}"))?;
        if !users.is_empty() {
            return Err(format!("volume {name} belongs to {}, which `docker ps -a` lists", users.join(", ")));
        }
        self.withdraw(volume);
        if lock(&volume.file).detached {
            // The engine is being made to forget it; the content stays where it is. Other hosts may have the volume.
            if lock(&volume.file).holds().is_some() {
                let given_back = volume.change(|file| {
                    file.give_back(false);
                    file.releasing = true;
                });
                given_back.map_err(|e| e.to_string())?;
                self.release(volume).await;
            }
            self.volumes_mut().remove(name);
            return Ok(());
        }
        let decided = tokio::time::timeout(DECISION, self.decide(volume)).await;
        let (found, keep) = decided.map_err(|_| {
            format!(
                "volume {name} is kept for now: whether what is in it exists elsewhere was not found out within {} s; \
                 `voltool backup {name}` says more",
                DECISION.as_secs()
            )
        })??;
        self.outside().reached(Step::RemoveJudged);
        // Of the engine that the volume is on, whoever else shares it: undoing it is of use there.
        let engine = self.outside().engine_name().await?;
        self.put_away(volume, &engine, found, keep)?;
        self.release(volume).await;
        Ok(())
    }

    /// What is said of the content, and until when it is kept in the trash. Takes a snapshot if that is what makes it safe.
    async fn decide(&self, volume: &Arc<Volume>) -> Result<(Found, Option<Timestamp>), String> {
        let name = &volume.name;
        // A copy that was set aside and could not be put into the trash would go with the folder.
        self.discard_stale(volume);
        let aside = files::stale(&volume.folder);
        if aside.exists() {
            return Err(format!(
                "volume {name} is kept: {} has first to go into the trash, and cannot",
                aside.display()
            ));
        }
        // One whose content has arrived, and which still says that it is wanted, has content all the same.
        if volume.is_wanting() && !volume.data().exists() {
            return Ok((Found::new(Verdict::Empty, "what it was to hold was never restored"), None));
        }
        if volume.options.mount.is_some() {
            // What is on the server is neither read nor touched. While it is mounted, the volume's folder must not be deleted.
            mount::unmount_blocking(volume).await.map_err(|e| format!("volume {name} is kept: {e}"))?;
            return Ok((Found::new(Verdict::Safe, "its content stays where it is"), None));
        }
        let ephemeral = Excludes::new(self.shared.settings.ephemeral.iter().cloned())?;
        let labelled = lock(&volume.file).labels.get(judge::EPHEMERAL_LABEL).is_some_and(|value| value == "true");
        if labelled || ephemeral.matches(name.as_bytes()) {
            return Ok((Found::new(Verdict::Ephemeral, "it may be destroyed"), None));
        }
        // Nobody need be asked about nothing.
        if is_empty(&volume.data()) {
            return Ok((Found::new(Verdict::Empty, "there is nothing in it"), None));
        }
        let in_trash = || Some(Timestamp::now().checked_add(self.shared.settings.trash_keep).unwrap_or(Timestamp::MAX));
        if self.sharing(&volume.options).is_some() && lock(&volume.file).holds().is_none() {
            // The volume is another host's, and this is a copy of it.
            let saved = lock(&volume.file).saved;
            return Ok(match saved {
                true => (Found::new(Verdict::Safe, "all of it is in a snapshot, and another host may have it"), None),
                false => (Found::new(Verdict::AtRisk, "another host has the volume; this copy is kept"), in_trash()),
            });
        }
        let repository = self.repository_of_now().await;
        let found = self.judge(volume, &repository).await?;
        if found.verdict.is_fine() {
            return Ok((found, None));
        }
        match volume.options.on_remove {
            OnRemove::Refuse => Err(format!(
                "volume {name} is kept, because it was made with on-remove=refuse and what is in it exists nowhere else ({}); \
                 `voltool backup {name}` makes it safe to remove",
                found.reason
            )),
            OnRemove::Snapshot => {
                self.snapshot(volume, &repository).await?;
                let found = self.judge(volume, &repository).await?;
                match found.verdict.is_fine() {
                    true => Ok((found, None)),
                    false => Err(format!(
                        "volume {name} is kept: a snapshot was taken, and still {}; `voltool backup {name}` says more",
                        found.reason
                    )),
                }
            }
            OnRemove::Trash => Ok((found, in_trash())),
        }
    }

    /// The repository with what others have stored a moment ago: a backup that has just been made counts.
    pub(super) async fn repository_of_now(&self) -> RepositoryAccess {
        let open = async {
            let repo = self.outside().repository().await?;
            // What an index segment told is found in the packs when it is needed.
            drop(repo.load_index().await.map_err(|e| e.to_string())?);
            Ok(repo)
        };
        open.await.map_or_else(RepositoryAccess::Unavailable, RepositoryAccess::Open)
    }

    /// What the content is compared with is the newest snapshot, whosever it is.
    pub(super) async fn judge(&self, volume: &Volume, repository: &RepositoryAccess) -> Result<Found, String> {
        let data = volume.data();
        // Nobody need be asked about nothing.
        if is_empty(&data) {
            return Ok(Found::new(Verdict::Empty, "there is nothing in it"));
        }
        let content = Content {
            engine_name: &self.engine_name().await?,
            repository,
            max_age: self.shared.settings.max_age,
            state_dir: &self.shared.state_dir,
        };
        content.look(&volume.name, data, Timestamp::now()).await.map_err(|e| e.to_string())
    }

    /// Takes a snapshot, and waits for it as long as the engine waits. One that takes longer goes on, and the next attempt finds it.
    pub(super) async fn snapshot(&self, volume: &Arc<Volume>, repository: &RepositoryAccess) -> Result<(), String> {
        let name = &volume.name;
        let (driver, volume, repository) = (self.clone(), volume.clone(), repository.clone());
        let task = tokio::spawn(async move { driver.take_snapshot(&volume, &repository).await });
        let taken = tokio::time::timeout(PATIENCE, task).await.map_err(|_| {
            format!(
                "volume {name} is kept for now: a snapshot of it is being taken, which goes on; remove it again in a while"
            )
        })?;
        taken.unwrap_or_else(|e| Err(e.to_string())).map_err(|why| {
            format!(
                "volume {name} is kept, because what is in it exists nowhere else and no snapshot could be taken: {why}"
            )
        })
    }

    /// Takes a snapshot of all that is in the volume.
    ///
    /// # Errors
    /// If it cannot be taken, or not of everything.
    pub(super) async fn take_snapshot(&self, volume: &Volume, repository: &RepositoryAccess) -> Result<(), String> {
        let repo = match repository {
            RepositoryAccess::Open(repo) => repo.clone(),
            RepositoryAccess::Unavailable(why) => return Err(why.clone()),
        };
        let source = self.source(volume).await?;
        let mut options = self.outside().backup_options();
        options.tags.push(TAG.to_owned());
        // Whole: whatever the configuration leaves out of backups would be lost.
        options.excludes = Excludes::default();
        let backup = snapshot::backup(&repo, &source, &options, Arc::new(())).await.map_err(|e| e.to_string())?;
        match backup.record.errors.first() {
            Some(problem) => Err(format!("{}: {}", problem.path, problem.error)),
            None => Ok(()),
        }
    }

    /// The volume as a source of snapshots.
    pub(super) async fn source(&self, volume: &Volume) -> Result<Source, String> {
        let engine = self.engine_name().await?;
        let lease = lock(&volume.file).holds();
        Ok(Source {
            engine,
            name: volume.name.clone(),
            kind: SourceKind::Volume,
            root: volume.data(),
            lease,
            docker: Some(DockerContext { volume: definition(volume), containers: Vec::new() }),
        })
    }

    /// The volume goes: a note, a mark, a rename.
    fn put_away(
        &self,
        volume: &Arc<Volume>,
        engine: &str,
        found: Found,
        keep_until: Option<Timestamp>,
    ) -> Result<(), String> {
        let name = &volume.name;
        let mut note = Removal::new(engine, &format!("docker volume rm {name}"));
        note.volumes.push(RemovedVolume {
            definition: definition(volume),
            snapshot: found.compared.as_ref().map(|record| record.id.clone()),
            verdict: found.verdict,
            trash: None,
        });
        let notes = Notes::of(&self.shared.state_dir);
        let kept = |e: &dyn std::fmt::Display| format!("volume {name} is kept: {e}");
        notes.write(&note).map_err(|e| kept(&e))?;
        self.outside().reached(Step::RemoveNoted);
        let removed = Removed { time: note.time, keep_until, note: note.id.clone() };
        let moved = volume.change(|file| file.removed = Some(removed)).and_then(|()| {
            self.outside().reached(Step::RemoveMarked);
            self.shared.layout.discard(&volume.folder, name)
        });
        let trash = match moved {
            Ok(trash) => trash,
            Err(e) => {
                // Best effort: at the next start the same is done.
                let _ = volume.change(|file| file.removed = None);
                let _ = notes.forget(&note.id);
                return Err(kept(&e));
            }
        };
        self.volumes_mut().remove(name);
        self.outside().reached(Step::RemoveMoved);
        note.done = true;
        if keep_until.is_some() {
            note.volumes[0].trash = trash.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        }
        if let Err(e) = notes.write(&note) {
            self.outside().log(&e.to_string());
        }
        self.outside().reached(Step::RemoveDone);
        self.outside().log(&format!("removed volume {name} ({}); {WHO} undo {} brings it back", found.reason, note.id));
        let driver = self.clone();
        tokio::task::spawn_blocking(move || driver.empty_trash());
        Ok(())
    }
}

/// A volume that nobody may begin to use, as long as this is there: an engine that does not wait for the answer any more takes it along.
struct Closing<'a> {
    volume: &'a Volume,
}

impl Closing<'_> {
    /// The volume has gone. Who has found it before that must not begin to use it.
    fn for_good(self) {
        std::mem::forget(self);
    }
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        lock(&self.volume.mounts).open();
    }
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// What the volume is, for a snapshot's record and for undoing.
fn definition(volume: &Volume) -> VolumeDefinition {
    let file = lock(&volume.file);
    VolumeDefinition {
        name: volume.name.clone(),
        driver: OWN_DRIVER.to_owned(),
        labels: file.labels.clone(),
        options: lasting(&file.options),
        anonymous: false,
    }
}

fn lasting(options: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut options = options.clone();
    forget_beginning(&mut options);
    options
}

/// Takes away the options that only say what a volume begins with: it has begun.
pub fn forget_beginning(options: &mut BTreeMap<String, String>) {
    options.retain(|key, _| !matches!(key.as_str(), "from" | "from-engine"));
}
