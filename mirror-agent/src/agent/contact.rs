//! Talking to the coordinator: orders in, reports out, certificates renewed.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use certs::{
    clock,
    identity::Identity,
    live::{self, http_client},
    tls::{self, Refusal, ServerExpectation},
};
use jiff::Timestamp;
use protocol::{
    client,
    error::ProblemKind,
    generation::{Revision, RootNumber},
    v1::{
        agent::AgentOrders,
        enroll::{RenewRequest, RenewResponse},
    },
};
use tokio_util::sync::CancellationToken;

use super::Agent;
use crate::{
    fetch::retries::{backoff, chance},
    ledger,
    line::Terms,
    orders::{self, Orders},
    report::Run,
    rsync::connect::host_and_port,
};

/// How long the coordinator keeps a question open.
const WAIT: Duration = Duration::from_secs(60);
/// How long telling of a run that begins may take.
const TELL: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Why there are no new orders.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The coordinator.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// Our certificate has ended.
    #[error(
        "this program's certificate has expired (at {until}), or one of the two clocks is wrong; compare the clocks, then enroll again with a new invite"
    )]
    Expired {
        /// When it ended.
        until: Timestamp,
        /// What the connection said.
        source: client::Error,
    },
    /// They are not believed.
    #[error(transparent)]
    Orders(#[from] orders::Error),
    /// The next root is not believed.
    #[error("the network's next root document is refused; the one that is known stays")]
    Root(#[from] certs::root::Error),
    /// The coordinator names a root that it does not show.
    #[error("the coordinator speaks of root {newest}, but does not show the roots that lead there")]
    RootsMissing {
        /// Spoken of.
        newest: RootNumber,
    },
    /// They could not be stored.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
}

impl Error {
    /// Whether the coordinator answered and refused this identity.
    pub fn is_refusal(&self) -> bool {
        let error = match self {
            Self::Client(error) => error,
            Self::Expired { .. } => return true,
            Self::Orders(_) | Self::Root(_) | Self::RootsMissing { .. } | Self::Ledger(_) => {
                return false;
            }
        };
        let refused = [ProblemKind::Revoked, ProblemKind::Unauthenticated, ProblemKind::Forbidden];
        error.problem().is_some_and(|problem| refused.contains(&problem.kind))
            || refusal_of(error).is_some()
    }

    /// Whether it was revoked, and not merely refused.
    pub fn is_revoked(&self) -> bool {
        let Self::Client(error) = self else { return false };
        error.problem().is_some_and(|problem| problem.kind == ProblemKind::Revoked)
            || refusal_of(error) == Some(Refusal::Revoked)
    }

    fn is_broken_connection(&self) -> bool {
        matches!(self, Self::Client(error @ client::Error::Transport { .. }) if refusal_of(error).is_none())
    }
}

/// What the coordinator's TLS held against this agent's certificate.
fn refusal_of(error: &client::Error) -> Option<Refusal> {
    let client::Error::Transport { source, .. } = error else { return None };
    let about_us = [Refusal::Revoked, Refusal::Expired, Refusal::NotAccepted];
    tls::refusal(source).filter(|refusal| about_us.contains(refusal))
}

impl Agent {
    /// Takes up what was believed before the last end of this program.
    pub(super) fn recall(&self) -> Result<(), ledger::Error> {
        let Some(wanted) = self.ledger.orders()? else { return Ok(()) };
        let mut marks = self.ledger.marks()?;
        match Orders::verify(wanted, &self.trust(), &mut marks) {
            Ok(orders) => {
                self.line.set_terms(Terms::of(&orders.wanted));
                let mut state = self.lock();
                // It stood by them when it signed their head, for all that is known now.
                state.heard = Some(orders.head.issued);
                state.orders = Some(Arc::new(orders));
            }
            Err(error) => {
                tracing::warn!(error = crate::chain(&error), "the stored orders are not used");
            }
        }
        Ok(())
    }

    /// Asks for orders newer than `after`; `Ok(false)` when there are none.
    pub async fn ask(&self, after: Revision, wait: Duration) -> Result<bool, Error> {
        let mut answer = self.client.agent_orders(after, wait).await.map_err(Error::from);
        if answer.as_ref().is_err_and(|error| error.is_broken_connection()) {
            // A connection that was closed meanwhile, perhaps because of what we have become: a new
            // one is answered, whatever the answer is.
            answer = self.client.agent_orders(after, wait).await.map_err(Error::from);
        }
        if let Err(Error::Client(source)) = answer {
            return Err(self.explained(source));
        }
        match answer? {
            None => {
                self.lock().heard = Some(clock::now());
                Ok(false)
            }
            Some(wanted) => {
                self.follow_roots(wanted.root).await?;
                self.accept(wanted).map(|()| true)
            }
        }
    }

    /// Why the coordinator was not asked: our end, where it says so or we see it ourselves.
    fn explained(&self, source: client::Error) -> Error {
        let until = self.identity.current().not_after;
        let told = is_expired(&source);
        let broken = matches!(source, client::Error::Transport { .. });
        if told || broken && until <= clock::now() {
            return Error::Expired { until, source };
        }
        source.into()
    }

    fn accept(&self, wanted: AgentOrders) -> Result<(), Error> {
        let _one = self.accepting.lock().unwrap_or_else(PoisonError::into_inner);
        // As they were told: what mandates make of them is worked out anew at each start.
        let told = wanted.clone();
        let orders = self.ledger.raise_marks(|marks| {
            let orders = Orders::verify(wanted, &self.trust(), marks)?;
            // Only a time that was signed and is not believed for more than it can prove.
            marks.time = Some(clock::witness(orders.head.issued));
            Ok::<_, Error>(orders)
        })?;
        self.ledger.set_orders(&told)?;
        tracing::debug!(revision = %orders.wanted.revision, "new orders");
        self.line.set_terms(Terms::of(&orders.wanted));
        let mut state = self.lock();
        state.heard = Some(clock::now());
        state.orders = Some(Arc::new(orders));
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// Follows the coordinator until the end of the program.
    pub(crate) async fn follow(self: Arc<Self>, shutdown: CancellationToken) {
        let mut failures = 0;
        loop {
            let asked = tokio::select! {
                () = shutdown.cancelled() => return,
                asked = self.ask(self.newest(), WAIT) => asked,
            };
            match asked {
                Ok(_) => {
                    failures = 0;
                    if self.lock().trouble.take().is_some() {
                        tracing::info!("the coordinator answers again");
                        self.unsent.notify_one();
                    }
                }
                Err(error) => {
                    failures += 1;
                    self.tell_trouble(&error);
                    let wait = backoff(failures, FIRST_RETRY, LONGEST_RETRY, chance());
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            }
        }
    }

    /// The revision to ask after; everything is asked for again when the head has lived half of
    /// its life, so that it is replaced before it expires.
    pub(crate) fn newest(&self) -> Revision {
        let Some(orders) = self.orders() else { return Revision(0) };
        let head = &orders.head;
        let life = head.expires.duration_since(head.issued);
        let left = head.expires.duration_since(clock::now());
        if left < life / 2 { Revision(0) } else { orders.wanted.revision }
    }

    fn tell_trouble(&self, error: &Error) {
        let text = crate::chain(error);
        let mut state = self.lock();
        if state.trouble.as_ref() != Some(&text) {
            tracing::warn!(
                error = text,
                "no orders from the coordinator; going on with those of the ledger"
            );
        }
        state.trouble = Some(text);
    }

    /// Tells that a run begins to fetch or to change. It is told once: whoever cannot be told now hears of
    /// it by the run's report.
    pub(crate) fn tell_begun(&self, run: &Run) {
        let Some(begun) = run.begins() else { return };
        let client = self.client.clone();
        tokio::spawn(async move {
            match tokio::time::timeout(TELL, client.report_begun(&begun)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(error = crate::chain(&error), "the begin of a run is not told");
                }
                Err(_) => tracing::debug!("the begin of a run is not told in time"),
            }
        });
    }

    /// Sends every report that waits; ends at the first that is not taken.
    pub async fn send_reports(&self) -> Result<(), Error> {
        for report in self.ledger.unsent()? {
            match self.client.report_run(&report).await {
                Ok(()) => {}
                // What the coordinator will never take must not keep the others.
                Err(error) if is_final(&error) => {
                    let error = crate::chain(&error);
                    tracing::warn!(report = %report.id, error, "the coordinator refuses a report");
                }
                Err(error) => return Err(error.into()),
            }
            self.ledger.remove_unsent(report.id)?;
        }
        Ok(())
    }

    /// Sends reports as they come, and again until they are taken.
    pub(crate) async fn keep_reporting(self: Arc<Self>, shutdown: CancellationToken) {
        let mut failures = 0;
        loop {
            let wait = match self.send_reports().await {
                Ok(()) => {
                    failures = 0;
                    LONGEST_RETRY * 10
                }
                Err(error) => {
                    failures += 1;
                    tracing::debug!(error = crate::chain(&error), "reports wait");
                    backoff(failures, FIRST_RETRY, LONGEST_RETRY, chance())
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.unsent.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Keeps the certificate alive.
    pub(crate) async fn keep_renewed(self: Arc<Self>, shutdown: CancellationToken) {
        let agent = &*self;
        let renew = |request| agent.renew(request);
        let check =
            |identity: Arc<Identity>| async move { try_out(&identity, &agent.dialer).await };
        agent.identity.keep_renewed(renew, check, shutdown).await;
    }

    /// Makes sure that there is the certificate of a server which is reached at `HOST:PORT`.
    pub(crate) async fn become_server(&self, advertise: &str) -> Result<(), live::Error> {
        let host = host_and_port(advertise).map_or_else(|| advertise.to_owned(), |(host, _)| host);
        let names = [host];
        let current = self.identity.current();
        if current.server.is_some() && current.membership.server_names == names {
            return Ok(());
        }
        let renew = |request| self.renew(request);
        let check = |identity: Arc<Identity>| async move { try_out(&identity, &self.dialer).await };
        self.identity.renew_as(&names, &renew, &check).await.map(drop)
    }

    /// Renews a certificate that is due; for a program that does not run all the time.
    pub(crate) async fn renew_if_due(&self) {
        if !self.identity.is_due() {
            return;
        }
        let renew = |request| self.renew(request);
        let check = |identity: Arc<Identity>| async move { try_out(&identity, &self.dialer).await };
        if let Err(error) = self.identity.renew_once(&renew, &check).await {
            let not_after = self.identity.current().not_after;
            let error = crate::chain(&error);
            tracing::warn!(%not_after, error, "the certificate was due and is not renewed");
        }
    }

    async fn renew(&self, request: RenewRequest) -> Result<RenewResponse, NotRenewed> {
        match self.client.renew(&request).await {
            Ok(response) => Ok(response),
            Err(error) if self.identity.has_ended() || is_expired(&error) => {
                Ok(self.identity.renew_late(&request, &self.dialer).await?)
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn is_final(error: &client::Error) -> bool {
    error.problem().is_some_and(|problem| {
        matches!(
            problem.kind,
            ProblemKind::BadRequest | ProblemKind::NotFound | ProblemKind::TooLarge
        )
    })
}

fn is_expired(error: &client::Error) -> bool {
    error.problem().is_some_and(|problem| problem.kind == ProblemKind::Expired)
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
enum NotRenewed {
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error(transparent)]
    Late(#[from] live::Error),
}

/// A renewed certificate that the API does not accept.
#[derive(Debug, thiserror::Error)]
enum NotAccepted {
    #[error(transparent)]
    Client(#[from] live::Error),
    #[error(transparent)]
    Api(#[from] client::Error),
}

async fn try_out(identity: &Identity, dialer: &certs::dial::Dialer) -> Result<(), NotAccepted> {
    let http = http_client(identity, &ServerExpectation::Coordinator, dialer)?;
    let client = client::Client::new(&identity.membership.api_url, Arc::new(move || http.clone()));
    client.whoami().await?;
    Ok(())
}
