//! What the prune verbs have in common: from "unused" to a list of names.
//!
//! Docker's prune decides what it takes while it takes it. Here the list is made first, shown, judged and then removed by name: what
//! becomes unused meanwhile is not in it, and what is used again meanwhile is refused by the engine.

use jiff::{SignedDuration, Timestamp};

use super::CliError;
use super::guarded::Guarded;
use super::ui::format;
use crate::guard::{Effects, Filters, Request, Step};
use crate::inventory::{Inventory, Kind, VolumeInfo};

/// How long ago a volume must have been used last to be pruned, if the configuration does not say.
const GRACE: SignedDuration = SignedDuration::from_hours(24);

/// What a prune may take.
pub struct Candidates {
    /// Containers that do not run and pass these filters; `None` takes none.
    pub containers: Option<Filters>,
    /// Volumes that nobody uses then and that pass these filters; `None` takes none.
    pub volumes: Option<Filters>,
    /// Named volumes too.
    pub all: bool,
}

impl Candidates {
    /// Spells them out, and says what is left alone although nobody uses it, and why.
    pub fn steps(&self, guarded: &Guarded<'_>, inventory: &Inventory) -> anyhow::Result<(Vec<Step>, Vec<String>)> {
        let mut probe = Vec::new();
        probe.extend(self.containers.clone().map(|filters| Step::PruneContainers { filters }));
        if let Some(mut filters) = self.volumes.clone() {
            filters.add("all", "true");
            probe.push(Step::PruneVolumes { filters });
        }
        let now = Timestamp::now();
        let request = Request { command: String::new(), steps: probe, api: guarded.api() };
        let effects = Effects::of(&request, inventory, now).map_err(CliError::usage)?;

        let mut steps: Vec<Step> = Vec::new();
        for id in &effects.containers {
            let name = inventory.container(id).map_or(id, |container| &container.name);
            steps.push(Step::RemoveContainer { container: name.clone(), volumes: false, force: false });
        }
        let mut kept = Vec::new();
        let grace = guarded.ctx.settings.guard.grace.unwrap_or(GRACE);
        for (name, effect) in effects.volumes.iter().filter(|_| self.volumes.is_some()) {
            let Some(volume) = inventory.volume(name).filter(|_| effect.action == crate::guard::Action::Destroy) else {
                continue;
            };
            if volume.kind == Kind::Named && !self.all {
                continue;
            }
            if let Some(user) = effect.still_used_by.first() {
                kept.push(format!("{name} is left alone: container {user} uses it, which the engine does not know"));
                continue;
            }
            match last_used(guarded, volume) {
                Some(at) if now.duration_since(at) < grace => {
                    kept.push(format!(
                        "{name} is left alone: it was used {}, within guard.grace",
                        format::age(at, now)
                    ));
                }
                _ => steps.push(Step::RemoveVolume { volume: name.clone(), force: false }),
            }
        }
        Ok((steps, kept))
    }
}

/// When a volume was used last, as far as anybody knows: by what the catalog saw, else when it was made.
fn last_used(guarded: &Guarded<'_>, volume: &VolumeInfo) -> Option<Timestamp> {
    let made = volume.created_at.as_ref().and_then(|text| text.parse::<Timestamp>().ok());
    guarded.last_used_at(&volume.name).max(made)
}

/// Reads `--filter` arguments.
pub fn filters(arguments: &[String]) -> Result<Filters, CliError> {
    let mut filters = Filters::none();
    for argument in arguments {
        filters.add_argument(argument).map_err(CliError::usage)?;
    }
    Ok(filters)
}
