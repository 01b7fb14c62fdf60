//! `voltool rm`: removes containers, and refuses where data would go with them.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::guarded::{GuardOptions, Guarded, Tier};
use super::{CliError, Context, Kind, Outcome};
use crate::guard::{Request, Step, request};

/// Remove containers, unless data would be lost with them
///
/// With -v, a container's anonymous volumes go with it. Without, they stay, and nothing tells any more whose they were: both are
/// refused if their content is in no snapshot.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  voltool rm -v db --plan
  voltool rm -fv db --snapshot
  voltool undo                             what was removed, and how it comes back")]
pub struct RmArgs {
    /// Containers to remove
    #[arg(value_name = "CONTAINER", required = true, value_parser = NonEmptyStringValueParser::new())]
    pub containers: Vec<String>,

    /// Remove running containers too
    #[arg(short, long)]
    pub force: bool,

    /// Remove the anonymous volumes of the containers
    #[arg(short, long)]
    pub volumes: bool,

    /// Guard options.
    #[command(flatten)]
    pub guard: GuardOptions,
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: RmArgs) -> anyhow::Result<Outcome> {
    let guarded = Guarded::open(ctx, &args.guard).await?;
    let step = |container: &String| Step::RemoveContainer {
        container: container.clone(),
        volumes: args.volumes,
        force: args.force,
    };
    let flags = [("-f", args.force), ("-v", args.volumes)];
    let flags = flags.iter().filter(|(_, given)| *given).map(|(flag, _)| *flag);
    let request = Request {
        command: request::command(["voltool", "rm"].into_iter().chain(flags), &args.containers),
        steps: args.containers.iter().map(step).collect(),
        api: guarded.api(),
    };
    run_steps(&guarded, request, &args.guard).await
}

/// Shows the plan, or clears the way and does it: what every verb does that removes things by their names.
pub(super) async fn run_steps(
    guarded: &Guarded<'_>,
    request: Request,
    options: &GuardOptions,
) -> anyhow::Result<Outcome> {
    if options.plan {
        return guarded.show(&guarded.plan(&request).await?, options);
    }
    let cleared = guarded.clear(&request, options, Tier::Cli).await?;
    if options.json {
        guarded.ctx.ui.json(&cleared.plan)?;
    }
    let failures = perform(guarded, &request, !options.json).await;
    cleared.done(guarded).await?;
    finish(guarded.ctx, failures, request.steps.len())
}

/// Sends the steps to the engine, and prints the name of what was removed, as Docker does. What fails stops nothing else.
async fn perform(guarded: &Guarded<'_>, request: &Request, print: bool) -> Vec<anyhow::Error> {
    let mut failures = Vec::new();
    for step in &request.steps {
        let (name, result) = match step {
            Step::RemoveContainer { container, volumes, force } => {
                (container, guarded.engine.remove_container(container, *volumes, *force).await)
            }
            Step::RemoveVolume { volume, force } => match guarded.engine.remove_volume(volume).await {
                Err(e) if *force && e.kind == crate::docker::EngineErrorKind::NotFound => continue,
                result => (volume, result),
            },
            // Own verbs spell out what a prune takes.
            Step::PruneContainers { .. } | Step::PruneVolumes { .. } => continue,
        };
        match result {
            Ok(()) if print => {
                if let Err(e) = guarded.ctx.ui.print(name) {
                    failures.push(e);
                }
            }
            Ok(()) => {}
            Err(e) => failures.push(e.into()),
        }
    }
    failures
}

/// One failure is told as it is; of several, each is told.
fn finish(ctx: &Context, mut failures: Vec<anyhow::Error>, total: usize) -> anyhow::Result<Outcome> {
    match failures.len() {
        0 => Ok(Outcome::Done),
        1 => Err(failures.remove(0)),
        n => {
            for failure in &failures {
                ctx.ui.warn(&super::error::message(failure));
            }
            Err(CliError::new(Kind::Failed, format!("{n} of {total} could not be removed")).into())
        }
    }
}
