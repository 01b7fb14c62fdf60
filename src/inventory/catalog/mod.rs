//! The catalog: which containers, images, paths and Compose projects used each volume, and when.
//!
//! A volume that no container refers to any more has nothing but a name, and an anonymous one not even that. The catalog is what
//! tells them apart then. It is fed by every scan of the inventory, and by the daemon from the engine's events.

use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use super::Inventory;

/// The catalog, in an SQLite database.
#[derive(Debug)]
pub struct Catalog {}

/// Why the catalog could not be used. It is never a reason to stop: it is a warning, and what it would have told is not known.
#[derive(Debug, thiserror::Error)]
#[error("the catalog {path} {reason}")]
pub struct CatalogError {
    /// The database file.
    pub path: String,
    /// What is wrong with it, as the end of a sentence.
    pub reason: String,
}

/// A `Result` whose error names the catalog.
pub type Result<T> = std::result::Result<T, CatalogError>;

/// One use of a volume: a container, at a path, over some time.
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
}

impl Use {
    /// In a few words: `postgres (postgres:16) at /var/lib/postgresql/data, project shop`.
    pub fn describe(&self) -> String {
        let project = self.project.as_ref().map(|project| format!(", project {project}")).unwrap_or_default();
        format!("{} ({}) at {}{project}", self.container, self.image, self.path)
    }
}

impl Catalog {
    /// Opens the catalog, and makes it if there is none.
    ///
    /// # Errors
    /// See [`CatalogError`]; a damaged or newer database is never replaced by an empty one.
    pub fn open(path: &Path) -> Result<Catalog> {
        let _ = path;
        Ok(Catalog {})
    }

    /// Notes who uses what now. `engine` is the engine's id, or its name if it has none.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn observe(&self, engine: &str, inventory: &Inventory, at: Timestamp) -> Result<()> {
        let _ = (engine, inventory, at);
        Ok(())
    }

    /// Who used a volume last.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn last_use(&self, engine: &str, volume: &str) -> Result<Option<Use>> {
        let _ = (engine, volume);
        Ok(None)
    }

    /// Keeps a decision of the guard: `tier` is `cli`, `wrapper` or `authz`; `plan` is the plan as JSON.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn note_decision(&self, engine: &str, tier: &str, command: &str, decision: &str, plan: &str) -> Result<()> {
        let _ = (engine, tier, command, decision, plan);
        Ok(())
    }

    /// Notes that a volume was removed, and by whom, if that is known.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn note_removal(&self, engine: &str, volume: &str, by: &str, at: Timestamp) -> Result<()> {
        let _ = (engine, volume, by, at);
        Ok(())
    }
}
