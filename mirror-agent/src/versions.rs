//! A directory of versions: which of them are wanted, and what is beside them.
//!
//! Each version is a unit: it has a manifest, a place for its work and a switch of its own, so that
//! one that fails or still changes keeps no other waiting. The directory that holds them is never
//! exchanged. A run goes in one order, whatever the upstream is: the versions, the oldest first;
//! after each of them its status file and the link to the latest; then the links that the upstream
//! has beside its versions; and last what the upstream no longer has. A crash at any point leaves
//! less done than was wanted, and never something that says more than what is there.
//!
//! The upstream's directory is listed as it is, and names are matched here: a daemon's own pattern
//! matching leaves out what it cannot look through.

mod links;
mod local;
mod remove;
mod select;
mod share;
mod tally;
mod within;

use std::collections::BTreeSet;

use jiff::Timestamp;
use protocol::{
    manifest,
    name::TreeName,
    path::TreePath,
    v1::agent::{AssignmentOrder, VersionsOrder},
};

pub use self::{
    select::{MAX_VERSIONS, Names, Shown},
    share::SHARED_AT_A_TIME,
    tally::Tally,
    within::{Union, Within, part, within},
};
use crate::{
    apply::{self, Rules, Site},
    fetch::manifest::Error as StoreError,
    ledger::{self, Ledger, Record},
    report::Run,
};

/// Largest file that is read to see whether a version is finished.
pub const MAX_STATUS: u64 = 4_096;

/// Why a directory of versions cannot be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing at the upstream is a version.
    #[error(
        "tree {tree}: no directory at the upstream is a version by listing-pattern {pattern:?} and its filters; nothing was touched"
    )]
    NoVersions {
        /// Which tree.
        tree: TreeName,
        /// The pattern.
        pattern: String,
    },
    /// More versions than are looked at.
    #[error(
        "tree {tree}: the upstream shows more than {MAX_VERSIONS} versions; narrow listing-pattern"
    )]
    TooMany {
        /// Which tree.
        tree: TreeName,
    },
    /// No version could be brought.
    #[error(
        "tree {tree}: none of {count} versions could be brought, the first is {first}: {detail}"
    )]
    AllFailed {
        /// Which tree.
        tree: TreeName,
        /// How many.
        count: usize,
        /// The first of them.
        first: TreePath,
        /// Why it could not.
        detail: String,
    },
    /// Rules for names that are none.
    #[error("the rules for names of versions are not understood")]
    Names(#[from] protocol::filter::RuleErrors),
    /// The disk.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// The agent's copy of a manifest.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the agent remembers.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The versions do not make a manifest.
    #[error("the versions do not make one manifest")]
    Manifest(#[from] manifest::Error),
}

impl From<filetree::area::Error> for Error {
    fn from(error: filetree::area::Error) -> Self {
        Self::Apply(error.into())
    }
}

impl From<filetree::fs::Error> for Error {
    fn from(error: filetree::fs::Error) -> Self {
        Self::Apply(error.into())
    }
}

/// What the upstream shows at the top of the tree.
#[derive(Debug, Clone, Default)]
pub struct Top {
    /// Directories.
    pub dirs: Vec<Shown>,
    /// Symbolic links, with their targets.
    pub links: Vec<(TreePath, Box<[u8]>)>,
    /// Every name there is.
    pub names: BTreeSet<TreePath>,
}

/// What was found out about a version that was worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// It was up to date.
    UpToDate,
    /// It was brought up to date, or would be.
    Changed,
}

/// One run over a directory of versions.
pub struct Directory<'a> {
    /// The assignment's place: its lock, its work, and the published directory.
    pub site: Site,
    /// How versions are chosen and kept.
    pub versions: &'a VersionsOrder,
    /// What a version keeps, as written for the whole tree.
    pub rules: &'a Rules,
    /// How many versions did what.
    pub tally: Tally,
    /// Whether this upstream's word is enough to remove what it does not have.
    pub may_remove: bool,
    order: &'a AssignmentOrder,
    run: &'a Run,
    names: Names,
    top: Top,
    chosen: Vec<Shown>,
    /// A PROTECTED file lies beside the versions: nothing changes.
    frozen: bool,
}

impl<'a> Directory<'a> {
    /// Looks at what the upstream shows; changes nothing.
    pub fn new(
        site: Site,
        order: &'a AssignmentOrder,
        versions: &'a VersionsOrder,
        rules: &'a Rules,
        top: Top,
        run: &'a Run,
    ) -> Result<Self, Error> {
        let tree = || order.name.tree.clone();
        let names = Names::new(versions)?;
        let mut chosen = Vec::new();
        for shown in &top.dirs {
            if !names.is_version(&shown.name, true) || !rules.keeps(&shown.name, true) {
                continue;
            }
            match select::why_unusable(&shown.name) {
                Some(why) => run.notice(format!("left out: {}: {why}", shown.name)),
                None => chosen.push(shown.clone()),
            }
        }
        if chosen.len() > MAX_VERSIONS {
            return Err(Error::TooMany { tree: tree() });
        }
        if chosen.is_empty() {
            let pattern = versions.listing_pattern.clone();
            return Err(Error::NoVersions { tree: tree(), pattern });
        }
        select::sort(&mut chosen);
        let frozen = local::is_frozen(&site)?;
        if frozen {
            run.notice(
                "nothing was touched, because a PROTECTED file is in the published directory",
            );
        }
        let tally = Tally::default();
        Ok(Self {
            site,
            versions,
            rules,
            tally,
            may_remove: true,
            order,
            run,
            names,
            top,
            chosen,
            frozen,
        })
    }

