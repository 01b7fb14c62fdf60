//! Finds out what a storage really does: whether a listing shows what was just written, whether conditional writes hold.
//!
//! Servers that speak S3 differ, and documentation does not help: some answer a conditional PUT with "created" and overwrite.

use std::fmt;

use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use super::{ErrorKind, PutIfAbsent, Result, Store};

/// How many tasks run against each other.
const RACERS: usize = 16;

/// What became of 16 conditional PUTs of one key at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConditionalPut {
    /// One won, its content is what is stored, and a later one was turned away.
    Honoured,
    /// Several won, or none: the condition means nothing.
    Ignored,
    /// The storage says that it does not know conditional PUT.
    Refused,
}

impl fmt::Display for ConditionalPut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ConditionalPut::Honoured => "honoured",
            ConditionalPut::Ignored => "ignored",
            ConditionalPut::Refused => "refused",
        })
    }
}

/// What a storage was seen to do. Stored in `voltool.json` and shown by `voltool init`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageReport {
    /// Whether each of 16 concurrent writers found its object in a LIST right after the PUT.
    pub list_after_put: bool,
    /// Whether each of 16 concurrent writers no longer found its object in a LIST right after the DELETE.
    pub list_after_delete: bool,
    /// Whether a part of an object can be read without the rest.
    pub ranged_get: bool,
    /// Whether a PUT can be made to succeed only if there is no object of that key.
    pub conditional_put: ConditionalPut,
    /// What the storage did with the checksums of PUTs: the algorithm's name if it confirmed one, `"ignored"`, `"refused"`, or
    /// nothing if the storage has no such thing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksums: Option<String>,
}

impl StorageReport {
    /// Returns whether listings are too stale for several writers, or a writer and a collector, at a time.
    pub fn needs_single_writer(&self) -> bool {
        !(self.list_after_put && self.list_after_delete)
    }

    /// Returns what a person should know, as sentences without a full stop; empty if all is well.
    ///
    /// Conditional PUT that is refused or ignored is not among them: nothing rests on it.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.list_after_put {
            problems.push(
                "a listing did not show an object that had just been written; this storage can only be used by one writer at \
                 a time (single-writer mode, with a grace period before anything is removed)"
                    .to_owned(),
            );
        }
        if !self.list_after_delete {
            problems.push(
                "a listing still showed an object that had just been deleted; this storage can only be used by one writer at \
                 a time (single-writer mode, with a grace period before anything is removed)"
                    .to_owned(),
            );
        }
        if !self.ranged_get {
            problems.push(
                "a part of an object could not be read without the rest; restoring a few files will fetch whole packs"
                    .to_owned(),
            );
        }
        if self.checksums.as_deref() == Some("refused") {
            problems.push(
                "checksums with uploads are refused; damage on the way to the storage is only found when data is read back"
                    .to_owned(),
            );
        }
        problems
    }
}

/// Tries the storage out under `probe/<ulid>/`, and removes everything that it put there, also if it fails.
///
/// # Errors
/// The first call that failed for another reason than a missing capability, or an object that could not be removed.
pub async fn probe(store: &dyn Store) -> Result<StorageReport> {
    let prefix = format!("probe/{}/", ulid::Ulid::generate());
    let outcome = examine(store, &prefix).await;
    let cleaned = clean(store, &prefix).await;
    let report = outcome?;
    cleaned?;
    Ok(report)
}

async fn examine(store: &dyn Store, prefix: &str) -> Result<StorageReport> {
    let (list_after_put, list_after_delete) = race_listings(store, prefix).await?;
    let ranged_get = try_ranges(store, &format!("{prefix}range")).await?;
    let conditional_put = race_condition(store, &format!("{prefix}condition")).await?;
    let checksums = store.checksum_support().map(str::to_owned);
    Ok(StorageReport { list_after_put, list_after_delete, ranged_get, conditional_put, checksums })
}

/// Everything the probe may have put, by name: the listing that would find it may be the thing that is broken.
async fn clean(store: &dyn Store, prefix: &str) -> Result<()> {
    let mut keys: Vec<String> = (0..RACERS).map(|racer| race_key(prefix, racer)).collect();
    keys.extend(["range", "condition"].map(|name| format!("{prefix}{name}")));
    let results = join_all(keys.iter().map(|key| store.delete(key))).await;
    results.into_iter().collect()
}

fn race_key(prefix: &str, racer: usize) -> String {
    format!("{prefix}list-{racer:02}")
}

async fn race_listings(store: &dyn Store, prefix: &str) -> Result<(bool, bool)> {
    let racers = (0..RACERS).map(|racer| async move {
        let key = race_key(prefix, racer);
        store.put(&key, Bytes::from(key.clone())).await?;
        let seen = store.list(prefix).await?.iter().any(|object| object.key == key);
        store.delete(&key).await?;
        let gone = !store.list(prefix).await?.iter().any(|object| object.key == key);
        Ok((seen, gone))
    });
    // All of them are waited for even if one fails: a PUT that is dropped half-way might take effect after the clean-up.
    let seen = join_all(racers).await.into_iter().collect::<Result<Vec<(bool, bool)>>>()?;
    Ok((seen.iter().all(|(seen, _)| *seen), seen.iter().all(|(_, gone)| *gone)))
}

async fn try_ranges(store: &dyn Store, key: &str) -> Result<bool> {
    // No two stretches of it are alike, so that a wrong range shows.
    let data: Vec<u8> = (0..16_384_u32).flat_map(u32::to_le_bytes).collect();
    let data = Bytes::from(data);
    store.put(key, data.clone()).await?;
    let middle = store.get_range(key, 1_001, 30_003).await;
    let tail = store.get_tail(key, 777).await;
    for failed in [middle.as_ref().err(), tail.as_ref().err()].into_iter().flatten() {
        // These say that the storage cannot do it. Anything else says that it could not be tried.
        if !matches!(failed.kind, ErrorKind::Integrity | ErrorKind::Invalid) {
            return Err(failed.clone());
        }
    }
    let right = middle.is_ok_and(|found| found == data.slice(1_001..31_004))
        && tail.is_ok_and(|(found, size)| size == data.len() as u64 && found == data.slice(data.len() - 777..));
    Ok(right && !store.ignores_ranges())
}

async fn race_condition(store: &dyn Store, key: &str) -> Result<ConditionalPut> {
    let content = |racer: usize| Bytes::from(format!("racer {racer} of {key}"));
    let results = join_all((0..RACERS).map(|racer| store.put_if_absent(key, content(racer)))).await;
    let results = results.into_iter().collect::<Result<Vec<PutIfAbsent>>>()?;
    if results.contains(&PutIfAbsent::Unsupported) {
        return Ok(ConditionalPut::Refused);
    }
    let mut winners = results.iter().enumerate().filter(|(_, result)| **result == PutIfAbsent::Created);
    let (Some((winner, _)), None) = (winners.next(), winners.next()) else { return Ok(ConditionalPut::Ignored) };
    let late = store.put_if_absent(key, content(RACERS)).await?;
    let stored = store.get(key).await?;
    let held = late == PutIfAbsent::Exists && stored == content(winner);
    Ok(if held { ConditionalPut::Honoured } else { ConditionalPut::Ignored })
}
