//! This machine, as far as the audit needs it: mounts, users, and what its timers start.
//!
//! Everything is read below a root, which is `/`, or where the host's file system is mounted if voltool runs in a container.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::evidence::ScheduledPrune;
pub use crate::mounts::{MountPoint, mount_of};

/// Where cron's tables are.
const CRON: &[&str] = &[
    "etc/crontab",
    "etc/anacrontab",
    "etc/cron.d",
    "etc/cron.hourly",
    "etc/cron.daily",
    "etc/cron.weekly",
    "etc/cron.monthly",
    "var/spool/cron",
    "var/spool/cron/crontabs",
];

/// Where systemd's units are, the most important first.
const UNITS: &[&str] = &[
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// The longest file that is read as a table, script or unit, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Reads the kernel's table of mounts. Below another root than `/` it is that of the machine's first process: with a root of its own,
/// this process has a table of its own.
///
/// # Errors
/// If it cannot be read.
pub fn mounts(root: &Path) -> io::Result<Vec<MountPoint>> {
    let table = if root == Path::new("/") { "proc/self/mountinfo" } else { "proc/1/mountinfo" };
    crate::mounts::read(&root.join(table))
}

/// The user ids in `/etc/passwd`.
///
/// # Errors
/// If it cannot be read.
pub fn users(root: &Path) -> io::Result<BTreeSet<u32>> {
    Ok(users_in(&std::fs::read(root.join("etc/passwd"))?))
}

/// The user ids in the text of an `/etc/passwd`.
pub fn users_in(passwd: &[u8]) -> BTreeSet<u32> {
    String::from_utf8_lossy(passwd).lines().filter_map(|line| line.split(':').nth(2)?.parse().ok()).collect()
}

/// How many ids the user namespace has that begins at `base`, by `/etc/subuid`; what is usual if that does not tell.
pub fn subordinate_ids(root: &Path, base: u32) -> u32 {
    const USUAL: u32 = 65_536;
    let text = std::fs::read_to_string(root.join("etc/subuid")).unwrap_or_default();
    let mut ranges = text.lines().filter_map(|line| {
        let mut parts = line.split(':').skip(1);
        Some((parts.next()?.parse::<u32>().ok()?, parts.next()?.parse::<u32>().ok()?))
    });
    ranges.find(|(start, _)| *start == base).map_or(USUAL, |(_, count)| count)
}

/// What timers of a machine start, and what of that could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timers {
    /// The prunes.
    pub prunes: Vec<ScheduledPrune>,
    /// Files and folders that must not be read.
    pub unreadable: Vec<String>,
}

/// Finds the prunes in cron's tables and scripts, and in the services that systemd's timers start. What a table calls by its name
/// (`/usr/local/bin/cleanup.sh`) is not followed.
pub fn timers(root: &Path) -> Timers {
    let mut found = Timers::default();
    for place in CRON {
        let at = root.join(place);
        for file in files_at(&at, &mut found) {
            let text = read(&file, &mut found);
            found.prunes.extend(prunes_in(&text, &shown(root, &file)));
        }
    }
    let mut units: BTreeMap<std::ffi::OsString, PathBuf> = BTreeMap::new();
    for place in UNITS {
        for file in files_at(&root.join(place), &mut found) {
            // A unit of a folder further up replaces one of the same name.
            if let Some(name) = file.file_name() {
                units.entry(name.to_owned()).or_insert(file);
            }
        }
    }
    let is = |path: &Path, kind: &str| path.extension() == Some(OsStr::new(kind));
    let started: BTreeSet<std::ffi::OsString> = units
        .values()
        .filter(|file| is(file, "timer"))
        .map(|file| {
            let text = read(file, &mut found);
            let named = text.lines().find_map(|line| line.trim().strip_prefix("Unit=").map(str::trim));
            named.map_or_else(|| file.with_extension("service").file_name().unwrap_or_default().to_owned(), Into::into)
        })
        .collect();
    for (name, file) in &units {
        if is(file, "service") && started.contains(name) {
            let text = read(file, &mut found);
            let commands: Vec<&str> = text.lines().filter(|line| line.trim_start().starts_with("Exec")).collect();
            found.prunes.extend(prunes_in(&commands.join("\n"), &shown(root, file)));
        }
    }
    found.prunes.sort();
    found.prunes.dedup();
    found
}

