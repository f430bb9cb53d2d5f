//! Signatures: enough of an old file to make a delta against it without holding it.
//!
//! A publisher that keeps no copies of old content keeps these, one file each; an agent whose old
//! version nobody knows sends one. The block sums are librsync's (rolling sum and MD4), as
//! fast_rsync makes and reads them. MD4 is broken, which costs nothing here: a collision can only
//! give a wrong result, and every result is compared with the manifest's digest.
//!
//! fast_rsync believes what a signature says of itself, and block sizes of zero make it panic or
//! loop, so no bytes reach it that were not checked by [`Signature::parse`].

use std::io;

use fast_rsync::SignatureOptions;
use protocol::{
    digest::{Digest, DigestWriter},
    wire::{Malformed, Reader, Writer},
};

use crate::delta::ReadAt;

const BLOCKS_MAGIC: u32 = 0x7273_0136;
const STORED_MAGIC: &[u8] = b"MNSG\x01";
const HEADER_LEN: usize = 12;
const WEAK_LEN: usize = 4;
const STRONG_LEN: u32 = 8;
const MIN_BLOCK: u64 = 2 << 10;
const MIN_STORED_BLOCK: u64 = 512;
/// Files below this are kept as finer sums: an edit of a few lines would touch most of their
/// blocks otherwise.
const FINE_BYTES: u64 = 64 << 10;
const FINE_BLOCK: u64 = 128;
const MAX_BLOCK: u64 = 64 << 10;
/// The largest block that any signature may have.
const BLOCK_LIMIT: u64 = 1 << 20;
/// fast_rsync's index takes up to 96 bytes for a block; this many keep it below 32 MiB.
const MAX_BLOCKS: u64 = (32 << 20) / 96;
/// Content read at once, before it is cut into whole blocks.
const WINDOW_BYTES: u64 = 4 << 20;

/// Why there is no signature.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Bytes that are no signature that can be used.
    #[error("the signature cannot be used: {0}")]
    Malformed(#[from] Malformed),
    /// A stored signature that was damaged.
    #[error("the stored signature is damaged")]
    Damaged,
    /// The content could not be read.
    #[error("the content could not be read to make its signature")]
    Io(#[from] io::Error),
}

/// The block sums of some content, checked, in librsync's form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    bytes: Vec<u8>,
    block_size: u32,
    strong_len: u32,
}

/// A signature together with what it is the signature of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSignature {
    /// Digest of the content.
    pub content: Digest,
    /// Bytes of the content.
    pub content_len: u64,
    /// The block sums.
    pub signature: Signature,
}

/// The block size of a signature that is sent, for content of this many bytes: its square root,
/// within limits, and so large that the index of its blocks stays below 32 MiB.
pub fn block_size(len: u64) -> u32 {
    let needed = len.div_ceil(MAX_BLOCKS);
    let size = len.isqrt().clamp(MIN_BLOCK, MAX_BLOCK).max(needed);
    size.next_multiple_of(256).min(BLOCK_LIMIT) as u32
}

/// The block size of a signature that is kept: finer, because what it saves is saved at every
/// mirror. Keeping it costs 9 % of files below 64 KiB, 2 % of those around 1 MiB and 0.1 % of large
/// ones: 12 bytes for each block, and 80 for each file.
pub fn stored_block_size(len: u64) -> u32 {
    if len < FINE_BYTES {
        return FINE_BLOCK as u32;
    }
    let needed = len.div_ceil(MAX_BLOCKS);
    let size = (len.isqrt() / 4).clamp(MIN_STORED_BLOCK, MAX_BLOCK).max(needed);
    size.next_multiple_of(256).min(BLOCK_LIMIT) as u32
}

/// The block size for aligning two versions that are both at hand: small, because nobody keeps or
/// sends the signature.
pub(crate) fn alignment_block_size(len: u64) -> u32 {
    let size = MIN_BLOCK.max(len.div_ceil(MAX_BLOCKS));
    size.next_multiple_of(256).min(BLOCK_LIMIT) as u32
}

impl Signature {
    /// Reads all of `content`, `len` bytes, and sums its blocks in bounded memory. The digest of
    /// what was read comes with it, so that the caller can tell whether it is what was expected.
    pub fn calculate(content: &dyn ReadAt, len: u64) -> Result<(Self, Digest), Error> {
        Self::calculate_with(content, len, block_size(len))
    }

