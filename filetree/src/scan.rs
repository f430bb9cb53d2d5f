//! Reads a tree into a manifest, opening only what changed since the last time.
//!
//! *The problem.* A tree of a million files is looked at every few minutes, and almost always
//! almost nothing changed. Reading it all is out of the question, and so is trusting the
//! modification time alone: `rsync -t`, `tar` and `touch -d` set it to anything.
//!
//! *The answer.* The walk, in path order, is merged with the [`ScanRecord`] of the previous scan:
//! a file whose size, mtime, ctime, inode and device are unchanged keeps its digest and is not
//! opened; the rest is read. Nobody but the kernel sets a ctime. Three further rules make the
//! result trustworthy:
//!
//! - a file whose attributes differ before and after it was read is read again, a few times, and
//!   then is a [`Problem`];
//! - a file that changed less than a second before the scan began is read again by the next scan,
//!   because a second change within one tick of the clock would leave no trace;
//! - a scan with problems is an error, not a smaller tree: what cannot be read is not gone.

mod parts;
mod read;
mod record;
mod walk;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

use protocol::{
    digest::Digest,
    filter,
    manifest::{self, Entry, EntryKind, LinkGroup, Manifest},
    path::TreePath,
    symlinks::Symlinks,
};

pub(crate) use self::parts::count;
use self::record::Content;
pub use self::{
    parts::{Part, Records, scan_in_parts},
    record::{RecordDamaged, ScanRecord},
};
use crate::fs::{self, Dir, FileId, Kind, Meta};

/// Decides which paths belong to the tree: the path, and whether it is a directory. A directory
/// that is not kept is not entered.
pub type Keep<'a> = &'a (dyn Fn(&TreePath, bool) -> bool + Sync);

/// Keeps everything.
pub fn keep_all(_path: &TreePath, _is_dir: bool) -> bool {
    true
}

/// How to scan.
#[derive(Clone, Copy)]
pub struct ScanOptions<'a> {
    /// The tree's limit.
    pub keep: Keep<'a>,
    /// The tree's limit when it asks for rule files in the tree, as a walk that has not entered
    /// anything: it then decides in place of `keep`.
    pub rule_files: Option<&'a filter::Walk>,
    /// What somebody else on this host has read and digested: a file of the same path, size and
    /// mtime is taken for it without being opened.
    pub vouched: Option<&'a Manifest>,
    /// The tree's symbolic links; others are left out.
    pub symlinks: Symlinks,
    /// Now, in nanoseconds since 1970.
    pub now: i64,
    /// Threads that look and read.
    pub threads: usize,
    /// Called now and then with how far the scan is.
    pub progress: &'a (dyn Fn(Progress) + Sync),
    /// Set by someone else to end the scan early.
    pub cancel: &'a AtomicBool,
}

impl ScanOptions<'static> {
    /// Everything, two threads, silently.
    pub fn new(now: i64) -> Self {
        static NEVER: AtomicBool = AtomicBool::new(false);
        Self {
            keep: &keep_all,
            rule_files: None,
            vouched: None,
            symlinks: Symlinks::All,
            now,
            threads: 2,
            progress: &|_| {},
            cancel: &NEVER,
        }
    }
}

impl fmt::Debug for ScanOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScanOptions").field("now", &self.now).finish_non_exhaustive()
    }
}

/// How far a scan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Entries looked at.
    pub entries: u64,
    /// Bytes read and digested.
    pub bytes: u64,
    /// Bytes that have to be read; 0 until the walk is over.
    pub total_bytes: u64,
}

/// A complete scan.
#[derive(Debug)]
pub struct Scan {
    /// The tree as it is.
    pub manifest: Manifest,
    /// What the next scan needs in order to open only what changed.
    pub record: ScanRecord,
    /// The root directory: a changed device means that something else is mounted there.
    pub root: FileId,
    /// What is not carried: fifos, sockets, devices, links that the tree may not have, and our own
    /// work directory.
    pub left_out: Vec<LeftOut>,
    /// What it took.
    pub stats: ScanStats,
}

/// What a scan did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScanStats {
    /// Files that kept the digest they had.
    pub unchanged_files: u64,
    /// Files that were read.
    pub read_files: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Names that disappeared between the listing and the look: the tree was being changed.
    pub vanished_names: u64,
}

/// An entry that no manifest carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Where it is.
    pub path: TreePath,
    /// Why.
    pub why: &'static str,
}

