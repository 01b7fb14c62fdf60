//! The guard's own verbs on real engines: Debian's, or the one that `VOLTOOL_TEST_DOCKERD` names.

mod support;

use serde_json::{Value, json};
use support::cli::Ran;
use support::engine::{BUSYBOX, WITH_VOLUME};
use support::host::{Host, assert_same};

/// A host on which prune has no grace period, so that what a test has just made may be pruned.
fn host() -> Host {
    let host = Host::new();
    configure(&host, "grace = \"0s\"");
    host
}

/// Puts lines into `[guard]` of the configuration.
fn configure(host: &Host, lines: &str) {
    let file = host.sandbox.path("config.toml");
    let text = std::fs::read_to_string(&file).expect("read");
    let text = text.split("\n[guard]").next().expect("something").to_owned();
    std::fs::write(&file, format!("{text}\n[guard]\n{lines}\n")).expect("written");
}

/// A data-only container with content in an anonymous volume, and a consumer of it. Returns the volume's name.
fn data_only(host: &Host) -> String {
    host.docker(&["create", "--name", "data", "-v", "/data", BUSYBOX, "true"]);
    let write = "echo precious >/data/file";
    host.docker(&["run", "--name", "app", "--network", "none", "--volumes-from", "data", BUSYBOX, "sh", "-c", write]);
    host.volume_at("data", "/data")
}

/// The row of a plan that is about a volume.
#[track_caller]
fn row(plan: &Value, volume: &str) -> Value {
    let rows = plan["volumes"].as_array().expect("an array");
    rows.iter().find(|row| row["name"] == volume).unwrap_or_else(|| panic!("{volume} is not in {plan}")).clone()
}

#[track_caller]
fn plan(host: &Host, args: &[&str]) -> (Option<i32>, Value) {
    let ran = host.voltool(&[args, &["--plan", "--json"]].concat());
    let plan = serde_json::from_slice(&ran.out).unwrap_or_else(|e| panic!("{e}: {}", ran.err));
    (ran.code, plan)
}

/// Asserts that it was refused with the three ways forward.
#[track_caller]
fn refused(ran: &Ran, texts: &[&str]) {
    ran.fails(4, texts);
    for way in ["--snapshot", "voltool backup ", "--lose "] {
        assert!(ran.err.contains(way), "{way:?} is not in: {}", ran.err);
    }
}

#[test]
fn the_last_consumer_does_not_take_the_data_along() {
    let host = host();
    let volume = data_only(&host);
    let folder = host.mountpoint(&volume);
    // While the other one is there, nothing is lost.
    let (code, one) = plan(&host, &["rm", "-v", "app"]);
    assert_eq!((code, &one["verdict"], &one["volumes"]), (Some(0), &json!("allow"), &json!([])));
    host.ok(&["rm", "-v", "app"]);
    assert!(host.has_volume(&volume));

    // The last one takes it along.
    let (code, last) = plan(&host, &["rm", "-v", "data"]);
    assert_eq!((code, &last["verdict"]), (Some(4), &json!("refuse")));
    let found = row(&last, &volume);
    for (field, expected) in [
        ("kind", json!("anonymous")),
        ("action", json!("destroy")),
        ("verdict", json!("at-risk")),
        ("reason", json!("no snapshot")),
        ("size_bytes", json!(9)),
        ("files", json!(1)),
        ("newest_snapshot", Value::Null),
        ("changed_files", Value::Null),
        ("last_used_by", json!("data at /data")),
    ] {
        assert_eq!(found[field], expected, "{field}: {found}");
    }
    assert_eq!(last["command"], "voltool rm -v data");
    refused(&host.voltool(&["rm", "-v", "data"]), &["'voltool rm -v data' destroys volume ", "nothing was removed"]);
    // Without -v it would be there, and nobody could say whose it was.
    refused(&host.voltool(&["rm", "data"]), &["leaves without a name or an owner"]);
    assert!(host.has_volume(&volume));

    // Backed up, and then changed.
    host.ok(&["backup"]);
    assert_eq!(plan(&host, &["rm", "-v", "data"]).0, Some(0));
    std::fs::write(folder.join("more"), "12345").expect("written");
    let (code, changed) = plan(&host, &["rm", "-v", "data"]);
    let found = row(&changed, &volume);
    assert_eq!((code, &found["verdict"], &found["changed_bytes"]), (Some(4), &json!("at-risk"), &json!(5)));
    // The new file, and the folder that it is in.
    assert_eq!(found["changed_files"], 2, "{found}");
    assert!(found["newest_snapshot"].is_string());

    // With a snapshot first the same command succeeds, and can be undone.
    let copy = host.keep(&folder, "copy");
    host.ok(&["rm", "-v", "data", "--snapshot"]);
    assert!(!host.has_volume(&volume));
    let list = host.ok(&["undo"]);
    assert!(list.contains("voltool rm -v data") && list.contains(&volume[..12]), "{list}");
    host.ok(&["undo", "latest"]);
    assert_same(&copy, &host.mountpoint(&volume));
    assert_eq!(host.volume_at("data", "/data"), volume, "the container is back, on the same volume");
    host.docker(&["run", "--rm", "--network", "none", "--volumes-from", "data", BUSYBOX, "cat", "/data/more"]);
    let left = host.json(&["undo", "--json"]);
    assert_eq!(left.as_array().map(Vec::len), Some(1), "what is back is no longer in the list: {left}");
}

