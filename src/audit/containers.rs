//! T09, T10 and T15: images, users and processes.

use std::collections::BTreeSet;

use super::evidence::{ContainerFacts, Evidence, VolumeFacts};
use super::{Finding, Level, counted, quoted, size};

pub(super) const T09: &str = "volumes held by a large or floating image";
pub(super) const T10: &str = "volume written as root, or owned by unknown users";
pub(super) const T15: &str = "sshd inside a container";

/// From this size on an image is more than a data-only container needs, in bytes: busybox and alpine are below it.
const LARGE: u64 = 16 << 20;

/// How many unknown owners are named.
const NAMED: usize = 5;

/// T09: one finding per container with volumes whose image has no tag or `latest`, and per data-only container whose image is large.
pub(super) fn images(evidence: &Evidence) -> Vec<Finding> {
    evidence
        .containers
        .iter()
        .filter(|container| container.has_data_mounts())
        .filter_map(|container| of_image(evidence, container))
        .collect()
}

fn of_image(evidence: &Evidence, container: &ContainerFacts) -> Option<Finding> {
    let bytes = evidence.image_of(container).map(|image| image.size);
    // What is empty cannot change.
    let floating = is_floating(&container.image) && bytes != Some(0);
    let large = container.data_only && bytes.is_some_and(|bytes| bytes >= LARGE);
    if !floating && !large {
        return None;
    }
    let mut parts = Vec::new();
    if large {
        parts.push(format!("data-only, on {} of {}", container.image, size(bytes.unwrap_or(0))));
    }
    if floating {
        parts.push(format!("{} has no fixed version", container.image));
    }
    let finding = Finding::new("T09", Level::Info, T09).container(&container.name).detail(parts.join("; "));
    Some(if container.data_only {
        finding
            .why("A data-only container runs nothing: whatever is in its image only has to be stored, fetched and patched, and may change under it")
            .fix([
                "# make it from nothing, or mount the volumes by name and remove it:".to_owned(),
                "printf 'FROM scratch\\nCMD [\"none\"]\\n' | docker build -t data-only:1 -".to_owned(),
            ])
    } else {
        finding
            .why("The next pull may bring a version that does not read the volume's data, or declares its VOLUME elsewhere (postgres:18)")
            .fix([
                format!("docker image inspect -f '{{{{join .RepoDigests \"\\n\"}}}}' {}", quoted(&container.image_id)),
                format!("# then make {} anew from that digest, or from a tag with a version", container.name),
            ])
    })
}

/// Whether a reference may mean another image tomorrow: no tag, or `latest`; neither a digest nor an id.
fn is_floating(image: &str) -> bool {
    if image.is_empty() || image.contains('@') || image.starts_with("sha256:") {
        return false;
    }
    // The colon of a registry's port is in front of the last slash.
    let name = image.rsplit('/').next().unwrap_or(image);
    match name.split_once(':') {
        Some((_, tag)) => tag == "latest",
        // An id, or the beginning of one.
        None => !(image.len() >= 12 && image.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))),
    }
}

/// T10: one finding per volume that root writes, or that holds files of users whom neither the host nor a container knows.
pub(super) fn owners(evidence: &Evidence) -> Vec<Finding> {
    // With user namespaces, ids mean other users inside and outside: that is T16's.
    if evidence.engine.user_namespace.is_some() {
        return Vec::new();
    }
    evidence
        .volumes
        .iter()
        .flat_map(|volume| [written_by_root(evidence, volume), unknown_owners(evidence, volume)])
        .flatten()
        .collect()
}

fn written_by_root(evidence: &Evidence, volume: &VolumeFacts) -> Option<Finding> {
    let owned = volume.scan()?.owners.get(&0)?;
    let users = evidence.users_of(volume);
    let writes = |container: &&&ContainerFacts| {
        let rw = volume.info.used_by.iter().any(|usage| usage.rw && usage.container_id == container.id);
        let as_root = container.processes.iter().flatten().any(|process| process.uid == Some(0));
        rw && as_root
    };
    let writers: Vec<&str> = users.iter().filter(writes).map(|container| container.name.as_str()).collect();
    if writers.is_empty() || volume.scan()?.files == 0 {
        return None;
    }
    let finding = Finding::new("T10", Level::Info, T10).volume(&volume.info.name);
    let finding = writers.iter().fold(finding, |finding, name| finding.container(name));
    Some(
        finding
            .detail(format!(
                "{} may write to it as root; {} of root, such as {}",
                writers.join(", "),
                counted(owned.count, "entry"),
                owned.example
            ))
            .why("What breaks out of the container is root on the host, and what it leaves in the volume no other user may change")
            .fix([
                "docker stop ".to_owned() + &writers.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(" "),
                format!("chown -R 1000:1000 {}", quoted(&volume.info.mountpoint)),
                format!("# then make {} anew with --user 1000:1000", writers.join(" and ")),
            ]),
    )
}

