//! T02 to T05, T08 and T11: who holds a volume, and where else its content is.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::evidence::{ContainerFacts, Evidence, VolumeFacts};
use super::layers::volume_name;
use super::{Finding, Level, counted, quoted};
use crate::inventory::Kind;

pub(super) const T02: &str = "anonymous volume holding data";
pub(super) const T03: &str = "volume held by one data-only container alone";
pub(super) const T04: &str = "orphaned volume with data";
pub(super) const T05: &str = "no recent snapshot";
pub(super) const T08: &str = "empty twin of another project's volume";
pub(super) const T11: &str = "several containers write to one volume";

const COMPOSE_PROJECT: &str = "com.docker.compose.project";
const COMPOSE_SERVICE: &str = "com.docker.compose.service";
const COMPOSE_VOLUME: &str = "com.docker.compose.volume";
const SWARM_SERVICE: &str = "com.docker.swarm.service.id";

/// The label that says that several containers are meant to write to a volume.
const SHARED: &str = "voltool.shared";

/// Whether a volume is known to hold something, and it matters.
fn matters(volume: &VolumeFacts) -> bool {
    volume.holds_data() == Some(true) && !volume.ephemeral
}

/// T02: one finding per anonymous volume that holds data and that a container uses. One that nobody uses is T04's.
pub(super) fn anonymous(evidence: &Evidence) -> Vec<Finding> {
    let held = |volume: &&VolumeFacts| volume.info.kind == Kind::Anonymous && !volume.info.is_dangling();
    evidence
        .volumes
        .iter()
        .filter(held)
        .filter(|volume| matters(volume))
        .map(|volume| of_anonymous(evidence, volume))
        .collect()
}

fn of_anonymous(evidence: &Evidence, volume: &VolumeFacts) -> Finding {
    let info = &volume.info;
    // The one whose definition made it, rather than one that took it over.
    let first = info.used_by.iter().find(|usage| !usage.inherited).or(info.used_by.first());
    let path = first.map_or("", |usage| usage.path.as_str());
    let container = first.and_then(|usage| evidence.container(&usage.container_id));
    let made_by = container.map_or_else(String::new, |container| match evidence.image_of(container) {
        Some(image) if image.volumes.iter().any(|declared| same_path(declared, path)) => {
            format!(", made by the image's VOLUME {path} ({})", container.image)
        }
        Some(_) => format!(", made by -v {path} (or --mount without a source)"),
        None => String::new(),
    });
    let users = evidence.users_of(volume);
    let auto_remove = !users.is_empty() && users.iter().all(|user| user.auto_remove);
    let removed = if auto_remove { "; it goes when the container stops (--rm)" } else { "" };
    let owner = first.map_or("app", |usage| usage.name.as_str());
    let mut finding = Finding::new("T02", if auto_remove { Level::Error } else { Level::Warn }, T02).volume(&info.name);
    finding = users.iter().fold(finding, |finding, user| finding.container(&user.name));
    finding
        .detail(format!("{} at {path} of {owner}{made_by}{removed}", volume.amount()))
        .why("Nobody can tell it by its name; `docker rm -v` of its last container and `docker volume prune` delete it, and a container that is made anew begins with another, empty one")
        .fix(move_to(volume, owner, path))
}

/// The commands that give a volume's content a name.
fn move_to(volume: &VolumeFacts, container: &str, path: &str) -> Vec<String> {
    let name = volume_name(container, path);
    let target = quoted(&name);
    vec![
        format!("docker stop {}", quoted(container)),
        format!("docker volume create {target}"),
        format!(
            "cp -a {} \"$(docker volume inspect -f '{{{{.Mountpoint}}}}' {target})\"",
            quoted(&format!("{}/.", volume.info.mountpoint))
        ),
        format!("# then make {container} anew with -v {}", quoted(&format!("{name}:{path}"))),
    ]
}

fn same_path(a: &str, b: &str) -> bool {
    a.trim_end_matches('/') == b.trim_end_matches('/')
}

/// T03: one finding per volume with data whose only holder is a data-only container. Those that took it over with `--volumes-from`
/// hold nothing of their own; they are named.
pub(super) fn single_holder(evidence: &Evidence) -> Vec<Finding> {
    evidence.volumes.iter().filter(|volume| matters(volume)).filter_map(of_single_holder).collect()
}

