//! A writer, from its announcement to its commit. The protocol is in `docs/format.md`, "Commit and collection".
//!
//! Chunks come in from many threads ([`Session::put`]); each thread that meets a new chunk compresses it, checks that it decompresses to
//! the same bytes, and adds it to the open pack. A full pack is sealed by the thread that filled it and uploaded in the
//! background. The number of packs on their way is bounded over all sessions of the repository, so a slow storage slows the
//! threads down instead of filling memory.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::index::{self, PackInfo, PackName};
use super::lease::Lease;
use super::pack::{META_PACK_TARGET, PACK_TARGET, PackBuilder, PackEntry};
use super::record::SnapshotRecord;
use super::{ChunkId, ChunkKind, RepoError, Repository, Result};
use crate::store::PutIfAbsent;

/// Chunks in an index segment. A session that writes more publishes several, so that neither its memory nor what an
/// interruption leaves unindexed grows with the amount of data.
const SEGMENT_CHUNKS: usize = 65_536;
const SHARDS: usize = 16;
/// Who writes, for records and sessions.
pub const TOOL: &str = concat!("voltool ", env!("CARGO_PKG_VERSION"));

#[derive(Serialize)]
struct SessionObject<'a> {
    session: &'a str,
    started: Timestamp,
    tool: &'a str,
}

/// What became of a commit.
#[derive(Debug)]
pub enum Commit {
    /// The snapshot is there, and counts.
    Committed(Box<SnapshotRecord>),
    /// A collector no longer waited for this writer; begin again.
    Fenced,
}

/// How a thread compresses: its own context, reused from chunk to chunk.
pub struct Compressor {
    encoder: zstd::bulk::Compressor<'static>,
    decoder: zstd::bulk::Decompressor<'static>,
    check: Vec<u8>,
}

impl Compressor {
    /// Makes a compressor for that zstd level.
    pub fn new(level: i32) -> Result<Self> {
        let codec = |e: std::io::Error| RepoError::Codec(format!("cannot set up compression: {e}"));
        let mut encoder = zstd::bulk::Compressor::new(level).map_err(codec)?;
        encoder.include_checksum(true).map_err(codec)?;
        encoder.include_contentsize(true).map_err(codec)?;
        Ok(Compressor { encoder, decoder: zstd::bulk::Decompressor::new().map_err(codec)?, check: Vec::new() })
    }

    /// Compresses `raw` and proves that it comes back: bad memory shows here, before anything is uploaded.
    fn compress(&mut self, raw: &[u8]) -> Result<Vec<u8>> {
        let codec = |e: std::io::Error| RepoError::Codec(format!("compression failed: {e}"));
        let frame = self.encoder.compress(raw).map_err(codec)?;
        if self.check.len() < raw.len() {
            self.check.resize(raw.len(), 0);
        }
        let check = &mut self.check[..raw.len()];
        let len = self.decoder.decompress_to_buffer(&frame, check).map_err(codec)?;
        if len != raw.len() || check != raw {
            return Err(RepoError::Codec(
                "a chunk does not decompress to what it was: this machine's memory may be bad".to_owned(),
            ));
        }
        Ok(frame)
    }
}

#[derive(Default)]
struct Written {
    /// Packs that are in the storage and in no segment yet.
    pending: Vec<(PackInfo, Vec<PackEntry>)>,
    /// Chunks in `pending`.
    pending_chunks: usize,
    /// Every pack of this session, with its size.
    sizes: Vec<(PackName, u64)>,
}

struct Shared {
    repo: Arc<Repository>,
    id: ulid::Ulid,
    claims: Vec<Mutex<HashSet<ChunkId>>>,
    written: Mutex<Written>,
    failed: Mutex<Option<RepoError>>,
    has_failed: AtomicBool,
}

/// A writer's session.
pub struct Session {
    shared: Arc<Shared>,
    hidden: BTreeSet<PackName>,
    data: Mutex<PackBuilder>,
    meta: Mutex<PackBuilder>,
    next_pack: AtomicU32,
    added: AtomicU64,
    stored: AtomicU64,
    uploads: Mutex<JoinSet<()>>,
    runtime: Handle,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked is reported by whoever joins it; the data under these locks is whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    /// Announces a writer, and then looks at what collectors have condemned. The index must be loaded.
    ///
    /// What writers that died have left in the storage is found here, so that it is not uploaded a second time.
    pub async fn begin(repo: &Arc<Repository>) -> Result<Session> {
        let open_before = repo.open_sessions().await?;
        let id = ulid::Ulid::generate();
        let name = id.to_string();
        let object = SessionObject { session: &name, started: Timestamp::now(), tool: TOOL };
        let json = serde_json::to_vec(&object).map_err(|e| RepoError::Codec(e.to_string()))?;
        repo.store().put(&format!("sessions/{name}.json"), json.into()).await?;
        let epochs = repo.epochs().await?;
        let mut learnt = Vec::new();
        for other in open_before {
            // A damaged pack of a dead writer is of no use and does no harm.
            learnt.extend(repo.learn_packs(&format!("packs/{other}/")).await?.0);
        }
        // What was learnt becomes part of this session's index, so that nobody has to learn it again.
        learnt.retain(|(pack, _)| !epochs.condemned.contains(&pack.name));
        // What was found unreadable before now is stored again, if it is still there to be read.
        let mut hidden = epochs.condemned;
        hidden.extend(repo.unreadable().iter().copied());
        let pending_chunks = learnt.iter().map(|(_, entries)| entries.len()).sum();
        let written = Written { pending: learnt, pending_chunks, sizes: Vec::new() };
        Ok(Session {
            shared: Arc::new(Shared {
                repo: repo.clone(),
                id,
                claims: (0..SHARDS).map(|_| Mutex::default()).collect(),
                written: Mutex::new(written),
                failed: Mutex::default(),
                has_failed: AtomicBool::new(false),
            }),
            hidden,
            data: Mutex::default(),
            meta: Mutex::default(),
            next_pack: AtomicU32::new(0),
            added: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            uploads: Mutex::default(),
            runtime: Handle::current(),
        })
    }

