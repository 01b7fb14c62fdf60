//! Where a repository is, as people write it: a path, `file:///path`, or `s3://bucket/prefix`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The place of a repository. [`StoreUrl::parse`] reads what a person wrote; `Display` gives the one canonical form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StoreUrl {
    /// A directory, always absolute.
    Local(PathBuf),
    /// A bucket and the prefix in it.
    S3 {
        /// The bucket's name.
        bucket: String,
        /// What stands before every key: no slash at either end, may be empty.
        prefix: String,
    },
}

/// A repository URL that cannot be used: what is wrong with it, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("repository URL {url:?}: {problem}")]
pub struct UrlError {
    /// The URL as it was given, or a placeholder if it holds credentials.
    pub url: String,
    /// What is wrong.
    pub problem: String,
    /// What to do, as one sentence without a full stop.
    pub hint: String,
}

impl UrlError {
    fn new(url: &str, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        UrlError { url: url.to_owned(), problem: problem.into(), hint: hint.into() }
    }

    /// Returns what to do about it, as one sentence without a full stop.
    pub fn hint(&self) -> &str {
        &self.hint
    }
}

const FORMS: &str = "write a path, file:///path, or s3://bucket/prefix";

impl StoreUrl {
    /// Reads a path, `file:///path` or `s3://bucket/prefix`.
    ///
    /// A relative path is taken from the current directory. Text after `file://` is a plain path: `%20` is not decoded.
    ///
    /// # Errors
    /// An empty text, another scheme, a missing or impossible bucket, a prefix that HTTP clients would rewrite (`.`, `..`),
    /// and credentials in the URL (which are then not repeated in the error).
    pub fn parse(text: &str) -> Result<StoreUrl, UrlError> {
        if text.trim().is_empty() {
            return Err(UrlError::new(text, "it is empty", FORMS));
        }
        if text.contains('\0') {
            return Err(UrlError::new(text, "it holds a NUL byte", FORMS));
        }
        match text.split_once("://") {
            Some(("s3", rest)) => parse_s3(text, rest),
            Some(("file", path)) => parse_file(text, path),
            Some((scheme @ ("http" | "https"), rest)) => {
                // Only the host is repeated: a path may hold a presigned signature, the part before `@` a password.
                let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
                let host = host.rsplit('@').next().unwrap_or_default();
                Err(UrlError::new(
                    &format!("{scheme}://{host}"),
                    format!("{scheme:?} is the scheme of a server, not of a repository"),
                    format!("write s3://bucket/prefix and give the server with --s3-endpoint {scheme}://{host}"),
                ))
            }
            // `a/b://c` is an odd path, not a scheme.
            Some((scheme, _)) if is_scheme(scheme) => {
                Err(UrlError::new(&redact(text), format!("the scheme {scheme:?} is not known"), FORMS))
            }
            _ if text == "s3:" || text.starts_with("s3:/") => {
                Err(UrlError::new(text, "two slashes are missing behind \"s3:\"", "write s3://bucket/prefix"))
            }
            _ if text == "file:" || text.starts_with("file:/") => {
                Err(UrlError::new(text, "two slashes are missing behind \"file:\"", "write file:///path"))
            }
            _ => local(text, text),
        }
    }

