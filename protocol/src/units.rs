//! Quantities with their unit, as people write them: `15m`, `8MiB`, `10%`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Text that is not a quantity of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct InvalidQuantity {
    text: String,
    expected: &'static str,
}

/// A length of time: a whole number and `s`, `m`, `h`, `d` or `w`; several parts may follow each
/// other (`1h30m`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(Duration);

/// A number of bytes: a whole number and nothing, `B`, `KiB`, `MiB`, `GiB` or `TiB`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// A part of something: an absolute number, or a percentage of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Threshold {
    /// So many.
    Count(u64),
    /// So many hundredths.
    Percent(u8),
}

const SPAN_UNITS: [(&str, u64); 5] =
    [("w", 604_800), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
const SIZE_UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Span {
    /// A span of whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// As the standard library's type.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl Threshold {
    /// The most that `whole` allows.
    pub fn of(self, whole: u64) -> u64 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => {
                let part = u128::from(whole) * u128::from(percent) / 100;
                u64::try_from(part).unwrap_or(u64::MAX)
            }
        }
    }
}

impl FromStr for Span {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let expected = "a time such as 30s, 15m, 12h or 7d";
        let invalid = || InvalidQuantity { text: text.into(), expected };
        let mut total = 0u64;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: u64 = rest[..digits].parse().map_err(|_| invalid())?;
            let unit = rest.get(digits..digits + 1).ok_or_else(invalid)?;
            let &(_, seconds) =
                SPAN_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(invalid)?;
            total = number
                .checked_mul(seconds)
                .and_then(|part| total.checked_add(part))
                .ok_or_else(invalid)?;
            rest = &rest[digits + 1..];
        }
        if text.is_empty() { Err(invalid()) } else { Ok(Self::from_secs(total)) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.0.as_secs();
        if left == 0 {
            return f.write_str("0s");
        }
        for (unit, seconds) in SPAN_UNITS {
            if left >= seconds {
                write!(f, "{}{unit}", left / seconds)?;
                left %= seconds;
            }
        }
        Ok(())
    }
}

impl FromStr for ByteSize {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let expected = "a size such as 4096, 64KiB, 8MiB or 2GiB";
        let invalid = || InvalidQuantity { text: text.into(), expected };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = text[..digits].parse().map_err(|_| invalid())?;
        let unit = text[digits..].trim_start();
        let factor = SIZE_UNITS
            .iter()
            .find_map(|&(name, factor)| (name == unit).then_some(factor))
            .or(unit.is_empty().then_some(1))
            .ok_or_else(invalid)?;
        number.checked_mul(factor).map(Self).ok_or_else(invalid)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = SIZE_UNITS
            .iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        match exact {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromStr for Threshold {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let expected = "a number, or a percentage such as 10%";
        let invalid = || InvalidQuantity { text: text.into(), expected };
        match text.strip_suffix('%') {
            Some(percent) => match percent.parse() {
                Ok(percent) if percent <= 100 => Ok(Self::Percent(percent)),
                _ => Err(invalid()),
            },
            None => text.parse().map(Self::Count).map_err(|_| invalid()),
        }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

macro_rules! as_text {
    ($($name:ident)*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

as_text! { Span ByteSize Threshold }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read_and_written_back() {
        for text in ["0s", "30s", "15m", "1h30m", "2w1d"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert_eq!("90m".parse::<Span>().unwrap().to_string(), "1h30m");
        for text in ["1B", "8MiB", "3GiB", "1025B"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        assert_eq!("4096".parse::<ByteSize>(), Ok(ByteSize(4096)));
        assert_eq!("10%".parse::<Threshold>().map(|t| t.of(55)), Ok(5));
        assert_eq!("7".parse::<Threshold>().map(|t| t.of(55)), Ok(7));
    }

    #[test]
    fn what_could_be_misread_is_refused() {
        for text in ["", "15", "m", "1.5h", "-3s", "99999999999999w", "5 m", "1é"] {
            assert!(text.parse::<Span>().is_err(), "{text:?}");
        }
        for text in ["", "MiB", "1MB", "1.5GiB", "-1", "99999999TiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text:?}");
        }
        for text in ["", "%", "101%", "-1%", "1.5%"] {
            assert!(text.parse::<Threshold>().is_err(), "{text:?}");
        }
    }
}
