//! `voltool snapshots`: what is in the repository.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use serde::Serialize;

use super::ui::{Cell, Column, Table, Tone, format};
use super::{CliError, Context, Outcome, open};
use crate::repo::{FileProblem, SnapshotRecord, SourceKind};

/// List snapshots, newest last
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  voltool snapshots
  voltool snapshots db --json | jq -r '.[-1].id'")]
pub struct SnapshotsArgs {
    /// Only those of this volume
    #[arg(value_name = "VOLUME", value_parser = super::snapshot_ref::parse_volume_name)]
    pub volume: Option<String>,

    /// Only those of this engine
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub engine: Option<String>,

    /// Print an array of objects as JSON
    #[arg(long)]
    pub json: bool,
}

/// One snapshot, as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct SnapshotRow<'a> {
    /// The snapshot's id.
    pub id: &'a str,
    /// The volume's name.
    pub volume: &'a str,
    /// The engine's name.
    pub engine: &'a str,
    /// `volume` or `path`.
    pub kind: SourceKind,
    /// When the scan began.
    pub time: jiff::Timestamp,
    /// Regular files.
    pub files: u64,
    /// Their apparent size in bytes.
    pub bytes: u64,
    /// Bytes that no snapshot had before.
    pub added_bytes: u64,
    /// What these took in the repository, in bytes.
    pub stored_bytes: u64,
    /// What could not be stored as it was.
    pub errors: &'a [FileProblem],
    /// Tags.
    pub tags: &'a [String],
}

impl<'a> SnapshotRow<'a> {
    /// The row of a record.
    pub fn of(record: &'a SnapshotRecord) -> Self {
        SnapshotRow {
            id: &record.id,
            volume: &record.volume,
            engine: &record.engine,
            kind: record.kind,
            time: record.time,
            files: record.files,
            bytes: record.bytes,
            added_bytes: record.added_bytes,
            stored_bytes: record.stored_bytes,
            errors: &record.errors,
            tags: &record.tags,
        }
    }
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: SnapshotsArgs) -> anyhow::Result<Outcome> {
    let repo = open::repository_without_index(ctx).await?;
    let (all, damaged) = open::snapshots(ctx, &repo).await?;
    let wanted = |r: &&std::sync::Arc<SnapshotRecord>| {
        args.volume.as_ref().is_none_or(|v| *v == r.volume) && args.engine.as_ref().is_none_or(|e| *e == r.engine)
    };
    let records: Vec<_> = all.iter().filter(wanted).collect();
    if let (Some(volume), true) = (&args.volume, records.is_empty()) {
        let error = CliError::failed(format!("there is no snapshot of {volume}"));
        let nearest = crate::inventory::nearest(volume, all.iter().map(|r| r.volume.as_str()));
        return Err(match nearest {
            Some(nearest) => error.hint(format!("did you mean {nearest}?")),
            None => error.hint("'voltool snapshots' lists what there is"),
        }
        .into());
    }
    if args.json {
        ctx.ui.json(&records.iter().map(|r| SnapshotRow::of(r)).collect::<Vec<_>>())?;
    } else {
        let mut table = Table::new([
            Column::text("ID"),
            Column::text("VOLUME"),
            Column::text("ENGINE"),
            Column::text("TIME"),
            Column::number("FILES"),
            Column::number("SIZE"),
            Column::number("ADDED"),
            Column::text("NOTES"),
        ]);
        let zone = jiff::tz::TimeZone::system();
        for r in &records {
            let mut notes = r.tags.clone();
            if !r.errors.is_empty() {
                notes.push(format::counted(r.errors.len() as u64, "problem"));
            }
            let tone = if r.errors.is_empty() { Tone::Plain } else { Tone::Warn };
            table.row([
                Cell::new(&r.id),
                Cell::new(&r.volume),
                Cell::new(&r.engine),
                Cell::new(format::local(r.time, &zone)),
                Cell::new(format::count(r.files)),
                Cell::new(format::size(r.bytes)),
                Cell::new(format::size(r.added_bytes)),
                Cell::new(notes.join(" ")).tone(tone),
            ]);
        }
        if table.is_empty() {
            ctx.ui.note("there are no snapshots yet");
        } else {
            ctx.ui.table(&table)?;
        }
    }
    Ok(if damaged { Outcome::Incomplete } else { Outcome::Done })
}
