//! `voltool audit` on real private engines: what it finds, and that it finds nothing where nothing is wrong.
//!
//! The machine's own timers and mounts must have no say, so all but one run look at a made-up root (`--host-root`).

mod support;

use std::collections::BTreeSet;
use std::io::copy;
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::engine::{BUSYBOX, TestEngine, WITH_VOLUME};
use support::host::Host;

/// [`BUSYBOX`] under a name that says which version it is.
const APP: &str = "voltool-test/app:1.0";
/// The same of [`WITH_VOLUME`].
const DATABASE: &str = "voltool-test/database:1.0";

/// A host with a repository, images with versions, and a made-up root.
struct Audited {
    host: Host,
    root: PathBuf,
}

impl Audited {
    fn new() -> Audited {
        let host = Host::new();
        host.docker(&["tag", BUSYBOX, APP]);
        host.docker(&["tag", WITH_VOLUME, DATABASE]);
        let root = host.sandbox.folder("root");
        let audited = Audited { host, root };
        audited.on_host(Path::new("/etc/passwd"), "root:x:0:0::/root:/bin/sh\n");
        audited.on_host(Path::new("/proc/1/mountinfo"), "22 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw\n");
        audited
    }

    /// Writes a file below the made-up root.
    fn on_host(&self, path: &Path, text: &str) {
        let path = self.root.join(path.strip_prefix("/").expect("an absolute path"));
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    /// Starts a container of an image, as the user 1000 unless the arguments say otherwise, that runs on.
    #[track_caller]
    fn run(&self, name: &str, arguments: &[&str], image: &str) {
        let run = ["run", "-d", "--name", name, "--network", "none", "--stop-signal", "KILL", "--user", "1000:1000"];
        self.host.docker(&[&run, arguments, &[image, "sleep", "600"]].concat());
    }

    /// Runs the audit and returns the exit code and what it printed.
    #[track_caller]
    fn audit(&self, arguments: &[&str]) -> (i32, Value) {
        let root = self.root.to_str().expect("UTF-8");
        let ran = self.host.voltool(&[&["audit", "--json", "--host-root", root], arguments].concat());
        let printed = serde_json::from_slice(&ran.out).unwrap_or_else(|e| panic!("{e}: {}", ran.err));
        (ran.code.expect("it ended"), printed)
    }

    /// Whether this engine's prune takes named volumes.
    fn is_old(&self) -> bool {
        let version = self.host.docker(&["version", "--format", "{{.Server.APIVersion}}"]);
        let minor: u32 = version.strip_prefix("1.").and_then(|minor| minor.parse().ok()).expect("a version");
        minor < 42
    }
}

/// Each finding in a line: `T02 warn volume:db container:web`.
fn lines(report: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let findings = report["findings"].as_array().expect("an array").iter();
    let line = |finding: &Value| {
        let objects = finding["objects"].as_array().expect("an array").iter();
        let objects = objects.map(|object| format!(" {}:{}", text(&object["type"]), text(&object["name"])));
        format!("{} {}{}", text(&finding["id"]), text(&finding["level"]), objects.collect::<String>())
    };
    let mut lines: Vec<String> = findings.map(line).collect();
    lines.sort();
    lines
}

/// The finding of that check whose first object has that name.
#[track_caller]
fn finding<'a>(report: &'a Value, id: &str, name: &str) -> &'a Value {
    let mut findings = report["findings"].as_array().expect("an array").iter();
    let found = findings.find(|finding| finding["id"] == id && finding["objects"][0]["name"] == name);
    found.unwrap_or_else(|| panic!("no {id} on {name} in {report:#}"))
}

/// The checks that could not see everything.
fn skipped(report: &Value) -> BTreeSet<&str> {
    let skipped = report["skipped"].as_array().expect("an array").iter();
    skipped.map(|skipped| skipped["id"].as_str().expect("an id")).collect()
}

