//! `voltool plugin …` and `voltool undo` beside a real engine: what the engine forgets is found, told again, and never lost.

mod support;

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::cli::Sandbox;
use support::plugin_host::{PluginHost, is_empty};

/// Has the engine forget a volume, as `docker compose down -v` does.
#[track_caller]
fn forget(host: &PluginHost, name: &str) {
    assert!(host.fails(&["volume", "rm", "-f", name]).contains("is kept"), "it was made with on-remove=refuse");
}

#[track_caller]
fn create_labelled(host: &PluginHost, name: &str) {
    let label = format!("name={name}");
    host.docker(&["volume", "create", "-d", "voltool", "-o", "on-remove=refuse", "--label", &label, name]);
    host.write(name, "file", name);
    // The driver is not told of labels: it asks.
    host.wait("the driver knows the label", || row(host, name)["labels"]["name"] == name);
}

#[track_caller]
fn row(host: &PluginHost, name: &str) -> Value {
    let status: Value = host.host.json(&["plugin", "status", "--json"]);
    let found = status["volumes"].as_array().expect("an array").iter().find(|row| row["name"] == name).cloned();
    found.unwrap_or_else(|| panic!("{name} is not in {status}"))
}

#[track_caller]
fn labels_and_options(host: &PluginHost, name: &str) -> String {
    host.docker(&["volume", "inspect", "--format", "{{json .Labels}} {{json .Options}}", name])
}

#[test]
fn what_the_engine_forgot_is_named_and_told_again() {
    let host = PluginHost::new();
    for name in ["kept", "lost", "seen", "used", "hidden"] {
        create_labelled(&host, name);
    }
    host.host.run_container("holder", &["-v", "used:/v"]);
    host.docker(&["stop", "holder"]);
    host.voltool(&["plugin", "heal"]).ok();
    for name in ["lost", "seen", "hidden"] {
        forget(&host, name);
    }
    // Whoever asks for it by name lets the engine find it again, without labels.
    assert_eq!(labels_and_options(&host, "seen"), "null null");
    host.docker(&["volume", "create", "hidden"]);

    let said = host.voltool(&["plugin", "status"]);
    assert!(said.err.contains("the engine has forgotten labels and options of lost, seen;"), "{}", said.err);
    assert!(said.err.contains("volume hidden is hidden by another one of that name (driver local)"), "{}", said.err);
    let out = said.ok();
    assert!(out.contains("knows the driver voltool") && out.contains("HIDDEN"), "{out}");
    assert_eq!(row(&host, "lost")["known"]["engine"], "forgotten");
    assert_eq!(row(&host, "kept")["known"]["engine"], "known");

    let dry = host.voltool(&["plugin", "heal", "--dry-run"]);
    dry.fails(1, &["would tell the engine of volume lost again", "volume hidden is hidden"]);
    assert_eq!(row(&host, "lost")["known"]["engine"], "forgotten", "nothing was done");

    let healed = host.voltool(&["plugin", "heal"]);
    healed.fails(
        1,
        &["the engine knows volume lost again", "the engine knows volume seen again", "volume hidden is hidden"],
    );
    for name in ["kept", "lost", "seen", "used"] {
        let expected = format!("{{\"name\":\"{name}\"}} {{\"on-remove\":\"refuse\"}}");
        assert_eq!(labels_and_options(&host, name), expected);
        assert_eq!(host.read(name, "file"), name);
    }
    assert_eq!(
        host.docker(&["volume", "inspect", "--format", "{{.Driver}}", "hidden"]),
        "local",
        "nothing was removed"
    );
    assert_eq!(host.read("hidden", "file"), "hidden");

    // What the hint says to do.
    host.voltool(&["volume", "rm", "hidden"]).ok();
    assert!(host.voltool(&["plugin", "heal"]).err.contains("the engine knows volume hidden again"));
    assert!(labels_and_options(&host, "hidden").contains("\"name\":\"hidden\""));
    let again = host.voltool(&["plugin", "heal"]);
    assert!(again.err.contains("the engine knows all volumes"), "{}", again.err);
    // To be held is for once.
    host.voltool(&["backup", "seen"]).ok();
    host.docker(&["volume", "rm", "seen"]);
}

