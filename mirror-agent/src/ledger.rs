//! What the agent knows when nobody answers: a directory of small files.
//!
//! A mirror must keep going without its coordinator, and must never be talked into going back. So
//! the last orders, the highest numbers ever believed, what each assignment holds and every report
//! that was not accepted yet are on the disk *before* anything depends on them: each file is
//! written beside its place, synced, renamed, and its directory synced.
//!
//! ```text
//! DATA/ledger/orders.json            the last orders that were believed
//! DATA/ledger/marks.json             highest revision, restore epoch, and version of each tree
//! DATA/ledger/assignments/NAME.json  what it holds, its runs, when it is due
//! DATA/ledger/scrub-paused.json      whether an admin paused the reading of published files
//! DATA/ledger/account.json           what came over the site's line in this month
//! DATA/ledger/keys/TREE.json         keys of private trees; for this agent's user alone
//! DATA/ledger/unsent/ID.json         reports that the coordinator has not taken yet
//! ```
//!
//! *Why not a database?* There are a dozen records, they are looked at with `cat`, and a rename is
//! all the transaction they need.

mod marks;
mod store;

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use protocol::{
    digest::Digest,
    dsse::Envelope,
    generation::Version,
    name::TreeName,
    path::TreePath,
    spec::{AssignmentName, OnEnd},
    v1::{
        agent::{AgentOrders, Checked, RunReport, VersionsOrder},
        keys::TreeKey,
    },
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::store::Folder;
pub use self::{
    marks::{GoesBack, Mark, Marks},
    store::Error,
};
use crate::{hooks::Hook, line::Account, orders::Found};

/// Runs of an assignment that are remembered here; the coordinator has all of them.
pub const KEPT_RUNS: usize = 50;
/// Unsent reports that are kept; the oldest go first.
const KEPT_UNSENT: usize = 5_000;

/// What is known of one assignment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Record {
    /// `TREE@SITE`.
    pub name: AssignmentName,
    /// Where it is published, below the publish directory.
    pub path: TreePath,
    /// Where its tree is being renamed to; after a crash it lies at `path`, there, or aside.
    #[serde(default)]
    pub moving: Option<TreePath>,
    /// What it durably holds.
    #[serde(default)]
    pub held: Option<Held>,
    /// Set when it ended: its files stay, nobody touches them.
    #[serde(default)]
    pub unassigned: bool,
    /// Requests for a run that were answered.
    #[serde(default)]
    pub sync_requests: u64,
    /// Runs in a row that failed.
    #[serde(default)]
    pub failures: u32,
    /// When it is tried or asked again.
    #[serde(default)]
    pub due: Option<Timestamp>,
    /// Removed paths that stay readable for now.
    #[serde(default)]
    pub withdrawn: Option<Withdrawn>,
    /// What becomes of its files when it ends: its orders are not there any more by then.
    #[serde(default)]
    pub on_end: OnEnd,
    /// Wishes to undelete that were answered and are still ordered.
    #[serde(default)]
    pub undeleted: Vec<Uuid>,
    /// The slot of its schedule in which it last ran.
    #[serde(default)]
    pub slot: Option<Timestamp>,
    /// What the small files showed that tell whether anything changed, when it was last listed.
    #[serde(default)]
    pub quick: Option<Quick>,
    /// What was begun under a head that was good then: it is finished whatever the head's age.
    #[serde(default)]
    pub planned: Option<Digest>,
    /// The newest that a publication point had while no valid head could be had. Not believed yet.
    #[serde(default)]
    pub found: Option<Found>,
    /// When the publication points are asked again.
    #[serde(default)]
    pub look_again: Option<Timestamp>,
    /// The stock server that what is held was taken from: `HOST:PORT`.
    #[serde(default)]
    pub taken_from: Option<String>,
    /// Commands of the site that are still to be run, in this order.
    #[serde(default)]
    pub owed: Vec<Owed>,
    /// How far the published files were read to see whether they are as they should be.
    #[serde(default)]
    pub scrub: Option<Scrub>,
    /// What it failed for: a newer target is tried at once.
    #[serde(default)]
    pub failed_target: Option<Digest>,
    /// What the last dry run was about, where all of its runs are dry runs.
    #[serde(default)]
    pub rehearsed: Option<Digest>,
    /// Where it is a directory of versions: the manifests of those that are held.
    #[serde(default)]
    pub version_manifests: Vec<Digest>,
    /// How its versions were chosen in the last run.
    #[serde(default)]
    pub versions: Option<VersionsOrder>,
    /// The last runs, the newest last.
    #[serde(default)]
    pub runs: Vec<RunReport>,
}

