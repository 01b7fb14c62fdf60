//! The lease of a shared volume: who holds it, who lost it, and whose snapshots count. The model of the protocol is
//! `tests/model/lease_model.py`.

// A test that cannot run here says so.
#![allow(clippy::print_stdout)]

#[path = "../support/mod.rs"]
mod support;
#[path = "../support/tree.rs"]
mod tree;

mod chaos;
mod random;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chaos::Memory;
use support::mem_s3::{Condition, MemS3};
use tree::{Place, files_below};
use ulid::Ulid;
use voltool::repo::heartbeat::{Heartbeat, Observer};
use voltool::repo::lease::{Acquired, HeldLease, Holder, Host, Lease, Previous, Standing};
use voltool::repo::{ChunkerParams, Lock, RepoError, Repository, SnapshotRecord};
use voltool::snapshot::{self, Backup};
use voltool::store::fault::{Call, Fault, FaultStore};
use voltool::store::local::LocalStore;
use voltool::store::record::{RecordStore, Verb};
use voltool::store::s3::S3Store;
use voltool::store::{ErrorKind, S3Options, Store};

/// Every interleaving in a small world: safe as it is, and unsafe with each mistake that the model can make.
#[test]
fn the_model() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/model/lease_model.py");
    let output = std::process::Command::new("python3").arg(model).output().expect("python3 starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.matches("safe, ").count() == 4 && said.matches("caught after").count() == 14, "{said}");
}

fn host(name: &str) -> Host {
    Host { id: Ulid::generate(), name: name.into() }
}

/// Asks for the lease of `a`, which must be given.
async fn acquire(repo: &Arc<Repository>, host: &Host, last: Option<HeldLease>) -> (Lease, Previous) {
    match Lease::acquire(repo, "engine", "a", host, last).await.unwrap() {
        Acquired::Held(lease, previous) => (lease, previous),
        Acquired::Busy(holder) => panic!("it is busy: {holder}"),
    }
}

async fn busy(repo: &Arc<Repository>, host: &Host) -> Holder {
    match Lease::acquire(repo, "engine", "a", host, None).await.unwrap() {
        Acquired::Busy(holder) => holder,
        Acquired::Held(lease, _) => panic!("it is given: {:?}", lease.held()),
    }
}

async fn take_over(repo: &Arc<Repository>, host: &Host, from: &Holder) -> (Lease, Previous) {
    match Lease::take_over(repo, "engine", "a", host, None, from).await.unwrap() {
        Acquired::Held(lease, previous) => (lease, previous),
        Acquired::Busy(holder) => panic!("it is busy: {holder}"),
    }
}

fn keys(place: &Place, prefix: &str) -> Vec<String> {
    files_below(&place.repository()).into_iter().filter(|key| key.starts_with(prefix)).collect()
}

/// Backs `a` up under a lease.
async fn backup(place: &Place, repo: &Arc<Repository>, lease: Option<HeldLease>) -> voltool::repo::Result<Backup> {
    let mut source = place.source("a");
    source.lease = lease;
    snapshot::backup(repo, &source, &place.options("state"), Arc::new(())).await
}

async fn newest(place: &Place) -> Option<SnapshotRecord> {
    let repo = place.try_open(place.store(), "somebody").await.unwrap();
    repo.snapshots_of("engine", "a").await.unwrap().records.last().map(|record| (**record).clone())
}

