//! The accept loop of every server.
//!
//! Why our own: the peer's identity has to reach the handlers, handshakes must not wait for each
//! other, every phase needs a deadline, and a connection must end when its certificate is revoked
//! or expires; the ready-made servers give none of these.

use std::{
    error::Error as StdError,
    fmt,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use jiff::{SignedDuration, Timestamp};
use protocol::v1::MAX_WAIT_SECONDS;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt as _};
use tracing::{debug, info, warn};

use super::{
    ALPN_H2, EXPORTER_LABEL, ServerStream, ServerTls,
    refused::{self, Lost},
    registry::NoPlace,
};
use crate::{guard::Shown, identity::PeerIdentity};

type BoxError = Box<dyn StdError + Send + Sync>;

/// How long accepting rests after the system refused it (no file descriptors left).
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// How long, and how many bytes, a refused client is listened to so that the alert reaches it.
const DRAIN: Duration = Duration::from_secs(1);
const MAX_DRAINED: u64 = 64 * 1024;

/// The bounds of a server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest handshake.
    pub handshake: Duration,
    /// How long a client whose certificate was revoked or has expired may ask and be told so.
    pub refused: Duration,
    /// Longest wait for a request's head.
    pub header: Duration,
    /// Longest silence in both directions; longer than any long poll. HTTP/2 connections are kept
    /// alive by pings while the peer answers them.
    pub idle: Duration,
    /// Longest silence of a [`RawProtocol`], which knows better how long it may think; this only
    /// ends what was forgotten.
    pub raw_idle: Duration,
    /// How long open connections are given when the server stops.
    pub drain: Duration,
    /// Most connections open at once; more wait to be accepted.
    pub connections: usize,
    /// Most connections of one identity, so that one that is compromised or in a loop leaves room
    /// for the others.
    pub per_identity: usize,
    /// Most requests at once on one HTTP/2 connection.
    pub streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            refused: Duration::from_secs(10),
            header: Duration::from_secs(30),
            idle: Duration::from_secs(MAX_WAIT_SECONDS + 60),
            raw_idle: Duration::from_secs(15 * 60),
            drain: Duration::from_secs(20),
            connections: 16 * 1024,
            per_identity: 64,
            streams: 64,
        }
    }
}

/// Request extension: the address that the peer connects from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// Request extension: keying material exported from the connection, which enrollment proofs are
/// bound to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Exporter(pub [u8; 32]);

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter")
    }
}

/// What speaks a protocol that is not HTTP: gets the stream and its peer, and ends with it. It is
/// dropped when the connection has to end at once.
pub type RawHandler = Arc<
    dyn Fn(ServerStream, Arc<PeerIdentity>, PeerAddr) -> Pin<Box<dyn Future<Output = ()> + Send>>
        + Send
        + Sync,
>;

/// A protocol that is not HTTP, chosen by ALPN.
#[derive(Clone)]
pub struct RawProtocol {
    /// Its ALPN name.
    pub alpn: &'static str,
    /// What speaks it.
    pub handler: RawHandler,
}

impl fmt::Debug for RawProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawProtocol({})", self.alpn)
    }
}

