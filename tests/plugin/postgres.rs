//! Debian's PostgreSQL in a container, on a volume of the driver, under load: daemon and engine come and go, backups run, and the
//! database does not notice the one, and recovers from the other, with all that it has promised to keep.
//!
//! `VOLTOOL_TEST_LONG=1` does it fifty and ten times.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::plugin_host::PluginHost;

const IMAGE: &str = "voltool-test/postgres";
/// The database's user in the container.
const USER: &str = "999:999";
/// What a database logs when it is stopped, killed, or found in the way that a crash leaves it; anything worse is a finding.
const EXPECTED: &[&str] = &[
    "the database system is starting up",
    "the database system is shutting down",
    "the database system is not yet accepting connections",
    "terminating connection due to administrator command",
    "connection to client lost",
];

/// Where Debian has the newest PostgreSQL.
fn programs() -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL (package postgresql) is installed")
        .map(|entry| entry.expect("read").path().join("bin"))
        .filter(|bin| bin.join("pgbench").exists() && bin.join("postgres").exists())
        .collect();
    found.sort();
    found.pop().expect("PostgreSQL (package postgresql) is installed")
}

/// Makes an image of the database: its programs and what they need, and a shell.
fn make_image(host: &PluginHost, bin: &Path) {
    let version = bin.parent().expect("a folder");
    let share = Path::new("/usr/share/postgresql").join(version.file_name().expect("a version"));
    let root = host.host.sandbox.folder("postgres");
    let ldd = Command::new("ldd").args(["postgres", "psql", "pg_checksums"].map(|name| bin.join(name))).output();
    let ldd = String::from_utf8(ldd.expect("ldd").stdout).expect("UTF-8");
    let libraries = ldd.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':'));
    let mut copy = Command::new("cp");
    copy.args(["-rL", "--parents"])
        .args(libraries)
        .args([version, &share, Path::new("/usr/share/zoneinfo")])
        .arg(&root);
    let copied = copy.stderr(Stdio::piped()).output().expect("cp");
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    for folder in ["bin", "etc", "tmp", "data", "sock"] {
        std::fs::create_dir_all(root.join(folder)).expect("made");
    }
    let busybox =
        ["/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static"].into_iter().find(|path| Path::new(path).exists());
    std::fs::copy(busybox.expect("busybox-static is installed"), root.join("bin/sh")).expect("copied");
    std::fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\npostgres:x:999:999::/tmp:/bin/sh\n")
        .expect("written");
    let program = Path::new("/usr/local/bin");
    std::fs::create_dir_all(root.join("usr/local")).expect("made");
    std::os::unix::fs::symlink(bin, root.join(program.strip_prefix("/").expect("a path"))).expect("made");
    let mut tar =
        Command::new("tar").arg("-C").arg(&root).args(["-c", "."]).stdout(Stdio::piped()).spawn().expect("tar");
    let mut import =
        host.host.engine.docker_command(&["import", "--change", "ENV PATH=/usr/local/bin:/bin", "-", IMAGE]);
    let imported = import.stdin(tar.stdout.take().expect("piped")).output().expect("docker");
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    assert!(tar.wait().expect("it ends").success());
    std::fs::remove_dir_all(root).expect("removed");
}

/// A database's programs, and where it listens.
#[derive(Clone)]
struct Database {
    bin: PathBuf,
    socket: PathBuf,
}

impl Database {
    fn run(&self, program: &str, args: &[&str]) -> Output {
        let mut command = Command::new(self.bin.join(program));
        command.arg("-h").arg(&self.socket).args(["-U", "postgres"]).args(args).stdin(Stdio::null());
        command.env_remove("PGDATA").current_dir(&self.socket).output().expect("it starts")
    }

    #[track_caller]
    fn ok(&self, program: &str, args: &[&str]) -> String {
        let output = self.run(program, args);
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    #[track_caller]
    fn query(&self, sql: &str) -> String {
        self.ok("psql", &["-X", "-A", "-t", "-d", "bench", "-c", sql])
    }

    fn wait(&self, host: &PluginHost) {
        host.wait("the database answers", || {
            self.run("psql", &["-X", "-d", "postgres", "-c", "select 1"]).status.success()
        });
    }

    /// Asserts that everything in it is whole, and fits together, and that nothing is missing of what was acknowledged.
    #[track_caller]
    fn check(&self, acknowledged: u64) {
        let sums = self.query(
            "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history), \
             (select sum(bbalance) from pgbench_branches) = (select sum(delta) from pgbench_history), \
             (select sum(tbalance) from pgbench_tellers) = (select sum(delta) from pgbench_history)",
        );
        assert_eq!(sums, "t|t|t");
        let there: u64 = self.query("select count(*) from pgbench_history").parse().expect("a number");
        assert!(there >= acknowledged, "{acknowledged} transactions were acknowledged, {there} are there");
        self.ok("pg_amcheck", &["--install-missing", "--heapallindexed", "-d", "bench"]);
        assert!(self.ok("pg_dumpall", &[]).contains("PostgreSQL database cluster dump complete"));
    }
}

/// Lets clients work until it is stopped; whatever ends their connections, they come again. Counts what was acknowledged to them.
struct Load {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl Load {
    fn begin(database: &Database) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, database) = (stop.clone(), database.clone());
        let thread = std::thread::spawn(move || {
            let mut acknowledged = 0;
            while !stopped.load(Ordering::SeqCst) {
                database.run("pgbench", &["-n", "-c", "4", "-T", "2", "-l", "--log-prefix", "pgbench", "bench"]);
                // One line for each transaction that a client was told of.
                for entry in std::fs::read_dir(&database.socket).expect("read") {
                    let path = entry.expect("read").path();
                    if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"pgbench.")) {
                        acknowledged += std::fs::read_to_string(&path).expect("read").lines().count() as u64;
                        std::fs::remove_file(path).expect("removed");
                    }
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            acknowledged
        });
        Load { stop, thread }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("no panic")
    }
}

