//! The engine's configuration file: one entry in a list goes in or out, and everything else stays as it was written.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use jiff::Timestamp;
use serde_json::Value;

use crate::cli::CliError;
use crate::guard::authz::PLUGIN_NAME;

/// The key that lists authorization plugins.
const KEY: &str = "authorization-plugins";

/// A configuration file as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// The file; a link is followed.
    pub path: PathBuf,
    /// Its text; `None` if there is no such file, which engines take for an empty one.
    text: Option<String>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Where the file as it was before is kept; `None` if there was none.
    pub backup: Option<PathBuf>,
}

impl EngineConfig {
    /// Reads the file.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub fn read(path: &Path) -> Result<EngineConfig, CliError> {
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(EngineConfig { path, text: Some(text) }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(EngineConfig { path, text: None }),
            Err(e) => {
                let error = CliError::failed(format!("cannot read {}: {e}", path.display()));
                Err(error.hint("the engine's configuration belongs to root: run this as root"))
            }
        }
    }

    /// Whether the engine is told to ask voltool.
    ///
    /// # Errors
    /// If the file is not what an engine would take.
    pub fn names_us(&self) -> Result<bool, CliError> {
        let listed = self.wrap(plugins(self.text()))?;
        Ok(listed.iter().any(|name| name == PLUGIN_NAME))
    }

    /// The text with the entry, or without it.
    ///
    /// # Errors
    /// If the file is not what an engine would take.
    pub fn edited(&self, ask_us: bool) -> Result<String, CliError> {
        self.wrap(edit(self.text(), ask_us))
    }

    /// Replaces the file in one step, after keeping a copy beside it; owner and mode stay. A `dockerd` that can check a
    /// configuration is asked first.
    ///
    /// # Errors
    /// If `dockerd` objects, or the file cannot be written: then it is as it was.
    pub fn replace(&self, text: &str) -> Result<Written, CliError> {
        let failed = |what: &str, e: io::Error| {
            let error = CliError::failed(format!("cannot {what} {}: {e}", self.path.display()));
            match e.kind() {
                io::ErrorKind::PermissionDenied => {
                    error.hint("the engine's configuration belongs to root: run this as root")
                }
                _ => error,
            }
        };
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder).map_err(|e| failed("make the folder of", e))?;
        let beside = beside(&self.path, &format!("voltool-{}.tmp", std::process::id()));
        let result = (|| {
            self.write(&beside, text).map_err(|e| failed("write beside", e))?;
            validate(&beside)?;
            let backup = self.back_up().map_err(|e| failed("keep a copy of", e))?;
            std::fs::rename(&beside, &self.path).map_err(|e| failed("replace", e))?;
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| failed("write", e))?;
            Ok(Written { backup })
        })();
        if result.is_err() {
            // Best effort: the error matters more than a leftover.
            let _ = std::fs::remove_file(&beside);
        }
        result
    }

    fn write(&self, to: &Path, text: &str) -> io::Result<()> {
        let mut file = File::options().write(true).create_new(true).open(to)?;
        file.write_all(text.as_bytes())?;
        match std::fs::metadata(&self.path) {
            Ok(was) => {
                std::os::unix::fs::chown(to, Some(was.uid()), Some(was.gid()))?;
                file.set_permissions(was.permissions())?;
            }
            Err(_) => file.set_permissions(Permissions::from_mode(0o644))?,
        }
        file.sync_all()
    }

    fn back_up(&self) -> io::Result<Option<PathBuf>> {
        if self.text.is_none() {
            return Ok(None);
        }
        let time = Timestamp::now().strftime("%Y%m%dT%H%M%S%.3fZ");
        let copy = beside(&self.path, &format!("voltool-backup-{time}"));
        std::fs::copy(&self.path, &copy)?;
        Ok(Some(copy))
    }

    fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_default()
    }

    fn wrap<T>(&self, result: Result<T, String>) -> Result<T, CliError> {
        result.map_err(|why| {
            CliError::failed(format!("cannot edit {}: {why}", self.path.display())).hint(
                "mend it first: an engine would not start with it either; 'dockerd --validate' says where it is wrong",
            )
        })
    }
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{what}"));
    PathBuf::from(name)
}

