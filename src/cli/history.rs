//! `voltool history`: who used a volume, and when.

use clap::Args;

use super::{CliError, Context, Outcome};

/// Show who used a volume, and when
#[derive(Debug, Clone, Default, Args)]
pub struct HistoryArgs {}

/// Runs the verb.
pub async fn run(_ctx: &Context, _args: HistoryArgs) -> anyhow::Result<Outcome> {
    Err(CliError::failed("not there yet").into())
}
