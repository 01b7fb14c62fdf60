//! What every verb that removes something has in common: judge, refuse or clear the way, and keep what undoing needs.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use jiff::Timestamp;

use super::{CliError, Context, Kind, Outcome, backup, open, plan_view};
use crate::docker::{Container, Engine};
use crate::guard::undo::{Notes, Removal, RemovedContainer, RemovedVolume};
use crate::guard::{Judge, Plan, Policy, RepositoryAccess, Request};
use crate::inventory::{Catalog, Inventory, Kind as VolumeKind, is_own_driver};
use crate::repo::{Repository, VolumeDefinition};

/// The options of every verb that removes something.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Guard options")]
pub struct GuardOptions {
    /// Say what would be removed and whether that may be, and remove nothing; exits with 4 if it may not
    #[arg(long)]
    pub plan: bool,

    /// Print the plan as JSON
    #[arg(long)]
    pub json: bool,

    /// With --plan: write the plan to this file, for 'voltool apply'
    #[arg(long, value_name = "FILE", requires = "plan")]
    pub out: Option<PathBuf>,

    /// Snapshot what is at risk first; go on only when the snapshot is committed and matches
    #[arg(long, conflicts_with = "plan")]
    pub snapshot: bool,

    /// Give up this volume: its content may be lost; repeatable, full names only
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub lose: Vec<String>,
}

/// Where a command comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// voltool's own verbs.
    Cli,
    /// The wrapper around the docker command.
    Wrapper,
    /// The authorization plugin.
    Authz,
}

impl Tier {
    /// As the catalog keeps it.
    pub fn as_str(self) -> &'static str {
        match self {
            Tier::Cli => "cli",
            Tier::Wrapper => "wrapper",
            Tier::Authz => "authz",
        }
    }
}

/// The guard, ready to judge.
pub struct Guarded<'a> {
    /// What the command works with.
    pub ctx: &'a Context,
    /// The engine.
    pub engine: Engine,
    /// Judges.
    pub judge: Judge,
    /// What remembers; `None` if it cannot be used, of which the user was warned.
    pub catalog: Option<Catalog>,
}

/// A request that may go on: nothing that it removes exists only there, and what undoing needs is on the disk.
#[derive(Debug)]
pub struct Cleared {
    /// What was decided.
    pub plan: Plan,
    removal: Option<Removal>,
    stopped: Vec<Container>,
}