    /// The session's id, which becomes the snapshot's.
    pub fn id(&self) -> ulid::Ulid {
        self.shared.id
    }

    /// The repository that it writes to.
    pub fn repo(&self) -> &Arc<Repository> {
        &self.shared.repo
    }

    /// Returns whether a snapshot of this session may refer to the chunk: it is in a pack that is neither condemned nor known to be
    /// unreadable, or was put before.
    pub fn has(&self, id: &ChunkId) -> bool {
        self.shared.repo.has_chunk(id, &self.hidden) || lock(self.shard(id)).contains(id)
    }

    /// Whether some packs may not be referred to, so that what is carried over from a parent has to be looked up.
    pub fn must_check_parent(&self) -> bool {
        !self.hidden.is_empty()
    }

    fn shard(&self, id: &ChunkId) -> &Mutex<HashSet<ChunkId>> {
        &self.shared.claims[id.spread() as usize % SHARDS]
    }

    /// Stores a chunk unless it is there already, and returns its id. Called from worker threads, never from async code: it waits when
    /// too many packs are on their way.
    pub fn put(&self, kind: ChunkKind, raw: &[u8], compressor: &mut Compressor) -> Result<ChunkId> {
        self.check_failed()?;
        let id = self.shared.repo.keys().chunk_id(raw);
        if self.shared.repo.has_chunk(&id, &self.hidden) || !lock(self.shard(&id)).insert(id) {
            return Ok(id);
        }
        let frame = compressor.compress(raw)?;
        self.added.fetch_add(raw.len() as u64, Ordering::Relaxed);
        self.stored.fetch_add(frame.len() as u64, Ordering::Relaxed);
        if kind.is_metadata() {
            self.shared.repo.keep_meta_chunk(&id, &frame);
        }
        let (builder, target) =
            if kind.is_metadata() { (&self.meta, META_PACK_TARGET) } else { (&self.data, PACK_TARGET) };
        let full = {
            let mut builder = lock(builder);
            builder.add(id, kind, raw.len() as u32, &frame, None);
            (builder.len() >= target).then(|| std::mem::take(&mut *builder))
        };
        if let Some(full) = full {
            self.close(full)?;
        }
        Ok(id)
    }

    /// Seals a pack and sends it on its way.
    fn close(&self, builder: PackBuilder) -> Result<()> {
        if builder.is_empty() {
            return Ok(());
        }
        let permit = self.runtime.block_on(self.shared.repo.uploads.clone().acquire_owned());
        let name = PackName { session: self.shared.id, number: self.next_pack.fetch_add(1, Ordering::Relaxed) };
        let (plain, entries) = builder.finish();
        let (sealed, header_len) = self.shared.repo.keys().sealer.seal(plain)?;
        let info = PackInfo { name, size: sealed.len() as u64, header: sealed[..header_len].to_vec() };
        let shared = self.shared.clone();
        lock(&self.uploads).spawn_on(
            async move {
                let _permit = permit;
                if let Err(e) = shared.upload(info, entries, sealed.into()).await {
                    shared.fail(e);
                }
            },
            &self.runtime,
        );
        Ok(())
    }

    fn check_failed(&self) -> Result<()> {
        if !self.shared.has_failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        // The first to ask gets the reason; the others only need to stop.
        Err(lock(&self.shared.failed).take().unwrap_or(RepoError::Interrupted))
    }

    /// Raw and stored bytes of the chunks that were new.
    pub fn added(&self) -> (u64, u64) {
        (self.added.load(Ordering::Relaxed), self.stored.load(Ordering::Relaxed))
    }

    /// Closes the open packs. Called from a worker thread, once all chunks are put.
    pub fn flush(&self) -> Result<()> {
        for builder in [&self.data, &self.meta] {
            let open = std::mem::take(&mut *lock(builder));
            self.close(open)?;
        }
        Ok(())
    }

