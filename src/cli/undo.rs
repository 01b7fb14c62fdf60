//! `voltool undo`: what was removed through voltool, and back with it.

use clap::Args;
use jiff::Timestamp;

use super::guarded::{GuardOptions, Guarded};
use super::plugin::daemon::Daemon;
use super::restore::{self, RestoreArgs};
use super::ui::{Cell, Column, Table, format};
use super::{CliError, Context, Kind, Outcome, open};
use crate::docker::{Engine, EngineErrorKind};
use crate::guard::Verdict;
use crate::guard::undo::{Notes, Removal, RemovedContainer, RemovedVolume, recreation};
use crate::inventory::{OWN_DRIVER, is_own_driver};

/// List what was removed through voltool, or bring it back
///
/// Volumes come back with their labels and options, and with the content of the snapshot that made it safe to remove them; volumes of
/// voltool's own driver that are in its trash come back from there, as they were.
/// Containers are made again from their definitions, on those volumes, and started if they ran; what was in their writable layer is gone.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  voltool undo                  what was removed, newest first
  voltool undo latest           bring back what the last command removed
  voltool undo 01JD             ... or an earlier one, by the beginning of its id")]
pub struct UndoArgs {
    /// What to bring back: an id from the list, its unique beginning, or 'latest'
    #[arg(value_name = "ID")]
    pub id: Option<String>,

    /// Bring back only the volumes
    #[arg(long, requires = "id")]
    pub volumes_only: bool,

    /// Print the list as JSON; definitions are in it, with the environment variables of containers
    #[arg(long, conflicts_with = "id")]
    pub json: bool,
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: UndoArgs) -> anyhow::Result<Outcome> {
    let notes = Notes::of(&ctx.settings.state_dir);
    let (mut removals, problems) = notes.list()?;
    for problem in &problems {
        ctx.ui.warn(&problem.to_string());
    }
    removals.reverse();
    let Some(id) = &args.id else {
        if args.json {
            ctx.ui.json(&removals)?;
        } else if removals.is_empty() {
            ctx.ui.note("nothing was removed through voltool");
        } else {
            ctx.ui.table(&table(&removals))?;
        }
        return Ok(Outcome::Done);
    };
    let mut removal = choose(removals, id)?;
    let guarded = Guarded::open(ctx, &GuardOptions::default()).await?;
    // The driver's notes name the engine under whose name its snapshots are: none if there was no need for one.
    let names = [guarded.judge.engine_name.as_str(), ctx.settings.plugin.shared_as.as_deref().unwrap_or_default(), ""];
    if !names.contains(&removal.engine.as_str()) {
        let message = format!(
            "{} was removed on engine {}, and this one is {}",
            removal.id, removal.engine, guarded.judge.engine_name
        );
        return Err(CliError::failed(message).into());
    }
    bring_back(ctx, &guarded, &mut removal, args.volumes_only).await?;
    // Only now: what failed can be tried again.
    notes.forget(&removal.id)?;
    guarded.inventory().await?;
    Ok(Outcome::Done)
}

fn choose(removals: Vec<Removal>, id: &str) -> Result<Removal, CliError> {
    let wanted = id.to_ascii_uppercase();
    let mut found: Vec<Removal> = match id {
        "latest" => removals.into_iter().take(1).collect(),
        _ => removals.into_iter().filter(|removal| removal.id.starts_with(&wanted)).collect(),
    };
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(CliError::failed(format!("nothing that was removed has the id {id}"))
            .hint("'voltool undo' lists what was removed")),
        n => Err(CliError::failed(format!("{n} removals have ids that begin with {id}")).hint("write more of it")),
    }
}

