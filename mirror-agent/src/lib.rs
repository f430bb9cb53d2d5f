//! The daemon of a mirror site: it enrolls, follows its orders, and keeps trees.
//!
//! Nobody connects to it, unless its admin lets it serve other sites ([`relay`]). It asks the coordinator what it should hold ([`orders`]), writes down
//! what it believes ([`ledger`]), finds the next step of each assignment ([`reconcile`]), decides
//! how each file comes ([`route`]), brings it ([`gather`], [`fetch`], [`rsync`]), lets `filetree`
//! switch the published tree ([`apply`]), and tells what it did ([`report`]).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod agent;
pub mod apply;
pub mod breaker;
pub mod calendar;
pub mod claim;
pub mod cli;
pub mod config;
pub mod control;
pub mod enroll;
pub mod fence;
pub mod fetch;
pub mod gather;
pub mod group;
pub mod guard;
pub mod hooks;
pub mod hub;
pub mod ledger;
pub mod line;
pub mod modes;
pub mod monitor;
pub mod moves;
pub mod observed;
pub mod orders;
mod process;
pub mod published;
pub mod reconcile;
pub mod relay;
pub mod removal;
pub mod report;
pub mod route;
pub mod rsync;
pub mod run_log;
pub mod spool;
pub mod stage;
pub mod status;
pub mod turns;
pub mod verify;
pub mod versions;
pub mod withdraw;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use protocol::{spec::AssignmentName, v1::agent::RunReport};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{Agent, Forced, NoSuchTree},
    config::Config,
};

/// How long a run may take to its next safe point when the program is told to end.
const DRAIN: Duration = Duration::from_secs(60);
/// How long the coordinator is given to answer a single activation.
const ASK: Duration = Duration::from_secs(5);

/// Why something that an admin asked for was not done.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The agent cannot start.
    #[error(transparent)]
    Agent(#[from] agent::Error),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] control::Error),
    /// The address for monitoring.
    #[error(transparent)]
    Monitor(#[from] monitor::Error),
    /// The address for other sites.
    #[error(transparent)]
    Relay(#[from] relay::Error),
    /// This identity was revoked.
    #[error(
        "this agent was revoked: the coordinator no longer accepts it. What it holds stays published as it is. To take part again, ask an admin for a new invite and enroll with it"
    )]
    Revoked,
    /// The coordinator refuses this identity.
    #[error("the coordinator refuses this agent; what it holds stays as it is")]
    Refused(#[source] agent::AskError),
    /// The coordinator never answered yet.
    #[error("there are no orders yet: the coordinator has to be reached once")]
    NoOrders(#[source] agent::AskError),
    /// No such tree.
    #[error(transparent)]
    NoSuchTree(#[from] NoSuchTree),
    /// Following several logs at once.
    #[error("{tree} has several assignments here; name one: {names}")]
    Several {
        /// What was asked for.
        tree: String,
        /// Which there are.
        names: String,
    },
    /// Purging what is still assigned.
    #[error(
        "{assignment} is still assigned to this agent; end the assignment first (mirrorctl delete assignment {assignment})"
    )]
    StillAssigned {
        /// Which assignment.
        assignment: AssignmentName,
    },
    /// Purging what another assignment took over.
    #[error(
        "the files of {assignment} were not removed, because {other} is published at the same place; they are its files now"
    )]
    InUse {
        /// Whose files were to be removed.
        assignment: AssignmentName,
        /// Who has them now.
        other: AssignmentName,
    },
    /// Purging what is being worked on.
    #[error("a run of {assignment} is under way; nothing was removed, try again later")]
    Busy {
        /// Which assignment.
        assignment: AssignmentName,
    },
    /// The trash cannot be looked at.
    #[error("the trash cannot be listed")]
    Trash(#[source] apply::Error),
    /// Its files could not be removed.
    #[error("the files of {tree} could not be removed to the end; purge it again")]
    Remove {
        /// Whose files.
        tree: protocol::name::TreeName,
        /// Why not.
        source: filetree::fs::Error,
    },
}

