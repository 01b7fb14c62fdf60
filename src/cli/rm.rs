//! `voltool rm`: removes containers, and refuses where data would go with them.

use clap::Args;

use super::{CliError, Context, Outcome};

/// Remove containers, unless data would be lost
#[derive(Debug, Clone, Default, Args)]
pub struct RmArgs {}

/// Runs the verb.
pub async fn run(_ctx: &Context, _args: RmArgs) -> anyhow::Result<Outcome> {
    Err(CliError::failed("not there yet").into())
}
