//! `voltool ls`: what is there.

use clap::Args;

use super::{CliError, Context, Outcome};

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

/// Runs the verb.
pub async fn run(_ctx: &Context, _args: LsArgs) -> anyhow::Result<Outcome> {
    Err(CliError::failed("ls is not built into this voltool").into())
}
