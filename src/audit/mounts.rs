//! T06, T07 and T13: what is mounted, and on what.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::{BindKind, ContainerFacts, Evidence, MountFacts, NetworkFacts};
use super::layers::volume_name;
use super::network::is_network_driver;
use super::{Finding, Level, quoted};

pub(super) const T06: &str = "bind mount: tied to this host";
pub(super) const T07: &str = "image VOLUME shadowed: mounted next to it, not on it";
pub(super) const T13: &str = "network-backed volume";

/// Folders of the host that are the machine, not data.
const MACHINE: &[&str] = &["/proc", "/sys", "/dev", "/run", "/var/run", "/boot", "/lib/modules"];

/// Files of the host that say where and who it is.
const LOCALE: &[&str] = &[
    "/etc/localtime",
    "/etc/timezone",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/etc/passwd",
    "/etc/group",
];

/// T06: one finding per path of the host that containers mount. What a container may write and holds data is a warning, everything
/// else a hint.
pub(super) fn binds(evidence: &Evidence) -> Vec<Finding> {
    let mut by_source: BTreeMap<&str, Vec<(&ContainerFacts, &MountFacts)>> = BTreeMap::new();
    for container in &evidence.containers {
        for mount in &container.mounts {
            if let Some(source) = &mount.bind {
                by_source.entry(source).or_default().push((container, mount));
            }
        }
    }
    by_source.into_iter().map(|(source, users)| of_bind(evidence, source, &users)).collect()
}

fn of_bind(evidence: &Evidence, source: &str, users: &[(&ContainerFacts, &MountFacts)]) -> Finding {
    let kind = evidence.binds.get(source).map(|bind| bind.kind).unwrap_or_default();
    let rw = users.iter().any(|(_, mount)| mount.rw);
    let below = |folder: &str| source.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let machine = MACHINE.iter().any(|folder| below(folder)) || LOCALE.contains(&source) || kind == BindKind::Special;
    let (level, what) = match kind {
        _ if machine => (Level::Info, "part of this machine, not data"),
        _ if !rw => (Level::Info, "read-only, so it is not where the container keeps data"),
        BindKind::File => (Level::Info, "a single file"),
        BindKind::EmptyFolder => (Level::Info, "a folder, empty now"),
        BindKind::Folder => (Level::Warn, "a folder with data that a container may write"),
        BindKind::Special | BindKind::Unknown => (Level::Info, "whether there is data in it cannot be seen from here"),
    };
    let names: BTreeSet<&str> = users.iter().map(|(container, _)| container.name.as_str()).collect();
    let places: BTreeSet<String> = users
        .iter()
        .map(|(container, mount)| format!("{} at {}{}", container.name, mount.path, if mount.rw { "" } else { ":ro" }))
        .collect();
    let finding = Finding::new("T06", level, T06).path(source);
    let finding = names.iter().fold(finding, |finding, name| finding.container(name));
    let finding = finding
        .detail(format!("{what}; mounted by {}", places.into_iter().collect::<Vec<_>>().join(", ")))
        .why("No backup of volumes takes it, and on another host it is not there: the engine then makes an empty folder in its place");
    let (container, mount) = users[0];
    if level == Level::Warn {
        let name = volume_name(&container.name, &mount.path);
        finding.fix([
            format!("voltool backup --path {} --name {}", quoted(source), quoted(&name)),
            "# or make a volume of it:".to_owned(),
            format!("docker volume create {}", quoted(&name)),
            format!(
                "cp -a {} \"$(docker volume inspect -f '{{{{.Mountpoint}}}}' {})\"",
                quoted(&format!("{}/.", source.trim_end_matches('/'))),
                quoted(&name)
            ),
            format!("# then make {} anew with -v {}", container.name, quoted(&format!("{name}:{}", mount.path))),
        ])
    } else if machine {
        finding.fix(["# nothing to back up; make sure that the next host has it as well"])
    } else {
        finding.fix([format!(
            "# keep {source} with the machine's configuration, or: voltool backup --path {} --name NAME",
            quoted(source)
        )])
    }
}

