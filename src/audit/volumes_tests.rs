use std::collections::BTreeMap;

use super::*;
use crate::audit::evidence::LastUse;
use crate::audit::testing::*;

fn with(volumes: Vec<VolumeFacts>, containers: Vec<ContainerFacts>) -> Evidence {
    let images = BTreeMap::from([("sha256:app".to_owned(), image(50 << 20, &["/declared"]))]);
    Evidence { volumes, containers, images, ..evidence() }
}

#[test]
fn anonymous_volumes_name_what_made_them() {
    let app = container("app");
    let found = |volume: VolumeFacts, app: &ContainerFacts| anonymous(&with(vec![volume], vec![app.clone()]));
    let full = || volume("aa").anonymous().with_files(2, 3 << 20);
    let flag = &found(full().used_by(&app, "/srv/data"), &app)[0];
    assert_eq!(flag.level, Level::Warn);
    assert_eq!(flag.detail, "2 files, 3.0 MiB at /srv/data of app, made by -v /srv/data (or --mount without a source)");
    assert!(flag.fix.contains("cp -a /var/lib/docker/volumes/aa/_data/. "), "{}", flag.fix);
    assert!(flag.fix.ends_with("# then make app anew with -v app-data:/srv/data"), "{}", flag.fix);
    let declared = &found(full().used_by(&app, "/declared"), &app)[0];
    assert!(declared.detail.ends_with("made by the image's VOLUME /declared (app:1.0)"), "{}", declared.detail);
    let once = ContainerFacts { auto_remove: true, ..container("app") };
    assert_eq!(found(full().used_by(&once, "/x"), &once)[0].level, Level::Error);

    assert_eq!(found(volume("aa").anonymous().used_by(&app, "/x"), &app), [], "empty");
    assert_eq!(found(full().unknown().used_by(&app, "/x"), &app), [], "unknown");
    assert_eq!(found(full(), &app), [], "nobody uses it: T04");
    assert_eq!(found(volume("named").with_files(1, 1).used_by(&app, "/x"), &app), [], "named");
    let ephemeral = VolumeFacts { ephemeral: true, ..full().used_by(&app, "/x") };
    assert_eq!(found(ephemeral, &app), []);
}

#[test]
fn one_data_only_container_is_a_thin_thread() {
    let data = ContainerFacts { data_only: true, running: false, ..container("data") };
    let app = container("app");
    let mut inherited = volume("aa").anonymous().with_files(1, 1).used_by(&data, "/d").used_by(&app, "/d");
    inherited.info.used_by[1].inherited = true;
    let found = |volume: VolumeFacts| single_holder(&with(vec![volume], vec![data.clone(), app.clone()]));
    let taken = &found(inherited.clone())[0];
    assert_eq!(
        (taken.level, taken.detail.as_str()),
        (Level::Warn, "1 file, 1 B at /d of data; app with --volumes-from")
    );
    let alone = &found(volume("named").with_files(1, 1).used_by(&data, "/d"))[0];
    assert_eq!(
        (alone.level, alone.detail.as_str()),
        (Level::Info, "1 file, 1 B at /d of data; nobody takes its volumes")
    );

    inherited.info.used_by[1].inherited = false;
    assert_eq!(found(inherited), [], "the application mounts it itself");
    assert_eq!(found(volume("named").used_by(&data, "/d")), [], "empty");
    assert_eq!(found(volume("named").with_files(1, 1).used_by(&app, "/d")), [], "not data-only");
}

#[test]
fn orphans_are_told_apart_by_their_last_user() {
    let found = |volume: VolumeFacts| orphaned(&with(vec![volume], vec![]));
    let last = LastUse { text: "pg (postgres:16) at /pg".into(), image: "postgres:16".into(), path: "/pg".into() };
    let known = VolumeFacts { last_use: Some(last), ..volume("aa").anonymous().with_files(1, 10) };
    let known = &found(known)[0];
    assert_eq!(known.detail, "anonymous, 1 file, 10 B; last used by pg (postgres:16) at /pg");
    assert!(known.fix.ends_with("docker run -d -v aa:/pg postgres:16"), "{}", known.fix);
    assert_eq!(found(volume("db").with_files(1, 10))[0].detail, "1 file, 10 B; nobody knows who used it");
    assert_eq!(found(volume("db")), [], "empty");
    assert_eq!(found(volume("db").with_files(1, 1).used_by(&container("app"), "/d")), [], "in use");
    assert_eq!(found(VolumeFacts { ephemeral: true, ..volume("db").with_files(1, 1) }), []);
}

