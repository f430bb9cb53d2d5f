//! Certificates that renew by themselves, and HTTP clients that follow them.
//!
//! A certificate lives a week and is replaced, with a new key, at half of that, give or take a
//! tenth so that a thousand programs that were installed together do not come back together. What
//! does not succeed is tried again forever: an outage of half a certificate's life harms nobody.
//!
//! A client is replaced whole. Exchanging only the certificate inside one was tried: pooled
//! connections and resumed sessions went on showing the old one.

mod client;
mod schedule;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use protocol::v1::enroll::{RenewRequest, RenewResponse};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::client::{LiveClient, http_client, public_http_client};
use crate::{
    clock,
    dial::Dialer,
    identity::{
        Identity, Pending,
        directory::{self, Membership},
    },
    late,
    tls::ServerTls,
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Longest sleep at once: timers stand still while a machine sleeps, the date does not.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// How long the enroll port is given to accept a connection, and again to answer.
const LATE_DEADLINE: Duration = Duration::from_secs(30);

/// The identity of a running program: always the current one.
#[derive(Debug)]
pub struct LiveIdentity {
    data: PathBuf,
    current: watch::Sender<Arc<Identity>>,
}

impl LiveIdentity {
    /// Opens the identity in the data directory `data`.
    pub fn open(data: &Path) -> Result<Arc<Self>, directory::Error> {
        let current = watch::Sender::new(Identity::load(data)?);
        Ok(Arc::new(Self { data: data.into(), current }))
    }

    /// The identity as it is now.
    pub fn current(&self) -> Arc<Identity> {
        Arc::clone(&self.current.borrow())
    }

    /// Tells of every new identity.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Identity>> {
        self.current.subscribe()
    }

    /// Renews the certificates now: `renew` sends the request and gives the answer, `check` tries
    /// the new identity before it takes effect.
    pub async fn renew_once<R, RF, RE, C, CF, CE>(
        &self,
        renew: &R,
        check: &C,
    ) -> Result<Arc<Identity>, Error>
    where
        R: Fn(RenewRequest) -> RF,
        RF: Future<Output = Result<RenewResponse, RE>>,
        RE: Into<BoxError>,
        C: Fn(Arc<Identity>) -> CF,
        CF: Future<Output = Result<(), CE>>,
        CE: Into<BoxError>,
    {
        let names = self.current().membership.server_names.clone();
        self.renew_as(&names, renew, check).await
    }

    /// The same for a program that is from now on reached as a server at `server_names`.
    pub async fn renew_as<R, RF, RE, C, CF, CE>(
        &self,
        server_names: &[String],
        renew: &R,
        check: &C,
    ) -> Result<Arc<Identity>, Error>
    where
        R: Fn(RenewRequest) -> RF,
        RF: Future<Output = Result<RenewResponse, RE>>,
        RE: Into<BoxError>,
        C: Fn(Arc<Identity>) -> CF,
        CF: Future<Output = Result<(), CE>>,
        CE: Into<BoxError>,
    {
        let current = self.current();
        let pending = Pending::renew_as(&self.data, &current, server_names)?;
        let request = RenewRequest { keys: pending.keys().clone() };
        let response = renew(request).await.map_err(|error| Error::Refused(error.into()))?;
        let mut membership: Membership = current.membership.clone();
        membership.server_names = server_names.to_vec();
        membership.enroll_url = response.enroll_url.or(membership.enroll_url);
        let identity = pending.install(&membership, &response.certificates, check).await?;
        self.current.send_replace(Arc::clone(&identity));
        info!(serial = %identity.serial, not_after = %identity.not_after, "certificate renewed");
        Ok(identity)
    }

    /// Whether the certificate should have been renewed by now, for programs that do not run all the
    /// time: they are not early, and their next run may be late.
    pub fn is_due(&self) -> bool {
        let identity = self.current();
        let due = schedule::renewal(identity.not_before, identity.not_after, 0.0);
        due <= clock::now()
    }

    /// Renews at the enroll port, after the end of the certificate.
    ///
    /// # Errors
    /// [`late::Error`]; [`Error::NoEnrollPort`] where that was never told.
    pub async fn renew_late(
        &self,
        request: &RenewRequest,
        dialer: &Dialer,
    ) -> Result<RenewResponse, Error> {
        let current = self.current();
        let url = current.membership.enroll_url.as_ref().ok_or(Error::NoEnrollPort)?;
        Ok(late::renew(&current, url, &request.keys, dialer, LATE_DEADLINE).await?)
    }

    /// Whether the certificate has ended.
    pub fn has_ended(&self) -> bool {
        self.current().not_after <= clock::now()
    }

    /// Renews the certificates at half of their life, over and over, until `shutdown`.
    pub async fn keep_renewed<R, RF, RE, C, CF, CE>(
        &self,
        renew: R,
        check: C,
        shutdown: CancellationToken,
    ) where
        R: Fn(RenewRequest) -> RF,
        RF: Future<Output = Result<RenewResponse, RE>>,
        RE: Into<BoxError>,
        C: Fn(Arc<Identity>) -> CF,
        CF: Future<Output = Result<(), CE>>,
        CE: Into<BoxError>,
    {
        let work = async {
            let mut failures = 0;
            let mut due = self.next_renewal();
            loop {
                while let Some(wait) = time_until(due) {
                    tokio::time::sleep(wait.min(LONGEST_SLEEP)).await;
                    if self.take_up_replaced() {
                        due = self.next_renewal();
                    }
                }
                match self.renew_once(&renew, &check).await {
                    Ok(_) => {
                        failures = 0;
                        due = self.next_renewal();
                    }
                    Err(error) => {
                        let wait = schedule::backoff(failures, chance());
                        failures = failures.saturating_add(1);
                        due = Timestamp::now().saturating_add(wait).unwrap_or(Timestamp::MAX);
                        let not_after = self.current().not_after;
                        let error = chain(&error);
                        warn!(
                            %not_after, next_try = %due, error,
                            "the certificate could not be renewed"
                        );
                    }
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = work => {}
        }
    }

    /// Takes up an identity that another process put into the data directory, as when a program
    /// whose certificate was revoked is enrolled anew while it runs. Says whether there was one.
    pub fn take_up_replaced(&self) -> bool {
        let current = self.current();
        match Identity::load(&self.data) {
            Ok(stored) if stored.serial != current.serial => {
                info!(serial = %stored.serial, "another identity was put into place");
                self.current.send_replace(stored);
                true
            }
            // What cannot be read replaces nothing.
            _ => false,
        }
    }

    /// Shows the current server certificate, and every later one, on `tls`, until `shutdown`. For
    /// publishers, and agents that relay.
    pub async fn keep_shown(&self, tls: &ServerTls, shutdown: CancellationToken) {
        let mut renewals = self.subscribe();
        loop {
            let identity = Arc::clone(&renewals.borrow_and_update());
            if let Some(server) = &identity.server {
                match tls.reload_with(server, &identity.anchors) {
                    Ok(()) => info!(serial = %identity.serial, "showing this server certificate"),
                    Err(error) => {
                        let error = chain(&error);
                        warn!(
                            error,
                            "the renewed server certificate is not used; the old one stays"
                        );
                    }
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = renewals.changed() => if changed.is_err() { return },
            }
        }
    }

    fn next_renewal(&self) -> Timestamp {
        let identity = self.current();
        schedule::renewal(identity.not_before, identity.not_after, chance())
    }
}

/// How long it is until `due`; none when it is over.
fn time_until(due: Timestamp) -> Option<Duration> {
    let left = Duration::try_from(due.duration_since(Timestamp::now())).ok()?;
    (!left.is_zero()).then_some(left)
}

/// A random number from 0 to 1. Only spreads load, so a failure may give a fixed one.
fn chance() -> f64 {
    let bytes: [u8; 4] = crate::random().unwrap_or([0x80, 0, 0, 0]);
    f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX)
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// Why a certificate was not renewed, or a client not made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The keys or certificates could not be made, stored, or put to use.
    #[error(transparent)]
    Identity(#[from] directory::Error),
    /// The coordinator did not answer or refused.
    #[error("the coordinator did not renew the certificate")]
    Refused(#[source] BoxError),
    /// The certificate has ended, and was not renewed at the enroll port.
    #[error(transparent)]
    Late(#[from] late::Error),
    /// It has ended, and nobody ever said where the enroll port is.
    #[error(
        "the certificate has ended, and this identity does not know the enroll port; enroll again with a new invite"
    )]
    NoEnrollPort,
    /// The TLS configuration was refused.
    #[error(transparent)]
    Tls(#[from] crate::tls::Error),
    /// The HTTP client was refused.
    #[error("no HTTP client could be made")]
    Client(#[source] reqwest::Error),
}
