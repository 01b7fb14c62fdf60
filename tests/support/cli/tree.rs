//! Trees to back up: of every kind of entry, and of extremes.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};

/// Content that does not compress, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    blake3::Hasher::new_keyed(&key).finalize_xof().fill(&mut out);
    out
}

/// Writes a file, and the folders above it.
pub fn write(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    std::fs::write(path, content).expect("written");
}

/// Sets the modification time of anything, without following links.
pub fn set_mtime(path: &Path, seconds: i64, nanos: u32) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("set");
}

pub fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
}

pub fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).expect("set");
}

/// A file of that size in which only the given pieces are allocated.
pub fn sparse(path: &Path, size: u64, pieces: &[(u64, usize)]) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    let file = File::create(path).expect("made");
    file.set_len(size).expect("set");
    for (at, len) in pieces {
        file.write_all_at(&noise(*at, *len), *at).expect("written");
    }
}

/// Folders of that name nested so deeply, with a file at the end; made step by step, because no call takes the whole path.
pub fn nested(root: &Path, name: &str, depth: usize) {
    let mut dir: OwnedFd = rustix::fs::open(root, OFlags::DIRECTORY, Mode::empty()).expect("opened");
    for _ in 0..depth {
        rustix::fs::mkdirat(&dir, name, Mode::RWXU).expect("made");
        dir = rustix::fs::openat(&dir, name, OFlags::DIRECTORY, Mode::empty()).expect("opened");
    }
    let flags = OFlags::CREATE | OFlags::WRONLY;
    let file = File::from(rustix::fs::openat(&dir, "the end", flags, Mode::RUSR | Mode::WUSR).expect("made"));
    file.write_all_at(b"deep", 0).expect("written");
}

fn run(program: &str, args: &[&OsStr]) {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

fn special(path: &Path, kind: FileType, mode: u32, device: (u32, u32)) {
    let device = rustix::fs::makedev(device.0, device.1);
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(mode), device).expect("made");
    chmod(path, mode);
}

