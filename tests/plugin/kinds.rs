//! Volumes with a limit, and volumes whose content is elsewhere, from the engine's or a backup's end. What the file systems and helpers do is
//! tested in `volume_quota` and `volume_backing`.
//!
//! Mounts are made in a mount namespace that is gone with the process.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::cli::{Lock, Sandbox};
use crate::support::engine::BUSYBOX;
use crate::support::host::Host;
use crate::support::namespace::{in_own_namespace, inside, sftp};
use crate::support::plugin_host::PluginHost;

fn run(command: &str, args: &[&str], path: &Path) {
    let output = Command::new(command).args(args).arg(path).output().expect("it runs");
    assert!(output.status.success(), "{command} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_volume_has_a_limit() {
    in_own_namespace("kinds::inside_limit");
}

#[test]
#[ignore = "run in a namespace of its own by a_volume_has_a_limit"]
fn inside_limit() {
    if !inside() {
        return;
    }
    let sandbox = Sandbox::new(Lock::Identity);
    let (image, state) = (sandbox.path("image"), sandbox.folder("state"));
    File::create(&image).and_then(|file| file.set_len(400 << 20)).expect("made");
    run("mkfs.btrfs", &["--quiet"], &image);
    run("mount", &["-o", "loop", image.to_str().expect("UTF-8")], &state);
    let host = PluginHost::with(Host::with(sandbox));

    let said = host.fails(&["volume", "create", "-d", "voltool", "-o", "size=8M", "small"]);
    assert!(said.contains("not enabled") && said.contains("btrfs quota enable"), "{said}");
    assert!(host.folders().is_empty(), "nothing is left of it: {:?}", host.folders());
    run("btrfs", &["quota", "enable"], &state);
    host.create("small", &["size=8M"]);
    host.create("free", &[]);
    // What did not fit is taken away again.
    let fill = |volume: &str, file: &str, mebibytes: u32| {
        let script = format!(
            "dd if=/dev/urandom of=/v/{file} bs=1M count={mebibytes} conv=fsync || {{ rm /v/{file}; exit 1; }}"
        );
        let volume = format!("{volume}:/v");
        host.host.engine.try_docker(&["run", "--rm", "-v", &volume, BUSYBOX, "sh", "-c", &script]).status.success()
    };
    assert!(fill("free", "data", 20), "others have no limit");
    assert!(fill("small", "data", 4), "there is room");
    assert!(!fill("small", "more", 20), "the limit holds");

    // It comes back from its snapshot with its limit; so does a copy, and a restore into it.
    host.docker(&["volume", "rm", "small"]);
    host.voltool(&["undo", "latest"]).ok();
    assert_eq!(std::fs::metadata(host.data("small").join("data")).expect("there").len(), 4 << 20);
    assert!(!fill("small", "more", 20), "the limit holds again");
    host.create("copy", &["size=8M", "from=small"]);
    assert!(!fill("copy", "more", 20), "the copy has its own");
    host.docker(&["volume", "rm", "-f", "copy"]);
    host.wait("the trash is empty", || host.trash().is_empty());
}

#[test]
fn content_that_is_elsewhere_is_backed_up_and_never_deleted() {
    in_own_namespace("kinds::inside_elsewhere");
}

#[test]
#[ignore = "run in a namespace of its own by content_that_is_elsewhere_is_backed_up_and_never_deleted"]
fn inside_elsewhere() {
    if !inside() {
        return;
    }
    let host = PluginHost::new();
    let share = host.host.sandbox.folder("share");
    std::fs::write(share.join("file"), "on the server").expect("written");
    let url = format!("mount=sshfs://127.0.0.1{}?directport={}", share.display(), sftp());
    host.create("nas", &[&url]);
    assert!(!host.data("nas").join("file").exists(), "nobody uses it");

    // As the engine does; its own namespace does not see what is mounted in this one.
    assert_eq!(host.ask("VolumeDriver.Mount", &json!({"Name": "nas", "ID": "one"})).status, 200);
    assert_eq!(host.read("nas", "file"), "on the server");
    assert_eq!(host.ask("VolumeDriver.Unmount", &json!({"Name": "nas", "ID": "one"})).status, 200);
    host.wait("it is unmounted", || !host.data("nas").join("file").exists());

    // A backup has it mounted; an empty folder is not its content.
    let ran = host.voltool(&["backup", "nas"]);
    assert!(ran.err.contains("backed up nas") && ran.code == Some(0), "{}", ran.err);
    host.wait("it is unmounted", || !host.data("nas").join("file").exists());
    assert_eq!(host.host.row("nas")["size_bytes"], json!(null), "{}", host.host.row("nas"));
    let restored = host.host.sandbox.restore("nas", "found");
    assert_eq!(std::fs::read_to_string(restored.join("file")).expect("there"), "on the server");

    // Removed here, also while a use was forgotten, it stays on the server.
    host.docker(&["volume", "rm", "nas"]);
    host.wait("the trash is empty", || host.trash().is_empty());
    assert_eq!(std::fs::read_to_string(share.join("file")).expect("there"), "on the server");
}