/// Removed paths that stay readable in the published tree for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Withdrawn {
    /// How many entries.
    pub paths: u64,
    /// When the first of them goes.
    pub next: Timestamp,
    /// How often that failed.
    #[serde(default)]
    pub failures: u32,
}

/// A command of the site that is owed to a run which ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Owed {
    /// Which command.
    pub hook: Hook,
    /// The run that it is about, one of those that are remembered.
    pub run: Uuid,
    /// What was held before: by the first of the runs that no command was told of yet.
    #[serde(default)]
    pub from: Option<Version>,
    /// How often it was tried.
    #[serde(default)]
    pub tries: u32,
    /// When it is tried again.
    #[serde(default)]
    pub due: Option<Timestamp>,
}

/// How far the files of an assignment were read, round after round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Scrub {
    /// When the next part is read.
    pub due: Timestamp,
    /// When the round that is under way began.
    #[serde(default)]
    pub begun: Option<Timestamp>,
    /// Where its next part begins.
    #[serde(default)]
    pub at: Option<TreePath>,
    /// What it came to so far.
    #[serde(default)]
    pub checked: Checked,
    /// Damaged paths that are not repaired yet, in order.
    #[serde(default)]
    pub damaged: Vec<TreePath>,
    /// When their repair is tried again.
    #[serde(default)]
    pub again: Option<Timestamp>,
    /// How often it failed in a row.
    #[serde(default)]
    pub failures: u32,
    /// When the last round ended.
    #[serde(default)]
    pub last: Option<Timestamp>,
}

impl Scrub {
    /// One whose first round begins then.
    pub fn new(due: Timestamp) -> Self {
        Self {
            due,
            begun: None,
            at: None,
            checked: Checked::default(),
            damaged: Vec::new(),
            again: None,
            failures: 0,
            last: None,
        }
    }
}

/// What a stock server's small files showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Quick {
    /// Digest of their listing.
    pub digest: Digest,
    /// When the whole tree was listed.
    pub listed: Timestamp,
}

/// A generation that an assignment holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Held {
    /// Which generation; of a stock server, the number of the observation.
    pub version: Version,
    /// Digest of its whole manifest.
    pub manifest: Digest,
    /// Digest of the filter through which it is held.
    pub filter: Digest,
    /// Whether it was observed here, at a stock server.
    #[serde(default)]
    pub observed: bool,
    /// When it was applied.
    pub applied: Timestamp,
    /// Files kept.
    pub files: u64,
    /// Their content bytes.
    pub bytes: u64,
}

/// The newest root that is believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KnownRoot {
    /// Digest of the root that was pinned at the enrollment from which it was followed.
    pub pinned: Digest,
    /// The newest one, signed.
    pub newest: Envelope,
}

impl Record {
    /// A new assignment that holds nothing.
    pub fn new(name: AssignmentName, path: TreePath) -> Self {
        Self {
            name,
            path,
            moving: None,
            held: None,
            unassigned: false,
            sync_requests: 0,
            failures: 0,
            due: None,
            withdrawn: None,
            on_end: OnEnd::Keep,
            undeleted: Vec::new(),
            slot: None,
            quick: None,
            planned: None,
            found: None,
            look_again: None,
            taken_from: None,
            owed: Vec::new(),
            scrub: None,
            failed_target: None,
            rehearsed: None,
            version_manifests: Vec::new(),
            versions: None,
            runs: Vec::new(),
        }
    }

    /// The last run that brought, or was to bring, a generation.
    pub fn last_sync(&self) -> Option<&RunReport> {
        self.runs.iter().rev().find(|run| run.kind.is_sync())
    }

    /// Remembers a run.
    pub fn add_run(&mut self, report: RunReport) {
        self.runs.push(report);
        let surplus = self.runs.len().saturating_sub(KEPT_RUNS);
        self.runs.drain(..surplus);
    }
}

/// The ledger of one agent.
#[derive(Debug)]
pub struct Ledger {
    root: Folder,
    assignments: Folder,
    unsent: Folder,
    keys: Folder,
    /// One at a time raises the marks.
    raising: Mutex<()>,
}

impl Ledger {
    /// Opens the ledger in `data`, or begins one.
    pub fn open(data: &Path) -> Result<Self, Error> {
        let root = Folder::open(&data.join("ledger"))?;
        let assignments = root.folder("assignments")?;
        let unsent = root.folder("unsent")?;
        let keys = root.private_folder("keys")?;
        Ok(Self { root, assignments, unsent, keys, raising: Mutex::default() })
    }

