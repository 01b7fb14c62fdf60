//! Asks a running plugin, as the engine would.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// The most that is read of an answer.
const MAX_ANSWER: u64 = 1 << 20;

/// Sends an empty request to an endpoint such as [`wire::ACTIVATE`](super::wire::ACTIVATE), and returns what it answers. Blocks,
/// for no longer than `limit` on each read or write.
///
/// # Errors
/// If nobody listens, or the answer is not JSON with status 200.
pub fn ask(socket: &Path, endpoint: &str, limit: Duration) -> io::Result<Value> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    // HTTP/1.0: the answer ends with the connection.
    write!(stream, "POST {endpoint} HTTP/1.0\r\nContent-Length: 0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "no answer in time"),
        _ => e,
    })?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(io::Error::other(format!("it answers {status:?}, which is not how a plugin answers")));
    }
    serde_json::from_str(body).map_err(|e| io::Error::other(format!("its answer is not JSON: {e}")))
}

/// Whether what listens there is an authorization plugin, by its own word.
///
/// # Errors
/// As [`ask`]; or if it implements something else.
pub fn is_authz(socket: &Path, limit: Duration) -> io::Result<()> {
    let answer = ask(socket, super::wire::ACTIVATE, limit)?;
    let implements = answer["Implements"].as_array().is_some_and(|all| all.iter().any(|one| one == "authz"));
    if implements { Ok(()) } else { Err(io::Error::other("it is a plugin, but does not authorize")) }
}
