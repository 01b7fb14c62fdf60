//! Which volumes come over a network, and whether the other side answers.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use super::evidence::NetworkFacts;
use super::host::MountPoint;
use crate::inventory::VolumeInfo;

/// How long the other side may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// What the names of drivers have in them that keep volumes elsewhere.
const DRIVERS: &[&str] = &[
    "rclone",
    "sshfs",
    "s3fs",
    "goofys",
    "gluster",
    "nfs",
    "cifs",
    "smb",
    "netshare",
    "ceph",
    "davfs",
    "rexray",
    "efs",
    "azurefile",
];

/// The types of file systems that are elsewhere.
fn is_network(fstype: &str) -> bool {
    const TYPES: &[&str] =
        &["nfs", "nfs4", "cifs", "smb3", "smbfs", "sshfs", "ceph", "glusterfs", "afs", "davfs", "s3fs", "rclone"];
    const FUSE: &[&str] = &[
        "sshfs",
        "rclone",
        "s3fs",
        "goofys",
        "glusterfs",
        "mount-s3",
        "mountpoint-s3",
        "davfs",
        "ceph-fuse",
        "juicefs",
    ];
    TYPES.contains(&fstype) || fstype.strip_prefix("fuse.").is_some_and(|name| FUSE.contains(&name))
}

/// Whether a driver keeps volumes elsewhere, by its name.
pub fn is_network_driver(driver: &str) -> bool {
    // A managed plugin is called like its image: `vieux/sshfs:latest`.
    let name = driver.rsplit('/').next().unwrap_or(driver).to_lowercase();
    driver != "local" && DRIVERS.iter().any(|known| name.contains(known))
}

/// A volume that comes over a network, and how its other side is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// What it is.
    pub what: String,
    /// Whether what was read is kept on this machine.
    pub cached: bool,
    /// The server and port, where they are in the volume's options.
    pub server: Option<(String, u16)>,
}

/// What a volume's driver and options say.
pub fn of_volume(volume: &VolumeInfo) -> Option<Remote> {
    let option = |name: &str| volume.options.get(name).map(String::as_str).unwrap_or_default();
    if volume.driver != "local" {
        let cache = |name: &str| !matches!(option(name), "" | "off" | "false");
        let cached = ["vfs-cache-mode", "vfs_cache_mode", "use_cache", "cache"].iter().any(|name| cache(name));
        let what = format!("driver {}", volume.driver);
        return is_network_driver(&volume.driver).then_some(Remote { what, cached, server: None });
    }
    let fstype = option("type");
    if !is_network(fstype) {
        return None;
    }
    let flags = option("o");
    let flag = |name: &str| flags.split(',').find_map(|flag| flag.trim().strip_prefix(name)?.strip_prefix('='));
    let device = option("device");
    // NFS wants `addr=` beside the device `:/export`; CIFS has the server in `//server/share`.
    let server = flag("addr").or_else(|| match device.strip_prefix("//") {
        Some(rest) => rest.split('/').next(),
        None => device.split_once(':').map(|(server, _)| server),
    });
    let port = match fstype {
        "nfs" | "nfs4" => Some(2049),
        "cifs" | "smb3" | "smbfs" => Some(445),
        _ => None,
    };
    let port = flag("port").and_then(|port| port.parse().ok()).or(port);
    let server = server.filter(|server| !server.is_empty()).map(str::to_owned);
    let what = match &server {
        Some(server) if device.starts_with(':') => format!("{fstype} {server}{device}"),
        _ => format!("{fstype} {device}"),
    };
    Some(Remote { what: what.trim_end().to_owned(), cached: is_cached(flags), server: server.zip(port) })
}

/// What the kernel's table of mounts says.
pub fn of_mount(mount: &MountPoint) -> Option<Remote> {
    let what = format!("{} {}", mount.fstype, mount.source);
    is_network(&mount.fstype).then(|| Remote { what, cached: is_cached(&mount.options), server: None })
}

/// Whether the options of an NFS or CIFS mount ask for a cache on the disk (FS-Cache).
fn is_cached(flags: &str) -> bool {
    flags.split(',').any(|flag| flag.trim() == "fsc")
}

/// Asks the other side: its port, or else the mounted path. Takes [`PATIENCE`] at the most.
pub fn ask(remote: Remote, mounted_at: Option<&Path>) -> NetworkFacts {
    let unreachable = match (&remote.server, mounted_at) {
        // What is mounted is asked itself: that is what containers do.
        (_, Some(path)) => stat(path).err(),
        (Some((server, port)), None) => connect(server, *port).err(),
        (None, None) => None,
    };
    NetworkFacts { what: remote.what, cached: remote.cached, unreachable }
}

fn stat(path: &Path) -> Result<(), String> {
    let path = path.to_owned();
    let shown = path.display().to_string();
    let answer = within(PATIENCE, move || std::fs::metadata(path).map(drop).map_err(|error| error.to_string()));
    match answer {
        Some(Ok(())) => Ok(()),
        Some(Err(reason)) => Err(format!("{shown}: {reason}")),
        None => Err(format!("{shown} does not answer within {} s", PATIENCE.as_secs())),
    }
}

