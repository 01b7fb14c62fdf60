//! What operations cost in requests to the storage. Requests are money and, over a distance, time; nothing here looks at a clock.

#[path = "support/tree.rs"]
mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use tree::{Place, describe, differences, noise};
use voltool::repo::{Repository, SnapshotRecord};
use voltool::store::record::{RecordStore, RecordedCall, Verb};

/// A place with a repository, and a recorder in front of its storage.
struct Counted {
    place: Place,
    calls: RecordStore,
}

impl Counted {
    async fn new() -> Counted {
        let place = Place::with_repository(true).await;
        let calls = RecordStore::new(place.store());
        Counted { place, calls }
    }

    /// Opens the repository as a new process, with that cache.
    async fn open(&self, cache: &str) -> Arc<Repository> {
        self.place.try_open(Arc::new(self.calls.clone()), cache).await.unwrap()
    }

    /// The calls since the last time, as "verb first-part-of-key", in the order in which they finished.
    fn take(&self) -> Vec<String> {
        let show = |call: &RecordedCall| format!("{} {}", call.verb, call.key.split('/').next().unwrap_or_default());
        self.calls.take().iter().map(show).collect()
    }

    fn sorted(&self) -> Vec<String> {
        let mut calls = self.take();
        calls.sort();
        calls
    }
}

/// What opening a repository and its index asks for when both are in the cache.
const OPEN: [&str; 2] = ["get voltool.json", "list index"];
/// What reading the list of snapshots asks for when all are in the cache.
const SNAPSHOTS: [&str; 3] = ["list forgotten", "list gc", "list snapshots"];
/// What a session asks for that stores nothing.
const SESSION: [&str; 7] = [
    "list sessions",
    "put sessions",
    "list gc",
    "list packs",
    "put_if_absent snapshots",
    "list fences",
    "delete sessions",
];

