//! What is on the disk: the desired-state file of each volume, beside its content.
//!
//! ```text
//! <state>/volumes/NAME/volume.json      what the volume is, and what is still to be done
//! <state>/volumes/NAME/_data            its content; there only once it is whole
//! <state>/volumes/NAME/_filling         content on its way, while a snapshot is restored
//! <state>/volumes/NAME/_stale           a copy that another host has overtaken, on its way to the trash
//! <state>/volumes/NAME/mounts.json      who uses it (see `mounts`)
//! <state>/volumes/.new-<ulid>           a volume that is being made
//! <state>/trash/<ulid>-NAME             a removed volume, whole: the same folder under another name
//! ```
//!
//! A volume is made, and removed, in one rename of its folder; content arrives in one rename of `_filling`. Whatever is interrupted is
//! found here at the next start, and finished or taken back: [`Step`](super::Step) says which.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::repo::lease::HeldLease;

/// The version of the files that this voltool writes.
const VERSION: u32 = 1;
const FILE: &str = "volume.json";
/// The folder of the content, as in the engine's own driver.
pub const DATA: &str = "_data";
/// The folder of a copy that another host has overtaken.
pub const STALE: &str = "_stale";
const FILLING: &str = "_filling";
const NEW: &str = ".new-";

/// A desired-state file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VolumeFile {
    /// The version of the file.
    pub version: u32,
    /// The volume's name.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// The options as they were given. The engine keeps them too, and forgets them when it believes that the volume is gone.
    pub options: BTreeMap<String, String>,
    /// The labels, as far as an engine was asked for them: engines do not tell drivers.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What has to be in it before anybody may mount it; `None` once it is.
    #[serde(default)]
    pub wanted: Option<Wanted>,
    /// The snapshot that the content began with.
    #[serde(default)]
    pub origin: Option<String>,
    /// In the trash: how it got there.
    #[serde(default)]
    pub removed: Option<Removed>,
    /// Shared volumes: the lease that this host holds, or held last.
    #[serde(default)]
    pub lease: Option<HeldLease>,
    /// Whether this host holds it, as far as it knows.
    #[serde(default)]
    pub holding: bool,
    /// Whether it still has to be given back: that has been decided, and the storage may not know.
    #[serde(default)]
    pub releasing: bool,
    /// Whether all of the content was in a snapshot when the lease was given back.
    #[serde(default)]
    pub saved: bool,
    /// Uninstalling: the engine is being made to forget it, and its content stays where it is.
    #[serde(default)]
    pub detached: bool,
}

/// Content that is to be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// This snapshot.
    Snapshot {
        /// The engine's name in it.
        engine: String,
        /// The volume's name in it.
        volume: String,
        /// Its id.
        id: String,
    },
    /// The newest snapshot of the volume itself at the time of the first mount; if there is none, that of `otherwise`, or nothing.
    Newest {
        /// What `from=` named.
        otherwise: Option<Box<Wanted>>,
    },
}

/// How a volume was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// When.
    pub time: Timestamp,
    /// Until when it is kept; `None` if it is in a snapshot and may go at once.
    pub keep_until: Option<Timestamp>,
    /// The note for `voltool undo`.
    pub note: String,
}

/// Why a file or folder of the driver could not be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct FileError {
    /// What was tried.
    pub action: &'static str,
    /// On what.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

type Result<T> = std::result::Result<T, FileError>;

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError { action, path: path.to_owned(), source }
}

impl VolumeFile {
    /// A new volume.
    pub fn new(name: &str, options: BTreeMap<String, String>, wanted: Option<Wanted>) -> VolumeFile {
        VolumeFile {
            version: VERSION,
            name: name.to_owned(),
            created: Timestamp::now(),
            options,
            labels: BTreeMap::new(),
            wanted,
            origin: None,
            removed: None,
            lease: None,
            holding: false,
            releasing: false,
            saved: false,
            detached: false,
        }
    }

    /// The lease, if this host holds it as far as it knows.
    pub fn holds(&self) -> Option<HeldLease> {
        self.lease.filter(|_| self.holding)
    }

    /// This host does not hold the lease any more. `saved` says whether all of its copy is in a snapshot.
    pub(super) fn give_back(&mut self, saved: bool) {
        self.holding = false;
        self.saved = saved;
    }

    /// Reads the file of a volume's folder.
    ///
    /// # Errors
    /// If it cannot be read, or a newer voltool wrote it.
    pub fn read(folder: &Path) -> Result<VolumeFile> {
        let path = folder.join(FILE);
        let text = std::fs::read(&path).map_err(failed("read", &path))?;
        let file: VolumeFile =
            serde_json::from_slice(&text).map_err(|e| failed("understand", &path)(io::Error::other(e)))?;
        if file.version > VERSION {
            return Err(failed("understand", &path)(io::Error::other("a newer voltool wrote it")));
        }
        Ok(file)
    }