async fn bring_back(
    ctx: &Context,
    guarded: &Guarded<'_>,
    removal: &mut Removal,
    volumes_only: bool,
) -> anyhow::Result<()> {
    let engine = &guarded.engine;
    while let Some(volume) = removal.volumes.first() {
        if !removal.done && engine.volume(&volume.definition.name).await?.is_some() {
            ctx.ui.note(&format!("volume {} was not removed", volume.definition.name));
        } else {
            volume_back(ctx, guarded, volume).await?;
        }
        removal.volumes.remove(0);
        // What is back is not brought back a second time if something else fails now.
        guarded.notes().write(removal)?;
    }
    if volumes_only {
        return Ok(());
    }
    let mut failures = Vec::new();
    for container in sources_first(&removal.containers) {
        if !removal.done && engine.container(&container.id).await?.is_some() {
            ctx.ui.note(&format!("container {} was not removed", container.name));
            continue;
        }
        match container_back(ctx, engine, container, removal).await {
            Ok(()) => {
                ctx.ui.note(&format!("container {} is back, without what was in its writable layer", container.name))
            }
            Err(e) => failures.push((container.name.clone(), e)),
        }
    }
    if let Some((name, e)) = failures.pop() {
        for (name, e) in &failures {
            ctx.ui.warn(&format!("container {name} is not back: {}", super::error::message(e)));
        }
        let error = e.context(format!("the volumes are back, container {name} is not"));
        return Err(error);
    }
    Ok(())
}

async fn volume_back(ctx: &Context, guarded: &Guarded<'_>, removed: &RemovedVolume) -> anyhow::Result<()> {
    let definition = &removed.definition;
    let name = &definition.name;
    let there = guarded.engine.volume(name).await?;
    let own = is_own_driver(&definition.driver);
    if let Some(other) = there.as_ref().filter(|other| own != is_own_driver(&other.driver)) {
        let error = CliError::failed(format!("there is a volume {name} again, of driver {}", other.driver));
        return Err(error
            .hint("remove that one first; 'voltool restore' can restore into a volume of another name")
            .into());
    }
    let exists = there.is_some();
    if let Some(trash) = removed.trash.as_ref().filter(|_| own) {
        return from_trash(ctx, guarded, name, trash).await;
    }
    let Some(snapshot) = removed.snapshot.as_ref().filter(|_| definition.driver == "local" || own) else {
        if !exists {
            guarded.engine.create_volume(name, &definition.driver, &definition.labels, &definition.options).await?;
        }
        let what = match removed.verdict {
            Verdict::Safe => "what its options name is mounted again",
            Verdict::GivenUp | Verdict::Ephemeral => "its content was given up",
            _ => "there was nothing in it",
        };
        ctx.ui.note(&format!("volume {name} is back: {what}"));
        return Ok(());
    };
    let repo = guarded.repository()?;
    let records =
        repo.snapshots_of(&open::source_engine(ctx, &guarded.engine, &definition.driver), name).await?.records;
    let record = records.iter().find(|record| record.id == *snapshot).ok_or_else(|| {
        CliError::failed(format!(
            "snapshot {snapshot}, which holds the content of volume {name}, is not in the repository"
        ))
        .hint("'voltool snapshots' lists what there is")
    })?;
    if !exists {
        // From the note rather than from the snapshot: that is how it was when it was removed.
        guarded.engine.create_volume(name, &definition.driver, &definition.labels, &definition.options).await?;
    }
    restore::to_volume(ctx, repo, &guarded.engine, record, name, &RestoreArgs::default()).await.map_err(|e| {
        match super::error::judge(&e).kind {
            Kind::Refused => e.context(format!("volume {name} has come back already, and has other content")),
            _ => e,
        }
    })?;
    if removed.verdict != Verdict::Safe {
        ctx.ui.note(&format!("volume {name} is back as of snapshot {snapshot}; what changed after it was given up"));
    }
    Ok(())
}

/// The driver keeps what it has put into the trash as it was, labels and options included; the engine does not.
async fn from_trash(ctx: &Context, guarded: &Guarded<'_>, name: &str, trash: &str) -> anyhow::Result<()> {
    let daemon = Daemon::of(ctx);
    daemon.bring_back(trash).await?;
    let kept = daemon.volumes().await?.volumes;
    if let Some(back) = kept.iter().find(|volume| volume.name == name) {
        guarded.engine.create_volume(name, OWN_DRIVER, &back.labels, &back.options).await?;
    }
    ctx.ui.note(&format!("volume {name} is back from the trash, with all that was in it"));
    Ok(())
}