/// An entry that could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The system refused.
    #[error(transparent)]
    Io(#[from] fs::Error),
    /// What a directory's rule files leave out is not known.
    #[error(transparent)]
    RuleFile(#[from] filter::WalkError),
    /// Kept changing while it was read.
    #[error("{path} changed each time it was read; is something writing to it?")]
    Unsettled {
        /// The file.
        path: TreePath,
    },
    /// The name cannot be carried.
    #[error("below {dir}: {source}", dir = .dir.as_ref().map_or("the root".into(), TreePath::to_string))]
    Name {
        /// The directory that holds it; `None` is the root.
        dir: Option<TreePath>,
        /// Why.
        source: protocol::path::InvalidPath,
    },
}

/// Why there is no scan.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Some entries could not be taken, so this is not the tree.
    #[error("{} entries could not be read, the first: {}", .0.problems.len(), .0.first())]
    Incomplete(Box<Incomplete>),
    /// Someone asked for the end.
    #[error("the scan was stopped")]
    Cancelled,
    /// The root itself.
    #[error("the root of the tree cannot be read")]
    Root(#[source] fs::Error),
    /// The entries do not make a manifest.
    #[error("the tree does not fit into a manifest")]
    Manifest(#[from] manifest::Error),
}

/// What an incomplete scan leaves behind.
#[derive(Debug)]
pub struct Incomplete {
    /// Everything that went wrong.
    pub problems: Vec<Problem>,
    /// What was read all the same, so that the next try does not read it again.
    pub record: ScanRecord,
}

impl Incomplete {
    /// The first problem, with what the system said: there is no chain below a list.
    fn first(&self) -> String {
        let Some(problem) = self.problems.first() else { return String::new() };
        let mut said = problem.to_string();
        let mut source = std::error::Error::source(problem);
        while let Some(error) = source {
            said = format!("{said}: {error}");
            source = error.source();
        }
        said
    }
}

/// Scans the tree below `root`, beside the record of the previous scan (or an empty one).
///
/// # Errors
/// [`Error::Incomplete`] if anything at all could not be read.
pub fn scan(root: &Dir, previous: &ScanRecord, options: &ScanOptions<'_>) -> Result<Scan, Error> {
    let (scan, problems) = scan_what_can_be_read(root, previous, options)?;
    if problems.is_empty() {
        Ok(scan)
    } else {
        Err(Error::Incomplete(Box::new(Incomplete { problems, record: scan.record })))
    }
}

/// As [`scan`], but gives back what could be read beside what could not: for looking at a tree of
/// our own, never for making a generation.
pub(crate) fn scan_what_can_be_read(
    root: &Dir,
    previous: &ScanRecord,
    options: &ScanOptions<'_>,
) -> Result<(Scan, Vec<Problem>), Error> {
    let root_id = root.meta().map_err(Error::Root)?.id;
    let mut walked = walk::walk(root, options)?;
    let mut earlier = Earlier::new(previous.each(), options);
    let mut expected = Expecting::default();
    walked.each().for_each(|found| expected.look(found, &mut earlier));
    let expected = expected.finish();
    let (mut problems, count) = (std::mem::take(&mut walked.problems), walked.len());
    let earlier = Earlier::new(previous.each(), options);
    let mut merge = Merge {
        entries: Vec::with_capacity(count),
        record: ScanRecord::as_long_as(previous),
        ..Merge::new(earlier, options, &expected)
    };
    let progress = read::Begun::new(count as u64, expected.bytes);
    let mut found = walked.take();
    loop {
        let part: Vec<Pending> =
            found.by_ref().take(READ_AT_A_TIME).map(|found| merge.pending(found)).collect();
        if part.is_empty() {
            break;
        }
        let outcomes = read::contents(root, unread(&part), &progress, options)?;
        merge.take(part, outcomes, &mut problems);
    }
    drop(found);
    let mut scan = merge.finish(root_id)?;
    scan.left_out.extend(walked.left_out);
    scan.left_out.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    scan.stats.vanished_names += walked.vanished;
    Ok((scan, problems))
}

/// One name that the walk found, with its attributes.
struct Found {
    path: TreePath,
    meta: Meta,
}

/// Entries that are read and turned into what they are together: some, so that a large tree is not
/// held twice, and not few, so that a large file at the end keeps nobody waiting often.
const READ_AT_A_TIME: usize = 65_536;

/// What is known before the first file is read.
struct Expected {
    /// Files of which several names were found.
    several: HashSet<FileId>,
    /// Bytes that have to be read.
    bytes: u64,
}

/// What leads there, as names pass in path order.
#[derive(Default)]
struct Expecting {
    bytes: u64,
    /// Files that have several names somewhere, and what has to be read of each if it is for this
    /// one. Where a private tree has a second name of each file, that is all of them.
    linked: Vec<(FileId, u64)>,
}

impl Expecting {
    fn look(&mut self, found: &Found, earlier: &mut Earlier<'_>) {
        if found.meta.kind != Kind::File {
            return;
        }
        let bytes = if earlier.content(found).is_some() { 0 } else { found.meta.size };
        if has_twins(&found.meta) {
            self.linked.push((found.meta.id, bytes));
        } else {
            self.bytes += bytes;
        }
    }

    fn finish(mut self) -> Expected {
        // Stable: of several names the first one is read.
        self.linked.sort_by_key(|(id, _)| (id.dev, id.ino));
        let (mut several, mut bytes) = (HashSet::new(), self.bytes);
        for names in self.linked.chunk_by(|one, two| one.0 == two.0) {
            bytes += names[0].1;
            if names.len() > 1 {
                several.insert(names[0].0);
            }
        }
        Expected { several, bytes }
    }
}

/// Whether other names of the file may be in the tree.
fn has_twins(meta: &Meta) -> bool {
    meta.kind == Kind::File && meta.links > 1
}

/// What is known of a tree's content without reading it, asked for in path order.
struct Earlier<'a> {
    previous: std::iter::Peekable<Box<dyn Iterator<Item = record::Known> + 'a>>,
    vouched: Option<&'a Manifest>,
}

impl<'a> Earlier<'a> {
    fn new(previous: impl Iterator<Item = record::Known> + 'a, options: &ScanOptions<'a>) -> Self {
        let previous: Box<dyn Iterator<Item = _>> = Box::new(previous);
        Self { previous: previous.peekable(), vouched: options.vouched }
    }

    fn content(&mut self, found: &Found) -> Option<Content> {
        while self.previous.next_if(|known| known.path < found.path).is_some() {}
        let known = self.previous.next_if(|known| known.path == found.path);
        let content = known.filter(|known| known.still_is(&found.meta)).map(|k| k.content);
        content.or_else(|| self.vouched_for(found))
    }

    /// What somebody else has digested, where size and time are the same.
    fn vouched_for(&self, found: &Found) -> Option<Content> {
        let entry = self.vouched?.get(&found.path)?;
        let EntryKind::File { size, digest, .. } = entry.kind else { return None };
        let same = (Kind::File, size, entry.mtime);
        ((found.meta.kind, found.meta.size, found.meta.mtime) == same)
            .then_some(Content::File(digest))
    }
}

/// Puts found entries, in path order, beside what is known of them.
struct Merge<'a> {
    earlier: Earlier<'a>,
    now: i64,
    symlinks: Symlinks,
    several: &'a HashSet<FileId>,
    /// The first names of files that have several.
    firsts: HashMap<FileId, First>,
    entries: Vec<Entry>,
    record: ScanRecord,
    left_out: Vec<LeftOut>,
    stats: ScanStats,
}

