//! What was removed, and what is needed to bring it back.
//!
//! A note is on the disk *before* anything is removed, and says afterwards what of it is really gone. It holds definitions, and the ids
//! of the snapshots that hold the content; the content itself is in the repository. Layout: one JSON file per command,
//! `<state>/undo/<ulid>.json`, mode 0600, because the definitions of containers have environment variables in them.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Verdict;
use crate::repo::VolumeDefinition;

/// The version of the files that this voltool writes.
const VERSION: u32 = 1;

/// What one command removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Removal {
    /// The version of the file.
    pub version: u32,
    /// The id, a ULID.
    pub id: String,
    /// When.
    pub time: Timestamp,
    /// The engine's name in snapshots.
    pub engine: String,
    /// The command, as a person would type it.
    pub command: String,
    /// Whether the command came to its end, so that what is listed is what is gone; before that it is what may be gone.
    pub done: bool,
    /// The volumes.
    pub volumes: Vec<RemovedVolume>,
    /// The containers, in the order in which they were removed.
    pub containers: Vec<RemovedContainer>,
}

/// A volume that was removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RemovedVolume {
    /// Name, driver, labels, options.
    pub definition: VolumeDefinition,
    /// The snapshot that holds its content; `None` if there was none in it, or it was given up.
    pub snapshot: Option<String>,
    /// What was said of its content.
    pub verdict: Verdict,
    /// Where it is in the trash of voltool's driver, if that keeps it.
    #[serde(default)]
    pub trash: Option<String>,
}

/// A container that was removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RemovedContainer {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether it ran.
    pub running: bool,
    /// What the engine said of it (`GET /containers/{id}/json`).
    pub definition: Value,
}

/// Why a note could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {reason}", path.display())]
pub struct UndoError {
    /// What was tried.
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// Why it failed.
    pub reason: String,
}

impl Removal {
    /// Begins a note.
    pub fn new(engine: &str, command: &str) -> Removal {
        Removal {
            version: VERSION,
            id: ulid::Ulid::generate().to_string(),
            time: Timestamp::now(),
            engine: engine.to_owned(),
            command: command.to_owned(),
            done: false,
            volumes: Vec::new(),
            containers: Vec::new(),
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.volumes.is_empty() && self.containers.is_empty()
    }
}

/// The notes.
#[derive(Debug, Clone)]
pub struct Notes {
    folder: PathBuf,
}

impl Notes {
    /// Those below a state folder.
    pub fn of(state_dir: &Path) -> Notes {
        Notes { folder: state_dir.join("undo") }
    }

    /// Writes a note, in the place of an earlier one of its id. It is on the disk when this returns.
    ///
    /// # Errors
    /// If it cannot be written: then nothing must be removed.
    pub fn write(&self, removal: &Removal) -> Result<(), UndoError> {
        let path = self.path(&removal.id);
        let text = serde_json::to_vec_pretty(removal).map_err(|e| error("write", &path, e))?;
        let beside = path.with_extension("tmp");
        let written = (|| {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&beside, &path)?;
            std::fs::File::open(&self.folder)?.sync_all()
        })();
        written.map_err(|e| error("write", &path, e))
    }

    /// Every note, oldest first, and what could not be read.
    ///
    /// # Errors
    /// If the folder cannot be listed.
    pub fn list(&self) -> Result<(Vec<Removal>, Vec<UndoError>), UndoError> {
        let (mut removals, mut problems) = (Vec::new(), Vec::new());
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok((removals, problems)),
            Err(e) => return Err(error("list", &self.folder, e)),
        };
        for entry in entries {
            let path = entry.map_err(|e| error("list", &self.folder, e))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path) {
                Ok(removal) => removals.push(removal),
                Err(problem) => problems.push(problem),
            }
        }
        removals.sort_by(|a, b| a.id.cmp(&b.id));
        Ok((removals, problems))
    }

    /// Removes a note.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn forget(&self, id: &str) -> Result<(), UndoError> {
        let path = self.path(id);
        std::fs::remove_file(&path).map_err(|e| error("remove", &path, e))
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }
}

fn read(path: &Path) -> Result<Removal, UndoError> {
    let text = std::fs::read(path).map_err(|e| error("read", path, e))?;
    let removal: Removal = serde_json::from_slice(&text).map_err(|e| error("read", path, e))?;
    if removal.version > VERSION {
        return Err(error("read", path, "a newer voltool wrote it"));
    }
    Ok(removal)
}

fn error(action: &'static str, path: &Path, reason: impl std::fmt::Display) -> UndoError {
    UndoError { action, path: path.to_owned(), reason: reason.to_string() }
}

