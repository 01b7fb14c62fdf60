//! What is noted.
//!
//! # When is a volume of the same name another one?
//! An engine gives volumes no id. A volume that was removed and made again between two scans is told by:
//!
//! - its removal, if that was noted (by voltool, or from the engine's events) or a scan did not find it;
//! - `CreatedAt`, which then differs. But engines before 23.0 write the time of the last change in the volume's top folder there
//!   (moby/moby issue 38274), and plugins write what they like: there it counts only together with other labels, options or another
//!   driver. And a container that used it before and still does proves that it is the same, for it could not have been removed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use rusqlite::{OptionalExtension, Result, Transaction, params};

use super::BY_ENGINE_EVENT;
use crate::docker::{Container, EngineInfo};
use crate::inventory::{Inventory, Kind, Usage, VolumeInfo};

/// The first engine that does not change `CreatedAt` (moby/moby pull request 44719).
const STABLE_CREATION: u64 = 23;

/// Two reports of a removal that are not further apart than this are about the same one.
const SAME_REMOVAL: SignedDuration = SignedDuration::from_mins(10);

/// How long decisions are kept, and how many.
const DECISIONS_AGE: SignedDuration = SignedDuration::from_hours(365 * 24);
const DECISIONS: i64 = 10_000;

const COMPOSE_PROJECT: &str = "com.docker.compose.project";
const COMPOSE_SERVICE: &str = "com.docker.compose.service";

/// A volume that is there, as far as the catalog knows.
struct Living {
    id: i64,
    kind: Option<String>,
    driver: String,
    labels: String,
    options: String,
    project: Option<String>,
    created_at: Option<String>,
    last_seen: i64,
}

/// What is needed for every volume of a scan.
struct Scene<'a> {
    engine: i64,
    stable_creation: bool,
    at: i64,
    /// Whether the inventory has every container that uses its volumes.
    whole: bool,
    living: HashMap<String, Living>,
    containers: HashMap<&'a str, &'a Container>,
}

/// See [`super::Catalog::note_engine`].
pub(super) fn engine(transaction: &Transaction<'_>, info: &EngineInfo, at: Timestamp) -> Result<()> {
    let id = engine_id(transaction, &info.key(), at)?;
    let sql = "UPDATE engines SET name = ?2, version = ?3 WHERE id = ?1";
    transaction.execute(sql, params![id, info.name, info.version]).map(drop)
}

/// See [`super::Catalog::observe`].
pub(super) fn all(transaction: &Transaction<'_>, engine: &str, inventory: &Inventory, at: Timestamp) -> Result<()> {
    let mut scene = Scene::new(transaction, engine, inventory, at, true)?;
    scene.volumes(transaction, inventory)?;
    scene.vanished(transaction, inventory)?;
    // A plugin that does not answer now has still a volume that containers use.
    for missing in &inventory.missing {
        if let Some(living) = scene.living.get(&missing.name) {
            scene.uses(transaction, living.id, &missing.used_by)?;
        }
    }
    Ok(())
}

/// See [`super::Catalog::observe_part`].
pub(super) fn part(transaction: &Transaction<'_>, engine: &str, part: &Inventory, at: Timestamp) -> Result<()> {
    Scene::new(transaction, engine, part, at, false)?.volumes(transaction, part)
}

