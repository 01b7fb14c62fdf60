//! `voltool audit`: storage traps.

use clap::Args;

use super::{CliError, Context, Outcome};

/// Look for storage traps
#[derive(Debug, Clone, Default, Args)]
pub struct AuditArgs {}

/// Runs the verb.
pub async fn run(_ctx: &Context, _args: AuditArgs) -> anyhow::Result<Outcome> {
    Err(CliError::failed("not there yet").into())
}
