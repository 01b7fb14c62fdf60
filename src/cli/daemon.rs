//! `voltool daemon`: the plugin and the catalog's feed.

use clap::Args;

use super::{CliError, Context, Outcome};

/// Run the plugin that the engine asks
#[derive(Debug, Clone, Default, Args)]
pub struct DaemonArgs {}

/// Runs the verb.
pub async fn run(_ctx: &Context, _args: DaemonArgs) -> anyhow::Result<Outcome> {
    Err(CliError::failed("not there yet").into())
}
