//! `voltool plugin heal`.

use clap::Args;

use super::daemon::{Daemon, Kept, KeptVolume};
use super::known::{Known, known};
use crate::cli::error::message;
use crate::cli::{CliError, Context, Outcome, open};
use crate::docker::{Container, Engine, EngineErrorKind};
use crate::inventory::{OWN_DRIVER, is_own_driver};

/// Tell the engine again what it has forgotten, and start what it gave up on
///
/// Volumes get their labels and options back in the engine. Containers that are to be restarted and could not be started because of a
/// volume are started; one that somebody stopped stays stopped. Nothing is ever removed: where a volume of another driver has the name
/// of one of voltool's, it is named, and the command fails.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  voltool plugin heal --dry-run
  voltool plugin heal")]
pub struct HealArgs {
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// What an engine writes down when a container could not be started because of a volume (engines 20.10 to 26.1): the driver refused,
/// or did not answer.
const BECAUSE_OF_A_VOLUME: [&str; 3] = ["error while mounting volume", "VolumeDriver.", "volume plugin"];

/// Runs the verb.
pub async fn run(ctx: &Context, args: HealArgs) -> anyhow::Result<Outcome> {
    let daemon = Daemon::of(ctx);
    let kept = daemon.volumes().await?;
    let engine = open::engine(ctx).await?;
    let mut healer =
        Healer { ctx, daemon, engine, dry: args.dry_run, done: 0, failures: Vec::new(), hints: Vec::new() };
    healer.volumes(&kept).await?;
    healer.containers(&kept).await?;
    if healer.done == 0 && healer.failures.is_empty() {
        ctx.ui.note("the engine knows all volumes, and has given up on no container because of one");
    }
    let Some(last) = healer.failures.pop() else { return Ok(Outcome::Done) };
    healer.failures.iter().for_each(|failure| ctx.ui.warn(failure));
    Err(healer.hints.iter().fold(CliError::failed(last), |error, hint| error.hint(hint)).into())
}

struct Healer<'a> {
    ctx: &'a Context,
    daemon: Daemon,
    engine: Engine,
    dry: bool,
    done: u64,
    failures: Vec<String>,
    hints: Vec<String>,
}

impl Healer<'_> {
    async fn volumes(&mut self, kept: &Kept) -> anyhow::Result<()> {
        let listed = self.engine.volumes().await?.volumes;
        let driver = listed.iter().map(|volume| volume.driver.as_str()).find(|driver| is_own_driver(driver));
        let driver = driver.unwrap_or(OWN_DRIVER).to_owned();
        for volume in &kept.volumes {
            let name = &volume.name;
            if volume.detached {
                if !self.dry {
                    self.daemon.attach(name).await?;
                }
                self.say(&format!("volume {name} is voltool's again"), &format!("take volume {name} back"));
            }
            match known(volume, &listed) {
                Known::Known => {}
                Known::Shadowed(other) => self.shadowed(volume, &other),
                Known::Forgotten if self.dry => self.say("", &format!("tell the engine of volume {name} again")),
                Known::Forgotten => match self.register(volume, &driver).await {
                    Ok(()) => self.say(&format!("the engine knows volume {name} again"), ""),
                    Err(e) => self.failures.push(format!("volume {name}: {}", message(&e))),
                },
            }
        }
        Ok(())
    }

    fn shadowed(&mut self, volume: &KeptVolume, other: &str) {
        let KeptVolume { name, folder, .. } = volume;
        let data = folder.join(crate::driver::files::DATA);
        self.failures.push(format!(
            "volume {name} is hidden by another one of that name (driver {other}), which the engine uses instead; the data is in {}",
            data.display()
        ));
        self.hints.push(format!(
            "what was written meanwhile is in the other one: keep what you need of it, remove the containers that use it, then \
             'voltool volume rm {name}' and 'voltool plugin heal'"
        ));
    }

    /// Tells the engine of a volume. One that it has found by itself since has no labels, and gets none before it is forgotten.
    async fn register(&self, volume: &KeptVolume, driver: &str) -> anyhow::Result<()> {
        let KeptVolume { name, labels, options, .. } = volume;
        let made = self.engine.create_volume(name, driver, labels, options).await?;
        if made.labels == *labels && made.options == *options {
            return Ok(());
        }
        self.daemon.hold(name).await?;
        let removed = self.engine.remove_volume_by_force(name).await;
        self.daemon.release(name).await?;
        match removed {
            // The driver has refused, as it was told to.
            Err(e) if e.kind == EngineErrorKind::Engine => {}
            Err(e) if e.kind == EngineErrorKind::Conflict => {
                return Err(CliError::failed(
                    "containers use it, and until they are removed the engine takes no labels for it",
                )
                .into());
            }
            Err(e) => return Err(e.into()),
            Ok(()) => return Err(CliError::failed("the engine removed it, where it was only to forget it").into()),
        }
        let made = self.engine.create_volume(name, driver, labels, options).await?;
        if made.labels == *labels && made.options == *options {
            return Ok(());
        }
        Err(CliError::failed("the engine does not take its labels and options").into())
    }

    async fn containers(&mut self, kept: &Kept) -> anyhow::Result<()> {
        for container in self.engine.containers().await? {
            let Some(why) = given_up(&container, kept) else { continue };
            let name = &container.name;
            self.ctx.ui.detail(&format!("container {name}: {why}"));
            if self.dry {
                self.say("", &format!("start container {name}"));
                continue;
            }
            match self.engine.start_container(&container.id).await {
                Ok(()) => self.say(&format!("container {name} runs again"), ""),
                Err(e) => self.failures.push(format!("container {name} does not start: {e}")),
            }
        }
        Ok(())
    }

    fn say(&mut self, done: &str, would: &str) {
        self.done += 1;
        match self.dry {
            true => self.ctx.ui.note(&format!("would {would}")),
            false => self.ctx.ui.note(done),
        }
    }
}

/// Why the engine gave up on a container, if it did because of one of our volumes.
fn given_up<'a>(container: &'a Container, kept: &Kept) -> Option<&'a str> {
    let policy = container.details.host_config.restart_policy.name.as_str();
    let ours = |name: &str| kept.volumes.iter().any(|volume| volume.name == name);
    let mut mounts = container.details.mounts.iter().filter(|mount| mount.is_volume());
    let wanted = matches!(policy, "always" | "unless-stopped" | "on-failure") && !container.is_running();
    if !wanted || !mounts.any(|mount| is_own_driver(&mount.driver) || (mount.driver.is_empty() && ours(&mount.name))) {
        return None;
    }
    // Empty for a container that has ended, or was stopped.
    let error = container.raw.pointer("/State/Error")?.as_str()?;
    BECAUSE_OF_A_VOLUME.iter().any(|known| error.contains(known)).then_some(error)
}
