//! `voltool volume prune`: removes volumes that nobody uses.

use clap::Args;

use crate::cli::guarded::{GuardOptions, Guarded};
use crate::cli::prune::{Candidates, filters};
use crate::cli::{Context, Outcome};

/// Remove volumes that no container uses, unless data would be lost
///
/// Takes anonymous volumes only, on every engine; with --all, named ones too. Leaves alone what any container uses, also a stopped
/// one, and what was used within guard.grace (24 h). What is going to be removed is worked out first, and exactly that is removed.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  voltool volume prune --plan
  voltool volume prune --all --plan --out plan.json && voltool apply plan.json")]
pub struct PruneArgs {
    /// Named volumes too
    #[arg(short, long)]
    pub all: bool,

    /// Only what passes: label=KEY[=VALUE], label!=KEY[=VALUE]; repeatable
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
    let mut filters = filters(&args.filter)?;
    // As in Docker, `--filter all=1` is the same as `--all`.
    let all = filters.of_volumes().map_err(crate::cli::CliError::usage)? || args.all;
    filters.0.remove("all");
    let guarded = Guarded::open(ctx, &args.guard).await?;
    let inventory = guarded.inventory().await?;
    let candidates = Candidates { containers: None, volumes: Some(filters), all };
    let (steps, kept) = candidates.steps(&guarded, &inventory)?;
    for note in kept {
        ctx.ui.note(&note);
    }
    let mut command = format!("voltool volume prune{}", if args.all { " -a" } else { "" });
    for filter in &args.filter {
        command.push_str(&format!(" --filter {}", crate::guard::request::quoted(filter)));
    }
    let request = crate::guard::Request { command, steps, api: guarded.api() };
    crate::cli::rm::run_steps(&guarded, request, &args.guard).await
}
