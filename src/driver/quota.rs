//! `size=`: a limit on what a folder may hold, by the means of the file system that it is on.
//!
//! | file system | the means | needs | tools |
//! | --- | --- | --- | --- |
//! | XFS | project quota | mounted with `prjquota` | `xfs_quota`, `xfs_io` (xfsprogs) |
//! | ext4 | project quota | the features `project` and `quota`, mounted with `prjquota` | `setquota`, `repquota` (quota), `chattr`, `lsattr` (e2fsprogs) |
//! | btrfs | quota group of a subvolume | `btrfs quota enable` | `btrfs` (btrfs-progs) |
//!
//! Anything else has no limits for folders, and `size=` is refused there.
//!
//! **Project ids.** What belongs to a project is limited together, so no two volumes may have the same id, nor a volume one that
//! something else uses (Docker's overlay2 counts up from 1). An id is worked out from the folder's path, between 2^30 and
//! 2^31; if the file system's report, `/etc/projid` or `/etc/projects` knows it, the next one is tried. It is kept nowhere but on
//! the folder itself, from which it is read again: nothing can come to disagree with the file system.
//!
//! **What it is not.** ext4 does not limit processes with `CAP_SYS_RESOURCE`: root on the host, and containers with
//! `--privileged`; others do not have it. On btrfs the limit belongs to the subvolume: a folder that is put in its place has none. Writing past a limit
//! fails with `EDQUOT` on btrfs and ext4, with `ENOSPC` on XFS. Calls block for as long as the tools take.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::tool::{self, ToolError};
use crate::mounts::{MountPoint, mount_of, mounts};

/// How long a tool may take. Those of btrfs write everything to the disk first.
const LIMIT: Duration = Duration::from_secs(120);

/// Between these project ids are voltool's.
const PROJECTS: std::ops::Range<u32> = 1 << 30..1 << 31;

/// What a file system offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// Project quota of XFS.
    Xfs,
    /// Project quota of ext4.
    Ext4,
    /// Quota groups of btrfs.
    Btrfs,
}

/// Limits for the folders on one file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    mechanism: Mechanism,
    /// Where it is mounted.
    mount: PathBuf,
}

/// What a folder holds, and may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that its content takes, as the file system counts.
    pub used: u64,
    /// The limit in bytes.
    pub limit: Option<u64>,
}

/// Why a limit cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuotaError {
    /// The file system has no limits for folders, or they are not switched on.
    #[error("cannot limit the size of {}: it is on {fstype} (mounted at {}), {why}", folder.display(), mount.display())]
    Unsupported {
        /// The folder.
        folder: PathBuf,
        /// The file system's type.
        fstype: String,
        /// Where it is mounted.
        mount: PathBuf,
        /// What is missing.
        why: &'static str,
        /// What to do.
        hint: String,
    },
    /// A tool is missing, or failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Tool {
        /// What was to be done.
        action: &'static str,
        /// The folder.
        path: PathBuf,
        /// What the tool said.
        source: ToolError,
    },
    /// The folder cannot be looked at or made.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// The folder.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The folder is not one that can have a limit.
    #[error("cannot limit the size of {}: {why}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// The tools said nothing, and the limit is still not there.
    #[error("cannot limit the size of {} to {wanted} bytes: the file system reports {}", path.display(), reported(*found))]
    NotInForce {
        /// The folder.
        path: PathBuf,
        /// The limit that was set.
        wanted: u64,
        /// The limit that is there.
        found: Option<u64>,
    },
}

impl QuotaError {
    /// What to do next, if there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            QuotaError::Unsupported { hint, .. } => Some(hint.clone()),
            QuotaError::Tool { source, .. } => source.hint(),
            _ => None,
        }
    }
}

fn reported(limit: Option<u64>) -> String {
    limit.map_or_else(|| "none".to_owned(), |limit| format!("{limit} bytes"))
}

type Result<T> = std::result::Result<T, QuotaError>;

