//! From a tree that changed to a generation that is announced.
//!
//! Each tree has a worker on a thread of its own, because nearly all that it does blocks on a
//! disk. It takes no input but the orders and the tree: each attempt compares what is announced
//! with what is there and moves one step, so an attempt that failed anywhere is simply made again.
//!
//! Numbers belong to the coordinator. A statement names its parent, and when another one has become
//! current meanwhile (a second publisher, a lost disk), the attempt starts over from that.

mod alone;
mod attempt;
mod carry;
mod classes;
mod hold;
mod keep;
mod objects;
mod packs;
mod served;
mod worker;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use protocol::{
    client, filter,
    name::TreeName,
    statement::{Claim, Statement},
    units::Span,
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use self::worker::Worker;
use crate::{generate, settle, state::State, view};

/// Scans and packs at a time; more only make each other slow.
pub(crate) const AT_A_TIME: usize = 2;
/// How soon a worker that ended by a fault is started again.
const RESTART: Duration = Duration::from_secs(10);
/// How long a tree that was just heard of gets to have a worker.
const FIRST_HEARD: Duration = Duration::from_secs(2);

/// Why a tree was not published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was not taken.
    #[error(transparent)]
    Settle(#[from] settle::Error),
    /// Its content was not retained.
    #[error(transparent)]
    View(#[from] view::Error),
    /// Its manifest or packs were not made.
    #[error(transparent)]
    Generate(#[from] generate::Error),
    /// A manifest cannot be read.
    #[error(transparent)]
    Manifest(#[from] protocol::manifest::Error),
    /// The data directory.
    #[error("the data directory cannot be used")]
    Disk(#[from] io::Error),
    /// The coordinator did not take it, or is away.
    #[error("the coordinator did not take it")]
    Coordinator(#[from] client::Error),
    /// The statement could not be signed.
    #[error("the statement could not be signed")]
    Sign(#[from] certs::signing::Error),
    /// The coordinator's word on what is current cannot be read.
    #[error("the current statement of {tree} cannot be read: {reason}")]
    Current {
        /// Which tree.
        tree: TreeName,
        /// What is wrong with it.
        reason: String,
    },
    /// The limit is not a list of rules.
    #[error("the limit of the tree is not a filter")]
    Limit(#[from] filter::RuleErrors),
    /// There are no orders for it.
    #[error("{0} is not among the trees that this publisher was ordered to publish")]
    NotOrdered(TreeName),
    /// The tree moved on each time.
    #[error("the tree changed while its content was retained; it is taken at the next try")]
    Moving,
    /// Orders are too old.
    #[error(
        "the coordinator was last heard at {heard}, and for more than {most} (autonomous-for) no tree \
         goes on alone; nothing new is pointed to until it is back"
    )]
    TooLongAlone {
        /// When it was heard.
        heard: Timestamp,
        /// For how long trees go on.
        most: Span,
    },
    /// No agent would follow it.
    #[error(
        "the coordinator knows no generation of {0} in its epoch yet, and the first one waits for it"
    )]
    FirstAlone(TreeName),
    /// No agent would follow it.
    #[error(
        "an admin approved the next generation of {0}, which counts on the coordinator's word alone \
         and waits for it"
    )]
    ApprovedAlone(TreeName),
    /// Told to end.
    #[error("the publisher is stopping")]
    Stopping,
}

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// The tree is what is announced.
    Unchanged {
        /// The announced generation.
        generation: u64,
    },
    /// A new generation was announced.
    Announced {
        /// Its number.
        generation: u64,
        /// Entries of its manifest.
        entries: u64,
        /// Content bytes.
        bytes: u64,
        /// Bytes of the packs made for it.
        pack_bytes: u64,
    },
    /// Publication points lead to a new generation, and the coordinator, which could not be reached,
    /// is told when it is back.
    Alone {
        /// Its number.
        generation: u64,
        /// Entries of its manifest.
        entries: u64,
        /// Content bytes.
        bytes: u64,
        /// Bytes of the packs made for it.
        pack_bytes: u64,
        /// Since when the coordinator was not reached.
        since: Timestamp,
    },
    /// A guard stopped it, and an admin was told.
    Held {
        /// Why.
        reason: String,
        /// What to approve.
        manifest: String,
    },
    /// It did not work; it is tried again.
    Failed {
        /// Why.
        reason: String,
    },
}

/// How one tree stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TreeStatus {
    /// The announced generation.
    pub generation: Option<u64>,
    /// What the last attempt came to.
    pub last: Option<Outcome>,
    /// When that was.
    pub at: Option<Timestamp>,
    /// Since when the coordinator was not reached, where the tree goes on without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone: Option<Timestamp>,
    /// Generations that points lead to and that the coordinator was not told of yet.
    #[serde(default)]
    pub untold: u64,
}

