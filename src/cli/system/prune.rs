//! `voltool system prune`: removes what is unused.

use clap::Args;
use serde_json::json;

use crate::cli::guarded::{GuardOptions, Guarded};
use crate::cli::prune::{Candidates, filters};
use crate::cli::ui::format;
use crate::cli::{CliError, Context, Outcome};
use crate::docker::Leftover;
use crate::guard::{Filters, Request};

/// Remove stopped containers and what nobody uses, unless data would be lost
///
/// Takes stopped containers, networks, dangling images and the build cache; with --volumes also anonymous volumes that nobody uses
/// then. Is refused as a whole if content would be lost, or left in a volume of which nothing tells any more what it was.
#[derive(Debug, Clone, Default, Args)]
pub struct PruneArgs {
    /// All images that no container uses, not just dangling ones
    #[arg(short, long)]
    pub all: bool,

    /// Anonymous volumes that nobody uses
    #[arg(long)]
    pub volumes: bool,

    /// Only what passes: label=KEY[=VALUE], label!=KEY[=VALUE], until=TIME; repeatable
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<String>,

    /// Accepted, as Docker does; there is no question to skip, and nothing is given up by it
    #[arg(short, long)]
    pub force: bool,

    /// Guard options.
    #[command(flatten)]
    pub guard: GuardOptions,
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: PruneArgs) -> anyhow::Result<Outcome> {
    let filters = filters(&args.filter)?;
    if args.volumes && filters.contains("until") {
        return Err(CliError::usage("the filter until cannot be used with --volumes, as in Docker").into());
    }
    let guarded = Guarded::open(ctx, &args.guard).await?;
    let inventory = guarded.inventory().await?;
    let volumes = args.volumes.then(|| filters.clone());
    let candidates = Candidates { containers: Some(filters.clone()), volumes, all: false };
    let (steps, kept) = candidates.steps(&guarded, &inventory)?;
    for note in kept {
        ctx.ui.note(&note);
    }
    let mut command = "voltool system prune".to_owned();
    for (flag, given) in [(" -a", args.all), (" --volumes", args.volumes)] {
        command.push_str(if given { flag } else { "" });
    }
    for filter in &args.filter {
        command.push_str(&format!(" --filter {}", crate::guard::request::quoted(filter)));
    }
    let request = Request { command, steps, api: guarded.api() };
    let outcome = crate::cli::rm::run_steps(&guarded, request, &args.guard).await?;
    if args.guard.plan {
        ctx.ui.note(&format!("{} besides, which are not in the plan's table", leftovers_in_words(args.all)));
        return Ok(outcome);
    }
    remove_leftovers(&guarded, &filters, args.all).await?;
    Ok(outcome)
}

fn leftovers_in_words(all: bool) -> &'static str {
    if all {
        "unused networks, all unused images and the build cache would go"
    } else {
        "unused networks, dangling images and the build cache would go"
    }
}

/// Networks, images, and the build cache: they can all be made again.
async fn remove_leftovers(guarded: &Guarded<'_>, filters: &Filters, all: bool) -> anyhow::Result<()> {
    let as_json = json!(filters.0);
    let mut bytes = 0;
    for (what, word) in [
        (Leftover::Networks, "network"),
        (Leftover::Images { all }, "image layer or name"),
        (Leftover::BuildCache { all }, "build cache record"),
    ] {
        // The builder knows no labels; Docker's own command leaves it alone then.
        if matches!(what, Leftover::BuildCache { .. }) && (filters.contains("label") || filters.contains("label!")) {
            continue;
        }
        let pruned = guarded.engine.prune(what, &as_json).await?;
        bytes += pruned.bytes;
        if pruned.objects > 0 {
            guarded.ctx.ui.note(&format!("removed {}", format::counted(pruned.objects, word)));
        }
    }
    guarded.ctx.ui.note(&format!("{} are free again, besides what the volumes held", format::size(bytes)));
    Ok(())
}
