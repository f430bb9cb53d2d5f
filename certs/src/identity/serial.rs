//! Serial numbers of certificates.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The serial number of a certificate, written in lower-case hex.
///
/// * 1 to 20 bytes, the most significant first.
/// * Without leading zero bytes: encoders add and strip them, so serials that are compared byte by
///   byte must be normalized first, or a revoked certificate is taken for another one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(Box<[u8]>);

impl Serial {
    const MAX_LEN: usize = 20;

    /// Takes the bytes as they stand in a certificate.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidSerial> {
        let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
        let bytes = &bytes[zeros..];
        if bytes.is_empty() || bytes.len() > Self::MAX_LEN {
            return Err(InvalidSerial);
        }
        Ok(Self(bytes.into()))
    }

    /// A new random serial of 127 bits.
    pub(crate) fn random() -> Result<Self, crate::NoRandomness> {
        let mut bytes: [u8; 16] = crate::random()?;
        // The upper half of the range, so that all serials are equally long and none is zero.
        bytes[0] = bytes[0] & 0x7f | 0x40;
        Ok(Self(bytes.into()))
    }

    /// The bytes, the most significant first, without leading zeros.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Serial {
    type Err = InvalidSerial;

    fn from_str(text: &str) -> Result<Self, InvalidSerial> {
        if text.len() > 2 * (Self::MAX_LEN + 1) {
            return Err(InvalidSerial);
        }
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| InvalidSerial)?;
        Self::from_bytes(&bytes)
    }
}

impl Serialize for Serial {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Serial {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Bytes or text that are no serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a serial number: expected 1 to 20 bytes in lower-case hex, not zero")]
pub struct InvalidSerial;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_zeros_make_no_difference() {
        let plain = Serial::from_bytes(&[0x80, 1]).unwrap();
        assert_eq!(Serial::from_bytes(&[0, 0x80, 1]).unwrap(), plain);
        assert_eq!("008001".parse(), Ok(plain.clone()));
        assert_eq!(plain.to_string(), "8001");
    }

    #[test]
    fn zero_nothing_and_too_much_are_no_serials() {
        for bytes in [&[][..], &[0], &[0, 0], &[1; 21]] {
            assert_eq!(Serial::from_bytes(bytes), Err(InvalidSerial));
        }
        for text in ["", "00", "8", "8G", "AB", &"11".repeat(30)] {
            assert_eq!(text.parse::<Serial>(), Err(InvalidSerial), "{text}");
        }
    }

    #[test]
    fn random_serials_differ_and_are_positive() {
        let (one, two) = (Serial::random().unwrap(), Serial::random().unwrap());
        assert_ne!(one, two);
        assert!(one.as_bytes()[0] < 0x80 && one.as_bytes().len() == 16);
    }
}
