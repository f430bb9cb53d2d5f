//! The real connections behind rsync's pipe.

use std::{io, path::Path, sync::Arc, time::Duration};

use certs::{
    dial::Dialer,
    live::LiveIdentity,
    tls::{self, ALPN_RSYNC, ServerExpectation},
};
use protocol::{name::IdentityName, spec::Transport, v1::agent::RsyncdOrigin};

use super::{pipe::Duplex, source::Connect, ssh};

const DEADLINE: Duration = Duration::from_secs(30);

/// To the rsync of a publisher: mutual TLS under the network's root, to that identity only.
pub fn to_publisher(
    dialer: Dialer,
    identity: Arc<LiveIdentity>,
    publisher: IdentityName,
    host: String,
    port: u16,
) -> Connect {
    Arc::new(move || {
        let (dialer, identity) = (dialer.clone(), Arc::clone(&identity));
        let (host, publisher) = (host.clone(), publisher.clone());
        Box::pin(async move {
            let tls = identity.current().client_tls();
            let server = ServerExpectation::publisher(publisher);
            let place = (host.as_str(), port);
            let stream = tls::connect(&dialer, &tls, place, &server, ALPN_RSYNC, DEADLINE).await;
            stream.map(boxed).map_err(io::Error::other)
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
