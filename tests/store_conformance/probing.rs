//! What the probe finds out about each kind of storage.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use voltool::store::fault::{Fault, FaultStore};
use voltool::store::local::LocalStore;
use voltool::store::probe::{ConditionalPut, StorageReport, probe};
use voltool::store::record::Verb;
use voltool::store::{ErrorKind, ObjectInfo, PutIfAbsent, Result, Store};

use crate::support::mem_s3::{ChecksumHabit, Condition, MemS3};

fn good(conditional_put: ConditionalPut, checksums: Option<&str>) -> StorageReport {
    StorageReport {
        list_after_put: true,
        list_after_delete: true,
        ranged_get: true,
        conditional_put,
        checksums: checksums.map(str::to_owned),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn local_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::new(dir.path().to_owned());
    let report = probe(&store).await.unwrap();
    assert_eq!(report, good(ConditionalPut::Honoured, None));
    assert_eq!(report.problems(), Vec::<String>::new());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left, not even a directory");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_of_each_habit() {
    for (server, expected) in [
        (MemS3::new(), good(ConditionalPut::Honoured, Some("crc32c"))),
        (
            MemS3::new().condition(Condition::Ignored).checksums(ChecksumHabit::Silent),
            good(ConditionalPut::Ignored, Some("ignored")),
        ),
        (
            MemS3::new().condition(Condition::Refused).checksums(ChecksumHabit::Refused),
            good(ConditionalPut::Refused, Some("refused")),
        ),
        (
            MemS3::new().ignores_ranges(),
            StorageReport { ranged_get: false, ..good(ConditionalPut::Honoured, Some("crc32c")) },
        ),
    ] {
        let server = server.serve().await;
        let report = probe(&server.store("prefix")).await.unwrap();
        assert_eq!(report, expected);
        let problems = usize::from(!report.ranged_get) + usize::from(report.checksums.as_deref() == Some("refused"));
        assert_eq!(report.problems().len(), problems, "{:?}", report.problems());
        assert!(!report.needs_single_writer());
        assert_eq!(server.s3.keys(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_listings_are_seen() {
    let server = MemS3::new().serve().await;
    server.s3.freeze_listings();
    let report = probe(&server.store("")).await.unwrap();
    assert!(!report.list_after_put && report.list_after_delete);
    assert!(report.needs_single_writer());
    assert!(report.problems()[0].contains("single-writer mode"), "{:?}", report.problems());
    assert_eq!(server.s3.keys(), Vec::<String>::new(), "removed by name, as the listing does not show them");

    // One racer whose DELETE does not take effect at once is enough.
    let (_dir, store) = liar(Lie::Revenant);
    let report = probe(&store).await.unwrap();
    assert!(report.list_after_put && !report.list_after_delete);
    assert!(report.problems()[0].contains("just been deleted"), "{:?}", report.problems());
}

#[tokio::test]
async fn a_race_won_once_by_luck_proves_nothing() {
    for lie in [Lie::LateWinner, Lie::WrongContent] {
        let (_dir, store) = liar(lie);
        assert_eq!(probe(&store).await.unwrap().conditional_put, ConditionalPut::Ignored, "{lie:?}");
    }
}

#[tokio::test]
async fn a_failure_is_no_finding_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for verb in [Verb::Put, Verb::List, Verb::GetRange, Verb::GetTail, Verb::PutIfAbsent, Verb::Get] {
        let local = Arc::new(LocalStore::new(dir.path().to_owned()));
        let store = FaultStore::new(local, move |call| {
            if call.verb == verb { Fault::FailAfter(ErrorKind::Unreachable) } else { Fault::None }
        });
        let error = probe(&store).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unreachable, "{verb}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{verb}");
    }
}

#[test]
fn a_report_survives_json() {
    let report = good(ConditionalPut::Ignored, Some("crc32c"));
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(
        json,
        r#"{"list_after_put":true,"list_after_delete":true,"ranged_get":true,"conditional_put":"ignored","checksums":"crc32c"}"#
    );
    assert_eq!(serde_json::from_str::<StorageReport>(&json).unwrap(), report);
}

/// What a [`Liar`] does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// Listings still show one object after it was deleted.
    Revenant,
    /// Of the conditional PUTs, the first wins and so does the last, which came alone.
    LateWinner,
    /// One conditional PUT wins, but another one's content is stored.
    WrongContent,
}

/// A storage in front of a good one that gets one thing wrong.
#[derive(Debug)]
struct Liar {
    inner: LocalStore,
    lie: Lie,
    conditional: AtomicU64,
}

fn liar(lie: Lie) -> (tempfile::TempDir, Liar) {
    let dir = tempfile::tempdir().unwrap();
    let inner = LocalStore::new(dir.path().to_owned());
    (dir, Liar { inner, lie, conditional: AtomicU64::new(0) })
}

#[async_trait::async_trait]
impl Store for Liar {
    fn url(&self) -> String {
        self.inner.url()
    }

    async fn put(&self, key: &str, data: Bytes) -> Result<()> {
        self.inner.put(key, data).await
    }

    async fn put_if_absent(&self, key: &str, data: Bytes) -> Result<PutIfAbsent> {
        let number = self.conditional.fetch_add(1, Ordering::SeqCst);
        match (self.lie, number) {
            (Lie::LateWinner, 0 | 16) => self.inner.put(key, data).await.map(|()| PutIfAbsent::Created),
            (Lie::WrongContent, 0) => self.inner.put(key, Bytes::new()).await.map(|()| PutIfAbsent::Created),
            _ => Ok(PutIfAbsent::Exists),
        }
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
        let mut found = self.inner.list(prefix).await?;
        let key = format!("{prefix}list-07");
        if self.lie == Lie::Revenant && !found.iter().any(|object| object.key == key) {
            found.push(ObjectInfo { key, size: 1 });
        }
        Ok(found)
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.inner.delete(key).await
    }

    async fn prepare(&self) -> Result<()> {
        self.inner.prepare().await
    }
}
