//! What a listing shows that is not held, and the generation that it amounts to.
//!
//! Both are as large as the tree, so they pass side by side, and nothing is kept but sums.

use protocol::{
    digest::Digest,
    manifest::{self, Entries, Entry, EntryKind},
};

use crate::rsync::listing::{Listed, ListedKind, Listing, NANOS};

/// The files whose content has to be fetched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Differing<'a> {
    listing: &'a Listing,
    held: &'a dyn Entries,
    /// How many they are.
    pub(super) files: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// What is listed and is no file.
    pub(super) others: u64,
}

impl<'a> Differing<'a> {
    /// Compares all that is listed with all that is held.
    pub(super) fn find(
        listing: &'a Listing,
        held: &'a dyn Entries,
    ) -> Result<Self, manifest::Error> {
        let mut found = Self { listing, held, files: 0, bytes: 0, others: 0 };
        for listed in listing.each() {
            let listed = listed?;
            if !listed.is_file() {
                found.others += 1;
            } else if held_as(&listed, held)?.is_none() {
                found.files += 1;
                found.bytes += listed.size();
            }
        }
        Ok(found)
    }

    /// The files in path order; looked for anew each time.
    pub(super) fn each(&self) -> impl Iterator<Item = Result<Listed, manifest::Error>> + Send {
        let held = self.held;
        let files = self.listing.each().filter(|l| l.as_ref().map_or(true, Listed::is_file));
        files.filter_map(move |listed| {
            let differs = |listed: Listed| match held_as(&listed, held)? {
                Some(_) => Ok(None),
                None => Ok(Some(listed)),
            };
            listed.and_then(differs).transpose()
        })
    }
}

/// What is held at a listed path, if its content is what is listed.
fn held_as(listed: &Listed, held: &dyn Entries) -> Result<Option<Entry>, manifest::Error> {
    Ok(held.find(&listed.path)?.filter(|entry| listed.agrees_but_for_mode(entry)))
}

/// The generation that a listing shows, with digests of what was held; of the other files `digest` is
/// asked, one after the other in path order.
pub(super) fn observe<'a, E: From<manifest::Error> + 'a>(
    listing: &'a Listing,
    held: &'a dyn Entries,
    mut digest: impl FnMut(&Listed) -> Result<Digest, E> + 'a,
) -> impl Iterator<Item = Result<Entry, E>> + 'a {
    listing.each().map(move |listed| {
        let listed = listed?;
        let before = held_as(&listed, held)?;
        // A listing has whole seconds; what is held has more and is kept while they agree.
        let mtime = before.as_ref().map_or(listed.mtime.saturating_mul(NANOS), |held| held.mtime);
        let kind = match &listed.kind {
            ListedKind::Dir => EntryKind::Dir,
            ListedKind::Symlink { target } => EntryKind::Symlink { target: target.clone() },
            ListedKind::File { size } => {
                let known = before.and_then(|held| held.digest());
                let digest = known.map_or_else(|| digest(&listed), Ok)?;
                EntryKind::File { size: *size, digest, link_group: None }
            }
        };
        Ok(Entry { path: listed.path, mode: listed.mode, mtime, kind })
    })
}
