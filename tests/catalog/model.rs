//! What is remembered, compared with a naive model; and the cases that are easy to get wrong, one by one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::prelude::*;
use voltool::inventory::{Catalog, Inventory};

use super::{container, engine, inventory, minute, volume};

const KEY: &str = "AB:CD";

struct Place {
    _dir: tempfile::TempDir,
    catalog: Catalog,
}

impl Place {
    fn new(version: &str) -> Place {
        let dir = tempfile::tempdir().expect("a folder");
        let catalog = Catalog::open(&dir.path().join("state/catalog.db")).expect("made");
        catalog.note_engine(&engine(version), minute(0)).expect("noted");
        Place { _dir: dir, catalog }
    }

    fn see(&self, at: i64, inventory: &Inventory) {
        self.catalog.observe(KEY, inventory, minute(at)).expect("noted");
    }

    fn last(&self, volume: &str) -> Option<String> {
        self.catalog.last_use(KEY, volume).expect("told").map(|last| last.container_id)
    }

    /// Of each volume of that name, the newest first: when it was removed, by whom, and who used it.
    fn history(&self, volume: &str) -> Vec<(Option<Timestamp>, Option<String>, Vec<String>)> {
        let history = self.catalog.history(KEY, volume).expect("told");
        let incarnations = history.map(|history| history.incarnations).unwrap_or_default();
        let users =
            |uses: Vec<voltool::inventory::catalog::Use>| uses.into_iter().map(|one| one.container_id).collect();
        incarnations.into_iter().map(|one| (one.removed_at, one.removed_by, users(one.uses))).collect()
    }
}

#[test]
fn a_use_is_remembered_with_all_that_belongs_to_it() {
    let place = Place::new("26.1.5");
    let volumes = || vec![volume("db", minute(1))];
    place.see(2, &inventory(volumes(), vec![container("pg", true, &[("db", "/data", true)])]));
    place.see(5, &inventory(volumes(), vec![container("pg", false, &[("db", "/data", true)])]));
    place.see(9, &inventory(volumes(), vec![]));
    let last = place.catalog.last_use(KEY, "db").expect("told").expect("used");
    assert_eq!(
        (last.container_id.as_str(), last.container.as_str(), last.image.as_str()),
        ("pg", "name-of-pg", "postgres:16")
    );
    assert_eq!((last.image_id.as_str(), last.path.as_str(), last.rw), ("sha256:pg", "/data", true));
    assert_eq!((last.project.as_deref(), last.service.as_deref()), (Some("shop"), Some("db")));
    assert_eq!((last.first_seen, last.last_seen, last.last_running), (minute(2), minute(5), Some(minute(2))));
    assert_eq!(last.describe(), "name-of-pg (postgres:16) at /data, project shop");
    assert_eq!(place.catalog.last_used_at(KEY, "db").expect("told"), Some(minute(5)));
    // The project that only its containers told stays when they are gone.
    let known = place.catalog.volumes(KEY).expect("told");
    assert_eq!(known[0].compose_project.as_deref(), Some("shop"));
    assert_eq!((known[0].first_seen, known[0].last_seen, known[0].removed_at), (minute(2), minute(9), None));
    // Another engine's volume of that name is another one.
    assert_eq!(place.catalog.last_use("other", "db").expect("told"), None);
    assert_eq!(place.catalog.last_used_at(KEY, "none").expect("told"), None);
}

#[test]
fn of_several_users_the_one_that_matters_is_the_last() {
    let place = Place::new("26.1.5");
    let seen = |users| inventory(vec![volume("db", minute(1))], users);
    let reader = container("a-reader", true, &[("db", "/data", false)]);
    let stopped = container("b-stopped", false, &[("db", "/data", true)]);
    let writer = container("c-writer", true, &[("db", "/data", true)]);
    place.see(2, &seen(vec![reader.clone(), stopped.clone(), writer]));
    place.see(3, &seen(vec![]));
    assert_eq!(place.last("db").as_deref(), Some("c-writer"), "running and writing");
    place.see(4, &seen(vec![reader, stopped.clone()]));
    assert_eq!(place.last("db").as_deref(), Some("a-reader"), "running before stopped");
    place.see(5, &seen(vec![stopped]));
    assert_eq!(place.last("db").as_deref(), Some("b-stopped"), "the last one seen");
}

