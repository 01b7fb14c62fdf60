//! What real engines do with volumes of the driver: the cases of moby's own tests, by their names, and the sequences that lose volumes
//! with other drivers.

use std::io::Read;
use std::os::unix::net::UnixListener;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::cli::Sandbox;
use crate::support::engine::BUSYBOX;
use crate::support::host::Host;
use crate::support::plugin_host::PluginHost;

/// The docker command, under way.
fn begin(host: &PluginHost, args: &[&str]) -> Child {
    let mut command = host.host.engine.docker_command(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("docker starts")
}

#[track_caller]
fn ended(child: Child) -> (bool, String) {
    let output = child.wait_with_output().expect("it ends");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Waits until that many uses are counted.
#[track_caller]
fn wait_mounts(host: &PluginHost, volume: &str, count: u64) {
    host.wait(&format!("{volume} has {count} uses"), || host.status(volume)["mounts"] == count);
}

/// A file of a volume's folder, as JSON.
fn file(host: &PluginHost, volume: &str) -> Value {
    let text = std::fs::read_to_string(host.folder(volume).join("volume.json")).expect("there");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn volumes_behave_as_engines_expect() {
    let host = PluginHost::new();
    // TestVolumeCLICreateOptionConflict: another driver's is another volume, other options are not.
    host.create("db", &["mode=0750"]);
    host.create("db", &["mode=0700"]);
    assert!(host.fails(&["volume", "create", "db"]).contains("db"), "the driver is another one");
    assert_eq!(host.docker(&["volume", "inspect", "--format", "{{json .Options}}", "db"]), r#"{"mode":"0750"}"#);

    // TestExternalVolumeDriverNamed, …BindExternalVolume, …List, …Get.
    let run = |args: &[&str]| host.docker(&[&["run", "--rm", "--network", "none"], args].concat());
    run(&["--volume-driver", "voltool", "-v", "named:/d", BUSYBOX, "sh", "-c", "echo here > /d/file"]);
    assert_eq!(run(&["-v", "named:/d", BUSYBOX, "cat", "/d/file"]), "here");
    let mount = "type=volume,source=mounted,destination=/d,volume-driver=voltool,volume-opt=uid=7,volume-label=a=b";
    assert_eq!(run(&["--mount", mount, BUSYBOX, "stat", "-c", "%u", "/d"]), "7");
    assert_eq!(host.docker(&["volume", "ls", "-q", "-f", "driver=voltool"]), "db\nmounted\nnamed");
    let inspected: Value = serde_json::from_str(&host.docker(&["volume", "inspect", "named"])).expect("JSON");
    assert_eq!(inspected[0]["Mountpoint"].as_str(), host.data("named").to_str());
    assert_eq!((&inspected[0]["Scope"], &inspected[0]["Status"]["state"]), (&json!("local"), &json!("ready")));
    assert!(inspected[0]["CreatedAt"].as_str().is_some_and(|at| at.ends_with('Z')), "{inspected}");

    // TestExternalVolumeDriverVolumesFrom, …DeleteContainer, and TestDuplicateMountpointsForVolumesFrom.
    host.host.run_container("first", &["-v", "named:/d", "-v", "named:/again"]);
    host.host.run_container("second", &["--volumes-from", "first"]);
    wait_mounts(&host, "named", 4);
    host.docker(&["rm", "-f", "-v", "first"]);
    wait_mounts(&host, "named", 2);
    assert!(host.fails(&["volume", "rm", "named"]).contains("in use"));
    host.docker(&["rm", "-f", "-v", "second"]);
    wait_mounts(&host, "named", 0);
    assert_eq!(host.read("named", "file"), "here\n");

    // One that was made from another and never started does not count for the engine (docker-facts 1.2).
    host.docker(&["create", "--name", "first", "-v", "named:/d", BUSYBOX]);
    host.docker(&["create", "--name", "second", "--volumes-from", "first", BUSYBOX]);
    host.docker(&["rm", "-v", "first"]);
    let said = host.fails(&["volume", "rm", "named"]);
    assert!(said.contains("second"), "{said}");
    host.docker(&["rm", "-v", "second"]);

    // TestExternalVolumeDriverUnnamed: what has no name goes with its container, and what was in it is in a snapshot.
    let make = "echo precious > /d/file; grep -o '/volumes/[0-9a-f]*/_data' /proc/self/mountinfo";
    let said = run(&["--volume-driver", "voltool", "-v", "/d", BUSYBOX, "sh", "-c", make]);
    let name = said.trim().trim_start_matches("/volumes/").trim_end_matches("/_data").to_owned();
    host.wait("it is removed", || !host.folder(&name).exists());
    assert_eq!(host.host.backed_up(), [name.as_str()]);
    let back = host.host.sandbox.restore(&name, "unnamed");
    assert_eq!(std::fs::read_to_string(back.join("file")).expect("restored"), "precious\n");

    // TestExternalVolumeDriverUnmountOnMountFail: what was mounted for a container that does not start is let go.
    assert!(!host.host.engine.try_docker(&["run", "--rm", "-v", "named:/d", BUSYBOX, "/no/such"]).status.success());
    std::fs::remove_dir(host.data("mounted")).expect("removed");
    let said = host.fails(&["run", "--rm", "-v", "named:/d", "-v", "mounted:/m", "-v", "db:/z", BUSYBOX, "true"]);
    assert!(said.contains("lost its folder"), "{said}");
    for volume in ["named", "db", "mounted"] {
        assert_eq!(host.status(volume)["mounts"], 0, "{volume}");
    }

    // TestExternalVolumeDriverUnmountOnCp, and the same id twice (docker-facts 6).
    host.host.run_container("app", &["-v", "named:/d"]);
    wait_mounts(&host, "named", 1);
    let out = host.path("copied");
    for _ in 0..3 {
        host.docker(&["cp", "app:/d/file", out.to_str().expect("UTF-8")]);
    }
    host.docker(&["cp", out.to_str().expect("UTF-8"), "app:/d/copy"]);
    assert_eq!(host.status("named")["mounts"], 1, "it runs on");
    assert_eq!(host.ask("VolumeDriver.Remove", &json!({"Name": "named"})).status, 500);
    host.docker(&["stop", "-t", "0", "app"]);
    host.docker(&["cp", "app:/d/copy", out.to_str().expect("UTF-8")]);
    wait_mounts(&host, "named", 0);
    host.docker(&["rm", "app"]);

    // TestExternalVolumeDriverOutOfBandDelete.
    assert_eq!(host.ask("VolumeDriver.Remove", &json!({"Name": "named"})).status, 200);
    assert!(host.fails(&["volume", "inspect", "named"]).contains("named"));
    host.create("named", &["from=named"]);
    assert_eq!(run(&["-v", "named:/d", BUSYBOX, "cat", "/d/file"]), "here");
    // What an image has in the place comes into a new volume, and not into one with content.
    host.create("fresh", &[]);
    let image = crate::support::engine::WITH_VOLUME;
    assert_eq!(run(&["-v", "fresh:/image-volume", image, "cat", "/image-volume/from-image"]), "from the image");
    assert_eq!(run(&["-v", "named:/image-volume", image, "ls", "/image-volume"]), "copy\nfile");
    assert_eq!(host.status("fresh")["mounts"], 0);
}

/// A refusal makes the engine forget what it knows; nobody else does (docker-facts 4 and 5).
#[test]
fn the_engine_forgets_and_the_driver_does_not() {
    let mut host = PluginHost::new();
    host.docker(&["volume", "create", "-d", "voltool", "-o", "on-remove=refuse", "--label", "team=shop", "db"]);
    host.write("db", "file", "orders");
    assert_eq!(label(&host, "db", "team"), "shop");
    // Its labels are asked for at the start, and now and then.
    host.kill_daemon();
    host.start_daemon();
    host.wait("it has learned the label", || file(&host, "db")["labels"]["team"] == "shop");

    // TestVolumeCLIRmForce, TestVolumeCLIRmForceUsage.
    for force in [&["volume", "rm", "db"][..], &["volume", "rm", "-f", "db"]] {
        let said = host.fails(force);
        assert!(said.contains("on-remove=refuse") && said.contains("voltool backup db"), "{said}");
        assert_eq!(host.read("db", "file"), "orders\n".trim_end());
    }
    // Forgotten: the name is free, and another volume takes it.
    host.docker(&["volume", "create", "db"]);
    assert_eq!(host.docker(&["volume", "inspect", "--format", "{{.Driver}}", "db"]), "local");
    assert_eq!(host.docker(&["run", "--rm", "-v", "db:/d", BUSYBOX, "ls", "/d"]), "");
    assert_eq!(host.read("db", "file"), "orders");
    host.docker(&["volume", "rm", "db"]);
    // The engine finds it again, without the label, which the driver still has.
    assert_eq!(host.docker(&["run", "--rm", "-v", "db:/d", BUSYBOX, "cat", "/d/file"]), "orders");
    host.kill_daemon();
    host.start_daemon();
    assert_eq!(file(&host, "db")["labels"], json!({"team": "shop"}));
    host.voltool(&["backup", "db"]).ok();
    host.docker(&["volume", "rm", "db"]);
    host.voltool(&["undo", "latest"]).ok();
    assert_eq!((host.read("db", "file").as_str(), label(&host, "db", "team").as_str()), ("orders", "shop"));

    // A daemon that ends in the middle of a request is asked again, without the question (docker-facts 3).
    host.kill_daemon();
    std::fs::remove_file(host.socket()).expect("left behind");
    let listener = UnixListener::bind(host.socket()).expect("bound");
    let asked = begin(&host, &["volume", "inspect", "db"]);
    for _ in 0..2 {
        let (mut stream, _) = listener.accept().expect("asked");
        let _ = stream.read(&mut [0; 4096]);
    }
    drop(listener);
    std::fs::remove_file(host.socket()).expect("removed");
    host.start_daemon();
    // Whether that answer comes, or a failure, is the engine's business.
    let _ = ended(asked);
    assert_eq!(label(&host, "db", "team"), "shop", "nothing was forgotten over it");

    // TestExternalVolumeDriverRetryNotImmediatelyExists.
    host.kill_daemon();
    let asked = begin(&host, &["volume", "create", "-d", "voltool", "late"]);
    std::thread::sleep(Duration::from_millis(500));
    host.start_daemon();
    let (made, said) = ended(asked);
    assert!(made, "{said}");
    host.docker(&["volume", "rm", "late"]);
}

fn label(host: &PluginHost, volume: &str, label: &str) -> String {
    host.docker(&["volume", "inspect", "--format", &format!("{{{{index .Labels {label:?}}}}}"), volume])
}

/// TestExternalVolumeDriverLookupNotBlocked, with a bucket that takes connections and never answers.
#[test]
fn lookups_do_not_wait_for_the_bucket() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let mut sandbox = Sandbox::bare();
    let address = format!("http://{}", silent.local_addr().expect("bound"));
    for (name, value) in [
        ("AWS_ENDPOINT_URL", address.as_str()),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ] {
        sandbox.set(name, value);
    }
    sandbox.file("config.toml", "repo = \"s3://bucket/prefix\"\n");
    let host = PluginHost::with(Host::with(sandbox));
    host.create("plain", &[]);
    host.create("lost", &["on-empty=restore"]);
    let run = begin(&host, &["run", "--rm", "--network", "none", "-v", "lost:/d", BUSYBOX, "true"]);
    host.wait("it is being restored", || host.status("lost")["state"] == "restoring");
    assert_eq!(host.docker(&["volume", "ls", "-q"]), "lost\nplain");
    assert_eq!(host.docker(&["run", "--rm", "-v", "plain:/d", BUSYBOX, "echo", "runs"]), "runs");
    host.write("plain", "file", "new");
    let remove = begin(&host, &["volume", "rm", "plain"]);
    // It fails in the end, and nothing of it is left.
    let (started, said) = ended(run);
    assert!(!started && said.contains("does not answer"), "{said}");
    assert_eq!(host.status("lost")["mounts"], 0);
    let (removed, said) = ended(remove);
    assert!(!removed && said.contains("plain is kept") && said.contains("does not answer"), "{said}");
    assert_eq!(host.read("plain", "file"), "new");
    host.docker(&["volume", "rm", "lost"]);
}

/// TestExternalVolumeDriverWithDaemonRestart, TestDaemonKillWithPlugins, TestPluginVolumeRemoveOnRestart.
#[test]
fn uses_are_right_whatever_ends_first() {
    let mut host = PluginHost::new();
    // Not five minutes.
    host.host.sandbox.set("VOLTOOL_TEST_QUIET", "1");
    host.kill_daemon();
    host.start_daemon();
    host.create("db", &[]);
    host.host.run_container("app", &["-v", "db:/db", "--restart", "always"]);
    host.docker(&["exec", "app", "sh", "-c", "echo orders > /db/file"]);
    wait_mounts(&host, "db", 1);

    // The engine ends in an orderly way, and starts again.
    host.host.engine.restart();
    host.wait("it runs again", || host.host.is_running("app"));
    assert_eq!(host.status("db")["mounts"], 1);
    assert!(host.fails(&["volume", "rm", "db"]).contains("in use"));

    // The daemon ends while the container runs.
    host.kill_daemon();
    host.docker(&["exec", "app", "sh", "-c", "echo more >> /db/file"]);
    host.start_daemon();
    assert_eq!(host.status("db")["mounts"], 1);
    assert_eq!(host.ask("VolumeDriver.Remove", &json!({"Name": "db"})).status, 500);

    // The engine is killed: the same id comes twice, and ends once (docker-facts 6).
    host.host.engine.kill();
    host.host.engine.restart();
    host.wait("it runs again", || host.host.is_running("app"));
    host.docker(&["exec", "app", "sh", "-c", "echo again >> /db/file"]);
    host.docker(&["rm", "-f", "app"]);
    host.wait("what the engine forgot is noticed", || {
        std::thread::sleep(Duration::from_secs(1));
        host.host.engine.try_docker(&["volume", "rm", "db"]).status.success()
    });
    host.voltool(&["undo", "latest"]).ok();
    assert_eq!(host.read("db", "file"), "orders\nmore\nagain\n");

    // The daemon is away while a container ends.
    host.host.run_container("app", &["-v", "db:/db"]);
    wait_mounts(&host, "db", 1);
    host.kill_daemon();
    host.docker(&["rm", "-f", "app"]);
    host.start_daemon();
    host.wait("the end is noticed", || {
        std::thread::sleep(Duration::from_secs(1));
        host.host.engine.try_docker(&["volume", "rm", "db"]).status.success()
    });
}

/// TestLiveRestore, TestDaemonKillLiveRestoreWithPlugins; and an engine that starts while the daemon is down, which loses what it knew
/// of who uses what (docker-facts 1): other drivers' volumes can then be removed under a running database.
#[test]
fn running_containers_keep_their_volumes_when_engines_forget() {
    let mut host = PluginHost::new();
    host.host.sandbox.set("VOLTOOL_TEST_QUIET", "1");
    std::fs::write(host.host.engine.data_root().with_file_name("daemon.json"), r#"{"live-restore": true}"#)
        .expect("written");
    host.host.engine.restart();
    host.kill_daemon();
    host.start_daemon();
    host.create("db", &[]);
    // It writes all the time. That it still does is seen in the volume: a new engine cannot always enter what an old one has started.
    let work = "echo orders > /db/file; while :; do echo >> /db/ticks; usleep 50000; done";
    let run = [
        "run",
        "-d",
        "--name",
        "app",
        "--network",
        "none",
        "--stop-signal",
        "KILL",
        "-v",
        "db:/db",
        BUSYBOX,
        "sh",
        "-c",
        work,
    ];
    host.docker(&run);
    let works = |host: &PluginHost| {
        let ticks = || host.read("db", "ticks").len();
        let before = ticks();
        host.wait("the container still writes", || ticks() > before);
        assert_eq!(host.read("db", "file"), "orders\n");
    };
    host.wait("it works", || host.data("db").join("ticks").exists());

    host.host.engine.restart();
    works(&host);
    assert_eq!(host.status("db")["mounts"], 1);
    // On 20.10 this takes along the id under which the container has it.
    let out = host.path("copied");
    host.docker(&["cp", "app:/db/file", out.to_str().expect("UTF-8")]);
    assert_eq!(host.status("db")["mounts"], 1);
    host.docker(&["stop", "-t", "0", "app"]);
    host.docker(&["start", "app"]);
    host.host.engine.kill();
    host.host.engine.restart();
    works(&host);

    // The daemon is down when the engine starts, and knows nothing of its own either.
    host.kill_daemon();
    host.host.engine.stop();
    std::fs::remove_file(host.folder("db").join("mounts.json")).expect("there");
    host.host.engine.restart();
    host.start_daemon();
    works(&host);
    for remove in [&["volume", "rm", "db"][..], &["volume", "rm", "-f", "db"], &["volume", "prune", "-f"]] {
        let _ = host.host.engine.try_docker(remove);
        works(&host);
    }
    let answer = host.ask("VolumeDriver.Remove", &json!({"Name": "db"}));
    assert!(answer.status == 500 && answer.body.contains("app"), "{answer:?}");
    // And the use ends with the container.
    host.docker(&["rm", "-f", "app"]);
    host.wait("the end is noticed", || {
        std::thread::sleep(Duration::from_secs(1));
        host.ask("VolumeDriver.Remove", &json!({"Name": "db"})).status == 200
    });
    host.voltool(&["undo", "latest"]).ok();
    assert_eq!(host.read("db", "file"), "orders\n");
}
