//! `voltool backup`: from volumes to snapshots.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use futures_util::StreamExt;
use globset::Glob;
use serde::Serialize;

use super::plugin::daemon::Daemon;
use super::snapshots::SnapshotRow;
use super::ui::{Cell, Column, Table, format};
use super::{CliError, Context, Kind, Outcome, open};
use crate::docker::Engine;
use crate::driver;
use crate::inventory::{self, AccessError, Inventory, VolumeInfo, is_own_driver, readable_root};
use crate::repo::{DockerContext, RepoError, Repository, SourceKind, VolumeDefinition};
use crate::snapshot::{self, Backup, BackupOptions, ByteBudget, DEFAULT_LEVEL, Excludes, Source};

/// Back up volumes
///
/// Without names, backs up every volume of the engine but those that are labelled voltool.enable=false, so that a new volume is
/// never forgotten. Unchanged files are not read again. May be interrupted at any time: what was uploaded is not uploaded again.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  voltool backup
  voltool backup db uploads --tag before-upgrade
  voltool backup --exclude '*.tmp' --exclude 'cache/**'
  voltool backup --path /srv/www --name www
  voltool backup --quiet                              from cron: says nothing if all went well")]
pub struct BackupArgs {
    /// Volumes to back up; all of them if left out
    #[arg(value_name = "VOLUME", value_parser = NonEmptyStringValueParser::new(), conflicts_with = "path")]
    pub volumes: Vec<String>,

    /// Leave out what this glob matches, as a path from the volume's root; repeatable
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<Glob>,

    /// Tag the snapshots; repeatable
    #[arg(long, value_name = "TAG", value_parser = NonEmptyStringValueParser::new())]
    pub tag: Vec<String>,

    /// Back up a folder (a bind mount, say) instead of volumes
    #[arg(long, value_name = "DIR", requires = "name")]
    pub path: Option<PathBuf>,

    /// What the snapshots of --path are called
    #[arg(long, value_name = "NAME", requires = "path", value_parser = super::snapshot_ref::parse_volume_name)]
    pub name: Option<String>,

    /// Say what would be backed up, and write nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,

    /// How many volumes at once
    #[arg(long, value_name = "N")]
    pub parallel: Option<NonZeroUsize>,
}

/// Volumes at once, if nobody says otherwise: one is compared while another is compressed.
const PARALLEL: usize = 2;
/// Each volume at work fills a pack of data and one of metadata, and has compressors of its own.
const PER_VOLUME: u64 = 64 << 20;
/// The tag of a snapshot that was taken because somebody was about to remove the volume.
const BEFORE_REMOVAL: &str = "before-removal";
/// The label that takes a volume out of `voltool backup` without names.
const ENABLE_LABEL: &str = "voltool.enable";

/// What to back up, and what stood in the way of more.
struct Plan {
    sources: Vec<Source>,
    /// Volumes that were mounted for this.
    mounted: Vec<String>,
    failures: Vec<anyhow::Error>,
}

/// One volume's result, as `--json` prints it.
#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    snapshot: SnapshotRow<'a>,
    /// How many things could not be stored as they were; `errors` holds the first of them.
    problems: u64,
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: BackupArgs) -> anyhow::Result<Outcome> {
    let patterns = ctx.settings.exclude.iter().cloned().chain(args.exclude.iter().map(|g| g.glob().to_owned()));
    let excludes = Excludes::new(patterns).map_err(CliError::usage)?;
    let plan = match (&args.path, &args.name) {
        (Some(path), Some(name)) => plan_path(ctx, path, name).await?,
        _ => plan_volumes(ctx, &args.volumes).await?,
    };
    let mounted = plan.mounted.clone();
    let done = run_plan(ctx, args, plan, excludes).await;
    for volume in mounted {
        if let Err(e) = Daemon::of(ctx).unmount(&volume).await {
            ctx.ui.warn(&e.message);
        }
    }
    done
}

async fn run_plan(ctx: &Context, args: BackupArgs, plan: Plan, excludes: Excludes) -> anyhow::Result<Outcome> {
    let repo = open::repository(ctx).await?;
    if args.dry_run {
        return dry_run(ctx, &repo, plan, &excludes, args.json).await;
    }
    ctx.interrupt.keeps("what was uploaded is kept, and is not uploaded again by the next backup");
    let options = options(ctx, args.tag, excludes);
    let parallel = args.parallel.map(NonZeroUsize::get).or(ctx.settings.parallel).unwrap_or(PARALLEL);
    let parallel = parallel.min((ctx.settings.memory / PER_VOLUME) as usize);
    let Plan { sources, mut failures, .. } = plan;
    let (repo, options) = (&repo, &options);
    let jobs = sources.iter().map(|source| async move { (source, back_up(ctx, repo, source, options).await) });
    let results: Vec<_> = futures_util::stream::iter(jobs).buffered(parallel.max(1)).collect().await;
    let mut done = Vec::new();
    for (source, result) in results {
        match result {
            Ok(backup) => done.push(backup),
            Err(e) => failures.push(anyhow::Error::from(e).context(format!("backup of {} failed", source.name))),
        }
    }
    if args.json {
        let rows = done.iter().map(|b| Row { snapshot: SnapshotRow::of(&b.record), problems: b.problems });
        ctx.ui.json(&rows.collect::<Vec<_>>())?;
    }
    let problems = done.iter().map(|b| b.problems).sum::<u64>();
    finish(ctx, failures, done.len())?;
    Ok(if problems > 0 { Outcome::Incomplete } else { Outcome::Done })
}

