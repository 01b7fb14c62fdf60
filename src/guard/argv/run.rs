//! `docker run` and `docker create`: volumes that will have no name.
//!
//! They destroy nothing now, so there is only something to say. What an image declares as `VOLUME` is not seen here.

use super::Meaning;
use super::flags::{Flag, Until, read, switch, value};

/// The flags of `run` and `create`. One that is not known (a newer Docker) means that nothing is said.
const RUN: &[Flag] = &[
    switch("detach", Some('d')),
    switch("disable-content-trust", None),
    switch("init", None),
    switch("interactive", Some('i')),
    switch("no-healthcheck", None),
    switch("oom-kill-disable", None),
    switch("privileged", None),
    switch("publish-all", Some('P')),
    switch("quiet", Some('q')),
    switch("read-only", None),
    switch("rm", None),
    switch("sig-proxy", None),
    switch("tty", Some('t')),
    switch("use-api-socket", None),
    value("add-host", None),
    value("annotation", None),
    value("attach", Some('a')),
    value("blkio-weight", None),
    value("blkio-weight-device", None),
    value("cap-add", None),
    value("cap-drop", None),
    value("cgroup-parent", None),
    value("cgroupns", None),
    value("cidfile", None),
    value("cpu-count", None),
    value("cpu-percent", None),
    value("cpu-period", None),
    value("cpu-quota", None),
    value("cpu-rt-period", None),
    value("cpu-rt-runtime", None),
    value("cpu-shares", Some('c')),
    value("cpus", None),
    value("cpuset-cpus", None),
    value("cpuset-mems", None),
    value("detach-keys", None),
    value("device", None),
    value("device-cgroup-rule", None),
    value("device-read-bps", None),
    value("device-read-iops", None),
    value("device-write-bps", None),
    value("device-write-iops", None),
    value("dns", None),
    value("dns-opt", None),
    value("dns-option", None),
    value("dns-search", None),
    value("domainname", None),
    value("entrypoint", None),
    value("env", Some('e')),
    value("env-file", None),
    value("expose", None),
    value("gpus", None),
    value("group-add", None),
    value("health-cmd", None),
    value("health-interval", None),
    value("health-retries", None),
    value("health-start-interval", None),
    value("health-start-period", None),
    value("health-timeout", None),
    value("hostname", Some('h')),
    value("io-maxbandwidth", None),
    value("io-maxiops", None),
    value("ip", None),
    value("ip6", None),
    value("ipc", None),
    value("isolation", None),
    value("kernel-memory", None),
    value("label", Some('l')),
    value("label-file", None),
    value("link", None),
    value("link-local-ip", None),
    value("log-driver", None),
    value("log-opt", None),
    value("mac-address", None),
    value("memory", Some('m')),
    value("memory-reservation", None),
    value("memory-swap", None),
    value("memory-swappiness", None),
    value("mount", None),
    value("name", None),
    value("net", None),
    value("net-alias", None),
    value("network", None),
    value("network-alias", None),
    value("oom-score-adj", None),
    value("pid", None),
    value("pids-limit", None),
    value("platform", None),
    value("publish", Some('p')),
    value("pull", None),
    value("restart", None),
    value("runtime", None),
    value("security-opt", None),
    value("shm-size", None),
    value("stop-signal", None),
    value("stop-timeout", None),
    value("storage-opt", None),
    value("sysctl", None),
    value("tmpfs", None),
    value("ulimit", None),
    value("user", Some('u')),
    value("userns", None),
    value("uts", None),
    value("volume", Some('v')),
    value("volume-driver", None),
    value("volumes-from", None),
    value("workdir", Some('w')),
];

/// What is to be said of `run` or `create`. Behind the image everything is the container's own.
pub(super) fn note(verb: &str, line: &[String]) -> Meaning {
    let Ok(found) = read(line, RUN, Until::Verb) else { return Meaning::PassThrough };
    let binds = found.all("volume").iter().filter(|bind| !bind.contains(':')).map(String::as_str);
    let mounts = found.all("mount").iter().filter_map(|mount| anonymous_target(mount));
    let places: Vec<&str> = binds.chain(mounts).collect();
    if places.is_empty() || found.is("help") {
        return Meaning::PassThrough;
    }
    let (volume, goes) = if places.len() == 1 { ("the volume", "goes") } else { ("the volumes", "go") };
    let places = places.join(" and ");
    Meaning::Note(if found.is("rm") {
        format!(
            "docker {verb}: {volume} at {places} {goes} with the container when it ends (--rm), and no guard can stop that: use \
             -v NAME:/path to keep what is in there"
        )
    } else {
        format!("docker {verb}: {volume} at {places} will have no name: use -v NAME:/path to find it again")
    })
}

/// The target of a `--mount` of a volume without a source. The value is a line of comma-separated values.
fn anonymous_target(mount: &str) -> Option<&str> {
    let mut target = None;
    for field in mount.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        match key.to_lowercase().as_str() {
            "type" if !value.eq_ignore_ascii_case("volume") => return None,
            "source" | "src" if !value.is_empty() => return None,
            "target" | "dst" | "destination" => target = Some(value),
            _ => {}
        }
    }
    target
}
