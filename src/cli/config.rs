//! The configuration file: TOML, never a secret in it, and nothing in it that is not understood.
//!
//! The file is read against `SCHEMA`, the list of all keys. A key that is not in it is an error that names the nearest one: a
//! misspelt `exclud` that is silently ignored is a backup that is not what its owner believes.

use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use toml_edit::{Document, DocumentMut, Item, TableLike, Value};

use super::units::check_memory;
use crate::store::S3Options;
use crate::units::{parse_duration, parse_size};

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Text,
    Path,
    Flag,
    Count,
    Size,
    Texts,
    Duration,
}

impl Expect {
    fn describe(self) -> &'static str {
        match self {
            Expect::Text => "a string",
            Expect::Path => "a path (a string)",
            Expect::Flag => "true or false",
            Expect::Count => "a whole number of at least 1",
            Expect::Size => "a size: a number of bytes, or a string such as \"256MiB\"",
            Expect::Texts => "an array of strings",
            Expect::Duration => "a duration such as \"24h\" or \"7d\"",
        }
    }
}

/// A key of the configuration file.
struct Key {
    /// The table that it stands in, "" for the top level.
    table: &'static str,
    name: &'static str,
    expect: Expect,
    /// What it is for, for `docs/cli.md`.
    meaning: &'static str,
}

const fn key(table: &'static str, name: &'static str, expect: Expect, meaning: &'static str) -> Key {
    Key { table, name, expect, meaning }
}

/// Every key there is.
const SCHEMA: &[Key] = &[
    key("", "repo", Expect::Text, "the repository's URL or path"),
    key("", "identity", Expect::Path, "the file with the age identities that open it"),
    key("", "passphrase_file", Expect::Path, "the file with the passphrase that opens it"),
    key("s3", "endpoint", Expect::Text, "URL of an S3-compatible server that is not AWS"),
    key("s3", "region", Expect::Text, "region of the bucket"),
    key("s3", "path_style", Expect::Flag, "put the bucket into the path instead of the host name"),
    key("engine", "host", Expect::Text, "the Docker engine, as in DOCKER_HOST"),
    key("engine", "name", Expect::Text, "what the engine is called in snapshots, instead of its own name"),
    key("backup", "exclude", Expect::Texts, "globs of what no backup takes, as paths from a volume's root"),
    key("backup", "exclude_volumes", Expect::Texts, "globs of names of volumes that a backup without names leaves out"),
    key("backup", "parallel", Expect::Count, "how many volumes at once"),
    key("backup", "memory", Expect::Size, "memory to work with"),
    key("guard", "ephemeral", Expect::Texts, "globs of names of volumes that may be destroyed without a snapshot"),
    key(
        "guard",
        "max_age",
        Expect::Duration,
        "a volume that changed since a snapshot younger than this may be destroyed all the same",
    ),
    key("guard", "grace", Expect::Duration, "prune leaves volumes alone that were used within this time (default 24h)"),
    key(
        "guard",
        "timeout",
        Expect::Duration,
        "the longest that the engine waits for a decision; then the answer is no (default 30s)",
    ),
    key(
        "plugin",
        "shared_as",
        Expect::Text,
        "the name under which several hosts share the driver's volumes in one repository; the same on all of them",
    ),
    key(
        "plugin",
        "lease_wait",
        Expect::Duration,
        "how long a mount waits for a volume that another host uses (default 100s)",
    ),
    key("plugin", "socket", Expect::Path, "the plugin's socket (default /run/docker/plugins/voltool.sock)"),
    key(
        "trash",
        "keep",
        Expect::Duration,
        "how long volumes with on-remove=trash are kept once they are removed (default 7d)",
    ),
    key("audit", "max_age", Expect::Duration, "the age from which a volume's newest snapshot is too old (default 7d)"),
    key("audit", "ignore", Expect::Texts, "checks that `audit` leaves out, such as \"T06\""),
    key("cache", "dir", Expect::Path, "folder of the local cache"),
    key("cache", "max_size", Expect::Size, "the most that the cache may hold"),
    key("state", "dir", Expect::Path, "folder of local state"),
];

/// Every key with what it holds and what it is for: the full name, the type, the meaning.
pub(super) fn reference() -> impl Iterator<Item = (String, &'static str, &'static str)> {
    SCHEMA.iter().map(|k| (full_name(k.table, k.name), k.expect.describe(), k.meaning))
}

