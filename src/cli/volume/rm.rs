//! `voltool volume rm`.

use clap::Args;

use crate::cli::{CliError, Context, Outcome};

/// Remove volumes, unless data would be lost
#[derive(Debug, Clone, Default, Args)]
pub struct RmArgs {}

/// Runs the verb.
pub async fn run(_ctx: &Context, _args: RmArgs) -> anyhow::Result<Outcome> {
    Err(CliError::failed("not there yet").into())
}
