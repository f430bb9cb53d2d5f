//! Whether a tree as it was scanned may become a generation.
//!
//! An upstream that is unmounted, half deleted or wrongly emptied looks just like one whose admin
//! removed much, and every mirror would follow it. So a step that takes away too much is stopped
//! *before* it has a number, and waits for an admin. The same figures are compared with the
//! generation of a day ago, because a tree can also be emptied in many small steps.
//!
//! Everything here is a pure function of its inputs.

use std::{cmp::Ordering, fmt};

use filetree::fs::FileId;
use protocol::{
    digest::Digest,
    manifest::{self, Entries, Entry, Manifest},
    path::TreePath,
    spec::GuardSpec,
    statement::GuardVerdict,
    units::Threshold,
    v1::publisher::Approval,
};

/// Most files that a step may remove where nothing is set.
pub const DEFAULT_FILES: Threshold = Threshold::Percent(10);
/// Most bytes that a step may remove where nothing is set.
pub const DEFAULT_BYTES: Threshold = Threshold::Percent(25);
/// Most missing paths that a reason names.
const NAMED_PATHS: usize = 5;

/// A step that wants to be taken.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// The tree's guard.
    pub spec: &'a GuardSpec,
    /// The announced generation; `None` before the first, or where only its figures are known.
    pub announced: Option<&'a dyn Entries>,
    /// What the announced generation's statement says it has, for a publisher that lost its state.
    pub figures: Option<Figures>,
    /// The generation that was announced a day ago, where it is another one.
    pub a_day_ago: Option<&'a dyn Entries>,
    /// The tree as it is now.
    pub scanned: &'a Manifest,
    /// The digest of [`Step::scanned`].
    pub manifest: Digest,
    /// The tree's root directory when the announced generation was scanned.
    pub root_before: Option<FileId>,
    /// The tree's root directory now.
    pub root_now: FileId,
    /// What admins approved.
    pub approved: &'a [Approval],
}

/// The size of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Entries of its manifest.
    pub entries: u64,
    /// Content bytes.
    pub bytes: u64,
}

/// What the guard says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The step may be taken.
    Pass(GuardVerdict),
    /// An admin has to look at it.
    Hold(Stop),
}

/// Why a step was stopped, with figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// Every rule that stopped it.
    pub reasons: Vec<Reason>,
    /// What the step would remove from the announced generation.
    pub removed: Removed,
}

/// One rule that stopped a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Nothing is left.
    NoFiles,
    /// More files than allowed would be gone.
    Files {
        /// Whether since a day ago, and not by this step alone.
        since_a_day: bool,
        /// How many would be gone.
        removed: u64,
        /// Of how many.
        of: u64,
        /// How many may be.
        allowed: u64,
    },
    /// More content than allowed would be gone.
    Bytes {
        /// Whether since a day ago, and not by this step alone.
        since_a_day: bool,
        /// How many bytes would be gone.
        removed: u64,
        /// Of how many.
        of: u64,
        /// How many may be.
        allowed: u64,
    },
    /// Paths without which the tree is not whole.
    Missing(Vec<TreePath>),
    /// Another directory is where the root was: something was mounted or unmounted.
    OtherRoot {
        /// The root before.
        before: FileId,
        /// The root now.
        now: FileId,
    },
    /// The root is not there.
    NoRoot(String),
    /// Something could not be read, so what is missing cannot be told from what is gone.
    Unreadable(String),
}

/// What one step removes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Files that are gone.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files there were.
    pub of_files: u64,
    /// Their bytes.
    pub of_bytes: u64,
}

/// Judges a step.
pub fn judge(step: &Step<'_>) -> Result<Verdict, manifest::Error> {
    let removed = match (step.announced, step.figures) {
        (Some(before), _) => removed(before, step.scanned)?,
        (None, Some(figures)) => shrunk(figures, step.scanned),
        (None, None) => Removed::default(),
    };
    let mut reasons = Vec::new();
    if !step.scanned.entries().iter().any(Entry::is_file) {
        reasons.push(Reason::NoFiles);
    }
    if let Some(before) = step.root_before.filter(|before| *before != step.root_now) {
        reasons.push(Reason::OtherRoot { before, now: step.root_now });
    }
    let missing: Vec<TreePath> = step
        .spec
        .must_contain
        .iter()
        .filter(|path| step.scanned.get(path).is_none())
        .cloned()
        .collect();
    if !missing.is_empty() {
        reasons.push(Reason::Missing(missing));
    }
    reasons.extend(excess(step.spec, removed, false));
    if let Some(before) = step.a_day_ago {
        reasons.extend(excess(step.spec, self::removed(before, step.scanned)?, true));
    }
    let approval = step.approved.iter().find(|approval| approval.manifest == step.manifest);
    Ok(match (reasons.is_empty(), approval) {
        (false, None) => Verdict::Hold(Stop { reasons, removed }),
        (stopped_not, approval) => Verdict::Pass(GuardVerdict {
            removed_files: removed.files,
            removed_bytes: removed.bytes,
            approved_by: approval.filter(|_| !stopped_not).map(|approval| approval.by.clone()),
        }),
    })
}

