//! What the coordinator wants of this publisher, and for how long that is believed.
//!
//! Orders arrive by long poll. The last ones are kept on disk and are followed while the
//! coordinator is away: trees are scanned on, and the readers that it named are served until the
//! orders are too old. A revision that goes back is obeyed only under a higher restore epoch.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use filetree::fs::Dir;
use jiff::Timestamp;
use protocol::{
    client::{self, Client},
    generation::{RestoreEpoch, Revision},
    name::TreeName,
    v1::publisher::{PublisherOrders, TreeOrder},
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{Clock, durable, error_chain};

const FILE: &[u8] = b"orders.json";
/// When the coordinator last stood by them; beside them, because they may be large.
const CONFIRMED: &[u8] = b"confirmed.json";
const MAX_CONFIRMED: u64 = 4096;
/// How often that is written down while nothing else changes.
const NOTE: Duration = Duration::from_secs(300);
const MAX_FILE: u64 = 256 << 20;
/// How long one poll waits for something newer.
const WAIT: Duration = Duration::from_secs(60);
/// How often, and for how long, the coordinator is asked about somebody who is not known.
const ANEW: Duration = Duration::from_secs(2);
/// The first and the longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Orders, and when the coordinator last stood by them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Orders {
    /// The orders.
    pub orders: PublisherOrders,
    /// When the coordinator last sent them, or said that there is nothing newer.
    pub confirmed: Timestamp,
}

/// When the coordinator last stood by which orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Confirmed {
    restore_epoch: RestoreEpoch,
    revision: Revision,
    confirmed: Timestamp,
}

/// A coordinator that does not answer at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    /// When it was first asked in vain.
    pub since: Timestamp,
    /// How long ago that is, by a clock that nobody sets.
    pub lasts: Duration,
    /// How often it was asked in vain since.
    pub failures: u32,
}

impl Orders {
    /// The order for one tree.
    pub fn tree(&self, tree: &TreeName) -> Option<&TreeOrder> {
        self.orders.trees.iter().find(|order| order.tree == *tree)
    }

    /// Whether these follow the ones that `self` holds.
    fn are_followed_by(&self, newer: &PublisherOrders) -> bool {
        (newer.restore_epoch, newer.revision) >= (self.orders.restore_epoch, self.orders.revision)
    }
}

/// The newest orders, for everyone who follows them; `None` before the very first.
pub type Following = watch::Receiver<Option<Arc<Orders>>>;

/// Keeps the orders current.
pub struct OrderKeeper {
    dir: Dir,
    client: Client,
    clock: Clock,
    newest: watch::Sender<Option<Arc<Orders>>>,
    /// One at a time compares what came with what is followed, and follows it.
    taking: Mutex<()>,
    /// When somebody's coming was last a reason to ask.
    asked: tokio::sync::Mutex<Option<Instant>>,
    /// Since when, and how often, the coordinator did not answer.
    silent: Mutex<Option<(Instant, Timestamp, u32)>>,
    /// When it was last written down that the orders were confirmed.
    noted: Mutex<Option<Instant>>,
}

impl OrderKeeper {
    /// Starts from the orders that were kept in the data directory.
    pub fn open(dir: Dir, client: Client, clock: Clock) -> io::Result<Self> {
        let mut kept: Option<Orders> = durable::read_json(&dir, FILE, MAX_FILE)?;
        // A damaged note makes orders look older, as none does.
        let noted: Option<Confirmed> =
            durable::read_json(&dir, CONFIRMED, MAX_CONFIRMED).unwrap_or(None);
        if let (Some(kept), Some(noted)) = (&mut kept, noted)
            && (noted.restore_epoch, noted.revision)
                == (kept.orders.restore_epoch, kept.orders.revision)
        {
            kept.confirmed = kept.confirmed.max(noted.confirmed);
        }
        let newest = watch::Sender::new(kept.map(Arc::new));
        let (taking, asked) = (Mutex::default(), tokio::sync::Mutex::default());
        let (silent, noted) = (Mutex::default(), Mutex::default());
        Ok(Self { dir, client, clock, newest, taking, asked, silent, noted })
    }

