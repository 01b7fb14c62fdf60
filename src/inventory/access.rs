//! Where a volume's content can be read on this machine.
//!
//! | driver | the content is |
//! | --- | --- |
//! | `local` without `type`, `device` or `o` | in the mountpoint |
//! | `local` with them, mounted now | in the mountpoint |
//! | `local` with them, a bind mount | in the folder that is bound, whether or not it is mounted now |
//! | `local` with them, `tmpfs` | nowhere: memory is not persistent |
//! | `local` with them, anything else (NFS, a block device …) | out of reach while no container uses the volume |
//! | voltool's own with `mount=`, mounted now | in the mountpoint; otherwise out of reach (a backup has it mounted) |
//! | voltool's own, managed by the engine | where it says in `Status` that it is on the host |
//! | a plugin | in the mountpoint, if the plugin names one that exists here |
//!
//! In the last row but one the mountpoint exists and is empty: reading it would give a snapshot of nothing.

use std::io;
use std::path::{Path, PathBuf};

use super::{VolumeInfo, is_own_driver};
use crate::docker::Engine;
use crate::mounts::mounted_at;

/// What voltool's own driver keeps beside the content of each volume.
const OWN_FILE: &str = "volume.json";

/// Why a volume's content cannot be read. Each names the volume, and [`AccessError::hint`] says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The engine runs elsewhere.
    #[error(
        "cannot read volume {volume}: the mountpoints of the Docker engine at {endpoint} are out of reach: {reason}"
    )]
    OutOfReach {
        /// The volume's name.
        volume: String,
        /// The engine's address.
        endpoint: String,
        /// How that is known.
        reason: String,
    },
    /// The engine mounts it only while a container uses it, and none does now.
    #[error("cannot read volume {volume}: the engine mounts it ({what}) only while a container uses it")]
    NotMounted {
        /// The volume's name.
        volume: String,
        /// What is mounted, from the options.
        what: String,
    },
    /// It is kept in memory.
    #[error("cannot read volume {volume}: it is a {fstype}, which holds nothing persistent")]
    Memory {
        /// The volume's name.
        volume: String,
        /// The file system's type.
        fstype: String,
    },
    /// Its driver does not say where it is, or says so in terms of its own.
    #[error("cannot read volume {volume}: its driver {driver} {why}")]
    NoPath {
        /// The volume's name.
        volume: String,
        /// The driver's name.
        driver: String,
        /// What is wrong with what the driver says.
        why: String,
    },
    /// The user may not read it.
    #[error("cannot read volume {volume} at {}: permission denied", path.display())]
    Denied {
        /// The volume's name.
        volume: String,
        /// The path that may not be read.
        path: PathBuf,
    },
    /// Its folder is not there, or is no folder.
    #[error("cannot read volume {volume} at {}: {reason}", path.display())]
    Unreadable {
        /// The volume's name.
        volume: String,
        /// The path that should be there.
        path: PathBuf,
        /// What the operating system says.
        reason: String,
    },
}

impl AccessError {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            AccessError::OutOfReach { .. } => "run voltool on the machine that the engine runs on",
            AccessError::NotMounted { .. } => {
                "run voltool while a container that uses the volume is running; any will do, such as \
                 `docker run -d -v VOLUME:/v IMAGE sleep 3600`"
            }
            AccessError::Memory { .. } => "leave the volume out (--exclude, or the label voltool.enable=false)",
            AccessError::NoPath { .. } => {
                "back up what the driver stores with the driver's own means, or leave the volume out"
            }
            AccessError::Denied { .. } => "run voltool as root",
            AccessError::Unreadable { .. } => {
                "compare with `docker volume inspect`; if voltool runs in a container, mount the engine's data folder into it \
                 at the same path"
            }
        }
    }
}

