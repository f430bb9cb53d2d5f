//! Renames of published trees whose assignments got other paths.
//!
//! A rename and the note of it cannot happen in one step, so the intention is written down first:
//! after a crash the tree is where it was, where it was to go, or set aside, and its root's device
//! and inode, which the area's marks know, say which.

use std::{collections::BTreeMap, sync::PoisonError};

use filetree::{
    area,
    fs::{Dir, Fs},
};
use protocol::{
    path::TreePath,
    spec::AssignmentName,
    v1::agent::{AssignmentOrder, RunReport},
};
use tokio::task::block_in_place;

use super::{
    Agent,
    names::Forced,
    runs::{Busy, Error, is_due_later},
};
use crate::{
    apply::Site,
    ledger::{self, Record},
    moves::{self, Hop, Move},
    orders::Orders,
};

/// A tree that is set aside, in its assignment's work directory.
const ASIDE: &[u8] = b"moving";

/// Why a tree was not renamed.
type Failed = (AssignmentName, Error);

impl Agent {
    /// Renames what has another path now, and gives the reports of what failed.
    pub(super) fn move_and_report(&self, forced: &Forced) -> Vec<RunReport> {
        let is_turn = |record: &Record| {
            forced.includes(&record.name) || record.failures == 0 || !is_due_later(record)
        };
        match block_in_place(|| self.move_trees(is_turn)) {
            Ok(failed) => {
                failed.iter().map(|(name, error)| self.failed(name, error, false)).collect()
            }
            Err(error) => {
                tracing::error!(error = crate::chain(&error), "the ledger cannot be read");
                Vec::new()
            }
        }
    }

    /// Renames every tree whose assignment has another path now, as far as nothing is in the way.
    /// `may_begin` says of an assignment whether it is its turn. Gives what failed.
    fn move_trees(
        &self,
        may_begin: impl Fn(&Record) -> bool,
    ) -> Result<Vec<Failed>, ledger::Error> {
        let _one = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(orders) = self.orders() else { return Ok(Vec::new()) };
        let records = self.ledger.records()?;
        let mut turns: BTreeMap<AssignmentName, Turn<'_>> = BTreeMap::new();
        let mut failed = Vec::new();
        for record in &records {
            let Some(to) = destination(record, &orders).filter(|_| may_begin(record)) else {
                continue;
            };
            // What is being worked on is renamed when its run has ended.
            let Some(busy) = Busy::take(self, &record.name) else { continue };
            match self.find_tree(record, to) {
                Ok(found) => {
                    let turn = Turn { record: record.clone(), to: to.clone(), found, _busy: busy };
                    turns.insert(record.name.clone(), turn);
                }
                Err(error) => failed.push((record.name.clone(), error)),
            }
        }
        if turns.is_empty() {
            return Ok(failed);
        }
        let stays = |record: &&Record| {
            let lies_there = record.held.is_some() || self.is_busy(&record.name);
            lies_there && !record.unassigned && !turns.contains_key(&record.name)
        };
        let places = |record: &Record| {
            let places = [Some(record.path.clone()), record.moving.clone()];
            places.into_iter().flatten().map(|path| (record.name.clone(), path)).collect::<Vec<_>>()
        };
        let taken: Vec<_> = records.iter().filter(stays).flat_map(places).collect();
        let wanted = turns.iter().map(|(name, turn)| Move {
            name: name.clone(),
            from: turn.found.path().cloned(),
            to: turn.to.clone(),
        });
        let (hops, blocked) = moves::order(wanted.collect(), &taken);
        for hop in hops {
            let (Hop::Home(name) | Hop::Aside(name)) = &hop;
            let Some(turn) = turns.get_mut(name) else { continue };
            let done = match &hop {
                Hop::Home(_) => self.bring_home(turn),
                Hop::Aside(_) => self.set_aside(turn),
            };
            if let Err(error) = done {
                // What was to follow may have counted on the place that is still taken.
                failed.push((name.clone(), error));
                return Ok(failed);
            }
        }
        for moves::Blocked { name, by } in blocked {
            let Some(turn) = turns.get(&name) else { continue };
            tracing::info!(assignment = %name, to = %turn.to, %by, "the rename waits for the other tree");
        }
        Ok(failed)
    }

    /// Whose tree is still to be moved away from where this assignment is to be published.
    pub(super) fn in_the_way(
        &self,
        order: &AssignmentOrder,
        orders: &Orders,
    ) -> Result<Option<AssignmentName>, ledger::Error> {
        let records = self.ledger.records()?;
        let mut others = records.iter().filter(|record| {
            record.name != order.name
                && destination(record, orders).is_some()
                && moves::meets(&record.path, &order.path)
        });
        Ok(others.next().map(|record| record.name.clone()))
    }

