//! `mount=URL`: mounting the directory elsewhere that holds a volume's content, by the helper for it.
//!
//! The helpers are given exact arguments, without a shell, and no password: [`MountUrl`] has none. They run as voltool does, with
//! root's keys and configuration files. Those for FUSE leave a process behind that *is* the mount: where voltool is a service, it
//! must not be ended together with voltool (`KillMode=process` in a systemd unit).
//!
//! Whoever calls this sees to it that one volume is mounted and unmounted by one thread at a time. Calls block.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::mount_url::{Helper, MountUrl};
use super::tool::{self, ToolError};
use crate::mounts::{MountPoint, mounted_at};

/// How long a mount may take to say that it is there.
const ANSWER: Duration = Duration::from_secs(10);

/// How long an unmount may take before it is forced. It writes what has not been written.
const UNMOUNT: Duration = Duration::from_secs(60);

/// File systems may be mounted on top of each other; so many are taken away.
const MAX_STACKED: usize = 16;

/// Why a directory elsewhere cannot be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackingError {
    /// A helper is missing, or failed.
    #[error("cannot mount {url}: {source}")]
    Mount {
        /// What was to be mounted.
        url: Box<MountUrl>,
        /// What the helper said.
        source: ToolError,
    },
    /// The helper said that all is well, and nothing is mounted.
    #[error("cannot mount {url} at {}: {tool} ended without an error, but nothing is mounted", at.display())]
    Vanished {
        /// What was to be mounted.
        url: Box<MountUrl>,
        /// Where.
        at: PathBuf,
        /// The helper.
        tool: &'static str,
    },
    /// It is mounted, and does not answer.
    #[error("{url} is mounted at {}, but cannot be used: {source}", at.display())]
    Dead {
        /// What is mounted.
        url: Box<MountUrl>,
        /// Where.
        at: PathBuf,
        /// What came of looking at it.
        source: ToolError,
    },
    /// Something else is in the place.
    #[error("cannot mount {url} at {}: {what}", at.display())]
    Occupied {
        /// What was to be mounted.
        url: Box<MountUrl>,
        /// Where.
        at: PathBuf,
        /// What is there.
        what: String,
    },
    /// The machine has no FUSE.
    #[error("cannot mount {url}: there is no /dev/fuse")]
    NoFuse {
        /// What was to be mounted.
        url: Box<MountUrl>,
    },
    /// Unmounting failed, by force too.
    #[error("cannot unmount {}: {source}", at.display())]
    Unmount {
        /// Where.
        at: PathBuf,
        /// What umount said.
        source: ToolError,
    },
    /// The place cannot be made or looked at.
    #[error("cannot {action} {}: {source}", at.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// Where.
        at: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

impl BackingError {
    /// What to do next, if there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            BackingError::Mount { source, .. } | BackingError::Unmount { source, .. } => source.hint(),
            BackingError::Vanished { .. } => Some("the helper's own log says why, often that of the system".to_owned()),
            BackingError::Dead { .. } => {
                Some("see whether the server can be reached; unmounting and mounting again may help".to_owned())
            }
            BackingError::NoFuse { .. } => {
                Some("load the module (`modprobe fuse`); in a container, give it --device /dev/fuse".to_owned())
            }
            _ => None,
        }
    }
}

/// How an unmount ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Unmounted {
    /// Nothing was mounted.
    Nothing,
    /// Everything was written.
    Cleanly,
    /// It had to be forced, and what was not yet written may be lost: why.
    ByForce(String),
}

type Result<T> = std::result::Result<T, BackingError>;

/// A command with its arguments.
#[derive(Debug, PartialEq, Eq)]
struct Argv {
    tool: &'static str,
    package: &'static str,
    args: Vec<OsString>,
}

/// A directory elsewhere, and how to get at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backing {
    url: MountUrl,
}

impl Backing {
    /// The directory at a URL. Nothing is looked at yet.
    pub fn new(url: MountUrl) -> Backing {
        Backing { url }
    }

    /// Whether this machine has what it takes to mount it. The server is not asked.
    ///
    /// # Errors
    /// Which helper is missing, and which package has it.
    pub fn check(&self) -> Result<()> {
        for (tool, package) in needs(self.url.helper) {
            tool::require(tool, package).map_err(|source| BackingError::Mount { url: self.boxed_url(), source })?;
        }
        if is_fuse(self.url.helper) && !Path::new("/dev/fuse").exists() {
            return Err(BackingError::NoFuse { url: self.boxed_url() });
        }
        Ok(())
    }

