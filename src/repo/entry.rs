//! The entries of a snapshot's listing, as they stand in its leaves: one JSON object a line (`docs/format.md`, "The listing").

use std::borrow::Cow;
use std::cmp::Ordering;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ChunkId;

/// Entries in a leaf: not fewer than this, but in the last one.
pub const LEAF_MIN: usize = 256;
/// Entries in a leaf: not more than this.
pub const LEAF_MAX: usize = 1024;
/// Segments that stand in the entry itself; a file with more keeps them in chunks of kind `list`.
pub const INLINE_SEGMENTS: usize = 256;

/// The type of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryType {
    /// A regular file.
    #[serde(rename = "f")]
    File,
    /// A directory.
    #[serde(rename = "d")]
    Dir,
    /// A symbolic link.
    #[serde(rename = "l")]
    Symlink,
    /// A FIFO.
    #[serde(rename = "p")]
    Fifo,
    /// A socket: its place is noted, it has no content.
    #[serde(rename = "s")]
    Socket,
    /// A character device.
    #[serde(rename = "c")]
    CharDevice,
    /// A block device.
    #[serde(rename = "b")]
    BlockDevice,
}

/// How a file was cut. Kept from snapshot to snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cut {
    /// Together with other small files.
    Bundle,
    /// Where its content says so.
    Cdc,
    /// At multiples of a fixed size.
    Fixed,
}

/// A run of a file's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// `len` bytes of a chunk, from `offset`.
    Data {
        /// The chunk.
        id: ChunkId,
        /// Bytes.
        len: u64,
        /// Where they begin in the chunk.
        offset: u64,
    },
    /// `len` bytes that were not allocated.
    Hole {
        /// Bytes.
        len: u64,
    },
}

impl Segment {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Segment::Data { len, .. } | Segment::Hole { len } => *len,
        }
    }

    /// Whether it covers nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Serialize for Segment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(None)?;
        match self {
            Segment::Hole { len } => seq.serialize_element(len)?,
            Segment::Data { id, len, offset } => {
                seq.serialize_element(id)?;
                seq.serialize_element(len)?;
                if *offset > 0 {
                    seq.serialize_element(offset)?;
                }
            }
        }
        seq.end()
    }
}

impl<'de> Deserialize<'de> for Segment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Parts {
            Part(ChunkId, u64, u64),
            Whole(ChunkId, u64),
            Hole((u64,)),
        }
        Ok(match Parts::deserialize(deserializer)? {
            Parts::Part(id, len, offset) => Segment::Data { id, len, offset },
            Parts::Whole(id, len) => Segment::Data { id, len, offset: 0 },
            Parts::Hole((len,)) => Segment::Hole { len },
        })
    }
}

/// An extended attribute: name and value, both bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xattr {
    /// Its full name, with the namespace.
    pub name: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

impl Serialize for Xattr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.name) {
            Ok(name) => (name, BASE64.encode(&self.value)).serialize(serializer),
            Err(_) => ("", BASE64.encode(&self.value), BASE64.encode(&self.name)).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Xattr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parts = Vec::<String>::deserialize(deserializer)?;
        let decode = |text: &String| BASE64.decode(text).map_err(serde::de::Error::custom);
        match &parts[..] {
            [name, value] => Ok(Xattr { name: name.clone().into_bytes(), value: decode(value)? }),
            [_, value, name] => Ok(Xattr { name: decode(name)?, value: decode(value)? }),
            _ => Err(serde::de::Error::custom("an attribute is a name and a value")),
        }
    }
}

