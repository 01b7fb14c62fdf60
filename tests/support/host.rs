//! A machine as voltool meets it: a private Docker engine, and voltool with a home of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::cli::{Lock, Ran, Sandbox};
use super::engine::{BUSYBOX, TestEngine};

/// A private engine, and a sandbox whose voltool talks to it.
pub struct Host {
    /// The engine.
    pub engine: TestEngine,
    /// Where voltool runs.
    pub sandbox: Sandbox,
}

impl Host {
    /// A host with a new encrypted repository in a directory.
    pub fn new() -> Host {
        let host = Host::bare();
        host.sandbox.init(Lock::Identity).ok();
        host
    }

    /// A host on which nobody has said `init` yet.
    pub fn bare() -> Host {
        let sandbox = Sandbox::bare();
        sandbox.file("config.toml", "");
        Host::with(sandbox)
    }

    /// A host with a new engine and that sandbox.
    pub fn with(mut sandbox: Sandbox) -> Host {
        let engine = TestEngine::start();
        sandbox.set("DOCKER_HOST", &engine.host());
        Host { engine, sandbox }
    }

    /// Runs voltool to its end.
    pub fn voltool(&self, args: &[&str]) -> Ran {
        self.sandbox.run(args)
    }

    /// Runs voltool, asserts that all was done, and returns what it printed.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        self.voltool(args).ok()
    }

    /// As [`Host::ok`], and reads what it printed as JSON.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).expect("JSON")
    }

    /// Runs the docker command on the engine, and returns what it printed.
    #[track_caller]
    pub fn docker(&self, args: &[&str]) -> String {
        self.engine.docker(args)
    }

    /// What `ls --json` says of a volume.
    #[track_caller]
    pub fn row(&self, volume: &str) -> Value {
        let rows = self.json(&["ls", "--json"]);
        let found = rows.as_array().expect("an array").iter().find(|row| row["name"] == volume);
        found.unwrap_or_else(|| panic!("{volume} is not in {rows}")).clone()
    }

    /// The names in the order of `ls --json`.
    #[track_caller]
    pub fn order(&self) -> Vec<String> {
        let rows = self.json(&["ls", "--json"]);
        rows.as_array().expect("an array").iter().map(|row| row["name"].as_str().expect("a name").to_owned()).collect()
    }

    /// The names of the volumes that have a snapshot, each once.
    #[track_caller]
    pub fn backed_up(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.sandbox.snapshots().iter().map(|s| s["volume"].as_str().expect("a name").to_owned()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Where the volume's content is on this machine.
    #[track_caller]
    pub fn mountpoint(&self, volume: &str) -> PathBuf {
        self.docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", volume]).into()
    }

    /// Whether the engine has a volume of that name.
    pub fn has_volume(&self, name: &str) -> bool {
        self.docker(&["volume", "ls", "-q"]).lines().any(|line| line == name)
    }

    /// What the engine says of the volume, but for what is different each time it is made.
    #[track_caller]
    pub fn definition(&self, volume: &str) -> Value {
        let mut all: Value = serde_json::from_str(&self.docker(&["volume", "inspect", volume])).expect("JSON");
        let definition = all[0].as_object_mut().expect("an object");
        definition.remove("CreatedAt");
        // The engine makes no difference between none and an empty set of them.
        definition.retain(|_, value| !value.is_null() && *value != serde_json::json!({}));
        all[0].take()
    }

    /// Makes a volume with a file in it.
    #[track_caller]
    pub fn volume(&self, name: &str, content: &str) {
        self.docker(&["volume", "create", name]);
        self.write(name, "file", content);
    }

    /// Writes a file into a volume.
    #[track_caller]
    pub fn write(&self, volume: &str, file: &str, content: &str) {
        std::fs::write(self.mountpoint(volume).join(file), content).expect("written");
    }

    /// Reads a file of a volume.
    #[track_caller]
    pub fn read(&self, volume: &str, file: &str) -> String {
        let path = self.mountpoint(volume).join(file);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Starts a container that runs until it is told to stop, and then stops at once.
    #[track_caller]
    pub fn run_container(&self, name: &str, arguments: &[&str]) {
        let run = ["run", "-d", "--name", name, "--network", "none", "--stop-signal", "KILL"];
        self.docker(&[&run, arguments, &[BUSYBOX, "sleep", "600"]].concat());
    }

    /// Whether a container runs.
    #[track_caller]
    pub fn is_running(&self, container: &str) -> bool {
        self.docker(&["inspect", "--format", "{{.State.Running}}", container]) == "true"
    }

    /// The volume that a container has mounted at a path.
    #[track_caller]
    pub fn volume_at(&self, container: &str, path: &str) -> String {
        let template =
            format!("{{{{range .Mounts}}}}{{{{if eq .Destination {path:?}}}}}{{{{.Name}}}}{{{{end}}}}{{{{end}}}}");
        self.docker(&["inspect", "--format", &template, container])
    }

    /// Copies a folder with all that belongs to it, to compare with later. Asserts that the copy is one.
    #[track_caller]
    pub fn keep(&self, folder: &Path, name: &str) -> PathBuf {
        let copy = self.sandbox.folder(name);
        rsync(&["-aHAXS", "--numeric-ids"], folder, &copy);
        assert_same(&copy, folder);
        copy
    }
}

impl Default for Host {
    fn default() -> Self {
        Host::new()
    }
}

/// Fills an empty folder with every kind of entry that there is, made in the sandbox first.
#[track_caller]
pub fn make_tree(sandbox: &Sandbox, folder: &Path) {
    let tree = sandbox.path("tree");
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/make_tree.py");
    let status = Command::new("python3").arg(program).arg(&tree).args(["--huge", "1"]).status();
    assert!(status.expect("python3 starts").success());
    rsync(&["-aHAXS", "--numeric-ids"], &tree, folder);
    std::fs::remove_dir_all(tree).expect("removed");
}

/// Asserts that two folders are the same in everything that rsync knows.
#[track_caller]
pub fn assert_same(expected: &Path, found: &Path) {
    let differences =
        rsync(&["-aHAXn", "--numeric-ids", "--delete", "--checksum", "--itemize-changes"], expected, found);
    assert_eq!(differences, "", "{} is not as it was", found.display());
}

#[track_caller]
fn rsync(options: &[&str], from: &Path, to: &Path) -> String {
    let output = Command::new("rsync")
        .args(options)
        .arg(format!("{}/", from.display()))
        .arg(format!("{}/", to.display()))
        .output()
        .expect("rsync starts");
    assert!(output.status.success(), "rsync: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
