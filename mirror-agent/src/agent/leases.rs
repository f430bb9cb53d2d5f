//! Leases: so many of the network's connections to an upstream, and no more.

use std::time::{Duration, Instant};

use protocol::{
    client::{self, Client},
    spec::AssignmentName,
    v1::agent::{AssignmentOrder, LeaseRequest, Origin},
};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::Agent;

/// How long an admin's wish waits for a connection.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long the coordinator is given to answer.
const ASK: Duration = Duration::from_secs(10);
/// How soon a lease that could not be prolonged is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Why no connection may be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody knows how many there are.
    #[error(
        "the upstream allows {most} connections, which the coordinator gives out, and it cannot be asked; the mirror goes on serving what it has"
    )]
    NoAnswer {
        /// The upstream's limit.
        most: u32,
        /// What came instead; nothing when nothing came in time.
        source: Option<client::Error>,
    },
    /// All are in use.
    #[error(
        "all {most} connections that the upstream allows are in use by this network; it is tried again"
    )]
    AllTaken {
        /// The upstream's limit.
        most: u32,
    },
    /// It could not be prolonged in time, so the connection was ended.
    #[error(
        "the lease of a connection to the upstream ended, because the coordinator could not be asked to prolong it"
    )]
    Lost,
}

/// The right to one connection, until it goes.
pub(super) struct Lease {
    client: Client,
    request: LeaseRequest,
    until: Instant,
}

impl Agent {
    /// Does work that connects to the order's upstream: under a lease, where that allows only so
    /// many connections.
    pub(crate) async fn under_lease<T>(
        &self,
        order: &AssignmentOrder,
        work: impl Future<Output = T>,
    ) -> Result<T, Error> {
        match self.lease(order, true).await? {
            None => Ok(work.await),
            Some(lease) => lease.hold(work).await,
        }
    }

    /// Takes a lease where the upstream needs one. What an admin asked for waits for a place; what
    /// is merely due comes again by itself.
    pub(super) async fn lease(
        &self,
        order: &AssignmentOrder,
        is_forced: bool,
    ) -> Result<Option<Lease>, Error> {
        let Origin::Rsyncd(from) = &order.origin else { return Ok(None) };
        let Some(most) = from.max_connections else { return Ok(None) };
        let mut lease = Lease::new(self.client.clone(), order.name.clone());
        let give_up = Instant::now() + if is_forced { PATIENCE } else { Duration::ZERO };
        loop {
            let again = match lease.ask().await {
                Ok(None) => return Ok(Some(lease)),
                Ok(Some(again)) => again,
                Err(source) => return Err(Error::NoAnswer { most, source }),
            };
            if Instant::now() + again > give_up {
                return Err(Error::AllTaken { most });
            }
            tokio::time::sleep(again).await;
        }
    }
}

impl Lease {
    fn new(client: Client, assignment: AssignmentName) -> Self {
        let request = LeaseRequest { id: Uuid::now_v7(), assignment, release: false };
        Self { client, request, until: Instant::now() }
    }

    /// Asks for it, or for more of it; gives when to ask again where it was not granted.
    async fn ask(&mut self) -> Result<Option<Duration>, Option<client::Error>> {
        // Counted from before the question: the coordinator counts from after it.
        let asked = Instant::now();
        let answer = tokio::time::timeout(ASK, self.client.lease(&self.request)).await;
        let answer = answer.map_err(|_| None)?.map_err(Some)?;
        if answer.granted {
            self.until = asked + answer.span.duration();
            return Ok(None);
        }
        Ok(Some(answer.span.duration().max(Duration::from_secs(1))))
    }

    /// Does the work under the lease, which is prolonged meanwhile and given back at its end. Work
    /// whose lease was lost is dropped, and its connection with it.
    pub(super) async fn hold<T>(mut self, work: impl Future<Output = T>) -> Result<T, Error> {
        // A task of its own: the work may keep its thread busy for longer than a lease lives.
        let mut keeper = JoinSet::new();
        let (client, request) = (self.client.clone(), self.request.clone());
        let mut kept = Self { client, request, until: self.until };
        keeper.spawn(async move { kept.keep().await });
        let done = tokio::select! {
            done = work => Ok(done),
            lost = keeper.join_next() => Err(lost.and_then(Result::ok).unwrap_or(Error::Lost)),
        };
        keeper.shutdown().await;
        self.request.release = true;
        // Where that fails it ends by itself.
        self.ask().await.ok();
        done
    }

    /// Prolongs the lease for as long as it is polled; returns when it was lost.
    async fn keep(&mut self) -> Error {
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            tokio::time::sleep(left / 3).await;
            while !matches!(self.ask().await, Ok(None)) {
                if Instant::now() + ASK + RETRY > self.until {
                    return Error::Lost;
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