/// T07: one finding per container whose image declares a volume that holds data without a name, because what was mounted is at another
/// path nearby: below it, above it, or beside it.
pub(super) fn shadowed(evidence: &Evidence) -> Vec<Finding> {
    let each = evidence.containers.iter().flat_map(|container| {
        let declared = evidence.image_of(container).map_or(&container.declared, |image| &image.volumes);
        declared.iter().filter_map(move |path| of_shadowed(evidence, container, path))
    });
    each.collect()
}

fn of_shadowed(evidence: &Evidence, container: &ContainerFacts, declared: &str) -> Option<Finding> {
    let declared = declared.trim_end_matches('/');
    let hidden = container.mounts.iter().find(|mount| mount.path.trim_end_matches('/') == declared && !mount.named)?;
    let hidden_name = hidden.volume.as_ref()?;
    let hidden_volume = evidence.volume(hidden_name)?;
    if hidden_volume.holds_data() != Some(true) || hidden_volume.ephemeral {
        return None;
    }
    let chosen = container.mounts.iter().filter(|mount| mount.named || mount.bind.is_some()).find_map(|mount| {
        let path = mount.path.trim_end_matches('/');
        let inside = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
        let parent = |path: &str| path.rsplit_once('/').map(|(parent, _)| parent.to_owned()).unwrap_or_default();
        let empty = match (&mount.volume, &mount.bind) {
            (Some(name), _) => evidence.volume(name).and_then(|volume| volume.holds_data()) == Some(false),
            (None, Some(source)) => evidence.binds.get(source).is_some_and(|bind| bind.kind == BindKind::EmptyFolder),
            (None, None) => false,
        };
        let nested = inside(path, declared) || inside(declared, path);
        // Beside it, only an empty volume shows that the path was meant.
        let beside = empty && parent(path) == parent(declared) && !parent(path).is_empty();
        (nested || beside).then_some((mount, empty))
    });
    let (mount, empty) = chosen?;
    let level = if empty { Level::Error } else { Level::Warn };
    let chosen_name = mount.volume.as_ref().or(mount.bind.as_ref())?;
    let state = if empty { " and is empty" } else { "" };
    let finding = Finding::new("T07", level, T07).container(&container.name).volume(hidden_name);
    let finding = match &mount.volume {
        Some(name) => finding.volume(name),
        None => finding.path(chosen_name),
    };
    let target = match (&mount.volume, &mount.bind) {
        (Some(name), _) => format!("\"$(docker volume inspect -f '{{{{.Mountpoint}}}}' {})\"", quoted(name)),
        (None, source) => quoted(source.as_deref().unwrap_or_default()),
    };
    let copy = format!("cp -a {} {target}", quoted(&format!("{}/.", hidden_volume.info.mountpoint)));
    let anew = format!("# then make {} anew with -v {}", container.name, quoted(&format!("{chosen_name}:{declared}")));
    let fix = match empty {
        true => vec![format!("docker stop {}", quoted(&container.name)), copy, anew],
        // Both hold something, and mixing them could overwrite what is newer.
        false => vec![
            format!("voltool backup {}", quoted(hidden_name)),
            format!("docker stop {}", quoted(&container.name)),
            format!("# look at both, then move what belongs into {chosen_name}: {copy}"),
            anew,
        ],
    };
    Some(
        finding
            .detail(format!(
                "the image {} declares VOLUME {declared}; {chosen_name} is mounted at {}{state}, and {} are in the anonymous volume {}",
                container.image,
                mount.path,
                hidden_volume.amount(),
                short(hidden_name)
            ))
            .why("The application writes into an anonymous volume, not into the one that was made for it: when the container is made anew it begins with nothing, and the next prune takes the data")
            .fix(fix),
    )
}

/// The beginning of a name that an engine made up.
fn short(name: &str) -> &str {
    if name.len() == 64 { name.get(..12).unwrap_or(name) } else { name }
}

