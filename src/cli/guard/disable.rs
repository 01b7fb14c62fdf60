//! `voltool guard disable`.

use clap::Args;

use super::enable::{EngineOptions, ReloadOptions, no_engine};
use super::engine_config::EngineConfig;
use super::engine_process::EngineProcess;
use crate::cli::{CliError, Context, Outcome};

/// Make an engine stop asking the guard
///
/// Works also while the daemon does not run and the engine refuses everything.
#[derive(Debug, Clone, Default, Args)]
pub struct DisableArgs {
    /// Which engine.
    #[command(flatten)]
    pub engine: EngineOptions,
    /// Whether it is told.
    #[command(flatten)]
    pub reload: ReloadOptions,
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: DisableArgs) -> anyhow::Result<Outcome> {
    let EngineOptions { config_file, pidfile, socket } = &args.engine;
    let process = EngineProcess::find(pidfile)?;
    if process.as_ref().is_some_and(EngineProcess::has_plugin_flag) {
        return Err(CliError::failed("the engine is started with --authorization-plugin, which no file overrides")
            .hint("take the flag out where the engine is started, and restart it")
            .into());
    }
    let config = EngineConfig::read(config_file)?;
    if config.names_us()? {
        let written = config.replace(&config.edited(false)?)?;
        ctx.ui.note(&format!("took voltool out of the authorization plugins in {}", config.path.display()));
        if let Some(backup) = written.backup {
            ctx.ui.note(&format!("the file as it was: {}", backup.display()));
        }
    } else {
        ctx.ui.note(&format!("{} does not name voltool", config.path.display()));
    }
    if args.reload.no_reload {
        ctx.ui.note("the engine goes on asking voltool until it has read the file: systemctl reload docker");
        return Ok(Outcome::Done);
    }
    let process = process.ok_or_else(|| no_engine(pidfile))?;
    process.reload(ctx, socket, false).await?;
    ctx.ui.note("the engine no longer asks voltool: the daemon may be stopped");
    Ok(Outcome::Done)
}
