//! The volumes that voltool keeps for engines: `docker volume create -d voltool`.
//!
//! Nothing here speaks HTTP: [`crate::plugin`] does, and asks.
//!
//! | file | what is in it |
//! | --- | --- |
//! | [`name`], [`options`], [`policy`], [`mount_url`] | what a volume may be called, and what it can be |
//! | [`files`], [`steps`] | what is on the disk, and what a crash leaves there |
//! | [`mounts`], [`reconcile`] | who uses a volume: counted, and compared with the engine |
//! | [`volume`] | one volume in memory |
//! | [`create`], [`fill`], [`mount`], [`remove`], [`trash`] | what can happen to it |
//! | [`quota`], [`backing`], [`tool`] | limits, content that is elsewhere, and the programs behind both |
//! | [`sharing`] | volumes that several hosts use, one at a time |
//! | [`detach`] | engines forget a volume, and its content stays |
//! | [`facts`] | what is known of its content: for `docker volume inspect` |
//! | [`publish`] | where engines look, if that is not where volumes are |
//! | [`outside`] | what the driver needs of the engine and the repository |
//! | [`endpoints`] | the answers to [`crate::plugin::Volumes`] |
//!
//! What engines believe of a volume is kept in their memory and can be wrong. So everything that matters is here: options and labels, who
//! uses it (asked anew before anything is removed), and what is still to be done, in a file that is written before it is begun. Whatever
//! is interrupted is finished or taken back at the next start.

pub mod backing;
pub mod create;
pub mod detach;
pub mod endpoints;
pub mod facts;
pub mod files;
pub mod fill;
pub mod mount;
pub mod mount_url;
pub mod mounts;
pub mod name;
pub mod options;
pub mod outside;
pub mod policy;
pub mod publish;
pub mod quota;
pub mod reconcile;
pub mod remove;
pub mod sharing;
pub mod steps;
pub mod tool;
pub mod trash;
pub mod volume;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::inventory::{VolumeInfo, is_own_driver};

pub use create::limit;
pub use files::{FileError, Layout};
pub use options::VolumeOptions;
pub use outside::{DriverSettings, Outside};
pub use remove::forget_beginning;
pub use sharing::lease_of;
pub use steps::Step;
pub use trash::lift_limit;
pub use volume::Volume;

/// All volumes. Cheap to clone.
#[derive(Clone)]
pub struct Driver {
    shared: Arc<Shared>,
}

struct Shared {
    layout: Layout,
    state_dir: PathBuf,
    settings: DriverSettings,
    outside: Arc<dyn Outside>,
    volumes: RwLock<BTreeMap<String, Arc<Volume>>>,
    sharing: Option<sharing::Sharing>,
    /// Held while a volume gets or loses its name.
    naming: tokio::sync::Mutex<()>,
    /// The engine will be asked for labels in a moment.
    learning: AtomicBool,
}

/// The driver's name in sentences to people.
const WHO: &str = "voltool";

impl Driver {
    /// Finds the volumes that are there, and puts in order what an earlier daemon has left half done. What has to be restored is begun
    /// again by [`Driver::resume`], or when it is mounted.
    ///
    /// # Errors
    /// If the folders cannot be used. A single volume that cannot be understood is kept as it is, and says so.
    pub fn open(state_dir: &Path, settings: DriverSettings, outside: Arc<dyn Outside>) -> Result<Driver, FileError> {
        let layout = Layout::below(state_dir)?;
        let mut volumes = BTreeMap::new();
        for (name, folder) in layout.volumes()? {
            volumes.insert(name.clone(), Arc::new(Volume::open(&name, folder, &*outside)));
        }
        let sharing = settings.shared_as.as_deref().map(|name| sharing::Sharing::open(state_dir, name)).transpose()?;
        let shared = Shared {
            sharing,
            layout,
            state_dir: state_dir.to_owned(),
            settings,
            outside,
            volumes: RwLock::new(volumes),
            naming: tokio::sync::Mutex::default(),
            learning: AtomicBool::new(false),
        };
        let driver = Driver { shared: Arc::new(shared) };
        driver.settle_notes();
        driver.all().iter().for_each(|volume| driver.discard_stale(volume));
        // What an earlier daemon has mounted for the engine, and nobody uses any more.
        driver.all().iter().for_each(|volume| driver.withdraw(volume));
        Ok(driver)
    }

    /// The volume of that name.
    pub fn volume(&self, name: &str) -> Option<Arc<Volume>> {
        self.volumes().get(name).cloned()
    }

    /// Every volume, by name.
    pub fn all(&self) -> Vec<Arc<Volume>> {
        self.volumes().values().cloned().collect()
    }

    fn volumes(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Arc<Volume>>> {
        // Nothing panics while it holds this, and the map is whole at every moment.
        self.shared.volumes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn volumes_mut(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<String, Arc<Volume>>> {
        self.shared.volumes.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn outside(&self) -> &dyn Outside {
        &*self.shared.outside
    }

    /// Under what engine's name the snapshots of these volumes are stored.
    async fn engine_name(&self) -> Result<String, String> {
        match &self.shared.sharing {
            Some(sharing) => Ok(sharing.name.clone()),
            None => self.outside().engine_name().await,
        }
    }
}

/// Where the driver of this host keeps a volume's content, if it keeps one of that name.
pub fn kept_at(state_dir: &Path, name: &str) -> Option<String> {
    name::validate_name(name).ok()?;
    let folder = state_dir.join("volumes").join(name);
    files::VolumeFile::read(&folder).ok()?;
    files::data(&folder).to_str().map(str::to_owned)
}

/// Whether a volume of this driver still waits for its content, as far as its file here says. Other volumes never do.
pub fn is_to_be_restored(volume: &VolumeInfo) -> bool {
    let folder = Path::new(&volume.mountpoint).parent().filter(|_| is_own_driver(&volume.driver));
    folder.and_then(|folder| files::VolumeFile::read(folder).ok()).is_some_and(|file| file.wanted.is_some())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