    /// The same with blocks of `block_size` bytes, which must be within 128 and 1 MiB.
    pub(crate) fn calculate_with(
        content: &dyn ReadAt,
        len: u64,
        block_size: u32,
    ) -> Result<(Self, Digest), Error> {
        let block_size = block_size.clamp(FINE_BLOCK as u32, BLOCK_LIMIT as u32);
        let options = SignatureOptions { block_size, crypto_hash_size: STRONG_LEN };
        let window = WINDOW_BYTES.next_multiple_of(u64::from(block_size));
        let mut buffer = vec![0; window.min(len) as usize];
        let mut bytes = [BLOCKS_MAGIC, block_size, STRONG_LEN].map(u32::to_be_bytes).concat();
        let mut digest = DigestWriter::new();
        let mut at = 0;
        while at < len {
            let now = window.min(len - at) as usize;
            content.read_exact_at(&mut buffer[..now], at)?;
            digest.update(&buffer[..now]);
            let sums = fast_rsync::Signature::calculate(&buffer[..now], options);
            bytes.extend_from_slice(&sums.serialized()[HEADER_LEN..]);
            at += now as u64;
        }
        Ok((Self { bytes, block_size, strong_len: STRONG_LEN }, digest.finish()))
    }

    /// Checks librsync's form, from anywhere, of content with `len` bytes.
    pub fn parse(bytes: Vec<u8>, len: u64) -> Result<Self, Malformed> {
        let mut reader = Reader::new(&bytes);
        let mut number = || -> Result<u32, Malformed> {
            let mut number = [0; 4];
            number.copy_from_slice(reader.take(4)?);
            Ok(u32::from_be_bytes(number))
        };
        if number()? != BLOCKS_MAGIC {
            return Err(Malformed::Magic { expected: "a signature with rolling sums and MD4" });
        }
        let (block_size, strong_len) = (number()?, number()?);
        if !(FINE_BLOCK..=BLOCK_LIMIT).contains(&u64::from(block_size)) {
            return Err(Malformed::Invalid { what: "block size", at: 8 });
        }
        if !(8..=16).contains(&strong_len) {
            return Err(Malformed::Invalid { what: "length of a strong sum", at: HEADER_LEN });
        }
        let blocks = len.div_ceil(u64::from(block_size));
        if blocks > MAX_BLOCKS {
            return Err(Malformed::Limit { what: "number of blocks", limit: MAX_BLOCKS });
        }
        let expected = HEADER_LEN + blocks as usize * (WEAK_LEN + strong_len as usize);
        if bytes.len() != expected {
            return Err(Malformed::Invalid { what: "number of blocks", at: bytes.len() });
        }
        Ok(Self { bytes, block_size, strong_len })
    }

    /// librsync's form, as `rdiff signature --hash=md4 --rollsum=rollsum` would write it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of a block.
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Whether the content's last block, be it a full one or not, has the sums of `block`.
    pub(crate) fn ends_with(&self, block: &[u8]) -> bool {
        let (block_size, crypto_hash_size) = (self.block_size, self.strong_len);
        let options = SignatureOptions { block_size, crypto_hash_size };
        let sums = fast_rsync::Signature::calculate(block, options);
        self.bytes[HEADER_LEN..].ends_with(&sums.serialized()[HEADER_LEN..])
    }

    /// How many of `len` bytes from `offset` on lie in whole blocks that have the sums of those from
    /// `other` on; 0 where either is within a block.
    pub(crate) fn equal_bytes(&self, offset: u64, other: u64, len: u64) -> u64 {
        let block = u64::from(self.block_size);
        if !offset.is_multiple_of(block) || !other.is_multiple_of(block) {
            return 0;
        }
        let sums = |at: u64| {
            let sum_len = WEAK_LEN + self.strong_len as usize;
            let start = HEADER_LEN + usize::try_from(at / block).ok()?.checked_mul(sum_len)?;
            self.bytes.get(start..start.checked_add(sum_len)?)
        };
        let is_equal = |n: &u64| {
            let (one, two) = (sums(offset + n * block), sums(other + n * block));
            one.is_some() && one == two
        };
        (0..len / block).take_while(is_equal).count() as u64 * block
    }

    /// The rolling sums of its blocks, in order.
    pub(crate) fn rolling_sums(&self) -> impl Iterator<Item = u32> {
        let sums = self.bytes[HEADER_LEN..].chunks_exact(WEAK_LEN + self.strong_len as usize);
        sums.filter_map(|sums| sums.first_chunk()).map(|sum| u32::from_be_bytes(*sum))
    }

    /// What fast_rsync makes of it.
    pub(crate) fn decoded(&self) -> Result<fast_rsync::Signature, Error> {
        fast_rsync::Signature::deserialize(self.bytes.clone()).map_err(|_| Error::Damaged)
    }
}

