//! Damage: every kind of object, damaged in every way, and what is left of the repository then.
//!
//! The rule: what is damaged is detected and named, everything else comes back byte for byte, nothing is silently wrong, nothing panics.

// Which damage it was that a test failed over.
#![allow(clippy::print_stdout)]

#[path = "support/tree.rs"]
mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use tree::{Facts, Place, check_partial, describe, differences, files_below, noise};
use voltool::repo::{RepoError, Repository, SnapshotRecord};

/// Volumes `a` (two snapshots), `b` and `c`, each with packs of its own. What is in `a` has changed since.
struct Scene {
    place: Place,
    /// What each snapshot holds, by its id.
    want: BTreeMap<String, Facts>,
    /// The latest snapshot of each volume.
    latest: BTreeMap<&'static str, String>,
    /// What is in `a` now.
    now: Facts,
    /// Keys of the objects of `a` that may be damaged, and another of the same kind for each.
    victims: BTreeMap<Kind, [String; 2]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    DataPack,
    MetaPack,
    Index,
    Record,
    Config,
    Keys,
    Session,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    /// A bit is flipped so many 16ths into the object.
    Flip(usize),
    Truncate,
    Delete,
    Zero,
    Swap,
}

const DAMAGES: [Damage; 8] = [
    Damage::Flip(1),
    Damage::Flip(6),
    Damage::Flip(11),
    Damage::Flip(15),
    Damage::Truncate,
    Damage::Delete,
    Damage::Zero,
    Damage::Swap,
];

async fn scene(encrypted: bool) -> Scene {
    let place = Place::with_repository(encrypted).await;
    let (mut want, mut latest, mut packs) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let repo = place.open().await;
    for name in ["a", "b", "c"] {
        let source = place.plant(name, 25);
        let record = place.backup(&repo, name).await.unwrap().record;
        want.insert(record.id.clone(), describe(&source.root));
        packs.insert(name, record.id.clone());
        latest.insert(name, record.id);
    }
    let root = place.source("a").root;
    fs::write(root.join("second"), noise("second", 9_000)).unwrap();
    tree::age(&root);
    let record = place.backup(&repo, "a").await.unwrap().record;
    want.insert(record.id.clone(), describe(&root));
    latest.insert("a", record.id);
    fs::write(root.join("third"), noise("third", 9_000)).unwrap();
    fs::write(root.join("large"), noise("other", 80_000)).unwrap();
    tree::age(&root);
    for session in ["01ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5FAW"] {
        let json = format!("{{\"session\": \"{session}\", \"started\": \"2026-01-01T00:00:00Z\", \"tool\": \"test\"}}");
        repo.store().put(&format!("sessions/{session}.json"), json.into()).await.unwrap();
    }
    let victims = victims(&place, &packs, &latest).await;
    let now = describe(&root);
    Scene { place, want, latest, now, victims }
}

/// Finds an object of each kind that `a` needs, and another of that kind.
async fn victims(
    place: &Place,
    first: &BTreeMap<&str, String>,
    latest: &BTreeMap<&str, String>,
) -> BTreeMap<Kind, [String; 2]> {
    let mut victims = BTreeMap::new();
    // Without its index a repository tells what is in its packs.
    let unlock: Vec<_> = place.identity.iter().cloned().map(voltool::repo::Unlock::Identity).collect();
    let repo = Repository::open(place.store(), &unlock, &place.path("spare")).await.unwrap();
    let packs = repo.learn_packs("packs/").await.unwrap().0;
    let pack = |session: &str, metadata: bool| {
        let of = |p: &&(voltool::repo::index::PackInfo, Vec<voltool::repo::pack::PackEntry>)| {
            p.0.name.session.to_string() == session && p.1[0].kind.is_metadata() == metadata
        };
        packs.iter().find(of).unwrap().0.name.key()
    };
    // The data that both snapshots of `a` need, and the listing of its latest.
    victims.insert(Kind::DataPack, [pack(&first["a"], false), pack(&first["b"], false)]);
    victims.insert(Kind::MetaPack, [pack(&latest["a"], true), pack(&latest["b"], true)]);
    let keys: Vec<String> = place.store().list("").await.unwrap().into_iter().map(|o| o.key).collect();
    let record = |volume: &str| keys.iter().find(|k| k.ends_with(&format!("{}.json", latest[volume]))).unwrap().clone();
    victims.insert(Kind::Record, [record("a"), record("b")]);
    let mut of = |kind, prefix: &str| {
        let found: Vec<&String> = keys.iter().filter(|k| k.starts_with(prefix)).collect();
        if let [one, .., other] = found[..] {
            victims.insert(kind, [one.clone(), other.clone()]);
        }
    };
    of(Kind::Index, "index/");
    of(Kind::Session, "sessions/");
    // There is one of each: the other one is a stranger's.
    let stranger = Place::with_repository(place.identity.is_some()).await;
    for (kind, prefix) in [(Kind::Config, "voltool.json"), (Kind::Keys, "keys/")] {
        let find = |keys: Vec<String>| keys.into_iter().find(|k| k.starts_with(prefix));
        let theirs = find(stranger.store().list("").await.unwrap().into_iter().map(|o| o.key).collect());
        if let (Some(ours), Some(theirs)) = (find(keys.clone()), theirs) {
            let spare = format!("spare-{}", theirs.replace('/', "-"));
            fs::copy(stranger.repository().join(&theirs), place.repository().join(&spare)).unwrap();
            victims.insert(kind, [ours, spare]);
        }
    }
    victims
}