/// Serves `service` (and the `raw` protocols) on `listener` until `shutdown`, then lets open
/// connections finish for at most [`Limits::drain`].
///
/// Each request carries these extensions: [`PeerAddr`], [`Exporter`], and `Arc<PeerIdentity>`
/// unless the server accepts anyone; one for consumers `Arc<Shown>` where one has shown a
/// certificate. An `axum::Router` is such a service. A client whose certificate
/// was revoked or has expired gets that as the answer to each of its requests (a problem of kind
/// `revoked` or `expired`), and never reaches `service`; a `raw` protocol has no words for it and is
/// closed.
pub async fn serve<S, B>(
    listener: TcpListener,
    tls: Arc<ServerTls>,
    service: S,
    raw: Vec<RawProtocol>,
    limits: Limits,
    shutdown: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let refusals = Semaphore::new(refused::MAX_AT_ONCE);
    let server = Arc::new(Server { tls, service, raw, limits, refusals, shutdown });
    let places = Arc::new(Semaphore::new(server.limits.connections));
    let mut connections = JoinSet::new();
    loop {
        let next = tokio::select! {
            () = server.shutdown.cancelled() => break,
            next = accept(&listener, &places) => next,
            Some(_) = connections.join_next() => continue,
        };
        let Some((tcp, address, place)) = next else { continue };
        let server = Arc::clone(&server);
        connections.spawn(async move {
            server.connection(tcp, PeerAddr(address)).await;
            drop(place);
        });
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(server.limits.drain, all).await.is_err() {
        info!(open = connections.len(), "closing the connections that did not finish in time");
        connections.shutdown().await;
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((tcp, address)) => Some((tcp, address, place)),
        Err(error) => {
            warn!(%error, "no connection can be accepted at the moment");
            tokio::time::sleep(ACCEPT_REST).await;
            None
        }
    }
}

struct Server<S> {
    tls: Arc<ServerTls>,
    service: S,
    raw: Vec<RawProtocol>,
    limits: Limits,
    /// Places for those who only hear why they get nothing.
    refusals: Semaphore,
    shutdown: CancellationToken,
}

impl<S, B> Server<S>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    async fn connection(&self, tcp: TcpStream, address: PeerAddr) {
        let peer = address.0;
        let Some(stream) = self.handshake(tcp, address).await else { return };
        let consumers = self.tls.is_for_consumers();
        let accepted = match Accepted::examine(&stream, address, consumers) {
            Ok(accepted) => accepted,
            Err(reason) => {
                debug!(%peer, reason, "connection refused after its handshake");
                return;
            }
        };
        let identity = accepted.identity.clone();
        let registration = match (self.tls.registry(), &identity) {
            (Some(registry), Some(identity)) => {
                if let Some(lost) = Lost::of(identity, &registry) {
                    return self.refuse(stream, &accepted, identity, lost).await;
                }
                match registry.register(&identity.serial, self.limits.per_identity) {
                    Ok(registration) => Some(registration),
                    Err(NoPlace::Revoked) => {
                        return self.refuse(stream, &accepted, identity, Lost::Revoked).await;
                    }
                    Err(NoPlace::TooMany) => {
                        info!(%peer, %identity, "connection refused: it has too many of them");
                        return;
                    }
                }
            }
            // Cannot be: the handshake demands a certificate. Were it so, nobody would be let in.
            (Some(_), None) => return,
            (None, _) => None,
        };
        let (stream, progress) = ServerStream::new(stream);
        let idle =
            if self.raw(&accepted).is_some() { self.limits.raw_idle } else { self.limits.idle };
        let closed = async {
            match &registration {
                Some(registration) => registration.closed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.speak(stream, accepted) => {}
            () = closed => info!(%peer, "connection closed: its certificate lost its standing"),
            () = expired(identity.as_deref()) => info!(%peer, "connection closed: its certificate expired"),
            () = progress.silent_for(idle) => debug!(%peer, "connection closed: silent"),
        }
    }

    async fn handshake(
        &self,
        tcp: TcpStream,
        PeerAddr(peer): PeerAddr,
    ) -> Option<TlsStream<TcpStream>> {
        let shaken = async {
            tcp.set_nodelay(true)?;
            match TlsAcceptor::from(self.tls.config()).accept(tcp).into_fallible().await {
                Ok(stream) => Ok(stream),
                Err((error, tcp)) => {
                    let_alert_arrive(tcp).await;
                    Err(error)
                }
            }
        };
        tokio::select! {
            () = self.shutdown.cancelled() => None,
            shaken = timeout(self.limits.handshake, shaken) => match shaken {
                Ok(Ok(stream)) => Some(stream),
                Ok(Err(error)) => {
                    info!(%peer, %error, "handshake failed");
                    None
                }
                Err(_) => {
                    debug!(%peer, "handshake not finished in time");
                    None
                }
            },
        }
    }

    /// Tells a client why it gets nothing, for as long as the limits say.
    async fn refuse(
        &self,
        stream: TlsStream<TcpStream>,
        accepted: &Accepted,
        identity: &PeerIdentity,
        lost: Lost,
    ) {
        info!(peer = %accepted.address.0, %identity, ?lost, "refused: its certificate is no longer good");
        if self.raw(accepted).is_some() {
            return;
        }
        let life = self.limits.refused;
        let Ok(Ok(_place)) = timeout(life, self.refusals.acquire()).await else { return };
        let answer = lost.answer(identity);
        let service = tower::service_fn(move |request| answer.clone().give(request));
        let (stream, _) = ServerStream::new(stream);
        let stop = async {
            tokio::select! {
                () = self.shutdown.cancelled() => {}
                () = tokio::time::sleep(life) => {}
            }
        };
        let spoken = self.speak_http(stream, accepted, service, stop);
        // Who is not done by then has been told, or does not listen.
        drop(timeout(life + refused::LAST_ANSWER, spoken).await);
    }

    async fn speak(&self, stream: ServerStream, accepted: Accepted) {
        match (self.raw(&accepted), &accepted.identity) {
            (Some(raw), Some(identity)) => {
                (raw.handler)(stream, Arc::clone(identity), accepted.address).await;
            }
            (Some(_), None) => {}
            (None, _) => {
                let service = self.known(&accepted);
                let stop = self.shutdown.cancelled();
                self.speak_http(stream, &accepted, service, stop).await;
            }
        }
    }

    fn raw(&self, accepted: &Accepted) -> Option<&RawProtocol> {
        self.raw.iter().find(|raw| raw.alpn.as_bytes() == accepted.alpn)
    }

    /// The service, told who asks.
    fn known(
        &self,
        accepted: &Accepted,
    ) -> impl Service<Request<Incoming>, Response = Response<B>, Error = S::Error, Future: Send>
    + Clone
    + Send
    + 'static
    + use<S, B> {
        let (address, exporter) = (accepted.address, accepted.exporter);
        let (identity, shown) = (accepted.identity.clone(), accepted.shown.clone());
        self.service.clone().map_request(move |mut request: Request<Incoming>| {
            let extensions = request.extensions_mut();
            extensions.insert(address);
            extensions.insert(exporter);
            if let Some(identity) = &identity {
                extensions.insert(Arc::clone(identity));
            }
            if let Some(shown) = &shown {
                extensions.insert(Arc::clone(shown));
            }
            request
        })
    }

    /// Serves `service` until the connection ends; after `stop` it ends with the requests that are
    /// under way.
    async fn speak_http<T, C>(
        &self,
        stream: ServerStream,
        accepted: &Accepted,
        service: T,
        stop: impl Future<Output = ()>,
    ) where
        T: Service<Request<Incoming>, Response = Response<C>> + Clone + Send + 'static,
        T::Error: Into<BoxError>,
        T::Future: Send,
        C: Body + Send + 'static,
        C::Data: Send,
        C::Error: Into<BoxError>,
    {
        let builder = self.builder(accepted.alpn == ALPN_H2.as_bytes());
        let peer = accepted.address.0;
        let service = service.map_response(|response| response.map(|body| body.boxed_unsync()));
        let mut connection =
            pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)));
        let mut stop = pin!(stop);
        let mut stopping = false;
        loop {
            tokio::select! {
                result = connection.as_mut() => {
                    if let Err(error) = result {
                        debug!(%peer, error, "connection ended early");
                    }
                    return;
                }
                () = stop.as_mut(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }

    /// The protocol is known from ALPN, so nothing has to be guessed from the first bytes.
    fn builder(&self, h2: bool) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header)
            .max_buf_size(64 * 1024);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(self.limits.idle / 4)
            .keep_alive_timeout(self.limits.idle / 4)
            .max_concurrent_streams(self.limits.streams)
            .max_header_list_size(32 * 1024);
        if h2 { builder.http2_only() } else { builder.http1_only() }
    }
}

