//! What a command works with: the effective settings, the user interface, and how it is interrupted.
//!
//! Settings are resolved once, from flags, the environment, the configuration file and defaults, in this order. [`resolve`] is
//! pure but for reading the configuration file, so every rule has a test.
//!
//! An environment variable that is set but empty counts as not set, as Compose files and systemd units make them; only secrets
//! are strict about that (see [`secret`](super::secret)).

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use jiff::SignedDuration;

use super::GlobalArgs;
use super::config::{Config, ConfigError, GuardSettings, PluginSettings};
use super::error::{CliError, Kind};
use super::interrupt::Interrupt;
use super::secret::Secrets;
use super::ui::Ui;
use super::units::DEFAULT_MEMORY;
use crate::store::{S3Options, StoreUrl};

/// Where the system's configuration is.
const SYSTEM_CONFIG: &str = "/etc/voltool/config.toml";

/// What a command works with. Clones share how it prints and how it is interrupted.
#[derive(Debug, Clone)]
pub struct Context {
    /// The effective settings.
    pub settings: Settings,
    /// What prints.
    pub ui: Ui,
    /// How the command learns that it should stop, and what is said then.
    pub interrupt: Interrupt,
    /// The environment, for what is read late: secrets.
    pub env: Environment,
}

impl Context {
    /// Reads the keys that the settings name, and warns of what is wrong with their files.
    pub fn secrets(&self) -> Result<Secrets, CliError> {
        let secrets = Secrets::load(&self.settings, &self.env)?;
        secrets.warnings.iter().for_each(|warning| self.ui.warn(warning));
        Ok(secrets)
    }
}

/// The effective settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The repository's URL or path as it was written, if one is configured; see [`Settings::repository`].
    pub repo: Option<String>,
    /// How to talk to an S3 server.
    pub s3: S3Options,
    /// The identity file.
    pub identity: IdentityFile,
    /// The passphrase file, and who named it.
    pub passphrase_file: Option<(PathBuf, Source)>,
    /// The engine's address, from the flag or the configuration. Absent if the environment names the engine, or nobody does: then
    /// it is found as Docker's own command finds it.
    pub engine_host: Option<String>,
    /// What the engine is called in snapshots, instead of its own name.
    pub engine_name: Option<String>,
    /// Globs of what no backup takes, from the configuration; `backup --exclude` adds to them.
    pub exclude: Vec<String>,
    /// Volumes that a backup without names leaves out, from the configuration.
    pub exclude_volumes: Vec<String>,
    /// How many volumes at once, from the configuration.
    pub parallel: Option<usize>,
    /// What may be destroyed.
    pub guard: GuardSettings,
    /// The volumes of voltool's own driver.
    pub plugin: PluginSettings,
    /// The age from which a volume's newest snapshot is too old for `audit`.
    pub audit_max_age: Option<SignedDuration>,
    /// Checks that `audit` leaves out, from the configuration.
    pub audit_ignore: Vec<String>,
    /// The byte budget.
    pub memory: u64,
    /// The folder of the local cache.
    pub cache_dir: PathBuf,
    /// The most that the cache may hold, in bytes.
    pub cache_max_size: Option<u64>,
    /// The folder of local state: disposable, but for the catalog, and for the volumes of voltool's own driver.
    pub state_dir: PathBuf,
    /// The configuration file that was read.
    pub config_file: Option<PathBuf>,
    /// The configuration file that `init` writes: the one that was read, or the one that would have been.
    pub config_target: PathBuf,
    /// The system's configuration file, if it is there and this user may not read it.
    pub config_denied: Option<PathBuf>,
}

/// Which file holds the identities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFile {
    /// The file.
    pub path: PathBuf,
    /// Who named it. One that is only the default may be absent.
    pub source: Source,
}

/// Where a setting comes from, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A flag of that name.
    Flag(&'static str),
    /// An environment variable of that name.
    Env(&'static str),
    /// The configuration file, under that key.
    Config(&'static str),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag(name) | Source::Env(name) => f.write_str(name),
            Source::Config(key) => write!(f, "{key} in the configuration"),
            Source::Default => f.write_str("the default"),
        }
    }
}

/// The part of the process's surroundings that settings depend on, so that tests can make one up.
#[derive(Clone, Default)]
pub struct Environment {
    vars: HashMap<OsString, OsString>,
    root: bool,
}

