//! From an error of the library to what a person reads and a script tests: the message, the hints and the exit code.
//!
//! All of that is decided here and nowhere else: the library's errors say what failed, on which object and why, and know
//! nothing of exit codes. [`judge`] looks through the chain of an [`anyhow::Error`] for types that it knows.

use std::fmt;

use super::config::ConfigError;
use crate::docker::EngineError;
use crate::inventory::AccessError;
use crate::inventory::catalog::CatalogError;
use crate::repo::RepoError;
use crate::store::{ErrorKind, StoreError, url::UrlError};

/// Why a command ended without doing what it was asked for; the number is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// It failed.
    Failed = 1,
    /// The command line, the environment or the configuration makes no sense.
    Usage = 2,
    /// It was refused, because data that exists nowhere else would be lost.
    Refused = 4,
    /// There is no repository, or none is configured.
    NoRepository = 10,
    /// Another run holds this volume.
    Busy = 11,
    /// The identity or the passphrase does not open the repository.
    WrongKey = 12,
    /// A signal ended it.
    Interrupted = 130,
}

impl Kind {
    /// The exit code.
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// An error that the command line itself found, with its exit code and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CliError {
    /// Decides the exit code.
    pub kind: Kind,
    /// What failed, on which object, and why. No period at the end.
    pub message: String,
    /// What to do next, one `hint:` line each.
    pub hints: Vec<String>,
}

impl CliError {
    /// Makes an error without hints.
    pub fn new(kind: Kind, message: impl fmt::Display) -> Self {
        CliError { kind, message: message.to_string(), hints: Vec::new() }
    }

    /// Makes a usage error (exit code 2).
    pub fn usage(message: impl fmt::Display) -> Self {
        CliError::new(Kind::Usage, message)
    }

    /// Makes an ordinary failure (exit code 1).
    pub fn failed(message: impl fmt::Display) -> Self {
        CliError::new(Kind::Failed, message)
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hints.push(hint.to_string());
        self
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CliError {}

/// Nobody reads standard output any more.
///
/// A type of its own, because a broken pipe *to the reader of our output* is a quiet end (as in `voltool ls | head`), whereas the
/// same `io::Error` from a socket to the engine or the storage is a failure that must not be swallowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StdoutClosed;

impl fmt::Display for StdoutClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot write to standard output: nobody reads it any more (broken pipe)")
    }
}

impl std::error::Error for StdoutClosed {}

/// The exit code and hints for an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Decides the exit code.
    pub kind: Kind,
    /// One `hint:` line each.
    pub hints: Vec<String>,
}

/// Decides the exit code and the hints. An error of the command line speaks before one of the library: it knows what the person
/// wanted. Of several of the library, the outermost that says more than "failed" does.
pub fn judge(error: &anyhow::Error) -> Verdict {
    // `anyhow` finds an error that was given as context only through its own downcast, not through the chain.
    let mut verdicts: Vec<Verdict> = error.downcast_ref::<CliError>().map(from_cli).into_iter().collect();
    verdicts.extend(error.chain().filter_map(verdict));
    let kind = verdicts.iter().map(|v| v.kind).find(|k| *k != Kind::Failed).unwrap_or(Kind::Failed);
    // Only one layer gives hints, so that they do not contradict each other.
    let hints = verdicts.into_iter().map(|v| v.hints).find(|h| !h.is_empty()).unwrap_or_default();
    Verdict { kind, hints }
}

fn from_cli(e: &CliError) -> Verdict {
    Verdict { kind: e.kind, hints: e.hints.clone() }
}