/// T13: one finding per volume or mounted folder that comes over a network and does not answer, or is read from there each time.
pub(super) fn network(evidence: &Evidence) -> Vec<Finding> {
    let volumes = evidence.volumes.iter().filter_map(|volume| {
        let facts = volume.network.as_ref()?;
        let found = Finding::new("T13", Level::Info, T13).volume(&volume.info.name);
        let test = format!("docker run --rm -v {} alpine:3 ls /v", quoted(&format!("{}:/v:ro", volume.info.name)));
        of_network(found, facts, &test)
    });
    let binds = evidence.binds.iter().filter_map(|(source, bind)| {
        let found = Finding::new("T13", Level::Info, T13).path(source);
        of_network(found, bind.network.as_ref()?, &format!("stat {}", quoted(source)))
    });
    let missing = evidence.missing.iter().filter(|missing| is_network_driver(&missing.driver)).map(|missing| {
        let found = Finding::new("T13", Level::Error, T13).volume(&missing.name);
        missing
            .used_by
            .iter()
            .fold(found, |found, name| found.container(name))
            .detail(format!("the engine cannot find it: its driver {} does not answer", missing.driver))
            .why(UNREACHABLE)
            .fix([
                format!("docker volume inspect {}", quoted(&missing.name)),
                format!("# start the plugin {}", missing.driver),
            ])
    });
    volumes.chain(binds).chain(missing).collect()
}

const UNREACHABLE: &str = "Containers that use it hang or fail, do not start again, or write into the empty folder under the mount, where the data is not found later";

