//! `voltool export`: from a snapshot to a tar.

use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::snapshot_ref::{self, SnapshotRef};
use super::{CliError, Context, Outcome};

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
pub async fn run(_ctx: &Context, _args: ExportArgs) -> anyhow::Result<Outcome> {
    Err(CliError::failed("export is not built into this voltool").into())
}
