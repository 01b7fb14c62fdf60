//! Packs: chunks of about 16 MiB together, as a valid `.zst` stream.
//!
//! ```text
//! skippable frame: "VTC1" id raw_len kind flags [base]  \  for each chunk
//! zstd frame with content size and checksum             /
//! …
//! skippable frame: table: rows, then count, length, "VTPACK01"
//! ```
//!
//! The table stands last so that a pack is written in one go, and is found from the end; the small frames before the chunks repeat
//! it so that a pack with a damaged end can still be salvaged. `docs/format.md` has every field.

use std::io::Read;

use super::error::{RepoError, Result};
use super::{ChunkId, ChunkKind};

/// Data is collected up to this size before a pack is closed: one PUT, one unit of retry, no multipart upload.
pub const PACK_TARGET: usize = 16 * 1024 * 1024;
/// Metadata packs are fetched whole, so they are smaller.
pub const META_PACK_TARGET: usize = 4 * 1024 * 1024;
/// No chunk is larger than this; a reader refuses one that claims to be, before it allocates.
pub const MAX_CHUNK: usize = 8 * 1024 * 1024;

const CHUNK_MAGIC: u32 = 0x184D_2A50;
const TABLE_MAGIC: u32 = 0x184D_2A5E;
const ZSTD_MAGIC: u32 = 0xFD2F_B528;
const CHUNK_TAG: &[u8; 4] = b"VTC1";
const FOOTER_TAG: &[u8; 8] = b"VTPACK01";
const FOOTER: usize = 16;
const ROW: usize = 46;
const FLAG_DELTA: u8 = 1;

/// Where one chunk stands in the (unencrypted) pack.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PackEntry {
    /// The chunk's id.
    pub id: ChunkId,
    /// Offset of its zstd frame.
    pub offset: u32,
    /// Length of its zstd frame.
    pub len: u32,
    /// Length of its content.
    pub raw_len: u32,
    /// What it holds.
    pub kind: ChunkKind,
    /// For a delta: the chunk that its frame was made against.
    pub base: Option<ChunkId>,
}

/// Collects compressed chunks into a pack.
#[derive(Default)]
pub struct PackBuilder {
    bytes: Vec<u8>,
    entries: Vec<PackEntry>,
}

impl PackBuilder {
    /// Adds a chunk whose zstd frame is `frame`.
    pub fn add(&mut self, id: ChunkId, kind: ChunkKind, raw_len: u32, frame: &[u8], base: Option<ChunkId>) {
        let payload = 42 + if base.is_some() { 32 } else { 0 };
        self.bytes.extend_from_slice(&CHUNK_MAGIC.to_le_bytes());
        self.bytes.extend_from_slice(&(payload as u32).to_le_bytes());
        self.bytes.extend_from_slice(CHUNK_TAG);
        self.bytes.extend_from_slice(&id.0);
        self.bytes.extend_from_slice(&raw_len.to_le_bytes());
        self.bytes.extend_from_slice(&[kind as u8, if base.is_some() { FLAG_DELTA } else { 0 }]);
        if let Some(base) = base {
            self.bytes.extend_from_slice(&base.0);
        }
        let offset = self.bytes.len() as u32;
        self.bytes.extend_from_slice(frame);
        self.entries.push(PackEntry { id, offset, len: frame.len() as u32, raw_len, kind, base });
    }

    /// Bytes collected so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing has been added.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Closes the pack: its bytes, and where each chunk stands in it.
    pub fn finish(mut self) -> (Vec<u8>, Vec<PackEntry>) {
        let mut payload = Vec::with_capacity(self.entries.len() * ROW + FOOTER);
        for entry in &self.entries {
            payload.extend_from_slice(&entry.id.0);
            for number in [entry.offset, entry.len, entry.raw_len] {
                payload.extend_from_slice(&number.to_le_bytes());
            }
            payload.extend_from_slice(&[entry.kind as u8, if entry.base.is_some() { FLAG_DELTA } else { 0 }]);
            if let Some(base) = entry.base {
                payload.extend_from_slice(&base.0);
            }
        }
        let len = payload.len() + FOOTER;
        payload.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        payload.extend_from_slice(&(len as u32).to_le_bytes());
        payload.extend_from_slice(FOOTER_TAG);
        self.bytes.extend_from_slice(&TABLE_MAGIC.to_le_bytes());
        self.bytes.extend_from_slice(&(len as u32).to_le_bytes());
        self.bytes.extend_from_slice(&payload);
        (self.bytes, self.entries)
    }
}

