//! The storages that watch and break others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use voltool::store::fault::{Fault, FaultStore};
use voltool::store::local::LocalStore;
use voltool::store::record::{RecordStore, RecordedCall, Verb};
use voltool::store::{ErrorKind, Store};

async fn local() -> (tempfile::TempDir, Arc<dyn Store>) {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::new(dir.path().to_owned());
    store.put("a/b", Bytes::from_static(b"0123456789")).await.unwrap();
    (dir, Arc::new(store))
}

#[tokio::test]
async fn every_call_is_written_down() {
    let (_dir, inner) = local().await;
    let store = RecordStore::new(inner);
    store.prepare().await.unwrap();
    store.put("x", Bytes::from_static(b"12345")).await.unwrap();
    store.put_if_absent("y", Bytes::from_static(b"123")).await.unwrap();
    store.get("a/b").await.unwrap();
    store.get_range("a/b", 2, 4).await.unwrap();
    store.get_tail("a/b", 3).await.unwrap();
    store.size("a/b").await.unwrap();
    store.list("a/").await.unwrap();
    store.delete("x").await.unwrap();
    store.get("gone").await.unwrap_err();
    let call = |verb, key: &str, bytes| RecordedCall { verb, key: key.to_owned(), bytes, failed: false };
    let expected = vec![
        call(Verb::Prepare, "", 0),
        call(Verb::Put, "x", 5),
        call(Verb::PutIfAbsent, "y", 3),
        call(Verb::Get, "a/b", 10),
        call(Verb::GetRange, "a/b", 4),
        call(Verb::GetTail, "a/b", 3),
        call(Verb::Size, "a/b", 0),
        call(Verb::List, "a/", 0),
        call(Verb::Delete, "x", 0),
        RecordedCall { failed: true, ..call(Verb::Get, "gone", 0) },
    ];
    assert_eq!(store.calls(), expected);
    assert_eq!((store.bytes_sent(), store.bytes_received()), (8, 17));
    assert_eq!((store.count(Verb::Get), store.count(Verb::List)), (2, 1));
    assert_eq!(store.counts()[&Verb::Get], 2);
    assert_eq!(store.take(), expected);
    assert_eq!(store.calls(), []);
}

#[tokio::test]
async fn faults_hit_the_call_that_the_hook_names() {
    let (_dir, inner) = local().await;
    let store = FaultStore::new(Arc::clone(&inner), |call| match (call.number, call.verb) {
        (0, Verb::Put) => Fault::FailBefore(ErrorKind::Full),
        (1, Verb::Put) => Fault::FailAfter(ErrorKind::Unreachable),
        (2, Verb::Delete) => Fault::FailAfter(ErrorKind::Denied),
        (3, Verb::List) => Fault::Delay(Duration::from_millis(50)),
        _ => Fault::None,
    });
    let error = store.put("new", Bytes::from_static(b"x")).await.unwrap_err();
    assert_eq!((error.kind, inner.size("new").await.unwrap()), (ErrorKind::Full, None));
    assert!(error.to_string().starts_with("cannot write new in /"), "{error}");
    let error = store.put("new", Bytes::from_static(b"x")).await.unwrap_err();
    assert_eq!((error.kind, inner.size("new").await.unwrap()), (ErrorKind::Unreachable, Some(1)));
    let error = store.delete("new").await.unwrap_err();
    assert_eq!((error.kind, inner.size("new").await.unwrap()), (ErrorKind::Denied, None));
    let begun = Instant::now();
    assert_eq!(store.list("").await.unwrap().len(), 1);
    assert!(begun.elapsed() >= Duration::from_millis(50));
    assert_eq!(store.calls(), 4);
}

#[tokio::test]
async fn reads_are_damaged() {
    let (_dir, inner) = local().await;
    let store = FaultStore::new(Arc::clone(&inner), |_| Fault::Corrupt);
    assert_eq!(store.get("a/b").await.unwrap(), "0123446789");
    assert_eq!(store.get_range("a/b", 0, 3).await.unwrap(), "002");
    assert_eq!(store.get_tail("a/b", 1).await.unwrap(), (Bytes::from_static(b"8"), 10));
    assert_eq!(store.size("a/b").await.unwrap(), Some(10));
    let store = FaultStore::new(inner, |_| Fault::Truncate);
    assert_eq!(store.get("a/b").await.unwrap(), "01234");
    assert_eq!(store.get_tail("a/b", 4).await.unwrap(), (Bytes::from_static(b"67"), 10));
    assert_eq!(store.get_range("a/b", 0, 3).await.unwrap_err().kind, ErrorKind::Integrity);
}

#[tokio::test]
async fn nothing_gets_through_after_a_stop() {
    let (_dir, inner) = local().await;
    let store = FaultStore::new(Arc::clone(&inner), |call| if call.number == 1 { Fault::Stop } else { Fault::None });
    store.put("one", Bytes::new()).await.unwrap();
    assert!(!store.is_stopped());
    store.put("two", Bytes::new()).await.unwrap_err();
    store.put("three", Bytes::new()).await.unwrap_err();
    store.list("").await.unwrap_err();
    assert!(store.is_stopped());
    let keys: Vec<String> = inner.list("").await.unwrap().into_iter().map(|object| object.key).collect();
    assert_eq!(keys, ["a/b", "one"]);
}
