//! The `copy` encoder: content that the old tree has already, under whatever name. Renames, moves
//! and restored files cost nothing but their entry.

use std::collections::{HashMap, HashSet};

use protocol::{digest::Digest, manifest::Manifest, path::TreePath};

/// Which old entry has which content, for content that is wanted.
///
/// Entries are told apart by the filter class of their path: a mirror that holds the new path must
/// be likely to hold the old one.
#[derive(Debug, Default)]
pub struct OldContent {
    entries: HashMap<(Digest, u8), u64>,
}

impl OldContent {
    /// Looks through `old` for `wanted` content; the first entry of each class with it counts.
    pub fn find(old: &Manifest, wanted: &HashSet<Digest>, class: &dyn Fn(&TreePath) -> u8) -> Self {
        let mut entries = HashMap::new();
        for (number, entry) in old.entries().iter().enumerate() {
            if let Some(digest) = entry.digest()
                && wanted.contains(&digest)
            {
                entries.entry((digest, class(&entry.path))).or_insert(number as u64);
            }
        }
        Self { entries }
    }

    /// Number of an old entry of this class with this content.
    pub fn get(&self, digest: &Digest, class: u8) -> Option<u64> {
        self.entries.get(&(*digest, class)).copied()
    }
}