impl Quota {
    /// Finds out what the file system of a folder offers, and whether the tools for it are there.
    ///
    /// # Errors
    /// Why there are no limits, with a hint how to get them; or what could not be looked at.
    pub fn find(folder: &Path) -> Result<Quota> {
        let io = |source| QuotaError::Io { action: "look at", path: folder.to_owned(), source };
        let real = std::fs::canonicalize(folder).map_err(io)?;
        let table = mounts().map_err(io)?;
        let mount =
            mount_of(&real, &table).ok_or_else(|| io(io::Error::other("it is on no file system that is listed")))?;
        let mechanism = mechanism(&real, mount)?;
        let quota = Quota { mechanism, mount: mount.at.clone() };
        for (tool, package) in quota.tools() {
            tool::require(tool, package).map_err(|source| quota.tool_error("limit the size of", &real, source))?;
        }
        if mechanism == Mechanism::Btrfs
            && let Err(source) = quota.tool("btrfs", "btrfs-progs", &["qgroup", "show", "--raw", "-f"], &real)
        {
            return Err(match source {
                ToolError::Failed { said, .. } if said.contains("not enabled") => unsupported(
                    &real,
                    mount,
                    "on which quotas are not enabled",
                    format!("run `btrfs quota enable {}`", mount.at.display()),
                ),
                source => quota.tool_error("look at the quotas of", &real, source),
            });
        }
        Ok(quota)
    }

    /// The means.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Makes the folder in such a way that it can have a limit. An empty one that is there already is made again if it has to
    /// be; one that has a limit, or could have one, stays as it is.
    ///
    /// # Errors
    /// If it cannot be made; on btrfs also if it has content and is no subvolume.
    pub fn prepare(&self, path: &Path) -> Result<()> {
        let io = |action| move |source| QuotaError::Io { action, path: path.to_owned(), source };
        if self.mechanism != Mechanism::Btrfs {
            return std::fs::create_dir_all(path).map_err(io("create"));
        }
        match std::fs::symlink_metadata(path) {
            Ok(_) if is_subvolume(path)? => return Ok(()),
            Ok(_) => std::fs::remove_dir(path).map_err(|source| match source.kind() {
                io::ErrorKind::DirectoryNotEmpty => QuotaError::Folder {
                    path: path.to_owned(),
                    why: "it has content and is no subvolume, and on btrfs only a subvolume has a limit",
                },
                _ => io("make a subvolume of")(source),
            })?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(io("look at")(e)),
        }
        let made = self.tool("btrfs", "btrfs-progs", &["subvolume", "create"], path);
        made.map(drop).map_err(|source| self.tool_error("make a subvolume of", path, source))
    }

    /// Sets the limit of a folder that was [prepared](Quota::prepare), or changes it. What is in the folder already counts on
    /// btrfs; with project quotas only what is made in it from now on.
    ///
    /// # Errors
    /// What a tool says, or that the limit is not in force afterwards.
    pub fn limit(&self, path: &Path, bytes: u64) -> Result<()> {
        let failed = |source| self.tool_error("limit the size of", path, source);
        match self.mechanism {
            Mechanism::Btrfs => {
                self.must_be_subvolume(path)?;
                self.tool("btrfs", "btrfs-progs", &["qgroup", "limit", &bytes.to_string()], path).map_err(failed)?;
            }
            Mechanism::Xfs | Mechanism::Ext4 => {
                let id = match self.project(path)? {
                    Some(id) => id,
                    None => self.give_project(path)?,
                };
                self.limit_project(path, id, bytes.div_ceil(1024))?;
            }
        }
        let found = self.usage(path)?.limit;
        // XFS rounds up to whole blocks of its own.
        if found.is_some_and(|found| (bytes..bytes.saturating_add(64 << 10)).contains(&found)) {
            return Ok(());
        }
        Err(QuotaError::NotInForce { path: path.to_owned(), wanted: bytes, found })
    }