/// Reads the table from the end of a pack (or of as much of its end as holds the table). Falls back to the frames on the way if
/// `tail` is the whole pack and its end is damaged. `key` is only for the error.
pub fn read_table(key: &str, tail: &[u8], is_whole: bool) -> Result<Vec<PackEntry>> {
    match table_from_end(tail) {
        Some(entries) => Ok(entries),
        None if is_whole => scan(key, tail),
        None => Err(RepoError::damaged(key, "its table cannot be read")),
    }
}

/// How many bytes at the end of the pack hold the table, as its footer says; `None` if there is no footer.
pub fn table_len(tail: &[u8]) -> Option<usize> {
    let footer = tail.len().checked_sub(FOOTER)?;
    if &tail[footer + 8..] != FOOTER_TAG {
        return None;
    }
    Some(u32_at(tail, footer + 4)? as usize + 8)
}

fn table_from_end(tail: &[u8]) -> Option<Vec<PackEntry>> {
    let len = table_len(tail)?;
    let frame = tail.get(tail.len().checked_sub(len)?..)?;
    if u32_at(frame, 0)? != TABLE_MAGIC {
        return None;
    }
    let rows = u32_at(frame, frame.len() - FOOTER)? as usize;
    let mut at = 8;
    let mut entries = Vec::with_capacity(rows.min(frame.len() / ROW));
    for _ in 0..rows {
        let row = frame.get(at..at + ROW)?;
        at += ROW;
        if row[45] & !FLAG_DELTA != 0 {
            return None;
        }
        let base = if row[45] & FLAG_DELTA != 0 {
            let base = frame.get(at..at + 32)?;
            at += 32;
            Some(ChunkId(base.try_into().ok()?))
        } else {
            None
        };
        entries.push(PackEntry {
            id: ChunkId(row[..32].try_into().ok()?),
            offset: u32_at(row, 32)?,
            len: u32_at(row, 36)?,
            raw_len: u32_at(row, 40)?,
            kind: ChunkKind::from_number(row[44])?,
            base,
        });
    }
    (at == frame.len() - FOOTER).then_some(entries)
}

/// Finds the chunks of a pack from the small frame before each, and skips what cannot be read.
fn scan(key: &str, pack: &[u8]) -> Result<Vec<PackEntry>> {
    let mut entries = Vec::new();
    let mut at = 0;
    while at + 8 <= pack.len() {
        let Some(mut entry) = chunk_header(pack, at) else {
            at += 1;
            continue;
        };
        let frame = &pack[entry.offset as usize..];
        match zstd::zstd_safe::find_frame_compressed_size(frame) {
            Ok(len) => {
                entry.len = len as u32;
                at = entry.offset as usize + len;
                entries.push(entry);
            }
            Err(_) => at += 1,
        }
    }
    if entries.is_empty() {
        return Err(RepoError::damaged(key, "no chunk in it can be read"));
    }
    Ok(entries)
}

fn chunk_header(pack: &[u8], at: usize) -> Option<PackEntry> {
    if u32_at(pack, at)? != CHUNK_MAGIC || pack.get(at + 8..at + 12)? != CHUNK_TAG {
        return None;
    }
    let payload = pack.get(at + 8..at + 8 + u32_at(pack, at + 4)? as usize)?;
    let flags = *payload.get(41)?;
    if flags & !FLAG_DELTA != 0 {
        return None;
    }
    let base = if flags & FLAG_DELTA != 0 { Some(ChunkId(payload.get(42..74)?.try_into().ok()?)) } else { None };
    let offset = at + 8 + payload.len();
    if u32_at(pack, offset)? != ZSTD_MAGIC {
        return None;
    }
    Some(PackEntry {
        id: ChunkId(payload.get(4..36)?.try_into().ok()?),
        offset: offset as u32,
        len: 0,
        raw_len: u32_at(payload, 36)?,
        kind: ChunkKind::from_number(*payload.get(40)?)?,
        base,
    })
}

