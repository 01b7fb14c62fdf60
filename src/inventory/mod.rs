//! Volumes, containers, and who references what.
//!
//! [`Inventory::scan`] asks the engine for everything once; all else here is worked out from those answers. The rules are in the
//! modules that apply them: what makes a volume anonymous in [`kind`], which containers are data-only in [`data_only`], and
//! where a volume's content can be read in [`access`].
//!
//! "In use" is never asked of the engine, whose own count is kept in memory and can be wrong after a restart or a plugin's
//! failure: it is what the mounts of all containers say, including those that never ran.

pub mod access;
pub mod catalog;
pub mod data_only;
pub mod kind;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::docker::model::Mount;
use crate::docker::{Container, Engine, Result, Volume};

pub use access::{AccessError, bound_folder, readable_root};
pub use catalog::Catalog;
pub use kind::Kind;

/// The name of voltool's own volume driver: that of its socket.
pub const OWN_DRIVER: &str = "voltool";

/// Whether a driver is voltool's own, as a socket or as a plugin that the engine manages (`voltool:latest`, `example/voltool:1.0`).
pub fn is_own_driver(driver: &str) -> bool {
    driver == OWN_DRIVER
        || driver.rsplit('/').next().and_then(|last| last.split_once(':')).is_some_and(|(name, _)| name == OWN_DRIVER)
}

/// The label that Docker Compose puts on what belongs to a project.
const COMPOSE_PROJECT: &str = "com.docker.compose.project";

/// A volume, and who uses it.
///
/// Serialises to the fields that `voltool ls --json` promises, except for `size_bytes`, `newest_snapshot`, `at_risk` and `reason`:
/// those need the volume's content or a repository. `ls` adds them in a row of its own, with this struct flattened into it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VolumeInfo {
    /// The volume's name.
    pub name: String,
    /// Whether somebody chose that name.
    pub kind: Kind,
    /// The driver: `local`, or a plugin's name.
    pub driver: String,
    /// Where the engine says that the content is, as a path on its machine; may be empty. Of voltool's own driver as a plugin that the
    /// engine manages: where that says that it is. See [`access::readable_root`].
    pub mountpoint: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
    /// The Compose project that the volume belongs to: by its own label, else that of the containers that use it, if they
    /// agree (Compose puts no label on anonymous volumes).
    pub compose_project: Option<String>,
    /// When the volume was made, as the engine writes it (RFC 3339).
    pub created_at: Option<String>,
    /// Every place where a container mounts it or will mount it, sorted by container name and path. Empty: orphaned.
    pub used_by: Vec<Usage>,
}

impl VolumeInfo {
    /// Whether no container references the volume.
    pub fn is_dangling(&self) -> bool {
        self.used_by.is_empty()
    }
}

/// One place where a container uses a volume.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Usage {
    /// The container's name.
    pub name: String,
    /// The path inside the container.
    pub path: String,
    /// The container's full id.
    pub container_id: String,
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    pub state: String,
    /// Whether the container may write to the volume.
    pub rw: bool,
    /// Whether the container is there to hold volumes; see [`data_only`].
    pub data_only: bool,
    /// Whether the container's definition names the volume. If it does not, `docker rm -v` and `--rm` remove the volume
    /// together with the last container that uses it. `None` if nobody can tell any more, because the container that the
    /// definition comes from (`--volumes-from`) is gone. Not part of the listing.
    #[serde(skip)]
    pub named_in_spec: Option<bool>,
    /// Whether the mount comes from another container (`--volumes-from`). Not part of the listing.
    #[serde(skip)]
    pub inherited: bool,
}

/// A volume that containers refer to and the engine does not have: removed under them, or of a driver that does not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissingVolume {
    /// The volume's name.
    pub name: String,
    /// Who refers to it.
    pub used_by: Vec<Usage>,
}

/// All volumes and containers of an engine at one moment.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// Every volume, by name.
    pub volumes: Vec<VolumeInfo>,
    /// Every container, running or not, with its whole definition.
    pub containers: Vec<Container>,
    /// Volumes that are referred to and not there.
    pub missing: Vec<MissingVolume>,
    /// What the engine could not list, in its own words. Volumes may be missing then: say so.
    pub warnings: Vec<String>,
    /// The volumes of which the engine itself believes that no container uses them, which is what its `prune` and `volume rm` go
    /// by; `None` if it was not asked. Not to be trusted for anything else: see the module's documentation.
    pub unreferenced: Option<BTreeSet<String>>,
}

impl Inventory {
    /// Takes stock of an engine.
    ///
    /// # Errors
    /// If the engine cannot answer for its volumes or for one of its containers.
    pub async fn scan(engine: &Engine) -> Result<Inventory> {
        let mut listed = engine.volumes().await?;
        let containers = engine.containers().await?;
        let unreferenced = engine.unreferenced_volumes().await?;
        // Made since the volumes were listed, or left out of the listing because a plugin did not answer then.
        let known: BTreeSet<&str> = listed.volumes.iter().map(|volume| volume.name.as_str()).collect();
        let mut unknown = BTreeSet::new();
        for mount in containers.iter().flat_map(|container| &container.details.mounts) {
            if mount.is_volume() && !known.contains(mount.name.as_str()) {
                unknown.insert(mount.name.as_str());
            }
        }
        let mut found = Vec::new();
        for name in unknown {
            match engine.volume(name).await {
                Ok(volume) => found.extend(volume),
                // One driver that does not answer must not hide all the other volumes: it ends up in `missing`, with the reason.
                Err(error) => listed.warnings.push(error.to_string()),
            }
        }
        listed.volumes.extend(found);
        let hides = |volume: &&mut Volume| {
            is_own_driver(&volume.driver) && (volume.driver != OWN_DRIVER || volume.mountpoint.is_empty())
        };
        for volume in listed.volumes.iter_mut().filter(hides) {
            // As a plugin that the engine manages it has paths of its own, and podman tells none while nobody uses the volume. It tells of those
            // on the host in what listings leave out.
            let content = engine.volume(&volume.name).await.ok().flatten();
            let content = content.and_then(|volume| volume.status["content"].as_str().map(str::to_owned));
            volume.mountpoint = content.unwrap_or_else(|| std::mem::take(&mut volume.mountpoint));
        }
        let mut inventory = Inventory::from_parts(listed.volumes, containers);
        inventory.warnings = listed.warnings;
        inventory.unreferenced = Some(unreferenced);
        Ok(inventory)
    }

