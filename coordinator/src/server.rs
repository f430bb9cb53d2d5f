//! A coordinator from its configuration to its last answer.

#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use certs::{
    authority::{self, Authority},
    identity::directory::Membership,
    keyfile, signing,
    signing::SigningKey,
    tls::{self, ALPN_H2, ALPN_HTTP1, ConnectionRegistry, Limits, Peers, ServerTls},
};
use jiff::{SignedDuration, Timestamp};
use protocol::{name::IdentityName, units::Span};
use rustix::fs::{FlockOperation, flock};
use tokio::{net::TcpListener, task::JoinSet, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{self, App, Clock, Parts, events::Telling, picture},
    authorities,
    config::{Config, FILE},
    db::{self, Database},
    http::{self, Api},
    init::{ADMIN, HEAD_KEY, ROOT_KEY},
    journal::{self, Journal},
    webhooks::{self, Webhook},
};

/// Held by the coordinator that runs on a data directory.
const LOCK: &str = "lock";
/// Where the taken addresses are written.
const LISTEN: &str = "listen";
const ENROLL_LISTEN: &str = "enroll-listen";

/// How often time is given a chance.
const UPKEEP: Duration = Duration::from_secs(1);
/// How often one looks who fell silent, and after how many looks old events are forgotten.
const WATCH: Duration = Duration::from_secs(10);
const FORGET: u32 = 360;
/// How often it is stored who was heard of.
const STORE_SEEN: Duration = Duration::from_secs(30);
/// How long requests are given to end when the coordinator stops.
const DRAIN: Duration = Duration::from_secs(10);
/// How soon it is tried again when that failed.
const CERTIFICATE_RETRY: Duration = Duration::from_secs(600);

/// A coordinator that runs. Dropping it ends it at once; [`Running::stop`] lets requests finish.
pub struct Running {
    api: SocketAddr,
    enroll: SocketAddr,
    api_url: String,
    stopping: CancellationToken,
    tasks: JoinSet<()>,
    app: Arc<App>,
    database: Database,
    _lock: File,
}

impl Running {
    /// Where the API listens.
    pub fn api_addr(&self) -> SocketAddr {
        self.api
    }

    /// Where the enroll port listens.
    pub fn enroll_addr(&self) -> SocketAddr {
        self.enroll
    }

    /// The API as others reach it.
    pub fn api_url(&self) -> &str {
        &self.api_url
    }

    /// The rules at work, for tests and for programs that embed a coordinator.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Takes no more connections, ends the polls, lets requests finish, and stores what is left.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        while self.tasks.join_next().await.is_some() {}
        if let Err(error) = self.app.store_seen().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "not stored at the end");
        }
        self.database.close().await;
    }
}

/// Starts a coordinator.
///
/// # Errors
/// When the data directory is not a coordinator's, not ours or too open, when another coordinator
/// runs on it, or when a port is taken.
pub async fn start(config: Config) -> Result<Running, Error> {
    start_at(config, Arc::new(Timestamp::now)).await
}

