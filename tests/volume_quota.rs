//! `size=`: limits on folders of real file systems.
//!
//! The file systems are images in a scratch folder, mounted in a mount namespace that is gone with the process: nothing stays
//! behind, however a test ends. A limit can be proved only where the kernel has quotas for the file system; what else there is
//! to XFS and ext4 (refusals, project ids) is tested on every kernel.

#[path = "support/namespace.rs"]
#[allow(dead_code)] // A part of it is used.
mod namespace;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use namespace::{in_own_namespace, inside};
use voltool::driver::quota::{Mechanism, Quota, QuotaError};

fn run(command: &str, args: &[&str], path: &Path) -> Result<(), String> {
    let output = Command::new(command).args(args).arg(path).output().expect("it runs");
    let said = || format!("{command} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(()) } else { Err(said()) }
}

/// An image with a file system, and where it is mounted.
struct Image {
    _dir: tempfile::TempDir,
    image: PathBuf,
    at: PathBuf,
}

impl Image {
    fn new(mkfs: &str, args: &[&str]) -> Image {
        let dir = tempfile::tempdir().expect("a scratch folder");
        let (image, at) = (dir.path().join("image"), dir.path().join("mounted here"));
        File::create(&image).and_then(|file| file.set_len(320 << 20)).expect("made");
        std::fs::create_dir(&at).expect("made");
        run(mkfs, args, &image).expect("a file system");
        Image { _dir: dir, image, at }
    }

    fn mount(&self, options: &str) -> Result<(), String> {
        let options = format!("loop,{options}");
        let image = self.image.to_str().expect("UTF-8");
        run("mount", &["-o", &options, image], &self.at)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = run("umount", &["--lazy"], &self.at);
    }
}

/// Writes so many MiB of zeros, as root in a container does, and returns how much went in and what stopped it.
fn fill(path: &Path, mebibytes: u64) -> (u64, String) {
    // ext4 does not limit who has this capability. Containers do not have it.
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-sys_resource", "--inh-caps", "-sys_resource", "dd", "if=/dev/zero", "bs=1M"]);
    command.args([format!("count={mebibytes}"), format!("of={}", path.display())]).arg("conv=fsync");
    let output = command.env("LC_ALL", "C").output().expect("dd runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(path.exists(), "{said}");
    (std::fs::metadata(path).expect("there").len() >> 20, if output.status.success() { String::new() } else { said })
}

/// The limit holds, can be changed and lifted, and concerns no other folder.
fn limits_hold(root: &Path, mechanism: Mechanism) {
    let volumes = root.join("volumes");
    std::fs::create_dir(&volumes).expect("made");
    let quota = Quota::find(&volumes).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(quota.mechanism(), mechanism);
    let (small, free) = (volumes.join("small one"), volumes.join("free"));
    for path in [&small, &free] {
        quota.prepare(path).unwrap_or_else(|e| panic!("{e}"));
    }
    quota.limit(&small, 8 << 20).unwrap_or_else(|e| panic!("{e}"));
    std::fs::create_dir(small.join("dir")).expect("made");
    let (written, why) = fill(&small.join("dir/data"), 30);
    assert!(written <= 8, "{written} MiB went in: {why}");
    assert!(why.contains("Disk quota exceeded") || why.contains("No space left on device"), "{why}");
    let usage = quota.usage(&small).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(usage.limit, Some(8 << 20));
    assert!(usage.used > 4 << 20 && usage.used <= 9 << 20, "{usage:?}");
    assert_eq!(fill(&free.join("data"), 20), (20, String::new()), "the folder beside it has no limit");

    // All of it may be done again, as after a crash.
    quota.prepare(&small).unwrap_or_else(|e| panic!("{e}"));
    assert!(small.join("dir/data").exists(), "what is there stays");
    quota.limit(&small, 40 << 20).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(fill(&small.join("dir/data"), 20), (20, String::new()), "the limit was raised");
    quota.remove(&small).unwrap_or_else(|e| panic!("{e}"));
    quota.remove(&small).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(quota.usage(&small).unwrap_or_else(|e| panic!("{e}")).limit, None);
    assert_eq!(fill(&small.join("more"), 30), (30, String::new()), "the limit was lifted");
    std::fs::remove_dir_all(&small).expect("it can be deleted like any folder");
}

fn refused(folder: &Path) -> (String, String) {
    let error = Quota::find(folder).expect_err("there are no quotas");
    assert!(matches!(error, QuotaError::Unsupported { .. }), "{error}");
    (error.to_string(), error.hint().expect("a hint"))
}

#[test]
fn a_limit_on_btrfs_holds() {
    in_own_namespace("inside_btrfs");
}

#[test]
#[ignore = "run in a namespace of its own by a_limit_on_btrfs_holds"]
fn inside_btrfs() {
    if !inside() {
        return;
    }
    let image = Image::new("mkfs.btrfs", &["--quiet"]);
    image.mount("rw").expect("mounted");
    let (text, hint) = refused(&image.at);
    assert!(
        text.contains("btrfs") && text.contains("not enabled") && hint.contains("btrfs quota enable"),
        "{text}; {hint}"
    );
    run("btrfs", &["quota", "enable"], &image.at).expect("enabled");
    limits_hold(&image.at, Mechanism::Btrfs);

    // A folder with content is not thrown away to become a subvolume, an empty one is.
    let quota = Quota::find(&image.at).unwrap_or_else(|e| panic!("{e}"));
    let plain = image.at.join("plain");
    std::fs::create_dir(&plain).expect("made");
    std::fs::write(plain.join("a"), "a").expect("written");
    let error = quota.prepare(&plain).expect_err("it has content").to_string();
    assert!(error.contains("has content"), "{error}");
    assert!(quota.limit(&plain, 1 << 20).expect_err("no subvolume").to_string().contains("no subvolume"));
    quota.remove(&plain).expect("it never had a limit");
    std::fs::remove_file(plain.join("a")).expect("removed");
    quota.prepare(&plain).unwrap_or_else(|e| panic!("{e}"));
    quota.limit(&plain, 1 << 20).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn a_limit_on_xfs_holds() {
    in_own_namespace("inside_xfs");
}

#[test]
#[ignore = "run in a namespace of its own by a_limit_on_xfs_holds"]
fn inside_xfs() {
    if !inside() {
        return;
    }
    let image = Image::new("mkfs.xfs", &["-q"]);
    image.mount("rw").expect("mounted");
    let (text, hint) = refused(&image.at);
    assert!(
        text.contains("xfs") && text.contains("not mounted with prjquota") && hint.contains("fstab"),
        "{text}; {hint}"
    );
    run("umount", &[], &image.at).expect("unmounted");
    match image.mount("prjquota") {
        Ok(()) => limits_hold(&image.at, Mechanism::Xfs),
        Err(e) => eprintln!("this kernel has no quotas for XFS, so that no limit could be tried: {e}"),
    }
}

#[test]
fn a_limit_on_ext4_holds() {
    in_own_namespace("inside_ext4");
}

#[test]
#[ignore = "run in a namespace of its own by a_limit_on_ext4_holds"]
fn inside_ext4() {
    if !inside() {
        return;
    }
    let plain = Image::new("mkfs.ext4", &["-q"]);
    plain.mount("rw").expect("mounted");
    let (text, hint) = refused(&plain.at);
    assert!(
        text.contains("ext4") && text.contains("not mounted with prjquota") && hint.contains("tune2fs"),
        "{text}; {hint}"
    );
    let image = Image::new("mkfs.ext4", &["-q", "-O", "project,quota", "-E", "quotatype=prjquota"]);
    match image.mount("prjquota") {
        Ok(()) => limits_hold(&image.at, Mechanism::Ext4),
        Err(e) => eprintln!("this kernel has no quotas for ext4, so that no limit could be tried: {e}"),
    }
}

#[test]
fn a_file_system_without_limits_for_folders_is_refused_with_the_reason() {
    let (text, hint) = refused(Path::new("/proc"));
    assert_eq!(
        text,
        "cannot limit the size of /proc: it is on proc (mounted at /proc), which has no limits for folders"
    );
    assert!(hint.contains("XFS, ext4 or btrfs"), "{hint}");
}
