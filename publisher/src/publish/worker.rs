//! One tree's worker: when it looks at its tree.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use jiff::{Timestamp, tz::TimeZone};
use protocol::{
    digest::Digest,
    generation::{RestoreEpoch, Revision},
    hub::Published,
    name::TreeName,
    v1::publisher::TreeOrder,
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Command, Error, Outcome, TreeStatus, attempt::Standing};
use crate::{hub, orders::Following, state::State, state::error_chain};

/// How soon an attempt that failed is made again, unless the tree's interval is shorter.
const RETRY: Duration = Duration::from_secs(10);

/// Until orders or a person ask for it.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Publishes one tree.
pub(super) struct Worker {
    pub(super) state: Arc<State>,
    pub(super) tree: TreeName,
    pub(super) handle: Handle,
    /// Set when the worker is to end.
    pub(super) cancel: Arc<AtomicBool>,
    /// What this worker knows of its tree; loaded by the first attempt.
    pub(super) standing: Option<Standing>,
    /// Orders older than this do not know our newest statement yet.
    pub(super) accepted: Known,
    requests: mpsc::Receiver<Command>,
    pub(super) following: Following,
    /// What the agent on this host has published.
    neighbors: watch::Receiver<Option<Published>>,
    /// The manifest that it had at this tree's root when that was last looked at.
    pub(super) taken: Option<Digest>,
    stop: CancellationToken,
    turns: Arc<Semaphore>,
    statuses: Arc<Mutex<BTreeMap<TreeName, TreeStatus>>>,
    due: Instant,
    /// Since when the coordinator was not reached, where this attempt goes on without it.
    pub(super) alone: Option<Timestamp>,
    /// Attempts since every further point had everything.
    pub(super) behind: u32,
}

/// A state of the coordinator: how often it came back from a backup, and its revision.
pub(super) type Known = (RestoreEpoch, Revision);

/// Why a worker looks at its tree.
enum Wake {
    Stop,
    Due,
    Asked(Command),
}

impl Worker {
    pub(super) fn new(
        state: Arc<State>,
        tree: TreeName,
        requests: mpsc::Receiver<Command>,
        stop: CancellationToken,
        turns: Arc<Semaphore>,
        statuses: Arc<Mutex<BTreeMap<TreeName, TreeStatus>>>,
    ) -> Self {
        let cancel = Arc::new(AtomicBool::new(false));
        let (token, flag) = (stop.clone(), Arc::clone(&cancel));
        let handle = Handle::current();
        handle.spawn(async move {
            token.cancelled().await;
            flag.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let following = state.orders.follow();
        let neighbors = state.hub.watch();
        Self {
            state,
            tree,
            handle,
            cancel,
            standing: None,
            accepted: Known::default(),
            requests,
            following,
            neighbors,
            taken: None,
            stop,
            turns,
            statuses,
            due: Instant::now(),
            alone: None,
            behind: 0,
        }
    }

    /// Works until told to stop. Blocks.
    pub(super) fn run(mut self) {
        let handle = self.handle.clone();
        loop {
            let reply = match handle.block_on(self.wait()) {
                Wake::Stop => return,
                Wake::Due if self.standing.is_none() && self.waits_for_slot() => {
                    self.due = Instant::now() + self.until_slot().unwrap_or(RETRY);
                    continue;
                }
                Wake::Due => None,
                Wake::Asked(reply) => Some(reply),
            };
            let Ok(turn) = handle.block_on(Arc::clone(&self.turns).acquire_owned()) else { return };
            let outcome = self.attempt();
            drop(turn);
            let outcome = match outcome {
                Err(Error::Stopping | Error::Settle(crate::settle::Error::Cancelled)) => return,
                Err(error) => {
                    let reason = error_chain(&error);
                    warn!(tree = %self.tree, reason, "not published; it is tried again");
                    Outcome::Failed { reason }
                }
                Ok(outcome) => outcome,
            };
            self.note(&outcome);
            if let Some(reply) = reply {
                // Whoever asked may have left.
                drop(reply.send(outcome));
            }
        }
    }

    /// The order for this tree, as it is now.
    pub(super) fn order(&self) -> Result<(TreeOrder, Known), Error> {
        let orders = self.following.borrow();
        let orders = orders.as_ref().ok_or_else(|| Error::NotOrdered(self.tree.clone()))?;
        let order = orders.tree(&self.tree).ok_or_else(|| Error::NotOrdered(self.tree.clone()))?;
        Ok((order.clone(), (orders.orders.restore_epoch, orders.orders.revision)))
    }

    /// What the coordinator knows at this revision of it. Of one that comes back from a backup
    /// revisions begin anew.
    pub(super) fn known(&self, revision: Revision) -> Known {
        let orders = self.following.borrow();
        (orders.as_ref().map(|it| it.orders.restore_epoch).unwrap_or_default(), revision)
    }

    async fn wait(&mut self) -> Wake {
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Wake::Stop,
                request = self.requests.recv() => {
                    return request.map_or(Wake::Stop, Wake::Asked);
                }
                () = tokio::time::sleep_until(self.due) => return Wake::Due,
                changed = self.following.changed() => {
                    if changed.is_err() {
                        return Wake::Stop;
                    }
                    if self.is_wanted() {
                        return Wake::Due;
                    }
                }
                // The other end lives as long as the publisher.
                Ok(()) = self.neighbors.changed() => {
                    if self.has_news() {
                        return Wake::Due;
                    }
                }
            }
        }
    }

