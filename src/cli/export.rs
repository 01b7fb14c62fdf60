//! `voltool export`: from a snapshot to a tar.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::snapshot_ref::{self, SnapshotRef};
use super::ui::format;
use super::{CliError, Context, Outcome, open};
use crate::restore::export::to_tar;

/// Write a snapshot to standard output as a tar
///
/// The tar is POSIX (pax), with nanosecond times and extended attributes. Needs no engine.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  voltool export db > db.tar
  voltool export db@2026-11-20 --path pg_wal | tar --extract --directory /tmp/db")]
pub struct ExportArgs {
    /// What to export; SNAPSHOT is as in 'voltool restore'
    #[arg(value_name = "VOLUME[@SNAPSHOT]", value_parser = snapshot_ref::parse_argument)]
    pub source: SnapshotRef,

    /// Export only this file or folder, as a path from the volume's root; repeatable
    #[arg(long, value_name = "SUBPATH")]
    pub path: Vec<PathBuf>,

    /// Take snapshots of the engine of this name; needed only where several engines have a volume of that name
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub engine: Option<String>,
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: ExportArgs) -> anyhow::Result<Outcome> {
    if ctx.ui.stdout_is_terminal() {
        return Err(CliError::usage("a tar makes no sense on a terminal")
            .hint(format!("voltool export {} > {}.tar", args.source.volume, args.source.volume))
            .into());
    }
    let repo = open::repository(ctx).await?;
    let (records, _) = open::snapshots(ctx, &repo).await?;
    let record = open::pick(&records, &args.source, args.engine.as_deref())?;
    let selection = open::selection(&args.path);
    let out = std::io::BufWriter::with_capacity(1 << 20, ctx.ui.bulk_output()?);
    let task = ctx.ui.task("exporting", "exported", &record.volume);
    let monitor = task.clone();
    let written =
        tokio::task::spawn_blocking(move || to_tar(&repo, &record, &selection, out, &monitor, &AtomicBool::new(false)));
    let problems = written.await??;
    task.done(&format::counted(problems.len() as u64, "problem"));
    Ok(if problems.is_empty() { Outcome::Done } else { Outcome::Incomplete })
}