/// A running agent.
#[derive(Debug)]
pub struct Running {
    agent: Arc<Agent>,
    monitor: Option<SocketAddr>,
    relay: Option<SocketAddr>,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

/// Starts an agent; needs a multi-threaded runtime. Orders are followed from the ledger at once,
/// whether or not the coordinator answers.
pub async fn start(config: Config) -> Result<Running, Failure> {
    let agent = Agent::open(config).await?;
    let control = control::listen(&agent.config.data)?;
    let shutdown = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let mut monitor = None;
    if let Some(address) = &agent.config.monitor {
        let (listener, taken) = monitor::bind(address).await?;
        monitor = Some(taken);
        tasks.spawn(monitor::serve(listener, Arc::clone(&agent), shutdown.clone()));
    }
    let mut relay = None;
    if let Some(address) = &agent.config.relay.listen {
        let (listener, taken) = relay::bind(address).await?;
        relay = Some(taken);
        tasks.spawn(relay::keep(Arc::clone(&agent), listener, taken, shutdown.clone()));
    }
    tasks.spawn(Arc::clone(&agent).follow(shutdown.clone()));
    tasks.spawn(Arc::clone(&agent).keep_reporting(shutdown.clone()));
    tasks.spawn(Arc::clone(&agent).keep_renewed(shutdown.clone()));
    tasks.spawn(control::serve(control, Arc::clone(&agent), shutdown.clone()));
    tasks.spawn(Arc::clone(&agent).keep_scrubbing(shutdown.clone()));
    tasks.spawn(Arc::clone(&agent).work(shutdown.clone()));
    Ok(Running { agent, monitor, relay, shutdown, tasks })
}

impl Running {
    /// The agent.
    pub fn agent(&self) -> &Arc<Agent> {
        &self.agent
    }

    /// Where it answers monitoring, if it does.
    pub fn monitor(&self) -> Option<SocketAddr> {
        self.monitor
    }

    /// Where it serves other sites, if it does.
    pub fn relay(&self) -> Option<SocketAddr> {
        self.relay
    }

    /// Ends everything; what was fetched and verified is kept for the next start.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        let drained = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!("a run did not end in time; the next start goes on with it");
        }
        std::fs::remove_file(control::socket(&self.agent.config.data)).ok();
    }
}

/// One activation without a daemon: asks for orders, brings every assignment to its target, looks
/// at every stock server, reports. Needs a multi-threaded runtime.
pub async fn run_once(config: Config) -> Result<Vec<RunReport>, Failure> {
    let agent = Agent::open(config).await?;
    let reports = activate_once(&agent, &Forced::All, false).await?;
    Ok(reports)
}

/// Asks for orders as far as the coordinator answers, and makes one activation.
pub(crate) async fn activate_once(
    agent: &Arc<Agent>,
    forced: &Forced,
    dry: bool,
) -> Result<Vec<RunReport>, Failure> {
    // Nobody else renews for an agent that is run by a timer.
    agent.renew_if_due().await;
    match tokio::time::timeout(ASK * 3, agent.ask(agent.newest(), Duration::ZERO)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) if error.is_revoked() => return Err(Failure::Revoked),
        Ok(Err(error)) if error.is_refusal() => return Err(Failure::Refused(error)),
        Ok(Err(error)) if agent.orders().is_none() => return Err(Failure::NoOrders(error)),
        Ok(Err(error)) => {
            tracing::warn!(
                error = chain(&error),
                "no orders from the coordinator; going on with those of the ledger"
            );
        }
        Err(_) => tracing::warn!("the coordinator does not answer; going on with the ledger"),
    }
    let reports = agent.activate(forced, dry).await;
    if !dry && let Err(error) = agent.send_reports().await {
        tracing::warn!(error = chain(&error), "reports wait for the coordinator");
    }
    Ok(reports)
}

/// An error with its causes, in one line; a refused certificate is explained first.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Transparent wrappers would say it twice.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    match certs::tls::refusal(error) {
        Some(refusal) => format!("{refusal}: {text}"),
        None => text,
    }
}
