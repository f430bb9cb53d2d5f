//! Reads a published tree and compares it with what it should be.
//!
//! Disks flip bits, admins edit files, programs truncate them. A scrub reads everything, says
//! exactly what is wrong, and turns that into a plan: the damaged paths as if they had changed,
//! with nothing in the live tree trusted for them.

use std::{collections::HashSet, sync::Arc};

use protocol::{
    manifest::{EntryKind, Manifest},
    path::TreePath,
};

use super::{Area, Error, Locals};
use crate::{
    plan::{self, Grace, Item, Need, Plan, Reserve, View},
    scan::{self, Problem, ScanOptions, ScanRecord, scan_what_can_be_read},
    switch::bring::same_time,
};

/// What was withdrawn stays, whatever the time: a scrub removes nothing.
const AS_IT_IS: Option<Grace> = Some(Grace { now: i64::MIN, keep: 0 });

/// What is wrong with one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// The right length, other bytes.
    Flipped,
    /// Another length.
    Length {
        /// What the manifest says.
        expected: u64,
        /// What is there.
        actual: u64,
    },
    /// Not there.
    Missing,
    /// There, and cannot be read.
    Unreadable,
    /// There, and neither in the manifest nor known to be local.
    Extra,
    /// A file, directory or symlink where another of them belongs, or a symlink with another
    /// target.
    Kind,
    /// The right content with another mode or modification time.
    Attributes,
}

/// One damaged entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub path: TreePath,
    /// What.
    pub damage: Damage,
}

/// What a scrub found.
#[derive(Debug)]
pub struct ScrubReport {
    /// Everything that is wrong, in path order.
    pub findings: Vec<Finding>,
    /// What could not be read, and why.
    pub problems: Vec<Problem>,
    /// Files read.
    pub read_files: u64,
    /// Bytes read.
    pub read_bytes: u64,
}

/// Why a tree cannot be scrubbed.
#[derive(Debug, thiserror::Error)]
pub enum ScrubError {
    /// The area.
    #[error(transparent)]
    Area(#[from] Error),
    /// Reading the tree.
    #[error(transparent)]
    Scan(#[from] scan::Error),
}

impl ScrubReport {
    /// Whether everything is as it should be.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.problems.is_empty()
    }
}

impl Area {
    /// Reads the whole published tree and compares it with `have`, seen as it was applied. Extras
    /// that are found are remembered as local content, so that the next switch keeps them.
    pub fn scrub(
        &mut self,
        have: &Arc<Manifest>,
        view: View<'_>,
        options: &ScanOptions<'_>,
    ) -> Result<ScrubReport, ScrubError> {
        let beside =
            Reserve { withdrawn: self.withdrawn()?, grace: AS_IT_IS, ..Reserve::default() };
        let nothing = Manifest::empty();
        let wanted = plan::compare_with(&nothing, View::AS_IS, have, view, &beside);
        let Some(live) = self.live()? else {
            let gone =
                |item: Item<'_>| Finding { path: item.entry.path.clone(), damage: Damage::Missing };
            let findings = wanted.items().map(gone).collect();
            return Ok(ScrubReport {
                findings,
                problems: Vec::new(),
                read_files: 0,
                read_bytes: 0,
            });
        };
        let options = ScanOptions { keep: &scan::keep_all, ..*options };
        let (scan, problems) = scan_what_can_be_read(&live, &ScanRecord::empty(), &options)?;
        let mut findings = Vec::new();
        let mut there = scan.manifest.entries().iter().peekable();
        let mut extras = Extras { area: self, view, inside: None, found: Vec::new() };
        for item in wanted.items() {
            let path = &item.entry.path;
            while let Some(extra) = there.next_if(|entry| entry.path < *path) {
                extras.see(&extra.path, extra.is_dir());
            }
            if extras.area.marks.locals.protects(path) {
                there.next_if(|entry| entry.path == *path);
                continue;
            }
            let damage = match there.next_if(|entry| entry.path == *path) {
                Some(entry) => compare(&item, entry),
                None => {
                    let parent = live.open_parent(path);
                    let exists = parent.and_then(|dir| dir.stat(path.name()));
                    let unreadable = exists.is_ok_and(|meta| meta.is_some());
                    Some(if unreadable { Damage::Unreadable } else { Damage::Missing })
                }
            };
            findings.extend(damage.map(|damage| Finding { path: path.clone(), damage }));
        }
        for extra in there {
            extras.see(&extra.path, extra.is_dir());
        }
        let extras = extras.found;
        if !extras.is_empty() {
            for path in &extras {
                Locals::add(&mut self.marks.locals.held, path.clone());
            }
            self.marks.save(&self.work)?;
        }
        findings.extend(extras.into_iter().map(|path| Finding { path, damage: Damage::Extra }));
        findings.sort_by(|a, b| a.path.cmp(&b.path));
        let (read_files, read_bytes) = (scan.stats.read_files, scan.stats.read_bytes);
        Ok(ScrubReport { findings, problems, read_files, read_bytes })
    }

