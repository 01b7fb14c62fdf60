//! T01: data in a container's own layer.

use std::collections::BTreeMap;

use super::evidence::{ContainerFacts, Evidence, Layer, LayerFile};
use super::{Finding, Level, counted, quoted, size};

pub(super) const T01: &str = "data in a container's writable layer";

/// Folders whose content nobody misses: memory, caches, what a start makes anew.
const NOISE: &[&str] = &[
    "/tmp",
    "/run",
    "/var/run",
    "/var/lock",
    "/var/tmp",
    "/var/cache",
    "/var/lib/apt/lists",
    "/dev",
    "/proc",
    "/sys",
    "/root/.npm",
];

/// Names of folders that are caches wherever they are.
const CACHES: &[&str] = &[".cache", "__pycache__", ".pytest_cache"];

/// What the engine and the start of a container write themselves.
const FILES: &[&str] =
    &["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab", "/.dockerenv", "/etc/ld.so.cache"];

/// How many folders are named.
const NAMED: usize = 5;

/// One finding per container that has written more than a little into its own layer.
pub(super) fn written(evidence: &Evidence) -> Vec<Finding> {
    evidence.containers.iter().filter_map(|container| of(container, evidence.limits.layer)).collect()
}

fn of(container: &ContainerFacts, limit: u64) -> Option<Finding> {
    let layer = container.layer.as_ref()?;
    let files: Vec<&LayerFile> = layer.files.iter().filter(|file| !is_noise(container, &file.path)).collect();
    let (bytes, exactly) = bytes(layer, &files);
    if files.is_empty() || bytes < limit {
        return None;
    }
    let mut folders: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for file in &files {
        let folder = folders.entry(folder_of(&file.path)).or_default();
        folder.0 += file.bytes.unwrap_or(0);
        folder.1 += 1;
    }
    let mut folders: Vec<(String, (u64, u64))> = folders.into_iter().collect();
    folders.sort_by(|a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
    let places: Vec<String> = folders
        .iter()
        .take(NAMED)
        .map(|(folder, (bytes, files))| match exactly {
            true => format!("{} in {folder} ({})", size(*bytes), counted(*files, "file")),
            false => format!("{} in {folder}", counted(*files, "path")),
        })
        .collect();
    let more = folders.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(", and {} more", counted(more as u64, "folder")) } else { String::new() };
    let sum = if exactly { size(bytes) } else { format!("up to {}", size(bytes)) };
    let removed = if container.auto_remove { "; it is removed when it stops (--rm)" } else { "" };
    let (name, place) = (&container.name, &folders.first()?.0);
    let volume = volume_name(name, place);
    let (inside, target) = (place.trim_end_matches('/'), quoted(&volume));
    Some(
        Finding::new("T01", if container.auto_remove { Level::Error } else { Level::Warn }, T01)
            .container(name)
            .detail(format!("{sum} in no volume: {}{more}{removed}", places.join(", ")))
            .why("The layer goes with the container: `docker rm`, a new image or `docker compose up` after a change ends it, and no backup of volumes takes it")
            .fix([
                format!("docker volume create {target}"),
                format!(
                    "docker cp -a {} \"$(docker volume inspect -f '{{{{.Mountpoint}}}}' {target})\"",
                    quoted(&format!("{name}:{inside}/."))
                ),
                format!("# then make {name} anew with -v {}", quoted(&format!("{volume}:{place}"))),
            ]),
    )
}

/// The bytes of the files, and whether that is known exactly rather than as "all of the layer".
fn bytes(layer: &Layer, files: &[&LayerFile]) -> (u64, bool) {
    match layer.total {
        Some(total) => (total, false),
        None => (files.iter().filter_map(|file| file.bytes).sum(), true),
    }
}