/// Decompresses one chunk's frame; `base` is the raw content of its base if it is a delta. The caller checks the id.
pub fn decompress(key: &str, frame: &[u8], raw_len: u32, base: Option<&[u8]>) -> Result<Vec<u8>> {
    let raw_len = raw_len as usize;
    if raw_len > MAX_CHUNK {
        return Err(RepoError::damaged(key, format!("a chunk claims {raw_len} bytes")));
    }
    let content = match base {
        None => zstd::bulk::decompress(frame, raw_len).map_err(|e| RepoError::damaged(key, e))?,
        Some(base) => {
            let mut content = Vec::with_capacity(raw_len);
            zstd::stream::read::Decoder::with_ref_prefix(frame, base)
                .map_err(|e| RepoError::damaged(key, e))?
                .take(raw_len as u64 + 1)
                .read_to_end(&mut content)
                .map_err(|e| RepoError::damaged(key, e))?;
            content
        }
    };
    if content.len() != raw_len {
        return Err(RepoError::damaged(key, "a chunk has another length than its table says"));
    }
    Ok(content)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Vec<u8>, Vec<PackEntry>, Vec<Vec<u8>>) {
        let mut builder = PackBuilder::default();
        let mut raws = Vec::new();
        for i in 0..5u8 {
            let raw: Vec<u8> = (0..1000 * (i as usize + 1)).map(|n| (n % (7 + i as usize)) as u8).collect();
            let mut compressor = zstd::bulk::Compressor::new(3).unwrap();
            compressor.include_checksum(true).unwrap();
            let frame = compressor.compress(&raw).unwrap();
            builder.add(ChunkId([i; 32]), ChunkKind::Cdc, raw.len() as u32, &frame, None);
            raws.push(raw);
        }
        // A delta against the last chunk.
        let mut changed = raws[4].clone();
        changed[100] ^= 0xff;
        let mut encoder = zstd::stream::write::Encoder::with_ref_prefix(Vec::new(), 3, &raws[4]).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.set_pledged_src_size(Some(changed.len() as u64)).unwrap();
        std::io::Write::write_all(&mut encoder, &changed).unwrap();
        let frame = encoder.finish().unwrap();
        assert!(frame.len() < 100);
        builder.add(ChunkId([9; 32]), ChunkKind::Fixed, changed.len() as u32, &frame, Some(ChunkId([4; 32])));
        raws.push(changed);
        let (pack, entries) = builder.finish();
        (pack, entries, raws)
    }

    #[test]
    fn the_table_and_the_frames_tell_the_same() {
        let (pack, entries, raws) = sample();
        assert_eq!(read_table("p", &pack, true).unwrap(), entries);
        assert_eq!(read_table("p", &pack[pack.len() - table_len(&pack).unwrap()..], false).unwrap(), entries);
        assert_eq!(scan("p", &pack).unwrap(), entries);
        for (entry, raw) in entries.iter().zip(&raws) {
            let frame = &pack[entry.offset as usize..(entry.offset + entry.len) as usize];
            let base = entry.base.map(|_| &raws[4][..]);
            assert_eq!(&decompress("p", frame, entry.raw_len, base).unwrap(), raw);
        }
    }

    #[test]
    fn a_pack_is_a_zstd_stream_of_its_chunks() {
        let mut builder = PackBuilder::default();
        builder.add(ChunkId([1; 32]), ChunkKind::Cdc, 3, &zstd::bulk::compress(b"one", 3).unwrap(), None);
        builder.add(ChunkId([2; 32]), ChunkKind::Cdc, 3, &zstd::bulk::compress(b"two", 3).unwrap(), None);
        let (pack, _) = builder.finish();
        assert_eq!(zstd::stream::decode_all(&pack[..]).unwrap(), b"onetwo");
    }

    #[test]
    fn a_damaged_end_leaves_the_chunks_readable() {
        let (mut pack, entries, _) = sample();
        let end = pack.len();
        pack[end - 3] ^= 1;
        assert_eq!(read_table("p", &pack, true).unwrap(), entries);
        assert_eq!(read_table("p", &pack[..end - 200], true).unwrap(), entries);
        assert!(read_table("p", &pack[end - 50..], false).is_err());
    }

    #[test]
    fn no_input_makes_the_parser_panic() {
        let (pack, _, _) = sample();
        for at in 0..pack.len() {
            let mut bad = pack.clone();
            bad[at] = bad[at].wrapping_add(129);
            let _ = read_table("p", &bad, true);
            let _ = read_table("p", &pack[..at], true);
            let _ = read_table("p", &pack[at..], false);
        }
    }
}
