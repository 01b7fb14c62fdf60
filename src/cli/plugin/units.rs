//! The systemd units of the daemon, and what systemd is told.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cli::CliError;
use crate::plugin::DEFAULT_SOCKET;

/// Where units of this machine's administrator are.
pub const DIR: &str = "/etc/systemd/system";
/// The folders in which systemd looks for units.
const SEARCHED: [&str; 5] =
    [DIR, "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
/// Is in every version of these files: what has it was written by voltool.
const OURS: &str = "# Part of voltool: `voltool plugin install` writes this file";
/// The program in the files as they are in the source tree.
const PROGRAM: &str = "/usr/local/bin/voltool";

/// One unit.
#[derive(Debug)]
pub struct Unit {
    /// Where it is, or will be.
    pub path: PathBuf,
    /// What is to be in it.
    pub text: String,
}

/// What is at a unit's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// What is to be there.
    Same,
    /// A unit of voltool's that is different: of another version, or for a program elsewhere.
    Other,
    /// Something that voltool did not write.
    Foreign,
}

/// Both units in a folder, the socket first.
pub fn units(dir: &Path, program: &Path, socket: &Path) -> [Unit; 2] {
    let listen = include_str!("../../../examples/systemd/voltool.socket");
    let listen = listen.replace(DEFAULT_SOCKET, &socket.to_string_lossy().replace('%', "%%"));
    let serve = include_str!("../../../examples/systemd/voltool.service").replace(PROGRAM, &quoted(program));
    [Unit { path: dir.join("voltool.socket"), text: listen }, Unit { path: dir.join("voltool.service"), text: serve }]
}

/// A path as a word of a command in a unit.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy().replace('%', "%%");
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%".contains(c);
    match text.chars().all(plain) {
        true => text,
        false => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

impl Unit {
    /// Looks at its place.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn look(&self) -> Result<Found, CliError> {
        match std::fs::read_to_string(&self.path) {
            Ok(text) if text == self.text => Ok(Found::Same),
            Ok(text) if text.contains(OURS) => Ok(Found::Other),
            Ok(_) => Ok(Found::Foreign),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Found::Nothing),
            Err(e) => Err(CliError::failed(format!("cannot read {}: {e}", self.path.display()))),
        }
    }

    /// Its name, as systemd knows it.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// Whether systemd runs here and looks for units in that folder.
pub fn is_systemds(dir: &Path) -> bool {
    Path::new("/run/systemd/system").is_dir() && SEARCHED.iter().any(|searched| Path::new(searched) == dir)
}

/// Tells systemd something.
///
/// # Errors
/// If it does not do it; with what it said.
pub fn systemctl(arguments: &[&str]) -> Result<(), CliError> {
    let words = format!("systemctl {}", arguments.join(" "));
    let output = Command::new("systemctl").args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|e| CliError::failed(format!("cannot run {words}: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(CliError::failed(format!("{words} failed: {}", said.trim())).hint("journalctl -u voltool says more"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_and_the_socket_are_put_in() {
        let [socket, service] = units(Path::new("/d"), Path::new("/opt/my tools/vol%tool"), Path::new("/s/x.sock"));
        assert!(socket.text.contains("\nListenStream=/s/x.sock\n") && socket.text.contains(OURS), "{}", socket.text);
        let start = "\nExecStart=\"/opt/my tools/vol%%tool\" daemon --plugin --socket -\n";
        assert!(service.text.contains(start) && service.text.contains(OURS), "{}", service.text);
        let [socket, service] = units(Path::new("/d"), Path::new(PROGRAM), Path::new(DEFAULT_SOCKET));
        assert_eq!(socket.text, include_str!("../../../examples/systemd/voltool.socket"));
        assert_eq!(service.text, include_str!("../../../examples/systemd/voltool.service"));
        assert_eq!(socket.name(), "voltool.socket");
    }
}