impl fmt::Debug for Environment {
    /// Names only: a passphrase may be among the values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("root", &self.root).field("vars", &self.vars.keys()).finish()
    }
}

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        let relevant = |name: &OsString| {
            let name = name.to_string_lossy();
            ["VOLTOOL_", "XDG_", "DOCKER_", "AWS_ENDPOINT_", "AWS_IGNORE_"].iter().any(|p| name.starts_with(p))
                || ["HOME", "AWS_REGION", "AWS_DEFAULT_REGION"].contains(&&*name)
        };
        let vars = std::env::vars_os().filter(|(name, _)| relevant(name)).collect();
        Environment { vars, root: rustix::process::geteuid().is_root() }
    }

    /// An environment with these variables, of root or of a user.
    pub fn with(root: bool, vars: &[(&str, &str)]) -> Self {
        Environment { vars: vars.iter().map(|(k, v)| (k.into(), v.into())).collect(), root }
    }

    /// The variable's value, if it is set and not empty.
    pub fn get(&self, name: &str) -> Option<&OsString> {
        self.get_even_empty(name).filter(|value| !value.is_empty())
    }

    /// The variable's value, if it is set.
    pub fn get_even_empty(&self, name: &str) -> Option<&OsString> {
        self.vars.get(std::ffi::OsStr::new(name))
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }

    fn text(&self, name: &'static str) -> Result<Option<String>, CliError> {
        let text = |value: &OsString| value.to_str().map(str::to_owned);
        self.get(name)
            .map(|value| text(value).ok_or_else(|| CliError::usage(format!("{name} is not valid UTF-8"))))
            .transpose()
    }

    /// A folder of the XDG base directory specification, which says that relative paths in these variables are to be ignored.
    fn xdg(&self, variable: &str, below_home: &str) -> Option<PathBuf> {
        let set = self.path(variable).filter(|path| path.is_absolute());
        set.or_else(|| self.path("HOME").filter(|home| home.is_absolute()).map(|home| home.join(below_home)))
    }

    /// The folder that is `system` for root, and below an XDG folder for a user.
    fn own_dir(&self, what: &str, system: &str, variable: &str, below_home: &str) -> Result<PathBuf, CliError> {
        if self.root {
            return Ok(PathBuf::from(system));
        }
        self.xdg(variable, below_home)
            .map(|dir| dir.join("voltool"))
            .ok_or_else(|| CliError::usage(format!("there is no place for {what}: neither HOME nor {variable} is set")))
    }
}

/// What a command expects of the configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigUse {
    /// A file that is named must be there.
    MustExist,
    /// A file that is named may be absent, because the command makes it (`init`).
    MayCreate,
}

/// Resolves the effective settings.
pub fn resolve(args: &GlobalArgs, env: &Environment, config_use: ConfigUse) -> anyhow::Result<Settings> {
    let found = find_config(args, env, config_use)?;
    settings(args, env, found).map_err(Into::into)
}

/// The configuration that applies, where it would be written, and the file that could not be read.
#[derive(Debug, Default)]
struct FoundConfig {
    config: Config,
    target: PathBuf,
    denied: Option<PathBuf>,
}

fn find_config(args: &GlobalArgs, env: &Environment, config_use: ConfigUse) -> Result<FoundConfig, anyhow::Error> {
    let named = args.config.clone().or_else(|| env.path("VOLTOOL_CONFIG"));
    if let Some(file) = named {
        let file = absolute(file);
        let config = match config_use {
            ConfigUse::MayCreate if is_absent(&file) => Config::default(),
            _ => Config::load(&file)?,
        };
        return Ok(FoundConfig { config, target: file, denied: None });
    }
    let own = env.xdg("XDG_CONFIG_HOME", ".config").map(|dir| dir.join("voltool/config.toml"));
    if let Some(file) = own.as_ref().filter(|file| !is_absent(file)) {
        return Ok(FoundConfig { config: Config::load(file)?, target: file.clone(), denied: None });
    }
    find_system_config(Path::new(SYSTEM_CONFIG), own, env.root).map_err(Into::into)
}

/// The system's file. It is root's, and one that a user may not read is not an error for the user, but is remembered.
fn find_system_config(system: &Path, own: Option<PathBuf>, root: bool) -> Result<FoundConfig, ConfigError> {
    let target = match own {
        Some(own) if !root => own,
        _ => system.to_owned(),
    };
    if is_absent(system) {
        return Ok(FoundConfig { target, ..FoundConfig::default() });
    }
    if !root && std::fs::File::open(system).is_err_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied) {
        return Ok(FoundConfig { target, denied: Some(system.to_owned()), ..FoundConfig::default() });
    }
    Ok(FoundConfig { config: Config::load(system)?, target, denied: None })
}

/// Only a clear "no such file" is absence: a file that exists and cannot be read must fail loudly when it is read.
fn is_absent(file: &Path) -> bool {
    std::fs::symlink_metadata(file).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
}

