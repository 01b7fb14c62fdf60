//! From what a command line asks for to what the engine will be asked for.
//!
//! Where it cannot be told which of several things Compose would remove, all of them are taken: a guard that looks at too much is
//! safe, and what it finds harmless does not stand in the way.

use std::collections::BTreeSet;

use super::project::{DefinedVolume, Project};
use super::{ComposeAction, Intent, Replace, Tasks};
use crate::docker::Container;
use crate::guard::{Filters, Request, Step};
use crate::inventory::{Inventory, VolumeInfo};

const PROJECT: &str = "com.docker.compose.project";
const WORKING_DIR: &str = "com.docker.compose.project.working_dir";
const SERVICE: &str = "com.docker.compose.service";
/// On a volume: what Compose (since 2.32) compares its definition with.
const CONFIG_HASH: &str = "com.docker.compose.config-hash";
const STACK: &str = "com.docker.stack.namespace";
const SWARM_SERVICE: &str = "com.docker.swarm.service.name";
const SWARM_SERVICE_ID: &str = "com.docker.swarm.service.id";
const SWARM_TASK: &str = "com.docker.swarm.task.id";

/// What an intent's meaning depends on besides what is on the engine.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The API version that Docker's command will speak.
    pub api: (u32, u32),
    /// `pruneFilters` of Docker's own settings: its command adds them to those of the command line.
    pub prune_filters: Vec<String>,
    /// The Compose project that is meant, for an intent that needs one.
    pub project: Project,
}

impl Intent {
    /// Whether the API version matters: what a prune of volumes takes depends on it.
    pub fn needs_api(&self) -> bool {
        matches!(self, Intent::PruneVolumes { .. } | Intent::PruneSystem { volumes: true, .. })
    }

    /// Whether Docker's own settings have filters for it.
    pub fn needs_prune_filters(&self) -> bool {
        matches!(self, Intent::PruneVolumes { .. } | Intent::PruneContainers { .. } | Intent::PruneSystem { .. })
    }
}

/// Works out what the engine will be asked for, in that order. `command` is what the person typed.
pub fn resolve(command: String, intent: &Intent, inventory: &Inventory, facts: &Facts) -> Request {
    let with_settings = |filters: &Filters| with_settings(filters, &facts.prune_filters);
    let steps = match intent {
        Intent::RemoveContainers { containers, volumes, force } => containers
            .iter()
            .map(|container| Step::RemoveContainer { container: container.clone(), volumes: *volumes, force: *force })
            .collect(),
        Intent::RemoveVolumes { volumes, force } => {
            volumes.iter().map(|volume| Step::RemoveVolume { volume: volume.clone(), force: *force }).collect()
        }
        Intent::PruneContainers { filters } => vec![Step::PruneContainers { filters: with_settings(filters) }],
        Intent::PruneVolumes { filters } => vec![Step::PruneVolumes { filters: with_settings(filters) }],
        Intent::PruneSystem { filters, volumes } => {
            let filters = with_settings(filters);
            let containers = Step::PruneContainers { filters: filters.clone() };
            if *volumes { vec![containers, Step::PruneVolumes { filters }] } else { vec![containers] }
        }
        Intent::RemoveTasks(tasks) => remove_tasks(tasks, inventory),
        Intent::Compose(_, action) => compose(action, &facts.project, inventory),
    };
    Request { command, steps, api: facts.api }
}

/// The filters with those of Docker's own settings. One that the command line contradicts is left out, as Docker's command does.
fn with_settings(given: &Filters, settings: &[String]) -> Filters {
    let mut filters = given.clone();
    for (key, value) in settings.iter().filter_map(|text| text.split_once('=')) {
        let opposite = match key {
            "label" => "label!",
            "label!" => "label",
            _ => "",
        };
        if !filters.values(opposite).any(|other| other == value) {
            filters.add(key, value);
        }
    }
    filters
}

fn label<'a>(container: &'a Container, key: &str) -> Option<&'a str> {
    container.details.config.labels.get(key).map(String::as_str)
}

fn remove(container: &Container, volumes: bool) -> Step {
    Step::RemoveContainer { container: container.id.clone(), volumes, force: true }
}

/// The swarm removes its tasks' containers with their anonymous volumes; only what is on this engine can be seen. When a machine
/// leaves the swarm, they are removed without.
fn remove_tasks(tasks: &Tasks, inventory: &Inventory) -> Vec<Step> {
    let of_service = |container: &Container, service: &str| {
        label(container, SWARM_SERVICE) == Some(service)
            || label(container, SWARM_SERVICE_ID).is_some_and(|id| !service.is_empty() && id.starts_with(service))
    };
    let goes = |container: &Container| match tasks {
        Tasks::OfStacks(stacks) => label(container, STACK).is_some_and(|stack| stacks.iter().any(|s| s == stack)),
        Tasks::OfServices(services) => services.iter().any(|service| of_service(container, service)),
        Tasks::Beyond(numbers) => numbers.iter().any(|(service, number)| {
            let there = inventory.containers.iter().filter(|other| of_service(other, service)).count();
            of_service(container, service) && there as u64 > *number
        }),
        Tasks::OfNode => label(container, SWARM_TASK).is_some(),
    };
    let volumes = *tasks != Tasks::OfNode;
    inventory
        .containers
        .iter()
        .filter(|container| goes(container))
        .map(|container| remove(container, volumes))
        .collect()
}