#[test]
fn a_clean_engine_has_no_trap_and_what_is_silenced_stays_silent() {
    let at = Audited::new();
    let host = &at.host;
    // The volume is where the image declares it, its owner is the application's user, and there is a snapshot.
    at.run("db", &["-v", "db:/image-volume"], DATABASE);
    host.write("db", "table", "content");
    std::os::unix::fs::chown(host.mountpoint("db").join("table"), Some(1000), Some(1000)).expect("given");
    // Noise in the layer is none.
    host.docker(&[
        "exec",
        "--user",
        "0",
        "db",
        "sh",
        "-c",
        "mkdir -p /run /tmp /etc; echo 1 >/run/db.pid; echo x >/etc/app.conf",
    ]);
    host.docker(&["exec", "--user", "0", "db", "dd", "if=/dev/zero", "of=/tmp/scratch", "bs=1M", "count=3"]);
    host.ok(&["backup"]);
    let engine = match at.is_old() {
        true => vec![format!("T14 warn engine:{}", host.docker(&["info", "--format", "{{.Name}}"]))],
        false => vec![],
    };
    let (code, report) = at.audit(&["--level", "info"]);
    assert_eq!((lines(&report), skipped(&report)), (engine.clone(), BTreeSet::new()), "{report:#}");
    assert_eq!(code, if at.is_old() { 4 } else { 0 });
    assert_eq!(at.audit(&["--level", "info", "--ignore", "t14"]).0, 0);
    assert_eq!(at.audit(&["--only", "T14"]).0, if at.is_old() { 4 } else { 0 });
    // The machine that the tests run on has a say in T14 only.
    let ran = host.voltool(&["audit", "--ignore", "T14", "--level", "info"]);
    assert_eq!((ran.code, ran.out.len()), (Some(0), 0), "{}", ran.err);
    assert!(ran.err.contains("no storage traps found"), "{}", ran.err);

    // Silenced by a label on the volume, on a container, and as ephemeral.
    host.docker(&["volume", "create", "--label", "voltool.audit.ignore=T04,t05", "labelled"]);
    host.write("labelled", "file", "x");
    at.run("quiet", &["--label", "voltool.audit.ignore=T02,T05", "-v", "/anonymous"], APP);
    host.write(&host.volume_at("quiet", "/anonymous"), "file", "x");
    host.docker(&["volume", "create", "--label", "voltool.ephemeral=true", "scratch"]);
    host.write("scratch", "file", "x");
    // The container's label silences what it is an object of: T02, and not T05, which is about the volume.
    let (_, report) = at.audit(&["--ignore", "T14"]);
    assert_eq!(lines(&report), [format!("T05 warn volume:{}", host.volume_at("quiet", "/anonymous"))]);

    // Levels decide the exit code, not what is printed.
    host.docker(&["rm", "-fv", "quiet"]);
    host.volume("orphan", "content");
    let found = ["T04 warn volume:orphan", "T05 warn volume:orphan"];
    for (level, expected) in [("info", 4), ("warn", 4), ("error", 0)] {
        let (code, report) = at.audit(&["--ignore", "T14", "--level", level]);
        assert_eq!((code, lines(&report)), (expected, found.map(str::to_owned).to_vec()), "{level}");
    }
    assert_eq!(lines(&at.audit(&["--only", "t04,T06"]).1), found[..1]);
    let ran = host.voltool(&["audit", "--only", "T99"]);
    assert!(ran.code == Some(2) && ran.err.contains("they are T01 to T16"), "{}", ran.err);

    // People get blocks with the commands, and the count as the reason for the exit code.
    let ran = host.voltool(&["audit", "--ignore", "T14"]);
    ran.fails(4, &["2 storage traps at level warn or above"]);
    let out = String::from_utf8(ran.out).expect("UTF-8");
    for text in ["T04 warn: orphaned volume with data\n", "  on    volume orphan\n", "  fix   voltool backup orphan\n"]
    {
        assert!(out.contains(text), "{text:?} is not in {out}");
    }

    // The configuration: what it ignores, what it calls ephemeral, and how old a snapshot may be.
    let config = std::fs::read_to_string(host.sandbox.path("config.toml")).expect("there");
    let with = |more: &str| {
        let file = host.sandbox.file("other.toml", &format!("{config}\n{more}"));
        let ran = host.sandbox.run_with("VOLTOOL_CONFIG", &file, ["audit", "--json", "--ignore", "T14"]);
        (ran.code, lines(&serde_json::from_slice(&ran.out).unwrap_or_else(|_| serde_json::json!({"findings": []}))))
    };
    assert_eq!(with("[audit]\nignore = [\"T04\"]\n"), (Some(4), vec![found[1].to_owned()]));
    assert_eq!(with("[guard]\nephemeral = [\"orph*\"]\n"), (Some(0), vec![]));
    assert_eq!(with("[audit]\nignore = [\"T99\"]\n").0, Some(2));
    let old = with("[audit]\nmax_age = \"0s\"\n[guard]\nephemeral = [\"orphan\"]\n");
    assert_eq!(old, (Some(4), vec!["T05 warn volume:db".to_owned()]));

    // Without a repository, and with one that cannot be opened, T05 is not passed.
    let none = host.sandbox.file("none.toml", "");
    let ran = host.sandbox.run_with("VOLTOOL_CONFIG", &none, ["audit", "--json", "--only", "T05"]);
    let report: Value = serde_json::from_slice(&ran.out).expect("JSON");
    assert_eq!((ran.code, &report["skipped"][0]["reason"]), (Some(0), &"no repository is configured".into()));
    let wrong = host.sandbox.file("wrong.toml", "repo = \"/nonexistent/repository\"\n");
    let ran = host.sandbox.run_with("VOLTOOL_CONFIG", &wrong, ["audit", "--only", "T05"]);
    ran.fails(10, &["not everything was checked (T05): the repository cannot be read"]);
}