#[test]
fn volumes_are_removed_only_where_their_content_is_elsewhere() {
    let host = host();
    host.volume("db", "precious");
    let remove = ["volume", "rm", "db"];
    refused(&host.voltool(&remove), &["destroys volume db"]);
    // -f gives up nothing.
    refused(&host.voltool(&["volume", "rm", "-f", "db"]), &["destroys volume db"]);
    host.voltool(&["volume", "rm", "db", "--lose", "dbs"])
        .fails(1, &["no volume of exactly that name", "did you mean db?"]);
    assert_eq!(host.read("db", "file"), "precious");

    // What cannot be known to be safe is not.
    host.ok(&["backup", "db"]);
    assert_eq!(plan(&host, &remove).0, Some(0));
    let unreachable = host.sandbox.run_with("VOLTOOL_REPO", "/nonexistent/repository", remove);
    refused(&unreachable, &["destroys volume db"]);
    assert!(unreachable.err.contains("unknown"), "{}", unreachable.err);
    std::fs::rename(host.sandbox.path("identity.txt"), host.sandbox.path("elsewhere")).expect("renamed");
    refused(&host.voltool(&remove), &["destroys volume db"]);
    std::fs::rename(host.sandbox.path("elsewhere"), host.sandbox.path("identity.txt")).expect("renamed");

    // A snapshot whose packs somebody has deleted is none.
    let pack = host.sandbox.objects("packs").into_iter().next().expect("a pack");
    let elsewhere = host.sandbox.path("pack");
    std::fs::rename(&pack, &elsewhere).expect("moved");
    let (code, found) = plan(&host, &remove);
    let found = row(&found, "db");
    assert_eq!((code, &found["verdict"]), (Some(4), &json!("at-risk")));
    assert!(found["reason"].as_str().is_some_and(|why| why.contains("not in the repository")), "{found}");
    std::fs::rename(&elsewhere, &pack).expect("moved back");

    host.ok(&remove);
    assert!(!host.has_volume("db"));
    host.ok(&["undo", "latest"]);
    assert_eq!(host.read("db", "file"), "precious");

    // One of two is at risk: nothing is removed.
    host.volume("other", "precious too");
    refused(&host.voltool(&["volume", "rm", "db", "other"]), &["destroys volume other"]);
    assert!(host.has_volume("db") && host.has_volume("other"));
    // Giving up is for one volume, by its name.
    host.voltool(&["volume", "rm", "db", "other", "--lose", "db"]).fails(4, &["destroys volume other"]);
    host.ok(&["volume", "rm", "db", "other", "--lose", "other"]);
    assert!(!host.has_volume("db") && !host.has_volume("other"));
    host.ok(&["undo", "latest"]);
    assert_eq!(host.read("db", "file"), "precious");
    assert!(host.has_volume("other"), "the volume is back, without what was given up");

    host.voltool(&["volume", "rm", "nothing"]).fails_plainly(1, &["nothing"]);
    host.ok(&["volume", "rm", "-f", "nothing"]);
}