async fn container_back(
    ctx: &Context,
    engine: &Engine,
    removed: &RemovedContainer,
    removal: &Removal,
) -> anyhow::Result<()> {
    let name = &removed.name;
    if engine.container(name).await?.is_some() {
        return Err(CliError::failed(format!("there is a container {name} again already")).into());
    }
    let inspected = by_name(&removed.definition, removal);
    let sources = volumes_from(&inspected);
    let mut there = Vec::new();
    for source in sources {
        if engine.container(&source).await?.is_some() {
            there.push(source);
        }
    }
    let body = recreation(&inspected, |source| there.iter().any(|other| other == source));
    let id = engine.create_container(name, &body).await.map_err(|e| match e.kind {
        EngineErrorKind::NotFound => {
            let image = body["Image"].as_str().unwrap_or_default();
            anyhow::Error::from(e).context(
                CliError::failed("something that it needs is not there")
                    .hint(format!("`docker pull {image}`, and make the networks that it was on; then once more")),
            )
        }
        _ => e.into(),
    })?;
    if removed.running {
        engine.start_container(&id).await?;
    }
    ctx.ui.detail(&format!("container {name} is now {id}"));
    Ok(())
}

fn volumes_from(inspected: &serde_json::Value) -> Vec<String> {
    let entries = inspected.pointer("/HostConfig/VolumesFrom").and_then(|list| list.as_array());
    let source = |entry: &serde_json::Value| Some(entry.as_str()?.split(':').next()?.to_owned());
    entries.into_iter().flatten().filter_map(source).collect()
}

/// A definition may refer to another container by its id, and what comes back has a new one: its name stays.
fn by_name(inspected: &serde_json::Value, removal: &Removal) -> serde_json::Value {
    let mut inspected = inspected.clone();
    let entries = inspected.pointer_mut("/HostConfig/VolumesFrom").and_then(|list| list.as_array_mut());
    for entry in entries.into_iter().flatten() {
        let Some(text) = entry.as_str() else { continue };
        let (source, mode) = text.split_once(':').map_or((text, None), |(source, mode)| (source, Some(mode)));
        let known = removal.containers.iter().find(|other| other.name == source || other.id.starts_with(source));
        if let Some(known) = known {
            *entry = serde_json::json!(mode.map_or(known.name.clone(), |mode| format!("{}:{mode}", known.name)));
        }
    }
    inspected
}

/// Those that others take volumes from come before the others.
fn sources_first(containers: &[RemovedContainer]) -> Vec<&RemovedContainer> {
    let mut ordered: Vec<&RemovedContainer> = Vec::new();
    let mut waiting: Vec<&RemovedContainer> = containers.iter().collect();
    while !waiting.is_empty() {
        let is_ready = |container: &&RemovedContainer| {
            let sources = volumes_from(&container.definition);
            let other = |source: &String| {
                waiting.iter().any(|w| w.id != container.id && (w.name == *source || w.id.starts_with(source.as_str())))
            };
            !sources.iter().any(other)
        };
        // A circle cannot be; if there is one, the order does not matter.
        let at = waiting.iter().position(is_ready).unwrap_or(0);
        ordered.push(waiting.remove(at));
    }
    ordered
}

fn table(removals: &[Removal]) -> Table {
    let columns = ["ID", "WHEN", "COMMAND", "VOLUMES", "CONTAINERS"];
    let mut table = Table::new(columns.map(Column::text));
    let now = Timestamp::now();
    for removal in removals {
        let short = |name: &str| if name.len() == 64 { name[..12].to_owned() } else { name.to_owned() };
        let content = |volume: &RemovedVolume| match (&volume.snapshot, volume.verdict) {
            _ if volume.trash.is_some() => format!("{} (in the trash)", short(&volume.definition.name)),
            (Some(id), _) => format!("{} (snapshot {id})", short(&volume.definition.name)),
            (None, verdict) => format!("{} ({})", short(&volume.definition.name), verdict.as_str()),
        };
        let volumes: Vec<String> = removal.volumes.iter().map(content).collect();
        let containers: Vec<&str> = removal.containers.iter().map(|container| container.name.as_str()).collect();
        let note = if removal.done { "" } else { " (may be there still)" };
        table.row([
            Cell::new(&removal.id),
            Cell::new(format!("{}{note}", format::age(removal.time, now))),
            Cell::new(&removal.command),
            Cell::new(if volumes.is_empty() { "-".to_owned() } else { volumes.join("\n") }),
            Cell::new(if containers.is_empty() { "-".to_owned() } else { containers.join("\n") }),
        ]);
    }
    table
}
