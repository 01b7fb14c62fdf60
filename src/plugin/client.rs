//! Asks a running plugin, as the engine would.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// The most that is read of an answer: room for many thousand volumes.
const MAX_ANSWER: u64 = 64 << 20;

/// Sends an empty request to an endpoint such as [`wire::ACTIVATE`](super::wire::ACTIVATE), and returns what it answers. Blocks,
/// for no longer than `limit` on each read or write.
///
/// # Errors
/// If nobody listens, or the answer is not JSON with status 200. The reason that a plugin gives is the error's text.
pub fn ask(socket: &Path, endpoint: &str, limit: Duration) -> io::Result<Value> {
    send(socket, endpoint, b"", limit)
}

/// As [`ask`], with something to say.
///
/// # Errors
/// As [`ask`].
pub fn tell(socket: &Path, endpoint: &str, body: &Value, limit: Duration) -> io::Result<Value> {
    send(socket, endpoint, body.to_string().as_bytes(), limit)
}

fn send(socket: &Path, endpoint: &str, body: &[u8], limit: Duration) -> io::Result<Value> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    // HTTP/1.0: the answer ends with the connection.
    write!(stream, "POST {endpoint} HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "no answer in time"),
        _ => e,
    })?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.lines().next().unwrap_or_default();
    let value: serde_json::Result<Value> = serde_json::from_str(body);
    if status.split(' ').nth(1) == Some("200") {
        return value.map_err(|e| io::Error::other(format!("its answer is not JSON: {e}")));
    }
    let reason = value.ok().and_then(|value| value["Err"].as_str().map(str::to_owned));
    Err(io::Error::other(reason.unwrap_or_else(|| format!("it answers {status:?}, which is not how a plugin answers"))))
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
