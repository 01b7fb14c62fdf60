//! The nine ways to lose data (see `loss_stories`), on volumes of the driver: nobody wraps docker, and the engine asks nobody. What was
//! there is there afterwards: as the volume, in the trash, or in a snapshot that can be restored.

use std::process::Command;

use crate::support::cli::Ran;
use crate::support::engine::BUSYBOX;
use crate::support::plugin_host::PluginHost;
use crate::support::raw_api;

/// Runs a line in a shell, as a person or a script would.
fn sh(host: &PluginHost, line: &str) -> Ran {
    let mut command = Command::new("sh");
    host.host.sandbox.settle(&mut command);
    Ran::of(command.args(["-c", line]).output().expect("sh starts"))
}

/// Removes all that an earlier way has left.
fn clear(host: &PluginHost) {
    sh(host, "docker ps -aq | xargs -r docker rm -fv; docker volume ls -q | xargs -r docker volume rm").ok();
}

/// A data-only container with a volume that has content, and a consumer of it that has run. The volume is one with that name, or
/// without any; returns what it is called.
fn seed(host: &PluginHost, name: &str, options: &[&str], content: &str) -> String {
    if name.is_empty() {
        host.docker(&["create", "--name", "data", "--volume-driver", "voltool", "-v", "/data", BUSYBOX, "true"]);
    } else {
        host.create(name, options);
        host.docker(&["create", "--name", "data", "-v", &format!("{name}:/data"), BUSYBOX, "true"]);
    }
    let volume = host.host.volume_at("data", "/data");
    host.docker(&["run", "--name", "app", "--network", "none", "--volumes-from", "data", BUSYBOX, "true"]);
    host.write(&volume, "file", content);
    volume
}

/// Asserts that the content is somewhere, and says where.
#[track_caller]
fn survives(host: &PluginHost, way: &str, volume: &str, content: &str) -> &'static str {
    if let Ok(text) = std::fs::read_to_string(host.data(volume).join("file")) {
        assert_eq!(text, content, "{way}");
        return "volume";
    }
    // What is in a snapshot is in the trash until it is deleted there, in a moment.
    let kept = |name: &String| {
        let file = std::fs::read_to_string(host.path("state/trash").join(name).join("volume.json")).unwrap_or_default();
        let file: serde_json::Value = serde_json::from_str(&file).unwrap_or_default();
        name.ends_with(&format!("-{volume}")) && file["removed"]["keep_until"].is_string()
    };
    if let Some(name) = host.trash().into_iter().find(kept) {
        let text = std::fs::read_to_string(host.path("state/trash").join(name).join("_data/file")).expect("there");
        assert_eq!(text, content, "{way}");
        host.voltool(&["undo", "latest"]).ok();
        assert_eq!(host.read(volume, "file"), content, "{way}");
        return "trash";
    }
    let to = host.path("restored");
    if to.exists() {
        std::fs::remove_dir_all(&to).expect("removed");
    }
    let back = host.host.sandbox.restore(volume, "restored");
    assert_eq!(std::fs::read_to_string(back.join("file")).expect("restored"), content, "{way}");
    "snapshot"
}

/// With the docker command; `VOLUME` stands for the volume's name. Compose and the bare socket have places of their own below.
const WAYS: &[(&str, &str)] = &[
    ("rm -fv", "docker rm -fv app data"),
    ("volume rm", "docker rm app data; docker volume rm VOLUME"),
    ("volume rm -f", "docker rm app data; docker volume rm -f VOLUME"),
    ("volume prune", "docker rm app data; docker volume prune -f; docker volume prune -a -f"),
    ("system prune --volumes", "docker system prune -f --volumes"),
    ("container prune, then volume prune", "docker container prune -f; docker volume prune -f"),
    (
        "a script with xargs",
        "docker ps -aq | xargs docker rm -fv; docker volume ls -qf dangling=true | xargs -r docker volume rm",
    ),
    ("the last consumer", "docker rm data; docker rm -v app"),
];

