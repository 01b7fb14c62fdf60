//! Are two trees the same? Told by a strict walk of its own (nothing of voltool is used), and by rsync.
//!
//! Folders are opened one from the other, so that no path is too long. Content is compared by its blocks that are not zero, and for
//! files that are not small by what is allocated as well.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom};

/// Files up to this size are stored without their holes.
const SMALL: u64 = 65_536;
const BLOCK: usize = 4096;

/// Everything about one object.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    kind: FileType,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, u64),
    size: u64,
    device: u64,
    target: Vec<u8>,
    xattrs: BTreeMap<String, String>,
    /// Hash over all blocks that are not zero, and where they are.
    content: Option<blake3::Hash>,
    /// What is allocated, of files that are not small.
    data: Vec<(u64, u64)>,
    /// The first name of this inode within the tree.
    first_name: Vec<u8>,
}

type Tree = BTreeMap<Vec<u8>, Node>;

fn look(root: &Path) -> Tree {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let fd = rustix::fs::open(root, flags, Mode::empty()).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
    let mut tree = Tree::new();
    let mut inodes = BTreeMap::new();
    let node = describe(&fd, c".", b".", &mut inodes);
    tree.insert(b".".to_vec(), node);
    // Folders that are still to be looked at; few are open at any time, even if they are nested deeply.
    let mut todo = vec![(fd, Vec::new())];
    while let Some((dir, path)) = todo.pop() {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&dir).expect("readable") {
            let name = entry.expect("read").file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name);
            }
        }
        names.sort();
        for name in names {
            let path = if path.is_empty() { name.to_bytes().to_vec() } else { [&path, name.to_bytes()].join(&b'/') };
            let node = describe(&dir, &name, &path, &mut inodes);
            if node.kind == FileType::Directory {
                let fd = rustix::fs::openat(&dir, &name, flags | OFlags::NOFOLLOW, Mode::empty()).expect("opened");
                todo.push((fd, path.clone()));
            }
            tree.insert(path, node);
        }
    }
    // The first name in the order of paths, whatever the order of the walk.
    let mut first: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for (path, node) in &tree {
        first.entry(node.first_name.clone()).or_insert_with(|| path.clone());
    }
    for node in tree.values_mut() {
        node.first_name.clone_from(&first[&node.first_name]);
    }
    tree
}

#[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
fn describe(dir: &OwnedFd, name: &std::ffi::CStr, path: &[u8], inodes: &mut BTreeMap<(u64, u64), Vec<u8>>) -> Node {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).expect("stat");
    let kind = FileType::from_raw_mode(stat.st_mode);
    let target = match kind {
        FileType::Symlink => rustix::fs::readlinkat(dir, name, Vec::new()).expect("a target").into_bytes(),
        _ => Vec::new(),
    };
    let is_file = kind == FileType::RegularFile;
    let (mut content, mut data) = (None, Vec::new());
    if is_file {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW;
        let file = File::from(rustix::fs::openat(dir, name, flags, Mode::empty()).expect("opened"));
        let size = stat.st_size as u64;
        let allocated = allocated(&file, size);
        content = Some(hash(&file, &allocated));
        data = if size > SMALL { allocated } else { Vec::new() };
    }
    let linked = stat.st_nlink > 1 && kind != FileType::Directory;
    let first_name = match linked {
        true => inodes.entry((stat.st_dev as u64, stat.st_ino as u64)).or_insert_with(|| path.to_vec()).clone(),
        false => path.to_vec(),
    };
    Node {
        kind,
        // A symbolic link's mode means nothing.
        mode: if kind == FileType::Symlink { 0 } else { stat.st_mode & 0o7777 },
        owner: (stat.st_uid, stat.st_gid),
        mtime: (stat.st_mtime as i64, stat.st_mtime_nsec as u64),
        size: if is_file { stat.st_size as u64 } else { 0 },
        device: if matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) { stat.st_rdev as u64 } else { 0 },
        target,
        xattrs: xattrs(dir, name),
        content,
        data,
        first_name,
    }
}