/// Starts a coordinator on a clock of the caller's, by which it judges, not by which it waits.
///
/// # Errors
/// As [`start`].
pub async fn start_at(config: Config, clock: Clock) -> Result<Running, Error> {
    let data = &config.data;
    if !data.join(FILE).exists() {
        check_owner(data)?;
        return Err(Error::NotInitialized { data: data.clone() });
    }
    keyfile::check_dir(data)?;
    if config.hostnames.is_empty() {
        return Err(Error::NoHost);
    }
    let lock = lock(data)?;
    let authority = authorities::open(data)?;
    let head_key = SigningKey::load(&data.join(HEAD_KEY))?;
    let root_key = match data.join(ROOT_KEY).exists() {
        true => Some(SigningKey::load(&data.join(ROOT_KEY))?),
        false => None,
    };
    let database = match &config.database.url {
        Some(url) => Database::connect_postgres(url).await?,
        None => Database::open_sqlite(data).await?,
    };
    let api_listener = bind("listen", &config.listen).await?;
    let enroll_listener = bind("enroll-listen", &config.enroll_listen).await?;
    let address = |listener: &TcpListener| listener.local_addr().map_err(Error::Address);
    let (api_addr, enroll_addr) = (address(&api_listener)?, address(&enroll_listener)?);
    let registry = ConnectionRegistry::new();
    let anchors = authority.anchors()?;
    let (credentials, _) = certify(&authority, &config.hostnames, config.life())?;
    let stopping = CancellationToken::new();
    let webhooks = config.webhooks.iter().map(Webhook::open).collect::<Result<Vec<_>, _>>()?;
    let span =
        |span: Span| SignedDuration::try_from(span.duration()).unwrap_or(SignedDuration::MAX);
    let telling = Telling {
        webhooks: webhooks.iter().map(Webhook::wants).collect(),
        silent_after: Some(span(config.events.silent_after)),
        keep: span(config.events.keep),
    };
    let app = App::start(Parts {
        database: database.clone(),
        authority,
        head_key,
        root_key,
        registry: Arc::clone(&registry),
        api_url: api_url(&config, Some(api_addr)),
        enroll_url: enroll_url(&config, enroll_addr),
        certificate_life: config.life(),
        late_renewal: config.late_renewal(),
        head_life: config.head_life(),
        telling,
        clock,
        journal: Journal::open(&config.journal())?,
        stopping: stopping.clone(),
    })
    .await?;
    app.keep_root().await?;
    let alpn = [ALPN_H2, ALPN_HTTP1];
    let peers = Peers::Identities { anchors, registry };
    let api_tls = ServerTls::new(&credentials, peers, &alpn)?;
    let enroll_tls = ServerTls::new(&credentials, Peers::Anyone, &alpn)?;
    let limits = || Limits { drain: DRAIN, ..Limits::default() };
    let api = Api::new(Arc::clone(&app));
    let mut tasks = JoinSet::new();
    tasks.spawn(tls::serve(
        api_listener,
        Arc::clone(&api_tls),
        http::api(&api),
        vec![],
        limits(),
        stopping.clone(),
    ));
    tasks.spawn(tls::serve(
        enroll_listener,
        Arc::clone(&enroll_tls),
        http::enroll(&api),
        vec![],
        Limits { connections: 1024, idle: Duration::from_secs(30), ..limits() },
        stopping.clone(),
    ));
    tasks.spawn(follow(Arc::clone(&app)));
    tasks.spawn(keep_up(Arc::clone(&app)));
    tasks.spawn(keep_watch(Arc::clone(&app)));
    for webhook in webhooks {
        tasks.spawn(webhooks::deliver(Arc::clone(&app), webhook));
    }
    let (hostnames, life) = (config.hostnames.clone(), config.life());
    tasks.spawn(keep_certified(Arc::clone(&app), hostnames, life, [api_tls, enroll_tls]));
    let urls = [api_url(&config, Some(api_addr)), enroll_url(&config, enroll_addr)];
    point_admin_here(&data.join(ADMIN), urls)?;
    write_address(data, LISTEN, api_addr)?;
    write_address(data, ENROLL_LISTEN, enroll_addr)?;
    Ok(Running {
        api: api_addr,
        enroll: enroll_addr,
        api_url: api_url(&config, Some(api_addr)),
        stopping,
        tasks,
        app,
        database,
        _lock: lock,
    })
}

