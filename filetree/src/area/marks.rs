//! What an area knows about its own disk: one small durable file.

use protocol::{digest::Digest, generation::Version, path::TreePath};
use serde::{Deserialize, Serialize};

use super::{Error, withdrawn::WithdrawnMark};
use crate::{
    fs::{Dir, FileId},
    record::{self, PathList},
    switch::Mode,
};

const MARKS: &str = "marks";
const PLAN: &str = "plan";
const PLAN_PATHS: &str = "plan.paths";

/// Which generation a tree is to hold, or holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Target {
    /// Epoch and generation.
    #[serde(flatten)]
    pub version: Version,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Whatever the agent wants to know again together with this: the rules under which the
    /// manifest was seen, for example. Opaque here.
    #[serde(default)]
    pub note: String,
}

/// State of one tree below the work directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TreeState {
    /// A twin that was not finished: good for nothing after a crash.
    Building,
    /// Differs from the live tree at most in the paths of its list, and in local content until it
    /// is swept.
    Whole,
}

/// One tree below the work directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct TreeMark {
    pub(crate) name: String,
    pub(crate) id: FileId,
    pub(crate) state: TreeState,
    /// Whether local content was looked for since it was retired.
    pub(crate) swept: bool,
    /// Seconds since 1970.
    pub(crate) retired_at: i64,
}

impl TreeMark {
    pub(crate) fn list_name(&self) -> String {
        format!("{}.missed", self.name)
    }
}

/// Local content that is known, so that it survives a switch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Locals {
    /// The root itself holds a PROTECTED file: nothing is touched.
    pub protected_root: bool,
    /// Directories that hold a PROTECTED file.
    pub protected: Vec<TreePath>,
    /// Names that the filter excludes and that exist all the same.
    pub excluded: Vec<TreePath>,
    /// Files that lay here when the tree was adopted, and that nobody has decided about.
    pub held: Vec<TreePath>,
}

impl Locals {
    /// Whether a PROTECTED file shields this path.
    pub fn protects(&self, path: &TreePath) -> bool {
        self.protected_root || self.protected.iter().any(|dir| dir == path || path.is_inside(dir))
    }

    /// Whether a PROTECTED file shields this path, or something in it.
    pub(crate) fn protects_in(&self, path: &TreePath) -> bool {
        self.protects(path) || self.protected.iter().any(|dir| dir.is_inside(path))
    }

