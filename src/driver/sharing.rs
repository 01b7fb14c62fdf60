//! Volumes that several hosts share: one at a time holds the lease, and its content is what counts.
//!
//! What the lease guarantees, and how, is in [`crate::repo::lease`]. Here is what a host does with it:
//!
//! - before a mount it takes the lease. If another host has used the volume since, its own copy is *stale*: it is set aside, and the newest
//!   snapshot is restored;
//! - after the last use it gives the lease back once all of the content is in a snapshot, which `handover=true` takes. Content that is nowhere
//!   else stays with its lease;
//! - while it holds one it shows that it is alive, and looks whether somebody took the lease over.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::files::{self, Removed, VolumeFile, Wanted};
use super::{Driver, FileError, Volume, VolumeOptions, lock};
use crate::guard::RepositoryAccess;
use crate::repo::Repository;
use crate::repo::heartbeat::{Heartbeat, Observer};
use crate::repo::lease::{Acquired, HeldLease, Holder, Host, Lease, Previous, Standing};

/// How often a mount asks again for a lease that another host holds.
const AGAIN: Duration = Duration::from_secs(2);
/// For how long a host is watched after somebody has waited for it.
const INTEREST: Duration = Duration::from_secs(3600);

/// What a host needs to share.
pub(super) struct Sharing {
    /// The name under which it shares.
    pub(super) name: String,
    host: Host,
    heart: tokio::sync::Mutex<Heartbeat>,
    observer: tokio::sync::Mutex<Observer>,
    /// The hosts that somebody waits for, and since when nobody has asked for them again.
    awaited: Mutex<BTreeMap<ulid::Ulid, Instant>>,
    /// Held while a lease is taken over: two who say so at once would take it from each other.
    overtaking: tokio::sync::Mutex<()>,
}

impl Sharing {
    /// Finds out which host this is: an id that was made once, in the state folder.
    pub(super) fn open(state_dir: &Path, name: &str) -> Result<Sharing, FileError> {
        let path = state_dir.join("host-id");
        let failed = |action| {
            let path = path.clone();
            move |source| FileError { action, path, source }
        };
        let id = match std::fs::read_to_string(&path) {
            Ok(text) => ulid::Ulid::from_string(text.trim())
                .map_err(|e| failed("understand")(std::io::Error::other(e.to_string())))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let id = ulid::Ulid::generate();
                files::replace(&path, format!("{id}\n").as_bytes(), true).map_err(failed("write"))?;
                id
            }
            Err(e) => return Err(failed("read")(e)),
        };
        Ok(Sharing {
            name: name.to_owned(),
            host: Host { id, name: rustix::system::uname().nodename().to_string_lossy().into_owned() },
            heart: tokio::sync::Mutex::new(Heartbeat::new(id)),
            observer: tokio::sync::Mutex::default(),
            awaited: Mutex::default(),
            overtaking: tokio::sync::Mutex::default(),
        })
    }
}

impl Driver {
    /// How volumes with these options are shared; `None` if they are not.
    pub(super) fn sharing(&self, options: &VolumeOptions) -> Option<&Sharing> {
        self.shared.sharing.as_ref().filter(|_| options.mount.is_none())
    }