#[test]
fn every_trap_that_an_engine_can_show_is_found_and_nothing_else() {
    let at = Audited::new();
    let host = &at.host;
    let exec = |container: &str, script: &str| host.docker(&["exec", "--user", "0", container, "sh", "-c", script]);
    // T01
    at.run("layer", &[], APP);
    exec("layer", "mkdir -p /srv/db/main && dd if=/dev/zero of=/srv/db/main/table bs=1M count=2");
    // T02
    at.run("anonymous", &["-v", "/srv/data"], APP);
    let anonymous = host.volume_at("anonymous", "/srv/data");
    host.write(&anonymous, "file", "content");
    // T02 and T03
    host.docker(&["create", "--name", "holder", "-v", "/held", APP]);
    let held = host.volume_at("holder", "/held");
    host.write(&held, "file", "content");
    at.run("consumer", &["--volumes-from", "holder"], APP);
    // T04
    host.volume("orphan", "content");
    // T06, as a folder and a single file
    let folder = host.sandbox.folder("uploads");
    at.on_host(&folder.join("picture"), "content");
    let file = PathBuf::from(host.sandbox.file("app.conf", "x"));
    at.on_host(&file, "x");
    let (folder, file) = (folder.to_str().expect("UTF-8"), file.to_str().expect("UTF-8"));
    at.run("binds", &["-v", &format!("{folder}:/uploads"), "-v", &format!("{file}:/app.conf:ro")], APP);
    // T02 and T07: the image declares /image-volume, which holds a file from the start.
    at.run("shadow", &["-v", "meant:/image-volume/data"], DATABASE);
    let hidden = host.volume_at("shadow", "/image-volume");
    // T08
    let compose = |project: &str| {
        let (project, key) = (format!("com.docker.compose.project={project}"), "com.docker.compose.volume=db");
        [project, key.to_owned()]
    };
    for project in ["shop", "store"] {
        let [project_label, key] = compose(project);
        host.docker(&["volume", "create", "--label", &project_label, "--label", &key, &format!("{project}_db")]);
    }
    host.write("shop_db", "file", "content");
    let stopped =
        host.engine.try_docker(&["run", "--name", "stopped", "--network", "none", "-v", "shop_db:/db", APP, "false"]);
    assert_eq!(stopped.status.code(), Some(1));
    // T09
    at.run("floating", &["-v", "pinned:/v"], BUSYBOX);
    // T10, twice
    at.run("root", &["--user", "0", "-v", "rooted:/v"], APP);
    host.write("rooted", "file", "content");
    at.run("stranger", &["-v", "strange:/v"], APP);
    host.write("strange", "file", "content");
    std::os::unix::fs::chown(host.mountpoint("strange").join("file"), Some(4242), Some(4242)).expect("given");
    // T11, and what is meant to be shared
    host.docker(&["volume", "create", "--label", "voltool.shared=true", "meant-shared"]);
    for name in ["one", "two"] {
        at.run(name, &["-v", "both:/v", "-v", "meant-shared:/w", "-v", "read:/r:ro"], APP);
    }
    // T12
    at.run("logger", &["-v", "logs:/v"], APP);
    host.write("logs", "error.log", &"x".repeat(2 << 20));
    host.write("logs", "000001.log", &"x".repeat(1 << 20));
    // T13: nobody listens at that port; and a folder that comes over sshfs, as far as the table of mounts tells.
    let nfs = ["-o", "type=nfs", "-o", "o=addr=127.0.0.1,port=1", "-o", "device=:/export"];
    host.docker(&[&["volume", "create", "--label", "voltool.enable=false"], &nfs[..], &["nfs"]].concat());
    let remote = host.sandbox.folder("remote");
    let remote = remote.to_str().expect("UTF-8");
    let table =
        format!("22 1 254:1 / / rw - ext4 /dev/vda1 rw\n90 22 0:50 / {remote} rw - fuse.sshfs me@there:/x rw\n");
    at.on_host(Path::new("/proc/1/mountinfo"), &table);
    std::fs::create_dir_all(at.root.join(&remote[1..])).expect("made");
    at.run("remote", &["-v", &format!("{remote}:/remote")], APP);
    // T14
    at.on_host(Path::new("/etc/cron.d/tidy"), "0 3 * * * root docker system prune -af --volumes\n");
    // T15: a script is known to the kernel by its own name.
    host.docker(&[
        "run",
        "-d",
        "--name",
        "ssh",
        "--network",
        "none",
        "--stop-signal",
        "KILL",
        "--user",
        "1000:1000",
        "-v",
        "keys:/v",
        "--tmpfs",
        "/t:exec,mode=1777",
        APP,
        "sh",
        "-c",
        "printf '#!/bin/sh\\nsleep 600\\n' >/t/sshd && chmod +x /t/sshd && exec /t/sshd",
    ]);
    host.docker(&[
        "run",
        "-d",
        "--name",
        "port",
        "--network",
        "none",
        "--stop-signal",
        "KILL",
        "--user",
        "1000:1000",
        "--expose",
        "22",
        "-v",
        "keys2:/v",
        APP,
        "sleep",
        "600",
    ]);
    host.ok(&["backup"]);
    // T05
    at.run("unsaved", &["-v", "unsaved:/v"], APP);
    host.write("unsaved", "file", "content");

    let (code, report) = at.audit(&[]);
    let engine = host.docker(&["info", "--format", "{{.Name}}"]);
    let mut expected = vec![
        "T01 warn container:layer".to_owned(),
        format!("T02 warn volume:{anonymous} container:anonymous"),
        format!("T02 warn volume:{held} container:consumer container:holder"),
        format!("T02 warn volume:{hidden} container:shadow"),
        format!("T03 warn volume:{held} container:holder container:consumer"),
        "T04 warn volume:orphan".to_owned(),
        "T05 warn volume:unsaved".to_owned(),
        format!("T06 info path:{file} container:binds"),
        format!("T06 info path:{remote} container:remote"),
        format!("T06 warn path:{folder} container:binds"),
        format!("T07 error container:shadow volume:{hidden} volume:meant"),
        "T08 warn volume:store_db volume:shop_db".to_owned(),
        "T09 info container:floating".to_owned(),
        "T10 info volume:rooted container:root".to_owned(),
        "T10 info volume:strange container:stranger".to_owned(),
        "T11 warn volume:both container:one container:two".to_owned(),
        "T12 warn volume:logs container:logger".to_owned(),
        "T13 error volume:nfs".to_owned(),
        format!("T13 info path:{remote}"),
        format!("T14 warn path:/etc/cron.d/tidy engine:{engine}"),
        "T15 info container:port volume:keys2".to_owned(),
        "T15 warn container:ssh volume:keys".to_owned(),
    ];
    if at.is_old() {
        expected.push(format!("T14 warn engine:{engine}"));
    }
    // Docker lists the users of a volume in an order of its own.
    expected.sort();
    assert_eq!(lines(&report), expected, "{report:#}");
    assert_eq!(code, 4);
    // The content of the volume that does not answer is not known, which is said.
    assert!(skipped(&report).contains("T12") && !skipped(&report).contains("T01"), "{report:#}");

    let detail = |id: &str, name: &str| finding(&report, id, name)["detail"].as_str().expect("a text").to_owned();
    assert_eq!(detail("T01", "layer"), "2.0 MiB in no volume: 2.0 MiB in /srv/db/main (1 file)");
    assert!(detail("T02", &anonymous).ends_with("made by -v /srv/data (or --mount without a source)"));
    assert!(detail("T02", &hidden).contains("made by the image's VOLUME /image-volume"), "{}", detail("T02", &hidden));
    assert_eq!(detail("T03", &held), "1 file, 7 B at /held of holder; consumer with --volumes-from");
    assert_eq!(detail("T05", "unsaved"), "no snapshot; 1 file, 7 B");
    assert!(detail("T12", "logs").ends_with("error.log 2.0 MiB (growing)"), "{}", detail("T12", "logs"));
    assert!(detail("T13", "nfs").starts_with("nfs 127.0.0.1:/export: does not answer: 127.0.0.1, port 1: "));

    // The commands do what they say: the two of T01 that are no comment bring the data into a volume.
    let fix = finding(&report, "T01", "layer")["fix"].as_str().expect("a text");
    let mut shell = std::process::Command::new("sh");
    shell.args(["-e", "-c", fix]).env("DOCKER_HOST", host.engine.host());
    assert!(shell.status().expect("sh starts").success(), "{fix}");
    let copied = host.mountpoint("layer-main").join("table");
    assert_eq!(std::fs::metadata(copied).expect("copied").len(), 2 << 20);

    over_the_network(&at);
}

