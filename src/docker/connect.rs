//! Which engine to talk to, resolved as Docker's own command does it.
//!
//! In this order, the first that is set wins:
//!
//! 1. an explicit address (`--host`, or the configuration file),
//! 2. `DOCKER_HOST`,
//! 3. the context named by `DOCKER_CONTEXT`,
//! 4. the context named by `currentContext` in `$DOCKER_CONFIG/config.json` (default `~/.docker/config.json`),
//! 5. `unix:///var/run/docker.sock`; if that socket does not exist and the user is not root, the rootless engine's
//!    `$XDG_RUNTIME_DIR/docker.sock`.
//!
//! An address that comes from 1, 2 or 5 takes TLS from `DOCKER_TLS_VERIFY`, `DOCKER_TLS` and `DOCKER_CERT_PATH`; one that
//! comes from a context takes it from the context's own files. A variable that is set to nothing counts as not set.
//!
//! [`resolve`] is a pure function of its [`Surroundings`], apart from reading files below their root.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::error::{EngineError, EngineErrorKind};

/// Where Docker's own command looks when nothing is set.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Every environment variable that has a say.
const VARIABLES: [&str; 9] = [
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "DOCKER_TLS",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CERT_PATH",
    "DOCKER_API_VERSION",
    "HOME",
    "XDG_RUNTIME_DIR",
];

/// What a caller may ask of a connection.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// The engine's address, if it is given explicitly; it goes before everything in the environment.
    pub host: Option<String>,
    /// How long one request may take before it counts as failed. Stopping a container may take longer.
    pub timeout: Duration,
}

impl Default for ConnectOptions {
    /// The engine that the environment names, and two minutes per request, as Docker's own command allows.
    fn default() -> Self {
        ConnectOptions { host: None, timeout: Duration::from_secs(120) }
    }
}

/// All that the choice of an engine depends on.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The environment variables that have a say; others are ignored.
    pub env: BTreeMap<String, String>,
    /// The folder that counts as `/` when a file is looked for. Paths in an [`Endpoint`] are as if it were `/`, except those
    /// of TLS files.
    pub root: PathBuf,
    /// Whether the user is root.
    pub superuser: bool,
}

impl Surroundings {
    /// Takes them from this process.
    ///
    /// # Errors
    /// [`EngineErrorKind::Settings`] if one of the variables is not UTF-8.
    pub fn current() -> Result<Self, EngineError> {
        let mut env = BTreeMap::new();
        for name in VARIABLES {
            if let Some(value) = std::env::var_os(name) {
                let value = value.into_string().map_err(|_| {
                    EngineError::settings(
                        EngineErrorKind::Settings,
                        format!("the environment variable {name} is not UTF-8"),
                        format!("unset {name}, or set it to plain text"),
                    )
                })?;
                env.insert(name.to_owned(), value);
            }
        }
        Ok(Surroundings { env, root: PathBuf::from("/"), superuser: rustix::process::geteuid().is_root() })
    }

    fn var(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The real path of what would be at `path` if `root` were `/`.
    fn below(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Docker's configuration folder, if there can be one.
    fn config_dir(&self) -> Option<PathBuf> {
        match self.var("DOCKER_CONFIG") {
            Some(dir) => Some(PathBuf::from(dir)),
            None => self.var("HOME").map(|home| Path::new(home).join(".docker")),
        }
    }
}

/// Where an engine's address came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Given explicitly, by flag or configuration.
    Explicit,
    /// The environment variable `DOCKER_HOST`.
    DockerHost,
    /// The Docker context of this name.
    Context(String),
    /// Nothing is set: the default socket.
    Default,
    /// Nothing is set, there is no default socket, and the user is not root: the rootless engine's socket.
    Rootless,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Explicit => f.write_str("given explicitly"),
            Source::DockerHost => f.write_str("from DOCKER_HOST"),
            Source::Context(name) => write!(f, "from the context {name}"),
            Source::Default => f.write_str("the default socket"),
            Source::Rootless => f.write_str("the rootless socket"),
        }
    }
}

