//! The primitives of the binary formats: a bounded reader and its writer.
//!
//! Numbers are LEB128 varints (at most 10 bytes, no superfluous zeros, so that equal values have
//! equal bytes); signed ones are zigzagged first. Reading never allocates more than the input is
//! long and never panics.

use crate::{digest::Digest, path::TreePath};

/// Why some bytes could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Ended early.
    #[error("the data ends early, at byte {at}")]
    Truncated {
        /// Where the missing bytes should begin.
        at: usize,
    },
    /// A field has a value that the format does not allow.
    #[error("{what} at byte {at} is not valid")]
    Invalid {
        /// Which field.
        what: &'static str,
        /// Where it ends.
        at: usize,
    },
    /// Bytes are left over.
    #[error("{left} bytes follow the end")]
    Trailing {
        /// How many.
        left: usize,
    },
    /// Another kind of file, or a newer version of this one.
    #[error("this is not {expected}, or a version of it that this program cannot read")]
    Magic {
        /// What was expected.
        expected: &'static str,
    },
    /// A declared length exceeds its limit.
    #[error("{what} exceeds its limit of {limit}")]
    Limit {
        /// Which field.
        what: &'static str,
        /// The most it may be.
        limit: u64,
    },
    /// zstd refused the data, or it unpacks to more than declared.
    #[error("the compressed data is damaged or unpacks to more than {limit} bytes")]
    Compressed {
        /// Declared length.
        limit: u64,
    },
}

/// Reads primitives from the front of a slice.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads from the beginning of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Reads on at `at`, where an earlier reader of the same bytes stood.
    pub fn starting_at(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at: at.min(bytes.len()) }
    }

    /// Position from the beginning.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// An error about the field that ends here.
    pub fn invalid(&self, what: &'static str) -> Malformed {
        Malformed::Invalid { what, at: self.at }
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..len).ok_or(Malformed::Truncated { at: self.bytes.len() })?;
        self.at += len;
        Ok(taken)
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    /// An unsigned varint.
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.invalid("number"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                // One value has one form, or two encodings of a manifest could differ.
                return if byte == 0 && shift > 0 {
                    Err(self.invalid("number"))
                } else {
                    Ok(value)
                };
            }
        }
        Err(self.invalid("number"))
    }

    /// An unsigned varint that must not exceed `limit`.
    pub fn varint_up_to(&mut self, what: &'static str, limit: u64) -> Result<u64, Malformed> {
        let value = self.varint()?;
        if value > limit { Err(Malformed::Limit { what, limit }) } else { Ok(value) }
    }

    /// A zigzagged varint.
    pub fn signed(&mut self) -> Result<i64, Malformed> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A length of at most `limit` and that many bytes.
    pub fn bytes(&mut self, what: &'static str, limit: u64) -> Result<&'a [u8], Malformed> {
        let len = self.varint_up_to(what, limit)?;
        self.take(usize::try_from(len).map_err(|_| self.invalid(what))?)
    }

    /// A digest's 32 bytes.
    pub fn digest(&mut self) -> Result<Digest, Malformed> {
        let mut bytes = [0; Digest::LEN];
        bytes.copy_from_slice(self.take(Digest::LEN)?);
        Ok(Digest::from_bytes(bytes))
    }

    /// The format's magic and version bytes.
    pub fn magic(&mut self, magic: &[u8], expected: &'static str) -> Result<(), Malformed> {
        match self.take(magic.len()) {
            Ok(found) if found == magic => Ok(()),
            _ => Err(Malformed::Magic { expected }),
        }
    }

    /// A path that shares a prefix with the one before it (see [`Writer::path_after`]).
    pub fn path_after(&mut self, previous: &[u8]) -> Result<TreePath, Malformed> {
        let shared = self.varint_up_to("shared path length", previous.len() as u64)? as usize;
        let suffix = self.bytes("path", TreePath::MAX_LEN as u64)?;
        // A longer shared prefix would be a second encoding of the same path.
        if shared < previous.len() && suffix.first() == Some(&previous[shared]) {
            return Err(self.invalid("shared path length"));
        }
        let path = [&previous[..shared], suffix].concat();
        TreePath::parse(&path).map_err(|_| self.invalid("path"))
    }

    /// Ends the reading: nothing may be left.
    pub fn finish(self) -> Result<(), Malformed> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            left => Err(Malformed::Trailing { left }),
        }
    }
}

