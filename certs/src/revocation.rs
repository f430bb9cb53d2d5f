//! Serials that are no longer anyone's.
//!
//! Revocation is a set of our own, looked up at every handshake and every request, and not X.509
//! revocation lists inside the TLS library: there an empty list means "no check", the first of two
//! lists wins, a stale list refuses everybody, a forged list is found only at the next handshake,
//! and a resumed session skips them all. Third parties get a standard list from
//! [`Authority::revocation_lists`](crate::authority::Authority::revocation_lists).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::identity::Serial;

/// Revoked serials, each with the time of its revocation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RevokedSerials(BTreeMap<Serial, Timestamp>);

impl RevokedSerials {
    /// Adds a serial. The first time of a serial that is named twice stands.
    pub fn insert(&mut self, serial: Serial, revoked_at: Timestamp) {
        self.0.entry(serial).or_insert(revoked_at);
    }

    /// Whether `serial` is revoked.
    pub fn contains(&self, serial: &Serial) -> bool {
        self.0.contains_key(serial)
    }

    /// The serials with their times, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Serial, Timestamp)> {
        self.0.iter().map(|(serial, &time)| (serial, time))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(Serial, Timestamp)> for RevokedSerials {
    fn from_iter<I: IntoIterator<Item = (Serial, Timestamp)>>(serials: I) -> Self {
        let mut revoked = Self::default();
        for (serial, time) in serials {
            revoked.insert(serial, time);
        }
        revoked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_survives_its_text_form_and_keeps_the_first_time() {
        let serial: Serial = "8001".parse().unwrap();
        let mut revoked = RevokedSerials::default();
        revoked.insert(serial.clone(), Timestamp::UNIX_EPOCH);
        revoked.insert(serial.clone(), Timestamp::MAX);
        let text = serde_json::to_string(&revoked).unwrap();
        assert_eq!(text, r#"{"8001":"1970-01-01T00:00:00Z"}"#);
        let read: RevokedSerials = serde_json::from_str(&text).unwrap();
        assert_eq!(read, revoked);
        assert!(read.contains(&serial) && !read.contains(&"8002".parse().unwrap()));
    }
}