/// The files that a TLS connection needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities that may vouch for the engine. Must exist.
    pub ca: PathBuf,
    /// The certificate that voltool shows; none is shown if this or the key does not exist.
    pub cert: PathBuf,
    /// The key of `cert`.
    pub key: PathBuf,
}

/// An engine's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `unix:///path` or `tcp://host:port[/path]`.
    pub host: String,
    /// How to speak TLS; `None` for plain HTTP and for sockets.
    pub tls: Option<TlsFiles>,
    /// Where the address came from.
    pub source: Source,
    /// The API version that `DOCKER_API_VERSION` pins, as `(major, minor)`; `None` to agree on one with the engine.
    pub api_version: Option<(u32, u32)>,
}

impl Endpoint {
    /// The socket's path, if the engine is reached through a unix socket.
    pub fn socket(&self) -> Option<&Path> {
        self.host.strip_prefix("unix://").map(Path::new)
    }
}

impl fmt::Display for Endpoint {
    /// The address and where it came from, for messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.host, self.source)
    }
}

/// Finds the engine's address; see the module's documentation for the rules.
///
/// # Errors
/// [`EngineErrorKind::Settings`] if what names the engine is wrong (a context that does not exist, a file that cannot be
/// read, a malformed address), [`EngineErrorKind::Unsupported`] for `ssh://`, `npipe://`, `fd://` and unverified TLS.
pub fn resolve(explicit: Option<&str>, around: &Surroundings) -> Result<Endpoint, EngineError> {
    let api_version = match around.var("DOCKER_API_VERSION") {
        Some(text) => Some(parse_version(text).ok_or_else(|| {
            EngineError::settings(
                EngineErrorKind::Settings,
                format!("DOCKER_API_VERSION is {text:?}, which is not a version"),
                "unset it to agree on a version with the engine, or write one like 1.41",
            )
        })?),
        None => None,
    };
    let from_env = |host: &str, source: Source| {
        let tls = env_tls(around, host)?;
        let host = normalise_host(host, tls.is_some())?;
        Ok(Endpoint { host, tls, source, api_version })
    };
    if let Some(host) = explicit {
        return from_env(host, Source::Explicit);
    }
    if let Some(host) = around.var("DOCKER_HOST") {
        return from_env(host, Source::DockerHost);
    }
    let context = match around.var("DOCKER_CONTEXT") {
        Some(name) => Some(name.to_owned()),
        None => current_context(around)?,
    };
    if let Some(name) = context.filter(|name| name != "default") {
        return from_context(around, &name, api_version);
    }
    if !around.superuser && !around.below(Path::new(DEFAULT_SOCKET)).exists() {
        if let Some(dir) = around.var("XDG_RUNTIME_DIR") {
            let socket = Path::new(dir).join("docker.sock");
            if around.below(&socket).exists() {
                return from_env(&format!("unix://{}", socket.display()), Source::Rootless);
            }
        }
    }
    from_env(&format!("unix://{DEFAULT_SOCKET}"), Source::Default)
}