#[tokio::test]
async fn from_host_to_host() {
    for encrypted in [false, true] {
        let place = Place::with_repository(encrypted).await;
        let (repo, one, two) = (place.open().await, host("one-host"), host("two-host"));
        assert_eq!(Lease::holder(&repo, "engine", "a").await.unwrap(), None);
        let (lease, previous) = acquire(&repo, &one, None).await;
        assert_eq!((lease.held().epoch, previous), (1, Previous::Nobody));
        assert_eq!(lease.check().await.unwrap(), Standing::Ours);
        // Another volume, or one of another engine, is another lease.
        for (engine, volume) in [("engine", "b"), ("other", "a")] {
            let other = Lease::acquire(&repo, engine, volume, &two, None).await.unwrap();
            assert!(matches!(other, Acquired::Held(_, Previous::Nobody)), "{other:?}");
        }

        let holder = busy(&repo, &two).await;
        assert_eq!((holder.lease, holder.host.as_ref()), (lease.held(), Some(&one)));
        assert_eq!(holder.to_string(), "host one-host (epoch 1)");
        assert_eq!(Lease::holder(&repo, "engine", "a").await.unwrap(), Some(holder));
        // Who is refused leaves nothing.
        assert_eq!(keys(&place, "leases/").len(), 6);

        // As a daemon does that begins again with what is on its disk.
        let json = serde_json::to_string(&lease.held()).unwrap();
        assert_eq!(json, format!(r#"{{"epoch":1,"claim":"{}"}}"#, lease.held().claim));
        let resumed = Lease::resume(&repo, "engine", "a", serde_json::from_str(&json).unwrap());
        assert_eq!(resumed.check().await.unwrap(), Standing::Ours);

        resumed.release().await.unwrap();
        assert_eq!(lease.check().await.unwrap(), Standing::Lost(None));
        assert_eq!(Lease::holder(&repo, "engine", "a").await.unwrap(), None);
        let first = lease.held();
        let (lease, previous) = acquire(&repo, &one, Some(first)).await;
        assert_eq!((lease.held().epoch, previous), (2, Previous::Ours));
        lease.release().await.unwrap();
        let second = lease.held();
        let (lease, previous) = acquire(&repo, &two, None).await;
        let Previous::Another(holder) = previous else { panic!("{previous:?}") };
        assert_eq!((lease.held().epoch, holder.lease, holder.host.as_ref()), (3, second, Some(&one)));
        lease.tidy().await.unwrap();
        lease.release().await.unwrap();
        // Its copy is no longer current, and it need not know of what was tidied up.
        let (lease, previous) = acquire(&repo, &one, Some(second)).await;
        let Previous::Another(holder) = previous else { panic!("{previous:?}") };
        assert_eq!((lease.held().epoch, holder.host.as_ref()), (4, Some(&two)));

        lease.tidy().await.unwrap();
        let source = repo.keys().source_name("engine", "a");
        let prefix = format!("leases/{source}/0000000004.{}", lease.held().claim);
        assert_eq!(keys(&place, &format!("leases/{source}/")), [format!("{prefix}.claim"), format!("{prefix}.held")]);
        let stored = fs::read(place.repository().join(format!("{prefix}.held"))).unwrap();
        let shows = String::from_utf8_lossy(&stored).contains("one-host");
        assert_eq!(shows, !encrypted, "names are encrypted like everything else");
    }
}

#[tokio::test]
async fn a_take_over_fences_the_holder_that_was_seen_and_no_other() {
    let place = Place::with_repository(true).await;
    let (repo, one, two, three) = (place.open().await, host("one"), host("two"), host("three"));
    let (first, _) = acquire(&repo, &one, None).await;
    let seen = busy(&repo, &two).await;
    let (second, previous) = take_over(&repo, &two, &seen).await;
    assert_eq!(previous, Previous::Another(seen.clone()));
    let Standing::Lost(Some(to)) = first.check().await.unwrap() else { panic!("it is lost") };
    assert_eq!((to.lease, to.host.as_ref()), (second.held(), Some(&two)));
    let error = first.ensure().await.unwrap_err();
    assert_eq!(error.to_string(), "the lease of volume a (epoch 1) is lost: it is now that of host two (epoch 2)");
    assert_eq!(second.check().await.unwrap(), Standing::Ours);
    // Giving back what is lost takes nothing from the new holder.
    first.release().await.unwrap();
    assert_eq!(second.check().await.unwrap(), Standing::Ours);

    // Somebody else holds by now.
    let done = Lease::take_over(&repo, "engine", "a", &three, None, &seen).await.unwrap();
    assert!(matches!(&done, Acquired::Busy(holder) if holder.host.as_ref() == Some(&two)), "{done:?}");
    assert_eq!(second.check().await.unwrap(), Standing::Ours);

    // A holder whose object is damaged is a holder all the same.
    let held = keys(&place, "leases/").into_iter().rfind(|key| key.ends_with(".held")).unwrap();
    fs::write(place.repository().join(held), b"?").unwrap();
    let nameless = busy(&repo, &three).await;
    assert_eq!((nameless.lease, nameless.host.as_ref()), (second.held(), None));
    let (third, _) = take_over(&repo, &three, &nameless).await;
    assert_eq!(third.held().epoch, 3);
}

/// A host that dies at any call leaves a lease that is free, its own, or can be taken over.
#[tokio::test]
async fn a_host_dies_at_any_call() {
    let (zero, one) = (host("zero"), host("one"));
    for fault in [Fault::Stop, Fault::FailAfter(ErrorKind::Unreachable), Fault::FailBefore(ErrorKind::Unreachable)] {
        for k in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let memory = Arc::new(Memory::default());
            let cache = |name: &str| dir.path().join(name);
            Repository::create(memory.clone(), &Lock::Nobody, ChunkerParams::default(), None, &cache("0"))
                .await
                .unwrap();
            let repo = Arc::new(Repository::open(memory.clone(), &[], &cache("0")).await.unwrap());
            let (before, _) = acquire(&repo, &zero, None).await;
            before.release().await.unwrap();
            let seen = |call: &Call| call.key.starts_with("leases/");
            let count = AtomicUsize::new(0);
            let broken = move |call: &Call| match seen(call) && count.fetch_add(1, Ordering::SeqCst) == k {
                true => fault,
                false => Fault::None,
            };
            let store = FaultStore::new(memory.clone(), broken);
            let repo = Arc::new(Repository::open(Arc::new(store), &[], &cache("1")).await.unwrap());
            let done = Lease::acquire(&repo, "engine", "a", &one, None).await;
            if done.is_ok() {
                assert_eq!(k, 6, "LIST, PUT, LIST, PUT, LIST, GET; or nothing was broken");
                break;
            }
            // The same host has it as soon as it asks again, and knows that it did not come to use the volume.
            let repo = Arc::new(Repository::open(memory.clone(), &[], &cache("2")).await.unwrap());
            let left = Lease::holder(&repo, "engine", "a").await.unwrap();
            if let Some(left) = &left {
                assert!(fault == Fault::Stop, "call {k}: who failed and lives takes back what it put");
                assert_eq!(busy(&repo, &host("two")).await, *left);
            }
            let (lease, previous) = acquire(&repo, &one, None).await;
            let Previous::Another(previous) = previous else { panic!("call {k}: {previous:?}") };
            assert_eq!(previous.lease, before.held(), "call {k}");
            lease.tidy().await.unwrap();
            assert_eq!(memory.keys("leases/").len(), 2);
        }
    }
}

/// Who stops waiting does not keep others waiting.
#[tokio::test]
async fn a_lease_that_nobody_waits_for_is_released() {
    let place = Place::with_repository(false).await;
    let slow = FaultStore::new(place.store(), |_| Fault::Delay(Duration::from_millis(5)));
    let (repo, slow) = (place.open().await, place.try_open(Arc::new(slow), "slow").await.unwrap());
    let (one, two) = (host("one"), host("two"));
    let gone = tokio::time::timeout(Duration::from_millis(1), Lease::acquire(&slow, "engine", "a", &one, None)).await;
    assert!(gone.is_err());
    let released = || keys(&place, "leases/").iter().any(|key| key.ends_with(".released"));
    while !released() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    acquire(&repo, &two, None).await;
}

/// Several hosts at once on a real storage.
async fn race(store: Arc<dyn Store>) {
    const HOSTS: usize = 4;
    const TIMES: usize = 3;
    let dir = tempfile::tempdir().unwrap();
    store.prepare().await.unwrap();
    let lock = Lock::Nobody;
    Repository::create(store.clone(), &lock, ChunkerParams::default(), None, &dir.path().join("0")).await.unwrap();
    let inside = Arc::new(AtomicUsize::new(0));
    let hosts = (1..=HOSTS).map(|number| {
        let (store, inside, cache) = (store.clone(), inside.clone(), dir.path().join(number.to_string()));
        tokio::spawn(async move {
            let repo = Arc::new(Repository::open(store, &[], &cache).await.unwrap());
            let (host, mut last, mut epochs) = (host(&number.to_string()), None, Vec::new());
            while epochs.len() < TIMES {
                match Lease::acquire(&repo, "e", "v", &host, last).await {
                    Ok(Acquired::Held(lease, _)) => {
                        assert_eq!(inside.swap(number, Ordering::SeqCst), 0, "somebody else holds it");
                        assert_eq!(lease.check().await.unwrap(), Standing::Ours);
                        last = Some(lease.held());
                        lease.tidy().await.unwrap();
                        epochs.push(lease.held().epoch);
                        assert_eq!(inside.swap(0, Ordering::SeqCst), number, "somebody else holds it");
                        lease.release().await.unwrap();
                    }
                    Ok(Acquired::Busy(_)) | Err(RepoError::LeaseContended { .. }) => {
                        tokio::time::sleep(Duration::from_millis(rand::random_range(1..20))).await;
                    }
                    Err(e) => panic!("{e}"),
                }
            }
            epochs
        })
    });
    let mut epochs = futures_util::future::try_join_all(hosts.collect::<Vec<_>>()).await.unwrap().concat();
    epochs.sort_unstable();
    epochs.dedup();
    assert_eq!(epochs.len(), HOSTS * TIMES, "no epoch is held twice");
    for object in store.list("").await.unwrap() {
        store.delete(&object.key).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_race_in_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    race(Arc::new(LocalStore::new(dir.path().join("repository")))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_race_on_s3_that_ignores_conditions() {
    let server = MemS3::new().condition(Condition::Ignored).page(7).serve().await;
    race(Arc::new(server.store("r"))).await;
}

/// On a real server if `VOLTOOL_TEST_S3_ENDPOINT`, `VOLTOOL_TEST_S3_BUCKET` and AWS credentials are set, as `tests/garage.sh run` does.
#[tokio::test(flavor = "multi_thread")]
async fn a_race_on_a_real_server() {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(endpoint), Some(bucket)) = (variable("VOLTOOL_TEST_S3_ENDPOINT"), variable("VOLTOOL_TEST_S3_BUCKET"))
    else {
        println!("skipped: VOLTOOL_TEST_S3_ENDPOINT and VOLTOOL_TEST_S3_BUCKET are not set");
        return;
    };
    let options = S3Options { endpoint: Some(endpoint), ..S3Options::default() };
    let prefix = format!("lease/{}", Ulid::generate());
    race(Arc::new(S3Store::connect(&bucket, &prefix, &options).await.unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_tells_the_epoch_and_a_shared_volume_needs_its_lease() {
    let place = Place::with_repository(false).await;
    place.plant("a", 5);
    let calls = RecordStore::new(place.store());
    let repo = place.try_open(Arc::new(calls.clone()), "cache").await.unwrap();
    let without = backup(&place, &repo, None).await.unwrap().record;
    let stored = |record: &SnapshotRecord| {
        let key = keys(&place, "snapshots/").into_iter().find(|key| key.contains(&record.id)).unwrap();
        let text = fs::read_to_string(place.repository().join(key)).unwrap();
        serde_json::from_str::<serde_json::Value>(text.lines().next().unwrap()).unwrap()
    };
    assert_eq!(stored(&without).get("lease"), None);
    let touched = |calls: &RecordStore| calls.calls().iter().any(|call| call.key.starts_with("leases/"));
    assert!(!touched(&calls), "a volume that is not shared costs no call");

    let (lease, _) = acquire(&repo, &host("one"), None).await;
    let with = backup(&place, &repo, Some(lease.held())).await.unwrap().record;
    assert_eq!((with.lease, &stored(&with)["lease"]), (Some(1), &serde_json::json!(1)));
    assert_eq!(with.parent.as_ref(), Some(&without.id));
    let error = backup(&place, &repo, None).await.unwrap_err();
    assert!(matches!(error, RepoError::LeaseRequired { .. }), "{error}");
    assert_eq!(newest(&place).await.unwrap().id, with.id);

    lease.release().await.unwrap();
    let error = backup(&place, &repo, Some(lease.held())).await.unwrap_err();
    assert_eq!(error.to_string(), "the lease of volume a (epoch 1) is lost: it was released or removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_lost_its_lease_cannot_commit() {
    // When it shows: before anything is read, just before the record, or when the record is there.
    for moment in ["sessions/", "packs/", "snapshots/"] {
        let place = Place::with_repository(true).await;
        place.plant("a", 5);
        let (repo, two) = (place.open().await, host("two"));
        let (lease, _) = acquire(&repo, &host("one"), None).await;
        // The new holder's objects appear at that moment.
        let seen = busy(&repo, &two).await;
        let (taken, _) = take_over(&repo, &two, &seen).await;
        let theirs = format!("{}.held", taken.held().claim);
        let key = keys(&place, "leases/").into_iter().find(|key| key.ends_with(&theirs)).unwrap();
        let path = place.repository().join(key);
        let aside = place.path("aside");
        fs::rename(&path, &aside).unwrap();
        let store = FaultStore::new(place.store(), {
            let (path, aside) = (path.clone(), aside.clone());
            move |call: &Call| {
                let now = if moment == "packs/" { call.verb == Verb::List } else { call.verb.is_write() };
                if now && call.key.starts_with(moment) && aside.exists() {
                    fs::rename(&aside, &path).unwrap();
                }
                Fault::None
            }
        });
        if moment == "sessions/" {
            fs::rename(&aside, &path).unwrap();
        }
        let repo = place.try_open(Arc::new(store), "cache").await.unwrap();
        let error = backup(&place, &repo, Some(lease.held())).await.unwrap_err();
        assert!(!aside.exists());
        let told = "the lease of volume a (epoch 1) is lost: it is now that of host two (epoch 2)";
        assert_eq!(error.to_string(), told, "{moment}");
        assert_eq!(newest(&place).await.map(|r| r.id), None);
        let put = (keys(&place, "snapshots/").len(), keys(&place, "forgotten/").len(), keys(&place, "packs/").len());
        assert_eq!(
            put,
            match moment {
                "sessions/" => (0, 0, 0),
                "packs/" => (0, 0, 2),
                _ => (1, 1, 2),
            }
        );
        // The new holder uses what was uploaded.
        let record = backup(&place, &place.open().await, Some(taken.held())).await.unwrap().record;
        assert_eq!((record.lease, newest(&place).await.map(|r| r.id)), (Some(2), Some(record.id.clone())));
        if moment != "sessions/" {
            assert_eq!(record.added_bytes, 0, "{moment}");
        }
    }
}

/// A record that turns up when the new holder has committed long since, of a host that died before it could take it back, and whose
/// clock is ahead.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_record_of_a_lost_epoch_is_not_the_newest() {
    let place = Place::with_repository(false).await;
    place.plant("a", 5);
    let (repo, two) = (place.open().await, host("two"));
    let (lease, _) = acquire(&repo, &host("one"), None).await;
    // It has looked at its lease, and the PUT of its record is under way.
    let (reached, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let store = FaultStore::new(place.store(), {
        let (reached, go) = (reached.clone(), go.clone());
        move |call: &Call| {
            if call.verb.is_write() && call.key.starts_with("snapshots/") {
                reached.store(1, Ordering::SeqCst);
                while go.load(Ordering::SeqCst) == 0 {
                    std::thread::sleep(Duration::from_millis(2));
                }
                return Fault::None;
            }
            // It dies before it looks again.
            if reached.load(Ordering::SeqCst) == 1 { Fault::Stop } else { Fault::None }
        }
    });
    let slow = place.try_open(Arc::new(store), "cache-1").await.unwrap();
    let (mut source, options, held) = (place.source("a"), place.options("state-1"), lease.held());
    let late = std::thread::spawn(move || {
        source.lease = Some(held);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(snapshot::backup(&slow, &source, &options, Arc::new(())))
    });
    while reached.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let seen = busy(&repo, &two).await;
    let (taken, _) = take_over(&repo, &two, &seen).await;
    let ours = backup(&place, &repo, Some(taken.held())).await.unwrap().record;
    go.store(1, Ordering::SeqCst);
    let error = late.join().unwrap().unwrap_err();
    assert!(!matches!(error, RepoError::LeaseLost { .. }), "it died before it could know: {error}");
    // Its clock was ahead: the record says so, and in a repository without keys anybody can make its MAC.
    let theirs = set_time(&place, &ours.id, "2099-01-01T00:00:00Z");

    let repo = place.try_open(place.store(), "new").await.unwrap();
    let ids = |records: &[Arc<SnapshotRecord>]| records.iter().map(|r| r.id.clone()).collect::<Vec<_>>();
    let expected = [theirs.clone(), ours.id.clone()];
    assert_eq!(ids(&repo.snapshots_of("engine", "a").await.unwrap().records), expected);
    assert_eq!(ids(&repo.snapshots().await.unwrap().records), expected);
    // And so sees who reads without voltool.
    let restore = |arguments: &[&str]| {
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/restore.py");
        let output = Command::new("python3").arg(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let repository = place.repository();
    let repository = repository.to_str().unwrap();
    for which in ["a", "a@2100-01-01"] {
        let (_, said) = restore(&[repository, which]);
        assert!(said.contains(&format!("snapshot {},", ours.id)), "{said}");
    }
    let (list, _) = restore(&["--list", repository]);
    assert!(list.find(&theirs).unwrap() < list.find(&ours.id).unwrap(), "{list}");
    // The late one can still be restored by its name.
    let (_, said) = restore(&[repository, &format!("a@{theirs}")]);
    assert!(said.contains(&theirs), "{said}");
}

/// Gives the one record that is not `other` another time, and returns its id. Only in a repository without encryption.
fn set_time(place: &Place, other: &str, time: &str) -> String {
    let key = keys(place, "snapshots/").into_iter().find(|key| !key.contains(other)).unwrap();
    let path = place.repository().join(&key);
    let text = fs::read_to_string(&path).unwrap();
    let line = text.lines().next().unwrap();
    let mut record: SnapshotRecord = serde_json::from_str(line).unwrap();
    record.time = time.parse().unwrap();
    fs::write(&path, record.encode(&key, &voltool::repo::Keys::plain()).unwrap()).unwrap();
    let name = Path::new(&key).file_stem().unwrap();
    name.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn heartbeats_are_seen() {
    let place = Place::with_repository(false).await;
    let (repo, one) = (place.open().await, host("one"));
    let (mut beats, mut observer) = (Heartbeat::new(one.id), Observer::new());
    assert_eq!(observer.look(&repo, one.id).await.unwrap(), Duration::ZERO, "who was never seen is not known for long");
    let unchanged = observer.look(&repo, one.id).await.unwrap();
    assert!(unchanged > Duration::ZERO);
    beats.beat(&repo).await.unwrap();
    assert_eq!(observer.look(&repo, one.id).await.unwrap(), Duration::ZERO);
    let first = observer.look(&repo, one.id).await.unwrap();
    assert!(observer.look(&repo, one.id).await.unwrap() > first);
    beats.beat(&repo).await.unwrap();
    assert_eq!(observer.look(&repo, one.id).await.unwrap(), Duration::ZERO);
    // A process that begins anew.
    Heartbeat::new(one.id).beat(&repo).await.unwrap();
    assert_eq!(observer.look(&repo, one.id).await.unwrap(), Duration::ZERO);
    assert_eq!(keys(&place, "hosts/"), [format!("hosts/{}.json", one.id)]);

    // A storage that does not answer here may not have answered there.
    let down = Arc::new(AtomicUsize::new(0));
    let store = FaultStore::new(place.store(), {
        let down = down.clone();
        move |_| match down.load(Ordering::SeqCst) {
            0 => Fault::None,
            _ => Fault::FailBefore(ErrorKind::Unreachable),
        }
    });
    let repo = place.try_open(Arc::new(store), "other").await.unwrap();
    assert!(observer.look(&repo, one.id).await.unwrap() > Duration::ZERO);
    down.store(1, Ordering::SeqCst);
    observer.look(&repo, one.id).await.unwrap_err();
    down.store(0, Ordering::SeqCst);
    assert_eq!(observer.look(&repo, one.id).await.unwrap(), Duration::ZERO);
}

/// A daemon runs all of it in tasks.
#[tokio::test(flavor = "multi_thread")]
async fn everything_can_be_spawned() {
    let place = Place::with_repository(false).await;
    let root = place.plant("a", 2).root;
    let (repo, one, mut source, options) = (place.open().await, host("one"), place.source("a"), place.options("state"));
    let task = tokio::spawn(async move {
        let Acquired::Held(lease, _) = Lease::acquire(&repo, "engine", "a", &one, None).await? else { return Ok(0) };
        lease.tidy().await?;
        Heartbeat::new(one.id).beat(&repo).await?;
        Observer::new().look(&repo, one.id).await?;
        source.lease = Some(lease.held());
        snapshot::backup(&repo, &source, &options, Arc::new(())).await?;
        lease.ensure().await?;
        lease.release().await?;
        Ok::<_, RepoError>(repo.snapshots_of("engine", "a").await?.records.len())
    });
    assert!(root.exists());
    assert_eq!(task.await.unwrap().unwrap(), 1);
}
