//! Two hosts, one bucket: a volume follows its containers, and belongs to one host at a time.

use crate::support::cli::{Lock, Sandbox};
use crate::support::engine::BUSYBOX;
use crate::support::host::Host;
use crate::support::mem_s3::{MemS3, Server};
use crate::support::plugin_host::PluginHost;

/// Hosts that share volumes. Waiting for each other takes them a few seconds.
pub fn hosts(server: &Server) -> (PluginHost, PluginHost) {
    let shared = "shared_as = \"cluster\"\nlease_wait = \"20s\"\n";
    let run = ulid::Ulid::generate().to_string();
    let first = Sandbox::on_any_s3(server, "p", &run);
    first.init(Lock::Identity).ok();
    let second = Sandbox::on_any_s3(server, "p", &run);
    for file in ["config.toml", "identity.txt"] {
        second.file(file, &std::fs::read_to_string(first.path(file)).expect("init wrote it"));
    }
    let start = |sandbox, name: &str| {
        let mut host = PluginHost::with_settings(Host::with(sandbox), shared);
        host.kill_daemon();
        let config = host.path("config.toml");
        let text = std::fs::read_to_string(&config).expect("there");
        std::fs::write(config, format!("{text}\n[engine]\nname = \"{name}\"\n")).expect("written");
        host.start_daemon();
        host
    };
    (start(first, "north"), start(second, "south"))
}

fn append(host: &PluginHost, line: &str) {
    host.docker(&["run", "--rm", "-v", "db:/db", BUSYBOX, "sh", "-c", &format!("echo {line} >> /db/log")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_follows_its_containers() {
    let server = MemS3::new().serve().await;
    let (north, south) = tokio::task::spawn_blocking({
        let server = server.clone();
        move || hosts(&server)
    })
    .await
    .expect("made");
    tokio::task::spawn_blocking(move || {
        let (north, south) = (north, south);
        for host in [&north, &south] {
            host.create("db", &["handover=true"]);
            assert_eq!(host.docker(&["volume", "inspect", "--format", "{{.Scope}}", "db"]), "global");
        }
        // Drained from one to the other and back, with the last byte each time.
        append(&north, "one");
        append(&south, "two");
        append(&north, "three");
        assert_eq!(north.read("db", "log"), "one\ntwo\nthree\n");

        // While one uses it, the other is told who does.
        north.host.run_container("app", &["-v", "db:/db"]);
        let said = south.fails(&["run", "--rm", "-v", "db:/db", BUSYBOX, "true"]);
        assert!(said.contains("in use on host") && said.contains("voltool plugin take-over db"), "{said}");
        // Nor does it take snapshots of what it has.
        let ran = south.voltool(&["backup"]);
        assert!(ran.err.contains("another host's to take"), "{}", ran.err);
        let ran = north.voltool(&["backup"]);
        assert!(ran.err.contains("backed up db"), "{}", ran.err);
    })
    .await
    .expect("passed");
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_overtaken_cannot_put_itself_first() {
    let server = MemS3::new().serve().await;
    let (north, south) = tokio::task::spawn_blocking({
        let server = server.clone();
        move || hosts(&server)
    })
    .await
    .expect("made");
    tokio::task::spawn_blocking(move || {
        let (mut north, south) = (north, south);
        north.create("db", &["handover=true"]);
        append(&north, "one");
        north.host.run_container("app", &["-v", "db:/db"]);
        north.docker(&["exec", "app", "sh", "-c", "echo saved >> /db/log"]);
        north.voltool(&["backup"]).ok();
        north.docker(&["exec", "app", "sh", "-c", "echo lost >> /db/log"]);

        // Without warning.
        north.host.engine.kill();
        north.kill_daemon();
        south.create("db", &["handover=true"]);
        assert!(south.fails(&["run", "--rm", "-v", "db:/db", BUSYBOX, "true"]).contains("in use on host"));
        let taken = south.voltool(&["plugin", "take-over", "db"]);
        assert!(taken.err.contains("has lost it"), "{}", taken.err);
        south.docker(&["run", "--rm", "-v", "db:/db", BUSYBOX, "grep", "saved", "/db/log"]);
        append(&south, "south");

        // It comes back, believes that the volume is its own, and finds that it is not.
        north.start_daemon();
        north.host.engine.restart();
        let snapshots = north.host.sandbox.snapshots().len();
        let ran = north.voltool(&["backup"]);
        assert!(ran.code == Some(1) || ran.err.contains("another host's to take"), "{}", ran.err);
        assert_eq!(north.host.sandbox.snapshots().len(), snapshots, "nothing of it counts");
        north.docker(&["rm", "-f", "app"]);
        append(&north, "north");
        assert_eq!(north.read("db", "log"), "one\nsaved\nsouth\nnorth\n");
        // What it had written meanwhile is kept for a while.
        let kept: Vec<String> = north
            .trash()
            .iter()
            .filter_map(|name| std::fs::read_to_string(north.path("state/trash").join(name).join("_data/log")).ok())
            .collect();
        assert_eq!(kept, ["one\nsaved\nlost\n"], "{}", north.log());
    })
    .await
    .expect("passed");
    drop(server);
}