    /// Whether it is mounted at `at` now, dead or alive.
    ///
    /// # Errors
    /// If the kernel's table cannot be read, or something else is mounted there.
    pub fn is_mounted(&self, at: &Path) -> Result<bool> {
        let found = mounted_at(at).map_err(|source| io_error("look at", at, source))?;
        let Some(found) = found else { return Ok(false) };
        if self.is_ours(&found) {
            return Ok(true);
        }
        Err(self.occupied(at, format!("{} ({}) is mounted there", found.source, found.fstype)))
    }

    /// Mounts it at `at`, which is made if it is not there. Does nothing if it is mounted there and answers; a dead mount is
    /// replaced. `limit` is what the helper is given to do it.
    ///
    /// # Errors
    /// What the helper says, or what is in the place.
    pub fn mount(&self, at: &Path, limit: Duration) -> Result<()> {
        self.check()?;
        if self.is_mounted(at)? {
            match answers(at) {
                Ok(()) => return Ok(()),
                // Its process is gone, or the server does not know it any more: nothing that uses it can go on.
                Err(ToolError::Failed { .. }) => drop(unmount(at)?),
                Err(source) => return Err(self.dead(at, source)),
            }
        }
        std::fs::create_dir_all(at).map_err(|source| io_error("create", at, source))?;
        let mut content = std::fs::read_dir(at).map_err(|source| io_error("look at", at, source))?;
        if content.next().is_some() {
            return Err(self.occupied(at, "it has content of its own, which would be hidden".to_owned()));
        }
        let at = std::fs::canonicalize(at).map_err(|source| io_error("look at", at, source))?;
        let Argv { tool, package, args } = self.argv(&at);
        tool::run(tool, package, &args, limit)
            .map_err(|source| BackingError::Mount { url: self.boxed_url(), source })?;
        // Some helpers go into the background before they have mounted anything.
        let end = Instant::now() + ANSWER;
        while !self.is_mounted(&at)? {
            if Instant::now() >= end {
                return Err(BackingError::Vanished { url: self.boxed_url(), at, tool });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        answers(&at).map_err(|source| {
            // A mount that was never of use is not left behind.
            let _ = unmount(&at);
            self.dead(&at, source)
        })
    }

    /// For errors, which should be small.
    fn boxed_url(&self) -> Box<MountUrl> {
        Box::new(self.url.clone())
    }

    fn dead(&self, at: &Path, source: ToolError) -> BackingError {
        BackingError::Dead { url: self.boxed_url(), at: at.to_owned(), source }
    }

    fn occupied(&self, at: &Path, what: String) -> BackingError {
        BackingError::Occupied { url: self.boxed_url(), at: at.to_owned(), what }
    }

    /// Whether the table's line is what this mounts.
    fn is_ours(&self, found: &MountPoint) -> bool {
        let same_source = || found.source.trim_end_matches('/') == self.source().trim_end_matches('/');
        match self.url.helper {
            Helper::Nfs => matches!(&*found.fstype, "nfs" | "nfs4") && same_source(),
            Helper::Cifs => matches!(&*found.fstype, "cifs" | "smb3") && same_source(),
            Helper::Sshfs => found.fstype == "fuse.sshfs" && same_source(),
            // These name themselves, or write the source in their own way.
            Helper::S3fs => found.fstype == "fuse.s3fs",
            Helper::Rclone => found.fstype == "fuse.rclone",
        }
    }

    /// The source as the helper takes it.
    fn source(&self) -> String {
        let MountUrl { helper, user, host, path, .. } = &self.url;
        match helper {
            Helper::Nfs => format!("{host}:{path}"),
            Helper::Cifs => format!("//{host}{path}"),
            Helper::Sshfs => {
                let user = user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
                format!("{user}{host}:{path}")
            }
            Helper::S3fs if path.is_empty() => host.clone(),
            Helper::S3fs => format!("{host}:{path}"),
            // Two slashes stand for a path from the remote's root: the first only ends its name.
            Helper::Rclone => format!("{host}:{}", path.strip_prefix('/').unwrap_or(path)),
        }
    }

    /// The helper's command line.
    fn argv(&self, at: &Path) -> Argv {
        let helper = self.url.helper;
        let (tool, package) = needs(helper)[0];
        let source = OsString::from(self.source());
        let at = at.as_os_str().to_owned();
        let args = match helper {
            Helper::Nfs | Helper::Cifs => {
                let user = self.url.user.as_ref().filter(|_| helper == Helper::Cifs);
                let user = user.map(|user| ("username", Some(user.clone())));
                let options = self.options(user.into_iter().collect());
                let mut args: Vec<OsString> = vec!["-t".into(), helper.scheme().into()];
                if !options.is_empty() {
                    args.extend(["-o".into(), options.into()]);
                }
                args.extend([source, at]);
                args
            }
            Helper::Sshfs => {
                // Nobody is there whom ssh could ask.
                let options = self.options(vec![("allow_other", None), ("BatchMode", Some("yes".to_owned()))]);
                vec![source, at, "-o".into(), options.into()]
            }
            Helper::S3fs => vec![source, at, "-o".into(), self.options(vec![("allow_other", None)]).into()],
            Helper::Rclone => {
                let flags = self.url.options.iter().map(|(key, value)| match value {
                    Some(value) => format!("--{key}={value}").into(),
                    None => format!("--{key}").into(),
                });
                let own = ["mount".into(), source, at, "--daemon".into(), "--allow-other".into()];
                own.into_iter().chain(flags).collect()
            }
        };
        Argv { tool, package, args }
    }

    /// The value of `-o`: what voltool sets unless the URL says something else, the port, and what the URL says.
    fn options(&self, own: Vec<(&str, Option<String>)>) -> String {
        let given = &self.url.options;
        let port = self.url.port.map(|port| ("port", Some(port.to_string())));
        let own = own.into_iter().filter(|(key, _)| !given.iter().any(|(other, _)| other.eq_ignore_ascii_case(key)));
        let all = own.chain(port).chain(given.iter().map(|(key, value)| (&**key, value.clone())));
        let words = all.map(|(key, value)| match value {
            Some(value) => format!("{key}={value}"),
            None => key.to_owned(),
        });
        words.collect::<Vec<_>>().join(",")
    }
}

/// Unmounts whatever is mounted at `at`; by force, and before it is done, if it cannot be done otherwise. Nobody may be using it: who
/// does keeps what he has open.
///
/// # Errors
/// What `umount` says to being forced.
pub fn unmount(at: &Path) -> Result<Unmounted> {
    let mut done = Unmounted::Nothing;
    for _ in 0..MAX_STACKED {
        let found = mounted_at(at).map_err(|source| io_error("look at", at, source))?;
        // The table's path needs not be worked out by umount, which would hang on a server that is gone.
        let Some(place) = found.map(|found| found.at) else { break };
        let umount = |flags: &[&str]| {
            let flags = flags.iter().map(OsString::from);
            let args: Vec<OsString> = flags.chain(["-c".into(), place.clone().into_os_string()]).collect();
            tool::run("umount", "mount", &args, UNMOUNT)
        };
        match umount(&[]) {
            Ok(_) if matches!(done, Unmounted::Nothing) => done = Unmounted::Cleanly,
            Ok(_) => {}
            Err(why) => {
                umount(&["-f", "-l"]).map_err(|source| BackingError::Unmount { at: at.to_owned(), source })?;
                done = Unmounted::ByForce(why.to_string());
            }
        }
    }
    Ok(done)
}

/// Asks the mounted file system for its size. By a process that can be given up: one that waits for a server waits in the kernel.
fn answers(at: &Path) -> std::result::Result<(), ToolError> {
    let args: [OsString; 4] = ["--file-system".into(), "--format=%T".into(), "--".into(), at.as_os_str().to_owned()];
    tool::run("stat", "coreutils", &args, ANSWER).map(drop)
}

/// The programs that a helper needs with the packages that have them; first the one that is called.
fn needs(helper: Helper) -> &'static [(&'static str, &'static str)] {
    match helper {
        Helper::Nfs => &[("mount", "mount"), ("mount.nfs", "nfs-common")],
        Helper::Cifs => &[("mount", "mount"), ("mount.cifs", "cifs-utils")],
        Helper::Sshfs => &[("sshfs", "sshfs")],
        Helper::S3fs => &[("s3fs", "s3fs")],
        Helper::Rclone => &[("rclone", "rclone"), ("fusermount3", "fuse3")],
    }
}

fn is_fuse(helper: Helper) -> bool {
    matches!(helper, Helper::Sshfs | Helper::S3fs | Helper::Rclone)
}

fn io_error(action: &'static str, at: &Path, source: io::Error) -> BackingError {
    BackingError::Io { action, at: at.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backing(url: &str) -> Backing {
        Backing::new(url.parse().unwrap_or_else(|e| panic!("{url}: {e}")))
    }

    #[test]
    fn helpers_are_given_exact_arguments() {
        for (url, words) in [
            ("nfs://nas/export", &["mount", "-t", "nfs", "nas:/export", "/v/a b"][..]),
            (
                "nfs://[fe80::1]:2050/x%20y/?vers=4.2,hard",
                &["mount", "-t", "nfs", "-o", "port=2050,vers=4.2,hard", "[fe80::1]:/x y/", "/v/a b"],
            ),
            (
                "smb://joe@nas:4450/share/sub?credentials=/root/c",
                &[
                    "mount",
                    "-t",
                    "cifs",
                    "-o",
                    "username=joe,port=4450,credentials=/root/c",
                    "//nas/share/sub",
                    "/v/a b",
                ],
            ),
            ("cifs://nas/share?guest", &["mount", "-t", "cifs", "-o", "guest", "//nas/share", "/v/a b"]),
            (
                "sshfs://joe@nas:2222/srv/$(x)?IdentityFile=/k&batchmode=no",
                &["sshfs", "joe@nas:/srv/$(x)", "/v/a b", "-o", "allow_other,port=2222,IdentityFile=/k,batchmode=no"],
            ),
            ("sftp://nas", &["sshfs", "nas:", "/v/a b", "-o", "allow_other,BatchMode=yes"]),
            ("s3fs://bucket", &["s3fs", "bucket", "/v/a b", "-o", "allow_other"]),
            (
                "s3fs://bucket/a?passwd_file=/p&url=http://127.0.0.1:3900&use_path_request_style",
                &[
                    "s3fs",
                    "bucket:/a",
                    "/v/a b",
                    "-o",
                    "allow_other,passwd_file=/p,url=http://127.0.0.1:3900,use_path_request_style",
                ],
            ),
            (
                "rclone://remote/a/b?vfs-cache-mode=writes&read-only",
                &[
                    "rclone",
                    "mount",
                    "remote:a/b",
                    "/v/a b",
                    "--daemon",
                    "--allow-other",
                    "--vfs-cache-mode=writes",
                    "--read-only",
                ],
            ),
            ("rclone://remote//srv", &["rclone", "mount", "remote:/srv", "/v/a b", "--daemon", "--allow-other"]),
            ("rclone://remote", &["rclone", "mount", "remote:", "/v/a b", "--daemon", "--allow-other"]),
        ] {
            let argv = backing(url).argv(Path::new("/v/a b"));
            let args: Vec<&str> = argv.args.iter().map(|arg| arg.to_str().unwrap()).collect();
            assert_eq!((argv.tool, &args[..]), (words[0], &words[1..]), "{url}");
        }
    }

    #[test]
    fn what_is_mounted_already_is_recognised() {
        let found = |fstype: &str, source: &str| MountPoint {
            at: "/v".into(),
            fstype: fstype.into(),
            source: source.into(),
            options: String::new(),
        };
        assert!(backing("nfs://nas/x/").is_ours(&found("nfs4", "nas:/x")));
        assert!(!backing("nfs://nas/x").is_ours(&found("nfs4", "nas:/y")));
        assert!(!backing("nfs://nas/x").is_ours(&found("ext4", "nas:/x")));
        assert!(backing("smb://nas/x").is_ours(&found("cifs", "//nas/x")));
        assert!(backing("sshfs://joe@nas/x").is_ours(&found("fuse.sshfs", "joe@nas:/x")));
        assert!(!backing("sshfs://nas/x").is_ours(&found("fuse.sshfs", "joe@nas:/x")));
        assert!(backing("s3fs://b").is_ours(&found("fuse.s3fs", "s3fs")));
        let error = backing("nfs://nas/x").is_mounted(Path::new("/proc")).unwrap_err().to_string();
        assert_eq!(error, "cannot mount nfs://nas/x at /proc: proc (proc) is mounted there");
    }
}
