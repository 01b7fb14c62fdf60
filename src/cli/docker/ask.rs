//! What the real command has to be asked before a command line can be judged.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;

use super::real::Real;
use crate::cli::CliError;
use crate::cli::error::Kind;
use crate::docker::{Surroundings, connect};
use crate::guard::argv::project::{self, Definition, Project};
use crate::guard::argv::{Connection, Program, Selection};

/// The files in which Compose looks for a definition, here and in the folders above.
const COMPOSE_FILES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];

/// The surroundings in which the engine of a command line is found: the environment, changed as its options would.
pub(super) fn surroundings(connection: &Connection) -> anyhow::Result<Surroundings> {
    if connection.tls_files {
        return Err(CliError::new(Kind::Refused, "--tlscacert, --tlscert and --tlskey: the guard does not take them")
            .hint("put ca.pem, cert.pem and key.pem into one folder, and name that with DOCKER_CERT_PATH")
            .into());
    }
    let mut around = Surroundings::current()?;
    let mut set = |name: &str, value: &str| drop(around.env.insert(name.to_owned(), value.to_owned()));
    if let Some(folder) = &connection.config {
        set("DOCKER_CONFIG", folder);
    }
    if connection.tls {
        set("DOCKER_TLS", "1");
    }
    if connection.tls_verify {
        set("DOCKER_TLS_VERIFY", "1");
    }
    if let Some(context) = &connection.context {
        set("DOCKER_CONTEXT", context);
        around.env.remove("DOCKER_HOST");
    }
    Ok(around)
}

/// The address of the engine that a command line is for.
pub(super) fn endpoint(connection: &Connection) -> anyhow::Result<connect::Endpoint> {
    Ok(connect::resolve(connection.host.as_deref(), &surroundings(connection)?)?)
}

/// The API version that the real command speaks with its engine. If it does not say, the one in which prune takes the most.
pub(super) async fn api_version(real: &Real, line: &[OsString], connection: &Connection) -> (u32, u32) {
    let mut words = line[..connection.length].to_vec();
    words.extend(["version", "--format", "{{.Client.APIVersion}}"].map(OsString::from));
    let said = output(real, &words).await.unwrap_or_default();
    let parsed =
        said.trim().split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    parsed.unwrap_or((1, 41))
}

/// `pruneFilters` of Docker's own settings.
pub(super) fn prune_filters(around: &Surroundings) -> anyhow::Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Settings {
        #[serde(default, rename = "pruneFilters")]
        prune_filters: Vec<String>,
    }
    let var = |name: &str| around.env.get(name).filter(|value| !value.is_empty());
    let folder = var("DOCKER_CONFIG").map(PathBuf::from).or_else(|| Some(Path::new(var("HOME")?).join(".docker")));
    let Some(file) = folder.map(|folder| folder.join("config.json")) else { return Ok(Vec::new()) };
    let text = match std::fs::read(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(CliError::failed(format!("cannot read {}: {e}", file.display())).into()),
    };
    let settings: Settings = serde_json::from_slice(&text)
        .map_err(|e| CliError::failed(format!("cannot read pruneFilters in {}: {e}", file.display())))?;
    Ok(settings.prune_filters)
}

/// Finds out which Compose project is meant, and what it is made of.
pub(super) async fn compose_project(
    real: &Real,
    program: Program,
    line: &[OsString],
    selection: &Selection,
) -> Project {
    let definition = definition(real, program, &line[..selection.verb_at]).await;
    let mut names: BTreeSet<String> = definition.iter().filter_map(|found| found.name.clone()).collect();
    let variable = std::env::var("COMPOSE_PROJECT_NAME").ok().filter(|name| !name.is_empty());
    match (&selection.name, variable) {
        (Some(name), _) => names.extend([name.clone(), project::normal_name(name)]),
        // Compose has said what it makes of the rest.
        _ if !names.is_empty() => {}
        (None, Some(name)) => names.extend([project::normal_name(&name), name]),
        (None, None) => return guessed(definition, selection),
    }
    Project { names, folders: BTreeSet::new(), definition }
}

/// By Compose's rules; and since those have changed over time, everything that was started from that folder.
fn guessed(definition: Option<Definition>, selection: &Selection) -> Project {
    let folder = project_folder(selection);
    let mut found = Project { definition, ..Project::default() };
    for folder in [std::path::absolute(&folder).ok(), std::fs::canonicalize(&folder).ok()].into_iter().flatten() {
        let text = folder.to_string_lossy().into_owned();
        let env = std::fs::read_to_string(folder.join(".env")).unwrap_or_default();
        let name = project::env_file_value(&env, "COMPOSE_PROJECT_NAME").filter(|name| !name.is_empty());
        found.names.extend(name.map(|name| project::normal_name(&name)));
        found.names.insert(project::default_name(&text));
        found.folders.insert(text);
    }
    found
}

/// The folder that Compose takes a project's name from.
fn project_folder(selection: &Selection) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    if let Some(folder) = &selection.directory {
        return here.join(folder);
    }
    let named = std::env::var("COMPOSE_FILE").ok().filter(|files| !files.is_empty());
    let first = selection.files.first().map(String::as_str);
    let first = first.or_else(|| named.as_deref().and_then(|files| files.split(':').next()));
    if let Some(file) = first {
        return here.join(file).parent().map_or(here.clone(), Path::to_owned);
    }
    let holds_definition = |folder: &&Path| COMPOSE_FILES.iter().any(|name| folder.join(name).exists());
    here.ancestors().find(holds_definition).map_or(here.clone(), Path::to_owned)
}

/// Asks Compose what it makes of its files. Version 1 knows no JSON, and takes a second to say so.
async fn definition(real: &Real, program: Program, globals: &[OsString]) -> Option<Definition> {
    let ask = |words: &'static [&'static str]| {
        let line: Vec<OsString> = globals.iter().cloned().chain(words.iter().map(OsString::from)).collect();
        async move { output(real, &line).await }
    };
    let plain = match program {
        Program::Docker => None,
        Program::Compose => ask(&["config"]).await.as_deref().and_then(project::from_yaml),
    };
    if plain.as_ref().is_some_and(|found| found.name.is_none()) {
        return plain;
    }
    ask(&["config", "--format", "json"]).await.as_deref().and_then(project::from_json).or(plain)
}

/// What the real command prints, if it succeeds. What it complains of, it will complain of again when it is run.
async fn output(real: &Real, line: &[OsString]) -> Option<String> {
    let mut command = tokio::process::Command::from(real.command(line));
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}
