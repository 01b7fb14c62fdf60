//! `voltool backup`: from volumes to snapshots.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use globset::Glob;

use super::{CliError, Context, Outcome};

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

/// Runs the verb.
pub async fn run(_ctx: &Context, _args: BackupArgs) -> anyhow::Result<Outcome> {
    Err(CliError::failed("backup is not built into this voltool").into())
}
