//! Reading: the index, packs, and chunks by their id.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};

use super::index::{self, Location, PackInfo, PackName, Segment};
use super::pack::{self, PackEntry};
use super::{ChunkId, RepoError, Repository, Result};

/// Requests for index segments and tables at once.
const PARALLEL: usize = 16;
/// More segments than this are merged locally, so that a lookup does not search each.
const MERGE_ABOVE: usize = 12;
/// How much of a pack's end is asked for to find its table: enough for about 1,400 chunks.
const TAIL: u64 = 64 * 1024;
/// No table and no frame of a pack comes near this length; more than that is damage, or meant to fill the memory.
const MAX_RANGE: u64 = 64 << 20;
/// The packs are not asked again within this time what no index tells, however many chunks are missing.
const LEARN_AGAIN: Duration = Duration::from_secs(10);

impl Repository {
    /// Brings the index up to date: one LIST, and a GET for each segment that is not in the cache. Damaged segments are left out and
    /// returned; what they told is found again in the packs when it is needed.
    pub async fn load_index(&self) -> Result<Vec<RepoError>> {
        *self.learnt.lock().await = None;
        let keys: Vec<String> = self.store.list("index/").await?.into_iter().map(|o| o.key).collect();
        let names: Vec<String> = keys.iter().filter_map(|k| segment_name(k)).map(str::to_owned).collect();
        if let Some(merged) = self.open_merged(&names)? {
            *self.write_index() = merged;
            return Ok(Vec::new());
        }
        let mut damaged = Vec::new();
        let mut segments = Vec::new();
        // Owned names: with borrowed ones the compiler cannot tell that the future may be sent to another thread.
        let read = names.clone().into_iter().map(|name| async move { self.segment(&name).await });
        let mut results = futures_util::stream::iter(read).buffered(PARALLEL);
        while let Some(result) = results.next().await {
            match result {
                Ok(Some(segment)) => segments.push(segment),
                Ok(None) => {}
                Err(e) if e.is_about_one_object() => damaged.push(e),
                Err(e) => return Err(e),
            }
        }
        drop(results);
        let mut index = index::Index::default();
        if segments.len() > MERGE_ABOVE && damaged.is_empty() {
            let name = merged_name(&names);
            match self.cache.keep_large_segment(&name, |path| index::merge(&segments, path)) {
                Ok(data) => index.add(Segment::open(&name, data)?),
                // Without room for the merge, lookups search each of them.
                Err(_) => segments.into_iter().for_each(|s| index.add(s)),
            }
            // What was merged before is part of this one.
            let old = |n: &String| n.starts_with("merged-") && *n != name;
            self.cache.segment_names().iter().filter(|n| old(n)).for_each(|n| self.cache.drop_segment(n));
        } else {
            segments.into_iter().for_each(|s| index.add(s));
        }
        *self.write_index() = index;
        Ok(damaged)
    }

    fn open_merged(&self, names: &[String]) -> Result<Option<index::Index>> {
        if names.len() <= MERGE_ABOVE {
            return Ok(None);
        }
        let name = merged_name(names);
        let Some(data) = self.cache.segment(&name) else { return Ok(None) };
        let mut index = index::Index::default();
        index.add(Segment::open(&name, data)?);
        Ok(Some(index))
    }

