//! The index: which chunk is where. A cache of what the tables of the packs say, in segments that are never changed.
//!
//! A segment is searched where it lies: the chunks are sorted by id, the file is mapped into memory, and nothing of it is kept on the
//! heap but the list of packs. So memory does not grow with the repository.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use super::error::{RepoError, Result};
use super::mmap::Mapped;
use super::pack::PackEntry;
use super::{ChunkId, ChunkKind};

const MAGIC: &[u8; 8] = b"VTINDEX1";
const ROW: usize = 52;
const FLAG_DELTA: u8 = 1;

/// The name of a pack: the session that wrote it, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackName {
    /// The session's ULID.
    pub session: ulid::Ulid,
    /// The pack's number in that session.
    pub number: u32,
}

impl PackName {
    /// The pack's key in the store.
    pub fn key(&self) -> String {
        format!("packs/{}/{}.pack", self.session, self.number)
    }

    /// Reads a key of the form `packs/<session>/<n>.pack`.
    pub fn from_key(key: &str) -> Option<Self> {
        let (session, number) = key.strip_prefix("packs/")?.strip_suffix(".pack")?.split_once('/')?;
        Some(PackName { session: ulid::Ulid::from_string(session).ok()?, number: number.parse().ok()? })
    }
}

/// A pack as an index knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackInfo {
    /// Its name.
    pub name: PackName,
    /// The size of the stored object, in bytes.
    pub size: u64,
    /// The age header and nonce at its beginning; empty without encryption.
    pub header: Vec<u8>,
}

/// Where a chunk can be read.
#[derive(Debug, Clone)]
pub struct Location {
    /// The pack that holds it.
    pub pack: Arc<PackInfo>,
    /// Its place in that pack.
    pub entry: PackEntry,
}

/// Writes a segment (see `docs/format.md`, "index").
pub fn encode(packs: &[(PackInfo, Vec<PackEntry>)]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&(packs.len() as u32).to_le_bytes());
    let mut rows = Vec::new();
    for (number, (pack, entries)) in packs.iter().enumerate() {
        encode_pack(&mut out, pack);
        rows.extend(entries.iter().map(|e| (number as u32, e)));
    }
    rows.sort_by_key(|(number, e)| (e.id, *number));
    out.extend_from_slice(&(rows.len() as u32).to_le_bytes());
    let mut bases = Vec::new();
    for (row, (pack, e)) in rows.iter().enumerate() {
        encode_row(&mut out, *pack, e);
        if let Some(base) = e.base {
            bases.push((row as u32, base));
        }
    }
    out.extend_from_slice(&(bases.len() as u32).to_le_bytes());
    for (row, base) in bases {
        out.extend_from_slice(&row.to_le_bytes());
        out.extend_from_slice(&base.0);
    }
    out
}

fn encode_pack(out: &mut Vec<u8>, pack: &PackInfo) {
    out.extend_from_slice(&pack.name.session.to_bytes());
    out.extend_from_slice(&pack.name.number.to_le_bytes());
    out.extend_from_slice(&pack.size.to_le_bytes());
    out.extend_from_slice(&(pack.header.len() as u16).to_le_bytes());
    out.extend_from_slice(&pack.header);
}

fn encode_row(out: &mut Vec<u8>, pack: u32, e: &PackEntry) {
    out.extend_from_slice(&e.id.0);
    for number in [pack, e.offset, e.len, e.raw_len] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&[e.kind as u8, if e.base.is_some() { FLAG_DELTA } else { 0 }, 0, 0]);
}

/// One segment, mapped from its local file.
pub struct Segment {
    name: String,
    data: Mapped,
    packs: Vec<Arc<PackInfo>>,
    rows_at: usize,
    rows: usize,
    bases: HashMap<u32, ChunkId>,
}

impl Segment {
    /// Opens the local copy of a segment, and checks its layout (the cache has checked its bytes).
    pub fn open(name: &str, data: Mapped) -> Result<Self> {
        let damaged = || RepoError::damaged(format!("index/{name}.idx"), "its layout is wrong");
        let bytes: &[u8] = &data;
        let mut at = Cursor { bytes, at: 0 };
        if at.take(8) != Some(MAGIC) {
            return Err(damaged());
        }
        let mut packs = Vec::new();
        for _ in 0..at.u32().ok_or_else(damaged)? {
            let session = at.take(16).and_then(|b| b.try_into().ok()).ok_or_else(damaged)?;
            let number = at.u32().ok_or_else(damaged)?;
            let size = at.u64().ok_or_else(damaged)?;
            let len = at.u16().ok_or_else(damaged)?;
            let header = at.take(len as usize).ok_or_else(damaged)?.to_vec();
            let name = PackName { session: ulid::Ulid::from_bytes(session), number };
            packs.push(Arc::new(PackInfo { name, size, header }));
        }
        let rows = at.u32().ok_or_else(damaged)? as usize;
        let rows_at = at.at;
        let table = at.take(rows.checked_mul(ROW).ok_or_else(damaged)?).ok_or_else(damaged)?;
        let in_range = |row: &[u8]| {
            u32::from_le_bytes([row[32], row[33], row[34], row[35]]) < packs.len() as u32
                && ChunkKind::from_number(row[48]).is_some()
                && row[49] & !FLAG_DELTA == 0
        };
        if !table.chunks_exact(ROW).all(in_range) {
            return Err(damaged());
        }
        let mut bases = HashMap::new();
        for _ in 0..at.u32().ok_or_else(damaged)? {
            let row = at.u32().ok_or_else(damaged)?;
            let base = at.take(32).and_then(|b| b.try_into().ok()).ok_or_else(damaged)?;
            bases.insert(row, ChunkId(base));
        }
        Ok(Segment { name: name.to_owned(), packs, rows_at, rows, bases, data })
    }

