//! Counts every operation on a disk, and can make one of them fail.
//!
//! Promises such as "nothing changed means nothing is touched" are only worth something when a
//! test can read how much was done, and "a kill at any moment does no harm" only when a test can
//! kill at *every* moment. Both need one place through which all operations pass; it is here.

use std::{
    collections::BTreeSet,
    fmt,
    fs::File,
    io::{self, Write},
    panic::Location,
    str::FromStr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// The environment variable that arms a [`FailPlan`] for the whole process: `SITE:N`,
/// `SITE:N:ERRNO` or `SITE:N:short`, where a site is `any`, a kind of operation, or a [`Site`].
pub const FAIL_ENV: &str = "MIRRORNET_FAIL_AT";

/// The environment variable that names a file to which every change and sync is added as a line
/// `SITE OPERATION`, so that a test knows at which sites to fail.
pub const SITES_ENV: &str = "FILETREE_FAIL_SITES";

/// A place in the code that asks for an operation, as `FILE@LINE` below a crate's `src`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site(&'static Location<'static>);

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.0.file();
        let file = file.rsplit_once("/src/").map_or(file, |(_, below)| below);
        write!(f, "{file}@{}", self.0.line())
    }
}

macro_rules! ops {
    ($($(#[$doc:meta])* $op:ident $name:literal $class:ident,)*) => {
        /// One kind of operation; its name is also the name of its fail point.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Op { $($(#[$doc])* $op,)* }

        impl Op {
            /// Every kind.
            pub const ALL: &[Op] = &[$(Op::$op,)*];

            /// The name, as in [`FAIL_ENV`] and in reports.
            pub const fn name(self) -> &'static str {
                match self { $(Op::$op => $name,)* }
            }

            const fn class(self) -> Class {
                match self { $(Op::$op => Class::$class,)* }
            }
        }
    };
}

#[derive(PartialEq, Eq)]
enum Class {
    Look,
    Change,
    Sync,
}

ops! {
    /// Opens a directory.
    OpenDir "open-dir" Look,
    /// Opens a file for reading.
    OpenFile "open-file" Look,
    /// Lists a directory.
    ReadDir "read-dir" Look,
    /// Reads the attributes of one name.
    Stat "stat" Look,
    /// Reads where a symlink points.
    ReadLink "read-link" Look,
    /// Reads an attribute beside the mode: a label, an access list.
    GetAttribute "get-attribute" Look,
    /// Reads bytes.
    Read "read" Look,
    /// Makes a new file.
    Create "create" Change,
    /// Writes bytes.
    Write "write" Change,
    /// Sets a file's length.
    SetLen "set-len" Change,
    /// Shares all blocks of another file (reflink).
    Clone "clone" Change,
    /// Makes another name for a file.
    Link "link" Change,
    /// Moves a name, replacing what is there.
    Rename "rename" Change,
    /// Moves a name to where nothing is.
    RenameNew "rename-new" Change,
    /// Swaps two names.
    Exchange "exchange" Change,
    /// Removes a name that is not a directory's.
    Unlink "unlink" Change,
    /// Removes an empty directory.
    RemoveDir "remove-dir" Change,
    /// Makes a directory.
    MakeDir "make-dir" Change,
    /// Makes a symlink.
    Symlink "symlink" Change,
    /// Sets permission bits.
    SetMode "set-mode" Change,
    /// Sets the owning group.
    SetGroup "set-group" Change,
    /// Sets the owner.
    SetOwner "set-owner" Change,
    /// Sets an attribute beside the mode: a label, an access list.
    SetAttribute "set-attribute" Change,
    /// Sets the modification time.
    SetMtime "set-mtime" Change,
    /// Makes one file durable.
    SyncFile "sync-file" Sync,
    /// Makes the names in one directory durable.
    SyncDir "sync-dir" Sync,
    /// Makes a whole file system durable.
    SyncFs "sync-fs" Sync,
}

impl Op {
    /// Whether the operation changes what is on the disk (syncing does not count as a change).
    pub fn is_mutation(self) -> bool {
        self.class() == Class::Change
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How often each kind of operation was asked for, since the layer was made.
#[derive(Debug)]
pub struct Counters([AtomicU64; Op::ALL.len()]);

impl Counters {
    /// How often `op` was asked for.
    pub fn count(&self, op: Op) -> u64 {
        self.0[op as usize].load(Ordering::Relaxed)
    }

    /// How many operations changed something, of any kind.
    pub fn mutations(&self) -> u64 {
        self.sum(Op::is_mutation)
    }

    /// All operations together, syncs and looks included.
    pub fn total(&self) -> u64 {
        self.sum(|_| true)
    }

    /// The counts as they are now, to compare with later.
    pub fn snapshot(&self) -> Counts {
        let mut counts = Counts::default();
        for op in Op::ALL {
            counts.0[*op as usize] = self.count(*op);
        }
        counts
    }

    fn sum(&self, which: impl Fn(Op) -> bool) -> u64 {
        Op::ALL.iter().filter(|op| which(**op)).map(|op| self.count(*op)).sum()
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// [`Counters`] at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts([u64; Op::ALL.len()]);

impl Counts {
    /// How often `op` was asked for.
    pub fn count(&self, op: Op) -> u64 {
        self.0[op as usize]
    }

    /// How many operations changed something.
    pub fn mutations(&self) -> u64 {
        Op::ALL.iter().filter(|op| op.is_mutation()).map(|op| self.count(*op)).sum()
    }

    /// What happened since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at].saturating_sub(earlier.0[at])))
    }
}

/// What happens when a fail point is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The process kills itself with SIGKILL: nothing is flushed, no destructor runs.
    Kill,
    /// This one operation fails with this error number.
    Errno(i32),
    /// This one write takes only half of the bytes, as before a disk is full; anything else goes
    /// on as ever.
    ShortWrite,
    /// This and every later operation fails, as for a process that no longer exists. For the
    /// in-memory file system, whose disk must outlive its process.
    Halt,
}

/// Which operations a [`FailPlan`] counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Counted {
    /// All, looks included.
    Everything,
    /// Mutations and syncs.
    Changes,
    /// One kind.
    Kind(Op),
    /// Mutations and syncs that one place asks for, by the text of its [`Site`].
    Site(String),
}

/// Makes the `nth` of the operations that it counts fail.
#[derive(Debug)]
pub struct FailPlan {
    counted: Counted,
    nth: u64,
    failure: Failure,
    seen: AtomicU64,
    /// The sites of all changes and syncs, where they are wanted.
    sites: Option<Mutex<BTreeSet<String>>>,
}

impl FailPlan {
    /// Fails at the `nth` (from 1) operation of kind `site`, counted over every [`super::Fs`] that
    /// shares the plan; `None` counts all mutations and syncs together.
    pub fn new(site: Option<Op>, nth: u64, failure: Failure) -> Self {
        Self::counting(site.map_or(Counted::Changes, Counted::Kind), nth, failure)
    }

    /// As [`Self::new`], for any choice of operations.
    pub fn counting(counted: Counted, nth: u64, failure: Failure) -> Self {
        Self { counted, nth, failure, seen: AtomicU64::new(0), sites: None }
    }

    /// Fails nothing, and remembers at which sites changes and syncs are asked for.
    pub fn noting_sites() -> Self {
        let sites = Some(Mutex::default());
        Self { sites, ..Self::counting(Counted::Changes, u64::MAX, Failure::Halt) }
    }

    /// The sites that were noted, in the order of their text.
    pub fn sites(&self) -> Vec<String> {
        let sites = self.sites.iter().map(|sites| sites.lock());
        sites.flat_map(|sites| sites.unwrap_or_else(PoisonError::into_inner).clone()).collect()
    }

    /// How many operations of its kind it has counted.
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// Whether the fail point was reached.
    pub fn fired(&self) -> bool {
        self.seen.load(Ordering::Relaxed) >= self.nth
    }

    fn check(&self, op: Op, site: Site) -> io::Result<Fate> {
        if let Some(sites) = self.sites.as_ref().filter(|_| op.class() != Class::Look) {
            sites.lock().unwrap_or_else(PoisonError::into_inner).insert(site.to_string());
        }
        let counts = match &self.counted {
            Counted::Everything => true,
            Counted::Changes => op.class() != Class::Look,
            Counted::Kind(kind) => *kind == op,
            Counted::Site(text) => op.class() != Class::Look && *text == site.to_string(),
        };
        if self.failure == Failure::Halt && self.fired() {
            return Err(io::Error::other("halted by a fail point"));
        }
        if !counts || self.seen.fetch_add(1, Ordering::Relaxed) + 1 != self.nth {
            return Ok(Fate::Done);
        }
        match self.failure {
            Failure::Kill => kill_self(),
            Failure::Errno(errno) => Err(io::Error::from_raw_os_error(errno)),
            Failure::ShortWrite => Ok(Fate::Short),
            Failure::Halt => Err(io::Error::other("halted by a fail point")),
        }
    }
}

/// What becomes of an operation that is let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    /// A write takes half of its bytes.
    Short,
}

impl FromStr for FailPlan {
    type Err = String;

    /// Reads what [`FAIL_ENV`] says; `any` is every mutation and sync, and without an error number
    /// the process is killed.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{FAIL_ENV}={text:?}: expected SITE:N, SITE:N:ERRNO or SITE:N:short");
        let mut parts = text.split(':');
        let counted = match parts.next().ok_or_else(wrong)? {
            "any" => Counted::Changes,
            site if site.contains('@') => Counted::Site(site.to_owned()),
            name => Counted::Kind(*Op::ALL.iter().find(|op| op.name() == name).ok_or_else(wrong)?),
        };
        let nth = parts.next().and_then(|n| n.parse().ok()).ok_or_else(wrong)?;
        let failure = match parts.next() {
            None => Failure::Kill,
            Some("short") => Failure::ShortWrite,
            Some(errno) => Failure::Errno(errno.parse().map_err(|_| wrong())?),
        };
        Ok(Self::counting(counted, nth, failure))
    }
}