/// How backups are made, from the settings.
pub(super) fn options(ctx: &Context, tags: Vec<String>, excludes: Excludes) -> BackupOptions {
    BackupOptions {
        state_dir: ctx.settings.state_dir.clone(),
        tags,
        // A quarter of the memory holds content on its way; the rest is for packs, which exist plain, sealed and in transfer.
        budget: ByteBudget::new(ctx.settings.memory / 4),
        excludes,
        level: DEFAULT_LEVEL,
        cancelled: Arc::default(),
    }
}

/// Takes a snapshot of each of these volumes before somebody removes them, whole: nothing is left out, whatever the configuration says.
/// Fails if one of them cannot be stored as it is.
pub(super) async fn before_removal(
    ctx: &Context,
    repo: &Arc<Repository>,
    engine: &Engine,
    inventory: &Inventory,
    names: &[&str],
) -> anyhow::Result<()> {
    let options = options(ctx, vec![BEFORE_REMOVAL.to_owned()], Excludes::default());
    for name in names {
        let volume = inventory.volume(name).ok_or_else(|| CliError::failed(format!("there is no volume {name}")))?;
        let source = source_of(ctx, engine, inventory, volume, readable_root(volume, engine)?);
        let failed = || format!("backup of {name} failed");
        let backup =
            back_up(ctx, repo, &source, &options).await.map_err(|e| anyhow::Error::from(e).context(failed()))?;
        if let Some(problem) = backup.record.errors.first() {
            let message = format!("volume {name} cannot be stored as it is: {}: {}", problem.path, problem.error);
            return Err(CliError::new(Kind::Refused, message).into());
        }
    }
    Ok(())
}

async fn back_up(
    ctx: &Context,
    repo: &Arc<Repository>,
    source: &Source,
    options: &BackupOptions,
) -> Result<Backup, RepoError> {
    let task = ctx.ui.task("backing up", "backed up", &source.name);
    let backup = snapshot::backup(repo, source, options, Arc::new(task.clone())).await?;
    let r = &backup.record;
    let files = format::counted(r.files, "file");
    task.done(&format!("{} in {files}, {} new, snapshot {}", format::size(r.bytes), format::size(r.added_bytes), r.id));
    Ok(backup)
}

/// One failure is told as it is; of several, each is told and the worst decides.
fn finish(ctx: &Context, mut failures: Vec<anyhow::Error>, done: usize) -> anyhow::Result<()> {
    if failures.is_empty() {
        return Ok(());
    }
    let total = failures.len() + done;
    if failures.len() == 1 && total == 1 {
        return Err(failures.remove(0));
    }
    for failure in &failures {
        ctx.ui.warn(&super::error::message(failure));
    }
    let kinds: Vec<Kind> = failures.iter().map(|f| super::error::judge(f).kind).collect();
    let kind = if kinds.iter().all(|k| *k == kinds[0]) { kinds[0] } else { Kind::Failed };
    Err(CliError::new(
        kind,
        format!("{} of {} could not be backed up", failures.len(), format::counted(total as u64, "volume")),
    )
    .into())
}

/// A folder, under the name that it was given.
async fn plan_path(ctx: &Context, path: &Path, name: &str) -> anyhow::Result<Plan> {
    let root =
        std::fs::canonicalize(path).map_err(|e| CliError::failed(format!("cannot read {}: {e}", path.display())))?;
    if !root.is_dir() {
        return Err(CliError::failed(format!("{} is not a folder", path.display())).into());
    }
    // The engine gives a folder its identity where there is one; a machine without an engine has its own name.
    let engine = match &ctx.settings.engine_name {
        Some(name) => name.clone(),
        None => match open::engine(ctx).await {
            Ok(engine) => open::engine_name(ctx, &engine),
            Err(_) => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        },
    };
    let source = Source { engine, name: name.to_owned(), kind: SourceKind::Path, root, docker: None, lease: None };
    Ok(Plan { sources: vec![source], mounted: Vec::new(), failures: Vec::new() })
}