impl<'a> Scene<'a> {
    fn new(
        transaction: &Transaction<'_>,
        engine: &str,
        inventory: &'a Inventory,
        at: Timestamp,
        whole: bool,
    ) -> Result<Scene<'a>> {
        let engine = engine_id(transaction, engine, at)?;
        let version: String =
            transaction.query_row("SELECT version FROM engines WHERE id = ?1", [engine], |row| row.get(0))?;
        let major: String = version.chars().take_while(char::is_ascii_digit).collect();
        let sql = "SELECT name, id, kind, driver, labels, options, project, created_at, last_seen FROM volumes
                   WHERE engine = ?1 AND removed_at IS NULL";
        let mut statement = transaction.prepare_cached(sql)?;
        let rows = statement.query_map([engine], |row| {
            let living = Living {
                id: row.get(1)?,
                kind: row.get(2)?,
                driver: row.get(3)?,
                labels: row.get(4)?,
                options: row.get(5)?,
                project: row.get(6)?,
                created_at: row.get(7)?,
                last_seen: row.get(8)?,
            };
            Ok((row.get(0)?, living))
        })?;
        Ok(Scene {
            engine,
            stable_creation: major.parse().is_ok_and(|major: u64| major >= STABLE_CREATION),
            at: at.as_millisecond(),
            whole,
            living: rows.collect::<Result<_>>()?,
            containers: inventory.containers.iter().map(|container| (container.id.as_str(), container)).collect(),
        })
    }

    fn volumes(&mut self, transaction: &Transaction<'_>, inventory: &Inventory) -> Result<()> {
        for volume in &inventory.volumes {
            if let Some(id) = self.volume(transaction, volume)? {
                self.uses(transaction, id, &volume.used_by)?;
            }
        }
        Ok(())
    }

    /// Notes that a volume is there, and returns its row. `None` if it has been removed since the scan began.
    fn volume(&mut self, transaction: &Transaction<'_>, volume: &VolumeInfo) -> Result<Option<i64>> {
        let (labels, options) = (json(&volume.labels)?, json(&volume.options)?);
        if let Some(living) = self.living.get(&volume.name) {
            let id = living.id;
            if self.is_same(transaction, living, volume, &labels, &options)? {
                self.refresh(transaction, living, volume, &labels, &options)?;
                return Ok(Some(id));
            }
            if living.last_seen > self.at {
                // Somebody has looked since, and knows better.
                return Ok(None);
            }
            transaction.execute("UPDATE volumes SET removed_at = ?2 WHERE id = ?1", params![id, self.at])?;
            self.living.remove(&volume.name);
        } else if let Some((id, removed_at, noted, created_at)) = last_removed(transaction, self.engine, &volume.name)?
        {
            if removed_at >= self.at {
                return Ok(None);
            }
            // Only a scan had missed it, as happens when a plugin answers and does not list it.
            let same = created_at.is_some() && same_time(created_at.as_deref(), volume.created_at.as_deref());
            if same && !noted {
                let sql = "UPDATE volumes SET removed_at = NULL, last_seen = max(last_seen, ?2) WHERE id = ?1";
                transaction.execute(sql, params![id, self.at])?;
                return Ok(Some(id));
            }
        }
        let sql = "INSERT INTO volumes (engine, name, kind, driver, labels, options, project, created_at, first_seen, last_seen)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9)";
        transaction.prepare_cached(sql)?.execute(params![
            self.engine,
            volume.name,
            kind_text(volume.kind),
            volume.driver,
            labels,
            options,
            volume.compose_project,
            volume.created_at,
            self.at
        ])?;
        Ok(Some(transaction.last_insert_rowid()))
    }

    /// Whether a volume is the one that the catalog knows under its name; see the module's documentation.
    fn is_same(
        &self,
        transaction: &Transaction<'_>,
        living: &Living,
        volume: &VolumeInfo,
        labels: &str,
        options: &str,
    ) -> Result<bool> {
        let (before, now) = (living.created_at.as_deref(), volume.created_at.as_deref());
        if before.is_none() || now.is_none() || same_time(before, now) {
            return Ok(true);
        }
        let sql = "SELECT 1 FROM uses WHERE volume = ?1 AND container_id = ?2 LIMIT 1";
        let mut statement = transaction.prepare_cached(sql)?;
        for usage in &volume.used_by {
            if statement.exists(params![living.id, usage.container_id])? {
                return Ok(true);
            }
        }
        let alike = living.driver == volume.driver && living.labels == labels && living.options == options;
        Ok(alike && !(self.stable_creation && volume.driver == "local"))
    }

    /// Writes what has changed of a volume; of most, that is when it was seen last.
    fn refresh(
        &self,
        transaction: &Transaction<'_>,
        living: &Living,
        volume: &VolumeInfo,
        labels: &str,
        options: &str,
    ) -> Result<()> {
        // From a part, the kind may be wrong: that depends on who else uses the volume.
        let kind = match living.kind.as_deref() {
            Some(kind) if !self.whole => kind,
            _ => kind_text(volume.kind),
        };
        // A project that was derived from containers stays when they are gone.
        let project = volume.compose_project.as_ref().or(living.project.as_ref());
        let unchanged = living.kind.as_deref() == Some(kind)
            && living.project.as_ref() == project
            && living.created_at == volume.created_at
            && (living.driver.as_str(), living.labels.as_str(), living.options.as_str())
                == (volume.driver.as_str(), labels, options);
        if unchanged {
            let sql = "UPDATE volumes SET last_seen = max(last_seen, ?2) WHERE id = ?1";
            return transaction.prepare_cached(sql)?.execute(params![living.id, self.at]).map(drop);
        }
        let sql = "UPDATE volumes SET kind = ?3, driver = ?4, labels = ?5, options = ?6, project = ?7, created_at = ?8,
                   last_seen = max(last_seen, ?2) WHERE id = ?1";
        let created_at = volume.created_at.as_ref().or(living.created_at.as_ref());
        let values = params![living.id, self.at, kind, volume.driver, labels, options, project, created_at];
        transaction.prepare_cached(sql)?.execute(values).map(drop)
    }

    fn uses(&self, transaction: &Transaction<'_>, volume: i64, used_by: &[Usage]) -> Result<()> {
        let sql = "INSERT INTO uses (volume, container_id, path, container, image, image_id, rw, project, service,
                                     first_seen, last_seen, last_running)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10, ?11)
                   ON CONFLICT (volume, container_id, path) DO UPDATE SET
                       container = excluded.container, image = excluded.image, image_id = excluded.image_id,
                       rw = excluded.rw, project = excluded.project, service = excluded.service,
                       first_seen = min(first_seen, excluded.first_seen), last_seen = max(last_seen, excluded.last_seen),
                       last_running = max(coalesce(last_running, excluded.last_running),
                                          coalesce(excluded.last_running, last_running))";
        let mut statement = transaction.prepare_cached(sql)?;
        for usage in used_by {
            let container = self.containers.get(usage.container_id.as_str());
            let config = container.map(|container| &container.details.config);
            let label = |name: &str| config.and_then(|config| config.labels.get(name));
            let image_id = container.and_then(|container| container.raw.get("Image")).and_then(|id| id.as_str());
            let running = container.is_some_and(|container| container.is_running());
            statement.execute(params![
                volume,
                usage.container_id,
                usage.path,
                usage.name,
                config.map_or("", |config| config.image.as_str()),
                image_id.unwrap_or_default(),
                usage.rw,
                label(COMPOSE_PROJECT),
                label(COMPOSE_SERVICE),
                self.at,
                running.then_some(self.at),
            ])?;
        }
        Ok(())
    }

    /// Notes that volumes are not there any more. Nobody knows who removed them, or when: `removed_at` is when it was noticed.
    fn vanished(&mut self, transaction: &Transaction<'_>, inventory: &Inventory) -> Result<()> {
        let there: BTreeSet<&str> = inventory.volumes.iter().map(|volume| volume.name.as_str()).collect();
        let complete = inventory.warnings.is_empty();
        let mut gone = Vec::new();
        for (name, living) in &self.living {
            // What the engine could not list is only ever a plugin's.
            let listed = complete || living.driver == "local";
            if listed && living.last_seen < self.at && !there.contains(name.as_str()) {
                gone.push((name.clone(), living.id));
            }
        }
        let mut statement = transaction.prepare_cached("UPDATE volumes SET removed_at = ?2 WHERE id = ?1")?;
        for (name, id) in gone {
            statement.execute(params![id, self.at])?;
            self.living.remove(&name);
        }
        Ok(())
    }
}

