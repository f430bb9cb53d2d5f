//! Webhooks: events sent to the web servers that `coordinator.toml` names.
//!
//! Where they go is said in the configuration of the machine and not in a definition: a definition
//! is written over the API, and whoever may write one must not be able to have this machine read a
//! secret's file or ask servers of its inner network. For the same reason a redirect is a failure.
//!
//! What is sent is signed as <https://www.standardwebhooks.com> says, so receivers have libraries
//! for it: `webhook-id` (the event's id, the same at every try), `webhook-timestamp`, and
//! `webhook-signature`, HMAC-SHA-256 over `ID.TIMESTAMP.BODY`. A receiver may get an event twice and
//! tells so by its id; events of one subject come in their order, because a later one waits until
//! the earlier one was taken or given up.

mod config;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use certs::{
    dial::{Dialer, NoProxy, ProxySettings, Reach},
    keyfile, live,
    mac::hmac_sha256,
    tls::{self, PublicRoots},
};
use futures_util::future::join_all;
use jiff::SignedDuration;
use protocol::v1::events::{Event, EventKind};
use reqwest::header::HeaderValue;
use tokio::time::MissedTickBehavior;

pub use self::config::{EventsConfig, Invalid, WebhookConfig};
use crate::{
    app::{self, App},
    db::Delivery,
};

/// How often one looks for what is due; what is new is delivered at once.
const TICK: Duration = Duration::from_secs(1);
/// How long a receiver has to take an event.
const DEADLINE: Duration = Duration::from_secs(15);
/// How long a replica may hold a delivery; after that another one tries, or the same one after it
/// was killed: little longer than a receiver has.
const CLAIM: SignedDuration = SignedDuration::from_secs(20);
/// Deliveries of one webhook at a time.
const AT_ONCE: u64 = 4;
/// First and longest pause before another try, and after what time none is made.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(1);
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(15);
const GIVE_UP: SignedDuration = SignedDuration::from_hours(3 * 24);
/// What is told of a failure, in characters.
const MAX_ERROR: usize = 300;

/// One webhook, ready to be called.
pub(crate) struct Webhook {
    name: String,
    url: String,
    secrets: Vec<Vec<u8>>,
    kinds: BTreeSet<EventKind>,
    http: reqwest::Client,
}

/// Why a webhook of the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its secret's file.
    #[error("the webhook {name} has no secret that can be read")]
    Secret {
        /// Which webhook.
        name: String,
        /// Why not.
        source: keyfile::Error,
    },
    /// What the file holds.
    #[error("the secret-file of the webhook {name} {what}")]
    BadSecret {
        /// Which webhook.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The file of further authorities.
    #[error("the roots of the webhook {name} cannot be used")]
    Roots {
        /// Which webhook.
        name: String,
        /// Why not.
        source: tls::Error,
    },
    /// No client can be made.
    #[error(transparent)]
    Client(#[from] live::Error),
    /// The proxy of the environment.
    #[error("the proxy that HTTPS_PROXY names cannot be used")]
    Proxy(#[from] certs::dial::InvalidProxy),
}

impl Webhook {
    /// Reads the secrets and makes a client.
    pub(crate) fn open(config: &WebhookConfig) -> Result<Self, Error> {
        let name = config.name.clone();
        let text = keyfile::read_text(&config.secret_file)
            .map_err(|source| Error::Secret { name: name.clone(), source })?;
        let secrets =
            config::secrets(&text).map_err(|what| Error::BadSecret { name: name.clone(), what })?;
        let system = PublicRoots::of_system().unwrap_or_else(|_| PublicRoots::none());
        let roots = match &config.roots {
            Some(file) => system
                .and_file(file)
                .map_err(|source| Error::Roots { name: name.clone(), source })?,
            None => system,
        };
        let proxy = ProxySettings::from_env().or_else(|error| match config.is_local() {
            true => Ok(ProxySettings::new(None, NoProxy::default())),
            false => Err(error),
        })?;
        let dialer = Dialer { proxy, ..Dialer::default() };
        let http = live::public_http_client(&roots, &dialer, &Reach::everywhere())?;
        Ok(Self { name, url: config.url.clone(), secrets, kinds: config.kinds(), http })
    }

    /// Its name, and the kinds of event that it wants.
    pub(crate) fn wants(&self) -> (String, BTreeSet<EventKind>) {
        (self.name.clone(), self.kinds.clone())
    }

    /// Sends one event; the error is for an admin.
    async fn send(&self, event: &Event, now: jiff::Timestamp) -> Result<(), String> {
        let body = serde_json::to_vec(event).map_err(|error| error.to_string())?;
        let (id, at) = (event.id.to_string(), now.as_second().to_string());
        let signature = signature(&self.secrets, &id, &at, &body);
        let signature = HeaderValue::from_str(&signature).map_err(|error| error.to_string())?;
        let request = self
            .http
            .post(&self.url)
            .header("content-type", "application/json")
            .header("user-agent", concat!("mirrornet-coordinator/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", id)
            .header("webhook-timestamp", at)
            .header("webhook-signature", signature)
            .body(body);
        match tokio::time::timeout(DEADLINE, request.send()).await {
            Err(_) => Err(format!("it did not answer within {} s", DEADLINE.as_secs())),
            Ok(Err(error)) => Err(chain(&error.without_url())),
            Ok(Ok(answer)) if answer.status().is_success() => Ok(()),
            Ok(Ok(answer)) if answer.status().is_redirection() => {
                Err(format!("it answered {} and redirects are not followed", answer.status()))
            }
            Ok(Ok(answer)) => Err(format!("it answered {}", answer.status())),
        }
    }
}

/// Delivers what is due for one webhook, until the coordinator stops.
pub(crate) async fn deliver(app: Arc<App>, webhook: Webhook) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = app.stopping().cancelled() => return,
            _ = ticks.tick() => {}
            () = app.something_told() => {}
        }
        let delivered = tokio::select! {
            () = app.stopping().cancelled() => return,
            delivered = deliver_due(&app, &webhook) => delivered,
        };
        if let Err(error) = delivered {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, webhook = webhook.name, "events wait");
        }
    }
}

