//! Going on without the coordinator, where a tree's definition lets its publisher.
//!
//! Numbers belong to the coordinator, so a number that was given out while it could not be reached
//! is told when it is back, in order; and one that it does not take is never used again. What was
//! signed is on the disk before anybody can have heard of it: if an answer is lost, exactly that
//! generation is told again, or pointed to, and no number ever has two manifests.

use certs::signing;
use jiff::{SignedDuration, Timestamp};
use protocol::{
    client,
    error::ProblemKind,
    generation::{Generation, Version},
    statement::{Claim as _, Statement},
    v1::publisher::TreeOrder,
};
use tracing::{error, info, warn};

use super::{
    Error, Outcome,
    attempt::{Base, Progress},
    read_statement,
    worker::{Known, Worker},
};
use crate::{
    ledger::{Fate, Kept, KeptOffer},
    orders::Silence,
    state::error_chain,
};

/// Asked in vain so often, a coordinator can be gone; once may be anything.
const FAILURES: u32 = 3;
/// A clock that was set back by more than this cannot tell how old orders are.
const SET_BACK: SignedDuration = SignedDuration::from_mins(5);

/// Whether a publisher goes on alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    /// It waits for the coordinator, as for every other tree.
    Waits,
    /// It goes on; the coordinator was not reached since then.
    Since(Timestamp),
    /// It went on for as long as it may, or cannot tell.
    TooLong,
}

/// Whether a tree's publisher goes on alone, `now`, by orders that were last `confirmed` at that time.
fn judge(
    order: &TreeOrder,
    silence: Option<Silence>,
    (confirmed, now): (Timestamp, Timestamp),
    (after, most): (std::time::Duration, std::time::Duration),
) -> Leave {
    let Some(silence) = silence.filter(|_| order.autonomous && order.rules.is_some()) else {
        return Leave::Waits;
    };
    if silence.lasts < after || silence.failures < FAILURES {
        return Leave::Waits;
    }
    let age = now.duration_since(confirmed);
    let most_by_clock = SignedDuration::try_from(most).unwrap_or(SignedDuration::MAX);
    if age > most_by_clock || age < -SET_BACK || silence.lasts > most {
        return Leave::TooLong;
    }
    Leave::Since(silence.since)
}

impl Worker {
    /// Finds whether this attempt waits for the coordinator or goes on alone.
    pub(super) fn find_alone(&mut self, order: &mut TreeOrder) -> Result<(), Error> {
        let state = &self.state;
        let confirmed = self.following.borrow().as_ref().map(|orders| orders.confirmed);
        let Some(confirmed) = confirmed else { return Ok(()) };
        let (after, most) = (&state.config.autonomous_after, &state.config.autonomous_for);
        let limits = (after.duration(), most.duration());
        let before = self.alone;
        self.alone = match judge(order, state.orders.silence(), (confirmed, state.now()), limits) {
            Leave::Waits => None,
            // Nobody could connect to read what is pointed to, nor would any agent believe it.
            Leave::Since(_) if state.identity.has_ended() => None,
            Leave::Since(since) => Some(since),
            Leave::TooLong => {
                self.alone = None;
                return Err(Error::TooLongAlone { heard: confirmed, most: *most });
            }
        };
        if let (None, Some(since)) = (before, self.alone) {
            warn!(
                tree = %self.tree,
                "the coordinator was not reached since {since}; this tree is autonomous, so new \
                 generations are pointed to without it, and it is told when it is back"
            );
        }
        if self.alone.is_some() {
            // An approval is for one step and counts on the coordinator's word alone: agents would
            // not follow it.
            order.approved.clear();
        }
        Ok(())
    }

    /// What stands against a tree's going on alone with something new.
    pub(super) fn check_alone(&self, order: &TreeOrder, base: Option<&Base>) -> Result<(), Error> {
        let follows = base.is_some_and(|base| base.statement.epoch == order.epoch);
        if self.alone.is_some() && !follows {
            return Err(Error::FirstAlone(self.tree.clone()));
        }
        Ok(())
    }

