//! `examples/compose.yaml` with docker-compose: what `down -v` takes comes back, and what it may not take stays.

mod support;

use std::process::{Command, Output};

use support::engine::BUSYBOX;
use support::plugin_host::PluginHost;

/// docker-compose on the example. The images are made here; nothing is pulled, and no container has a network.
fn compose(host: &PluginHost, args: &[&str]) -> Output {
    let service = "network_mode: none, stop_signal: KILL, command: [sleep, '600']";
    let text = format!("version: '3.5'\nservices:\n  web: {{{service}}}\n  db: {{{service}}}\n");
    let more = host.host.sandbox.file("override.yaml", &text);
    // One of the project's own: which variables a shell happens to have does not matter.
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/compose.yaml");
    let mut command = Command::new("docker-compose");
    host.host.sandbox.settle(&mut command);
    command.env("WEB_IMAGE", BUSYBOX).env("DB_IMAGE", BUSYBOX).env("POSTGRES_PASSWORD", "secret");
    command.args(["-p", "shop", "-f", example, "-f", &more]).args(args);
    command.output().expect("docker-compose (package docker-compose) starts")
}

#[track_caller]
fn compose_ok(host: &PluginHost, args: &[&str]) -> String {
    let output = compose(host, args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "docker-compose {}: {said}", args.join(" "));
    said
}

#[track_caller]
fn in_service(host: &PluginHost, service: &str, script: &str) -> String {
    let id = host.docker(&["ps", "-q", "--filter", &format!("label=com.docker.compose.service={service}")]);
    host.docker(&["exec", &id, "sh", "-c", script])
}

#[test]
fn a_compose_project_survives_down_v() {
    let host = PluginHost::new();
    compose_ok(&host, &["up", "-d"]);
    in_service(&host, "db", "echo orders > /var/lib/postgresql/data/table");
    in_service(&host, "web", "echo picture > /usr/share/nginx/html/uploads/picture");
    host.wait("the driver knows the labels", || {
        let status = host.host.json(&["plugin", "status", "--json"]);
        let volumes = status["volumes"].as_array().expect("an array").clone();
        volumes.iter().all(|volume| volume["labels"]["com.docker.compose.project"] == "shop")
    });

    // The one is removed after a snapshot, the other is refused.
    let down = compose(&host, &["down", "-v", "-t", "0"]);
    let said = String::from_utf8_lossy(&down.stderr).into_owned();
    assert!(!down.status.success() && said.contains("volume shop-uploads is kept"), "{said}");
    // Compose v2 removes by force, and then the engine forgets what it was refused to remove.
    assert!(host.fails(&["volume", "rm", "-f", "shop-uploads"]).contains("is kept"));
    if host.folder("shop-data").exists() {
        host.docker(&["volume", "rm", "-f", "shop-data"]);
    }
    assert_eq!(host.host.backed_up(), ["shop-data"]);
    assert_eq!(host.read("shop-uploads", "picture"), "picture\n");

    // Compose compares the options of what is there with those in its file.
    let up = compose(&host, &["up", "-d"]);
    assert!(String::from_utf8_lossy(&up.stderr).contains("on-remove"), "it finds the volume without its options");
    host.voltool(&["plugin", "heal"]).ok();
    compose_ok(&host, &["up", "-d"]);
    assert_eq!(in_service(&host, "db", "cat /var/lib/postgresql/data/table"), "orders");
    assert_eq!(in_service(&host, "web", "cat /usr/share/nginx/html/uploads/picture"), "picture");

    // The same with the labels, by which Compose knows its own.
    let labels = host.docker(&[
        "volume",
        "inspect",
        "--format",
        "{{index .Labels \"com.docker.compose.project\"}}",
        "shop-uploads",
    ]);
    assert_eq!(labels, "shop");
    // What is in a snapshot may go.
    host.voltool(&["backup", "shop-uploads"]).ok();
    compose_ok(&host, &["down", "-v", "-t", "0"]);
    assert_eq!(host.folders(), Vec::<String>::new());
    let notes = host.host.json(&["undo", "--json"]);
    let note =
        notes.as_array().expect("an array").iter().find(|n| n["volumes"][0]["definition"]["name"] == "shop-uploads");
    let id = note.expect("a note")["id"].as_str().expect("a text").to_owned();
    host.voltool(&["undo", &id]).ok();
    compose_ok(&host, &["up", "-d"]);
    assert_eq!(in_service(&host, "web", "cat /usr/share/nginx/html/uploads/picture"), "picture");
    assert_eq!(in_service(&host, "db", "cat /var/lib/postgresql/data/table"), "orders");
    compose_ok(&host, &["down", "-t", "0"]);
}
