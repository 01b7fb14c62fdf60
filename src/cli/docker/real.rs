//! The real docker command: finds it, becomes it, or runs it.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::CliError;
use crate::guard::argv::Program;

/// Counts how often voltool has handed over to a command that was voltool again, through a script or a copy.
const DEPTH: &str = "VOLTOOL_DOCKER_DEPTH";

/// Commands call docker, and plugins do; nobody nests that deeply.
const MAX_DEPTH: u32 = 10;

/// The real command.
#[derive(Debug, Clone)]
pub(super) struct Real {
    path: PathBuf,
    depth: u32,
}

/// Finds the real command: what `VOLTOOL_DOCKER` names, or the first of that name in `PATH` that is not voltool.
pub(super) fn find(program: Program) -> Result<Real, CliError> {
    let depth = std::env::var(DEPTH).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let name = program.name();
    if depth >= MAX_DEPTH {
        return Err(CliError::failed(format!("the {name} command that voltool finds leads back to voltool"))
            .hint("set VOLTOOL_DOCKER to the real docker command"));
    }
    let named = std::env::var_os("VOLTOOL_DOCKER").filter(|path| program == Program::Docker && !path.is_empty());
    if let Some(path) = named.map(PathBuf::from) {
        if same_program(&path) {
            return Err(CliError::failed(format!("VOLTOOL_DOCKER is {}, which is voltool", path.display()))
                .hint("set it to the real docker command, or unset it"));
        }
        return Ok(Real { path, depth });
    }
    match in_path(name).into_iter().find(|path| !same_program(path)) {
        Some(path) => Ok(Real { path, depth }),
        None => {
            let error = CliError::failed(format!("there is no {name} command in PATH other than voltool itself"));
            Err(match program {
                Program::Docker => error.hint("install Docker's command, or name it with VOLTOOL_DOCKER"),
                Program::Compose => error.hint("install docker-compose, or use 'docker compose'"),
            })
        }
    }
}

/// Every command of that name in `PATH`, in order.
pub(in crate::cli) fn in_path(name: &str) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let runnable =
        |file: &PathBuf| std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0);
    std::env::split_paths(&path).map(|folder| folder.join(name)).filter(runnable).collect()
}

/// Whether a file is the program that runs now, by whatever name and through whatever links.
pub(in crate::cli) fn same_program(file: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    identity(file).is_some_and(|found| Some(found) == identity(Path::new("/proc/self/exe")))
}

impl Real {
    /// The command, with these arguments.
    pub fn command(&self, line: &[OsString]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(line).env(DEPTH, (self.depth + 1).to_string());
        command
    }

    /// Makes this process that command. Returns only if that fails.
    pub fn become_it(&self, line: &[OsString]) -> CliError {
        let error = self.command(line).exec();
        CliError::failed(format!("cannot run {}: {error}", self.path.display()))
    }

    /// Runs it to its end, with our standard streams, and returns its exit code. One that a signal ended has the code that shells
    /// give it.
    pub async fn run(&self, line: &[OsString]) -> Result<u8, CliError> {
        let failed = |error: io::Error| CliError::failed(format!("cannot run {}: {error}", self.path.display()));
        let mut signals = Signals::listen().map_err(failed)?;
        let mut child = tokio::process::Command::from(self.command(line)).spawn().map_err(failed)?;
        let pid = child.id().and_then(|id| Pid::from_raw(id as i32));
        loop {
            tokio::select! {
                status = child.wait() => return status.map(exit_code).map_err(failed),
                signal = signals.next() => if let Some(pid) = pid.filter(|_| !reached_both(signal)) {
                    // It may just have ended: then there is nobody to tell.
                    let _ = kill_process(pid, signal);
                },
            }
        }
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// The signals that somebody may send to this process and mean the command.
struct Signals {
    int: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
    term: tokio::signal::unix::Signal,
    /// Not where it is ignored: whoever uses `nohup` means the command too, and listening would undo that.
    hup: Option<tokio::signal::unix::Signal>,
}

impl Signals {
    fn listen() -> io::Result<Signals> {
        Ok(Signals {
            int: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            term: signal(SignalKind::terminate())?,
            hup: if hangup_is_ignored() { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    async fn next(&mut self) -> Signal {
        let hangup = async {
            match &mut self.hup {
                Some(hup) => drop(hup.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.int.recv() => Signal::INT,
            _ = self.quit.recv() => Signal::QUIT,
            _ = self.term.recv() => Signal::TERM,
            () = hangup => Signal::HUP,
        }
    }
}

/// Whether a signal came from the keyboard: then the terminal has sent it to the command as well, which is in the same group of
/// processes. A command may count them, as docker does.
fn reached_both(signal: Signal) -> bool {
    (signal == Signal::INT || signal == Signal::QUIT) && in_foreground(&read("/proc/self/stat"))
}

/// Whether the group of a process is the one that its terminal sends signals to. `stat` is what proc(5) says of it.
fn in_foreground(stat: &str) -> bool {
    // The name, in parentheses, may have anything inside. Behind it: state, parent, group, session, terminal, its group.
    let Some((_, fields)) = stat.rsplit_once(')') else { return false };
    let fields: Vec<&str> = fields.split_whitespace().collect();
    matches!((fields.get(2), fields.get(5)), (Some(own), Some(of_terminal)) if own == of_terminal)
}

fn hangup_is_ignored() -> bool {
    ignores(&read("/proc/self/status"), Signal::HUP.as_raw())
}

/// Whether a process ignores a signal. `status` is what proc(5) says of it.
fn ignores(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal - 1)) != 0
}

fn read(file: &str) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says_of_terminals_and_signals() {
        assert!(in_foreground("12 (a) b) S 1 12 12 34816 12 4194304 0"));
        assert!(!in_foreground("12 (sh) S 1 12 12 34816 99 4194304 0"));
        assert!(!in_foreground("12 (sh) S 1 12 12 0 -1 4194304 0"));
        assert!(!in_foreground(""));
        assert!(ignores("Name:\tx\nSigIgn:\t0000000000000001\n", 1));
        assert!(!ignores("SigIgn:\t0000000000001000\n", 1));
        assert!(!ignores("", 1));
    }

    #[test]
    fn a_link_to_this_program_is_this_program() {
        let folder = tempfile::tempdir().expect("a folder");
        let link = folder.path().join("docker");
        std::os::unix::fs::symlink(std::env::current_exe().expect("a program"), &link).expect("linked");
        assert!(same_program(&link));
        assert!(!same_program(Path::new("/bin/sh")));
        assert!(!same_program(Path::new("/nonexistent")));
    }

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        assert_eq!(exit_code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(exit_code(ExitStatus::from_raw(15)), 143);
    }
}
