//! `voltool docker -- ARGS…`: the docker command, with the guard in front of what destroys.

use clap::Args;

use super::{CliError, Context, Outcome};

/// Run a docker command, with the guard in front of it
#[derive(Debug, Clone, Default, Args)]
pub struct DockerArgs {}

/// Runs the verb.
pub async fn run(_ctx: &Context, _args: DockerArgs) -> anyhow::Result<Outcome> {
    Err(CliError::failed("not there yet").into())
}
