//! Writing into a folder, and nowhere else.
//!
//! Every folder is opened from its parent's descriptor and no symbolic link is ever followed, so whatever a hostile repository lists, and
//! whatever someone does to the target meanwhile, nothing outside of the target is touched.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};

use crate::repo::entry::{Entry, EntryType, Xattr};

/// An open folder of the target.
pub type DirFd = Arc<OwnedFd>;

const DIR_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The folders from the target's root to where the listing is, all open.
pub struct DirStack {
    stack: Vec<(Vec<u8>, DirFd)>,
}

impl DirStack {
    /// Opens the target.
    pub fn open(root: &Path) -> io::Result<Self> {
        let fd = rustix::fs::open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(DirStack { stack: vec![(Vec::new(), Arc::new(fd))] })
    }

    /// The target's root.
    pub fn root(&self) -> &DirFd {
        &self.stack[0].1
    }

    /// The folder that `path` stands in, if the listing has named it before; folders that the listing has left are given to `left`,
    /// innermost first.
    pub fn parent(&mut self, path: &[u8], mut left: impl FnMut(&[u8], &DirFd)) -> io::Result<DirFd> {
        let parent = split(path).0;
        while self.stack.len() > 1 {
            let (top, fd) = &self.stack[self.stack.len() - 1];
            let inside = parent.strip_prefix(&top[..]).is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
            if inside {
                break;
            }
            left(top, fd);
            self.stack.pop();
        }
        let (top, fd) = &self.stack[self.stack.len() - 1];
        if top.as_slice() != parent {
            return Err(io::Error::other("its folder is not in the listing"));
        }
        Ok(fd.clone())
    }

    /// Enters the folder at `path`, which stands in the innermost one.
    pub fn enter(&mut self, path: &[u8]) -> io::Result<()> {
        let (_, parent) = &self.stack[self.stack.len() - 1];
        let fd = rustix::fs::openat(&**parent, cstring(split(path).1)?, DIR_FLAGS, Mode::empty())?;
        self.stack.push((path.to_vec(), Arc::new(fd)));
        Ok(())
    }

    /// Leaves all folders but the root, innermost first.
    pub fn leave_all(&mut self, mut left: impl FnMut(&[u8], &DirFd)) {
        while self.stack.len() > 1 {
            if let Some((path, fd)) = self.stack.pop() {
                left(&path, &fd);
            }
        }
    }
}

/// The folder and the name of a path.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// A name for the kernel.
pub fn cstring(name: &[u8]) -> io::Result<CString> {
    CString::new(name).map_err(|_| io::Error::other("a name with a NUL byte in it"))
}

/// Opens the folder that `path` stands in, from the root, step by step.
pub fn open_parent(root: &DirFd, path: &[u8]) -> io::Result<DirFd> {
    let mut at = root.clone();
    for part in split(path).0.split(|b| *b == b'/').filter(|p| !p.is_empty()) {
        at = Arc::new(rustix::fs::openat(&*at, cstring(part)?, DIR_FLAGS, Mode::empty())?);
    }
    Ok(at)
}

/// Makes a folder that only its owner may enter; its real mode comes last.
pub fn make_dir(parent: &DirFd, name: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::mkdirat(&**parent, cstring(name)?, Mode::RWXU)?)
}

/// Makes a new file for writing. Fails if anything of that name is there.
pub fn make_file(parent: &DirFd, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(&**parent, cstring(name)?, flags, Mode::RUSR | Mode::WUSR)?))
}

/// Makes anything that is neither a folder nor a regular file, with its attributes.
pub fn make_special(parent: &DirFd, name: &[u8], entry: &Entry) -> io::Result<()> {
    let name_c = cstring(name)?;
    let (major, minor) = entry.device.unwrap_or((0, 0));
    let kind = match entry.kind {
        EntryType::Symlink => {
            rustix::fs::symlinkat(cstring(&entry.target())?, &**parent, &name_c)?;
            FileType::Symlink
        }
        EntryType::Fifo => FileType::Fifo,
        EntryType::Socket => FileType::Socket,
        EntryType::CharDevice => FileType::CharacterDevice,
        EntryType::BlockDevice => FileType::BlockDevice,
        EntryType::File | EntryType::Dir => return Err(io::Error::other("not a special file")),
    };
    if kind != FileType::Symlink {
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(&**parent, &name_c, kind, mode, rustix::fs::makedev(major, minor))?;
    }
    set_owner(entry, |uid, gid| rustix::fs::chownat(&**parent, &name_c, uid, gid, AtFlags::SYMLINK_NOFOLLOW))?;
    if kind != FileType::Symlink {
        // The node was made here a moment ago, in a folder that is open here: the name cannot be a link of somebody else's.
        rustix::fs::chmodat(&**parent, &name_c, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
    }
    if !entry.xattrs.is_empty() {
        let mut path = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd()));
        path.push(OsStr::from_bytes(name));
        set_xattrs(&entry.xattrs, |name, value| rustix::fs::lsetxattr(&path, name, value, XattrFlags::empty()))?;
    }
    Ok(rustix::fs::utimensat(&**parent, &name_c, &times(entry), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Takes the ACLs from the target's root that it has from the folder above or from what was in it before: everything that is made in
/// it would inherit them. What the snapshot knows of ACLs comes with its entries.
pub fn forget_acls(root: &DirFd) -> io::Result<()> {
    use rustix::io::Errno;
    for name in [c"system.posix_acl_default", c"system.posix_acl_access"] {
        match rustix::fs::fremovexattr(&**root, name) {
            // The file system has none.
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP | Errno::NOSYS) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Gives an open file or folder the attributes of its entry. The order matters: changing the owner clears set-uid bits and capabilities,
/// setting attributes changes times.
pub fn set_attributes(fd: &impl std::os::fd::AsFd, entry: &Entry) -> io::Result<()> {
    set_owner(entry, |uid, gid| rustix::fs::fchown(fd, uid, gid))?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode))?;
    set_xattrs(&entry.xattrs, |name, value| rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()))?;
    Ok(rustix::fs::futimens(fd, &times(entry))?)
}

fn set_owner(entry: &Entry, call: impl FnOnce(Option<Uid>, Option<Gid>) -> rustix::io::Result<()>) -> io::Result<()> {
    // Asked for also if it seems to be the case: below a folder with the set-gid bit, what is made has that folder's group.
    let (uid, gid) = (entry.uid, entry.gid);
    call(Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
        .map_err(|e| io::Error::new(io::Error::from(e).kind(), format!("cannot give it to {uid}:{gid}: {e}")))
}

fn set_xattrs(xattrs: &[Xattr], mut call: impl FnMut(&CString, &[u8]) -> rustix::io::Result<()>) -> io::Result<()> {
    for xattr in xattrs {
        call(&cstring(&xattr.name)?, &xattr.value).map_err(|e| {
            let name = String::from_utf8_lossy(&xattr.name);
            io::Error::new(io::Error::from(e).kind(), format!("cannot set the attribute {name}: {e}"))
        })?;
    }
    Ok(())
}

#[allow(clippy::useless_conversion)]
fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime.0, tv_nsec: entry.mtime.1.into() };
    Timestamps { last_access: time, last_modification: time }
}
