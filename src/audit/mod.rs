//! The storage traps of Docker, found on an engine: what loses data, or will.
//!
//! | file | its one job |
//! | --- | --- |
//! | `mod.rs` | findings, and the list of checks with what each needs |
//! | `evidence.rs` | what the checks go by: plain data |
//! | `gather.rs` | collects it: the engine, the volumes' content, the host |
//! | `scan.rs` | one bounded walk through a volume |
//! | `host.rs` | mounts, users and timers of this machine |
//! | `network.rs` | which volumes come over a network, and whether the other side answers |
//! | `layers.rs` … `growth.rs` | the checks, by what they are about |
//!
//! [`gather()`] does all the I/O and [`findings`] does none, so every rule is tested as a table. What a check could not see is in
//! [`Evidence::skipped`]: it is said, never taken for "nothing found". `docs/audit.md` has a section for each check.

mod containers;
mod engine;
pub mod evidence;
pub mod gather;
mod growth;
pub mod host;
mod layers;
mod mounts;
pub mod network;
pub mod scan;
#[cfg(test)]
mod testing;
mod volumes;

use std::collections::BTreeSet;

use serde::Serialize;

use crate::guard::request::quoted;

pub use evidence::Evidence;
pub use gather::{Options, gather};

/// The label on a volume or container that silences checks: their ids, separated by commas.
pub const IGNORE_LABEL: &str = "voltool.audit.ignore";

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Worth knowing; nothing is lost by it.
    Info,
    /// An ordinary command, or time, loses data.
    Warn,
    /// Data is not where its owner believes, or goes without anybody asking for it.
    Error,
}

impl Level {
    /// As it is written: `info`, `warn` or `error`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }
}

/// What kind of thing a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectType {
    /// A volume.
    Volume,
    /// A container.
    Container,
    /// The engine.
    Engine,
    /// A path on the engine's machine.
    Path,
}

/// One thing that a finding is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Object {
    /// What it is.
    #[serde(rename = "type")]
    pub kind: ObjectType,
    /// Its name, or its path.
    pub name: String,
}

impl Object {
    fn new(kind: ObjectType, name: &str) -> Object {
        Object { kind, name: name.to_owned() }
    }
}

/// One trap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check found it: `T01` … `T16`. Stays the same in every version.
    pub id: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What the trap is, in a few words; the same for all findings of a check.
    pub title: &'static str,
    /// What it is about, the most important first.
    pub objects: Vec<Object>,
    /// What exactly was found, with sizes.
    pub detail: String,
    /// What it may cost.
    pub why: &'static str,
    /// The commands that mend it, ready to paste. Lines that begin with `#` say what only a person can do.
    pub fix: String,
}

impl Finding {
    fn new(id: &'static str, level: Level, title: &'static str) -> Finding {
        Finding { id, level, title, objects: Vec::new(), detail: String::new(), why: "", fix: String::new() }
    }

    fn volume(mut self, name: &str) -> Finding {
        self.objects.push(Object::new(ObjectType::Volume, name));
        self
    }

    fn container(mut self, name: &str) -> Finding {
        self.objects.push(Object::new(ObjectType::Container, name));
        self
    }

    fn engine(mut self, name: &str) -> Finding {
        self.objects.push(Object::new(ObjectType::Engine, name));
        self
    }

    fn path(mut self, path: &str) -> Finding {
        self.objects.push(Object::new(ObjectType::Path, path));
        self
    }

    fn detail(mut self, detail: impl Into<String>) -> Finding {
        self.detail = detail.into();
        self
    }

    fn why(mut self, why: &'static str) -> Finding {
        self.why = why;
        self
    }

    fn fix(mut self, lines: impl IntoIterator<Item = impl AsRef<str>>) -> Finding {
        let lines: Vec<String> = lines.into_iter().map(|line| line.as_ref().to_owned()).collect();
        self.fix = lines.join("\n");
        self
    }
}

/// What could not be checked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Skipped {
    /// The check.
    pub id: &'static str,
    /// What it could not see, and why.
    pub reason: String,
    /// Whether something failed (a permission, an answer), rather than being out of the audit's reach by its nature (a remote
    /// engine, no repository, more files than are looked at).
    #[serde(skip)]
    pub failed: bool,
}

/// What a check needs to be gathered, beside the inventory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// What is in the volumes: a bounded walk.
    Content,
    /// What containers have written into their own layers.
    Layers,
    /// The processes of running containers.
    Processes,
    /// The images of the containers.
    Images,
    /// The folders and files that are mounted from the host.
    Binds,
    /// Which volumes come over a network, and whether the other side answers.
    Network,
    /// The time of each volume's newest snapshot.
    Snapshots,
    /// Who used a volume last.
    Catalog,
    /// What is started on this machine by a timer.
    Timers,
    /// The engine's settings.
    Settings,
    /// Which user ids are known.
    Users,
}

/// One check.
pub struct Check {
    /// `T01` … `T16`.
    pub id: &'static str,
    /// What the trap is.
    pub title: &'static str,
    /// What it needs.
    pub needs: &'static [Need],
    run: fn(&Evidence) -> Vec<Finding>,
}

const fn check(
    id: &'static str,
    title: &'static str,
    needs: &'static [Need],
    run: fn(&Evidence) -> Vec<Finding>,
) -> Check {
    Check { id, title, needs, run }
}