#[test]
fn a_volume_that_is_made_again_is_another_one() {
    for (version, told_by_creation) in [("26.1.5", true), ("23.0.0", true), ("20.10.24+dfsg1", false), ("", false)] {
        let place = Place::new(version);
        let used = |id: &str, created: i64| {
            inventory(vec![volume("db", minute(created))], vec![container(id, true, &[("db", "/data", true)])])
        };
        let unused = |created: i64| inventory(vec![volume("db", minute(created))], vec![]);
        place.see(2, &used("old", 1));
        // Seen by nobody: removed, and made again.
        place.see(10, &unused(9));
        assert_eq!(place.history("db").len(), if told_by_creation { 2 } else { 1 }, "{version}");
        assert_eq!(place.last("db").is_none(), told_by_creation, "{version}");
        // A scan that does not find it is as good as a report, on every engine.
        place.see(20, &inventory(vec![], vec![]));
        assert_eq!(place.history("db")[0].0, Some(minute(20)));
        place.see(22, &unused(21));
        assert_eq!(place.last("db"), None, "{version}: its predecessor's user is not its own");
        // And so is a report.
        place.see(24, &used("new", 21));
        place.catalog.note_removal(KEY, "db", "voltool volume rm", minute(30)).expect("noted");
        place.see(32, &unused(31));
        let history = place.history("db");
        assert_eq!(history[0], (None, None, vec![]), "{version}");
        assert_eq!(history[1], (Some(minute(30)), Some("voltool volume rm".to_owned()), vec!["new".to_owned()]));
    }
}

#[test]
fn a_changed_creation_time_alone_proves_nothing() {
    // What an old engine writes there is when the top folder changed; a container that uses it before and after proves that it is the same.
    let place = Place::new("26.1.5");
    let seen = |created: i64| {
        inventory(vec![volume("db", minute(created))], vec![container("pg", true, &[("db", "/data", true)])])
    };
    place.see(2, &seen(1));
    place.see(4, &seen(3));
    assert_eq!(place.history("db").len(), 1);
    // The same time in another zone.
    place.see(6, &inventory(vec![volume("db", minute(3))], vec![]));
    let mut moved = volume("db", minute(3));
    moved.created_at =
        minute(3).to_zoned(jiff::tz::TimeZone::fixed(jiff::tz::offset(5))).strftime("%FT%T%:z").to_string();
    place.see(8, &inventory(vec![moved], vec![]));
    assert_eq!(place.history("db").len(), 1);
    assert_eq!(place.last("db").as_deref(), Some("pg"));
    // On an old engine: other labels and another time cannot be the same volume, for labels cannot be changed.
    let place = Place::new("20.10.24");
    place.see(2, &seen(1));
    let mut labelled = volume("db", minute(3));
    labelled.labels.insert("app".to_owned(), "shop".to_owned());
    place.see(4, &inventory(vec![labelled], vec![]));
    assert_eq!((place.history("db").len(), place.last("db")), (2, None));
}

#[test]
fn a_slow_scan_does_not_undo_what_happened_meanwhile() {
    let place = Place::new("26.1.5");
    let used = inventory(vec![volume("db", minute(1))], vec![container("pg", true, &[("db", "/data", true)])]);
    place.see(2, &used);
    // A scan that began at 3 and still saw it ends after it was removed at 4.
    place.catalog.note_removal(KEY, "db", "engine event", minute(4)).expect("noted");
    place.see(3, &used);
    assert_eq!(place.history("db").len(), 1);
    assert_eq!(place.history("db")[0].0, Some(minute(4)));
    // One that began at 5 ends after a new one was seen at 6.
    let new = inventory(vec![volume("db", minute(6))], vec![]);
    place.see(6, &new);
    place.see(5, &inventory(vec![], vec![]));
    assert_eq!((place.history("db").len(), place.history("db")[0].0), (2, None));
    // A late report of the first one's removal does not take the second.
    place.catalog.note_removal(KEY, "db", "voltool volume rm", minute(5)).expect("noted");
    assert_eq!(place.history("db")[0].0, None);
    assert_eq!(place.history("db")[1].1.as_deref(), Some("voltool volume rm"), "who knows more is believed");
    place.catalog.note_removal(KEY, "db", "engine event", minute(5)).expect("noted");
    assert_eq!(place.history("db")[1].1.as_deref(), Some("voltool volume rm"), "in whichever order");
}

