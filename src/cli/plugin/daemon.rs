//! What voltool's commands ask the daemon, over its socket.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::cli::{CliError, Context};
use crate::driver::detach::Discarded;
use crate::plugin::volumes::{OWN_PREFIX, PREFIX};
use crate::plugin::{client, wire};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(120);
/// The id under which a backup uses a volume: a backup that was killed leaves only this one behind, and the next one ends it.
const BACKUP: &str = "voltool-backup";

/// The daemon, by its socket.
#[derive(Debug, Clone)]
pub struct Daemon {
    socket: PathBuf,
}

/// All that the driver keeps.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kept {
    /// The volumes, by name.
    pub volumes: Vec<KeptVolume>,
    /// What was removed and is kept for a while, oldest first.
    pub trash: Vec<Discarded>,
}

/// A volume as the driver knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeptVolume {
    /// Its name.
    pub name: String,
    /// The options that it was made with.
    pub options: BTreeMap<String, String>,
    /// The labels that the engine gave it.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created: Timestamp,
    /// Where the driver keeps it.
    pub folder: PathBuf,
    /// Whether an engine was made to forget it.
    #[serde(default)]
    pub detached: bool,
    /// What `docker volume inspect` shows of it.
    pub status: Map<String, Value>,
}

impl Daemon {
    /// The daemon that the settings name.
    pub fn of(ctx: &Context) -> Daemon {
        Daemon { socket: ctx.settings.plugin.socket().to_owned() }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn status(&self) -> Result<Value, CliError> {
        self.send(wire::STATUS.to_owned(), Value::Null).await.map_err(|e| self.silent(&e))
    }

    /// All that its driver keeps.
    ///
    /// # Errors
    /// If it does not answer, or is of another version.
    pub async fn volumes(&self) -> Result<Kept, CliError> {
        let answer = self.send(format!("{OWN_PREFIX}List"), Value::Null).await.map_err(|e| self.silent(&e))?;
        serde_json::from_value(answer).map_err(|e| {
            CliError::failed(format!("what the daemon says of its volumes cannot be understood: {e}"))
                .hint("it is of another version than this command: restart it (systemctl restart voltool)")
        })
    }

    /// Has it bring back a volume that is in its trash under that name.
    ///
    /// # Errors
    /// If it does not answer, or cannot.
    pub async fn bring_back(&self, trash: &str) -> Result<(), CliError> {
        self.tell("BringBack", trash).await.map_err(|e| {
            CliError::failed(format!("the volume cannot be brought back from the trash: {e}"))
                .hint("the daemon does that: 'voltool plugin status' says whether it runs")
        })
    }

    /// Lets the engine remove a volume without its content.
    ///
    /// # Errors
    /// If it does not answer, or the volume is in use.
    pub async fn detach(&self, name: &str) -> Result<(), CliError> {
        self.tell("Detach", name).await.map_err(|e| CliError::failed(format!("cannot let go of volume {name}: {e}")))
    }

    /// Takes that back.
    ///
    /// # Errors
    /// If it does not answer, or keeps nothing of that name.
    pub async fn attach(&self, name: &str) -> Result<(), CliError> {
        self.tell("Attach", name).await.map_err(|e| CliError::failed(format!("cannot take volume {name} back: {e}")))
    }

    /// Has it refuse the next removal of a volume.
    ///
    /// # Errors
    /// If it does not answer, or has no such volume.
    pub async fn hold(&self, name: &str) -> Result<(), CliError> {
        self.tell("Hold", name).await.map_err(|e| CliError::failed(format!("cannot hold volume {name}: {e}")))
    }

    /// Takes that back.
    ///
    /// # Errors
    /// If it does not answer, or has no such volume.
    pub async fn release(&self, name: &str) -> Result<(), CliError> {
        self.tell("Release", name).await.map_err(|e| CliError::failed(format!("cannot release volume {name}: {e}")))
    }

    /// Lets a volume begin empty that was to begin with a snapshot.
    ///
    /// # Errors
    /// If it does not answer, or somebody uses the volume.
    pub async fn begin_empty(&self, name: &str) -> Result<(), CliError> {
        self.tell("BeginEmpty", name)
            .await
            .map_err(|e| CliError::failed(format!("cannot restore into volume {name}: {e}")))
    }

    /// Has it take the lease of a shared volume from another host. Returns from which, if from any.
    ///
    /// # Errors
    /// If it does not answer, the volume is not shared, or the repository cannot be reached.
    pub async fn take_over(&self, name: &str) -> Result<Option<String>, CliError> {
        let taken = self.send(format!("{OWN_PREFIX}TakeOver"), json!({ "Name": name })).await;
        let taken = taken.map_err(|e| CliError::failed(format!("cannot take over volume {name}: {e}")))?;
        Ok(taken["From"].as_str().map(str::to_owned))
    }

    /// Has it mount a volume whose content is elsewhere, so that it can be read.
    ///
    /// # Errors
    /// If it does not answer, or the content cannot be had.
    pub async fn mount(&self, name: &str) -> Result<(), CliError> {
        self.use_it("Mount", name).await.map_err(|e| CliError::failed(format!("cannot mount volume {name}: {e}")))
    }

    /// Says that nobody reads it any more.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn unmount(&self, name: &str) -> Result<(), CliError> {
        self.use_it("Unmount", name).await.map_err(|e| CliError::failed(format!("cannot unmount volume {name}: {e}")))
    }

    async fn use_it(&self, call: &str, name: &str) -> io::Result<()> {
        self.send(format!("{PREFIX}{call}"), json!({ "Name": name, "ID": BACKUP })).await.map(drop)
    }

    async fn tell(&self, what: &str, name: &str) -> io::Result<()> {
        self.send(format!("{OWN_PREFIX}{what}"), json!({ "Name": name })).await.map(drop)
    }

    async fn send(&self, endpoint: String, body: Value) -> io::Result<Value> {
        let socket = self.socket.clone();
        let asked = tokio::task::spawn_blocking(move || client::tell(&socket, &endpoint, &body, LIMIT)).await;
        asked.unwrap_or_else(|e| Err(io::Error::other(e)))
    }

    fn silent(&self, e: &io::Error) -> CliError {
        let error = CliError::failed(format!("the daemon does not answer on {}: {e}", self.socket.display()));
        match e.kind() {
            io::ErrorKind::PermissionDenied => error.hint("its socket belongs to root: run this as root"),
            _ => error
                .hint("start it: systemctl start voltool.socket voltool.service; 'voltool plugin install' sets them up")
                .hint("or, to try it out: voltool daemon --plugin"),
        }
    }
}
