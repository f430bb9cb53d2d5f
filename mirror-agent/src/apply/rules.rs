//! Through which rules and modes a site keeps a tree, and how that is written down beside it.

use std::borrow::Cow;

use filetree::plan::Modes;
use protocol::{
    filter::{Filter, Level},
    manifest::{self, Entries, Entry, EntryKind},
    path::TreePath,
    symlinks::Symlinks,
    v1::agent::{AssignmentOrder, VersionsOrder},
};
use serde::{Deserialize, Serialize};

use super::Error;
use crate::modes;

/// Through which rules and modes a manifest is kept at this site.
#[derive(Debug, Clone)]
pub struct Rules {
    /// What is kept.
    pub filter: Filter,
    /// What becomes of modes.
    pub modes: Modes,
    /// Which symbolic links are kept.
    pub symlinks: Symlinks,
    pub(super) note: Note,
}

/// What is written beside an applied generation, so that it can be seen again as it was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Note {
    pub(super) filter: Vec<Level>,
    #[serde(default)]
    pub(super) chmod: Option<String>,
    #[serde(default)]
    pub(super) group: Option<String>,
    #[serde(default)]
    pub(super) observed: bool,
    /// Where the path is a directory of versions: how they are chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) versions: Option<VersionsOrder>,
    /// Of one version: its name, below which the rules are asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) below: Option<TreePath>,
    /// What was applied before there was a choice has all.
    #[serde(default = "all_links")]
    pub(super) symlinks: Symlinks,
}

const fn all_links() -> Symlinks {
    Symlinks::All
}

impl Rules {
    /// What an order says.
    pub fn of(order: &AssignmentOrder, observed: bool) -> Result<Self, Error> {
        Self::read(Note {
            filter: order.filter.clone(),
            chmod: order.chmod.clone(),
            group: order.group.clone(),
            observed,
            versions: order.versions.clone(),
            below: None,
            symlinks: order.symlinks,
        })
    }

    /// The same rules as they are for one version, whose paths begin below its name.
    pub fn of_version(&self, name: &TreePath) -> Self {
        let note = Note { versions: None, below: Some(name.clone()), ..self.note.clone() };
        Self { note, ..self.clone() }
    }

    /// The version that these rules are for, where they are for one.
    pub fn version(&self) -> Option<&TreePath> {
        self.note.below.as_ref()
    }

    /// How the versions of a directory of versions are chosen; `None` where the path is one unit.
    pub fn versions(&self) -> Option<&VersionsOrder> {
        self.note.versions.as_ref()
    }

    /// What becomes of the mode of a directory.
    pub fn mode_of_dir(&self, mode: u32) -> u32 {
        (mode & !self.modes.dir_clear) | self.modes.dir_set
    }

    /// Decides about this entry alone, its parents taken as kept.
    pub fn decides(&self, path: &TreePath, is_dir: bool) -> bool {
        self.in_tree(path).is_some_and(|path| self.filter.decide(&path, is_dir).kept)
    }

    /// Whether an entry and every directory above it is kept.
    pub fn keeps(&self, path: &TreePath, is_dir: bool) -> bool {
        self.in_tree(path).is_some_and(|path| self.filter.keeps(&path, is_dir))
    }

    /// Whether an entry that the upstream does not have must stay.
    pub fn protects(&self, path: &TreePath, is_dir: bool) -> bool {
        self.in_tree(path).is_some_and(|path| self.filter.protects(&path, is_dir))
    }

    /// The path as the rules name it; `None` where it would be too long to be one.
    fn in_tree<'p>(&self, path: &'p TreePath) -> Option<Cow<'p, TreePath>> {
        match &self.note.below {
            None => Some(Cow::Borrowed(path)),
            Some(version) => version.child(path.as_bytes()).ok().map(Cow::Owned),
        }
    }

    pub(super) fn read(note: Note) -> Result<Self, Error> {
        Ok(Self {
            filter: Filter::build(&note.filter)?,
            modes: modes::parse(note.chmod.as_deref())?,
            symlinks: note.symlinks,
            note,
        })
    }

    /// Whether a manifest looks the same through both.
    pub fn same_as(&self, other: &Self) -> bool {
        self.filter == other.filter
            && self.modes == other.modes
            && self.note.group == other.note.group
            && self.symlinks == other.symlinks
            && self.note.versions == other.note.versions
            && self.note.below == other.note.below
    }

    /// Whether a link is one that this site may have; anything else is. A link of a version may not
    /// leave it: versions come and go by themselves.
    pub fn carries(&self, entry: &Entry) -> bool {
        match &entry.kind {
            EntryKind::Symlink { target } => self.symlinks.allows(&entry.path, target),
            EntryKind::File { .. } | EntryKind::Dir => true,
        }
    }

    /// Links of a manifest that are not kept, though the filter keeps them.
    pub fn refused_links(&self, manifest: &dyn Entries) -> Result<Vec<TreePath>, manifest::Error> {
        let mut refused = Vec::new();
        for entry in manifest.each() {
            let entry = entry?;
            if !self.carries(&entry) && self.keeps(&entry.path, false) {
                refused.push(entry.path);
            }
        }
        Ok(refused)
    }

    /// Files that are kept, and their content bytes.
    pub fn sums(&self, manifest: &dyn Entries) -> Result<(u64, u64), manifest::Error> {
        manifest.each().try_fold((0, 0), |(files, bytes), entry| {
            let entry = entry?;
            let is_counted = entry.is_file() && self.keeps(&entry.path, false);
            Ok(if is_counted { (files + 1, bytes + entry.size()) } else { (files, bytes) })
        })
    }
}