/// Makes of an inspected container what `POST /containers/create` takes, so that the new container has the old one's volumes.
///
/// Volumes that the definition does not name (`-v /path`, an image's `VOLUME`) get their names written in: else the engine would
/// make new, empty ones. `exists` says which containers can be referred to by `--volumes-from`; what came from another one is
/// mounted by its name.
pub fn recreation(inspected: &Value, exists: impl Fn(&str) -> bool) -> Value {
    let mut body = inspected.get("Config").cloned().filter(Value::is_object).unwrap_or_else(|| json!({}));
    let mut host = inspected.get("HostConfig").cloned().filter(Value::is_object).unwrap_or_else(|| json!({}));
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();

    let from = list(host.get("VolumesFrom"));
    let reachable = |entry: &Value| entry.as_str().is_some_and(|e| exists(e.split(':').next().unwrap_or(e)));
    let keeps_from = !from.is_empty() && from.iter().all(reachable);
    if !keeps_from {
        host["VolumesFrom"] = json!([]);
    }
    let mut binds = list(host.get("Binds"));
    let mut mounts = list(host.get("Mounts"));
    for mount in list(inspected.get("Mounts")) {
        let (Some(name), Some(target)) = (text(&mount, "Name"), text(&mount, "Destination")) else { continue };
        let at = |path: &str| path.trim_end_matches('/') == target.trim_end_matches('/');
        if let Some(spec) = mounts.iter_mut().find(|spec| text(spec, "Target").is_some_and(at)) {
            if text(spec, "Source").is_none_or(str::is_empty) {
                spec["Source"] = json!(name);
            }
            continue;
        }
        let same = |bind: &&mut Value| {
            let parts: Vec<&str> = bind.as_str().unwrap_or_default().split(':').collect();
            at(if parts.len() > 1 { parts[1] } else { parts[0] })
        };
        let read_only = mount.get("RW") == Some(&Value::Bool(false));
        let spelled = json!(format!("{name}:{target}{}", if read_only { ":ro" } else { "" }));
        match binds.iter_mut().find(same) {
            Some(bind) if bind.as_str().is_some_and(|bind| !bind.contains(':')) => *bind = spelled,
            Some(_) => {}
            // What is inherited stays inherited, where it can.
            None if keeps_from && !is_declared(&body, target) => {}
            None => binds.push(spelled),
        }
    }
    host["Binds"] = json!(binds);
    host["Mounts"] = json!(mounts);
    body["HostConfig"] = host;
    let networks = inspected.pointer("/NetworkSettings/Networks").and_then(Value::as_object);
    let endpoints = networks.into_iter().flatten().map(|(name, endpoint)| {
        let kept = ["IPAMConfig", "Links", "Aliases", "DriverOpts"];
        let kept = kept.iter().filter_map(|key| Some(((*key).to_owned(), endpoint.get(*key)?.clone())));
        (name.clone(), Value::Object(kept.collect()))
    });
    body["NetworkingConfig"] = json!({ "EndpointsConfig": endpoints.collect::<serde_json::Map<_, _>>() });
    body
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

/// Whether a container's own configuration makes an anonymous volume at a path.
fn is_declared(config: &Value, path: &str) -> bool {
    config.get("Volumes").and_then(Value::as_object).is_some_and(|volumes| volumes.contains_key(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_survives_and_can_be_forgotten() {
        let state = tempfile::tempdir().expect("a folder");
        let notes = Notes::of(state.path());
        assert!(notes.list().expect("none yet").0.is_empty());
        let mut removal = Removal::new("host", "docker rm -v db");
        notes.write(&removal).expect("written");
        removal.done = true;
        notes.write(&removal).expect("written again");
        std::fs::write(state.path().join("undo/broken.json"), "{").expect("written");
        let (found, problems) = notes.list().expect("listed");
        assert_eq!(found, [removal.clone()]);
        assert_eq!(problems.len(), 1, "what is damaged is named, and hides nothing else");
        notes.forget(&removal.id).expect("removed");
        assert!(notes.list().expect("listed").0.is_empty());
    }

    #[test]
    fn a_container_comes_back_with_its_volumes() {
        let inspected = json!({
            "Config": {"Image": "db:1", "Volumes": {"/declared": {}}, "Env": ["A=b"]},
            "HostConfig": {
                "Binds": ["/alone", "named:/named:ro", "/srv:/host"], "VolumesFrom": ["data:ro"],
                "Mounts": [{"Type": "volume", "Target": "/mount"}, {"Type": "tmpfs", "Target": "/t"}],
            },
            "Mounts": [
                {"Type": "volume", "Name": "v1", "Destination": "/alone", "RW": true},
                {"Type": "volume", "Name": "named", "Destination": "/named", "RW": false},
                {"Type": "bind", "Source": "/srv", "Destination": "/host", "RW": true},
                {"Type": "volume", "Name": "v2", "Destination": "/mount", "RW": true},
                {"Type": "volume", "Name": "v3", "Destination": "/declared", "RW": true},
                {"Type": "volume", "Name": "v4", "Destination": "/inherited", "RW": false},
            ],
            "NetworkSettings": {"Networks": {"shop": {"Aliases": ["db"], "Gateway": "10.0.0.1"}}},
        });
        let alone = recreation(&inspected, |_| false);
        assert_eq!(
            alone["HostConfig"]["Binds"],
            json!(["v1:/alone", "named:/named:ro", "/srv:/host", "v3:/declared", "v4:/inherited:ro"])
        );
        assert_eq!(alone["HostConfig"]["VolumesFrom"], json!([]));
        assert_eq!(alone["HostConfig"]["Mounts"][0]["Source"], "v2");
        assert_eq!((&alone["Image"], &alone["Env"]), (&json!("db:1"), &json!(["A=b"])));
        assert_eq!(alone["NetworkingConfig"]["EndpointsConfig"], json!({"shop": {"Aliases": ["db"]}}));
        let with_source = recreation(&inspected, |name| name == "data");
        assert_eq!(with_source["HostConfig"]["VolumesFrom"], json!(["data:ro"]));
        assert!(!with_source["HostConfig"]["Binds"].to_string().contains("v4"), "{with_source}");
    }
}
