//! What the checks go by: plain data, so that every rule can be tested without an engine.
//!
//! An `Option` that is `None` means "not known", never "nothing": a check then has no finding, and [`Evidence::skipped`] says why.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::Skipped;
use super::scan::Scan;
use crate::docker::inspect::Process;
use crate::inventory::VolumeInfo;

/// All that is known of an engine.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// When it was gathered.
    pub now: Timestamp,
    /// The engine.
    pub engine: EngineFacts,
    /// Its volumes.
    pub volumes: Vec<VolumeFacts>,
    /// Its containers.
    pub containers: Vec<ContainerFacts>,
    /// The images of the containers, by id; one that is gone is absent.
    pub images: BTreeMap<String, ImageFacts>,
    /// What is mounted from the host, by its path there.
    pub binds: BTreeMap<String, BindFacts>,
    /// Volumes that containers refer to and the engine cannot find.
    pub missing: Vec<MissingFacts>,
    /// The prunes that timers of this machine start.
    pub prunes: Vec<ScheduledPrune>,
    /// The user ids of this machine.
    pub host_users: Option<BTreeSet<u32>>,
    /// Whether it is known which snapshots there are.
    pub snapshots_known: bool,
    /// From what sizes and ages on something is found.
    pub limits: Limits,
    /// What could not be seen, by the check that needed it.
    pub skipped: Vec<Skipped>,
}

impl Evidence {
    /// The volume of that name.
    pub fn volume(&self, name: &str) -> Option<&VolumeFacts> {
        self.volumes.iter().find(|volume| volume.info.name == name)
    }

    /// The container with that id.
    pub fn container(&self, id: &str) -> Option<&ContainerFacts> {
        self.containers.iter().find(|container| container.id == id)
    }

    /// The container of that name.
    pub fn container_named(&self, name: &str) -> Option<&ContainerFacts> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// The containers that use a volume, each once.
    pub fn users_of<'a>(&'a self, volume: &VolumeFacts) -> Vec<&'a ContainerFacts> {
        let ids: BTreeSet<&str> = volume.info.used_by.iter().map(|usage| usage.container_id.as_str()).collect();
        self.containers.iter().filter(|container| ids.contains(container.id.as_str())).collect()
    }

    /// The image of a container, if it is still there.
    pub fn image_of(&self, container: &ContainerFacts) -> Option<&ImageFacts> {
        self.images.get(&container.image_id)
    }
}

/// From what sizes and ages on something is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The age from which a newest snapshot is too old.
    pub max_age: SignedDuration,
    /// What a container's own layer may hold, in bytes, before it counts as data.
    pub layer: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { max_age: SignedDuration::from_hours(7 * 24), layer: 1 << 20 }
    }
}

/// The engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineFacts {
    /// Its name.
    pub name: String,
    /// The API version that is spoken.
    pub api: (u32, u32),
    /// Whether containers go on while the engine restarts; `None` if not asked.
    pub live_restore: Option<bool>,
    /// The user ids of the host that containers have, from and how many, if user namespaces are on.
    pub user_namespace: Option<(u32, u32)>,
    /// Whether SELinux confines the containers.
    pub selinux: bool,
}

/// A volume.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeFacts {
    /// What the engine knows, and who uses it.
    pub info: VolumeInfo,
    /// What is in it.
    pub content: Content,
    /// The time of its newest snapshot.
    pub newest_snapshot: Option<Timestamp>,
    /// Whether it may be lost: the label `voltool.ephemeral=true`, or `guard.ephemeral`.
    pub ephemeral: bool,
    /// Where it comes from over a network, if it does.
    pub network: Option<NetworkFacts>,
    /// Who used it last, as the catalog tells.
    pub last_use: Option<LastUse>,
}

impl VolumeFacts {
    /// What is in it, if that is known.
    pub fn scan(&self) -> Option<&Scan> {
        match &self.content {
            Content::Scanned(scan) => Some(scan),
            _ => None,
        }
    }

    /// Whether it holds data: a file, even an empty one. `None` if that is not known.
    pub fn holds_data(&self) -> Option<bool> {
        match &self.content {
            Content::Scanned(scan) => Some(scan.files > 0),
            Content::Memory => Some(false),
            Content::Unknown => None,
        }
    }

