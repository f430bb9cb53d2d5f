//! Takes over a path that already holds files.
//!
//! Whoever ran a cron job with rsync until yesterday has the tree already. Everything in it that
//! is equal stays where it is; only differences travel. What the tree does not know is listed and
//! held until someone decides: the first run of a new tool is no moment to delete.

use std::path::PathBuf;

use protocol::{
    manifest::{self, Entries, Manifest},
    path::TreePath,
};

use super::{Area, Error, Locals};
use crate::{
    plan::{self, Reserve, View},
    safe_path::PROTECTED,
    scan::{self, ScanOptions, ScanRecord},
};

/// What was found at a path that is adopted.
#[derive(Debug)]
pub struct Adopted {
    /// What lies there of the wanted tree, as it is: plan from it with [`View::AS_IS`].
    pub have: Manifest,
    /// What is local, and how it is going to be treated.
    pub locals: Locals,
    /// Files of another user, where this process may use them all the same: it runs as root.
    pub foreign: Option<ForeignFiles>,
    /// For an adoption that is done again: what was read need not be read twice.
    pub record: ScanRecord,
}

/// Files that belong to another user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignFiles {
    /// How many entries.
    pub entries: u64,
    /// The first of them.
    pub first: TreePath,
    /// Whose.
    pub uid: u32,
    /// What an admin has to run.
    pub command: String,
}

/// Why a path cannot be adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The area.
    #[error(transparent)]
    Area(#[from] Error),
    /// Reading what is there.
    #[error(transparent)]
    Scan(#[from] scan::Error),
    /// Nothing is there.
    #[error("nothing lies at {path}; there is nothing to adopt", path = .path.display())]
    Nothing {
        /// The published path.
        path: PathBuf,
    },
    /// Another user's files cannot be linked or changed.
    #[error("{} entries belong to user {}, the first is {}; run: {}", .0.entries, .0.uid, .0.first, .0.command)]
    Foreign(ForeignFiles),
    /// What is there does not fit into a manifest.
    #[error("what lies there does not fit into a manifest")]
    Manifest(#[from] manifest::Error),
}

impl Area {
    /// Reads what lies at the published path, beside the record of an earlier try, and makes it
    /// the live tree of this area. Changes nothing in it.
    ///
    /// # Errors
    /// [`AdoptError::Foreign`], before anything is read, where files belong to another user.
    pub fn adopt(
        &mut self,
        want: &std::sync::Arc<impl Entries + 'static>,
        view: View<'_>,
        record: &ScanRecord,
        options: &ScanOptions<'_>,
    ) -> Result<Adopted, AdoptError> {
        let path = self.publish.path().join(self.path.to_string());
        let Some(live) = self.live()? else { return Err(AdoptError::Nothing { path }) };
        let everything = ScanOptions { keep: &scan::keep_all, ..*options };
        let foreign = match foreign(&live, &path, &everything)? {
            Some(foreign) if !rustix::process::geteuid().is_root() => {
                return Err(AdoptError::Foreign(foreign));
            }
            foreign => foreign,
        };
        let scan = scan::scan(&live, record, &everything)?;
        let wanted = plan::seen(want.clone(), view, &Reserve::default())?;
        let mut locals = Locals::default();
        let mut have = Vec::new();
        let mut apart: Option<TreePath> = None;
        for entry in scan.manifest.entries() {
            let path = &entry.path;
            if apart.as_ref().is_some_and(|above| path.is_inside(above)) {
                continue;
            }
            let marker = path.child(PROTECTED).ok();
            let is_wanted = wanted.item(path)?.is_some();
            let holds = match marker.filter(|at| entry.is_dir() && scan.manifest.get(at).is_some())
            {
                Some(marker) => wanted.item(&marker)?.is_none(),
                None => false,
            };
            if holds {
                locals.protected.push(path.clone());
            } else if is_wanted {
                have.push(entry.clone());
                continue;
            } else if (view.keep)(path, entry.is_dir()) {
                locals.held.push(path.clone());
            } else {
                locals.excluded.push(path.clone());
            }
            apart = Some(path.clone());
        }
        locals.protected_root =
            TreePath::parse(PROTECTED).is_ok_and(|marker| locals.held.contains(&marker));
        locals.held.extend(
            scan.left_out
                .iter()
                .filter(|left| !crate::safe_path::is_reserved(&left.path))
                .map(|left| left.path.clone()),
        );
        locals.held.sort();
        let have = Manifest::new(have)?;
        self.take_over(live.meta().map_err(Error::from)?.id, locals.clone())?;
        Ok(Adopted { have, locals, foreign, record: scan.record })
    }

    fn take_over(&mut self, live: crate::fs::FileId, locals: Locals) -> Result<(), Error> {
        self.marks.live = Some(live);
        self.marks.applied = None;
        self.marks.withdrawn = None;
        self.marks.locals = locals;
        // They are related to a tree that was published before.
        for tree in &mut self.marks.trees {
            tree.state = super::marks::TreeState::Building;
        }
        self.marks.save(&self.work)
    }
}

fn foreign(
    live: &crate::fs::Dir,
    path: &std::path::Path,
    options: &ScanOptions<'_>,
) -> Result<Option<ForeignFiles>, AdoptError> {
    let own = rustix::process::geteuid().as_raw();
    let owners = scan::owners(live, options)?;
    let other = owners.into_iter().filter(|(uid, _)| *uid != own).max_by_key(|(_, (n, _))| *n);
    Ok(other.map(|(uid, (entries, first))| {
        let quoted = path.display().to_string().replace('\'', "'\\''");
        let command = format!("chown -R --from={uid} {own} '{quoted}'");
        ForeignFiles { entries, first, uid, command }
    }))
}
