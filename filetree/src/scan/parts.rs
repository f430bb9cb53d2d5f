//! Reads a tree that is too large to be held: what is found is given away part after part.
//!
//! Two walks, as names that share a file have to be known before the first of them is passed on: the
//! first opens no file, the second reads. What changes in between is found as the second finds it, as
//! with every scan: nobody stands still while it goes on.

use std::collections::BTreeMap;

use protocol::{manifest::Entry, path::TreePath};

use super::{
    Earlier, Error, Expected, Expecting, Incomplete, LeftOut, Merge, Pending, Problem, ScanOptions,
    ScanRecord, read, stopped, unread, walk,
};
use crate::fs::Dir;

/// Entries that are read and given away together: some threads read at a time, and nobody wants to
/// hold more.
const AT_A_TIME: usize = 4_096;

/// Gives the records of an earlier scan, each time from the first: together in path order.
pub type Records<'a> = &'a dyn Fn() -> Box<dyn Iterator<Item = ScanRecord> + 'a>;

/// Some of what was found; parts come in path order.
#[derive(Debug)]
pub struct Part {
    /// The entries.
    pub entries: Vec<Entry>,
    /// What the next scan needs in order not to read them again.
    pub record: ScanRecord,
}

/// What is known of a tree before any of its files is opened.
pub(crate) struct Counted {
    /// How many entries belong to whom, and the first of each.
    pub(crate) owners: BTreeMap<u32, (u64, TreePath)>,
    expected: Expected,
    entries: u64,
    problems: Vec<Problem>,
}

/// As [`super::scan`], but gives what was found to `take`; what was left out comes back. Takes memory
/// for one part, for the names in directories that are open, and for files of several names.
///
/// # Errors
/// Those of `take`; [`Error::Incomplete`] if anything at all could not be read, in which case the parts
/// are not the tree.
pub fn scan_in_parts<E: From<Error>>(
    root: &Dir,
    earlier: Records<'_>,
    options: &ScanOptions<'_>,
    take: &mut dyn FnMut(Part) -> Result<(), E>,
) -> Result<Vec<LeftOut>, E> {
    count(root, earlier, options)?.read(root, earlier, options, take)
}

/// The first walk. Nothing is opened but directories.
pub(crate) fn count(
    root: &Dir,
    earlier: Records<'_>,
    options: &ScanOptions<'_>,
) -> Result<Counted, Error> {
    let mut known = Earlier::new(earlier().flat_map(ScanRecord::into_each), options);
    let (mut expected, mut owners, mut entries) = (Expecting::default(), BTreeMap::new(), 0);
    let mut walk = walk::InOrder::begin(root, options)?;
    for found in walk.by_ref() {
        expected.look(&found, &mut known);
        entries += 1;
        owners.entry(found.meta.uid).or_insert((0, found.path)).0 += 1;
    }
    if stopped(options.cancel) {
        return Err(Error::Cancelled);
    }
    let (expected, problems) = (expected.finish(), walk.finish().problems);
    Ok(Counted { owners, expected, entries, problems })
}

impl Counted {
    /// The second walk.
    ///
    /// # Errors
    /// As [`scan_in_parts`]; nothing is read where the first walk could not go everywhere.
    pub(crate) fn read<E: From<Error>>(
        self,
        root: &Dir,
        earlier: Records<'_>,
        options: &ScanOptions<'_>,
        take: &mut dyn FnMut(Part) -> Result<(), E>,
    ) -> Result<Vec<LeftOut>, E> {
        complete(self.problems)?;
        let known = Earlier::new(earlier().flat_map(ScanRecord::into_each), options);
        let mut merge = Merge::new(known, options, &self.expected);
        let progress = read::Begun::new(self.entries, self.expected.bytes);
        let mut walk = walk::InOrder::begin(root, options)?;
        let mut problems = Vec::new();
        loop {
            let part: Vec<Pending> =
                walk.by_ref().take(AT_A_TIME).map(|found| merge.pending(found)).collect();
            if stopped(options.cancel) {
                return Err(Error::Cancelled.into());
            }
            if part.is_empty() {
                break;
            }
            let outcomes = read::contents(root, unread(&part), &progress, options)?;
            merge.take(part, outcomes, &mut problems);
            let (entries, record) = merge.give();
            take(Part { entries, record })?;
        }
        let mut beside = walk.finish();
        problems.append(&mut beside.problems);
        complete(problems)?;
        beside.left_out.append(&mut merge.left_out);
        beside.left_out.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(beside.left_out)
    }
}

