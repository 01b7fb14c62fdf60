//! Why the catalog could not be used, in words, and what to do about it.

use std::path::Path;

use rusqlite::ErrorCode;

/// Why the catalog could not be used. It is never a reason to stop: it is a warning, and what it would have told is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the catalog {path} {reason}")]
pub struct CatalogError {
    /// The database file.
    pub path: String,
    /// What is wrong with it, as the end of a sentence.
    pub reason: String,
    /// What to do next, if there is something to say.
    pub hint: Option<String>,
}

/// A `Result` whose error names the catalog.
pub type Result<T> = std::result::Result<T, CatalogError>;

/// What to do with a file that is not a catalog. Never done by voltool itself: a damaged catalog can be read in part.
const MOVE_ASIDE: &str = "move it aside, together with the files beside it that end in -wal and -shm; the next run begins a new one. \
                          'sqlite3 FILE .recover' may bring back what the old one held";

/// With less than this the file system counts as full: SQLite makes files of 32 KiB beside the database.
const ROOM: u64 = 64 << 10;

impl CatalogError {
    pub(super) fn new(path: &Path, reason: impl Into<String>) -> CatalogError {
        CatalogError { path: path.display().to_string(), reason: reason.into(), hint: None }
    }

    pub(super) fn hint(self, hint: &str) -> CatalogError {
        CatalogError { hint: Some(hint.to_owned()), ..self }
    }

    /// The file is there and is no catalog that can be read.
    pub(super) fn unreadable(path: &Path, reason: impl Into<String>) -> CatalogError {
        CatalogError::new(path, reason).hint(MOVE_ASIDE)
    }

    /// A newer voltool has changed what the tables are.
    pub(super) fn newer(path: &Path, found: i64, known: i64) -> CatalogError {
        CatalogError::new(path, format!("is of version {found}, and this voltool knows versions up to {known}"))
            .hint("update voltool; until then it neither reads nor writes the catalog")
    }

    /// From an error of the operating system; `tried` is what it hindered: "opened".
    pub(super) fn from_io(path: &Path, tried: &str, error: &std::io::Error) -> CatalogError {
        if error.kind() == std::io::ErrorKind::StorageFull {
            return full(path);
        }
        CatalogError::new(path, format!("cannot be {tried}: {error}"))
            .hint("name another folder for local state with --state-dir or VOLTOOL_STATE_DIR, or run as its owner")
    }

    /// From an error of SQLite.
    pub(super) fn from_sqlite(path: &Path, error: &rusqlite::Error) -> CatalogError {
        use rusqlite::Error;
        let text = match error {
            Error::SqliteFailure(failure, text) => text.clone().unwrap_or_else(|| failure.to_string()),
            other => other.to_string(),
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => full(path),
            // SQLite tells these two only apart from a full file system by what it was doing.
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) if is_full(path) => full(path),
            Some(ErrorCode::NotADatabase) => CatalogError::unreadable(path, "is not an SQLite database"),
            Some(ErrorCode::DatabaseCorrupt) => CatalogError::unreadable(path, format!("is damaged: {text}")),
            Some(code) if is_busy(code) => CatalogError::new(path, "is being written by another process for too long")
                .hint("look for a voltool that hangs; what this run saw is noted by the next one"),
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                CatalogError::new(path, "cannot be written: it is read-only")
                    .hint("check who owns it, and how its file system is mounted")
            }
            // What is stored is not what was written: a value of another type, or a table that is not there.
            None => CatalogError::unreadable(path, format!("is damaged: {text}")),
            Some(ErrorCode::Unknown) if text.starts_with("no such ") => {
                CatalogError::unreadable(path, format!("is damaged: {text}"))
            }
            Some(_) => CatalogError::new(path, format!("cannot be used: {text}")),
        }
    }

    /// The whole in one line, for a warning.
    pub fn in_one_line(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{self} ({hint})"),
            None => self.to_string(),
        }
    }
}

/// Whether trying again may help.
pub(super) fn is_busy(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed)
}

fn full(path: &Path) -> CatalogError {
    CatalogError::new(path, "cannot be written: no space left on its file system")
        .hint("make room there; what this run saw is noted by the next one")
}

fn is_full(path: &Path) -> bool {
    let folder = path.parent().unwrap_or(Path::new("/"));
    rustix::fs::statvfs(folder).is_ok_and(|room| room.f_bavail.saturating_mul(room.f_frsize) < ROOM)
}
