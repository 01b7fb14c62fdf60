//! Chunk ids and chunk kinds.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The identity of a chunk: BLAKE3-256 of its bytes, keyed in an encrypted repository (see `docs/format.md`, "Chunks and packs").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(pub [u8; 32]);

impl ChunkId {
    /// Reads 64 hexadecimal digits; `None` if it is anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(ChunkId(bytes))
    }

    /// The first four bytes as a number: an even spread for sharding and for content-defined cuts.
    pub fn spread(&self) -> u32 {
        u32::from_le_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", &hex::encode(self.0)[..12])
    }
}

impl Serialize for ChunkId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = [0u8; 64];
        hex::encode_to_slice(self.0, &mut text).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(std::str::from_utf8(&text).map_err(serde::ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for ChunkId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        ChunkId::from_hex(&text).ok_or_else(|| serde::de::Error::custom("not a chunk id"))
    }
}

/// What a chunk holds. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ChunkKind {
    /// Small files, one after another.
    Bundle = 1,
    /// A piece of a file, cut where the content says so.
    Cdc = 2,
    /// A piece of a file, cut at multiples of a fixed size.
    Fixed = 3,
    /// A piece of a snapshot's listing.
    Leaf = 4,
    /// References to leaves, or to the segments of a large file.
    List = 5,
}

impl ChunkKind {
    /// The kind of that number, or `None` if this version does not know it.
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => ChunkKind::Bundle,
            2 => ChunkKind::Cdc,
            3 => ChunkKind::Fixed,
            4 => ChunkKind::Leaf,
            5 => ChunkKind::List,
            _ => return None,
        })
    }

    /// Whether chunks of this kind describe other data. They live in packs of their own and are cached locally.
    pub fn is_metadata(self) -> bool {
        matches!(self, ChunkKind::Leaf | ChunkKind::List)
    }
}