#[test]
fn snapshots_have_to_be_there_and_recent() {
    let found = |volume: VolumeFacts| without_snapshot(&with(vec![volume], vec![]));
    let taken = |days: i64| Some(now() - SignedDuration::from_hours(24 * days));
    let full = || volume("db").with_files(1, 10);
    assert_eq!(found(full())[0].detail, "no snapshot; 1 file, 10 B");
    let old = VolumeFacts { newest_snapshot: taken(8), ..full() };
    assert_eq!(found(old)[0].detail, "its newest snapshot is 8 days old, more than 7 days; 1 file, 10 B");
    assert_eq!(found(full().unknown())[0].detail, "no snapshot; content not known");
    assert_eq!(found(VolumeFacts { newest_snapshot: taken(6), ..full() }), [], "recent");
    assert_eq!(found(volume("db")), [], "empty");
    assert_eq!(found(full().label("voltool.enable", "false")), []);
    assert_eq!(found(VolumeFacts { ephemeral: true, ..full() }), []);
    assert_eq!(without_snapshot(&Evidence { snapshots_known: false, ..with(vec![full()], vec![]) }), []);
}

#[test]
fn durations_for_people() {
    let texts = [30 * 60, 3 * 3600, 47 * 3600, 48 * 3600].map(|seconds| days(SignedDuration::from_secs(seconds)));
    assert_eq!(texts, ["30 minutes", "3 hours", "47 hours", "2 days"]);
}

#[test]
fn twins_of_a_renamed_project() {
    let of = |project: &str, key: &str| {
        volume(&format!("{project}_{key}")).label(COMPOSE_PROJECT, project).label(COMPOSE_VOLUME, key)
    };
    let found = |volumes: Vec<VolumeFacts>| twins(&with(volumes, vec![container("app")]));
    let old = || of("shop", "db").with_files(4, 100);
    let renamed = found(vec![of("store", "db"), old()]);
    let names: Vec<&str> = renamed[0].objects.iter().map(|object| object.name.as_str()).collect();
    assert_eq!((renamed.len(), names), (1, vec!["store_db", "shop_db"]));
    assert!(renamed[0].detail.contains("shop_db of project shop holds 4 files, 100 B"), "{}", renamed[0].detail);

    assert_eq!(found(vec![of("store", "cache"), old()]), [], "another key");
    assert_eq!(found(vec![of("store", "db").with_files(1, 1), old()]), [], "both hold data");
    assert_eq!(found(vec![of("store", "db"), of("shop", "db")]), [], "both empty");
    assert_eq!(found(vec![of("store", "db").unknown(), old()]), [], "nobody knows");
    assert_eq!(found(vec![of("store", "db"), old().used_by(&container("app"), "/d")]), [], "the other one runs");
    let mut younger = old();
    younger.info.created_at = Some("2026-11-20T00:00:00+01:00".to_owned());
    assert_eq!(found(vec![of("store", "db"), younger]), [], "the empty one is the older one");
}

#[test]
fn two_writers() {
    let (a, b) = (container("a"), container("b"));
    let shared = || volume("v").used_by(&a, "/d").used_by(&b, "/d");
    let found = |volume: VolumeFacts, containers: Vec<ContainerFacts>| writers(&with(vec![volume], containers));
    let both = || vec![a.clone(), b.clone()];
    assert_eq!(found(shared(), both())[0].detail, "a, b run and may write to it");
    assert_eq!(found(shared().label(SHARED, "true"), both()), []);
    let mut reads = shared();
    reads.info.used_by[1].rw = false;
    assert_eq!(found(reads, both()), [], "one only reads");
    let stopped = ContainerFacts { running: false, ..b.clone() };
    assert_eq!(found(shared(), vec![a.clone(), stopped]), [], "one is stopped");
    let mut holder = shared();
    holder.info.used_by[1].data_only = true;
    assert_eq!(found(holder, both()), [], "one only holds it");
    let replica = |container: &ContainerFacts, service: &str| {
        let labels = [(COMPOSE_PROJECT, "shop"), (COMPOSE_SERVICE, service)].map(|(k, v)| (k.to_owned(), v.to_owned()));
        ContainerFacts { labels: BTreeMap::from(labels), ..container.clone() }
    };
    assert_eq!(found(shared(), vec![replica(&a, "web"), replica(&b, "web")]), [], "replicas");
    assert_eq!(found(shared(), vec![replica(&a, "web"), replica(&b, "worker")]).len(), 1, "two services");
}
