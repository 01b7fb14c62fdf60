//! `voltool guard uninstall`.

use clap::Args;

use crate::cli::{CliError, Context, Outcome};

/// Take that docker command away
#[derive(Debug, Clone, Default, Args)]
pub struct UninstallArgs {}

/// Runs the verb.
pub async fn run(_ctx: &Context, _args: UninstallArgs) -> anyhow::Result<Outcome> {
    Err(CliError::failed("not there yet").into())
}