fn of_single_holder(volume: &VolumeFacts) -> Option<Finding> {
    let info = &volume.info;
    let holders: BTreeSet<&str> =
        info.used_by.iter().filter(|usage| !usage.inherited).map(|usage| usage.name.as_str()).collect();
    let holder = info.used_by.iter().find(|usage| !usage.inherited)?;
    if holders.len() != 1 || !holder.data_only {
        return None;
    }
    let consumers: BTreeSet<&str> =
        info.used_by.iter().filter(|usage| usage.inherited).map(|usage| usage.name.as_str()).collect();
    let taken = match consumers.len() {
        0 => "nobody takes its volumes".to_owned(),
        _ => format!("{} with --volumes-from", consumers.iter().copied().collect::<Vec<_>>().join(", ")),
    };
    let anonymous = info.kind == Kind::Anonymous;
    let level = if anonymous { Level::Warn } else { Level::Info };
    let mut finding = Finding::new("T03", level, T03).volume(&info.name).container(&holder.name);
    finding = consumers.iter().fold(finding, |finding, name| finding.container(name));
    let finding = finding.detail(format!("{} at {} of {}; {taken}", volume.amount(), holder.path, holder.name));
    Some(if anonymous {
        finding
            .why("The container looks like rubbish, and the data has no other name: `docker system prune --volumes` takes both, `docker rm -v` of whichever goes last takes the data")
            .fix(move_to(volume, &holder.name, &holder.path))
    } else {
        finding
            .why("Nothing but a container that does not run says what the volume is for; once that is pruned, it is an orphan")
            .fix([
                format!("# mount it by its name: -v {} instead of --volumes-from", quoted(&format!("{}:{}", info.name, holder.path))),
                format!("docker rm {}", quoted(&holder.name)),
            ])
    })
}

/// T04: one finding per volume with data that no container refers to.
pub(super) fn orphaned(evidence: &Evidence) -> Vec<Finding> {
    let orphaned = evidence.volumes.iter().filter(|volume| volume.info.is_dangling() && matters(volume));
    orphaned
        .map(|volume| {
            let name = quoted(&volume.info.name);
            let last = match &volume.last_use {
                Some(last) => format!("last used by {}", last.text),
                None => "nobody knows who used it".to_owned(),
            };
            let kind = if volume.info.kind == Kind::Anonymous { "anonymous, " } else { "" };
            let mut fix = vec![
                format!("voltool backup {name}"),
                "# then, if it is not needed any more:".to_owned(),
                format!("voltool volume rm {name}"),
            ];
            if let Some(last) = &volume.last_use {
                fix.push("# or give it back to what used it:".to_owned());
                fix.push(format!(
                    "docker run -d -v {} {}",
                    quoted(&format!("{}:{}", volume.info.name, last.path)),
                    quoted(&last.image)
                ));
            }
            Finding::new("T04", Level::Warn, T04)
                .volume(&volume.info.name)
                .detail(format!("{kind}{}; {last}", volume.amount()))
                .why("One `docker volume prune -a` (before API 1.42, and for anonymous volumes, without -a) deletes it, and the longer it lies the less anybody knows what it was")
                .fix(fix)
        })
        .collect()
}

/// T05: one finding per volume that no snapshot holds, or only an old one. Left out are volumes that are empty, ephemeral, or
/// labelled `voltool.enable=false`.
pub(super) fn without_snapshot(evidence: &Evidence) -> Vec<Finding> {
    if !evidence.snapshots_known {
        return Vec::new();
    }
    let wanted = evidence.volumes.iter().filter(|volume| {
        let disabled = volume.info.labels.get("voltool.enable").is_some_and(|value| value == "false");
        // What cannot be seen may be data.
        volume.holds_data() != Some(false) && !volume.ephemeral && !disabled
    });
    wanted
        .filter_map(|volume| {
            let detail = match volume.newest_snapshot {
                None => format!("no snapshot; {}", volume.amount()),
                Some(time) if evidence.now.duration_since(time) > evidence.limits.max_age => format!(
                    "its newest snapshot is {} old, more than {}; {}",
                    days(evidence.now.duration_since(time)),
                    days(evidence.limits.max_age),
                    volume.amount()
                ),
                Some(_) => return None,
            };
            let found = Finding::new("T05", Level::Warn, T05).volume(&volume.info.name).detail(detail);
            Some(
                found
                    .why("What has changed since the newest snapshot exists on this engine's disk and nowhere else")
                    .fix([format!("voltool backup {}", quoted(&volume.info.name))]),
            )
        })
        .collect()
}

/// A duration, for people: `3 days`, `5 hours`.
fn days(duration: SignedDuration) -> String {
    match duration.as_hours() {
        hours @ 48.. => counted(hours.unsigned_abs() / 24, "day"),
        0 => counted(duration.as_secs().unsigned_abs() / 60, "minute"),
        hours => counted(hours.unsigned_abs(), "hour"),
    }
}

