//! Where content is, by driver and options. `tests/inventory.rs` asks a real engine.

use std::collections::BTreeMap;

use super::*;
use crate::inventory::Kind;

fn volume(driver: &str, mountpoint: &str, options: &[(&str, &str)]) -> VolumeInfo {
    VolumeInfo {
        name: "v".to_owned(),
        kind: Kind::Named,
        driver: driver.to_owned(),
        mountpoint: mountpoint.to_owned(),
        labels: BTreeMap::new(),
        options: options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        compose_project: None,
        created_at: None,
        used_by: Vec::new(),
    }
}

/// Where the content is, or what a person reads instead.
fn root(volume: &VolumeInfo, mounted: bool) -> std::result::Result<String, String> {
    match content_root(volume, |_| Ok(mounted)) {
        Ok(path) => Ok(path.to_str().expect("UTF-8").to_owned()),
        Err(error) => Err(format!("{error}\nhint: {}", error.hint())),
    }
}

const DATA: &str = "/var/lib/docker/volumes/v/_data";

#[test]
fn plain_volumes_are_in_their_mountpoint() {
    assert_eq!(root(&volume("local", DATA, &[]), false), Ok(DATA.to_owned()));
    let empty = [("type", ""), ("device", ""), ("o", "")];
    assert_eq!(root(&volume("local", DATA, &empty), false), Ok(DATA.to_owned()), "empty options are none");
    assert_eq!(root(&volume("local", DATA, &[("size", "10G")]), false), Ok(DATA.to_owned()), "a quota changes nothing");
}

#[test]
fn options_decide_where_else_the_content_is() {
    let bind = volume("local", DATA, &[("type", "none"), ("o", "rw, bind"), ("device", "/srv/data")]);
    assert_eq!(root(&bind, false), Ok("/srv/data".to_owned()));
    assert_eq!(root(&bind, true), Ok(DATA.to_owned()));
    let relative = volume("local", DATA, &[("type", "none"), ("o", "bind"), ("device", "srv/data")]);
    assert!(root(&relative, false).is_err());

    let nfs = volume("local", DATA, &[("type", "nfs"), ("o", "addr=10.0.0.1"), ("device", ":/export")]);
    assert_eq!(root(&nfs, true), Ok(DATA.to_owned()));
    let text = root(&nfs, false).expect_err("not mounted");
    assert!(text.contains("volume v") && text.contains("nfs :/export"), "{text}");
    assert!(text.contains("the engine mounts it") && text.contains("only while a container uses it"), "{text}");

    let disk = volume("local", DATA, &[("type", "ext4"), ("device", "/dev/sdz9")]);
    assert!(root(&disk, false).expect_err("a disk is no folder").contains("ext4 /dev/sdz9"));

    let memory = volume("local", DATA, &[("type", "tmpfs"), ("device", "tmpfs")]);
    for mounted in [false, true] {
        assert!(root(&memory, mounted).expect_err("memory").contains("nothing persistent"));
    }
}

#[test]
fn plugins_say_where_the_content_is_or_it_is_out_of_reach() {
    assert_eq!(root(&volume("rclone", "/mnt/v", &[("type", "nfs")]), false), Ok("/mnt/v".to_owned()));
    for (mountpoint, what) in [("", "does not say where"), ("rel/v", "no absolute path")] {
        let text = root(&volume("rclone", mountpoint, &[]), false).expect_err("no path");
        assert!(text.contains("driver rclone") && text.contains(what), "{text}");
    }
    let managed = root(&volume("vieux/sshfs:latest", "/tmp", &[]), false).expect_err("a path inside of the plugin");
    assert!(managed.contains("only the plugin itself"), "{managed}");
}

#[test]
fn trouble_with_the_mountpoint_is_not_taken_for_unmounted() {
    let nfs = volume("local", DATA, &[("type", "nfs"), ("device", ":/export")]);
    let denied = content_root(&nfs, |_| Err(io::ErrorKind::PermissionDenied.into())).expect_err("denied");
    assert!(matches!(denied, AccessError::Denied { .. }) && denied.hint().contains("root"), "{denied}");
    let broken = content_root(&nfs, |_| Err(io::Error::other("stale"))).expect_err("broken");
    assert!(broken.to_string().contains("stale"), "{broken}");
}
