//! `voltool restore`: from snapshots to volumes or a directory.

use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::snapshot_ref::{self, SnapshotRef};
use super::{CliError, Context, Outcome};

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
    #[arg(long, value_name = "SUBPATH")]
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

    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the verb.
pub async fn run(_ctx: &Context, _args: RestoreArgs) -> anyhow::Result<Outcome> {
    Err(CliError::failed("restore is not built into this voltool").into())
}