/// Reads `1.41` or `v1.41`.
pub(super) fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.strip_prefix('v').unwrap_or(text).split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Brings an address into the form that [`Endpoint::host`] documents.
fn normalise_host(text: &str, tls: bool) -> Result<String, EngineError> {
    let text = text.trim();
    let wrong = |why: &str, hint: &str| {
        Err(EngineError::settings(EngineErrorKind::Settings, format!("the address {text:?} {why}"), hint))
    };
    let unsupported = |why: &str, hint: &str| {
        Err(EngineError::settings(EngineErrorKind::Unsupported, format!("the address {text:?} {why}"), hint))
    };
    let (scheme, rest) = match text.split_once("://") {
        Some(parts) => parts,
        None if text.starts_with('/') => {
            return wrong("has no scheme", &format!("write unix://{text} if it is a socket"));
        }
        None => ("tcp", text),
    };
    match scheme {
        "unix" if rest.is_empty() => Ok(format!("unix://{DEFAULT_SOCKET}")),
        "unix" => Ok(text.to_owned()),
        "tcp" | "http" | "https" => {
            let (authority, path) = match rest.split_once('/') {
                Some((authority, path)) => (authority, path.trim_end_matches('/')),
                None => (rest, ""),
            };
            if authority.contains('@') || rest.contains(['?', '#']) || rest.contains(char::is_whitespace) {
                return wrong("is malformed", "write it as tcp://host:port");
            }
            // An IPv6 address has colons of its own, inside brackets.
            let name_end = authority.rfind(']').map_or(0, |at| at + 1);
            let (name, port) = match authority[name_end..].find(':') {
                Some(at) => (&authority[..name_end + at], &authority[name_end + at + 1..]),
                None => (authority, ""),
            };
            let name = if name.is_empty() { "localhost" } else { name };
            let port = match port {
                "" if tls => 2376,
                "" => 2375,
                digits => match digits.parse::<u16>() {
                    Ok(port) if port != 0 => port,
                    _ => return wrong("has no valid port", "write it as tcp://host:port"),
                },
            };
            let slash = if path.is_empty() { "" } else { "/" };
            Ok(format!("tcp://{name}:{port}{slash}{path}"))
        }
        "ssh" => unsupported(
            "needs a connection through ssh, which voltool does not make",
            "run voltool on that host, or forward the engine's socket (`ssh -nNT -L /tmp/engine.sock:/var/run/docker.sock \
             HOST`) and use unix:///tmp/engine.sock",
        ),
        "npipe" => unsupported(
            "is a Windows pipe, which exists on Windows only",
            "run voltool where the engine runs (for Docker Desktop, inside a Linux environment), or give a unix:// address",
        ),
        "fd" => unsupported("is for the engine itself, not for its clients", "give a unix:// or tcp:// address"),
        _ => wrong("has a scheme that is not known", "use unix:///path/to/docker.sock or tcp://host:port"),
    }
}

/// TLS as the environment asks for it.
fn env_tls(around: &Surroundings, host: &str) -> Result<Option<TlsFiles>, EngineError> {
    let verify = around.var("DOCKER_TLS_VERIFY").is_some();
    let wanted = verify || around.var("DOCKER_TLS").is_some();
    let scheme = host.trim().split_once("://").map_or("tcp", |(scheme, _)| scheme);
    match scheme {
        "tcp" if wanted => {}
        "https" => {}
        // Also when TLS is wanted: a socket needs none, and what is not supported is reported as that.
        _ => return Ok(None),
    }
    if wanted && !verify {
        return Err(unverified("DOCKER_TLS is set without DOCKER_TLS_VERIFY"));
    }
    let dir = match around.var("DOCKER_CERT_PATH") {
        Some(dir) => PathBuf::from(dir),
        None => around.config_dir().ok_or_else(|| {
            EngineError::settings(
                EngineErrorKind::Settings,
                "TLS is wanted, but neither DOCKER_CERT_PATH nor HOME says where the certificates are",
                "set DOCKER_CERT_PATH to the folder that holds ca.pem, cert.pem and key.pem",
            )
        })?,
    };
    tls_files(&around.below(&dir)).map(Some)
}

/// voltool writes volumes' content to, and takes names from, what answers there: it must be the engine.
fn unverified(why: &str) -> EngineError {
    EngineError::settings(
        EngineErrorKind::Unsupported,
        format!("{why}: nothing would prove that the engine is the right one"),
        "have the engine's certificate verified: set DOCKER_TLS_VERIFY=1 (or make the context without skip-tls-verify) \
         and keep its authority as ca.pem beside cert.pem and key.pem",
    )
}