    /// Works out who uses what from an engine's answers.
    pub fn from_parts(volumes: Vec<Volume>, containers: Vec<Container>) -> Inventory {
        let data_only = data_only::find(&containers);
        let mut used: BTreeMap<String, Vec<Usage>> = BTreeMap::new();
        let mut projects: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (at, container) in containers.iter().enumerate() {
            for (mount, named_in_spec, inherited) in mounts_of(at, &containers) {
                let usage = Usage {
                    name: container.name.clone(),
                    path: mount.destination.clone(),
                    container_id: container.id.clone(),
                    state: container.details.state.status.clone(),
                    rw: mount.rw,
                    data_only: data_only.contains(&at),
                    named_in_spec,
                    inherited,
                };
                used.entry(mount.name.clone()).or_default().push(usage);
                let project = container.details.config.labels.get(COMPOSE_PROJECT).cloned().unwrap_or_default();
                projects.entry(mount.name).or_default().insert(project);
            }
        }
        for usages in used.values_mut() {
            usages.sort();
        }

        let mut infos: Vec<VolumeInfo> = Vec::with_capacity(volumes.len());
        for volume in volumes {
            let used_by = used.remove(&volume.name).unwrap_or_default();
            let compose_project = volume.labels.get(COMPOSE_PROJECT).cloned().or_else(|| {
                let of_users = projects.get(&volume.name)?;
                of_users.first().filter(|first| of_users.len() == 1 && !first.is_empty()).cloned()
            });
            infos.push(VolumeInfo {
                kind: kind::of(&volume, &used_by),
                name: volume.name,
                driver: volume.driver,
                mountpoint: volume.mountpoint,
                labels: volume.labels,
                options: volume.options,
                compose_project,
                created_at: Some(volume.created_at).filter(|text| !text.is_empty()),
                used_by,
            });
        }
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        let missing = used.into_iter().map(|(name, used_by)| MissingVolume { name, used_by }).collect();
        Inventory { volumes: infos, containers, missing, warnings: Vec::new(), unreferenced: None }
    }

    /// The volume of exactly this name.
    pub fn volume(&self, name: &str) -> Option<&VolumeInfo> {
        self.volumes.iter().find(|volume| volume.name == name)
    }

    /// The container that a name, an id, or the unique beginning of an id refers to, as the engine finds it.
    pub fn container(&self, reference: &str) -> Option<&Container> {
        data_only::resolve(reference, &self.containers).map(|at| &self.containers[at])
    }

    /// The containers that use a volume, each once, in the inventory's order.
    pub fn users_of<'a>(&'a self, volume: &VolumeInfo) -> Vec<&'a Container> {
        let ids: BTreeSet<&str> = volume.used_by.iter().map(|usage| usage.container_id.as_str()).collect();
        self.containers.iter().filter(|container| ids.contains(container.id.as_str())).collect()
    }

    /// The volume whose name is most like `name`, for "did you mean"; `None` if none is like it at all.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        nearest(name, self.volumes.iter().map(|volume| volume.name.as_str()))
    }
}

/// The candidate that is most like `name`, if one is similar enough for a suggestion.
///
/// One that contains it counts as similar however long the rest is, since Compose puts the project in front of a name, and the
/// beginning of an anonymous volume's name is what people copy.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let mut best: Option<(f64, &str)> = None;
    for candidate in candidates {
        let other = candidate.to_lowercase();
        let mut score = strsim::normalized_damerau_levenshtein(&name, &other);
        if name.len() >= 2 && (other.starts_with(&name) || other.ends_with(&name)) {
            score = score.max(0.8);
        }
        if score >= 0.6 && best.is_none_or(|(other_score, _)| score > other_score) {
            best = Some((score, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// The volumes that a container mounts, whether its definition names each, and whether they come from another container.
///
/// Besides what the engine lists these are the volumes of `--volumes-from`, should the engine leave them out for a container
/// that never ran.
fn mounts_of(at: usize, containers: &[Container]) -> Vec<(Mount, Option<bool>, bool)> {
    let container = &containers[at];
    let mut mounts: Vec<(Mount, Option<bool>, bool)> = Vec::new();
    for mount in container.details.mounts.iter().filter(|mount| mount.is_volume()) {
        mounts.push((mount.clone(), kind::names(at, mount, containers), kind::is_inherited(at, mount, containers)));
    }
    for entry in &container.details.host_config.volumes_from {
        let (reference, mode) = data_only::split_volumes_from(entry);
        let Some(source) = data_only::resolve(reference, containers) else { continue };
        for mount in containers[source].details.mounts.iter().filter(|mount| mount.is_volume()) {
            let taken = container.details.mounts.iter().any(|own| own.destination == mount.destination)
                || mounts.iter().any(|(other, ..)| other.destination == mount.destination);
            if !taken {
                let mut implied = mount.clone();
                implied.rw = mount.rw && !mode.split(',').any(|word| word == "ro");
                mounts.push((implied, kind::names(source, mount, containers), true));
            }
        }
    }
    mounts
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
