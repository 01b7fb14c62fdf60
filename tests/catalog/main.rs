//! The catalog: what it remembers, on real engines and in a model, and what it survives.

mod feed;
mod model;
mod remembers;
#[path = "../support/mod.rs"]
mod support;
mod survives;

use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Value, json};
use support::cli::Sandbox;
use voltool::docker::{Container, EngineInfo, Volume};
use voltool::inventory::{Catalog, Inventory};

/// Where a sandbox's voltool keeps its catalog.
fn file(sandbox: &Sandbox) -> PathBuf {
    sandbox.path("state").join("catalog.db")
}

/// The catalog of a sandbox's voltool, opened as a second process does.
fn catalog(sandbox: &Sandbox) -> Catalog {
    Catalog::open(&file(sandbox)).expect("opened")
}

/// An engine of that version.
fn engine(version: &str) -> EngineInfo {
    let text = |text: &str| text.to_owned();
    EngineInfo {
        name: text("host"),
        id: text("AB:CD"),
        root_dir: text("/var/lib/docker"),
        version: text(version),
        api_version: text("1.41"),
    }
}

/// A time, in minutes after some beginning.
fn minute(n: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + n * 60).expect("a time")
}

/// A local volume as an engine describes it.
fn volume(name: &str, created_at: Timestamp) -> Volume {
    serde_json::from_value(json!({"Name": name, "Driver": "local", "CreatedAt": created_at.to_string()})).expect("one")
}

/// A container that mounts volumes, each with a path and whether it may write.
fn container(id: &str, running: bool, mounts: &[(&str, &str, bool)]) -> Container {
    let mount = |(name, path, rw): &(&str, &str, bool)| json!({"Type": "volume", "Name": name, "Driver": "local", "Destination": path, "RW": rw});
    let binds: Vec<String> = mounts.iter().map(|(name, path, _)| format!("{name}:{path}")).collect();
    let raw = json!({
        "Id": id,
        "Name": format!("/name-of-{id}"),
        "Image": format!("sha256:{id}"),
        "State": {"Status": if running { "running" } else { "exited" }, "Running": running},
        "Config": {"Image": "postgres:16", "Labels": {"com.docker.compose.project": "shop", "com.docker.compose.service": "db"}},
        "HostConfig": {"Binds": binds},
        "Mounts": mounts.iter().map(mount).collect::<Vec<Value>>(),
    });
    Container::from_raw(raw).expect("an inspection")
}

/// An inventory of these.
fn inventory(volumes: Vec<Volume>, containers: Vec<Container>) -> Inventory {
    Inventory::from_parts(volumes, containers)
}