/// What `after` no longer has of the files of `before`.
pub fn removed(before: &dyn Entries, after: &Manifest) -> Result<Removed, manifest::Error> {
    let mut removed = Removed::default();
    let mut left = after.entries().iter().filter(|entry| entry.is_file()).peekable();
    for entry in before.each() {
        let entry = entry?;
        if !entry.is_file() {
            continue;
        }
        removed.of_files += 1;
        removed.of_bytes += entry.size();
        let order = loop {
            match left.peek().map(|other| other.path.cmp(&entry.path)) {
                Some(Ordering::Less) => drop(left.next()),
                other => break other,
            }
        };
        if order != Some(Ordering::Equal) {
            removed.files += 1;
            removed.bytes += entry.size();
        }
    }
    Ok(removed)
}

/// The least that must be gone, where the generation before is known only by its size.
fn shrunk(before: Figures, after: &Manifest) -> Removed {
    Removed {
        files: before.entries.saturating_sub(after.entries().len() as u64),
        bytes: before.bytes.saturating_sub(after.content_bytes()),
        of_files: before.entries,
        of_bytes: before.bytes,
    }
}

fn excess(spec: &GuardSpec, removed: Removed, since_a_day: bool) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let allowed = spec.max_delete_files.unwrap_or(DEFAULT_FILES).of(removed.of_files);
    if removed.files > allowed {
        let Removed { files, of_files, .. } = removed;
        reasons.push(Reason::Files { since_a_day, removed: files, of: of_files, allowed });
    }
    let allowed = spec.max_delete_bytes.unwrap_or(DEFAULT_BYTES).of(removed.of_bytes);
    if removed.bytes > allowed {
        let Removed { bytes, of_bytes, .. } = removed;
        reasons.push(Reason::Bytes { since_a_day, removed: bytes, of: of_bytes, allowed });
    }
    reasons
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, reason) in self.reasons.iter().enumerate() {
            write!(f, "{}{reason}", if at == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = |since_a_day: &bool| if *since_a_day { " since yesterday" } else { "" };
        match self {
            Self::NoFiles => f.write_str("the tree has no files"),
            Self::Files { since_a_day, removed, of, allowed } => write!(
                f,
                "{removed} of {of} files would be gone{}, {allowed} may be",
                period(since_a_day)
            ),
            Self::Bytes { since_a_day, removed, of, allowed } => write!(
                f,
                "{removed} of {of} bytes would be gone{}, {allowed} may be",
                period(since_a_day)
            ),
            Self::Missing(paths) => {
                f.write_str("the tree must contain")?;
                for path in paths.iter().take(NAMED_PATHS) {
                    write!(f, " {path}")?;
                }
                match paths.len().saturating_sub(NAMED_PATHS) {
                    0 => f.write_str(" and does not"),
                    more => write!(f, " and {more} more, and does not"),
                }
            }
            Self::OtherRoot { before, now } => write!(
                f,
                "the root is another directory than before (device and inode {}:{}, were {}:{}); \
                 was something mounted or unmounted?",
                now.dev, now.ino, before.dev, before.ino
            ),
            Self::NoRoot(why) => write!(f, "the root of the tree is not there: {why}"),
            Self::Unreadable(why) => write!(f, "the tree cannot be read whole: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::manifest::EntryKind;

    use super::*;

    fn tree(files: &[(&str, u64)]) -> Manifest {
        let entry = |&(path, size): &(&str, u64)| Entry {
            path: TreePath::parse(path.as_bytes()).unwrap(),
            mode: 0o644,
            mtime: 0,
            kind: EntryKind::File { size, digest: Digest::of(b""), link_group: None },
        };
        let mut entries: Vec<Entry> = files.iter().map(entry).collect();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Manifest::new(entries).unwrap()
    }

    fn numbered(count: u64, size: u64) -> Manifest {
        let names: Vec<String> = (0..count).map(|n| format!("f{n:03}")).collect();
        tree(&names.iter().map(|name| (name.as_str(), size)).collect::<Vec<_>>())
    }

    const ROOT: FileId = FileId { dev: 1, ino: 2 };

    fn step<'a>(spec: &'a GuardSpec, before: &'a Manifest, after: &'a Manifest) -> Step<'a> {
        Step {
            spec,
            announced: Some(before),
            figures: None,
            a_day_ago: None,
            scanned: after,
            manifest: after.digest(),
            root_before: Some(ROOT),
            root_now: ROOT,
            approved: &[],
        }
    }

    fn reasons(verdict: Verdict) -> Vec<String> {
        match verdict {
            Verdict::Pass(_) => vec![],
            Verdict::Hold(stop) => stop.reasons.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn each_rule_stops_what_it_should_and_nothing_else() {
        let spec = GuardSpec::default();
        let hundred = numbered(100, 10);
        let table: [(&str, Manifest, &[&str]); 6] = [
            ("as it was", numbered(100, 10), &[]),
            ("ten of a hundred may go", numbered(90, 10), &[]),
            ("eleven may not", numbered(89, 10), &["11 of 100 files would be gone, 10 may be"]),
            (
                "nor may a half",
                numbered(50, 10),
                &[
                    "50 of 100 files would be gone, 10 may be",
                    "500 of 1000 bytes would be gone, 250 may be",
                ],
            ),
            (
                "nor all",
                Manifest::empty(),
                &[
                    "the tree has no files",
                    "100 of 100 files would be gone, 10 may be",
                    "1000 of 1000 bytes would be gone, 250 may be",
                ],
            ),
            ("emptied files are not gone", numbered(100, 0), &[]),
        ];
        for (case, after, expected) in table {
            assert_eq!(reasons(judge(&step(&spec, &hundred, &after)).unwrap()), expected, "{case}");
        }
    }

    #[test]
    fn one_big_file_counts_by_its_bytes() {
        let before = tree(&[("big", 1000), ("a", 1), ("b", 1), ("c", 1)]);
        let after = tree(&[("a", 1), ("b", 1), ("c", 1)]);
        let spec =
            GuardSpec { max_delete_files: Some(Threshold::Percent(50)), ..GuardSpec::default() };
        assert_eq!(
            reasons(judge(&step(&spec, &before, &after)).unwrap()),
            ["1000 of 1003 bytes would be gone, 250 may be"]
        );
    }

    #[test]
    fn a_missing_path_and_another_root_stop_a_step_that_removes_nothing() {
        let path = TreePath::parse(b"repodata/repomd.xml").unwrap();
        let spec = GuardSpec { must_contain: vec![path], ..GuardSpec::default() };
        let before = numbered(3, 1);
        let mut taken = step(&spec, &before, &before);
        taken.root_now = FileId { dev: 9, ino: 2 };
        let reasons = reasons(judge(&taken).unwrap());
        assert!(reasons[0].starts_with("the root is another directory"), "{reasons:?}");
        assert_eq!(reasons[1], "the tree must contain repodata/repomd.xml and does not");
    }

    #[test]
    fn a_tree_that_empties_in_small_steps_is_compared_with_yesterday() {
        let spec = GuardSpec::default();
        let (yesterday, before, after) = (numbered(100, 1), numbered(90, 1), numbered(82, 1));
        let mut taken = step(&spec, &before, &after);
        assert_eq!(reasons(judge(&taken).unwrap()), [""; 0]);
        taken.a_day_ago = Some(&yesterday);
        assert_eq!(
            reasons(judge(&taken).unwrap()),
            ["18 of 100 files would be gone since yesterday, 10 may be"]
        );
    }

    #[test]
    fn an_approval_releases_just_the_manifest_that_it_names() {
        let spec = GuardSpec::default();
        let (before, after) = (numbered(10, 1), Manifest::empty());
        let approval = |manifest| [Approval { manifest, by: "alice".parse().unwrap() }];
        let mut taken = step(&spec, &before, &after);
        let wrong = approval(before.digest());
        taken.approved = &wrong;
        assert!(matches!(judge(&taken).unwrap(), Verdict::Hold(_)));
        let right = approval(after.digest());
        taken.approved = &right;
        let Verdict::Pass(verdict) = judge(&taken).unwrap() else { panic!("approved") };
        assert_eq!((verdict.removed_files, verdict.removed_bytes), (10, 10));
        assert_eq!(verdict.approved_by.unwrap().as_str(), "alice");
    }

    #[test]
    fn without_the_old_manifest_its_figures_are_compared() {
        let spec = GuardSpec::default();
        let (nothing, half) = (Manifest::empty(), numbered(50, 10));
        let mut taken = step(&spec, &nothing, &half);
        taken.announced = None;
        taken.figures = Some(Figures { entries: 100, bytes: 500 });
        assert_eq!(reasons(judge(&taken).unwrap()), ["50 of 100 files would be gone, 10 may be"]);
    }

    #[test]
    fn a_first_generation_is_stopped_only_when_it_is_empty_or_not_whole() {
        let spec = GuardSpec::default();
        let (first, nothing) = (numbered(1, 1), Manifest::empty());
        let mut taken = step(&spec, &nothing, &first);
        (taken.announced, taken.root_before) = (None, None);
        assert!(matches!(judge(&taken).unwrap(), Verdict::Pass(_)));
        taken.scanned = &nothing;
        assert_eq!(reasons(judge(&taken).unwrap()), ["the tree has no files"]);
    }
}