    /// The number of the next generation, and the number that it has to be above because that was
    /// pointed to and not taken.
    pub(super) fn next_number(
        &self,
        order: &TreeOrder,
        base: Option<&Base>,
    ) -> (Generation, Option<Generation>) {
        let same_epoch = base.filter(|base| base.statement.epoch == order.epoch);
        let next = same_epoch.map_or(Generation(1), |base| base.statement.generation.next());
        let refused = self.standing.as_ref().and_then(|it| it.ledger.refused(order.epoch));
        match refused.filter(|refused| *refused >= next) {
            Some(refused) => (refused.next(), Some(refused)),
            None => (next, None),
        }
    }

    /// What the coordinator took and has forgotten, by orders that are not older than what it took
    /// last: agents that hold it follow nothing below it. Packs that lead there are offered anew.
    fn forgotten(&mut self, order: &TreeOrder, known: Known) -> Result<Vec<Kept>, Error> {
        if known < self.accepted {
            return Ok(Vec::new());
        }
        let current = order.current.as_ref();
        let current = current.map(|envelope| read_statement(&self.tree, envelope)).transpose()?;
        let current = current.map(|it| Version { epoch: it.epoch, generation: it.generation });
        let standing = self.standing()?;
        let forgotten: Vec<Kept> =
            standing.ledger.forgotten(order.epoch, current).cloned().collect();
        for offer in &mut standing.ledger.offers {
            if forgotten.iter().any(|kept| kept.manifest == offer.offer.to) {
                offer.announced = false;
            }
        }
        if let (Some(first), Some(last)) = (forgotten.first(), forgotten.last()) {
            warn!(
                tree = %self.tree, first = %first.version, last = %last.version,
                "the coordinator took these and does not know them any more (was it restored from \
                 a backup?); it is told again"
            );
        }
        Ok(forgotten)
    }