/// What one error of the chain says, if it is of a type that is known here.
fn verdict(cause: &(dyn std::error::Error + 'static)) -> Option<Verdict> {
    let failed =
        |hint: Option<&str>| Verdict { kind: Kind::Failed, hints: hint.map(str::to_owned).into_iter().collect() };
    if let Some(e) = cause.downcast_ref::<CliError>() {
        Some(from_cli(e))
    } else if let Some(e) = cause.downcast_ref::<ConfigError>() {
        Some(Verdict { kind: Kind::Usage, hints: e.hint.clone().into_iter().collect() })
    } else if let Some(e) = cause.downcast_ref::<UrlError>() {
        Some(Verdict { kind: Kind::Usage, ..failed(Some(e.hint())) })
    } else if let Some(e) = cause.downcast_ref::<RepoError>() {
        Some(of_repository(e))
    } else if let Some(e) = cause.downcast_ref::<StoreError>() {
        Some(of_storage(e))
    } else if let Some(e) = cause.downcast_ref::<EngineError>() {
        Some(failed(e.hint()))
    } else if let Some(e) = cause.downcast_ref::<CatalogError>() {
        Some(failed(e.hint.as_deref()))
    } else {
        cause.downcast_ref::<AccessError>().map(|e| failed(Some(e.hint())))
    }
}

/// What to do about a failure of the repository engine.
fn of_repository(e: &RepoError) -> Verdict {
    let (kind, hint) = match e {
        // Its text is the storage's own, and so is its place in the chain: what is below it is the storage's cause.
        RepoError::Store(e) => return of_storage(e),
        RepoError::NoRepository { .. } => {
            (Kind::NoRepository, "make one with 'voltool init', or check --repo, VOLTOOL_REPO and the configuration")
        }
        RepoError::AlreadyExists { .. } => (
            Kind::Failed,
            "use it as it is: voltool never overwrites a repository; for another one, choose another place",
        ),
        RepoError::TooNew { .. } => (Kind::Failed, "update voltool"),
        RepoError::NoKey { .. } => (
            Kind::WrongKey,
            "name the identity with --identity or VOLTOOL_IDENTITY, or the passphrase with --passphrase-file, \
             VOLTOOL_PASSPHRASE_FILE or VOLTOOL_PASSPHRASE; 'voltool init' printed which one it is",
        ),
        RepoError::WrongKey { .. } => (
            Kind::WrongKey,
            "check --identity and --passphrase-file: the recovery kit that 'voltool init' printed says which one it is",
        ),
        RepoError::Damaged { .. } | RepoError::MissingChunk { .. } => (
            Kind::Failed,
            "other snapshots and volumes are not affected by it unless they share this data: try an older snapshot",
        ),
        RepoError::Local { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            (Kind::Failed, "make room on the file system that it is on, and run it again")
        }
        RepoError::Busy { .. } => (Kind::Busy, "wait until the other run has ended"),
        RepoError::NoSnapshot(_) => (Kind::Failed, "'voltool snapshots' lists what there is"),
        RepoError::Fenced(_) => (Kind::Failed, "run it again; what was uploaded is not uploaded again"),
        RepoError::LeaseLost { .. } => (
            Kind::Failed,
            "the volume is the other host's now; what this host had not committed is only in its own copy",
        ),
        RepoError::LeaseContended { .. } => (Kind::Busy, "run it again in a moment"),
        RepoError::LeaseRequired { .. } => (Kind::Failed, "the daemon of that host backs it up"),
        RepoError::Interrupted => return Verdict { kind: Kind::Interrupted, hints: Vec::new() },
        _ => return Verdict { kind: Kind::Failed, hints: Vec::new() },
    };
    Verdict { kind, hints: vec![hint.to_owned()] }
}

/// What to do about a failed call on the storage. Where not even the bucket or the directory is there, there is no repository.
fn of_storage(e: &StoreError) -> Verdict {
    let kind = if e.kind == ErrorKind::NoContainer { Kind::NoRepository } else { Kind::Failed };
    Verdict { kind, hints: store_hints(e) }
}

/// The hint for a failed call on the storage.
fn store_hints(e: &StoreError) -> Vec<String> {
    let remote = e.url.starts_with("s3:");
    let hint = match e.kind {
        ErrorKind::NoContainer if remote => {
            "create the bucket first, with the provider's tools: voltool never creates one, and check its name and region"
        }
        ErrorKind::NoContainer => {
            "create the repository with 'voltool init', or check that the file system that holds it is mounted"
        }
        ErrorKind::Denied if remote => {
            "check the credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE), and that they may list, read, \
             write and delete in this bucket"
        }
        ErrorKind::Denied => "check who owns the repository's directory, or run voltool as the user that made it",
        ErrorKind::Unreachable if remote => {
            "check the network and the endpoint (--s3-endpoint, s3.endpoint in the configuration, or AWS_ENDPOINT_URL)"
        }
        ErrorKind::Unreachable => "check that the file system that holds the repository is mounted and answers",
        ErrorKind::Full => "make room where the repository is; what is committed there is not affected",
        ErrorKind::Invalid if remote => {
            "check the URL, the endpoint, the region, and whether the server wants --s3-path-style"
        }
        ErrorKind::Invalid => "check the repository's URL",
        // `Integrity` and the rest mean something else for each object: whoever read it knows what to do next.
        _ => return Vec::new(),
    };
    vec![hint.to_owned()]
}

/// The message of an error: what failed, and why, in one line.
///
/// Many errors already name their cause in their own text, so a cause that the text before it ends with is not repeated.
pub fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let part = tidy(&cause.to_string());
        if part.is_empty() || text.ends_with(&part) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&part);
    }
    text
}