    /// Writes the file of a volume's folder, in the place of the one that is there. It is on the disk when this returns.
    ///
    /// # Errors
    /// If it cannot be written; then the old one is as it was.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let text = serde_json::to_vec_pretty(self).map_err(|e| failed("write", &path)(io::Error::other(e)))?;
        replace(&path, &text, true).map_err(failed("write", &path))
    }
}

/// Puts a file in the place of another in one step; if it matters, so that it survives a loss of power.
pub(super) fn replace(path: &Path, content: &[u8], durable: bool) -> io::Result<()> {
    let beside = path.with_extension("tmp");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(content)?;
    if durable {
        file.sync_all()?;
    }
    std::fs::rename(&beside, path)?;
    match path.parent() {
        Some(folder) if durable => sync(folder),
        _ => Ok(()),
    }
}

/// Sees to it that a folder's names are on the disk.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The volumes.
    pub volumes: PathBuf,
    /// What was removed.
    pub trash: PathBuf,
}

impl Layout {
    /// Below a state folder; makes the folders.
    ///
    /// # Errors
    /// If they cannot be made, or their path is not UTF-8, which no engine could be told.
    pub fn below(state_dir: &Path) -> Result<Layout> {
        let layout = Layout { volumes: state_dir.join("volumes"), trash: state_dir.join("trash") };
        if state_dir.to_str().is_none() {
            let not_text = io::Error::other("its path is not UTF-8, and the engine has to be told of it");
            return Err(failed("keep volumes in", state_dir)(not_text));
        }
        for folder in [&layout.volumes, &layout.trash] {
            // Nobody looks around in it; who knows a path in it may follow it, as an engine with its own users has to.
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true).mode(0o711).create(folder).map_err(failed("make", folder))?;
        }
        Ok(layout)
    }

    /// The folder of a volume. The name has been validated.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.volumes.join(name)
    }

    /// A new folder for a volume that is being made.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn begin(&self) -> Result<PathBuf> {
        let folder = self.volumes.join(format!("{NEW}{}", ulid::Ulid::generate()));
        std::fs::DirBuilder::new().mode(0o711).create(&folder).map_err(failed("make", &folder))?;
        Ok(folder)
    }

    /// Gives a volume that is being made its name: from here on it is there.
    ///
    /// # Errors
    /// If it cannot be renamed.
    pub fn establish(&self, made: &Path, name: &str) -> Result<PathBuf> {
        let folder = self.folder(name);
        std::fs::rename(made, &folder).map_err(failed("rename", made))?;
        sync(&self.volumes).map_err(failed("sync", &self.volumes))?;
        Ok(folder)
    }

    /// Moves a volume into the trash, whole, and returns where it is.
    ///
    /// # Errors
    /// If it cannot be renamed; then it is where it was.
    pub fn discard(&self, folder: &Path, name: &str) -> Result<PathBuf> {
        let discarded = self.trash.join(format!("{}-{name}", ulid::Ulid::generate()));
        std::fs::rename(folder, &discarded).map_err(failed("move to the trash", folder))?;
        for parent in [&self.trash, &self.volumes] {
            sync(parent).map_err(failed("sync", parent))?;
        }
        Ok(discarded)
    }

    /// Moves content that is not a volume's any more into the trash, with a file that says what it was. Returns where it is.
    ///
    /// # Errors
    /// If it cannot be moved; then it is where it was.
    pub fn discard_part(&self, content: &Path, file: &VolumeFile) -> Result<PathBuf> {
        let place = self.trash.join(format!("{}-{}", ulid::Ulid::generate(), file.name));
        std::fs::DirBuilder::new().mode(0o711).create(&place).map_err(failed("make", &place))?;
        file.write(&place)?;
        std::fs::rename(content, data(&place)).map_err(failed("move to the trash", content))?;
        sync(&place).map_err(failed("sync", &place))?;
        Ok(place)
    }

    /// The folders of all volumes, with their names; removes what was being made when an earlier daemon ended.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn volumes(&self) -> Result<Vec<(String, PathBuf)>> {
        let mut found = Vec::new();
        for (name, path) in entries(&self.volumes)? {
            if name.starts_with(NEW) {
                // Nobody was told of it. What is left of it is in nobody's way.
                let _ = std::fs::remove_dir_all(&path);
            } else if path.is_dir() && super::name::validate_name(&name).is_ok() {
                found.push((name, path));
            }
        }
        Ok(found)
    }

    /// The folders in the trash, by their names there, oldest first.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn discarded(&self) -> Result<Vec<(String, PathBuf)>> {
        let mut found = entries(&self.trash)?;
        found.sort();
        Ok(found)
    }
}

fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed("list", folder))? {
        let entry = entry.map_err(failed("list", folder))?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

/// Where a volume's content is.
pub(super) fn data(folder: &Path) -> PathBuf {
    folder.join(DATA)
}

/// Where a host's own copy is while it is put away, because another host's is newer.
pub(super) fn stale(folder: &Path) -> PathBuf {
    folder.join(STALE)
}

/// Where content is while it is on its way.
pub(super) fn filling(folder: &Path) -> PathBuf {
    folder.join(FILLING)
}
