//! `voltool system …`.

pub mod prune;

use clap::{Args, Subcommand};

use super::{Context, Outcome};

/// Remove what is unused, unless data would be lost
#[derive(Debug, Args)]
pub struct SystemArgs {
    /// What to do.
    #[command(subcommand)]
    pub verb: SystemVerb,
}

/// What to do.
#[derive(Debug, Subcommand)]
#[allow(missing_docs)] // The help of a verb is the doc comment on its arguments; one here would replace it.
pub enum SystemVerb {
    Prune(prune::PruneArgs),
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: SystemArgs) -> anyhow::Result<Outcome> {
    match args.verb {
        SystemVerb::Prune(args) => prune::run(ctx, args).await,
    }
}
