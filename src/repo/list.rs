//! Which snapshots there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt;

use super::{RepoError, Repository, Result, SnapshotRecord};

/// Requests for records at once.
const PARALLEL: usize = 16;

/// The snapshots that count, and the records that cannot be read.
#[derive(Debug, Default)]
pub struct Snapshots {
    /// Oldest first: by time, but those of one source as [`SnapshotRecord::age_order`] says.
    pub records: Vec<Arc<SnapshotRecord>>,
    /// Records that are damaged: named, and otherwise in nobody's way.
    pub damaged: Vec<RepoError>,
}

impl Repository {
    /// Reads every snapshot that counts. Three LISTs, and a GET for each record that is not in the cache.
    pub async fn snapshots(&self) -> Result<Snapshots> {
        self.snapshots_below("snapshots/").await
    }

    /// Reads the snapshots of one source.
    pub async fn snapshots_of(&self, engine: &str, volume: &str) -> Result<Snapshots> {
        self.snapshots_below(&format!("snapshots/{}/", self.keys.source_name(engine, volume))).await
    }

    async fn snapshots_below(&self, prefix: &str) -> Result<Snapshots> {
        let (objects, forgotten, epochs) =
            tokio::try_join!(async { Ok(self.store.list(prefix).await?) }, self.forgotten(), self.epochs())?;
        let keys: Vec<String> = objects
            .into_iter()
            .map(|o| o.key)
            .filter(|key| {
                let id = record_id(key);
                id.is_some_and(|id| !forgotten.contains(id) && !epochs.rejected.contains(id))
            })
            .collect();
        let mut found = Snapshots::default();
        // Each with its own key: with borrowed ones the compiler does not see that a task of a daemon may run this.
        let records = keys.into_iter().map(|key| async move { self.record(&key).await });
        let mut results = futures_util::stream::iter(records).buffered(PARALLEL);
        while let Some(result) = results.next().await {
            match result {
                Ok(Some(record)) => found.records.push(Arc::new(record)),
                // Removed between the listing and now: someone collects.
                Ok(None) => {}
                Err(e) if e.is_about_one_object() => found.damaged.push(e),
                Err(e) => return Err(e),
            }
        }
        sort(&mut found.records);
        Ok(found)
    }

    async fn record(&self, key: &str) -> Result<Option<SnapshotRecord>> {
        if let Some(sealed) = self.cache.object(key) {
            if let Ok(record) = self.checked(key, sealed) {
                return Ok(Some(record));
            }
            self.cache.drop_object(key);
        }
        let sealed = match self.store.get(key).await {
            Ok(sealed) => sealed,
            Err(e) if e.is_not_found() => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let record = self.checked(key, sealed.clone())?;
        self.cache.keep_object(key, &sealed);
        Ok(Some(record))
    }

    fn checked(&self, key: &str, sealed: bytes::Bytes) -> Result<SnapshotRecord> {
        let record = SnapshotRecord::decode(key, sealed, &self.keys)?;
        if record_id(key) != Some(&record.id) {
            return Err(RepoError::damaged(key, format!("it is the record of snapshot {}", record.id)));
        }
        Ok(record)
    }

    /// The sessions that are open, dead or alive.
    pub async fn open_sessions(&self) -> Result<BTreeSet<ulid::Ulid>> {
        let id = |key: &str| ulid::Ulid::from_string(key.strip_prefix("sessions/")?.strip_suffix(".json")?).ok();
        Ok(self.store.list("sessions/").await?.iter().filter_map(|o| id(&o.key)).collect())
    }
}

/// Sorts by time, and then those of each source, in the places that they have got, by what counts within a source.
fn sort(records: &mut [Arc<SnapshotRecord>]) {
    records.sort_by(|a, b| (a.time, &a.id).cmp(&(b.time, &b.id)));
    let mut places: BTreeMap<(String, String), Vec<usize>> = BTreeMap::new();
    if records.iter().all(|record| record.lease.is_none()) {
        return;
    }
    for (place, record) in records.iter().enumerate() {
        places.entry((record.engine.clone(), record.volume.clone())).or_default().push(place);
    }
    for places in places.into_values() {
        let mut of_source: Vec<Arc<SnapshotRecord>> = places.iter().map(|place| records[*place].clone()).collect();
        of_source.sort_by(|a, b| a.age_order().cmp(&b.age_order()));
        places.into_iter().zip(of_source).for_each(|(place, record)| records[place] = record);
    }
}

fn record_id(key: &str) -> Option<&str> {
    key.strip_suffix(".json")?.rsplit('/').next().filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, volume: &str, lease: Option<u64>, second: u32) -> Arc<SnapshotRecord> {
        let time = format!("2026-11-20T03:00:{second:02}Z");
        let json = serde_json::json!({
            "version": 1, "id": id, "volume": volume, "engine": "e", "kind": "volume", "time": time, "finished": time, "parent": null,
            "root": [], "entries": 0, "files": 0, "bytes": 0, "added_bytes": 0, "stored_bytes": 0, "tool": "test", "lease": lease,
        });
        Arc::new(serde_json::from_value(json).expect("a record"))
    }

    #[test]
    fn by_time_and_within_a_source_by_epoch_first() {
        let mut records = vec![
            record("6", "shared", Some(2), 1),
            record("1", "plain", None, 2),
            record("5", "shared", Some(1), 3),
            record("2", "plain", None, 4),
            record("3", "shared", None, 5),
            record("4", "shared", Some(1), 0),
        ];
        records.reverse();
        sort(&mut records);
        let sorted: Vec<(&str, &str)> = records.iter().map(|r| (r.volume.as_str(), r.id.as_str())).collect();
        let (shared, plain) = ("shared", "plain");
        assert_eq!(sorted, [(shared, "3"), (shared, "4"), (plain, "1"), (shared, "5"), (plain, "2"), (shared, "6")]);
    }
}
