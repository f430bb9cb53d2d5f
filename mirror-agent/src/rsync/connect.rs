//! The real connections behind rsync's pipe.

use std::{io, sync::Arc, time::Duration};

use certs::{
    dial::Dialer,
    live::LiveIdentity,
    tls::{self, ALPN_RSYNC, ServerExpectation},
};
use protocol::{name::IdentityName, spec::Transport, v1::agent::RsyncdOrigin};

use super::{pipe::Duplex, source::Connect};

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

/// To a stock daemon.
pub fn to_stock(dialer: Dialer, origin: &RsyncdOrigin) -> Connect {
    let (host, port) = (origin.host.clone(), origin.port);
    let transport = origin.transport;
    Arc::new(move || {
        let (dialer, host) = (dialer.clone(), host.clone());
        Box::pin(async move {
            match transport {
                Transport::Plain => {
                    let stream = dialer.connect(&host, port, DEADLINE).await;
                    stream.map(boxed).map_err(io::Error::other)
                }
                Transport::Tls => {
                    let stream = tls::connect_public(&dialer, (&host, port), DEADLINE).await;
                    stream.map(boxed).map_err(io::Error::other)
                }
            }
        })
    })
}

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
