//! The difference of two manifests.

use protocol::{
    manifest::{Entry, EntryKind, Manifest},
    path::TreePath,
};

/// What becomes of one path; entries are given by number, which fits: a manifest has far fewer than
/// 2^32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// New, or of other content; with the old file of the same path.
    Put { to: u32, old_file: Option<u32> },
    /// Same content, other attributes.
    Attributes { to: u32 },
    /// Gone, with everything inside.
    Delete { from: u32 },
}

/// Every change from `from` to `to`, in path order.
pub(super) fn changes(from: &Manifest, to: &Manifest) -> Vec<Change> {
    let (old, new) = (from.entries(), to.entries());
    let (mut at, mut changes) = (0, Vec::new());
    let mut gone: Option<&TreePath> = None;
    for (number, entry) in (0u32..).zip(new) {
        at = deletions(old, at, Some(&entry.path), &mut gone, &mut changes);
        let same_path = old.get(at).filter(|old| old.path == entry.path);
        let Some(before) = same_path else {
            changes.push(Change::Put { to: number, old_file: None });
            continue;
        };
        if before.is_dir() && !entry.is_dir() {
            gone = Some(&before.path);
        }
        if before != entry {
            changes.push(if has_same_content(before, entry) {
                Change::Attributes { to: number }
            } else {
                let old_file = before.digest().map(|_| at as u32);
                Change::Put { to: number, old_file }
            });
        }
        at += 1;
    }
    deletions(old, at, None, &mut gone, &mut changes);
    changes
}

/// Records what old entries before `until` go, and returns the number of the next one.
fn deletions<'a>(
    old: &'a [Entry],
    mut at: usize,
    until: Option<&TreePath>,
    gone: &mut Option<&'a TreePath>,
    changes: &mut Vec<Change>,
) -> usize {
    while let Some(entry) = old.get(at)
        && until.is_none_or(|until| entry.path < *until)
    {
        if !gone.is_some_and(|gone| entry.path.is_inside(gone)) {
            changes.push(Change::Delete { from: at as u32 });
            *gone = Some(&entry.path);
        }
        at += 1;
    }
    at
}

fn has_same_content(before: &Entry, after: &Entry) -> bool {
    match (&before.kind, &after.kind) {
        (
            EntryKind::File { size, digest, .. },
            EntryKind::File { size: new_size, digest: new_digest, .. },
        ) => size == new_size && digest == new_digest,
        (before, after) => before == after,
    }
}
