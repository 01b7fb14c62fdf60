//! `voltool apply`: does what a plan has shown, or nothing.

use clap::Args;

use super::{CliError, Context, Outcome};

/// Do what a plan has shown, or nothing
#[derive(Debug, Clone, Default, Args)]
pub struct ApplyArgs {}

/// Runs the verb.
pub async fn run(_ctx: &Context, _args: ApplyArgs) -> anyhow::Result<Outcome> {
    Err(CliError::failed("not there yet").into())
}
