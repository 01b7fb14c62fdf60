//! The engine's rules as a table, on made-up engines. `tests/guard_effects` has real ones.

use serde_json::{Value, json};

use super::*;
use crate::docker::Volume;
use crate::guard::Filters;

const NEVER: &str = "0001-01-01T00:00:00Z";

/// An engine with a named volume `named`, one with options, one of a plugin, and anonymous ones, and with containers:
/// `data` (exited, `anon` at /data by `-v /data`), `app` (running, inherits from it), `fresh` (never started, inherits too),
/// `web` (running, `named` by its name), `gone` (exited, `lost` inherited from a container that is gone).
fn inventory(unreferenced: Option<&[&str]>) -> Inventory {
    let volume = |name: &str, driver: &str, labels: Value, options: Value| -> Volume {
        let all = json!({"Name": name, "Driver": driver, "Labels": labels, "Options": options});
        serde_json::from_value(all).expect("a volume")
    };
    let anonymous = json!({"com.docker.volume.anonymous": ""});
    let volumes = vec![
        volume("anon", "local", anonymous.clone(), json!({})),
        volume("idle", "local", json!({"tier": "db"}), json!({})),
        volume("idle-anon", "local", anonymous.clone(), json!({})),
        volume("lost", "local", anonymous, json!({})),
        volume("named", "local", json!({}), json!({})),
        volume("nfs", "local", json!({}), json!({"type": "nfs", "device": ":/x"})),
        volume("plug", "rclone", json!({}), json!({})),
    ];
    let container = |name: &str, volume: &str, state: &str, host: Value| -> Container {
        let running = state == "running";
        let started = if state == "created" { NEVER } else { "2026-11-20T03:00:00Z" };
        let mounts = json!([{"Type": "volume", "Name": volume, "Driver": "local", "Destination": "/data", "RW": true}]);
        Container::from_raw(json!({
            "Id": format!("{:0<64}", hex::encode(name)), "Name": format!("/{name}"), "Mounts": mounts, "HostConfig": host,
            "Created": "2026-11-20T03:00:00Z", "Config": {"Labels": {"of": name}},
            "State": {"Status": state, "Running": running, "StartedAt": started},
        }))
        .expect("a container")
    };
    let containers = vec![
        container("data", "anon", "exited", json!({})),
        container("app", "anon", "running", json!({"VolumesFrom": ["data"]})),
        container("fresh", "anon", "created", json!({"VolumesFrom": ["data"]})),
        container("web", "named", "running", json!({"Binds": ["named:/data"]})),
        container("gone", "lost", "exited", json!({"VolumesFrom": ["nobody"]})),
    ];
    let mut inventory = Inventory::from_parts(volumes, containers);
    inventory.unreferenced = unreferenced.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
    inventory
}

/// What the engine says is unused when all is well.
const UNUSED: &[&str] = &["idle", "idle-anon", "nfs", "plug"];

fn rm(container: &str, volumes: bool, force: bool) -> Step {
    Step::RemoveContainer { container: container.to_owned(), volumes, force }
}

fn volume_rm(volume: &str) -> Step {
    Step::RemoveVolume { volume: volume.to_owned(), force: true }
}

fn filters(list: &[(&str, &str)]) -> Filters {
    let mut filters = Filters::none();
    list.iter().for_each(|(key, value)| filters.add(key, value));
    filters
}

/// What would happen, written short: `anon` destroyed, `anon?` perhaps destroyed, `(anon)` orphaned.
fn effects_on(inventory: &Inventory, api: (u32, u32), steps: Vec<Step>) -> Vec<String> {
    let request = Request { command: String::new(), steps, api };
    let now = "2026-11-21T03:00:00Z".parse().expect("a time");
    let effects = Effects::of(&request, inventory, now).expect("filters make sense");
    let short = |(name, effect): (&String, &Effect)| match (effect.action, effect.certain) {
        (Action::Destroy, true) => name.clone(),
        (Action::Destroy, false) => format!("{name}?"),
        (Action::Orphan, _) => format!("({name})"),
    };
    effects.volumes.iter().map(short).collect()
}

#[track_caller]
fn check(steps: Vec<Step>, expected: &[&str]) {
    for api in [(1, 41), (1, 45)] {
        assert_eq!(effects_on(&inventory(Some(UNUSED)), api, steps.clone()), expected, "{api:?} {steps:?}");
    }
}

