//! The URL in `mount=URL`: a directory elsewhere that holds a volume's content.
//!
//! | URL | what it is | mounted by |
//! | --- | --- | --- |
//! | `nfs://HOST[:PORT]/EXPORT` | an NFS export | `mount -t nfs` |
//! | `cifs://[USER@]HOST[:PORT]/SHARE[/PATH]`, also `smb://` | a Windows or Samba share | `mount -t cifs` |
//! | `sshfs://[USER@]HOST[:PORT][/PATH]`, also `sftp://` | a directory behind SFTP; without a path the user's home | `sshfs` |
//! | `s3fs://BUCKET[/PREFIX]` | a bucket | `s3fs` |
//! | `rclone://REMOTE[/PATH]` | a remote in rclone's configuration | `rclone mount` |
//!
//! Options stand behind `?`, separated by `&` or commas, and are handed to the helper: `?vers=4.2&hard`. In paths and values,
//! `%20` stands for a space, as in any URL.
//!
//! Three kinds of options are refused: passwords, since whoever may list processes or inspect volumes would read them;
//! options that have the helper run a program or load a library, since whoever may create a volume is not always someone who
//! may run programs as root on the host; and options that make something else of the mount (`bind`, `remount`, …).

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What mounts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Helper {
    /// `mount -t nfs`
    Nfs,
    /// `mount -t cifs`
    Cifs,
    /// `sshfs`
    Sshfs,
    /// `s3fs`
    S3fs,
    /// `rclone mount`
    Rclone,
}

impl Helper {
    const ALL: [(&str, Helper); 7] = [
        ("nfs", Helper::Nfs),
        ("cifs", Helper::Cifs),
        ("smb", Helper::Cifs),
        ("sshfs", Helper::Sshfs),
        ("sftp", Helper::Sshfs),
        ("s3fs", Helper::S3fs),
        ("rclone", Helper::Rclone),
    ];

    /// The scheme of its URLs.
    pub fn scheme(self) -> &'static str {
        match self {
            Helper::Nfs => "nfs",
            Helper::Cifs => "cifs",
            Helper::Sshfs => "sshfs",
            Helper::S3fs => "s3fs",
            Helper::Rclone => "rclone",
        }
    }

    /// How the helper is given credentials, other than by its arguments.
    fn credentials_hint(self) -> &'static str {
        match self {
            Helper::Nfs => "NFS knows no passwords: exports are given to hosts, or secured with ?sec=krb5p",
            Helper::Cifs => {
                "write username= and password= into a file that only root can read, and say ?credentials=/path/of/it"
            }
            Helper::Sshfs => "use a key: ?IdentityFile=/path/of/the/key, or what root's ssh_config says for that host",
            Helper::S3fs => "write KEY:SECRET into a file that only root can read, and say ?passwd_file=/path/of/it",
            Helper::Rclone => {
                "set the remote up with `rclone config`, and say ?config=/path/of/rclone.conf if it is not root's"
            }
        }
    }

    /// Whether the helper may be given the option, in lower case. The error says why not.
    fn accepts(self, key: &str) -> Result<(), &'static str> {
        const PROGRAM: &str = "has the helper run a program or load a library";
        match (self, key) {
            (_, "bind" | "rbind" | "move" | "remount" | "loop" | "helper") => Err("makes something else of the mount"),
            (
                Helper::Sshfs,
                "ssh_command"
                | "proxycommand"
                | "localcommand"
                | "permitlocalcommand"
                | "knownhostscommand"
                | "pkcs11provider"
                | "securitykeyprovider",
            ) => Err(PROGRAM),
            (Helper::Sshfs, "passive" | "slave" | "password_stdin") => Err("needs something at sshfs's standard input"),
            (Helper::S3fs, "credlib" | "credlib_opts") => Err(PROGRAM),
            // What is no libfuse option here becomes a flag of rclone, and some of those run programs or open ports.
            (Helper::Rclone, key) => {
                let known = key.starts_with("vfs-")
                    || matches!(
                        key,
                        "allow-non-empty"
                            | "async-read"
                            | "attr-timeout"
                            | "buffer-size"
                            | "bwlimit"
                            | "cache-dir"
                            | "checkers"
                            | "config"
                            | "contimeout"
                            | "default-permissions"
                            | "dir-cache-time"
                            | "dir-perms"
                            | "direct-io"
                            | "file-perms"
                            | "gid"
                            | "links"
                            | "low-level-retries"
                            | "max-read-ahead"
                            | "no-checksum"
                            | "no-modtime"
                            | "no-seek"
                            | "poll-interval"
                            | "read-only"
                            | "timeout"
                            | "tpslimit"
                            | "transfers"
                            | "uid"
                            | "umask"
                            | "write-back-cache"
                    );
                if known { Ok(()) } else { Err("is none of rclone's flags that a volume may set") }
            }
            _ => Ok(()),
        }
    }
}