#[test]
fn containers_that_the_engine_gave_up_on_are_started() {
    let mut host = PluginHost::new();
    host.create("db", &[]);
    for (name, policy) in
        [("always", "always"), ("unless", "unless-stopped"), ("stopped", "unless-stopped"), ("no", "no")]
    {
        host.host.run_container(name, &["--restart", policy, "-v", "db:/v"]);
    }
    host.docker(&["stop", "stopped"]);

    // The content is away: the mount fails, and with that the engine gives up.
    let aside = host.folder("db").join("aside");
    std::fs::rename(host.data("db"), &aside).expect("moved");
    host.host.engine.restart();
    for name in ["always", "unless", "stopped", "no"] {
        assert!(!host.host.is_running(name), "{name}");
    }
    let dry = host.voltool(&["plugin", "heal", "--dry-run"]);
    assert!(dry.err.contains("would start container always") && !host.host.is_running("always"), "{}", dry.err);
    host.voltool(&["plugin", "heal"]).fails_plainly(1, &["container always does not start", "has lost its folder"]);
    std::fs::rename(&aside, host.data("db")).expect("moved");
    host.voltool(&["plugin", "heal"]).ok();
    assert!(host.host.is_running("always") && host.host.is_running("unless"));
    assert!(!host.host.is_running("stopped") && !host.host.is_running("no"), "nobody asked for these");

    // The daemon is away while the engine starts. One container only: the engine waits 15 s for each, again and again.
    host.docker(&["rm", "-f", "unless", "stopped", "no"]);
    host.host.engine.stop();
    host.kill_daemon();
    host.host.engine.restart();
    host.start_daemon();
    assert!(!host.host.is_running("always"));
    host.voltool(&["plugin", "heal"]).ok();
    assert!(host.host.is_running("always"));
}

#[test]
fn what_was_removed_comes_back_with_labels_and_options() {
    let mut host = PluginHost::new();
    let label = ["--label", "owner=shop"];
    for name in ["trashed", "again"] {
        host.docker(&[&["volume", "create", "-d", "voltool", "-o", "on-remove=trash"], &label[..], &[name]].concat());
        host.write(name, "file", name);
        host.wait("the driver knows the label", || row(&host, name)["labels"]["owner"] == "shop");
    }
    host.docker(&["volume", "rm", "trashed"]);
    assert_eq!(host.trash().len(), 1);
    let out = host.voltool(&["plugin", "status"]).ok();
    assert!(out.contains("IN THE TRASH") && out.contains("trashed") && out.contains("voltool undo "), "{out}");
    // Only the daemon can.
    host.kill_daemon();
    host.voltool(&["plugin", "status"]).fails(1, &["the daemon does not answer"]);
    host.start_daemon();
    host.voltool(&["undo", "latest"]).ok();
    assert_eq!(host.read("trashed", "file"), "trashed");
    assert_eq!(labels_and_options(&host, "trashed"), "{\"owner\":\"shop\"} {\"on-remove\":\"trash\"}");
    assert!(host.trash().is_empty());

    // There is one of that name again, of ours or another driver: neither is touched.
    host.docker(&["volume", "rm", "again"]);
    for driver in ["voltool", "local"] {
        host.docker(&["volume", "create", "-d", driver, "again"]);
        host.voltool(&["undo", "latest"]).fails(1, &["there is a volume again again"]);
        host.docker(&["volume", "rm", "again"]);
        let id = host
            .host
            .json(&["undo", "--json"])
            .as_array()
            .expect("an array")
            .iter()
            .find(|note| note["volumes"][0]["trash"].is_string())
            .expect("the note stays")["id"]
            .clone();
        if driver == "local" {
            host.voltool(&["undo", id.as_str().expect("a text")]).ok();
        } else {
            // The empty one has a note of its own, which is in the way of 'latest'.
            let notes = host.host.json(&["undo", "--json"]);
            let newest = notes[0]["id"].as_str().expect("a text").to_owned();
            assert_ne!(Value::from(newest.clone()), id);
            std::fs::remove_file(host.path("state/undo").join(format!("{newest}.json"))).expect("removed");
        }
    }
    assert_eq!(host.read("again", "file"), "again");

    // From a snapshot, with the labels that it had.
    host.docker(&[&["volume", "create", "-d", "voltool"], &label[..], &["snapped"]].concat());
    host.write("snapped", "file", "snapped");
    host.wait("the driver knows the label", || row(&host, "snapped")["labels"]["owner"] == "shop");
    host.docker(&["volume", "rm", "snapped"]);
    host.voltool(&["undo", "latest"]).ok();
    assert_eq!(host.read("snapped", "file"), "snapped");
    assert!(labels_and_options(&host, "snapped").starts_with("{\"owner\":\"shop\"}"));
    assert_eq!(host.host.json(&["undo", "--json"]), json!([]));
}