/// Every check, by id.
pub const CHECKS: &[Check] = &[
    check("T01", layers::T01, &[Need::Layers], layers::written),
    check("T02", volumes::T02, &[Need::Content, Need::Images], volumes::anonymous),
    check("T03", volumes::T03, &[Need::Content], volumes::single_holder),
    check("T04", volumes::T04, &[Need::Content, Need::Catalog], volumes::orphaned),
    check("T05", volumes::T05, &[Need::Content, Need::Snapshots], volumes::without_snapshot),
    check("T06", mounts::T06, &[Need::Binds], mounts::binds),
    check("T07", mounts::T07, &[Need::Content, Need::Images], mounts::shadowed),
    check("T08", volumes::T08, &[Need::Content], volumes::twins),
    check("T09", containers::T09, &[Need::Images], containers::images),
    check("T10", containers::T10, &[Need::Content, Need::Processes, Need::Users, Need::Settings], containers::owners),
    check("T11", volumes::T11, &[], volumes::writers),
    check("T12", growth::T12, &[Need::Content], growth::logs),
    check("T13", mounts::T13, &[Need::Network, Need::Binds], mounts::network),
    check("T14", engine::T14, &[Need::Timers, Need::Settings], engine::prunes),
    check("T15", containers::T15, &[Need::Processes], containers::ssh),
    check("T16", engine::T16, &[Need::Content, Need::Settings], engine::owners),
];

/// Finds a check by its id, in whatever case it is written.
pub fn check_of(id: &str) -> Option<&'static Check> {
    CHECKS.iter().find(|check| check.id.eq_ignore_ascii_case(id.trim()))
}

/// Applies the selected checks, leaves out what labels silence, and sorts: the worst first, then by id.
pub fn findings(evidence: &Evidence, selected: &BTreeSet<&'static str>) -> Vec<Finding> {
    let checks = CHECKS.iter().filter(|check| selected.contains(check.id));
    let mut found: Vec<Finding> =
        checks.flat_map(|check| (check.run)(evidence)).filter(|finding| !silenced(evidence, finding)).collect();
    found.sort_by(|a, b| {
        (std::cmp::Reverse(a.level), a.id, &a.objects).cmp(&(std::cmp::Reverse(b.level), b.id, &b.objects))
    });
    found
}

/// Whether the label of one of its objects silences a finding.
fn silenced(evidence: &Evidence, finding: &Finding) -> bool {
    finding.objects.iter().any(|object| {
        let labels = match object.kind {
            ObjectType::Volume => evidence.volume(&object.name).map(|volume| &volume.info.labels),
            ObjectType::Container => evidence.container_named(&object.name).map(|container| &container.labels),
            ObjectType::Engine | ObjectType::Path => None,
        };
        let ids = labels.and_then(|labels| labels.get(IGNORE_LABEL));
        ids.is_some_and(|ids| ids.split(',').any(|id| id.trim().eq_ignore_ascii_case(finding.id)))
    })
}

/// A number of bytes, for people.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A number of things, for people: `1 file`, `3 files`.
fn counted(n: u64, noun: &str) -> String {
    match noun.strip_suffix('y') {
        _ if n == 1 => format!("{n} {noun}"),
        Some(stem) if noun != "day" => format!("{n} {stem}ies"),
        _ => format!("{n} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::testing::*;
    use super::*;

    #[test]
    fn every_check_has_its_own_id_in_order() {
        let ids: Vec<&str> = CHECKS.iter().map(|check| check.id).collect();
        let expected: Vec<String> = (1..=16).map(|n| format!("T{n:02}")).collect();
        assert_eq!(ids, expected);
        assert_eq!(check_of(" t05").map(|check| check.id), Some("T05"));
        assert!(check_of("T17").is_none() && check_of("").is_none());
    }

    #[test]
    fn every_check_is_documented() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/audit.md")).expect("the page");
        for check in CHECKS {
            let heading = format!("\n## {}: {}\n", check.id, check.title);
            assert!(page.contains(&heading), "docs/audit.md has no heading{heading}");
        }
    }

    #[test]
    fn labels_silence_what_they_name_and_nothing_else() {
        let all: BTreeSet<&str> = CHECKS.iter().map(|check| check.id).collect();
        let found = |label: &str| {
            let mut volume = volume("orphan").with_files(3, 100);
            volume.info.labels.insert(IGNORE_LABEL.to_owned(), label.to_owned());
            let evidence = Evidence { volumes: vec![volume], ..evidence() };
            findings(&evidence, &all).iter().map(|finding| finding.id).collect::<Vec<_>>()
        };
        assert_eq!(found(""), ["T04", "T05"]);
        assert_eq!(found("T05"), ["T04"]);
        assert_eq!(found("T01, t04,T05"), [""; 0]);
        assert_eq!(found("T0"), ["T04", "T05"]);
    }

    #[test]
    fn words_mean_themselves_to_a_shell() {
        assert_eq!(quoted("/var/lib/x"), "/var/lib/x");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
        assert_eq!((size(1023), size(1024), size(3 << 20)), ("1023 B".into(), "1.0 KiB".into(), "3.0 MiB".into()));
    }
}