/// The one door that every operation passes.
#[derive(Debug, Default)]
pub(super) struct Gate {
    pub(super) counters: Counters,
    fail: Option<Arc<FailPlan>>,
    sites: Option<Arc<File>>,
}

impl Gate {
    /// Armed by the environment, or not at all.
    pub(super) fn from_environment() -> Self {
        static PLAN: OnceLock<Option<Arc<FailPlan>>> = OnceLock::new();
        let plan = PLAN.get_or_init(|| {
            let text = std::env::var(FAIL_ENV).ok()?;
            match text.parse() {
                Ok(plan) => Some(Arc::new(plan)),
                Err(why) => {
                    tracing::error!("{why}; no failure is injected");
                    None
                }
            }
        });
        static SITES: OnceLock<Option<Arc<File>>> = OnceLock::new();
        let sites = SITES.get_or_init(|| {
            let path = std::env::var_os(SITES_ENV)?;
            Some(Arc::new(File::options().create(true).append(true).open(path).ok()?))
        });
        Self { counters: Counters::default(), fail: plan.clone(), sites: sites.clone() }
    }

    pub(super) fn armed(plan: Arc<FailPlan>) -> Self {
        Self { fail: Some(plan), ..Self::default() }
    }

    #[track_caller]
    pub(super) fn pass(&self, op: Op) -> io::Result<Fate> {
        self.counters.0[op as usize].fetch_add(1, Ordering::Relaxed);
        let site = Site(Location::caller());
        if let Some(mut sites) = self.sites.as_deref()
            && op.class() != Class::Look
        {
            // Whoever asked for the list misses a line of it; nobody else minds.
            let _ = sites.write_all(format!("{site} {op}\n").as_bytes());
        }
        match &self.fail {
            None => Ok(Fate::Done),
            Some(plan) => plan.check(op, site),
        }
    }
}

