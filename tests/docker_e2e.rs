//! `ls` and `backup` on real engines: Debian's, or the one that `VOLTOOL_TEST_DOCKERD` names. Restores are in `docker_restore.rs`.

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::cli::{Lock, Sandbox};
use support::engine::{BUSYBOX, SCRATCH, WITH_VOLUME};
use support::host::{Host, assert_same};
use voltool::repo::keys::Unlock;
use voltool::repo::{Repository, SnapshotRecord};

const FIELDS: [&str; 17] = [
    "at_risk",
    "changed",
    "compose_project",
    "created_at",
    "driver",
    "files",
    "kind",
    "labels",
    "last_used_at",
    "last_used_by",
    "mountpoint",
    "name",
    "newest_snapshot",
    "options",
    "reason",
    "size_bytes",
    "used_by",
];

fn at_risk(row: &Value) -> (bool, &str) {
    (row["at_risk"].as_bool().expect("a bool"), row["reason"].as_str().expect("a string"))
}

#[test]
fn ls_tells_everything_in_every_situation() {
    let host = Host::bare();
    assert_eq!(host.json(&["ls", "--json"]), json!([]));
    let ran = host.voltool(&["ls"]);
    assert!(ran.err.contains("the engine has no volumes"), "{}", ran.err);

    host.docker(&["volume", "create", "--label", "app=shop", "--label", "empty=", "db"]);
    host.write("db", "orders", "0123456789");
    host.write("db", "more", "01234");
    host.run_container("writer", &["-v", "db:/var/lib/db"]);
    host.run_container("reader", &["-v", "db:/db:ro"]);
    host.docker(&["volume", "create", "vacant"]);
    host.docker(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", "memory"]);
    host.docker(&["volume", "create", "--label", "com.docker.compose.project=blog", "blog_www"]);
    host.write("blog_www", "index.html", &"x".repeat(100));
    host.docker(&["create", "--name", "holder", "-v", "/held", BUSYBOX]);
    host.docker(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--volumes-from",
        "holder",
        BUSYBOX,
        "sh",
        "-c",
        "echo 1 >/held/x",
    ]);
    let held = host.volume_at("holder", "/held");
    host.docker(&[
        "run",
        "--name",
        "short",
        "--network",
        "none",
        "-v",
        "/left",
        BUSYBOX,
        "sh",
        "-c",
        "echo 22 >/left/x",
    ]);
    let dangling = host.volume_at("short", "/left");
    host.docker(&["rm", "short"]);
    host.docker(&["volume", "create", "--label", "voltool.enable=false", "scratch"]);
    host.write("scratch", "x", "4444");

    // Without a repository.
    let rows = host.json(&["ls", "--json"]);
    for row in rows.as_array().expect("an array") {
        let mut fields: Vec<&str> = row.as_object().expect("an object").keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(fields, FIELDS);
        assert_eq!((&row["newest_snapshot"], &row["changed"]), (&Value::Null, &Value::Null), "{row}");
    }
    let db = host.row("db");
    assert_eq!(at_risk(&db), (true, "no repository is configured"));
    assert_eq!((&db["kind"], &db["driver"]), (&json!("named"), &json!("local")));
    assert_eq!((&db["labels"], &db["options"]), (&json!({"app": "shop", "empty": ""}), &json!({})));
    assert_eq!((&db["size_bytes"], &db["files"], &db["compose_project"]), (&json!(15), &json!(2), &Value::Null));
    assert_eq!(Path::new(db["mountpoint"].as_str().expect("a string")), host.mountpoint("db"));
    let id = |name: &str| host.docker(&["inspect", "--format", "{{.Id}}", name]);
    let usage = |name: &str, state: &str, path: &str, rw: bool, data_only: bool| json!({"container_id": id(name), "name": name, "state": state, "path": path, "rw": rw, "data_only": data_only});
    assert_eq!(
        db["used_by"],
        json!([
            usage("reader", "running", "/db", false, false),
            usage("writer", "running", "/var/lib/db", true, false)
        ])
    );
    let row = host.row(&held);
    assert_eq!(
        (&row["kind"], &row["used_by"]),
        (&json!("anonymous"), &json!([usage("holder", "created", "/held", true, true)]))
    );
    let row = host.row(&dangling);
    assert_eq!((&row["kind"], &row["used_by"], at_risk(&row).0), (&json!("anonymous"), &json!([]), true));
    assert_eq!(at_risk(&host.row("vacant")), (false, "empty"));
    assert_eq!(host.row("blog_www")["compose_project"], json!("blog"));
    let memory = host.row("memory");
    assert_eq!(memory["options"], json!({"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}));
    assert!(!at_risk(&memory).0 && at_risk(&memory).1.contains("tmpfs"), "{memory}");
    assert_eq!((&memory["size_bytes"], &memory["files"]), (&Value::Null, &Value::Null));
    // At risk, the larger first; then the others, by name.
    let order = ["blog_www", "db", "scratch", &dangling, &held, "memory", "vacant"];
    assert_eq!(host.order(), order);

    // With one, and nothing in it.
    host.sandbox.init(Lock::Identity).ok();
    assert_eq!(at_risk(&host.row("db")), (true, "no snapshot"));
    assert_eq!(at_risk(&host.row("vacant")), (false, "empty"));
    assert_eq!(host.order(), order);

    // With a snapshot of all but what is opted out.
    host.ok(&["backup"]);
    let db = host.row("db");
    let newest = &db["newest_snapshot"];
    let snapshot = host.sandbox.snapshots().into_iter().find(|s| s["volume"] == "db").expect("a snapshot");
    assert_eq!((&newest["id"], &newest["time"]), (&snapshot["id"], &snapshot["time"]));
    assert!((0..600).contains(&newest["age_seconds"].as_i64().expect("a number")), "{newest}");
    let unchanged = format!("unchanged since snapshot {}", newest["id"].as_str().expect("an id"));
    assert_eq!((at_risk(&db), &db["changed"]), ((false, unchanged.as_str()), &json!(0)));
    assert_eq!(at_risk(&host.row("scratch")), (true, "no snapshot"));
    let vacant = host.row("vacant");
    assert_eq!((at_risk(&vacant).0, vacant["newest_snapshot"].is_object()), (false, true));
    assert_eq!(host.order()[0], "scratch");

    // Changed since: a file more, a file less, another content.
    host.write(&held, "x", "another");
    std::fs::remove_file(host.mountpoint("db").join("more")).expect("removed");
    host.write("db", "new", "0123456789");
    let db = host.row("db");
    assert!(at_risk(&db).0 && at_risk(&db).1.contains("changed since snapshot"), "{db}");
    assert_eq!(db["newest_snapshot"]["id"], *newest.get("id").expect("an id"));
    assert!(at_risk(&host.row(&held)).0);
    assert_eq!(host.order()[..3], ["db", &held, "scratch"]);

    // Without cache and local state nothing else is said.
    let before: Vec<(Value, Value)> = risks(&host);
    host.sandbox.forget_local();
    assert_eq!(risks(&host), before);

    // For people, the same.
    let table = host.ok(&["ls"]);
    for text in [
        "VOLUME",
        "db",
        "writer (running) /var/lib/db",
        "reader (running) /db:ro",
        "data-only",
        "blog",
        "AT RISK: no snapshot",
    ] {
        assert!(table.contains(text), "{text} is not in:\n{table}");
    }
    assert!(table.find("scratch") < table.find("vacant"), "{table}");
}

fn risks(host: &Host) -> Vec<(Value, Value)> {
    let rows = host.json(&["ls", "--json"]);
    rows.as_array().expect("an array").iter().map(|row| (row["name"].clone(), row["reason"].clone())).collect()
}

#[test]
fn ls_without_its_repository_shows_the_volumes_and_fails() {
    let host = Host::new();
    host.volume("db", "x");
    std::fs::rename(&host.sandbox.repo, host.sandbox.path("elsewhere")).expect("renamed");
    let ran = host.voltool(&["ls", "--json"]);
    ran.fails(10, &["repository"]);
    let rows: Value = serde_json::from_slice(&ran.out).expect("JSON");
    assert_eq!((&rows[0]["name"], at_risk(&rows[0])), (&json!("db"), (true, "the repository cannot be read")));
}

#[test]
fn backup_without_names_forgets_no_volume() {
    let host = Host::bare();
    host.sandbox.file("config.toml", "[backup]\nexclude_volumes = [\"build-*\"]\n");
    host.sandbox.init(Lock::Identity).ok();
    let ran = host.voltool(&["backup"]);
    assert!(ran.err.contains("there is no volume to back up"), "{}", ran.err);
    ran.ok();

    host.volume("db", "1");
    host.volume("build-1", "2");
    host.docker(&["volume", "create", "--label", "voltool.enable=false", "scratch"]);
    host.write("scratch", "file", "3");
    host.docker(&["volume", "create", "--label", "voltool.enable=true", "yes"]);
    host.docker(&["create", "--name", "image", WITH_VOLUME]);
    host.docker(&["create", "--name", "holder", SCRATCH, "none"]);
    let (image, held) = (host.volume_at("image", "/image-volume"), host.volume_at("holder", "/data"));
    let rows = host.json(&["backup", "--dry-run", "--json"]);
    assert_eq!(rows.as_array().map(Vec::len), Some(4), "{rows}");
    assert_eq!(host.backed_up(), [""; 0], "a dry run writes nothing");

    host.ok(&["backup"]);
    let mut expected = vec!["db".to_owned(), "yes".to_owned(), image, held];
    expected.sort();
    assert_eq!(host.backed_up(), expected);

    // A volume that is new, and one that is in the machine's memory.
    host.volume("new", "4");
    host.docker(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "memory"]);
    host.ok(&["backup", "--quiet"]);
    expected.push("new".to_owned());
    expected.sort();
    assert_eq!(host.backed_up(), expected);

    // Who names one that is left out otherwise means it.
    host.ok(&["backup", "scratch", "build-1", "scratch"]);
    assert_eq!(host.backed_up().len(), expected.len() + 2);
    host.voltool(&["backup", "memory"]).fails(1, &["memory", "tmpfs"]);
}

#[test]
fn one_volume_that_is_out_of_reach_does_not_keep_the_others_from_being_backed_up() {
    let host = Host::new();
    let share = ["-o", "type=nfs", "-o", "o=addr=192.0.2.1", "-o", "device=:/export"];
    host.docker(&[&["volume", "create"][..], &share, &["share"]].concat());
    host.volume("db", "1");
    let ran = host.voltool(&["backup"]);
    ran.fails_plainly(1, &["share", "nfs", "only while a container uses it", "1 of 2 volumes could not be backed up"]);
    assert_eq!(host.backed_up(), ["db"]);
    let row = host.row("share");
    assert!(at_risk(&row).0 && at_risk(&row).1.contains("only while a container uses it"), "{row}");
    host.voltool(&["backup", "share"]).fails(1, &["share"]);
}

#[test]
fn a_name_that_is_not_there_has_a_nearest_one() {
    let host = Host::new();
    host.volume("postgres-data", "1");
    host.ok(&["backup"]);
    for verb in ["backup", "restore", "snapshots", "export"] {
        host.voltool(&[verb, "postgres-date"]).fails(1, &["postgres-date", "did you mean postgres-data?"]);
    }
    host.voltool(&["backup", "postgres-data", "something-else"]).fails(1, &["something-else", "voltool ls"]);
    assert_eq!(host.sandbox.snapshots().len(), 1, "nothing is backed up if one of the names is wrong");
}

/// The newest record of a volume, read by the library.
fn record(host: &Host, volume: &str) -> SnapshotRecord {
    let text = std::fs::read_to_string(host.sandbox.path("identity.txt")).expect("the identity");
    let line = text.lines().find(|line| line.starts_with("AGE-SECRET-KEY-")).expect("a key");
    let unlock = [Unlock::Identity(line.parse().expect("an identity"))];
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let url = voltool::store::StoreUrl::parse(&host.sandbox.repo).expect("a URL");
        let store = voltool::store::open(&url, &Default::default()).await.expect("opened");
        let repo = Repository::open(store, &unlock, &host.sandbox.folder("other-cache")).await.expect("opened");
        let found = repo.snapshots().await.expect("listed");
        let newest = found.records.iter().rfind(|r| r.volume == volume);
        (**newest.expect("a snapshot")).clone()
    })
}