/// The lines that tell a person of an error: the message, then the hints.
pub fn render(error: &anyhow::Error) -> String {
    let mut text = format!("voltool: {}\n", message(error));
    for hint in judge(error).hints {
        text.push_str(&format!("hint: {}\n", tidy(&hint)));
    }
    text
}

/// Removes a final period and makes control characters visible: names of files and objects are in messages, and a name must
/// not be able to forge a line or move the cursor.
fn tidy(text: &str) -> String {
    let text = text.trim();
    // An ellipsis is not a period.
    let text = if text.ends_with("..") { text } else { text.trim_end_matches('.') };
    escape_controls(text)
}

/// Writes control characters as `\n`, `\t`, `\u{1b}`, so that a name stays on its line.
pub fn escape_controls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn message_then_hints_without_period() {
        let e = anyhow::Error::from(CliError::failed("No such file.").hint("Look elsewhere."));
        let e = e.context("cannot open /a\nb");
        assert_eq!(render(&e), "voltool: cannot open /a\\nb: No such file\nhint: Look elsewhere\n");
    }

    #[test]
    fn a_cause_that_was_already_told_is_not_repeated() {
        let inner = std::io::Error::other("disk on fire");
        let e = anyhow::Error::from(inner).context("cannot read x: disk on fire");
        assert_eq!(message(&e), "cannot read x: disk on fire");
    }

    #[test]
    fn the_outer_error_decides() {
        let store = StoreError::new(ErrorKind::NoContainer, "list", "", "s3://b/p", "NoSuchBucket");
        let plain = anyhow::Error::from(copy(&store)).context("cannot open the repository");
        assert_eq!(judge(&plain).kind, Kind::NoRepository);
        assert!(judge(&plain).hints[0].contains("create the bucket"));

        let ours: anyhow::Error = Err::<(), _>(store)
            .context(CliError::new(Kind::NoRepository, "no repository there").hint("run init"))
            .expect_err("it is an error");
        let verdict = judge(&ours);
        assert_eq!((verdict.kind.code(), verdict.hints), (10, vec!["run init".to_owned()]));
    }

    #[test]
    fn exit_codes_of_the_repository() {
        let url = || "/srv/repo".to_owned();
        let store = || StoreError::new(ErrorKind::Denied, "read", "voltool.json", "s3://b", "403");
        for (e, code) in [
            (RepoError::NoRepository { url: url() }, 10),
            (RepoError::WrongKey { url: url() }, 12),
            (RepoError::NoKey { url: url() }, 12),
            (RepoError::Busy { what: "volume db".to_owned() }, 11),
            (RepoError::damaged("packs/x/0.pack", "truncated"), 1),
            (RepoError::Store(store()), 1),
        ] {
            let e = anyhow::Error::from(e).context("cannot restore db");
            let verdict = judge(&e);
            assert_eq!((verdict.kind.code(), verdict.hints.len()), (code, 1), "{e:?}");
        }
        assert_eq!(judge(&RepoError::Interrupted.into()).kind.code(), 130);
        let e = anyhow::Error::from(RepoError::Store(store())).context("cannot restore db");
        assert_eq!(message(&e), "cannot restore db: cannot read voltool.json in s3://b: 403");
    }

    #[test]
    fn each_storage_failure_that_a_person_can_mend_has_a_hint() {
        for kind in
            [ErrorKind::NoContainer, ErrorKind::Denied, ErrorKind::Unreachable, ErrorKind::Full, ErrorKind::Invalid]
        {
            for url in ["s3://b", "/srv/repo"] {
                let e = anyhow::Error::from(StoreError::new(kind, "read", "k", url, "why"));
                assert_eq!(judge(&e).hints.len(), 1, "{kind:?} {url}");
            }
        }
    }

    fn copy(e: &StoreError) -> StoreError {
        StoreError::new(e.kind, e.action, &e.key, &e.url, &e.reason)
    }
}
