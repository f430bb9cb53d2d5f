//! The group of what is published, for servers that read by it.
//!
//! New files, directories and symlinks get it as they are made. A group that is wanted anew is given
//! to all that is there: trees share inodes, and another group of the same file is no other content,
//! so this is the one thing that is changed where it lies. Retired trees have directories of their own
//! with the older group, and are not used again.

use std::ops::ControlFlow;

use super::{Area, Error, marks::TreeState};
use crate::{plan::Plan, switch::cursor::Cursor};

impl Area {
    /// Gives everything that is published from now on this group; what is there already gets it with
    /// the next switch.
    pub fn set_group(&mut self, group: Option<u32>) {
        self.staging.set_group(group);
        self.wanted_group = group;
    }

    /// Gives the wanted group to what is there, where it is another than before.
    pub(super) fn regroup(&mut self, plan: &Plan) -> Result<(), Error> {
        let Some(group) = self.wanted_group.filter(|group| self.marks.group != Some(*group)) else {
            return Ok(());
        };
        if let Some(live) = self.live()? {
            match self.linked_tree()? {
                Some(tree) => self.trees.set_group_of(tree.as_bytes(), group)?,
                None => self.make_parent()?.set_group_of(self.path.name(), group)?,
            }
            let mut live = Cursor::new(live);
            for item in plan.items() {
                let item = item?;
                let path = &item.entry.path;
                if !self.marks.locals.protects(path)
                    && let Some(parent) = live.parent(path)?
                    && parent.stat(path.name())?.is_some_and(|meta| meta.gid != group)
                {
                    parent.set_group_of(path.name(), group)?;
                }
            }
            self.work.sync_fs()?;
        }
        for tree in &mut self.marks.trees {
            tree.state = TreeState::Building;
        }
        let staged = self.staging.dir();
        let mut given = Ok(());
        staged.names(|name| {
            given = staged.set_group_of(name, group);
            if given.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        given?;
        self.marks.group = Some(group);
        self.marks.save(&self.work)
    }
}
