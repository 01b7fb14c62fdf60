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

use serde::Serialize;

use super::{Usage, data_only};
use crate::docker::model::Mount;
use crate::docker::{Container, Volume};

/// The mark of an anonymous volume on engines since 23.0.
const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// Whether somebody chose a volume's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
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
            used_by.iter().any(|usage| !usage.named_in_spec)
        };
    if anonymous { Kind::Anonymous } else { Kind::Named }
}

/// Whether the definition of the container at index `at` names the volume that it mounts.
///
/// A mount that comes from `--volumes-from` is named if the container that it comes from names it; if that container is gone,
/// nobody can tell any more, and it counts as not named: `docker rm -v` might remove it.
pub(super) fn names(at: usize, mount: &Mount, containers: &[Container]) -> bool {
    names_within(at, mount, containers, &mut Vec::new())
}

fn names_within(at: usize, mount: &Mount, containers: &[Container], seen: &mut Vec<usize>) -> bool {
    // Containers cannot take volumes from each other in a circle, but the answers come from outside.
    if seen.contains(&at) {
        return false;
    }
    seen.push(at);
    let asked = &containers[at].details.host_config;
    let here = clean(&mount.destination);
    let by_bind = asked.binds.iter().any(|bind| {
        let mut parts = bind.split(':');
        parts.next() == Some(mount.name.as_str()) && parts.next().is_some_and(|target| clean(target) == here)
    });
    let by_mount = asked.mounts.iter().any(|spec| spec.source == mount.name && clean(&spec.target) == here);
    by_bind
        || by_mount
        || asked.volumes_from.iter().any(|entry| {
            let (reference, _) = data_only::split_volumes_from(entry);
            let Some(source) = data_only::resolve(reference, containers) else { return false };
            containers[source].details.mounts.iter().any(|other| {
                other.name == mount.name
                    && clean(&other.destination) == here
                    && names_within(source, other, containers, seen)
            })
        })
}

/// A path as the engine writes it into mounts: definitions may have a slash at the end.
fn clean(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() { "/" } else { trimmed }
}