    async fn segment(&self, name: &str) -> Result<Option<Segment>> {
        if let Some(data) = self.cache.segment(name) {
            match Segment::open(name, data) {
                Ok(segment) => return Ok(Some(segment)),
                Err(_) => self.cache.drop_segment(name),
            }
        }
        let key = format!("index/{name}.idx");
        let sealed = match self.store.get(&key).await {
            Ok(sealed) => sealed,
            Err(e) if e.is_not_found() => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let compressed = self.keys.sealer.open(&key, sealed)?;
        // Most of a segment are ids, which do not compress: one that grows more than this was made to fill the memory.
        let limit = 16 * compressed.len() as u64 + (1 << 20);
        let mut plain = Vec::new();
        zstd::stream::read::Decoder::new(&compressed[..])
            .and_then(|decoder| decoder.take(limit + 1).read_to_end(&mut plain))
            .map_err(|e| RepoError::damaged(key.as_str(), e))?;
        if plain.len() as u64 > limit {
            return Err(RepoError::damaged(key, "no index compresses that well"));
        }
        let segment = Segment::open(name, self.cache.keep_segment(name, &plain)?)?;
        Ok(Some(segment))
    }

    /// Adds a segment that was just written, so that it can be searched.
    pub(super) fn install_segment(&self, name: &str, plain: &[u8]) -> Result<()> {
        let segment = Segment::open(name, self.cache.keep_segment(name, plain)?)?;
        self.write_index().add(segment);
        Ok(())
    }

    /// Returns whether the chunk is in a pack that is not in `hidden`.
    pub fn has_chunk(&self, id: &ChunkId, hidden: &BTreeSet<PackName>) -> bool {
        self.read_index().contains(id, hidden)
    }

    /// Returns every place where the chunk can be read, as far as the index knows.
    pub fn locate(&self, id: &ChunkId) -> Vec<Location> {
        self.read_index().locate(id, &BTreeSet::new())
    }

    /// The packs that the index knows.
    pub fn known_packs(&self) -> BTreeSet<PackName> {
        self.read_index().packs().map(|p| p.name).collect()
    }

    /// Learns from the packs themselves what no index tells: reads the table of every pack below `prefix` that the index does not
    /// know. Returns what was learnt; packs whose table cannot be read are in the second list.
    pub async fn learn_packs(&self, prefix: &str) -> Result<(Vec<(PackInfo, Vec<PackEntry>)>, Vec<RepoError>)> {
        let known = self.known_packs();
        let objects = self.store.list(prefix).await?;
        let unknown: Vec<(PackName, u64)> = objects
            .iter()
            .filter_map(|o| Some((PackName::from_key(&o.key)?, o.size)))
            .filter(|(name, _)| !known.contains(name))
            .collect();
        let tables = unknown.into_iter().map(|(name, size)| self.read_table(name, size));
        let mut results = futures_util::stream::iter(tables).buffered(PARALLEL);
        let (mut learnt, mut damaged) = (Vec::new(), Vec::new());
        while let Some(result) = results.next().await {
            match result {
                Ok(Some(table)) => learnt.push(table),
                Ok(None) => {}
                Err(e) if e.is_about_one_object() => damaged.push(e),
                Err(e) => return Err(e),
            }
        }
        drop(results);
        if !learnt.is_empty() {
            self.install_learnt(&learnt)?;
        }
        Ok((learnt, damaged))
    }

    async fn read_table(&self, name: PackName, size: u64) -> Result<Option<(PackInfo, Vec<PackEntry>)>> {
        let key = name.key();
        let whole = |stored: Bytes| -> Result<_> {
            let header = self
                .keys
                .sealer
                .header_len(&stored)
                .ok_or_else(|| RepoError::damaged(key.as_str(), "it has no header"))?;
            let info = PackInfo { name, size: stored.len() as u64, header: stored[..header].to_vec() };
            let plain = self.keys.sealer.open(&key, stored)?;
            Ok(Some((info, pack::read_table(&key, &plain, true)?)))
        };
        let get = async || match self.store.get(&key).await {
            Ok(stored) => whole(stored),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e.into()),
        };
        if size <= 4 * TAIL {
            return get().await;
        }
        let head = self.store.get_range(&key, 0, 1024.min(size)).await?;
        let Some(header_len) = self.keys.sealer.header_len(&head) else { return get().await };
        let info = PackInfo { name, size, header: head[..header_len].to_vec() };
        // In an encrypted pack the end has to be read from the beginning of a block; the plain length follows from the size.
        let plain_len = self.keys.sealer.plain_len(header_len, size);
        let mut want = TAIL.min(plain_len);
        for _ in 0..2 {
            let offset = plain_len - want;
            let Ok(tail) = self.read_range(&info, offset, want).await else { return get().await };
            match pack::table_len(&tail) {
                Some(len) if len as u64 <= want => match pack::read_table(&key, &tail, false) {
                    Ok(entries) => return Ok(Some((info, entries))),
                    Err(_) => return get().await,
                },
                Some(len) if (len as u64) <= plain_len => want = len as u64,
                _ => return get().await,
            }
        }
        get().await
    }

    /// Reads `len` bytes of a pack's content from `offset`.
    pub async fn read_range(&self, pack: &PackInfo, offset: u64, len: u64) -> Result<Bytes> {
        let key = pack.name.key();
        if len > MAX_RANGE {
            return Err(RepoError::damaged(key, format!("its index claims {len} bytes in one piece")));
        }
        let (at, n) = self.keys.sealer.stored_range(pack.header.len(), offset, len);
        let n = n.min(pack.size.saturating_sub(at));
        let stored = self.store.get_range(&key, at, n).await?;
        self.keys.sealer.open_range(&key, &pack.header, stored, offset, len)
    }

