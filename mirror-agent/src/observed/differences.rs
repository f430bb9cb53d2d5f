//! What a listing shows that is not held, and the generation that it amounts to.

use protocol::{
    digest::Digest,
    manifest::{Entry, EntryKind, Manifest},
    path::TreePath,
};

use super::Error;
use crate::rsync::listing::{Listed, ListedKind, Listing, NANOS};

/// Bytes of a listed file.
pub(super) fn size(listed: &Listed) -> u64 {
    match listed.kind {
        ListedKind::File { size } => size,
        ListedKind::Dir | ListedKind::Symlink { .. } => 0,
    }
}

/// Whether the content at a listed path is, as far as a listing can tell, what an entry has.
pub(super) fn same_content(listed: &Listed, entry: &Entry) -> bool {
    let attributes_aside = Listed { mode: entry.mode, ..listed.clone() };
    attributes_aside.agrees_with(entry)
}

/// Files whose content has to be fetched.
pub(super) fn differing<'a>(listing: &'a Listing, held: &Manifest) -> Vec<&'a Listed> {
    let is_held =
        |listed: &&Listed| held.get(&listed.path).is_some_and(|entry| same_content(listed, entry));
    let files = listing.entries().iter().filter(|l| matches!(l.kind, ListedKind::File { .. }));
    files.filter(|listed| !is_held(listed)).collect()
}

/// The generation that a listing shows, with digests of what was held and of what came, which is in the
/// same order.
pub(super) fn observe<'a>(
    listing: &Listing,
    held: &Manifest,
    brought: impl Iterator<Item = (&'a TreePath, Digest)>,
    tree: &protocol::name::TreeName,
) -> Result<Manifest, Error> {
    let mut brought = brought.peekable();
    let mut entries = Vec::with_capacity(listing.entries().len());
    for listed in listing.entries() {
        let path = listed.path.clone();
        let before = held.get(&path).filter(|entry| same_content(listed, entry));
        let came = brought.next_if(|(came, _)| **came == path).map(|(_, digest)| digest);
        let kind = match (&listed.kind, before, came) {
            (ListedKind::Dir, ..) => EntryKind::Dir,
            (ListedKind::Symlink { target }, ..) => EntryKind::Symlink { target: target.clone() },
            (ListedKind::File { size }, _, Some(digest)) => {
                EntryKind::File { size: *size, digest, link_group: None }
            }
            (ListedKind::File { size }, Some(entry), None) => match entry.digest() {
                Some(digest) => EntryKind::File { size: *size, digest, link_group: None },
                None => return Err(Error::NotBrought { tree: tree.clone(), path }),
            },
            (ListedKind::File { .. }, None, None) => {
                return Err(Error::NotBrought { tree: tree.clone(), path });
            }
        };
        // A listing has whole seconds; what is held has more and is kept while they agree.
        let mtime = before.map_or(listed.mtime.saturating_mul(NANOS), |entry| entry.mtime);
        entries.push(Entry { path, mode: listed.mode, mtime, kind });
    }
    Ok(Manifest::new(entries)?)
}
