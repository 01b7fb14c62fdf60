//! From an object in the file system to its entry, without its content.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::FileType;

use super::walk::{Meta, Node};
use crate::repo::entry::{Entry, EntryType, Xattr};

/// Makes the entry of a node: everything but extended attributes and content.
pub fn entry(path: &[u8], meta: &Meta) -> Entry {
    let kind = match meta.file_type() {
        FileType::Directory => EntryType::Dir,
        FileType::Symlink => EntryType::Symlink,
        FileType::Fifo => EntryType::Fifo,
        FileType::Socket => EntryType::Socket,
        FileType::CharacterDevice => EntryType::CharDevice,
        FileType::BlockDevice => EntryType::BlockDevice,
        _ => EntryType::File,
    };
    let mut entry = Entry::new(path, kind);
    entry.mode = meta.mode & 0o7777;
    entry.uid = meta.uid;
    entry.gid = meta.gid;
    entry.mtime = meta.mtime;
    entry.ctime = meta.ctime;
    entry.inode = meta.inode;
    if matches!(kind, EntryType::CharDevice | EntryType::BlockDevice) {
        entry.device = Some((rustix::fs::major(meta.rdev), rustix::fs::minor(meta.rdev)));
    }
    if kind == EntryType::File {
        entry.size = Some(meta.size);
    }
    entry
}

/// Completes the entry of anything but a regular file: extended attributes, and the target of a symbolic link.
pub fn complete(entry: &mut Entry, node: &Node) -> io::Result<()> {
    if entry.kind == EntryType::Symlink {
        entry.set_target(rustix::fs::readlinkat(&*node.dir, &node.name, Vec::new())?.as_bytes());
    }
    // There is no call that reads attributes relative to a folder's descriptor and does not follow links; the kernel's own name
    // for the descriptor serves, however long the real path is.
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", node.dir.as_fd().as_raw_fd()));
    path.push(OsStr::from_bytes(node.name.to_bytes()));
    entry.xattrs = read_xattrs(
        |buffer| rustix::fs::llistxattr(&path, buffer),
        |name, buffer| rustix::fs::lgetxattr(&path, name, buffer),
    )?;
    Ok(())
}

/// Reads the extended attributes of an open file.
pub fn file_xattrs(fd: &impl AsFd) -> io::Result<Vec<Xattr>> {
    read_xattrs(|buffer| rustix::fs::flistxattr(fd, buffer), |name, buffer| rustix::fs::fgetxattr(fd, name, buffer))
}

/// Names and values can change between asking for their length and reading them; then it is tried again with more room.
fn read_xattrs(
    mut list: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>,
    mut get: impl FnMut(&std::ffi::CStr, &mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<Vec<Xattr>> {
    use rustix::io::Errno;
    let names = match grow(&mut list) {
        Ok(names) => names,
        // The file system has none, or does not want them read through a link of /proc.
        Err(Errno::NOTSUP | Errno::NOSYS | Errno::NOENT) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let mut xattrs = Vec::new();
    for name in names.split_inclusive(|b| *b == 0) {
        let Ok(name) = std::ffi::CStr::from_bytes_with_nul(name) else { continue };
        match grow(|buffer| get(name, buffer)) {
            Ok(value) => xattrs.push(Xattr { name: name.to_bytes().to_vec(), value }),
            // Removed since it was listed.
            Err(Errno::NODATA) => {}
            Err(e) => return Err(e.into()),
        }
    }
    xattrs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(xattrs)
}

fn grow(mut call: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 512];
    loop {
        match call(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            // The kernel takes at most 64 KiB for either.
            Err(rustix::io::Errno::RANGE) if buffer.len() < 256 * 1024 => buffer.resize(buffer.len() * 4, 0),
            Err(e) => return Err(e),
        }
    }
}