    /// Finds a tree that is to be moved, after ending what a crash interrupted in it.
    fn find_tree(&self, record: &Record, to: &TreePath) -> Result<Found, Error> {
        let failed = |source| failed(&record.path, to, source);
        let fs = Fs::disk();
        let name = record.name.to_string();
        let publish = fs.create_root(&self.config.publish()).map_err(failed)?;
        let work = fs.create_root(&self.config.work()).map_err(failed)?;
        let work = work.ensure_dir(name.as_bytes(), 0o700).map_err(failed)?;
        if work.stat(ASIDE).map_err(failed)?.is_some() {
            return Ok(Found::Aside);
        }
        let root_id = |path| {
            let id = area::published_root(&publish, path);
            id.map_err(|error| Error::Apply(error.into()))
        };
        let there = root_id(&record.path)?;
        if there.is_some() && record.moving.is_none() {
            // An interrupted switch is ended where it began: only there is it recognized. A link
            // would not lead to its tree from elsewhere: the tree goes, and gets another link there.
            let mut site = Site::open(&self.config, &name, &record.path)?;
            site.area_mut().be_directory().map_err(crate::apply::Error::from)?;
            return Ok(Found::At(record.path.clone()));
        }
        // Interrupted here before, or renamed by hand: the root itself says where it lies.
        let ours = area::live_root(&work).map_err(crate::apply::Error::from)?;
        for path in record.moving.iter().chain([&record.path, to]) {
            let there = root_id(path)?;
            if there.is_some() && there == ours {
                return Ok(Found::At(path.clone()));
            }
        }
        Ok(Found::Nowhere)
    }

    fn bring_home(&self, turn: &mut Turn<'_>) -> Result<(), Error> {
        let (from, to) = (turn.record.path.clone(), turn.to.clone());
        let failed = |source| failed(&from, &to, source);
        self.intend(turn)?;
        let name = &turn.record.name;
        let publish = Fs::disk().open_root(&self.config.publish()).map_err(failed)?;
        let source = match &turn.found {
            Found::Aside => Some((self.work_of(name).map_err(failed)?, ASIDE)),
            Found::At(path) if *path == to => None,
            Found::At(path) => Some((publish.open_parent(path).map_err(failed)?, path.name())),
            Found::Nowhere => None,
        };
        if let Some((old, old_name)) = source {
            let mut parent = publish.reopen().map_err(failed)?;
            if let Some(above) = to.parent() {
                for component in above.components() {
                    parent = parent.ensure_dir(component, 0o755).map_err(failed)?;
                }
            }
            // Directories that trees left behind hold nothing that could be lost.
            remove_if_empty(&parent, to.name()).map_err(failed)?;
            old.rename_new(old_name, &parent, to.name()).map_err(failed)?;
            parent.sync().and_then(|()| old.sync()).map_err(failed)?;
        }
        let mut record = turn.record.clone();
        (record.path, record.moving) = (to.clone(), None);
        self.ledger.set_record(&record)?;
        tracing::info!(assignment = %record.name, %from, %to, "moved");
        turn.record = record;
        Ok(())
    }

    fn set_aside(&self, turn: &mut Turn<'_>) -> Result<(), Error> {
        let Found::At(path) = turn.found.clone() else { return Ok(()) };
        self.intend(turn)?;
        let failed = |source| failed(&path, &turn.to, source);
        let publish = Fs::disk().open_root(&self.config.publish()).map_err(failed)?;
        let old = publish.open_parent(&path).map_err(failed)?;
        let work = self.work_of(&turn.record.name).map_err(failed)?;
        old.rename_new(path.name(), &work, ASIDE).map_err(failed)?;
        work.sync().and_then(|()| old.sync()).map_err(failed)?;
        turn.found = Found::Aside;
        Ok(())
    }

    /// Writes down where a tree is going, before it goes.
    fn intend(&self, turn: &mut Turn<'_>) -> Result<(), ledger::Error> {
        if turn.record.moving.as_ref() == Some(&turn.to) {
            return Ok(());
        }
        // Where it really lies, too: an intention that has changed must not lose sight of it.
        if let Found::At(path) = &turn.found {
            turn.record.path = path.clone();
        }
        turn.record.moving = Some(turn.to.clone());
        self.ledger.set_record(&turn.record)
    }

    fn work_of(&self, name: &AssignmentName) -> filetree::fs::Result<Dir> {
        Fs::disk().open_root(&self.config.work())?.open_child(name.to_string().as_bytes())
    }
}

/// A tree whose turn it is, kept from all other runs.
struct Turn<'a> {
    record: Record,
    to: TreePath,
    found: Found,
    _busy: Busy<'a>,
}

#[derive(Debug, Clone)]
enum Found {
    At(TreePath),
    Aside,
    Nowhere,
}

impl Found {
    fn path(&self) -> Option<&TreePath> {
        match self {
            Self::At(path) => Some(path),
            Self::Aside | Self::Nowhere => None,
        }
    }
}

/// Where a tree is to be renamed to. A rename that was begun is ended, too, when the assignment was
/// stopped or ended meanwhile: its files stay published.
fn destination<'o>(record: &'o Record, orders: &'o Orders) -> Option<&'o TreePath> {
    let Some(order) = orders.order(&record.name) else { return record.moving.as_ref() };
    let elsewhere = record.path != order.path && record.held.is_some();
    let is_wanted = elsewhere && order.stopped.is_none() && !order.dry_run_only;
    (is_wanted || record.moving.is_some()).then_some(&order.path)
}

fn failed(from: &TreePath, to: &TreePath, source: filetree::fs::Error) -> Error {
    Error::Move { from: from.clone(), to: to.clone(), source }
}

/// Removes a directory that holds nothing but such directories; anything else stays.
fn remove_if_empty(parent: &Dir, name: &[u8]) -> filetree::fs::Result<bool> {
    let Ok(dir) = parent.open_child(name) else { return Ok(false) };
    for entry in dir.entries()? {
        if !remove_if_empty(&dir, &entry.name)? {
            return Ok(false);
        }
    }
    parent.remove_dir(name).map(|()| true)
}
