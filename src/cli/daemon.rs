//! `voltool daemon`: the plugin that the engine asks, and the catalog's feed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use tokio::runtime::Handle;

use super::guarded::{GuardOptions, Guarded, Tier};
use super::{CliError, Context, Outcome, open};
use crate::daemon::events;
use crate::docker::{Surroundings, connect};
use crate::guard::authz::Destroying;
use crate::guard::undo::Removal;
use crate::guard::{Action, Effects, Pending, Plan, Request, Step, Verdict, refusal};
use crate::inventory::{Inventory, Kind};
use crate::plugin::{self, Authz, Decide, Listening, Plugin, Ruling, SocketError};

/// How long requests that have begun are waited for at the end, beyond the time that a decision may take.
const GRACE: Duration = Duration::from_secs(2);

/// How long after it was given up a volume may be removed, in which voltool's own command may be stopping containers.
const UNDER_WAY: SignedDuration = SignedDuration::from_mins(10);

/// Watch an engine, and answer it if it asks
///
/// Feeds the catalog from the engine's events, so that `voltool history` also knows containers that lived for a second. With --authz,
/// an engine that is set up by 'voltool guard enable' asks the daemon before every request, and is refused what would destroy data that
/// exists nowhere else. Start it before the engine then, and restart it whenever it ends: while it does not answer, such an engine refuses
/// every request. examples/systemd has units that see to that.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  voltool daemon --authz
  voltool guard enable")]
pub struct DaemonArgs {
    /// Authorize requests to the engine
    #[arg(long)]
    pub authz: bool,

    /// Socket to listen on; - takes the one that is standard input, as systemd passes it
    #[arg(long, value_name = "PATH", default_value = plugin::DEFAULT_SOCKET)]
    pub socket: PathBuf,
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: DaemonArgs) -> anyhow::Result<Outcome> {
    ctx.interrupt.finish_yourself(true);
    let endpoint = connect::resolve(ctx.settings.engine_host.as_deref(), &Surroundings::current()?)?;
    let catalog = open::catalog_path(ctx);
    let feed = events::feed(&endpoint, &catalog, |what| ctx.ui.warn(what), ctx.interrupt.requested());
    if !args.authz {
        ctx.ui.note(&format!("watching the engine at {endpoint}"));
        feed.await;
        return Ok(Outcome::Done);
    }
    let timeout = decision_time(ctx)?;
    let decider = Arc::new(Decider { ctx: ctx.clone() });
    let plugin = Arc::new(Plugin::new(Authz::new(decider, timeout)));
    let mut listening = listen(&args.socket)?;
    let listener = listening.take().ok_or_else(|| CliError::failed("the socket is in use already"))?;
    ctx.ui.note(&format!("answering authorization requests on {}", place(&args.socket)));
    // The engine may come up after this, and asks this about the feed's own requests: both begin at once.
    tokio::join!(plugin::serve(listener, plugin, ctx.interrupt.requested(), timeout + GRACE), feed);
    drop(listening);
    ctx.ui.note("stopped: until it runs again, an engine that is set up to ask it refuses every request");
    Ok(Outcome::Done)
}

/// How long a decision may take.
fn decision_time(ctx: &Context) -> Result<Duration, CliError> {
    let Some(configured) = ctx.settings.guard.timeout else { return Ok(plugin::authz::DEFAULT_TIMEOUT) };
    Duration::try_from(configured)
        .ok()
        .filter(|time| !time.is_zero())
        .ok_or_else(|| CliError::usage("guard.timeout in the configuration must be longer than nothing"))
}

fn listen(socket: &Path) -> Result<Listening, CliError> {
    let result = if socket == Path::new("-") { Listening::passed() } else { Listening::bind(socket) };
    result.map_err(|e| {
        let error = CliError::failed(&e);
        match e {
            SocketError::Taken(_) => {
                error.hint("'voltool guard status' says whether that is voltool; --socket names another one")
            }
            SocketError::NotPassed(_) => error.hint("--socket - is for a systemd service with StandardInput=socket"),
            SocketError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                error.hint("the folder of the engine's plugins belongs to root: run the daemon as root")
            }
            _ => error.hint("--socket names another place; engines look in /run/docker/plugins"),
        }
    })
}

fn place(socket: &Path) -> String {
    if socket == Path::new("-") { "the socket that was passed in".to_owned() } else { socket.display().to_string() }
}

/// Judges what the engine asks about, on an own connection to that engine.
struct Decider {
    ctx: Context,
}

#[async_trait]
impl Decide for Decider {
    async fn decide(&self, destroying: Destroying, others: Vec<Destroying>) -> Ruling {
        let command = destroying.command.clone();
        let (ctx, runtime) = (self.ctx.clone(), Handle::current());
        // On a thread of its own: a decision also computes, and what is harmless is to be answered meanwhile.
        let judged = tokio::task::spawn_blocking(move || runtime.block_on(plan(&ctx, destroying, others))).await;
        match judged.unwrap_or_else(|e| Err(e.into())) {
            Ok(None) => Ruling::Allow,
            Ok(Some(plan)) if plan.allows() => Ruling::Allow,
            Ok(Some(plan)) => Ruling::Refuse(refusal::text(&plan)),
            Err(e) => {
                Ruling::Refuse(format!("cannot tell what {command} would destroy: {}", super::error::message(&e)))
            }
        }
    }

