//! One bounded walk through a volume: how much is in it, whose it is, and which log files.
//!
//! Nothing is opened and no link is followed. The walk ends after [`MAX_ENTRIES`] entries or [`MAX_TIME`], whichever comes first;
//! [`Scan::complete`] says whether it saw everything.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{counted, size};

/// The most entries of one volume that are looked at.
pub const MAX_ENTRIES: u64 = 20_000;

/// The longest that one volume is looked at.
pub const MAX_TIME: Duration = Duration::from_secs(10);

/// A log file from which size on is remembered, in bytes.
const LOG: u64 = 1 << 20;

/// The most of a kind that are remembered: owners, log files.
const MAX_KEPT: usize = 256;

/// What a volume holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scan {
    /// Everything below the root.
    pub entries: u64,
    /// What is no folder.
    pub files: u64,
    /// The apparent size of the regular files in bytes, hard-linked ones once.
    pub bytes: u64,
    /// Whether everything was seen.
    pub complete: bool,
    /// Who owns the entries.
    pub owners: BTreeMap<u32, Sample>,
    /// The large log files.
    pub logs: Vec<LogFile>,
    /// Files that SELinux keeps from containers, if it was asked.
    pub mislabelled: Option<Sample>,
}

impl Scan {
    /// In a few words: `3 files, 12.0 MiB`.
    pub fn amount(&self) -> String {
        let least = if self.complete { "" } else { "at least " };
        format!("{least}{}, {}", counted(self.files, "file"), size(self.bytes))
    }
}

/// Some entries, and one of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sample {
    /// How many.
    pub count: u64,
    /// The first one's path below the root.
    pub example: String,
}

/// A large log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// The path below the volume's root.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was written last.
    pub modified: Timestamp,
}

/// Walks through a folder. With `labels`, also asks for the SELinux label of each entry.
///
/// # Errors
/// If the root cannot be listed, or a folder below it must not be. What vanishes meanwhile is no error.
pub fn scan(root: &Path, labels: bool) -> io::Result<Scan> {
    scan_within(root, labels, MAX_ENTRIES, Instant::now() + MAX_TIME)
}

fn scan_within(root: &Path, labels: bool, most: u64, until: Instant) -> io::Result<Scan> {
    let mut found = Scan { complete: true, ..Scan::default() };
    let mut linked = HashSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let listing = match std::fs::read_dir(&folder) {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound && folder != root => continue,
            Err(error) => return Err(error),
        };
        for entry in listing {
            if found.entries >= most || Instant::now() >= until {
                found.complete = false;
                return Ok(found);
            }
            let path = entry?.path();
            let meta = match path.symlink_metadata() {
                Ok(meta) => meta,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let below = || path.strip_prefix(root).unwrap_or(&path).display().to_string();
            found.entries += 1;
            if found.owners.len() < MAX_KEPT || found.owners.contains_key(&meta.uid()) {
                note(found.owners.entry(meta.uid()).or_default(), below);
            }
            if labels && !is_for_containers(&path) {
                note(found.mislabelled.get_or_insert_default(), below);
            }
            if meta.is_dir() {
                folders.push(path);
                continue;
            }
            found.files += 1;
            if !meta.is_file() || (meta.nlink() > 1 && !linked.insert((meta.dev(), meta.ino()))) {
                continue;
            }
            found.bytes += meta.len();
            if meta.len() >= LOG && is_log(&path) && found.logs.len() < MAX_KEPT {
                let modified = Timestamp::from_second(meta.mtime()).unwrap_or_default();
                found.logs.push(LogFile { path: below(), bytes: meta.len(), modified });
            }
        }
    }
    Ok(found)
}

fn note(sample: &mut Sample, path: impl Fn() -> String) {
    if sample.count == 0 {
        sample.example = path();
    }
    sample.count += 1;
}

/// Whether this is a log for people. The write-ahead logs of databases (`000123.log`) are data.
fn is_log(path: &Path) -> bool {
    let stem = path.file_stem().map(|stem| stem.as_encoded_bytes()).unwrap_or_default();
    path.extension().is_some_and(|extension| extension == "log") && !stem.iter().all(u8::is_ascii_digit)
}

/// Whether SELinux lets containers use an entry: its type is one of those made for containers. One without a label counts as
/// usable: its file system knows none.
fn is_for_containers(path: &Path) -> bool {
    let mut label = [0u8; 512];
    match rustix::fs::lgetxattr(path, "security.selinux", &mut label[..]) {
        Ok(len) => label_is_for_containers(&String::from_utf8_lossy(&label[..len])),
        Err(_) => true,
    }
}

/// The third part of `system_u:object_r:container_file_t:s0` is the type.
fn label_is_for_containers(label: &str) -> bool {
    let kind = label.trim_end_matches('\0').split(':').nth(2).unwrap_or_default();
    matches!(kind, "" | "svirt_sandbox_file_t" | "nfs_t" | "cifs_t" | "fusefs_t") || kind.starts_with("container_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[test]
    fn everything_is_counted_once() {
        let root = tempfile::tempdir().expect("a folder");
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir_all(at("a/b")).expect("made");
        std::fs::write(at("a/b/file"), vec![0; 1000]).expect("written");
        std::fs::hard_link(at("a/b/file"), at("a/link")).expect("linked");
        std::os::unix::fs::symlink("/", at("root")).expect("linked");
        let found = scan_within(root.path(), false, 100, later()).expect("walked");
        assert_eq!((found.entries, found.files, found.bytes, found.complete), (5, 3, 1000, true));
        assert_eq!(found.amount(), "3 files, 1000 B");
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!(found.owners.keys().copied().collect::<Vec<_>>(), [uid]);
        assert_eq!(found.owners[&uid].count, 5);
    }

    #[test]
    fn a_bound_that_was_hit_is_told() {
        let root = tempfile::tempdir().expect("a folder");
        for n in 0..10 {
            std::fs::write(root.path().join(n.to_string()), "x").expect("written");
        }
        let found = scan_within(root.path(), false, 4, later()).expect("walked");
        assert_eq!((found.entries, found.complete), (4, false));
        assert_eq!(found.amount(), "at least 4 files, 4 B");
        assert!(scan_within(root.path(), false, 10, later()).expect("walked").complete, "exactly as many as allowed");
        assert!(!scan_within(root.path(), false, 100, Instant::now()).expect("walked").complete, "no time left");
    }

    #[test]
    fn large_logs_are_remembered_and_write_ahead_logs_are_not() {
        let root = tempfile::tempdir().expect("a folder");
        for name in ["error.log", "000123.log", "log", "error.log.gz"] {
            std::fs::File::create(root.path().join(name)).and_then(|file| file.set_len(2 << 20)).expect("written");
        }
        std::fs::write(root.path().join("small.log"), "x").expect("written");
        let found = scan(root.path(), false).expect("walked");
        assert_eq!(found.logs.iter().map(|log| log.path.as_str()).collect::<Vec<_>>(), ["error.log"]);
        assert_eq!(found.logs[0].bytes, 2 << 20);
    }

    #[test]
    fn labels_for_containers_are_known() {
        assert!(label_is_for_containers("system_u:object_r:container_file_t:s0:c1,c2\0"));
        assert!(label_is_for_containers("system_u:object_r:svirt_sandbox_file_t:s0"));
        assert!(!label_is_for_containers("unconfined_u:object_r:user_home_t:s0\0"));
        assert!(!label_is_for_containers("system_u:object_r:default_t:s0"));
        assert!(label_is_for_containers(""));
    }
}
