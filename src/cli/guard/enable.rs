//! `voltool guard enable`.

use clap::Args;

use crate::cli::{CliError, Context, Outcome};

/// Make an engine ask the guard
#[derive(Debug, Clone, Default, Args)]
pub struct EnableArgs {}

/// Runs the verb.
pub async fn run(_ctx: &Context, _args: EnableArgs) -> anyhow::Result<Outcome> {
    Err(CliError::failed("not there yet").into())
}