/// An engine on another machine: what the API tells is found, and the rest is said to be out of reach.
fn over_the_network(at: &Audited) {
    let port = forward(&at.host.engine);
    let root = at.root.to_str().expect("UTF-8");
    let args = ["--host", &format!("tcp://127.0.0.1:{port}"), "audit", "--json", "--host-root", root];
    let ran = at.host.voltool(&args);
    let report: Value = serde_json::from_slice(&ran.out).unwrap_or_else(|e| panic!("{e}: {}", ran.err));
    let found: BTreeSet<String> = lines(&report).iter().map(|line| line[..3].to_owned()).collect();
    let engine: &[&str] = if at.is_old() { &["T14"] } else { &[] };
    let expected: BTreeSet<String> =
        ["T01", "T05", "T06", "T09", "T11", "T13", "T15"].iter().chain(engine).map(|id| (*id).to_owned()).collect();
    assert_eq!(found, expected, "{report:#}");
    let out_of_reach = ["T02", "T03", "T04", "T05", "T06", "T07", "T08", "T10", "T12", "T13", "T14"];
    assert_eq!(skipped(&report), BTreeSet::from(out_of_reach));
    let detail = finding(&report, "T01", "layer")["detail"].as_str().expect("a text");
    assert!(detail.starts_with("up to 2.0 MiB in no volume: 1 path in /srv/db/main"), "{detail}");
}

/// Makes the engine's socket a TCP port, for as long as the test runs.
fn forward(engine: &TestEngine) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let socket = engine.socket();
    std::thread::spawn(move || {
        for mut near in listener.incoming().flatten() {
            let Ok(mut far) = UnixStream::connect(&socket) else { return };
            let (Ok(mut from_far), Ok(mut to_near)) = (far.try_clone(), near.try_clone()) else { return };
            std::thread::spawn(move || {
                let _ = copy(&mut from_far, &mut to_near);
                let _ = to_near.shutdown(Shutdown::Write);
            });
            std::thread::spawn(move || {
                let _ = copy(&mut near, &mut far);
                let _ = far.shutdown(Shutdown::Write);
            });
        }
    });
    port
}
