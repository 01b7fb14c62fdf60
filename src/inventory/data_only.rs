//! Which containers are there to hold volumes rather than to run.
//!
//! A container is *data-only* if it mounts at least one volume, is not a running service, and one of these holds:
//!
//! 1. **Another container takes its volumes** (`--volumes-from` it). This holds while it runs as well, since some keep such a
//!    container alive with `sleep`.
//! 2. **It was never started**, and takes no volumes from others itself (it would be a consumer that has not run yet). This
//!    includes every container of a `FROM scratch` image without a program: it cannot start.
//! 3. **It exited at once**: its last run ended by itself with code 0 within [`AT_ONCE`], the engine does not start it again,
//!    it publishes no port, and it takes no volumes from others.
//!
//! A *running service* is a container that runs now and either declares or publishes a port, or has a restart policy, or has a
//! health check: a database that a backup job takes the volumes of is still a database.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::docker::Container;

/// How long a run may take and still count as "exited at once". `docker run busybox true` takes a fraction of a second on an
/// idle machine; a loaded one needs room.
pub const AT_ONCE: Duration = Duration::from_secs(5);

/// Finds the data-only containers; returns their indices.
pub fn find(containers: &[Container]) -> BTreeSet<usize> {
    let mut referenced = BTreeSet::new();
    for (at, container) in containers.iter().enumerate() {
        for entry in &container.details.host_config.volumes_from {
            if let Some(source) = resolve(split_volumes_from(entry).0, containers) {
                if source != at {
                    referenced.insert(source);
                }
            }
        }
    }
    let data_only = |(at, container): (usize, &Container)| {
        let holds_volumes = container.details.mounts.iter().any(|mount| mount.is_volume());
        let is_consumer = !container.details.host_config.volumes_from.is_empty();
        let by_itself = !is_consumer && (never_started(container) || exited_at_once(container));
        let found = holds_volumes && !is_running_service(container) && (referenced.contains(&at) || by_itself);
        found.then_some(at)
    };
    containers.iter().enumerate().filter_map(data_only).collect()
}

/// Splits an entry of `--volumes-from` into the container and the mode, which may be empty.
pub(super) fn split_volumes_from(entry: &str) -> (&str, &str) {
    entry.split_once(':').unwrap_or((entry, ""))
}

/// Finds the container that a name, an id, or the unique beginning of an id refers to, in the engine's order of preference.
pub(super) fn resolve(reference: &str, containers: &[Container]) -> Option<usize> {
    let name = reference.trim_start_matches('/');
    if name.is_empty() {
        return None;
    }
    let exact = |container: &Container| container.id == name;
    let by_name = |container: &Container| container.name == name;
    containers.iter().position(exact).or_else(|| containers.iter().position(by_name)).or_else(|| {
        let mut matches = containers.iter().enumerate().filter(|(_, container)| container.id.starts_with(name));
        let first = matches.next()?.0;
        matches.next().is_none().then_some(first)
    })
}

fn never_started(container: &Container) -> bool {
    !container.is_running() && time(&container.details.state.started_at).is_none()
}

fn exited_at_once(container: &Container) -> bool {
    let details = &container.details;
    if container.is_running() || details.state.status != "exited" || details.state.exit_code != 0 {
        return false;
    }
    let (Some(start), Some(end)) = (time(&details.state.started_at), time(&details.state.finished_at)) else {
        return false;
    };
    let ran_for = end.duration_since(start).unsigned_abs();
    ran_for <= AT_ONCE && !is_restarted(container) && !publishes(container)
}

fn is_running_service(container: &Container) -> bool {
    let config = &container.details.config;
    container.is_running()
        && (publishes(container)
            || !config.exposed_ports.is_empty()
            || is_restarted(container)
            || has_health_check(&config.healthcheck))
}

fn publishes(container: &Container) -> bool {
    let asked = &container.details.host_config;
    !asked.port_bindings.is_empty() || asked.publish_all_ports
}

fn is_restarted(container: &Container) -> bool {
    !matches!(container.details.host_config.restart_policy.name.as_str(), "" | "no")
}

/// A health check is `{"Test": ["CMD", …]}`; `["NONE"]` turns off the image's.
fn has_health_check(healthcheck: &Value) -> bool {
    let first = healthcheck.get("Test").and_then(|test| test.get(0)).and_then(Value::as_str);
    first.is_some_and(|word| word != "NONE")
}

/// Reads one of the engine's times. `None` for its "never", which is in the year 1, and for what is no time.
fn time(text: &str) -> Option<Timestamp> {
    text.parse::<Timestamp>().ok().filter(|time| *time > Timestamp::UNIX_EPOCH)
}
