//! Further points: what is published is brought there before it is announced, the pointer moves
//! after that, and what nobody needs any longer goes after a while.

use protocol::{digest::Digest, dsse::Envelope, name::TreeName};
use tracing::{info, warn};

use super::{Error, read_statement, worker::Worker};
use crate::{
    generate,
    points::{Directory, Further, Kind, Point},
    retention::{self, Unneeded},
    state::error_chain,
};

impl Worker {
    /// Brings to every further point what it lacks: of the kept generations, and `new` besides,
    /// which is about to be announced. A point that does not take it is passed over, unless it is
    /// required; it gets everything with the next attempt.
    pub(super) fn carry(&mut self, new: &[(Kind, Digest)]) -> Result<(), Error> {
        let places = self.state.places.clone();
        let tree = self.tree.clone();
        let mut wanted = retention::needed_in_order(&places, &tree, &self.standing()?.ledger)?;
        wanted.extend(new.iter().filter(|new| !wanted.contains(new)).copied().collect::<Vec<_>>());
        // Content, then manifests: whoever finds a manifest finds what it names.
        wanted.sort_by_key(|(kind, _)| Kind::ALL.iter().position(|k| k == kind));
        let mut behind = false;
        for further in places.further.iter().filter(|further| further.takes(&tree)) {
            match further.bring(&places.origin, &tree, &wanted) {
                Ok((0, _)) => {}
                Ok((objects, bytes)) => {
                    let point = further.describe();
                    info!(%tree, point, objects, bytes, "brought to a publication point");
                }
                Err(error) if further.is_required() => {
                    self.behind = self.behind.saturating_add(1);
                    return Err(generate::Error::Point(error).into());
                }
                Err(error) => {
                    behind = true;
                    let error = error_chain(&error);
                    warn!(
                        %tree, error,
                        "a publication point is behind; agents that ask it take the next one, and it is tried again"
                    );
                }
            }
        }
        self.behind = if behind { self.behind.saturating_add(1) } else { 0 };
        Ok(())
    }

    /// Moves the pointer at every point that has all that it leads to.
    pub(super) fn point_to_newest(&mut self) -> Result<(), Error> {
        let places = self.state.places.clone();
        let tree = self.tree.clone();
        let ledger = &self.standing()?.ledger;
        let Some(newest) = ledger.newest() else { return Ok(()) };
        let pointer = serde_json::to_vec(&newest.statement).map_err(std::io::Error::other)?;
        let version = newest.version;
        let wanted = retention::needed_in_order(&places, &tree, ledger)?;
        // A publisher that lost its data must not take readers back; a higher epoch may.
        let read_tree = tree.clone();
        let may_replace = move |there: &[u8]| {
            let envelope: Option<Envelope> = serde_json::from_slice(there).ok();
            let statement =
                envelope.and_then(|envelope| read_statement(&read_tree, &envelope).ok());
            statement.is_none_or(|s| (s.epoch, s.generation) <= (version.epoch, version.generation))
        };
        let own: &Directory = &places.origin;
        if let Err(error) = own.move_latest(&tree, &pointer, &may_replace) {
            warn!(%tree, %error, "the pointer of the publisher's own store is not moved");
        }
        for further in places.further.iter().filter(|further| further.takes(&tree)) {
            if let Err(error) = move_pointer(further, &tree, &wanted, &pointer, &may_replace) {
                let error = error_chain(&error);
                warn!(%tree, error, "the pointer of a publication point is not moved");
            }
        }
        Ok(())
    }

    /// Has every further point catch up, moves pointers, and removes what nobody needs any longer.
    pub(super) fn catch_up(&mut self) -> Result<(), Error> {
        self.carry(&[])?;
        self.point_to_newest()?;
        let state = std::sync::Arc::clone(&self.state);
        let tree = self.tree.clone();
        let now = state.now();
        let grace = state.config.collect_after.duration();
        let standing = self.standing()?;
        let mut unneeded = Unneeded::load(&standing.dir)?;
        unneeded.collect(&state.places, &tree, &standing.ledger, now, grace)?;
        unneeded.save(&standing.dir)?;
        Ok(())
    }
}

/// Content, then manifest, then pointer: a point that lacks something of a live generation keeps
/// its pointer.
fn move_pointer(
    further: &Further,
    tree: &TreeName,
    wanted: &[(Kind, Digest)],
    pointer: &[u8],
    may_replace: &dyn Fn(&[u8]) -> bool,
) -> Result<(), crate::points::Error> {
    let there = further.objects(tree)?;
    if wanted.iter().all(|wanted| there.contains(wanted)) {
        further.point_to(tree, pointer, may_replace)?;
    }
    Ok(())
}
