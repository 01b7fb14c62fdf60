//! `voltool volume rm`: removes volumes by their names.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use crate::cli::guarded::{GuardOptions, Guarded};
use crate::cli::{Context, Outcome};
use crate::guard::{Request, Step, request};

/// Remove volumes, unless data would be lost
#[derive(Debug, Clone, Default, Args)]
pub struct RmArgs {
    /// Volumes to remove
    #[arg(value_name = "VOLUME", required = true, value_parser = NonEmptyStringValueParser::new())]
    pub volumes: Vec<String>,

    /// No error if there is no such volume; gives up nothing
    #[arg(short, long)]
    pub force: bool,

    /// Guard options.
    #[command(flatten)]
    pub guard: GuardOptions,
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: RmArgs) -> anyhow::Result<Outcome> {
    let guarded = Guarded::open(ctx, &args.guard).await?;
    let words = ["voltool", "volume", "rm"].into_iter().chain(args.force.then_some("-f"));
    let step = |volume: &String| Step::RemoveVolume { volume: volume.clone(), force: args.force };
    let request = Request {
        command: request::command(words, &args.volumes),
        steps: args.volumes.iter().map(step).collect(),
        api: guarded.api(),
    };
    crate::cli::rm::run_steps(&guarded, request, &args.guard).await
}
