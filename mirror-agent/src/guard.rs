//! What must not be believed at once: an upstream that suddenly has much less.
//!
//! An unmounted disk, a wrong path and a broken export all look like a tree from which nearly
//! everything was removed. For content that a publisher announced, its own guard has spoken; for
//! what an agent sees at a stock server, this one does. No announcement speaks of what a changed
//! filter takes from a mirror, so that is looked at for every tree.

use protocol::{
    digest::{Digest, DigestWriter},
    manifest::{self, Entry},
    path::TreePath,
    spec::GuardSpec,
    statement::Statement,
    units::Threshold,
    v1::{
        agent::AssignmentOrder,
        publisher::{Approval, Difference, HoldReport},
    },
};

use crate::removal::{Files, Removals};

const FILES: Threshold = Threshold::Percent(10);
const BYTES: Threshold = Threshold::Percent(25);
/// Removing so few files is never suspicious by itself: a tenth of nine files is none.
const FEW_FILES: u64 = 10;

/// Why a step is held until an admin looks at it. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Held {
    /// Nothing is left.
    #[error(
        "held: the upstream shows no files at all, and the mirror has {files}; nothing was removed. Is its disk mounted, and the path right?"
    )]
    Empty {
        /// Files that the mirror has.
        files: u64,
    },
    /// Too many files would go.
    #[error(
        "held: {removed} of {files} files are gone at the upstream, more than the guard's {limit}; nothing was removed. If that is meant, approve it (`mirrorctl status` names the hold), or raise max-delete-files of the tree"
    )]
    Files {
        /// Files that are gone.
        removed: u64,
        /// Files that the mirror has.
        files: u64,
        /// Most that may go.
        limit: u64,
    },
    /// Too many bytes would go.
    #[error(
        "held: {removed} of {bytes} bytes are gone at the upstream, more than the guard's {limit}; nothing was removed. If that is meant, approve it (`mirrorctl status` names the hold), or raise max-delete-bytes of the tree"
    )]
    Bytes {
        /// Bytes that are gone.
        removed: u64,
        /// Bytes that the mirror has.
        bytes: u64,
        /// Most that may go.
        limit: u64,
    },
    /// A changed filter takes too many files.
    #[error(
        "held: {removed} of {files} files would be removed, {left_out} of them only because the filter now leaves them out; that is more than the guard's {limit}, so nothing was changed. If that is meant, approve it (`mirrorctl status` names the hold) or raise max-delete-files of the tree; if the files are to stay, set on-exclude = \"keep\" for the assignment"
    )]
    LeftOut {
        /// Files that go because of the filter.
        left_out: u64,
        /// Files that go in all.
        removed: u64,
        /// Files that the mirror has.
        files: u64,
        /// Most that may go.
        limit: u64,
    },
    /// A changed filter takes too many bytes.
    #[error(
        "held: {removed} of {bytes} bytes would be removed, {left_out} of them only because the filter now leaves them out; that is more than the guard's {limit}, so nothing was changed. If that is meant, approve it (`mirrorctl status` names the hold) or raise max-delete-bytes of the tree; if the files are to stay, set on-exclude = \"keep\" for the assignment"
    )]
    LeftOutBytes {
        /// Bytes that go because of the filter.
        left_out: u64,
        /// Bytes that go in all.
        removed: u64,
        /// Bytes that the mirror has.
        bytes: u64,
        /// Most that may go.
        limit: u64,
    },
    /// More goes than the publisher's statements speak of.
    #[error(
        "held: {removed} of {files} files would be removed, and no chain of the publisher's signed statements explains {unexplained} of them; nothing was changed"
    )]
    Unexplained {
        /// Files that nothing explains.
        unexplained: u64,
        /// Files that would go in all.
        removed: u64,
        /// Files that the mirror has.
        files: u64,
    },
    /// Something that makes the tree whole is missing.
    #[error(
        "held: the upstream has no {path}, without which the tree is not whole (must-contain); nothing was changed"
    )]
    Missing {
        /// What is missing.
        path: TreePath,
    },
    /// The upstream says itself that it is being updated.
    #[error("the upstream is being updated ({marker} is there); it is tried again later")]
    Updating {
        /// The marker.
        marker: TreePath,
    },
}

/// Files and bytes of what is held that a new state lacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sums {
    files: u64,
    bytes: u64,
}

