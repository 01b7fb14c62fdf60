//! `voltool plugin status`.

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::daemon::{Daemon, Kept, KeptVolume};
use super::known::{Known, known};
use crate::cli::error::message;
use crate::cli::ui::{Cell, Column, Table, Tone, format};
use crate::cli::{Context, Outcome, open};
use crate::docker::Volumes;
use crate::driver::detach::Discarded;
use crate::inventory::is_own_driver;

/// Say whether the volume driver works, and what it keeps
///
/// Fails if the daemon does not answer. Names volumes that the engine has forgotten; 'voltool plugin heal' puts that in order.
#[derive(Debug, Clone, Default, Args)]
pub struct StatusArgs {
    /// Print an object as JSON
    #[arg(long)]
    pub json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Status<'a> {
    socket: &'a std::path::Path,
    daemon: &'a Value,
    /// Why the engine does not answer.
    engine_error: Option<&'a str>,
    /// The drivers of ours that it has used since it was started.
    drivers: &'a [String],
    volumes: Vec<Row<'a>>,
    trash: &'a [Discarded],
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    volume: &'a KeptVolume,
    /// Absent if the engine does not answer.
    known: Option<Known>,
}

/// What the engine says.
struct Answer {
    listed: Volumes,
    drivers: Vec<String>,
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: StatusArgs) -> anyhow::Result<Outcome> {
    let daemon = Daemon::of(ctx);
    let says = daemon.status().await?;
    let kept = daemon.volumes().await?;
    let engine = ask_engine(ctx).await.map_err(|e| message(&e));
    let known = |volume| engine.as_ref().ok().map(|answer| known(volume, &answer.listed.volumes));
    let rows: Vec<Row<'_>> = kept.volumes.iter().map(|volume| Row { volume, known: known(volume) }).collect();
    if args.json {
        ctx.ui.json(&Status {
            socket: daemon.socket(),
            daemon: &says,
            engine_error: engine.as_ref().err().map(String::as_str),
            drivers: engine.as_ref().map_or(&[], |answer| answer.drivers.as_slice()),
            volumes: rows,
            trash: &kept.trash,
        })?;
        return Ok(Outcome::Done);
    }
    let knows = match &engine {
        Ok(answer) if answer.drivers.is_empty() => {
            "answers, and has not asked for the driver; 'docker volume ls' makes it look".to_owned()
        }
        Ok(answer) => format!("answers, and knows the driver {}", answer.drivers.join(", ")),
        Err(why) => format!("does not answer: {why}"),
    };
    ctx.ui.print(&format!(
        "daemon:  answers on {}: process {}\nengine:  {knows}",
        daemon.socket().display(),
        says["pid"]
    ))?;
    if !rows.is_empty() {
        ctx.ui.print("\n")?;
        ctx.ui.table(&table(&rows))?;
    }
    if !kept.trash.is_empty() {
        ctx.ui.print("\n")?;
        ctx.ui.table(&trash(&kept))?;
    }
    say_what_is_wrong(ctx, &rows);
    Ok(Outcome::Done)
}

async fn ask_engine(ctx: &Context) -> anyhow::Result<Answer> {
    let engine = open::engine(ctx).await?;
    // First: it makes the engine look for drivers.
    let listed = engine.volumes().await?;
    let mut drivers = engine.volume_drivers().await?;
    drivers.retain(|driver| is_own_driver(driver));
    Ok(Answer { listed, drivers })
}

fn say_what_is_wrong(ctx: &Context, rows: &[Row<'_>]) {
    let mut forgotten = Vec::new();
    for Row { volume, known } in rows {
        match known {
            _ if volume.detached => ctx.ui.warn(&format!(
                "volume {} was let go of by 'voltool plugin uninstall'; 'voltool plugin heal' takes it back",
                volume.name
            )),
            Some(Known::Shadowed(driver)) => ctx.ui.warn(&format!(
                "volume {0} is hidden by another one of that name (driver {driver}): containers that are started get that one, and \
                 the data is in {1}",
                volume.name,
                volume.folder.display()
            )),
            Some(Known::Forgotten) => forgotten.push(volume.name.as_str()),
            _ => {}
        }
    }
    if !forgotten.is_empty() {
        ctx.ui.warn(&format!(
            "the engine has forgotten labels and options of {}; 'voltool plugin heal' tells it again",
            forgotten.join(", ")
        ));
    }
}

fn table(rows: &[Row<'_>]) -> Table {
    let mut table = Table::new([
        Column::text("VOLUME"),
        Column::text("STATE"),
        Column::number("MOUNTS"),
        Column::number("SIZE"),
        Column::text("NEWEST SNAPSHOT"),
        Column::text("CHANGED SINCE"),
        Column::text("TROUBLE"),
    ]);
    let now = Timestamp::now();
    for Row { volume, known } in rows {
        let status = &volume.status;
        let number = |key: &str| status.get(key).and_then(Value::as_u64);
        let time = status.get("newest_snapshot_time").and_then(Value::as_str).and_then(|time| time.parse().ok());
        let looked = status.contains_key("as_of");
        let changed = match status.get("changed_since") {
            Some(changed) => match (changed["objects"].as_u64().unwrap_or(0), changed["bytes"].as_u64().unwrap_or(0)) {
                (0, _) => "nothing".to_owned(),
                (objects, bytes) => format!("{} ({})", format::counted(objects, "object"), format::size(bytes)),
            },
            None => "-".to_owned(),
        };
        let trouble = match known {
            Some(Known::Shadowed(driver)) => format!("HIDDEN by a volume of driver {driver}"),
            Some(Known::Forgotten) => "forgotten by the engine".to_owned(),
            _ => status.get("last_error").and_then(Value::as_str).unwrap_or_default().to_owned(),
        };
        let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        table.row([
            Cell::new(&volume.name),
            Cell::new(status.get("state").and_then(Value::as_str).unwrap_or("-")),
            Cell::new(number("mounts").unwrap_or(0).to_string()),
            Cell::new(number("size_bytes").map_or("-".to_owned(), format::size)),
            Cell::new(match time {
                Some(time) => format::age(time, now),
                None if looked => "none".to_owned(),
                None => "-".to_owned(),
            }),
            Cell::new(changed),
            Cell::new(dash(trouble.clone())).tone(if trouble.is_empty() { Tone::Plain } else { Tone::Bad }),
        ]);
    }
    table
}

fn trash(kept: &Kept) -> Table {
    let mut table = Table::new(["IN THE TRASH", "REMOVED", "KEPT UNTIL", "BACK WITH"].map(Column::text));
    let now = Timestamp::now();
    for discarded in &kept.trash {
        let removed = &discarded.removed;
        table.row([
            Cell::new(&discarded.volume),
            Cell::new(format::age(removed.time, now)),
            Cell::new(removed.keep_until.map_or("-".to_owned(), format::utc)),
            Cell::new(format!("voltool undo {}", removed.note)),
        ]);
    }
    table
}
