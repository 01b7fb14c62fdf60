//! `voltool ls`: what is there.

use std::sync::Arc;

use clap::Args;

use jiff::Timestamp;
use serde::Serialize;

use super::ui::{Cell, Column, Table, Tone, format};
use super::{CliError, Context, Outcome, open};
use crate::docker::Engine;
use crate::driver;
use crate::inventory::catalog::Use;
use crate::inventory::{AccessError, Inventory, Kind, VolumeInfo, readable_root};
use crate::repo::{Keys, Repository, SnapshotRecord};
use crate::snapshot::{self, Excludes};

/// List the engine's volumes: who uses them, and whether they are safe
///
/// What needs attention comes first. A volume is at risk if its content is in no snapshot.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  voltool ls
  voltool ls --json | jq -r '.[] | select(.at_risk) | .name'")]
pub struct LsArgs {
    /// Print an array of objects as JSON
    #[arg(long)]
    pub json: bool,
}

/// The newest snapshot of a volume, as `--json` prints it.
#[derive(Debug, Clone, Serialize)]
pub struct Newest {
    /// The snapshot's id.
    pub id: String,
    /// When its scan began.
    pub time: Timestamp,
    /// How long ago that is, in seconds.
    pub age_seconds: i64,
}

/// One volume, as `--json` prints it.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What the engine knows.
    #[serde(flatten)]
    pub volume: VolumeInfo,
    /// The apparent size of its files in bytes, hard-linked ones once; absent if it cannot be read.
    pub size_bytes: Option<u64>,
    /// Its regular files; absent if it cannot be read.
    pub files: Option<u64>,
    /// Its newest snapshot, if there is one.
    pub newest_snapshot: Option<Newest>,
    /// Objects that differ from the newest snapshot; absent if that is not known.
    pub changed: Option<u64>,
    /// Whether it holds content that is in no snapshot, as far as can be told.
    pub at_risk: bool,
    /// Why it is or is not.
    pub reason: String,
    /// Of a volume that no container uses: who used it last, as far as the catalog remembers.
    pub last_used_by: Option<String>,
    /// When that was seen last.
    pub last_used_at: Option<Timestamp>,
    /// The same in parts, for the table.
    #[serde(skip)]
    pub last_use: Option<Use>,
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: LsArgs) -> anyhow::Result<Outcome> {
    let engine = open::engine(ctx).await?;
    let catalog = open::catalog(ctx);
    let inventory = open::inventory_noted(ctx, &engine, catalog.as_ref()).await?;
    for warning in &inventory.warnings {
        ctx.ui.warn(warning);
    }
    // Without a repository there is still something to see; but a repository that should be there and cannot be read is a failure.
    let (repo, failure) = match ctx.settings.repo {
        None => (None, None),
        Some(_) => match open::repository(ctx).await {
            Ok(repo) => (Some(repo), None),
            Err(e) => (None, Some(e)),
        },
    };
    let why_none = match (&repo, &failure) {
        (None, None) => "no repository is configured",
        _ => "the repository cannot be read",
    };
    let records = match &repo {
        Some(repo) => open::snapshots(ctx, repo).await?.0,
        None => Vec::new(),
    };
    let mut rows = Vec::new();
    for volume in &inventory.volumes {
        let mut row = look(ctx, &engine, &inventory, volume, repo.as_ref(), &records, why_none).await?;
        if let Some(catalog) = catalog.as_ref().filter(|_| volume.is_dangling()) {
            // If it cannot be read, that was said when it could not be written.
            row.last_use = catalog.last_use(&engine.info().key(), &volume.name).ok().flatten();
            row.last_used_by = row.last_use.as_ref().map(Use::describe);
            row.last_used_at = row.last_use.as_ref().map(|last| last.last_seen);
        }
        rows.push(row);
    }
    // What needs attention first: at risk, the larger the worse; then by name.
    rows.sort_by(|a, b| {
        let key =
            |r: &Row| (!r.at_risk, std::cmp::Reverse(if r.at_risk { r.size_bytes.unwrap_or(u64::MAX) } else { 0 }));
        key(a).cmp(&key(b)).then_with(|| a.volume.name.cmp(&b.volume.name))
    });
    if args.json {
        ctx.ui.json(&rows)?;
    } else if rows.is_empty() {
        ctx.ui.note("the engine has no volumes");
    } else {
        ctx.ui.table(&table(&rows))?;
    }
    match failure {
        Some(e) => Err(e),
        None if inventory.warnings.is_empty() => Ok(Outcome::Done),
        None => Ok(Outcome::Incomplete),
    }
}

