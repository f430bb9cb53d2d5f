//! Takes over a path that already holds files.
//!
//! Whoever ran a cron job with rsync until yesterday has the tree already. Everything in it that
//! is equal stays where it is; only differences travel. What the tree does not know is listed and
//! held until someone decides: the first run of a new tool is no moment to delete.

use std::{collections::BTreeMap, path::PathBuf};

use protocol::{
    manifest::{self, Entries, Entry},
    path::TreePath,
};

use super::{Area, Error, Locals};
use crate::{
    plan::{self, Plan, Reserve, View},
    safe_path::{self, PROTECTED},
    scan::{self, Records, ScanOptions},
    switch::cursor::Cursor,
};

/// What was found at a path that is adopted.
#[derive(Debug)]
pub struct Adopted {
    /// What is local, and how it is going to be treated.
    pub locals: Locals,
    /// Files of another user, where this process may use them all the same: it runs as root.
    pub foreign: Option<ForeignFiles>,
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
    /// Reads what lies at the published path, beside the records of an earlier scan, and makes it the
    /// live tree of this area. Changes nothing in it. `have` takes what lies there of the wanted tree,
    /// as it is, in path order: plan from that with [`View::AS_IS`]. Takes memory for what is local, and
    /// for files of several names; the rest is never held.
    ///
    /// # Errors
    /// Those of `have`; [`AdoptError::Foreign`], before anything is read, where files belong to another
    /// user.
    pub fn adopt_into<E: From<AdoptError> + From<scan::Error>>(
        &mut self,
        want: &std::sync::Arc<impl Entries + 'static>,
        view: View<'_>,
        earlier: Records<'_>,
        options: &ScanOptions<'_>,
        have: &mut dyn FnMut(Entry) -> Result<(), E>,
    ) -> Result<Adopted, E> {
        let path = self.publish.path().join(self.path.to_string());
        let live = self.live().map_err(AdoptError::from)?;
        let Some(live) = live else { return Err(AdoptError::Nothing { path }.into()) };
        let everything = ScanOptions { keep: &scan::keep_all, ..*options };
        let counted = scan::count(&live, earlier, &everything)?;
        let foreign = match foreign(&counted.owners, &path) {
            Some(foreign) if !rustix::process::geteuid().is_root() => {
                return Err(AdoptError::Foreign(foreign).into());
            }
            foreign => foreign,
        };
        let wanted = plan::seen(want.clone(), view, &Reserve::default());
        let mut found = Compared {
            wanted: wanted.map_err(AdoptError::from)?,
            view,
            live: Cursor::new(live.reopen().map_err(fs_failed)?),
            locals: Locals::default(),
            apart: None,
        };
        let left_out = counted.read(&live, earlier, &everything, &mut |part| {
            for entry in part.entries {
                if found.is_ours(&entry)? {
                    have(entry)?;
                }
            }
            Ok::<_, E>(())
        })?;
        let mut locals = found.locals;
        locals.protected_root =
            TreePath::parse(PROTECTED).is_ok_and(|marker| locals.held.contains(&marker));
        let left_out = left_out.into_iter().map(|left| left.path);
        locals.held.extend(left_out.filter(|path| !safe_path::is_reserved(path)));
        locals.held.sort();
        let live = live.meta().map_err(fs_failed)?.id;
        self.take_over(live, locals.clone()).map_err(AdoptError::from)?;
        Ok(Adopted { locals, foreign })
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

fn fs_failed(error: crate::fs::Error) -> AdoptError {
    AdoptError::Area(error.into())
}

/// What lies at a path beside what is wanted there, entry after entry in path order.
struct Compared<'a> {
    wanted: Plan,
    view: View<'a>,
    live: Cursor,
    locals: Locals,
    /// What was found last that is not the tree's: all that is inside goes with it.
    apart: Option<TreePath>,
}

impl Compared<'_> {
    /// Whether the wanted tree has an entry there; what it has not, is local.
    fn is_ours(&mut self, entry: &Entry) -> Result<bool, AdoptError> {
        let path = &entry.path;
        if self.apart.as_ref().is_some_and(|above| path.is_inside(above)) {
            return Ok(false);
        }
        let is_wanted = self.wanted.item(path)?.is_some();
        let locals = &mut self.locals;
        if entry.is_dir() && holds_marker(&mut self.live, path, &self.wanted)? {
            locals.protected.push(path.clone());
        } else if is_wanted {
            return Ok(true);
        } else if (self.view.keep)(path, entry.is_dir()) {
            locals.held.push(path.clone());
        } else {
            locals.excluded.push(path.clone());
        }
        self.apart = Some(path.clone());
        Ok(false)
    }
}

/// Whether a directory has a PROTECTED file that is not the tree's own.
fn holds_marker(live: &mut Cursor, path: &TreePath, wanted: &Plan) -> Result<bool, AdoptError> {
    let Some(dir) = live.dir(path).map_err(fs_failed)? else { return Ok(false) };
    if dir.stat(PROTECTED).map_err(fs_failed)?.is_none() {
        return Ok(false);
    }
    let marker = path.child(PROTECTED).ok();
    Ok(match marker {
        Some(marker) => wanted.item(&marker)?.is_none(),
        None => false,
    })
}

/// The user, if any but our own, to whom most entries belong.
fn foreign(
    owners: &BTreeMap<u32, (u64, TreePath)>,
    path: &std::path::Path,
) -> Option<ForeignFiles> {
    let own = rustix::process::geteuid().as_raw();
    let others = owners.iter().filter(|(uid, _)| **uid != own);
    let (uid, (entries, first)) = others.max_by_key(|(_, (entries, _))| *entries)?;
    let quoted = path.display().to_string().replace('\'', "'\\''");
    let command = format!("chown -R --from={uid} {own} '{quoted}'");
    Some(ForeignFiles { entries: *entries, first: first.clone(), uid: *uid, command })
}