    /// How long it is until the next time of the tree's schedule, where it has one.
    fn until_slot(&self) -> Option<Duration> {
        let schedule = self.order().ok()?.0.schedule?;
        let now = self.state.now();
        match schedule.next(now, &TimeZone::system()) {
            Some(next) => Duration::try_from(next.duration_since(now)).ok(),
            None => Some(NEVER),
        }
    }

    /// Whether a look that is due waits for the schedule all the same: a program that was started
    /// again outside of the tree's hours does not scan it, unless it was never published.
    fn waits_for_slot(&self) -> bool {
        let Ok((order, _)) = self.order() else { return false };
        let Some(schedule) = order.schedule.as_ref().filter(|_| order.current.is_some()) else {
            return false;
        };
        schedule.slot(self.state.now(), &TimeZone::system()).is_none()
    }

    /// Whether the agent on this host has switched this tree to another generation.
    fn has_news(&mut self) -> bool {
        let Ok((order, _)) = self.order() else { return false };
        let published = self.neighbors.borrow_and_update();
        let root = Path::new(&order.path);
        let there = published.as_ref().and_then(|published| hub::find(published, root));
        there.is_some_and(|tree| !tree.busy && Some(tree.manifest) != self.taken)
    }

    /// Whether new orders ask for something that cannot wait for the interval.
    fn is_wanted(&self) -> bool {
        match (self.order(), &self.standing) {
            (Ok((order, _)), Some(standing)) => standing.is_wanted(&order),
            (Ok(_), None) => true,
            (Err(_), _) => false,
        }
    }

    fn note(&mut self, outcome: &Outcome) {
        let interval = self.order().map_or(RETRY, |(order, _)| order.interval.duration());
        let interval = interval.max(Duration::from_secs(1));
        self.due = Instant::now()
            + match outcome {
                Outcome::Failed { .. } => interval.min(RETRY),
                _ if self.behind > 0 => interval.min(RETRY * (1 << self.behind.min(8))),
                _ => self.until_slot().unwrap_or(interval),
            };
        match outcome {
            Outcome::Announced { generation, entries, bytes, pack_bytes } => info!(
                tree = %self.tree, generation, entries, bytes, pack_bytes, "generation announced"
            ),
            Outcome::Alone { generation, entries, bytes, pack_bytes, since } => warn!(
                tree = %self.tree, generation, entries, bytes, pack_bytes,
                "coordinator unreachable since {since}: went on alone, and the points lead to this \
                 generation; the coordinator is told when it is back"
            ),
            Outcome::Held { reason, manifest } => warn!(
                tree = %self.tree, reason, manifest,
                "held: nothing is published until an admin approves it"
            ),
            Outcome::Unchanged { .. } | Outcome::Failed { .. } => {}
        }
        let status = TreeStatus {
            generation: self
                .standing
                .as_ref()
                .and_then(|standing| standing.ledger.newest())
                .map(|kept| kept.version.generation.0),
            last: Some(outcome.clone()),
            at: Some(self.state.now()),
            alone: self.alone,
            untold: self.standing.as_ref().map_or(0, |it| it.ledger.untold().count() as u64),
        };
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        statuses.insert(self.tree.clone(), status);
    }
}
