//! Ends what a crash interrupted.
//!
//! What readers see is the truth and the marks are a hint: the journal names the live tree and the
//! standby by device and inode, so whichever of the two lies at the published path says whether
//! the exchange happened. If neither does, nothing is guessed.

use super::{
    Area, Error, Target,
    marks::{Journal, TreeState},
};
use crate::switch::{Mode, exchange};

/// What opening an area found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// Everything was in order.
    Clean,
    /// The exchange had happened; what follows it was done now.
    Finished(Target),
    /// The exchange had not happened; the older generation is still published, whole.
    NotSwitched(Target),
    /// An in-place switch was interrupted: each file is whole, old or new; the next switch ends it.
    Unfinished(Target),
    /// The published directory is not one that this agent put there; it has to be adopted.
    Foreign,
    /// What was published is gone.
    Gone,
}

pub(super) fn recover(area: &mut Area) -> Result<Recovery, Error> {
    let live = area.live_id()?;
    let Some((journal, paths)) = Journal::load(&area.work)? else {
        return match (live, area.marks.live) {
            (now, marked) if now == marked => Ok(Recovery::Clean),
            // Made a moment ago, by us, to have a place for the work directory.
            (Some(made), None) if area.fixed.is_some() && is_empty(area)? => {
                area.marks.live = Some(made);
                area.marks.save(&area.work)?;
                Ok(Recovery::Clean)
            }
            (None, Some(_)) => disown(area, Recovery::Gone),
            _ => disown(area, Recovery::Foreign),
        };
    };
    let target = journal.to.clone();
    if journal.mode == Mode::InPlace {
        return if live == journal.live {
            area.unsure = paths;
            Ok(Recovery::Unfinished(target))
        } else {
            Journal::remove(&area.work)?;
            disown(area, Recovery::Foreign)
        };
    }
    let standby = journal.standby.as_ref().map(|(_, id)| *id);
    if live.is_some() && live == standby {
        let now = journal.started_at;
        exchange::finish(area, &journal, &paths, now, true)?;
        Ok(Recovery::Finished(target))
    } else if live == journal.live {
        // A standby that was being brought forward keeps its list, which already names what was
        // about to change; a twin that was being linked is still marked as unfinished.
        Journal::remove(&area.work)?;
        Ok(Recovery::NotSwitched(target))
    } else {
        Journal::remove(&area.work)?;
        disown(area, Recovery::Foreign)
    }
}

/// Forgets what is applied: the next switch starts from what is really there. The trees below the
/// work directory are related to a live tree that is no longer there.
fn disown(area: &mut Area, why: Recovery) -> Result<Recovery, Error> {
    if area.marks.live.is_some() || area.marks.applied.is_some() {
        // Behind a link, what was published is still there; and a link may lead to a spare tree now.
        let live = area.linked_tree()?;
        area.marks.trees.retain(|tree| Some(&tree.name) != live.as_ref());
        area.keep_former_live()?;
        area.marks.live = None;
        area.marks.applied = None;
        area.marks.withdrawn = None;
        for tree in &mut area.marks.trees {
            tree.state = TreeState::Building;
        }
        area.marks.save(&area.work)?;
    }
    Ok(why)
}

/// Whether nothing but our own work directory lies in the live tree.
fn is_empty(area: &Area) -> Result<bool, Error> {
    let Some(live) = area.live()? else { return Ok(true) };
    Ok(live.entries()?.iter().all(|entry| *entry.name == *crate::safe_path::WORK_DIR))
}