    /// Decompresses one chunk out of `content`, which is the pack's content from `offset` on, and checks its id. A delta must be given
    /// its base's content.
    pub fn decode_chunk(
        &self,
        location: &Location,
        content: &[u8],
        offset: u64,
        base: Option<&[u8]>,
    ) -> Result<Vec<u8>> {
        let entry = &location.entry;
        let key = location.pack.name.key();
        let at = (u64::from(entry.offset)).checked_sub(offset).map(|at| at as usize);
        let frame = at.and_then(|at| content.get(at..at + entry.len as usize));
        let frame = frame.ok_or_else(|| RepoError::damaged(key.as_str(), "it is shorter than its index says"))?;
        let raw = pack::decompress(&key, frame, entry.raw_len, base)?;
        if self.keys.chunk_id(&raw) != entry.id {
            return Err(RepoError::damaged(key, format!("chunk {:?} in it has another content", entry.id)));
        }
        Ok(raw)
    }

    /// Reads one data or metadata chunk from the repository, wherever a good copy is.
    pub async fn read_chunk(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.read_wherever(id, false).await
    }

    /// Reads a chunk that is the base of a delta: from a place where it is whole, because deltas are one deep.
    pub fn read_full_chunk<'a>(&'a self, id: &'a ChunkId) -> BoxFuture<'a, Result<Vec<u8>>> {
        self.read_wherever(id, true).boxed()
    }

    async fn read_wherever(&self, id: &ChunkId, must_be_full: bool) -> Result<Vec<u8>> {
        let mut failures = Vec::new();
        let mut locations = self.locate_or_learn(id).await?;
        let mut tried = HashSet::new();
        for believe_index in [true, false] {
            if !believe_index {
                // A pack that no index tells about may hold another copy, and an index may be wrong about where a pack holds this one.
                self.learn_all().await?;
                self.learn_again(locations.iter().map(|l| l.pack.name)).await?;
                locations = self.locate(id);
            }
            for location in locations.iter().filter(|l| !must_be_full || l.entry.base.is_none()) {
                if !tried.insert((location.pack.name, location.pack.size, location.entry.clone())) {
                    continue;
                }
                match self.read_at(location).await {
                    Ok(raw) => return Ok(raw),
                    Err(e) => failures.push(e),
                }
            }
        }
        if failures.iter().all(RepoError::is_about_one_object) {
            self.unreadable().extend(locations.iter().map(|l| l.pack.name));
        }
        Err(missing(*id, failures))
    }

    async fn read_at(&self, location: &Location) -> Result<Vec<u8>> {
        let entry = &location.entry;
        let content = self.read_range(&location.pack, entry.offset.into(), entry.len.into()).await?;
        let base = match &entry.base {
            None => None,
            Some(base) => Some(self.read_full_chunk(base).await?),
        };
        self.decode_chunk(location, &content, entry.offset.into(), base.as_deref())
    }

