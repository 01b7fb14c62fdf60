//! What an engine tells, as far as voltool needs it, and the whole of it where a snapshot keeps it.
//!
//! The types take what every engine since API 1.24 sends (Docker and Podman), where "nothing" is a missing field, `null`, or an
//! empty value, depending on the version.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// An engine's identity and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// The engine's name, by default its machine's host name. Part of the identity of what is backed up.
    pub name: String,
    /// The engine's id, which stays when its name changes. Empty if the engine has none.
    pub id: String,
    /// Where the engine keeps its data, as a path on the engine's machine.
    pub root_dir: String,
    /// The engine's version, for people.
    pub version: String,
    /// The API version that is spoken, such as `1.45`.
    pub api_version: String,
}

impl EngineInfo {
    /// The API version that is spoken, as numbers.
    pub fn api(&self) -> (u32, u32) {
        super::connect::parse_version(&self.api_version).unwrap_or_default()
    }

    /// What tells this engine from others: its id, or its name if it has none.
    pub fn key(&self) -> String {
        if self.id.is_empty() { self.name.clone() } else { self.id.clone() }
    }
}

/// The answer of `/version`.
#[derive(Debug, Deserialize)]
pub(super) struct VersionAnswer {
    #[serde(rename = "ApiVersion", default, deserialize_with = "or_default")]
    pub api_version: String,
    #[serde(rename = "MinAPIVersion", default, deserialize_with = "or_default")]
    pub min_api_version: String,
}

/// The answer of `/info`.
#[derive(Debug, Deserialize)]
pub(super) struct InfoAnswer {
    #[serde(rename = "Name", default, deserialize_with = "or_default")]
    pub name: String,
    #[serde(rename = "ID", default, deserialize_with = "or_default")]
    pub id: String,
    #[serde(rename = "DockerRootDir", default, deserialize_with = "or_default")]
    pub root_dir: String,
    #[serde(rename = "ServerVersion", default, deserialize_with = "or_default")]
    pub version: String,
}

/// The volumes of an engine.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Volumes {
    /// Every volume that the engine could list.
    #[serde(rename = "Volumes", default, deserialize_with = "or_default")]
    pub volumes: Vec<Volume>,
    /// What the engine could not list: usually a volume plugin that does not answer, whose volumes are missing here.
    #[serde(rename = "Warnings", default, deserialize_with = "or_default")]
    pub warnings: Vec<String>,
}

/// A volume as the engine describes it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Volume {
    /// The volume's name.
    #[serde(rename = "Name")]
    pub name: String,
    /// The driver: `local`, or a plugin's name.
    #[serde(rename = "Driver", default, deserialize_with = "or_default")]
    pub driver: String,
    /// Where the content is on the engine's machine, as far as the driver tells; may be empty.
    #[serde(rename = "Mountpoint", default, deserialize_with = "or_default")]
    pub mountpoint: String,
    /// Labels, which can only be given when a volume is created.
    #[serde(rename = "Labels", default, deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// The driver's options, which can only be given when a volume is created.
    #[serde(rename = "Options", default, deserialize_with = "or_default")]
    pub options: BTreeMap<String, String>,
    /// `local` or `global`; only informational.
    #[serde(rename = "Scope", default, deserialize_with = "or_default")]
    pub scope: String,
    /// When the volume was made, as the engine writes it (RFC 3339); empty if it does not say.
    #[serde(rename = "CreatedAt", default, deserialize_with = "or_default")]
    pub created_at: String,
    /// What the driver says about the volume, in a form of its own.
    #[serde(rename = "Status", default)]
    pub status: Value,
}

/// A container: what the inventory needs in typed form, and all that the engine told.
#[derive(Clone, PartialEq)]
pub struct Container {
    /// The full id.
    pub id: String,
    /// The name, without the `/` that the engine puts in front.
    pub name: String,
    /// The typed part.
    pub details: ContainerDetails,
    /// The engine's whole answer to an inspection, unchanged (`GET /containers/{id}/json`). Holds environment variables,
    /// which may be secret: keep it out of logs.
    pub raw: Value,
}

impl std::fmt::Debug for Container {
    /// Without the definition: its environment variables do not belong into a log by accident.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Container { id, name, details, raw: _ } = self;
        f.debug_struct("Container")
            .field("id", id)
            .field("name", name)
            .field("details", details)
            .finish_non_exhaustive()
    }
}

impl Container {
    /// Reads an inspection.
    ///
    /// # Errors
    /// If it is not one.
    pub fn from_raw(raw: Value) -> Result<Self, serde_json::Error> {
        let head = Head::deserialize(&raw)?;
        let details = ContainerDetails::deserialize(&raw)?;
        Ok(Container { id: head.id, name: head.name.trim_start_matches('/').to_owned(), details, raw })
    }

    /// Whether the engine removes it, and the volumes that nobody named with it, as soon as it stops (`--rm`).
    pub fn removes_itself(&self) -> bool {
        self.details.host_config.auto_remove
    }

    /// Whether a process of it exists now: it is running, paused, or about to be restarted.
    pub fn is_running(&self) -> bool {
        let state = &self.details.state;
        state.running || state.paused || state.restarting
    }
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "Name", default, deserialize_with = "or_default")]
    name: String,
}