/// Has `dockerd` check a configuration, if there is one here that can (since 23.0).
fn validate(file: &Path) -> Result<(), CliError> {
    let mut command = Command::new("dockerd");
    command.arg("--validate").arg("--config-file").arg(file).stdin(Stdio::null());
    let Ok(output) = command.output() else { return Ok(()) };
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() || said.contains("unknown flag") {
        return Ok(());
    }
    let why = said.trim().replace(&*file.to_string_lossy(), "the new configuration");
    Err(CliError::failed(format!("the engine would not take the configuration: {why}")).hint("nothing was changed"))
}

/// The plugins that a configuration lists.
fn plugins(text: &str) -> Result<Vec<String>, String> {
    match parse(text)?.get(KEY) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(names)) => {
            let names = names.iter().map(|name| name.as_str().map(str::to_owned));
            names.collect::<Option<_>>().ok_or_else(|| format!("{KEY:?} holds something that is no name"))
        }
        Some(_) => Err(format!("{KEY:?} is not a list")),
    }
}

fn parse(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err("it is JSON, but no object".to_owned()),
        Err(e) => Err(format!("it is not JSON: {e}")),
    }
}

/// Puts the entry in, or takes it out, and touches nothing else.
fn edit(text: &str, ask_us: bool) -> Result<String, String> {
    let mut names = plugins(text)?;
    if names.iter().any(|name| name == PLUGIN_NAME) == ask_us {
        return Ok(text.to_owned());
    }
    names.retain(|name| name != PLUGIN_NAME);
    if ask_us {
        names.push(PLUGIN_NAME.to_owned());
    }
    let mut wanted = parse(text)?;
    let members = wanted.as_object_mut().ok_or("it is no object")?;
    match names.is_empty() {
        true => drop(members.remove(KEY)),
        false => drop(members.insert(KEY.to_owned(), Value::from(names.clone()))),
    }
    let list =
        format!("[{}]", names.iter().map(|name| Value::from(name.as_str()).to_string()).collect::<Vec<_>>().join(", "));
    let edited = splice(text, &list, names.is_empty())?;
    // Whatever the file looks like: nothing is written that means something else.
    match parse(&edited) {
        Ok(found) if found == wanted => Ok(edited),
        _ => Err(format!("it is written in a way that voltool cannot edit: set {KEY:?} to {list} by hand")),
    }
}

/// Replaces the list, adds it behind the last member, or takes it out.
fn splice(text: &str, list: &str, remove: bool) -> Result<String, String> {
    if text.trim().is_empty() {
        return Ok(format!("{{\n    \"{KEY}\": {list}\n}}\n"));
    }
    let members = members(text).ok_or("its members cannot be told apart")?;
    let ours: Vec<usize> = (0..members.len()).filter(|at| members[*at].key == KEY).collect();
    let replaced = |range: Range<usize>, with: &str| format!("{}{with}{}", &text[..range.start], &text[range.end..]);
    match (ours.as_slice(), members.last()) {
        ([at], _) if remove => Ok(match (members.get(at + 1), at.checked_sub(1).map(|before| &members[before])) {
            (Some(next), _) => replaced(members[*at].start..next.start, ""),
            (None, Some(before)) => replaced(before.value.end..members[*at].value.end, ""),
            (None, None) => {
                replaced(members[*at].start..members[*at].value.end, "").replace(['\n', ' ', '\t', '\r'], "") + "\n"
            }
        }),
        ([at], _) => Ok(replaced(members[*at].value.clone(), list)),
        ([], None) => Ok(format!("{{\n    \"{KEY}\": {list}\n}}\n")),
        ([], Some(last)) => {
            let before_first = &text[..members[0].start];
            let gap = before_first.rfind('\n').map_or(" ", |at| &before_first[at..]);
            Ok(replaced(last.value.end..last.value.end, &format!(",{gap}\"{KEY}\": {list}")))
        }
        _ => Err(format!("{KEY:?} is there more than once")),
    }
}

/// Where a member of the outermost object is.
#[derive(Debug, PartialEq, Eq)]
struct Member {
    key: String,
    start: usize,
    value: Range<usize>,
}

