//! The repository format on top of [`store`](crate::store); `docs/format.md` is its contract.
//!
//! | file | what is in it |
//! | --- | --- |
//! | [`id`], [`entry`], [`record`] | chunk ids, entries of listings, snapshot records |
//! | [`keys`], [`seal`] | secrets; encryption of objects |
//! | [`pack`], [`index`] | where chunks are kept, and how they are found |
//! | [`cache`] | the local copy of metadata |
//! | [`session`] | a writer, from its announcement to its commit |
//! | [`epochs`] | what collectors have decided |
//! | [`lease`], [`heartbeat`] | which host may write a shared volume; whether a host is alive |
//! | [`read`] | chunks, by id |
//! | [`list`], [`leaves`] | which snapshots there are, and the leaves of one |

pub mod cache;
pub mod entry;
pub mod epochs;
pub mod error;
pub mod heartbeat;
pub mod id;
pub mod index;
pub mod keys;
pub mod lease;
pub mod leaves;
pub mod list;
mod mmap;
pub mod monitor;
pub mod pack;
pub mod present;
pub mod read;
pub mod record;
pub mod seal;
pub mod session;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::store::probe::StorageReport;
use crate::store::{PutIfAbsent, Store};

pub use error::{RepoError, Result};
pub use id::{ChunkId, ChunkKind};
pub use keys::{Keys, Lock, Unlock};
pub use lease::{HeldLease, Lease};
pub use monitor::Monitor;
pub use record::{DockerContext, FileProblem, SnapshotRecord, SourceKind, VolumeDefinition};

/// The version of the format that this voltool writes.
pub const FORMAT: u32 = 1;
/// Names in `features` that this voltool understands.
const KNOWN_FEATURES: &[&str] = &[];
/// Packs on their way to the storage at once, over all sessions of a process. Four of 16 MiB hide the latency of a distant server
/// and stay within the default memory budget.
const UPLOADS: usize = 4;

const README: &str = include_str!("../../examples/README-repository.txt");
const RESTORE_PY: &str = include_str!("../../examples/restore.py");

/// How files are cut into chunks. Fixed at `init`, so that the same content gives the same chunks for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkerParams {
    /// Files up to this size are bundled, in bytes.
    pub bundle_max_file: u64,
    /// About the size of a bundle, in bytes.
    pub bundle_target: u64,
    /// Content-defined chunks are not smaller than this, in bytes.
    pub cdc_min: u32,
    /// Content-defined chunks are about this large, in bytes.
    pub cdc_avg: u32,
    /// Content-defined chunks are not larger than this, in bytes.
    pub cdc_max: u32,
    /// Page-structured files are cut at multiples of this, in bytes.
    pub fixed: u32,
}

impl Default for ChunkerParams {
    fn default() -> Self {
        ChunkerParams {
            bundle_max_file: 64 << 10,
            bundle_target: 1 << 20,
            cdc_min: 128 << 10,
            cdc_avg: 512 << 10,
            cdc_max: 2 << 20,
            fixed: 1 << 20,
        }
    }
}

impl ChunkerParams {
    /// Whether a chunker can work with these numbers, and a reader with what it makes.
    fn is_sane(&self) -> bool {
        let max = pack::MAX_CHUNK as u64;
        self.bundle_max_file <= max / 4
            && (1..=max / 4).contains(&self.bundle_target)
            && (64..=self.cdc_avg).contains(&self.cdc_min)
            && self.cdc_avg <= self.cdc_max
            && u64::from(self.cdc_max) <= max
            && (4096..=max).contains(&u64::from(self.fixed))
    }
}

/// `voltool.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RepoConfig {
    pub format: u32,
    pub id: String,
    pub created: Timestamp,
    #[serde(default)]
    pub features: Vec<String>,
    pub encryption: Encryption,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    pub chunker: ChunkerParams,
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageReport>,
}

/// What the probe found is information: a report that this version cannot read is as good as none.
fn lenient<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<StorageReport>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

