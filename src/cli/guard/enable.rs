//! `voltool guard enable`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::engine_config::EngineConfig;
use super::engine_process::{ANSWER_LIMIT, EngineProcess};
use crate::cli::{CliError, Context, Outcome};
use crate::plugin::{self, client};

/// Make an engine ask the guard
///
/// Adds voltool to the authorization plugins in the engine's configuration file and has the engine read it, without a restart.
/// 'voltool daemon --plugin' has to run first, and from then on always: while it does not, the engine refuses every request.
#[derive(Debug, Clone, Default, Args)]
pub struct EnableArgs {
    /// Which engine.
    #[command(flatten)]
    pub engine: EngineOptions,
    /// Whether it is told.
    #[command(flatten)]
    pub reload: ReloadOptions,
}

/// Which engine is meant, and how it finds the plugin.
#[derive(Debug, Clone, Default, Args)]
pub struct EngineOptions {
    /// The engine's configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/docker/daemon.json")]
    pub config_file: PathBuf,

    /// The file with the engine's process id
    #[arg(long, value_name = "FILE", default_value = "/var/run/docker.pid")]
    pub pidfile: PathBuf,

    /// The daemon's socket
    #[arg(long, value_name = "PATH", default_value = plugin::DEFAULT_SOCKET)]
    pub socket: PathBuf,
}

/// What a person is told who is locked out.
pub const WAY_OUT: &str = "if the daemon is gone for good: 'voltool guard disable', or take \"voltool\" out of \
                           \"authorization-plugins\" in the engine's configuration and restart the engine";

/// Options that change something.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct ReloadOptions {
    /// Only edit the file: the engine reads it when it is told to, or starts
    #[arg(long)]
    pub no_reload: bool,
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: EnableArgs) -> anyhow::Result<Outcome> {
    let EngineOptions { config_file, pidfile, socket } = &args.engine;
    let process = EngineProcess::find(pidfile)?;
    if let Some(process) = &process {
        check_started_for(process, config_file)?;
    } else if !args.reload.no_reload {
        return Err(no_engine(pidfile).into());
    }
    check_daemon(socket).await?;
    let config = EngineConfig::read(config_file)?;
    if config.names_us()? {
        ctx.ui.note(&format!("{} names voltool already", config.path.display()));
    } else {
        let written = config.replace(&config.edited(true)?)?;
        ctx.ui.note(&format!("added voltool to the authorization plugins in {}", config.path.display()));
        if let Some(backup) = written.backup {
            ctx.ui.note(&format!("the file as it was: {}", backup.display()));
        }
    }
    match process.filter(|_| !args.reload.no_reload) {
        Some(process) => {
            let reloaded = process.reload(ctx, socket, true).await;
            reloaded.map_err(|e| {
                e.hint("the file names voltool all the same: 'voltool guard disable' takes it out again")
            })?;
            ctx.ui.note("the engine asks voltool before it removes anything");
        }
        None => ctx.ui.note("the engine asks voltool when it has read the file: systemctl reload docker"),
    }
    ctx.ui.note(
        "from now on the daemon must run whenever the engine does: while it does not, the engine refuses every request",
    );
    ctx.ui.note(WAY_OUT);
    Ok(Outcome::Done)
}

/// Makes sure that the engine reads that file, and is not told about plugins in another place.
pub(super) fn check_started_for(process: &EngineProcess, config_file: &Path) -> Result<(), CliError> {
    if process.has_plugin_flag() {
        return Err(CliError::failed(
            "the engine is started with --authorization-plugin: with the same in its file it would not start",
        )
        .hint(
            "add --authorization-plugin=voltool where it is started, or take that flag out there and run this again",
        ));
    }
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match process.config_file() {
        Some(file) if real(&file) != real(config_file) => Err(CliError::failed(format!(
            "the engine does not read {}: it is started with --config-file {}",
            config_file.display(),
            file.display()
        ))
        .hint(format!("say which one: --config-file {}", file.display()))),
        _ => Ok(()),
    }
}

pub(super) fn no_engine(pidfile: &Path) -> CliError {
    CliError::failed(format!("no engine runs: {} names no process", pidfile.display()))
        .hint("start it, or name its --pidfile; --no-reload only edits the file")
}

/// Makes sure that the daemon answers. An engine that is told to ask a plugin which is not there ends; one that is told to ask a plugin
/// which hangs does the same.
async fn check_daemon(socket: &Path) -> Result<(), CliError> {
    let path = socket.to_owned();
    let asked = tokio::task::spawn_blocking(move || client::is_authz(&path, ANSWER_LIMIT)).await;
    let answer = asked.unwrap_or_else(|e| Err(std::io::Error::other(e)));
    answer.map_err(|e| {
        let error = CliError::failed(format!("the daemon does not answer on {}: {e}", socket.display()));
        if e.kind() == std::io::ErrorKind::PermissionDenied {
            return error.hint("its socket belongs to root: run this as root");
        }
        error
            .hint("start it first: voltool plugin install")
            .hint("or, to try it out: voltool daemon --plugin")
            .hint("an engine that is told to ask a plugin that is not there ends")
    })
}