#[test]
fn the_record_has_what_is_needed_to_rebuild_and_no_secret_gets_out() {
    const SECRET: &str = "s3cr3t-that-nobody-may-see";
    let host = Host::new();
    host.docker(&["volume", "create", "--label", "app=shop", "db"]);
    host.write("db", "file", "content");
    let secret = format!("PASSWORD={SECRET}");
    host.run_container("shop", &["-v", "db:/data", "-v", "/anon", "--env", &secret, "--restart", "on-failure:3"]);
    host.docker(&["create", "--name", "later", "-v", "db:/data:ro", BUSYBOX]);
    let anonymous = host.volume_at("shop", "/anon");

    let mut said = String::new();
    for arguments in [
        &["-vv", "ls"][..],
        &["-vv", "ls", "--json"],
        &["-vv", "backup", "--dry-run"],
        &["-vv", "backup", "--json"],
        &["-vv", "snapshots", "--json"],
        &["-vv", "restore", "db", "--to", "copy", "--json"],
        &["-vv", "restore", "db", "--replace", "--stop-containers"],
    ] {
        let ran = host.voltool(arguments);
        said.push_str(&ran.err);
        said.push_str(&ran.ok());
    }
    assert!(said.contains("shop") && !said.contains(SECRET), "{said}");

    let kept = record(&host, "db").docker.expect("the definitions");
    assert_eq!((kept.volume.name.as_str(), kept.volume.driver.as_str()), ("db", "local"));
    assert_eq!((json!(kept.volume.labels), kept.volume.anonymous), (json!({"app": "shop"}), false));
    let mut names: Vec<&str> = kept.containers.iter().map(|c| c["Name"].as_str().expect("a name")).collect();
    names.sort_unstable();
    assert_eq!(names, ["/later", "/shop"]);
    let shop = kept.containers.iter().find(|c| c["Name"] == "/shop").expect("there");
    assert!(shop["Config"]["Env"].as_array().expect("an array").contains(&json!(secret)), "{}", shop["Config"]);
    assert_eq!(shop["HostConfig"]["RestartPolicy"]["MaximumRetryCount"], json!(3));
    assert!(record(&host, &anonymous).docker.expect("the definitions").volume.anonymous);

    for place in [host.sandbox.repo.as_str(), "cache", "state", "config.toml"] {
        let place = host.sandbox.path(place);
        assert!(place.exists(), "{}", place.display());
        let found =
            Command::new("grep").args(["--recursive", "--text", "--files-with-matches", SECRET]).arg(&place).output();
        let found = found.expect("grep starts");
        assert_eq!((found.status.code(), String::from_utf8_lossy(&found.stdout).as_ref()), (Some(1), ""), "{place:?}");
    }
}