    /// How long the coordinator has not answered; `None` while it does, be it to refuse.
    pub fn silence(&self) -> Option<Silence> {
        let silent = *self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.map(|(began, since, failures)| Silence { since, lasts: began.elapsed(), failures })
    }

    fn note_answer(&self, is_silent: bool) {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_silent {
            *silent = None;
            return;
        }
        let began = silent.get_or_insert_with(|| (Instant::now(), (self.clock)(), 0));
        began.2 = began.2.saturating_add(1);
    }

    /// Follows the orders.
    pub fn follow(&self) -> Following {
        self.newest.subscribe()
    }

    /// Asks for what is current, without waiting for something newer.
    pub async fn refresh(&self) -> Result<(), client::Error> {
        if let Some(orders) = self.client.publisher_orders(Revision(0), Duration::ZERO).await? {
            self.take(orders);
        }
        Ok(())
    }

    /// Asks for what is current because somebody is not named in what is known; not more often than
    /// every [`ANEW`], whoever comes, and not for long.
    pub async fn ask_anew(&self) {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|asked| asked.elapsed() < ANEW) {
            return;
        }
        let answer = tokio::time::timeout(ANEW, self.refresh()).await;
        *asked = Some(Instant::now());
        if let Ok(Err(error)) = answer {
            tracing::debug!(error = error_chain(&error), "asked for orders in vain");
        }
    }

    /// Polls until `shutdown`.
    pub async fn keep(&self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.poll() => {}
        }
    }

    async fn poll(&self) {
        let mut pause = PAUSE.0;
        // The first question is always answered, so that orders kept on disk are confirmed or
        // replaced at once.
        let mut after = Revision(0);
        loop {
            match self.client.publisher_orders(after, WAIT).await {
                Ok(Some(orders)) => {
                    after = orders.revision;
                    self.note_answer(false);
                    self.take(orders);
                    pause = PAUSE.0;
                }
                Ok(None) => {
                    self.note_answer(false);
                    self.confirm();
                    pause = PAUSE.0;
                }
                Err(error) => {
                    self.note_answer(is_silence(&error));
                    let error = error_chain(&error);
                    warn!(error, "no new orders; following the last ones");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                    after = Revision(0);
                }
            }
        }
    }

    /// Answers to several questions may come at once, and the older one must not replace the newer: it
    /// could name somebody who was revoked in between.
    fn take(&self, orders: PublisherOrders) {
        let _one = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let orders = Orders { orders, confirmed: (self.clock)() };
        let refused = self.newest.borrow().as_ref().is_some_and(|held| {
            let refused = !held.are_followed_by(&orders.orders);
            if refused {
                warn!(
                    held = %held.orders.revision, offered = %orders.orders.revision,
                    "the coordinator's orders are older than the ones already followed; they are \
                     not obeyed (was it restored from a backup without `coordinator restore`?)"
                );
            }
            refused
        });
        if refused {
            return;
        }
        if let Err(error) = durable::replace_json(&self.dir, FILE, &orders) {
            warn!(%error, "the orders cannot be kept on disk; after a restart without the \
                           coordinator older ones would be followed");
        }
        info!(
            revision = %orders.orders.revision, trees = orders.orders.trees.len(),
            readers = orders.orders.readers.len(), "following new orders"
        );
        self.newest.send_replace(Some(Arc::new(orders)));
    }

    /// On the disk that is noted now and then: a restart without the coordinator may make orders look
    /// older than they are, never newer.
    fn confirm(&self) {
        let confirmed = (self.clock)();
        self.newest.send_if_modified(|held| {
            if let Some(orders) = held {
                *held = Some(Arc::new(Orders { confirmed, ..Orders::clone(orders) }));
            }
            // Nothing that anyone waits for has changed.
            false
        });
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.newest.borrow().clone();
        if let Some(held) = held.filter(|_| noted.is_none_or(|noted| noted.elapsed() >= NOTE)) {
            let Orders { orders, confirmed } = &*held;
            let (restore_epoch, revision) = (orders.restore_epoch, orders.revision);
            let note = Confirmed { restore_epoch, revision, confirmed: *confirmed };
            match durable::replace_json(&self.dir, CONFIRMED, &note) {
                Ok(()) => *noted = Some(Instant::now()),
                Err(error) => warn!(%error, "it cannot be noted that the coordinator was heard"),
            }
        }
    }
}

