//! A host whose engine asks `voltool daemon --plugin`.
#![allow(dead_code)] // `loss_stories` uses a part of it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use voltool::plugin::client;

use crate::support::cli::Ran;
use crate::support::host::Host;
use crate::support::raw_api::{self, Answer};

/// A host with a repository, an engine, and a daemon.
pub struct Guarded {
    /// The host.
    pub host: Host,
    daemon: Option<Child>,
}

impl Guarded {
    /// The engine asks the daemon from the start.
    pub fn new() -> Guarded {
        let mut guarded = Guarded::not_yet();
        guarded.start_daemon();
        guarded.guard("enable").ok();
        guarded
    }

    /// A host on which neither is there yet.
    pub fn not_yet() -> Guarded {
        Guarded { host: Host::new(), daemon: None }
    }

    /// Where the daemon listens.
    pub fn plugin_socket(&self) -> PathBuf {
        self.host.engine.plugins().join("voltool.sock")
    }

    /// The engine's configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.host.engine.data_root().with_file_name("daemon.json")
    }

    /// Starts the daemon and waits until it answers.
    pub fn start_daemon(&mut self) {
        let log = File::options().create(true).append(true).open(self.host.sandbox.path("daemon.log")).expect("made");
        let socket = self.plugin_socket();
        let mut command = self.host.sandbox.command(["daemon", "--plugin", "--socket"]);
        self.daemon = Some(command.arg(&socket).stderr(log).stdin(Stdio::null()).spawn().expect("voltool starts"));
        let begin = Instant::now();
        while client::is_authz(&socket, Duration::from_secs(5)).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(30), "the daemon does not answer: {}", self.daemon_log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the daemon said.
    pub fn daemon_log(&self) -> String {
        std::fs::read_to_string(self.host.sandbox.path("daemon.log")).unwrap_or_default()
    }

    /// Kills the daemon as a crash would.
    pub fn kill_daemon(&mut self) {
        let mut daemon = self.daemon.take().expect("runs");
        daemon.kill().expect("killed");
        daemon.wait().expect("gone");
    }

    /// Asks the daemon to stop, and returns its exit code.
    pub fn stop_daemon(&mut self) -> Option<i32> {
        let mut daemon = self.daemon.take().expect("runs");
        let pid = rustix::process::Pid::from_child(&daemon);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("sent");
        daemon.wait().expect("gone").code()
    }

    /// `voltool guard VERB` for this engine.
    pub fn guard(&self, verb: &str) -> Ran {
        self.guard_with(verb, &[])
    }

    /// As [`Guarded::guard`], with more arguments.
    pub fn guard_with(&self, verb: &str, more: &[&str]) -> Ran {
        let mut command = self.host.sandbox.command(["guard", verb]);
        command.arg("--config-file").arg(self.config_file()).arg("--socket").arg(self.plugin_socket());
        command.arg("--pidfile").arg(self.pidfile()).args(more);
        Ran::of(command.output().expect("voltool runs"))
    }

    /// A file with the engine's process id as this machine knows it: the engine's own has that of its namespace.
    fn pidfile(&self) -> PathBuf {
        let network = self.host.engine.network();
        let supervisor = network.iter().nth(2).and_then(|pid| pid.to_str()).expect("/proc/PID/ns/net");
        let children =
            std::fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).expect("it runs");
        let is_engine = |pid: &&str| {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split('\0').next().is_some_and(|program| program.contains("dockerd"))
        };
        let pid = children.split_whitespace().find(is_engine).expect("dockerd runs");
        self.host.sandbox.file("docker.pid", pid).into()
    }

    /// Sends these bytes to the engine, and returns the status. An engine that refuses does not read to the end first.
    pub fn send(&self, request: &[u8]) -> u16 {
        let mut stream = UnixStream::connect(self.host.engine.socket()).expect("the engine listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// Sends a request without a body.
    pub fn call(&self, method: &str, target: &str) -> Answer {
        raw_api::call(&self.host.engine.socket(), method, target, None)
    }

    /// Runs a docker command that has to be refused, and returns what it said.
    #[track_caller]
    pub fn refused(&self, args: &[&str]) -> String {
        let output = self.host.engine.try_docker(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "docker {}: {said}", args.join(" "));
        assert!(said.contains("authorization denied by plugin voltool: "), "docker {}: {said}", args.join(" "));
        said
    }
}

impl Drop for Guarded {
    #[allow(clippy::print_stderr)] // Of a test that failed: what the daemon said is the half of it.
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.daemon_log());
        }
    }
}