/// What is in the configuration file. Paths are absolute: what is relative in the file is relative to the file's folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// The file that this was read from, if there is one.
    pub file: Option<PathBuf>,
    /// `repo`: the repository's URL or path.
    pub repo: Option<String>,
    /// `identity`: the age identity file.
    pub identity: Option<PathBuf>,
    /// `passphrase_file`: the file that holds the passphrase.
    pub passphrase_file: Option<PathBuf>,
    /// `[s3]`: how to talk to the server. Credentials come through the standard AWS chain and are never here.
    pub s3: S3Options,
    /// `[engine] host`: as `DOCKER_HOST`.
    pub engine_host: Option<String>,
    /// `[engine] name`: what the engine is called in snapshots, instead of its own name.
    pub engine_name: Option<String>,
    /// `[backup] exclude`: globs of paths inside volumes.
    pub backup_exclude: Vec<String>,
    /// `[backup] exclude_volumes`: globs of names of volumes.
    pub backup_exclude_volumes: Vec<String>,
    /// `[backup] parallel`: how many volumes at once.
    pub backup_parallel: Option<usize>,
    /// `[backup] memory`: the byte budget.
    pub backup_memory: Option<u64>,
    /// `[guard]`.
    pub guard: GuardSettings,
    /// `[plugin]` and `[trash]`.
    pub plugin: PluginSettings,
    /// `[audit] max_age`.
    pub audit_max_age: Option<SignedDuration>,
    /// `[audit] ignore`: ids of checks.
    pub audit_ignore: Vec<String>,
    /// `[cache] dir`.
    pub cache_dir: Option<PathBuf>,
    /// `[cache] max_size`, in bytes.
    pub cache_max_size: Option<u64>,
    /// `[state] dir`.
    pub state_dir: Option<PathBuf>,
}

/// `[plugin]` and `[trash]`: the volumes of voltool's own driver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PluginSettings {
    /// `plugin.shared_as`: the name under which several hosts share them.
    pub shared_as: Option<String>,
    /// `plugin.lease_wait`: how long a mount waits for a volume that another host uses.
    pub lease_wait: Option<SignedDuration>,
    /// `plugin.socket`: where the plugin listens.
    pub socket: Option<PathBuf>,
    /// `trash.keep`: how long what was removed is kept.
    pub trash_keep: Option<SignedDuration>,
}

impl PluginSettings {
    /// Where the plugin listens: as configured, or where engines look.
    pub fn socket(&self) -> &Path {
        self.socket.as_deref().unwrap_or(Path::new(crate::plugin::DEFAULT_SOCKET))
    }
}

/// `[guard]`: what may be destroyed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuardSettings {
    /// `ephemeral`: globs of names of volumes that may go.
    pub ephemeral: Vec<String>,
    /// `max_age`: how old a snapshot may be for a changed volume to go all the same.
    pub max_age: Option<SignedDuration>,
    /// `grace`: what was used within this time is not pruned.
    pub grace: Option<SignedDuration>,
    /// `timeout`: how long the engine waits for a decision.
    pub timeout: Option<SignedDuration>,
}

/// What `init` writes into the configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepositoryEntry {
    /// The repository's URL; a directory as an absolute path.
    pub repo: String,
    /// What is `None` is left in the file as it is.
    pub s3: S3Options,
    /// The identity file, if it is not where voltool looks by itself.
    pub identity: Option<PathBuf>,
    /// The passphrase file, if one is used.
    pub passphrase_file: Option<PathBuf>,
}

/// What [`Config::save_repository`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The repository that the file named before, if it was another one.
    pub replaced: Option<String>,
}

/// A configuration file that cannot be read, or says something that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1, if it is about one.
    pub line: Option<usize>,
    /// What is wrong, naming the key.
    pub reason: String,
    /// What to do.
    pub hint: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "configuration {}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads the file.
    pub fn load(file: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|e| error(file, format!("cannot be read: {e}")))?;
        Config::parse(file, &text)
    }

    /// Reads the text of a file; `file` is for messages and for what relative paths are relative to.
    pub fn parse(file: &Path, text: &str) -> Result<Config, ConfigError> {
        let document = Document::parse(text).map_err(|e| ConfigError {
            line: e.span().map(|span| line_of(text, span.start)),
            ..error(file, format!("is not valid TOML: {}", e.message().replace('\n', ", ")))
        })?;
        let mut config = Config { file: Some(file.to_owned()), ..Config::default() };
        let reader = Reader { file, text };
        for (key, item) in document.as_table().iter() {
            if is_table(key) {
                let table = item.as_table_like().ok_or_else(|| reader.wrong(item, key, "a table", item.type_name()))?;
                for (inner, value) in table.iter() {
                    reader.read(&mut config, key, inner, value, table)?;
                }
            } else {
                reader.read(&mut config, "", key, item, document.as_table())?;
            }
        }
        Ok(config)
    }

    /// Writes the repository into the file, and leaves everything else there as it is, comments too.
    ///
    /// The new file replaces the old one in one step and can be read by its owner only: what the repository is called and where
    /// keys are kept is nobody else's business. Its folder is made if need be.
    pub fn save_repository(file: &Path, entry: &RepositoryEntry) -> Result<Saved, ConfigError> {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => NEW_FILE.to_owned(),
            Err(e) => return Err(error(file, format!("cannot be read: {e}"))),
        };
        // Also makes sure that nothing is written into a file that the next command would refuse.
        let before = Config::parse(file, &text)?;
        let text = edited(file, &text, entry)?;
        write_private(file, text.as_bytes()).map_err(|e| error(file, format!("cannot be written: {e}")))?;
        Ok(Saved { replaced: before.repo.filter(|repo| *repo != entry.repo) })
    }
}