fn apply(repository: &Path, [victim, other]: &[String; 2], damage: Damage) {
    let path = repository.join(victim);
    let mut data = fs::read(&path).unwrap();
    match damage {
        Damage::Flip(sixteenths) => {
            let at = data.len() * sixteenths / 16;
            data[at] ^= 1;
        }
        Damage::Truncate => data.truncate(data.len() / 2),
        Damage::Zero => data.fill(0),
        Damage::Delete => return fs::remove_file(path).unwrap(),
        Damage::Swap => {
            fs::copy(repository.join(other), &path).unwrap();
            return fs::write(repository.join(other), data).unwrap();
        }
    }
    fs::write(path, data).unwrap();
}

/// A failure has to name the damaged object.
fn names(error: &dyn std::fmt::Display, keys: &[String; 2]) -> bool {
    let said = error.to_string();
    keys.iter().any(|key| said.contains(key))
}

async fn matrix(kind: Kind, encrypted: bool) {
    let scene = scene(encrypted).await;
    let Some(keys) = scene.victims.get(&kind) else {
        assert!(kind == Kind::Keys && !encrypted, "no {kind:?} in the scene");
        return;
    };
    for damage in DAMAGES {
        println!("{kind:?} {damage:?}");
        let place = scene.place.copy();
        apply(&place.repository(), keys, damage);
        check(&scene, &place, kind, damage, keys).await;
    }
}

async fn check(scene: &Scene, place: &Place, kind: Kind, damage: Damage, keys: &[String; 2]) {
    let is_lost = matches!(damage, Damage::Delete | Damage::Zero | Damage::Truncate);
    let repo = match place.try_open(place.store(), "cache").await {
        Ok(repo) => repo,
        Err(e) => {
            let gone = matches!(e, RepoError::NoRepository { .. }) && damage == Damage::Delete;
            let locked = matches!(e, RepoError::WrongKey { .. }) && kind == Kind::Keys;
            let named = names(&e, keys) || e.to_string().contains("keys/") || e.to_string().contains("voltool.json");
            assert!(matches!(kind, Kind::Config | Kind::Keys) && (gone || locked || named), "{e}");
            return;
        }
    };
    // An object that decides whether there is a repository at all does not go unnoticed when it is gone.
    assert!(!(matches!(kind, Kind::Config | Kind::Keys) && is_lost), "opened without {keys:?}");

    // The list of snapshots.
    let found = repo.snapshots().await.unwrap();
    let damaged: Vec<String> = found.damaged.iter().map(ToString::to_string).collect();
    let expected = match (kind, damage) {
        (Kind::Record, Damage::Swap) => (scene.want.len() - 2, 2),
        (Kind::Record, Damage::Delete) => (scene.want.len() - 1, 0),
        (Kind::Record, _) => (scene.want.len() - 1, 1),
        _ => (scene.want.len(), 0),
    };
    assert_eq!((found.records.len(), damaged.len()), expected, "{damaged:?}");
    assert!(damaged.iter().all(|said| names(said, keys)), "{damaged:?}");

    // Every snapshot that is left.
    for record in &found.records {
        let is_victim = record.volume == "a" || (damage == Damage::Swap && record.volume == "b");
        let may_suffer = is_victim && matches!(kind, Kind::DataPack | Kind::MetaPack);
        let must_suffer = may_suffer && is_lost && (kind == Kind::DataPack || record.parent.is_some());
        let suffers = Suffers { may: may_suffer, must: must_suffer, whole: kind == Kind::MetaPack };
        check_restore(place, &repo, record, &scene.want[&record.id], keys, suffers).await;
    }
    check_backups(scene, place, kind, keys).await;
}

/// What damage may do to a snapshot, and what it has to.
#[derive(Clone, Copy)]
struct Suffers {
    may: bool,
    must: bool,
    /// Its list of leaves may be lost, and so all of it. Damage to data only ever costs the files that are made of it.
    whole: bool,
}