#[test]
fn what_a_plugin_does_not_list_is_not_gone() {
    let place = Place::new("26.1.5");
    let plugin = |name: &str| {
        let mut volume = volume(name, minute(1));
        volume.driver = "netshare".to_owned();
        volume
    };
    place.see(2, &inventory(vec![plugin("nfs"), volume("db", minute(1))], vec![]));
    let mut partial = inventory(vec![], vec![container("web", true, &[("nfs", "/www", true)])]);
    partial.warnings.push("netshare does not answer".to_owned());
    place.see(4, &partial);
    assert_eq!(place.history("db")[0].0, Some(minute(4)), "local volumes are always listed");
    assert_eq!(place.history("nfs")[0], (None, None, vec!["web".to_owned()]));
    // Without a warning it looks removed; when it is listed again it is the same one.
    place.see(6, &inventory(vec![], vec![]));
    assert_eq!(place.history("nfs")[0].0, Some(minute(6)));
    place.see(8, &inventory(vec![plugin("nfs")], vec![]));
    assert_eq!(place.history("nfs"), [(None, None, vec!["web".to_owned()])]);
}

#[test]
fn a_removal_is_kept_even_of_what_was_never_seen() {
    let place = Place::new("26.1.5");
    place.catalog.note_removal(KEY, "brief", "engine event", minute(4)).expect("noted");
    place.catalog.note_removal(KEY, "brief", "engine event", minute(4)).expect("noted");
    assert_eq!(place.history("brief"), [(Some(minute(4)), Some("engine event".to_owned()), vec![])]);
    place.see(5, &inventory(vec![volume("there", minute(1))], vec![]));
    let removed = place.catalog.removed(KEY).expect("told");
    assert_eq!(removed.iter().map(|volume| volume.name.as_str()).collect::<Vec<_>>(), ["brief"]);
    assert_eq!(removed[0].kind, None);
}

#[test]
fn an_anonymous_volume_is_found_by_the_beginning_of_its_name() {
    let place = Place::new("26.1.5");
    let (one, two, named) = (format!("ab{}", "1".repeat(62)), format!("ac{}", "2".repeat(62)), "abacus");
    let volumes = [one.as_str(), &two, named].map(|name| volume(name, minute(1)));
    place.see(2, &inventory(volumes.to_vec(), vec![]));
    let found = |text: &str| place.catalog.history(KEY, text).expect("told").map(|history| history.name);
    assert_eq!(found("ab"), Some(one.clone()), "names that somebody chose are not abbreviated");
    assert_eq!((found("a"), found("abacu"), found("")), (None, None, None));
    assert_eq!((found("abacus"), found(&two)), (Some(named.to_owned()), Some(two.clone())));
    assert_eq!(place.catalog.matching(KEY, "a").expect("told"), [one, two]);
    assert_eq!((found("%"), found("ab*"), found("AB")), (None, None, None), "no patterns");
}

#[test]
fn a_container_that_is_reported_has_used_its_volumes_until_then() {
    let place = Place::new("26.1.5");
    let used = inventory(vec![volume("db", minute(1))], vec![container("pg", true, &[("db", "/data", true)])]);
    place.see(2, &used);
    place.catalog.note_container(KEY, "pg", minute(7)).expect("noted");
    place.catalog.note_container(KEY, "pg", minute(5)).expect("noted");
    place.catalog.note_container(KEY, "other", minute(9)).expect("noted");
    assert_eq!(place.catalog.last_used_at(KEY, "db").expect("told"), Some(minute(7)));
}

#[test]
fn a_part_adds_and_takes_nothing_away() {
    let place = Place::new("26.1.5");
    place.see(2, &inventory(vec![volume("db", minute(1)), volume("other", minute(1))], vec![]));
    let part = inventory(vec![volume("new", minute(3))], vec![container("brief", true, &[("new", "/data", true)])]);
    place.catalog.observe_part(KEY, &part, minute(3)).expect("noted");
    assert_eq!(place.last("new").as_deref(), Some("brief"));
    assert_eq!(place.catalog.removed(KEY).expect("told"), []);
    assert_eq!(place.catalog.volumes(KEY).expect("told").len(), 3);
}