#[test]
fn what_may_go_goes() {
    let host = host();
    host.docker(&["volume", "create", "empty"]);
    host.docker(&["volume", "create", "--label", "voltool.ephemeral=true", "labelled"]);
    host.volume("ci-cache", "x");
    host.volume("other", "x");
    host.write("labelled", "file", "x");
    let srv = host.sandbox.folder("srv");
    std::fs::write(srv.join("page"), "x").expect("written");
    let device = format!("device={}", srv.display());
    host.docker(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "bound"]);
    host.docker(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "memory"]);
    configure(&host, "grace = \"0s\"\nephemeral = [\"ci-*\"]");
    let all = ["volume", "rm", "empty", "labelled", "ci-cache", "bound", "memory", "other"];
    let (code, found) = plan(&host, &all);
    assert_eq!(code, Some(4));
    let verdicts = [
        ("empty", "empty"),
        ("labelled", "ephemeral"),
        ("ci-cache", "ephemeral"),
        ("bound", "safe"),
        ("memory", "safe"),
        ("other", "at-risk"),
    ];
    for (name, verdict) in verdicts {
        assert_eq!(row(&found, name)["verdict"], verdict, "{name}");
    }
    // Who says that yesterday's snapshot is good enough gets what was asked for.
    host.ok(&["backup", "other"]);
    host.write("other", "file", "changed");
    assert_eq!(plan(&host, &all).0, Some(4));
    configure(&host, "grace = \"0s\"\nephemeral = [\"ci-*\"]\nmax_age = \"1h\"");
    let (code, found) = plan(&host, &all);
    assert_eq!((code, &row(&found, "other")["verdict"]), (Some(0), &json!("stale-ok")));
    host.ok(&all);
    assert_eq!(host.docker(&["volume", "ls", "-q"]), "");
    assert_eq!(std::fs::read_to_string(srv.join("page")).expect("still there"), "x");

    host.ok(&["undo", "latest"]);
    assert_eq!(host.read("other", "file"), "x", "as of its snapshot");
    assert_eq!(host.definition("bound")["Options"]["device"], json!(srv));
    assert_eq!(host.definition("labelled")["Labels"]["voltool.ephemeral"], "true");
}

#[test]
fn a_running_container_is_judged_after_it_has_stopped() {
    let host = host();
    host.run_container("writer", &["-v", "/data"]);
    let volume = host.volume_at("writer", "/data");
    host.write(&volume, "file", "precious");
    host.voltool(&["rm", "-v", "writer"]).fails_plainly(1, &["writer"]);
    refused(&host.voltool(&["rm", "-fv", "writer"]), &["destroys volume"]);
    assert!(host.is_running("writer"), "a refusal leaves everything as it was");

    // What is safe now may not be in a moment.
    host.ok(&["backup"]);
    let (code, found) = plan(&host, &["rm", "-fv", "writer"]);
    let found = row(&found, &volume);
    assert_eq!((code, &found["verdict"], &found["written_by"]), (Some(4), &json!("unknown"), &json!("writer")));
    host.ok(&["rm", "-fv", "writer"]);
    assert!(!host.has_volume(&volume));
    host.ok(&["undo", "latest"]);
    assert!(host.is_running("writer"), "it ran when it was removed");
    assert_eq!(host.read(&volume, "file"), "precious");

    // One that writes when it is told to stop: the snapshot is from before that.
    let script = "trap 'echo last words >/data/file; exit' TERM; while :; do sleep 0.1; done";
    host.docker(&["run", "-d", "--name", "late", "--network", "none", "-v", "/data", BUSYBOX, "sh", "-c", script]);
    let late = host.volume_at("late", "/data");
    host.write(&late, "file", "first words");
    host.ok(&["backup"]);
    refused(&host.voltool(&["rm", "-fv", "late"]), &["destroys volume"]);
    assert!(host.is_running("late"), "it was stopped to be judged, and runs again");
    host.write(&late, "file", "first words");
    host.ok(&["rm", "-fv", "late", "--snapshot"]);
    host.ok(&["undo", "latest"]);
    assert_eq!(host.read(&late, "file"), "last words\n", "what it wrote last is in the snapshot");
}

