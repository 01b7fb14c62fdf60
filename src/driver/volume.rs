//! One volume in memory.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use jiff::Timestamp;

use super::facts::Facts;
use super::files::{self, VolumeFile, Wanted};
use super::mounts::Mounts;
use super::{FileError, Outside, VolumeOptions, lock};
use crate::repo::Monitor;

/// A volume. All that engines are told of it is in here, and costs no more than a lock.
#[derive(Debug)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// What it was made with. The defaults if that cannot be understood any more; then [`Volume::trouble`] says so.
    pub options: VolumeOptions,
    /// When it was made.
    pub created: Timestamp,
    /// Why nothing may be done with it, if its file cannot be understood.
    pub trouble: Option<String>,
    pub(super) file: Mutex<VolumeFile>,
    pub(super) mounts: Mutex<Mounts>,
    pub(super) facts: Mutex<Facts>,
    /// Held by whoever restores, removes, or puts it away after its last use.
    pub(super) work: tokio::sync::Mutex<()>,
    pub(super) progress: Progress,
    /// Held while it is mounted where engines see it, and while that is taken back.
    pub(super) publishing: Mutex<()>,
    /// The next removal is refused.
    pub(super) held: AtomicBool,
    last_error: Mutex<Option<String>>,
}

impl Volume {
    /// Reads a volume's folder, and puts right what was interrupted.
    pub(super) fn open(name: &str, folder: PathBuf, outside: &dyn Outside) -> Volume {
        let (file, mut trouble) = match VolumeFile::read(&folder) {
            Ok(file) if file.name == name => (file, None),
            Ok(file) => {
                let why = format!("its file says that it is volume {}", file.name);
                (file, Some(why))
            }
            Err(e) => (VolumeFile::new(name, Default::default(), None), Some(e.to_string())),
        };
        let options = VolumeOptions::parse(&file.options).unwrap_or_else(|e| {
            trouble.get_or_insert(e.to_string());
            VolumeOptions::default()
        });
        let mounts = Mounts::read(&folder);
        let volume = Volume {
            name: name.to_owned(),
            options,
            created: file.created,
            file: Mutex::new(file),
            mounts: Mutex::new(mounts),
            facts: Mutex::default(),
            work: tokio::sync::Mutex::default(),
            progress: Progress::default(),
            publishing: Mutex::default(),
            held: AtomicBool::new(false),
            last_error: Mutex::default(),
            folder,
            trouble,
        };
        match &volume.trouble {
            Some(trouble) => outside.log(&format!("volume {name} is left as it is: {trouble}")),
            None => {
                if let Err(e) = volume.settle() {
                    outside.log(&format!("volume {name}: {e}"));
                    volume.failed(&e.to_string());
                }
            }
        }
        volume
    }

    /// Finishes or takes back what was interrupted; see [`Step`](super::Step).
    fn settle(&self) -> Result<(), FileError> {
        let mut file = lock(&self.file);
        let arrived = file.wanted.is_some() && self.data().exists();
        if arrived || file.removed.is_some() {
            if arrived {
                file.wanted = None;
            }
            file.removed = None;
            file.write(&self.folder)?;
        }
        // A copy that was set aside: a newer one is to be restored.
        if files::stale(&self.folder).exists() && file.wanted.is_none() && !self.data().exists() {
            file.wanted = Some(Wanted::Newest { otherwise: None });
            file.write(&self.folder)?;
        }
        let filling = files::filling(&self.folder);
        if filling.exists() && file.wanted.is_none() {
            // What is left of it is in nobody's way.
            let _ = std::fs::remove_dir_all(filling);
        }
        Ok(())
    }

    /// Where its content is, once it is there.
    pub fn data(&self) -> PathBuf {
        files::data(&self.folder)
    }

    /// Whether its content is still to be restored.
    pub fn is_wanting(&self) -> bool {
        lock(&self.file).wanted.is_some()
    }

    /// Notes why something did not work: `docker volume inspect` shows it.
    pub(super) fn failed(&self, reason: &str) {
        *lock(&self.last_error) = Some(reason.to_owned());
    }

    /// Notes that it works again.
    pub(super) fn works(&self) {
        *lock(&self.last_error) = None;
    }

    /// Why something did not work, if nothing has worked since.
    pub fn last_error(&self) -> Option<String> {
        self.trouble.clone().or_else(|| lock(&self.last_error).clone())
    }

    /// Changes the file on the disk, and in memory if that worked.
    pub(super) fn change(&self, change: impl FnOnce(&mut VolumeFile)) -> Result<(), FileError> {
        let mut file = lock(&self.file);
        let mut new = file.clone();
        change(&mut new);
        new.write(&self.folder)?;
        *file = new;
        Ok(())
    }

    /// Its folder, for messages.
    pub fn place(&self) -> &Path {
        &self.folder
    }
}

/// How far a restore has come.
#[derive(Debug, Default)]
pub struct Progress {
    under_way: AtomicBool,
    total: AtomicU64,
    done: AtomicU64,
}

impl Progress {
    /// A restore begins.
    pub(super) fn begin(&self) {
        self.total.store(0, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
        self.under_way.store(true, Ordering::Relaxed);
    }

    /// It has ended.
    pub(super) fn end(&self) {
        self.under_way.store(false, Ordering::Relaxed);
    }

    /// Bytes that are there, and bytes in all; `None` if nothing is being restored.
    pub fn now(&self) -> Option<(u64, u64)> {
        let bytes = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        self.under_way.load(Ordering::Relaxed).then_some(bytes)
    }
}

impl Monitor for Progress {
    fn total(&self, bytes: u64, _files: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    fn advance(&self, bytes: u64, _files: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }
}
