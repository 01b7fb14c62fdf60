//! What can go wrong with an object, in the same words for every storage.

use std::fmt;

/// What kind of failure it was, so that callers can decide without knowing the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no object of that key.
    NotFound,
    /// The bucket or the repository's directory does not exist.
    NoContainer,
    /// The storage refused: wrong credentials, or a permission is missing.
    Denied,
    /// The storage could not be reached, or kept failing until the retries were used up.
    Unreachable,
    /// No space is left.
    Full,
    /// What came back is not what was stored: a wrong size, a wrong checksum.
    Integrity,
    /// The request or its settings make no sense to the storage.
    Invalid,
    /// Anything else.
    Other,
}

/// A failed call on a storage: what was tried, on which object, where, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError {
    /// What kind of failure it was.
    pub kind: ErrorKind,
    /// The verb in plain words: "read", "write", "list", "delete", "look up", "prepare".
    pub action: &'static str,
    /// The key, or the prefix of a listing.
    pub key: String,
    /// The storage's URL.
    pub url: String,
    /// Why, in the storage's own words.
    pub reason: String,
}

impl StoreError {
    /// Makes an error; `reason` is what the storage or the operating system said.
    pub fn new(kind: ErrorKind, action: &'static str, key: &str, url: &str, reason: impl fmt::Display) -> Self {
        StoreError { kind, action, key: key.to_owned(), url: url.to_owned(), reason: reason.to_string() }
    }

    /// Returns whether the object simply is not there.
    pub fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "cannot {} {}: {}", self.action, self.url, self.reason)
        } else {
            write!(f, "cannot {} {} in {}: {}", self.action, self.key, self.url, self.reason)
        }
    }
}

impl std::error::Error for StoreError {}
