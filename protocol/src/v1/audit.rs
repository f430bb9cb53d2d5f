//! Who did what.
//!
//! - `GET /v1/audit?cursor=N` → [`Page`](super::Page)`<`[`AuditEntry`]`>`, the oldest first (admin,
//!   viewer)
//!
//! Every entry holds the digest of the one before. So whoever has noted one digest can tell whether
//! anything up to there was changed or taken out since, also by someone who can write the database.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditEntry {
    /// Its number, from 1.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// Who: `admin/ann`, or `coordinator`.
    pub who: String,
    /// What: `revoke`, `invite-misused`…
    pub what: String,
    /// To what: `agent/lisbon-1`.
    pub target: String,
    /// The rest, for people.
    pub detail: String,
    /// Digest of the entry before; empty in the first.
    pub previous: String,
    /// Digest of this entry.
    pub digest: String,
}

impl AuditEntry {
    /// The digest that this entry should have.
    pub fn expected_digest(&self) -> String {
        let parts = [
            self.number.to_string(),
            self.at.as_microsecond().to_string(),
            self.who.clone(),
            self.what.clone(),
            self.target.clone(),
            self.detail.clone(),
            self.previous.clone(),
        ];
        // Every part after its length, so that no two different entries are the same bytes.
        let bytes = parts.iter().flat_map(|part| format!("{}:{part}", part.len()).into_bytes());
        Digest::of(&bytes.collect::<Vec<u8>>()).to_string()
    }
}

/// Where a chain of entries is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// An entry is missing, or one is there twice.
    #[error("entry {wanted} is missing: the next one there is is {found}")]
    Missing {
        /// The number that should follow.
        wanted: u64,
        /// The number that does.
        found: u64,
    },
    /// An entry was changed.
    #[error("entry {number} was changed after it was written")]
    Changed {
        /// Which entry.
        number: u64,
    },
    /// An entry does not continue the one before.
    #[error("entry {number} does not continue the one before: that one was exchanged")]
    NotContinued {
        /// Which entry.
        number: u64,
    },
}

/// Checks that `entries`, all of them from the first on, are as they were written.
pub fn verify(entries: &[AuditEntry]) -> Result<(), Broken> {
    let mut previous = String::new();
    for (wanted, entry) in (1..).zip(entries) {
        let number = entry.number;
        if number != wanted {
            return Err(Broken::Missing { wanted, found: number });
        }
        if entry.digest != entry.expected_digest() {
            return Err(Broken::Changed { number });
        }
        if entry.previous != previous {
            return Err(Broken::NotContinued { number });
        }
        previous.clone_from(&entry.digest);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(count: u64) -> Vec<AuditEntry> {
        let mut entries: Vec<AuditEntry> = Vec::new();
        for number in 1..=count {
            let previous = entries.last().map_or(String::new(), |entry| entry.digest.clone());
            let mut entry = AuditEntry {
                number,
                at: Timestamp::UNIX_EPOCH,
                who: "admin/ann".into(),
                what: "revoke".into(),
                target: format!("agent/a{number}"),
                detail: String::new(),
                previous,
                digest: String::new(),
            };
            entry.digest = entry.expected_digest();
            entries.push(entry);
        }
        entries
    }

    #[test]
    fn what_was_changed_left_out_or_exchanged_is_found() {
        let whole = chain(5);
        assert_eq!(verify(&whole), Ok(()));
        let mut changed = whole.clone();
        changed[2].who = "admin/eve".into();
        assert_eq!(verify(&changed), Err(Broken::Changed { number: 3 }));
        // With its digest made anew, the next one no longer continues it.
        changed[2].digest = changed[2].expected_digest();
        assert_eq!(verify(&changed), Err(Broken::NotContinued { number: 4 }));
        let mut cut = whole.clone();
        cut.remove(1);
        assert_eq!(verify(&cut), Err(Broken::Missing { wanted: 2, found: 3 }));
        let mut headless = whole;
        headless.remove(0);
        assert_eq!(verify(&headless), Err(Broken::Missing { wanted: 1, found: 2 }));
    }
}
