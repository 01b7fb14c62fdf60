//! `voltool plugin uninstall`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::daemon::{Daemon, Kept, KeptVolume};
use super::install::folder;
use super::known::{Known, known};
use super::units::{self, Found, is_systemds, systemctl};
use crate::cli::{CliError, Context, Kind, Outcome, open};
use crate::docker::{Engine, Volume};
use crate::driver::files::{DATA, STALE};
use crate::driver::trash::lift_limit;
use crate::inventory::is_own_driver;

/// Take the driver away from the engine, and the daemon from systemd
///
/// An engine waits 15 s at each start for every volume whose driver is gone, and can never remove it. So the engine is made to forget the
/// volumes first: empty ones are removed, and as long as one holds data nothing is done. With --keep-data the content stays in its
/// folder, where a later 'voltool plugin install' and 'voltool plugin heal' find it again.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  voltool plugin uninstall
  voltool plugin uninstall --keep-data")]
pub struct UninstallArgs {
    /// Where the units are [default: /etc/systemd/system]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Leave volumes that hold data in their folders, where no engine knows of them
    #[arg(long)]
    pub keep_data: bool,
}

/// Runs the verb.
pub async fn run(ctx: &Context, args: UninstallArgs) -> anyhow::Result<Outcome> {
    let dir = folder(args.dir)?;
    let daemon = Daemon::of(ctx);
    match daemon.volumes().await {
        Ok(kept) => let_go(ctx, &daemon, &kept, args.keep_data).await?,
        // Nothing was ever kept: there is nothing that an engine could know.
        Err(_) if is_empty(&ctx.settings.state_dir.join("volumes")) => {}
        Err(e) => return Err(e.hint("it has to run for this: the engine would wait for it at every start").into()),
    }
    remove_units(ctx, &dir)?;
    Ok(Outcome::Done)
}

/// Makes the engine forget all volumes, or refuses.
async fn let_go(ctx: &Context, daemon: &Daemon, kept: &Kept, keep_data: bool) -> anyhow::Result<()> {
    let before = daemon.status().await?["requests"].as_u64();
    let engine = open::engine(ctx).await?;
    let after = daemon.status().await?["requests"].as_u64();
    if after > before {
        let error =
            CliError::failed("the engine asks voltool before everything: without the daemon it would refuse it");
        return Err(error.hint("first: voltool guard disable").into());
    }
    let listed = engine.volumes().await?.volumes;
    refuse_if_used(&engine, kept).await?;
    // What is on a server is data too, though it stays there.
    let holds_data = |volume: &&KeptVolume| {
        let full = |name: &str| !is_empty(&volume.folder.join(name));
        volume.options.contains_key("mount") || full(DATA) || full(STALE)
    };
    let (full, empty): (Vec<&KeptVolume>, Vec<&KeptVolume>) = kept.volumes.iter().partition(holds_data);
    if !keep_data && !full.is_empty() {
        return Err(refusal(&full).into());
    }
    for volume in &empty {
        forget(daemon, &engine, volume, &listed).await?;
        if let Err(e) = remove_empty(volume) {
            // Somebody has written into it.
            daemon.attach(&volume.name).await?;
            return Err(CliError::failed(format!("cannot remove {}: {e}", volume.folder.display())).into());
        }
        ctx.ui.note(&format!("volume {} is removed: there was nothing in it", volume.name));
    }
    for volume in &full {
        forget(daemon, &engine, volume, &listed).await?;
        let data = volume.folder.join(DATA);
        ctx.ui.note(&format!(
            "volume {} is unknown to the engine now, and its content stays in {}",
            volume.name,
            volume.options.get("mount").cloned().unwrap_or_else(|| data.display().to_string())
        ));
    }
    if !kept.trash.is_empty() {
        ctx.ui.warn(&format!(
            "what was removed and can still be brought back stays in {}",
            ctx.settings.state_dir.join("trash").display()
        ));
    }
    Ok(())
}