fn unknown_owners(evidence: &Evidence, volume: &VolumeFacts) -> Option<Finding> {
    let scan = volume.scan()?;
    let mut known: BTreeSet<u32> = evidence.host_users.clone()?;
    let users = evidence.users_of(volume);
    if users.is_empty() {
        return None;
    }
    for container in &users {
        let inside = container.users.as_ref();
        // If a container's own users are not known, neither is who is unknown to it.
        known.extend(inside?);
        known.extend(container.user.split(':').next().and_then(|user| user.parse::<u32>().ok()));
        known.extend(container.processes.iter().flatten().filter_map(|process| process.uid));
    }
    let unknown: Vec<_> = scan.owners.iter().filter(|(uid, _)| !known.contains(uid)).collect();
    if unknown.is_empty() {
        return None;
    }
    let mut texts: Vec<String> = unknown
        .iter()
        .take(NAMED)
        .map(|(uid, sample)| format!("user {uid} owns {} such as {}", counted(sample.count, "entry"), sample.example))
        .collect();
    if unknown.len() > NAMED {
        texts.push(format!("{} more", counted((unknown.len() - NAMED) as u64, "user")));
    }
    let bound = if scan.complete { "" } else { " (not everything was looked at)" };
    let finding = Finding::new("T10", Level::Info, T10).volume(&volume.info.name);
    let finding = users.iter().fold(finding, |finding, user| finding.container(&user.name));
    Some(
        finding
            .detail(format!("{}{bound}; neither this host nor {} knows them", texts.join(", "), names(&users)))
            .why("Files of users that nobody knows come from another machine or image; the application may not be able to read or change them")
            .fix([
                format!("find {} -nouser -ls", quoted(&volume.info.mountpoint)),
                format!("# then: chown -R OWNER:GROUP {}", quoted(&volume.info.mountpoint)),
            ]),
    )
}

