//! voltool as people run it, in a sandbox: a home, a configuration, state and cache of its own, and no engine.

pub mod tree;
pub mod walk;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::mem_s3::{self, Server};
pub use walk::{assert_same_tree, assert_same_tree_by_walk, differences};

/// How a repository is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// `--no-encrypt`.
    None,
    /// The identity that `init` makes.
    Identity,
    /// `--passphrase-file`.
    Passphrase,
}

/// The passphrase of sandboxes that have one. No message may repeat it.
pub const PASSPHRASE: &str = "correct horse battery staple";

/// A place in which voltool runs, and everything that it writes outside of an S3 server. Gone when dropped.
pub struct Sandbox {
    dir: TempDir,
    /// The repository's URL.
    pub repo: String,
    env: Vec<(String, String)>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: Vec<u8>,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// Takes it from what a process left.
    pub fn of(output: std::process::Output) -> Ran {
        let err = String::from_utf8(output.stderr).expect("messages are UTF-8");
        Ran { code: output.status.code(), out: output.stdout, err }
    }

    /// Asserts that all was done, and returns standard output.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.err);
        String::from_utf8(self.out).expect("UTF-8")
    }

    /// Asserts that it failed with that exit code, a message in the way of all messages, and all of `texts` in it; with a hint.
    #[track_caller]
    pub fn fails(&self, code: i32, texts: &[&str]) {
        self.fails_plainly(code, texts);
        assert!(self.err.contains("\nhint: "), "without a hint: {}", self.err);
    }

    /// As [`Ran::fails`], but there may be nothing to hint at.
    #[track_caller]
    pub fn fails_plainly(&self, code: i32, texts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}{}", self.err, String::from_utf8_lossy(&self.out));
        assert!(self.err.lines().any(|line| line.starts_with("voltool: ")), "{}", self.err);
        for text in texts {
            assert!(self.err.contains(text), "{text:?} is not in: {}", self.err);
        }
        assert!(!self.err.contains("panicked") && !self.err.contains(PASSPHRASE), "{}", self.err);
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Sandbox::bare()
    }
}

impl Sandbox {
    /// A sandbox without a repository; [`Sandbox::repo`] is a directory that is not there.
    pub fn bare() -> Sandbox {
        let dir = tempfile::tempdir().expect("a scratch folder");
        let repo = dir.path().join("repository").to_str().expect("UTF-8").to_owned();
        Sandbox { dir, repo, env: Vec::new() }
    }

    /// A sandbox with a new repository in a directory.
    pub fn new(lock: Lock) -> Sandbox {
        let sandbox = Sandbox::bare();
        sandbox.init(lock).ok();
        sandbox
    }

    /// A sandbox whose repository is in the bucket of an S3 server, below `prefix`. Not initialised.
    pub fn on_s3(server: &Server, prefix: &str) -> Sandbox {
        let mut sandbox = Sandbox::bare();
        sandbox.repo = format!("s3://{}/{prefix}", mem_s3::BUCKET);
        for (name, value) in [
            ("AWS_ENDPOINT_URL", server.endpoint().as_str()),
            ("AWS_ACCESS_KEY_ID", mem_s3::ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", mem_s3::SECRET_KEY),
            ("AWS_REGION", "us-east-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ] {
            sandbox.set(name, value);
        }
        sandbox
    }

    /// As [`Sandbox::on_s3`], but on the real server that `VOLTOOL_TEST_S3_ENDPOINT` names, if it does (`tests/garage.sh run` starts one), below
    /// `prefix` and `run`, which is to be another one each time.
    pub fn on_any_s3(server: &Server, prefix: &str, run: &str) -> Sandbox {
        let mut sandbox = Sandbox::on_s3(server, prefix);
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let Some(endpoint) = variable("VOLTOOL_TEST_S3_ENDPOINT") else { return sandbox };
        let bucket = variable("VOLTOOL_TEST_S3_BUCKET").expect("VOLTOOL_TEST_S3_BUCKET is set, too");
        sandbox.repo = format!("s3://{bucket}/{prefix}-{run}");
        sandbox.set("AWS_ENDPOINT_URL", &endpoint);
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"] {
            sandbox.set(name, &variable(name).expect("credentials are set, too"));
        }
        sandbox
    }

    /// Sets a variable for every command from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.unset(name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Unsets a variable that [`Sandbox::set`] or the sandbox has set.
    pub fn unset(&mut self, name: &str) {
        self.env.retain(|(n, _)| n != name);
    }

    /// Runs `init`.
    pub fn init(&self, lock: Lock) -> Ran {
        let passphrase = self.file("passphrase", PASSPHRASE);
        match lock {
            Lock::None => self.run(["--repo", &self.repo, "init", "--no-encrypt"]),
            Lock::Identity => self.run(["--repo", &self.repo, "init"]),
            Lock::Passphrase => self.run(["--repo", &self.repo, "init", "--passphrase-file", &passphrase]),
        }
    }

    /// A path in the sandbox.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a folder in the sandbox.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).expect("made");
        path
    }

