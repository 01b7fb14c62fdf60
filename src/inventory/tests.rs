//! Kinds, references and data-only containers, worked out from made-up answers. `tests/inventory.rs` has real ones.

use serde_json::{Value, json};

use super::*;

const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const NEVER: &str = "0001-01-01T00:00:00Z";

fn volume(name: &str, labels: Value, options: Value) -> Volume {
    serde_json::from_value(json!({
        "Name": name, "Driver": "local", "Mountpoint": format!("/v/{name}/_data"), "Labels": labels, "Options": options,
        "Scope": "local", "CreatedAt": "2026-11-20T03:00:00Z",
    }))
    .expect("a volume")
}

/// A container that mounts `volumes` (name, path), with `changes` on top of a plain running one.
fn container(name: &str, volumes: &[(&str, &str)], changes: Value) -> Container {
    let mounts: Vec<Value> = volumes
        .iter()
        .map(|(volume, path)| json!({"Type": "volume", "Name": volume, "Driver": "local", "Destination": path, "RW": true}))
        .collect();
    let id = format!("{:0<64}", hex::encode(name));
    let mut raw = json!({
        "Id": id, "Name": format!("/{name}"), "Mounts": mounts,
        "State": {"Status": "running", "Running": true, "StartedAt": "2026-11-20T03:00:00Z", "FinishedAt": NEVER},
        "HostConfig": {"Binds": null, "VolumesFrom": null, "RestartPolicy": {"Name": "no"}},
        "Config": {"Labels": null},
    });
    merge(&mut raw, changes);
    Container::from_raw(raw).expect("a container")
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn created() -> Value {
    json!({"Status": "created", "Running": false, "StartedAt": NEVER, "FinishedAt": NEVER})
}

fn exited(code: i64, seconds: u32) -> Value {
    json!({
        "Status": "exited", "Running": false, "ExitCode": code,
        "StartedAt": "2026-11-20T03:00:00.5Z", "FinishedAt": format!("2026-11-20T03:00:{seconds:02}.6Z"),
    })
}

/// The kind of the volume [`HEX`] with these labels, options and containers.
fn kind_of(labels: Value, options: Value, containers: Vec<Container>) -> Kind {
    Inventory::from_parts(vec![volume(HEX, labels, options)], containers).volumes[0].kind
}

#[test]
fn a_made_up_name_that_no_definition_spells_out_is_anonymous() {
    let none = || Value::Null;
    let mounting = |changes| container("app", &[(HEX, "/x")], changes);
    assert_eq!(kind_of(none(), none(), vec![]), Kind::Anonymous, "dangling");
    assert_eq!(kind_of(none(), none(), vec![mounting(json!({}))]), Kind::Anonymous);
    let without_source = json!({"HostConfig": {"Mounts": [{"Type": "volume", "Target": "/x"}]}});
    assert_eq!(kind_of(none(), none(), vec![mounting(without_source)]), Kind::Anonymous);

    let bind = mounting(json!({"HostConfig": {"Binds": [format!("{HEX}:/x/:ro")]}}));
    assert_eq!(kind_of(none(), none(), vec![bind.clone()]), Kind::Named);
    let with_source = json!({"HostConfig": {"Mounts": [{"Type": "volume", "Source": HEX, "Target": "/x/"}]}});
    assert_eq!(kind_of(none(), none(), vec![mounting(with_source)]), Kind::Named);
    let elsewhere = json!({"HostConfig": {"Binds": [format!("{HEX}:/y")]}});
    assert_eq!(kind_of(none(), none(), vec![mounting(elsewhere)]), Kind::Anonymous, "the name stands at another mount");
    assert_eq!(
        kind_of(none(), none(), vec![bind, mounting(json!({}))]),
        Kind::Anonymous,
        "one of them does not name it"
    );
}

#[test]
fn what_somebody_chose_is_named() {
    assert_eq!(kind_of(json!({"a": "b"}), Value::Null, vec![]), Kind::Named, "labels are given by people");
    assert_eq!(kind_of(Value::Null, json!({"type": "nfs"}), vec![]), Kind::Named, "and so are options");
    let short = Inventory::from_parts(
        vec![volume("db", Value::Null, Value::Null)],
        vec![container("c", &[("db", "/x")], json!({}))],
    );
    assert_eq!(short.volumes[0].kind, Kind::Named);
    let upper = HEX.to_uppercase();
    assert_eq!(
        Inventory::from_parts(vec![volume(&upper, Value::Null, Value::Null)], vec![]).volumes[0].kind,
        Kind::Named
    );
}

#[test]
fn the_label_decides_on_newer_engines() {
    let labels = || json!({"com.docker.volume.anonymous": ""});
    let by_name = container("app", &[(HEX, "/x")], json!({"HostConfig": {"Binds": [format!("{HEX}:/x")]}}));
    assert_eq!(
        kind_of(labels(), Value::Null, vec![by_name]),
        Kind::Anonymous,
        "Compose mounts inherited volumes by name"
    );
    assert_eq!(
        Inventory::from_parts(vec![volume("db", labels(), Value::Null)], vec![]).volumes[0].kind,
        Kind::Anonymous
    );
}

#[test]
fn volumes_from_takes_names_from_its_source() {
    let from = |name: &str| json!({"HostConfig": {"VolumesFrom": [name]}});
    let source = |changes| container("data", &[(HEX, "/x")], changes);
    let consumer = |name| container("app", &[(HEX, "/x")], from(name));
    let named = || json!({"HostConfig": {"Binds": [format!("{HEX}:/x")]}});
    let kind = |containers| kind_of(Value::Null, Value::Null, containers);
    assert_eq!(kind(vec![consumer("data:ro"), source(named())]), Kind::Named);
    assert_eq!(kind(vec![consumer("data"), source(json!({}))]), Kind::Anonymous);
    assert_eq!(kind(vec![consumer("gone")]), Kind::Anonymous, "nobody can tell any more");
    let circle = vec![container("a", &[(HEX, "/x")], from("b")), container("b", &[(HEX, "/x")], from("a"))];
    assert_eq!(kind(circle), Kind::Anonymous, "and it ends");
}

#[test]
fn consumers_that_never_ran_reference_what_they_will_mount() {
    let consumer =
        container("app", &[("own", "/y")], json!({"State": created(), "HostConfig": {"VolumesFrom": ["data:ro,z"]}}));
    let data = container("data", &[("d", "/x"), ("hidden", "/y")], json!({"State": created()}));
    let volumes = ["d", "hidden", "own"].map(|name| volume(name, Value::Null, Value::Null)).to_vec();
    let inventory = Inventory::from_parts(volumes, vec![consumer, data]);
    let users = |name: &str| -> Vec<(String, String, bool)> {
        let volume = inventory.volume(name).expect("listed");
        volume.used_by.iter().map(|usage| (usage.name.clone(), usage.path.clone(), usage.rw)).collect()
    };
    assert_eq!(users("d"), [("app".into(), "/x".into(), false), ("data".into(), "/x".into(), true)]);
    assert_eq!(users("hidden"), [("data".into(), "/y".into(), true)], "the consumer mounts its own there");
    assert_eq!(users("own"), [("app".into(), "/y".into(), true)]);
    assert_eq!(inventory.users_of(inventory.volume("d").expect("listed")).len(), 2);
}

/// The names of the data-only containers.
fn data_only_among(containers: Vec<Container>) -> Vec<String> {
    data_only::find(&containers).into_iter().map(|at| containers[at].name.clone()).collect()
}

#[test]
fn data_only_containers_are_told_apart_from_those_that_work() {
    let holding = |changes| container("c", &[("v", "/v")], changes);
    let alone = |changes| !data_only_among(vec![holding(changes)]).is_empty();
    assert!(alone(json!({"State": created()})), "never started");
    assert!(alone(json!({"State": exited(0, 2)})), "exited at once");
    assert!(!alone(json!({})), "runs");
    assert!(!alone(json!({"State": exited(0, 30)})), "worked for half a minute");
    assert!(!alone(json!({"State": exited(1, 1)})), "failed");
    assert!(!alone(json!({"State": exited(0, 1), "HostConfig": {"RestartPolicy": {"Name": "always"}}})), "comes back");
    assert!(!alone(json!({"State": exited(0, 1), "HostConfig": {"PortBindings": {"80/tcp": []}}})), "a server");
    assert!(!alone(
        json!({"State": {"Status": "restarting", "Running": true, "Restarting": true, "StartedAt": NEVER}})
    ));
    assert!(
        !alone(json!({"State": created(), "HostConfig": {"VolumesFrom": ["x"]}})),
        "a consumer that has not run yet"
    );
    assert_eq!(data_only_among(vec![container("c", &[], json!({"State": created()}))]), [""; 0], "holds nothing");
}

#[test]
fn what_others_take_volumes_from_is_data_only_unless_it_serves() {
    let running = |changes| {
        let consumer = container("user", &[("v", "/v")], json!({"HostConfig": {"VolumesFrom": ["holder"]}}));
        data_only_among(vec![consumer, container("holder", &[("v", "/v")], changes)])
    };
    assert_eq!(running(json!({})), ["holder"], "sleeps to stay");
    assert_eq!(running(json!({"State": exited(137, 40)})), ["holder"]);
    assert_eq!(running(json!({"Config": {"Healthcheck": {"Test": ["NONE"]}}})), ["holder"]);
    assert_eq!(
        running(json!({"Config": {"ExposedPorts": {"5432/tcp": {}}}})),
        [""; 0],
        "a database and its backup job"
    );
    assert_eq!(running(json!({"Config": {"Healthcheck": {"Test": ["CMD", "true"]}}})), [""; 0]);
    assert_eq!(running(json!({"HostConfig": {"RestartPolicy": {"Name": "unless-stopped"}}})), [""; 0]);
}

#[test]
fn references_are_names_ids_and_unique_beginnings_of_ids() {
    let containers =
        vec![container("aa", &[], json!({})), container("ab", &[], json!({})), container("6161", &[], json!({}))];
    assert_eq!(data_only::resolve("aa", &containers), Some(0));
    assert_eq!(data_only::resolve("/ab", &containers), Some(1));
    assert_eq!(data_only::resolve(&containers[1].id, &containers), Some(1));
    assert_eq!(data_only::resolve("6162", &containers), Some(1), "the beginning of the id of ab");
    assert_eq!(data_only::resolve("6161", &containers), Some(2), "a name goes before the beginning of an id");
    assert_eq!(data_only::resolve("61", &containers), None, "more than one begins like this");
    assert_eq!(data_only::resolve("", &containers), None);
}

#[test]
fn the_listing_has_the_promised_fields() {
    let project = json!({"Config": {"Labels": {"com.docker.compose.project": "shop"}}});
    let inventory = Inventory::from_parts(
        vec![volume("db", json!({"k": "v"}), json!({"o": "bind"}))],
        vec![container("c", &[("db", "/x"), ("gone", "/y")], project)],
    );
    let id = inventory.containers[0].id.clone();
    let usage = |path: &str| json!({"container_id": id, "name": "c", "state": "running", "path": path, "rw": true, "data_only": false});
    assert_eq!(
        serde_json::to_value(&inventory.volumes[0]).expect("JSON"),
        json!({
            "name": "db", "kind": "named", "driver": "local", "mountpoint": "/v/db/_data", "labels": {"k": "v"},
            "options": {"o": "bind"}, "compose_project": "shop", "created_at": "2026-11-20T03:00:00Z", "used_by": [usage("/x")],
        })
    );
    assert_eq!(
        serde_json::to_value(&inventory.missing).expect("JSON"),
        json!([{"name": "gone", "used_by": [usage("/y")]}])
    );
}

#[test]
fn a_project_is_known_by_the_label_or_by_users_that_agree() {
    let of = |name: &str, project: Option<&str>| {
        let labels = project.map_or(Value::Null, |project| json!({"com.docker.compose.project": project}));
        container(name, &[("v", "/x")], json!({"Config": {"Labels": labels}}))
    };
    let project = |labels: Value, containers| {
        Inventory::from_parts(vec![volume("v", labels, Value::Null)], containers).volumes[0].compose_project.clone()
    };
    assert_eq!(project(Value::Null, vec![of("a", Some("p")), of("b", Some("p"))]).as_deref(), Some("p"));
    assert_eq!(project(Value::Null, vec![of("a", Some("p")), of("b", Some("q"))]), None);
    assert_eq!(project(Value::Null, vec![of("a", Some("p")), of("b", None)]), None);
    assert_eq!(project(Value::Null, vec![]), None);
    let own = json!({"com.docker.compose.project": "own"});
    assert_eq!(project(own, vec![of("a", Some("p"))]).as_deref(), Some("own"));
}

#[test]
fn the_nearest_name_is_suggested() {
    let names = ["shop_db", "shop_cache", "grafana", HEX];
    let near = |name| nearest(name, names);
    assert_eq!(near("shop_dbb"), Some("shop_db"));
    assert_eq!(near("Grafana"), Some("grafana"));
    assert_eq!(near("garfana"), Some("grafana"));
    assert_eq!(near("db"), Some("shop_db"), "without the project in front");
    assert_eq!(near("0123456789ab"), Some(HEX), "the beginning that listings show");
    assert_eq!(near("wordpress"), None);
    assert_eq!(near(""), None);
}
