//! The `copy` encoder: content that the old tree has already, under whatever name. Renames, moves
//! and restored files cost nothing but their entry.

use std::collections::{HashMap, HashSet};

use protocol::{digest::Digest, manifest::Manifest};

/// Which old entry has which content, for content that is wanted.
#[derive(Debug, Default)]
pub struct OldContent {
    entries: HashMap<Digest, u64>,
}

impl OldContent {
    /// Looks through `old` for `wanted` content; the first entry with it counts.
    pub fn find(old: &Manifest, wanted: &HashSet<Digest>) -> Self {
        let mut entries = HashMap::new();
        for (number, entry) in old.entries().iter().enumerate() {
            if let Some(digest) = entry.digest()
                && wanted.contains(&digest)
            {
                entries.entry(digest).or_insert(number as u64);
            }
        }
        Self { entries }
    }

    /// Number of an old entry with this content.
    pub fn get(&self, digest: &Digest) -> Option<u64> {
        self.entries.get(digest).copied()
    }
}
