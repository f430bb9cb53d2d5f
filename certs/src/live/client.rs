//! HTTP clients that show the current certificate.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use protocol::v1::MAX_WAIT_SECONDS;
use reqwest::redirect::Policy;
use tokio::sync::watch;
use tracing::warn;

use super::{Error, LiveIdentity};
use crate::{
    dial::{Dialer, Reach, Resolver},
    identity::{Identity, Serial},
    tls::{ALPN_H2, ALPN_HTTP1, PublicRoots, ServerExpectation},
};

/// Always set: without it a preconfigured client silently speaks HTTP/1.1.
const ALPN: [&str; 2] = [ALPN_H2, ALPN_HTTP1];
const CONNECT: Duration = Duration::from_secs(15);
/// Longest silence within an answer; longer than any long poll.
const SILENCE: Duration = Duration::from_secs(MAX_WAIT_SECONDS + 30);
const PING: Duration = Duration::from_secs(20);

/// An HTTP client that always shows the current certificate of a [`LiveIdentity`].
pub struct LiveClient {
    identity: watch::Receiver<Arc<Identity>>,
    expectation: ServerExpectation,
    dialer: Dialer,
    current: Mutex<Current>,
}

struct Current {
    serial: Serial,
    client: reqwest::Client,
}

impl LiveClient {
    /// A client for the expected server.
    pub fn new(
        identity: &LiveIdentity,
        expectation: ServerExpectation,
        dialer: Dialer,
    ) -> Result<Self, Error> {
        let current = identity.current();
        let client = http_client(&current, &expectation, &dialer)?;
        let current = Mutex::new(Current { serial: current.serial.clone(), client });
        Ok(Self { identity: identity.subscribe(), expectation, dialer, current })
    }

    /// The client for the next request. Do not keep it: after a renewal another one is given, and
    /// the old one's connections end with its last request.
    pub fn get(&self) -> reqwest::Client {
        let identity = Arc::clone(&self.identity.borrow());
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.serial != identity.serial {
            match http_client(&identity, &self.expectation, &self.dialer) {
                Ok(client) => *current = Current { serial: identity.serial.clone(), client },
                Err(error) => warn!(%error, "the renewed certificate is not used yet"),
            }
        }
        current.client.clone()
    }
}

impl fmt::Debug for LiveClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LiveClient({})", self.expectation)
    }
}

/// An HTTP client that shows `identity` and talks to the expected server only, for programs that do
/// not live long enough to see a renewal.
///
/// It follows no redirects, speaks https only, and gives up on a connection after 15 s and on an
/// answer after 150 s of silence; a request that must end sooner sets its own timeout.
pub fn http_client(
    identity: &Identity,
    expectation: &ServerExpectation,
    dialer: &Dialer,
) -> Result<reqwest::Client, Error> {
    build(identity.client_tls().config(expectation, &ALPN)?, dialer)
}

/// An HTTP client for servers outside of the network, such as a CDN: it shows no identity, trusts
/// the public PKI and connects only where `reach` lets it. An address in a URL is not looked up, so
/// the caller judges it ([`Reach::admits_host`]). Bounds are those of [`http_client`].
pub fn public_http_client(
    roots: &PublicRoots,
    dialer: &Dialer,
    reach: &Reach,
) -> Result<reqwest::Client, Error> {
    let builder = builder(roots.config(&ALPN)?, dialer);
    let resolver = Resolver::new(reach.clone(), dialer.clone());
    let builder = builder.https_only(!reach.plain_http).dns_resolver(Arc::new(resolver));
    builder.build().map_err(Error::Client)
}

fn build(tls: rustls::ClientConfig, dialer: &Dialer) -> Result<reqwest::Client, Error> {
    builder(tls, dialer).https_only(true).build().map_err(Error::Client)
}

fn builder(tls: rustls::ClientConfig, dialer: &Dialer) -> reqwest::ClientBuilder {
    let proxy = dialer.proxy.clone();
    let choose = move |url: &reqwest::Url| {
        let host = url.host_str().unwrap_or_default();
        let proxy = match url.scheme() {
            "http" => proxy.for_plain_host(host),
            _ => proxy.for_host(host),
        };
        proxy.map(|proxy| proxy.secret_text().to_owned())
    };
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(Policy::none())
        // The environment is read in one place, by whoever made the dialer.
        .no_proxy()
        .proxy(reqwest::Proxy::custom(choose))
        .local_address(dialer.local_address())
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE)
        .http2_keep_alive_interval(PING)
        .http2_keep_alive_timeout(PING)
        .http2_keep_alive_while_idle(true)
}