/// Whether nobody answered who could know us. A coordinator that refuses us is there, and so is
/// whoever shows another certificate than the coordinator's: neither lets a publisher go on alone.
fn is_silence(error: &client::Error) -> bool {
    match error {
        client::Error::Transport { .. } => certs::tls::refusal(error).is_none(),
        client::Error::Problem(problem) => problem.status >= 500,
        client::Error::Unreadable { status, .. } => *status >= 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use filetree::fs::Fs;

    fn orders(revision: u64) -> PublisherOrders {
        PublisherOrders {
            revision: Revision(revision),
            restore_epoch: RestoreEpoch(0),
            upstreams: vec![],
            trees: vec![],
            readers: vec![],
        }
    }

    #[test]
    fn of_answers_that_come_at_once_the_newest_is_followed() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Fs::disk().open_root(temp.path()).unwrap();
        let client = Client::new("https://nobody", Arc::new(reqwest::Client::new));
        let keeper = OrderKeeper::open(dir, client, Arc::new(Timestamp::now)).unwrap();
        for round in 1..=100 {
            let (older, newer) = (orders(round * 2), orders(round * 2 + 1));
            std::thread::scope(|scope| {
                scope.spawn(|| keeper.take(older));
                scope.spawn(|| keeper.take(newer));
            });
            let followed = keeper.newest.borrow().as_ref().map(|held| held.orders.revision);
            assert_eq!(followed, Some(Revision(round * 2 + 1)));
            let kept: Orders = durable::read_json(&keeper.dir, FILE, MAX_FILE).unwrap().unwrap();
            assert_eq!(kept.orders.revision, Revision(round * 2 + 1));
        }
    }

    #[test]
    fn orders_are_as_old_as_they_were_last_confirmed_also_after_a_restart() {
        let temp = tempfile::tempdir().unwrap();
        let open = |second: i64| {
            let dir = Fs::disk().open_root(temp.path()).unwrap();
            let client = Client::new("https://nobody", Arc::new(reqwest::Client::new));
            let clock = Arc::new(move || Timestamp::from_second(second).unwrap());
            OrderKeeper::open(dir, client, clock).unwrap()
        };
        let confirmed =
            |keeper: &OrderKeeper| keeper.newest.borrow().as_ref().unwrap().confirmed.as_second();
        open(100).take(orders(7));
        assert_eq!(confirmed(&open(200)), 100);
        open(300).confirm();
        assert_eq!(confirmed(&open(400)), 300);
        // Of other orders it says nothing.
        open(500).take(orders(8));
        open(450).take(orders(9));
        assert_eq!(confirmed(&open(600)), 450);
    }

    #[test]
    fn whoever_refuses_is_there_and_whoever_fails_is_not() {
        use protocol::error::ProblemKind;

        let problem = |kind: ProblemKind| is_silence(&client::Error::Problem(kind.with("")));
        for kind in [ProblemKind::Revoked, ProblemKind::Unauthenticated, ProblemKind::Forbidden] {
            assert!(!problem(kind), "{kind:?}");
        }
        assert!(problem(ProblemKind::Unavailable) && problem(ProblemKind::Internal));
        let page = |status| client::Error::Unreadable {
            url: "https://nobody".into(),
            status,
            reason: "a page of a proxy".into(),
        };
        assert!(is_silence(&page(502)) && !is_silence(&page(403)));
    }

    #[test]
    fn a_silence_lasts_from_the_first_question_in_vain_until_there_is_an_answer() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Fs::disk().open_root(temp.path()).unwrap();
        let client = Client::new("https://nobody", Arc::new(reqwest::Client::new));
        let since = Timestamp::from_second(100).unwrap();
        let keeper = OrderKeeper::open(dir, client, Arc::new(move || since)).unwrap();
        assert_eq!(keeper.silence(), None);
        keeper.note_answer(true);
        keeper.note_answer(true);
        let silence = keeper.silence().unwrap();
        assert_eq!((silence.since, silence.failures), (since, 2));
        keeper.note_answer(false);
        assert_eq!(keeper.silence(), None);
    }
}