    /// What a folder holds, and may hold.
    ///
    /// # Errors
    /// If it never had a limit, or a tool fails.
    pub fn usage(&self, path: &Path) -> Result<Usage> {
        if self.mechanism == Mechanism::Btrfs {
            self.must_be_subvolume(path)?;
            let args = ["qgroup", "show", "--raw", "--sync", "-r", "-f"];
            let text = self
                .tool("btrfs", "btrfs-progs", &args, path)
                .map_err(|source| self.tool_error("look at the quota of", path, source))?;
            let none = QuotaError::Folder { path: path.to_owned(), why: "btrfs lists no quota group for it" };
            return text.lines().find_map(qgroup_row).ok_or(none);
        }
        let id = self.project(path)?;
        let id = id.ok_or_else(|| QuotaError::Folder { path: path.to_owned(), why: "it has no project id" })?;
        let rows = self.report(path)?;
        // What takes nothing and has no limit is in no report.
        Ok(rows.into_iter().find(|(of, _)| *of == id).map_or(Usage { used: 0, limit: None }, |(_, usage)| usage))
    }

    /// Lifts the limit of a folder; nothing else of it changes. To be called before it is deleted: the limit of a project would
    /// outlive it. (On btrfs a quota group without a subvolume may stay behind, which limits nothing.)
    ///
    /// # Errors
    /// What a tool says. A folder without a limit is no error.
    pub fn remove(&self, path: &Path) -> Result<()> {
        match self.mechanism {
            Mechanism::Btrfs if !is_subvolume(path)? => Ok(()),
            Mechanism::Btrfs => {
                let done = self.tool("btrfs", "btrfs-progs", &["qgroup", "limit", "none"], path);
                done.map(drop).map_err(|source| self.tool_error("lift the limit of", path, source))
            }
            Mechanism::Xfs | Mechanism::Ext4 => match self.project(path)? {
                Some(id) => self.limit_project(path, id, 0),
                None => Ok(()),
            },
        }
    }

