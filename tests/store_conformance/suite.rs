//! The promises of the `Store` trait.

use bytes::Bytes;
use futures_util::future::join_all;
use voltool::store::probe::ConditionalPut;
use voltool::store::{ErrorKind, ObjectInfo, PutIfAbsent, Result, Store};

/// What the storage is known to do with conditional PUTs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conditions {
    Honoured,
    Ignored,
    Refused,
}

impl From<ConditionalPut> for Conditions {
    fn from(found: ConditionalPut) -> Conditions {
        match found {
            ConditionalPut::Honoured => Conditions::Honoured,
            ConditionalPut::Ignored => Conditions::Ignored,
            ConditionalPut::Refused => Conditions::Refused,
        }
    }
}

/// Runs everything against an empty storage, and leaves it empty.
pub async fn run(store: &dyn Store, conditions: Conditions) {
    store.prepare().await.unwrap();
    store.prepare().await.expect("preparing twice is fine");
    assert_eq!(store.list("").await.unwrap(), [], "the suite needs an empty storage");
    whole_objects(store).await;
    missing_objects(store).await;
    ranges(store).await;
    tails(store).await;
    listings(store).await;
    odd_keys(store).await;
    conditional(store, conditions).await;
    many_at_once(store).await;
    never_torn(store).await;
    come_and_go(store).await;
    for object in store.list("").await.unwrap() {
        store.delete(&object.key).await.unwrap();
    }
    assert_eq!(store.list("").await.unwrap(), []);
}

/// Bytes of which no two stretches are alike.
fn noise(len: usize) -> Bytes {
    let mut data = vec![0; len];
    blake3::Hasher::new().update(&len.to_le_bytes()).finalize_xof().fill(&mut data);
    data.into()
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind
}

async fn whole_objects(store: &dyn Store) {
    for len in [0, 1, 4095, 70_000, (16 << 20) + 3] {
        let key = format!("whole/{len}");
        store.put(&key, noise(len)).await.unwrap();
        assert!(store.get(&key).await.unwrap() == noise(len), "{key} comes back as it was stored");
        assert_eq!(store.size(&key).await.unwrap(), Some(len as u64));
    }
    store.put("whole/1", noise(2)).await.unwrap();
    assert_eq!(store.get("whole/1").await.unwrap(), noise(2), "a second PUT replaces");
    store.delete("whole/1").await.unwrap();
    assert_eq!(store.size("whole/1").await.unwrap(), None);
    store.delete("whole/1").await.expect("deleting what is not there is fine");
}

async fn missing_objects(store: &dyn Store) {
    // The second has an object in place of a directory, the third is a directory on a local disk.
    store.put("missing/a/b", noise(1)).await.unwrap();
    for key in ["nothing", "missing/a/b/c", "missing/a"] {
        assert_eq!(kind(store.get(key).await), ErrorKind::NotFound, "{key}");
        assert_eq!(kind(store.get_range(key, 0, 1).await), ErrorKind::NotFound, "{key}");
        assert_eq!(kind(store.get_range(key, 0, 0).await), ErrorKind::NotFound, "{key}");
        assert_eq!(kind(store.get_tail(key, 1).await), ErrorKind::NotFound, "{key}");
        assert_eq!(kind(store.get_tail(key, 0).await), ErrorKind::NotFound, "{key}");
        assert_eq!(store.size(key).await.unwrap(), None, "{key}");
        store.delete(key).await.unwrap();
    }
    assert_eq!(store.get("missing/a/b").await.unwrap(), noise(1));
    let error = store.get("nothing").await.unwrap_err();
    assert!(error.is_not_found());
    let text = error.to_string();
    assert!(text.starts_with(&format!("cannot read nothing in {}: ", store.url())), "{text}");
}

async fn ranges(store: &dyn Store) {
    let data = noise(200_000);
    store.put("ranges/object", data.clone()).await.unwrap();
    store.put("ranges/empty", Bytes::new()).await.unwrap();
    for (offset, len) in [(0, 1), (0, 200_000), (199_999, 1), (65_537, 70_001), (0, 0), (200_000, 0)] {
        let found = store.get_range("ranges/object", offset as u64, len as u64).await.unwrap();
        assert!(found == data.slice(offset..offset + len), "{len} bytes at {offset}");
    }
    assert_eq!(store.get_range("ranges/empty", 0, 0).await.unwrap(), Bytes::new());
    // Offsets and lengths come from indexes, which may be damaged.
    for (offset, len) in
        [(0, 200_001), (199_999, 2), (200_000, 1), (200_001, 0), (1 << 60, 5), (5, u64::MAX), (u64::MAX, u64::MAX)]
    {
        let found = store.get_range("ranges/object", offset, len).await;
        assert_eq!(kind(found), ErrorKind::Integrity, "{len} bytes at {offset}");
    }
    assert_eq!(kind(store.get_range("ranges/empty", 0, 1).await), ErrorKind::Integrity);
}

async fn tails(store: &dyn Store) {
    let data = noise(100_000);
    store.put("tails/object", data.clone()).await.unwrap();
    store.put("tails/empty", Bytes::new()).await.unwrap();
    for (len, expected) in
        [(0, 0), (1, 1), (65_000, 65_000), (100_000, 100_000), (100_001, 100_000), (u64::MAX, 100_000)]
    {
        let (found, size) = store.get_tail("tails/object", len).await.unwrap();
        assert!(found == data.slice(100_000 - expected..), "the last {len} bytes");
        assert_eq!(size, 100_000);
    }
    for len in [0, 1, 1000] {
        assert_eq!(store.get_tail("tails/empty", len).await.unwrap(), (Bytes::new(), 0));
    }
}

async fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    store.list(prefix).await.unwrap().into_iter().map(|object| object.key).collect()
}

async fn listings(store: &dyn Store) {
    // In byte order, which is neither that of a directory walk nor that of a dictionary.
    let all = ["l/A", "l/a+", "l/a-b", "l/a.b", "l/a/0", "l/a/b/c", "l/a0", "l/ab", "l/b/a", "lx"];
    join_all(all.iter().map(|key| async move { store.put(key, noise(key.len())).await.unwrap() })).await;
    assert_eq!(keys(store, "l").await, all);
    assert_eq!(keys(store, "l/").await, &all[..9]);
    assert_eq!(keys(store, "l/a").await, &all[1..8]);
    assert_eq!(keys(store, "l/a/").await, &all[4..6]);
    assert_eq!(keys(store, "l/a/b").await, ["l/a/b/c"]);
    assert_eq!(keys(store, "l/a/b/c").await, ["l/a/b/c"], "a whole key is a prefix too");
    for nothing in ["l/a/b/c/", "l/a/b/cd", "l/x", "x/y/z", "L"] {
        assert_eq!(store.list(nothing).await.unwrap(), [], "{nothing}");
    }
    assert_eq!(store.list("l/a/0").await.unwrap(), [ObjectInfo { key: "l/a/0".to_owned(), size: 5 }]);
    for key in all {
        store.delete(key).await.unwrap();
    }
    assert_eq!(store.list("l").await.unwrap(), []);
}

async fn odd_keys(store: &dyn Store) {
    let odd = ["odd/ space", "odd/%41", "odd/+&=;,'()!$@~", "odd/.hidden", "odd/#?", "odd/…ü", "odd/\"<>"];
    for key in odd {
        store.put(key, noise(key.len())).await.unwrap();
        assert_eq!(store.get(key).await.unwrap(), noise(key.len()), "{key}");
        assert_eq!(store.get_range(key, 1, 2).await.unwrap(), noise(key.len()).slice(1..3), "{key}");
        assert_eq!(keys(store, key).await, [key]);
    }
    let mut sorted = odd.map(str::to_owned);
    sorted.sort_unstable();
    assert_eq!(keys(store, "odd/").await, sorted);
    for key in odd {
        store.delete(key).await.unwrap();
    }
}

async fn conditional(store: &dyn Store, conditions: Conditions) {
    let first = store.put_if_absent("once/a", noise(10)).await.unwrap();
    let second = store.put_if_absent("once/a", noise(20)).await.unwrap();
    let third = store.put_if_absent("once/a", noise(10)).await.unwrap();
    match conditions {
        Conditions::Honoured => {
            let expected = [PutIfAbsent::Created, PutIfAbsent::Exists, PutIfAbsent::Exists];
            assert_eq!([first, second, third], expected, "the same content again is not ours either");
            assert_eq!(store.get("once/a").await.unwrap(), noise(10));
            let race = (0..16).map(|racer| store.put_if_absent("once/b", noise(100 + racer)));
            let results: Vec<PutIfAbsent> = join_all(race).await.into_iter().map(Result::unwrap).collect();
            let winners: Vec<usize> = (0..16).filter(|racer| results[*racer] == PutIfAbsent::Created).collect();
            assert_eq!(winners.len(), 1, "{results:?}");
            assert_eq!(store.get("once/b").await.unwrap(), noise(100 + winners[0]));
        }
        Conditions::Ignored => assert_eq!([first, second, third], [PutIfAbsent::Created; 3]),
        Conditions::Refused => {
            assert_eq!([first, second, third], [PutIfAbsent::Unsupported; 3]);
            assert_eq!(store.size("once/a").await.unwrap(), None);
        }
    }
}

async fn many_at_once(store: &dyn Store) {
    let tasks = (0..64).map(|task| async move {
        let key = format!("many/{}/{task}", task % 3);
        store.put(&key, noise(task * 100)).await.unwrap();
        assert!(keys(store, "many/").await.contains(&key), "a LIST after the PUT shows {key}");
        assert_eq!(store.get(&key).await.unwrap(), noise(task * 100));
    });
    join_all(tasks).await;
    assert_eq!(store.list("many/").await.unwrap().len(), 64);
}

/// A reader during a PUT sees the old object or the new one.
async fn never_torn(store: &dyn Store) {
    let (old, new) = (noise(300_000), noise(400_000));
    store.put("torn/object", old.clone()).await.unwrap();
    let writer = async {
        for round in 0..12 {
            store.put("torn/object", if round % 2 == 0 { new.clone() } else { old.clone() }).await.unwrap();
        }
    };
    let readers = (0..4).map(|_| async {
        for _ in 0..12 {
            let found = store.get("torn/object").await.unwrap();
            assert!(found == old || found == new, "{} bytes of neither", found.len());
            let listed = store.list("torn/").await.unwrap();
            assert_eq!(listed.len(), 1, "{listed:?}");
            assert!([300_000, 400_000].contains(&listed[0].size), "{listed:?}");
        }
    });
    tokio::join!(writer, join_all(readers));
}

/// Objects that come and go beside each other: on a local disk, directories do too.
async fn come_and_go(store: &dyn Store) {
    let tasks = (0..16).map(|task| async move {
        for round in 0..8 {
            let key = format!("go/{}/deep/{task}", round % 2);
            store.put(&key, noise(task)).await.unwrap();
            assert_eq!(store.get(&key).await.unwrap(), noise(task));
            store.delete(&key).await.unwrap();
            assert!(!keys(store, "go/").await.contains(&key), "a LIST after the DELETE does not show {key}");
        }
    });
    join_all(tasks).await;
    assert_eq!(store.list("go/").await.unwrap(), []);
}