/// How a configuration file begins that `init` makes.
const NEW_FILE: &str = "# Configuration of voltool. Secrets do not belong in here: see `voltool init --help`.\n";

fn edited(file: &Path, text: &str, entry: &RepositoryEntry) -> Result<String, ConfigError> {
    let mut document: DocumentMut =
        text.parse().map_err(|e: toml_edit::TomlError| error(file, format!("is not valid TOML: {}", e.message())))?;
    let root = document.as_table_mut();
    set(root, "repo", &entry.repo);
    for (key, path) in [("identity", &entry.identity), ("passphrase_file", &entry.passphrase_file)] {
        if let Some(path) = path {
            let path = path
                .to_str()
                .ok_or_else(|| error(file, format!("cannot hold the path {}: it is not UTF-8", path.display())))?;
            set(root, key, path);
        }
    }
    let s3 = &entry.s3;
    if *s3 != S3Options::default() {
        let table = root.entry("s3").or_insert_with(toml_edit::table);
        let table = table.as_table_like_mut().ok_or_else(|| error(file, "s3 must be a table"))?;
        if let Some(endpoint) = &s3.endpoint {
            set(table, "endpoint", endpoint);
        }
        if let Some(region) = &s3.region {
            set(table, "region", region);
        }
        if let Some(path_style) = s3.path_style {
            set(table, "path_style", path_style);
        }
    }
    Ok(document.to_string())
}

/// Sets a value and keeps the comments around the one that was there.
fn set(table: &mut dyn TableLike, key: &str, value: impl Into<Value>) {
    let mut value: Value = value.into();
    if let Some(old) = table.get(key).and_then(Item::as_value) {
        *value.decor_mut() = old.decor().clone();
    }
    // Through the item that is there, because inserting would also replace the key, and the comment lines above it with it.
    match table.get_mut(key) {
        Some(item) => *item = Item::Value(value),
        None => {
            table.insert(key, Item::Value(value));
        }
    }
}

