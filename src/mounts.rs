//! What is mounted where on this machine: the kernel's table of mounts.
//!
//! The table is asked, not the paths. Asking a path can hang, if a server is gone, and comparing device numbers with the
//! parent's would miss a bind mount from the same file system.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// This process's table.
const TABLE: &str = "/proc/self/mountinfo";

/// One mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint {
    /// Where it is.
    pub at: PathBuf,
    /// Its type: `ext4`, `nfs4`, `fuse.sshfs` …
    pub fstype: String,
    /// What is mounted.
    pub source: String,
    /// Its own options, separated by commas.
    pub options: String,
}

/// Reads this process's table.
///
/// # Errors
/// If it cannot be read.
pub fn mounts() -> io::Result<Vec<MountPoint>> {
    read(Path::new(TABLE))
}

/// Reads a table of this form.
///
/// # Errors
/// If it cannot be read.
pub fn read(table: &Path) -> io::Result<Vec<MountPoint>> {
    Ok(std::fs::read(table)?.split(|byte| *byte == b'\n').filter_map(mount_point).collect())
}

/// The file system that a path is on, by the table alone. The path is taken as it is: it should have no symbolic links in it.
pub fn mount_of<'a>(path: &Path, mounts: &'a [MountPoint]) -> Option<&'a MountPoint> {
    // Of two at the same place the later one covers the earlier one.
    mounts.iter().filter(|mount| path.starts_with(&mount.at)).max_by_key(|mount| mount.at.components().count())
}

/// What is mounted at exactly this path, as this process sees it. What is mounted is not touched, so that this does not hang
/// if it is a server that is gone.
///
/// # Errors
/// If the table or the folder above the path cannot be read. A path that does not exist is no error.
pub fn mounted_at(path: &Path) -> io::Result<Option<MountPoint>> {
    let Some(real) = real_path(path)? else { return Ok(None) };
    // Of several at the same place the last one is seen.
    Ok(mounts()?.into_iter().rfind(|mount| mount.at == real))
}

/// The path without symbolic links, of which the table has none. What stands at its end is not touched unless it is a link.
fn real_path(path: &Path) -> io::Result<Option<PathBuf>> {
    let found = match (path.parent(), path.file_name()) {
        // Of a folder, this fails without asking the file system that is mounted there.
        (Some(parent), Some(name)) if std::fs::read_link(path).is_err() => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            std::fs::canonicalize(parent).map(|parent| parent.join(name))
        }
        _ => std::fs::canonicalize(path),
    };
    match found {
        Ok(real) => Ok(Some(real)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads one line: `36 35 98:0 /root /mount rw,noatime master:1 - ext4 /dev/root rw`.
fn mount_point(line: &[u8]) -> Option<MountPoint> {
    let mut fields = line.split(|byte| *byte == b' ');
    let at = PathBuf::from(OsString::from_vec(unescaped(fields.nth(4)?)));
    // How many fields stand between differs.
    let mut back = fields.skip_while(|field| *field != b"-").skip(1);
    let mut text = || back.next().map(|field| String::from_utf8_lossy(&unescaped(field)).into_owned());
    Some(MountPoint { at, fstype: text()?, source: text()?, options: text().unwrap_or_default() })
}

/// Space, tab, newline, backslash and `#` are written as octal numbers.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        match after {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] if byte == b'\\' => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_as_the_kernel_writes_it() {
        let line = br"36 35 98:0 /root /mnt/a\040b\134c rw,noatime master:1 shared:2 - ext3 /dev/a\040root rw,x";
        let read = mount_point(line).expect("a line");
        assert_eq!(read.at, Path::new("/mnt/a b\\c"));
        assert_eq!((&*read.fstype, &*read.source, &*read.options), ("ext3", "/dev/a root", "rw,x"));
        for line in [&b""[..], b"36 35", b"36 35 98:0 / / rw", b"36 35 98:0 / / rw - ext3"] {
            assert_eq!(mount_point(line), None);
        }
    }

    #[test]
    fn a_mount_point_is_recognised() {
        assert_eq!(
            mounted_at(Path::new("/proc")).expect("readable").map(|mount| mount.fstype).as_deref(),
            Some("proc")
        );
        assert!(mounted_at(Path::new("/")).expect("readable").is_some());
        for path in ["/proc/self", "/none/such", "/proc/none"] {
            assert_eq!(mounted_at(Path::new(path)).expect("readable"), None, "{path}");
        }
        let dir = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink("/proc", dir.path().join("link")).expect("made");
        assert!(mounted_at(&dir.path().join("link")).expect("readable").is_some(), "a link is followed");
        assert_eq!(mounted_at(dir.path()).expect("readable"), None);
    }
}