    fn tools(&self) -> &'static [(&'static str, &'static str)] {
        match self.mechanism {
            Mechanism::Xfs => &[("xfs_quota", "xfsprogs"), ("xfs_io", "xfsprogs")],
            Mechanism::Ext4 => {
                &[("setquota", "quota"), ("repquota", "quota"), ("chattr", "e2fsprogs"), ("lsattr", "e2fsprogs")]
            }
            Mechanism::Btrfs => &[("btrfs", "btrfs-progs")],
        }
    }

    /// Runs a tool whose last argument is a path.
    fn tool(
        &self,
        tool: &'static str,
        package: &'static str,
        args: &[&str],
        path: &Path,
    ) -> std::result::Result<String, ToolError> {
        // Relative ones could begin with a hyphen, and tools run elsewhere.
        let path = std::path::absolute(path).map_err(|source| ToolError::Spawn { tool, source })?;
        let args: Vec<OsString> = args.iter().map(OsString::from).chain([path.into_os_string()]).collect();
        tool::run(tool, package, &args, LIMIT)
    }

    fn tool_error(&self, action: &'static str, path: &Path, source: ToolError) -> QuotaError {
        QuotaError::Tool { action, path: path.to_owned(), source }
    }

    fn must_be_subvolume(&self, path: &Path) -> Result<()> {
        if is_subvolume(path)? {
            return Ok(());
        }
        let why = "it is no subvolume, and on btrfs only a subvolume has a limit";
        Err(QuotaError::Folder { path: path.to_owned(), why })
    }

    /// The project id that voltool has given to a folder.
    fn project(&self, path: &Path) -> Result<Option<u32>> {
        let id = self.any_project(path)?;
        let Some(parent) = path.parent().filter(|_| PROJECTS.contains(&id)) else { return Ok(None) };
        // One that came from above would limit both together.
        Ok((self.any_project(parent)? != id).then_some(id))
    }

    fn any_project(&self, path: &Path) -> Result<u32> {
        let (tool, args): (_, &[&str]) = match self.mechanism {
            Mechanism::Xfs => (("xfs_io", "xfsprogs"), &["-r", "-c", "lsproj"]),
            _ => (("lsattr", "e2fsprogs"), &["-d", "-p"]),
        };
        let text = self.tool(tool.0, tool.1, args, path);
        let text = text.map_err(|source| self.tool_error("read the project id of", path, source))?;
        project_id(&text)
            .ok_or_else(|| QuotaError::Folder { path: path.to_owned(), why: "its project id cannot be read" })
    }

    /// Gives a folder a project id that nothing else has, which what is made in it inherits.
    fn give_project(&self, path: &Path) -> Result<u32> {
        let mut taken: BTreeSet<u32> = self.report(path)?.into_iter().map(|(id, _)| id).collect();
        for file in ["/etc/projid", "/etc/projects"] {
            taken.extend(named_projects(&std::fs::read_to_string(file).unwrap_or_default()));
        }
        let id = free_project(path, &taken);
        let text = id.to_string();
        let done = match self.mechanism {
            Mechanism::Xfs => {
                self.tool("xfs_io", "xfsprogs", &["-r", "-c", &format!("chproj {text}"), "-c", "chattr +P"], path)
            }
            _ => self.tool("chattr", "e2fsprogs", &["-p", &text, "+P"], path),
        };
        done.map_err(|source| self.tool_error("give a project id to", path, source))?;
        // xfs_io succeeds whatever happens.
        if self.any_project(path)? != id {
            return Err(QuotaError::Folder { path: path.to_owned(), why: "it does not take a project id" });
        }
        Ok(id)
    }

    fn limit_project(&self, path: &Path, id: u32, kib: u64) -> Result<()> {
        let done = match self.mechanism {
            Mechanism::Xfs => {
                let command = format!("limit -p bhard={kib}k {id}");
                self.tool("xfs_quota", "xfsprogs", &["-x", "-c", &command], &self.mount)
            }
            _ => {
                let (id, kib) = (id.to_string(), kib.to_string());
                self.tool("setquota", "quota", &["-P", &id, "0", &kib, "0", "0"], &self.mount)
            }
        };
        done.map(drop).map_err(|source| self.tool_error("set the limit of", path, source))
    }

    /// All projects that take something or have a limit.
    fn report(&self, path: &Path) -> Result<Vec<(u32, Usage)>> {
        let text = match self.mechanism {
            Mechanism::Xfs => self.tool("xfs_quota", "xfsprogs", &["-x", "-c", "report -p -n -N -b"], &self.mount),
            _ => self.tool("repquota", "quota", &["-P", "-n", "-v"], &self.mount),
        };
        let text = text.map_err(|source| self.tool_error("look at the quota of", path, source))?;
        Ok(text.lines().filter_map(project_row).collect())
    }
}

/// Applies the table in the module's documentation to the file system of a folder.
fn mechanism(folder: &Path, mount: &MountPoint) -> Result<Mechanism> {
    let has = |option: &str| mount.options.split(',').any(|other| other == option);
    let at = mount.at.display();
    match &*mount.fstype {
        "btrfs" => Ok(Mechanism::Btrfs),
        "xfs" if has("pqnoenforce") => Err(unsupported(
            folder,
            mount,
            "which counts what projects take but does not limit them",
            format!("run `xfs_quota -x -c 'enable -p' {at}`, and mount it with prjquota instead of pqnoenforce"),
        )),
        "xfs" if has("prjquota") || has("pquota") => Ok(Mechanism::Xfs),
        "xfs" => Err(unsupported(
            folder,
            mount,
            "which is not mounted with prjquota",
            "add prjquota to its options in /etc/fstab (for the root file system: rootflags=prjquota to the kernel's command \
             line), and mount it anew; remounting is not enough"
                .to_owned(),
        )),
        "ext4" if has("prjquota") => Ok(Mechanism::Ext4),
        "ext4" => Err(unsupported(
            folder,
            mount,
            "which is not mounted with prjquota",
            format!(
                "while it is not mounted, run `tune2fs -O project,quota -Q prjquota {}`; then mount it with prjquota",
                mount.source
            ),
        )),
        _ => Err(unsupported(
            folder,
            mount,
            "which has no limits for folders",
            "leave out size=, or have voltool's state on XFS, ext4 or btrfs with quotas".to_owned(),
        )),
    }
}

