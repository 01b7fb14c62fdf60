//! What makes a volume anonymous.
//!
//! An anonymous volume is one whose name nobody chose: `-v /path`, `--mount` without a source, or an image's `VOLUME`. What
//! marks it depends on the engine that made it:
//!
//! - Engines since 23.0 (API 1.42) put the label `com.docker.volume.anonymous` on it. A volume with that label is anonymous,
//!   whatever its name and whoever mounts it by name (as Compose does when it recreates a container).
//! - Older engines leave no mark, and a volume made by one has none after an upgrade either. Without the label a volume is
//!   anonymous if its name is 64 lower-case hexadecimal digits, as engines make them up, and
//!   - a container mounts it without naming it in its definition, or
//!   - no container mounts it, it is of the driver `local`, and it has neither labels nor options, which an anonymous volume
//!     cannot have.
//!
//! A name of that shape which every container spells out was chosen, as far as anybody can tell.

use serde::{Deserialize, Serialize};

use super::{Usage, data_only};
use crate::docker::model::Mount;
use crate::docker::{Container, Volume};

/// The mark of an anonymous volume on engines since 23.0.
const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// Whether somebody chose a volume's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Somebody did.
    Named,
    /// The engine made it up.
    Anonymous,
}

/// Says which kind a volume is; see the module's documentation.
pub fn of(volume: &Volume, used_by: &[Usage]) -> Kind {
    if volume.labels.contains_key(ANONYMOUS_LABEL) {
        return Kind::Anonymous;
    }
    let made_up = volume.name.len() == 64 && volume.name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let anonymous = made_up
        && if used_by.is_empty() {
            volume.driver == "local" && volume.labels.is_empty() && volume.options.is_empty()
        } else {
            used_by.iter().any(|usage| usage.named_in_spec != Some(true))
        };
    if anonymous { Kind::Anonymous } else { Kind::Named }
}

/// Whether the definition of the container at index `at` names the volume that it mounts.
///
/// A mount that comes from `--volumes-from` is named if the container that it comes from names it; if that container is gone,
/// nobody can tell any more (`None`), and `docker rm -v` might remove the volume.
pub(super) fn names(at: usize, mount: &Mount, containers: &[Container]) -> Option<bool> {
    names_within(at, mount, containers, &mut Vec::new())
}

/// Whether the mount comes from another container rather than from the container's own definition.
pub(super) fn is_inherited(at: usize, mount: &Mount, containers: &[Container]) -> bool {
    own(&containers[at], mount).is_none() && !containers[at].details.host_config.volumes_from.is_empty()
}

/// What the container's own definition says of a mount: whether it names the volume; `None` if it does not speak of it.
fn own(container: &Container, mount: &Mount) -> Option<bool> {
    let asked = &container.details.host_config;
    let here = clean(&mount.destination);
    for bind in &asked.binds {
        let mut parts = bind.split(':');
        match (parts.next(), parts.next()) {
            (Some(source), Some(target)) if clean(target) == here && source == mount.name => return Some(true),
            // A path alone is an anonymous volume.
            (Some(target), None) if clean(target) == here => return Some(false),
            _ => {}
        }
    }
    if let Some(spec) = asked.mounts.iter().find(|spec| clean(&spec.target) == here) {
        return Some(spec.source == mount.name);
    }
    None
}

fn names_within(at: usize, mount: &Mount, containers: &[Container], seen: &mut Vec<usize>) -> Option<bool> {
    // Containers cannot take volumes from each other in a circle, but the answers come from outside.
    if seen.contains(&at) {
        return None;
    }
    seen.push(at);
    let container = &containers[at];
    if let Some(named) = own(container, mount) {
        return Some(named);
    }
    let here = clean(&mount.destination);
    let mut gone = false;
    // The engine takes the last one that has something at this path.
    for entry in container.details.host_config.volumes_from.iter().rev() {
        let (reference, _) = data_only::split_volumes_from(entry);
        let Some(source) = data_only::resolve(reference, containers) else {
            gone = true;
            continue;
        };
        let same = |other: &&Mount| other.name == mount.name && clean(&other.destination) == here;
        if let Some(other) = containers[source].details.mounts.iter().find(same) {
            return names_within(source, other, containers, seen);
        }
    }
    // What is neither asked for nor inherited is an image's VOLUME or `-v /path`: anonymous.
    if gone { None } else { Some(false) }
}

/// A path as the engine writes it into mounts: definitions may have a slash at the end.
fn clean(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() { "/" } else { trimmed }
}
