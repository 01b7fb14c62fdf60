//! Volumes from their creation to their end, on a real engine.

use serde_json::json;

use crate::support::engine::BUSYBOX;
use crate::support::plugin_host::PluginHost;

#[test]
fn a_volume_lives_and_is_hard_to_lose() {
    let mut host = PluginHost::new();
    host.create("db", &[]);
    let inspected = host.docker(&["volume", "inspect", "db"]);
    assert!(inspected.contains("\"Driver\": \"voltool\"") && inspected.contains("\"state\": \"ready\""), "{inspected}");
    host.host.run_container("app", &["-v", "db:/db"]);
    host.docker(&["exec", "app", "sh", "-c", "echo orders > /db/file"]);
    assert_eq!(host.read("db", "file"), "orders\n");
    assert_eq!(host.status("db")["mounts"], 1);

    // In use: by a container that runs, and by one that does not.
    assert!(host.fails(&["volume", "rm", "db"]).contains("in use"));
    host.docker(&["stop", "-t", "0", "app"]);
    host.wait("the use has ended", || host.status("db")["mounts"] == 0);
    host.docker(&["rm", "-v", "app"]);
    assert_eq!(host.read("db", "file"), "orders\n");
    host.docker(&["volume", "prune", "-f"]);
    assert_eq!(host.read("db", "file"), "orders\n");

    // By default a snapshot is taken before it goes; undo brings it back.
    host.docker(&["volume", "rm", "db"]);
    assert!(!host.folder("db").exists());
    assert_eq!(host.host.backed_up(), ["db"]);
    host.wait("what is in a snapshot is deleted", || host.trash().is_empty());
    host.voltool(&["undo", "latest"]).ok();
    assert_eq!(host.read("db", "file"), "orders\n");
    let inspected = host.docker(&["volume", "inspect", "db"]);
    assert!(inspected.contains("\"Driver\": \"voltool\""), "{inspected}");

    // A new one with its content.
    host.create("copy", &["from=db"]);
    host.docker(&["run", "--rm", "-v", "copy:/d", BUSYBOX, "grep", "orders", "/d/file"]);
    assert!(host.fails(&["volume", "create", "-d", "voltool", "-o", "from=dc", "other"]).contains("no snapshot of dc"));

    // A copy that was set aside goes into the trash, and not with the folder.
    host.create("moved", &[]);
    std::fs::create_dir(host.folder("moved").join("_stale")).expect("made");
    std::fs::write(host.folder("moved").join("_stale/file"), "only here").expect("written");
    host.docker(&["volume", "rm", "moved"]);
    host.wait("the rest is deleted", || host.trash().len() == 1);
    let kept = host.path("state/trash").join(&host.trash()[0]).join("_data/file");
    assert_eq!(std::fs::read_to_string(kept).expect("kept"), "only here");

    // A daemon that was away knows everything.
    host.kill_daemon();
    host.start_daemon();
    assert_eq!(host.docker(&["volume", "ls", "-q", "-f", "driver=voltool"]), "copy\ndb");
    assert_eq!(host.ask("VolumeDriver.Get", &json!({"Name": "none"})).status, 500);
}
