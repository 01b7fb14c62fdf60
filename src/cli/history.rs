//! `voltool history`: who used a volume, and when.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::ui::{Cell, Column, Table, Tone, format};
use super::{CliError, Context, Outcome, open};
use crate::docker::EngineErrorKind;
use crate::inventory::catalog::{EngineRecord, Incarnation, Use, VolumeHistory, VolumeSummary};
use crate::inventory::{Catalog, Kind};

/// Show who used a volume, and when, also of volumes that are gone
///
/// What voltool knows is what it has seen: whenever one of its commands looks at the engine, and all the time while its daemon runs.
/// Without a name, lists every volume that was ever seen, the one that something happened to last first.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  voltool history
  voltool history db
  voltool history 3f2a                                an anonymous volume, by the beginning of its name
  voltool history --json | jq -r '.volumes[] | select(.removed_at) | .name'")]
pub struct HistoryArgs {
    /// The volume's name; of an anonymous volume, the beginning is enough
    #[arg(value_name = "VOLUME", value_parser = NonEmptyStringValueParser::new())]
    pub volume: Option<String>,

    /// Print an object as JSON
    #[arg(long)]
    pub json: bool,
}

/// What is printed as JSON: which engine it is about, and what is known.
#[derive(Debug, Serialize)]
struct Answer<'a, T: Serialize> {
    engine: &'a EngineRecord,
    #[serde(flatten)]
    content: T,
}

/// The part of [`Answer`] that lists.
#[derive(Debug, Serialize)]
struct Listing<'a> {
    volumes: &'a [VolumeSummary],
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: HistoryArgs) -> anyhow::Result<Outcome> {
    // Here it is not an aid but what was asked for: if it cannot be read, that is the failure.
    let catalog = Catalog::open(&open::catalog_path(ctx))?;
    let engine = engine(ctx, &catalog).await?;
    match &args.volume {
        None => list(ctx, &catalog, &engine, args.json)?,
        Some(volume) => show(ctx, &catalog, &engine, volume, args.json)?,
    }
    Ok(Outcome::Done)
}

/// The engine that is meant, looked at once more if it answers; else the one that was seen last.
async fn engine(ctx: &Context, catalog: &Catalog) -> anyhow::Result<EngineRecord> {
    let scanned = async {
        let engine = open::engine(ctx).await?;
        let at = Timestamp::now();
        let inventory = crate::inventory::Inventory::scan(&engine).await?;
        anyhow::Ok((engine, inventory, at))
    };
    let error = match scanned.await {
        Ok((engine, inventory, at)) => {
            let info = engine.info();
            if let Err(error) = open::note(catalog, &engine, &inventory, at) {
                ctx.ui.warn(&error.in_one_line());
            }
            let (key, name, version) = (info.key(), info.name.clone(), info.version.clone());
            return Ok(EngineRecord { key, name, version, last_seen: at });
        }
        Err(error) => error,
    };
    let of_engine = error.downcast_ref::<crate::docker::EngineError>();
    if of_engine.is_some_and(|e| matches!(e.kind, EngineErrorKind::Settings | EngineErrorKind::Unsupported)) {
        return Err(error);
    }
    let Some(last) = catalog.engines()?.into_iter().next() else { return Err(error) };
    ctx.ui.warn(&format!("{error}; this is what was known of the engine {} {}", called(&last), when(last.last_seen)));
    Ok(last)
}

fn called(engine: &EngineRecord) -> &str {
    if engine.name.is_empty() { &engine.key } else { &engine.name }
}

fn when(time: Timestamp) -> String {
    format::age(time, Timestamp::now())
}

fn list(ctx: &Context, catalog: &Catalog, engine: &EngineRecord, json: bool) -> anyhow::Result<()> {
    let volumes = catalog.volumes(&engine.key)?;
    if json {
        return ctx.ui.json(&Answer { engine, content: Listing { volumes: &volumes } });
    }
    if volumes.is_empty() {
        ctx.ui.note("no volume was ever seen on this engine");
        return Ok(());
    }
    let mut table = Table::new([
        Column::text("VOLUME"),
        Column::text("KIND"),
        Column::text("PROJECT"),
        Column::text("LAST USED BY"),
        Column::text("LAST USED"),
        Column::text("STATUS"),
    ]);
    for volume in &volumes {
        let last = volume.last_use.as_ref();
        let (status, tone) = match volume.removed_at {
            None => ("there".to_owned(), Tone::Plain),
            Some(at) => (removal(at, volume.removed_by.as_deref()), Tone::Faint),
        };
        table.row([
            Cell::new(&volume.name),
            Cell::new(kind(volume.kind)),
            Cell::new(volume.compose_project.as_deref().unwrap_or("-")),
            Cell::new(last.map_or("-".to_owned(), |last| format!("{} ({}) {}", last.container, last.image, last.path))),
            Cell::new(last.map_or("-".to_owned(), |last| when(last.last_seen))),
            Cell::new(status).tone(tone),
        ]);
    }
    ctx.ui.table(&table)
}

