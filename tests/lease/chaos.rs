//! A storage in memory, and a host's way to a storage on which calls take their time, fail, land late, or end for good.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use voltool::store::{ErrorKind, ObjectInfo, PutIfAbsent, Result, Store, StoreError};

/// Objects in memory.
#[derive(Debug, Default)]
pub struct Memory(Mutex<BTreeMap<String, Bytes>>);

impl Memory {
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        self.0.lock().unwrap().keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }

    fn error(kind: ErrorKind, key: &str) -> StoreError {
        StoreError::new(kind, "use", key, "memory:", "as the test wants")
    }
}

#[async_trait]
impl Store for Memory {
    fn url(&self) -> String {
        "memory:".into()
    }
    async fn put(&self, key: &str, data: Bytes) -> Result<()> {
        self.0.lock().unwrap().insert(key.to_owned(), data);
        Ok(())
    }
    async fn put_if_absent(&self, _: &str, _: Bytes) -> Result<PutIfAbsent> {
        Ok(PutIfAbsent::Unsupported)
    }
    async fn get(&self, key: &str) -> Result<Bytes> {
        let found = self.0.lock().unwrap().get(key).cloned();
        found.ok_or_else(|| Memory::error(ErrorKind::NotFound, key))
    }
    async fn get_range(&self, key: &str, offset: u64, len: u64) -> Result<Bytes> {
        Ok(self.get(key).await?.slice(offset as usize..(offset + len) as usize))
    }
    async fn get_tail(&self, key: &str, len: u64) -> Result<(Bytes, u64)> {
        let data = self.get(key).await?;
        Ok((data.slice(data.len().saturating_sub(len as usize)..), data.len() as u64))
    }
    async fn size(&self, key: &str) -> Result<Option<u64>> {
        Ok(self.0.lock().unwrap().get(key).map(|data| data.len() as u64))
    }
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        let objects = self.0.lock().unwrap();
        let found = objects.iter().filter(|(key, _)| key.starts_with(prefix));
        Ok(found.map(|(key, data)| ObjectInfo { key: key.clone(), size: data.len() as u64 }).collect())
    }
    async fn delete(&self, key: &str) -> Result<()> {
        self.0.lock().unwrap().remove(key);
        Ok(())
    }
    async fn prepare(&self) -> Result<()> {
        Ok(())
    }
}

/// Numbers that look random and are the same for the same seed. Clones share them.
#[derive(Debug, Clone)]
pub struct Random(Arc<Mutex<u64>>);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(Arc::new(Mutex::new(seed)))
    }

    /// One of `0..n`.
    pub fn below(&self, n: u64) -> u64 {
        let mut state = self.0.lock().unwrap();
        // SplitMix64.
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    pub fn one_in(&self, n: u64) -> bool {
        n > 0 && self.below(n) == 0
    }

    /// Lets others go first, now and then for long.
    pub async fn pause(&self) {
        let longest = if self.one_in(12) { 80 } else { 4 };
        for _ in 0..self.below(longest) {
            tokio::task::yield_now().await;
        }
    }
}

/// One host's way to a storage, for as long as the host runs. On one thread, so that every order of calls is the random numbers' doing.
#[derive(Debug, Clone)]
pub struct Chaos {
    inner: Arc<dyn Store>,
    random: Random,
    dead: Arc<AtomicBool>,
    /// One call in so many fails; 0 for none.
    failures: u64,
}

impl Chaos {
    pub fn new(inner: Arc<dyn Store>, random: Random, failures: u64) -> Chaos {
        Chaos { inner, random, dead: Arc::default(), failures }
    }

    /// Ends the host: nothing that it still does has an effect, but for what is on its way.
    pub fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    fn alive(&self, key: &str) -> Result<()> {
        match self.dead.load(Ordering::SeqCst) {
            true => Err(Memory::error(ErrorKind::Unreachable, key)),
            false => Ok(()),
        }
    }

    async fn call<T>(&self, key: &str, effect: impl Future<Output = Result<T>>) -> Result<T> {
        self.random.pause().await;
        self.alive(key)?;
        if self.random.one_in(self.failures) {
            return Err(Memory::error(ErrorKind::Unreachable, key));
        }
        let result = effect.await;
        self.random.pause().await;
        self.alive(key)?;
        result
    }
}

#[async_trait]
impl Store for Chaos {
    fn url(&self) -> String {
        self.inner.url()
    }
    async fn put(&self, key: &str, data: Bytes) -> Result<()> {
        self.random.pause().await;
        self.alive(key)?;
        if self.random.one_in(self.failures) {
            // The host is told that it failed, and it takes effect at once, later, or never.
            let (inner, key_, random) = (self.inner.clone(), key.to_owned(), self.random.clone());
            let wait = random.below(60);
            if wait < 40 {
                tokio::spawn(async move {
                    for _ in 0..wait {
                        random.pause().await;
                    }
                    inner.put(&key_, data).await
                });
            }
            return Err(Memory::error(ErrorKind::Unreachable, key));
        }
        let result = self.inner.put(key, data).await;
        self.random.pause().await;
        self.alive(key)?;
        result
    }
    async fn put_if_absent(&self, _: &str, _: Bytes) -> Result<PutIfAbsent> {
        Ok(PutIfAbsent::Unsupported)
    }
    async fn get(&self, key: &str) -> Result<Bytes> {
        self.call(key, self.inner.get(key)).await
    }
    async fn get_range(&self, key: &str, offset: u64, len: u64) -> Result<Bytes> {
        self.call(key, self.inner.get_range(key, offset, len)).await
    }
    async fn get_tail(&self, key: &str, len: u64) -> Result<(Bytes, u64)> {
        self.call(key, self.inner.get_tail(key, len)).await
    }
    async fn size(&self, key: &str) -> Result<Option<u64>> {
        self.call(key, self.inner.size(key)).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        self.call(prefix, self.inner.list(prefix)).await
    }
    async fn delete(&self, key: &str) -> Result<()> {
        self.call(key, self.inner.delete(key)).await
    }
    async fn prepare(&self) -> Result<()> {
        self.inner.prepare().await
    }
}