impl StoredSignature {
    /// Reads all of `content`, `len` bytes, and makes the signature to keep of it.
    pub fn calculate(content: &dyn ReadAt, len: u64) -> Result<Self, Error> {
        let (signature, digest) = Signature::calculate_with(content, len, stored_block_size(len))?;
        Ok(Self { content: digest, content_len: len, signature })
    }

    /// The bytes of the file in which a publisher keeps it.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.raw(STORED_MAGIC).digest(&self.content).varint(self.content_len);
        writer.raw(self.signature.as_bytes());
        let mut bytes = writer.into_bytes();
        let sum = Digest::of(&bytes);
        bytes.extend_from_slice(sum.as_bytes());
        bytes
    }

    /// Reads what [`StoredSignature::encode`] wrote.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let split = bytes.len().checked_sub(Digest::LEN).ok_or(Error::Damaged)?;
        let (bytes, sum) = bytes.split_at(split);
        if Digest::of(bytes).as_bytes() != sum {
            return Err(Error::Damaged);
        }
        let mut reader = Reader::new(bytes);
        reader.magic(STORED_MAGIC, "a stored signature")?;
        let content = reader.digest()?;
        let content_len = reader.varint_up_to("content's length", i64::MAX as u64)?;
        let signature = Signature::parse(bytes[reader.position()..].to_vec(), content_len)?;
        Ok(Self { content, content_len, signature })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        (0..len as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
    }

    #[test]
    fn windows_make_the_signature_of_the_whole() {
        for len in [0, 1, 2047, 2048, 4 << 20, (4 << 20) + 1, (9 << 20) + 777] {
            let content = noise(len);
            let (ours, digest) = Signature::calculate(&content, len as u64).unwrap();
            let options = SignatureOptions { block_size: ours.block_size(), crypto_hash_size: 8 };
            let theirs = fast_rsync::Signature::calculate(&content, options);
            assert_eq!(ours.as_bytes(), theirs.serialized(), "{len} bytes");
            assert_eq!(digest, Digest::of(&content));
            assert_eq!(Signature::parse(ours.as_bytes().to_vec(), len as u64), Ok(ours));
        }
    }

    #[test]
    fn block_sizes_keep_the_index_small() {
        assert_eq!(block_size(0), 2048);
        assert_eq!(block_size(1 << 30), 32 << 10);
        assert_eq!(block_size(8 << 30), 64 << 10);
        assert_eq!(stored_block_size(4_000), 128);
        assert_eq!(stored_block_size(65_536), 512);
        assert_eq!(stored_block_size(1 << 28), 4 << 10);
        for len in [1u64 << 31, 1 << 34, 1 << 36, 1 << 38] {
            assert!(len.div_ceil(u64::from(block_size(len))) <= MAX_BLOCKS);
            assert!(len.div_ceil(u64::from(stored_block_size(len))) <= MAX_BLOCKS);
        }
    }

    #[test]
    fn signatures_that_would_harm_the_library_are_refused() {
        let content = noise(10_000);
        let (good, _) = Signature::calculate(&content, 10_000).unwrap();
        let with = |at: usize, value: u32| {
            let mut bytes = good.as_bytes().to_vec();
            bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
            Signature::parse(bytes, 10_000)
        };
        for block_size in [0, 1, 127, (1 << 20) + 1, u32::MAX, 1024] {
            assert!(with(4, block_size).is_err(), "block size {block_size}");
        }
        for strong_len in [0, 7, 9, 17, u32::MAX] {
            assert!(with(8, strong_len).is_err(), "strong sums of {strong_len}");
        }
        assert!(with(0, 0x7273_0137).is_err());
        let short = good.as_bytes()[..good.as_bytes().len() - 1].to_vec();
        assert!(Signature::parse(short, 10_000).is_err());
        assert!(Signature::parse(good.as_bytes().to_vec(), 20_000).is_err());
        assert!(Signature::parse(Vec::new(), 0).is_err());
    }

    #[test]
    fn stored_signatures_survive_and_damage_is_noticed() {
        let content = noise(50_000);
        let stored = StoredSignature::calculate(&content, 50_000).unwrap();
        assert_eq!((stored.content, stored.content_len), (Digest::of(&content), 50_000));
        let bytes = stored.encode();
        assert_eq!(StoredSignature::parse(&bytes).unwrap(), stored);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert!(StoredSignature::parse(&damaged).is_err(), "byte {at}");
            assert!(StoredSignature::parse(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