/// Makes the engine forget a volume, and leaves its folder as it is.
async fn forget(daemon: &Daemon, engine: &Engine, volume: &KeptVolume, listed: &[Volume]) -> anyhow::Result<()> {
    daemon.detach(&volume.name).await?;
    // Another driver's volume of that name is what the engine would remove; of ours it knows nothing then.
    if matches!(known(volume, listed), Known::Shadowed(_)) {
        return Ok(());
    }
    if let Err(e) = engine.remove_volume(&volume.name).await {
        daemon.attach(&volume.name).await?;
        return Err(e.into());
    }
    Ok(())
}

/// Removes a folder that the daemon has let go of. Fails if there is something in it by now.
fn remove_empty(volume: &KeptVolume) -> std::io::Result<()> {
    let data = volume.folder.join(DATA);
    if volume.options.contains_key("size") && data.exists() {
        lift_limit(&data);
    }
    match std::fs::remove_dir(&data) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        // Only voltool's own notes on it are left.
        _ => std::fs::remove_dir_all(&volume.folder),
    }
}

async fn refuse_if_used(engine: &Engine, kept: &Kept) -> anyhow::Result<()> {
    let ours = |name: &str| kept.volumes.iter().any(|volume| volume.name == name);
    let mut used = Vec::new();
    for user in engine.volume_users(None).await? {
        let volumes =
            user.volumes.iter().filter(|(name, driver)| is_own_driver(driver) || (driver.is_empty() && ours(name)));
        used.extend(volumes.map(|(volume, _)| format!("container {} uses volume {volume}", user.name)));
    }
    if used.is_empty() {
        return Ok(());
    }
    let error = CliError::new(Kind::Refused, format!("the driver stays: {}", used.join(", ")));
    Err(error.hint("remove these containers first, and make them again on other volumes").into())
}

fn refusal(full: &[&KeptVolume]) -> CliError {
    let names: Vec<&str> = full.iter().map(|volume| volume.name.as_str()).collect();
    let error = CliError::new(Kind::Refused, format!("the driver stays: there is data in {}", names.join(", ")));
    let error = names.iter().fold(error, |error, name| {
        error.hint(format!(
            "voltool backup {name} && voltool restore {name} --to {name}-local && docker volume rm {name}    moves it to another volume"
        ))
    });
    error.hint("or --keep-data: the engine forgets these volumes, and what is in them stays in its folders")
}

/// Whether nothing is in a folder, or there is none.
fn is_empty(folder: &Path) -> bool {
    match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(e) => e.kind() == std::io::ErrorKind::NotFound,
    }
}

fn remove_units(ctx: &Context, dir: &Path) -> Result<(), CliError> {
    let ours = units::units(dir, Path::new("voltool"), ctx.settings.plugin.socket());
    let mut found = Vec::new();
    for unit in &ours {
        match unit.look()? {
            Found::Nothing => {}
            Found::Same | Found::Other => found.push(unit),
            Found::Foreign => ctx.ui.warn(&format!("{} is not voltool's, and stays", unit.path.display())),
        }
    }
    if found.is_empty() {
        ctx.ui.note(&format!(
            "there are no units of voltool's in {}; a daemon that runs may be stopped now",
            dir.display()
        ));
        return Ok(());
    }
    let running = is_systemds(dir);
    if running {
        let names: Vec<String> = found.iter().map(|unit| unit.name()).collect();
        let words: Vec<&str> = ["disable", "--now"].into_iter().chain(names.iter().map(String::as_str)).collect();
        systemctl(&words)?;
    }
    for unit in found {
        std::fs::remove_file(&unit.path).map_err(|e| {
            CliError::failed(format!("cannot remove {}: {e}", unit.path.display())).hint("run this as root")
        })?;
        ctx.ui.note(&format!("{} is gone", unit.path.display()));
    }
    if running {
        systemctl(&["daemon-reload"])?;
    }
    Ok(())
}
