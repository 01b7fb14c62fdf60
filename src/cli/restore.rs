//! `voltool restore`: from snapshots to volumes or a directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde::Serialize;

use super::plugin::daemon::Daemon;
use super::snapshot_ref::{self, SnapshotRef};
use super::ui::format;
use super::{CliError, Context, Kind, Outcome, open};
use crate::docker::Engine;
use crate::driver::{self, VolumeOptions};
use crate::inventory::{Inventory, VolumeInfo, bound_folder, is_own_driver, readable_root};
use crate::repo::{FileProblem, Monitor, Repository, SnapshotRecord, SourceKind, VolumeDefinition};
use crate::restore::replace::{Replaced, Staging, is_empty};
use crate::restore::{self, OwnerMap, Restored, Selection};
use crate::snapshot;

/// Bring a volume back
///
/// Restores into a volume of the same name, which is created with its labels, driver and options if it is not there. Refuses to
/// touch a volume that has content, unless --replace is given: then the snapshot is restored beside it and verified, and the old
/// content is kept until that is done. Needs nothing but the repository and its key.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
SNAPSHOT is 'latest' (as if left out), the beginning of a snapshot's id, or a time, which means the newest snapshot at or before
it: 2026-11-20, 2026-11-20T03:00, 2026-11-20T03:00:00+01:00. A time without an offset is local time.

Examples:
  voltool restore db
  voltool restore db@2026-11-20T03:00 --to db-yesterday
  voltool restore db --to-dir /tmp/db --path pg_wal --path postgresql.conf
  voltool restore db --replace --stop-containers
  voltool restore --all")]
pub struct RestoreArgs {
    /// What to restore
    #[arg(
        value_name = "VOLUME[@SNAPSHOT]",
        value_parser = snapshot_ref::parse_argument,
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    pub source: Option<SnapshotRef>,

    /// Restore every volume, the newest snapshot of each
    #[arg(long, conflicts_with_all = ["to", "to_dir", "path"])]
    pub all: bool,

    /// Restore into a volume of this name
    #[arg(long, value_name = "NAME", value_parser = snapshot_ref::parse_volume_name, conflicts_with = "to_dir")]
    pub to: Option<String>,

    /// Restore into this directory, which must be empty or absent; needs no engine
    #[arg(long, value_name = "DIR")]
    pub to_dir: Option<PathBuf>,

    /// Restore only this file or folder, as a path from the volume's root; repeatable
    #[arg(long, value_name = "SUBPATH", conflicts_with = "replace")]
    pub path: Vec<PathBuf>,

    /// Replace the content that is there
    #[arg(long)]
    pub replace: bool,

    /// Stop the containers that run on the volume, and start them again afterwards
    #[arg(long)]
    pub stop_containers: bool,

    /// Take snapshots of the engine of this name; needed only where several engines have a volume of that name
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub engine: Option<String>,