    /// Writes a file in the sandbox that only its owner may read, and returns its path.
    pub fn file(&self, name: &str, content: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(self.path(name), content).expect("written");
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o600)).expect("set");
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    /// The command, ready to run, with nothing of the surroundings but `PATH`.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_voltool"));
        self.settle(&mut command);
        command.args(args);
        command
    }

    /// Gives any command the sandbox's environment.
    pub fn settle(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .env("VOLTOOL_CONFIG", self.path("config.toml"))
            .env("VOLTOOL_STATE_DIR", self.path("state"))
            .env("VOLTOOL_CACHE_DIR", self.path("cache"))
            .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
            .envs(self.env.iter().map(|(n, v)| (n, v)))
            .stdin(Stdio::null())
            .current_dir(self.dir.path());
    }

    /// Runs voltool to its end.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ran {
        Ran::of(self.command(args).output().expect("voltool runs"))
    }

    /// Runs it with one variable more.
    pub fn run_with<S: AsRef<OsStr>>(&self, name: &str, value: &str, args: impl IntoIterator<Item = S>) -> Ran {
        Ran::of(self.command(args).env(name, value).output().expect("voltool runs"))
    }

    /// Backs up a folder, asserts that all of it could be read, and returns the row of `--json`.
    #[track_caller]
    pub fn backup(&self, dir: &Path, name: &str) -> serde_json::Value {
        self.backup_with(dir, name, &[])
    }

    /// As [`Sandbox::backup`], with more arguments.
    #[track_caller]
    pub fn backup_with(&self, dir: &Path, name: &str, more: &[&str]) -> serde_json::Value {
        let mut command = self.command(["backup", "--json", "--name", name, "--path"]);
        let ran = Ran::of(command.arg(dir).args(more).output().expect("voltool runs"));
        let rows: serde_json::Value = serde_json::from_str(&ran.ok()).expect("JSON");
        assert_eq!(rows.as_array().map(Vec::len), Some(1), "{rows}");
        rows[0].clone()
    }

    /// Restores into a new folder of that name, and returns the folder. Asserts that everything could be restored.
    #[track_caller]
    pub fn restore(&self, what: &str, name: &str) -> PathBuf {
        self.restore_with(what, name, &[])
    }

    /// As [`Sandbox::restore`], with more arguments.
    #[track_caller]
    pub fn restore_with(&self, what: &str, name: &str, more: &[&str]) -> PathBuf {
        let to = self.path(name);
        let mut command = self.command(["restore", what, "--to-dir"]);
        Ran::of(command.arg(&to).args(more).output().expect("voltool runs")).ok();
        to
    }

    /// The rows of `snapshots --json`.
    #[track_caller]
    pub fn snapshots(&self) -> Vec<serde_json::Value> {
        serde_json::from_str(&self.run(["snapshots", "--json"]).ok()).expect("JSON")
    }

    /// Deletes cache and local state, as the loss of a host does.
    pub fn forget_local(&self) {
        for name in ["cache", "state"] {
            if self.path(name).exists() {
                std::fs::remove_dir_all(self.path(name)).expect("removed");
            }
        }
    }

    /// Bytes of all packs of a repository in a directory.
    pub fn pack_bytes(&self) -> u64 {
        self.objects("packs").iter().map(|path| std::fs::metadata(path).expect("there").len()).sum()
    }

    /// The files of a folder of a repository in a directory, whatever they are called but for temporary ones.
    pub fn objects(&self, folder: &str) -> Vec<PathBuf> {
        fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(dir).into_iter().flatten() {
                let path = entry.expect("read").path();
                let hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b".tmp-"));
                match path.is_dir() {
                    true => walk(&path, found),
                    false if hidden => {}
                    false => found.push(path),
                }
            }
        }
        let mut found = Vec::new();
        walk(&Path::new(&self.repo).join(folder), &mut found);
        found.sort();
        found
    }

    /// Extracts a tar with GNU tar into a new folder, and asserts that tar has nothing to say about it.
    #[track_caller]
    pub fn untar(&self, tar: &Path, name: &str) -> PathBuf {
        let to = self.folder(name);
        let mut command = Command::new("tar");
        self.settle(&mut command);
        command.args(["--extract", "--numeric-owner", "--same-owner", "--preserve-permissions"]);
        command.args(["--acls", "--xattrs"]);
        // Of times before 1970 and in the future tar warns whoever wrote them.
        command
            .args(["--xattrs-include=*", "--warning=no-timestamp"])
            .arg("--file")
            .arg(tar)
            .arg("--directory")
            .arg(&to);
        let output = command.output().expect("tar runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "tar: {}: {said}", output.status);
        to
    }

    /// `voltool export` into a file of the sandbox.
    #[track_caller]
    pub fn export(&self, what: &str, name: &str) -> PathBuf {
        let tar = self.path(name);
        let mut command = self.command(["--quiet", "export", what]);
        command.stdout(std::fs::File::create(&tar).expect("made"));
        Ran::of(command.output().expect("voltool runs")).ok();
        tar
    }

    /// `examples/restore.py` on the repository (a directory) into a file of the sandbox.
    #[track_caller]
    pub fn restore_py(&self, lock: Lock, repo: &Path, what: &str, name: &str) -> PathBuf {
        let tar = self.path(name);
        let mut command = Command::new("python3");
        self.settle(&mut command);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/restore.py"));
        match lock {
            Lock::None => {}
            Lock::Identity => drop(command.arg("--identity").arg(self.path("identity.txt"))),
            Lock::Passphrase => drop(command.arg("--passphrase-file").arg(self.path("passphrase"))),
        }
        command.arg(repo).arg(what).stdout(std::fs::File::create(&tar).expect("made"));
        let output = command.output().expect("python runs");
        assert!(output.status.success(), "restore.py: {}", String::from_utf8_lossy(&output.stderr));
        tar
    }
}

/// Writes every object of an S3 server below `prefix` into a directory, as any S3 client would copy them.
pub fn copy_bucket(server: &Server, prefix: &str, to: &Path) {
    for key in server.s3.keys() {
        if let Some(name) = key.strip_prefix(&format!("{prefix}/")) {
            let path = to.join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, server.s3.content(&key).expect("there")).expect("written");
        }
    }
}

/// Whether the tests may make devices, give files away and set trusted attributes.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