#[test]
fn removing_containers() {
    check(vec![rm("data", true, false)], &[]);
    // Running: with force only.
    check(vec![rm("app", true, false)], &[]);
    check(vec![rm("web", true, true)], &["(named)"]);
    check(vec![rm("data", true, false), rm("app", true, true), rm("fresh", true, false)], &["anon?"]);
    // The one that never ran may not count for the engine.
    check(vec![rm("data", true, false), rm("app", true, true)], &["anon?"]);
    check(vec![rm("data", false, false), rm("app", false, true), rm("fresh", false, false)], &["(anon)"]);
    // Whether its definition named it, nobody can tell.
    check(vec![rm("gone", true, false)], &["lost?"]);
    check(vec![rm("gone", false, false)], &["(lost)"]);
    check(vec![rm("nobody", true, true)], &[]);
    // By the beginning of the id.
    check(vec![rm(&hex::encode("gone"), true, false)], &["lost?"]);
}

#[test]
fn removing_volumes() {
    check(vec![volume_rm("idle")], &["idle"]);
    check(vec![volume_rm("named"), volume_rm("anon"), volume_rm("absent")], &[]);
    check(vec![rm("web", false, true), volume_rm("named")], &["named"]);
    check(vec![volume_rm("plug"), volume_rm("nfs")], &["nfs", "plug"]);
}

#[test]
fn pruning() {
    let prune = |list: &[(&str, &str)]| vec![Step::PruneVolumes { filters: filters(list) }];
    let both = |steps: Vec<Step>| {
        let inventory = inventory(Some(UNUSED));
        (effects_on(&inventory, (1, 41), steps.clone()), effects_on(&inventory, (1, 42), steps))
    };
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(both(prune(&[])), (names(&["idle", "idle-anon"]), names(&["idle-anon"])));
    assert_eq!(both(prune(&[("all", "true")])).1, names(&["idle", "idle-anon"]));
    assert_eq!(both(prune(&[("all", "0")])).1, names(&["idle-anon"]));
    assert_eq!(both(prune(&[("label", "tier=db")])), (names(&["idle"]), names(&[])));
    assert_eq!(both(prune(&[("label!", "tier")])), (names(&["idle-anon"]), names(&["idle-anon"])));
    // `system prune --volumes`: what the first step leaves is there for the second.
    let system = vec![Step::PruneContainers { filters: filters(&[]) }, Step::PruneVolumes { filters: filters(&[]) }];
    assert_eq!(both(system), (names(&["idle", "idle-anon", "lost"]), names(&["idle-anon", "lost"])));
    let young = vec![Step::PruneContainers { filters: filters(&[("until", "48h")]) }];
    assert_eq!(both(young).1, names(&[]));
    let labelled = vec![Step::PruneContainers { filters: filters(&[("label", "of=gone"), ("until", "1h")]) }];
    assert_eq!(both(labelled).1, names(&["(lost)"]));
}

#[test]
fn what_the_engine_has_forgotten_is_not_in_use_for_it() {
    let forgotten = inventory(Some(&["idle", "idle-anon", "named", "nfs", "plug"]));
    let prune = vec![Step::PruneVolumes { filters: filters(&[("all", "1")]) }];
    assert_eq!(effects_on(&forgotten, (1, 45), prune.clone()), ["idle", "idle-anon", "named"]);
    let request = Request { command: String::new(), steps: prune, api: (1, 45) };
    let effects = Effects::of(&request, &forgotten, Timestamp::now()).expect("filters make sense");
    assert_eq!(effects.volumes["named"].still_used_by, ["web"]);
    // And what it counts as used without a reason that can be seen stays.
    let held = inventory(Some(&[]));
    assert_eq!(effects_on(&held, (1, 45), vec![volume_rm("idle")]), Vec::<String>::new());
    // An engine that was not asked: the mounts are all there is.
    assert_eq!(effects_on(&inventory(None), (1, 45), vec![volume_rm("idle"), volume_rm("named")]), ["idle"]);
}

#[test]
fn what_the_engine_refuses_is_said() {
    let request = Request {
        command: String::new(),
        steps: vec![rm("app", true, false), volume_rm("named"), rm("nobody", false, false)],
        api: (1, 45),
    };
    let notes = Effects::of(&request, &inventory(Some(UNUSED)), Timestamp::now()).expect("no filters").notes;
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert!(notes[1].contains("in use by web"), "{notes:?}");
}