fn xattrs(dir: &OwnedFd, name: &std::ffi::CStr) -> BTreeMap<String, String> {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    path.push(std::ffi::OsStr::from_bytes(name.to_bytes()));
    let mut buffer = vec![0; 65_536];
    let Ok(len) = rustix::fs::llistxattr(&path, &mut buffer[..]) else { return BTreeMap::new() };
    let names = buffer[..len].to_vec();
    let mut found = BTreeMap::new();
    for name in names.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let c_name = CString::new(name).expect("no NUL");
        let len = rustix::fs::lgetxattr(&path, &c_name, &mut buffer[..]).expect("readable");
        let value = match &buffer[..len] {
            long if len > 100 => format!("{len} bytes, {}", blake3::hash(long)),
            short => short.escape_ascii().to_string(),
        };
        found.insert(name.escape_ascii().to_string(), value);
    }
    found
}

fn allocated(file: &File, size: u64) -> Vec<(u64, u64)> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Ok(from) = rustix::fs::seek(file, SeekFrom::Data(at)) {
        let to = rustix::fs::seek(file, SeekFrom::Hole(from)).expect("an end").min(size);
        found.push((from, to));
        at = to;
    }
    found
}

fn hash(file: &File, allocated: &[(u64, u64)]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 64 * BLOCK];
    for (from, to) in allocated {
        let mut at = *from;
        while at < *to {
            let want = (buffer.len() as u64).min(to - at) as usize;
            file.read_exact_at(&mut buffer[..want], at).expect("readable");
            for (n, block) in buffer[..want].chunks(BLOCK).enumerate() {
                if block.iter().any(|b| *b != 0) {
                    hasher.update(&(at + (n * BLOCK) as u64).to_le_bytes()).update(block);
                }
            }
            at += want as u64;
        }
    }
    hasher.finalize()
}

/// How `b` differs from `a`, one line for each object; of the first few.
pub fn differences(a: &Path, b: &Path) -> Vec<String> {
    compare(&look(a), &look(b))
}

fn compare(a: &Tree, b: &Tree) -> Vec<String> {
    let show = |path: &[u8]| {
        let text = path.escape_ascii().to_string();
        if text.len() > 200 { format!("{}… ({} bytes)", &text[..200], path.len()) } else { text }
    };
    let mut found = Vec::new();
    for path in a.keys().chain(b.keys().filter(|path| !a.contains_key(*path))) {
        match (a.get(path), b.get(path)) {
            (Some(_), None) => found.push(format!("{}: is missing", show(path))),
            (None, _) => found.push(format!("{}: is there, and should not be", show(path))),
            (Some(was), Some(is)) if was != is => found.push(format!("{}: was {was:?}, is {is:?}", show(path))),
            _ => {}
        }
        if found.len() == 10 {
            break;
        }
    }
    found
}

/// Asserts that two trees are the same, by our own walk only: for trees that rsync cannot handle.
#[track_caller]
pub fn assert_same_tree_by_walk(a: &Path, b: &Path) {
    let found = differences(a, b);
    assert!(found.is_empty(), "{} and {} differ:\n{}", a.display(), b.display(), found.join("\n"));
}

/// Asserts that two trees are the same in everything that a restore has to bring back.
#[track_caller]
pub fn assert_same_tree(a: &Path, b: &Path) {
    assert_same_tree_by_walk(a, b);
    let slash = |path: &Path| {
        let mut path = path.as_os_str().to_owned();
        path.push("/");
        path
    };
    let output = Command::new("rsync")
        .args(["-aHAXn", "--delete", "--checksum", "--itemize-changes"])
        .args([slash(a), slash(b)])
        .output()
        .expect("rsync runs");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "rsync: {}", String::from_utf8_lossy(&said));
}