/// Delivers until nothing is due.
async fn deliver_due(app: &App, webhook: &Webhook) -> Result<(), app::Error> {
    loop {
        let taken = app.take_deliveries(&webhook.name, CLAIM, AT_ONCE).await?;
        if taken.is_empty() {
            return Ok(());
        }
        let sent = taken.iter().map(|delivery| deliver_one(app, webhook, delivery));
        join_all(sent).await.into_iter().collect::<Result<(), _>>()?;
    }
}

async fn deliver_one(app: &App, webhook: &Webhook, delivery: &Delivery) -> Result<(), app::Error> {
    let went = webhook.send(&delivery.event, app.now()).await;
    note(app, webhook, delivery, went).await
}

async fn note(
    app: &App,
    webhook: &Webhook,
    delivery: &Delivery,
    went: Result<(), String>,
) -> Result<(), app::Error> {
    let number = delivery.event.number;
    let Err(error) = went else {
        tracing::debug!(webhook = webhook.name, number, "delivered");
        return app.note_delivery(delivery, Ok(())).await;
    };
    let error: String = error.chars().take(MAX_ERROR).collect();
    let age = app.now().duration_since(delivery.event.at);
    let again = (age < GIVE_UP).then(|| pause(delivery.tries));
    match again {
        Some(again) => tracing::warn!(
            webhook = webhook.name, number, error, again = %again,
            "an event could not be delivered; it is tried again"
        ),
        None => tracing::error!(
            webhook = webhook.name,
            number,
            error,
            "an event could not be delivered for days and is given up"
        ),
    }
    app.note_delivery(delivery, Err((&error, again))).await
}

/// How long to wait after so many tries.
fn pause(tries: u32) -> SignedDuration {
    FIRST_PAUSE.saturating_mul(1 << tries.min(20)).min(LONGEST_PAUSE)
}

/// The header's value: one signature for each secret, so that a secret can be replaced.
fn signature(secrets: &[Vec<u8>], id: &str, at: &str, body: &[u8]) -> String {
    let mut message = format!("{id}.{at}.").into_bytes();
    message.extend_from_slice(body);
    let sign = |secret: &Vec<u8>| {
        let tag = hmac_sha256(secret, &message);
        format!("v1,{}", data_encoding::BASE64.encode(&tag))
    };
    secrets.iter().map(sign).collect::<Vec<_>>().join(" ")
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_the_standard_and_there_is_one_for_each_secret() {
        // The example of the standard's own libraries.
        let secret = config::secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let (id, at) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330");
        let body = br#"{"test": 2432232314}"#;
        let one = signature(&secret, id, at, body);
        assert_eq!(one, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let two = [secret, vec![b"another secret, as plain text".to_vec()]].concat();
        let both = signature(&two, id, at, body);
        assert!(both.starts_with(&format!("{one} v1,")), "{both}");
    }

    #[test]
    fn pauses_grow_to_a_quarter_of_an_hour() {
        let pauses: Vec<_> = (0..4).map(|tries| pause(tries).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8]);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }
}