/// The parts of an inspection that say how a container uses volumes.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct ContainerDetails {
    /// What the container does now.
    #[serde(rename = "State", default, deserialize_with = "or_default")]
    pub state: State,
    /// What is mounted, or will be when it starts.
    #[serde(rename = "Mounts", default, deserialize_with = "or_default")]
    pub mounts: Vec<Mount>,
    /// What was asked for concerning the host.
    #[serde(rename = "HostConfig", default, deserialize_with = "or_default")]
    pub host_config: HostConfig,
    /// What was asked for concerning the container, image defaults included.
    #[serde(rename = "Config", default, deserialize_with = "or_default")]
    pub config: Config,
}

/// A container's state.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct State {
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    #[serde(rename = "Status", default, deserialize_with = "or_default")]
    pub status: String,
    /// Whether it runs; also true while it is paused.
    #[serde(rename = "Running", default, deserialize_with = "or_default")]
    pub running: bool,
    /// Whether it is frozen.
    #[serde(rename = "Paused", default, deserialize_with = "or_default")]
    pub paused: bool,
    /// Whether the engine is about to start it again.
    #[serde(rename = "Restarting", default, deserialize_with = "or_default")]
    pub restarting: bool,
    /// How its last run ended; 0 as well if it never ran.
    #[serde(rename = "ExitCode", default, deserialize_with = "or_default")]
    pub exit_code: i64,
    /// When it was started last (RFC 3339); in the year 1 if never.
    #[serde(rename = "StartedAt", default, deserialize_with = "or_default")]
    pub started_at: String,
    /// When its last run ended (RFC 3339); in the year 1 if never.
    #[serde(rename = "FinishedAt", default, deserialize_with = "or_default")]
    pub finished_at: String,
}

/// One mount of a container.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct Mount {
    /// `volume`, `bind`, `tmpfs` …; empty on engines that do not tell.
    #[serde(rename = "Type", default, deserialize_with = "or_default")]
    pub kind: String,
    /// The volume's name; empty if it is no volume.
    #[serde(rename = "Name", default, deserialize_with = "or_default")]
    pub name: String,
    /// The volume's driver.
    #[serde(rename = "Driver", default, deserialize_with = "or_default")]
    pub driver: String,
    /// Where it is mounted inside the container.
    #[serde(rename = "Destination", default, deserialize_with = "or_default")]
    pub destination: String,
    /// Whether the container may write.
    #[serde(rename = "RW", default, deserialize_with = "or_default")]
    pub rw: bool,
}

impl Mount {
    /// Whether this is a volume with a name, rather than a bind mount or memory.
    pub fn is_volume(&self) -> bool {
        !self.name.is_empty() && (self.kind == "volume" || self.kind.is_empty())
    }
}

/// What was asked for concerning the host.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct HostConfig {
    /// `-v` with a source: `source:destination[:mode]`.
    #[serde(rename = "Binds", default, deserialize_with = "or_default")]
    pub binds: Vec<String>,
    /// `--mount`.
    #[serde(rename = "Mounts", default, deserialize_with = "or_default")]
    pub mounts: Vec<MountSpec>,
    /// `--volumes-from`: `container[:mode]`, where container is a name, an id, or the beginning of one.
    #[serde(rename = "VolumesFrom", default, deserialize_with = "or_default")]
    pub volumes_from: Vec<String>,
    /// Whether the engine starts it again by itself.
    #[serde(rename = "RestartPolicy", default, deserialize_with = "or_default")]
    pub restart_policy: RestartPolicy,
    /// Whether the engine removes it when it ends.
    #[serde(rename = "AutoRemove", default, deserialize_with = "or_default")]
    pub auto_remove: bool,
    /// Published ports.
    #[serde(rename = "PortBindings", default, deserialize_with = "or_default")]
    pub port_bindings: BTreeMap<String, Value>,
    /// Whether every exposed port is published.
    #[serde(rename = "PublishAllPorts", default, deserialize_with = "or_default")]
    pub publish_all_ports: bool,
}

/// One `--mount` as it was asked for.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct MountSpec {
    /// The volume's name or the path on the host; empty for an anonymous volume.
    #[serde(rename = "Source", default, deserialize_with = "or_default")]
    pub source: String,
    /// Where it is mounted inside the container.
    #[serde(rename = "Target", default, deserialize_with = "or_default")]
    pub target: String,
}

/// Whether the engine starts a container again by itself.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct RestartPolicy {
    /// Empty, `no`, `always`, `unless-stopped` or `on-failure`.
    #[serde(rename = "Name", default, deserialize_with = "or_default")]
    pub name: String,
}

/// What was asked for concerning the container, image defaults included.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct Config {
    /// The image as it was named.
    #[serde(rename = "Image", default, deserialize_with = "or_default")]
    pub image: String,
    /// Labels.
    #[serde(rename = "Labels", default, deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// Ports that the image or the command line declares.
    #[serde(rename = "ExposedPorts", default, deserialize_with = "or_default")]
    pub exposed_ports: BTreeMap<String, Value>,
    /// A command that says whether it is healthy.
    #[serde(rename = "Healthcheck", default)]
    pub healthcheck: Value,
}

/// Takes `null` for the default value.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}
