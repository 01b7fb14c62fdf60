//! Judges what an engine asks before it does it.

use std::collections::BTreeSet;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tokio::runtime::Handle;

use crate::cli::error::message;
use crate::cli::guarded::{GuardOptions, Guarded, Tier};
use crate::cli::{Context, open};
use crate::guard::authz::Destroying;
use crate::guard::undo::Removal;
use crate::guard::{Action, Effects, Pending, Plan, Request, Step, Verdict, refusal};
use crate::inventory::{Inventory, Kind};
use crate::plugin::{Decide, Ruling};

/// How long after it was given up a volume may be removed, in which voltool's own command may be stopping containers.
const UNDER_WAY: SignedDuration = SignedDuration::from_mins(10);

/// Judges what the engine asks about, on an own connection to that engine.
pub(super) struct Decider {
    pub(super) ctx: Context,
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
            Err(e) => Ruling::Refuse(format!("cannot tell what {command} would destroy: {}", message(&e))),
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
        ctx.ui.warn(&format!("'voltool undo' will not know of this: {}", message(&e)));
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
