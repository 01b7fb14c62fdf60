//! The Docker engine, through its API.
//!
//! [`connect`] finds out which engine is meant, [`Engine`] talks to it. Everything that an engine answers is taken as it is;
//! what it means for volumes is worked out in [`crate::inventory`].

pub mod connect;
pub mod drivers;
pub mod error;
pub mod events;
pub mod inspect;
pub mod model;
pub mod removal;
mod transport;
pub mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub use connect::{ConnectOptions, Endpoint, Source, Surroundings};
pub use error::{EngineError, EngineErrorKind};
pub use events::{Action, Event, Subject};
pub use model::{Container, EngineInfo, Volume, Volumes};
pub use removal::{Leftover, Pruned};
pub use users::VolumeUser;

use transport::{Call, Transport, encode};

/// A `Result` whose error names the engine.
pub type Result<T> = std::result::Result<T, EngineError>;

/// The newest API version that voltool was written for; a newer engine is spoken to in this one.
const NEWEST_API: (u32, u32) = (1, 51);

/// How many containers are inspected at once.
const INSPECTIONS: usize = 8;

/// How long the engine may take to stop a container that names no time of its own, before the request counts as failed.
const STOP_ALLOWANCE: Duration = Duration::from_secs(600);

/// A connected engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    transport: Transport,
    endpoint: Endpoint,
    info: EngineInfo,
    /// Why its mountpoints are not on this machine; `None` if they are.
    remote: Option<String>,
}

impl Engine {
    /// Finds the engine, agrees on an API version with it, and asks who it is.
    ///
    /// # Errors
    /// See [`connect::resolve`]; [`EngineErrorKind::Absent`], [`EngineErrorKind::Denied`] or [`EngineErrorKind::Timeout`] if
    /// it cannot be reached. The message names the endpoint, and there is a hint.
    pub async fn connect(options: &ConnectOptions) -> Result<Engine> {
        let endpoint = connect::resolve(options.host.as_deref(), &Surroundings::current()?)?;
        Engine::connect_to(endpoint, options.timeout).await
    }

    /// Connects to an engine whose address is known already.
    ///
    /// # Errors
    /// As [`Engine::connect`].
    pub async fn connect_to(endpoint: Endpoint, timeout: Duration) -> Result<Engine> {
        let unreachable = |error| {
            let error = failure(&error, "reach", &endpoint);
            let hint =
                "check that a Docker engine answers there, and how it wants TLS (DOCKER_TLS_VERIFY, DOCKER_CERT_PATH)";
            EngineError { hint: error.hint.or_else(|| Some(hint.to_owned())), ..error }
        };
        let mut transport = Transport::new(&endpoint, timeout).map_err(unreachable)?;
        let answer = transport.call(Call::get("/version")).await.map_err(unreachable)?;
        let version: model::VersionAnswer = transport::decode(&answer, "agree on an API version with", &endpoint)?;
        let api_version = agree(&version, &endpoint)?;
        transport.set_version(api_version);
        let (info, remote) = identify(&transport, &endpoint, api_version).await?;
        Ok(Engine { transport, endpoint, info, remote })
    }

    /// The engine's address.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Who the engine is, as it said when the connection was made.
    pub fn info(&self) -> &EngineInfo {
        &self.info
    }

    /// Whether the engine's mountpoints are paths on this machine.
    pub fn is_local(&self) -> bool {
        self.remote.is_none()
    }

    /// Why the engine's mountpoints are not on this machine, as the end of a sentence; `None` if they are.
    ///
    /// They are on this machine if the engine is reached through a unix socket (never through TCP, where nothing proves it),
    /// its data folder exists here, and the engine's id, where it is written in that folder, is that of the engine that
    /// answers: a socket may be forwarded from elsewhere, or lead into a virtual machine.
    pub fn local_reason(&self) -> Option<&str> {
        self.remote.as_deref()
    }

    /// Lists every volume. What a plugin fails to list is in the warnings, not among the volumes.
    ///
    /// # Errors
    /// If the engine cannot answer.
    pub async fn volumes(&self) -> Result<Volumes> {
        self.get("/volumes", "list the volumes of").await
    }

