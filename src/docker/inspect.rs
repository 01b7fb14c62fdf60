//! What only the audit asks of an engine: layers, processes, images, settings.

use std::collections::BTreeMap;
use std::io::Read as _;

use serde::Deserialize;
use serde_json::Value;

use super::model::or_default;
use super::transport::{Call, encode};
use super::{Engine, EngineError, EngineErrorKind, Result, absent_is_none};

/// The longest file that [`Engine::container_file`] returns, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// What happened to a path of a container's file system since the container was made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Change {
    /// The path inside the container.
    #[serde(rename = "Path")]
    pub path: String,
    /// 0: changed, 1: new, 2: removed.
    #[serde(rename = "Kind")]
    pub kind: u8,
}

impl Change {
    /// Whether there is nothing at the path any more.
    pub fn is_removal(&self) -> bool {
        self.kind == 2
    }
}

/// A process of a container, as the engine's machine sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// The user id on the engine's machine; `None` if the engine only told a name.
    pub uid: Option<u32>,
    /// The name of the program, without its folder.
    pub program: String,
}

/// An image, as far as the audit needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its size in bytes, with all layers.
    pub size: u64,
    /// The paths that it declares as volumes.
    pub volumes: Vec<String>,
}

/// Settings of an engine that decide what may happen to data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineSettings {
    /// Whether containers go on while the engine restarts.
    pub live_restore: bool,
    /// What confines containers: `name=userns`, `name=selinux`, `name=seccomp,profile=default` …
    pub security: Vec<String>,
}

impl EngineSettings {
    /// Whether the option of that name (`selinux`, `userns`) is on.
    pub fn has_security(&self, name: &str) -> bool {
        let named = |part: &str| part.strip_prefix("name=") == Some(name);
        // Engines before 1.13 wrote the bare name.
        self.security.iter().any(|option| option == name || option.split(',').any(named))
    }
}

#[derive(Deserialize)]
struct TopAnswer {
    #[serde(rename = "Titles", default, deserialize_with = "or_default")]
    titles: Vec<String>,
    #[serde(rename = "Processes", default, deserialize_with = "or_default")]
    processes: Vec<Vec<String>>,
}

#[derive(Deserialize)]
struct ImageAnswer {
    #[serde(rename = "Size", default, deserialize_with = "or_default")]
    size: i64,
    #[serde(rename = "Config", default, deserialize_with = "or_default")]
    config: ImageConfig,
}

#[derive(Default, Deserialize)]
struct ImageConfig {
    #[serde(rename = "Volumes", default, deserialize_with = "or_default")]
    volumes: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct SizeAnswer {
    #[serde(rename = "SizeRw", default, deserialize_with = "or_default")]
    size: i64,
}

#[derive(Deserialize)]
struct SettingsAnswer {
    #[serde(rename = "LiveRestoreEnabled", default, deserialize_with = "or_default")]
    live_restore: bool,
    #[serde(rename = "SecurityOptions", default, deserialize_with = "or_default")]
    security: Vec<String>,
}

impl Engine {
    /// What changed in a container's own file system since it was made; volumes are not part of it. `None` if there is no such
    /// container.
    ///
    /// # Errors
    /// If the engine cannot answer.
    pub async fn container_changes(&self, id: &str) -> Result<Option<Vec<Change>>> {
        let path = format!("/containers/{}/changes", encode(id));
        // No change at all is `null`.
        let answer: Result<Option<Vec<Change>>> =
            self.get(&path, &format!("list the changes of container {id} on")).await;
        Ok(absent_is_none(answer)?.map(Option::unwrap_or_default))
    }

    /// The bytes in a container's own layer; `None` if there is no such container.
    ///
    /// # Errors
    /// If the engine cannot answer.
    pub async fn container_layer_size(&self, id: &str) -> Result<Option<u64>> {
        let path = format!("/containers/{}/json?size=1", encode(id));
        let answer = absent_is_none(self.get::<SizeAnswer>(&path, &format!("size container {id} on")).await)?;
        Ok(answer.map(|answer| u64::try_from(answer.size).unwrap_or(0)))
    }

