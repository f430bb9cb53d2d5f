//! Reads a published tree and compares it with what it should be.
//!
//! Disks flip bits, admins edit files, programs truncate them. A scrub reads what is published, in
//! path order, says exactly what is wrong, and turns that into a plan: the damaged paths as if they
//! had changed, with nothing in the live tree believed unread for them. A large tree is scrubbed in
//! parts, each beginning where the last one ended, so that other work comes between, and a restart
//! costs one part.

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use protocol::{
    manifest::{Entries, EntryKind},
    path::TreePath,
};

use super::{Area, Error, is_no_directory, protected};
use crate::{
    fs::{self, Dir, Kind},
    plan::{self, Grace, Item, Need, Plan, Reserve, View},
    safe_path::{self, PROTECTED},
    scan::digest_file,
    switch::{bring::same_time, cursor::Cursor},
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

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flipped => f.write_str("has other content"),
            Self::Length { expected, actual } => {
                write!(f, "has {actual} bytes instead of {expected}")
            }
            Self::Missing => f.write_str("is missing"),
            Self::Unreadable => f.write_str("cannot be read"),
            Self::Extra => f.write_str("does not belong there"),
            Self::Kind => f.write_str("is something else than it should be"),
            Self::Attributes => f.write_str("has another mode or time"),
        }
    }
}

/// One damaged entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub path: TreePath,
    /// What.
    pub damage: Damage,
}

/// How much of a tree to look at, and how.
#[derive(Clone, Copy)]
pub struct ScrubOptions<'a> {
    /// The first path that is looked at; the whole tree where there is none.
    pub from: Option<&'a TreePath>,
    /// Nothing else is looked at where paths are named here, in order.
    pub only: &'a [TreePath],
    /// No further file is begun once so many bytes were read.
    pub most_bytes: u64,
    /// Called with every number of bytes that was read; may take its time.
    pub tick: &'a dyn Fn(u64),
    /// Set by someone else to end it early.
    pub cancel: &'a AtomicBool,
}

impl ScrubOptions<'static> {
    /// The whole tree at once.
    pub const fn whole() -> Self {
        static NEVER: AtomicBool = AtomicBool::new(false);
        Self { from: None, only: &[], most_bytes: u64::MAX, tick: &|_| {}, cancel: &NEVER }
    }
}

impl fmt::Debug for ScrubOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScrubOptions")
            .field("from", &self.from)
            .field("most_bytes", &self.most_bytes)
            .finish_non_exhaustive()
    }
}

/// What a scrub found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Everything that is wrong, in path order.
    pub findings: Vec<Finding>,
    /// Files read.
    pub read_files: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Where the next part begins; `None` once the end of the tree was reached.
    pub next: Option<TreePath>,
}

impl Area {
    /// Reads the published tree, or a part of it, and compares it with `have`, seen as it was
    /// applied. Changes nothing. What a PROTECTED file shields is not looked at.
    pub fn scrub(
        &self,
        have: &Arc<impl Entries + 'static>,
        view: View<'_>,
        options: &ScrubOptions<'_>,
    ) -> Result<ScrubReport, Error> {
        let beside =
            Reserve { withdrawn: self.withdrawn()?, grace: AS_IT_IS, ..Reserve::default() };
        let wanted = plan::seen(have.clone(), view, &beside)?;
        let mut report = ScrubReport::default();
        let Some(live) = self.live()? else {
            for item in wanted.items() {
                report.findings.push(Finding { path: item?.entry.path, damage: Damage::Missing });
            }
            return Ok(report);
        };
        let mut look = Look { area: self, view, wanted: &wanted, live: Cursor::new(live), options };
        let only =
            |path: &TreePath| options.only.is_empty() || options.only.binary_search(path).is_ok();
        if options.from.is_none() && options.only.is_empty() {
            look.extras(None, &mut report)?;
        }
        for item in wanted.items() {
            let item = item?;
            if options.from.is_some_and(|from| item.entry.path < *from) {
                continue;
            }
            let path = &item.entry.path;
            let is_over = report.read_bytes >= options.most_bytes;
            if is_over || options.cancel.load(Ordering::Relaxed) {
                report.next = Some(path.clone());
                break;
            }
            let is_shielded = safe_path::is_reserved(path) || self.marks.locals.protects(path);
            if is_shielded || !only(path) {
                continue;
            }
            if let Some(damage) = look.item(&item, &mut report)?
                && !protected::shields(&mut look.live, path, &wanted)?
            {
                report.findings.push(Finding { path: path.clone(), damage });
            }
            if item.entry.is_dir() && options.only.is_empty() {
                look.extras(Some(path), &mut report)?;
            }
        }
        report.findings.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(report)
    }

    /// Plans the repair of what a scrub found: fetch its needs and switch, as for a new
    /// generation. Content that the mirror has elsewhere is read before it is used, and files whose
    /// attributes alone are wrong need nothing fetched.
    pub fn plan_repair(
        &self,
        have: &Arc<impl Entries + 'static>,
        view: View<'_>,
        findings: &[Finding],
    ) -> Result<Plan, Error> {
        let damaged = findings.iter().filter(|finding| finding.damage != Damage::Extra);
        let unsure: HashSet<TreePath> = damaged.map(|finding| finding.path.clone()).collect();
        let locals = &self.marks.locals;
        let reserve = Reserve {
            withdrawn: self.withdrawn()?,
            grace: AS_IT_IS,
            protected_root: locals.protected_root,
            protected: locals.protected.clone(),
            unsure,
            settled: HashSet::new(),
            unread: true,
        };
        let plan = plan::compare_with(have, view, have.clone(), view, &reserve)?;
        for finding in findings {
            if finding.damage == Damage::Attributes
                && let Some(need) = plan.need(&finding.path)?
            {
                self.stage_again(&need)?;
            }
        }
        Ok(plan)
    }