/// The first name, in path order, of a file that has several.
struct First {
    group: LinkGroup,
    content: Option<Content>,
}

struct Pending {
    found: Found,
    content: Option<Content>,
    /// Of a file with several names here: which one it was when it was found, and whether another
    /// name of it came before.
    names: Option<(FileId, bool)>,
}

impl Pending {
    fn is_twin(&self) -> bool {
        self.names.is_some_and(|(_, is_twin)| is_twin)
    }
}

/// What has to be read of these entries.
fn unread(part: &[Pending]) -> Vec<(usize, &Found)> {
    part.iter()
        .enumerate()
        .filter(|(_, entry)| {
            entry.content.is_none() && !entry.is_twin() && entry.found.meta.kind != Kind::Dir
        })
        .map(|(at, entry)| (at, &entry.found))
        .collect()
}

impl<'a> Merge<'a> {
    fn new(earlier: Earlier<'a>, options: &ScanOptions<'_>, expected: &'a Expected) -> Self {
        Self {
            earlier,
            now: options.now,
            symlinks: options.symlinks,
            several: &expected.several,
            firsts: HashMap::new(),
            entries: Vec::new(),
            record: ScanRecord::empty(),
            left_out: Vec::new(),
            stats: ScanStats::default(),
        }
    }

    /// The next entry, with what is known of it.
    fn pending(&mut self, found: Found) -> Pending {
        let content = self.earlier.content(&found);
        let id = found.meta.id;
        let mut names = None;
        if has_twins(&found.meta) && self.several.contains(&id) {
            names = Some((id, self.firsts.contains_key(&id)));
            let first = || First { group: LinkGroup::of_first(&found.path), content: None };
            self.firsts.entry(id).or_insert_with(first);
        }
        Pending { found, content, names }
    }