    /// The last orders that were believed.
    pub fn orders(&self) -> Result<Option<AgentOrders>, Error> {
        self.root.read("orders")
    }

    /// Stores orders that were verified.
    pub fn set_orders(&self, orders: &AgentOrders) -> Result<(), Error> {
        self.root.write("orders", orders)
    }

    /// The root documents that are believed: the digest of the one that was pinned, and the newest
    /// that was followed from there.
    pub fn root(&self) -> Result<Option<KnownRoot>, Error> {
        self.root.read("root")
    }

    /// Stores a root that was followed, before anything is believed by it.
    pub fn set_root(&self, root: &KnownRoot) -> Result<(), Error> {
        self.root.write("root", root)
    }

    /// Keys of a private tree.
    pub fn tree_keys(&self, tree: &TreeName) -> Result<Vec<TreeKey>, Error> {
        Ok(self.keys.read(tree.as_str())?.unwrap_or_default())
    }

    /// Keeps keys of a private tree.
    pub fn set_tree_keys(&self, tree: &TreeName, keys: &[TreeKey]) -> Result<(), Error> {
        self.keys.write(tree.as_str(), &keys)
    }

    /// The highest numbers ever believed.
    pub fn marks(&self) -> Result<Marks, Error> {
        Ok(self.root.read("marks")?.unwrap_or_default())
    }

    /// Raises them, and stores them before anything that they allow is done. One at a time: orders come
    /// while runs begin, and whoever wrote back what it had read before the other would take that back.
    ///
    /// # Errors
    /// Those of `raise`, with which nothing is stored, and the ledger's.
    pub fn raise_marks<T, E: From<Error>>(
        &self,
        raise: impl FnOnce(&mut Marks) -> Result<T, E>,
    ) -> Result<T, E> {
        let _one = self.raising.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.marks()?;
        let mut marks = before.clone();
        let raised = raise(&mut marks)?;
        if marks != before {
            self.root.write("marks", &marks)?;
        }
        Ok(raised)
    }

    /// What came over the site's line.
    pub fn account(&self) -> Result<Account, Error> {
        Ok(self.root.read("account")?.unwrap_or_default())
    }

    /// Stores what came over the site's line.
    pub fn set_account(&self, account: &Account) -> Result<(), Error> {
        self.root.write("account", account)
    }

    /// Whether an admin of the site lets nothing be scrubbed for now.
    pub fn is_scrub_paused(&self) -> Result<bool, Error> {
        Ok(self.root.read("scrub-paused")?.unwrap_or_default())
    }

    /// Remembers whether anything is scrubbed.
    pub fn set_scrub_paused(&self, paused: bool) -> Result<(), Error> {
        self.root.write("scrub-paused", &paused)
    }

    /// What is known of one assignment.
    pub fn record(&self, name: &AssignmentName) -> Result<Option<Record>, Error> {
        self.assignments.read(&name.to_string())
    }

    /// Everything that was ever assigned and not purged.
    pub fn records(&self) -> Result<Vec<Record>, Error> {
        let names = self.assignments.names()?;
        let read = |name: String| self.assignments.read(&name).transpose();
        names.into_iter().filter_map(read).collect()
    }

    /// Stores what is known of one assignment.
    pub fn set_record(&self, record: &Record) -> Result<(), Error> {
        self.assignments.write(&record.name.to_string(), record)
    }

    /// Forgets an assignment.
    pub fn remove_record(&self, name: &AssignmentName) -> Result<(), Error> {
        self.assignments.remove(&name.to_string())
    }

    /// Puts a report where it waits for the coordinator.
    pub fn add_unsent(&self, report: &RunReport) -> Result<(), Error> {
        self.unsent.write(&report.id.to_string(), report)?;
        let names = self.unsent.names()?;
        // Their ids begin with the time, so the first names are the oldest reports.
        for name in names.iter().take(names.len().saturating_sub(KEPT_UNSENT)) {
            tracing::warn!(report = %name, "too many unsent reports; the oldest is given up");
            self.unsent.remove(name)?;
        }
        Ok(())
    }

    /// Reports that wait, the oldest first.
    pub fn unsent(&self) -> Result<Vec<RunReport>, Error> {
        let names = self.unsent.names()?;
        names.into_iter().filter_map(|name| self.unsent.read(&name).transpose()).collect()
    }

    /// The coordinator has taken a report.
    pub fn remove_unsent(&self, id: Uuid) -> Result<(), Error> {
        self.unsent.remove(&id.to_string())
    }
}

#[cfg(test)]
mod tests;