fn names(containers: &[&ContainerFacts]) -> String {
    containers.iter().map(|container| container.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// T15: one finding per container with volumes in which sshd runs, or that has the port for it.
pub(super) fn ssh(evidence: &Evidence) -> Vec<Finding> {
    let found = evidence.containers.iter().filter(|container| container.has_data_mounts()).filter_map(|container| {
        let runs = container.processes.iter().flatten().any(|process| process.program == "sshd");
        let port = container.exposed_ports.iter().any(|port| port == "22/tcp" || port == "22");
        let (level, detail) = match (runs, port) {
            (true, _) => (Level::Warn, "sshd runs in it"),
            (false, true) => (Level::Info, "it declares port 22"),
            (false, false) => return None,
        };
        let mut volumes: Vec<&String> = container.mounts.iter().filter_map(|mount| mount.volume.as_ref()).collect();
        volumes.sort_unstable();
        volumes.dedup();
        let finding = Finding::new("T15", level, T15).container(&container.name);
        let finding = volumes.iter().fold(finding, |finding, name| finding.volume(name));
        let first = volumes.first().map_or("VOLUME", |name| name.as_str());
        Some(
            finding
                .detail(detail)
                .why("Keys, passwords and updates of one more server to look after, for what the engine and voltool do without it")
                .fix([
                    "# which volumes there are, and whether they are safe:".to_owned(),
                    "voltool ls".to_owned(),
                    "# a volume's files from its newest snapshot, as a tar:".to_owned(),
                    format!("voltool export {} | tar -tv", quoted(first)),
                    "# a shell beside the application:".to_owned(),
                    format!("docker exec -it {} sh", quoted(&container.name)),
                ]),
        )
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::audit::scan::Sample;
    use crate::audit::testing::*;
    use crate::docker::inspect::Process;

    #[test]
    fn references_that_float() {
        for image in ["postgres", "postgres:latest", "registry:5000/team/app", "registry:5000/app:latest", "cafe"] {
            assert!(is_floating(image), "{image}");
        }
        for image in [
            "postgres:16",
            "registry:5000/app:1",
            "app@sha256:00",
            "app:latest@sha256:00",
            "sha256:00",
            "0123456789ab",
            "",
        ] {
            assert!(!is_floating(image), "{image}");
        }
    }

    #[test]
    fn images_of_what_holds_volumes() {
        let found = |name: &str, bytes: u64, data_only: bool| {
            let holder = ContainerFacts { image: name.to_owned(), data_only, ..container("c") }.mounting("v", "/v");
            let images = BTreeMap::from([("sha256:app".to_owned(), image(bytes, &[]))]);
            images_of(&Evidence { containers: vec![holder], images, ..evidence() })
        };
        fn images_of(evidence: &Evidence) -> Vec<String> {
            super::images(evidence).into_iter().map(|finding| finding.detail).collect()
        }
        assert_eq!(found("ubuntu:24.04", 80 << 20, true), ["data-only, on ubuntu:24.04 of 80.0 MiB"]);
        assert_eq!(found("busybox", 4 << 20, true), ["busybox has no fixed version"]);
        assert_eq!(found("postgres:latest", 80 << 20, false), ["postgres:latest has no fixed version"]);
        assert_eq!(found("postgres:16", 80 << 20, false), [""; 0]);
        assert_eq!(found("busybox:1.36", 4 << 20, true), [""; 0]);
        assert_eq!(found("data", 0, true), [""; 0], "FROM scratch");
        let plain = ContainerFacts { image: "tool".to_owned(), ..container("c") };
        assert_eq!(images_of(&Evidence { containers: vec![plain], ..evidence() }), [""; 0], "no volume");
    }

    fn process(uid: u32, program: &str) -> Option<Vec<Process>> {
        Some(vec![Process { uid: Some(uid), program: program.to_owned() }])
    }

    #[test]
    fn root_writes() {
        let found = |uid: u32, change: &dyn Fn(&mut VolumeFacts)| {
            let app = ContainerFacts { processes: process(uid, "app"), ..container("app") }.mounting("v", "/v");
            let mut v = volume("v").with_files(2, 10).used_by(&app, "/v");
            change(&mut v);
            owners(&Evidence { volumes: vec![v], containers: vec![app], ..evidence() })
        };
        let root = &found(0, &|_| ())[0];
        assert_eq!(root.detail, "app may write to it as root; 2 entries of root, such as file");
        assert_eq!(found(1, &|_| ()), [], "not root");
        assert_eq!(found(0, &|v| v.info.used_by[0].rw = false), [], "only reads");
        assert_eq!(found(0, &|v| *v = v.clone().unknown()), [], "nobody knows");
        assert_eq!(found(0, &|v| v.info.used_by.clear()), [], "not in use");
    }

    #[test]
    fn owners_that_nobody_knows() {
        let found = |uid: u32, users: Option<&[u32]>| {
            let users = users.map(|users| users.iter().copied().collect());
            let app =
                ContainerFacts { users, user: "7:7".to_owned(), processes: process(8, "app"), ..container("app") };
            let mut v = volume("v").with_files(1, 1).used_by(&app, "/v");
            if let crate::audit::evidence::Content::Scanned(scan) = &mut v.content {
                scan.owners = BTreeMap::from([(uid, Sample { count: 1, example: "dump".to_owned() })]);
            }
            let found = owners(&Evidence { volumes: vec![v], containers: vec![app], ..evidence() });
            found.into_iter().map(|finding| finding.detail).collect::<Vec<_>>()
        };
        let text = "user 4242 owns 1 entry such as dump; neither this host nor app knows them";
        assert_eq!(found(4242, Some(&[999])), [text]);
        assert_eq!(found(999, Some(&[999])), [""; 0], "the image's user");
        assert_eq!(found(1, Some(&[])), [""; 0], "the host's user");
        assert_eq!(found(7, Some(&[])), [""; 0], "the user that was asked for");
        assert_eq!(found(8, Some(&[])), [""; 0], "the user that it runs as");
        assert_eq!(found(4242, None), [""; 0], "nobody knows the image's users");
    }

    #[test]
    fn ssh_beside_the_data() {
        let found = |change: &dyn Fn(&mut ContainerFacts)| {
            let mut app = container("app").mounting("v", "/v");
            change(&mut app);
            ssh(&Evidence { containers: vec![app], ..evidence() }).into_iter().map(|f| f.level).collect::<Vec<_>>()
        };
        assert_eq!(found(&|app| app.processes = process(0, "sshd")), [Level::Warn]);
        assert_eq!(found(&|app| app.exposed_ports = vec!["22/tcp".to_owned()]), [Level::Info]);
        assert_eq!(found(&|app| app.exposed_ports = vec!["2222/tcp".to_owned(), "22/udp".to_owned()]), []);
        assert_eq!(found(&|app| app.processes = process(0, "sshd-not")), []);
        assert_eq!(
            found(&|app| {
                app.processes = process(0, "sshd");
                app.mounts.clear();
            }),
            [],
            "no volume"
        );
    }
}