fn of_network(finding: Finding, facts: &NetworkFacts, test: &str) -> Option<Finding> {
    match &facts.unreachable {
        Some(reason) => {
            let finding = Finding { level: Level::Error, ..finding };
            let detail = format!("{}: does not answer: {reason}", facts.what);
            Some(finding.detail(detail).why(UNREACHABLE).fix(["# bring the server or the plugin back, then:", test]))
        }
        None if facts.cached => None,
        None => Some(
            finding
                .detail(format!("{}: read over the network each time, without a cache on this machine", facts.what))
                .why("When the server or the network fails, so do the containers, and nothing of the data is on this machine")
                .fix(["# NFS: mount it with the option fsc and run cachefilesd; rclone: vfs-cache-mode=full", "# and keep a snapshot elsewhere: voltool backup"]),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::audit::evidence::{BindFacts, MissingFacts, VolumeFacts};
    use crate::audit::testing::*;

    #[test]
    fn binds_are_data_only_where_they_are_written() {
        let level = |source: &str, kind: BindKind, rw: bool| {
            let binds = BTreeMap::from([(source.to_owned(), BindFacts { kind, network: None })]);
            let containers = vec![container("app").binding(source, "/x", rw)];
            let found = binds_of(binds, containers);
            assert_eq!(found.len(), 1);
            found[0].level
        };
        fn binds_of(binds: BTreeMap<String, BindFacts>, containers: Vec<ContainerFacts>) -> Vec<Finding> {
            super::binds(&Evidence { binds, containers, ..evidence() })
        }
        assert_eq!(level("/srv/uploads", BindKind::Folder, true), Level::Warn);
        assert_eq!(level("/srv/uploads", BindKind::Folder, false), Level::Info);
        assert_eq!(level("/srv/uploads", BindKind::EmptyFolder, true), Level::Info);
        assert_eq!(level("/srv/uploads", BindKind::Unknown, true), Level::Info);
        assert_eq!(level("/srv/app.conf", BindKind::File, true), Level::Info);
        assert_eq!(level("/srv/app.sock", BindKind::Special, true), Level::Info);
        for machine in ["/var/run/docker.sock", "/proc", "/sys/fs/cgroup", "/etc/localtime", "/lib/modules"] {
            assert_eq!(level(machine, BindKind::Folder, true), Level::Info, "{machine}");
        }
        assert_eq!(level("/system", BindKind::Folder, true), Level::Warn);

        let two = vec![container("a").binding("/srv", "/x", false), container("b").binding("/srv", "/y", true)];
        let facts = BTreeMap::from([("/srv".to_owned(), BindFacts { kind: BindKind::Folder, network: None })]);
        let found = binds_of(facts, two);
        assert_eq!((found.len(), found[0].level, found[0].objects.len()), (1, Level::Warn, 3));
        assert!(found[0].detail.ends_with("mounted by a at /x:ro, b at /y"), "{}", found[0].detail);
        assert_eq!(binds_of(BTreeMap::new(), vec![container("a").mounting("v", "/x")]), []);
    }

    /// A container of an image that declares `declared`, whose anonymous volume there is `hidden`, with `chosen` mounted at `path`.
    fn shadow(declared: &str, path: &str, hidden: VolumeFacts, chosen: VolumeFacts) -> Vec<Finding> {
        let pg = container("pg").mounting_anonymous("hidden", declared).mounting("chosen", path);
        let images = BTreeMap::from([("sha256:app".to_owned(), image(1, &[declared]))]);
        shadowed(&Evidence { volumes: vec![hidden, chosen], containers: vec![pg], images, ..evidence() })
    }

    #[test]
    fn a_database_in_the_wrong_volume() {
        let data = || volume("hidden").anonymous().with_files(900, 40 << 20);
        let cases = [
            // postgres:18 declares the parent of what older ones did, and the other way round.
            ("/var/lib/postgresql", "/var/lib/postgresql/data"),
            ("/var/lib/postgresql/data", "/var/lib/postgresql"),
            ("/var/lib/mysql", "/var/lib/mysql-data"),
        ];
        for (declared, path) in cases {
            let found = shadow(declared, path, data(), volume("chosen"));
            assert_eq!((found.len(), found[0].level), (1, Level::Error), "{declared} {path}");
            assert!(found[0].fix.contains(&format!("-v chosen:{declared}")), "{}", found[0].fix);
            assert!(
                found[0].detail.contains("900 files, 40.0 MiB are in the anonymous volume hidden"),
                "{}",
                found[0].detail
            );
        }
        let both = shadow("/a", "/a/b", data(), volume("chosen").with_files(1, 1));
        assert_eq!(both[0].level, Level::Warn, "both hold something");
    }

    #[test]
    fn a_volume_in_its_place_is_none() {
        let data = || volume("hidden").anonymous().with_files(9, 9);
        assert_eq!(shadow("/a", "/a/b", volume("hidden").anonymous(), volume("chosen")), [], "nothing is hidden");
        assert_eq!(shadow("/a", "/a/b", data().unknown(), volume("chosen")), [], "nobody knows");
        assert_eq!(shadow("/data", "/config", data(), volume("chosen")), [], "no parent but the root");
        assert_eq!(shadow("/srv/a", "/srv/b", data(), volume("chosen").with_files(1, 1)), [], "beside it, and in use");
        assert_eq!(shadow("/srv/ab", "/srv/x/ab", data(), volume("chosen")), [], "elsewhere");
        let images = BTreeMap::from([("sha256:app".to_owned(), image(1, &["/data"]))]);
        let right = container("pg").mounting("db", "/data");
        let volumes = vec![volume("db").with_files(1, 1)];
        assert_eq!(shadowed(&Evidence { volumes, containers: vec![right], images, ..evidence() }), []);
    }

    #[test]
    fn networks_answer_or_not() {
        let facts = |cached: bool, reason: Option<&str>| {
            Some(NetworkFacts { what: "nfs h:/x".into(), cached, unreachable: reason.map(str::to_owned) })
        };
        let found = |network: Option<NetworkFacts>| {
            let bind = BindFacts { kind: BindKind::Folder, network: network.clone() };
            let volumes = vec![VolumeFacts { network, ..volume("v") }];
            super::network(&Evidence { volumes, binds: BTreeMap::from([("/srv".to_owned(), bind)]), ..evidence() })
        };
        let dead = found(facts(true, Some("h, port 2049: refused")));
        assert_eq!((dead.len(), dead[0].level, dead[1].level), (2, Level::Error, Level::Error));
        assert_eq!(dead[0].detail, "nfs h:/x: does not answer: h, port 2049: refused");
        assert_eq!(found(facts(false, None))[0].level, Level::Info);
        assert_eq!(found(facts(true, None)), []);
        assert_eq!(found(None), []);
        let missing = |driver: &str| {
            let missing = MissingFacts { name: "m".into(), driver: driver.into(), used_by: vec!["app".into()] };
            super::network(&Evidence { missing: vec![missing], ..evidence() }).len()
        };
        assert_eq!((missing("vieux/sshfs:latest"), missing("local"), missing("")), (1, 0, 0));
    }
}