/// See [`super::Catalog::note_container`].
pub(super) fn container(transaction: &Transaction<'_>, engine: &str, id: &str, at: Timestamp) -> Result<()> {
    let engine = engine_id(transaction, engine, at)?;
    let sql = "UPDATE uses SET last_seen = max(last_seen, ?3) WHERE container_id = ?2
               AND volume IN (SELECT id FROM volumes WHERE engine = ?1 AND removed_at IS NULL)";
    transaction.prepare_cached(sql)?.execute(params![engine, id, at.as_millisecond()]).map(drop)
}

/// See [`super::Catalog::note_removal`].
pub(super) fn removal(transaction: &Transaction<'_>, engine: &str, name: &str, by: &str, at: Timestamp) -> Result<()> {
    let engine = engine_id(transaction, engine, at)?;
    let at = at.as_millisecond();
    // One that was seen only later is its successor.
    let sql = "UPDATE volumes SET removed_at = ?3, removed_by = ?4
               WHERE engine = ?1 AND name = ?2 AND removed_at IS NULL AND first_seen <= ?3";
    if transaction.execute(sql, params![engine, name, at, by])? > 0 {
        return Ok(());
    }
    if let Some((id, removed_at, noted, _)) = last_removed(transaction, engine, name)? {
        let near = removed_at.abs_diff(at) <= SAME_REMOVAL.as_millis().unsigned_abs() as u64;
        if near || (!noted && removed_at >= at) {
            let sql = "UPDATE volumes SET removed_at = min(removed_at, ?2), removed_by = ?3
                       WHERE id = ?1 AND (removed_by IS NULL OR (removed_by = ?4 AND ?3 <> ?4))";
            return transaction.execute(sql, params![id, at, by, BY_ENGINE_EVENT]).map(drop);
        }
    }
    let sql = "INSERT INTO volumes (engine, name, first_seen, last_seen, removed_at, removed_by)
               VALUES (?1, ?2, ?3, ?3, ?3, ?4)";
    transaction.execute(sql, params![engine, name, at, by]).map(drop)
}

