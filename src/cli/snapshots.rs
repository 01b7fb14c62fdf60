//! `voltool snapshots`: what is in the repository.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::{CliError, Context, Outcome};

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

/// Runs the verb.
pub async fn run(_ctx: &Context, _args: SnapshotsArgs) -> anyhow::Result<Outcome> {
    Err(CliError::failed("snapshots is not built into this voltool").into())
}