    pub(crate) fn add(list: &mut Vec<TreePath>, path: TreePath) {
        if let Err(at) = list.binary_search(&path) {
            list.insert(at, path);
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct Marks {
    /// The work directory when this was written.
    pub(crate) home: Option<FileId>,
    /// The live root as we left it.
    pub(crate) live: Option<FileId>,
    pub(crate) applied: Option<Target>,
    pub(crate) trees: Vec<TreeMark>,
    pub(crate) next_tree: u64,
    pub(crate) locals: Locals,
    /// What stays readable in the live tree though its generation does not have it.
    pub(crate) withdrawn: Option<WithdrawnMark>,
    /// The group that everything published has; as it came where none was wanted.
    pub(crate) group: Option<u32>,
    /// A switch is marked, and what it needed is not collected yet.
    pub(crate) uncollected: bool,
    /// Whether this file system gives files a second name and swaps directories; tried once.
    pub(crate) links: Option<bool>,
}

/// After a restart a file system may have another device number (btrfs, loop and mapped devices,
/// disks found in another order): the same inodes then have other identities. They are the same as
/// long as the work directory still has its inode number.
#[derive(Debug, Clone, Copy)]
struct Renumbered {
    from: u64,
    to: u64,
}

impl Renumbered {
    fn between(home: Option<FileId>, here: FileId) -> Option<Self> {
        let home = home.filter(|home| home.ino == here.ino && home.dev != here.dev)?;
        Some(Self { from: home.dev, to: here.dev })
    }

    fn apply<'a>(self, ids: impl Iterator<Item = &'a mut FileId>) {
        ids.filter(|id| id.dev == self.from).for_each(|id| id.dev = self.to);
    }
}

impl Marks {
    pub(crate) fn load(work: &Dir) -> Result<Option<Self>, Error> {
        let Some(mut marks) = load_json::<Self>(work, MARKS)? else { return Ok(None) };
        let here = work.meta()?.id;
        if let Some(renumbered) = Renumbered::between(marks.home, here) {
            let trees = marks.trees.iter_mut().map(|tree| &mut tree.id);
            renumbered.apply(marks.live.iter_mut().chain(trees));
        }
        marks.home = Some(here);
        Ok(Some(marks))
    }

    /// Of an area that is new.
    pub(crate) fn first(work: &Dir) -> Result<Self, Error> {
        Ok(Self { home: Some(work.meta()?.id), ..Self::default() })
    }

    pub(crate) fn save(&self, work: &Dir) -> Result<(), Error> {
        save_json(work, MARKS, self)
    }
}

/// The plan of a switch, durable before its first step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Journal {
    /// The work directory when this was written.
    #[serde(default)]
    pub(crate) home: Option<FileId>,
    pub(crate) from: Option<Target>,
    pub(crate) to: Target,
    pub(crate) mode: Mode,
    /// The live root before the switch; `None` where nothing was published.
    pub(crate) live: Option<FileId>,
    /// The standby's name and root; `None` in place.
    pub(crate) standby: Option<(String, FileId)>,
    /// What the live tree is called that retires; `None` where it gets the standby's name.
    #[serde(default)]
    pub(crate) retired: Option<String>,
    /// What stays readable after the switch.
    #[serde(default)]
    pub(crate) withdrawn: Option<WithdrawnMark>,
    /// Bytes and files that staging holds for it.
    pub(crate) staged_bytes: u64,
    pub(crate) staged_files: u64,
    /// Seconds since 1970.
    pub(crate) started_at: i64,
}

impl Journal {
    pub(crate) fn load(work: &Dir) -> Result<Option<(Self, PathList)>, Error> {
        let Some(mut journal) = load_json::<Self>(work, PLAN)? else { return Ok(None) };
        if let Some(renumbered) = Renumbered::between(journal.home, work.meta()?.id) {
            let standby = journal.standby.iter_mut().map(|(_, id)| id);
            renumbered.apply(journal.live.iter_mut().chain(standby));
        }
        Ok(Some((journal, load_paths(work, PLAN_PATHS)?.unwrap_or_default())))
    }

    /// The paths first: a journal without its paths would promise what it cannot keep.
    pub(crate) fn save(&self, work: &Dir, paths: &PathList) -> Result<(), Error> {
        record::save_paths(work, PLAN_PATHS, paths)?;
        save_json(work, PLAN, self)
    }

    pub(crate) fn remove(work: &Dir) -> Result<(), Error> {
        record::remove(work, PLAN)?;
        Ok(record::remove(work, PLAN_PATHS)?)
    }
}

pub(crate) fn load_paths(work: &Dir, name: &str) -> Result<Option<PathList>, Error> {
    let list = record::load_paths(work, name)?.transpose();
    list.map_err(|error| damaged(work, name, error))
}

pub(crate) fn save_paths(work: &Dir, name: &str, list: &PathList) -> Result<(), Error> {
    Ok(record::save_paths(work, name, list)?)
}

fn load_json<T: serde::de::DeserializeOwned>(work: &Dir, name: &str) -> Result<Option<T>, Error> {
    match record::load(work, name)? {
        None => Ok(None),
        Some(body) => match serde_json::from_slice(&body) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(damaged(work, name, error)),
        },
    }
}

fn save_json<T: Serialize>(work: &Dir, name: &str, value: &T) -> Result<(), Error> {
    let body = serde_json::to_vec_pretty(value).map_err(|error| damaged(work, name, error))?;
    Ok(record::save(work, name, &body)?)
}

fn damaged(work: &Dir, name: &str, why: impl std::fmt::Display) -> Error {
    Error::Damaged { path: work.path().join(name), why: why.to_string() }
}