fn connect(server: &str, port: u16) -> Result<(), String> {
    let name = server.to_owned();
    // Looking the name up may take as long as the connection itself.
    let answer = within(PATIENCE, move || {
        let addresses: Vec<SocketAddr> =
            (name.as_str(), port).to_socket_addrs().map_err(|error| error.to_string())?.collect();
        let mut reason = "it has no address".to_owned();
        for address in addresses {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(_) => return Ok(()),
                Err(error) => reason = error.to_string(),
            }
        }
        Err(reason)
    });
    let failed = |reason: &str| Err(format!("{server}, port {port}: {reason}"));
    match answer {
        Some(Ok(())) => Ok(()),
        Some(Err(reason)) => failed(&reason),
        None => failed(&format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// Does something on a thread of its own, and waits only so long: a call on a dead mount never returns, and cannot be ended.
fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    let worker = std::thread::Builder::new().name("audit-probe".to_owned()).spawn(move || {
        // Nobody listens any more if it took too long.
        let _ = sender.send(work());
    });
    worker.ok()?;
    receiver.recv_timeout(limit).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::audit::testing::volume;

    fn remote(driver: &str, options: &[(&str, &str)]) -> Option<Remote> {
        let mut info = volume("v").info;
        info.driver = driver.to_owned();
        info.options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>();
        of_volume(&info)
    }

    #[test]
    fn options_name_the_other_side() {
        let nfs = remote("local", &[("type", "nfs"), ("o", "addr=10.0.0.7,rw,fsc"), ("device", ":/export")]);
        let nfs = nfs.expect("a network");
        assert_eq!(
            (nfs.what.as_str(), nfs.cached, nfs.server),
            ("nfs 10.0.0.7:/export", true, Some(("10.0.0.7".into(), 2049)))
        );
        let cifs = remote("local", &[("type", "cifs"), ("o", "port=1445,username=x"), ("device", "//nas/share")]);
        let cifs = cifs.expect("a network");
        assert_eq!(
            (cifs.what.as_str(), cifs.cached, cifs.server),
            ("cifs //nas/share", false, Some(("nas".into(), 1445)))
        );
        let fuse = remote("vieux/sshfs:latest", &[("sshcmd", "me@there:/x")]).expect("a network");
        assert_eq!((fuse.what.as_str(), fuse.server), ("driver vieux/sshfs:latest", None));
        assert!(remote("rclone", &[("vfs-cache-mode", "full")]).expect("a network").cached);
        assert!(!remote("rclone", &[("vfs-cache-mode", "off")]).expect("a network").cached);
        for (driver, options) in [
            ("local", &[][..]),
            ("local", &[("type", "none"), ("o", "bind"), ("device", "/srv")]),
            ("local", &[("type", "tmpfs"), ("device", "tmpfs")]),
            ("local", &[("type", "ext4"), ("device", "/dev/vdb")]),
            ("voltool", &[]),
        ] {
            assert_eq!(remote(driver, options), None, "{driver} {options:?}");
        }
    }

    #[test]
    fn file_systems_of_mounts() {
        let of = |fstype: &str, options: &str| {
            let mount =
                MountPoint { at: "/x".into(), fstype: fstype.into(), source: "s".into(), options: options.into() };
            of_mount(&mount).map(|remote| remote.cached)
        };
        assert_eq!(of("nfs4", "rw,fsc"), Some(true));
        assert_eq!(of("fuse.s3fs", "rw"), Some(false));
        for local in ["ext4", "fuse.lxcfs", "overlay", "tmpfs", "fuseblk", "btrfs"] {
            assert_eq!(of(local, ""), None, "{local}");
        }
    }

    #[test]
    fn what_does_not_answer_holds_nobody_up() {
        let (_keep, gate) = mpsc::channel::<()>();
        assert_eq!(within(Duration::from_millis(10), move || gate.recv().is_ok()), None);
        assert_eq!(within(Duration::from_secs(60), || 7), Some(7));
    }

    #[test]
    fn the_other_side_is_asked() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let remote = |port| Remote { what: "nfs".into(), cached: false, server: Some(("127.0.0.1".into(), port)) };
        assert_eq!(ask(remote(port), None).unreachable, None);
        drop(listener);
        let reason = ask(remote(port), None).unreachable.expect("nobody listens");
        assert!(reason.starts_with(&format!("127.0.0.1, port {port}: ")), "{reason}");
        assert_eq!(ask(remote(port), Some(Path::new("/"))).unreachable, None, "what is mounted is asked itself");
        let gone = ask(remote(port), Some(Path::new("/nonexistent"))).unreachable.expect("not there");
        assert!(gone.starts_with("/nonexistent: "), "{gone}");
    }
}