    /// Plans the repair of what a scrub found: fetch its needs and switch, as for a new
    /// generation. Files whose attributes alone are wrong need nothing fetched.
    pub fn plan_repair(
        &self,
        have: &Arc<Manifest>,
        view: View<'_>,
        report: &ScrubReport,
    ) -> Result<Plan, Error> {
        let damaged = report.findings.iter().filter(|finding| finding.damage != Damage::Extra);
        let unsure: HashSet<TreePath> = damaged.map(|finding| finding.path.clone()).collect();
        let locals = &self.marks.locals;
        let reserve = Reserve {
            withdrawn: self.withdrawn()?,
            grace: AS_IT_IS,
            protected_root: locals.protected_root,
            protected: locals.protected.clone(),
            unsure,
            settled: HashSet::new(),
        };
        let plan = plan::compare_with(have, view, have, view, &reserve);
        for finding in &report.findings {
            if finding.damage == Damage::Attributes
                && let Some(need) = plan.need(&finding.path)
            {
                self.stage_again(&need)?;
            }
        }
        Ok(plan)
    }

    fn stage_again(&self, need: &Need) -> Result<(), Error> {
        if !self.staging.has(need)? {
            let file = self.base_file(&need.path)?;
            // Damaged meanwhile: it is fetched then, like the others.
            if let Err(error) = self.staging.copy(need, &file) {
                tracing::warn!(path = %need.path, %error, "the local copy cannot be used");
            }
        }
        Ok(())
    }
}

fn compare(item: &Item<'_>, actual: &protocol::manifest::Entry) -> Option<Damage> {
    let wanted = item.entry;
    let content = match (&wanted.kind, &actual.kind) {
        (EntryKind::Dir, EntryKind::Dir) => None,
        (EntryKind::Symlink { target }, EntryKind::Symlink { target: found }) => {
            (target != found).then_some(Damage::Kind)
        }
        (
            EntryKind::File { size, digest, .. },
            EntryKind::File { size: actual, digest: found, .. },
        ) => {
            if size != actual {
                Some(Damage::Length { expected: *size, actual: *actual })
            } else {
                (digest != found).then_some(Damage::Flipped)
            }
        }
        _ => Some(Damage::Kind),
    };
    let attributes = actual.mode == item.mode && same_time(actual.mtime, wanted.mtime);
    content.or((!attributes).then_some(Damage::Attributes))
}

/// Entries that the manifest does not have: only the topmost of each is named.
struct Extras<'a> {
    area: &'a Area,
    view: View<'a>,
    inside: Option<TreePath>,
    found: Vec<TreePath>,
}

impl Extras<'_> {
    fn see(&mut self, path: &TreePath, is_dir: bool) {
        let known = |list: &[TreePath]| list.iter().any(|at| at == path || path.is_inside(at));
        let locals = &self.area.marks.locals;
        if self.inside.as_ref().is_some_and(|above| path.is_inside(above)) {
            return;
        }
        self.inside = Some(path.clone());
        let local = known(&locals.protected) || known(&locals.excluded) || known(&locals.held);
        if !local && (self.view.keep)(path, is_dir) {
            self.found.push(path.clone());
        }
    }
}