fn show(ctx: &Context, catalog: &Catalog, engine: &EngineRecord, volume: &str, json: bool) -> anyhow::Result<()> {
    let Some(history) = catalog.history(&engine.key, volume)? else {
        return Err(unknown(catalog, engine, volume)?.into());
    };
    if json {
        return ctx.ui.json(&Answer { engine, content: &history });
    }
    for (at, incarnation) in history.incarnations.iter().enumerate() {
        if at > 0 {
            ctx.ui.print("")?;
        }
        ctx.ui.print(&heading(&history, incarnation))?;
        if incarnation.uses.is_empty() {
            ctx.ui.print("no container was seen to use it")?;
        } else {
            ctx.ui.table(&uses(&incarnation.uses))?;
        }
    }
    Ok(())
}

fn unknown(catalog: &Catalog, engine: &EngineRecord, volume: &str) -> anyhow::Result<CliError> {
    let several = catalog.matching(&engine.key, volume)?;
    if !several.is_empty() {
        let all = several.join(", ");
        return Ok(
            CliError::failed(format!("several volumes begin with {volume}: {all}")).hint("give more of the name")
        );
    }
    let error = CliError::failed(format!("no volume {volume} was ever seen on the engine {}", called(engine)));
    let known = catalog.volumes(&engine.key)?;
    Ok(match crate::inventory::nearest(volume, known.iter().map(|volume| volume.name.as_str())) {
        Some(nearest) => error.hint(format!("did you mean {nearest}?")),
        None => error.hint("'voltool history' lists what was seen"),
    })
}

/// `db: named, local, project shop; first seen …, removed …`
fn heading(history: &VolumeHistory, incarnation: &Incarnation) -> String {
    let zone = TimeZone::system();
    let mut facts = Vec::new();
    if incarnation.kind.is_some() {
        facts.push(kind(incarnation.kind).to_owned());
        facts.push(format!("driver {}", incarnation.driver));
    }
    facts.extend(incarnation.compose_project.as_ref().map(|project| format!("project {project}")));
    facts.push(format!("first seen {}", format::local(incarnation.first_seen, &zone)));
    facts.push(match incarnation.removed_at {
        None => format!("last seen {}", format::local(incarnation.last_seen, &zone)),
        Some(at) => removal(at, incarnation.removed_by.as_deref()),
    });
    super::error::escape_controls(&format!("{}: {}", history.name, facts.join(", ")))
}

fn removal(at: Timestamp, by: Option<&str>) -> String {
    let when = when(at);
    match by {
        Some(by) => format!("removed {when} ({by})"),
        None => format!("found to be gone {when}"),
    }
}

fn kind(kind: Option<Kind>) -> &'static str {
    match kind {
        Some(Kind::Named) => "named",
        Some(Kind::Anonymous) => "anonymous",
        None => "-",
    }
}

fn uses(uses: &[Use]) -> Table {
    let mut table = Table::new([
        Column::text("CONTAINER"),
        Column::text("IMAGE"),
        Column::text("PATH"),
        Column::text("PROJECT"),
        Column::text("FIRST SEEN"),
        Column::text("LAST SEEN"),
        Column::text("CONTAINER ID"),
    ]);
    let zone = TimeZone::system();
    for one in uses {
        let project = match (&one.project, &one.service) {
            (Some(project), Some(service)) => format!("{project}/{service}"),
            (project, service) => project.as_ref().or(service.as_ref()).map_or("-", String::as_str).to_owned(),
        };
        table.row([
            Cell::new(&one.container),
            Cell::new(&one.image),
            Cell::new(format!("{}{}", one.path, if one.rw { "" } else { ":ro" })),
            Cell::new(project),
            Cell::new(format::local(one.first_seen, &zone)),
            Cell::new(format::local(one.last_seen, &zone)),
            Cell::new(one.container_id.chars().take(12).collect::<String>()),
        ]);
    }
    table
}
