//! Trees that are switched together.
//!
//! Of assignments with one `together` that are not at their targets, the first by name works for all:
//! it brings everything that is new of each, and only when all of it is there, and no guard holds any
//! of them, all are brought up and switched one right after the other. What cannot be brought, or is
//! held, holds all of them, and is told in a report of its own.
//!
//! What is at its target is read from the areas, which know it durably. So a crash between two
//! switches leaves fewer trees to be switched, and the next run, which is due at once, goes forward.

use std::time::Duration;

use filetree::{area, switch::SwitchReport};
use jiff::Timestamp;
use protocol::{
    spec::AssignmentName,
    v1::agent::{AssignmentOrder, Origin, PublisherOrigin, RunResult},
};
use tokio::task::block_in_place;

use super::{
    Agent,
    runs::{Busy, Error},
};
use crate::{
    apply::{self, Switch},
    ledger::Held,
    orders::{Orders, Verified},
    published::{self, Outcome, Prepared, Ready},
    report::Run,
};

/// How often contents that turn out to be damaged here are brought again.
const TRIES: usize = 3;
/// How often, and how long apart, one looks whether another run has ended.
const BUSY_TRIES: u32 = 100;
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// Another assignment that is switched in the same run.
struct Other<'a> {
    order: &'a AssignmentOrder,
    from: &'a PublisherOrigin,
    target: Verified,
    run: Run,
    _busy: Busy<'a>,
}

/// One of those that are switched together; the first is the one that works for all.
struct Member<'a> {
    order: &'a AssignmentOrder,
    from: &'a PublisherOrigin,
    target: &'a Verified,
    run: &'a Run,
}

/// Which of them keeps all from being switched, and why.
struct Failed {
    at: usize,
    error: Error,
}

impl Other<'_> {
    fn member(&self) -> Member<'_> {
        let Self { order, from, target, run, .. } = self;
        Member { order, from, target, run }
    }
}

impl Member<'_> {
    fn switch<'s>(&'s self, ready: &'s mut Ready) -> Switch<'s> {
        let Ready { site, plan, rules, .. } = ready;
        let generation = (self.target.version(), self.target.statement.manifest);
        let progress = self.run.progress();
        progress.phase("apply", "entries", plan.change_count());
        Switch { site, plan, generation, rules, order: self.order, progress }
    }
}

