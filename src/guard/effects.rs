//! What the engine would do with a request, by its own rules. Pure: an inventory goes in, and nothing is asked or changed.
//!
//! The request's steps are played one after another on a model of the engine, since what one step removes decides what the next
//! finds unused. The engine's rules, the same from 20.10 to today (moby: `daemon/mounts.go`, `daemon/prune.go`,
//! `daemon/volume/service`):
//!
//! - Removing a container releases its volumes. With `v`, a volume that the container's definition does not name (the mount's
//!   source is empty: `-v /path`, an image's `VOLUME`, or inherited from such a mount) is removed, if nobody else holds it.
//! - A running or paused container is removed with `force` only. Removing a volume that somebody holds fails, `force` or not.
//! - Prune takes what is of the driver `local`, has no options, is held by nobody and passes the filters; since API 1.42 only what
//!   has the label `com.docker.volume.anonymous`, unless `all` is asked for.
//!
//! "Holds" is the engine's own bookkeeping, which is kept in memory and is not what the mounts say: a container that inherits
//! volumes and was never started may hold them or not, depending on how they were mounted and on whether the engine was
//! restarted since; and a plugin's failure or a restart makes the engine forget. What can be seen of it is which volumes it takes
//! for unused now ([`Inventory::unreferenced`]). Where that is not enough, the effect is worked out for the worse case and marked
//! as not certain.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::filter::FilterError;
use super::{Action, Request, Step};
use crate::docker::Container;
use crate::inventory::{Inventory, VolumeInfo};

/// The label of anonymous volumes, which prune goes by since API 1.42.
const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";
/// The API version since which prune goes by it.
const PRUNES_ANONYMOUS_ONLY: (u32, u32) = (1, 42);

/// What a request would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// The volumes that it would destroy or orphan, by name.
    pub volumes: BTreeMap<String, Effect>,
    /// The containers that it would remove, by their full ids, in the order in which they go.
    pub containers: Vec<String>,
    /// What the engine would refuse by itself, in words.
    pub notes: Vec<String>,
}

/// A call that the engine may be carrying out at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// What it does.
    pub step: Step,
    /// The API version in which it was asked.
    pub api: (u32, u32),
}

/// What would happen to one volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// What.
    pub action: Action,
    /// Whether that is certain; see the module's documentation.
    pub certain: bool,
    /// The names of the containers that would still refer to it afterwards: the engine has forgotten that, or may have.
    pub still_used_by: Vec<String>,
}

impl Effects {
    /// Works out what a request would do to what is there. `now` is what `until=24h` counts from.
    ///
    /// # Errors
    /// If a filter makes no sense.
    pub fn of(request: &Request, inventory: &Inventory, now: Timestamp) -> Result<Effects, FilterError> {
        Effects::after(&[], request, inventory, now)
    }

    /// As [`Effects::of`], after other calls that the engine may be carrying out at this moment. Their effects are in the result: what
    /// two calls destroy together, none of them may destroy alone.
    ///
    /// # Errors
    /// If a filter makes no sense.
    pub fn after(
        others: &[Pending],
        request: &Request,
        inventory: &Inventory,
        now: Timestamp,
    ) -> Result<Effects, FilterError> {
        let mut model = Model::new(inventory);
        let others = others.iter().map(|pending| (&pending.step, pending.api));
        for (step, api) in others.chain(request.steps.iter().map(|step| (step, request.api))) {
            model.take(step, api, now)?;
        }
        Ok(model.finish())
    }

    /// The names of the volumes that it would destroy.
    pub fn destroyed(&self) -> impl Iterator<Item = &str> {
        self.volumes.iter().filter(|(_, effect)| effect.action == Action::Destroy).map(|(name, _)| name.as_str())
    }
}

/// Whether the engine counts a container as a user of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    Certain,
    Possible,
    /// The mounts say so, and the engine has forgotten it.
    Forgotten,
}

/// What a container mounts, as far as removing goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Use {
    hold: Hold,
    /// Whether `rm -v` of this container takes the volume along; `None` if nobody can tell.
    removable: Option<bool>,
}