/// Compares what is held with the paths that are there now, which are asked for in the order of what
/// is held.
///
/// # Errors
/// What cannot be read; the inner result is what the guard says.
pub fn check(
    held: impl IntoIterator<Item = Result<Entry, manifest::Error>>,
    is_there: impl Fn(&TreePath) -> Result<bool, manifest::Error>,
    guard: &GuardSpec,
) -> Result<Result<(), Held>, manifest::Error> {
    let (mut all, mut gone) = (Sums::default(), Sums::default());
    for entry in held {
        let entry = entry?;
        if entry.is_dir() {
            continue;
        }
        let add = |sums: &mut Sums| {
            sums.files += 1;
            sums.bytes += entry.size();
        };
        add(&mut all);
        if !is_there(&entry.path)? {
            add(&mut gone);
        }
    }
    if all.files > 0 && gone.files == all.files {
        return Ok(Err(Held::Empty { files: all.files }));
    }
    for path in &guard.must_contain {
        if !is_there(path)? {
            return Ok(Err(Held::Missing { path: path.clone() }));
        }
    }
    Ok(match too_much(gone, all, guard) {
        Some(Limit::Files(limit)) => {
            Err(Held::Files { removed: gone.files, files: all.files, limit })
        }
        Some(Limit::Bytes(limit)) => {
            Err(Held::Bytes { removed: gone.bytes, bytes: all.bytes, limit })
        }
        None => Ok(()),
    })
}

/// Files and bytes that signed statements say were removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Explained {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Looks at what a run is about to take from a mirror. `explained` is what the publisher's
/// statements say of it; `None` where the upstream signs nothing and was looked at by [`check`].
pub fn check_removals(
    removals: &Removals,
    explained: Option<Explained>,
    guard: &GuardSpec,
) -> Result<(), Held> {
    let sums = |files: &Files| Sums { files: files.files, bytes: files.bytes };
    let (all, left_out) = (sums(&removals.held), sums(&removals.left_out));
    let removed = match explained {
        None if left_out.files == 0 => return Ok(()),
        None => sums(&removals.removed),
        Some(explained) => {
            let gone = sums(&removals.removed);
            let unexplained = |gone: u64, left_out: u64, explained: u64| {
                left_out + gone.saturating_sub(left_out).saturating_sub(explained)
            };
            Sums {
                files: unexplained(gone.files, left_out.files, explained.files),
                bytes: unexplained(gone.bytes, left_out.bytes, explained.bytes),
            }
        }
    };
    let is_filters = left_out.files > 0;
    match too_much(removed, all, guard) {
        Some(Limit::Files(limit)) if is_filters => Err(Held::LeftOut {
            left_out: left_out.files,
            removed: removed.files,
            files: all.files,
            limit,
        }),
        Some(Limit::Bytes(limit)) if is_filters => Err(Held::LeftOutBytes {
            left_out: left_out.bytes,
            removed: removed.bytes,
            bytes: all.bytes,
            limit,
        }),
        Some(_) => Err(Held::Unexplained {
            unexplained: removed.files,
            removed: removals.removed.files,
            files: all.files,
        }),
        None => Ok(()),
    }
}

/// What a chain of statements explains, the newest first, each the parent of the one before, the
/// last a step from a generation of `of` files and bytes. A step that takes more than the guard
/// lets pass and that nobody approved explains nothing, whoever signed it.
pub fn explained(chain: &[Statement], of: Explained, guard: &GuardSpec) -> Explained {
    let mut all = Explained::default();
    for (at, step) in chain.iter().enumerate() {
        let before = chain
            .get(at + 1)
            .map_or(of, |parent| Explained { files: parent.entries, bytes: parent.bytes });
        let verdict = &step.guard;
        let gone = Sums { files: verdict.removed_files, bytes: verdict.removed_bytes };
        let sums = Sums { files: before.files, bytes: before.bytes };
        if verdict.approved_by.is_some() || too_much(gone, sums, guard).is_none() {
            all.files = all.files.saturating_add(gone.files);
            all.bytes = all.bytes.saturating_add(gone.bytes);
        }
    }
    all
}

/// Names exactly one step at one mirror, for an admin to approve: from what, to what, through
/// which filter.
pub fn step_digest(from: Option<&Digest>, to: &Digest, filter: &Digest) -> Digest {
    let mut digest = DigestWriter::new();
    digest.update(b"step at a mirror\n");
    let parts =
        [from.map(ToString::to_string).unwrap_or_default(), to.to_string(), filter.to_string()];
    digest.update(parts.join("\n").as_bytes());
    digest.finish()
}

