//! A command that removes: judges it, and then runs it.

use std::time::Duration;

use super::real::{self, Real};
use super::{DockerArgs, ask};
use crate::cli::context::{self, ConfigUse, Environment};
use crate::cli::guarded::{Guarded, Tier};
use crate::cli::{Context, GlobalArgs, Outcome, error};
use crate::docker::{ConnectOptions, Engine};
use crate::guard::Request;
use crate::guard::argv::resolve::{Facts, resolve};
use crate::guard::argv::{CommandLine, Connection, Intent, Meaning};
use crate::inventory::{Catalog, catalog};

/// How long the engine may take to say who it is, when that is only for the record.
const BRIEFLY: Duration = Duration::from_secs(5);

/// Judges a command, and then runs it. Its exit code is ours.
pub(super) async fn run(ctx: &Context, args: &DockerArgs, line: &CommandLine) -> anyhow::Result<Outcome> {
    let real = real::find(args.program)?;
    let engine = Engine::connect_to(ask::endpoint(&line.connection)?, ConnectOptions::default().timeout).await?;
    let guarded = Guarded::with_engine(ctx, engine, &args.guard).await?;
    let Meaning::Guarded(intent) = &line.meaning else {
        // Only with --plan: shown all the same, that nothing would be removed.
        let request = Request { command: args.typed(), steps: Vec::new(), api: guarded.api() };
        return guarded.show(&guarded.plan(&request).await?, &args.guard);
    };
    let facts = facts(&guarded, args, &line.connection, intent, &real).await?;
    let inventory = guarded.inventory().await?;
    let request = resolve(args.typed(), intent, &inventory, &facts);
    if args.guard.plan {
        return guarded.show(&guarded.plan_on(&request, &inventory).await?, &args.guard);
    }
    let cleared = guarded.clear(&request, &args.guard, Tier::Wrapper).await?;
    ctx.interrupt.leave_to_another();
    let code = real.run(&args.line).await;
    if let Err(e) = cleared.done(&guarded).await {
        ctx.ui.warn(&error::message(&e.context("cannot write down what was removed")));
    }
    Ok(Outcome::Exited(code?))
}

/// Only what the intent depends on is asked for.
async fn facts(
    guarded: &Guarded<'_>,
    args: &DockerArgs,
    connection: &Connection,
    intent: &Intent,
    real: &Real,
) -> anyhow::Result<Facts> {
    let mut facts = Facts { api: guarded.api(), ..Facts::default() };
    if intent.needs_api() {
        facts.api = ask::api_version(real, &args.line, connection).await;
    }
    if intent.needs_prune_filters() {
        facts.prune_filters = ask::prune_filters(&ask::surroundings(connection)?)?;
    }
    if let Intent::Compose(selection, _) = intent {
        facts.project = ask::compose_project(real, args.program, &args.line, selection).await;
    }
    Ok(facts)
}

/// Keeps in the catalog that somebody ran a command unguarded. If that is not possible, the command runs all the same: whoever
/// turns the guard off may have to, because something is broken.
pub(super) fn note_unguarded(args: &DockerArgs, global: &GlobalArgs) {
    let note = || {
        let settings = context::resolve(global, &Environment::of_process(), ConfigUse::MustExist).ok()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let endpoint = ask::endpoint(&args.read().connection).ok()?;
        let engine = runtime.block_on(Engine::connect_to(endpoint, BRIEFLY)).ok()?;
        let kept = Catalog::open(&settings.state_dir.join(catalog::FILE_NAME)).ok()?;
        kept.note_decision(&engine.info().key(), Tier::Wrapper.as_str(), &args.typed(), "off", "{}").ok()
    };
    // Nobody could do anything about it.
    let _: Option<()> = note();
}