fn pause(most: u64) {
    std::thread::sleep(Duration::from_millis(u64::from(rand::random::<u16>()) % most));
}

fn backup(host: &PluginHost) -> Child {
    let mut command = host.host.sandbox.command(["backup", "pg"]);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("voltool starts")
}

fn start(host: &PluginHost, name: &str, socket: &Path) {
    let bind = format!("{}:/sock", socket.display());
    let volume = format!("{name}:/data");
    let run = ["run", "-d", "--name", name, "--restart", "always", "--network", "none", "--user", USER];
    // A fast shutdown, which does not wait for clients.
    let how = ["--stop-signal", "INT", "-v", &bind, "-v", &volume, IMAGE];
    let postgres =
        ["postgres", "-D", "/data/db", "-k", "/sock", "-c", "listen_addresses=", "-c", "shared_buffers=32MB"];
    host.docker(&[&run[..], &how, &postgres, &["-c", "jit=off", "-c", "dynamic_shared_memory_type=mmap"]].concat());
}

#[track_caller]
fn log_is_clean(host: &PluginHost, container: &str) {
    let output = host.host.engine.try_docker(&["logs", container]);
    let log = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(log.contains("ready to accept connections"), "{log}");
    let bad = |line: &&str| {
        let loud =
            ["ERROR", "FATAL", "PANIC", "WARNING", "corrupt", "invalid page"].iter().any(|word| line.contains(word));
        loud && !EXPECTED.iter().any(|text| line.contains(text))
    };
    let found: Vec<&str> = log.lines().filter(bad).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_database_does_not_notice() {
    let long = std::env::var_os("VOLTOOL_TEST_LONG").is_some();
    let (daemons, engines) = if long { (50, 10) } else { (5, 2) };
    let mut host = PluginHost::new();
    host.host.sandbox.set("VOLTOOL_TEST_QUIET", "2");
    host.kill_daemon();
    host.start_daemon();
    let bin = programs();
    make_image(&host, &bin);
    let socket = host.host.sandbox.folder("sock");
    let database = Database { bin, socket: socket.clone() };
    std::fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("set");

    host.create("pg", &["uid=999", "gid=999", "mode=0700"]);
    let once = |volume: &str, command: &[&str]| {
        let volume = format!("{volume}:/data");
        host.docker(&[&["run", "--rm", "--network", "none", "--user", USER, "-v", &volume, IMAGE], command].concat())
    };
    once("pg", &["initdb", "-D", "/data/db", "-k", "--no-locale", "-E", "UTF8", "--auth=trust", "-U", "postgres"]);
    start(&host, "pg", &socket);
    database.wait(&host);
    database.ok("createdb", &["bench"]);
    database.ok("pgbench", &["-i", "-q", "-s", "2", "bench"]);

    let load = Load::begin(&database);
    let (mut backups, mut restarted, mut said) = (0, 0, String::new());
    for round in 0..daemons {
        let running = backup(&host);
        pause(800);
        host.kill_daemon();
        pause(300);
        host.start_daemon();
        // Spread over the rounds: stopped or killed, with and without its containers.
        if (round + 1) * engines / daemons > restarted {
            let live = restarted % 2 == 0;
            let file = host.host.engine.data_root().with_file_name("daemon.json");
            std::fs::write(file, format!("{{\"live-restore\": {live}}}")).expect("written");
            if restarted % 3 == 2 {
                host.host.engine.kill();
            }
            host.host.engine.restart();
            restarted += 1;
            host.wait("the container runs", || host.host.is_running("pg"));
        }
        database.wait(&host);
        let status = host.status("pg");
        assert!(status["mounts"].as_u64().is_some_and(|count| count >= 1), "{status}");
        // It may have met the end of the engine.
        let ended = running.wait_with_output().expect("it ends");
        // Files of a running database change while they are read; the snapshot says so.
        backups += u32::from(matches!(ended.status.code(), Some(0 | 3)));
        said += &format!("{}: {}", ended.status, String::from_utf8_lossy(&ended.stderr));
    }
    assert_eq!(restarted, engines);
    assert!(host.fails(&["volume", "rm", "pg"]).contains("pg"));
    let acknowledged = load.end();
    assert!(acknowledged > 100 && backups > 0, "{acknowledged} transactions, {backups} backups: {said}");
    database.check(acknowledged);

    // Stopped, it is whole on the disk, and nobody uses the volume any more, however often that was not said.
    host.docker(&["stop", "pg"]);
    log_is_clean(&host, "pg");
    let check = [
        "run",
        "--rm",
        "--network",
        "none",
        "--user",
        USER,
        "-v",
        "pg:/data",
        IMAGE,
        "pg_checksums",
        "-c",
        "-D",
        "/data/db",
    ];
    assert!(host.docker(&check).contains("Bad checksums:  0"));
    host.docker(&["rm", "pg"]);
    let begin = Instant::now();
    while !host.host.engine.try_docker(&["volume", "rm", "pg"]).status.success() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{}", host.log());
        std::thread::sleep(Duration::from_millis(500));
    }

    // From the snapshot that was taken then.
    host.create("pg2", &["from=pg"]);
    start(&host, "pg2", &socket);
    database.wait(&host);
    database.check(acknowledged);
    host.docker(&["stop", "pg2"]);
    log_is_clean(&host, "pg2");
}