/// Restores and exports a snapshot, and says of both that they are right, or wrong in a way that was named.
async fn check_restore(
    place: &Place,
    repo: &Arc<Repository>,
    record: &SnapshotRecord,
    want: &Facts,
    keys: &[String; 2],
    suffers: Suffers,
) {
    let Suffers { may: may_suffer, must: must_suffer, .. } = suffers;
    let mut whole = false;
    match place.restore(repo, record).await {
        Ok((restored, facts)) => {
            check_partial(want, &facts, &restored.problems);
            whole = restored.problems.is_empty();
            if whole {
                assert_eq!(differences(want, &facts), [""; 0]);
            }
            let is_link = |path: &String| want.get(path).is_some_and(|fact| fact.contains(" is "));
            for (path, reason) in restored.problems.iter().filter(|(path, _)| !is_link(path)) {
                assert!(may_suffer && names(reason, keys), "{path}: {reason}");
            }
        }
        Err(e) => assert!(may_suffer && suffers.whole && names(&e, keys), "{e}"),
    }
    assert!(!(whole && must_suffer), "{keys:?} are damaged, and nobody noticed");
    match place.export(repo, record).await {
        Ok((problems, facts)) => {
            assert_eq!(problems, []);
            assert_eq!(differences(want, &facts), [""; 0]);
            assert!(!must_suffer);
        }
        Err(e) => assert!(may_suffer && !whole && names(&e, keys), "{e}"),
    }
}

/// Backs `a` up again, with local state and without, and restores that.
async fn check_backups(scene: &Scene, place: &Place, kind: Kind, keys: &[String; 2]) {
    for state in ["state", "no-state"] {
        // As a new process that has never been here; neither finds what the other one has stored.
        let place = &place.copy();
        let repo = place.open().await;
        let source = place.source("a");
        let done = voltool::snapshot::backup(&repo, &source, &place.options(state), Arc::new(())).await;
        let record = done.unwrap_or_else(|e| panic!("{state}: {e}")).record;
        // What the packs do not hold any more, a backup that finds it in the index cannot know; unless it had to read it.
        let may_suffer = kind == Kind::DataPack || (kind == Kind::MetaPack && state == "state");
        let suffers = Suffers { may: may_suffer, must: false, whole: kind == Kind::MetaPack };
        check_restore(place, &repo, &record, &scene.now, keys, suffers).await;
        let c = scene.latest["c"].clone();
        let records = repo.snapshots().await.unwrap().records;
        let c = records.iter().find(|r| r.id == c).unwrap();
        let suffers = Suffers { may: false, must: false, whole: false };
        check_restore(place, &repo, c, &scene.want[&c.id], keys, suffers).await;
    }
}

macro_rules! matrix {
    ($($name:ident $kind:ident;)*) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread")]
            async fn plain() {
                super::matrix(super::Kind::$kind, false).await;
            }
            #[tokio::test(flavor = "multi_thread")]
            async fn encrypted() {
                super::matrix(super::Kind::$kind, true).await;
            }
        }
    )*};
}