    fn log(&self, text: &str) {
        text.lines().for_each(|line| self.ctx.ui.note(line));
    }
}

/// Works out the plan; `None` if no content is at stake, for which the repository need not be asked. Everything is opened anew: the
/// engine may have been replaced since, and a backup may have run.
async fn plan(ctx: &Context, destroying: Destroying, others: Vec<Destroying>) -> anyhow::Result<Option<Plan>> {
    let engine = open::engine(ctx).await?;
    let newest = engine.info().api();
    let request = destroying.into_request(newest);
    let pending = |other: Destroying| Pending { api: other.api.unwrap_or(newest), step: other.step };
    let others: Vec<Pending> = others.into_iter().map(pending).collect();
    let inventory = Inventory::scan(&engine).await?;
    if !is_serious(&Effects::after(&others, &request, &inventory, Timestamp::now())?, &inventory) {
        return Ok(None);
    }
    let mut guarded = Guarded::with_engine(ctx, engine, &GuardOptions::default()).await?;
    // Anew, since opening the repository may have taken a while; and for the catalog.
    let inventory = guarded.inventory().await?;
    let under_way = under_way(&guarded);
    if is_only_forgotten(&request, &inventory, &under_way) {
        return Ok(None);
    }
    guarded.judge.policy.lose = given_up(&under_way, &inventory);
    guarded.judge.policy.pending = others;
    let plan = guarded.plan_on(&request, &inventory).await?;
    guarded.note_decision(&plan, Tier::Authz);
    let noted = under_way.iter().flat_map(|removal| &removal.volumes);
    let noted: Vec<_> = noted.map(|volume| (&volume.definition.name, &volume.snapshot)).collect();
    // What others remove at this moment has a note of its own.
    let alone = plan_alone(&plan, &inventory);
    // A command of voltool's own has written its note already. What is in a snapshot is not lost for want of a note, so failing to
    // write one is no reason to refuse.
    if plan.allows()
        && alone.destroyed().any(|volume| !noted.contains(&(&volume.name, &volume.newest_snapshot)))
        && let Err(e) = guarded.write_down(&alone, &inventory, &[])
    {
        ctx.ui.warn(&format!("'voltool undo' will not know of this: {}", super::error::message(&e)));
    }
    Ok(Some(plan))
}

/// The plan without the containers that other requests remove. What is destroyed only together stays: whichever is last destroys it.
fn plan_alone(plan: &Plan, inventory: &Inventory) -> Plan {
    let own = Effects::of(&plan.request, inventory, plan.time).map(|effects| effects.containers).unwrap_or_default();
    let mut alone = plan.clone();
    alone.containers.retain(|container| own.contains(&container.id));
    alone
}

/// Whether a volume would be destroyed, or left without a name that anybody knows.
fn is_serious(effects: &Effects, inventory: &Inventory) -> bool {
    let named = |name: &str| inventory.volume(name).is_some_and(|volume| volume.kind == Kind::Named);
    effects.volumes.iter().any(|(name, effect)| effect.action == Action::Destroy || !named(name))
}

/// The commands of voltool's own that are under way: each left its note for undoing, and its calls to the engine are what is being judged
/// here. Only whoever may write voltool's state can leave such a note.
fn under_way(guarded: &Guarded<'_>) -> Vec<Removal> {
    // Without the notes nothing counts as cleared.
    let Ok((removals, _)) = guarded.notes().list() else { return Vec::new() };
    let now = Timestamp::now();
    let is_under_way = |removal: &Removal| {
        let age = now.duration_since(removal.time);
        !removal.done && removal.engine == guarded.judge.engine_name && !age.is_negative() && age <= UNDER_WAY
    };
    removals.into_iter().filter(is_under_way).collect()
}

/// The volumes that somebody gave up with `--lose` in such a command.
fn given_up(under_way: &[Removal], inventory: &Inventory) -> BTreeSet<String> {
    let volumes = under_way.iter().flat_map(|removal| &removal.volumes);
    let names =
        volumes.filter(|volume| volume.verdict == Verdict::GivenUp).map(|volume| volume.definition.name.clone());
    names.filter(|name| inventory.volume(name).is_some()).collect()
}

/// Whether such a command removes a container and leaves its volumes where they are. It was allowed to leave them without a name; and its
/// note has only those volumes in it that it destroys.
fn is_only_forgotten(request: &Request, inventory: &Inventory, under_way: &[Removal]) -> bool {
    let [Step::RemoveContainer { container, volumes: false, .. }] = request.steps.as_slice() else { return false };
    let Some(container) = inventory.container(container) else { return false };
    under_way.iter().flat_map(|removal| &removal.containers).any(|removed| removed.id == container.id)
}
