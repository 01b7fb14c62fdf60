//! Commit and collection: writers side by side, writers that are fenced off, that die at any call, whose acknowledgements are lost; and
//! packs that are condemned. The model of the same protocol is `tests/model/gc_model.py`.

#[path = "support/tree.rs"]
mod tree;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use tree::{Place, describe, differences, files_below, noise};
use voltool::repo::{Lock, RepoError, Repository, SnapshotRecord};
use voltool::snapshot::{self, Backup};
use voltool::store::fault::{Call, Fault, FaultStore};
use voltool::store::record::{RecordStore, Verb};
use voltool::store::{ErrorKind, ObjectInfo, PutIfAbsent, Result, Store};

/// Restores a snapshot as a host that has never been here, and compares it with what is in the source now.
async fn assert_restores(place: &Place, record: &SnapshotRecord) {
    let repo = place.try_open(place.store(), "nowhere").await.unwrap();
    let (restored, facts) = place.restore(&repo, record).await.unwrap();
    assert_eq!(restored.problems, []);
    let want = describe(&place.source(&record.volume).root);
    assert_eq!(differences(&want, &facts), [""; 0]);
    fs::remove_dir_all(place.path("nowhere")).unwrap();
}

async fn snapshots(place: &Place) -> Vec<Arc<SnapshotRecord>> {
    let found = place.try_open(place.store(), "nowhere").await.unwrap().snapshots().await.unwrap();
    assert_eq!(found.damaged.len(), 0);
    found.records
}

fn keys(place: &Place, prefix: &str) -> Vec<String> {
    files_below(&place.repository()).into_iter().filter(|key| key.starts_with(prefix)).collect()
}

/// Every interleaving in a small world: safe as it is, and unsafe with each mistake that the model can make.
#[test]
fn the_model() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/model/gc_model.py");
    let output = std::process::Command::new("python3").arg(model).output().expect("python3 starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.matches("safe, ").count() == 3 && said.matches("caught after").count() == 7, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_at_once() {
    for encrypted in [false, true] {
        let place = Place::with_repository(encrypted).await;
        let names = ["a", "b", "c"];
        names.iter().for_each(|name| drop(place.plant(name, 30)));
        let here = place.try_open(place.store(), "cache-1").await.unwrap();
        let there = place.try_open(place.store(), "cache-2").await.unwrap();
        for _ in 0..3 {
            // Two hosts, three volumes; `a` is backed up by both, each with a state folder of its own.
            let (options, a) = (place.options("other-state"), place.source("a"));
            let (one, two, three, four) = tokio::join!(
                place.backup(&here, "a"),
                place.backup(&here, "b"),
                place.backup(&there, "c"),
                snapshot::backup(&there, &a, &options, Arc::new(())),
            );
            for done in [one, two, three, four] {
                assert_restores(&place, &done.unwrap().record).await;
            }
            for name in names {
                fs::write(place.source(name).root.join("large"), noise("new", 60_000)).unwrap();
            }
        }
        assert_eq!(snapshots(&place).await.len(), 12);
        assert_eq!(keys(&place, "sessions/"), [""; 0]);
    }
}