    /// The processes of a running container. Empty if it has gone or stopped meanwhile.
    ///
    /// # Errors
    /// If the engine cannot answer; it uses its machine's `ps`.
    pub async fn container_processes(&self, id: &str) -> Result<Vec<Process>> {
        let action = format!("list the processes of container {id} on");
        let path = format!("/containers/{}/top", encode(id));
        let numeric = format!("{path}?ps_args={}", encode("-eo pid,uid,comm"));
        let answer: Result<TopAnswer> = self.get(&numeric, &action).await;
        let answer = match answer {
            // A `ps` that does not know these arguments may know the ordinary ones.
            Err(error) if error.kind == EngineErrorKind::Engine => self.get::<TopAnswer>(&path, &action).await,
            answer => answer,
        };
        match answer {
            Ok(answer) => Ok(processes(&answer)),
            Err(error) if matches!(error.kind, EngineErrorKind::NotFound | EngineErrorKind::Conflict) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Looks an image up by its id or name; `None` if there is none.
    ///
    /// # Errors
    /// If the engine cannot answer.
    pub async fn image(&self, id: &str) -> Result<Option<Image>> {
        if id.is_empty() {
            return Ok(None);
        }
        let path = format!("/images/{}/json", encode(id));
        let answer = absent_is_none(self.get::<ImageAnswer>(&path, &format!("inspect image {id} on")).await)?;
        Ok(answer.map(|answer| Image {
            size: u64::try_from(answer.size).unwrap_or(0),
            volumes: answer.config.volumes.into_keys().collect(),
        }))
    }

    /// The settings that decide what may happen to data.
    ///
    /// # Errors
    /// If the engine cannot answer.
    pub async fn settings(&self) -> Result<EngineSettings> {
        let answer: SettingsAnswer = self.get("/info", "ask the settings of").await?;
        Ok(EngineSettings { live_restore: answer.live_restore, security: answer.security })
    }

    /// Reads a small file of a container; `None` if there is no such file or container, or if it is something else than a file.
    /// Ask this of a running container only: for another one the engine would mount its volumes.
    ///
    /// # Errors
    /// If the engine cannot answer, or answers with no tar.
    pub async fn container_file(&self, id: &str, file: &str) -> Result<Option<Vec<u8>>> {
        let action = format!("read {file} of container {id} on");
        let path = format!("/containers/{}/archive?path={}", encode(id), encode(file));
        let Some(tar) = absent_is_none(self.call(Call::get(&path), &action).await)? else { return Ok(None) };
        let wrong = |error: std::io::Error| EngineError {
            kind: EngineErrorKind::Protocol,
            action: action.clone(),
            endpoint: self.endpoint.to_string(),
            reason: format!("its answer is no tar: {error}"),
            hint: None,
        };
        let mut archive = tar::Archive::new(&tar[..]);
        let Some(entry) = archive.entries().map_err(wrong)?.next() else { return Ok(None) };
        let entry = entry.map_err(wrong)?;
        if !entry.header().entry_type().is_file() {
            return Ok(None);
        }
        let mut content = Vec::new();
        entry.take(MAX_FILE).read_to_end(&mut content).map_err(wrong)?;
        Ok(Some(content))
    }
}

/// Reads the table that `ps` made.
fn processes(answer: &TopAnswer) -> Vec<Process> {
    let column = |names: [&str; 2]| answer.titles.iter().position(|title| names.contains(&title.as_str()));
    let (user, program) = (column(["UID", "USER"]), column(["COMMAND", "CMD"]));
    let rows = answer.processes.iter().map(|row| {
        let cell = |at: Option<usize>| at.and_then(|at| row.get(at)).map(String::as_str).unwrap_or_default();
        let uid = match cell(user) {
            "root" => Some(0),
            text => text.parse().ok(),
        };
        let word = cell(program).split_whitespace().next().unwrap_or_default();
        // A daemon that names itself writes `sshd: user@pts/0`.
        let word = word.trim_end_matches(':');
        Process { uid, program: word.rsplit('/').next().unwrap_or_default().to_owned() }
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_read_from_any_table() {
        let read = |titles: &[&str], row: &[&str]| {
            let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
            let found = processes(&TopAnswer { titles: owned(titles), processes: vec![owned(row)] });
            (found[0].uid, found[0].program.clone())
        };
        assert_eq!(read(&["PID", "UID", "COMMAND"], &["7", "999", "postgres"]), (Some(999), "postgres".to_owned()));
        let full = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
        let row = ["root", "7", "1", "0", "10:00", "?", "00:00:00", "/usr/sbin/sshd -D"];
        assert_eq!(read(&full, &row), (Some(0), "sshd".to_owned()));
        let row = ["systemd+", "7", "1", "0", "10:00", "?", "00:00:00", "sshd: a@pts/0"];
        assert_eq!(read(&full, &row), (None, "sshd".to_owned()));
        assert_eq!(read(&[], &[]), (None, String::new()));
    }

    #[test]
    fn security_options_are_read_in_both_forms() {
        let settings = |options: &[&str]| EngineSettings {
            live_restore: false,
            security: options.iter().map(|option| (*option).to_owned()).collect(),
        };
        assert!(settings(&["name=seccomp,profile=default", "name=userns"]).has_security("userns"));
        assert!(settings(&["selinux"]).has_security("selinux"));
        assert!(!settings(&["name=seccomp,profile=userns"]).has_security("userns"));
    }
}
