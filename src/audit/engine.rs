//! T14 and T16: settings of the engine.

use super::evidence::{Evidence, ScheduledPrune};
use super::{Finding, Level, counted};

pub(super) const T14: &str = "engine settings that make loss likely";
pub(super) const T16: &str = "files that containers cannot read here";

/// The API version from which on `docker volume prune` leaves named volumes alone.
const NAMED_ARE_SAFE: (u32, u32) = (1, 42);

/// T14: an engine whose prune takes named volumes, and prunes that a timer starts.
pub(super) fn prunes(evidence: &Evidence) -> Vec<Finding> {
    let engine = &evidence.engine;
    let mut found = Vec::new();
    if engine.api < NAMED_ARE_SAFE {
        found.push(
            Finding::new("T14", Level::Warn, T14)
                .engine(&engine.name)
                .detail(format!(
                    "API {}.{}: `docker volume prune` and `docker system prune --volumes` delete named volumes as well",
                    engine.api.0, engine.api.1
                ))
                .why("Since API 1.42 they delete anonymous volumes only; who knows that from another machine loses here every volume whose containers are just not there")
                .fix(["# update the engine to 23.0 or newer; until then prune with:", "voltool volume prune --plan"]),
        );
    }
    found.extend(evidence.prunes.iter().map(|prune| of_prune(evidence, prune)));
    found
}

fn of_prune(evidence: &Evidence, prune: &ScheduledPrune) -> Finding {
    let live_restore = evidence.engine.live_restore == Some(true);
    let (level, detail) = match (live_restore, prune.volumes) {
        (true, true) => (Level::Error, ", while live-restore lets the engine forget which volumes are in use"),
        (_, true) => (Level::Warn, ""),
        // Containers go, and with them what says which anonymous volumes are needed.
        (_, false) => (Level::Warn, ", which makes orphans of anonymous volumes and removes data-only containers"),
    };
    Finding::new("T14", level, T14)
        .path(&prune.file)
        .engine(&evidence.engine.name)
        .detail(format!("a timer runs `{}`{detail}", prune.command))
        .why("A timer does not know that a container is just being made anew, stopped for an upgrade, or there to hold data")
        .fix([
            format!("# in {}, instead of `{}`:", prune.file, prune.command),
            if prune.volumes { "voltool volume prune -f" } else { "docker image prune -f" }.to_owned(),
        ])
}

/// T16: one finding per volume with files that containers on this engine cannot read, because of a user namespace or of SELinux.
pub(super) fn owners(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for volume in &evidence.volumes {
        let Some(scan) = volume.scan() else { continue };
        let mountpoint = super::quoted(&volume.info.mountpoint);
        if let Some((base, count)) = evidence.engine.user_namespace {
            let outside = scan.owners.iter().filter(|(uid, _)| **uid < base || **uid - base >= count);
            let (entries, example) = outside.fold((0, None), |(entries, example), (uid, sample)| {
                (entries + sample.count, example.or(Some((uid, &sample.example))))
            });
            if let Some((uid, example)) = example {
                let range = format!("{base} to {}", u64::from(base) + u64::from(count) - 1);
                found.push(
                    Finding::new("T16", Level::Warn, T16)
                        .volume(&volume.info.name)
                        .detail(format!(
                            "{} outside the user namespace ({range}), such as {example} of user {uid}",
                            counted(entries, "entry")
                        ))
                        .why("Containers see these files as owned by nobody: data that was restored or copied from an engine with another mapping cannot be read")
                        .fix([
                            "# move every id into the namespace, if the files came from an engine without one:".to_owned(),
                            format!("find {mountpoint} -uid -{base} -exec sh -c 'for f; do chown -h $(($(stat -c %u \"$f\") + {base})):$(($(stat -c %g \"$f\") + {base})) \"$f\"; done' sh {{}} +"),
                        ]),
                );
            }
        }
        if let Some(sample) = scan.mislabelled.as_ref().filter(|_| evidence.engine.selinux) {
            found.push(
                Finding::new("T16", Level::Warn, T16)
                    .volume(&volume.info.name)
                    .detail(format!("{} without a label for containers, such as {}", counted(sample.count, "entry"), sample.example))
                    .why("SELinux keeps containers from files that are not labelled container_file_t: what was restored or copied cannot be read")
                    .fix([format!("chcon -R -t container_file_t {mountpoint}")]),
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::audit::evidence::{Content, EngineFacts};
    use crate::audit::scan::{Sample, Scan};
    use crate::audit::testing::*;

    #[test]
    fn old_engines_and_timers() {
        let found = |api: (u32, u32), live_restore: bool, prune: Option<bool>| {
            let engine = EngineFacts { api, live_restore: Some(live_restore), ..evidence().engine };
            let command = "docker system prune -f".to_owned();
            let prunes = prune.map(|volumes| ScheduledPrune { file: "/etc/crontab".into(), command, volumes });
            let evidence = Evidence { engine, prunes: prunes.into_iter().collect(), ..evidence() };
            super::prunes(&evidence).into_iter().map(|finding| finding.level).collect::<Vec<_>>()
        };
        assert_eq!(found((1, 42), true, None), []);
        assert_eq!(found((1, 41), false, None), [Level::Warn]);
        assert_eq!(found((1, 45), false, Some(true)), [Level::Warn]);
        assert_eq!(found((1, 45), true, Some(true)), [Level::Error]);
        assert_eq!(found((1, 45), true, Some(false)), [Level::Warn]);
        assert_eq!(found((1, 41), true, Some(true)), [Level::Warn, Level::Error]);
    }

    fn with(uids: &[u32], mislabelled: bool, engine: EngineFacts) -> Vec<String> {
        let sample = |n: &u32| Sample { count: 2, example: format!("of-{n}") };
        let owners: BTreeMap<u32, Sample> = uids.iter().map(|uid| (*uid, sample(uid))).collect();
        let mislabelled = mislabelled.then(|| sample(&0));
        let mut v = volume("v");
        v.content = Content::Scanned(Scan { files: 1, owners, mislabelled, ..Scan::default() });
        let evidence = Evidence { volumes: vec![v], engine, ..evidence() };
        super::owners(&evidence).into_iter().map(|finding| finding.detail).collect()
    }

    #[test]
    fn files_outside_the_user_namespace() {
        let remapped = || EngineFacts { user_namespace: Some((100_000, 65_536)), ..EngineFacts::default() };
        let text = "4 entries outside the user namespace (100000 to 165535), such as of-999 of user 999";
        assert_eq!(with(&[999, 100_000, 165_535, 165_536], false, remapped()), [text]);
        assert_eq!(with(&[100_000, 165_535], false, remapped()), [""; 0]);
        assert_eq!(with(&[0, 999], false, EngineFacts::default()), [""; 0], "no user namespaces");
    }

    #[test]
    fn files_without_a_label_for_containers() {
        let selinux = || EngineFacts { selinux: true, ..EngineFacts::default() };
        assert_eq!(with(&[0], true, selinux()), ["2 entries without a label for containers, such as of-0"]);
        assert_eq!(with(&[0], false, selinux()), [""; 0]);
        assert_eq!(with(&[0], true, EngineFacts::default()), [""; 0], "no SELinux");
    }
}