#[test]
fn a_large_engine() {
    let place = Place::new("26.1.5");
    let volumes = |n: i64| (0..n).map(|i| volume(&format!("volume-{i}"), minute(1))).collect::<Vec<_>>();
    let containers: Vec<_> = (0..1000)
        .map(|i| {
            let names = [format!("volume-{i}"), format!("volume-{}", (i + 1) % 1000)];
            container(&format!("c{i}"), true, &[(&names[0], "/a", true), (&names[1], "/b", false)])
        })
        .collect();
    let large = inventory(volumes(1000), containers);
    for at in 2..5 {
        let begin = std::time::Instant::now();
        place.see(at, &large);
        // Not asserted: the machine may be busy. A scan of the engine itself takes far longer.
        println!("noted in {:?}", begin.elapsed());
    }
    assert_eq!(place.last("volume-7").as_deref(), Some("c7"));
    assert_eq!(place.catalog.volumes(KEY).expect("told").len(), 1000);
    place.see(6, &inventory(volumes(10), vec![]));
    assert_eq!(place.catalog.removed(KEY).expect("told").len(), 990);
}

#[test]
fn decisions_do_not_grow_for_ever() {
    let place = Place::new("26.1.5");
    for n in 0..10_050 {
        place.catalog.note_decision(KEY, "cli", &format!("volume rm {n}"), "refuse", "{}").expect("noted");
    }
    let db = rusqlite::Connection::open(place.catalog.path()).expect("opened");
    let told = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("told");
    assert_eq!(told("SELECT count(*) FROM decisions"), 10_000);
    assert_eq!(told("SELECT count(*) FROM decisions WHERE command = 'volume rm 10049'"), 1, "the new ones are kept");
    db.execute("UPDATE decisions SET time = time - 366 * 86400000 WHERE id % 2 = 0", []).expect("aged");
    place.catalog.note_decision(KEY, "authz", "DELETE /volumes/x", "allow", "{}").expect("noted");
    assert_eq!(told("SELECT count(*) FROM decisions"), 5_000, "the oldest odd one made room");
}

/// What happens on an engine, for the model.
#[derive(Debug, Clone)]
enum Step {
    Create(usize),
    /// Who removes it is told to the catalog, or nobody sees it.
    Remove(usize, bool),
    Write(usize),
    Run {
        mounts: Vec<(usize, bool)>,
        running: bool,
    },
    Stop(usize),
    Forget(usize),
    Look,
}

const NAMES: [&str; 3] = ["db", "www", "3f2a3f2a3f2a3f2a3f2a3f2a3f2a3f2a3f2a3f2a3f2a3f2a3f2a3f2a3f2a3f2a"];

fn step() -> impl Strategy<Value = Step> {
    let name = 0..NAMES.len();
    prop_oneof![
        3 => name.clone().prop_map(Step::Create),
        2 => (name.clone(), any::<bool>()).prop_map(|(name, told)| Step::Remove(name, told)),
        1 => name.clone().prop_map(Step::Write),
        3 => (prop::collection::vec((name, any::<bool>()), 1..3), any::<bool>())
            .prop_map(|(mounts, running)| Step::Run { mounts, running }),
        1 => (0..4_usize).prop_map(Step::Stop),
        3 => (0..4_usize).prop_map(Step::Forget),
        4 => Just(Step::Look),
    ]
}

/// A volume of the engine.
#[derive(Debug, Clone)]
struct Real {
    serial: usize,
    created: i64,
}

/// A use: seen first, last, last running; writable.
type Seen = (i64, i64, Option<i64>, bool);
/// A container: its name, whether it runs, and the volumes that it mounts, where, and whether it may write.
type Mounting = (String, bool, Vec<(usize, String, bool)>);

/// What should be remembered of one volume.
#[derive(Debug, Clone, Default)]
struct Known {
    serial: usize,
    there: bool,
    /// By container and path.
    uses: BTreeMap<(String, String), Seen>,
}