matrix! {
    data_pack DataPack;
    metadata_pack MetaPack;
    index_segment Index;
    snapshot_record Record;
    configuration Config;
    key_object Keys;
    session Session;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_index() {
    for encrypted in [false, true] {
        let scene = scene(encrypted).await;
        let place = scene.place.copy();
        fs::remove_dir_all(place.repository().join("index")).unwrap();
        let repo = place.open().await;
        for record in repo.snapshots().await.unwrap().records {
            let (restored, facts) = place.restore(&repo, &record).await.unwrap();
            assert_eq!(restored.problems, []);
            assert_eq!(differences(&scene.want[&record.id], &facts), [""; 0]);
        }
        let record = place.backup(&repo, "a").await.unwrap().record;
        let (restored, facts) = place.restore(&repo, &record).await.unwrap();
        assert_eq!((restored.problems, differences(&scene.now, &facts)), (vec![], vec![]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_and_state_are_never_believed() {
    for encrypted in [false, true] {
        let scene = scene(encrypted).await;
        // A condemned pack: what is hidden from the next session rests on this object.
        let json = r#"{"epoch": 0, "condemned": ["packs/01ARZ3NDEKTSV4RRFFQ69G5FAV/0.pack"]}"#;
        scene.place.store().put("gc/0.json", json.into()).await.unwrap();
        let place = scene.place.copy();
        let warm = place.open().await;
        for record in warm.snapshots().await.unwrap().records {
            place.restore(&warm, &record).await.unwrap();
        }
        let below = |name| files_below(&place.path(name)).into_iter().map(move |file| format!("{name}/{file}"));
        let files: Vec<String> = below("cache").chain(below("state")).filter(|f| !f.ends_with(".lock")).collect();
        for kind in ["cache/", ".state", "/index/", "/meta/", "/snapshots/", "/gc/"] {
            assert!(files.iter().any(|f| f.contains(kind)), "no {kind} in {files:?}");
        }
        for damage in [Damage::Flip(1), Damage::Flip(8), Damage::Flip(13), Damage::Truncate, Damage::Zero] {
            println!("{damage:?}");
            for file in &files {
                let path = place.path(file);
                // A file that was found damaged may be gone.
                if path.exists() {
                    apply(place.dir.path(), &[file.clone(), String::new()], damage);
                }
            }
            let repo = place.open().await;
            assert_eq!(repo.epochs().await.unwrap().condemned.len(), 1);
            let found = repo.snapshots().await.unwrap();
            assert_eq!(found.damaged.len(), 0);
            for record in found.records.iter().filter(|r| scene.want.contains_key(&r.id)) {
                let (restored, facts) = place.restore(&repo, record).await.unwrap();
                assert_eq!(restored.problems, []);
                assert_eq!(differences(&scene.want[&record.id], &facts), [""; 0]);
            }
            let done = place.backup(&repo, "a").await.unwrap();
            let (restored, facts) = place.restore(&repo, &done.record).await.unwrap();
            assert_eq!((restored.problems, differences(&scene.now, &facts)), (vec![], vec![]));
        }
    }
}

/// Each file alone: a flip in one must not hide behind the damage of another.
#[tokio::test(flavor = "multi_thread")]
async fn one_damaged_cached_epoch_hides_nothing() {
    let place = Place::with_repository(false).await;
    let key = "packs/01ARZ3NDEKTSV4RRFFQ69G5FAV/0.pack";
    place.store().put("gc/0.json", format!("{{\"epoch\": 0, \"condemned\": [\"{key}\"]}}").into()).await.unwrap();
    let repo = place.open().await;
    let want = repo.epochs().await.unwrap().condemned;
    let file = files_below(&place.path("cache")).into_iter().find(|f| f.contains("/gc/")).unwrap();
    let good = fs::read(place.path("cache").join(&file)).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(place.path("cache").join(&file), bad).unwrap();
        assert_eq!(repo.epochs().await.unwrap().condemned, want, "byte {at}");
    }
}

/// An index that is well-formed and wrong: what the packs say themselves counts.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_wrong_about_every_chunk() {
    for encrypted in [false, true] {
        let scene = scene(encrypted).await;
        let place = scene.place.copy();
        fs::remove_dir_all(place.repository().join("index")).unwrap();
        let repo = place.open().await;
        let mut tables = repo.learn_packs("packs/").await.unwrap().0;
        for entry in tables.iter_mut().flat_map(|(_, entries)| entries) {
            entry.offset += 7;
        }
        let index = zstd::bulk::compress(&voltool::repo::index::encode(&tables), 3).unwrap();
        let sealed = repo.keys().sealer.seal(index).unwrap().0;
        place.store().put("index/01ARZ3NDEKTSV4RRFFQ69G5FAV.idx", sealed.into()).await.unwrap();
        let repo = place.try_open(place.store(), "cold").await.unwrap();
        for record in repo.snapshots().await.unwrap().records {
            let (restored, facts) = place.restore(&repo, &record).await.unwrap();
            assert_eq!(restored.problems, []);
            assert_eq!(differences(&scene.want[&record.id], &facts), [""; 0]);
            let (problems, facts) = place.export(&repo, &record).await.unwrap();
            assert_eq!((problems, differences(&scene.want[&record.id], &facts)), (vec![], vec![]));
        }
        let record = place.backup(&repo, "a").await.unwrap().record;
        let (restored, facts) = place.restore(&repo, &record).await.unwrap();
        assert_eq!((restored.problems, differences(&scene.now, &facts)), (vec![], vec![]));
    }
}

/// A listing that cannot be read any more is stored again as soon as a backup notices, although nothing has changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_listing_is_stored_again() {
    for encrypted in [false, true] {
        let scene = scene(encrypted).await;
        for damage in [Damage::Delete, Damage::Zero, Damage::Flip(8)] {
            let place = scene.place.copy();
            let [_, of_b] = &scene.victims[&Kind::MetaPack];
            apply(&place.repository(), &[of_b.clone(), String::new()], damage);
            fs::remove_dir_all(place.path("state")).unwrap();
            let record = place.backup(&place.open().await, "b").await.unwrap().record;
            let repo = place.try_open(place.store(), "cold").await.unwrap();
            let (restored, facts) = place.restore(&repo, &record).await.unwrap();
            let want = &scene.want[&scene.latest["b"]];
            assert_eq!((restored.problems, differences(want, &facts)), (vec![], vec![]), "{damage:?}");
        }
    }
}
