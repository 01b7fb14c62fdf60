//! The socket: made, taken over from a daemon that is gone, or passed in by systemd.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Why there is no socket to listen on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// Another process listens there.
    #[error("cannot listen on {}: another process does already", .0.display())]
    Taken(PathBuf),
    /// Something else is in its place.
    #[error("cannot listen on {}: it is there and is no socket", .0.display())]
    NoSocket(PathBuf),
    /// Standard input is not a listening socket.
    #[error("standard input is no unix socket that listens: {0}")]
    NotPassed(#[source] io::Error),
    /// The system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A socket that is listened on. Its file is removed when this is dropped, unless it was passed in.
#[derive(Debug)]
pub struct Listening {
    listener: Option<UnixListener>,
    /// The file, and its device and inode: by then there may be another one in its place.
    file: Option<(PathBuf, (u64, u64))>,
}

impl Listening {
    /// Makes the socket, and the folder it is in. Only its owner may connect. A file that a process left there which is gone is
    /// replaced.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn bind(path: &Path) -> Result<Listening, SocketError> {
        let failed = |action| move |source| SocketError::Io { action, path: path.to_owned(), source };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(failed("make the folder of"))?;
        }
        match std::fs::symlink_metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed("look at")(e)),
            Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NoSocket(path.to_owned())),
            Ok(_) => match StdStream::connect(path) {
                // Only this proves that nobody is there: one whose queue is full, or that may not be used, is somebody's.
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                _ => return Err(SocketError::Taken(path.to_owned())),
            },
        }
        // Under another name first: there is no moment in which others may connect, nor one in which nobody can. Engines take only
        // names that end in .sock for plugins.
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(beside);
        let listening = (|| {
            let _ = std::fs::remove_file(&beside);
            let listener = StdListener::bind(&beside)?;
            std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600))?;
            let made = std::fs::symlink_metadata(&beside)?;
            std::fs::rename(&beside, path)?;
            let listener = tokio_listener(listener)?;
            Ok(Listening { listener: Some(listener), file: Some((path.to_owned(), (made.dev(), made.ino()))) })
        })();
        listening.map_err(|source| {
            let _ = std::fs::remove_file(&beside);
            failed("listen on")(source)
        })
    }

    /// Takes the listening socket that is this process's standard input, as systemd passes it to a service with
    /// `StandardInput=socket`.
    ///
    /// # Errors
    /// [`SocketError::NotPassed`] if it is something else.
    pub fn passed() -> Result<Listening, SocketError> {
        let take = || -> io::Result<UnixListener> {
            let listener = StdListener::from(io::stdin().as_fd().try_clone_to_owned()?);
            // Fails for what is no unix socket.
            listener.local_addr()?;
            tokio_listener(listener)
        };
        Ok(Listening { listener: Some(take().map_err(SocketError::NotPassed)?), file: None })
    }

    /// Hands out what accepts connections, once.
    pub fn take(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }
}

fn tokio_listener(listener: StdListener) -> io::Result<UnixListener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

impl Drop for Listening {
    fn drop(&mut self) {
        let Some((path, made)) = &self.file else { return };
        if std::fs::symlink_metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == *made) {
            // A leftover does no harm: the next daemon replaces it.
            let _ = std::fs::remove_file(path);
        }
    }
}
