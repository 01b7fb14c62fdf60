//! `voltool guard install`.

use clap::Args;

use crate::cli::{CliError, Context, Outcome};

/// Put a docker command in front of the real one that asks the guard
#[derive(Debug, Clone, Default, Args)]
pub struct InstallArgs {}

/// Runs the verb.
pub async fn run(_ctx: &Context, _args: InstallArgs) -> anyhow::Result<Outcome> {
    Err(CliError::failed("not there yet").into())
}