/// Reads on for a moment after a refusal. A client has sent its request by then, and closing with
/// unread bytes makes the system discard the alert that says why.
async fn let_alert_arrive(mut tcp: TcpStream) {
    let drain = async {
        tcp.shutdown().await?;
        tokio::io::copy(&mut tcp.take(MAX_DRAINED), &mut tokio::io::sink()).await
    };
    // Whatever becomes of it, the connection ends here.
    drop(timeout(DRAIN, drain).await);
}

/// What a finished handshake says.
struct Accepted {
    identity: Option<Arc<PeerIdentity>>,
    shown: Option<Arc<Shown>>,
    address: PeerAddr,
    exporter: Exporter,
    alpn: Vec<u8>,
}

impl Accepted {
    fn examine(
        stream: &TlsStream<TcpStream>,
        address: PeerAddr,
        consumers: bool,
    ) -> Result<Self, &'static str> {
        let (_, connection) = stream.get_ref();
        let exporter = connection
            .export_keying_material([0; 32], EXPORTER_LABEL, None)
            .map_err(|_| "no keying material")?;
        let chain = connection.peer_certificates();
        let shown = chain.filter(|_| consumers).and_then(Shown::new).map(Arc::new);
        let identity = match chain.and_then(<[_]>::first) {
            _ if consumers => None,
            None => None,
            Some(certificate) => Some(Arc::new(
                PeerIdentity::from_client_certificate(certificate)
                    .map_err(|_| "no identity in the certificate")?,
            )),
        };
        let alpn = connection.alpn_protocol().unwrap_or_default().to_vec();
        Ok(Self { identity, shown, address, exporter: Exporter(exporter), alpn })
    }
}

/// Ends when the peer's certificate does.
async fn expired(identity: Option<&PeerIdentity>) {
    let Some(identity) = identity else { return std::future::pending().await };
    // The last second still counts.
    let end = identity.not_after.saturating_add(SignedDuration::from_secs(1));
    let end = end.unwrap_or(identity.not_after);
    loop {
        let left = end.duration_since(Timestamp::now());
        match Duration::try_from(left) {
            // In steps, because timers stand still while a machine sleeps.
            Ok(left) if !left.is_zero() => {
                tokio::time::sleep(left.min(Duration::from_secs(60))).await;
            }
            _ => return,
        }
    }
}