    /// The versions that may have to be worked on, the oldest first. Of a sealed tree, those that
    /// are not finished here; whether they are finished at the upstream has to be asked.
    pub fn candidates(&self) -> Result<Vec<Shown>, Error> {
        if self.frozen {
            return Ok(Vec::new());
        }
        if !self.versions.sealed {
            return Ok(self.chosen.clone());
        }
        let mut candidates = Vec::new();
        for shown in self.chosen.iter().rev() {
            if !self.is_finished(&shown.name)? {
                candidates.push(shown.clone());
            } else if self.versions.sync_latest_only {
                break;
            }
        }
        candidates.reverse();
        Ok(candidates)
    }

    /// Those of the candidates that are worked on, the oldest first: `ready` are those that the
    /// upstream says are finished.
    pub fn take(&self, candidates: Vec<Shown>, ready: &BTreeSet<TreePath>) -> Vec<Shown> {
        if !self.versions.sealed {
            return candidates;
        }
        let mut taken: Vec<Shown> =
            candidates.into_iter().filter(|shown| ready.contains(&shown.name)).collect();
        if self.versions.sync_latest_only {
            taken.drain(..taken.len().saturating_sub(1));
        }
        taken
    }

    /// Makes the published directory where it is missing, before the first version comes.
    pub fn prepare(&mut self) -> Result<(), Error> {
        self.site.area_mut().make_directory()?;
        Ok(())
    }

    /// What follows a version that is complete: its own attributes, the status file, the link to
    /// the latest. Nothing of it in a dry run.
    pub fn complete(&mut self, shown: &Shown, mut done: Done) -> Result<(), Error> {
        let finishes = self.versions.sealed && !self.is_finished(&shown.name)?;
        if finishes {
            done = Done::Changed;
        }
        self.tally.add(done);
        if self.run.is_dry() {
            if done == Done::Changed && self.versions.sealed {
                self.foresee_latest(&shown.name)?;
            }
            return Ok(());
        }
        self.site.area().gather_trash(&shown.name)?;
        let mode = self.rules.mode_of_dir(shown.mode);
        self.site.area().dress_unit(&shown.name, mode, shown.mtime)?;
        if finishes {
            let text = format!("{}\n", self.versions.finished);
            let file = self.versions.status_file.as_bytes();
            self.site.area().write_in_unit(&shown.name, file, text.as_bytes())?;
        }
        if done == Done::Changed && self.versions.sealed {
            self.link_latest(&shown.name)?;
        }
        Ok(())
    }

    /// Notes that a version could not be brought.
    pub fn fail(&mut self, shown: &Shown, detail: String) {
        self.run.notice(format!("version {} was not brought: {detail}", shown.name));
        self.tally.fail(&shown.name, detail);
    }

    /// What follows the versions: links, and what the upstream no longer has.
    pub fn end(&mut self) -> Result<(), Error> {
        if self.frozen {
            return Ok(());
        }
        if !self.versions.sealed
            && let Some(newest) = self.newest_here()?
        {
            if self.run.is_dry() {
                self.foresee_latest(&newest)?;
            } else {
                self.link_latest(&newest)?;
            }
        }
        self.follow_links()?;
        if self.versions.delete_old_versions {
            self.remove_old()?;
        }
        if let Some(undone) = self.tally.undone() {
            self.run.set_incomplete(undone);
        }
        match self.tally.all_failed() {
            None => Ok(()),
            Some((count, (first, detail))) => {
                let (tree, first, detail) =
                    (self.order.name.tree.clone(), first.clone(), detail.clone());
                Err(Error::AllFailed { tree, count, first, detail })
            }
        }
    }

    /// What the versions that lie here make up together, and the manifest of each.
    pub fn held(&self, manifests: &crate::fetch::manifest::Store) -> Result<Union, Error> {
        let mut union = Union::default();
        for shown in self.local()? {
            let Some((digest, _)) = self.site.version_held(&shown.name)? else { continue };
            let Some(manifest) = manifests.get(&digest) else { continue };
            union.insert(&shown, manifest);
        }
        Ok(union)
    }

    /// Writes down which manifests are in use, and by which settings versions were chosen.
    pub fn remember(&self, ledger: &Ledger, union: &Union) -> Result<(), Error> {
        let order = self.order;
        let record = ledger.record(&order.name)?;
        let mut record =
            record.unwrap_or_else(|| Record::new(order.name.clone(), order.path.clone()));
        record.version_manifests = union.digests().collect();
        record.versions.clone_from(&order.versions);
        Ok(ledger.set_record(&record)?)
    }
}

fn now() -> i64 {
    Timestamp::now().as_second()
}