    /// Has the coordinator told, in order, of what was pointed to without it, after what it took
    /// before and has forgotten. Whether it said no to any: then all is to be looked at anew.
    pub(super) fn tell_behind(&mut self, order: &TreeOrder, known: Known) -> Result<bool, Error> {
        let mut untold = self.forgotten(order, known)?;
        untold.extend(self.standing()?.ledger.untold().cloned());
        let (Some(first), Some(last)) = (untold.first(), untold.last()) else { return Ok(false) };
        info!(
            tree = %self.tree, first = %first.version, last = %last.version,
            "telling the coordinator what it does not know"
        );
        self.announce_offers();
        for kept in &untold {
            let told = self.state.client.announce_statement(&self.tree, &kept.statement);
            match self.handle.block_on(told) {
                Ok(accepted) => {
                    self.accepted = self.known(accepted.revision);
                    let standing = self.standing()?;
                    let known = &mut standing.ledger.generations;
                    for known in known.iter_mut().filter(|known| known.version == kept.version) {
                        known.fate = Fate::Taken;
                    }
                    standing.ledger.save(&standing.dir)?;
                }
                Err(refusal) if is_judged(&refusal) => {
                    let reason = error_chain(&refusal);
                    error!(
                        tree = %self.tree, from = %kept.version, to = %last.version, reason,
                        "the coordinator does not take what sites may have followed already; they \
                         keep it until the next generation, which gets a higher number"
                    );
                    let standing = self.standing()?;
                    standing.ledger.give_up(kept.version);
                    (standing.prepared, standing.packs) = (None, None);
                    standing.ledger.save(&standing.dir)?;
                    self.handle.block_on(self.state.orders.refresh())?;
                    self.serve()?;
                    self.point_to_newest()?;
                    return Ok(true);
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.serve()?;
        Ok(false)
    }

    /// Concludes what an earlier attempt has signed and could not bring to its end.
    pub(super) fn conclude_sent(&mut self, order: &TreeOrder) -> Result<Option<Progress>, Error> {
        let Some(mut sent) = self.standing()?.ledger.sent.clone() else { return Ok(None) };
        let mut statement = read_statement(&self.tree, &sent.kept.statement)?;
        if let Some(since) = self.alone {
            let rules = statement.basis.map(|basis| basis.rules);
            let is_rejected = order.rejected.contains(&statement.manifest);
            if rules != order.rules || statement.epoch != order.epoch || is_rejected {
                // The coordinator may have taken it, so its number stays with it.
                self.set_aside(sent.kept)?;
                return Ok(None);
            }
            if statement.guard.approved_by.is_some() {
                return Err(Error::ApprovedAlone(self.tree.clone()));
            }
            if let Some(basis) = statement.basis.as_mut().filter(|basis| basis.alone.is_none()) {
                // The same generation, of which the coordinator can tell that it was pointed to.
                basis.alone = Some(since);
                let key = &self.state.identity.current().signing_key;
                sent.kept.statement = signing::sign_json(key, Statement::PAYLOAD_TYPE, &statement)?;
                let standing = self.standing()?;
                standing.ledger.sent = Some(sent.clone());
                standing.ledger.save(&standing.dir)?;
            }
        }
        self.conclude(order, sent.kept, sent.packs).map(|_| Some(Progress::Again))
    }

    /// Uses up the number of what was signed and is neither announced nor pointed to any more.
    pub(super) fn set_aside(&mut self, kept: Kept) -> Result<(), Error> {
        let standing = self.standing()?;
        standing.ledger.sent = None;
        (standing.prepared, standing.packs) = (None, None);
        standing.ledger.generations.insert(0, Kept { fate: Fate::Refused, ..kept });
        Ok(standing.ledger.save(&standing.dir)?)
    }

    /// Announces a generation that is signed and lies at its points or, alone, points to it at once.
    pub(super) fn conclude(
        &mut self,
        order: &TreeOrder,
        kept: Kept,
        mut packs: Vec<KeptOffer>,
    ) -> Result<Progress, Error> {
        let statement = read_statement(&self.tree, &kept.statement)?;
        let (generation, entries, bytes) =
            (statement.generation.0, statement.entries, statement.bytes);
        let pack_bytes = packs.iter().map(|kept| kept.offer.total_length()).sum();
        let now = self.state.now();
        if self.alone.is_some() && self.state.orders.silence().is_none() {
            info!(tree = %self.tree, generation, "the coordinator is back, and is asked first");
            return Ok(Progress::Again);
        }
        if let Some(since) = self.alone {
            let kept = Kept { fate: Fate::Untold, announced: now, ..kept };
            self.announced(order, kept, packs)?;
            let outcome = Outcome::Alone { generation, entries, bytes, pack_bytes, since };
            return Ok(Progress::Done(outcome));
        }
        // The statement wakes the agents: whatever they will ask for is offered and served before.
        self.tell_of(&mut packs);
        self.serve_next(&kept, &packs)?;
        let announced = self.state.client.announce_statement(&self.tree, &kept.statement);
        let accepted = match self.handle.block_on(announced) {
            Ok(accepted) => accepted,
            Err(error) => {
                self.serve()?;
                if is_judged(&error) {
                    let standing = self.standing()?;
                    if standing.ledger.sent.take().is_some() {
                        standing.ledger.save(&standing.dir)?;
                    }
                }
                if error.problem().map(|p| p.kind) == Some(ProblemKind::ParentMismatch) {
                    info!(tree = %self.tree, generation, "another statement is current; starting over");
                    self.handle.block_on(self.state.orders.refresh())?;
                    return Ok(Progress::Again);
                }
                return Err(error.into());
            }
        };
        self.accepted = self.known(accepted.revision);
        self.announced(order, Kept { announced: now, ..kept }, packs)?;
        Ok(Progress::Done(Outcome::Announced { generation, entries, bytes, pack_bytes }))
    }
}

/// Whether the coordinator has looked at what it was told and said no; anything else says nothing of
/// what it may have taken before.
fn is_judged(error: &client::Error) -> bool {
    use ProblemKind::{BadRequest, Conflict, Forbidden, NotFound, ParentMismatch, TooLarge};
    error.problem().is_some_and(|problem| {
        matches!(
            problem.kind,
            BadRequest | Conflict | Forbidden | NotFound | ParentMismatch | TooLarge
        )
    })
}

#[cfg(test)]
mod tests;