#[allow(clippy::too_many_arguments)]
async fn look(
    ctx: &Context,
    engine: &Engine,
    inventory: &Inventory,
    volume: &VolumeInfo,
    repo: Option<&Arc<Repository>>,
    records: &[Arc<SnapshotRecord>],
    why_none: &str,
) -> anyhow::Result<Row> {
    let name = open::source_engine(ctx, engine, &volume.driver);
    let newest = records.iter().rfind(|r| r.engine == name && r.volume == volume.name);
    let mut row = Row {
        volume: volume.clone(),
        size_bytes: None,
        files: None,
        newest_snapshot: newest.map(|r| Newest {
            id: r.id.clone(),
            time: r.time,
            age_seconds: Timestamp::now().as_second() - r.time.as_second(),
        }),
        changed: None,
        at_risk: true,
        reason: String::new(),
        last_used_by: None,
        last_used_at: None,
        last_use: None,
    };
    let root = match readable_root(volume, engine) {
        Ok(root) => root,
        Err(e @ AccessError::Memory { .. }) => {
            row.at_risk = false;
            row.reason = e.to_string();
            return Ok(row);
        }
        Err(_) if driver::is_to_be_restored(volume) => {
            row.at_risk = false;
            row.reason = "to be restored when it is mounted".to_owned();
            return Ok(row);
        }
        Err(e) => {
            row.reason = e.to_string();
            return Ok(row);
        }
    };
    let source = super::backup::source_of(ctx, engine, inventory, volume, root.clone());
    let listing = match repo {
        Some(repo) => snapshot::last_listing(repo, &source, &ctx.settings.state_dir).await?,
        None => None,
    };
    let keys = repo.map_or_else(Keys::plain, |repo| repo.keys().clone());
    let compared = listing.as_ref().map(|(record, _)| record.clone());
    let patterns = compared.as_ref().map(|r| r.excludes.clone()).unwrap_or_default();
    let excludes = Excludes::new(patterns).map_err(CliError::failed)?;
    let compare = move || snapshot::compare(&root, listing.map(|(_, l)| l), &excludes, &keys);
    let changes = match tokio::task::spawn_blocking(compare).await? {
        Ok(changes) => changes,
        Err(e) => {
            row.reason = e.to_string();
            return Ok(row);
        }
    };
    row.size_bytes = Some(changes.bytes);
    row.files = Some(changes.files);
    if let Some(problem) = changes.problems.first() {
        row.reason = format!("cannot be read: {problem}");
        return Ok(row);
    }
    let differing = changes.added + changes.changed + changes.removed;
    match compared {
        None if changes.added == 0 => {
            row.at_risk = false;
            row.reason = "empty".to_owned();
        }
        None if repo.is_none() => row.reason = why_none.to_owned(),
        None => row.reason = "no snapshot".to_owned(),
        Some(record) => {
            row.changed = Some(differing);
            if differing > 0 {
                row.reason = format!(
                    "{} changed since snapshot {}, {} to be stored",
                    format::counted(differing, "object"),
                    record.id,
                    format::size(changes.changed_bytes)
                );
            } else if !record.errors.is_empty() {
                row.reason =
                    format!("snapshot {} has {}", record.id, format::counted(record.errors.len() as u64, "problem"));
            } else {
                row.at_risk = false;
                row.reason = format!("unchanged since snapshot {}", record.id);
            }
        }
    }
    Ok(row)
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new([
        Column::text("VOLUME"),
        Column::text("KIND"),
        Column::text("DRIVER"),
        Column::number("SIZE"),
        Column::text("PROJECT"),
        Column::text("USED BY"),
        Column::text("SNAPSHOT"),
        Column::text("STATUS"),
    ]);
    for row in rows {
        let volume = &row.volume;
        let user = |u: &crate::inventory::Usage| {
            let ro = if u.rw { "" } else { ":ro" };
            let kind = if u.data_only { ", data-only" } else { "" };
            format!("{} ({}{kind}) {}{ro}", u.name, u.state, u.path)
        };
        let mut users: Vec<String> = volume.used_by.iter().map(user).collect();
        if let Some(last) = &row.last_use {
            let age = format::age(last.last_seen, Timestamp::now());
            users.push(format!("last: {} ({}), {age}", last.container, last.image));
        }
        let newest = row.newest_snapshot.as_ref();
        let (word, tone) = if row.at_risk { ("AT RISK: ", Tone::Bad) } else { ("", Tone::Good) };
        table.row([
            Cell::new(&volume.name),
            Cell::new(if volume.kind == Kind::Anonymous { "anonymous" } else { "named" }),
            Cell::new(&volume.driver),
            Cell::new(row.size_bytes.map_or("?".to_owned(), format::size)),
            Cell::new(volume.compose_project.as_deref().unwrap_or("-")),
            Cell::new(if users.is_empty() { "-".to_owned() } else { users.join("\n") }),
            Cell::new(newest.map_or("-".to_owned(), |n| format::age(n.time, Timestamp::now()))),
            Cell::new(format!("{word}{}", row.reason)).tone(tone),
        ]);
    }
    table
}
