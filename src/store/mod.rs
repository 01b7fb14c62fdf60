//! Objects: the few verbs that a repository needs of a storage, and the storages that offer them.
//!
//! The verbs are deliberately the ones that every S3-compatible server has: PUT, GET, ranged GET, LIST, HEAD and DELETE.
//! Conditional PUT is offered where the storage honours it, and is never what safety rests on (see `docs/format.md`,
//! "Commit and collection").
//!
//! | storage | what it is |
//! | --- | --- |
//! | [`local::LocalStore`] | a directory; each PUT is written beside, synced and renamed |
//! | [`s3::S3Store`] | a bucket and a prefix on an S3-compatible server |
//! | [`fault::FaultStore`] | another store with injected failures, for tests |
//! | [`record::RecordStore`] | another store with every call written down, for tests of what an operation costs |

pub mod error;
pub mod fault;
pub mod local;
pub mod probe;
pub mod record;
pub mod s3;
pub mod url;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

pub use error::{ErrorKind, StoreError};
pub use s3::S3Options;
pub use url::{StoreUrl, UrlError};

/// A `Result` whose error names the object and the storage.
pub type Result<T> = std::result::Result<T, StoreError>;

/// One object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectInfo {
    /// The full key below the repository's root, with `/` between its parts.
    pub key: String,
    /// The object's size in bytes.
    pub size: u64,
}

/// What a conditional PUT did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutIfAbsent {
    /// The object was not there, and now it is.
    Created,
    /// An object of that key was there already; nothing changed.
    Exists,
    /// The storage says that it does not offer conditional writes; nothing changed.
    Unsupported,
}

/// A storage of immutable objects.
///
/// Keys are relative to the repository's root, use `/` as separator, and never begin with one. Every method may be called
/// from many tasks at once. A PUT is all or nothing: a reader sees the whole object or none.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Where this storage is, as a person would write it. Never holds a secret.
    fn url(&self) -> String;

    /// Stores `data` under `key`, replacing what was there. Durable when it returns.
    async fn put(&self, key: &str, data: Bytes) -> Result<()>;

    /// Stores `data` under `key` only if no object of that key exists.
    async fn put_if_absent(&self, key: &str, data: Bytes) -> Result<PutIfAbsent>;

    /// Returns the whole object. [`ErrorKind::NotFound`] if there is none.
    async fn get(&self, key: &str) -> Result<Bytes>;

    /// Returns `len` bytes from `offset`. Fewer bytes than asked for is an [`ErrorKind::Integrity`] error.
    async fn get_range(&self, key: &str, offset: u64, len: u64) -> Result<Bytes>;

    /// Returns the last `len` bytes (the whole object if it is smaller) and the object's size.
    async fn get_tail(&self, key: &str, len: u64) -> Result<(Bytes, u64)>;

    /// Returns the object's size, or `None` if it does not exist.
    async fn size(&self, key: &str) -> Result<Option<u64>>;

    /// Returns every object whose key begins with `prefix`, in key order. `prefix` is a plain string prefix, as in S3.
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>>;

    /// Removes the object. Removing one that is not there is not an error, as in S3.
    async fn delete(&self, key: &str) -> Result<()>;

    /// Checks that the place exists and may be used, and makes it where that is voltool's to do (a local directory; never a
    /// bucket). Called once by `voltool init`.
    async fn prepare(&self) -> Result<()>;

    /// What became of the checksums that went with PUTs so far: the algorithm's name if the storage confirmed one, `"ignored"`
    /// or `"refused"` if it did not, `None` if nothing is known or the storage has no such thing.
    fn checksum_support(&self) -> Option<&'static str> {
        None
    }
}

/// Opens the storage that `url` names. Makes nothing and, for S3, sends nothing to the bucket: see [`Store::prepare`].
///
/// # Errors
/// [`ErrorKind::Invalid`] if `s3` names an endpoint that cannot be used.
pub async fn open(url: &StoreUrl, s3: &S3Options) -> Result<Arc<dyn Store>> {
    Ok(match url {
        StoreUrl::Local(path) => Arc::new(local::LocalStore::new(path.clone())),
        StoreUrl::S3 { bucket, prefix } => Arc::new(s3::S3Store::connect(bucket, prefix, s3).await?),
    })
}
