//! `mount=URL`: a directory behind SFTP, mounted by the real sshfs.
//!
//! The remote end is the distribution's `sftp-server` behind a loopback socket, to which sshfs speaks without ssh. Mounts are made
//! in a mount namespace that is gone with the process.

#[path = "support/namespace.rs"]
mod namespace;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use namespace::{in_own_namespace, inside, sftp};
use voltool::driver::backing::{Backing, BackingError, Unmounted, unmount};
use voltool::driver::tool;

const LIMIT: Duration = Duration::from_secs(60);

fn mounts_at(at: &Path) -> usize {
    let at = at.canonicalize().expect("there");
    voltool::mounts::mounts().expect("readable").iter().filter(|mount| mount.at == at).count()
}

/// The process that is the mount at a path.
fn helper_of(at: &Path) -> Option<u32> {
    let at = at.to_str().expect("UTF-8").as_bytes().to_owned();
    std::fs::read_dir("/proc").expect("readable").flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let words = std::fs::read(entry.path().join("cmdline")).ok()?;
        let mut words = words.split(|byte| *byte == 0);
        (words.next()?.ends_with(b"sshfs") && words.any(|word| word == at)).then_some(pid)
    })
}

fn backing(url: &str) -> Backing {
    Backing::new(url.parse().unwrap_or_else(|e| panic!("{url}: {e}")))
}

#[test]
fn a_directory_behind_sftp_is_mounted_and_unmounted() {
    in_own_namespace("inside_sshfs");
}

#[test]
#[ignore = "run in a namespace of its own by a_directory_behind_sftp_is_mounted_and_unmounted"]
fn inside_sshfs() {
    if !inside() {
        return;
    }
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (remote, at) = (scratch.path().join("remote dir"), scratch.path().join("volumes/nas/_data"));
    std::fs::create_dir(&remote).expect("made");
    let port = sftp();
    let path = remote.to_str().expect("UTF-8").replace(' ', "%20");
    let nas = backing(&format!("sshfs://127.0.0.1{path}?directport={port}"));
    nas.check().unwrap_or_else(|e| panic!("{e}"));
    assert!(!nas.is_mounted(&at).unwrap_or_else(|e| panic!("{e}")));
    assert_eq!(unmount(&at).unwrap_or_else(|e| panic!("{e}")), Unmounted::Nothing);

    nas.mount(&at, LIMIT).unwrap_or_else(|e| panic!("{e}"));
    std::fs::write(at.join("a"), "through the mount").expect("written");
    assert_eq!(std::fs::read_to_string(remote.join("a")).expect("there"), "through the mount");
    // Containers do not all run as root.
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o755)).expect("set");
    let mut read = Command::new("setpriv");
    read.args(["--reuid", "999", "--regid", "999", "--clear-groups", "cat"]).arg(at.join("a"));
    assert_eq!(read.output().expect("setpriv runs").stdout, b"through the mount");

    // Asked for again, as after a restart of the plugin.
    nas.mount(&at, LIMIT).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(mounts_at(&at), 1);
    let elsewhere = backing(&format!("sshfs://127.0.0.1/elsewhere?directport={port}"));
    let error = elsewhere.mount(&at, LIMIT).expect_err("something else is there");
    assert!(matches!(error, BackingError::Occupied { .. }) && error.to_string().contains("remote dir"), "{error}");

    // Its process dies: the mount is there and of no use, until it is asked for again.
    let pid = helper_of(&at).expect("sshfs runs");
    assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().expect("kill runs").success());
    while std::fs::metadata(&at).is_ok() {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(nas.is_mounted(&at).unwrap_or_else(|e| panic!("{e}")));
    nas.mount(&at, LIMIT).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((mounts_at(&at), std::fs::metadata(at.join("a")).expect("there").size()), (1, 17));

    // Somebody still has a file open: that is no reason to keep the mount for ever, but it is said.
    let open = std::fs::File::open(at.join("a")).expect("there");
    assert!(matches!(unmount(&at).unwrap_or_else(|e| panic!("{e}")), Unmounted::ByForce(why) if why.contains("busy")));
    drop(open);
    assert_eq!(mounts_at(&at), 0);
    nas.mount(&at, LIMIT).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(unmount(&at).unwrap_or_else(|e| panic!("{e}")), Unmounted::Cleanly);
    assert!(!nas.is_mounted(&at).unwrap_or_else(|e| panic!("{e}")) && remote.join("a").exists());

    // What was written while nothing was mounted would be hidden.
    std::fs::write(at.join("local"), "x").expect("written");
    let error = nas.mount(&at, LIMIT).expect_err("it has content");
    assert!(matches!(error, BackingError::Occupied { .. }), "{error}");
    std::fs::remove_file(at.join("local")).expect("removed");

    // A path that is not there, and a port at which nobody listens: in sshfs's own words, and nothing stays mounted.
    for url in [format!("sshfs://127.0.0.1/none/such?directport={port}"), "sshfs://127.0.0.1/x?directport=1".to_owned()]
    {
        let error = backing(&url).mount(&at, LIMIT).expect_err(&url);
        assert!(matches!(error, BackingError::Mount { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("No such file") || text.contains("Connection refused"), "{text}");
        assert_eq!(mounts_at(&at), 0);
    }
}

#[test]
fn a_helper_that_is_not_installed_is_named_with_its_package() {
    for (url, helper, package) in [
        ("nfs://nas/x", "mount.nfs", "nfs-common"),
        ("cifs://nas/x?guest", "mount.cifs", "cifs-utils"),
        ("s3fs://bucket", "s3fs", "s3fs"),
        ("rclone://remote", "rclone", "rclone"),
    ] {
        if tool::find(helper).is_some() {
            continue;
        }
        let error = backing(url).check().expect_err(url);
        assert_eq!(error.to_string(), format!("cannot mount {url}: {helper} is not installed"));
        assert!(error.hint().is_some_and(|hint| hint.contains(package)), "{:?}", error.hint());
    }
}
