//! `voltool plugin …`: the volume driver beside an engine: whether it works, putting it in order, and setting it up.

pub mod daemon;
pub mod heal;
pub mod install;
pub mod known;
pub mod status;
pub mod take_over;
pub mod uninstall;
mod units;

use clap::{Args, Subcommand};

use super::{Context, Outcome};

/// Look after the volume driver
#[derive(Debug, Args)]
pub struct PluginArgs {
    /// What to do.
    #[command(subcommand)]
    pub verb: PluginVerb,
}

/// What to do.
#[derive(Debug, Subcommand)]
#[allow(missing_docs)] // The help of a verb is the doc comment on its arguments; one here would replace it.
pub enum PluginVerb {
    Status(status::StatusArgs),
    Heal(heal::HealArgs),
    TakeOver(take_over::TakeOverArgs),
    Install(install::InstallArgs),
    Uninstall(uninstall::UninstallArgs),
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: PluginArgs) -> anyhow::Result<Outcome> {
    match args.verb {
        PluginVerb::Status(args) => status::run(ctx, args).await,
        PluginVerb::Heal(args) => heal::run(ctx, args).await,
        PluginVerb::TakeOver(args) => take_over::run(ctx, args).await,
        PluginVerb::Install(args) => install::run(ctx, args).await,
        PluginVerb::Uninstall(args) => uninstall::run(ctx, args).await,
    }
}
