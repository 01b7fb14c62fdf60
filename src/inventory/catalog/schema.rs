//! The catalog's file: how it is made, opened, checked and brought up to date.
//!
//! # Layout
//! An SQLite database in WAL mode, so that a reader never waits for a writer, and a process that is killed leaves nothing
//! half-written. Times are milliseconds since 1970 in UTC, by this machine's clock.
//!
//! | table | one row for |
//! | --- | --- |
//! | `engines` | an engine, by its id |
//! | `volumes` | a volume from its creation to its removal: a name that is used again is a new row. At most one row of a name is not removed |
//! | `uses` | a container that mounts a volume at a path |
//! | `decisions` | a decision of the guard |
//!
//! `application_id` says that it is ours, `user_version` counts the migrations that it went through.

use std::fs::{DirBuilder, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use rustix::fs::Access;

use super::error::{CatalogError, Result, is_busy};

/// "Volt" in ASCII: tells the catalog from other programs' databases.
const APPLICATION_ID: i32 = 0x566f_6c74;

/// How long another process is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A file up to this size is looked through whenever it is opened, which takes a few milliseconds. In a larger one damage shows when it
/// is met.
const CHECKED_SIZE: u64 = 16 << 20;

/// What leads from each version to the next. Never changed once released: new ones go to the end.
const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE engines (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,           -- the engine's id, or its name if it has none
        name TEXT NOT NULL DEFAULT '',
        version TEXT NOT NULL DEFAULT '',
        last_seen INTEGER NOT NULL
    );
    CREATE TABLE volumes (
        id INTEGER PRIMARY KEY,
        engine INTEGER NOT NULL REFERENCES engines (id),
        name TEXT NOT NULL,
        kind TEXT,                          -- named, anonymous; NULL if only its removal was seen
        driver TEXT NOT NULL DEFAULT '',
        labels TEXT NOT NULL DEFAULT '{}',  -- JSON
        options TEXT NOT NULL DEFAULT '{}', -- JSON
        project TEXT,                       -- of Compose
        created_at TEXT,                    -- as the engine writes it
        first_seen INTEGER NOT NULL,
        last_seen INTEGER NOT NULL,
        removed_at INTEGER,                 -- when that was noticed
        removed_by TEXT                     -- NULL if a scan did not find it any more
    );
    CREATE INDEX volumes_by_name ON volumes (engine, name);
    CREATE UNIQUE INDEX one_of_a_name_is_there ON volumes (engine, name) WHERE removed_at IS NULL;
    CREATE TABLE uses (
        id INTEGER PRIMARY KEY,
        volume INTEGER NOT NULL REFERENCES volumes (id),
        container_id TEXT NOT NULL,
        path TEXT NOT NULL,
        container TEXT NOT NULL,
        image TEXT NOT NULL,
        image_id TEXT NOT NULL,
        rw INTEGER NOT NULL,
        project TEXT,                       -- of Compose
        service TEXT,                       -- of Compose
        first_seen INTEGER NOT NULL,
        last_seen INTEGER NOT NULL,
        last_running INTEGER,               -- when the container was last seen running
        UNIQUE (volume, container_id, path)
    );
    CREATE INDEX uses_by_container ON uses (container_id);
    CREATE TABLE decisions (
        id INTEGER PRIMARY KEY,
        engine INTEGER NOT NULL REFERENCES engines (id),
        time INTEGER NOT NULL,
        tier TEXT NOT NULL,
        command TEXT NOT NULL,
        decision TEXT NOT NULL,
        plan TEXT NOT NULL                  -- JSON
    );
    CREATE INDEX decisions_by_time ON decisions (time);
"];

/// The version that this program writes.
const VERSION: i64 = MIGRATIONS.len() as i64;

/// Opens the catalog's file, and makes it if there is none.
///
/// Only SQLite ever opens it: its locks are those of POSIX, which all fall when a process closes *any* descriptor of the file, and
/// another connection of this process would then write without them.
pub(super) fn open(path: &Path) -> Result<Connection> {
    let failed = |error: rusqlite::Error| CatalogError::from_sqlite(path, &error);
    match std::fs::metadata(path) {
        Ok(file) => check_file(path, &file)?,
        Err(error) if error.kind() == ErrorKind::NotFound => create(path)?,
        Err(error) => return Err(CatalogError::from_io(path, "opened", &error)),
    }
    // Not CREATE: should the file go away at this moment, an empty one in its place would look like damage to the next run.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(path, flags).map_err(failed)?;
    let (application, version) = retrying(|| {
        settle(&db)?;
        Ok((number(&db, "application_id")?, number(&db, "user_version")?))
    })
    .map_err(failed)?;
    if application != i64::from(APPLICATION_ID) {
        return Err(CatalogError::unreadable(path, "is a database, but not voltool's"));
    }
    if version > VERSION {
        return Err(CatalogError::newer(path, version, VERSION));
    }
    check_content(path, &db)?;
    if version < VERSION {
        write(&mut db, migrate).map_err(failed)?;
    }
    Ok(db)
}

/// Runs something in a transaction of its own. Waits for other processes, for a while.
pub(super) fn write<T>(
    db: &mut Connection,
    mut work: impl FnMut(&Transaction<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    retrying(|| {
        // At once with the lock for writing: one that is asked for in the middle could not be waited for.
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = work(&transaction)?;
        transaction.commit()?;
        Ok(value)
    })
}

/// Tries until another process is done with it. SQLite waits by itself in most cases, but not in all.
pub(super) fn retrying<T>(mut work: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let begin = Instant::now();
    loop {
        match work() {
            Err(error) if error.sqlite_error_code().is_some_and(is_busy) && begin.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

/// What every connection needs.
fn settle(db: &Connection) -> rusqlite::Result<()> {
    db.busy_timeout(PATIENCE / 4)?;
    // NORMAL: nothing is lost when a process is killed, and after a power cut the file is whole, but the last notes may be missing. The next
    // scan brings most of them back; FULL would cost every `ls` the wait for a disk.
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.pragma_update(None, "foreign_keys", true)
}

fn number(db: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, pragma, |row| row.get(0))
}

fn migrate(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    // Asked again: another process may have been faster.
    let done = usize::try_from(number(transaction, "user_version")?).unwrap_or(0);
    for (at, migration) in MIGRATIONS.iter().enumerate().skip(done) {
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", at as i64 + 1)?;
    }
    Ok(())
}

/// What can be said of the file without opening it, and in better words than SQLite's.
fn check_file(path: &Path, file: &std::fs::Metadata) -> Result<()> {
    if !file.is_file() {
        return Err(CatalogError::unreadable(path, "is not a file"));
    }
    // SQLite would take it for a new database.
    if file.len() == 0 {
        return Err(CatalogError::unreadable(path, "is damaged: the file is empty"));
    }
    let usable = rustix::fs::access(path, Access::READ_OK | Access::WRITE_OK);
    usable.map_err(|error| CatalogError::from_io(path, "written", &error.into()))
}

/// Looks for damage, unless that would take long.
fn check_content(path: &Path, db: &Connection) -> Result<()> {
    if std::fs::metadata(path).is_ok_and(|meta| meta.len() > CHECKED_SIZE) {
        return Ok(());
    }
    let found: rusqlite::Result<String> =
        retrying(|| db.pragma_query_value(None, "quick_check", |row| row.get::<_, String>(0)));
    match found {
        Ok(verdict) if verdict == "ok" => Ok(()),
        Ok(verdict) => Err(CatalogError::unreadable(path, format!("is damaged: {verdict}"))),
        Err(error) => Err(CatalogError::from_sqlite(path, &error)),
    }
}

/// Makes a new catalog. It is made whole beside its place and then put there, so that nobody ever sees half of one, and a file without
/// content is never mistaken for a new one.
fn create(path: &Path) -> Result<()> {
    // SQLite would apply it to the new database.
    let journal = beside(path, "-wal");
    if std::fs::metadata(&journal).is_ok_and(|meta| meta.len() > 0) {
        let reason = format!("is gone, but the journal that belongs to it is there ({})", journal.display());
        return Err(CatalogError::new(path, reason)
            .hint("put the catalog back if you have it, or move the journal away to begin a new one"));
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| CatalogError::from_io(path, "made", &error))?;
    let new = beside(path, &format!(".new-{}", ulid::Ulid::generate()));
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
    let result = made.map_err(|error| CatalogError::from_io(path, "made", &error)).and_then(|file| {
        drop(file);
        fill(&new).map_err(|error| CatalogError::from_sqlite(path, &error))?;
        match std::fs::hard_link(&new, path) {
            // Another process was faster; its catalog is as good.
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(CatalogError::from_io(path, "made", &error)),
            _ => Ok(()),
        }
    });
    for end in ["", "-wal", "-shm", "-journal"] {
        // Most of them are not there.
        let _ = std::fs::remove_file(beside(&new, end));
    }
    result
}

fn fill(path: &Path) -> rusqlite::Result<()> {
    let mut db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    db.pragma_update(None, "application_id", APPLICATION_ID)?;
    write(&mut db, migrate)?;
    // Recorded in the file. Where a file system cannot do it, SQLite stays with its older journal, which is as safe.
    db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    db.close().map_err(|(_, error)| error)
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}