/// Whether objects are encrypted, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// age v1 files.
    Age,
    /// Not at all.
    None,
}

/// An opened repository.
pub struct Repository {
    store: Arc<dyn Store>,
    config: RepoConfig,
    keys: Keys,
    cache: cache::Cache,
    index: RwLock<index::Index>,
    /// Packs in which something could not be read: no new snapshot may rely on them.
    unreadable: Mutex<BTreeSet<index::PackName>>,
    /// When every pack was asked last, and what was wrong with some.
    learnt: tokio::sync::Mutex<Option<(Instant, Vec<String>)>>,
    /// Packs whose own tables were read because an index was wrong about them.
    learnt_again: tokio::sync::Mutex<BTreeSet<index::PackName>>,
    uploads: Arc<Semaphore>,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Repository({} at {})", self.config.id, self.store.url())
    }
}

impl Repository {
    /// Makes a repository in `store`, locked as `lock` says, and opens it. `report` is what probing the storage found.
    ///
    /// `voltool.json` is written last: until then there is no repository, and a second attempt can follow a failed one.
    pub async fn create(
        store: Arc<dyn Store>,
        lock: &Lock,
        chunker: ChunkerParams,
        report: Option<StorageReport>,
        cache_dir: &Path,
    ) -> Result<Repository> {
        if let Some(config) = read_config(&*store).await? {
            return Err(RepoError::AlreadyExists { url: store.url(), id: config.id });
        }
        let id = ulid::Ulid::generate().to_string();
        let (keys, locked) = Keys::generate(&id, lock)?;
        store.put("README.txt", README.into()).await?;
        store.put("restore.py", RESTORE_PY.into()).await?;
        let recipient = match locked {
            Some((recipient, sealed)) => {
                store.put(&format!("keys/{id}.age"), sealed).await?;
                Some(recipient)
            }
            None => None,
        };
        let encryption = if recipient.is_some() { Encryption::Age } else { Encryption::None };
        let config = RepoConfig {
            format: FORMAT,
            id,
            created: Timestamp::now(),
            features: Vec::new(),
            encryption,
            recipient,
            chunker,
            storage: report,
        };
        let json = serde_json::to_vec_pretty(&config).map_err(|e| RepoError::Codec(e.to_string()))?;
        match store.put_if_absent("voltool.json", json.clone().into()).await? {
            PutIfAbsent::Created => {}
            PutIfAbsent::Unsupported => store.put("voltool.json", json.into()).await?,
            PutIfAbsent::Exists => return Err(RepoError::AlreadyExists { url: store.url(), id: "just made".into() }),
        }
        Self::assemble(store, config, keys, cache_dir)
    }

    /// Opens the repository in `store` with the first of `unlock` that fits.
    pub async fn open(store: Arc<dyn Store>, unlock: &[Unlock], cache_dir: &Path) -> Result<Repository> {
        let Some(config) = read_config(&*store).await? else {
            return Err(RepoError::NoRepository { url: store.url() });
        };
        let url = store.url();
        if config.format != FORMAT {
            return Err(RepoError::TooNew { url, what: format!("format {}", config.format) });
        }
        if let Some(feature) = config.features.iter().find(|f| !KNOWN_FEATURES.contains(&f.as_str())) {
            return Err(RepoError::TooNew { url, what: format!("feature {feature:?}") });
        }
        // It becomes the name of local folders, and this object is nobody's secret.
        if ulid::Ulid::from_string(&config.id).is_err() {
            return Err(RepoError::damaged("voltool.json", "its id is no ULID"));
        }
        if !config.chunker.is_sane() {
            return Err(RepoError::damaged("voltool.json", "its chunker parameters make no sense"));
        }
        if config.encryption == Encryption::None {
            return Self::assemble(store, config, Keys::plain(), cache_dir);
        }
        if unlock.is_empty() {
            return Err(RepoError::NoKey { url });
        }
        let cache = cache::Cache::open(cache_dir, &config.id)?;
        // A cached key object that opens saves two requests; one that does not may be out of date.
        let cached = format!("keys/{}.age", config.id);
        if let Some(sealed) = cache.object(&cached)
            && let Ok(Some(keys)) = Keys::open(&cached, &sealed, &config.id, unlock)
        {
            return Self::assemble(store, config, keys, cache_dir);
        }
        let mut damaged = None;
        let objects = store.list("keys/").await?;
        for object in &objects {
            let sealed = store.get(&object.key).await?;
            match Keys::open(&object.key, &sealed, &config.id, unlock) {
                Ok(Some(keys)) => {
                    cache.keep_object(&cached, &sealed);
                    return Self::assemble(store, config, keys, cache_dir);
                }
                Ok(None) => {}
                Err(e) => damaged = Some(e),
            }
        }
        if objects.is_empty() {
            return Err(RepoError::damaged("keys/", "there is no key object, and the repository is encrypted"));
        }
        Err(damaged.unwrap_or(RepoError::WrongKey { url }))
    }