    /// The names of the volumes of which the engine itself believes that no container uses them.
    ///
    /// # Errors
    /// If the engine cannot answer.
    pub async fn unreferenced_volumes(&self) -> Result<BTreeSet<String>> {
        let path = format!("/volumes?filters={}", encode(r#"{"dangling":["true"]}"#));
        let listed: Volumes = self.get(&path, "list the unused volumes of").await?;
        Ok(listed.volumes.into_iter().map(|volume| volume.name).collect())
    }

    /// Looks one volume up by its exact name; `None` if there is none.
    ///
    /// # Errors
    /// If the engine cannot answer.
    pub async fn volume(&self, name: &str) -> Result<Option<Volume>> {
        // Without a name the path would be that of the listing.
        if name.is_empty() {
            return Ok(None);
        }
        let path = format!("/volumes/{}", encode(name));
        absent_is_none(self.get(&path, &format!("inspect volume {name} on")).await)
    }

    /// Makes a volume and returns it. The engine answers with an existing volume of that name and driver as if it had been
    /// made, and keeps that one's labels and options: ask [`Engine::volume`] before, if that matters.
    ///
    /// # Errors
    /// [`EngineErrorKind::Conflict`] if the name is taken by another driver; [`EngineErrorKind::Engine`] if the driver refuses.
    pub async fn create_volume(
        &self,
        name: &str,
        driver: &str,
        labels: &BTreeMap<String, String>,
        options: &BTreeMap<String, String>,
    ) -> Result<Volume> {
        let body = json!({ "Name": name, "Driver": driver, "Labels": labels, "DriverOpts": options });
        let action = format!("create volume {name} on");
        let call = Call { method: "POST", body: Some(&body), ..Call::get("/volumes/create") };
        transport::decode(&self.call(call, &action).await?, &action, &self.endpoint)
    }

    /// Removes a volume, with its content if its driver keeps it. The engine refuses while a container refers to it.
    ///
    /// # Errors
    /// [`EngineErrorKind::NotFound`] if there is no such volume; [`EngineErrorKind::Conflict`] if it is in use.
    pub async fn remove_volume(&self, name: &str) -> Result<()> {
        let path = format!("/volumes/{}", encode(name));
        let call = Call { method: "DELETE", ..Call::get(&path) };
        self.call(call, &format!("remove volume {name} on")).await.map(drop)
    }

    /// Lists every container, running or not, each with its whole definition, in the engine's order (newest first). One that
    /// is removed meanwhile is left out.
    ///
    /// # Errors
    /// If the engine cannot answer for the listing or for one of the containers.
    pub async fn containers(&self) -> Result<Vec<Container>> {
        let listed: Vec<ListedContainer> = self.get("/containers/json?all=1", "list the containers of").await?;
        let inspected = futures_util::stream::iter(listed)
            .map(|listed| async move { self.container(&listed.id).await })
            .buffered(INSPECTIONS);
        inspected.try_filter_map(|container| async move { Ok(container) }).try_collect().await
    }

    /// Inspects one container by its name or id; `None` if there is none.
    ///
    /// # Errors
    /// If the engine cannot answer.
    pub async fn container(&self, id: &str) -> Result<Option<Container>> {
        if id.is_empty() {
            return Ok(None);
        }
        let action = format!("inspect container {id} on");
        let path = format!("/containers/{}/json", encode(id));
        let Some(raw) = absent_is_none(self.get::<Value>(&path, &action).await)? else { return Ok(None) };
        Container::from_raw(raw).map(Some).map_err(|error| EngineError {
            kind: EngineErrorKind::Protocol,
            action,
            endpoint: self.endpoint.to_string(),
            reason: format!("its answer makes no sense: {error}"),
            hint: None,
        })
    }

    /// Stops a container and waits until it has stopped. One that does not run is left as it is. `grace` is how long it gets
    /// before it is killed, in whole seconds; `None` leaves that to the container's own setting.
    ///
    /// # Errors
    /// [`EngineErrorKind::NotFound`] if there is no such container.
    pub async fn stop_container(&self, id: &str, grace: Option<Duration>) -> Result<()> {
        let mut path = format!("/containers/{}/stop", encode(id));
        if let Some(grace) = grace {
            path.push_str(&format!("?t={}", grace.as_secs()));
        }
        let extra_time = grace.unwrap_or(STOP_ALLOWANCE);
        let call = Call { method: "POST", extra_time, ..Call::get(&path) };
        self.call(call, &format!("stop container {id} on")).await.map(drop)
    }

    /// Starts a container. One that runs is left as it is.
    ///
    /// # Errors
    /// [`EngineErrorKind::NotFound`] if there is no such container; [`EngineErrorKind::Engine`] if it cannot be started.
    pub async fn start_container(&self, id: &str) -> Result<()> {
        let path = format!("/containers/{}/start", encode(id));
        let call = Call { method: "POST", ..Call::get(&path) };
        self.call(call, &format!("start container {id} on")).await.map(drop)
    }

    /// Freezes a container's processes.
    ///
    /// # Errors
    /// [`EngineErrorKind::Conflict`] if it does not run.
    pub async fn pause_container(&self, id: &str) -> Result<()> {
        let path = format!("/containers/{}/pause", encode(id));
        let call = Call { method: "POST", ..Call::get(&path) };
        self.call(call, &format!("pause container {id} on")).await.map(drop)
    }

    /// Lets a frozen container go on.
    ///
    /// # Errors
    /// [`EngineErrorKind::NotFound`] if there is no such container.
    pub async fn unpause_container(&self, id: &str) -> Result<()> {
        let path = format!("/containers/{}/unpause", encode(id));
        let call = Call { method: "POST", ..Call::get(&path) };
        self.call(call, &format!("unpause container {id} on")).await.map(drop)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, action: &str) -> Result<T> {
        transport::decode(&self.call(Call::get(path), action).await?, action, &self.endpoint)
    }

    async fn call(&self, call: Call<'_>, action: &str) -> Result<Bytes> {
        self.transport.call(call).await.map_err(|error| failure(&error, action, &self.endpoint))
    }
}

/// What the listing of containers is used for: the rest comes from inspecting each.
#[derive(serde::Deserialize)]
struct ListedContainer {
    #[serde(rename = "Id")]
    id: String,
}

fn failure(error: &bollard::errors::Error, action: &str, endpoint: &Endpoint) -> EngineError {
    let (kind, reason) = error::classify(error);
    EngineError { kind, action: action.to_owned(), endpoint: endpoint.to_string(), reason, hint: error::hint_for(kind) }
}

fn absent_is_none<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind == EngineErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Chooses the API version: what `DOCKER_API_VERSION` pins, else the newest that both sides know.
fn agree(engine: &model::VersionAnswer, endpoint: &Endpoint) -> Result<(u32, u32)> {
    if let Some(pinned) = endpoint.api_version {
        return Ok(pinned);
    }
    let wrong = |reason: String, hint: &str| EngineError {
        kind: EngineErrorKind::Protocol,
        action: "agree on an API version with".to_owned(),
        endpoint: endpoint.to_string(),
        reason,
        hint: Some(hint.to_owned()),
    };
    let newest = connect::parse_version(&engine.api_version).ok_or_else(|| {
        wrong(
            format!("it says that its API version is {:?}", engine.api_version),
            "check that a Docker engine answers there: `docker version`",
        )
    })?;
    let oldest = connect::parse_version(&engine.min_api_version).unwrap_or((0, 0));
    if oldest > NEWEST_API {
        return Err(wrong(
            format!("it speaks API {} and newer, and voltool speaks up to 1.{}", engine.min_api_version, NEWEST_API.1),
            "update voltool, or set DOCKER_MIN_API_VERSION for the engine",
        ));
    }
    Ok(newest.min(NEWEST_API))
}

/// Asks the engine who it is, and finds out whether its mountpoints are on this machine.
async fn identify(
    transport: &Transport,
    endpoint: &Endpoint,
    (major, minor): (u32, u32),
) -> Result<(EngineInfo, Option<String>)> {
    let action = "ask the identity of";
    let answer = transport.call(Call::get("/info")).await.map_err(|error| failure(&error, action, endpoint))?;
    let answer: model::InfoAnswer = transport::decode(&answer, action, endpoint)?;
    let info = EngineInfo {
        name: answer.name,
        id: answer.id,
        root_dir: answer.root_dir,
        version: answer.version,
        api_version: format!("{major}.{minor}"),
    };
    let remote = why_remote(endpoint, &info);
    Ok((info, remote))
}

/// See [`Engine::local_reason`].
fn why_remote(endpoint: &Endpoint, info: &EngineInfo) -> Option<String> {
    if endpoint.socket().is_none() {
        return Some("it is reached over the network".to_owned());
    }
    let root = Path::new(&info.root_dir);
    if !root.is_absolute() {
        return Some("it does not say where it keeps its data".to_owned());
    }
    // Only "there is nothing" counts: a folder that must not be looked into is there, and reading it will say so.
    if std::fs::metadata(root).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Some(format!("its data folder {} does not exist on this machine", info.root_dir));
    }
    // Engines before 24.0 keep their id in another file and form; they are believed.
    match std::fs::read_to_string(root.join("engine-id")) {
        Ok(id) if !info.id.is_empty() && id.trim() != info.id => {
            Some(format!("its data folder {} belongs to another engine on this machine", info.root_dir))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(host: &str) -> Endpoint {
        Endpoint { host: host.to_owned(), tls: None, source: Source::Explicit, api_version: None }
    }

    fn info(root: &Path, id: &str) -> EngineInfo {
        EngineInfo {
            name: "engine".to_owned(),
            id: id.to_owned(),
            root_dir: root.to_str().expect("a UTF-8 path").to_owned(),
            version: "20.10.24".to_owned(),
            api_version: "1.41".to_owned(),
        }
    }

    #[test]
    fn mountpoints_are_local_only_where_the_engine_is() {
        let root = tempfile::tempdir().expect("a folder");
        let socket = endpoint("unix:///run/docker.sock");
        assert_eq!(why_remote(&socket, &info(root.path(), "AB:CD")), None, "an old engine has no id file");
        std::fs::write(root.path().join("engine-id"), "one\n").expect("written");
        assert_eq!(why_remote(&socket, &info(root.path(), "one")), None);
        assert_eq!(why_remote(&socket, &info(root.path(), "")), None, "an engine without an id is believed");
        let other = why_remote(&socket, &info(root.path(), "two")).expect("a forwarded socket");
        assert!(other.contains("another engine"), "{other}");
        let gone = why_remote(&socket, &info(&root.path().join("none"), "one")).expect("a virtual machine");
        assert!(gone.contains("does not exist on this machine"), "{gone}");
        let network = why_remote(&endpoint("tcp://localhost:2375"), &info(root.path(), "one")).expect("tcp");
        assert!(network.contains("network"), "{network}");
    }

    #[test]
    fn the_newest_version_that_both_know_is_spoken() {
        let engine = |api: &str, min: &str| model::VersionAnswer {
            api_version: api.to_owned(),
            min_api_version: min.to_owned(),
        };
        let mut to = endpoint("unix:///run/docker.sock");
        assert_eq!(agree(&engine("1.41", "1.12"), &to).expect("agreed"), (1, 41));
        assert_eq!(agree(&engine("1.99", "1.40"), &to).expect("agreed"), NEWEST_API);
        assert_eq!(agree(&engine("1.9", ""), &to).expect("agreed"), (1, 9), "numbers, not text");
        assert!(agree(&engine("2.0", "1.99"), &to).expect_err("too new").to_string().contains("1.99"));
        assert!(agree(&engine("", ""), &to).is_err());
        to.api_version = Some((1, 30));
        assert_eq!(agree(&engine("1.41", "1.12"), &to).expect("pinned"), (1, 30));
    }
}