/// Replaces `file` in one step by one with mode 0600.
fn write_private(file: &Path, data: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;

    // A link is followed, as an editor would: configuration is often a link into a version-controlled folder.
    let file = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(folder)?;
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let beside = folder.join(name);
    let written = (|| {
        let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        out.write_all(data)?;
        out.sync_all()?;
        std::fs::rename(&beside, &file)?;
        std::fs::File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // Best effort: the error that is returned matters more than a leftover.
        let _ = std::fs::remove_file(&beside);
    }
    written
}

/// What every value is read with: the file for messages, its text for line numbers.
struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    fn read(
        &self,
        config: &mut Config,
        table: &str,
        key: &str,
        item: &Item,
        around: &dyn TableLike,
    ) -> Result<(), ConfigError> {
        let Some(Key { expect, .. }) = SCHEMA.iter().find(|k| k.table == table && k.name == key) else {
            return Err(self.unknown(table, key, around));
        };
        let name = full_name(table, key);
        let wrong = || self.wrong(item, &name, expect.describe(), item.type_name());
        let bad =
            |reason: String| ConfigError { line: self.line(item), ..error(self.file, format!("{name}: {reason}")) };
        let text = || item.as_str().map(str::to_owned).ok_or_else(wrong);
        match *expect {
            Expect::Text => {
                let value = text()?;
                if value.is_empty() {
                    return Err(bad("must not be empty".to_owned()));
                }
                match (table, key) {
                    ("", "repo") => config.repo = Some(self.absolute_repo(&value)),
                    ("s3", "endpoint") => config.s3.endpoint = Some(value),
                    ("s3", "region") => config.s3.region = Some(value),
                    ("engine", "host") => config.engine_host = Some(value),
                    ("plugin", _) => config.plugin.shared_as = Some(value),
                    _ => config.engine_name = Some(value),
                }
            }
            Expect::Path => {
                let value = text()?;
                if value.is_empty() {
                    return Err(bad("must not be empty".to_owned()));
                }
                let path = Some(self.absolute(Path::new(&value)));
                match (table, key) {
                    ("", "identity") => config.identity = path,
                    ("", "passphrase_file") => config.passphrase_file = path,
                    ("cache", _) => config.cache_dir = path,
                    ("plugin", _) => config.plugin.socket = path,
                    _ => config.state_dir = path,
                }
            }
            Expect::Flag => config.s3.path_style = Some(item.as_bool().ok_or_else(wrong)?),
            Expect::Count => {
                let value = item.as_integer().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
                config.backup_parallel = Some(value.ok_or_else(wrong)?);
            }
            Expect::Size => {
                let value = match (item.as_integer(), item.as_str()) {
                    (Some(n), _) => u64::try_from(n).map_err(|_| wrong())?,
                    (_, Some(text)) => parse_size(text).map_err(bad)?,
                    _ => return Err(wrong()),
                };
                match (table, key) {
                    ("backup", _) => config.backup_memory = Some(check_memory(value).map_err(bad)?),
                    _ => config.cache_max_size = Some(value),
                }
            }
            Expect::Duration => {
                let value = Some(parse_duration(&text()?).map_err(bad)?);
                match (table, key) {
                    ("guard", "max_age") => config.guard.max_age = value,
                    ("guard", "grace") => config.guard.grace = value,
                    ("guard", _) => config.guard.timeout = value,
                    ("plugin", _) => config.plugin.lease_wait = value,
                    ("trash", _) => config.plugin.trash_keep = value,
                    _ => config.audit_max_age = value,
                }
            }
            Expect::Texts => {
                let array = item.as_array().ok_or_else(wrong)?;
                let texts = array.iter().map(|v| v.as_str().map(str::to_owned));
                let texts: Vec<String> = texts
                    .collect::<Option<_>>()
                    .ok_or_else(|| self.wrong(item, &name, expect.describe(), "an array with something else in it"))?;
                match key {
                    "ignore" => config.audit_ignore = texts,
                    "ephemeral" => config.guard.ephemeral = texts,
                    "exclude_volumes" => config.backup_exclude_volumes = texts,
                    _ => config.backup_exclude = texts,
                }
            }
        }
        Ok(())
    }

    fn wrong(&self, item: &Item, name: &str, expected: &str, found: &str) -> ConfigError {
        ConfigError { line: self.line(item), ..error(self.file, format!("{name} must be {expected}, not {found}")) }
    }

    fn unknown(&self, table: &str, key: &str, around: &dyn TableLike) -> ConfigError {
        let line = around.key(key).and_then(|k| k.span()).map(|span| line_of(self.text, span.start));
        let name = full_name(table, key);
        let hint = nearest(table, key).map(|n| format!("did you mean '{n}'?"));
        ConfigError { line, hint, ..error(self.file, format!("unknown key '{name}'")) }
    }

    fn line(&self, item: &Item) -> Option<usize> {
        item.span().map(|span| line_of(self.text, span.start))
    }

    /// Cron and systemd start commands in other folders than people do, so the file's own folder is what counts.
    fn absolute(&self, path: &Path) -> PathBuf {
        let folder = self.file.parent().unwrap_or(Path::new(""));
        std::path::absolute(folder.join(path)).unwrap_or_else(|_| folder.join(path))
    }

    fn absolute_repo(&self, repo: &str) -> String {
        if repo.contains(':') || repo.starts_with('/') {
            return repo.to_owned();
        }
        self.absolute(Path::new(repo)).to_string_lossy().into_owned()
    }
}

fn error(file: &Path, reason: impl Into<String>) -> ConfigError {
    ConfigError { file: file.to_owned(), line: None, reason: reason.into(), hint: None }
}

fn full_name(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
}

fn is_table(name: &str) -> bool {
    !name.is_empty() && SCHEMA.iter().any(|k| k.table == name)
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
}

/// The key that was probably meant. A key of the same table is preferred; one that stands in another table is found by its own
/// name, which is what is left when somebody forgot the table's header.
fn nearest(table: &str, key: &str) -> Option<String> {
    let tables = SCHEMA.iter().map(|k| k.table).filter(|t| table.is_empty() && !t.is_empty());
    let here = SCHEMA.iter().filter(|k| k.table == table).map(|k| k.name).chain(tables);
    let written = key.to_lowercase().replace('-', "_");
    let near = |candidate: &str| strsim::jaro_winkler(&written, candidate);
    let best = here.map(|k| (near(k), full_name(table, k))).max_by(|a, b| a.0.total_cmp(&b.0));
    let elsewhere =
        SCHEMA.iter().map(|k| (near(k.name), full_name(k.table, k.name))).max_by(|a, b| a.0.total_cmp(&b.0));
    // Below this, names have little more than a few letters in common.
    const ALIKE: f64 = 0.75;
    let best = best.filter(|(score, _)| *score >= ALIKE);
    let elsewhere = elsewhere.filter(|(score, _)| *score >= ALIKE);
    match (best, elsewhere) {
        (Some(b), Some(e)) if e.0 > b.0 => Some(e.1),
        (Some(b), _) => Some(b.1),
        (None, e) => e.map(|(_, name)| name),
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