/// Whether nobody would miss a file.
fn is_noise(container: &ContainerFacts, path: &str) -> bool {
    let below = |folder: &str| path == folder || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    let name = path.rsplit('/').next().unwrap_or_default();
    // Where something is mounted, the layer has an empty file or folder to mount it on.
    let mounted = container.mounts.iter().any(|mount| below(mount.path.trim_end_matches('/')));
    mounted
        || NOISE.iter().any(|folder| below(folder))
        || FILES.contains(&path)
        || path.split('/').any(|part| CACHES.contains(&part))
        || [".pid", ".lock", ".sock", ".swp"].iter().any(|end| name.ends_with(end))
}

/// The folder that a volume would be mounted on: at most three levels, so that `/var/lib/mysql/db1/t.ibd` counts for
/// `/var/lib/mysql`.
fn folder_of(path: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    parts.pop();
    parts.truncate(3);
    format!("/{}", parts.join("/"))
}

/// A name for the volume that should hold what is at a path of a container.
pub(super) fn volume_name(container: &str, path: &str) -> String {
    let generic = ["data", "_data", "db", "lib"];
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let last = if last.is_empty() || generic.contains(&last) { "data" } else { last };
    let clean = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '-' };
    format!("{container}-{last}").chars().map(clean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::testing::*;

    fn found(files: &[(&str, u64)], auto_remove: bool) -> Vec<Finding> {
        let files = files.iter().map(|(path, bytes)| LayerFile { path: (*path).to_owned(), bytes: Some(*bytes) });
        let layer = Some(Layer { files: files.collect(), total: None });
        let app = ContainerFacts { layer, auto_remove, ..container("app") };
        written(&Evidence { containers: vec![app.mounting("vol", "/data")], ..evidence() })
    }

    #[test]
    fn data_in_the_layer() {
        let files = [("/var/lib/mysql/a/t1", 3 << 20), ("/var/lib/mysql/t2", 1 << 20), ("/opt/app.db", 10)];
        let finding = &found(&files, false)[0];
        assert_eq!((finding.id, finding.level), ("T01", Level::Warn));
        assert_eq!(finding.detail, "4.0 MiB in no volume: 4.0 MiB in /var/lib/mysql (2 files), 10 B in /opt (1 file)");
        assert!(finding.fix.contains("docker cp -a app:/var/lib/mysql/. "), "{}", finding.fix);
        assert!(finding.fix.ends_with("make app anew with -v app-mysql:/var/lib/mysql"), "{}", finding.fix);
        assert_eq!(found(&files, true)[0].level, Level::Error);
        let root = found(&[("/dump", 2 << 20)], false);
        assert!(root[0].fix.contains("docker cp -a app:/. "), "{}", root[0].fix);
    }

    #[test]
    fn noise_and_small_files_are_none() {
        let big = 8 << 20;
        for path in [
            "/tmp/x",
            "/run/app/state",
            "/var/run/x",
            "/var/cache/nginx/1",
            "/root/.cache/pip/x",
            "/srv/app/__pycache__/a.pyc",
            "/srv/app.pid",
            "/etc/resolv.conf",
            "/dev/shm/x",
            "/data/never",
            "/data",
        ] {
            assert_eq!(found(&[(path, big)], false), [], "{path}");
        }
        assert_eq!(found(&[("/srv/x", (1 << 20) - 1)], false), [], "below the limit");
        assert_eq!(found(&[], false), []);
        assert_eq!(found(&[("/tmpx/x", big)], false).len(), 1);
        assert_eq!(written(&Evidence { containers: vec![container("unknown")], ..evidence() }), []);
    }

    #[test]
    fn without_sizes_the_whole_layer_counts() {
        let of = |total, paths: &[&str]| {
            let files = paths.iter().map(|path| LayerFile { path: (*path).to_owned(), bytes: None }).collect();
            let app = ContainerFacts { layer: Some(Layer { files, total: Some(total) }), ..container("app") };
            written(&Evidence { containers: vec![app], ..evidence() })
        };
        assert_eq!(of(5 << 20, &["/srv/db/x"])[0].detail, "up to 5.0 MiB in no volume: 1 path in /srv/db");
        assert_eq!(of(5 << 20, &["/tmp/x"]), []);
        assert_eq!(of(5, &["/srv/db/x"]), []);
    }
}