/// A small tree with every kind of entry and attribute that Linux has. What only root may make is left out for others.
pub fn everything(root: &Path) {
    let at = |name: &str| root.join(name);
    write(&at("text"), b"hello\n");
    write(&at("empty"), b"");
    std::fs::create_dir_all(at("folder/empty folder")).expect("made");
    for (name, mode) in
        [("setuid", 0o4755), ("setgid", 0o2755), ("no rights", 0), ("all", 0o7777), ("read-only", 0o444)]
    {
        write(&at("modes").join(name), name.as_bytes());
        chmod(&at("modes").join(name), mode);
    }
    for (name, mode) in [("sticky", 0o1777), ("setgid folder", 0o2750), ("closed", 0o500), ("shut", 0)] {
        std::fs::create_dir_all(at("modes").join(name)).expect("made");
        write(&at("modes").join(name).join("in it"), name.as_bytes());
        chmod(&at("modes").join(name), mode);
    }
    // Sizes on either side of every limit, and content that repeats.
    for size in [1, 511, 512, 513, 4096, 65_535, 65_536, 65_537, 131_072, 1_048_577] {
        write(&at("sizes").join(size.to_string()), &noise(size as u64, size));
    }
    write(&at("large/cdc"), &noise(1, 5 << 20));
    write(&at("large/same again"), &noise(1, 5 << 20));
    write(&at("large/zeros"), &vec![0; 3 << 20]);
    write(&at("large/data.sqlite"), &[b"SQLite format 3\0", &noise(2, 3_000_000)[..]].concat());
    // Names.
    let names: [&[u8]; 9] = [
        b"\xff\xfe not UTF-8",
        b"new\nline",
        b"tab\tand \x1b[31mescape",
        b" spaces ",
        b"-rf",
        b"back\\slash",
        "größer ✓".as_bytes(),
        &[b'n'; 255],
        b"\"quoted'",
    ];
    for name in names {
        write(&at("names").join(OsStr::from_bytes(name)), name);
        std::fs::create_dir_all(at("name folders").join(OsStr::from_bytes(name))).expect("made");
        write(&at("name folders").join(OsStr::from_bytes(name)).join("x"), name);
    }
    // Names whose order as bytes is not that of the walk.
    for name in ["order/a/b", "order/a.b", "order/a b/c", "order/a-b", "order/a0/c", "order/ab"] {
        write(&at(name), name.as_bytes());
    }
    // Links.
    symlink("text", at("link")).expect("made");
    symlink("/nonexistent/dangling", at("dangling")).expect("made");
    symlink(OsStr::from_bytes(b"\xfe target"), at("strange link")).expect("made");
    symlink("t".repeat(3000), at("long link")).expect("made");
    symlink("..", at("folder/up")).expect("made");
    let link = |from: &str, to: &str| rustix::fs::linkat(CWD, at(from), CWD, at(to), AtFlags::empty()).expect("linked");
    std::fs::create_dir_all(at("links/a/deeper")).expect("made");
    std::fs::create_dir_all(at("links/z")).expect("made");
    write(&at("links/z/small"), b"several names");
    link("links/z/small", "links/a/deeper/small");
    link("links/z/small", "links/second");
    write(&at("links/large"), &noise(3, 200_000));
    link("links/large", "links/a/large");
    write(&at("links/none"), b"");
    link("links/none", "links/z/none");
    symlink("wherever", at("links/symlink")).expect("made");
    link("links/symlink", "links/a/symlink");
    special(&at("links/fifo"), FileType::Fifo, 0o640, (0, 0));
    link("links/fifo", "links/z/fifo");
    special(&at("fifo"), FileType::Fifo, 0o622, (0, 0));
    drop(std::os::unix::net::UnixListener::bind(at("socket")).expect("bound"));
    chmod(&at("socket"), 0o660);
    // Holes.
    sparse(&at("holes/at the end"), 3 << 20, &[(0, 100_000)]);
    sparse(&at("holes/at the start"), 3 << 20, &[(2 << 20, 1 << 20)]);
    sparse(&at("holes/between"), 10 << 20, &[(4096, 4096), (1 << 20, 300_000), (9 << 20, 5000)]);
    sparse(&at("holes/nothing else"), 5_000_001, &[]);
    sparse(&at("holes/disk.img"), 5 << 20, &[(700_000, 700_000), (4 << 20, 4096)]);
    // Attributes.
    write(&at("attributes/file"), b"with attributes");
    set_xattr(&at("attributes/file"), "user.empty", b"");
    set_xattr(&at("attributes/file"), "user.a=b%3D", b"=");
    set_xattr(&at("attributes/file"), "user.binary", &[0, 255, 10, 61, 0]);
    set_xattr(&at("attributes/file"), "user.long", &noise(4, 2000));
    std::fs::create_dir_all(at("attributes/folder")).expect("made");
    set_xattr(&at("attributes/folder"), "user.folder", b"too");
    write(&at("attributes/one small hole"), b"");
    sparse(&at("attributes/one small hole"), 200_000, &[(0, 40_960), (45_056, 154_944)]);
    set_xattr(&at("attributes/one small hole"), "user.block of its own", &noise(5, 3000));
    let acl = "u:1234:rwx,g:4321:r,m::rx";
    write(&at("acl/file"), b"with an ACL");
    run("setfacl", &["-m", acl].map(OsStr::new).into_iter().chain([at("acl/file").as_os_str()]).collect::<Vec<_>>());
    let default = "d:u:1234:rwx,d:g:4321:rx,d:o::-";
    run("setfacl", &["-m", default].map(OsStr::new).into_iter().chain([at("acl").as_os_str()]).collect::<Vec<_>>());
    write(&at("acl/inherited"), b"from its folder");
    std::fs::create_dir_all(at("acl/folder/inherits")).expect("made");
    if super::is_root() {
        as_root(root);
    }
    times(root);
}