fn kill_self() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(plan: &FailPlan, op: Op) -> io::Result<Fate> {
        plan.check(op, Site(Location::caller()))
    }

    #[test]
    fn a_plan_counts_only_its_own_kind_and_fires_once() {
        let plan: FailPlan = "rename:2:28".parse().unwrap();
        assert!(check(&plan, Op::Rename).is_ok());
        assert!(check(&plan, Op::Unlink).is_ok());
        assert_eq!(check(&plan, Op::Rename).unwrap_err().raw_os_error(), Some(28));
        assert!(check(&plan, Op::Rename).is_ok());
    }

    #[test]
    fn any_counts_changes_and_syncs_but_no_looks() {
        let plan: FailPlan = "any:2:5".parse().unwrap();
        assert!(check(&plan, Op::Stat).is_ok());
        assert!(check(&plan, Op::Link).is_ok());
        assert!(check(&plan, Op::ReadDir).is_ok());
        assert!(check(&plan, Op::SyncFs).is_err());
    }

    #[test]
    fn a_place_in_the_code_is_a_site() {
        let here = Site(Location::caller()).to_string();
        assert!(here.starts_with("fs/gate.rs@"), "{here}");
        let plan: FailPlan = format!("{here}:1:5").parse().unwrap();
        assert!(plan.check(Op::Link, Site(Location::caller())).is_ok());
        let dir = crate::fs::Fs::disk_failing(Arc::new("any:1".parse().unwrap()));
        assert_eq!(dir.counters().total(), 0);
    }

    #[test]
    fn unknown_sites_and_missing_numbers_are_refused() {
        for text in ["", "rename", "rename:x", "nothing:1", "rename:1:x"] {
            assert!(text.parse::<FailPlan>().is_err(), "{text}");
        }
    }
}