/// An engine on paper.
struct Model<'a> {
    inventory: &'a Inventory,
    gone_containers: BTreeSet<&'a str>,
    order: Vec<String>,
    /// Who uses a volume: by its name, then by the container's id.
    users: BTreeMap<&'a str, BTreeMap<&'a str, Use>>,
    /// Volumes that somebody uses whom the inventory does not know.
    held_by_strangers: BTreeSet<&'a str>,
    /// What was destroyed, and whether that is certain.
    destroyed: BTreeMap<&'a str, bool>,
    notes: Vec<String>,
}

impl<'a> Model<'a> {
    fn new(inventory: &'a Inventory) -> Model<'a> {
        let mut users = BTreeMap::new();
        let mut held_by_strangers = BTreeSet::new();
        for volume in &inventory.volumes {
            let forgotten = inventory.unreferenced.as_ref().map(|names| names.contains(&volume.name));
            let mut of_volume: BTreeMap<&str, Use> = BTreeMap::new();
            for usage in &volume.used_by {
                let found = inventory.containers.iter().find(|container| container.id == usage.container_id);
                let never_ran = found.is_some_and(never_ran);
                let hold = match forgotten {
                    Some(true) => Hold::Forgotten,
                    _ if usage.inherited && never_ran => Hold::Possible,
                    _ => Hold::Certain,
                };
                let removable = usage.named_in_spec.map(|named| !named);
                // At several paths: it is enough if one of them is not named.
                let both = of_volume.entry(&usage.container_id).or_insert(Use { hold, removable });
                both.removable = match (both.removable, removable) {
                    (Some(true), _) | (_, Some(true)) => Some(true),
                    (None, _) | (_, None) => None,
                    _ => Some(false),
                };
                if hold == Hold::Certain {
                    both.hold = Hold::Certain;
                }
            }
            // The engine counts it as used: if there is one user only, it is that one.
            if forgotten == Some(false) {
                match of_volume.len() {
                    0 => drop(held_by_strangers.insert(volume.name.as_str())),
                    1 => of_volume.values_mut().for_each(|one| one.hold = Hold::Certain),
                    _ => {}
                }
            }
            users.insert(volume.name.as_str(), of_volume);
        }
        Model {
            inventory,
            gone_containers: BTreeSet::new(),
            order: Vec::new(),
            users,
            held_by_strangers,
            destroyed: BTreeMap::new(),
            notes: Vec::new(),
        }
    }

    fn take(&mut self, step: &Step, api: (u32, u32), now: Timestamp) -> Result<(), FilterError> {
        match step {
            Step::RemoveContainer { container, volumes, force } => self.remove(container, *volumes, *force),
            Step::RemoveVolume { volume, force } => self.remove_volume(volume, *force),
            Step::PruneContainers { filters } => {
                let until = filters.of_containers(now)?;
                self.prune_containers(|container: &Container| {
                    // The engine compares with "not after"; a container without a readable time stays a candidate.
                    let created = container.raw.get("Created").and_then(|v| v.as_str()).and_then(|t| t.parse().ok());
                    let old_enough = until.is_none_or(|until| created.is_none_or(|at: Timestamp| at <= until));
                    old_enough && filters.match_labels(&container.details.config.labels)
                });
            }
            Step::PruneVolumes { filters } => {
                let all = filters.of_volumes()? || api < PRUNES_ANONYMOUS_ONLY;
                self.prune_volumes(|volume: &VolumeInfo| {
                    (all || volume.labels.contains_key(ANONYMOUS_LABEL)) && filters.match_labels(&volume.labels)
                });
            }
        }
        Ok(())
    }

    /// `DELETE /containers/{id}`.
    fn remove(&mut self, reference: &str, volumes: bool, force: bool) {
        let Some(container) = self.inventory.container(reference).filter(|c| !self.gone_containers.contains(&*c.id))
        else {
            self.notes.push(format!("there is no container {reference}"));
            return;
        };
        if container.is_running() && !force {
            self.notes
                .push(format!("container {} is running: the engine removes it only with --force", container.name));
            return;
        }
        self.gone_containers.insert(&container.id);
        self.order.push(container.id.clone());
        let of_container =
            self.users.iter_mut().filter_map(|(name, users)| Some((*name, users.remove(&*container.id)?)));
        let released: Vec<(&str, Use)> = of_container.collect();
        if !volumes {
            return;
        }
        for (name, used) in released {
            let Some(others) = self.others(name) else { continue };
            match used.removable {
                Some(false) => {}
                // Only what the engine had counted for this container is removed with it; that it might have is the worse case.
                Some(true) => self.destroy(name, others == Others::Nobody && used.hold == Hold::Certain),
                None => self.destroy(name, false),
            }
        }
    }

    /// `DELETE /volumes/{name}`.
    fn remove_volume(&mut self, name: &str, force: bool) {
        let Some(volume) = self.inventory.volume(name).filter(|v| !self.is_destroyed(&v.name)) else {
            if !force {
                self.notes.push(format!("there is no volume {name}"));
            }
            return;
        };
        match self.others(&volume.name) {
            Some(others) => self.destroy(&volume.name, others == Others::Nobody),
            None => {
                let users = self.user_names(&volume.name);
                let by = if users.is_empty() { String::new() } else { format!(" by {}", users.join(", ")) };
                self.notes.push(format!("volume {name} is in use{by}: the engine does not remove it"));
            }
        }
    }

    /// `POST /containers/prune`.
    fn prune_containers(&mut self, passes: impl Fn(&Container) -> bool) {
        let inventory = self.inventory;
        for container in inventory.containers.iter().filter(|c| !c.is_running() && passes(c)) {
            if !self.gone_containers.contains(&*container.id) {
                self.remove(&container.id, false, false);
            }
        }
    }

    /// `POST /volumes/prune`.
    fn prune_volumes(&mut self, passes: impl Fn(&VolumeInfo) -> bool) {
        let inventory = self.inventory;
        for volume in inventory.volumes.iter().filter(|v| v.driver == "local" && v.options.is_empty() && passes(v)) {
            if let Some(others) = self.others(&volume.name).filter(|_| !self.is_destroyed(&volume.name)) {
                self.destroy(&volume.name, others == Others::Nobody);
            }
        }
    }

    /// Who holds a volume now; `None` if somebody certainly does, so that the engine does not remove it.
    fn others(&self, name: &str) -> Option<Others> {
        if self.held_by_strangers.contains(name) {
            return None;
        }
        let holds: Vec<Hold> = self.users.get(name)?.values().map(|used| used.hold).collect();
        if holds.contains(&Hold::Certain) {
            None
        } else if holds.contains(&Hold::Possible) {
            Some(Others::Perhaps)
        } else {
            Some(Others::Nobody)
        }
    }

    fn destroy(&mut self, name: &'a str, certain: bool) {
        let known = self.destroyed.entry(name).or_insert(certain);
        *known = *known || certain;
    }

    fn is_destroyed(&self, name: &str) -> bool {
        // What was only perhaps destroyed may still be there for the next step.
        self.destroyed.get(name).is_some_and(|certain| *certain)
    }

    fn user_names(&self, volume: &str) -> Vec<String> {
        let ids =
            self.users.get(volume).map(|users| users.keys().copied().collect::<BTreeSet<_>>()).unwrap_or_default();
        let containers = self.inventory.containers.iter().filter(|c| ids.contains(&*c.id));
        containers.map(|container| container.name.clone()).collect()
    }

    fn finish(self) -> Effects {
        let mut volumes = BTreeMap::new();
        for volume in &self.inventory.volumes {
            let still_used_by = self.user_names(&volume.name);
            if let Some(certain) = self.destroyed.get(volume.name.as_str()) {
                let effect = Effect { action: Action::Destroy, certain: *certain, still_used_by };
                volumes.insert(volume.name.clone(), effect);
            } else if still_used_by.is_empty() && !volume.used_by.is_empty() {
                let effect = Effect { action: Action::Orphan, certain: true, still_used_by };
                volumes.insert(volume.name.clone(), effect);
            }
        }
        Effects { volumes, containers: self.order, notes: self.notes }
    }
}

/// Whether anybody but those who are gone may hold a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    Nobody,
    Perhaps,
}

/// Whether a container was never started: its `StartedAt` is in the year 1.
fn never_ran(container: &Container) -> bool {
    let started = container.details.state.started_at.parse::<Timestamp>();
    !container.is_running() && started.is_ok_and(|time| time < Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
#[path = "effects_tests.rs"]
mod tests;
