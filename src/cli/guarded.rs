//! What every verb that removes something has in common: judge, refuse or clear the way, and keep what undoing needs.

use clap::Args;

use super::{CliError, Context};
use crate::docker::Engine;
use crate::guard::{Judge, Plan, Request};
use crate::inventory::{Catalog, Inventory};

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

    /// Snapshot what is at risk first; go on only when the snapshot is committed and matches
    #[arg(long)]
    pub snapshot: bool,

    /// Give up this volume: its content may be lost; repeatable, full names only
    #[arg(long, value_name = "NAME")]
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
}

impl<'a> Guarded<'a> {
    /// Connects to the engine and opens what judging needs. A repository that cannot be opened is no error here: then nothing is safe.
    pub async fn open(ctx: &'a Context, options: &GuardOptions) -> anyhow::Result<Guarded<'a>> {
        let _ = (ctx, options);
        Err(CliError::failed("not there yet").into())
    }

    /// Takes stock of the engine, and tells the catalog.
    pub async fn inventory(&self) -> anyhow::Result<Inventory> {
        Ok(Inventory::scan(&self.engine).await?)
    }

    /// What the request would do, and whether it may.
    pub async fn plan(&self, request: &Request) -> anyhow::Result<Plan> {
        let inventory = self.inventory().await?;
        Ok(self.judge.plan(request, &inventory, &|_| None).await?)
    }

    /// Judges, and either refuses (an error of kind `Refused`, after the table was printed), or clears the way: with `--snapshot`
    /// takes snapshots of what is at risk and verifies that they are committed; stops containers whose volumes can only be
    /// judged then; and writes down what undoing needs. The caller then removes, and says [`Cleared::done`].
    pub async fn clear(&self, request: &Request, options: &GuardOptions, tier: Tier) -> anyhow::Result<Cleared> {
        let _ = (options, tier);
        Ok(Cleared { plan: self.plan(request).await? })
    }
}

impl Cleared {
    /// Notes in the catalog what has been removed; to be called when the engine has done it, or as much of it as it could.
    pub async fn done(self, guarded: &Guarded<'_>) -> anyhow::Result<()> {
        let _ = guarded;
        Ok(())
    }
}
