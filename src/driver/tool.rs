//! Programs that do what voltool cannot do itself: mount helpers and the tools of file systems.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;

/// Where such programs are, besides `PATH`: services often have none of the `sbin`s in theirs.
const SBIN: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin"];

/// The longest output that is kept, in bytes.
const MAX_OUTPUT: u64 = 4 << 20;

/// How long a program may take to end when it was killed.
const AFTER_KILL: Duration = Duration::from_secs(2);

/// A program that could not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// The program is not there.
    #[error("{tool} is not installed")]
    Missing {
        /// The program.
        tool: &'static str,
        /// The package of Debian and Ubuntu that has it.
        package: &'static str,
    },
    /// It could not be started, or waited for.
    #[error("cannot run {tool}")]
    Spawn {
        /// The program.
        tool: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It failed.
    #[error("`{command}` failed ({status}): {said}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to standard error, or to standard output if that is empty.
        said: String,
    },
    /// It did not come to an end, and was killed.
    #[error("`{command}` did not end within {} s and was killed{}", limit.as_secs(), after_colon(said))]
    Timeout {
        /// The command line.
        command: String,
        /// How long it had.
        limit: Duration,
        /// What it had written to standard error until then.
        said: String,
    },
}

impl ToolError {
    /// What to do next, if there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            ToolError::Missing { tool, package } => {
                Some(format!("install it; on Debian and Ubuntu, {tool} is in the package {package}"))
            }
            ToolError::Timeout { .. } => Some("see whether the server can be reached from this host".to_owned()),
            _ => None,
        }
    }
}

fn after_colon(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

/// Where a program is, if it is installed.
pub fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).filter(|place| place.is_absolute());
    let mut files = places.chain(SBIN.iter().map(PathBuf::from)).map(|place| place.join(tool));
    files.find(|file| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file())
}

/// Finds a program, or says which package has it.
pub fn require(tool: &'static str, package: &'static str) -> Result<PathBuf, ToolError> {
    find(tool).ok_or(ToolError::Missing { tool, package })
}

/// Runs a program without a shell and waits until it ends. Returns what it wrote to standard output. What it leaves running in
/// the background is not waited for. Messages are in English.
///
/// # Errors
/// It is not installed, cannot be started, does not end within `limit`, or ends with another status than 0.
pub fn run(tool: &'static str, package: &'static str, args: &[OsString], limit: Duration) -> Result<String, ToolError> {
    let path = require(tool, package)?;
    let spawn = |source| ToolError::Spawn { tool, source };
    // Not pipes: those stay open in what mount helpers leave running, and would never come to an end.
    let (mut out, mut err) = (memory(tool).map_err(spawn)?, memory(tool).map_err(spawn)?);
    let mut child = Command::new(path)
        .args(args)
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::from(out.try_clone().map_err(spawn)?))
        .stderr(Stdio::from(err.try_clone().map_err(spawn)?))
        // A Ctrl-C at voltool's terminal is not meant for what it mounts.
        .process_group(0)
        .spawn()
        .map_err(spawn)?;
    let ended = wait(&mut child, limit).map_err(spawn)?;
    let said = content(&mut err).map_err(spawn)?;
    let command = || {
        let words = args.iter().map(|arg| arg.to_string_lossy());
        std::iter::once(tool.into()).chain(words).collect::<Vec<std::borrow::Cow<'_, str>>>().join(" ")
    };
    let Some(status) = ended else {
        kill(child);
        return Err(ToolError::Timeout { command: command(), limit, said });
    };
    let printed = content(&mut out).map_err(spawn)?;
    if status.success() {
        return Ok(printed);
    }
    let said =
        [said, printed].into_iter().find(|text| !text.is_empty()).unwrap_or_else(|| "it said nothing".to_owned());
    Err(ToolError::Failed { command: command(), status, said })
}

fn memory(name: &str) -> io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?))
}

fn content(file: &mut File) -> io::Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(MAX_OUTPUT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Ends a program with all that it has started in its group. One that waits for a server in the kernel may not end before that
/// answers: it is left to itself.
fn kill(mut child: Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    if !matches!(wait(&mut child, AFTER_KILL), Ok(Some(_))) {
        // Somebody has to collect it when it does end.
        std::thread::spawn(move || child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn sh(script: &str, seconds: u64) -> Result<String, ToolError> {
        run("sh", "dash", &args(&["-c", script]), Duration::from_secs(seconds))
    }

    #[test]
    fn what_a_program_prints_comes_back() {
        assert_eq!(run("echo", "coreutils", &args(&["a  b", "$HOME"]), Duration::from_secs(60)).unwrap(), "a  b $HOME");
        // What stays in the background holds nothing up.
        let pid: u32 = sh("sleep 300 & echo $!", 60).unwrap().parse().unwrap();
        assert!(Command::new("kill").arg(pid.to_string()).status().unwrap().success(), "it is still there");
    }

    #[test]
    fn a_failure_says_which_command_and_what_it_said() {
        let error = sh("echo out; echo bad >&2; exit 3", 60).unwrap_err().to_string();
        assert_eq!(error, "`sh -c echo out; echo bad >&2; exit 3` failed (exit status: 3): bad");
        assert!(sh("echo out; exit 3", 60).unwrap_err().to_string().ends_with(": out"));
        let error = sh("echo so far >&2; sleep 300", 1).unwrap_err();
        assert!(matches!(&error, ToolError::Timeout { said, .. } if said == "so far"), "{error}");
        let missing = run("voltool-no-such-tool", "no-package", &[], Duration::from_secs(1)).unwrap_err();
        assert_eq!(missing.to_string(), "voltool-no-such-tool is not installed");
        assert!(missing.hint().unwrap().contains("no-package"));
    }
}