/// Whether an admin approved the step.
pub fn approval<'a>(order: &'a AssignmentOrder, step: &Digest) -> Option<&'a Approval> {
    order.approved.iter().find(|approval| approval.manifest == *step)
}

/// What is reported of a step that is held.
pub fn report(step: Digest, held: &Held, removed: &Files, difference: Difference) -> HoldReport {
    HoldReport {
        manifest: step,
        reason: held.to_string(),
        removed_files: removed.files,
        removed_bytes: removed.bytes,
        since: jiff::Timestamp::now(),
        difference,
        unseen: false,
    }
}

/// The limit that is exceeded.
enum Limit {
    Files(u64),
    Bytes(u64),
}

fn too_much(gone: Sums, all: Sums, guard: &GuardSpec) -> Option<Limit> {
    let set = guard.max_delete_files;
    let limit = set.unwrap_or(FILES).of(all.files).max(if set.is_none() { FEW_FILES } else { 0 });
    if gone.files > limit {
        return Some(Limit::Files(limit));
    }
    let set = guard.max_delete_bytes;
    let limit = set.unwrap_or(BYTES).of(all.bytes);
    let is_over = gone.bytes > limit && (set.is_some() || gone.files > FEW_FILES);
    is_over.then_some(Limit::Bytes(limit))
}

/// Names by which upstreams say that they are being changed.
pub fn update_marker(path: &TreePath) -> Result<(), Held> {
    match path.name().starts_with(b"Archive-Update-in-Progress") {
        true => Err(Held::Updating { marker: path.clone() }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use protocol::{
        digest::Digest,
        manifest::{Entries, EntryKind, Manifest},
    };

    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    /// The guard's word on what is held, where nothing fails to be read.
    fn check(
        held: &Manifest,
        is_there: impl Fn(&TreePath) -> bool,
        guard: &GuardSpec,
    ) -> Result<(), Held> {
        super::check(held.each(), |path| Ok(is_there(path)), guard).unwrap()
    }

    fn tree(files: u64) -> Manifest {
        let entry = |number: u64| Entry {
            path: path(&format!("f{number:04}")),
            mode: 0o644,
            mtime: 0,
            kind: EntryKind::File { size: 100, digest: Digest::of(b""), link_group: None },
        };
        Manifest::new((0..files).map(entry).collect()).unwrap()
    }

    fn without(count: u64) -> impl Fn(&TreePath) -> bool {
        move |p| *p >= path(&format!("f{count:04}"))
    }

    #[test]
    fn an_empty_upstream_is_always_held() {
        let guard =
            GuardSpec { max_delete_files: Some(Threshold::Percent(100)), ..GuardSpec::default() };
        for files in [1, 5, 200] {
            assert_eq!(check(&tree(files), |_| false, &guard), Err(Held::Empty { files }));
        }
        assert_eq!(check(&tree(0), |_| false, &guard), Ok(()));
    }

    #[test]
    fn more_than_a_tenth_of_the_files_is_held_unless_they_are_few() {
        let guard = GuardSpec::default();
        assert_eq!(check(&tree(200), without(20), &guard), Ok(()));
        let held = check(&tree(200), without(21), &guard);
        assert_eq!(held, Err(Held::Files { removed: 21, files: 200, limit: 20 }));
        assert_eq!(check(&tree(20), without(9), &guard), Ok(()));
    }

    #[test]
    fn what_an_admin_set_counts_exactly() {
        let guard =
            GuardSpec { max_delete_files: Some(Threshold::Count(2)), ..GuardSpec::default() };
        assert_eq!(check(&tree(20), without(2), &guard), Ok(()));
        assert!(check(&tree(20), without(3), &guard).is_err());
        let guard =
            GuardSpec { max_delete_bytes: Some(Threshold::Count(100)), ..GuardSpec::default() };
        assert!(matches!(check(&tree(20), without(2), &guard), Err(Held::Bytes { .. })));
    }

    #[test]
    fn a_tree_without_what_makes_it_whole_is_held() {
        let guard = GuardSpec { must_contain: vec![path("repodata")], ..GuardSpec::default() };
        let held = check(&tree(20), |p| p.as_bytes().starts_with(b"f"), &guard);
        assert_eq!(held, Err(Held::Missing { path: path("repodata") }));
    }

    #[test]
    fn an_upstream_that_says_it_is_being_updated_is_believed() {
        let marker = path("project/Archive-Update-in-Progress-mirror.example.org");
        assert!(update_marker(&marker).is_err());
        assert!(update_marker(&path("a")).is_ok());
    }
}