/// What was never in a snapshot comes back too.
#[test]
fn the_trash_gives_back_what_was_never_stored() {
    let host = PluginHost::new();
    for (volume, options) in [("binned", &["on-remove=trash"][..]), ("empty", &[])] {
        host.create(volume, options);
        if volume == "binned" {
            host.write(volume, "file", "precious");
        }
        host.docker(&["volume", "rm", volume]);
        assert!(!host.folder(volume).exists());
        host.voltool(&["undo", "latest"]).ok();
        assert_eq!(host.docker(&["volume", "inspect", "--format", "{{.Driver}}", volume]), "voltool");
    }
    assert_eq!(host.read("binned", "file"), "precious");
    assert!(host.host.backed_up().is_empty());
}

#[test]
fn nine_ways_to_lose_data_with_nothing_but_the_driver() {
    let host = PluginHost::new();
    let mut ways = 0;
    for (way, line) in WAYS {
        for (name, options, expected) in [
            ("", &[][..], &["volume", "snapshot"][..]),
            ("kept", &["on-remove=refuse"], &["volume"]),
            ("stored", &[], &["volume", "snapshot"]),
            ("binned", &["on-remove=trash"], &["volume", "trash"]),
        ] {
            let what = format!("{way}, {}", if name.is_empty() { "without a name" } else { name });
            ways += 1;
            let content = format!("precious {ways}");
            let volume = seed(&host, name, options, &content);
            sh(&host, &line.replace("VOLUME", &volume));
            let found = survives(&host, &what, &volume, &content);
            assert!(expected.contains(&found), "{what}: {found}");
            // An engine that was refused has forgotten it, and finds it again.
            host.voltool(&["backup"]).ok();
            host.docker(&["volume", "ls"]);
            clear(&host);
        }
    }

    // The bare socket: every spelling of the same.
    for target in
        ["/v1.41/volumes/stored?force=1", "/volumes/stored", "/v1.41/%76olumes/stored", "/containers/data?v=1&force=1"]
    {
        seed(&host, "stored", &[], target);
        host.docker(&["rm", "-f", "app"]);
        if !target.contains("containers") {
            host.docker(&["rm", "-f", "data"]);
        }
        raw_api::call(&host.host.engine.socket(), "DELETE", target, None);
        survives(&host, target, "stored", target);
        clear(&host);
    }
    raw_api::call(&host.host.engine.socket(), "POST", "/v1.41/volumes/prune", None);
}

/// `down -v` sends force with every removal, whatever the engine is.
#[test]
fn compose_down_v() {
    let host = PluginHost::new();
    let folder = host.host.sandbox.folder("shop");
    let file = format!(
        "version: '2.4'\nservices:\n  db:\n    image: {BUSYBOX}\n    command: sleep 600\n    network_mode: none\n    stop_signal: SIGKILL\n    \
         volumes: ['data:/data', 'keep:/keep']\nvolumes:\n  data:\n    driver: voltool\n  keep:\n    driver: voltool\n    driver_opts:\n      \
         on-remove: refuse\n"
    );
    std::fs::write(folder.join("docker-compose.yml"), file).expect("written");
    let compose = |line: &str| sh(&host, &format!("cd {} && docker-compose {line}", folder.display()));
    compose("up -d").ok();
    for volume in ["shop_data", "shop_keep"] {
        host.write(volume, "file", "a year of work");
    }
    let ran = compose("down -v");
    assert!(ran.err.contains("on-remove=refuse"), "{}", ran.err);
    assert_eq!(survives(&host, "down -v", "shop_keep", "a year of work"), "volume");
    assert_eq!(survives(&host, "down -v", "shop_data", "a year of work"), "snapshot");
    // It comes up again, and both are there once they are called back.
    host.voltool(&["undo", "latest"]).ok();
    compose("up -d").ok();
    for volume in ["shop_data", "shop_keep"] {
        assert_eq!(host.docker(&["exec", "shop_db_1", "cat", &format!("/{}/file", &volume[5..])]), "a year of work");
    }
}

/// A volume that docker is told to make again is the same one; the engine never has a way to its content but the driver's.
#[test]
fn the_engine_is_gone_with_all_that_it_knew() {
    let mut host = PluginHost::new();
    host.create("db", &[]);
    host.write("db", "file", "orders");
    host.host.engine.stop();
    std::fs::remove_dir_all(host.host.engine.data_root().join("volumes")).expect("removed");
    host.host.engine.restart();
    host.create("db", &[]);
    assert_eq!(host.docker(&["run", "--rm", "-v", "db:/d", BUSYBOX, "cat", "/d/file"]), "orders");
}
