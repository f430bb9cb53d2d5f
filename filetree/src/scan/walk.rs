//! Lists a tree and looks at every entry, with several threads, and returns it in path order.
//!
//! Threads share a stack of directories. A stack, not a queue: depth first keeps the number of
//! open directories near depth × threads, however wide the tree is. Where a tree is too large to be
//! held, one thread goes through it in that order ([`InOrder`]).

use std::{
    io::{self, Read},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use protocol::{
    filter::{self, MAX_RULE_FILE},
    path::TreePath,
};

use super::{Error, Found, LeftOut, Problem, Progress, ScanOptions, stopped};
use crate::{
    fs::{Dir, DirEntry, Kind},
    safe_path,
};

#[derive(Default)]
pub(super) struct Walked {
    listings: Vec<Listing>,
    pub(super) left_out: Vec<LeftOut>,
    pub(super) problems: Vec<Problem>,
    pub(super) vanished: u64,
}

/// A directory that is still to be listed: opened from its parent by name.
struct Job {
    parent: Arc<Dir>,
    /// `None` is the root.
    path: Option<TreePath>,
    listing: usize,
    /// What the rule files of the directories above say.
    rules: Option<Arc<filter::Walk>>,
}

/// What one directory holds: its entries in order, and where those that are directories were
/// listed.
#[derive(Default)]
struct Listing(Vec<(Found, Option<usize>)>);

#[derive(Default)]
struct Shared {
    jobs: Vec<Job>,
    busy: usize,
    listings: Vec<Listing>,
    left_out: Vec<LeftOut>,
    problems: Vec<Problem>,
    vanished: u64,
}

struct Walk<'a> {
    options: &'a ScanOptions<'a>,
    shared: Mutex<Shared>,
    more: Condvar,
    entries: AtomicU64,
}

pub(super) fn walk(root: &Dir, options: &ScanOptions<'_>) -> Result<Walked, Error> {
    let opened = root.reopen().map_err(Error::Root)?;
    let rules = options.rule_files.cloned().map(Arc::new);
    let first = Job { parent: Arc::new(opened), path: None, listing: 0, rules };
    let shared =
        Shared { jobs: vec![first], listings: vec![Listing::default()], ..Shared::default() };
    let walk = Walk {
        options,
        shared: Mutex::new(shared),
        more: Condvar::new(),
        entries: AtomicU64::new(0),
    };
    std::thread::scope(|scope| {
        for _ in 1..options.threads.clamp(1, 16) {
            scope.spawn(|| walk.work());
        }
        walk.work();
    });
    if stopped(options.cancel) {
        return Err(Error::Cancelled);
    }
    let shared = walk.shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut walked = Walked {
        left_out: shared.left_out,
        problems: shared.problems,
        vanished: shared.vanished,
        listings: shared.listings,
    };
    walked.left_out.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(walked)
}

impl Walked {
    /// How many entries were found.
    pub(super) fn len(&self) -> usize {
        self.listings.iter().map(|listing| listing.0.len()).sum()
    }

    /// Everything that was found, in path order: every directory's listing comes behind the directory
    /// itself. Not recursive: depth is the tree's choice, the stack ours.
    pub(super) fn each(&self) -> impl Iterator<Item = &Found> {
        let mut open: Vec<_> = self.listings.first().map(|top| top.0.iter()).into_iter().collect();
        std::iter::from_fn(move || {
            while let Some(listing) = open.last_mut() {
                let Some((found, below)) = listing.next() else {
                    open.pop();
                    continue;
                };
                open.extend(below.map(|below| self.listings[below].0.iter()));
                return Some(found);
            }
            None
        })
    }

    /// The same, to be kept: each listing goes once it is passed, so that a large tree is not held
    /// twice.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Found> {
        let mut listings = std::mem::take(&mut self.listings);
        let top = listings.first_mut().map(|top| std::mem::take(top).0.into_iter());
        let mut open: Vec<_> = top.into_iter().collect();
        std::iter::from_fn(move || {
            while let Some(listing) = open.last_mut() {
                let Some((found, below)) = listing.next() else {
                    open.pop();
                    continue;
                };
                open.extend(below.map(|at| std::mem::take(&mut listings[at]).0.into_iter()));
                return Some(found);
            }
            None
        })
    }
}

