//! `voltool guard status`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::enable::{EngineOptions, WAY_OUT};
use super::engine_config::EngineConfig;
use super::engine_process::{self, EngineProcess};
use crate::cli::docker::{in_path, same_program};
use crate::cli::{CliError, Context, Outcome};
use crate::guard::argv::Program;

/// Say where the guard is in place
///
/// Fails if the parts do not fit together: an engine that is told to ask a daemon that does not run refuses every request.
#[derive(Debug, Clone, Default, Args)]
pub struct StatusArgs {
    /// Which engine.
    #[command(flatten)]
    pub engine: EngineOptions,

    /// Print an object as JSON
    #[arg(long)]
    pub json: bool,
}

/// Where the guard is in place, as `--json` prints it.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The docker command that is voltool; absent if the first in `PATH` is not.
    pub wrapper: Option<PathBuf>,
    /// What the daemon says of itself; absent if it does not answer.
    pub daemon: Option<Value>,
    /// Why the daemon does not answer.
    pub daemon_error: Option<String>,
    /// Whether the configuration file names voltool.
    pub configured: bool,
    /// Whether the engine's command line names plugins, which the file then cannot.
    pub flag: bool,
    /// Whether the engine asks the daemon; absent if the engine does not answer.
    pub asked: Option<bool>,
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: StatusArgs) -> anyhow::Result<Outcome> {
    let EngineOptions { config_file, pidfile, socket } = &args.engine;
    let configured = EngineConfig::read(config_file)?.names_us()?;
    // Whoever may not see the process is not told about its flags.
    let flag = EngineProcess::find(pidfile).ok().flatten().is_some_and(|process| process.has_plugin_flag());
    let daemon = engine_process::status(socket).await;
    let status = Status {
        wrapper: wrapper(),
        daemon_error: daemon.as_ref().err().map(ToString::to_string),
        daemon: daemon.ok(),
        configured,
        flag,
        asked: engine_process::asks_us(ctx, socket).await,
    };
    if args.json {
        ctx.ui.json(&status)?;
    } else {
        ctx.ui.print(&lines(&status, config_file, socket))?;
    }
    match problem(&status) {
        None => Ok(Outcome::Done),
        Some(error) => Err(error.into()),
    }
}

fn lines(status: &Status, config_file: &Path, socket: &Path) -> String {
    let wrapper = match &status.wrapper {
        Some(path) => format!("{} asks the guard", path.display()),
        None => "the docker command does not ask the guard".to_owned(),
    };
    let daemon = match (&status.daemon, &status.daemon_error) {
        (Some(says), _) => format!(
            "answers on {}: process {}, asked {} times, judged {}, refused {}",
            socket.display(),
            says["pid"],
            says["requests"],
            says["judged"],
            says["refused"]
        ),
        (None, why) => format!("does not answer on {}: {}", socket.display(), why.as_deref().unwrap_or("no reason")),
    };
    let names = if status.configured { "names" } else { "does not name" };
    let flag =
        if status.flag { "; the engine is started with --authorization-plugin, which goes before it" } else { "" };
    let engine = match status.asked {
        Some(true) => "asks voltool before everything; if the daemon stops, it refuses every request",
        Some(false) => "does not ask voltool",
        None => "does not answer",
    };
    let config = config_file.display();
    format!(
        "wrapper:        {wrapper}\ndaemon:         {daemon}\nconfiguration:  {config} {names} voltool{flag}\nengine:         {engine}\n"
    )
}

/// What does not fit together.
fn problem(status: &Status) -> Option<CliError> {
    let start = "start the daemon: systemctl start voltool, or voltool daemon --plugin";
    let told = status.configured || (status.flag && status.asked.is_none());
    match (told, status.daemon.is_some(), status.asked) {
        (true, false, _) => Some(
            CliError::failed(
                "the engine is told to ask voltool, and the daemon does not answer: it refuses every request",
            )
            .hint(start)
            .hint(WAY_OUT),
        ),
        (true, true, Some(false)) => Some(
            CliError::failed("the configuration names voltool, and the engine does not ask it")
                .hint("have the engine read it: voltool guard enable, or systemctl reload docker"),
        ),
        (false, _, Some(true)) if !status.flag => Some(
            CliError::failed(
                "the engine asks voltool, and its configuration does not say so: after a restart it would not",
            )
            .hint("voltool guard enable"),
        ),
        _ => None,
    }
}

/// The docker command that people get, if it is voltool by another name.
fn wrapper() -> Option<PathBuf> {
    in_path(Program::Docker.name()).into_iter().next().filter(|first| same_program(first))
}
