//! `voltool plugin install`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::units::{self, Found, Unit, is_systemds, systemctl};
use crate::cli::{CliError, Context, Outcome};

/// Have systemd run the daemon
///
/// Writes voltool.socket and voltool.service, and starts them: the socket is there before the engine is. Doing it again changes nothing;
/// after voltool was replaced by a newer version, it brings the units up to date.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  voltool plugin install
  voltool plugin install --no-start
  docker volume create -d voltool db")]
pub struct InstallArgs {
    /// Where to write the units [default: /etc/systemd/system]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Only write the units
    #[arg(long)]
    pub no_start: bool,
}

/// Where the service's configuration is.
const SERVICE_CONFIG: &str = "/etc/voltool/config.toml";
/// Units that an earlier version came with, for the same socket.
const EARLIER: [&str; 2] = ["voltool-authz.socket", "voltool-authz.service"];

/// Runs the verb.
pub async fn run(ctx: &Context, args: InstallArgs) -> anyhow::Result<Outcome> {
    let dir = folder(args.dir)?;
    let program = std::fs::canonicalize("/proc/self/exe")
        .map_err(|e| CliError::failed(format!("cannot find out where this program is: {e}")))?;
    let wanted = units::units(&dir, &program, ctx.settings.plugin.socket());
    // All or nothing.
    let mut found = Vec::new();
    for unit in &wanted {
        let what = unit.look()?;
        if what == Found::Foreign {
            let error = CliError::failed(format!("{} is there, and voltool did not write it", unit.path.display()));
            return Err(error.hint("move it away, or name another folder with --dir").into());
        }
        found.push((unit, what));
    }
    if let Some(earlier) = EARLIER.iter().find(|name| dir.join(name).exists()) {
        let both = EARLIER.join(" ");
        return Err(CliError::failed(format!(
            "{} is there, and listens on the same socket",
            dir.join(earlier).display()
        ))
        .hint(format!("voltool.service does what it did: systemctl disable --now {both}, and remove both files"))
        .into());
    }
    std::fs::create_dir_all(&dir)
        .map_err(|e| CliError::failed(format!("cannot make the folder {}: {e}", dir.display())))?;
    let mut replaced = false;
    for (unit, what) in found {
        if what != Found::Same {
            write(unit)?;
        }
        replaced |= what == Found::Other;
        let word = if what == Found::Same { "is there already" } else { "is written" };
        ctx.ui.note(&format!("{} {word}", unit.path.display()));
    }
    start(ctx, &dir, args.no_start, replaced)?;
    if let Some(file) = ctx.settings.config_file.as_deref().filter(|file| *file != Path::new(SERVICE_CONFIG)) {
        ctx.ui.warn(&format!(
            "the service reads {SERVICE_CONFIG}, and this command read {}: 'systemctl edit voltool' can give it VOLTOOL_CONFIG",
            file.display()
        ));
    }
    Ok(Outcome::Done)
}

fn start(ctx: &Context, dir: &Path, no_start: bool, replaced: bool) -> Result<(), CliError> {
    if no_start || !is_systemds(dir) {
        ctx.ui.note("to start it: systemctl daemon-reload && systemctl enable --now voltool.socket voltool.service");
        return Ok(());
    }
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", "--now", "voltool.socket", "voltool.service"])?;
    if replaced {
        // Engines wait at the socket meanwhile.
        systemctl(&["restart", "voltool.service"])?;
    }
    ctx.ui.note("the daemon runs, and is started before the engine from now on: docker volume create -d voltool NAME");
    Ok(())
}

/// The folder that is meant.
pub(super) fn folder(given: Option<PathBuf>) -> Result<PathBuf, CliError> {
    let folder = given.unwrap_or_else(|| units::DIR.into());
    std::path::absolute(&folder).map_err(|e| CliError::failed(format!("cannot use {}: {e}", folder.display())))
}

fn write(unit: &Unit) -> Result<(), CliError> {
    let failed = |e: std::io::Error| {
        let error = CliError::failed(format!("cannot write {}: {e}", unit.path.display()));
        match e.kind() {
            std::io::ErrorKind::PermissionDenied => error.hint("units belong to root: run this as root"),
            _ => error,
        }
    };
    // Beside it first: systemd never reads half of it.
    let mut beside = unit.path.as_os_str().to_owned();
    beside.push(format!(".voltool-{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = std::fs::write(&beside, &unit.text)
        .and_then(|()| std::fs::set_permissions(&beside, std::os::unix::fs::PermissionsExt::from_mode(0o644)))
        .and_then(|()| std::fs::rename(&beside, &unit.path));
    written.map_err(|e| {
        // The first error is the one that matters.
        let _ = std::fs::remove_file(&beside);
        failed(e)
    })
}
