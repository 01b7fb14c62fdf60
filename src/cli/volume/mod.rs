//! `voltool volume …`: removes volumes, unless data would be lost.

pub mod prune;
pub mod rm;

use clap::{Args, Subcommand};

use super::{Context, Outcome};

/// Remove volumes, unless data would be lost
#[derive(Debug, Args)]
pub struct VolumeArgs {
    /// What to do.
    #[command(subcommand)]
    pub verb: VolumeVerb,
}

/// What to do.
#[derive(Debug, Subcommand)]
#[allow(missing_docs)] // The help of a verb is the doc comment on its arguments; one here would replace it.
pub enum VolumeVerb {
    Rm(rm::RmArgs),
    Prune(prune::PruneArgs),
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: VolumeArgs) -> anyhow::Result<Outcome> {
    match args.verb {
        VolumeVerb::Rm(args) => rm::run(ctx, args).await,
        VolumeVerb::Prune(args) => prune::run(ctx, args).await,
    }
}