/// A directory elsewhere. `Display` gives the one canonical form, which never holds a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountUrl {
    /// What mounts it.
    pub helper: Helper,
    /// Who logs in, for CIFS and sshfs.
    pub user: Option<String>,
    /// The host (an IPv6 address in brackets), the bucket, or rclone's name of the remote.
    pub host: String,
    /// The port, if it is not the usual one.
    pub port: Option<u16>,
    /// The path with its slash in front, or nothing.
    pub path: String,
    /// Names and values of options, in the order in which they were given.
    pub options: Vec<(String, Option<String>)>,
}

/// A URL that cannot be mounted. The text never repeats a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct MountUrlError {
    /// The URL, without what may be a password.
    pub url: String,
    /// What is wrong.
    pub problem: String,
    /// What to do, if there is something to say.
    pub hint: Option<String>,
}

const FORMS: &str =
    "write nfs://HOST/EXPORT, cifs://HOST/SHARE, sshfs://USER@HOST/PATH, s3fs://BUCKET or rclone://REMOTE/PATH";

const IN_PATHS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');
const IN_VALUES: &AsciiSet = &IN_PATHS.remove(b':').remove(b'@').remove(b'=').remove(b'+');

impl FromStr for MountUrl {
    type Err = MountUrlError;

    fn from_str(text: &str) -> Result<Self, MountUrlError> {
        let failed = |problem: String, hint: Option<&str>| MountUrlError {
            url: redact(text),
            problem,
            hint: hint.map(str::to_owned),
        };
        let wrong = |problem: &str| failed(problem.to_owned(), None);
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(failed(
                "it has a space or a control character in it".to_owned(),
                Some("write %20 for a space"),
            ));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(failed("it is no URL".to_owned(), Some(FORMS)));
        };
        let Some((_, helper)) = Helper::ALL.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(scheme)) else {
            return Err(failed("its scheme is not one that can be mounted".to_owned(), Some(FORMS)));
        };
        if rest.contains('#') {
            return Err(failed("it has a '#' in it".to_owned(), Some("write %23 for it")));
        }
        let password =
            || failed("it has a password in it, which others would see".to_owned(), Some(helper.credentials_hint()));
        let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
        let (authority, path) = place.find('/').map_or((place, ""), |at| place.split_at(at));
        let (user, address) = authority.rsplit_once('@').map_or((None, authority), |(user, at)| (Some(user), at));
        if user.is_some_and(|user| user.contains(':')) {
            return Err(password());
        }
        let user = user
            .map(|user| decode(user).filter(|user| is_word(user)).ok_or_else(|| wrong("the user's name is not one")));
        let user = user.transpose()?;
        let (host, port) = split_port(address).ok_or_else(|| wrong("what stands behind the host is no port"))?;
        let path = decode(path).ok_or_else(|| wrong("its path is not UTF-8, or has a control character in it"))?;
        if path.split('/').any(|part| part == "." || part == "..") {
            return Err(wrong("its path has '.' or '..' in it"));
        }
        let path = if helper == Helper::Nfs { &path[..] } else { path.trim_end_matches('/') };
        match helper {
            _ if host.is_empty() => return Err(failed("it names no host, bucket or remote".to_owned(), Some(FORMS))),
            Helper::Nfs if path.is_empty() => return Err(wrong("it names no export")),
            Helper::Cifs if path.is_empty() => return Err(wrong("it names no share")),
            Helper::Nfs | Helper::Cifs | Helper::Sshfs if !is_host(host) => {
                return Err(wrong("its host is not a host's name"));
            }
            Helper::S3fs | Helper::Rclone if !is_word(host) => {
                return Err(wrong("what stands behind :// is not the name of a bucket or remote"));
            }
            Helper::S3fs | Helper::Rclone if port.is_some() => {
                return Err(wrong("it has a port, which means nothing here"));
            }
            Helper::Nfs | Helper::S3fs | Helper::Rclone if user.is_some() => {
                return Err(wrong("it has a user, which means nothing here"));
            }
            _ => {}
        }
        let mut options: Vec<(String, Option<String>)> = Vec::new();
        for part in query.into_iter().flat_map(|query| query.split(['&', ','])) {
            let (key, value) = part.split_once('=').map_or((part, None), |(key, value)| (key, Some(value)));
            if !is_word(key) {
                return Err(wrong("an option in it has no name, or one that is not made of letters, digits and _ . -"));
            }
            let lower = key.to_ascii_lowercase();
            if is_secret(&lower) {
                return Err(password());
            }
            helper.accepts(&lower).map_err(|why| wrong(&format!("the option {key:?} {why}")))?;
            let value = value.map(|value| {
                decode(value).filter(|value| !value.is_empty() && !value.contains([',', '\\'])).ok_or_else(|| {
                    wrong(&format!("the value of {key:?} is empty, or has a comma or a backslash in it"))
                })
            });
            if options.iter().any(|(other, _)| other.eq_ignore_ascii_case(key)) {
                return Err(wrong(&format!("the option {key:?} stands there twice")));
            }
            let said = match &*lower {
                "port" => port.is_some(),
                "user" | "username" => user.is_some(),
                _ => false,
            };
            if said {
                return Err(wrong(&format!("the option {key:?} says again what stands in front of the path")));
            }
            options.push((key.to_owned(), value.transpose()?));
        }
        Ok(MountUrl { helper, user, host: host.to_owned(), port, path: path.to_owned(), options })
    }
}

