//! A private Docker engine per test.
//!
//! [`TestEngine::start`] runs a `dockerd` that shares nothing with the machine's own: its data, its sockets, its plugins and its
//! network are its own, and it goes away with the value (or with the test process, however that ends). Its volumes' mountpoints
//! are plain paths that the test can read. Nothing is pulled: the images are made from the machine's static busybox.
//!
//! Needs root, `unshare` (util-linux), a static `busybox` (Debian: busybox-static), the `docker` command, and a `dockerd`:
//! `VOLTOOL_TEST_DOCKERD` names it, else it is the one in `PATH`. What is missing fails the test; nothing is skipped.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// An image with a shell: `/bin/busybox` and every applet's name. Its default command is `sh`.
pub const BUSYBOX: &str = "voltool-test/busybox";
/// The same with `VOLUME /image-volume`, and the file `from-image` in there.
pub const WITH_VOLUME: &str = "voltool-test/with-volume";
/// `FROM scratch` with `VOLUME /data` and no file at all: nothing in it can be started.
pub const SCRATCH: &str = "voltool-test/scratch";

/// How long an engine may take to answer. Generous: the machine may be building at the same time.
const START_LIMIT: Duration = Duration::from_secs(90);

/// A private engine; see the module's documentation.
#[derive(Debug)]
pub struct TestEngine {
    dir: PathBuf,
    supervisor: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl TestEngine {
    /// Starts an engine, waits until it answers, and gives it its images.
    ///
    /// # Panics
    /// If anything needed is missing, or the engine does not come up; the message has the engine's log.
    pub fn start() -> TestEngine {
        TestEngine::start_with(&[])
    }

    /// As [`TestEngine::start`], with further arguments for `dockerd`.
    pub fn start_with(arguments: &[&str]) -> TestEngine {
        assert!(rustix::process::geteuid().is_root(), "tests with a private Docker engine need root: run them as root");
        let dockerd = dockerd();
        let dir = scratch_dir();
        for name in ["plugins", "cli", "data"] {
            std::fs::create_dir(dir.join(name)).expect("a folder in the engine's scratch folder");
        }
        // Not `--config-file /etc/...`: the machine's own settings are none of this engine's business.
        std::fs::write(dir.join("daemon.json"), "{}").expect("an empty configuration file");
        let path = |name: &str| dir.join(name).to_str().expect("a UTF-8 path").to_owned();
        let name = dir.file_name().and_then(|name| name.to_str()).expect("a UTF-8 name");

        let mut command = Command::new("unshare");
        command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "bash"]);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/supervisor.sh"));
        command.arg(&dir).arg(dockerd);
        command.args([
            "--config-file",
            &path("daemon.json"),
            "--data-root",
            &path("data"),
            "--exec-root",
            &path("exec"),
        ]);
        command.args(["--pidfile", &path("pid"), "-H", &format!("unix://{}", path("docker.sock"))]);
        // The engine makes its cgroups on the machine's tree; named like this they can be told apart and removed.
        command.args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", &format!("/{name}")]);
        command.args(["--bridge=none", "--iptables=false", "--ip-forward=false"]);
        command.args(arguments);
        for variable in ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "MODERN_ENGINE_NETNS"] {
            command.env_remove(variable);
        }
        // A group of its own: Ctrl-C ends the test, whose end then ends the engine and cleans up.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut supervisor = command.spawn().expect("unshare (package util-linux) starts");
        let commands = supervisor.stdin.take();
        let answers = BufReader::new(supervisor.stdout.take().expect("stdout is piped"));
        let mut engine = TestEngine { dir, supervisor, commands, answers };
        engine.expect_answer("ready");
        engine.up();
        engine.load_images();
        engine
    }

    /// The engine's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// The engine's address, as for `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The engine's data folder.
    pub fn data_root(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Where the engine looks for the sockets of plugins (its `/run/docker/plugins`).
    pub fn plugins(&self) -> PathBuf {
        self.dir.join("plugins")
    }

    /// The engine's own network, where its TCP addresses are, as `nsenter --net=` takes it.
    pub fn network(&self) -> PathBuf {
        // The supervisor's process is the only child of `unshare`.
        let unshare = self.supervisor.id();
        let children =
            std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).expect("unshare runs");
        PathBuf::from(format!("/proc/{}/ns/net", children.trim()))
    }

    /// What the engine has logged so far.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.dir.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Runs the docker command on this engine and returns what it printed, without the newline at the end.
    ///
    /// # Panics
    /// If the command fails; the message has what it said.
    pub fn docker(&self, arguments: &[&str]) -> String {
        let output = self.try_docker(arguments);
        assert!(
            output.status.success(),
            "docker {} failed with {}: {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        String::from_utf8(output.stdout).expect("docker prints UTF-8").trim_end().to_owned()
    }

    /// Runs the docker command on this engine, whether it succeeds or not.
    pub fn try_docker(&self, arguments: &[&str]) -> Output {
        self.docker_command(arguments).output().expect("the docker command (package docker.io) starts")
    }

    /// The docker command for this engine, not started yet.
    pub fn docker_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        for variable in ["DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_API_VERSION"]
        {
            command.env_remove(variable);
        }
        // Docker's newer commands look for a builder that may not be installed; the engine's own one is always there.
        command.env("DOCKER_HOST", self.host()).env("DOCKER_CONFIG", self.dir.join("cli")).env("DOCKER_BUILDKIT", "0");
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Kills the engine as a crash would. Its containers keep running.
    pub fn kill(&mut self) {
        self.send("kill");
        self.expect_answer("stopped");
    }

    /// Stops the engine in an orderly way, and with it its containers.
    pub fn stop(&mut self) {
        self.send("stop");
        self.expect_answer("stopped");
    }

    /// Starts the engine again after [`TestEngine::kill`] or [`TestEngine::stop`], on the same data; stops it first if it runs.
    pub fn restart(&mut self) {
        self.stop();
        self.up();
    }

    fn up(&mut self) {
        self.send("start");
        self.expect_answer("started");
        let begin = Instant::now();
        while !self.answers_ping() {
            self.send("check");
            if self.answer() != "running" {
                panic!("the private engine ended while it started; its log:\n{}", self.log());
            }
            if begin.elapsed() > START_LIMIT {
                panic!("the private engine does not answer after {START_LIMIT:?}; its log:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn answers_ping(&self) -> bool {
        let ping = || -> std::io::Result<bool> {
            let mut stream = UnixStream::connect(self.socket())?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n")?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            Ok(answer.starts_with(b"HTTP/1.1 200"))
        };
        ping().unwrap_or(false)
    }

    fn send(&mut self, command: &str) {
        let commands = self.commands.as_mut().expect("open until dropped");
        writeln!(commands, "{command}").expect("the engine's supervisor takes commands");
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the engine's supervisor answers");
        line.trim_end().to_owned()
    }

    fn expect_answer(&mut self, wanted: &str) {
        let answer = self.answer();
        assert_eq!(answer, wanted, "the engine's supervisor is in trouble; the engine's log:\n{}", self.log());
    }

    fn load_images(&self) {
        let import = |tar: &[u8], arguments: &[&str]| {
            let mut child = self
                .docker_command(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("the docker command (package docker.io) starts");
            // A failure to write shows in what the command says.
            let _ = child.stdin.take().expect("stdin is piped").write_all(tar);
            let output = child.wait_with_output().expect("docker ends");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "docker {} failed: {said}", arguments.join(" "));
        };
        let image = busybox_tar();
        import(image, &["import", "--change", "CMD [\"sh\"]", "-", BUSYBOX]);
        import(image, &["import", "--change", "CMD [\"sh\"]", "--change", "VOLUME /image-volume", "-", WITH_VOLUME]);
        let recipe = tar_of(&[("Dockerfile", b"FROM scratch\nVOLUME /data\n")], &[]);
        import(&recipe, &["build", "--quiet", "--tag", SCRATCH, "-"]);
    }
}

impl Drop for TestEngine {
    fn drop(&mut self) {
        // The supervisor ends the engine and cleans up when its stdin ends.
        drop(self.commands.take());
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(60) {
            match self.supervisor.try_wait() {
                Ok(Some(_)) => break,
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        // Both do nothing after an orderly end. The kill takes the whole namespace along, mounts included.
        let _ = self.supervisor.kill();
        let _ = self.supervisor.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The engine's program, after a first call of it: the newer engine of `tests/engine` builds itself then.
fn dockerd() -> &'static Path {
    static DOCKERD: OnceLock<PathBuf> = OnceLock::new();
    DOCKERD.get_or_init(|| {
        let named = std::env::var_os("VOLTOOL_TEST_DOCKERD").filter(|value| !value.is_empty());
        let program = PathBuf::from(named.unwrap_or_else(|| "dockerd".into()));
        let output = Command::new(&program).arg("--version").output().unwrap_or_else(|error| {
            panic!(
                "tests with a private Docker engine need {} ({error}): install docker.io, or set VOLTOOL_TEST_DOCKERD",
                program.display()
            )
        });
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} --version failed: {said}", program.display());
        program
    })
}

/// A new folder with a short path: a socket's path has at most 107 bytes, and the engine makes some of its own in there.
fn scratch_dir() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let base = std::fs::canonicalize(std::env::temp_dir()).expect("a folder for temporary files");
    // The engine's /run is its own.
    let base = if base.starts_with("/run") || base.as_os_str().len() > 40 { PathBuf::from("/tmp") } else { base };
    loop {
        let name = format!("voltool-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = base.join(name);
        match std::fs::create_dir(&dir) {
            Ok(()) => return dir,
            // Left by an earlier process of the same number.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
            Err(error) => panic!("cannot make {}: {error}", dir.display()),
        }
    }
}

/// The file system of [`BUSYBOX`], made once per process.
fn busybox_tar() -> &'static [u8] {
    static TAR: OnceLock<Vec<u8>> = OnceLock::new();
    TAR.get_or_init(|| {
        let candidates = ["/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static"];
        let program = candidates.iter().find_map(|path| std::fs::read(path).ok()).unwrap_or_else(|| {
            panic!("tests with a private Docker engine need a static busybox: install busybox-static")
        });
        let listed = Command::new("busybox").arg("--list").output().expect("busybox --list");
        let applets = String::from_utf8(listed.stdout).expect("applets have plain names");
        let links: Vec<String> =
            applets.lines().filter(|name| *name != "busybox").map(|name| format!("bin/{name}")).collect();
        let links: Vec<(&str, &str)> = links.iter().map(|path| (path.as_str(), "busybox")).collect();
        tar_of(&[("bin/busybox", &program), ("image-volume/from-image", b"from the image\n")], &links)
    })
}

/// A tar of executable files and symbolic links, all of root.
fn tar_of(files: &[(&str, &[u8])], links: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let header = |kind: tar::EntryType, size: usize| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(u64::try_from(size).expect("a size"));
        header
    };
    for (path, data) in files {
        builder.append_data(&mut header(tar::EntryType::Regular, data.len()), path, *data).expect("a tar in memory");
    }
    for (path, target) in links {
        builder.append_link(&mut header(tar::EntryType::Symlink, 0), path, target).expect("a tar in memory");
    }
    builder.into_inner().expect("a tar in memory")
}