fn sum(parts: &[&[&str]]) -> Vec<String> {
    let mut all: Vec<String> = parts.iter().flat_map(|part| part.iter().map(|call| (*call).to_owned())).collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_backup() {
    let counted = Counted::new().await;
    counted.place.plant("a", 300);
    counted.place.backup(&counted.open("cache").await, "a").await.unwrap();
    counted.take();
    for _ in 0..3 {
        let repo = counted.open("cache").await;
        let record = counted.place.backup(&repo, "a").await.unwrap().record;
        assert_eq!((record.added_bytes, record.stored_bytes), (0, 0));
        // A dozen requests, none of which carries data but the session and the record.
        assert_eq!(counted.sorted(), sum(&[&OPEN, &SNAPSHOTS, &SESSION]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_lost_its_state_reads_the_listing_from_the_cache() {
    let counted = Counted::new().await;
    counted.place.plant("a", 300);
    counted.place.backup(&counted.open("cache").await, "a").await.unwrap();
    fs::remove_dir_all(counted.place.path("state")).unwrap();
    counted.take();
    counted.place.backup(&counted.open("cache").await, "a").await.unwrap();
    assert_eq!(counted.sorted(), sum(&[&OPEN, &SNAPSHOTS, &SESSION]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_change() {
    let counted = Counted::new().await;
    let root = counted.place.plant("a", 300).root;
    counted.place.backup(&counted.open("cache").await, "a").await.unwrap();
    fs::write(root.join("new"), noise("new", 3_000)).unwrap();
    counted.take();
    counted.place.backup(&counted.open("cache").await, "a").await.unwrap();
    // One pack of data, one of metadata, one index.
    let stored = ["put packs", "put packs", "put index"];
    assert_eq!(counted.sorted(), sum(&[&OPEN, &SNAPSHOTS, &SESSION, &stored]));
    // Small ones: the new file, and the leaf that it stands in.
    counted.place.backup(&counted.open("cache").await, "a").await.unwrap();
    let sent: u64 = counted.calls.calls().iter().filter(|c| c.key.starts_with("packs/")).map(|c| c.bytes).sum();
    assert!(sent < 200_000, "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_snapshots() {
    let counted = Counted::new().await;
    let root = counted.place.plant("a", 3).root;
    for n in 0..5 {
        fs::write(root.join("new"), noise(&n.to_string(), 100)).unwrap();
        counted.place.backup(&counted.open("cache").await, "a").await.unwrap();
    }
    counted.take();
    for (cache, records) in [("cache", 0), ("another", 5), ("another", 0)] {
        let unlock: Vec<_> = counted.place.identity.iter().cloned().map(voltool::repo::Unlock::Identity).collect();
        let store = Arc::new(counted.calls.clone());
        let repo = Repository::open(store, &unlock, &counted.place.path(cache)).await.unwrap();
        assert_eq!(repo.snapshots().await.unwrap().records.len(), 5);
        let opened: &[&str] =
            if records == 0 { &["get voltool.json"] } else { &["get voltool.json", "list keys", "get keys"] };
        assert_eq!(counted.sorted(), sum(&[opened, &SNAPSHOTS, &vec!["get snapshots"; records]]));
    }
}

/// Ranged GETs by pack: none overlaps another.
fn ranges(calls: &[RecordedCall]) -> BTreeMap<String, u64> {
    let mut packs = BTreeMap::new();
    for call in calls.iter().filter(|c| c.verb == Verb::GetRange) {
        *packs.entry(call.key.clone()).or_insert(0) += 1;
    }
    packs
}

fn stored(place: &Place, key: &str) -> u64 {
    fs::metadata(place.repository().join(key)).unwrap().len()
}

async fn restores(counted: &Counted, cache: &str, record: &SnapshotRecord) -> Vec<RecordedCall> {
    let repo = counted.open(cache).await;
    counted.take();
    let (restored, facts) = counted.place.restore(&repo, record).await.unwrap();
    assert_eq!(restored.problems, []);
    assert_eq!(differences(&describe(&counted.place.source("a").root), &facts), [""; 0]);
    counted.calls.take()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_reads_each_pack_once() {
    let counted = Counted::new().await;
    let root = counted.place.plant("a", 300).root;
    // Two packs of data and a little.
    fs::write(root.join("huge"), noise("huge", 34 << 20)).unwrap();
    counted.place.backup(&counted.open("cache").await, "a").await.unwrap();
    fs::write(root.join("new"), noise("new", 30_000)).unwrap();
    let record = counted.place.backup(&counted.open("cache").await, "a").await.unwrap().record;

    // With a warm cache: content, and nothing else; in pieces of 4 MiB, and no byte twice.
    let calls = restores(&counted, "cache", &record).await;
    assert!(calls.iter().all(|c| c.verb == Verb::GetRange && c.key.starts_with("packs/")), "{calls:?}");
    let packs = ranges(&calls);
    assert_eq!(packs.len(), 4, "{packs:?}");
    for (pack, requests) in &packs {
        let size = stored(&counted.place, pack);
        let received: u64 = calls.iter().filter(|c| c.key == *pack).map(|c| c.bytes).sum();
        // Ranges begin and end in blocks of 64 KiB, of which neighbours share one.
        assert!(received <= size + requests * (128 << 10), "{pack} has {size} bytes, {received} were read");
        assert!(*requests <= size / (3 << 20) + 1, "{requests} requests for {size} bytes of {pack}");
    }

    // Without a cache the listing comes with its packs: each of them once, whole.
    let calls = restores(&counted, "cold", &record).await;
    let whole: Vec<&RecordedCall> = calls.iter().filter(|c| c.verb != Verb::GetRange).collect();
    assert!(whole.len() <= 2 && whole.iter().all(|c| c.verb == Verb::Get && c.key.starts_with("packs/")), "{whole:?}");
    assert_eq!(ranges(&calls), packs);
    // And then it is in the cache.
    assert!(restores(&counted, "cold", &record).await.iter().all(|c| c.verb == Verb::GetRange));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_files_cost_a_few_requests() {
    let counted = Counted::new().await;
    let root = counted.place.plant("a", 300).root;
    fs::write(root.join("huge"), noise("huge", 20 << 20)).unwrap();
    let record = counted.place.backup(&counted.open("cache").await, "a").await.unwrap().record;
    let repo = counted.open("cache").await;
    counted.take();
    let (restored, facts) =
        counted.place.restore_some(&repo, &record, &["many/file-0007", "many/deep/er/text"]).await.unwrap();
    assert_eq!((restored.problems, restored.files, facts.len()), (vec![], 2, 6));
    let calls = counted.calls.take();
    assert!(calls.len() <= 2 && calls.iter().all(|c| c.verb == Verb::GetRange), "{calls:?}");
    assert!(calls.iter().map(|c| c.bytes).sum::<u64>() < 1 << 20, "{calls:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_looked_for_once() {
    let counted = Counted::new().await;
    counted.place.plant("a", 300);
    let record = counted.place.backup(&counted.open("cache").await, "a").await.unwrap().record;
    // Neither an index nor the data: dozens of chunks are nowhere.
    fs::remove_dir_all(counted.place.repository().join("index")).unwrap();
    let session = counted.place.repository().join(format!("packs/{}", record.id));
    fs::write(session.join("0.pack"), b"gone").unwrap();
    let repo = counted.open("cold").await;
    counted.take();
    let (restored, _) = counted.place.restore(&repo, &record).await.unwrap();
    assert!(restored.problems.len() > 300, "{}", restored.problems.len());
    let calls = counted.take();
    assert!(calls.len() < 12, "{} requests: {calls:?}", calls.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_cache_everything_works() {
    let counted = Counted::new().await;
    let root = counted.place.plant("a", 100).root;
    for n in 0..4 {
        fs::write(root.join("new"), noise(&n.to_string(), 20_000)).unwrap();
        let repo = counted.open(&format!("cache-{n}")).await;
        let record = counted.place.backup(&repo, "a").await.unwrap().record;
        assert!(n == 0 || record.added_bytes < 100_000, "{} bytes are new", record.added_bytes);
        restores(&counted, &format!("restore-{n}"), &record).await;
        // In the middle of a process, too.
        fs::remove_dir_all(counted.place.path(&format!("cache-{n}"))).unwrap();
        let (restored, facts) = counted.place.restore(&repo, &record).await.unwrap();
        assert_eq!((restored.problems, differences(&describe(&root), &facts)), (vec![], vec![]));
    }
}

/// More segments than are searched one by one are merged locally, once.
#[tokio::test(flavor = "multi_thread")]
async fn many_index_segments() {
    let counted = Counted::new().await;
    let root = counted.place.plant("a", 3).root;
    for n in 0..16 {
        fs::write(root.join("new"), noise(&n.to_string(), 6_000)).unwrap();
        counted.place.backup(&counted.open("cache").await, "a").await.unwrap();
    }
    counted.take();
    let repo = counted.open("cold").await;
    assert_eq!(counted.take().iter().filter(|c| *c == "get index").count(), 16);
    let records = repo.snapshots().await.unwrap().records;
    restores(&counted, "cold", &records[15]).await;
    counted.take();
    counted.open("cold").await;
    assert_eq!(counted.sorted(), sum(&[&OPEN]));
}
