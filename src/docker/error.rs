//! What can go wrong between voltool and an engine.

use std::error::Error as _;

/// What kind of failure it was, so that callers can decide without reading the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EngineErrorKind {
    /// The settings that name the engine (`DOCKER_HOST`, contexts, TLS files …) are wrong or contradict each other.
    Settings,
    /// The settings are understood, but voltool does not offer this kind of access.
    Unsupported,
    /// Nothing answers there: no socket, or nobody listens.
    Absent,
    /// The operating system or the engine refused access.
    Denied,
    /// No answer in time.
    Timeout,
    /// The engine has no object of that name.
    NotFound,
    /// The engine refuses because of the object's state (it is in use, or exists with another driver).
    Conflict,
    /// The engine reported another error.
    Engine,
    /// The answer was not what the API promises, or the connection broke.
    Protocol,
}

/// A failed call on an engine: what was tried, on which engine, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the Docker engine{}: {reason}", self.at())]
pub struct EngineError {
    /// What kind of failure it was.
    pub kind: EngineErrorKind,
    /// What was tried, so that "cannot … the Docker engine" reads well: "reach", "inspect volume db on".
    pub action: String,
    /// The engine as a person would write it, with where the address came from. Empty while it is not known.
    pub endpoint: String,
    /// Why, in the engine's or the operating system's own words.
    pub reason: String,
    /// What to do next, if there is something to say.
    pub hint: Option<String>,
}

impl EngineError {
    /// Makes an error about the settings that name the engine.
    pub(super) fn settings(kind: EngineErrorKind, reason: impl Into<String>, hint: impl Into<String>) -> Self {
        EngineError {
            kind,
            action: "find".to_owned(),
            endpoint: String::new(),
            reason: reason.into(),
            hint: Some(hint.into()),
        }
    }

    /// What to do next, if there is something to say.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    fn at(&self) -> String {
        if self.endpoint.is_empty() { String::new() } else { format!(" at {}", self.endpoint) }
    }
}

/// Sorts an error of the client library into a kind and a reason without its wrapping.
pub(super) fn classify(error: &bollard::errors::Error) -> (EngineErrorKind, String) {
    use bollard::errors::Error;
    match error {
        Error::DockerResponseServerError { status_code, message } => {
            let kind = match status_code {
                401 | 403 => EngineErrorKind::Denied,
                404 => EngineErrorKind::NotFound,
                409 => EngineErrorKind::Conflict,
                _ => EngineErrorKind::Engine,
            };
            let message = message.trim();
            let reason =
                if message.is_empty() { format!("it answered with status {status_code}") } else { message.to_owned() };
            (kind, reason)
        }
        Error::RequestTimeoutError => (EngineErrorKind::Timeout, "no answer in time".to_owned()),
        Error::SocketNotFoundError(path) => match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                (EngineErrorKind::Denied, "permission denied".to_owned())
            }
            _ => (EngineErrorKind::Absent, "there is no such socket".to_owned()),
        },
        other => {
            // The cause that matters is the innermost one: the layers above only say that a request failed.
            let mut innermost = other.to_string();
            let mut kind = EngineErrorKind::Protocol;
            let mut next = other.source();
            // Transparent variants hide the first layer from `source`, so look at it directly.
            if let Error::IOError { err } = other {
                kind = io_kind(err);
            }
            while let Some(cause) = next {
                innermost = cause.to_string();
                if let Some(io) = cause.downcast_ref::<std::io::Error>() {
                    kind = io_kind(io);
                    if kind == EngineErrorKind::Absent && io.kind() == std::io::ErrorKind::ConnectionRefused {
                        innermost = "nobody listens there".to_owned();
                    }
                }
                next = cause.source();
            }
            (kind, innermost)
        }
    }
}

fn io_kind(error: &std::io::Error) -> EngineErrorKind {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::PermissionDenied => EngineErrorKind::Denied,
        ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::AddrNotAvailable => EngineErrorKind::Absent,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => EngineErrorKind::Absent,
        ErrorKind::TimedOut => EngineErrorKind::Timeout,
        // A name that cannot be resolved has no kind of its own.
        _ if error.to_string().contains("failed to lookup address") => EngineErrorKind::Absent,
        _ => EngineErrorKind::Protocol,
    }
}

/// What to do about a failure to reach an engine at all.
pub(super) fn hint_for(kind: EngineErrorKind) -> Option<String> {
    let text = match kind {
        EngineErrorKind::Absent => {
            "start Docker, or name the engine with --host, DOCKER_HOST or `docker context use`; `docker version` \
             shows whether Docker's own command reaches it"
        }
        EngineErrorKind::Denied => {
            "run as root, or as a member of the group that owns the socket (usually `docker`); the volumes' content is \
             readable for root only in any case"
        }
        EngineErrorKind::Timeout => {
            "an engine that has just started waits for its volume plugins; try again, or look at its log \
             (`journalctl -u docker`)"
        }
        _ => return None,
    };
    Some(text.to_owned())
}
