//! Encryption of objects: age files, or nothing at all in a repository made with `--no-encrypt`.
//!
//! All cryptography is the `age` crate's. What is added here is only the reading of a range of an age file from its header and
//! the blocks that cover the range, so that a pack need not be fetched whole.

use std::io::{Read, Seek, SeekFrom, Write};

use age::x25519;
use bytes::Bytes;

use super::error::{RepoError, Result};

/// Plaintext bytes in one block of an age payload (age v1, "STREAM").
const BLOCK: u64 = 64 * 1024;
/// Bytes that the authentication tag adds to each block.
const TAG: u64 = 16;
/// No age header that voltool writes comes near this; more means that the object is not one of ours.
const MAX_HEADER: usize = 64 * 1024;

/// Seals and opens the repository's objects.
#[derive(Clone)]
pub enum Sealer {
    /// The repository is not encrypted.
    Plain,
    /// Objects are age files for the repository's own key.
    Age {
        /// What objects are encrypted to.
        recipient: x25519::Recipient,
        /// What opens them.
        identity: x25519::Identity,
    },
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Sealer::Plain => "Sealer::Plain",
            Sealer::Age { .. } => "Sealer::Age",
        })
    }
}

impl Sealer {
    /// Encrypts `plain`. Returns the object and the length of its header (0 without encryption): header and nonce, so that
    /// what follows are the payload's blocks.
    pub fn seal(&self, plain: Vec<u8>) -> Result<(Vec<u8>, usize)> {
        let Sealer::Age { recipient, .. } = self else { return Ok((plain, 0)) };
        let codec = |e: &dyn std::fmt::Display| RepoError::Codec(format!("cannot encrypt: {e}"));
        let encryptor = age::Encryptor::with_recipients(std::iter::once(recipient as &dyn age::Recipient))
            .map_err(|e| codec(&e))?;
        let blocks = (plain.len() as u64).div_ceil(BLOCK).max(1);
        let out = Vec::with_capacity(plain.len() + (blocks * TAG) as usize + 512);
        let mut writer = encryptor.wrap_output(out).map_err(|e| codec(&e))?;
        writer.write_all(&plain).map_err(|e| codec(&e))?;
        let sealed = writer.finish().map_err(|e| codec(&e))?;
        let payload = plain.len() as u64 + blocks * TAG;
        let header = sealed.len() - payload as usize;
        Ok((sealed, header))
    }

    /// Decrypts a whole object. `key` is only for the error.
    pub fn open(&self, key: &str, sealed: Bytes) -> Result<Bytes> {
        let Sealer::Age { identity, .. } = self else { return Ok(sealed) };
        let mut plain = Vec::with_capacity(sealed.len());
        age::Decryptor::new_buffered(&sealed[..])
            .map_err(|e| RepoError::damaged(key, e))?
            .decrypt(std::iter::once(identity as &dyn age::Identity))
            .map_err(|e| RepoError::damaged(key, e))?
            .read_to_end(&mut plain)
            .map_err(|e| RepoError::damaged(key, e))?;
        Ok(plain.into())
    }

    /// The range of the stored object that has to be fetched to read `len` bytes of its content from `offset`.
    /// `header_len` is what [`Sealer::seal`] returned. The range may reach beyond the object's end by less than a block.
    pub fn stored_range(&self, header_len: usize, offset: u64, len: u64) -> (u64, u64) {
        match self {
            Sealer::Plain => (offset, len),
            Sealer::Age { .. } => {
                let first = offset / BLOCK;
                let end = (offset + len).div_ceil(BLOCK);
                (header_len as u64 + first * (BLOCK + TAG), (end - first) * (BLOCK + TAG))
            }
        }
    }

    /// The length of the content of a stored object of `size` bytes.
    pub fn plain_len(&self, header_len: usize, size: u64) -> u64 {
        match self {
            Sealer::Plain => size,
            Sealer::Age { .. } => {
                let payload = size.saturating_sub(header_len as u64);
                payload.saturating_sub(payload.div_ceil(BLOCK + TAG) * TAG)
            }
        }
    }

