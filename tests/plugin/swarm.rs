//! A Swarm of three nodes, and one bucket: a volume follows the task of a service from node to node.
//!
//! The manager's network is the switch between the nodes, and it runs no tasks. Links go away with the engines' networks.

use std::process::Command;

use crate::sharing::hosts;
use crate::support::engine::{BUSYBOX, TestEngine};
use crate::support::mem_s3::MemS3;
use crate::support::plugin_host::PluginHost;

/// What the service runs: its last words are the last bytes of the volume.
const TASK: &str = r#"trap 'echo "stopped on $NODE" >> /db/log; exit' TERM
echo "started on $NODE" >> /db/log
while :; do sleep 1 & wait; done"#;

/// A manager, which has no volume driver.
struct Swarm {
    manager: TestEngine,
}

impl Swarm {
    /// Makes a Swarm with these workers, and returns their ids.
    fn with<const N: usize>(workers: [&PluginHost; N]) -> (Swarm, [String; N]) {
        let manager = TestEngine::start();
        ip(&manager, "link add switch type bridge");
        ip(&manager, "link set switch up");
        ip(&manager, "addr add 10.213.77.1/24 dev switch");
        // Detection of a dead node takes three heartbeats.
        manager.docker(&["swarm", "init", "--advertise-addr", "10.213.77.1", "--dispatcher-heartbeat", "1s"]);
        let token = manager.docker(&["swarm", "join-token", "-q", "worker"]);
        let mut number = 1;
        let ids = workers.map(|worker| {
            let engine = &worker.host.engine;
            number += 1;
            let port = format!("port{number}");
            let network = engine.network();
            ip(&manager, &format!("link add {port} type veth peer name wire netns {}", network.display()));
            ip(&manager, &format!("link set {port} master switch up"));
            let address = format!("10.213.77.{number}");
            ip(engine, &format!("addr add {address}/24 dev wire"));
            ip(engine, "link set wire up");
            worker.docker(&["swarm", "join", "--advertise-addr", &address, "--token", &token, "10.213.77.1:2377"]);
            node(engine)
        });
        let swarm = Swarm { manager };
        swarm.set(&node(&swarm.manager), "drain");
        (swarm, ids)
    }

    /// Makes a node `active`, or drains it with `drain`.
    #[track_caller]
    fn set(&self, node: &str, availability: &str) {
        self.manager.docker(&["node", "update", "--availability", availability, node]);
    }

    /// What the manager believes of a node.
    #[track_caller]
    fn state(&self, node: &str) -> String {
        self.manager.docker(&["node", "inspect", "--format", "{{.Status.State}}", node])
    }

    /// How far the newest task has come.
    #[track_caller]
    fn task(&self) -> String {
        let all = self.manager.docker(&["service", "ps", "--format", "{{.CurrentState}} {{.Error}}", "app"]);
        all.lines().next().unwrap_or_default().to_owned()
    }
}

fn node(engine: &TestEngine) -> String {
    engine.docker(&["info", "--format", "{{.Swarm.NodeID}}"])
}

#[track_caller]
fn ip(engine: &TestEngine, arguments: &str) {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", engine.network().display())).arg("ip").args(arguments.split(' '));
    let output = command.output().expect("nsenter (package util-linux) starts");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What tasks have written, as far as this host has it.
fn log(host: &PluginHost) -> String {
    std::fs::read_to_string(host.data("db").join("log")).unwrap_or_default()
}

#[track_caller]
fn wait_for(swarm: &Swarm, host: &PluginHost, expected: &str) {
    host.wait(&format!("{expected:?} in the volume"), || {
        assert!(!log(host).contains("lost\nstarted"), "{}", log(host));
        log(host) == expected
    });
    host.wait("the manager hears of it", || swarm.task().starts_with("Running"));
}

/// Writes a line from within the task.
#[track_caller]
fn write(host: &PluginHost, line: &str) {
    let task = host.docker(&["ps", "-q", "--filter", "label=com.docker.swarm.service.name=app"]);
    host.docker(&["exec", &task, "sh", "-c", &format!("echo {line} >> /db/log")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_follows_a_service() {
    let server = MemS3::new().serve().await;
    let bucket = server.clone();
    tokio::task::spawn_blocking(move || {
        let (north, mut south) = hosts(&bucket);
        let (swarm, [in_north, in_south]) = Swarm::with([&north, &south]);
        let mut expected = format!("started on {in_north}\n");
        swarm.set(&in_south, "drain");
        let mount = "type=volume,src=db,dst=/db,volume-driver=voltool,volume-opt=handover=true";
        let service = ["service", "create", "--detach", "--no-resolve-image", "--name", "app", "--network", "host"];
        let how = ["--restart-delay", "500ms", "--env", "NODE={{.Node.ID}}", "--mount", mount];
        swarm.manager.docker(&[&service[..], &how, &[BUSYBOX, "sh", "-c", TASK]].concat());
        wait_for(&swarm, &north, &expected);

        // Drained, with the last byte: it is written while the task is told to stop.
        swarm.set(&in_south, "active");
        swarm.set(&in_north, "drain");
        expected += &format!("stopped on {in_north}\nstarted on {in_south}\n");
        wait_for(&swarm, &south, &expected);
        swarm.set(&in_north, "active");

        // Dead without warning, with something that is in no snapshot.
        write(&south, "saved");
        expected += "saved\n";
        south.voltool(&["backup"]).ok();
        write(&south, "lost");
        south.host.engine.kill();
        south.kill_daemon();
        north.wait("the node is believed to be dead", || swarm.state(&in_south) == "down");
        north.wait("the task is to start elsewhere", || swarm.task().starts_with("Starting"));
        // There it waits, until somebody says that the other one is gone.
        assert!(!log(&north).contains("saved"), "{}", log(&north));
        let taken = north.voltool(&["plugin", "take-over", "db"]);
        assert!(taken.err.contains("has lost it"), "{}", taken.err);
        expected += &format!("started on {in_north}\n");
        wait_for(&swarm, &north, &expected);

        // It comes back, and nothing of what only it has counts.
        let snapshots = north.host.sandbox.snapshots().len();
        south.start_daemon();
        south.host.engine.restart();
        north.wait("the node is back", || swarm.state(&in_south) == "ready");
        south.wait("its task is ended", || {
            south.docker(&["ps", "-q", "--filter", "label=com.docker.swarm.service.name=app"]).is_empty()
        });
        let ran = south.voltool(&["backup"]);
        assert!(ran.code == Some(1) || ran.err.contains("another host's to take"), "{}", ran.err);
        assert_eq!(south.host.sandbox.snapshots().len(), snapshots, "nothing of it counts");

        // The service comes back to it, with what it has written elsewhere, and goes on to follow.
        swarm.set(&in_north, "drain");
        expected += &format!("stopped on {in_north}\nstarted on {in_south}\n");
        wait_for(&swarm, &south, &expected);
        let kept: Vec<String> = south
            .trash()
            .iter()
            .filter_map(|name| std::fs::read_to_string(south.path("state/trash").join(name).join("_data/log")).ok())
            .collect();
        assert!(kept.iter().any(|log| log.contains("saved\nlost\n")), "{kept:?}; {}", south.log());
        swarm.set(&in_north, "active");
        swarm.set(&in_south, "drain");
        expected += &format!("stopped on {in_south}\nstarted on {in_north}\n");
        wait_for(&swarm, &north, &expected);
        // Nodes whose manager is gone take their time to stop.
        for mut host in [north, south] {
            host.host.engine.kill();
        }
    })
    .await
    .expect("passed");
    drop(server);
}
