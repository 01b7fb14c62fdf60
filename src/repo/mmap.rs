//! The one place with `unsafe`: files mapped into memory.
//!
//! Why it is sound enough: only files below voltool's own cache and state folders are mapped. They are written beside, renamed
//! into place, and never changed afterwards, so the mapped bytes do not change. Someone with the right to write in these folders
//! could still truncate one by hand; the process would then be stopped by a bus error, and nothing is lost, because nothing in
//! these folders is the only copy of anything.
#![allow(unsafe_code)]

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use super::error::{RepoError, Result};

/// The bytes of a file that voltool wrote, or some of them.
pub struct Mapped {
    data: Data,
    len: usize,
}

enum Data {
    Map(memmap2::Mmap),
    Heap(Vec<u8>),
}

impl Mapped {
    /// Maps a whole file. An empty file gives no bytes.
    pub fn open(path: &Path) -> Result<Self> {
        let local = |e| RepoError::local("read", path, e);
        let file = File::open(path).map_err(local)?;
        let len = file.metadata().map_err(local)?.len() as usize;
        if len == 0 {
            return Ok(Mapped::in_memory(Vec::new()));
        }
        // SAFETY: see the module's documentation: the file is private to voltool and is never changed once it has its name.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(local)?;
        Ok(Mapped { data: Data::Map(map), len })
    }

    /// The same in memory, for when there is no room for the file.
    pub fn in_memory(bytes: Vec<u8>) -> Self {
        Mapped { len: bytes.len(), data: Data::Heap(bytes) }
    }

    /// Leaves out everything behind the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.data {
            Data::Map(map) => &map[..self.len],
            Data::Heap(bytes) => &bytes[..self.len],
        }
    }
}