impl Known {
    fn last(&self) -> Option<(&str, &str, i64)> {
        let key =
            |(_, (first, last, running, rw)): &(&(String, String), &Seen)| (*last, running.unwrap_or(0), *rw, *first);
        // Of equals the first by name: iteration is in that order, and max_by_key takes the last of equals.
        let ((container, path), (_, last, ..)) = self.uses.iter().rev().max_by_key(key)?;
        Some((container, path, *last))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn the_last_use_is_what_a_naive_model_says(steps in prop::collection::vec(step(), 1..40), stable: bool) {
        let place = Place::new(if stable { "26.1.5" } else { "20.10.24" });
        let mut volumes: BTreeMap<usize, Real> = BTreeMap::new();
        let mut containers: Vec<Mounting> = Vec::new();
        let mut known: BTreeMap<usize, Vec<Known>> = BTreeMap::new();
        let mut serial = 0;
        for (n, step) in steps.iter().chain([&Step::Look]).enumerate() {
            // Far enough apart that two removals are never taken for one.
            let now = (n as i64 + 1) * 20;
            match step {
                Step::Create(name) => {
                    serial += 1;
                    volumes.entry(*name).or_insert(Real { serial, created: now });
                }
                Step::Remove(name, told) => {
                    let used = containers.iter().any(|(_, _, mounts)| mounts.iter().any(|mount| mount.0 == *name));
                    if used || volumes.remove(name).is_none() {
                        continue;
                    }
                    if *told {
                        place.catalog.note_removal(KEY, NAMES[*name], "voltool volume rm", minute(now)).expect("noted");
                        let known = known.entry(*name).or_default();
                        match known.last_mut().filter(|last| last.there) {
                            Some(last) => last.there = false,
                            None => known.push(Known::default()),
                        }
                    }
                }
                Step::Write(name) => {
                    if let Some(volume) = volumes.get_mut(name).filter(|_| !stable) {
                        volume.created = now;
                    }
                }
                Step::Run { mounts, running } => {
                    let mounts: Vec<_> = mounts
                        .iter()
                        .enumerate()
                        .filter(|(_, (name, _))| volumes.contains_key(name))
                        .map(|(at, (name, rw))| (*name, format!("/mount-{at}"), *rw))
                        .collect();
                    containers.push((format!("c{n:03}"), *running, mounts));
                }
                Step::Stop(at) => {
                    if let Some(container) = containers.get_mut(*at) {
                        container.1 = false;
                    }
                }
                Step::Forget(at) => {
                    if *at < containers.len() {
                        containers.remove(*at);
                    }
                }
                Step::Look => {
                    let there = volumes.iter().map(|(name, real)| volume(NAMES[*name], minute(real.created))).collect();
                    let users = containers.iter().map(|(id, running, mounts)| {
                        let mounts: Vec<_> =
                            mounts.iter().map(|(name, path, rw)| (NAMES[*name], path.as_str(), *rw)).collect();
                        container(id, *running, &mounts)
                    });
                    place.see(now, &inventory(there, users.collect()));
                    for name in 0..NAMES.len() {
                        let known = known.entry(name).or_default();
                        let Some(real) = volumes.get(&name) else {
                            known.iter_mut().for_each(|one| one.there = false);
                            continue;
                        };
                        // On an old engine, one that was removed and made again unseen cannot be told from one that was written.
                        let same = known.last().is_some_and(|last| last.there && (last.serial == real.serial || !stable));
                        if !same {
                            known.iter_mut().for_each(|one| one.there = false);
                            known.push(Known::default());
                        }
                        let last = known.last_mut().expect("one");
                        (last.there, last.serial) = (true, real.serial);
                        for (id, running, mounts) in &containers {
                            for (_, path, rw) in mounts.iter().filter(|mount| mount.0 == name) {
                                let one = last.uses.entry((id.clone(), path.clone())).or_insert((now, now, None, *rw));
                                one.1 = now;
                                one.2 = if *running { Some(now) } else { one.2 };
                            }
                        }
                    }
                }
            }
            for (name, known) in &known {
                let expected = known.last().and_then(Known::last);
                let found = place.catalog.last_use(KEY, NAMES[*name]).expect("told");
                let found = found.as_ref().map(|one| (one.container_id.as_str(), one.path.as_str(), one.last_seen));
                prop_assert_eq!(found, expected.map(|(id, path, last)| (id, path, minute(last))), "{} at {}", NAMES[*name], now);
                let used = place.catalog.last_used_at(KEY, NAMES[*name]).expect("told");
                prop_assert_eq!(used, expected.map(|(_, _, last)| minute(last)));
                prop_assert_eq!(place.history(NAMES[*name]).len(), known.len(), "{} at {}", NAMES[*name], now);
            }
        }
    }
}
