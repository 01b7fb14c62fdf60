//! `voltool daemon`: the plugin that the engine asks, and the catalog's feed.

mod decide;
mod outside;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::{CliError, Context, Outcome, open};
use crate::daemon::{events, upkeep};
use crate::docker::{Surroundings, connect};
use crate::driver::{Driver, DriverSettings};
use crate::plugin::{self, Authz, Listening, Plugin, SocketError};
use decide::Decider;
use outside::Outward;

/// How long requests that have begun are waited for at the end, beyond the time that a decision may take.
const GRACE: Duration = Duration::from_secs(2);

/// Keep volumes for an engine, and watch over all others
///
/// Feeds the catalog from the engine's events, so that `voltool history` also knows containers that lived for a second. With --plugin,
/// it is a Docker plugin as well: the volume driver behind `docker volume create -d voltool`, and the authorization plugin that 'voltool
/// guard enable' makes the engine ask. Start it before the engine then, and restart it whenever it ends: 'voltool plugin install' sets
/// systemd up to do both.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  voltool daemon --plugin
  voltool plugin install
  voltool guard enable")]
pub struct DaemonArgs {
    /// Answer engines: volume driver and authorization
    #[arg(long, alias = "authz")]
    pub plugin: bool,

    /// Socket to listen on, instead of /run/docker/plugins/voltool.sock; - takes the one that is standard input, as systemd passes it
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Folder below which volumes are mounted for the engine; for a plugin that the engine manages, which sees nothing else
    #[arg(long, value_name = "DIR", requires = "plugin")]
    pub publish: Option<PathBuf>,
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: DaemonArgs) -> anyhow::Result<Outcome> {
    ctx.interrupt.finish_yourself(true);
    let endpoint = connect::resolve(ctx.settings.engine_host.as_deref(), &Surroundings::current()?)?;
    let catalog = open::catalog_path(ctx);
    let feed = events::feed(&endpoint, &catalog, |what| ctx.ui.warn(what), ctx.interrupt.requested());
    if !args.plugin {
        ctx.ui.note(&format!("watching the engine at {endpoint}"));
        feed.await;
        return Ok(Outcome::Done);
    }
    let timeout = decision_time(ctx)?;
    let driver =
        Driver::open(&ctx.settings.state_dir, settings(ctx, args.publish.as_deref()), Arc::new(Outward::new(ctx)))
            .map_err(|e| CliError::failed(e).hint("--state-dir names another folder for the volumes"))?;
    let authz = Authz::new(Arc::new(Decider { ctx: ctx.clone() }), timeout);
    let plugin = Arc::new(Plugin::new(authz, Arc::new(driver.clone())));
    let socket = args.socket.as_deref().unwrap_or(ctx.settings.plugin.socket());
    let mut listening = listen(socket)?;
    let listener = listening.take().ok_or_else(|| CliError::failed("the socket is in use already"))?;
    ctx.ui.note(&format!("answering engines on {}", place(socket)));
    // The engine may come up after this, and asks this about the feed's own requests: all begin at once.
    let serve = plugin::serve(listener, plugin, ctx.interrupt.requested(), timeout + GRACE);
    tokio::join!(serve, feed, upkeep::run(&driver, ctx.interrupt.requested()));
    drop(listening);
    ctx.ui.note("stopped: until it runs again, no container starts on its volumes, and an engine that is set up to ask it refuses every request");
    Ok(Outcome::Done)
}

/// How the driver works, from the configuration.
fn settings(ctx: &Context, publish: Option<&Path>) -> DriverSettings {
    let defaults = DriverSettings::default();
    DriverSettings {
        trash_keep: ctx.settings.plugin.trash_keep.unwrap_or(defaults.trash_keep),
        shared_as: ctx.settings.plugin.shared_as.clone(),
        ephemeral: ctx.settings.guard.ephemeral.clone(),
        max_age: ctx.settings.guard.max_age,
        quiet: quiet().unwrap_or(defaults.quiet),
        publish: publish.map(Path::to_owned),
        lease_wait: ctx.settings.plugin.lease_wait.and_then(|wait| wait.try_into().ok()).unwrap_or(defaults.lease_wait),
        host_state_dir: ctx.env.get("VOLTOOL_HOST_STATE_DIR").map(PathBuf::from),
    }
}

/// In builds for tests, a daemon can be told to believe less long in uses that nobody accounts for.
fn quiet() -> Option<Duration> {
    let seconds = std::env::var("VOLTOOL_TEST_QUIET").ok().filter(|_| cfg!(debug_assertions))?;
    seconds.parse().ok().map(Duration::from_secs)
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