    /// Its content in a few words: `3 files, 12.0 MiB`.
    pub fn amount(&self) -> String {
        match &self.content {
            Content::Scanned(scan) => scan.amount(),
            Content::Memory => "kept in memory".to_owned(),
            Content::Unknown => "content not known".to_owned(),
        }
    }

    /// Whether its label of that name is `true`.
    pub fn is_labelled(&self, label: &str) -> bool {
        self.info.labels.get(label).is_some_and(|value| value == "true")
    }
}

/// What is in a volume.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// It was looked at.
    Scanned(Scan),
    /// It is a tmpfs: nothing in it is meant to stay.
    Memory,
    /// It was not asked for, or cannot be seen.
    Unknown,
}

/// Who used a volume last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastUse {
    /// In words, with the time.
    pub text: String,
    /// The image as it was named.
    pub image: String,
    /// The path inside the container.
    pub path: String,
}

/// A volume, or a folder of the host, that comes over a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkFacts {
    /// What it is: `nfs 10.0.0.7:/export`.
    pub what: String,
    /// Whether what was read is kept on this machine.
    pub cached: bool,
    /// Why the other side does not answer; `None` if it does, or if nobody could ask.
    pub unreachable: Option<String>,
}

/// Something of the host that containers mount.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BindFacts {
    /// What it is.
    pub kind: BindKind,
    /// Where it comes from over a network, if it does.
    pub network: Option<NetworkFacts>,
}

/// What is at the source of a bind mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BindKind {
    /// Not known: the engine is elsewhere, or the path cannot be seen.
    #[default]
    Unknown,
    /// A folder with something in it.
    Folder,
    /// A folder with nothing in it.
    EmptyFolder,
    /// A file.
    File,
    /// A socket, a device, a pipe.
    Special,
}

/// A volume that containers refer to and the engine cannot find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingFacts {
    /// The volume's name.
    pub name: String,
    /// Its driver, as a container remembers it; may be empty.
    pub driver: String,
    /// The names of the containers.
    pub used_by: Vec<String>,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ContainerFacts {
    /// The full id.
    pub id: String,
    /// The name.
    pub name: String,
    /// Whether a process of it exists now.
    pub running: bool,
    /// The image as it was named.
    pub image: String,
    /// The image's id.
    pub image_id: String,
    /// The user that was asked for, by the container or its image; empty is root.
    pub user: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether the engine removes it, and its anonymous volumes, when it stops (`--rm`).
    pub auto_remove: bool,
    /// Whether it is there to hold volumes.
    pub data_only: bool,
    /// Ports that the image or the container declares, as `22/tcp`.
    pub exposed_ports: Vec<String>,
    /// Paths that the container or its image declares as volumes.
    pub declared: Vec<String>,
    /// What is mounted.
    pub mounts: Vec<MountFacts>,
    /// What it has written into its own layer.
    pub layer: Option<Layer>,
    /// Its processes.
    pub processes: Option<Vec<Process>>,
    /// The user ids of its own `/etc/passwd`.
    pub users: Option<BTreeSet<u32>>,
}

impl ContainerFacts {
    /// Whether it mounts a volume or a folder of the host.
    pub fn has_data_mounts(&self) -> bool {
        self.mounts.iter().any(|mount| mount.volume.is_some())
    }
}

/// One mount of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MountFacts {
    /// The volume, if it is one.
    pub volume: Option<String>,
    /// The path on the host, if it is a bind mount.
    pub bind: Option<String>,
    /// The path inside the container.
    pub path: String,
    /// Whether the container may write.
    pub rw: bool,
    /// Whether somebody chose the volume's name.
    pub named: bool,
}

/// What a container has written into its own layer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layer {
    /// New and changed files; where sizes are not known, also folders.
    pub files: Vec<LayerFile>,
    /// All of the layer in bytes, where the size of each file is not known.
    pub total: Option<u64>,
}

/// A new or changed file of a container's layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerFile {
    /// The path inside the container.
    pub path: String,
    /// Its size in bytes, if it is known.
    pub bytes: Option<u64>,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageFacts {
    /// Its size in bytes.
    pub size: u64,
    /// The paths that it declares as volumes.
    pub volumes: Vec<String>,
}

/// A prune that a timer of this machine starts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScheduledPrune {
    /// The file that says so.
    pub file: String,
    /// The command.
    pub command: String,
    /// Whether it takes volumes, rather than only the containers that hold them.
    pub volumes: bool,
}