    /// Reads the tables of these packs, whatever an index tells about them; each once.
    async fn learn_again(&self, packs: impl Iterator<Item = PackName>) -> Result<()> {
        let mut done = self.learnt_again.lock().await;
        for name in packs {
            if !done.insert(name) {
                continue;
            }
            let Some(size) = self.store.size(&name.key()).await? else { continue };
            match self.read_table(name, size).await {
                Ok(Some(table)) => self.install_learnt(&[table])?,
                Ok(None) => {}
                Err(e) if e.is_about_one_object() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Adds what was learnt from packs to the index. It is as good as a segment from the repository, but nobody else's, so it is not
    /// kept in the cache.
    fn install_learnt(&self, learnt: &[(PackInfo, Vec<PackEntry>)]) -> Result<()> {
        let name = format!("learnt-{}", ulid::Ulid::generate());
        self.install_segment(&name, &index::encode(learnt))?;
        self.cache.drop_segment(&name);
        Ok(())
    }

    /// Where the chunk is; if the index does not know, the packs are asked.
    pub async fn locate_or_learn(&self, id: &ChunkId) -> Result<Vec<Location>> {
        let found = self.locate(id);
        if !found.is_empty() {
            return Ok(found);
        }
        let damaged = self.learn_all().await?;
        let found = self.locate(id);
        if found.is_empty() {
            return Err(missing_because(*id, damaged));
        }
        Ok(found)
    }

    /// Learns from every pack what no index tells, unless that was done a moment ago. Returns what was wrong with some packs.
    async fn learn_all(&self) -> Result<Vec<String>> {
        let mut learnt = self.learnt.lock().await;
        if let Some((when, damaged)) = &*learnt
            && when.elapsed() < LEARN_AGAIN
        {
            return Ok(damaged.clone());
        }
        let damaged: Vec<String> = self.learn_packs("packs/").await?.1.iter().map(ToString::to_string).collect();
        *learnt = Some((Instant::now(), damaged.clone()));
        Ok(damaged)
    }

    /// Reads a metadata chunk: from the cache, or with its whole pack, because its neighbours are wanted next.
    pub async fn meta_chunk(&self, id: &ChunkId) -> Result<Bytes> {
        if let Some(frame) = self.cache.chunk(id) {
            // The frame holds the content's size; the id checks the content.
            let raw = zstd::bulk::decompress(&frame, pack::MAX_CHUNK).ok();
            let raw = raw.filter(|raw| self.keys.chunk_id(raw) == *id);
            if let Some(raw) = raw {
                return Ok(raw.into());
            }
            self.cache.drop_chunk(id);
        }
        let mut failures = Vec::new();
        for location in self.locate_or_learn(id).await? {
            match self.meta_pack(&location.pack, id).await {
                Ok(raw) => return Ok(raw),
                Err(e) => failures.push(e),
            }
        }
        // A pack that is damaged elsewhere may still hold this chunk.
        self.read_chunk(id).await.map(Bytes::from).map_err(|e| match failures.into_iter().next() {
            Some(first) if matches!(first, RepoError::Damaged { .. }) => first,
            _ => e,
        })
    }

    async fn meta_pack(&self, pack: &Arc<PackInfo>, wanted: &ChunkId) -> Result<Bytes> {
        let key = pack.name.key();
        let plain = self.keys.sealer.open(&key, self.store.get(&key).await?)?;
        let mut found = None;
        for entry in pack::read_table(&key, &plain, true)? {
            if !entry.kind.is_metadata() || entry.base.is_some() {
                continue;
            }
            let id = entry.id;
            let frame = plain.get(entry.offset as usize..entry.offset as usize + entry.len as usize);
            let Some(frame) = frame else { continue };
            if id == *wanted {
                let location = Location { pack: pack.clone(), entry };
                found = Some(self.decode_chunk(&location, &plain, 0, None)?.into());
            }
            self.cache.keep_chunk(&id, frame);
        }
        found.ok_or_else(|| RepoError::damaged(key, format!("chunk {wanted:?} is not in it")))
    }

    /// Keeps a metadata chunk that was just written, so that the next run need not ask for it.
    pub(super) fn keep_meta_chunk(&self, id: &ChunkId, frame: &[u8]) {
        self.cache.keep_chunk(id, frame);
    }
}

/// The error for a chunk that could not be read. A storage that does not answer is no damage, and is what is said first.
fn missing(id: ChunkId, mut failures: Vec<RepoError>) -> RepoError {
    if let Some(at) = failures.iter().position(|e| !e.is_about_one_object()) {
        return failures.swap_remove(at);
    }
    missing_because(id, failures.iter().map(ToString::to_string).collect())
}

fn missing_because(id: ChunkId, mut reasons: Vec<String>) -> RepoError {
    let mut said = HashSet::new();
    reasons.retain(|reason| said.insert(reason.clone()));
    reasons.truncate(3);
    let reason = if reasons.is_empty() { "no pack holds it".to_owned() } else { reasons.join("; ") };
    RepoError::MissingChunk { id, reason }
}

fn segment_name(key: &str) -> Option<&str> {
    // It becomes a file name in the cache, so nothing else than what voltool writes is taken.
    key.strip_prefix("index/")?.strip_suffix(".idx").filter(|name| ulid::Ulid::from_string(name).is_ok())
}

fn merged_name(names: &[String]) -> String {
    let sorted: BTreeMap<&String, ()> = names.iter().map(|n| (n, ())).collect();
    let mut hasher = blake3::Hasher::new();
    sorted.keys().for_each(|n| {
        hasher.update(n.as_bytes());
    });
    format!("merged-{}", hasher.finalize().to_hex())
}
