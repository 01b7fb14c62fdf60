//! `voltool guard status`.

use clap::Args;

use crate::cli::{CliError, Context, Outcome};

/// Say where the guard is in place
#[derive(Debug, Clone, Default, Args)]
pub struct StatusArgs {}

/// Runs the verb.
pub async fn run(_ctx: &Context, _args: StatusArgs) -> anyhow::Result<Outcome> {
    Err(CliError::failed("not there yet").into())
}
