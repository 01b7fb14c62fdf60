//! What is told.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, Error, OptionalExtension, Result, Row, params};
use serde::Serialize;

use super::Use;
use crate::inventory::Kind;

/// All that is known of a volume's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VolumeHistory {
    /// The name.
    pub name: String,
    /// The volumes that had it, one after the other, the newest first. Never empty.
    pub incarnations: Vec<Incarnation>,
}

/// A volume from its creation to its removal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Incarnation {
    /// Whether somebody chose its name; absent if only its removal was seen.
    pub kind: Option<Kind>,
    /// The driver; empty if only its removal was seen.
    pub driver: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
    /// The Compose project.
    pub compose_project: Option<String>,
    /// When it was made, as the engine writes it (RFC 3339). Engines before 23.0 write when its top folder changed.
    pub created_at: Option<String>,
    /// When it was seen first.
    pub first_seen: Timestamp,
    /// When it was seen last.
    pub last_seen: Timestamp,
    /// When it was removed, or found to be gone; absent if it is there.
    pub removed_at: Option<Timestamp>,
    /// Who removed it, if that is known.
    pub removed_by: Option<String>,
    /// Who used it, the last one first.
    pub uses: Vec<Use>,
}

/// A volume, in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VolumeSummary {
    /// Its name.
    pub name: String,
    /// Whether somebody chose that name; absent if only its removal was seen.
    pub kind: Option<Kind>,
    /// The driver; empty if only its removal was seen.
    pub driver: String,
    /// The Compose project.
    pub compose_project: Option<String>,
    /// When it was seen first.
    pub first_seen: Timestamp,
    /// When it was seen last.
    pub last_seen: Timestamp,
    /// When it was removed, or found to be gone; absent if it is there.
    pub removed_at: Option<Timestamp>,
    /// Who removed it, if that is known.
    pub removed_by: Option<String>,
    /// Who used it last.
    pub last_use: Option<Use>,
}

/// An engine that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EngineRecord {
    /// Its id, or its name if it has none.
    pub key: String,
    /// Its name; empty if it is not known.
    pub name: String,
    /// Its version; empty if it is not known.
    pub version: String,
    /// When something was noted of it last.
    pub last_seen: Timestamp,
}

/// The columns of [`use_of`].
const USE: &str =
    "uses.container_id, uses.container, uses.image, uses.image_id, uses.path, uses.rw, uses.project, uses.service,
                   uses.first_seen, uses.last_seen, uses.last_running";

/// Who used it last comes first; the last terms only make the order certain.
const LAST_USE_FIRST: &str =
    "uses.last_seen DESC, coalesce(uses.last_running, 0) DESC, uses.rw DESC, uses.first_seen DESC,
                              uses.container, uses.path";

/// The row of the volume of a name: the one that is there, else the one that was removed last.
const CURRENT: &str = "SELECT volumes.id FROM volumes JOIN engines ON engines.id = volumes.engine
                       WHERE engines.key = ?1 AND volumes.name = ?2
                       ORDER BY volumes.removed_at IS NULL DESC, volumes.removed_at DESC, volumes.id DESC LIMIT 1";

/// See [`super::Catalog::last_use`].
pub(super) fn last_use(db: &Connection, engine: &str, volume: &str) -> Result<Option<Use>> {
    let sql = format!("SELECT {USE} FROM uses WHERE volume = ({CURRENT}) ORDER BY {LAST_USE_FIRST} LIMIT 1");
    db.prepare_cached(&sql)?.query_row([engine, volume], use_of).optional()
}

/// See [`super::Catalog::last_used_at`].
pub(super) fn last_used_at(db: &Connection, engine: &str, volume: &str) -> Result<Option<Timestamp>> {
    let sql = format!("SELECT max(last_seen) FROM uses WHERE volume = ({CURRENT})");
    db.prepare_cached(&sql)?.query_row([engine, volume], |row| maybe_time(row, 0))
}

/// See [`super::Catalog::matching`].
pub(super) fn matching(db: &Connection, engine: &str, text: &str) -> Result<Vec<String>> {
    let sql = "SELECT DISTINCT volumes.name FROM volumes JOIN engines ON engines.id = volumes.engine
               WHERE engines.key = ?1 AND (volumes.name = ?2 OR (?2 <> '' AND length(volumes.name) = 64
                   AND substr(volumes.name, 1, length(?2)) = ?2 AND volumes.name NOT GLOB '*[^0-9a-f]*'))
               ORDER BY volumes.name";
    let mut statement = db.prepare_cached(sql)?;
    let names: Vec<String> = statement.query_map([engine, text], |row| row.get(0))?.collect::<Result<_>>()?;
    match names.iter().find(|name| *name == text) {
        Some(exact) => Ok(vec![exact.clone()]),
        None => Ok(names),
    }
}