/// Why no coordinator runs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none in that directory.
    #[error("{data} holds no coordinator; make one with: coordinator init --data {data} --network NAME --hostname HOST", data = data.display())]
    NotInitialized {
        /// The data directory.
        data: PathBuf,
    },
    /// Another one runs there.
    #[error("another coordinator runs on {data}; stop it first", data = data.display())]
    Locked {
        /// The data directory.
        data: PathBuf,
    },
    /// Nobody would know how to reach it.
    #[error(
        "the configuration names no host under which others reach this coordinator; add: hostnames = [\"HOST\"]"
    )]
    NoHost,
    /// A port that cannot be had.
    #[error(
        "cannot listen on {address} ({key}); is another program using that port? `ss -ltnp` shows which, and {key} = \"ADDRESS:PORT\" chooses another"
    )]
    Bind {
        /// The configuration key.
        key: &'static str,
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The system does not say which port was taken.
    #[error("the address that was taken is not known")]
    Address(#[source] io::Error),
    /// A file in the data directory.
    #[error("cannot write {path}", path = path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A key file, or the data directory.
    #[error(transparent)]
    KeyFile(#[from] keyfile::Error),
    /// The authority.
    #[error(transparent)]
    Authority(#[from] authority::Error),
    /// The key that heads are signed with.
    #[error(transparent)]
    Signing(#[from] signing::Error),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The database.
    #[error(transparent)]
    Database(#[from] db::Error),
    /// The journal of revocations.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// A webhook.
    #[error(transparent)]
    Webhook(#[from] webhooks::Error),
    /// The first look at what is stored.
    #[error(transparent)]
    App(#[from] app::Error),
}

/// The API's address as others see it. Before it listens, only the port that was asked for is
/// known.
pub(crate) fn api_url(config: &Config, taken: Option<SocketAddr>) -> String {
    config.api_url.clone().unwrap_or_else(|| url(config, &config.listen, taken))
}

fn enroll_url(config: &Config, taken: SocketAddr) -> String {
    config.enroll_url.clone().unwrap_or_else(|| url(config, &config.enroll_listen, Some(taken)))
}

fn url(config: &Config, asked: &str, taken: Option<SocketAddr>) -> String {
    let host = config.hostnames.first().map_or("localhost", String::as_str);
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let port = match taken {
        Some(address) => address.port().to_string(),
        None => asked.rsplit_once(':').map_or("0", |(_, port)| port).to_owned(),
    };
    format!("https://{host}:{port}")
}

/// The first admin's identity says where the API and the enroll port are; at `init`, the ports that
/// `serve` would take were not known yet.
fn point_admin_here(admin: &Path, [api_url, enroll_url]: [String; 2]) -> Result<(), Error> {
    let path = admin.join("identity").join("identity.json");
    if !path.exists() {
        return Ok(());
    }
    let text = keyfile::read_text(&path)?;
    // A file that somebody made unreadable is the admin's to repair, no reason not to serve.
    let Ok(mut membership) = serde_json::from_str::<Membership>(&text) else { return Ok(()) };
    if membership.api_url == api_url && membership.enroll_url.as_ref() == Some(&enroll_url) {
        return Ok(());
    }
    membership.api_url = api_url;
    membership.enroll_url = Some(enroll_url);
    let text = serde_json::to_string_pretty(&membership).map_err(app::Error::from)?;
    Ok(keyfile::replace(&path, text.as_bytes())?)
}

/// A directory that is not ours cannot be looked into, so its owner is the better message.
fn check_owner(data: &Path) -> Result<(), Error> {
    if data.symlink_metadata().is_ok() {
        keyfile::check_dir(data)?;
    }
    Ok(())
}

fn lock(data: &Path) -> Result<File, Error> {
    let path = data.join(LOCK);
    let failed = |source| Error::Write { path: path.clone(), source };
    let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked { data: data.into() }),
        Err(error) => Err(failed(error.into())),
    }
}

async fn bind(key: &'static str, address: &str) -> Result<TcpListener, Error> {
    let failed = |source| Error::Bind { key, address: address.to_owned(), source };
    TcpListener::bind(address).await.map_err(failed)
}

fn write_address(data: &Path, name: &str, address: SocketAddr) -> Result<(), Error> {
    let path = data.join(name);
    let new = data.join(format!("{name}.new"));
    std::fs::write(&new, format!("{address}\n"))
        .and_then(|()| std::fs::rename(&new, &path))
        .map_err(|source| Error::Write { path, source })
}

fn certify(
    authority: &Authority,
    hostnames: &[String],
    life: SignedDuration,
) -> Result<(tls::Credentials, authority::IssuedCertificate), Error> {
    // Fixed and valid, so it parses.
    let name: IdentityName = "coordinator".parse().map_err(|_| Error::NoHost)?;
    Ok(authority.coordinator_server(&name, hostnames, life, Timestamp::now())?)
}

/// Looks for what other replicas wrote.
async fn follow(app: Arc<App>) {
    let mut failing = false;
    while every(picture::POLL, &app).await {
        match app.refresh().await {
            Ok(_) if failing => {
                failing = false;
                tracing::info!("the database answers again");
            }
            Ok(_) => {}
            Err(error) if !failing => {
                failing = true;
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "the database does not answer; requests may be refused");
            }
            Err(_) => {}
        }
    }
}

async fn keep_up(app: Arc<App>) {
    let mut ticks = tokio::time::interval(UPKEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut since_stored = Duration::ZERO;
    loop {
        tokio::select! {
            () = app.stopping().cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = app.keep_up().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "upkeep failed");
        }
        since_stored += UPKEEP;
        if since_stored >= STORE_SEEN {
            since_stored = Duration::ZERO;
            if let Err(error) = app.store_seen().await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "who was heard of could not be stored");
            }
        }
    }
}

/// Looks who fell silent, and forgets what is too old.
async fn keep_watch(app: Arc<App>) {
    let mut looks = 0_u32;
    while every(WATCH, &app).await {
        let watched = app.keep_watch().await;
        looks = looks.wrapping_add(1);
        let forgotten = match looks.is_multiple_of(FORGET) {
            true => app.forget_events().await,
            false => Ok(()),
        };
        if let Err(error) = watched.and(forgotten) {
            tracing::warn!(error = &error as &dyn std::error::Error, "nobody is watched");
        }
    }
}

/// Replaces the coordinator's own certificate at half of its life.
async fn keep_certified(
    app: Arc<App>,
    hostnames: Vec<String>,
    life: SignedDuration,
    servers: [Arc<ServerTls>; 2],
) {
    let half = Duration::try_from(life / 2).unwrap_or(CERTIFICATE_RETRY);
    let mut wait = half;
    while every(wait, &app).await {
        let renewed =
            certify(app.authority(), &hostnames, life).and_then(|(credentials, issued)| {
                servers.iter().try_for_each(|server| server.reload(&credentials))?;
                Ok(issued)
            });
        wait = match renewed {
            Ok(issued) => {
                tracing::info!(not_after = %issued.not_after, "new server certificate");
                half
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "no new server certificate could be made");
                CERTIFICATE_RETRY.min(half)
            }
        };
    }
}

/// Waits; `false` once the coordinator stops.
async fn every(wait: Duration, app: &App) -> bool {
    tokio::select! {
        () = app.stopping().cancelled() => false,
        () = tokio::time::sleep(wait) => true,
    }
}