    /// Waits for the uploads, checks them, publishes the index and commits `record` under `source`; under `lease`, if the volume is shared.
    ///
    /// # Errors
    /// [`RepoError::LeaseLost`] if the lease was lost. If that shows only after the record is there, it is marked as forgotten.
    pub async fn commit(self, source: &str, record: SnapshotRecord, lease: Option<&Lease>) -> Result<Commit> {
        let mut uploads = std::mem::take(&mut *lock(&self.uploads));
        while uploads.join_next().await.is_some() {}
        self.check_failed()?;
        let shared = &self.shared;
        let store = shared.repo.store();
        let name = shared.id.to_string();
        shared.publish(0).await?;

        // What the storage lists is what it holds: a lost or cut pack shows here, before the snapshot counts.
        let listed = store.list(&format!("packs/{name}/")).await?;
        for (pack, size) in &lock(&shared.written).sizes {
            let key = pack.key();
            match listed.iter().find(|o| o.key == key) {
                Some(object) if object.size == *size => {}
                Some(object) => {
                    let reason = format!("{size} bytes were written, {} are there", object.size);
                    return Err(RepoError::damaged(key, reason));
                }
                None => return Err(RepoError::damaged(key, "it was written, but the storage does not list it")),
            }
        }

        if let Some(lease) = lease {
            lease.ensure().await?;
        }
        let key = SnapshotRecord::key(source, &name);
        let object = record.encode(&key, shared.repo.keys())?;
        // The second net, where the storage has one. Names are never reused, so `Exists` cannot be someone else's record.
        match store.put_if_absent(&key, object.clone()).await? {
            PutIfAbsent::Created | PutIfAbsent::Exists => {}
            PutIfAbsent::Unsupported => store.put(&key, object.clone()).await?,
        }
        if !store.list(&format!("fences/{name}/")).await?.is_empty() {
            store.put(&format!("forgotten/{name}.json"), Bytes::from_static(b"{}")).await?;
            store.delete(&format!("sessions/{name}.json")).await?;
            return Ok(Commit::Fenced);
        }
        // Whoever took the lease over after this look began with a listing that shows the record. Whoever took it over before may not
        // have seen it.
        if let Some(lease) = lease
            && let Err(e) = lease.ensure().await
        {
            if matches!(e, RepoError::LeaseLost { .. }) {
                store.put(&format!("forgotten/{name}.json"), Bytes::from_static(b"{}")).await?;
                store.delete(&format!("sessions/{name}.json")).await?;
            }
            return Err(e);
        }
        // Committed. That the cache is full, or a session object stays behind for a collector to clear away, is no reason to call this a
        // failure.
        shared.repo.cache.keep_object(&key, &object);
        let _ = store.delete(&format!("sessions/{name}.json")).await;
        Ok(Commit::Committed(Box::new(record)))
    }

    /// Gives up without a snapshot. What is uploaded stays for the next session, which finds it through the session object.
    pub async fn abandon(self) {
        let mut uploads = std::mem::take(&mut *lock(&self.uploads));
        uploads.shutdown().await;
        let nothing_written = lock(&self.shared.written).sizes.is_empty();
        if nothing_written {
            let _ = self.shared.repo.store().delete(&format!("sessions/{}.json", self.shared.id)).await;
        }
    }
}

impl Shared {
    fn fail(&self, error: RepoError) {
        lock(&self.failed).get_or_insert(error);
        self.has_failed.store(true, Ordering::Relaxed);
    }

    async fn upload(&self, info: PackInfo, entries: Vec<PackEntry>, sealed: Bytes) -> Result<()> {
        let size = info.size;
        self.repo.store().put(&info.name.key(), sealed).await?;
        {
            let mut written = lock(&self.written);
            written.sizes.push((info.name, size));
            written.pending_chunks += entries.len();
            written.pending.push((info, entries));
        }
        self.publish(SEGMENT_CHUNKS).await
    }

    /// Publishes a segment if at least `threshold` chunks are in none.
    async fn publish(&self, threshold: usize) -> Result<()> {
        let packs = {
            let mut written = lock(&self.written);
            if written.pending_chunks < threshold.max(1) {
                return Ok(());
            }
            written.pending_chunks = 0;
            std::mem::take(&mut written.pending)
        };
        let name = ulid::Ulid::generate().to_string();
        let plain = index::encode(&packs);
        // Its checksum is what shows damage where there is no encryption.
        let compressed = Compressor::new(3)?.compress(&plain)?;
        let (sealed, _) = self.repo.keys().sealer.seal(compressed)?;
        self.repo.store().put(&format!("index/{name}.idx"), sealed.into()).await?;
        self.repo.install_segment(&name, &plain)?;
        // From here on the index answers for these chunks.
        for entry in packs.iter().flat_map(|(_, entries)| entries) {
            lock(&self.claims[entry.id.spread() as usize % SHARDS]).remove(&entry.id);
        }
        Ok(())
    }
}