    /// Decrypts `len` bytes of content from `offset`, out of the stored bytes that [`Sealer::stored_range`] named (cut off at
    /// the object's end).
    pub fn open_range(&self, key: &str, header: &[u8], stored: Bytes, offset: u64, len: u64) -> Result<Bytes> {
        let Sealer::Age { identity, .. } = self else {
            if (stored.len() as u64) < len {
                return Err(RepoError::damaged(key, "it is shorter than its index says"));
            }
            return Ok(stored.slice(..len as usize));
        };
        let first = offset / BLOCK * BLOCK;
        let window =
            Window { header, stored: &stored, start: header.len() as u64 + first / BLOCK * (BLOCK + TAG), at: 0 };
        let mut reader = age::Decryptor::new(window)
            .map_err(|e| RepoError::damaged(key, e))?
            .decrypt(std::iter::once(identity as &dyn age::Identity))
            .map_err(|e| RepoError::damaged(key, e))?;
        // A seek to the first byte of a block makes the age reader look at the end of the file, which is not here; a seek
        // into a block does not, and from there the block's first byte is at hand.
        if first > 0 {
            reader.seek(SeekFrom::Start(first + 1)).map_err(|e| RepoError::damaged(key, e))?;
        }
        reader.seek(SeekFrom::Start(offset)).map_err(|e| RepoError::damaged(key, e))?;
        let mut plain = vec![0; len as usize];
        reader.read_exact(&mut plain).map_err(|e| RepoError::damaged(key, e))?;
        Ok(plain.into())
    }

    /// Returns the length of the header at the beginning of a stored object: 0 without encryption, `None` if there is none.
    pub fn header_len(&self, stored: &[u8]) -> Option<usize> {
        if matches!(self, Sealer::Plain) {
            return Some(0);
        }
        // An age header ends with a line "--- <MAC>"; the 16 bytes behind it are the nonce.
        let limit = stored.len().min(MAX_HEADER);
        let mac = stored[..limit].windows(5).position(|w| w == b"\n--- ")? + 1;
        let end = mac + stored[mac..limit].iter().position(|b| *b == b'\n')? + 1;
        (end + 16 <= stored.len()).then_some(end + 16)
    }
}

/// An age file of which only the header and some blocks are here, at their true positions.
struct Window<'a> {
    header: &'a [u8],
    stored: &'a [u8],
    start: u64,
    at: u64,
}

impl Read for Window<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let from: &[u8] = if self.at < self.header.len() as u64 {
            &self.header[self.at as usize..]
        } else if self.at >= self.start && self.at - self.start < self.stored.len() as u64 {
            &self.stored[(self.at - self.start) as usize..]
        } else {
            &[]
        };
        let n = from.len().min(buf.len());
        buf[..n].copy_from_slice(&from[..n]);
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, pos: SeekFrom) -> std::io::Result<u64> {
        self.at = match pos {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(by) => self.at.saturating_add_signed(by),
            SeekFrom::End(_) => return Err(std::io::Error::other("the end of the object is not here")),
        };
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealers() -> [Sealer; 2] {
        let identity = x25519::Identity::generate();
        [Sealer::Plain, Sealer::Age { recipient: identity.to_public(), identity }]
    }

    #[test]
    fn any_range_reads_as_the_whole_does() {
        for sealer in sealers() {
            for size in [0usize, 1, 65535, 65536, 65537, 131072, 300_000] {
                let plain: Vec<u8> = (0..size).map(|i| (i * 7 + i / 251) as u8).collect();
                let (sealed, header_len) = sealer.seal(plain.clone()).unwrap();
                assert_eq!(sealer.header_len(&sealed), Some(header_len));
                assert_eq!(sealer.plain_len(header_len, sealed.len() as u64), size as u64);
                assert_eq!(sealer.open("x", sealed.clone().into()).unwrap(), plain);
                for offset in [0usize, 1, 65535, 65536, 65537, 131071, 131072, 200_000] {
                    for len in [1usize, 100, 65536, 100_000] {
                        if offset + len > size {
                            continue;
                        }
                        let (at, n) = sealer.stored_range(header_len, offset as u64, len as u64);
                        let end = ((at + n) as usize).min(sealed.len());
                        let stored = Bytes::copy_from_slice(&sealed[at as usize..end]);
                        let got = sealer
                            .open_range("x", &sealed[..header_len], stored, offset as u64, len as u64)
                            .unwrap_or_else(|e| panic!("{sealer:?} {size} {offset} {len}: {e}"));
                        assert!(got[..] == plain[offset..offset + len], "{sealer:?} {size} {offset} {len}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_flipped_byte_is_noticed_in_an_encrypted_object() {
        let [_, sealer] = sealers();
        let (sealed, header_len) = sealer.seal(vec![7; 200_000]).unwrap();
        for at in [0, header_len - 1, header_len, sealed.len() / 2, sealed.len() - 1] {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert!(sealer.open("x", bad.into()).is_err(), "byte {at}");
        }
        assert!(sealer.open("x", Bytes::copy_from_slice(&sealed[..sealed.len() - 1])).is_err());
    }
}