/// One entry of a listing. Field by field as in `docs/format.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Entry {
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    path_text: Option<String>,
    #[serde(rename = "p64", default, skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    #[serde(rename = "t")]
    pub kind: EntryType,
    #[serde(rename = "m")]
    pub mode: u32,
    #[serde(rename = "u")]
    pub uid: u32,
    #[serde(rename = "g")]
    pub gid: u32,
    #[serde(rename = "mt")]
    pub mtime: (i64, u32),
    #[serde(rename = "ct", default)]
    pub ctime: (i64, u32),
    #[serde(rename = "i", default)]
    pub inode: u64,
    #[serde(rename = "x", default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<Xattr>,
    #[serde(rename = "hl", default, skip_serializing_if = "Option::is_none")]
    pub hard_link: Option<String>,
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    target_text: Option<String>,
    #[serde(rename = "l64", default, skip_serializing_if = "Option::is_none")]
    target_base64: Option<String>,
    #[serde(rename = "dv", default, skip_serializing_if = "Option::is_none")]
    pub device: Option<(u32, u32)>,
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    pub content_id: Option<ChunkId>,
    #[serde(rename = "c", default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<Segment>,
    #[serde(rename = "cl", default, skip_serializing_if = "Vec::is_empty")]
    pub segment_lists: Vec<(ChunkId, u64)>,
    #[serde(rename = "bad", default, skip_serializing_if = "Option::is_none")]
    pub bad: Option<String>,
}

impl Entry {
    /// Makes an entry of that type and path with everything else empty.
    pub fn new(path: &[u8], kind: EntryType) -> Self {
        let (path_text, path_base64) = text_or_base64(path);
        Entry {
            path_text,
            path_base64,
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            ctime: (0, 0),
            inode: 0,
            xattrs: Vec::new(),
            hard_link: None,
            target_text: None,
            target_base64: None,
            device: None,
            size: None,
            cut: None,
            content_id: None,
            segments: Vec::new(),
            segment_lists: Vec::new(),
            bad: None,
        }
    }

    /// The path below the volume's root, as bytes; `.` for the root itself. Not yet checked: see [`check_path`].
    pub fn path(&self) -> Cow<'_, [u8]> {
        from_text_or_base64(&self.path_text, &self.path_base64)
    }

    /// The target of a symbolic link.
    pub fn target(&self) -> Cow<'_, [u8]> {
        from_text_or_base64(&self.target_text, &self.target_base64)
    }

    /// Sets the target of a symbolic link.
    pub fn set_target(&mut self, target: &[u8]) {
        (self.target_text, self.target_base64) = text_or_base64(target);
    }

    /// Takes over how `other` describes the content of the file.
    pub fn set_content_of(&mut self, other: &Entry) {
        self.cut = other.cut;
        self.content_id = other.content_id;
        self.segments.clone_from(&other.segments);
        self.segment_lists.clone_from(&other.segment_lists);
    }

    /// Every chunk that the entry itself names (not those inside its lists).
    pub fn chunk_ids(&self) -> impl Iterator<Item = ChunkId> + '_ {
        let data = self.segments.iter().filter_map(|s| match s {
            Segment::Data { id, .. } => Some(*id),
            Segment::Hole { .. } => None,
        });
        data.chain(self.segment_lists.iter().map(|(id, _)| *id))
    }
}

/// One line of the list of leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeafRef {
    /// The leaf's chunk.
    pub leaf: ChunkId,
    /// Entries in it.
    pub entries: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first64: Option<String>,
}

impl LeafRef {
    /// Makes a reference to a leaf whose first entry has that path.
    pub fn new(leaf: ChunkId, entries: u64, first_path: &[u8]) -> Self {
        let (first, first64) = text_or_base64(first_path);
        LeafRef { leaf, entries, first, first64 }
    }

    /// The path of the leaf's first entry.
    pub fn first_path(&self) -> Cow<'_, [u8]> {
        from_text_or_base64(&self.first, &self.first64)
    }
}

fn text_or_base64(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(BASE64.encode(bytes))),
    }
}

fn from_text_or_base64<'a>(text: &'a Option<String>, base64: &'a Option<String>) -> Cow<'a, [u8]> {
    match (text, base64) {
        (Some(text), _) => Cow::Borrowed(text.as_bytes()),
        // What cannot be decoded becomes an empty path, which `check_path` refuses.
        (None, Some(base64)) => Cow::Owned(BASE64.decode(base64).unwrap_or_default()),
        (None, None) => Cow::Borrowed(b""),
    }
}