    /// Takes what was found and read of these entries.
    fn take(
        &mut self,
        mut part: Vec<Pending>,
        outcomes: Vec<(usize, read::Outcome)>,
        problems: &mut Vec<Problem>,
    ) {
        for (at, outcome) in outcomes {
            match outcome {
                read::Outcome::Content { content, meta } => {
                    if matches!(content, Content::File(_)) {
                        self.stats.read_files += 1;
                        self.stats.read_bytes += meta.size;
                    }
                    part[at].found.meta = meta;
                    part[at].content = Some(content);
                }
                read::Outcome::Vanished => self.stats.vanished_names += 1,
                read::Outcome::Problem(problem) => problems.push(problem),
            }
        }
        part.into_iter().for_each(|entry| self.entry(entry));
    }

    fn entry(&mut self, entry: Pending) {
        let Pending { found: Found { path, meta }, mut content, names } = entry;
        let first = names.and_then(|(id, is_twin)| Some((self.firsts.get_mut(&id)?, is_twin)));
        let group = first.as_ref().map(|(first, _)| first.group);
        match first {
            Some((first, true)) => content = first.content.clone(),
            Some((first, false)) => first.content = content.clone(),
            None => {}
        }
        let kind = match (meta.kind, &content) {
            (Kind::Dir, _) => EntryKind::Dir,
            (_, Some(Content::File(digest))) => {
                EntryKind::File { size: meta.size, digest: *digest, link_group: group }
            }
            (_, Some(Content::Symlink(target))) => EntryKind::Symlink { target: target.clone() },
            // Vanished, or a problem that was reported.
            (_, None) => return,
        };
        if let Some(content) = &content {
            self.record.note(&path, &meta, content, self.now);
        }
        let mode = if meta.kind == Kind::Symlink { 0 } else { meta.mode & Entry::MODE_BITS };
        let is_carried = match &kind {
            EntryKind::Symlink { target } => self.symlinks.allows(&path, target),
            EntryKind::File { .. } | EntryKind::Dir => true,
        };
        if is_carried {
            self.entries.push(Entry { path, mode, mtime: meta.mtime, kind });
        } else {
            self.left_out.push(LeftOut { path, why: self.symlinks.why() });
        }
    }

    /// What was taken since this was asked the last time.
    fn give(&mut self) -> (Vec<Entry>, ScanRecord) {
        (std::mem::take(&mut self.entries), std::mem::take(&mut self.record))
    }

    fn finish(mut self, root: FileId) -> Result<Scan, Error> {
        let files = self.entries.iter().filter(|entry| entry.is_file()).count() as u64;
        self.stats.unchanged_files = files.saturating_sub(self.stats.read_files);
        let Self { record, left_out, stats, .. } = self;
        let manifest = Manifest::new(self.entries)?;
        Ok(Scan { manifest, record, root, left_out, stats })
    }
}

/// Bytes that are digested at once.
const DIGESTED_AT_ONCE: u64 = 128 * 1024;

fn stopped(cancel: &AtomicBool) -> bool {
    cancel.load(Ordering::Relaxed)
}

/// Digests an open file; calls `tick` with the bytes of each piece. Reads no further than one byte
/// beyond `size`: a log that grows as fast as it is read has no end, and is not what `size` says.
pub(crate) fn digest_file(
    file: &fs::File,
    size: u64,
    tick: &mut dyn FnMut(u64),
) -> fs::Result<Digest> {
    let mut digest = protocol::digest::DigestWriter::new();
    // Most files are small, and there may be a million.
    let mut buffer = vec![0; size.saturating_add(1).min(DIGESTED_AT_ONCE) as usize];
    let mut offset = 0;
    loop {
        let most = buffer
            .len()
            .min(usize::try_from(size.saturating_add(1) - offset).unwrap_or(usize::MAX));
        let read = file.read_at(offset, &mut buffer[..most])?;
        if read == 0 {
            return Ok(digest.finish());
        }
        digest.update(&buffer[..read]);
        offset += read as u64;
        tick(read as u64);
    }
}

/// Makes an empty file hold what `from` holds; gives its length and digest. What is copied is digested
/// on its way, what is shared is read.
pub(crate) fn fill_digested(file: &fs::File, from: &fs::File) -> fs::Result<(u64, Digest)> {
    let (mut digest, mut length) = (protocol::digest::DigestWriter::new(), 0);
    let is_shared = file.fill_from(from, &mut |bytes| {
        digest.update(bytes);
        length += bytes.len() as u64;
    })?;
    if is_shared {
        length = file.meta()?.size;
        return Ok((length, digest_file(file, length, &mut |_| {})?));
    }
    Ok((length, digest.finish()))
}

#[cfg(test)]
mod tests;