fn unsupported(folder: &Path, mount: &MountPoint, why: &'static str, hint: String) -> QuotaError {
    QuotaError::Unsupported {
        folder: folder.to_owned(),
        fstype: mount.fstype.clone(),
        mount: mount.at.clone(),
        why,
        hint,
    }
}

/// The root of every subvolume has this inode number, and nothing else on btrfs.
fn is_subvolume(path: &Path) -> Result<bool> {
    let stat = std::fs::symlink_metadata(path);
    let stat = stat.map_err(|source| QuotaError::Io { action: "look at", path: path.to_owned(), source })?;
    Ok(stat.is_dir() && stat.ino() == 256)
}

/// A project id that is not taken: always the same one for a path, as long as it is free.
fn free_project(path: &Path, taken: &BTreeSet<u32>) -> u32 {
    let hash = blake3::hash(path.as_os_str().as_encoded_bytes());
    let [a, b, c, d, ..] = *hash.as_bytes();
    let count = PROJECTS.end - PROJECTS.start;
    let first = u32::from_le_bytes([a, b, c, d]) % count;
    let ids = (0..count).map(|next| PROJECTS.start + (first + next) % count);
    let mut free = ids.filter(|id| !taken.contains(id));
    // There are more of them than a report can hold.
    free.next().unwrap_or(PROJECTS.start + first)
}

/// The ids in `/etc/projid` (`name:id`) or `/etc/projects` (`id:path`).
fn named_projects(text: &str) -> impl Iterator<Item = u32> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.flat_map(|line| line.split(':').take(2)).filter_map(|part| part.trim().parse().ok())
}

/// The id in the output of `lsattr -d -p` (`1073741824 --------------e----P- /path`) or of `xfs_io -c lsproj` (`projid = 42`).
fn project_id(text: &str) -> Option<u32> {
    let text = text.trim();
    text.strip_prefix("projid = ").unwrap_or(text).split_whitespace().next()?.parse().ok()
}

/// A row of `xfs_quota -c 'report -p -n -N -b'` (`#42  8  0  1024  00 [--------]`) or `repquota -P -n` (`#42 -- 8 0 1024 …`): the id, then
/// what is used, the soft and the hard limit in KiB.
fn project_row(line: &str) -> Option<(u32, Usage)> {
    let mut words = line.split_whitespace();
    let id = words.next()?.strip_prefix('#')?.parse().ok()?;
    let mut numbers = words.skip_while(|word| !word.starts_with(|c: char| c.is_ascii_digit()));
    let mut bytes = || numbers.next()?.parse::<u64>().ok().map(|kib| kib.saturating_mul(1024));
    let (used, _soft, hard) = (bytes()?, bytes()?, bytes()?);
    Some((id, Usage { used, limit: Some(hard).filter(|hard| *hard > 0) }))
}

/// A row of `btrfs qgroup show --raw -r`: `0/256  16384  16384  10485760  path`, with `none` where there is no limit.
fn qgroup_row(line: &str) -> Option<Usage> {
    let mut words = line.split_whitespace();
    words.next()?.split_once('/').filter(|(level, id)| *level == "0" && id.parse::<u64>().is_ok())?;
    let used = words.next()?.parse().ok()?;
    let _exclusive: u64 = words.next()?.parse().ok()?;
    let limit = words.next()?;
    Some(Usage { used, limit: if limit == "none" { None } else { Some(limit.parse().ok()?) } })
}

#[cfg(test)]
#[path = "quota_tests.rs"]
mod tests;