    /// Sees to it that this host holds the lease of a shared volume, and that its copy, if it has one, is current.
    ///
    /// # Errors
    /// If another host holds it and goes on doing so, or the repository cannot be asked.
    pub(super) async fn take_lease(&self, volume: &Arc<Volume>) -> Result<(), String> {
        let Some(sharing) = self.sharing(&volume.options) else { return Ok(()) };
        let _one_at_a_time = volume.work.lock().await;
        let repo = self.outside().repository().await?;
        if self.still_holds(volume, sharing, &repo).await?.is_none() {
            return Ok(());
        }
        let begun = Instant::now();
        let mut over = None;
        loop {
            match self.ask(volume, sharing, &repo, over.as_ref()).await? {
                Acquired::Held(lease, previous) => return self.received(volume, &lease, previous).await,
                Acquired::Busy(holder) => {
                    let last = begun.elapsed() >= self.shared.settings.lease_wait;
                    over = self.gone(volume, sharing, &repo, &holder).await.then_some(holder.clone());
                    if last && over.is_none() {
                        return Err(format!(
                            "volume {} is in use on {holder}; stop its containers there, or, if that host is gone for good: \
                             voltool plugin take-over {}",
                            volume.name, volume.name
                        ));
                    }
                }
            }
            if over.is_none() {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// `None` if this host holds the lease, and still does.
    async fn still_holds(
        &self,
        volume: &Volume,
        sharing: &Sharing,
        repo: &Arc<Repository>,
    ) -> Result<Option<()>, String> {
        let Some(held) = lock(&volume.file).holds() else { return Ok(Some(())) };
        let lease = Lease::resume(repo, &sharing.name, &volume.name, held);
        match lease.check().await.map_err(|e| e.to_string())? {
            Standing::Ours => Ok(None),
            Standing::Lost(to) => {
                self.lost(volume, to)?;
                Ok(Some(()))
            }
        }
    }

    fn lost(&self, volume: &Volume, to: Option<Holder>) -> Result<(), String> {
        let to = to.map_or("nobody knows whom".to_owned(), |holder| holder.to_string());
        let reason =
            format!("this host has lost its lease to {to}: what its containers write is no longer snapshotted");
        self.outside().log(&format!("volume {}: {reason}", volume.name));
        volume.failed(&reason);
        volume.change(|file| file.give_back(false)).map_err(|e| e.to_string())
    }

    async fn ask(
        &self,
        volume: &Volume,
        sharing: &Sharing,
        repo: &Arc<Repository>,
        over: Option<&Holder>,
    ) -> Result<Acquired, String> {
        let last = lock(&volume.file).lease;
        let (engine, name, host) = (&sharing.name, &volume.name, &sharing.host);
        let asked = match over {
            Some(holder) => Lease::take_over(repo, engine, name, host, last, holder).await,
            None => Lease::acquire(repo, engine, name, host, last).await,
        };
        asked.map_err(|e| e.to_string())
    }

    /// Whether the holder has shown no sign of life for as long as the volume's options ask for.
    async fn gone(&self, volume: &Volume, sharing: &Sharing, repo: &Repository, holder: &Holder) -> bool {
        let Some(host) = &holder.host else { return false };
        lock(&sharing.awaited).insert(host.id, Instant::now());
        let silent = sharing.observer.lock().await.look(repo, host.id).await;
        let enough = volume.options.lease_takeover.and_then(|after| Duration::try_from(after).ok());
        match (silent, enough) {
            (Ok(silent), Some(enough)) if silent >= enough => {
                self.outside().log(&format!(
                    "volume {}: {holder} has shown no sign of life for {} s, its lease is taken over",
                    volume.name,
                    silent.as_secs()
                ));
                true
            }
            _ => false,
        }
    }

    /// The lease is this host's: sets its copy aside if another host has used the volume since, and writes both down.
    async fn received(&self, volume: &Arc<Volume>, lease: &Lease, previous: Previous) -> Result<(), String> {
        let data = volume.data();
        let stale = matches!(previous, Previous::Another(_)) && data.exists();
        // Not what is counted: an engine that was killed has not said that uses have ended.
        let writers = if stale { self.writers(volume).await } else { Ok(Vec::new()) };
        if writers != Ok(Vec::new()) {
            // Best effort: whoever asks next finds that this host holds it, or does not.
            let _ = lease.release().await;
            return Err(match writers {
                Ok(writers) => format!(
                    "{} on this host still uses a copy of volume {} that another host has overtaken; stop it first",
                    writers.join(", "),
                    volume.name
                ),
                Err(e) => format!("nobody can say whether containers still use this host's copy: {e}"),
            });
        }
        let held = lease.held();
        let noted = (|| {
            if stale {
                let aside = files::stale(&volume.folder);
                std::fs::rename(&data, &aside).map_err(|e| format!("cannot set {} aside: {e}", data.display()))?;
            }
            let change = |file: &mut VolumeFile| {
                file.lease = Some(held);
                file.holding = true;
                file.releasing = false;
                if stale {
                    file.wanted = Some(Wanted::Newest { otherwise: None });
                }
            };
            volume.change(change).map_err(|e| e.to_string())
        })();
        if let Err(reason) = noted {
            let _ = lease.release().await;
            return Err(reason);
        }
        if stale {
            lock(&volume.mounts).begin_anew();
        }
        self.discard_stale(volume);
        // What is left of earlier holders is in nobody's way.
        let _ = lease.tidy().await;
        Ok(())
    }

    /// The containers that run on the volume.
    async fn writers(&self, volume: &Volume) -> Result<Vec<String>, String> {
        let users = self.outside().users(Some(&volume.name)).await?;
        Ok(users.into_iter().filter(|user| user.running).map(|user| format!("container {}", user.name)).collect())
    }

    /// Moves a copy that was set aside into the trash: for good if all of it is in a snapshot, and to be kept if not.
    pub(super) fn discard_stale(&self, volume: &Volume) {
        let aside = files::stale(&volume.folder);
        if !aside.exists() {
            return;
        }
        let mut file = lock(&volume.file).clone();
        let now = Timestamp::now();
        let keep: SignedDuration = self.shared.settings.trash_keep;
        let keep_until = (!file.saved).then(|| now.checked_add(keep).unwrap_or(Timestamp::MAX));
        file.removed = Some(Removed { time: now, keep_until, note: String::new() });
        match self.shared.layout.discard_part(&aside, &file) {
            Ok(_) if keep_until.is_none() => {}
            Ok(place) => self.outside().log(&format!(
                "volume {}: what was only on this host is kept for a while in {}",
                volume.name,
                place.display()
            )),
            Err(e) => self.outside().log(&e.to_string()),
        }
    }

    /// After the last use of a shared volume: gives the lease back if all of the content is in a snapshot. The caller works on the volume alone.
    pub(super) async fn give_back(&self, volume: &Arc<Volume>) {
        let Some(sharing) = self.sharing(&volume.options) else { return };
        let Some(held) = lock(&volume.file).holds() else { return };
        if let Err(reason) = self.try_to_give_back(volume, sharing, held).await {
            self.outside().log(&format!("volume {}: this host keeps the lease: {reason}", volume.name));
            volume.failed(&format!("this host keeps the lease: {reason}"));
        }
    }

    async fn try_to_give_back(&self, volume: &Arc<Volume>, sharing: &Sharing, held: HeldLease) -> Result<(), String> {
        let repository = self.repository_of_now().await;
        if !volume.is_wanting() {
            let mut found = self.judge(volume, &repository).await?;
            if !found.verdict.is_fine() && volume.options.handover {
                self.take_snapshot(volume, &repository).await?;
                found = self.judge(volume, &repository).await?;
            }
            if !found.verdict.is_fine() {
                return Err(format!("{}; handover=true would take a snapshot", found.reason));
            }
        }
        let RepositoryAccess::Open(repo) = repository else {
            return Err("the repository cannot be reached".to_owned());
        };
        // Written down first: a lease that may have been given back must never be used again.
        let given_back = volume.change(|file| {
            file.give_back(true);
            file.releasing = true;
        });
        given_back.map_err(|e| e.to_string())?;
        self.finish_release(volume, sharing, &repo, held).await?;
        volume.works();
        self.outside().log(&format!("volume {}: the next host may have it", volume.name));
        Ok(())
    }

    /// Tells the storage that a lease is given back; again and again, until it has worked.
    async fn finish_release(
        &self,
        volume: &Volume,
        sharing: &Sharing,
        repo: &Arc<Repository>,
        held: HeldLease,
    ) -> Result<(), String> {
        let lease = Lease::resume(repo, &sharing.name, &volume.name, held);
        lease.release().await.map_err(|e| format!("its lease could not be given back yet: {e}"))?;
        volume.change(|file| file.releasing = false).map_err(|e| e.to_string())
    }

    /// A volume that is not this host's any more needs no lease here. If it cannot be given back, another host has to take it over.
    ///
    /// Its folder may have another name by now, or its name another volume: nothing is written there.
    pub(super) async fn release(&self, volume: &Volume) {
        let held = {
            let file = lock(&volume.file);
            file.lease.filter(|_| file.holding || file.releasing)
        };
        let (Some(sharing), Some(held)) = (self.sharing(&volume.options), held) else { return };
        let released = match self.outside().repository().await {
            Ok(repo) => {
                Lease::resume(&repo, &sharing.name, &volume.name, held).release().await.map_err(|e| e.to_string())
            }
            Err(reason) => Err(reason),
        };
        if let Err(reason) = released {
            self.outside().log(&format!("volume {}: its lease could not be given back: {reason}", volume.name));
        }
    }

    /// Takes the lease from a host that is gone for good, because somebody says so.
    ///
    /// # Errors
    /// If the volume is not shared, or the repository cannot be asked.
    pub async fn take_over(&self, name: &str) -> Result<Option<String>, String> {
        let volume = self.volume(name).ok_or_else(|| format!("there is no volume {name}"))?;
        let sharing = self.sharing(&volume.options).ok_or_else(|| format!("volume {name} is not shared"))?;
        let by_now = |other: Option<Holder>| {
            let other = other.map_or("somebody else".to_owned(), |other| other.to_string());
            format!("by now {other} holds the lease of volume {name}")
        };
        let repo = self.outside().repository().await?;
        let _one_take_over = sharing.overtaking.lock().await;
        // A mount that waits for the lease would hold this up for as long as it waits; it is told that it has it.
        let holder = Lease::holder(&repo, &sharing.name, name).await.map_err(|e| e.to_string())?;
        let Some(holder) = holder else { return Ok(None) };
        if holder.host.as_ref().is_some_and(|host| host.id == sharing.host.id) {
            return Ok(None);
        }
        match self.ask(&volume, sharing, &repo, Some(&holder)).await? {
            Acquired::Held(lease, previous) => {
                let _one_at_a_time = volume.work.lock().await;
                match lease.check().await.map_err(|e| e.to_string())? {
                    Standing::Ours => self.received(&volume, &lease, previous).await?,
                    // A mount that waited has found that its own host holds it by now, and has asked for the next epoch, which is written down.
                    Standing::Lost(Some(to)) if to.host.as_ref().is_some_and(|host| host.id == sharing.host.id) => {}
                    Standing::Lost(to) => return Err(by_now(to)),
                }
                Ok(Some(holder.to_string()))
            }
            Acquired::Busy(other) => Err(by_now(Some(other))),
        }
    }

    /// Shows that this host is alive, and watches those that somebody waits for. To be called often.
    pub async fn beat(&self) {
        let Some(sharing) = &self.shared.sharing else { return };
        let holding = self.all().iter().any(|volume| lock(&volume.file).holding);
        let watched: Vec<ulid::Ulid> = {
            let mut awaited = lock(&sharing.awaited);
            awaited.retain(|_, asked| asked.elapsed() < INTEREST);
            awaited.keys().copied().collect()
        };
        if !holding && watched.is_empty() {
            return;
        }
        let Ok(repo) = self.outside().repository().await else { return };
        if holding {
            // The next beat makes up for one that is lost.
            let _ = sharing.heart.lock().await.beat(&repo).await;
        }
        for host in watched {
            // A look that fails begins anew by itself.
            let _ = sharing.observer.lock().await.look(&repo, host).await;
        }
    }

    /// Looks whether the leases that this host holds are still its own, and says so if not.
    pub async fn check_leases(&self) {
        let Some(sharing) = &self.shared.sharing else { return };
        let Ok(repo) = self.outside().repository().await else { return };
        for volume in self.all() {
            // Who works on it checks as well.
            let Ok(_one_at_a_time) = volume.work.try_lock() else { continue };
            let (lease, releasing, holding) = {
                let file = lock(&volume.file);
                (file.lease, file.releasing, file.holding)
            };
            if let Some(held) = lease.filter(|_| releasing) {
                // Until it has worked, others believe that this host uses the volume.
                let _ = self.finish_release(&volume, sharing, &repo, held).await;
            } else if holding && let Err(reason) = self.still_holds(&volume, sharing, &repo).await {
                self.outside().log(&format!("volume {}: {reason}", volume.name));
            }
        }
    }
}

/// The lease that this host holds of a volume of the driver, for a backup of it: `Ok(None)` if it needs none.
///
/// # Errors
/// If the volume is shared and another host, or nobody, holds its lease: then its snapshots are not this host's to take.
pub fn lease_of(volume: &crate::inventory::VolumeInfo) -> Result<Option<HeldLease>, String> {
    let folder = Path::new(&volume.mountpoint).parent();
    let file = folder.map(VolumeFile::read).transpose().map_err(|e| e.to_string())?;
    // What is on a server has no lease.
    if file.as_ref().is_some_and(|file| file.options.contains_key("mount")) {
        return Ok(None);
    }
    match file.and_then(|file| file.holds()) {
        Some(held) => Ok(Some(held)),
        None => Err(format!("this host does not hold the lease of volume {}", volume.name)),
    }
}
