//! Objects of private trees, as they lie where anybody may read them.
//!
//! A bucket or a CDN that carries a tree sees names, lengths and bytes. For a private tree it has to
//! learn nothing from the first and the last. So what a publisher brings to a further point is
//! *sealed* there: encrypted under a key of the generation that it was made for, below a name that
//! is a keyed digest, below an alias instead of the tree's name. All three hang on a secret of the
//! tree, which the coordinator keeps; equal content of two trees has nothing in common.
//!
//! ```text
//! magic "MNPRIV" 01   flags (u8, 0)   epoch (u64)   generation (u64)   salt (16 bytes)     40 bytes
//! chunks: 16 KiB of the object each, the last one shorter or empty, each followed by its tag (16)
//! ```
//! Numbers are big-endian. Each object has a key of its own, drawn from the generation's key, the
//! object's place and the header; a chunk is AES-256-GCM under it with its number and whether it is
//! the last one as nonce: the construction called STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015).
//! Any run of chunks can be opened alone, so ranges stay ranges.
//!
//! The salt is a keyed digest of the object's bytes. The same object sealed twice for the same
//! generation gives the same bytes, so that an upload goes on where it was and caches never mix; and
//! other bytes under the same name (another release compresses otherwise) never meet the same key.

mod keys;
mod open;
mod seal;

pub use self::{
    keys::{Names, generation_key, new_secret, tree_key},
    open::{Chunks, Opener, Pushed},
    seal::Sealer,
};
use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, Nonce, UnboundKey};
use protocol::{
    digest::{Digest, derive_key},
    generation::{Epoch, Generation, Version},
    origin::Place,
    v1::keys::SecretKey,
};

/// How offers name this way of encryption.
pub const SCHEME: &str = "aes-256-gcm-stream-16k-1";
/// Bytes before the first chunk.
pub const HEADER_LEN: usize = MAGIC.len() + 1 + 8 + 8 + SALT_LEN;
/// Bytes of an object in a chunk.
pub const CHUNK: usize = 16 * 1024;
/// Bytes of a chunk's tag.
pub const TAG: usize = 16;

const MAGIC: &[u8; 7] = b"MNPRIV\x01";
const SALT_LEN: usize = 16;
const SEALED_CHUNK: u64 = (CHUNK + TAG) as u64;

/// Length of an object of `length` bytes when it is sealed.
pub const fn sealed_len(length: u64) -> u64 {
    let tags = (length / CHUNK as u64 + 1).saturating_mul(TAG as u64);
    length.saturating_add(tags).saturating_add(HEADER_LEN as u64)
}

/// What stands before the chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The generation whose key opens it.
    pub version: Version,
    salt: [u8; SALT_LEN],
}

/// Bytes that are no header of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not sealed as objects of private trees are, or in a later version")]
pub struct NoHeader;

impl Header {
    /// Of an object whose bytes have that digest.
    fn new(version: Version, names: &Names, bytes: &Digest) -> Self {
        let digest = names.salt(bytes);
        let mut salt = [0; SALT_LEN];
        salt.copy_from_slice(&digest.as_bytes()[..SALT_LEN]);
        Self { version, salt }
    }

    /// The bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let parts: [&[u8]; 5] = [
            MAGIC,
            &[0],
            &self.version.epoch.0.to_be_bytes(),
            &self.version.generation.0.to_be_bytes(),
            &self.salt,
        ];
        let mut at = 0;
        for part in parts {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        bytes
    }

    /// Reads the first [`HEADER_LEN`] bytes of a sealed object. Nothing of it is believed before a
    /// chunk was opened with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoHeader> {
        let rest = bytes.strip_prefix(&MAGIC[..]).ok_or(NoHeader)?;
        let (flags, rest) = rest.split_first_chunk::<1>().ok_or(NoHeader)?;
        let (epoch, rest) = rest.split_first_chunk::<8>().ok_or(NoHeader)?;
        let (generation, rest) = rest.split_first_chunk::<8>().ok_or(NoHeader)?;
        let salt: [u8; SALT_LEN] = rest.try_into().map_err(|_| NoHeader)?;
        if *flags != [0] {
            return Err(NoHeader);
        }
        let epoch = Epoch(u64::from_be_bytes(*epoch));
        let generation = Generation(u64::from_be_bytes(*generation));
        Ok(Self { version: Version { epoch, generation }, salt })
    }
}

/// The key of one object, and what is bound to each of its chunks.
struct ObjectKey {
    key: LessSafeKey,
    header: [u8; HEADER_LEN],
}

impl ObjectKey {
    /// `key` is of the header's generation; `place` is the object's as the tree itself names it.
    fn new(key: &SecretKey, place: &Place, header: &Header) -> Option<Self> {
        let header = header.encode();
        let bound = [&key.as_bytes()[..], &header, place.path().as_bytes()].concat();
        let key = derive_key("mirrornet v1 private object", &bound);
        let key = UnboundKey::new(&AES_256_GCM, &key).ok()?;
        Some(Self { key: LessSafeKey::new(key), header })
    }
}

/// Never used twice with a key, because a key is of one object and each chunk has its number.
fn nonce(number: u64, last: bool) -> Nonce {
    let mut bytes = [0; 12];
    bytes[3..11].copy_from_slice(&number.to_be_bytes());
    bytes[11] = u8::from(last);
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests;
