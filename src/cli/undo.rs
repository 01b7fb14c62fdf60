//! `voltool undo`: what was removed, and back with it.

use clap::Args;

use super::{CliError, Context, Outcome};

/// Bring back what was removed through voltool
#[derive(Debug, Clone, Default, Args)]
pub struct UndoArgs {}

/// Runs the verb.
pub async fn run(_ctx: &Context, _args: UndoArgs) -> anyhow::Result<Outcome> {
    Err(CliError::failed("not there yet").into())
}