fn complete(problems: Vec<Problem>) -> Result<(), Error> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::Incomplete(Box::new(Incomplete { problems, record: ScanRecord::empty() })))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use protocol::{
        filter::{self, Filter},
        manifest::Manifest,
    };

    use super::*;
    use crate::{
        fs::{Fs, Op},
        scan::{Problem, keep_all, scan},
    };

    /// A tree of several parts in which names of one file lie in different parts.
    fn tree() -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().unwrap();
        let root = &temp.path().join("tree");
        for dir in ["a/deep/er", "a-b", "z"] {
            std::fs::create_dir_all(root.join(dir)).unwrap();
        }
        std::fs::write(root.join("a/first"), "several names").unwrap();
        std::fs::write(root.join("a/deep/alone"), "one name").unwrap();
        for n in 0..2 * AT_A_TIME {
            symlink(n.to_string(), root.join(format!("a-b/{n:05}"))).unwrap();
        }
        std::fs::hard_link(root.join("a/first"), root.join("z/second")).unwrap();
        // Another name of it lies outside of the tree.
        std::fs::hard_link(root.join("a/deep/alone"), temp.path().join("outside")).unwrap();
        std::os::unix::net::UnixListener::bind(root.join("z/socket")).unwrap();
        let dir = Fs::disk().open_root(root).unwrap();
        (temp, dir)
    }

    /// The parts, the record of each, and what was left out.
    type InParts = (Vec<Vec<Entry>>, Vec<ScanRecord>, Vec<LeftOut>);

    fn in_parts(
        dir: &Dir,
        earlier: &[ScanRecord],
        options: &ScanOptions<'_>,
    ) -> Result<InParts, Error> {
        let (mut parts, mut records) = (Vec::new(), Vec::new());
        let earlier = || -> Box<dyn Iterator<Item = _>> { Box::new(earlier.iter().cloned()) };
        let left_out = scan_in_parts(dir, &earlier, options, &mut |part| {
            parts.push(part.entries);
            records.push(part.record);
            Ok::<_, Error>(())
        })?;
        Ok((parts, records, left_out))
    }

    #[test]
    fn parts_are_together_what_a_scan_is() {
        let (_temp, dir) = tree();
        let options = ScanOptions::new(i64::MAX);
        let whole = scan(&dir, &ScanRecord::empty(), &options).unwrap();
        let (parts, records, left_out) = in_parts(&dir, &[], &options).unwrap();
        assert!(parts.len() == 3 && parts.iter().all(|part| part.len() <= AT_A_TIME));
        assert_eq!(Manifest::new(parts.concat()).unwrap(), whole.manifest);
        assert_eq!(left_out, whole.left_out);
        let known: Vec<_> = records.iter().flat_map(ScanRecord::each).collect();
        assert!(known.iter().eq(whole.record.each().collect::<Vec<_>>().iter()));

        // And again, by the records of the parts: nothing is opened.
        let before = dir.fs().counters().snapshot();
        let (again, ..) = in_parts(&dir, &records, &options).unwrap();
        let done = dir.fs().counters().snapshot().since(&before);
        assert_eq!(
            (done.count(Op::OpenFile), done.count(Op::ReadLink), done.mutations()),
            (0, 0, 0)
        );
        assert_eq!(again, parts);
    }

    #[test]
    fn what_cannot_be_read_is_told_whichever_walk_meets_it() {
        let (temp, dir) = tree();
        std::fs::write(temp.path().join("tree/z/.rules"), "zap\n").unwrap();
        let rules = Filter::parse(&[":e .rules"]).unwrap();
        let rules = filter::Walk::new(&rules, filter::Side::Sender);
        let options = ScanOptions { rule_files: Some(&rules), ..ScanOptions::new(i64::MAX) };
        let before = dir.fs().counters().snapshot();
        let found = in_parts(&dir, &[], &options);
        let Err(Error::Incomplete(incomplete)) = found else { panic!("{found:?}") };
        assert!(matches!(incomplete.problems[..], [Problem::RuleFile(_)]), "{incomplete:?}");
        let done = dir.fs().counters().snapshot().since(&before);
        assert_eq!(done.count(Op::ReadLink), 0, "read though it could not be all");

        let cancelled = std::sync::atomic::AtomicBool::new(true);
        let stopped = ScanOptions { cancel: &cancelled, keep: &keep_all, ..ScanOptions::new(0) };
        assert!(matches!(in_parts(&dir, &[], &stopped), Err(Error::Cancelled)));
    }
}
