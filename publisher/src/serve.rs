//! Serving announced generations: HTTPS and rsync on one port, both by mutual TLS.
//!
//! TLS proves a key. Whether its serial is live, and which trees it may read, is looked up for
//! every request in the readers that the coordinator named; whoever is not named is refused, and
//! so is everyone once the coordinator has not been heard for too long. Which protocol a
//! connection speaks is settled by ALPN, so one open port is enough.

pub(crate) mod https;
mod metrics;
pub(crate) mod readers;
mod rsync;

use std::{io, sync::Arc};

use certs::tls::{
    ALPN_H2, ALPN_HTTP1, ALPN_RSYNC, ConnectionRegistry, Limits, Peers, RawProtocol, ServerTls,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use protocol::origin::file;

pub(crate) use self::rsync::{CAGED, find as find_rsync, remove_left_over};
use crate::state::State;

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port.
    #[error("cannot listen on {address}; is another program using it?")]
    Listen {
        /// What was configured.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// The identity has no certificate for a server.
    #[error(
        "the identity in {data} has no server certificate; enroll again with an invite for a publisher"
    )]
    NoServerCertificate {
        /// The data directory.
        data: String,
    },
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] certs::tls::Error),
}

/// Binds the configured address.
pub(crate) async fn bind(address: &str) -> Result<TcpListener, Error> {
    let failed = |source| Error::Listen { address: address.to_owned(), source };
    TcpListener::bind(address).await.map_err(failed)
}

/// Serves until `shutdown`, then lets what is open finish.
pub(crate) async fn serve(
    state: Arc<State>,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let identity = state.identity.current();
    let no_certificate =
        || Error::NoServerCertificate { data: state.config.data.display().to_string() };
    let credentials = identity.server.as_ref().ok_or_else(no_certificate)?;
    let registry = ConnectionRegistry::new();
    let peers =
        Peers::Identities { anchors: identity.anchors.clone(), registry: Arc::clone(&registry) };
    let tls = ServerTls::new(credentials, peers, &[ALPN_H2, ALPN_HTTP1, ALPN_RSYNC])?;
    let raw = vec![RawProtocol { alpn: ALPN_RSYNC, handler: rsync::handler(Arc::clone(&state)) }];
    let service = https::router(Arc::clone(&state));
    let (live, shown, ended) = (Arc::clone(&state), Arc::clone(&tls), shutdown.clone());
    let following = tokio::spawn(async move { live.identity.keep_shown(&shown, ended).await });
    let closing = tokio::spawn(readers::close_lost(Arc::clone(&state), registry, shutdown.clone()));
    certs::tls::serve(listener, tls, service, raw, Limits::default(), shutdown).await;
    following.abort();
    closing.abort();
    Ok(())
}
