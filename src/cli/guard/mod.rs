//! `voltool guard …`: puts the guard in front of a docker command or an engine, and takes it away.

pub mod disable;
pub mod enable;
mod engine_config;
mod engine_process;
pub mod install;
pub mod status;
pub mod uninstall;

use clap::{Args, Subcommand};

use super::{Context, Outcome};

/// Put the guard in place
#[derive(Debug, Args)]
pub struct GuardArgs {
    /// What to do.
    #[command(subcommand)]
    pub verb: GuardVerb,
}

/// What to do.
#[derive(Debug, Subcommand)]
#[allow(missing_docs)] // The help of a verb is the doc comment on its arguments; one here would replace it.
pub enum GuardVerb {
    Install(install::InstallArgs),
    Uninstall(uninstall::UninstallArgs),
    Enable(enable::EnableArgs),
    Disable(disable::DisableArgs),
    Status(status::StatusArgs),
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: GuardArgs) -> anyhow::Result<Outcome> {
    match args.verb {
        GuardVerb::Install(args) => install::run(ctx, args).await,
        GuardVerb::Uninstall(args) => uninstall::run(ctx, args).await,
        GuardVerb::Enable(args) => enable::run(ctx, args).await,
        GuardVerb::Disable(args) => disable::run(ctx, args).await,
        GuardVerb::Status(args) => status::run(ctx, args).await,
    }
}