#[test]
fn the_driver_goes_only_when_nothing_is_lost_by_it() {
    let mut host = PluginHost::new();
    let units = host.path("units");
    let dir = units.to_str().expect("UTF-8").to_owned();
    let uninstall = ["plugin", "uninstall", "--dir", &dir];
    let keep = [&uninstall[..], &["--keep-data"]].concat();
    host.voltool(&["plugin", "install", "--dir", &dir]).ok();
    host.create("full", &["on-remove=refuse"]);
    host.create("empty", &[]);
    host.write("full", "file", "data");
    host.host.run_container("app", &["-v", "full:/v"]);
    host.docker(&["rm", "-f", "app"]);
    host.docker(&["create", "--name", "idle", "-v", "empty:/v", support::engine::BUSYBOX]);

    host.voltool(&keep).fails(4, &["container idle uses volume empty"]);
    host.docker(&["rm", "idle"]);
    host.wait("the use has ended", || host.status("full")["mounts"] == 0);
    let refused = host.voltool(&uninstall);
    refused.fails(4, &["there is data in full", "voltool backup full", "--keep-data"]);
    assert!(!refused.err.contains("empty") && units.join("voltool.socket").exists());
    assert_eq!(host.docker(&["volume", "ls", "-q"]), "empty\nfull", "nothing was done");
    host.kill_daemon();
    host.voltool(&keep).fails(1, &["the daemon does not answer"]);
    host.start_daemon();

    let gone = host.voltool(&keep);
    assert!(gone.err.contains("volume full is unknown to the engine now"), "{}", gone.err);
    assert!(gone.err.contains(host.data("full").to_str().expect("UTF-8")), "{}", gone.err);
    gone.ok();
    assert_eq!(host.folders(), ["full"], "the empty one is gone");
    assert_eq!(host.read("full", "file"), "data");
    assert!(is_empty(&units));
    assert_eq!(host.docker(&["volume", "ls", "-q"]), "");
    // The engine does not wait for a driver of which it knows nothing: its start would take 15 s for each volume.
    host.kill_daemon();
    host.host.engine.restart();
    assert!(!host.host.engine.log().contains("Unable to locate plugin: voltool"));

    host.start_daemon();
    assert!(host.voltool(&["plugin", "status"]).err.contains("volume full was let go of"), "it says so");
    host.voltool(&["plugin", "heal"]).ok();
    assert_eq!(
        host.docker(&["volume", "inspect", "--format", "{{json .Options}}", "full"]),
        "{\"on-remove\":\"refuse\"}"
    );
    assert!(host.fails(&["volume", "rm", "full"]).contains("on-remove=refuse"), "it is a volume as any other");
}

#[test]
fn units_are_written_and_taken_away() {
    let sandbox = Sandbox::bare();
    sandbox.file("config.toml", "");
    let dir = sandbox.path("units");
    let at = dir.to_str().expect("UTF-8");
    let install = |more: &[&str]| sandbox.run([&["plugin", "install", "--dir", at], more].concat());
    assert!(install(&[]).err.contains("systemctl enable --now voltool.socket voltool.service"));
    let service = std::fs::read_to_string(dir.join("voltool.service")).expect("written");
    let program = std::fs::canonicalize(env!("CARGO_BIN_EXE_voltool")).expect("there");
    assert!(service.contains(&format!("ExecStart={} daemon --plugin --socket -\n", program.display())), "{service}");
    assert!(install(&["--no-start"]).err.contains("voltool.service is there already"));

    // One of another version is brought up to date; what somebody else wrote stays.
    std::fs::write(dir.join("voltool.service"), service.replace("RestartSec=1", "RestartSec=2")).expect("written");
    install(&[]).ok();
    assert_eq!(std::fs::read_to_string(dir.join("voltool.service")).expect("there"), service);
    std::fs::write(dir.join("voltool.service"), "[Service]\nExecStart=/bin/true\n").expect("written");
    install(&[]).fails(1, &["voltool.service is there, and voltool did not write it"]);
    let gone = sandbox.run(["plugin", "uninstall", "--dir", at]);
    assert!(gone.err.contains("voltool.service is not voltool's, and stays"), "{}", gone.err);
    gone.ok();
    assert!(!dir.join("voltool.socket").exists() && dir.join("voltool.service").exists());
    std::fs::remove_file(dir.join("voltool.service")).expect("removed");
    std::fs::write(dir.join("voltool-authz.socket"), "").expect("written");
    install(&[]).fails(1, &["voltool-authz.socket is there, and listens on the same socket"]);
    std::fs::remove_file(dir.join("voltool-authz.socket")).expect("removed");

    install(&[]).ok();
    verify(&dir);
    assert!(!service.contains("\nProtect") && !service.contains("\nPrivate"), "mounts have to reach the engine");
}

/// Has systemd read the units, where there is one.
fn verify(dir: &Path) {
    let units = ["voltool.socket", "voltool.service"].map(|name| dir.join(name));
    let Ok(output) = Command::new("systemd-analyze").arg("verify").args(&units).output() else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    // It also reads the machine's own units, and complains of those.
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("voltool") && !line.contains("man ")).collect();
    assert!(ours.is_empty(), "{said}");
}
