//! Writes down every call on a storage, so that a test can say what an operation costs: "an unchanged backup is three LISTs".

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{ObjectInfo, PutIfAbsent, Result, Store};

/// Which method of [`Store`] was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// [`Store::put`]
    Put,
    /// [`Store::put_if_absent`]
    PutIfAbsent,
    /// [`Store::get`]
    Get,
    /// [`Store::get_range`]
    GetRange,
    /// [`Store::get_tail`]
    GetTail,
    /// [`Store::size`]
    Size,
    /// [`Store::list`]
    List,
    /// [`Store::delete`]
    Delete,
    /// [`Store::prepare`]
    Prepare,
}

impl Verb {
    /// Returns whether the call changes the storage.
    pub fn is_write(self) -> bool {
        matches!(self, Verb::Put | Verb::PutIfAbsent | Verb::Delete | Verb::Prepare)
    }

    /// The verb in the words of [`StoreError::action`](super::StoreError::action).
    pub fn action(self) -> &'static str {
        match self {
            Verb::Put | Verb::PutIfAbsent => "write",
            Verb::Get | Verb::GetRange | Verb::GetTail => "read",
            Verb::Size => "look up",
            Verb::List => "list",
            Verb::Delete => "delete",
            Verb::Prepare => "prepare",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verb::Put => "put",
            Verb::PutIfAbsent => "put_if_absent",
            Verb::Get => "get",
            Verb::GetRange => "get_range",
            Verb::GetTail => "get_tail",
            Verb::Size => "size",
            Verb::List => "list",
            Verb::Delete => "delete",
            Verb::Prepare => "prepare",
        })
    }
}

/// One finished call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedCall {
    /// What was called.
    pub verb: Verb,
    /// The key, or the prefix of a listing. Empty for [`Verb::Prepare`].
    pub key: String,
    /// Bytes of object content that were sent or received; 0 for a failed read, and for verbs without content.
    pub bytes: u64,
    /// Whether it failed.
    pub failed: bool,
}

/// A storage that passes every call on to another one and writes it down. Clones share the record.
#[derive(Debug, Clone)]
pub struct RecordStore {
    inner: Arc<dyn Store>,
    calls: Arc<Mutex<Vec<RecordedCall>>>,
}

impl RecordStore {
    /// Makes a recorder in front of `inner`.
    pub fn new(inner: Arc<dyn Store>) -> RecordStore {
        RecordStore { inner, calls: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<RecordedCall>> {
        // Each push is complete in itself, so a panic elsewhere leaves the record sound.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add<T>(&self, verb: Verb, key: &str, result: &Result<T>, bytes: impl FnOnce(&T) -> usize) {
        let (bytes, failed) = match result {
            Ok(value) => (bytes(value) as u64, false),
            Err(_) => (0, true),
        };
        self.lock().push(RecordedCall { verb, key: key.to_owned(), bytes, failed });
    }

    /// Returns all calls so far, in the order in which they finished.
    pub fn calls(&self) -> Vec<RecordedCall> {
        self.lock().clone()
    }

    /// Returns the calls so far and forgets them.
    pub fn take(&self) -> Vec<RecordedCall> {
        std::mem::take(&mut *self.lock())
    }

    /// Returns how often `verb` was called.
    pub fn count(&self, verb: Verb) -> usize {
        self.lock().iter().filter(|call| call.verb == verb).count()
    }

    /// Returns how often each verb was called, without those that never were.
    pub fn counts(&self) -> BTreeMap<Verb, usize> {
        let mut counts = BTreeMap::new();
        for call in self.lock().iter() {
            *counts.entry(call.verb).or_insert(0) += 1;
        }
        counts
    }

    /// Returns the bytes of object content that were sent.
    pub fn bytes_sent(&self) -> u64 {
        self.lock().iter().filter(|call| call.verb.is_write()).map(|call| call.bytes).sum()
    }

    /// Returns the bytes of object content that were received.
    pub fn bytes_received(&self) -> u64 {
        self.lock().iter().filter(|call| !call.verb.is_write()).map(|call| call.bytes).sum()
    }
}

#[async_trait]
impl Store for RecordStore {
    fn url(&self) -> String {
        self.inner.url()
    }

    async fn put(&self, key: &str, data: Bytes) -> Result<()> {
        let len = data.len();
        let result = self.inner.put(key, data).await;
        self.add(Verb::Put, key, &result, |()| len);
        result
    }

    async fn put_if_absent(&self, key: &str, data: Bytes) -> Result<PutIfAbsent> {
        let len = data.len();
        let result = self.inner.put_if_absent(key, data).await;
        self.add(Verb::PutIfAbsent, key, &result, |_| len);
        result
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        let result = self.inner.get(key).await;
        self.add(Verb::Get, key, &result, Bytes::len);
        result
    }

    async fn get_range(&self, key: &str, offset: u64, len: u64) -> Result<Bytes> {
        let result = self.inner.get_range(key, offset, len).await;
        self.add(Verb::GetRange, key, &result, Bytes::len);
        result
    }

    async fn get_tail(&self, key: &str, len: u64) -> Result<(Bytes, u64)> {
        let result = self.inner.get_tail(key, len).await;
        self.add(Verb::GetTail, key, &result, |(data, _)| data.len());
        result
    }

    async fn size(&self, key: &str) -> Result<Option<u64>> {
        let result = self.inner.size(key).await;
        self.add(Verb::Size, key, &result, |_| 0);
        result
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        let result = self.inner.list(prefix).await;
        self.add(Verb::List, prefix, &result, |_| 0);
        result
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let result = self.inner.delete(key).await;
        self.add(Verb::Delete, key, &result, |()| 0);
        result
    }

    async fn prepare(&self) -> Result<()> {
        let result = self.inner.prepare().await;
        self.add(Verb::Prepare, "", &result, |()| 0);
        result
    }

    fn checksum_support(&self) -> Option<&'static str> {
        self.inner.checksum_support()
    }

    fn ignores_ranges(&self) -> bool {
        self.inner.ignores_ranges()
    }
}
