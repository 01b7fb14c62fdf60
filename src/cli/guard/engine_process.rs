//! The engine's process: how it was started, and the signal that makes it read its configuration again.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::cli::{CliError, Context, open};
use crate::plugin::{client, wire};

/// How long an engine gets to read its configuration; one that waits for a plugin takes 15 s for that alone.
const RELOAD_LIMIT: Duration = Duration::from_secs(30);
/// How long the daemon gets to answer.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A running engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineProcess {
    pid: i32,
    arguments: Vec<String>,
}

impl EngineProcess {
    /// Finds the engine by its pid file; `None` if none runs.
    ///
    /// # Errors
    /// If the file cannot be read, or names a process that is no engine: that one must not get a signal.
    pub fn find(pidfile: &Path) -> Result<Option<EngineProcess>, CliError> {
        let failed = |why: String| {
            CliError::failed(format!("cannot find the engine's process by {}: {why}", pidfile.display()))
                .hint("--pidfile names another file; with --no-reload nothing is signalled")
        };
        let text = match std::fs::read_to_string(pidfile) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e.to_string())),
        };
        let pid: i32 = text.trim().parse().map_err(|_| failed("it holds no process id".to_owned()))?;
        let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return Ok(None) };
        let arguments: Vec<String> = line
            .split(|b| *b == 0)
            .filter(|a| !a.is_empty())
            .map(|a| String::from_utf8_lossy(a).into_owned())
            .collect();
        let program = arguments.first().and_then(|program| program.rsplit('/').next()).unwrap_or_default();
        if !program.contains("dockerd") {
            return Err(failed(format!("process {pid} is {program:?}, which is no engine")));
        }
        Ok(Some(EngineProcess { pid, arguments }))
    }

    /// Whether its command line says which plugins to ask. With an entry in the configuration file too it would not start.
    pub fn has_plugin_flag(&self) -> bool {
        self.flag("--authorization-plugin").is_some()
    }

    /// The configuration file that its command line names.
    pub fn config_file(&self) -> Option<PathBuf> {
        self.flag("--config-file").map(PathBuf::from)
    }

    fn flag(&self, name: &str) -> Option<&str> {
        let mut arguments = self.arguments.iter().skip(1);
        while let Some(argument) = arguments.next() {
            if argument == name {
                return Some(arguments.next().map_or("", String::as_str));
            }
            if let Some(value) = argument.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
                return Some(value);
            }
        }
        None
    }

    /// Makes it read its configuration again, and waits until it asks voltool, or no longer does.
    ///
    /// # Errors
    /// If it cannot be signalled, ends, or does not do as it should in time.
    pub async fn reload(&self, ctx: &Context, socket: &Path, ask_us: bool) -> Result<(), CliError> {
        let failed = |why: String| CliError::failed(format!("the engine did not read its configuration again: {why}"));
        let pid = Pid::from_raw(self.pid).ok_or_else(|| failed("its process id makes no sense".to_owned()))?;
        kill_process(pid, Signal::HUP).map_err(|e| failed(format!("process {}: {e}", self.pid)))?;
        let begin = Instant::now();
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if test_kill_process(pid).is_err() {
                return Err(failed("it ended".to_owned()).hint("its log says why: journalctl -u docker"));
            }
            let state = asks_us(ctx, socket).await;
            if state == Some(ask_us) {
                return Ok(());
            }
            if begin.elapsed() > RELOAD_LIMIT {
                let why = match (state, ask_us) {
                    (None, _) => "it does not answer",
                    (_, true) => "it still does not ask voltool",
                    (_, false) => "it still asks voltool",
                };
                return Err(failed(why.to_owned()).hint("its log says why: journalctl -u docker"));
            }
        }
    }
}

/// Whether the engine asks voltool before it does anything, found out by trying; `None` if it does not answer.
pub async fn asks_us(ctx: &Context, socket: &Path) -> Option<bool> {
    let before = requests(socket).await;
    open::engine(ctx).await.ok()?;
    let after = requests(socket).await;
    // If the daemon does not answer and the engine does, then the engine does not ask it.
    Some(matches!((before, after), (Some(before), Some(after)) if after > before))
}

/// How many requests the daemon was asked about; `None` if it does not answer.
async fn requests(socket: &Path) -> Option<u64> {
    status(socket).await.ok()?["requests"].as_u64()
}

/// What the daemon says of itself.
///
/// # Errors
/// If it does not answer.
pub async fn status(socket: &Path) -> std::io::Result<serde_json::Value> {
    let socket = socket.to_owned();
    let asked = tokio::task::spawn_blocking(move || client::ask(&socket, wire::STATUS, ANSWER_LIMIT));
    asked.await.map_err(std::io::Error::other)?
}