async fn plan_volumes(ctx: &Context, names: &[String]) -> anyhow::Result<Plan> {
    let engine = open::engine(ctx).await?;
    let inventory = open::inventory(ctx, &engine).await?;
    let mut plan = Plan { sources: Vec::new(), mounted: Vec::new(), failures: Vec::new() };
    let mut chosen: Vec<&VolumeInfo> = Vec::new();
    for name in names {
        match inventory.volume(name) {
            Some(volume) if chosen.iter().any(|c| c.name == volume.name) => {}
            Some(volume) => chosen.push(volume),
            None => {
                let error =
                    CliError::failed(format!("there is no volume {name} on the engine at {}", engine.endpoint()));
                return Err(match inventory.nearest(name) {
                    Some(nearest) => error.hint(format!("did you mean {nearest}?")),
                    None => error.hint("'voltool ls' lists the volumes"),
                }
                .into());
            }
        }
    }
    if names.is_empty() {
        // What the engine could not list would otherwise be forgotten without a word.
        plan.failures.extend(inventory.warnings.iter().map(|w| CliError::failed(w).into()));
        let opted_out = |v: &&VolumeInfo| v.labels.get(ENABLE_LABEL).is_some_and(|value| value == "false");
        let left_out = Excludes::new(ctx.settings.exclude_volumes.iter().cloned()).map_err(CliError::usage)?;
        chosen.extend(inventory.volumes.iter().filter(|v| !opted_out(v) && !left_out.matches(v.name.as_bytes())));
        if chosen.is_empty() && plan.failures.is_empty() {
            ctx.ui.note("there is no volume to back up");
        }
    }
    for volume in chosen {
        if open::is_shared(ctx, &volume.driver)
            && let Err(why) = driver::lease_of(volume)
        {
            ctx.ui.note(&format!("{} is left out: {why}, so its snapshots are another host's to take", volume.name));
            continue;
        }
        if is_own_driver(&volume.driver) && volume.options.contains_key("mount") {
            // Its content is elsewhere, and the daemon knows how to get at it.
            match Daemon::of(ctx).mount(&volume.name).await {
                Ok(()) => plan.mounted.push(volume.name.clone()),
                Err(e) => {
                    plan.failures.push(anyhow::Error::from(e).context(format!("backup of {} failed", volume.name)));
                    continue;
                }
            }
        }
        match readable_root(volume, &engine) {
            Ok(root) => plan.sources.push(source_of(ctx, &engine, &inventory, volume, root)),
            // There is nothing in it that could be lost; only who names it is told that this is a failure.
            Err(e @ AccessError::Memory { .. }) if names.is_empty() => ctx.ui.detail(&e.to_string()),
            // It has had no content yet; what it is to hold is in the repository already.
            Err(_) if driver::is_to_be_restored(volume) => {
                let why = format!("volume {} is left out: what it is to hold has not been restored yet", volume.name);
                if names.is_empty() { ctx.ui.detail(&why) } else { ctx.ui.warn(&why) }
            }
            Err(e) => plan.failures.push(e.into()),
        }
    }
    Ok(plan)
}

/// A volume as a source, with all that is needed to rebuild it and what used it.
pub fn source_of(ctx: &Context, engine: &Engine, inventory: &Inventory, volume: &VolumeInfo, root: PathBuf) -> Source {
    let definition = VolumeDefinition {
        name: volume.name.clone(),
        driver: volume.driver.clone(),
        labels: volume.labels.clone(),
        options: volume.options.clone(),
        anonymous: volume.kind == inventory::Kind::Anonymous,
    };
    let containers = inventory.users_of(volume).into_iter().map(|c| c.raw.clone()).collect();
    Source {
        engine: open::source_engine(ctx, engine, &volume.driver),
        lease: if open::is_shared(ctx, &volume.driver) { driver::lease_of(volume).ok().flatten() } else { None },
        name: volume.name.clone(),
        kind: SourceKind::Volume,
        root,
        docker: Some(DockerContext { volume: definition, containers }),
    }
}

async fn dry_run(
    ctx: &Context,
    repo: &Arc<Repository>,
    plan: Plan,
    excludes: &Excludes,
    json: bool,
) -> anyhow::Result<Outcome> {
    let columns = ["VOLUME", "FILES", "SIZE", "NEW OR CHANGED"];
    let mut table = Table::new([
        Column::text(columns[0]),
        Column::number(columns[1]),
        Column::number(columns[2]),
        Column::text(columns[3]),
    ]);
    let mut rows = Vec::new();
    for source in &plan.sources {
        let listing = snapshot::last_listing(repo, source, &ctx.settings.state_dir).await?;
        let (root, keys, excludes) = (source.root.clone(), repo.keys().clone(), excludes.clone());
        let compare = move || snapshot::compare(&root, listing.map(|(_, l)| l), &excludes, &keys);
        let changes = tokio::task::spawn_blocking(compare).await??;
        let changed = changes.added + changes.changed;
        table.row([
            Cell::new(&source.name),
            Cell::new(format::count(changes.files)),
            Cell::new(format::size(changes.bytes)),
            Cell::new(format!("{}, {}", format::counted(changed, "object"), format::size(changes.changed_bytes))),
        ]);
        rows.push(serde_json::json!({
            "volume": source.name, "files": changes.files, "bytes": changes.bytes, "added": changes.added,
            "changed": changes.changed, "removed": changes.removed, "changed_bytes": changes.changed_bytes,
        }));
    }
    if json {
        ctx.ui.json(&rows)?
    } else {
        ctx.ui.table(&table)?
    }
    finish(ctx, plan.failures, plan.sources.len())?;
    Ok(Outcome::Done)
}
