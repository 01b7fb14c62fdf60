//! `voltool guard disable`.

use clap::Args;

use crate::cli::{CliError, Context, Outcome};

/// Make an engine stop asking the guard
#[derive(Debug, Clone, Default, Args)]
pub struct DisableArgs {}

/// Runs the verb.
pub async fn run(_ctx: &Context, _args: DisableArgs) -> anyhow::Result<Outcome> {
    Err(CliError::failed("not there yet").into())
}
