//! `voltool system prune`.

use clap::Args;

use crate::cli::{CliError, Context, Outcome};

/// Remove what is unused, unless data would be lost
#[derive(Debug, Clone, Default, Args)]
pub struct PruneArgs {}

/// Runs the verb.
pub async fn run(_ctx: &Context, _args: PruneArgs) -> anyhow::Result<Outcome> {
    Err(CliError::failed("not there yet").into())
}