/// See [`super::Catalog::note_decision`].
pub(super) fn decision(
    transaction: &Transaction<'_>,
    engine: &str,
    at: Timestamp,
    [tier, command, decision, plan]: [&str; 4],
) -> Result<()> {
    let engine = engine_id(transaction, engine, at)?;
    let sql = "INSERT INTO decisions (engine, time, tier, command, decision, plan) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    transaction.execute(sql, params![engine, at.as_millisecond(), tier, command, decision, plan])?;
    let oldest = (at - DECISIONS_AGE).as_millisecond();
    // Ids only grow: the last ones are the last rows.
    let sql = "DELETE FROM decisions WHERE time < ?1 OR id <= ?2";
    transaction.execute(sql, params![oldest, transaction.last_insert_rowid() - DECISIONS]).map(drop)
}

/// The engine's row; made if there is none.
fn engine_id(transaction: &Transaction<'_>, key: &str, at: Timestamp) -> Result<i64> {
    let sql = "INSERT INTO engines (key, last_seen) VALUES (?1, ?2)
               ON CONFLICT (key) DO UPDATE SET last_seen = max(last_seen, excluded.last_seen) RETURNING id";
    transaction.prepare_cached(sql)?.query_row(params![key, at.as_millisecond()], |row| row.get(0))
}

/// A volume that was removed: its row, when, whether somebody said so, and when it was made.
type Removed = (i64, i64, bool, Option<String>);

/// The volume that was removed last under a name.
fn last_removed(transaction: &Transaction<'_>, engine: i64, name: &str) -> Result<Option<Removed>> {
    let sql = "SELECT id, removed_at, removed_by IS NOT NULL, created_at FROM volumes
               WHERE engine = ?1 AND name = ?2 AND removed_at IS NOT NULL ORDER BY removed_at DESC, id DESC LIMIT 1";
    let mut statement = transaction.prepare_cached(sql)?;
    statement
        .query_row(params![engine, name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .optional()
}

/// Whether two times are the same, however they are written: an engine writes its own zone.
fn same_time(a: Option<&str>, b: Option<&str>) -> bool {
    let parsed = |text: Option<&str>| text.and_then(|text| text.parse::<Timestamp>().ok());
    a == b || parsed(a).is_some_and(|time| Some(time) == parsed(b))
}

fn kind_text(kind: Kind) -> &'static str {
    match kind {
        Kind::Named => "named",
        Kind::Anonymous => "anonymous",
    }
}

fn json(map: &BTreeMap<String, String>) -> Result<String> {
    serde_json::to_string(map).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}
