//! Further points: what is published is brought there before it is announced, the pointer moves
//! after that, and what nobody needs any longer goes after a while.

use std::{collections::HashSet, time::Duration};

use protocol::{
    digest::Digest,
    dsse::Envelope,
    generation::Version,
    latest::{self, Pointer},
    name::TreeName,
};
use tracing::{info, warn};

use super::{Error, read_statement, worker::Worker};
use crate::{
    generate,
    points::{self, Aliases, Directory, Form, Further, KeySource, Kind, Object, Point},
    retention::{self, Needed, Unneeded},
    state::error_chain,
};

impl Worker {
    /// Brings to every further point what it lacks: of the kept generations, and `new` besides, which
    /// `version` needs, announced or about to be. A point that does not take it is passed over, unless
    /// it is required; it gets everything with the next attempt.
    pub(super) fn carry(
        &mut self,
        new: &[(Kind, Digest)],
        version: Option<Version>,
    ) -> Result<(), Error> {
        let places = self.state.places.clone();
        let tree = self.tree.clone();
        let mut wanted = retention::needed_in_order(&places, &tree, &self.standing()?.ledger)?;
        let known: HashSet<_> = wanted.iter().map(|known| (known.kind, known.name)).collect();
        for &(kind, name) in new.iter().filter(|new| !known.contains(new)) {
            wanted.extend(version.map(|since| Needed { kind, name, since }));
        }
        // Content, then manifests: whoever finds a manifest finds what it names.
        wanted.sort_by_key(|needed| Kind::ALL.iter().position(|kind| *kind == needed.kind));
        let mut behind = false;
        for further in places.further.iter().filter(|further| further.takes(&tree)) {
            // What is private goes nowhere while it cannot be encrypted: each point is behind then.
            let form = self.form();
            match form.and_then(|form| further.bring(&places.origin, &tree, &form, &wanted)) {
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
        // Nobody but the pointer can tell agents of packs while the coordinator is gone.
        let is_autonomous = self.order().is_ok_and(|(order, _)| order.autonomous);
        let most = if is_autonomous { latest::MAX_OFFERS } else { 0 };
        let ledger = &self.standing()?.ledger;
        let Some(newest) = ledger.newest() else { return Ok(()) };
        let offers = ledger.offers_to_newest(most).into_iter().map(|kept| kept.envelope.clone());
        let pointer = Pointer { statement: newest.statement.clone(), offers: offers.collect() };
        let pointer = serde_json::to_vec(&pointer).map_err(std::io::Error::other)?;
        let version = newest.version;
        let wanted = retention::needed_in_order(&places, &tree, ledger)?;
        // A publisher that lost its data must not take readers back; a higher epoch may, and so may
        // whoever knows that what is there was not taken.
        let (read_tree, refused) = (tree.clone(), ledger.clone());
        let may_replace = move |there: &[u8]| {
            let envelope: Option<Envelope> = serde_json::from_slice(there).ok();
            let statement =
                envelope.and_then(|envelope| read_statement(&read_tree, &envelope).ok());
            statement.is_none_or(|s| {
                let there = Version { epoch: s.epoch, generation: s.generation };
                there <= version || refused.is_refused(there, &s.manifest)
            })
        };
        let own: &Directory = &places.origin;
        if let Err(error) = own.move_latest(&tree, &pointer, &may_replace) {
            warn!(%tree, %error, "the pointer of the publisher's own store is not moved");
        }
        for further in places.further.iter().filter(|further| further.takes(&tree)) {
            let moved = self.form().and_then(|form| {
                let move_to = MovePointer { tree: &tree, form: &form, wanted: &wanted };
                move_to.at(further, &pointer, &may_replace)
            });
            if let Err(error) = moved {
                let error = error_chain(&error);
                warn!(%tree, error, "the pointer of a publication point is not moved");
            }
        }
        Ok(())
    }

    /// Has every further point catch up, moves pointers, and removes what nobody needs any longer.
    pub(super) fn catch_up(&mut self) -> Result<(), Error> {
        self.carry(&[], None)?;
        self.point_to_newest()?;
        let state = std::sync::Arc::clone(&self.state);
        let tree = self.tree.clone();
        let form = match state.places.further.iter().any(|further| further.takes(&tree)) {
            true => self.form().map_err(generate::Error::Point)?,
            false => Form::Plain,
        };
        self.withdraw_plain(&form);
        let now = state.now();
        let grace = state.config.collect_after.duration();
        let standing = self.standing()?;
        let mut unneeded = Unneeded::load(&standing.dir)?;
        unneeded.collect(&state.places, &tree, &form, &standing.ledger, (now, grace))?;
        unneeded.save(&standing.dir)?;
        self.collect_former(now, grace)
    }

    /// The form that the tree has at further points, whose name there is on the disk first. Blocks while
    /// a private tree's names are asked for.
    fn form(&mut self) -> Result<Form, points::Error> {
        let form = self.form_by_order()?;
        let now = self.state.now();
        let failed = |source| points::Error::Io {
            object: format!("the names of tree {}", self.tree),
            point: "the data directory".into(),
            source,
        };
        // Loaded by the attempt before anything is brought anywhere.
        if let Some(standing) = &self.standing {
            let mut aliases = Aliases::load(&standing.dir).map_err(failed)?;
            aliases.set(&standing.dir, form.alias(), now).map_err(failed)?;
        }
        Ok(form)
    }

    /// Removes what lies at points under names that the tree has no longer, since its secret was
    /// exchanged or it is for everybody again, once nobody can be in the middle of reading it.
    fn collect_former(&mut self, now: jiff::Timestamp, grace: Duration) -> Result<(), Error> {
        let (state, tree) = (std::sync::Arc::clone(&self.state), self.tree.clone());
        let standing = self.standing()?;
        let mut aliases = Aliases::load(&standing.dir)?;
        for alias in aliases.outlived(now, grace) {
            let mut gone = true;
            for further in state.places.further.iter().filter(|further| further.takes(&tree)) {
                match further.withdraw(&alias) {
                    Ok(objects) => info!(
                        %tree, point = further.describe(), objects,
                        "removed what lay at a publication point under keys that are no longer used"
                    ),
                    Err(error) => {
                        gone = false;
                        let error = error_chain(&error);
                        warn!(%tree, error, "what was encrypted under former keys is not removed");
                    }
                }
            }
            if gone {
                aliases.forget(&standing.dir, &alias)?;
            }
        }
        Ok(())
    }

    fn form_by_order(&self) -> Result<Form, points::form::Error> {
        // An order that cannot be had says nothing: what was private stays so.
        let order = self.order().ok().map(|(order, _)| order);
        if order.as_ref().is_some_and(|order| !order.private) {
            self.state.private.forget(&self.tree);
            return Ok(Form::Plain);
        }
        let (client, runtime) = (self.state.client.clone(), self.handle.clone());
        let source = KeySource { client, runtime };
        match order {
            Some(order) => self.state.private.form(&self.tree, order.secrets, source),
            None => self.state.private.any_form(&self.tree, source),
        }
    }

    /// Removes what lies at points under the tree's own name from before it was private, at once:
    /// nobody is sent there any longer.
    fn withdraw_plain(&self, form: &Form) {
        if matches!(form, Form::Plain) {
            return;
        }
        let places = &self.state.places;
        for further in places.further.iter().filter(|further| further.takes(&self.tree)) {
            let (tree, point) = (&self.tree, further.describe());
            match further.withdraw(tree) {
                Ok(0) => {}
                Ok(objects) => info!(
                    %tree, point, objects,
                    "removed what lay at a publication point before the tree was private; caches may still have it"
                ),
                Err(error) => {
                    let error = error_chain(&error);
                    warn!(%tree, error, "what a private tree left in plain at a point is not removed");
                }
            }
        }
    }
}

/// Content, then manifest, then pointer: a point that lacks something of a live generation keeps
/// its pointer.
struct MovePointer<'a> {
    tree: &'a TreeName,
    form: &'a Form,
    wanted: &'a [Needed],
}

impl MovePointer<'_> {
    fn at(
        &self,
        further: &Further,
        pointer: &[u8],
        may_replace: &dyn Fn(&[u8]) -> bool,
    ) -> Result<(), points::Error> {
        let Self { tree, form, wanted } = *self;
        let at_points = form.tree(tree);
        let there = further.objects(&at_points)?;
        let is_there = |needed: &Needed| {
            let (kind, name) = (needed.kind, needed.name);
            let named = form.object(&Object { tree: tree.clone(), kind, name });
            there.contains(&(named.kind, named.name))
        };
        if !wanted.iter().all(is_there) {
            return Ok(());
        }
        let pointer = form.pointer(tree, pointer)?;
        further.point_to(&at_points, &pointer, &|there| {
            form.read_pointer(tree, there).is_none_or(|there| may_replace(&there))
        })
    }
}