    fn assemble(store: Arc<dyn Store>, config: RepoConfig, keys: Keys, cache_dir: &Path) -> Result<Repository> {
        if config.encryption == Encryption::Age
            && let seal::Sealer::Age { recipient, .. } = &keys.sealer
            && config.recipient.as_deref() != Some(&recipient.to_string())
        {
            // Otherwise whoever can change this one file could have new snapshots encrypted to a key of their own.
            return Err(RepoError::damaged(
                "voltool.json",
                "its recipient is not the one that the repository's key belongs to",
            ));
        }
        let cache = cache::Cache::open(cache_dir, &config.id)?;
        Ok(Repository {
            store,
            config,
            keys,
            cache,
            index: RwLock::default(),
            unreadable: Mutex::default(),
            learnt: tokio::sync::Mutex::default(),
            learnt_again: tokio::sync::Mutex::default(),
            uploads: Arc::new(Semaphore::new(UPLOADS)),
        })
    }

    /// Fits the number of packs that are on their way at once to a budget of `bytes` of memory: a quarter of it, at least one pack.
    #[must_use]
    pub fn with_memory(mut self, bytes: u64) -> Self {
        let packs = (bytes / 4 / pack::PACK_TARGET as u64).clamp(1, UPLOADS as u64);
        self.uploads = Arc::new(Semaphore::new(packs as usize));
        self
    }

    /// Its id, a ULID.
    pub fn id(&self) -> &str {
        &self.config.id
    }

    /// Where it is.
    pub fn url(&self) -> String {
        self.store.url()
    }

    /// What `voltool.json` says.
    pub fn config(&self) -> &RepoConfig {
        &self.config
    }

    /// Its keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The storage under it.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    fn read_index(&self) -> std::sync::RwLockReadGuard<'_, index::Index> {
        // A panic while the lock was held leaves the list of segments whole: nothing in it is changed in place.
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_index(&self) -> std::sync::RwLockWriteGuard<'_, index::Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn unreadable(&self) -> std::sync::MutexGuard<'_, BTreeSet<index::PackName>> {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read_config(store: &dyn Store) -> Result<Option<RepoConfig>> {
    match store.get("voltool.json").await {
        Ok(json) => {
            // Look at the format first: a later one may have other fields.
            #[derive(Deserialize)]
            struct Format {
                format: u32,
            }
            let damaged = |e| RepoError::damaged("voltool.json", e);
            let format: Format = serde_json::from_slice(&json).map_err(damaged)?;
            if format.format != FORMAT {
                return Err(RepoError::TooNew { url: store.url(), what: format!("format {}", format.format) });
            }
            Ok(Some(serde_json::from_slice(&json).map_err(damaged)?))
        }
        Err(e) if e.is_not_found() => Ok(None),
        // A directory that is not there holds no repository; a bucket that is not there is another matter.
        Err(e) if e.kind == crate::store::ErrorKind::NoContainer && !store.url().starts_with("s3://") => Ok(None),
        Err(e) => Err(e.into()),
    }
}
