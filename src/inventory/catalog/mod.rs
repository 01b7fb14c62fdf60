//! The catalog: which containers, images, paths and Compose projects used each volume, and when.
//!
//! A volume that no container refers to any more has nothing but a name, and an anonymous one not even that. The catalog is what
//! tells them apart then. It is fed by every scan of the inventory, and by the daemon from the engine's events.
//!
//! | file | its one job |
//! | --- | --- |
//! | `schema.rs` | the file: made, opened, checked, brought up to date |
//! | `observe.rs` | what is noted |
//! | `history.rs` | what is told |
//! | `error.rs` | what can be wrong with it |

mod error;
mod history;
mod observe;
mod schema;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use rusqlite::{Connection, Transaction};
use serde::Serialize;

use super::Inventory;
use crate::docker::EngineInfo;

pub use error::{CatalogError, Result};
pub use history::{EngineRecord, Incarnation, VolumeHistory, VolumeSummary};

/// The catalog's file in the folder of local state.
pub const FILE_NAME: &str = "catalog.db";

/// Who removed a volume, if all that is known is that the engine said so.
pub const BY_ENGINE_EVENT: &str = "engine event";

/// The catalog, in an SQLite database. May be used by several threads and processes at once; its calls block, for some seconds if
/// others write all the time.
#[derive(Debug)]
pub struct Catalog {
    path: PathBuf,
    db: Mutex<Connection>,
}

/// One use of a volume: a container, at a path, over some time. Times are kept in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Use {
    /// The container's id.
    pub container_id: String,
    /// The container's name.
    pub container: String,
    /// The image as it was named.
    pub image: String,
    /// The image's id (`sha256:…`); empty if it is not known.
    pub image_id: String,
    /// Where the volume was mounted.
    pub path: String,
    /// Whether it could be written.
    pub rw: bool,
    /// The Compose project, if there was one.
    pub project: Option<String>,
    /// The Compose service, if there was one.
    pub service: Option<String>,
    /// When this was seen first.
    pub first_seen: Timestamp,
    /// When this was seen last.
    pub last_seen: Timestamp,
    /// When the container was last seen running; absent if it never was.
    pub last_running: Option<Timestamp>,
}

impl Use {
    /// In a few words: `postgres (postgres:16) at /var/lib/postgresql/data, project shop`.
    pub fn describe(&self) -> String {
        let project = self.project.as_ref().map(|project| format!(", project {project}")).unwrap_or_default();
        format!("{} ({}) at {}{project}", self.container, self.image, self.path)
    }
}

impl Catalog {
    /// Opens the catalog, and makes it if there is none; only its owner may read it.
    ///
    /// # Errors
    /// See [`CatalogError`]; a damaged or newer database is never replaced by an empty one.
    pub fn open(path: &Path) -> Result<Catalog> {
        let db = schema::open(path)?;
        Ok(Catalog { path: path.to_owned(), db: Mutex::new(db) })
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes what an engine is called, and its version: before 23.0, an engine's word on when a volume was made cannot be relied on.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn note_engine(&self, info: &EngineInfo, at: Timestamp) -> Result<()> {
        self.write(|transaction| observe::engine(transaction, info, at))
    }

    /// Notes who uses what now, and which volumes are not there any more. `engine` is the engine's id, or its name if it has none
    /// ([`EngineInfo::key`]); `at` is a time before the scan began: what others noted since then is newer than it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn observe(&self, engine: &str, inventory: &Inventory, at: Timestamp) -> Result<()> {
        self.write(|transaction| observe::all(transaction, engine, inventory, at))
    }

    /// Notes who uses what now, from a part of an engine's volumes and containers. What is not in it is left as it is.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn observe_part(&self, engine: &str, part: &Inventory, at: Timestamp) -> Result<()> {
        self.write(|transaction| observe::part(transaction, engine, part, at))
    }

    /// Notes that a container was there: everything that it was known to use has been in use until then.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn note_container(&self, engine: &str, container_id: &str, at: Timestamp) -> Result<()> {
        self.write(|transaction| observe::container(transaction, engine, container_id, at))
    }

    /// Who used a volume last: of what is there now, or of what was removed last under that name. Among several of the same scan, one
    /// that runs before one that does not, and one that may write before one that may not.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn last_use(&self, engine: &str, volume: &str) -> Result<Option<Use>> {
        self.read(|db| history::last_use(db, engine, volume))
    }

    /// When a container that uses a volume was last seen, running or not; `None` if none ever was.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn last_used_at(&self, engine: &str, volume: &str) -> Result<Option<Timestamp>> {
        self.read(|db| history::last_used_at(db, engine, volume))
    }

    /// All that is known of a volume, given by its name, or by the beginning of an anonymous volume's name if only one begins like
    /// that. `None` if there is no such volume, or several ([`Catalog::matching`]).
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn history(&self, engine: &str, volume: &str) -> Result<Option<VolumeHistory>> {
        self.read(|db| history::history(db, engine, volume))
    }

    /// The names of the volumes that a text may mean: the one of that name, else the anonymous ones whose names begin with it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn matching(&self, engine: &str, text: &str) -> Result<Vec<String>> {
        self.read(|db| history::matching(db, engine, text))
    }

    /// Every volume that was ever seen, each name once, the one that something happened to last first.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn volumes(&self, engine: &str) -> Result<Vec<VolumeSummary>> {
        self.read(|db| history::volumes(db, engine))
    }

    /// The volumes that are gone, the last one removed first. A name that is in use again is not among them.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn removed(&self, engine: &str) -> Result<Vec<VolumeSummary>> {
        let mut volumes = self.volumes(engine)?;
        volumes.retain(|volume| volume.removed_at.is_some());
        volumes.sort_by_key(|volume| std::cmp::Reverse(volume.removed_at));
        Ok(volumes)
    }

    /// The engines that were ever seen, the last one first.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn engines(&self) -> Result<Vec<EngineRecord>> {
        self.read(history::engines)
    }

    /// Keeps a decision of the guard: `tier` is `cli`, `wrapper` or `authz`; `plan` is the plan as JSON. Decisions of more than a year
    /// ago are dropped, and all but the last 10,000.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn note_decision(&self, engine: &str, tier: &str, command: &str, decision: &str, plan: &str) -> Result<()> {
        let now = Timestamp::now();
        self.write(|transaction| observe::decision(transaction, engine, now, [tier, command, decision, plan]))
    }

    /// Notes that a volume was removed, and by whom, if that is known. Who knows more than [`BY_ENGINE_EVENT`] is believed, in
    /// whichever order the two are told.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn note_removal(&self, engine: &str, volume: &str, by: &str, at: Timestamp) -> Result<()> {
        self.write(|transaction| observe::removal(transaction, engine, volume, by, at))
    }

    fn write<T>(&self, work: impl FnMut(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T> {
        // A panic in another thread leaves no transaction behind: it was rolled back when it was dropped.
        let mut db = self.db.lock().unwrap_or_else(PoisonError::into_inner);
        schema::write(&mut db, work).map_err(|error| CatalogError::from_sqlite(&self.path, &error))
    }

    fn read<T>(&self, work: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let db = self.db.lock().unwrap_or_else(PoisonError::into_inner);
        schema::retrying(|| {
            // One state of the database for all that is asked.
            let transaction = db.unchecked_transaction()?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
        .map_err(|error| CatalogError::from_sqlite(&self.path, &error))
    }
}