    /// Stages what a retired tree still has of these contents: there it may be whole. Gives those
    /// that none has.
    pub fn stage_retired(&self, needs: &[Need]) -> Result<Vec<Need>, Error> {
        let mut left = Vec::new();
        for need in needs {
            let mut is_staged = self.staging.has(need)?;
            for tree in &self.marks.trees {
                if is_staged {
                    break;
                }
                let file = self
                    .work
                    .open_child(tree.name.as_bytes())
                    .and_then(|tree| tree.open_parent(&need.path))
                    .and_then(|parent| parent.open_file(need.path.name()));
                is_staged = file.is_ok_and(|file| self.staging.copy(need, &file).is_ok());
            }
            if !is_staged {
                left.push(need.clone());
            }
        }
        Ok(left)
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

struct Look<'a> {
    area: &'a Area,
    view: View<'a>,
    wanted: &'a Plan,
    live: Cursor,
    options: &'a ScrubOptions<'a>,
}

impl Look<'_> {
    /// What is wrong with one entry.
    fn item(&mut self, item: &Item, report: &mut ScrubReport) -> Result<Option<Damage>, Error> {
        let entry = &item.entry;
        let name = entry.path.name();
        let Some(parent) = self.live.parent(&entry.path)? else { return Ok(Some(Damage::Missing)) };
        let Some(meta) = parent.stat(name)? else { return Ok(Some(Damage::Missing)) };
        let content = match (&entry.kind, meta.kind) {
            (EntryKind::Dir, Kind::Dir) => None,
            (EntryKind::Symlink { target }, Kind::Symlink) => {
                (parent.read_link(name)? != **target).then_some(Damage::Kind)
            }
            (EntryKind::File { size, .. }, Kind::File) if *size != meta.size => {
                Some(Damage::Length { expected: *size, actual: meta.size })
            }
            (EntryKind::File { size, digest, .. }, Kind::File) => {
                let read = parent.open_file(name).and_then(|file| {
                    digest_file(&file, *size, &mut |bytes| {
                        report.read_bytes += bytes;
                        (self.options.tick)(bytes);
                    })
                });
                report.read_files += 1;
                match read {
                    Ok(read) => (read != *digest).then_some(Damage::Flipped),
                    Err(_) => Some(Damage::Unreadable),
                }
            }
            _ => Some(Damage::Kind),
        };
        let is_link = matches!(entry.kind, EntryKind::Symlink { .. });
        let attributes = (is_link || meta.mode == item.mode) && same_time(meta.mtime, entry.mtime);
        Ok(content.or((!attributes).then_some(Damage::Attributes)))
    }

    /// What lies in one directory and belongs nowhere: only the topmost of each is named.
    fn extras(&mut self, dir: Option<&TreePath>, report: &mut ScrubReport) -> Result<(), Error> {
        let opened = match dir {
            None => Some(self.live.root()),
            Some(dir) => self.live.dir(dir)?,
        };
        let Some(opened) = opened else { return Ok(()) };
        let mut entries = match opened.entries() {
            Ok(entries) => entries,
            Err(error) if is_no_directory(&error) => return Ok(()),
            Err(error) => {
                tracing::warn!(%error, "a directory cannot be looked through");
                if let Some(path) = dir.cloned() {
                    report.findings.push(Finding { path, damage: Damage::Unreadable });
                }
                return Ok(());
            }
        };
        let path_of = |name: &[u8]| match dir {
            None => TreePath::parse(name),
            Some(dir) => dir.child(name),
        };
        if entries.iter().any(|entry| *entry.name == *PROTECTED)
            && let Ok(path) = path_of(PROTECTED)
            && self.wanted.item(&path)?.is_none()
        {
            return Ok(());
        }
        let locals = &self.area.marks.locals;
        let is_known = |path: &TreePath| {
            let lists = [&locals.protected, &locals.excluded, &locals.held];
            lists
                .into_iter()
                .flatten()
                .any(|at| at == path || path.is_inside(at) || at.is_inside(path))
        };
        // In order, as that is how a large manifest is read.
        entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        for entry in &entries {
            let Ok(path) = path_of(&entry.name) else { continue };
            let is_ours = self.wanted.item(&path)?.is_some() || safe_path::is_reserved(&path);
            let is_dir = entry.is_dir.unwrap_or(false);
            if is_ours || is_known(&path) || !(self.view.keep)(&path, is_dir) {
                continue;
            }
            if !is_dir || !holds_protected(opened, &entry.name)? {
                report.findings.push(Finding { path, damage: Damage::Extra });
            }
        }
        Ok(())
    }
}

fn holds_protected(parent: &Dir, name: &[u8]) -> fs::Result<bool> {
    let mut open = vec![parent.open_child(name)?];
    while let Some(dir) = open.pop() {
        for entry in dir.entries()? {
            if *entry.name == *PROTECTED {
                return Ok(true);
            }
            if entry.is_dir != Some(false) {
                match dir.open_child(&entry.name) {
                    Ok(below) => open.push(below),
                    Err(error) if is_no_directory(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(false)
}