/// A storage that puts a fence before the writers that look for one, `times` times.
fn fencing(place: &Place, times: usize) -> (FaultStore, Arc<AtomicUsize>) {
    let (root, looked) = (place.repository(), Arc::new(AtomicUsize::new(0)));
    let count = looked.clone();
    let store = FaultStore::new(place.store(), move |call| {
        if call.verb == Verb::List && call.key.starts_with("fences/") && count.fetch_add(1, Ordering::SeqCst) < times {
            fs::create_dir_all(root.join(&call.key)).unwrap();
            fs::write(root.join(&call.key).join("0"), b"").unwrap();
        }
        Fault::None
    });
    (store, looked)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_fenced_off_begins_again() {
    for times in 1..=2 {
        let place = Place::with_repository(true).await;
        place.plant("a", 30);
        let (store, looked) = fencing(&place, times);
        let calls = RecordStore::new(Arc::new(store));
        let repo = place.try_open(Arc::new(calls.clone()), "cache").await.unwrap();
        let record = place.backup(&repo, "a").await.unwrap().record;
        assert_eq!(looked.load(Ordering::SeqCst), times + 1);
        let counting: Vec<String> = snapshots(&place).await.iter().map(|r| r.id.clone()).collect();
        assert_eq!(counting, std::slice::from_ref(&record.id), "the run shows as exactly one snapshot");
        assert_eq!(keys(&place, "snapshots/").len(), times + 1);
        let forgotten = keys(&place, "forgotten/");
        assert_eq!(forgotten.len(), times);
        assert!(!forgotten.iter().any(|key| key.contains(&record.id)));
        assert_eq!(keys(&place, "sessions/"), [""; 0]);
        let packs = calls.calls().iter().filter(|c| c.verb == Verb::Put && c.key.starts_with("packs/")).count();
        assert_eq!(packs, 2, "data and metadata once: nothing is uploaded a second time");
        assert_restores(&place, &record).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_always_fenced_off_gives_up() {
    let place = Place::with_repository(false).await;
    place.plant("a", 10);
    let before = place.backup(&place.open().await, "a").await.unwrap().record;
    let (store, _) = fencing(&place, usize::MAX);
    let repo = place.try_open(Arc::new(store), "cache").await.unwrap();
    let error = place.backup(&repo, "a").await.unwrap_err();
    assert!(matches!(error, RepoError::Fenced(3)), "{error}");
    let counting: Vec<String> = snapshots(&place).await.iter().map(|r| r.id.clone()).collect();
    assert_eq!(counting, std::slice::from_ref(&before.id));
    assert_restores(&place, &before).await;
}

/// What is condemned is gone for new snapshots: it is neither found by deduplication nor carried over from the parent.
#[tokio::test(flavor = "multi_thread")]
async fn condemned_packs_are_stored_again() {
    for (encrypted, keep_state, which) in [
        (false, true, ".pack"),
        (true, true, ".pack"),
        (false, false, ".pack"),
        (false, true, "/0.pack"),
        (true, true, "/1.pack"),
    ] {
        let place = Place::with_repository(encrypted).await;
        let root = place.plant("a", 30).root;
        // So large that its segments stand in lists.
        fs::write(root.join("pages.img"), noise("pages", 5 << 20)).unwrap();
        tree::age(&root);
        let repo = place.open().await;
        let first = place.backup(&repo, "a").await.unwrap().record;
        let condemned: Vec<String> = keys(&place, "packs/").into_iter().filter(|key| key.ends_with(which)).collect();
        let json = serde_json::json!({"epoch": 0, "condemned": condemned}).to_string();
        place.store().put("gc/0.json", json.into()).await.unwrap();
        if !keep_state {
            fs::remove_dir_all(place.path("state")).unwrap();
        }
        let second = place.backup(&repo, "a").await.unwrap().record;
        // And a third one, which finds everything in what the second one stored.
        let third = place.backup(&repo, "a").await.unwrap().record;
        assert_eq!(third.added_bytes, 0);
        for key in &condemned {
            place.store().delete(key).await.unwrap();
        }
        assert!(!condemned.is_empty() && second.id != first.id);
        assert_restores(&place, &second).await;
        assert_restores(&place, &third).await;
        // With the old index still there, and the cache that knows the deleted packs, too.
        let (restored, facts) = place.restore(&place.open().await, &third).await.unwrap();
        assert_eq!((restored.problems, differences(&describe(&root), &facts)), (vec![], vec![]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rejected_or_forgotten_does_not_count() {
    let place = Place::with_repository(true).await;
    let root = place.plant("a", 10).root;
    let repo = place.open().await;
    let mut ids = Vec::new();
    for n in 0..3 {
        fs::write(root.join("changing"), noise(&n.to_string(), 3_000)).unwrap();
        ids.push(place.backup(&repo, "a").await.unwrap().record.id);
    }
    let store = place.store();
    let counting = async || snapshots(&place).await.iter().map(|r| r.id.clone()).collect::<Vec<_>>();
    assert_eq!(counting().await, ids);
    store.put(&format!("forgotten/{}.json", ids[1]), "{}".into()).await.unwrap();
    assert_eq!(counting().await, [ids[0].clone(), ids[2].clone()]);
    let decided = serde_json::json!({"epoch": 4, "rejected": [ids[2]]}).to_string();
    store.put("gc/4.decided", decided.into()).await.unwrap();
    assert_eq!(counting().await, [ids[0].clone()]);
    // The local state belongs to a snapshot that no longer counts: it is no parent.
    let record = place.backup(&repo, "a").await.unwrap().record;
    assert_eq!(record.parent.as_ref(), Some(&ids[0]));
    assert_restores(&place, &record).await;
    // Forgetting can be undone.
    store.delete(&format!("forgotten/{}.json", ids[1])).await.unwrap();
    assert_eq!(counting().await, [ids[0].clone(), ids[1].clone(), record.id]);
}

/// What a writer uploaded before it died is used by the next one.
#[tokio::test(flavor = "multi_thread")]
async fn packs_of_a_dead_writer_are_adopted() {
    for last_words in ["index/", "snapshots/"] {
        for encrypted in [false, true] {
            let place = Place::with_repository(encrypted).await;
            place.plant("a", 30);
            let is_last = move |call: &Call| call.verb.is_write() && call.key.starts_with(last_words);
            let store =
                FaultStore::new(place.store(), move |call| if is_last(call) { Fault::Stop } else { Fault::None });
            let repo = place.try_open(Arc::new(store), "cache-1").await.unwrap();
            place.backup(&repo, "a").await.unwrap_err();
            assert_eq!((keys(&place, "packs/").len(), keys(&place, "sessions/").len()), (2, 1));
            assert_eq!(snapshots(&place).await.len(), 0);

            // Another host, which knows nothing of it.
            let calls = RecordStore::new(place.store());
            let repo = place.try_open(Arc::new(calls.clone()), "cache-2").await.unwrap();
            let record = place.backup(&repo, "a").await.unwrap().record;
            assert_restores(&place, &record).await;
            let packs: Vec<_> =
                calls.calls().into_iter().filter(|c| c.verb == Verb::Put && c.key.contains(".pack")).collect();
            assert_eq!(packs, [], "{last_words}");
            assert_eq!(record.added_bytes, 0);
        }
    }
}

/// Runs a backup of `a` as a new process whose `k`th call on the storage meets `fault`. `None` if it makes fewer calls.
async fn backup_with_fault(place: &Place, k: u64, fault: Fault) -> Option<voltool::repo::Result<Backup>> {
    let store = FaultStore::new(place.store(), move |call| if call.number == k { fault } else { Fault::None });
    let done = match place.try_open(Arc::new(store.clone()), "faulty").await {
        Ok(repo) => place.backup(&repo, "a").await,
        Err(e) => Err(e),
    };
    (store.calls() > k).then_some(done)
}

/// Breaks each call of a backup in turn. Whatever happens, what is committed restores, and the next backup succeeds.
async fn enumerate(encrypted: bool, with_parent: bool, fault: Fault) {
    let original = Place::with_repository(encrypted).await;
    let root = original.plant("a", 6).root;
    let mut committed = None;
    if with_parent {
        let record = original.backup(&original.open().await, "a").await.unwrap().record;
        committed = Some((record.id, describe(&root)));
        fs::write(root.join("large"), noise("changed", 90_000)).unwrap();
        fs::remove_file(root.join("repeated")).unwrap();
        tree::age(&root);
    }
    let now = describe(&root);
    let mut failures = 0;
    for k in 0.. {
        let place = original.copy();
        let Some(done) = backup_with_fault(&place, k, fault).await else {
            // open, list, write: there is no backup with fewer.
            assert!(k > 12 && failures > 8, "{k} calls, {failures} failures");
            return;
        };
        let seen = snapshots(&place).await;
        match &done {
            Ok(backup) => assert!(seen.iter().any(|r| r.id == backup.record.id), "call {k}: reported, but not there"),
            Err(_) => failures += 1,
        }
        let repo = place.try_open(place.store(), "clean").await.unwrap();
        for record in &seen {
            let want = committed.as_ref().filter(|(id, _)| *id == record.id).map_or(&now, |(_, facts)| facts);
            let (restored, facts) = place.restore(&repo, record).await.unwrap();
            assert_eq!(restored.problems, [], "call {k}: {:?}", done.as_ref().err());
            assert_eq!(differences(want, &facts), [""; 0], "call {k}");
        }
        assert!(seen.len() <= usize::from(with_parent) + 1);
        // The next run, with the local files that this one has left.
        let repo = place.try_open(place.store(), "faulty").await.unwrap();
        let next = place.backup(&repo, "a").await.unwrap_or_else(|e| panic!("after call {k} broke: {e}")).record;
        let repo = place.try_open(place.store(), "clean").await.unwrap();
        let (restored, facts) = place.restore(&repo, &next).await.unwrap();
        assert_eq!((restored.problems, differences(&now, &facts)), (vec![], vec![]), "call {k}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_dies_at_any_call() {
    enumerate(false, true, Fault::Stop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_writer_dies_at_any_call() {
    enumerate(true, false, Fault::Stop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_call_fails() {
    enumerate(true, true, Fault::FailBefore(ErrorKind::Unreachable)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_acknowledgement_is_lost() {
    enumerate(false, true, Fault::FailAfter(ErrorKind::Unreachable)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_answer_is_cut_short() {
    enumerate_reads(Fault::Truncate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_answer_is_damaged() {
    enumerate_reads(Fault::Corrupt).await;
}

/// As [`enumerate`], for what happens to the answers of reads: a backup need not notice, but nothing wrong may come of it.
async fn enumerate_reads(fault: Fault) {
    for encrypted in [false, true] {
        let original = Place::with_repository(encrypted).await;
        let root = original.plant("a", 6).root;
        original.backup(&original.open().await, "a").await.unwrap();
        // Without it the listing is read from the repository.
        fs::remove_dir_all(original.path("state")).unwrap();
        let now = describe(&root);
        for k in 0.. {
            let place = original.copy();
            let Some(_) = backup_with_fault(&place, k, fault).await else { break };
            let repo = place.try_open(place.store(), "clean").await.unwrap();
            for record in snapshots(&place).await {
                let (restored, facts) = place.restore(&repo, &record).await.unwrap();
                assert_eq!((restored.problems, differences(&now, &facts)), (vec![], vec![]), "call {k}");
            }
        }
    }
}

/// A storage on which conditional writes mean nothing.
#[derive(Debug)]
struct Unconditional {
    inner: Arc<dyn Store>,
    /// What it says of them.
    answer: PutIfAbsent,
}

#[async_trait]
impl Store for Unconditional {
    fn url(&self) -> String {
        self.inner.url()
    }
    async fn put(&self, key: &str, data: Bytes) -> Result<()> {
        self.inner.put(key, data).await
    }
    async fn put_if_absent(&self, key: &str, data: Bytes) -> Result<PutIfAbsent> {
        if self.answer == PutIfAbsent::Created {
            self.inner.put(key, data).await?;
        }
        Ok(self.answer)
    }
    async fn get(&self, key: &str) -> Result<Bytes> {
        self.inner.get(key).await
    }
    async fn get_range(&self, key: &str, offset: u64, len: u64) -> Result<Bytes> {
        self.inner.get_range(key, offset, len).await
    }
    async fn get_tail(&self, key: &str, len: u64) -> Result<(Bytes, u64)> {
        self.inner.get_tail(key, len).await
    }
    async fn size(&self, key: &str) -> Result<Option<u64>> {
        self.inner.size(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        self.inner.list(prefix).await
    }
    async fn delete(&self, key: &str) -> Result<()> {
        self.inner.delete(key).await
    }
    async fn prepare(&self) -> Result<()> {
        self.inner.prepare().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_rests_on_conditional_writes() {
    for answer in [PutIfAbsent::Created, PutIfAbsent::Unsupported] {
        let place = Place::new(true);
        let store: Arc<dyn Store> = Arc::new(Unconditional { inner: place.store(), answer });
        place.create(store.clone()).await;
        ["a", "b"].iter().for_each(|name| drop(place.plant(name, 10)));
        let repo = place.try_open(store, "cache").await.unwrap();
        let (a, b) = tokio::join!(place.backup(&repo, "a"), place.backup(&repo, "b"));
        for done in [a, b, place.backup(&repo, "a").await] {
            assert_restores(&place, &done.unwrap().record).await;
        }
        assert_eq!(snapshots(&place).await.len(), 3);
        let again = Repository::create(repo.store().clone(), &Lock::Nobody, tree::SMALL, None, &place.path("x")).await;
        assert!(matches!(again.unwrap_err(), RepoError::AlreadyExists { .. }));
    }
}