    /// Shift owners: INSIDE:OUTSIDE:COUNT, several separated by commas
    ///
    /// For engines with userns-remap, on which user 0 of a container is, say, user 100000 of the host: 0:100000:65536. Applied to users,
    /// groups and the ids in ACLs alike; 100000:0:65536 is the way back. An id in no range is kept, and reported as a problem.
    #[arg(long, value_name = "MAP")]
    pub uid_map: Option<OwnerMap>,

    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// One restored volume or folder, as `--json` prints it.
#[derive(Serialize)]
pub(super) struct Row {
    volume: String,
    snapshot: String,
    target: String,
    entries: u64,
    files: u64,
    pub(super) problems: Vec<FileProblem>,
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: RestoreArgs) -> anyhow::Result<Outcome> {
    let repo = open::repository(ctx).await?;
    let (records, _) = open::snapshots(ctx, &repo).await?;
    let mut rows = Vec::new();
    let mut failures: Vec<anyhow::Error> = Vec::new();
    if let Some(dir) = &args.to_dir {
        let source = args.source.as_ref().ok_or_else(|| CliError::usage("nothing to restore was named"))?;
        let record = open::pick(&records, source, args.engine.as_deref())?;
        rows.push(to_folder(ctx, &repo, &record, dir, &args).await?);
    } else {
        let wanted = match &args.source {
            Some(source) => vec![open::pick(&records, source, args.engine.as_deref())?],
            None => newest_of_all(ctx, &records, args.engine.as_deref())?,
        };
        let engine = open::engine(ctx).await?;
        let several = wanted.len() > 1;
        for record in wanted {
            let name = args.to.clone().unwrap_or_else(|| record.volume.clone());
            match to_volume(ctx, &repo, &engine, &record, &name, &args).await {
                Ok(row) => rows.push(row),
                Err(e) if ctx.interrupt.is_requested() => return Err(e),
                Err(e) if several => failures.push(e),
                Err(e) => return Err(e),
            }
        }
    }
    if args.json {
        ctx.ui.json(&rows)?;
    }
    if let Some(first) = failures.first() {
        for failure in &failures {
            ctx.ui.warn(&super::error::message(failure));
        }
        let kind = super::error::judge(first).kind;
        let total = format::counted((failures.len() + rows.len()) as u64, "volume");
        return Err(CliError::new(kind, format!("{} of {total} could not be restored", failures.len())).into());
    }
    Ok(if rows.iter().all(|r| r.problems.is_empty()) { Outcome::Done } else { Outcome::Incomplete })
}

/// The newest snapshot of every volume. Folders that were given with `--path` have no place of their own on an engine.
fn newest_of_all(
    ctx: &Context,
    records: &[Arc<SnapshotRecord>],
    engine: Option<&str>,
) -> anyhow::Result<Vec<Arc<SnapshotRecord>>> {
    let mut newest: BTreeMap<&str, &Arc<SnapshotRecord>> = BTreeMap::new();
    for record in records.iter().filter(|r| engine.is_none_or(|e| e == r.engine)) {
        if record.kind == SourceKind::Path {
            ctx.ui.detail(&format!("{} is a folder, not a volume: restore it with --to-dir", record.volume));
            continue;
        }
        // Records come oldest first.
        if let Some(before) = newest.insert(&record.volume, record)
            && before.engine != record.engine
        {
            let message =
                format!("engines {} and {} both have a volume {}", before.engine, record.engine, record.volume);
            return Err(CliError::failed(message).hint("say which one, with --engine").into());
        }
    }
    if newest.is_empty() {
        return Err(CliError::failed("there is no snapshot of a volume in this repository")
            .hint("'voltool snapshots' lists what there is")
            .into());
    }
    Ok(newest.into_values().cloned().collect())
}

async fn to_folder(
    ctx: &Context,
    repo: &Arc<Repository>,
    record: &Arc<SnapshotRecord>,
    dir: &Path,
    args: &RestoreArgs,
) -> anyhow::Result<Row> {
    let made = !dir.exists();
    if made {
        std::fs::create_dir_all(dir).map_err(|e| CliError::failed(format!("cannot create {}: {e}", dir.display())))?;
    }
    let root =
        std::fs::canonicalize(dir).map_err(|e| CliError::failed(format!("cannot read {}: {e}", dir.display())))?;
    // What is half done is taken away, also after a signal.
    ctx.interrupt.finish_yourself(true);
    let shape = Shape { owners: args.uid_map.clone().unwrap_or_default(), limit: None };
    let result = fill(ctx, repo, record, &root, &dir.display().to_string(), args, shape).await;
    let result = match result {
        Ok((row, replaced)) => {
            discard(ctx, replaced, false);
            Ok(row)
        }
        Err(e) => {
            if made {
                let _ = std::fs::remove_dir(dir);
            }
            Err(e)
        }
    };
    ctx.interrupt.finish_yourself(false);
    result
}

pub(super) async fn to_volume(
    ctx: &Context,
    repo: &Arc<Repository>,
    engine: &Engine,
    record: &Arc<SnapshotRecord>,
    name: &str,
    args: &RestoreArgs,
) -> anyhow::Result<Row> {
    let made = engine.volume(name).await?.is_none();
    if made {
        let definition = definition_for(record, name);
        engine.create_volume(name, &definition.driver, &definition.labels, &definition.options).await?;
        ctx.ui.detail(&format!("created volume {name} with driver {}", definition.driver));
    }
    let inventory = open::inventory(ctx, engine).await?;
    let volume = inventory.volume(name).ok_or_else(|| CliError::failed(format!("the engine has no volume {name}")))?;
    if made {
        make_bound_folder(ctx, volume, engine)?;
    }
    if driver::is_to_be_restored(volume) {
        // Its driver would restore what it believes is wanted; this is what is wanted now.
        Daemon::of(ctx).begin_empty(name).await?;
    }
    // If this fails, a volume that was made here stays: its content is where only a container's start makes it visible.
    let root = readable_root(volume, engine)?;
    // From here on something has to be put in order, also after a signal.
    ctx.interrupt.finish_yourself(true);
    let result = into_volume(ctx, repo, engine, record, &inventory, volume, &root, args).await;
    if made && result.is_err() {
        take_away(ctx, engine, volume, &root).await;
    }
    ctx.interrupt.finish_yourself(false);
    let row = result?;
    let is_same = record.engine == open::source_engine(ctx, engine, &volume.driver)
        && record.volume == name
        && args.path.is_empty()
        && args.uid_map.is_none();
    if is_same && row.problems.is_empty() {
        // Without this, all of it would count as changed until the next backup has read it.
        let source = super::backup::source_of(ctx, engine, &inventory, volume, root);
        if let Err(e) = snapshot::adopt(repo, &source, record, &ctx.settings.state_dir).await {
            ctx.ui.detail(&format!("the next backup of {name} reads everything: {e}"));
        }
    }
    Ok(row)
}

/// The definition of the volume that is made for a snapshot. Under its own name it is the one that it had. Another name is another
/// volume: it must not be a second way to the same folder or share, not belong to the Compose project, which removes what is its own, and
/// not be anonymous, for then `docker volume prune` would remove it.
fn definition_for(record: &SnapshotRecord, name: &str) -> VolumeDefinition {
    let plain = VolumeDefinition {
        name: name.to_owned(),
        driver: "local".to_owned(),
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        anonymous: false,
    };
    let mut definition = record.docker.as_ref().map_or(plain, |docker| docker.volume.clone());
    if definition.name != name {
        definition.labels.retain(|label, _| !label.starts_with("com.docker."));
        if definition.driver == "local" {
            definition.options.clear();
        }
    }
    if is_own_driver(&definition.driver) {
        driver::forget_beginning(&mut definition.options);
        if definition.name != name {
            definition.options.remove("mount");
        }
    }
    definition
}

/// Makes the folder that a volume is bound to (`-o o=bind -o device=/srv/www`), if the volume is new and the folder is not there, as on a
/// host that is set up anew: the engine does not make it, and no container could start.
fn make_bound_folder(ctx: &Context, volume: &VolumeInfo, engine: &Engine) -> anyhow::Result<()> {
    let Some(folder) = bound_folder(volume).filter(|_| engine.is_local()) else { return Ok(()) };
    if matches!(std::fs::symlink_metadata(folder), Err(e) if e.kind() == std::io::ErrorKind::NotFound) {
        std::fs::create_dir_all(folder).map_err(|e| {
            CliError::failed(format!(
                "cannot create {}, which volume {} is bound to: {e}",
                folder.display(),
                volume.name
            ))
        })?;
        ctx.ui.detail(&format!("created {}, which volume {} is bound to", folder.display(), volume.name));
    }
    Ok(())
}

/// Takes away a volume that was made for a restore that failed: an application would take an empty volume for a new beginning.
async fn take_away(ctx: &Context, engine: &Engine, volume: &VolumeInfo, root: &Path) {
    // Other drivers may have had content of that name before the engine knew of it.
    let ours = volume.driver == "local" && (bound_folder(volume).is_some() || is_empty(root).unwrap_or(false));
    if ours && let Err(e) = engine.remove_volume(&volume.name).await {
        ctx.ui.warn(&format!("volume {} was made, and is empty: {e}", volume.name));
    }
}

#[allow(clippy::too_many_arguments)]
async fn into_volume(
    ctx: &Context,
    repo: &Arc<Repository>,
    engine: &Engine,
    record: &Arc<SnapshotRecord>,
    inventory: &Inventory,
    volume: &VolumeInfo,
    root: &Path,
    args: &RestoreArgs,
) -> anyhow::Result<Row> {
    let name = &volume.name;
    if !args.replace && !is_empty(root)? {
        return Err(CliError::new(Kind::Refused, format!("volume {name} has content"))
            .hint("--replace puts the snapshot in its place, and keeps the old content until the new one is verified")
            .hint(format!("--to {name}-restored restores beside it"))
            .into());
    }
    let shape = Shape::of(volume, args)?;
    let limited = shape.limit.is_some();
    let running: Vec<_> = inventory.users_of(volume).into_iter().filter(|c| c.is_running()).cloned().collect();
    if running.is_empty() {
        let (row, replaced) = fill(ctx, repo, record, root, name, args, shape).await?;
        discard(ctx, replaced, limited);
        return Ok(row);
    }
    let names: Vec<&str> = running.iter().map(|c| c.name.as_str()).collect();
    if !args.stop_containers {
        return Err(CliError::new(Kind::Refused, format!("containers run on volume {name}: {}", names.join(", ")))
            .hint("--stop-containers stops them and starts them again afterwards")
            .into());
    }
    if let Some(container) = running.iter().find(|container| container.removes_itself()) {
        let message = format!(
            "container {} was started with --rm: as soon as it stops, the engine removes it together with its anonymous volumes",
            container.name
        );
        return Err(CliError::new(Kind::Refused, message).hint("stop it yourself, if that may be").into());
    }
    let mut stopped = Vec::new();
    let mut stop_failure = None;
    for container in &running {
        match engine.stop_container(&container.id, None).await {
            Ok(()) => stopped.push(container),
            Err(e) => {
                stop_failure = Some(e);
                break;
            }
        }
    }
    let filled = match stop_failure {
        Some(e) => Err(e.into()),
        None => fill(ctx, repo, record, root, name, args, shape).await,
    };
    let mut not_started = Vec::new();
    for container in stopped.iter().rev() {
        if let Err(e) = engine.start_container(&container.id).await {
            not_started.push(format!("{} ({e})", container.name));
        }
    }
    let (row, replaced) = match (filled, not_started.is_empty()) {
        (Ok(filled), true) => filled,
        (Ok((_, replaced)), false) => {
            let error = CliError::failed(format!("restored, but not started again: {}", not_started.join(", ")));
            return Err(match replaced {
                Some(replaced) => error.hint(format!("the old content is kept in {}", replaced.old().display())),
                None => error,
            }
            .into());
        }
        (Err(e), true) => return Err(e),
        (Err(e), false) => {
            return Err(e.context(format!("containers were not started again: {}", not_started.join(", "))));
        }
    };
    discard(ctx, replaced, limited);
    Ok(row)
}

/// What restored content has to look like.
#[derive(Debug, Clone)]
struct Shape {
    /// What becomes of its owners.
    owners: OwnerMap,
    /// How much may be in it, in bytes.
    limit: Option<u64>,
}

impl Shape {
    /// What the command line says goes before what the volume's own options say.
    fn of(volume: &VolumeInfo, args: &RestoreArgs) -> Result<Shape, CliError> {
        let options = match is_own_driver(&volume.driver) {
            true => VolumeOptions::parse(&volume.options)
                .map_err(|e| CliError::failed(format!("volume {}: {e}", volume.name)))?,
            false => VolumeOptions::default(),
        };
        Ok(Shape { owners: args.uid_map.clone().unwrap_or(options.uid_map), limit: options.size })
    }
}

/// Restores beside `root`, verifies if something is to be replaced, and puts the result in the place of `root`. Whatever fails leaves `root`
/// as it was.
async fn fill(
    ctx: &Context,
    repo: &Arc<Repository>,
    record: &Arc<SnapshotRecord>,
    root: &Path,
    target: &str,
    args: &RestoreArgs,
    shape: Shape,
) -> anyhow::Result<(Row, Option<Replaced>)> {
    let had_content = !is_empty(root)?;
    if had_content && !args.replace {
        return Err(CliError::new(Kind::Refused, format!("{target} is not empty"))
            .hint("choose an empty or absent folder, or replace the content with --replace")
            .into());
    }
    let task = ctx.ui.task("restoring", "restored", target);
    let cancelled = Arc::new(AtomicBool::new(false));
    let job = {
        let (repo, record, root) = (repo.clone(), record.clone(), root.to_owned());
        let (monitor, selection, cancelled) = (task.clone(), open::selection(&args.path), cancelled.clone());
        tokio::task::spawn_blocking(move || {
            fill_blocking(&repo, &record, &root, &selection, &shape, had_content, &monitor, &cancelled)
        })
    };
    let (restored, replaced) = tokio::select! {
        done = job => done??,
        // The job sees the flag and ends by itself, with everything as it was.
        () = wait_and_cancel(ctx, &cancelled) => return Err(CliError::new(Kind::Interrupted, "interrupted: nothing was changed").into()),
    };
    let problems: Vec<FileProblem> =
        restored.problems.into_iter().map(|(path, error)| FileProblem { path, error }).collect();
    let files = format::counted(restored.files, "file");
    let mut summary = match args.path.is_empty() {
        true => format!("snapshot {}, {} in {files}", record.id, format::size(record.bytes)),
        false => format!("snapshot {}, {files}", record.id),
    };
    if !problems.is_empty() {
        summary.push_str(&format!(", {}", format::counted(problems.len() as u64, "problem")));
    }
    task.done(&summary);
    let row = Row {
        volume: record.volume.clone(),
        snapshot: record.id.clone(),
        target: target.to_owned(),
        entries: restored.entries,
        files: restored.files,
        problems,
    };
    Ok((row, replaced))
}

async fn wait_and_cancel(ctx: &Context, cancelled: &AtomicBool) {
    ctx.interrupt.requested().await;
    cancelled.store(true, Ordering::Relaxed);
    // Long enough for the job to take away what it has made; it is asked at every entry and every piece.
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
}

#[allow(clippy::too_many_arguments)]
fn fill_blocking(
    repo: &Arc<Repository>,
    record: &SnapshotRecord,
    root: &Path,
    selection: &Selection,
    shape: &Shape,
    had_content: bool,
    monitor: &dyn Monitor,
    cancelled: &AtomicBool,
) -> anyhow::Result<(Restored, Option<Replaced>)> {
    let owners = &shape.owners;
    let staging = match Staging::beside(root) {
        Ok(staging) => staging,
        Err(e) if had_content => return Err(e.into()),
        // A mount point, or a parent that may not be written: an empty folder can be filled where it is.
        Err(_) => {
            return match restore::to_dir(repo, record, root, selection, owners, monitor, cancelled) {
                Ok(restored) => Ok((restored, None)),
                Err(e) => {
                    restore::replace::clear(root)?;
                    Err(e.into())
                }
            };
        }
    };
    if let Some(limit) = shape.limit {
        driver::limit(staging.path(), limit).map_err(|e| {
            let error = CliError::failed(&e);
            e.hint().into_iter().fold(error, CliError::hint)
        })?;
    }
    // The new root looks like the old one if the snapshot does not say otherwise.
    restore::replace::copy_root_attributes(root, staging.path())?;
    let restored = restore::to_dir(repo, record, staging.path(), selection, owners, monitor, cancelled)?;
    if had_content {
        if !restored.problems.is_empty() {
            let (path, reason) = &restored.problems[0];
            let count = format::counted(restored.problems.len() as u64, "problem");
            let message = format!(
                "snapshot {} cannot be restored whole ({count}; {path}: {reason}), so nothing was replaced",
                record.id
            );
            return Err(CliError::failed(message)
                .hint("restore it beside with --to or --to-dir to see what there is")
                .into());
        }
        if selection.is_all() {
            let differences = restore::verify::verify(repo, record, staging.path(), owners, cancelled)?;
            if let Some(first) = differences.first() {
                return Err(CliError::failed(format!(
                    "what was restored is not what the snapshot holds ({first}), so nothing was replaced"
                ))
                .into());
            }
        }
    }
    if cancelled.load(Ordering::Relaxed) {
        return Err(CliError::new(Kind::Interrupted, "interrupted: nothing was changed").into());
    }
    Ok((restored, Some(staging.exchange()?)))
}

/// The new content is proved; the old one goes.
fn discard(ctx: &Context, replaced: Option<Replaced>, limited: bool) {
    if let Some(replaced) = replaced {
        let old = replaced.old().to_owned();
        if limited {
            driver::lift_limit(&old);
        }
        if let Err(e) = replaced.discard() {
            ctx.ui.warn(&format!("the old content is still in {}: {e}", old.display()));
        }
    }
}