    /// The segment's name: its ULID, or for a local merge of several, a hash of theirs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The packs that it tells about.
    pub fn packs(&self) -> &[Arc<PackInfo>] {
        &self.packs
    }

    /// The number of chunks in it.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether it holds no chunk.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    fn row(&self, row: usize) -> &[u8] {
        &self.data[self.rows_at + row * ROW..self.rows_at + (row + 1) * ROW]
    }

    /// The chunk of that row.
    pub fn location(&self, row: usize) -> Location {
        let bytes = self.row(row);
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let mut id = [0; 32];
        id.copy_from_slice(&bytes[..32]);
        let entry = PackEntry {
            id: ChunkId(id),
            offset: number(36),
            len: number(40),
            raw_len: number(44),
            // `open` has checked both.
            kind: ChunkKind::from_number(bytes[48]).unwrap_or(ChunkKind::Cdc),
            base: self.bases.get(&(row as u32)).copied(),
        };
        Location { pack: self.packs[number(32) as usize].clone(), entry }
    }

    /// The rows of that chunk.
    pub fn find(&self, id: &ChunkId) -> std::ops::Range<usize> {
        let (mut low, mut high) = (0, self.rows);
        while low < high {
            let middle = (low + high) / 2;
            if self.row(middle)[..32] < id.0[..] { low = middle + 1 } else { high = middle }
        }
        let mut end = low;
        while end < self.rows && self.row(end)[..32] == id.0 {
            end += 1;
        }
        low..end
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let got = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(got)
    }
    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }
    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }
    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}

/// All segments together.
#[derive(Default)]
pub struct Index {
    segments: Vec<Segment>,
}

impl Index {
    /// Adds a segment.
    pub fn add(&mut self, segment: Segment) {
        self.segments.push(segment);
    }

    /// Returns every place where the chunk can be read, but for packs in `hidden`.
    pub fn locate(&self, id: &ChunkId, hidden: &BTreeSet<PackName>) -> Vec<Location> {
        let mut found = Vec::new();
        for segment in &self.segments {
            for row in segment.find(id) {
                let location = segment.location(row);
                if !hidden.contains(&location.pack.name) {
                    found.push(location);
                }
            }
        }
        found
    }

    /// Returns whether the chunk is in a pack that is not in `hidden`.
    pub fn contains(&self, id: &ChunkId, hidden: &BTreeSet<PackName>) -> bool {
        self.segments.iter().any(|segment| {
            let rows = segment.find(id);
            !rows.is_empty()
                && (hidden.is_empty() || rows.into_iter().any(|r| !hidden.contains(&segment.location(r).pack.name)))
        })
    }

    /// Every pack that some segment tells about.
    pub fn packs(&self) -> impl Iterator<Item = &Arc<PackInfo>> {
        self.segments.iter().flat_map(|s| s.packs())
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

/// Merges segments into one local file, reading them side by side, so that a lookup searches few files however many there are.
pub fn merge(segments: &[Segment], path: &Path) -> Result<()> {
    use std::io::Write;
    let local = |e| RepoError::local("write", path, e);
    let mut numbers = HashMap::new();
    let mut packs: Vec<&Arc<PackInfo>> = Vec::new();
    for pack in segments.iter().flat_map(|s| s.packs()) {
        numbers.entry(pack.name).or_insert_with(|| {
            packs.push(pack);
            packs.len() as u32 - 1
        });
    }
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&(packs.len() as u32).to_le_bytes());
    packs.iter().for_each(|p| encode_pack(&mut head, p));
    let total: usize = segments.iter().map(Segment::len).sum();
    head.extend_from_slice(&(total as u32).to_le_bytes());
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).map_err(local)?);
    file.write_all(&head).map_err(local)?;
    let mut heap = std::collections::BinaryHeap::new();
    let mut at = vec![0usize; segments.len()];
    let id_at = |segment: &Segment, row: usize| -> [u8; 32] {
        let mut id = [0; 32];
        id.copy_from_slice(&segment.row(row)[..32]);
        id
    };
    for (n, segment) in segments.iter().enumerate() {
        if !segment.is_empty() {
            heap.push(std::cmp::Reverse((id_at(segment, 0), n)));
        }
    }
    let mut bases = Vec::new();
    let mut row = 0u32;
    while let Some(std::cmp::Reverse((_, n))) = heap.pop() {
        let segment = &segments[n];
        let location = segment.location(at[n]);
        let mut bytes = Vec::with_capacity(ROW);
        encode_row(&mut bytes, numbers[&location.pack.name], &location.entry);
        file.write_all(&bytes).map_err(local)?;
        if let Some(base) = location.entry.base {
            bases.push((row, base));
        }
        row += 1;
        at[n] += 1;
        if at[n] < segment.len() {
            heap.push(std::cmp::Reverse((id_at(segment, at[n]), n)));
        }
    }
    file.write_all(&(bases.len() as u32).to_le_bytes()).map_err(local)?;
    for (row, base) in bases {
        file.write_all(&row.to_le_bytes()).map_err(local)?;
        file.write_all(&base.0).map_err(local)?;
    }
    file.flush().map_err(local)
}