/// Compares two paths in the order of a listing: as bytes, with `/` below every other byte, so that a directory is followed at
/// once by its content. The root, `.`, comes first.
pub fn compare_paths(a: &[u8], b: &[u8]) -> Ordering {
    match (a == b".", b == b".") {
        (true, true) => return Ordering::Equal,
        (true, false) => return Ordering::Less,
        (false, true) => return Ordering::Greater,
        (false, false) => {}
    }
    let common = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    match (a.get(common), b.get(common)) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(b'/'), Some(_)) => Ordering::Less,
        (Some(_), Some(b'/')) => Ordering::Greater,
        (Some(x), Some(y)) => x.cmp(y),
    }
}

/// Returns whether a path from a repository may be used below a target: relative, without empty, `.` or `..` components and
/// without NUL. The root entry `.` is allowed.
pub fn check_path(path: &[u8]) -> bool {
    path == b"."
        || (!path.contains(&0)
            && path.split(|b| *b == b'/').all(|part| !part.is_empty() && part != b"." && part != b".."))
}

/// A path for people: bytes that are not UTF-8, and control characters, as `\xNN`.
pub fn display_path(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_directory_is_followed_by_its_content() {
        let mut paths: Vec<&[u8]> =
            vec![b"a b", b"a/z", b"a.x", b"a", b".", b"a/b/c", b"a/b", b"\xff", b"A", b".hidden"];
        paths.sort_by(|a, b| compare_paths(a, b));
        let want: Vec<&[u8]> = vec![b".", b".hidden", b"A", b"a", b"a/b", b"a/b/c", b"a/z", b"a b", b"a.x", b"\xff"];
        assert_eq!(paths, want);
    }

    #[test]
    fn tricks_are_refused() {
        for bad in ["", "/", "/etc", "..", "a/..", "../a", "a//b", "a/", "./a", "a/./b", "a\0b"] {
            assert!(!check_path(bad.as_bytes()), "{bad:?}");
        }
        for good in [".", "a", "...", "a/..b", ".a", "a\nb"] {
            assert!(check_path(good.as_bytes()), "{good:?}");
        }
    }

    proptest! {
        #[test]
        fn entries_survive_json(path in proptest::collection::vec(any::<u8>(), 1..60), target in proptest::collection::vec(any::<u8>(), 0..60),
                                name in proptest::collection::vec(any::<u8>(), 1..20), value in proptest::collection::vec(any::<u8>(), 0..50),
                                seconds in any::<i64>(), size in any::<u64>(), offset in any::<u64>()) {
            let mut entry = Entry::new(&path, EntryType::Symlink);
            entry.set_target(&target);
            entry.mtime = (seconds, 999_999_999);
            entry.xattrs.push(Xattr { name, value });
            entry.size = Some(size);
            entry.segments = vec![Segment::Hole { len: size }, Segment::Data { id: ChunkId([3; 32]), len: 5, offset }];
            let json = serde_json::to_string(&entry).unwrap();
            prop_assert!(!json.contains('\n'));
            let back: Entry = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&back, &entry);
            prop_assert_eq!(back.path().into_owned(), path);
            prop_assert_eq!(back.target().into_owned(), target);
        }

        #[test]
        fn path_order_is_total_and_agrees_with_components(a in "[a/.]{1,8}", b in "[a/.]{1,8}", c in "[a/.]{1,8}") {
            let (a, b, c) = (a.as_bytes(), b.as_bytes(), c.as_bytes());
            prop_assert_eq!(compare_paths(a, b), compare_paths(b, a).reverse());
            if compare_paths(a, b).is_le() && compare_paths(b, c).is_le() {
                prop_assert!(compare_paths(a, c).is_le());
            }
        }
    }
}
