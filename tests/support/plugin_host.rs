//! A host whose engine has voltool's volume driver: a private engine, and `voltool daemon --plugin` beside it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use voltool::plugin::client;

use super::cli::Ran;
use super::host::Host;
use super::raw_api;

/// How long anything may take that is waited for.
const LIMIT: Duration = Duration::from_secs(60);

/// A host with a repository, an engine, and a daemon.
pub struct PluginHost {
    /// The host.
    pub host: Host,
    daemon: Option<Child>,
}

impl PluginHost {
    /// The daemon runs before the engine is asked for anything.
    pub fn new() -> PluginHost {
        PluginHost::with(Host::new())
    }

    /// On that host.
    pub fn with(host: Host) -> PluginHost {
        PluginHost::with_settings(host, "")
    }

    /// With more lines in the table `[plugin]` of the configuration.
    pub fn with_settings(host: Host, lines: &str) -> PluginHost {
        let socket = host.engine.plugins().join("voltool.sock");
        let config = host.sandbox.path("config.toml");
        let mut text = std::fs::read_to_string(&config).unwrap_or_default();
        text.push_str(&format!("\n[plugin]\nsocket = {:?}\n{lines}", socket.to_str().expect("UTF-8")));
        std::fs::write(&config, text).expect("written");
        let mut plugin = PluginHost { host, daemon: None };
        plugin.start_daemon();
        plugin
    }

    /// Adds lines to the configuration's table `[plugin]`, which is its last; the daemon reads them when it is started again.
    pub fn configure(&self, lines: &str) {
        let config = self.host.sandbox.path("config.toml");
        let text = std::fs::read_to_string(&config).expect("there") + lines;
        std::fs::write(config, text).expect("written");
    }

    /// Where the daemon listens.
    pub fn socket(&self) -> PathBuf {
        self.host.engine.plugins().join("voltool.sock")
    }

    /// Starts the daemon and waits until it answers.
    pub fn start_daemon(&mut self) {
        self.spawn_daemon(None);
        let begin = Instant::now();
        while client::is_authz(&self.socket(), Duration::from_secs(5)).is_err() {
            assert!(begin.elapsed() < LIMIT, "the daemon does not answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts the daemon, which dies at that step.
    pub fn start_doomed_daemon(&mut self, step: &str) {
        self.spawn_daemon(Some(step));
        let begin = Instant::now();
        while client::is_authz(&self.socket(), Duration::from_secs(5)).is_err() {
            if !self.is_alive() {
                return;
            }
            assert!(begin.elapsed() < LIMIT, "the daemon does not answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn spawn_daemon(&mut self, dies_at: Option<&str>) {
        let log = File::options().create(true).append(true).open(self.host.sandbox.path("daemon.log")).expect("made");
        let mut command = self.host.sandbox.command(["daemon", "--plugin"]);
        if let Some(step) = dies_at {
            command.env("VOLTOOL_TEST_DIE_AT", step);
        }
        self.daemon = Some(command.stderr(log).stdin(Stdio::null()).spawn().expect("voltool starts"));
    }

    /// What the daemon said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.host.sandbox.path("daemon.log")).unwrap_or_default()
    }

    /// Whether the daemon has not ended.
    pub fn is_alive(&mut self) -> bool {
        self.daemon.as_mut().is_some_and(|daemon| daemon.try_wait().expect("asked").is_none())
    }

    /// Kills the daemon as a crash would.
    pub fn kill_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().expect("killed");
            daemon.wait().expect("gone");
        }
    }

    /// Waits until the daemon has died.
    pub fn wait_for_death(&mut self) {
        let begin = Instant::now();
        while self.is_alive() {
            assert!(begin.elapsed() < LIMIT, "the daemon lives: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.daemon = None;
    }

    /// Runs a docker command that has to succeed, and returns what it prints.
    #[track_caller]
    pub fn docker(&self, args: &[&str]) -> String {
        self.host.docker(args)
    }

    /// Runs a docker command that has to fail, and returns what it says.
    #[track_caller]
    pub fn fails(&self, args: &[&str]) -> String {
        let output = self.host.engine.try_docker(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "docker {}: {said}", args.join(" "));
        said
    }

    /// Makes a volume of the driver.
    #[track_caller]
    pub fn create(&self, name: &str, options: &[&str]) {
        let mut args = vec!["volume", "create", "-d", "voltool"];
        for option in options {
            args.extend(["-o", option]);
        }
        args.push(name);
        self.docker(&args);
    }

    /// Where the driver keeps a volume.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.host.sandbox.path("state/volumes").join(name)
    }

    /// Where a volume's content is.
    pub fn data(&self, name: &str) -> PathBuf {
        self.folder(name).join("_data")
    }

    /// Reads a file of a volume.
    #[track_caller]
    pub fn read(&self, name: &str, file: &str) -> String {
        let path = self.data(name).join(file);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}; {}", path.display(), self.log()))
    }

    /// Writes a file of a volume, as a container would.
    #[track_caller]
    pub fn write(&self, name: &str, file: &str, content: &str) {
        std::fs::write(self.data(name).join(file), content).expect("written");
    }

    /// The names in the trash.
    pub fn trash(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.host.sandbox.path("state/trash")).into_iter().flatten();
        entries.map(|entry| entry.expect("read").file_name().into_string().expect("UTF-8")).collect()
    }

    /// The `Status` that the engine shows of a volume.
    #[track_caller]
    pub fn status(&self, name: &str) -> Value {
        let text = self.docker(&["volume", "inspect", "--format", "{{json .Status}}", name]);
        serde_json::from_str(&text).expect("JSON")
    }

    /// Asks the daemon as an engine does.
    pub fn ask(&self, method: &str, body: &Value) -> raw_api::Answer {
        raw_api::call(&self.socket(), "POST", &format!("/{method}"), Some(body))
    }

    /// Runs voltool.
    pub fn voltool(&self, args: &[&str]) -> Ran {
        self.host.voltool(args)
    }

    /// Waits until something is so.
    #[track_caller]
    pub fn wait(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !is_so() {
            assert!(begin.elapsed() < LIMIT, "in vain: {what}; the daemon says:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The names of the folders below the driver's.
    pub fn folders(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.host.sandbox.path("state/volumes")).into_iter().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("read").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }

    /// A file below the host's sandbox.
    pub fn path(&self, name: &str) -> PathBuf {
        self.host.sandbox.path(name)
    }
}

impl Drop for PluginHost {
    fn drop(&mut self) {
        // Before the engine, which would wait for it: it stops its containers, and says so.
        self.host.engine.stop();
        self.kill_daemon();
    }
}

/// Whether a folder has anything in it.
pub fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}