/// Finds the folder that holds a volume's content on this machine, and makes sure that it can be listed.
///
/// # Errors
/// See [`AccessError`].
pub fn readable_root(volume: &VolumeInfo, engine: &Engine) -> Result<PathBuf, AccessError> {
    if let Some(reason) = engine.local_reason() {
        return Err(AccessError::OutOfReach {
            volume: volume.name.clone(),
            endpoint: engine.endpoint().to_string(),
            reason: reason.to_owned(),
        });
    }
    let root = content_root(volume, |path| Ok(mounted_at(path)?.is_some()))?;
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => AccessError::Denied { volume: volume.name.clone(), path: root.clone() },
        _ => AccessError::Unreadable { volume: volume.name.clone(), path: root.clone(), reason: reason_of(&error) },
    };
    // Asked for by trying, not by looking at modes: capabilities and user namespaces have a say as well.
    std::fs::read_dir(&root).map_err(failed)?;
    Ok(root)
}

/// Applies the table in the module's documentation. `mounted` says whether something is mounted at a path now.
fn content_root(volume: &VolumeInfo, mounted: impl Fn(&Path) -> io::Result<bool>) -> Result<PathBuf, AccessError> {
    let mountpoint = PathBuf::from(&volume.mountpoint);
    let no_path = |why: &str| AccessError::NoPath {
        volume: volume.name.clone(),
        driver: volume.driver.clone(),
        why: why.to_owned(),
    };
    // A plugin that the engine manages is known by an image reference. Its paths are those inside of its own file system; the
    // same path on this machine is something else. voltool's own says where on the host it keeps the content (see `Inventory::scan`).
    if volume.driver.contains(':') {
        if is_own_driver(&volume.driver) && mountpoint.parent().is_some_and(|folder| folder.join(OWN_FILE).is_file()) {
            return Ok(mountpoint);
        }
        return Err(no_path("keeps it where only the plugin itself can see it"));
    }
    if volume.mountpoint.is_empty() {
        return Err(no_path("does not say where it is"));
    }
    if !mountpoint.is_absolute() {
        return Err(no_path(&format!("says that it is at {:?}, which is no absolute path", volume.mountpoint)));
    }
    if volume.driver != "local" {
        let elsewhere = volume.options.get("mount").filter(|_| is_own_driver(&volume.driver));
        return match elsewhere {
            // As below: an empty folder is not the content.
            Some(url) if !mounted(&mountpoint).is_ok_and(|is| is) => {
                Err(AccessError::NotMounted { volume: volume.name.clone(), what: url.clone() })
            }
            _ => Ok(mountpoint),
        };
    }
    let option = |name: &str| volume.options.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let (fstype, device, flags) = (option("type"), option("device"), option("o").unwrap_or_default());
    if fstype.is_none() && device.is_none() && flags.is_empty() {
        return Ok(mountpoint);
    }
    if let Some(fstype @ ("tmpfs" | "ramfs")) = fstype {
        return Err(AccessError::Memory { volume: volume.name.clone(), fstype: fstype.to_owned() });
    }
    let is_mounted = mounted(&mountpoint).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            AccessError::Denied { volume: volume.name.clone(), path: mountpoint.clone() }
        }
        _ => {
            AccessError::Unreadable { volume: volume.name.clone(), path: mountpoint.clone(), reason: reason_of(&error) }
        }
    })?;
    if is_mounted {
        return Ok(mountpoint);
    }
    if let Some(folder) = bound_folder(volume) {
        return Ok(folder.to_owned());
    }
    let what = match (fstype, device) {
        (Some(fstype), Some(device)) => format!("{fstype} {device}"),
        (one, other) => one.or(other).unwrap_or(flags).to_owned(),
    };
    Err(AccessError::NotMounted { volume: volume.name.clone(), what })
}

/// The folder that a volume of the driver `local` is bound to by its options, whether or not it is there.
pub fn bound_folder(volume: &VolumeInfo) -> Option<&Path> {
    let bind = volume.options.get("o")?.split(',').any(|flag| matches!(flag.trim(), "bind" | "rbind"));
    let device = volume.options.get("device").filter(|device| device.starts_with('/'))?;
    (bind && volume.driver == "local").then(|| Path::new(device.as_str()))
}

fn reason_of(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it does not exist on this machine".to_owned(),
        io::ErrorKind::NotADirectory => "it is no folder".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
