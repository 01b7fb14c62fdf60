//! `examples/managed-plugin`: the driver as a plugin that the engine manages, made without a registry.

mod support;

use std::path::PathBuf;
use std::process::Command;

use support::engine::BUSYBOX;
use support::host::Host;

struct Managed {
    host: Host,
}

impl Managed {
    fn new() -> Managed {
        let managed = Managed { host: Host::new() };
        for folder in ["plugin-cache", "plugin-config", "plugin-state"] {
            managed.host.sandbox.folder(folder);
        }
        managed.install();
        managed
    }

    /// Makes the plugin, and enables it.
    fn install(&self) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/managed-plugin/build.sh");
        let mut command = Command::new("sh");
        command.args([script, env!("CARGO_BIN_EXE_voltool")]).env("DOCKER_HOST", self.host.engine.host());
        let output = command.output().expect("sh runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let engine = self.host.engine.socket();
        let path = |name: &str| self.host.sandbox.path(name).to_str().expect("UTF-8").to_owned();
        self.host.docker(&[
            "plugin",
            "set",
            "voltool",
            &format!("state.source={}", path("plugin-state")),
            &format!("VOLTOOL_HOST_STATE_DIR={}", path("plugin-state")),
            &format!("cache.source={}", path("plugin-cache")),
            &format!("config.source={}", path("plugin-config")),
            &format!("run.source={}", engine.parent().expect("a folder").display()),
        ]);
        self.host.docker(&["plugin", "enable", "voltool"]);
    }

    fn data(&self, volume: &str) -> PathBuf {
        self.host.sandbox.path("plugin-state/volumes").join(volume).join("_data")
    }

    fn in_container(&self, script: &str) -> String {
        self.host.docker(&["run", "--rm", "--network", "none", "-v", "db:/db", BUSYBOX, "sh", "-c", script])
    }
}

#[test]
fn a_plugin_that_the_engine_manages_keeps_data_outside_of_itself() {
    let mut managed = Managed::new();
    managed.host.docker(&["volume", "create", "-d", "voltool", "--label", "a=b", "db"]);
    managed.host.run_container("app", &["-v", "db:/db"]);
    managed.host.docker(&["exec", "app", "sh", "-c", "echo orders > /db/file"]);
    let file = managed.data("db").join("file");
    assert_eq!(std::fs::read_to_string(&file).expect("on the host"), "orders\n");
    assert_eq!(managed.in_container("cat /db/file; echo second > /db/second"), "orders");
    assert!(managed.host.docker(&["exec", "app", "cat", "/db/second"]) == "second", "both see the same");

    // voltool on the host finds the content, although the engine shows a path inside of the plugin.
    assert_eq!(managed.host.mountpoint("db"), PathBuf::from("/mnt/volumes/db"));
    managed.host.ok(&["backup", "db"]);
    assert_eq!(managed.host.backed_up(), ["db"]);

    // The engine stops and starts the plugin, and mounts again.
    managed.host.engine.restart();
    managed.host.docker(&["start", "app"]);
    assert_eq!(managed.host.docker(&["exec", "app", "cat", "/db/file"]), "orders");
    managed.host.docker(&["rm", "-f", "app"]);
    assert_eq!(managed.in_container("cat /db/file"), "orders");

    // Away with the plugin, and all that is in its folders.
    managed.host.docker(&["plugin", "disable", "-f", "voltool"]);
    managed.host.docker(&["plugin", "rm", "-f", "voltool"]);
    assert_eq!(std::fs::read_to_string(&file).expect("on the host"), "orders\n");
    managed.install();
    assert_eq!(managed.in_container("cat /db/file"), "orders");
    // It is removed as any other: what is not in a snapshot stays, and without a repository none can be taken.
    managed.host.docker(&["run", "--rm", "--network", "none", "-v", "db:/db", BUSYBOX, "touch", "/db/new"]);
    let refused = managed.host.engine.try_docker(&["volume", "rm", "db"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no repository is configured"), "{refused:?}");
    assert!(file.exists());
    managed.in_container("rm /db/*");
    managed.host.docker(&["volume", "rm", "db"]);
    assert!(!file.exists());
}
