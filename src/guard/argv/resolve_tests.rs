use serde_json::{Value, json};

use super::*;
use crate::docker::Volume;
use crate::guard::argv::project::{Definition, Details};

fn container(id: &str, status: &str, labels: Value, volumes: &[&str]) -> Container {
    let mounts: Vec<Value> = volumes
        .iter()
        .map(|name| json!({"Type": "volume", "Name": name, "Driver": "local", "Destination": "/d", "RW": true}))
        .collect();
    Container::from_raw(json!({
        "Id": id,
        "Name": format!("/{id}"),
        "State": {"Status": status, "Running": status == "running"},
        "Config": {"Labels": labels},
        "HostConfig": {"Binds": volumes.iter().map(|name| format!("{name}:/d")).collect::<Vec<_>>()},
        "Mounts": mounts,
    }))
    .expect("a container")
}

fn of(project: &str, service: &str) -> Value {
    json!({"com.docker.compose.project": project, "com.docker.compose.service": service,
        "com.docker.compose.project.working_dir": format!("/srv/{project}")})
}

fn volume(name: &str, labels: Value) -> Volume {
    serde_json::from_value(json!({"Name": name, "Driver": "local", "Mountpoint": "", "Labels": labels, "Options": {}}))
        .expect("a volume")
}

fn shop() -> Inventory {
    let labelled = json!({"com.docker.compose.project": "shop", "com.docker.compose.config-hash": "x"});
    Inventory::from_parts(
        vec![
            volume("shop_data", labelled),
            volume("custom", json!({})),
            volume("real", json!({})),
            volume("blog_data", json!({"com.docker.compose.project": "blog"})),
        ],
        vec![
            container("db", "running", of("shop", "db"), &["shop_data"]),
            container("web1", "exited", of("shop", "web"), &[]),
            container("web2", "running", of("shop", "web"), &[]),
            container("blog", "running", of("blog", "web"), &["blog_data"]),
            container(
                "task",
                "running",
                json!({STACK: "front", SWARM_SERVICE: "front_web", SWARM_SERVICE_ID: "abc123",
                SWARM_TASK: "t1"}),
                &[],
            ),
        ],
    )
}

fn defined(key: &str, name: Option<&str>, external: bool) -> DefinedVolume {
    let details = Some(Details::default());
    DefinedVolume { key: key.to_owned(), name: name.map(str::to_owned), external, details }
}

fn project(name: &str, definition: Option<Definition>) -> Facts {
    let project = Project { names: [name.to_owned()].into(), folders: BTreeSet::new(), definition };
    Facts { api: (1, 41), project, ..Facts::default() }
}

fn definition() -> Definition {
    Definition {
        name: Some("shop".to_owned()),
        services: ["db".to_owned()].into(),
        volumes: vec![
            defined("data", Some("shop_data"), false),
            defined("c", Some("custom"), false),
            defined("r", Some("real"), true),
        ],
    }
}

/// The steps in short: `c:web1` a container, `cv:web1` with its anonymous volumes, `v:data` a volume.
fn steps(intent: &Intent, facts: &Facts) -> Vec<String> {
    let request = resolve("docker x".to_owned(), intent, &shop(), facts);
    assert_eq!((request.command.as_str(), request.api), ("docker x", facts.api));
    let brief = |step: &Step| match step {
        Step::RemoveContainer { container, volumes, force } => {
            assert!(force, "{container}");
            format!("c{}:{container}", if *volumes { "v" } else { "" })
        }
        Step::RemoveVolume { volume, .. } => format!("v:{volume}"),
        Step::PruneContainers { filters } => format!("pc:{}", json!(filters)),
        Step::PruneVolumes { filters } => format!("pv:{}", json!(filters)),
    };
    request.steps.iter().map(brief).collect()
}

fn compose(action: ComposeAction) -> Intent {
    Intent::Compose(Default::default(), action)
}

#[test]
fn down_takes_the_project_and_nothing_else() {
    let down = |volumes| compose(ComposeAction::Down { volumes });
    assert_eq!(steps(&down(false), &project("shop", None)), ["c:db", "c:web1", "c:web2"]);
    assert_eq!(steps(&down(true), &project("shop", None)), ["cv:db", "cv:web1", "cv:web2", "v:shop_data"]);
    // The definition knows volumes without a label; external ones stay.
    let known = project("shop", Some(definition()));
    assert_eq!(steps(&down(true), &known), ["cv:db", "cv:web1", "cv:web2", "v:custom", "v:shop_data"]);
    assert!(steps(&down(true), &project("nothing", None)).is_empty());
}