/// Writes what [`Reader`] reads.
#[derive(Debug, Clone, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// An empty writer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Raw bytes, without a length.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// One byte.
    pub fn byte(&mut self, byte: u8) -> &mut Self {
        self.raw(&[byte])
    }

    /// An unsigned varint.
    pub fn varint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    /// A zigzagged varint.
    pub fn signed(&mut self, value: i64) -> &mut Self {
        self.varint(((value << 1) ^ (value >> 63)) as u64)
    }

    /// A length and the bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.varint(bytes.len() as u64).raw(bytes)
    }

    /// A digest's 32 bytes.
    pub fn digest(&mut self, digest: &Digest) -> &mut Self {
        self.raw(digest.as_bytes())
    }

    /// A path as the length of the prefix it shares with `previous`, and the rest.
    pub fn path_after(&mut self, previous: &[u8], path: &TreePath) -> &mut Self {
        let shared =
            previous.iter().zip(path.as_bytes()).take_while(|(before, now)| before == now).count();
        self.varint(shared as u64).bytes(&path.as_bytes()[shared..])
    }

    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// What was written so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

/// Goes on behind what was written before.
impl From<Vec<u8>> for Writer {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

/// Largest zstd window that readers accept, as a power of two.
pub const MAX_WINDOW_LOG: u32 = 25;

/// Unpacks one zstd frame that must give exactly `len` bytes; allocates no more than that.
pub fn decompress(bytes: &[u8], len: u64) -> Result<Vec<u8>, Malformed> {
    use std::io::Read;

    let damaged = || Malformed::Compressed { limit: len };
    let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(|_| damaged())?;
    decoder.window_log_max(MAX_WINDOW_LOG).map_err(|_| damaged())?;
    // The input bounds the first allocation: a bomb has to deliver before memory is spent on it.
    let likely = (bytes.len() as u64).saturating_mul(16).min(len);
    let mut out = Vec::with_capacity(usize::try_from(likely).map_err(|_| damaged())?);
    decoder.take(len.saturating_add(1)).read_to_end(&mut out).map_err(|_| damaged())?;
    if out.len() as u64 == len { Ok(out) } else { Err(damaged()) }
}

/// Packs bytes as one zstd frame at `level`.
///
/// # Errors
/// Only what zstd reports about its own parameters.
pub fn compress(bytes: &[u8], level: i32) -> std::io::Result<Vec<u8>> {
    zstd::bulk::compress(bytes, level)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_survive_and_have_one_form(value in any::<u64>(), signed in any::<i64>()) {
            let mut writer = Writer::new();
            writer.varint(value).signed(signed);
            let bytes = writer.into_bytes();
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert_eq!(reader.signed(), Ok(signed));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn any_bytes_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader::new(&bytes);
            let _ = reader.varint();
            let _ = reader.path_after(b"some/path");
            let _ = reader.bytes("x", 16);
            let _ = decompress(&bytes, 100);
        }
    }

    #[test]
    fn superfluous_zeros_are_refused() {
        for bytes in [&[0x80, 0x00][..], &[0xff; 11], &[0x80; 3]] {
            assert!(Reader::new(bytes).varint().is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_its_declared_length() {
        let bomb = compress(&vec![0; 64 << 20], 19).unwrap();
        assert!(bomb.len() < 8192);
        assert_eq!(decompress(&bomb, 1000), Err(Malformed::Compressed { limit: 1000 }));
        assert_eq!(decompress(&compress(b"abc", 3).unwrap(), 3), Ok(b"abc".to_vec()));
        assert!(decompress(&compress(b"abc", 3).unwrap(), 4).is_err());
    }
}