impl Walk<'_> {
    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut shared = self.lock();
        loop {
            if stopped(self.options.cancel) {
                shared.jobs.clear();
            }
            if let Some(job) = shared.jobs.pop() {
                shared.busy += 1;
                drop(shared);
                let listed = self.list(&job);
                shared = self.lock();
                shared.busy -= 1;
                self.file(job, listed, &mut shared);
                self.more.notify_all();
            } else if shared.busy == 0 {
                self.more.notify_all();
                return;
            } else {
                shared = self.more.wait(shared).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Files what one directory gave, and queues the directories in it.
    fn file(&self, job: Job, listed: Listed, shared: &mut Shared) {
        shared.problems.extend(listed.problems);
        shared.left_out.extend(listed.left_out);
        shared.vanished += listed.vanished;
        let Some(dir) = listed.dir else { return };
        let dir = Arc::new(dir);
        let mut listing = Vec::with_capacity(listed.found.len());
        // Pushed in reverse so that the stack gives the first directory first.
        for found in listed.found.into_iter().rev() {
            let mut below = None;
            if found.meta.kind == Kind::Dir {
                let at = shared.listings.len();
                shared.listings.push(Listing::default());
                shared.jobs.push(Job {
                    parent: dir.clone(),
                    path: Some(found.path.clone()),
                    listing: at,
                    rules: listed.rules.clone(),
                });
                below = Some(at);
            }
            listing.push((found, below));
        }
        listing.reverse();
        shared.listings[job.listing] = Listing(listing);
    }

    fn list(&self, job: &Job) -> Listed {
        let mut listed = Listed::default();
        let Some((dir, entries)) = listed.open(job) else { return listed };
        listed.found.reserve(entries.len());
        for entry in &entries {
            listed.look(self.options, &dir, job.path.as_ref(), entry);
        }
        listed.dir = Some(dir);
        let entries = entries.len() as u64;
        let entries = self.entries.fetch_add(entries, Ordering::Relaxed) + entries;
        (self.options.progress)(Progress { entries, ..Progress::default() });
        listed
    }
}

/// What one directory gave.
#[derive(Default)]
struct Listed {
    dir: Option<Dir>,
    /// What the rule files say in this directory.
    rules: Option<Arc<filter::Walk>>,
    found: Vec<Found>,
    left_out: Vec<LeftOut>,
    problems: Vec<Problem>,
    vanished: u64,
}

impl Listed {
    /// Opens and lists a directory, with what its rule files say.
    fn open(&mut self, job: &Job) -> Option<(Dir, Vec<DirEntry>)> {
        let opened = match &job.path {
            None => job.parent.reopen(),
            Some(path) => job.parent.open_child(path.name()),
        };
        let (dir, entries) = match opened.and_then(|dir| Ok((dir.entries()?, dir))) {
            Ok((entries, dir)) => (dir, entries),
            Err(error) if error.is_not_found() && job.path.is_some() => {
                self.vanished += 1;
                return None;
            }
            Err(error) => {
                self.problems.push(error.into());
                return None;
            }
        };
        if let Some(above) = &job.rules {
            let read = |name: &[u8]| read_rule_file(&dir, &entries, name);
            match above.below(job.path.as_ref(), read) {
                Ok(rules) => self.rules = Some(Arc::new(rules)),
                Err(error) => {
                    self.problems.push(error.into());
                    return None;
                }
            }
        }
        Some((dir, entries))
    }

    /// Looks at one name of the directory.
    fn look(
        &mut self,
        options: &ScanOptions<'_>,
        dir: &Dir,
        above: Option<&TreePath>,
        entry: &DirEntry,
    ) {
        let path = match above {
            None => TreePath::parse(&entry.name),
            Some(above) => above.child(&entry.name),
        };
        let path = match path {
            Ok(path) => path,
            Err(source) => {
                self.problems.push(Problem::Name { dir: above.cloned(), source });
                return;
            }
        };
        if safe_path::is_reserved(&path) {
            self.left_out.push(LeftOut { path, why: "reserved for the mirror's own work" });
            return;
        }
        let keep = |is_dir| match &self.rules {
            Some(rules) => rules.decide(&path, is_dir).kept,
            None => (options.keep)(&path, is_dir),
        };
        // What the listing says is enough to leave a name out without a further look.
        if entry.is_dir.is_some_and(|is_dir| !keep(is_dir)) {
            return;
        }
        let meta = match dir.stat(&entry.name) {
            Ok(Some(meta)) => meta,
            Ok(None) => {
                self.vanished += 1;
                return;
            }
            Err(error) => {
                self.problems.push(error.into());
                return;
            }
        };
        let is_dir = meta.kind == Kind::Dir;
        if entry.is_dir != Some(is_dir) && !keep(is_dir) {
            return;
        }
        if meta.kind == Kind::Special {
            self.left_out.push(LeftOut { path, why: "a fifo, socket or device" });
            return;
        }
        self.found.push(Found { path, meta });
    }
}

/// Goes through a tree in path order and holds no more of it than the names in the directories above
/// the one that it is in, each of which is open.
pub(super) struct InOrder<'a> {
    options: &'a ScanOptions<'a>,
    open: Vec<Opened>,
    listed: Listed,
    entries: u64,
}

