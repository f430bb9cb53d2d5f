//! The real connections behind rsync's pipe.

use std::{io, path::Path, sync::Arc, time::Duration};

use certs::{
    dial::Dialer,
    live::LiveIdentity,
    tls::{self, ALPN_RELAYED_RSYNC, ALPN_RSYNC, ClientStream, ServerExpectation},
};
use protocol::{
    name::IdentityName,
    spec::Transport,
    v1::agent::{Relay, RsyncdOrigin},
};
use tokio::io::AsyncWriteExt as _;

use super::{pipe::Duplex, source::Connect, ssh};

const DEADLINE: Duration = Duration::from_secs(30);

/// A server of the network that speaks rsync, by mutual TLS under the network's root.
#[derive(Debug, Clone)]
pub struct Server {
    expected: ServerExpectation,
    host: String,
    port: u16,
    /// What a relay is told before anything else: which module is meant.
    module: Option<String>,
}

impl Server {
    /// A publisher.
    pub fn publisher(name: IdentityName, host: String, port: u16) -> Self {
        Self { expected: ServerExpectation::publisher(name), host, port, module: None }
    }

    /// A relay, for one module of a publisher; `None` where its address is none.
    pub fn relay(relay: &Relay, module: &str) -> Option<Self> {
        let (host, port) = host_and_port(&relay.address)?;
        let expected = ServerExpectation::relay(relay.agent.clone());
        Some(Self { expected, host, port, module: Some(format!("{module}\n")) })
    }

    /// Opens a connection on which rsync may begin.
    pub async fn connect(
        &self,
        dialer: &Dialer,
        identity: &LiveIdentity,
    ) -> io::Result<ClientStream> {
        let tls = identity.current().client_tls();
        let place = (self.host.as_str(), self.port);
        let alpn = if self.module.is_some() { ALPN_RELAYED_RSYNC } else { ALPN_RSYNC };
        let stream = tls::connect(dialer, &tls, place, &self.expected, alpn, DEADLINE).await;
        let mut stream = stream.map_err(io::Error::other)?;
        if let Some(module) = &self.module {
            stream.write_all(module.as_bytes()).await?;
            stream.flush().await?;
        }
        Ok(stream)
    }
}

/// To the first of these that can be reached: relays, and the publisher at the end.
pub fn to_first(dialer: Dialer, identity: Arc<LiveIdentity>, servers: Vec<Server>) -> Connect {
    let shared = Arc::new((dialer, identity, servers));
    Arc::new(move || {
        let shared = Arc::clone(&shared);
        Box::pin(async move {
            let (dialer, identity, servers) = &*shared;
            let mut last = io::Error::from(io::ErrorKind::NotConnected);
            for server in servers {
                match server.connect(dialer, identity).await {
                    Ok(stream) => return Ok(boxed(stream)),
                    Err(error) => {
                        tracing::info!(server = %server.expected, %error, "no rsync from here");
                        last = error;
                    }
                }
            }
            Err(last)
        })
    })
}

/// To a stock daemon. `work` is a private directory, and `helper` this program: ssh needs both.
pub fn to_stock(dialer: Dialer, origin: &RsyncdOrigin, work: &Path, helper: &Path) -> Connect {
    let shared = Arc::new((dialer, origin.clone(), work.to_owned(), helper.to_owned()));
    Arc::new(move || {
        let shared = Arc::clone(&shared);
        Box::pin(async move {
            let (dialer, origin, work, helper) = &*shared;
            let place = (origin.host.as_str(), origin.port);
            match (origin.transport, &origin.ssh) {
                (Transport::Plain, _) => {
                    let stream = dialer.connect(place.0, place.1, DEADLINE).await;
                    stream.map(boxed).map_err(io::Error::other)
                }
                (Transport::Tls, _) => {
                    let stream = tls::connect_public(dialer, place, DEADLINE).await;
                    stream.map(boxed).map_err(io::Error::other)
                }
                (Transport::Ssh, Some(access)) => {
                    let tunnel = ssh::connect(dialer, origin, access, work, helper, DEADLINE).await;
                    tunnel.map(boxed).map_err(io::Error::other)
                }
                (Transport::Ssh, None) => Err(io::Error::other(NoSshAccess)),
            }
        })
    })
}

/// Orders that name ssh and no key.
#[derive(Debug, thiserror::Error)]
#[error(
    "the orders say transport = \"ssh\" without key-file and host-key; apply the upstream anew"
)]
struct NoSshAccess;

fn boxed(stream: impl Duplex + 'static) -> Box<dyn Duplex> {
    Box::new(stream)
}

/// Takes `HOST:PORT` apart; an IPv6 address stands in brackets.
pub fn host_and_port(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty()).then_some(())?;
    Some((host.to_owned(), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        assert_eq!(host_and_port("a.example:8445"), Some(("a.example".into(), 8445)));
        assert_eq!(host_and_port("[::1]:1"), Some(("::1".into(), 1)));
        for text in ["", "a", ":1", "a:", "a:x", "a:70000"] {
            assert_eq!(host_and_port(text), None, "{text}");
        }
    }
}
