//! What the agent has of a manifest: all of it, or the part that an assignment keeps.

use protocol::{
    digest::Digest,
    filter::Filter,
    manifest::{
        self, Chosen, Each, Entries, Entry, Manifest, PartManifest, Positions, StoredManifest,
    },
    path::TreePath,
};

/// A manifest as it is kept here.
///
/// A part is complete for the filter that it was made with. With another one, what it lacks would
/// look as if it were gone, so whoever takes one says with which filter it is seen.
#[derive(Debug, Clone)]
pub enum KeptManifest {
    /// All of it.
    Whole(StoredManifest),
    /// What one filter keeps of it.
    Part(PartManifest),
}

impl KeptManifest {
    /// The digest of the whole manifest.
    pub fn digest(&self) -> Digest {
        match self {
            Self::Whole(whole) => whole.digest(),
            Self::Part(part) => part.named().of,
        }
    }

    /// All of it, if that is kept.
    pub fn whole(&self) -> Option<&StoredManifest> {
        match self {
            Self::Whole(whole) => Some(whole),
            Self::Part(_) => None,
        }
    }

    /// Whether it has everything that the filter keeps.
    pub fn serves(&self, filter: &Filter) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Part(part) => part.named().filter == filter.digest(),
        }
    }

    /// Entries and content bytes of the whole manifest.
    pub fn whole_sums(&self) -> Result<(u64, u64), manifest::Error> {
        Ok(match self {
            Self::Whole(whole) => (whole.count(), whole.sum_bytes()?),
            Self::Part(part) => (part.named().whole_count, part.named().whole_bytes),
        })
    }

    fn entries(&self) -> &dyn Entries {
        match self {
            Self::Whole(whole) => whole,
            Self::Part(part) => part,
        }
    }
}

impl Default for KeptManifest {
    fn default() -> Self {
        Self::Whole(StoredManifest::empty())
    }
}

impl From<StoredManifest> for KeptManifest {
    fn from(manifest: StoredManifest) -> Self {
        Self::Whole(manifest)
    }
}

impl From<Manifest> for KeptManifest {
    fn from(manifest: Manifest) -> Self {
        Self::Whole(manifest.into())
    }
}

impl From<&Manifest> for KeptManifest {
    fn from(manifest: &Manifest) -> Self {
        Self::Whole(manifest.into())
    }
}

impl Entries for KeptManifest {
    fn count(&self) -> u64 {
        self.entries().count()
    }

    fn each(&self) -> Each<'_> {
        self.entries().each()
    }

    fn locate(&self, path: &TreePath) -> Result<Option<(u64, Entry)>, manifest::Error> {
        self.entries().locate(path)
    }

    fn numbered(&self, number: u64) -> Result<Option<Entry>, manifest::Error> {
        self.entries().numbered(number)
    }

    fn chosen<'a>(&'a self, positions: Positions<'a>) -> Chosen<'a> {
        self.entries().chosen(positions)
    }

    fn number_at(&self, position: u64) -> u64 {
        self.entries().number_at(position)
    }
}