/// See [`super::Catalog::history`].
pub(super) fn history(db: &Connection, engine: &str, text: &str) -> Result<Option<VolumeHistory>> {
    let mut names = matching(db, engine, text)?;
    let (Some(name), true) = (names.pop(), names.is_empty()) else { return Ok(None) };
    let sql = "SELECT volumes.id, volumes.kind, volumes.driver, volumes.labels, volumes.options, volumes.project,
                      volumes.created_at, volumes.first_seen, volumes.last_seen, volumes.removed_at, volumes.removed_by
               FROM volumes JOIN engines ON engines.id = volumes.engine WHERE engines.key = ?1 AND volumes.name = ?2
               ORDER BY volumes.removed_at IS NULL DESC, volumes.removed_at DESC, volumes.id DESC";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([engine, name.as_str()])?;
    let mut incarnations = Vec::new();
    while let Some(row) = rows.next()? {
        incarnations.push(Incarnation {
            kind: kind(row, 1)?,
            driver: row.get(2)?,
            labels: map(row, 3)?,
            options: map(row, 4)?,
            compose_project: row.get(5)?,
            created_at: row.get(6)?,
            first_seen: time(row, 7)?,
            last_seen: time(row, 8)?,
            removed_at: maybe_time(row, 9)?,
            removed_by: row.get(10)?,
            uses: uses(db, row.get(0)?)?,
        });
    }
    Ok(Some(VolumeHistory { name, incarnations }))
}

/// See [`super::Catalog::volumes`].
pub(super) fn volumes(db: &Connection, engine: &str) -> Result<Vec<VolumeSummary>> {
    // SQLite takes the other columns from the row with the maximum: of each name the one that is there, else the one removed last.
    let sql = "SELECT volumes.id, volumes.name, volumes.kind, volumes.driver, volumes.project, volumes.first_seen,
                      volumes.last_seen, volumes.removed_at, volumes.removed_by,
                      max(coalesce(volumes.removed_at, 9223372036854775807))
               FROM volumes JOIN engines ON engines.id = volumes.engine WHERE engines.key = ?1 GROUP BY volumes.name
               ORDER BY max(volumes.last_seen, coalesce(volumes.removed_at, 0)) DESC, volumes.name";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([engine])?;
    let one = format!("SELECT {USE} FROM uses WHERE volume = ?1 ORDER BY {LAST_USE_FIRST} LIMIT 1");
    let mut one = db.prepare_cached(&one)?;
    let mut summaries = Vec::new();
    while let Some(row) = rows.next()? {
        summaries.push(VolumeSummary {
            name: row.get(1)?,
            kind: kind(row, 2)?,
            driver: row.get(3)?,
            compose_project: row.get(4)?,
            first_seen: time(row, 5)?,
            last_seen: time(row, 6)?,
            removed_at: maybe_time(row, 7)?,
            removed_by: row.get(8)?,
            last_use: one.query_row([row.get::<_, i64>(0)?], use_of).optional()?,
        });
    }
    Ok(summaries)
}

/// See [`super::Catalog::engines`].
pub(super) fn engines(db: &Connection) -> Result<Vec<EngineRecord>> {
    let mut statement =
        db.prepare_cached("SELECT key, name, version, last_seen FROM engines ORDER BY last_seen DESC, key")?;
    let rows = statement.query_map([], |row| {
        Ok(EngineRecord { key: row.get(0)?, name: row.get(1)?, version: row.get(2)?, last_seen: time(row, 3)? })
    })?;
    rows.collect()
}

fn uses(db: &Connection, volume: i64) -> Result<Vec<Use>> {
    let mut statement =
        db.prepare_cached(&format!("SELECT {USE} FROM uses WHERE volume = ?1 ORDER BY {LAST_USE_FIRST}"))?;
    statement.query_map(params![volume], use_of)?.collect()
}

fn use_of(row: &Row<'_>) -> Result<Use> {
    Ok(Use {
        container_id: row.get(0)?,
        container: row.get(1)?,
        image: row.get(2)?,
        image_id: row.get(3)?,
        path: row.get(4)?,
        rw: row.get(5)?,
        project: row.get(6)?,
        service: row.get(7)?,
        first_seen: time(row, 8)?,
        last_seen: time(row, 9)?,
        last_running: maybe_time(row, 10)?,
    })
}

fn kind(row: &Row<'_>, at: usize) -> Result<Option<Kind>> {
    match row.get::<_, Option<String>>(at)?.as_deref() {
        None => Ok(None),
        Some("named") => Ok(Some(Kind::Named)),
        Some("anonymous") => Ok(Some(Kind::Anonymous)),
        Some(other) => Err(nonsense(at, Type::Text, format!("{other} is no kind of volume"))),
    }
}

fn map(row: &Row<'_>, at: usize) -> Result<BTreeMap<String, String>> {
    serde_json::from_str(&row.get::<_, String>(at)?).map_err(|error| nonsense(at, Type::Text, error))
}

fn time(row: &Row<'_>, at: usize) -> Result<Timestamp> {
    Timestamp::from_millisecond(row.get(at)?).map_err(|error| nonsense(at, Type::Integer, error))
}

fn maybe_time(row: &Row<'_>, at: usize) -> Result<Option<Timestamp>> {
    match row.get::<_, Option<i64>>(at)? {
        None => Ok(None),
        Some(_) => time(row, at).map(Some),
    }
}

fn nonsense(at: usize, kind: Type, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::FromSqlConversionFailure(at, kind, why.into())
}