#[test]
fn the_engine_is_found_as_docker_finds_it() {
    let mut host = Host::new();
    host.volume("db", "1");
    let there = host.engine.host();
    let seen = |host: &Host, arguments: &[&str]| host.json(&[arguments, &["ls", "--json"]].concat())[0]["name"] == "db";
    assert!(seen(&host, &[]), "DOCKER_HOST");
    host.sandbox.set("DOCKER_HOST", "unix:///nowhere/docker.sock");
    assert!(seen(&host, &["--host", &there]), "the flag goes first");
    host.voltool(&["ls"]).fails(1, &["/nowhere/docker.sock", "there is no such socket"]);
    host.voltool(&["backup"]).fails(1, &["/nowhere/docker.sock"]);

    // Contexts, made by Docker's own command in this home.
    host.sandbox.set("DOCKER_HOST", "");
    let docker = |arguments: &[&str]| {
        let mut command = Command::new("docker");
        host.sandbox.settle(&mut command);
        let output = command.args(arguments).output().expect("docker starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    docker(&["context", "create", "private", "--docker", &format!("host={there}")]);
    docker(&["context", "create", "gone", "--docker", "host=unix:///gone/docker.sock"]);
    docker(&["context", "use", "private"]);
    assert!(seen(&host, &[]), "the context in use");
    let ran = host.sandbox.run_with("DOCKER_CONTEXT", "gone", ["ls"]);
    ran.fails(1, &["/gone/docker.sock"]);
    docker(&["context", "use", "gone"]);
    host.sandbox.run_with("DOCKER_CONTEXT", "private", ["ls"]).ok();
    host.sandbox.run_with("DOCKER_HOST", &there, ["ls"]).ok();
    host.voltool(&["ls"]).fails(1, &["/gone/docker.sock"]);
    // The configuration file is asked before the environment says nothing.
    let config = std::fs::read_to_string(host.sandbox.path("config.toml")).expect("the configuration");
    host.sandbox.file("config.toml", &format!("{config}\n[engine]\nhost = \"{there}\"\n"));
    assert!(seen(&host, &[]), "the configuration file");
}

/// Starts a backup of much, and returns when it has begun to write packs.
fn begin_backup(sandbox: &Sandbox) -> std::process::Child {
    let mut command = sandbox.command(["backup", "--parallel", "1", "--json"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("voltool starts");
    let begun = Instant::now();
    while sandbox.objects("packs").is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no pack was written");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

/// Content that cannot be compressed, 40 MiB of it.
fn fill(host: &Host, volume: &str) {
    host.docker(&["volume", "create", volume]);
    let root = host.mountpoint(volume);
    let status = Command::new("sh")
        .args(["-c", "for n in 1 2 3 4; do head -c 10485760 /dev/urandom >\"$0/$n\"; done"])
        .arg(&root)
        .status();
    assert!(status.expect("sh starts").success());
}

#[test]
fn an_engine_that_goes_away_during_a_backup() {
    let mut host = Host::new();
    for volume in ["v1", "v2", "v3"] {
        fill(&host, volume);
    }
    let copy = host.keep(&host.mountpoint("v3"), "copy");
    let child = begin_backup(&host.sandbox);
    host.engine.kill();
    // What is backed up was known when it began, and is read from the disk.
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(host.backed_up(), ["v1", "v2", "v3"]);
    host.voltool(&["backup"]).fails(1, &["the Docker engine", "docker.sock"]);
    host.voltool(&["restore", "v3", "--to", "v4"]).fails(1, &["the Docker engine"]);
    // A folder needs no engine.
    let to = host.sandbox.restore("v3", "rescued");
    assert_same(&copy, &to);
    host.engine.restart();
    host.ok(&["backup"]);
}

#[test]
fn a_backup_that_is_killed_is_continued() {
    let host = Host::new();
    for volume in ["v1", "v2", "v3"] {
        fill(&host, volume);
    }
    let copy = host.keep(&host.mountpoint("v3"), "copy");
    let mut child = begin_backup(&host.sandbox);
    child.kill().expect("killed");
    child.wait().expect("it ended");
    host.ok(&["backup"]);
    assert_eq!(host.backed_up(), ["v1", "v2", "v3"]);
    assert_same(&copy, &host.sandbox.restore("v3", "rescued"));
    for volume in ["v1", "v2", "v3"] {
        assert!(!at_risk(&host.row(volume)).0);
    }
}