/// What of an inventory belongs to a project.
struct Belongings<'a> {
    inventory: &'a Inventory,
    project: &'a Project,
    /// Every project that may be meant.
    names: BTreeSet<String>,
    containers: Vec<&'a Container>,
}

impl<'a> Belongings<'a> {
    fn new(inventory: &'a Inventory, project: &'a Project) -> Self {
        let mut names = project.names.clone();
        for container in &inventory.containers {
            let started_there = label(container, WORKING_DIR).is_some_and(|folder| project.folders.contains(folder));
            names.extend(label(container, PROJECT).filter(|_| started_there).map(str::to_owned));
        }
        let belongs = |container: &&Container| label(container, PROJECT).is_some_and(|name| names.contains(name));
        let containers = inventory.containers.iter().filter(belongs).collect();
        Belongings { inventory, project, names, containers }
    }

    fn defined(&self) -> impl Iterator<Item = &'a DefinedVolume> {
        let volumes = self.project.definition.iter().flat_map(|definition| &definition.volumes);
        volumes.filter(|volume| !volume.external)
    }

    /// Those that Compose made, by their label; and those of the definition, which it removes whoever made them.
    fn volumes(&self) -> Vec<&'a VolumeInfo> {
        let defined: BTreeSet<String> = self.defined().flat_map(|volume| volume.names(&self.names)).collect();
        let belongs = |volume: &&VolumeInfo| {
            defined.contains(&volume.name) || volume.labels.get(PROJECT).is_some_and(|name| self.names.contains(name))
        };
        self.inventory.volumes.iter().filter(belongs).collect()
    }

    /// Those whose definition is not what they were made with; all that Compose would compare, if the definition is not known.
    fn changed(&self) -> Vec<&'a VolumeInfo> {
        let compared = self.volumes().into_iter().filter(|volume| volume.labels.contains_key(CONFIG_HASH));
        let differs = |volume: &&VolumeInfo| {
            let Some(details) = self
                .defined()
                .find(|defined| defined.names(&self.names).any(|name| name == volume.name))
                .and_then(|defined| defined.details.as_ref())
            else {
                return self.project.definition.is_none();
            };
            let driver = if details.driver.is_empty() { "local" } else { &details.driver };
            let own = volume.labels.iter().filter(|(key, _)| !key.starts_with("com.docker.compose."));
            driver != volume.driver || details.options != volume.options || !own.eq(&details.labels)
        };
        compared.filter(differs).collect()
    }
}

fn compose(action: &ComposeAction, project: &Project, inventory: &Inventory) -> Vec<Step> {
    let of_project = Belongings::new(inventory, project);
    let drop_volume = |volume: &VolumeInfo| Step::RemoveVolume { volume: volume.name.clone(), force: true };
    match action {
        ComposeAction::Down { volumes } => {
            let mut steps: Vec<Step> =
                of_project.containers.iter().map(|container| remove(container, *volumes)).collect();
            if *volumes {
                steps.extend(of_project.volumes().into_iter().map(drop_volume));
            }
            steps
        }
        ComposeAction::Remove { services, volumes, stop } => {
            let chosen = |container: &&&Container| {
                let service = label(container, SERVICE).unwrap_or_default();
                (services.is_empty() || services.iter().any(|chosen| chosen == service))
                    && (*stop || container.details.state.status != "running")
            };
            of_project.containers.iter().filter(chosen).map(|container| remove(container, *volumes)).collect()
        }
        ComposeAction::Replace(replace) => {
            let changed = if replace.recreate_changed { of_project.changed() } else { Vec::new() };
            let goes = |container: &Container| {
                replace.renew
                    || replaced(container, replace, &of_project)
                    || changed.iter().any(|volume| volume.used_by.iter().any(|user| user.container_id == container.id))
            };
            // Compose removes none of these with its anonymous volumes: they are left without a name.
            let containers = of_project.containers.iter().filter(|container| goes(container));
            let mut steps: Vec<Step> = containers.map(|container| remove(container, false)).collect();
            steps.extend(changed.into_iter().map(drop_volume));
            steps
        }
    }
}

/// Whether a container is an orphan, or one too many.
fn replaced(container: &Container, replace: &Replace, of_project: &Belongings<'_>) -> bool {
    let service = label(container, SERVICE).unwrap_or_default();
    let definition = of_project.project.definition.as_ref();
    if replace.remove_orphans && definition.is_none_or(|definition| !definition.services.contains(service)) {
        return true;
    }
    replace.scale.iter().any(|(scaled, number)| {
        let there = of_project.containers.iter().filter(|other| label(other, SERVICE) == Some(scaled)).count();
        scaled == service && there as u64 > *number
    })
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