/// The files of a folder, or the file itself. Nothing there is nothing found.
fn files_at(at: &Path, found: &mut Timers) -> Vec<PathBuf> {
    if at.is_file() {
        return vec![at.to_owned()];
    }
    match std::fs::read_dir(at) {
        Ok(listing) => {
            let mut files: Vec<PathBuf> =
                listing.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
            files.sort();
            files
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            found.unreadable.push(at.display().to_string());
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}

/// A file's text; nothing if it is too large to be a table.
fn read(file: &Path, found: &mut Timers) -> String {
    if file.metadata().is_ok_and(|meta| meta.len() > MAX_FILE) {
        return String::new();
    }
    match std::fs::read(file) {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            found.unreadable.push(file.display().to_string());
            String::new()
        }
        Err(_) => String::new(),
    }
}

/// A path as the host has it.
fn shown(root: &Path, file: &Path) -> String {
    format!("/{}", file.strip_prefix(root).unwrap_or(file).display())
}

/// The commands in a table, script or unit that prune containers or volumes. `docker image prune` and its like lose no data.
fn prunes_in(text: &str, file: &str) -> Vec<ScheduledPrune> {
    let text = text.replace("\\\n", " ");
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let commands = lines.flat_map(|line| line.split(['|', ';', '&'])).map(str::trim);
    let found = commands.filter_map(|command| {
        let words: Vec<&str> = command
            .split(|c: char| c.is_whitespace() || "\"'()`".contains(c))
            .filter(|word| !word.is_empty())
            .collect();
        let docker = words.iter().position(|word| word.rsplit(['/', '=']).next() == Some("docker"))?;
        let rest: Vec<&str> = words[docker + 1..].iter().copied().take_while(|word| !word.contains('>')).collect();
        let at = rest.windows(2).position(|pair| pair[1] == "prune")?;
        let volumes = match rest[at] {
            "volume" => true,
            "system" => rest.iter().any(|word| matches!(*word, "--volumes" | "--volumes=true")),
            "container" => false,
            _ => return None,
        };
        let command = format!("docker {}", rest.join(" "));
        Some(ScheduledPrune { file: file.to_owned(), command, volumes })
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        root
    }

    #[test]
    fn prunes_are_found_wherever_timers_keep_them() {
        let root = root_with(&[
            (
                "etc/crontab",
                "# 1 * * * * root docker volume prune -f\n0 3 * * * root /usr/bin/docker system prune -af --volumes\n",
            ),
            (
                "etc/cron.daily/clean",
                "#!/bin/sh\ncd / && docker container prune \\\n  -f >/dev/null\ndocker image prune -af\n",
            ),
            ("var/spool/cron/crontabs/root", "@daily DOCKER_HOST=unix:///x docker -H tcp://h:1 volume prune --force\n"),
            ("usr/lib/systemd/system/tidy.timer", "[Timer]\nOnCalendar=daily\nUnit=other.service\n"),
            ("usr/lib/systemd/system/other.service", "[Service]\nExecStart=/usr/bin/docker system prune -f\n"),
            ("etc/systemd/system/same.timer", "[Timer]\nOnCalendar=daily\n"),
            ("etc/systemd/system/same.service", "[Service]\nExecStart=-/usr/bin/sh -c 'docker volume prune -af'\n"),
            ("usr/lib/systemd/system/same.service", "[Service]\nExecStart=docker volume prune --hidden\n"),
            ("etc/systemd/system/by-hand.service", "[Service]\nExecStart=docker volume prune --by-hand\n"),
            ("etc/cron.d/other", "0 3 * * * root certbot renew; grep docker prune.txt\n"),
        ]);
        let found = timers(root.path());
        let lines: Vec<String> =
            found.prunes.iter().map(|p| format!("{} {} {}", p.file, p.volumes, p.command)).collect();
        assert_eq!(
            lines,
            [
                "/etc/cron.daily/clean false docker container prune -f",
                "/etc/crontab true docker system prune -af --volumes",
                "/etc/systemd/system/same.service true docker volume prune -af",
                "/usr/lib/systemd/system/other.service false docker system prune -f",
                "/var/spool/cron/crontabs/root true docker -H tcp://h:1 volume prune --force",
            ]
        );
        assert_eq!(found.unreadable, [""; 0]);
        assert_eq!(timers(root_with(&[]).path()), Timers::default());
    }

    #[test]
    fn the_innermost_mount_is_that_of_a_path() {
        let table = "\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
90 22 0:50 / /srv/with\\040space rw - nfs4 10.0.0.7:/export rw,vers=4.2,fsc
91 90 0:51 / /srv/with\\040space/in rw,nosuid shared:3 master:2 - fuse.sshfs me@there:/x rw,user_id=0
";
        let root = root_with(&[("proc/1/mountinfo", table)]);
        let mounts = mounts(root.path()).expect("read");
        let of = |path: &str| mount_of(Path::new(path), &mounts).map(|mount| mount.fstype.clone());
        assert_eq!(of("/srv/with space/a/b").as_deref(), Some("nfs4"));
        assert_eq!(of("/srv/with space/in").as_deref(), Some("fuse.sshfs"));
        assert_eq!(of("/srv/with spaces").as_deref(), Some("ext4"));
        assert_eq!(mounts[1].source, "10.0.0.7:/export");
        assert!(super::mounts(Path::new("/")).is_ok_and(|mounts| !mounts.is_empty()), "this machine's own table");
    }

    #[test]
    fn ids_of_users_and_ranges() {
        let root = root_with(&[
            ("etc/passwd", "root:x:0:0::/root:/bin/sh\n\nodd line\npostgres:x:999:999::/:/bin/sh\n"),
            ("etc/subuid", "me:100000:65536\nremap:231072:1000\n"),
        ]);
        assert_eq!(users(root.path()).expect("read"), BTreeSet::from([0, 999]));
        assert_eq!(subordinate_ids(root.path(), 231_072), 1000);
        assert_eq!(subordinate_ids(root.path(), 5), 65_536);
        assert!(users(root_with(&[]).path()).is_err());
    }
}
