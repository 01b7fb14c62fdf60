//! Snapshot records: the commit point of a backup, and everything that is needed to rebuild the volume's surroundings.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ChunkId;
use super::error::{RepoError, Result};
use super::keys::Keys;

/// What a snapshot was taken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// A Docker volume.
    Volume,
    /// A folder that was named with `--path`.
    Path,
}

/// One thing that could not be stored as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileProblem {
    /// The path below the volume's root; bytes that are not UTF-8 are shown as `\xNN`.
    pub path: String,
    /// What went wrong.
    pub error: String,
}

/// The volume as the engine knew it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeDefinition {
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its driver options.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Whether it was an anonymous volume.
    #[serde(default)]
    pub anonymous: bool,
}

/// What rebuilds the volume's surroundings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DockerContext {
    /// The volume's definition.
    pub volume: VolumeDefinition,
    /// What `docker inspect` said of each container that used it. Holds environment values: for the (encrypted) record only.
    #[serde(default)]
    pub containers: Vec<serde_json::Value>,
}

/// A snapshot record. The fields are described in `docs/format.md`, "Snapshots".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct SnapshotRecord {
    pub version: u32,
    pub id: String,
    pub volume: String,
    pub engine: String,
    pub kind: SourceKind,
    pub time: Timestamp,
    pub finished: Timestamp,
    pub parent: Option<String>,
    pub root: Vec<ChunkId>,
    pub entries: u64,
    pub files: u64,
    pub bytes: u64,
    pub added_bytes: u64,
    pub stored_bytes: u64,
    #[serde(default)]
    pub errors: Vec<FileProblem>,
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(default)]
    pub excludes: Vec<String>,
    pub tool: String,
    #[serde(default)]
    pub docker: Option<DockerContext>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct MacLine {
    #[serde(with = "hex::serde")]
    mac: [u8; 32],
}

impl SnapshotRecord {
    /// What orders the snapshots of one source, oldest first: the lease's epoch before the time. So a record that turns up late, of a
    /// host that lost its lease, is never taken for newer than what the new holder committed, whatever their clocks say.
    pub fn age_order(&self) -> (u64, Timestamp, &str) {
        (self.lease.unwrap_or(0), self.time, &self.id)
    }

    /// The key of the record with this id of that source.
    pub fn key(source: &str, id: &str) -> String {
        format!("snapshots/{source}/{id}.json")
    }

    /// Writes the object for `key`: the record, its MAC, sealed.
    pub fn encode(&self, key: &str, keys: &Keys) -> Result<Bytes> {
        let codec = |e: serde_json::Error| RepoError::Codec(format!("cannot write {key}: {e}"));
        let mut text = serde_json::to_vec(self).map_err(codec)?;
        let mac = keys.mac(&[key.as_bytes(), b"\n", &text]);
        text.push(b'\n');
        serde_json::to_writer(&mut text, &MacLine { mac }).map_err(codec)?;
        text.push(b'\n');
        Ok(keys.sealer.seal(text)?.0.into())
    }

    /// Reads the object of `key`, and refuses one that was not written for that key with this repository's secrets.
    pub fn decode(key: &str, sealed: Bytes, keys: &Keys) -> Result<Self> {
        let text = keys.sealer.open(key, sealed)?;
        let end = text.iter().position(|b| *b == b'\n').ok_or_else(|| RepoError::damaged(key, "it is cut off"))?;
        let (line, rest) = (&text[..end], &text[end + 1..]);
        let said: MacLine = serde_json::from_slice(rest).map_err(|e| RepoError::damaged(key, e))?;
        // Constant-time comparison is not needed: who could measure it holds the key already.
        if said.mac != keys.mac(&[key.as_bytes(), b"\n", line]) {
            return Err(RepoError::damaged(key, "its MAC is wrong: it was changed, or belongs under another name"));
        }
        let record: SnapshotRecord = serde_json::from_slice(line).map_err(|e| RepoError::damaged(key, e))?;
        if record.version != 1 {
            return Err(RepoError::TooNew { url: key.to_owned(), what: format!("record version {}", record.version) });
        }
        Ok(record)
    }
}