fn settings(args: &GlobalArgs, env: &Environment, found: FoundConfig) -> Result<Settings, CliError> {
    let FoundConfig { config, target, denied } = found;
    // Keys are looked for beside the configuration in use, wherever that is.
    let folder = config.file.as_deref().unwrap_or(&target).parent().unwrap_or(Path::new("/"));
    let identity = pick_path(args.identity.as_ref(), "--identity", env, "VOLTOOL_IDENTITY")
        .or_else(|| config.identity.clone().map(|path| (path, Source::Config("identity"))))
        .unwrap_or_else(|| (folder.join("identity.txt"), Source::Default));
    let passphrase_file = pick_path(args.passphrase_file.as_ref(), "--passphrase-file", env, "VOLTOOL_PASSPHRASE_FILE")
        .or_else(|| {
            // A passphrase in the environment is nearer to the person than the file in the configuration.
            let overridden = env.get_even_empty("VOLTOOL_PASSPHRASE").is_some();
            config.passphrase_file.clone().filter(|_| !overridden).map(|f| (f, Source::Config("passphrase_file")))
        });
    let cache_dir = pick_path(args.cache_dir.as_ref(), "--cache-dir", env, "VOLTOOL_CACHE_DIR").map(|(path, _)| path);
    let cache_dir = match cache_dir.or(config.cache_dir) {
        Some(dir) => dir,
        None => env.own_dir("the cache", "/var/cache/voltool", "XDG_CACHE_HOME", ".cache")?,
    };
    let state_dir = pick_path(args.state_dir.as_ref(), "--state-dir", env, "VOLTOOL_STATE_DIR").map(|(path, _)| path);
    let state_dir = match state_dir.or(config.state_dir) {
        Some(dir) => dir,
        None => env.own_dir("local state", "/var/lib/voltool", "XDG_STATE_HOME", ".local/state")?,
    };
    let env_names_engine = env.get("DOCKER_HOST").or(env.get("DOCKER_CONTEXT")).is_some();
    Ok(Settings {
        repo: args.repo.clone().or(env.text("VOLTOOL_REPO")?).or(config.repo),
        s3: s3_options(args, env, config.s3)?,
        identity: IdentityFile { path: identity.0, source: identity.1 },
        passphrase_file,
        engine_host: args.host.clone().or(config.engine_host.filter(|_| !env_names_engine)),
        engine_name: config.engine_name,
        exclude: config.backup_exclude,
        exclude_volumes: config.backup_exclude_volumes,
        parallel: config.backup_parallel,
        guard: config.guard,
        plugin: config.plugin,
        audit_max_age: config.audit_max_age,
        audit_ignore: config.audit_ignore,
        memory: args.memory.or(config.backup_memory).unwrap_or(DEFAULT_MEMORY),
        cache_dir,
        cache_max_size: config.cache_max_size,
        state_dir,
        config_file: config.file,
        config_target: target,
        config_denied: denied,
    })
}

/// The S3 settings. The SDK would find what is in the environment by itself, but behind what it is given; and `init` could not
/// write it down.
fn s3_options(args: &GlobalArgs, env: &Environment, config: S3Options) -> Result<S3Options, CliError> {
    let ignored = env.text("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")?.is_some_and(|v| v.eq_ignore_ascii_case("true"));
    let endpoint = match ignored {
        true => None,
        false => env.text("AWS_ENDPOINT_URL_S3")?.or(env.text("AWS_ENDPOINT_URL")?),
    };
    let region = env.text("AWS_REGION")?.or(env.text("AWS_DEFAULT_REGION")?);
    Ok(S3Options {
        endpoint: args.s3_endpoint.clone().or(endpoint).or(config.endpoint),
        region: args.s3_region.clone().or(region).or(config.region),
        path_style: args.s3_path_style.or(config.path_style),
    })
}

/// A path from a flag, or from a variable; made absolute, because messages and the configuration outlive this folder.
fn pick_path(
    flag: Option<&PathBuf>,
    flag_name: &'static str,
    env: &Environment,
    variable: &'static str,
) -> Option<(PathBuf, Source)> {
    let flag = flag.map(|path| (path.clone(), Source::Flag(flag_name)));
    let found = flag.or_else(|| env.path(variable).map(|path| (path, Source::Env(variable))));
    found.map(|(path, source)| (absolute(path), source))
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

impl Settings {
    /// Where the repository is, or the error that says how to name one.
    pub fn repository(&self) -> anyhow::Result<StoreUrl> {
        match &self.repo {
            Some(repo) => Ok(StoreUrl::parse(repo)?),
            None => Err(self.no_repository().into()),
        }
    }

    fn no_repository(&self) -> CliError {
        let e = CliError::new(Kind::NoRepository, "no repository is configured");
        match &self.config_denied {
            Some(file) => e.hint(format!("{} is there, but you may not read it: try with sudo", file.display())),
            None => e
                .hint("make one with 'voltool init --repo URL', where URL is a directory or s3://bucket/prefix")
                .hint("or name one that exists with --repo, VOLTOOL_REPO, or 'repo' in the configuration"),
        }
    }

    /// The folder of the configuration in use: where keys are by default.
    pub fn config_folder(&self) -> &Path {
        self.config_file.as_deref().unwrap_or(&self.config_target).parent().unwrap_or(Path::new("/"))
    }

    /// Where the identity file is if nobody says otherwise, so that `init` knows whether it has to write that down.
    pub fn default_identity(&self) -> PathBuf {
        self.config_folder().join("identity.txt")
    }
}

#[cfg(test)]
#[path = "context_tests.rs"]
mod tests;