impl Agent {
    /// Who works for the group of this assignment, if any of the group is to be switched.
    pub(super) fn leader<'o>(
        &self,
        order: &'o AssignmentOrder,
        orders: &'o Orders,
    ) -> Option<&'o AssignmentName> {
        let members = members(order, orders).chain([order]);
        members.filter(|member| self.is_moving(member, orders)).map(|member| &member.name).min()
    }

    /// Whether the published tree is not at its target.
    fn is_moving(&self, order: &AssignmentOrder, orders: &Orders) -> bool {
        let Some(target) = self.signed_target_in(order, orders) else { return false };
        let (version, manifest) = (target.version(), target.statement.manifest);
        let record = self.ledger.record(&order.name).ok().flatten();
        let held = record.and_then(|record| record.held);
        if held.is_some_and(|held| (held.version, held.manifest) == (version, manifest)) {
            return false;
        }
        // A crash may have kept a switch from being recorded.
        match apply::applied_at(&self.config, &order.name.to_string()) {
            Ok(Some(applied)) => (applied.version, applied.manifest) != (version, manifest),
            Ok(None) => true,
            // Its own run says what is wrong.
            Err(_) => false,
        }
    }

    /// Brings an assignment to its target, and with it all that are switched together with it.
    pub(super) async fn sync_together(
        &self,
        order: &AssignmentOrder,
        from: &PublisherOrigin,
        target: &Verified,
        run: &Run,
    ) -> Result<Outcome, Error> {
        let Some(orders) = self.orders() else {
            return Ok(published::sync(self, order, from, target, run).await?);
        };
        let mut others = Vec::new();
        for member in members(order, &orders).filter(|member| self.is_moving(member, &orders)) {
            let Some(target) = self.signed_target_in(member, &orders) else { continue };
            let Origin::Publisher(from) = &member.origin else { continue };
            let busy = self.take_soon(&member.name).await?;
            let run = self.begin(&member.name, false);
            others.push(Other { order: member, from, target, run, _busy: busy });
        }
        match self.bring_all((order, from, target, run), &others).await {
            Ok((outcome, ends)) => {
                for (other, end) in others.into_iter().zip(ends) {
                    let Some((result, held)) = end else { continue };
                    run.notice(format!("switched together with {}", other.order.name));
                    self.end_other(other, result, held, String::new());
                }
                Ok(outcome)
            }
            Err(Failed { at: 0, error }) => Err(error),
            // Its own report says why, and no other is switched.
            Err(Failed { at, error }) => {
                let other = others.swap_remove(at - 1);
                let name = other.order.name.clone();
                self.end_other(other, RunResult::Failed, None, crate::chain(&error));
                Err(Error::Together { other: name, source: Box::new(error) })
            }
        }
    }

    /// Marks another assignment as being worked on. Whoever works on it may wait for the turn that is
    /// taken here, so this does not wait for long.
    async fn take_soon(&self, name: &AssignmentName) -> Result<Busy<'_>, Error> {
        for _ in 0..BUSY_TRIES {
            if let Some(busy) = Busy::take(self, name) {
                return Ok(busy);
            }
            tokio::time::sleep(BUSY_PAUSE).await;
        }
        Err(Error::OtherRuns(name.clone()))
    }

    /// Brings everything that is new of all, and switches them; how the others end.
    async fn bring_all(
        &self,
        (order, from, target, run): (&AssignmentOrder, &PublisherOrigin, &Verified, &Run),
        others: &[Other<'_>],
    ) -> Result<(Outcome, Vec<Option<Outcome>>), Failed> {
        let mut all = vec![Member { order, from, target, run }];
        all.extend(others.iter().map(Other::member));
        let mut ready = Vec::with_capacity(all.len());
        for (at, member) in all.iter().enumerate() {
            let prepared = self.prepare(member, at > 0).await;
            match prepared.map_err(|error| Failed { at, error })? {
                Prepared::Ready(prepared) => ready.push((at, prepared)),
                Prepared::Done(outcome) if at == 0 => return Ok((outcome, Vec::new())),
                // Somebody was faster: it is at its target.
                Prepared::Done(_) => {}
            }
        }
        let reports = self.switch_all(&all, &mut ready).await?;
        let mut ends: Vec<Option<Outcome>> = all.iter().map(|_| None).collect();
        for ((at, ready), report) in ready.iter().zip(reports) {
            let Member { target, run, .. } = &all[*at];
            let outcome = ready.end(target, &report, run);
            ends[*at] = Some(outcome.map_err(|error| Failed { at: *at, error: error.into() })?);
        }
        let own = ends.remove(0).unwrap_or((RunResult::UpToDate, None));
        Ok((own, ends))
    }

    async fn prepare(&self, member: &Member<'_>, is_other: bool) -> Result<Prepared, Error> {
        let Member { order, from, target, run } = member;
        if is_other {
            self.before(order, run).await?;
        }
        Ok(published::prepare(self, order, from, target, run).await?)
    }

    /// Switches all that are ready; brings again what turns out to be damaged here.
    async fn switch_all(
        &self,
        all: &[Member<'_>],
        ready: &mut [(usize, Box<Ready>)],
    ) -> Result<Vec<SwitchReport>, Failed> {
        let mut tries = 0;
        loop {
            let done = block_in_place(|| {
                let mut switches: Vec<Switch<'_>> =
                    ready.iter_mut().map(|(at, ready)| all[*at].switch(ready)).collect();
                apply::switch_together(&mut switches, Timestamp::now())
            });
            let (which, missing) = match done {
                Ok(reports) => return Ok(reports),
                Err((which, apply::Error::Area(area::Error::Missing(missing))))
                    if tries < TRIES =>
                {
                    (which, missing)
                }
                Err((which, error)) => {
                    return Err(Failed { at: ready[which].0, error: error.into() });
                }
            };
            tries += 1;
            let (at, ready) = &ready[which];
            let Member { order, target, run, .. } = &all[*at];
            let brought = ready.bring(self, order, target, &missing, run).await;
            brought
                .map_err(|error| Failed { at: *at, error: published::Error::from(error).into() })?;
        }
    }

    fn end_other(&self, other: Other<'_>, result: RunResult, held: Option<Held>, error: String) {
        let Other { order, target, run, .. } = other;
        if let Some(now) = &held {
            run.set_held(now.files, now.bytes);
        }
        let withdrawn = run.withdrawn();
        let mut report = run.finish(result, error);
        self.tell(&report);
        if let Err(error) = self.record(order, Some(&target), held, withdrawn, &mut report) {
            tracing::error!(assignment = %order.name, error = crate::chain(&error), "not recorded");
        }
    }
}

/// The other assignments that are switched together with this one, as far as they are carried out.
fn members<'o>(
    order: &'o AssignmentOrder,
    orders: &'o Orders,
) -> impl Iterator<Item = &'o AssignmentOrder> {
    let group = order.together.as_ref();
    orders.wanted.assignments.iter().filter(move |other| {
        group.is_some()
            && other.together.as_ref() == group
            && other.name != order.name
            && other.stopped.is_none()
            // Nothing of it may change, whoever else is switched.
            && !other.dry_run_only
            && other.versions.is_none()
    })
}
