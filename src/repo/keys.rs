//! The repository's secrets and what is derived from them.
//!
//! People's keys open one small object, `keys/<ulid>.age`; that object holds the secrets with which everything else is
//! encrypted, named and authenticated. So people's keys can come and go without a byte of data being rewritten.

use age::secrecy::{ExposeSecret, SecretString};
use age::x25519;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::ChunkId;
use super::error::{RepoError, Result};
use super::seal::Sealer;

/// What a person holds to open a repository.
#[derive(Clone)]
pub enum Unlock {
    /// An X25519 identity (`AGE-SECRET-KEY-1…`).
    Identity(x25519::Identity),
    /// A passphrase.
    Passphrase(SecretString),
}

/// Whom a new repository is locked for.
pub enum Lock {
    /// Anyone who holds one of these recipients' identities.
    Recipients(Vec<x25519::Recipient>),
    /// Anyone who knows the passphrase.
    Passphrase(SecretString),
    /// Everyone: the repository is not encrypted.
    Nobody,
}

/// The content of `keys/<ulid>.age`.
#[derive(Serialize, Deserialize)]
struct KeyFile {
    repository: String,
    identity: String,
    #[serde(with = "hex::serde")]
    id_key: [u8; 32],
    #[serde(with = "hex::serde")]
    mac_key: [u8; 32],
}

/// The repository's secrets, opened.
#[derive(Clone)]
pub struct Keys {
    /// Encrypts and decrypts objects.
    pub sealer: Sealer,
    id_key: Option<[u8; 32]>,
    mac_key: Vec<u8>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({:?})", self.sealer)
    }
}

impl Keys {
    /// The keys of a repository without encryption: none.
    pub fn plain() -> Self {
        Keys { sealer: Sealer::Plain, id_key: None, mac_key: Vec::new() }
    }

    /// Makes new secrets for `repository` and locks them. Returns the opened keys, the repository's own recipient, and the
    /// content of the key object; both absent without encryption.
    pub fn generate(repository: &str, lock: &Lock) -> Result<(Self, Option<(String, Bytes)>)> {
        let codec = |e: &dyn std::fmt::Display| RepoError::Codec(format!("cannot lock the repository's keys: {e}"));
        if matches!(lock, Lock::Nobody) {
            return Ok((Self::plain(), None));
        }
        let identity = x25519::Identity::generate();
        let file = KeyFile {
            repository: repository.to_owned(),
            identity: identity.to_string().expose_secret().to_owned(),
            id_key: rand::random(),
            mac_key: rand::random(),
        };
        let json = serde_json::to_vec(&file).map_err(|e| codec(&e))?;
        let encryptor = match lock {
            Lock::Passphrase(passphrase) => age::Encryptor::with_user_passphrase(passphrase.clone()),
            Lock::Recipients(recipients) => {
                age::Encryptor::with_recipients(recipients.iter().map(|r| r as &dyn age::Recipient))
                    .map_err(|e| codec(&e))?
            }
            Lock::Nobody => return Ok((Self::plain(), None)),
        };
        let mut writer = encryptor.wrap_output(Vec::new()).map_err(|e| codec(&e))?;
        std::io::Write::write_all(&mut writer, &json).map_err(|e| codec(&e))?;
        let sealed = writer.finish().map_err(|e| codec(&e))?;
        let recipient = identity.to_public().to_string();
        Ok((Self::from_file(&file, identity), Some((recipient, sealed.into()))))
    }

    fn from_file(file: &KeyFile, identity: x25519::Identity) -> Self {
        let recipient = identity.to_public();
        Keys { sealer: Sealer::Age { recipient, identity }, id_key: Some(file.id_key), mac_key: file.mac_key.to_vec() }
    }

    /// Tries to open one key object. `Ok(None)` means that none of the given keys fits; an error means that it is damaged.
    pub fn open(key: &str, sealed: &[u8], repository: &str, unlock: &[Unlock]) -> Result<Option<Self>> {
        let mut json = Vec::new();
        let mut opened = false;
        for unlock in unlock {
            let decryptor = age::Decryptor::new_buffered(sealed).map_err(|e| RepoError::damaged(key, e))?;
            let reader = match unlock {
                Unlock::Identity(identity) => decryptor.decrypt(std::iter::once(identity as &dyn age::Identity)),
                Unlock::Passphrase(passphrase) => {
                    let identity = age::scrypt::Identity::new(passphrase.clone());
                    decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity))
                }
            };
            match reader {
                Ok(mut reader) => {
                    std::io::Read::read_to_end(&mut reader, &mut json).map_err(|e| RepoError::damaged(key, e))?;
                    opened = true;
                    break;
                }
                Err(age::DecryptError::NoMatchingKeys | age::DecryptError::KeyDecryptionFailed) => continue,
                // What a wrong passphrase looks like; a damaged stanza looks no different.
                Err(age::DecryptError::DecryptionFailed) if matches!(unlock, Unlock::Passphrase(_)) => continue,
                Err(e) => return Err(RepoError::damaged(key, e)),
            }
        }
        if !opened {
            return Ok(None);
        }
        let file: KeyFile = serde_json::from_slice(&json).map_err(|e| RepoError::damaged(key, e))?;
        if file.repository != repository {
            return Err(RepoError::damaged(key, format!("it belongs to repository {}", file.repository)));
        }
        let identity: x25519::Identity = file.identity.parse().map_err(|e| RepoError::damaged(key, e))?;
        Ok(Some(Self::from_file(&file, identity)))
    }

    /// Returns the id of a chunk with this content.
    pub fn chunk_id(&self, content: &[u8]) -> ChunkId {
        ChunkId(
            *match &self.id_key {
                Some(key) => blake3::keyed_hash(key, content),
                None => blake3::hash(content),
            }
            .as_bytes(),
        )
    }

    /// A key for things that a writer wants to be different in each repository: the gear table of the chunker and the places
    /// where listings and bundles are cut.
    pub fn writer_key(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(purpose, &self.id_key.unwrap_or_default())
    }

    /// Returns the MAC over `parts`, one after another.
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        #[allow(clippy::expect_used)]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.mac_key).expect("HMAC takes a key of any length");
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// Returns whether objects are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.id_key.is_some()
    }

    /// The name under which the snapshots of one volume of one engine stand. It tells nothing about either in an encrypted
    /// repository.
    pub fn source_name(&self, engine: &str, volume: &str) -> String {
        let digest = hex::encode(self.mac(&[engine.as_bytes(), b"\0", volume.as_bytes()]));
        if self.is_encrypted() {
            return digest[..32].to_owned();
        }
        let plain = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '_' };
        let readable: String = volume.chars().map(plain).take(64).collect();
        format!("{readable}.{}", &digest[..16])
    }
}
