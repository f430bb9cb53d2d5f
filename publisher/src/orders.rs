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
    generation::Revision,
    name::TreeName,
    v1::publisher::{PublisherOrders, TreeOrder},
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{Clock, durable, error_chain};

const FILE: &[u8] = b"orders.json";
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
}

impl OrderKeeper {
    /// Starts from the orders that were kept in the data directory.
    pub fn open(dir: Dir, client: Client, clock: Clock) -> io::Result<Self> {
        let kept: Option<Orders> = durable::read_json(&dir, FILE, MAX_FILE)?;
        let newest = watch::Sender::new(kept.map(Arc::new));
        let (taking, asked) = (Mutex::default(), tokio::sync::Mutex::default());
        Ok(Self { dir, client, clock, newest, taking, asked })
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
                    self.take(orders);
                    pause = PAUSE.0;
                }
                Ok(None) => {
                    self.confirm();
                    pause = PAUSE.0;
                }
                Err(error) => {
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

    /// The orders on disk keep the time at which they came: a restart without the coordinator
    /// may make them look older than they are, never newer.
    fn confirm(&self) {
        let confirmed = (self.clock)();
        self.newest.send_if_modified(|held| {
            if let Some(orders) = held {
                *held = Some(Arc::new(Orders { confirmed, ..Orders::clone(orders) }));
            }
            // Nothing that anyone waits for has changed.
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use filetree::fs::Fs;
    use protocol::generation::RestoreEpoch;

    use super::*;

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
}