impl fmt::Display for MountUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.helper.scheme())?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        f.write_str(&self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "{}", utf8_percent_encode(&self.path, IN_PATHS))?;
        for (at, (key, value)) in self.options.iter().enumerate() {
            write!(f, "{}{key}", if at == 0 { '?' } else { '&' })?;
            if let Some(value) = value {
                write!(f, "={}", utf8_percent_encode(value, IN_VALUES))?;
            }
        }
        Ok(())
    }
}

/// The text without what may be a password in it, whatever is wrong with it otherwise.
pub(super) fn redact(text: &str) -> String {
    let start = text.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = text.split_at(start);
    let mut rest = rest.to_owned();
    // A password may hold slashes and more: everything up to the last @ is hidden.
    if let Some(at) = rest.rfind('@')
        && let Some(colon) = rest[..at].find(':')
    {
        rest.replace_range(colon + 1..at, "***");
    }
    let Some((place, query)) = rest.split_once('?') else { return format!("{scheme}{rest}") };
    let hidden: Vec<String> = query
        .split('&')
        .flat_map(|part| part.split(','))
        .map(|part| match part.split_once('=') {
            Some((key, _)) if is_secret(&key.to_ascii_lowercase()) => format!("{key}=***"),
            _ => part.to_owned(),
        })
        .collect();
    format!("{scheme}{place}?{}", hidden.join("&"))
}

fn is_secret(key: &str) -> bool {
    // What a helper reads from a file is named by that file.
    !key.ends_with("file")
        && key != "password_stdin"
        && (key.starts_with("pass") && key != "passive"
            || matches!(key, "secret" | "token" | "access_key" | "secret_key" | "secret_access_key" | "session_token"))
}

fn decode(text: &str) -> Option<String> {
    let text = percent_decode_str(text).decode_utf8().ok()?;
    (!text.contains(char::is_control)).then(|| text.into_owned())
}

/// A name that no program takes for an option.
fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn is_host(text: &str) -> bool {
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_word(text),
    }
}

fn split_port(address: &str) -> Option<(&str, Option<u16>)> {
    let end =
        if address.starts_with('[') { address.find(']')? + 1 } else { address.find(':').unwrap_or(address.len()) };
    let (host, rest) = address.split_at(end);
    if rest.is_empty() {
        return Some((host, None));
    }
    let port = rest.strip_prefix(':').filter(|port| port.bytes().all(|b| b.is_ascii_digit()))?;
    Some((host, Some(port.parse().ok().filter(|port| *port != 0)?)))
}

#[cfg(test)]
#[path = "mount_url_tests.rs"]
mod tests;
