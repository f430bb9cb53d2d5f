//! The one content digest: BLAKE3-256, written `b3:<64 hex digits>`.
//!
//! The text form is tagged so that another algorithm can come; the binary form of a version-1
//! format is the 32 bytes alone.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The BLAKE3-256 digest of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Length of the binary form, in bytes.
    pub const LEN: usize = 32;

    /// Digests `bytes` at once.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Digests `bytes` under a key: nobody without it can tell what was digested.
    pub fn keyed(key: &[u8; 32], bytes: &[u8]) -> Self {
        Self(*blake3::keyed_hash(key, bytes).as_bytes())
    }

    /// Takes a digest that was computed or stored elsewhere.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The binary form.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits without the tag: the form of file names, object keys and URLs.
    pub fn hex(&self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// Reads the form that [`Digest::hex`] writes.
    pub fn from_hex(text: &str) -> Result<Self, InvalidDigest> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| InvalidDigest)?;
        Ok(Self(bytes.try_into().map_err(|_| InvalidDigest)?))
    }
}

/// A key for one purpose, drawn from secret bytes: neither they nor a key for another purpose can be
/// found from it. The purpose is a text that is written out in the source and used nowhere else.
pub fn derive_key(purpose: &'static str, secret: &[u8]) -> [u8; 32] {
    blake3::derive_key(purpose, secret)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b3:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        Self::from_hex(text.strip_prefix("b3:").ok_or(InvalidDigest)?)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Text that is not `b3:` and 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a digest: expected b3: and 64 lower-case hex digits")]
pub struct InvalidDigest;

/// Digests content that arrives piece by piece.
#[derive(Clone, Default)]
pub struct DigestWriter(blake3::Hasher);

impl DigestWriter {
    /// An empty digest.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all pieces.
    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

impl std::io::Write for DigestWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_pieces_agree_with_the_whole() {
        let whole = Digest::of(b"hello world");
        let mut writer = DigestWriter::new();
        writer.update(b"hello ");
        writer.update(b"world");
        assert_eq!(writer.finish(), whole);
        assert_eq!(whole.to_string().parse(), Ok(whole));
    }

    #[test]
    fn anything_but_tag_and_lower_case_hex_is_refused() {
        let hex = Digest::of(b"").hex();
        let refused = [
            hex.clone(),
            format!("b3:{}", hex.to_uppercase()),
            format!("b3:{}", &hex[..62]),
            format!("b3:{hex}00"),
            format!("sha256:{hex}"),
            String::new(),
        ];
        for text in refused {
            assert_eq!(text.parse::<Digest>(), Err(InvalidDigest), "{text}");
        }
    }
}
