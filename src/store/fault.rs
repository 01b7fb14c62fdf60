//! Breaks calls on a storage on purpose, so that a test can see what the caller does about it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::record::Verb;
use super::{ErrorKind, ObjectInfo, PutIfAbsent, Result, Store, StoreError};

/// A call that is about to be made; what a hook decides by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Which call this is, from 0.
    pub number: u64,
    /// What is called.
    pub verb: Verb,
    /// The key, or the prefix of a listing. Empty for [`Verb::Prepare`].
    pub key: String,
}

/// What is to happen to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    /// Nothing: it goes through.
    #[default]
    None,
    /// It fails and has no effect.
    FailBefore(ErrorKind),
    /// It takes effect, but the caller is told that it failed: the acknowledgement was lost.
    FailAfter(ErrorKind),
    /// One bit in the middle of what a read returns is flipped. Other verbs go through.
    Corrupt,
    /// A read of a whole object or of its end returns only the first half; a ranged read fails as one that came short. Other
    /// verbs go through.
    Truncate,
    /// It goes through, later.
    Delay(Duration),
    /// It fails without effect, and so does every later call, as if the process had died here.
    Stop,
}

type Hook = dyn Fn(&Call) -> Fault + Send + Sync;

/// A storage that asks a hook before each call on another one whether, and how, to break it. Clones share hook and count.
#[derive(Clone)]
pub struct FaultStore {
    inner: Arc<dyn Store>,
    hook: Arc<Hook>,
    calls: Arc<AtomicU64>,
    stopped: Arc<AtomicBool>,
}

impl fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultStore").field("inner", &self.inner).field("calls", &self.calls()).finish_non_exhaustive()
    }
}

impl FaultStore {
    /// Makes a storage in front of `inner` that does to each call what `hook` says.
    pub fn new(inner: Arc<dyn Store>, hook: impl Fn(&Call) -> Fault + Send + Sync + 'static) -> FaultStore {
        FaultStore { inner, hook: Arc::new(hook), calls: Arc::default(), stopped: Arc::default() }
    }

    /// Returns how many calls were made, including those that failed.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// Returns whether a [`Fault::Stop`] has happened.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Makes a call with what the hook decides. `damage` does to its result what [`Fault::Corrupt`] and [`Fault::Truncate`] ask.
    async fn call<T>(
        &self,
        verb: Verb,
        key: &str,
        effect: impl Future<Output = Result<T>>,
        damage: impl FnOnce(T, Fault) -> std::result::Result<T, &'static str>,
    ) -> Result<T> {
        let fail = |kind, why: &str| Err(StoreError::new(kind, verb.action(), key, &self.inner.url(), why));
        let call = Call { number: self.calls.fetch_add(1, Ordering::SeqCst), verb, key: key.to_owned() };
        if self.is_stopped() {
            return fail(ErrorKind::Unreachable, "injected: stopped");
        }
        match (self.hook)(&call) {
            Fault::None => effect.await,
            Fault::FailBefore(kind) => fail(kind, "injected: failed before it took effect"),
            Fault::FailAfter(kind) => {
                effect.await?;
                fail(kind, "injected: failed after it took effect")
            }
            Fault::Delay(time) => {
                tokio::time::sleep(time).await;
                effect.await
            }
            Fault::Stop => {
                self.stopped.store(true, Ordering::SeqCst);
                fail(ErrorKind::Unreachable, "injected: stopped")
            }
            fault @ (Fault::Corrupt | Fault::Truncate) => match damage(effect.await?, fault) {
                Ok(value) => Ok(value),
                Err(why) => fail(ErrorKind::Integrity, why),
            },
        }
    }
}

fn unharmed<T>(value: T, _: Fault) -> std::result::Result<T, &'static str> {
    Ok(value)
}

fn damaged(data: &Bytes, fault: Fault) -> Bytes {
    let mut damaged = BytesMut::from(&data[..]);
    match fault {
        Fault::Truncate => damaged.truncate(data.len() / 2),
        _ => {
            if let Some(byte) = damaged.get_mut(data.len() / 2) {
                *byte ^= 1;
            }
        }
    }
    damaged.freeze()
}

#[async_trait]
impl Store for FaultStore {
    fn url(&self) -> String {
        self.inner.url()
    }

    async fn put(&self, key: &str, data: Bytes) -> Result<()> {
        self.call(Verb::Put, key, self.inner.put(key, data), unharmed).await
    }

    async fn put_if_absent(&self, key: &str, data: Bytes) -> Result<PutIfAbsent> {
        self.call(Verb::PutIfAbsent, key, self.inner.put_if_absent(key, data), unharmed).await
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        self.call(Verb::Get, key, self.inner.get(key), |data, fault| Ok(damaged(&data, fault))).await
    }

    async fn get_range(&self, key: &str, offset: u64, len: u64) -> Result<Bytes> {
        let damage = |data: Bytes, fault| match fault {
            // The trait promises that a short range is an error, and callers may rely on that.
            Fault::Truncate => Err("injected: fewer bytes came than were asked for"),
            fault => Ok(damaged(&data, fault)),
        };
        self.call(Verb::GetRange, key, self.inner.get_range(key, offset, len), damage).await
    }

    async fn get_tail(&self, key: &str, len: u64) -> Result<(Bytes, u64)> {
        let damage = |(data, size): (Bytes, u64), fault| Ok((damaged(&data, fault), size));
        self.call(Verb::GetTail, key, self.inner.get_tail(key, len), damage).await
    }

    async fn size(&self, key: &str) -> Result<Option<u64>> {
        self.call(Verb::Size, key, self.inner.size(key), unharmed).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        self.call(Verb::List, prefix, self.inner.list(prefix), unharmed).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.call(Verb::Delete, key, self.inner.delete(key), unharmed).await
    }

    async fn prepare(&self) -> Result<()> {
        self.call(Verb::Prepare, "", self.inner.prepare(), unharmed).await
    }

    fn checksum_support(&self) -> Option<&'static str> {
        self.inner.checksum_support()
    }

    fn ignores_ranges(&self) -> bool {
        self.inner.ignores_ranges()
    }
}
