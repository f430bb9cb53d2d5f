//! An agent that serves others: the relay of their sites.
//!
//! Where a site's definition names another one as its relay, its agents ask that site's agents before
//! any publication point, and the publisher itself only while none of them answers. So a publisher at
//! the far end of a thin line sends everything to the relay's site, and not once to each.
//!
//! A relay gives what it holds: manifests, whole files, and the parts of packs that were asked for
//! before ([`cache`]). What it does not hold it fetches itself, over its own line and under its own
//! certificate, and passes it on ([`through`]); an rsync session it passes on as it is ([`rsync`]).
//!
//! *Why is it trusted?* For nothing but patience. What it gives is believed by the signature of the
//! publisher, as from any other point; a relay that lies costs that range once more, from elsewhere.
//!
//! *Whom does it serve?* Those that its coordinator names, for as long as it is heard, and nobody
//! more: whether a certificate's serial is live and what it may read is looked up for each request
//! ([`readers`]), as at a publisher. What a relay may not read itself it is never named for.

mod body;
mod cache;
mod content;
mod https;
mod readers;
mod rsync;
mod through;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use certs::tls::{
    self, ALPN_H2, ALPN_HTTP1, ALPN_RELAYED_RSYNC, ConnectionRegistry, Limits, Peers, RawProtocol,
    ServerTls,
};
use protocol::{
    units::{ByteSize, Span},
    v1::publisher::Presence,
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    agent::Agent,
    fetch::retries::{backoff, chance},
};

/// The first and the longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What an admin of a site sets about relaying (`[relay]` in mirror-agent.toml).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct RelayConfig {
    /// `ADDRESS:PORT` at which other sites' agents are served, by mutual TLS; nobody is, where there
    /// is none.
    pub listen: Option<String>,
    /// `HOST:PORT` at which they reach it; the bound address by default.
    pub advertise: Option<String>,
    /// Most bytes that are kept of what was fetched for others, below the agent's `work`.
    pub cache: ByteSize,
    /// How long others are served after the coordinator was last heard.
    pub readers_max_age: Span,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            listen: None,
            advertise: None,
            cache: ByteSize(10 << 30),
            readers_max_age: Span::from_secs(24 * 3_600),
        }
    }
}

/// The address cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (relay.listen); is another program using that port?")]
pub struct Error {
    address: String,
    source: io::Error,
}

/// Takes the address.
pub async fn bind(address: &str) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error { address: address.to_owned(), source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let taken = listener.local_addr().map_err(failed)?;
    Ok((listener, taken))
}

/// Relays until `shutdown`: gets the certificate of a server where there is none yet, says where it is
/// reached, and serves.
pub async fn keep(
    agent: Arc<Agent>,
    listener: TcpListener,
    address: SocketAddr,
    shutdown: CancellationToken,
) {
    let advertise = agent.config.relay.advertise.clone().unwrap_or_else(|| advertised(address));
    let begin = async {
        until_done("a relay needs a server's certificate", || agent.become_server(&advertise))
            .await;
        let presence = Presence {
            advertise: advertise.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            rsync: agent.rsync.as_ref().map(|rsync| rsync.line.clone()),
        };
        until_done("the coordinator does not know yet where others are served", || {
            agent.client().announce_relay(&presence)
        })
        .await;
    };
    tokio::select! {
        () = shutdown.cancelled() => return,
        () = begin => {}
    }
    tracing::info!(%address, advertise, "other sites are served here");
    if let Err(error) = serve(agent, listener, shutdown).await {
        let error = crate::chain(&error);
        tracing::error!(error, "no other site is served; this one's trees are kept all the same");
    }
}

async fn serve(
    agent: Arc<Agent>,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), tls::Error> {
    let identity = agent.identity.current();
    // It was made sure of above.
    let Some(credentials) = identity.server.as_ref() else { return Ok(()) };
    let registry = ConnectionRegistry::new();
    let peers =
        Peers::Identities { anchors: identity.anchors.clone(), registry: Arc::clone(&registry) };
    let tls = ServerTls::new(credentials, peers, &[ALPN_H2, ALPN_HTTP1, ALPN_RELAYED_RSYNC])?;
    let handler = rsync::handler(Arc::clone(&agent));
    let raw = vec![RawProtocol { alpn: ALPN_RELAYED_RSYNC, handler }];
    let service = https::service(Arc::clone(&agent));
    let (shown, ended, live) = (Arc::clone(&tls), shutdown.clone(), Arc::clone(&agent));
    let following = tokio::spawn(async move { live.identity.keep_shown(&shown, ended).await });
    let closing = tokio::spawn(readers::close_lost(agent, registry, shutdown.clone()));
    tls::serve(listener, tls, service, raw, Limits::default(), shutdown).await;
    following.abort();
    closing.abort();
    Ok(())
}

/// Tries until it succeeds.
async fn until_done<T, E, F>(what: &str, mut attempt: impl FnMut() -> F)
where
    F: Future<Output = Result<T, E>>,
    E: std::error::Error + 'static,
{
    let mut failures = 0;
    while let Err(error) = attempt().await {
        failures += 1;
        tracing::warn!(error = crate::chain(&error), "{what}");
        tokio::time::sleep(backoff(failures, PAUSE.0, PAUSE.1, chance())).await;
    }
}

/// Where others find an agent that was told nothing about that.
fn advertised(address: SocketAddr) -> String {
    if !address.ip().is_unspecified() {
        return address.to_string();
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{}:{}", if host.is_empty() { "localhost" } else { &host }, address.port())
}