impl<'a> Guarded<'a> {
    /// Connects to the engine and opens what judging needs. A repository that cannot be opened is no error here: then nothing is safe.
    pub async fn open(ctx: &'a Context, options: &GuardOptions) -> anyhow::Result<Guarded<'a>> {
        let engine = open::engine(ctx).await?;
        Guarded::with_engine(ctx, engine, options).await
    }

    /// As [`Guarded::open`], with an engine that is connected already.
    pub async fn with_engine(ctx: &'a Context, engine: Engine, options: &GuardOptions) -> anyhow::Result<Guarded<'a>> {
        let repository = match &ctx.settings.repo {
            None => RepositoryAccess::Unavailable("no repository is configured".to_owned()),
            Some(_) => match open::repository(ctx).await {
                Ok(repo) => RepositoryAccess::Open(repo),
                Err(e) => RepositoryAccess::Unavailable(super::error::message(&e)),
            },
        };
        let policy = Policy {
            ephemeral: ctx.settings.guard.ephemeral.clone(),
            max_age: ctx.settings.guard.max_age,
            lose: options.lose.iter().cloned().collect(),
            pending: Vec::new(),
        };
        let judge = Judge {
            engine_name: open::engine_name(ctx, &engine),
            engine: engine.clone(),
            repository,
            policy,
            state_dir: ctx.settings.state_dir.clone(),
        };
        let catalog = open::catalog(ctx);
        Ok(Guarded { ctx, engine, judge, catalog })
    }

    /// Takes stock of the engine, and tells the catalog.
    pub async fn inventory(&self) -> anyhow::Result<Inventory> {
        let inventory = open::inventory_noted(self.ctx, &self.engine, self.catalog.as_ref()).await?;
        for warning in &inventory.warnings {
            self.ctx.ui.warn(warning);
        }
        Ok(inventory)
    }

    /// What the request would do, and whether it may.
    pub async fn plan(&self, request: &Request) -> anyhow::Result<Plan> {
        let inventory = self.inventory().await?;
        self.plan_on(request, &inventory).await
    }

    /// As [`Guarded::plan`], on an inventory that was taken just now.
    pub async fn plan_on(&self, request: &Request, inventory: &Inventory) -> anyhow::Result<Plan> {
        let unknown: Vec<&String> = self.judge.policy.lose.iter().filter(|n| inventory.volume(n).is_none()).collect();
        if let Some(name) = unknown.first() {
            let error = CliError::failed(format!("--lose {name}: the engine has no volume of exactly that name"));
            return Err(match inventory.nearest(name) {
                Some(nearest) => error.hint(format!("did you mean {nearest}?")),
                None => error,
            }
            .into());
        }
        let last_uses: std::collections::BTreeMap<&str, String> = inventory
            .volumes
            .iter()
            .filter(|volume| volume.is_dangling())
            .filter_map(|volume| Some((volume.name.as_str(), self.last_use(&volume.name)?)))
            .collect();
        Ok(self.judge.plan(request, inventory, &|name| last_uses.get(name).cloned()).await?)
    }

    fn last_use(&self, volume: &str) -> Option<String> {
        let found = self.catalog.as_ref()?.last_use(&self.engine.info().key(), volume);
        found.ok().flatten().map(|last| last.describe())
    }

    /// When a volume was used last, as far as the catalog knows.
    pub fn last_used_at(&self, volume: &str) -> Option<Timestamp> {
        self.catalog.as_ref()?.last_used_at(&self.engine.info().key(), volume).ok().flatten()
    }

    /// The API version in which the engine is asked to remove something.
    pub fn api(&self) -> (u32, u32) {
        self.engine.info().api()
    }

    /// Prints a plan, and says how a command ends that only shows it.
    pub fn show(&self, plan: &Plan, options: &GuardOptions) -> anyhow::Result<Outcome> {
        if let Some(file) = &options.out {
            let text = serde_json::to_vec_pretty(plan).context("cannot write the plan")?;
            std::fs::write(file, text)
                .map_err(|e| CliError::failed(format!("cannot write the plan to {}: {e}", file.display())))?;
        }
        plan_view::print(self.ctx, plan, options.json)?;
        if plan.allows() { Ok(Outcome::Done) } else { Ok(Outcome::Refused) }
    }

    /// Judges, and either refuses (an error of kind `Refused`, after the table was printed), or clears the way: with `--snapshot`
    /// takes snapshots of what is at risk and verifies that they are committed; stops containers whose volumes can only be
    /// judged then; and writes down what undoing needs. The caller then removes, and says [`Cleared::done`].
    pub async fn clear(&self, request: &Request, options: &GuardOptions, tier: Tier) -> anyhow::Result<Cleared> {
        let mut inventory = self.inventory().await?;
        let mut plan = self.plan_on(request, &inventory).await?;
        let mut stopped = Vec::new();
        if !plan.allows() {
            let writers = plan.refusing().any(|volume| volume.written_by.is_some());
            // A volume that looks safe but for a running writer is judged again without it. With --snapshot, all are.
            let only_writers = plan.refusing().all(|volume| volume.fine_when_stopped);
            // From here on something has to be put in order, also after a signal.
            self.ctx.interrupt.finish_yourself(true);
            let result = async {
                if writers && (only_writers || options.snapshot) {
                    self.stop(&plan, &inventory, &mut stopped).await?;
                    inventory = self.inventory().await?;
                    plan = self.plan_on(request, &inventory).await?;
                }
                if !plan.allows() && options.snapshot {
                    self.snapshot(&plan, &inventory).await?;
                    inventory = self.inventory().await?;
                    plan = self.plan_on(request, &inventory).await?;
                }
                anyhow::Ok(())
            }
            .await;
            if result.is_err() || !plan.allows() || self.ctx.interrupt.is_requested() {
                self.start_again(&stopped).await;
            }
            self.ctx.interrupt.finish_yourself(false);
            result?;
            if self.ctx.interrupt.is_requested() {
                return Err(CliError::new(Kind::Interrupted, "interrupted: nothing was removed").into());
            }
        }
        self.note_decision(&plan, tier);
        if !plan.allows() {
            if options.json {
                self.ctx.ui.json(&plan)?;
            }
            return Err(plan_view::refusal(self.ctx, &plan, tier, !options.json).into());
        }
        for note in &plan.notes {
            self.ctx.ui.detail(note);
        }
        let removal = match self.write_down(&plan, &inventory, &stopped) {
            Ok(removal) => removal,
            Err(e) => {
                self.start_again(&stopped).await;
                return Err(e);
            }
        };
        Ok(Cleared { plan, removal, stopped })
    }

    /// Stops those of the containers that are going to be removed which could still write.
    async fn stop(&self, plan: &Plan, inventory: &Inventory, stopped: &mut Vec<Container>) -> anyhow::Result<()> {
        let going: BTreeSet<&str> = plan.containers.iter().filter(|c| c.running).map(|c| c.id.as_str()).collect();
        let going: Vec<&Container> = inventory.containers.iter().filter(|c| going.contains(c.id.as_str())).collect();
        // Before anything is stopped: stopping such a one would be what is to be prevented, and nothing could start it again.
        if let Some(container) = going.iter().find(|container| container.removes_itself()) {
            let name = &container.name;
            let volumes: Vec<&str> = plan.refusing().map(|volume| volume.name.as_str()).collect();
            let message = format!(
                "container {name} was started with --rm: as soon as it stops, the engine removes it together with its anonymous \
                 volumes, so nobody can look at what it leaves; nothing was removed"
            );
            return Err(CliError::new(Kind::Refused, message)
                .hint(format!("copy what it holds while it runs: docker cp, or voltool backup {}", volumes.join(" ")))
                .hint("then give the volumes up by their names, with --lose")
                .into());
        }
        for container in going {
            // Frozen ones take no signal.
            if container.details.state.paused {
                self.engine.unpause_container(&container.id).await?;
            }
            self.ctx.ui.detail(&format!("stopping {} to see what it leaves", container.name));
            stopped.push(container.clone());
            self.engine.stop_container(&container.id, None).await?;
        }
        Ok(())
    }

    async fn start_again(&self, stopped: &[Container]) {
        for container in stopped.iter().rev() {
            if let Err(e) = self.engine.start_container(&container.id).await {
                self.ctx.ui.warn(&format!("container {} was stopped and is not running again: {e}", container.name));
            } else if container.details.state.paused
                && let Err(e) = self.engine.pause_container(&container.id).await
            {
                self.ctx.ui.warn(&format!("container {} is no longer paused: {e}", container.name));
            }
        }
    }

    /// Takes a snapshot of everything that stands in the way, and makes sure that each is committed.
    async fn snapshot(&self, plan: &Plan, inventory: &Inventory) -> anyhow::Result<()> {
        let repo = self.repository()?;
        let names: Vec<&str> = plan.refusing().map(|volume| volume.name.as_str()).collect();
        let before: BTreeSet<String> = self.snapshots_of(repo, &names).await?;
        backup::before_removal(self.ctx, repo, &self.engine, inventory, &names).await?;
        // Asked of the storage anew: what counts is what somebody else would find there.
        let after = self.snapshots_of(repo, &names).await?;
        if after.difference(&before).count() < names.len() {
            return Err(
                CliError::failed("a snapshot was taken, and is not in the repository: nothing was removed").into()
            );
        }
        Ok(())
    }

    async fn snapshots_of(&self, repo: &Repository, names: &[&str]) -> anyhow::Result<BTreeSet<String>> {
        let mut ids = BTreeSet::new();
        for name in names {
            let found = repo.snapshots_of(&self.judge.engine_name, name).await?;
            ids.extend(found.records.iter().map(|record| record.id.clone()));
        }
        Ok(ids)
    }

    /// The repository, or the error that says why there is none.
    pub fn repository(&self) -> anyhow::Result<&Arc<Repository>> {
        match &self.judge.repository {
            RepositoryAccess::Open(repo) => Ok(repo),
            RepositoryAccess::Unavailable(why) => {
                Err(CliError::new(Kind::Refused, format!("no snapshot can be taken: {why}"))
                    .hint("make a repository with 'voltool init', or name one with --repo or VOLTOOL_REPO")
                    .into())
            }
        }
    }

    /// Writes down what undoing the plan needs. If that cannot be written, nothing is removed.
    pub(super) fn write_down(
        &self,
        plan: &Plan,
        inventory: &Inventory,
        stopped: &[Container],
    ) -> anyhow::Result<Option<Removal>> {
        let mut removal = Removal::new(&self.judge.engine_name, &plan.command);
        for planned in plan.destroyed() {
            let Some(volume) = inventory.volume(&planned.name) else { continue };
            // Its driver writes a note of its own: it knows what it keeps.
            if is_own_driver(&volume.driver) {
                continue;
            }
            removal.volumes.push(RemovedVolume {
                definition: VolumeDefinition {
                    name: volume.name.clone(),
                    driver: volume.driver.clone(),
                    labels: volume.labels.clone(),
                    options: volume.options.clone(),
                    anonymous: volume.kind == VolumeKind::Anonymous,
                },
                snapshot: planned.newest_snapshot.clone(),
                verdict: planned.verdict,
                trash: None,
            });
        }
        for planned in &plan.containers {
            let Some(container) = inventory.container(&planned.id) else { continue };
            removal.containers.push(RemovedContainer {
                id: container.id.clone(),
                name: container.name.clone(),
                running: planned.running || stopped.iter().any(|other| other.id == container.id),
                definition: container.raw.clone(),
            });
        }
        if removal.is_empty() {
            return Ok(None);
        }
        let hint =
            "what is removed could not be brought back, so nothing was removed: make room, or name another --state-dir";
        self.notes().write(&removal).map_err(|e| anyhow::Error::from(CliError::failed(e).hint(hint)))?;
        Ok(Some(removal))
    }

    /// What was removed before.
    pub fn notes(&self) -> Notes {
        Notes::of(&self.ctx.settings.state_dir)
    }

    /// Keeps a decision in the catalog.
    pub fn note_decision(&self, plan: &Plan, tier: Tier) {
        let decision = if plan.allows() { "allow" } else { "refuse" };
        let text = serde_json::to_string(plan).unwrap_or_default();
        self.remember(|catalog, engine| catalog.note_decision(engine, tier.as_str(), &plan.command, decision, &text));
    }

    fn remember(&self, note: impl FnOnce(&Catalog, &str) -> crate::inventory::catalog::Result<()>) {
        if let Some(catalog) = &self.catalog
            && let Err(e) = note(catalog, &self.engine.info().key())
        {
            self.ctx.ui.warn(&e.in_one_line());
        }
    }
}

impl Cleared {
    /// Notes what has been removed; to be called when the engine has done it, or as much of it as it could.
    pub async fn done(self, guarded: &Guarded<'_>) -> anyhow::Result<()> {
        let Some(mut removal) = self.removal else { return Ok(()) };
        let inventory = guarded.inventory().await?;
        let left: Vec<Container> =
            self.stopped.into_iter().filter(|container| inventory.container(&container.id).is_some()).collect();
        guarded.start_again(&left).await;
        removal.volumes.retain(|volume| inventory.volume(&volume.definition.name).is_none());
        removal.containers.retain(|container| !inventory.containers.iter().any(|c| c.id == container.id));
        removal.done = true;
        for volume in &removal.volumes {
            let name = &volume.definition.name;
            let by = format!("{} (undo {})", removal.command, removal.id);
            guarded.remember(|catalog, engine| catalog.note_removal(engine, name, &by, Timestamp::now()));
        }
        if removal.is_empty() {
            guarded.notes().forget(&removal.id)?;
            return Ok(());
        }
        guarded.notes().write(&removal)?;
        guarded.ctx.ui.detail(&format!("'voltool undo {}' brings it back", removal.id));
        Ok(())
    }
}