/// A directory, and what is still to be looked at in it.
struct Opened {
    dir: Arc<Dir>,
    path: Option<TreePath>,
    rules: Option<Arc<filter::Walk>>,
    rest: std::vec::IntoIter<DirEntry>,
}

/// What such a walk met beside entries.
pub(super) struct Beside {
    pub(super) left_out: Vec<LeftOut>,
    pub(super) problems: Vec<Problem>,
}

impl<'a> InOrder<'a> {
    pub(super) fn begin(root: &Dir, options: &'a ScanOptions<'a>) -> Result<Self, Error> {
        let parent = Arc::new(root.reopen().map_err(Error::Root)?);
        let rules = options.rule_files.cloned().map(Arc::new);
        let mut walk = Self { options, open: Vec::new(), listed: Listed::default(), entries: 0 };
        walk.enter(Job { parent, path: None, listing: 0, rules });
        Ok(walk)
    }

    fn enter(&mut self, job: Job) {
        self.listed.rules = None;
        let Some((dir, entries)) = self.listed.open(&job) else { return };
        self.entries += entries.len() as u64;
        (self.options.progress)(Progress { entries: self.entries, ..Progress::default() });
        let (dir, rules) = (Arc::new(dir), self.listed.rules.take());
        self.open.push(Opened { dir, path: job.path, rules, rest: entries.into_iter() });
    }

    pub(super) fn finish(self) -> Beside {
        Beside { left_out: self.listed.left_out, problems: self.listed.problems }
    }
}

impl Iterator for InOrder<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        while !stopped(self.options.cancel) {
            let opened = self.open.last_mut()?;
            let Some(entry) = opened.rest.next() else {
                self.open.pop();
                continue;
            };
            self.listed.rules.clone_from(&opened.rules);
            self.listed.look(self.options, &opened.dir, opened.path.as_ref(), &entry);
            let Some(found) = self.listed.found.pop() else { continue };
            if found.meta.kind == Kind::Dir {
                let (parent, rules) = (Arc::clone(&opened.dir), opened.rules.clone());
                self.enter(Job { parent, path: Some(found.path.clone()), listing: 0, rules });
            }
            return Some(found);
        }
        None
    }
}

/// The rule file `name` of a directory, if it has one. A link is an error: it could lead out of the
/// tree, and a rule file that is passed over leaves out nothing.
fn read_rule_file(dir: &Dir, entries: &[DirEntry], name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let entry = entries.iter().find(|entry| *entry.name == *name);
    if entry.is_none_or(|entry| entry.is_dir == Some(true)) {
        return Ok(None);
    }
    let file = dir.open_file(name).map_err(|error| error.source)?;
    let mut bytes = Vec::new();
    file.reader().take(MAX_RULE_FILE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}