/// A request to take a tree now; answered when that is done.
pub(crate) type Command = oneshot::Sender<Outcome>;

/// The workers of all trees.
pub(crate) struct Publishing {
    state: Arc<State>,
    workers: Mutex<HashMap<TreeName, Running>>,
    statuses: Arc<Mutex<BTreeMap<TreeName, TreeStatus>>>,
    turns: Arc<tokio::sync::Semaphore>,
    shutdown: CancellationToken,
}

struct Running {
    commands: mpsc::Sender<Command>,
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

impl Publishing {
    pub(crate) fn new(state: Arc<State>, shutdown: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            state,
            workers: Mutex::default(),
            statuses: Arc::default(),
            turns: Arc::new(tokio::sync::Semaphore::new(AT_A_TIME)),
            shutdown,
        })
    }

    /// Has a worker for each tree that is ordered, until the shutdown; then waits for them all.
    pub(crate) async fn keep(&self) {
        let mut following = self.state.orders.follow();
        loop {
            let ordered: Vec<TreeName> =
                following.borrow_and_update().as_ref().map_or_else(Vec::new, |orders| {
                    orders.orders.trees.iter().map(|order| order.tree.clone()).collect()
                });
            self.reconcile(&ordered);
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                _ = following.changed() => {}
                () = tokio::time::sleep(RESTART) => {}
            }
        }
        let workers: Vec<Running> = self.lock().drain().map(|(_, running)| running).collect();
        for running in workers {
            running.stop.cancel();
            if let Err(error) = running.thread.await {
                error!(%error, "a tree's worker ended by a fault");
            }
        }
    }

    /// Takes a tree now.
    pub(crate) async fn take(&self, tree: &TreeName) -> Result<Outcome, Error> {
        let not_ordered = || Error::NotOrdered(tree.clone());
        if !self.knows(tree) {
            self.ask_for(tree).await;
        }
        let commands = self.lock().get(tree).map(|running| running.commands.clone());
        let (reply, answer) = oneshot::channel();
        commands.ok_or_else(not_ordered)?.send(reply).await.map_err(|_| not_ordered())?;
        answer.await.map_err(|_| Error::Stopping)
    }

    /// A tree that was defined a moment ago may not have been heard of yet.
    pub(crate) async fn ask_for(&self, tree: &TreeName) {
        if let Err(error) = self.state.orders.refresh().await {
            tracing::warn!(error = crate::error_chain(&error), "no new orders");
            return;
        }
        let until = tokio::time::Instant::now() + FIRST_HEARD;
        while !self.knows(tree) && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether there is a worker for the tree.
    pub(crate) fn knows(&self, tree: &TreeName) -> bool {
        self.lock().contains_key(tree)
    }

    /// How each tree stands.
    pub(crate) fn statuses(&self) -> BTreeMap<TreeName, TreeStatus> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn reconcile(&self, ordered: &[TreeName]) {
        let mut workers = self.lock();
        workers.retain(|tree, running| {
            let stays = ordered.contains(tree) && !running.thread.is_finished();
            if !stays {
                running.stop.cancel();
                self.state.catalog.remove(tree);
                self.statuses.lock().unwrap_or_else(PoisonError::into_inner).remove(tree);
            }
            stays
        });
        for tree in ordered {
            if !workers.contains_key(tree) {
                info!(%tree, "publishing");
                workers.insert(tree.clone(), self.start(tree.clone()));
            }
        }
    }

    fn start(&self, tree: TreeName) -> Running {
        let (commands, requests) = mpsc::channel(16);
        let stop = self.shutdown.child_token();
        let worker = Worker::new(
            Arc::clone(&self.state),
            tree,
            requests,
            stop.clone(),
            Arc::clone(&self.turns),
            Arc::clone(&self.statuses),
        );
        let thread = tokio::task::spawn_blocking(move || worker.run());
        Running { commands, stop, thread }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TreeName, Running>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a statement that the coordinator vouches for.
fn read_statement(
    tree: &TreeName,
    envelope: &protocol::dsse::Envelope,
) -> Result<Statement, Error> {
    let unreadable = |reason: String| Error::Current { tree: tree.clone(), reason };
    if envelope.payload_type != Statement::PAYLOAD_TYPE {
        return Err(unreadable(format!("it is a {:?}", envelope.payload_type)));
    }
    if envelope.payload.0.len() > Statement::MAX_LEN {
        return Err(unreadable("it is too long".into()));
    }
    let statement: Statement = serde_json::from_slice(&envelope.payload.0)
        .map_err(|error| unreadable(error.to_string()))?;
    if statement.tree != *tree {
        return Err(unreadable(format!("it is of {}", statement.tree)));
    }
    Ok(statement)
}