/// The members of the outermost object of a text that is known to be valid JSON.
fn members(text: &str) -> Option<Vec<Member>> {
    let bytes = text.as_bytes();
    let skip_space = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        at
    };
    let mut members = Vec::new();
    let mut at = skip_space(0);
    (bytes.get(at)? == &b'{').then_some(())?;
    loop {
        at = skip_space(at + 1);
        if bytes.get(at)? == &b'}' {
            return Some(members);
        }
        let start = at;
        let key_end = end_of_value(bytes, at)?;
        let key = serde_json::from_str(&text[start..key_end]).ok()?;
        at = skip_space(key_end);
        (bytes.get(at)? == &b':').then_some(())?;
        let value_start = skip_space(at + 1);
        let value_end = end_of_value(bytes, value_start)?;
        members.push(Member { key, start, value: value_start..value_end });
        at = skip_space(value_end);
        match bytes.get(at)? {
            b',' => {}
            b'}' => return Some(members),
            _ => return None,
        }
    }
}

/// Where the value that begins at `at` ends.
fn end_of_value(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    loop {
        match bytes.get(at)? {
            b'"' => {
                at += 1;
                while bytes.get(at)? != &b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                at += 1;
                match depth {
                    // The end of what is around a bare number or word.
                    0 => return Some(at - 1),
                    1 => return Some(at),
                    _ => depth -= 1,
                }
            }
            b',' if depth == 0 => return Some(at),
            byte if depth == 0 && byte.is_ascii_whitespace() => return Some(at),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_goes_in_and_out_and_nothing_else_changes() {
        for (before, with) in [
            ("{\n  \"debug\": true\n}\n", "{\n  \"debug\": true,\n  \"authorization-plugins\": [\"voltool\"]\n}\n"),
            ("{\"debug\":true}", "{\"debug\":true, \"authorization-plugins\": [\"voltool\"]}"),
            (
                "{\n\t\"a\": [1, {\"b\": \"}\\\"\"}]\n}",
                "{\n\t\"a\": [1, {\"b\": \"}\\\"\"}],\n\t\"authorization-plugins\": [\"voltool\"]\n}",
            ),
            (
                "{\n  \"authorization-plugins\": [\"other\"],\n  \"debug\": true\n}",
                "{\n  \"authorization-plugins\": [\"other\", \"voltool\"],\n  \"debug\": true\n}",
            ),
        ] {
            assert_eq!(edit(before, true).as_deref(), Ok(with));
            assert_eq!(edit(with, false).as_deref(), Ok(before));
            assert_eq!(edit(with, true).as_deref(), Ok(with), "twice is once");
        }
        for empty in ["", " \n", "{}", "{ }\n", "{\n}\n"] {
            let with = edit(empty, true).expect("edited");
            assert_eq!(with, "{\n    \"authorization-plugins\": [\"voltool\"]\n}\n");
            assert_eq!(edit(&with, false).as_deref(), Ok("{}\n"));
        }
        let first = "{\n  \"authorization-plugins\": [\"voltool\"],\n  \"debug\": true\n}";
        assert_eq!(edit(first, false).as_deref(), Ok("{\n  \"debug\": true\n}"));
        assert_eq!(
            edit("{\"authorization-plugins\":null,\"a\":1}", true).as_deref(),
            Ok("{\"authorization-plugins\":[\"voltool\"],\"a\":1}")
        );
    }

    #[test]
    fn what_cannot_be_edited_safely_is_left_alone() {
        for text in [
            "[",
            "[]",
            "{\"a\": 1,}",
            "{\"authorization-plugins\": \"voltool\"}",
            "{\"authorization-plugins\": [1]}",
            "{\"authorization-plugins\": [\"a\"], \"authorization-plugins\": [\"b\"]}",
            "// comment\n{}",
        ] {
            assert!(edit(text, true).is_err(), "{text}");
        }
    }

    #[test]
    fn a_copy_is_kept_and_the_mode_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("daemon.json");
        std::fs::write(&path, "{\"debug\": false}").expect("written");
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("set");
        let config = EngineConfig::read(&path).expect("read");
        assert_eq!(config.names_us(), Ok(false));
        let written = config.replace(&config.edited(true).expect("edited")).expect("replaced");
        let copy = written.backup.expect("there was one");
        assert_eq!(std::fs::read_to_string(&copy).expect("kept"), "{\"debug\": false}");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o640);
        assert_eq!(EngineConfig::read(&path).expect("read").names_us(), Ok(true));
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 2);

        let none = EngineConfig::read(&folder.path().join("new/daemon.json")).expect("read");
        let written = none.replace(&none.edited(true).expect("edited")).expect("made");
        assert_eq!(written.backup, None);
    }
}