fn as_root(root: &Path) {
    let at = |name: &str| root.join(name);
    special(&at("null"), FileType::CharacterDevice, 0o666, (1, 3));
    special(&at("large numbers"), FileType::CharacterDevice, 0o600, (511, 70_000));
    special(&at("disk"), FileType::BlockDevice, 0o660, (7, 200));
    for (name, uid, gid) in [("someone's", 1000, 1001), ("large ids", 3_000_000_000, 4_000_000_000), ("old", 65_534, 0)]
    {
        write(&at("owners").join(name), name.as_bytes());
        std::os::unix::fs::chown(at("owners").join(name), Some(uid), Some(gid)).expect("given");
    }
    write(&at("owners/setuid"), b"of another");
    std::os::unix::fs::chown(at("owners/setuid"), Some(33), Some(44)).expect("given");
    chmod(&at("owners/setuid"), 0o6755);
    symlink("x", at("owners/link")).expect("made");
    std::os::unix::fs::lchown(at("owners/link"), Some(12), Some(34)).expect("given");
    std::os::unix::fs::chown(at("owners"), Some(55), Some(66)).expect("given");
    write(&at("attributes/capable"), b"\x7fELF");
    std::os::unix::fs::chown(at("attributes/capable"), Some(77), Some(88)).expect("given");
    run("setcap", &[OsStr::new("cap_net_bind_service,cap_net_raw+ep"), at("attributes/capable").as_os_str()]);
    set_xattr(&at("attributes/file"), "trusted.overlay.opaque", b"y");
    set_xattr(&at("link"), "trusted.of.a.link", b"l");
    set_xattr(&at("fifo"), "trusted.of.a.fifo", b"f");
    set_xattr(&at("null"), "trusted.of.a.device", b"d");
}

/// Times that are odd, set last: of folders innermost first.
fn times(root: &Path) {
    write(&root.join("times/future"), b"f");
    write(&root.join("times/before 1970"), b"b");
    write(&root.join("times/exact"), b"e");
    write(&root.join("times/second"), b"s");
    std::fs::create_dir_all(root.join("times/folder")).expect("made");
    symlink("x", root.join("times/link")).expect("made");
    set_mtime(&root.join("times/future"), 4_102_444_800, 1);
    set_mtime(&root.join("times/before 1970"), -86_400, 250_000_000);
    set_mtime(&root.join("times/exact"), 1_600_000_000, 123_456_789);
    set_mtime(&root.join("times/second"), 1_600_000_000, 0);
    set_mtime(&root.join("times/link"), 1_500_000_000, 987_654_321);
    set_mtime(&root.join("times/folder"), -1, 999_999_999);
    set_mtime(&root.join("times"), 0, 1);
    set_mtime(&root.join("folder"), 1_400_000_000, 5);
    set_mtime(root, 1_300_000_000, 7);
}

/// A path of exactly `len` bytes below `root`, in folders with long names; returns it.
pub fn long_path(root: &Path, len: usize) -> PathBuf {
    let mut below = PathBuf::new();
    while len - below.as_os_str().len() > 200 {
        below.push("p".repeat(150));
    }
    let rest = len - below.as_os_str().len() - 1;
    below.push("q".repeat(rest));
    assert_eq!(below.as_os_str().len(), len);
    // Made from below: with the root in front it may be longer than the kernel takes.
    let mut dir: OwnedFd = rustix::fs::open(root, OFlags::DIRECTORY, Mode::empty()).expect("opened");
    let parts: Vec<_> = below.iter().collect();
    let (name, folders) = parts.split_last().expect("parts");
    for folder in folders {
        rustix::fs::mkdirat(&dir, *folder, Mode::RWXU).expect("made");
        dir = rustix::fs::openat(&dir, *folder, OFlags::DIRECTORY, Mode::empty()).expect("opened");
    }
    let flags = OFlags::CREATE | OFlags::WRONLY;
    let file = File::from(rustix::fs::openat(&dir, *name, flags, Mode::RUSR | Mode::WUSR).expect("made"));
    file.write_all_at(b"far", 0).expect("written");
    below
}