fn tls_files(dir: &Path) -> Result<TlsFiles, EngineError> {
    let files = TlsFiles { ca: dir.join("ca.pem"), cert: dir.join("cert.pem"), key: dir.join("key.pem") };
    let check = |path: &Path| match std::fs::File::open(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(EngineError::settings(
            EngineErrorKind::Settings,
            format!("the TLS file {} cannot be read: {error}", path.display()),
            "make it readable for this user",
        )),
    };
    let (cert, key) = (check(&files.cert)?, check(&files.key)?);
    if !check(&files.ca)? {
        return Err(EngineError::settings(
            EngineErrorKind::Settings,
            format!("TLS is wanted, but there is no {}", files.ca.display()),
            "put the authority that signed the engine's certificate there, or set DOCKER_CERT_PATH",
        ));
    }
    if cert != key {
        let missing = if cert { &files.key } else { &files.cert };
        return Err(EngineError::settings(
            EngineErrorKind::Settings,
            format!("there is no {}, but its counterpart exists", missing.display()),
            "certificate and key belong together: add the missing one, or remove the other",
        ));
    }
    Ok(files)
}

/// The parts of Docker's own configuration file that matter here.
#[derive(Deserialize)]
struct ConfigFile {
    #[serde(default, rename = "currentContext")]
    current_context: Option<String>,
}

fn current_context(around: &Surroundings) -> Result<Option<String>, EngineError> {
    let Some(dir) = around.config_dir() else { return Ok(None) };
    let path = around.below(&dir.join("config.json"));
    let unusable = |why: String| {
        EngineError::settings(
            EngineErrorKind::Settings,
            format!("{} cannot be used: {why}", path.display()),
            "repair it (it names the engine through currentContext), or name the engine with --host or DOCKER_HOST",
        )
    };
    match std::fs::read(&path) {
        Ok(bytes) => {
            let config: ConfigFile = serde_json::from_slice(&bytes).map_err(|error| unusable(error.to_string()))?;
            Ok(config.current_context.filter(|name| !name.is_empty()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        // Docker's command warns and takes the default engine. That may be another engine than the one meant.
        Err(error) => Err(unusable(error.to_string())),
    }
}

/// A context's `meta.json`, as far as it matters here.
#[derive(Deserialize)]
struct ContextFile {
    #[serde(default, rename = "Endpoints")]
    endpoints: BTreeMap<String, ContextEndpoint>,
}

#[derive(Deserialize)]
struct ContextEndpoint {
    #[serde(default, rename = "Host")]
    host: String,
    #[serde(default, rename = "SkipTLSVerify")]
    skip_tls_verify: bool,
}

fn from_context(around: &Surroundings, name: &str, api_version: Option<(u32, u32)>) -> Result<Endpoint, EngineError> {
    let no_context = |why: String| {
        EngineError::settings(
            EngineErrorKind::Settings,
            format!("the Docker context {name:?} {why}"),
            "`docker context ls` shows which there are; choose another with DOCKER_CONTEXT or `docker context use`, or name \
             the engine with --host or DOCKER_HOST",
        )
    };
    let dir = around.config_dir().ok_or_else(|| no_context("cannot be found: HOME is not set".to_owned()))?;
    let id = hex::encode(Sha256::digest(name.as_bytes()));
    let path = around.below(&dir.join("contexts/meta").join(&id).join("meta.json"));
    let bytes = std::fs::read(&path).map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            no_context("does not exist".to_owned())
        } else {
            no_context(format!("cannot be read from {}: {error}", path.display()))
        }
    })?;
    let context: ContextFile = serde_json::from_slice(&bytes)
        .map_err(|error| no_context(format!("cannot be read from {}: {error}", path.display())))?;
    let endpoint = context.endpoints.get("docker").ok_or_else(|| no_context("names no Docker engine".to_owned()))?;
    let tls_dir = around.below(&dir.join("contexts/tls").join(&id).join("docker"));
    let host = if endpoint.host.is_empty() { format!("unix://{DEFAULT_SOCKET}") } else { endpoint.host.clone() };
    let tls = if host.starts_with("unix://") {
        None
    } else if endpoint.skip_tls_verify {
        return Err(unverified(&format!("the Docker context {name:?} skips verification of TLS")));
    } else if tls_dir.is_dir() || host.starts_with("https://") {
        Some(tls_files(&tls_dir)?)
    } else {
        None
    };
    let host = normalise_host(&host, tls.is_some())?;
    Ok(Endpoint { host, tls, source: Source::Context(name.to_owned()), api_version })
}

#[cfg(test)]
#[path = "connect_tests.rs"]
mod tests;