    /// Returns the directory, if this is one.
    pub fn local_path(&self) -> Option<&Path> {
        match self {
            StoreUrl::Local(path) => Some(path),
            StoreUrl::S3 { .. } => None,
        }
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

/// Takes user and password out of a URL that is about to be shown.
fn redact(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://…@{host}{path}"),
        None => text.to_owned(),
    }
}

fn local(text: &str, path: &str) -> Result<StoreUrl, UrlError> {
    let absolute = std::path::absolute(path).map_err(|error| {
        UrlError::new(text, format!("the path cannot be made absolute: {error}"), "give an absolute path")
    })?;
    // Through its components, so that `/a//b/./` and `/a/b` are one place.
    Ok(StoreUrl::Local(absolute.components().collect()))
}

fn parse_file(text: &str, path: &str) -> Result<StoreUrl, UrlError> {
    if !path.starts_with('/') {
        let problem = if path.is_empty() { "the path is missing" } else { "what follows file:// is no absolute path" };
        return Err(UrlError::new(text, problem, "write three slashes: file:///path"));
    }
    local(text, path)
}

fn parse_s3(text: &str, rest: &str) -> Result<StoreUrl, UrlError> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.contains('@') {
        return Err(UrlError::new(
            &redact(text),
            "it holds credentials",
            "give them through the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or a profile",
        ));
    }
    if bucket.is_empty() {
        return Err(UrlError::new(text, "the bucket is missing", "write s3://bucket/prefix"));
    }
    if let Some((name, port)) = bucket.split_once(':') {
        return Err(UrlError::new(
            text,
            format!("{bucket:?} is a server, not a bucket"),
            format!("write s3://bucket/prefix and give the server with --s3-endpoint http://{name}:{port}"),
        ));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if let Some(wrong) = bucket.chars().find(|c| !allowed(*c)) {
        let problem = format!("the bucket name {bucket:?} holds {wrong:?}");
        return Err(UrlError::new(text, problem, "bucket names hold letters, digits, dots, hyphens and underscores"));
    }
    if let Some(wrong) = prefix.chars().find(|c| c.is_control() || matches!(c, '?' | '#')) {
        let hint = "give region and endpoint with --s3-region and --s3-endpoint, not in the URL";
        return Err(UrlError::new(text, format!("the prefix holds {wrong:?}"), hint));
    }
    let parts: Vec<&str> = prefix.split('/').filter(|part| !part.is_empty()).collect();
    if parts.iter().any(|part| matches!(*part, "." | "..")) {
        return Err(UrlError::new(text, "the prefix has a part . or ..", "name the prefix without them"));
    }
    Ok(StoreUrl::S3 { bucket: bucket.to_owned(), prefix: parts.join("/") })
}

impl FromStr for StoreUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<StoreUrl, UrlError> {
        StoreUrl::parse(text)
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::Local(path) => write!(f, "{}", path.display()),
            StoreUrl::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            StoreUrl::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        StoreUrl::parse(text).map(|url| url.to_string()).unwrap_or_else(|error| format!("{error} | {}", error.hint()))
    }

    #[test]
    fn canonical_forms() {
        for (text, expected) in [
            ("/srv/backup", "/srv/backup"),
            ("/srv//backup/./", "/srv/backup"),
            ("file:///srv/backup/", "/srv/backup"),
            ("/srv/odd:name", "/srv/odd:name"),
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/", "s3://bucket"),
            ("s3://bucket/a/b", "s3://bucket/a/b"),
            ("s3://bucket//a//b/", "s3://bucket/a/b"),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
            assert_eq!(canonical(expected), expected, "the canonical form of {text} is stable");
        }
    }

    #[test]
    fn relative_paths_become_absolute() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(StoreUrl::parse("some/repo").unwrap(), StoreUrl::Local(here.join("some/repo")));
        assert_eq!(StoreUrl::parse("./repo").unwrap(), StoreUrl::Local(here.join("repo")));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("", "it is empty"),
            ("s3://", "the bucket is missing"),
            ("s3:///prefix", "the bucket is missing"),
            ("s3:bucket/prefix", ""),
            ("s3:/bucket", "two slashes are missing"),
            ("s3://buc ket/x", "holds ' '"),
            ("s3://localhost:9000/bucket", "--s3-endpoint http://localhost:9000"),
            ("s3://bucket/a/../b", "a part . or .."),
            ("s3://bucket/a?region=x", "holds '?'"),
            ("http://localhost:9000/bucket", "--s3-endpoint http://localhost:9000"),
            ("sftp://host/path", "the scheme \"sftp\" is not known"),
            ("file://host/path", "three slashes"),
            ("file:/path", "two slashes are missing"),
        ] {
            let shown = canonical(text);
            if text == "s3:bucket/prefix" {
                // A colon alone makes no scheme: this is a relative path of an odd name.
                assert!(shown.ends_with("/s3:bucket/prefix"), "{shown}");
            } else {
                assert!(shown.contains(expected), "{text:?} gave {shown:?}");
            }
        }
    }

    #[test]
    fn credentials_are_never_repeated() {
        for text in ["s3://key:secret@bucket/x", "http://user:secret@host/x?sig=secret", "ftp://user:secret@host/x"] {
            let error = StoreUrl::parse(text).unwrap_err();
            let shown = format!("{error} {error:?} {}", error.hint());
            assert!(!shown.contains("secret"), "{shown}");
        }
    }
}