/// T08: one finding per empty volume whose Compose key another project has as well, there with data and idle: the project, or its
/// folder, got another name, and the application has begun anew.
pub(super) fn twins(evidence: &Evidence) -> Vec<Finding> {
    let key = |volume: &VolumeFacts| volume.info.labels.get(COMPOSE_VOLUME).cloned();
    let project = |volume: &VolumeFacts| volume.info.labels.get(COMPOSE_PROJECT).cloned();
    let mut found = Vec::new();
    for new in evidence.volumes.iter().filter(|volume| volume.holds_data() == Some(false) && !volume.ephemeral) {
        let (Some(new_key), Some(new_project)) = (key(new), project(new)) else { continue };
        let twin = evidence.volumes.iter().find(|old| {
            // One that a running container uses is another application's, not what was left behind.
            let in_use = evidence.users_of(old).iter().any(|container| container.running);
            key(old).as_ref() == Some(&new_key)
                && project(old).is_some_and(|old_project| old_project != new_project)
                && matters(old)
                && !in_use
                && !is_younger(old, new)
        });
        let Some(old) = twin else { continue };
        let old_project = project(old).unwrap_or_default();
        let (old_name, new_name) = (&old.info.name, &new.info.name);
        found.push(
            Finding::new("T08", Level::Warn, T08)
                .volume(new_name)
                .volume(old_name)
                .detail(format!(
                    "{new_name} of project {new_project} is empty, {old_name} of project {old_project} holds {}",
                    old.amount()
                ))
                .why("Compose puts the project's name in front: after a rename of the project or its folder the application begins with nothing, and the data waits for the next prune")
                .fix([
                    format!("# go back to the old name: docker compose -p {} up -d", quoted(&old_project)),
                    "# or move the data:".to_owned(),
                    format!("docker compose -p {} stop", quoted(&new_project)),
                    format!(
                        "cp -a {} {}",
                        quoted(&format!("{}/.", old.info.mountpoint)),
                        quoted(&new.info.mountpoint)
                    ),
                    format!("docker compose -p {} start", quoted(&new_project)),
                ]),
        );
    }
    found
}

/// Whether the first is known to have been made after the second.
fn is_younger(a: &VolumeFacts, b: &VolumeFacts) -> bool {
    let made = |volume: &VolumeFacts| volume.info.created_at.as_ref().and_then(|text| text.parse::<Timestamp>().ok());
    made(a).zip(made(b)).is_some_and(|(a, b)| a > b)
}

/// T11: one finding per volume that several running containers may write to. Replicas of one service count once, and what the label
/// `voltool.shared=true` is on was meant.
pub(super) fn writers(evidence: &Evidence) -> Vec<Finding> {
    evidence.volumes.iter().filter_map(|volume| of_writers(evidence, volume)).collect()
}

fn of_writers(evidence: &Evidence, volume: &VolumeFacts) -> Option<Finding> {
    if volume.is_labelled(SHARED) {
        return None;
    }
    let writing: BTreeSet<&str> = volume
        .info
        .used_by
        .iter()
        .filter(|usage| usage.rw && !usage.data_only)
        .map(|usage| usage.container_id.as_str())
        .collect();
    let running =
        evidence.containers.iter().filter(|container| container.running && writing.contains(container.id.as_str()));
    let running: Vec<&ContainerFacts> = running.collect();
    let services: BTreeSet<String> = running.iter().map(|container| service_of(container)).collect();
    if services.len() < 2 {
        return None;
    }
    let mut names: Vec<&str> = running.iter().map(|container| container.name.as_str()).collect();
    names.sort_unstable();
    let finding = Finding::new("T11", Level::Warn, T11).volume(&volume.info.name);
    let finding = names.iter().fold(finding, |finding, name| finding.container(name));
    Some(
        finding
            .detail(format!("{} run and may write to it", names.join(", ")))
            .why("Most databases and many applications are damaged by a second writer, and a snapshot may catch one of them half way")
            .fix([
                format!("# mount it read-only where that is enough: -v {}", quoted(&format!("{}:PATH:ro", volume.info.name))),
                format!("# if all of them are meant to write, make the volume with --label {SHARED}=true"),
            ]),
    )
}

/// What a container is a replica of.
fn service_of(container: &ContainerFacts) -> String {
    let label = |name: &str| container.labels.get(name).map(String::as_str);
    match (label(SWARM_SERVICE), label(COMPOSE_PROJECT), label(COMPOSE_SERVICE)) {
        (Some(service), ..) => format!("swarm {service}"),
        (None, Some(project), Some(service)) => format!("compose {project}/{service}"),
        _ => format!("container {}", container.id),
    }
}

#[cfg(test)]
#[path = "volumes_tests.rs"]
mod tests;