#[test]
fn a_container_that_removes_itself_is_not_stopped_to_be_judged() {
    let host = host();
    host.run_container("brief", &["--rm", "-v", "/data"]);
    let volume = host.volume_at("brief", "/data");
    host.write(&volume, "file", "precious");
    // Stopping it would destroy what is to be snapshotted.
    for args in [&["rm", "-fv", "brief", "--snapshot"][..], &["rm", "-fv", "brief"]] {
        host.voltool(args).fails(4, &[]);
        assert!(host.is_running("brief"));
        assert_eq!(host.read(&volume, "file"), "precious");
        // The second time it is backed up, and would be fine but for what still runs.
        host.ok(&["backup"]);
    }
    host.voltool(&["rm", "-fv", "brief"]).fails(4, &["was started with --rm", "nothing was removed"]);
    assert_eq!(host.read(&volume, "file"), "precious");
    host.voltool(&["restore", &volume, "--replace", "--stop-containers"]).fails(4, &["was started with --rm"]);
    assert_eq!(host.read(&volume, "file"), "precious");
    host.ok(&["rm", "-fv", "brief", "--lose", &volume]);
    assert!(!host.has_volume(&volume));
}

#[test]
fn prune_takes_what_was_shown() {
    let host = host();
    host.volume("named", "precious");
    host.volume("used", "precious");
    host.docker(&["create", "--name", "stopped", "-v", "used:/v", BUSYBOX]);
    let leave = |content: &str| {
        host.docker(&["create", "--name", "brief", "-v", "/anon", BUSYBOX]);
        let name = host.volume_at("brief", "/anon");
        host.write(&name, "file", content);
        host.docker(&["rm", "brief"]);
        name
    };
    let (safe, at_risk) = (leave("safe"), leave("at risk"));
    host.ok(&["backup", &safe]);

    // Anonymous ones only, whatever the engine's own prune means.
    let (code, found) = plan(&host, &["volume", "prune"]);
    let names: Vec<&str> =
        found["volumes"].as_array().expect("rows").iter().filter_map(|r| r["name"].as_str()).collect();
    let mut expected = [safe.as_str(), at_risk.as_str()];
    expected.sort_unstable();
    assert_eq!((code, names.as_slice()), (Some(4), &expected[..]));
    refused(&host.voltool(&["volume", "prune", "-f"]), &["destroys volume"]);
    host.ok(&["backup", &at_risk]);

    // What is applied is what was shown.
    let file = host.sandbox.path("plan.json");
    let file = file.to_str().expect("UTF-8");
    host.ok(&["volume", "prune", "--plan", "--out", file]);
    host.write(&safe, "file", "changed");
    host.voltool(&["apply", file]).fails(4, &["no longer holds", "was safe, and is at-risk", "nothing was removed"]);
    assert!(host.has_volume(&safe) && host.has_volume(&at_risk));
    host.ok(&["backup"]);
    host.ok(&["volume", "prune", "-a", "--plan", "--out", file]);
    let more = leave("more");
    host.ok(&["apply", file]);
    for (name, there) in [(safe.as_str(), false), (&at_risk, false), ("named", false), (&more, true), ("used", true)] {
        assert_eq!(host.has_volume(name), there, "{name}");
    }
    host.voltool(&["apply", file]).fails(4, &["no longer holds"]);
    host.voltool(&["apply", "/nonexistent"]).fails_plainly(1, &["cannot read"]);

    // What was used a moment ago is left alone.
    configure(&host, "grace = \"1h\"");
    host.ok(&["backup"]);
    let ran = host.voltool(&["volume", "prune", "-a"]);
    assert!(ran.err.contains("guard.grace"), "{}", ran.err);
    ran.ok();
    assert!(host.has_volume(&more));
    host.voltool(&["volume", "prune", "--filter", "until=1h"]).fails_plainly(2, &["until"]);
}

#[test]
fn system_prune_does_not_turn_a_data_only_container_into_nothing() {
    let host = host();
    let volume = data_only(&host);
    refused(&host.voltool(&["system", "prune", "--volumes", "-f"]), &["destroys volume"]);
    refused(&host.voltool(&["system", "prune", "-f"]), &["leaves without a name or an owner"]);
    assert!(host.has_volume(&volume));
    assert_eq!(host.docker(&["ps", "-aq"]).lines().count(), 2);
    host.ok(&["system", "prune", "--volumes", "-f", "--snapshot"]);
    assert!(!host.has_volume(&volume));
    assert_eq!(host.docker(&["ps", "-aq"]), "");
    host.ok(&["undo", "latest"]);
    assert_eq!((host.read(&volume, "file").as_str(), host.volume_at("app", "/data")), ("precious\n", volume));
    // Images that nobody uses go with -a only.
    assert!(!host.docker(&["image", "ls", "-q", WITH_VOLUME]).is_empty());
}
