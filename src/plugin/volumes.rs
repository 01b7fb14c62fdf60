//! The endpoints of a volume driver.
//!
//! What engines do with the answers decides what may be answered (seen on engines 20.10 and 26.1, and in podman's source):
//!
//! - *Any* answer to `Get` that an engine cannot use means to it that the volume is gone, and it forgets labels, options and
//!   references. So `Get` and `List` come from what is known locally, at once; and who cannot answer closes the connection, which is
//!   the one failure that an engine takes for a failure.
//! - A request whose answer got lost is sent again with an empty body. An empty or unreadable body is therefore no question at all: the
//!   connection is closed.
//! - A failure is status 500 with `{"Err": …}`: podman takes `Err` with status 200 for success.
//! - `CreatedAt` that is not RFC 3339 makes the whole answer unusable; an empty `Mountpoint` makes the engine bind a folder of its own
//!   into the container.
//! - A mount whose caller has gone is not undone by the engine: it never sends the `Unmount`. The future of [`Volumes::mount`] is
//!   dropped then, and undoes what it has done.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Answer;

/// The prefix of every endpoint of a volume driver.
pub const PREFIX: &str = "/VolumeDriver.";
/// The prefix of voltool's own endpoints: its commands ask the daemon through the same socket.
pub const OWN_PREFIX: &str = "/voltool.Volumes.";

/// A volume, as the engine is told of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// Where its content is, or will be: absolute, never empty.
    pub mountpoint: PathBuf,
    /// When it was made.
    pub created: Timestamp,
    /// What `docker volume inspect` shows as `Status`.
    pub status: Map<String, Value>,
}

/// What keeps the volumes.
#[async_trait]
pub trait Volumes: Send + Sync + 'static {
    /// Whether hosts share the volumes.
    fn is_global(&self) -> bool;

    /// One volume, from what is known locally; `None` only if there certainly is none.
    fn get(&self, name: &str) -> Option<Described>;

    /// Every volume, from what is known locally.
    fn list(&self) -> Vec<Described>;

    /// Makes a volume. One that is there already stays as it is.
    async fn create(&self, name: &str, options: BTreeMap<String, String>) -> Result<(), String>;

    /// Sees to it that the content is there, and notes who uses it. If the future is dropped, nobody does.
    async fn mount(&self, name: &str, id: &str) -> Result<PathBuf, String>;

    /// Notes that one use has ended. One that nobody knew of is no failure.
    async fn unmount(&self, name: &str, id: &str) -> Result<(), String>;

    /// Removes a volume, or says why not.
    async fn remove(&self, name: &str) -> Result<(), String>;

    /// Answers a question of voltool's own commands; `None` if there is no such question.
    async fn own(&self, question: &str, body: &Value) -> Option<Result<Value, String>>;
}

#[derive(Deserialize)]
struct Named {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(rename = "Opts", default)]
    options: Option<BTreeMap<String, String>>,
}

/// Answers one request to a volume driver; `None` closes the connection.
pub(super) async fn answer(volumes: &dyn Volumes, path: &str, body: Option<&[u8]>) -> Option<Answer> {
    if let Some(question) = path.strip_prefix(OWN_PREFIX) {
        let body = body.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or(Value::Null);
        return Some(match volumes.own(question, &body).await {
            Some(Ok(value)) => Answer::ok(&value),
            Some(Err(reason)) => failed(&reason),
            None => failed(&format!("no such endpoint: {path}")),
        });
    }
    // These ask about nothing in particular; podman sends some of them without a body.
    match path.strip_prefix(PREFIX)? {
        "Capabilities" => {
            let scope = if volumes.is_global() { "global" } else { "local" };
            return Some(Answer::ok(&json!({ "Capabilities": { "Scope": scope } })));
        }
        "List" => {
            let all: Vec<Value> = volumes.list().iter().map(|volume| shown(volume, false)).collect();
            return Some(Answer::ok(&json!({ "Volumes": all, "Err": "" })));
        }
        _ => {}
    }
    let asked: Named = serde_json::from_slice(body?).ok()?;
    let name = asked.name.as_str();
    let no_such = || failed(&format!("no such volume: {name}"));
    Some(match path.strip_prefix(PREFIX)? {
        "Get" => match volumes.get(name) {
            Some(volume) => Answer::ok(&json!({ "Volume": shown(&volume, true), "Err": "" })),
            None => no_such(),
        },
        "Path" => match volumes.get(name) {
            Some(volume) => Answer::ok(&json!({ "Mountpoint": path_of(&volume), "Err": "" })),
            None => no_such(),
        },
        "Create" => done(volumes.create(name, asked.options.unwrap_or_default()).await),
        "Mount" => match volumes.mount(name, &asked.id).await {
            Ok(path) => Answer::ok(&json!({ "Mountpoint": path.to_string_lossy(), "Err": "" })),
            Err(reason) => failed(&reason),
        },
        "Unmount" => done(volumes.unmount(name, &asked.id).await),
        "Remove" => done(volumes.remove(name).await),
        _ => failed(&format!("no such endpoint: {path}")),
    })
}

fn path_of(volume: &Described) -> String {
    volume.mountpoint.to_string_lossy().into_owned()
}

fn shown(volume: &Described, with_status: bool) -> Value {
    let mut shown = json!({
        "Name": volume.name,
        "Mountpoint": path_of(volume),
        // With seconds only: engines parse exactly RFC 3339, and need no more.
        "CreatedAt": volume.created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    });
    if with_status {
        shown["Status"] = Value::Object(volume.status.clone());
    }
    shown
}

fn done(result: Result<(), String>) -> Answer {
    match result {
        Ok(()) => Answer::ok(&json!({ "Err": "" })),
        Err(reason) => failed(&reason),
    }
}

fn failed(reason: &str) -> Answer {
    Answer { status: 500, body: json!({ "Err": reason }).to_string().into_bytes() }
}