#[test]
fn a_project_is_found_by_its_folder() {
    let mut facts =
        project("guess", Some(Definition { volumes: vec![defined("data", None, false)], ..Definition::default() }));
    facts.project.folders.insert("/srv/blog".to_owned());
    let found = steps(&compose(ComposeAction::Down { volumes: true }), &facts);
    assert_eq!(found, ["cv:blog", "v:blog_data"]);
}

#[test]
fn rm_takes_what_does_not_run() {
    let remove = |services: &[&str], stop| {
        let services = services.iter().map(|service| (*service).to_owned()).collect();
        compose(ComposeAction::Remove { services, volumes: true, stop })
    };
    let facts = project("shop", None);
    assert_eq!(steps(&remove(&[], false), &facts), ["cv:web1"]);
    assert_eq!(steps(&remove(&[], true), &facts), ["cv:db", "cv:web1", "cv:web2"]);
    assert_eq!(steps(&remove(&["db"], true), &facts), ["cv:db"]);
}

#[test]
fn replacing_orphans_anonymous_volumes() {
    let replace = |replace| compose(ComposeAction::Replace(replace));
    let facts = project("shop", Some(definition()));
    let renew = replace(Replace { renew: true, ..Replace::default() });
    assert_eq!(steps(&renew, &facts), ["c:db", "c:web1", "c:web2"]);
    let orphans = replace(Replace { remove_orphans: true, ..Replace::default() });
    assert_eq!(steps(&orphans, &facts), ["c:web1", "c:web2"], "web is not in the definition");
    assert_eq!(steps(&orphans, &project("shop", None)), ["c:db", "c:web1", "c:web2"], "who can tell?");
    for (number, expected) in [(1, &["c:web1", "c:web2"][..]), (2, &[])] {
        let scale = replace(Replace { scale: vec![("web".to_owned(), number)], ..Replace::default() });
        assert_eq!(steps(&scale, &facts), expected);
    }
}

#[test]
fn up_with_yes_makes_changed_volumes_anew() {
    let yes = compose(ComposeAction::Replace(Replace { recreate_changed: true, ..Replace::default() }));
    assert!(steps(&yes, &project("shop", Some(definition()))).is_empty(), "nothing changed");
    let mut changed = definition();
    changed.volumes[0].details = Some(Details { driver: "voltool".to_owned(), ..Details::default() });
    assert_eq!(steps(&yes, &project("shop", Some(changed))), ["c:db", "v:shop_data"]);
    assert_eq!(steps(&yes, &project("shop", None)), ["c:db", "v:shop_data"], "not known: all that could be");
}

#[test]
fn a_swarms_tasks_go_with_their_volumes() {
    let facts = Facts::default();
    let tasks = |tasks| steps(&Intent::RemoveTasks(tasks), &facts);
    assert_eq!(tasks(Tasks::OfStacks(vec!["front".to_owned()])), ["cv:task"]);
    assert!(tasks(Tasks::OfStacks(vec!["fro".to_owned()])).is_empty());
    for service in ["front_web", "abc123", "abc"] {
        assert_eq!(tasks(Tasks::OfServices(vec![service.to_owned()])), ["cv:task"], "{service}");
    }
    assert_eq!(tasks(Tasks::Beyond(vec![("front_web".to_owned(), 0)])), ["cv:task"]);
    assert!(tasks(Tasks::Beyond(vec![("front_web".to_owned(), 1)])).is_empty());
    assert_eq!(tasks(Tasks::OfNode), ["c:task"]);
}

#[test]
fn a_system_prune_is_two_steps_and_settings_add_filters() {
    let mut filters = Filters::none();
    filters.add("label!", "keep");
    let facts =
        Facts { prune_filters: vec!["label!=other".into(), "label=keep".into(), "odd".into()], ..Facts::default() };
    let system = |volumes| Intent::PruneSystem { filters: filters.clone(), volumes };
    let both = r#"{"label!":["keep","other"]}"#;
    assert_eq!(steps(&system(true), &facts), [format!("pc:{both}"), format!("pv:{both}")]);
    assert_eq!(steps(&system(false), &facts), [format!("pc:{both}")]);
    assert!(system(true).needs_api() && !system(false).needs_api() && system(false).needs_prune_filters());
}
