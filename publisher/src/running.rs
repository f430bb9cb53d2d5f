//! A running publisher.

use std::{io, net::SocketAddr, path::Path, sync::Arc};

use certs::{
    dial::{Dialer, InvalidProxy, ProxySettings},
    identity::{Role, directory},
    live::{self, LiveClient, LiveIdentity},
    tls::ServerExpectation,
};
use filetree::{
    confine::{self, Confine, Confinement},
    fs::{self, Dir, Fs},
    pack::write::Turns,
};
use jiff::Timestamp;
use protocol::{client::Client, error::ProblemKind, v1::publisher::Presence};
use tokio::{runtime::Handle, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    Clock,
    catalog::Catalog,
    config::{self, Config, PlaceConfig},
    consumers, control, durable, error_chain,
    generate::Places,
    hub::Hub,
    orders::OrderKeeper,
    points::{
        Directory, Further, Point, PrivateTrees,
        object_store::{self, ObjectStore},
    },
    publish::{self, Publishing},
    serve,
    state::State,
    view::{self, Views},
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the publisher does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value that cannot be meant.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// No identity, or one that cannot be used.
    #[error(transparent)]
    Identity(#[from] directory::Error),
    /// Sessions of rsync have to be confined and cannot be.
    #[error(transparent)]
    Confine(#[from] confine::Error),
    /// An identity of another role.
    #[error("the identity in {data} is of the {found}, not of a publisher")]
    WrongRole {
        /// The data directory.
        data: String,
        /// Whose it is.
        found: String,
    },
    /// The data directory.
    #[error("the data directory {data} cannot be used")]
    Data {
        /// Which directory.
        data: String,
        /// What the system says.
        source: io::Error,
    },
    /// Another publisher uses it.
    #[error("another publisher is running on the data directory {data}")]
    Locked {
        /// Which directory.
        data: String,
    },
    /// The view.
    #[error("the view cannot be used")]
    View(#[from] view::Error),
    /// The file system.
    #[error(transparent)]
    Fs(#[from] fs::Error),
    /// The proxy settings in the environment.
    #[error(transparent)]
    Proxy(#[from] InvalidProxy),
    /// No client for the coordinator.
    #[error(transparent)]
    Live(#[from] live::Error),
    /// The port or its certificate.
    #[error(transparent)]
    Serve(#[from] serve::Error),
    /// Consumers.
    #[error(transparent)]
    Consumers(#[from] consumers::Error),
    /// A publication point.
    #[error(transparent)]
    ObjectStore(#[from] object_store::Error),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] control::Error),
}

/// A publisher that runs until it is stopped.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    /// Held for as long as the data directory is ours.
    _lock: fs::File,
}

/// Starts a publisher on the system's clock.
pub async fn start(config: Config) -> Result<Running, Error> {
    start_at(config, Arc::new(Timestamp::now)).await
}

/// Starts a publisher on a clock of the caller's.
pub async fn start_at(config: Config, clock: Clock) -> Result<Running, Error> {
    config.check()?;
    let name = config.data.display().to_string();
    let in_data = |source| Error::Data { data: name.clone(), source };
    let identity = LiveIdentity::open(&config.data)?;
    let membership = identity.current().membership.clone();
    if membership.role != Role::Publisher {
        let found = format!("{} {}", membership.role, membership.name);
        return Err(Error::WrongRole { data: name, found });
    }
    let fs = Fs::disk();
    let data = fs.create_root(&config.data)?;
    let lock = lock(&data, &name)?;
    let client = client(&identity, &membership.api_url)?;
    let orders = OrderKeeper::open(fs.create_root(&config.data)?, client.clone(), clock.clone())
        .map_err(in_data)?;
    let places = places(&fs, &data, &config)?;
    let views = Views::open_at(&fs, &config.view_dir(), config.retain.mode)?;
    let rsync = serve::find_rsync(&config.rsync).await;
    if rsync.is_none() {
        let program = config.rsync.display().to_string();
        warn!(program, "no rsync program; direct rsync is refused until it is installed");
    }
    if !confine::is_available() {
        match config.confine {
            Confine::Off => {}
            Confine::Required => return Err(confine::Error::Unavailable.into()),
            Confine::Auto => warn!(confined = %Confinement::Unavailable, "rsync sessions"),
        }
    }
    serve::remove_left_over(&data).map_err(in_data)?;
    let listener = serve::bind(&config.listen).await?;
    let address = listener.local_addr().map_err(in_data)?;
    let presence = Presence {
        advertise: config.advertise.clone().unwrap_or_else(|| advertised(address)),
        version: env!("CARGO_PKG_VERSION").into(),
        rsync: rsync.as_ref().map(|rsync| rsync.version.clone()),
    };
    let turns = Turns::within(config.memory.0, publish::AT_A_TIME as u64);
    let hub = Arc::new(Hub::new(config.agent.as_deref()));
    let state = Arc::new(State {
        config,
        fs,
        places,
        views,
        identity,
        client,
        orders,
        hub,
        catalog: Catalog::default(),
        private: PrivateTrees::default(),
        clock,
        turns,
        rsync,
    });
    let shutdown = CancellationToken::new();
    let publishing = Publishing::new(Arc::clone(&state), shutdown.clone());
    let control = control::listen(Arc::clone(&state), Arc::clone(&publishing), shutdown.clone())?;
    // Last, so that whoever waits for the file finds the control socket as well.
    durable::replace(&data, b"listen", format!("{address}\n").as_bytes()).map_err(in_data)?;
    let mut tasks = vec![control];
    tasks.push(tokio::spawn({
        let (state, shutdown) = (Arc::clone(&state), shutdown.clone());
        async move { state.orders.keep(shutdown).await }
    }));
    tasks.push(tokio::spawn(Arc::clone(&state.hub).follow(shutdown.clone())));
    tasks.push(tokio::spawn(async move { publishing.keep().await }));
    tasks.push(tokio::spawn(announce(Arc::clone(&state), presence, shutdown.clone())));
    tasks.push(tokio::spawn(renew(Arc::clone(&state), shutdown.clone())));
    if let Some(config) = &state.config.consumers {
        let state = Arc::clone(&state);
        tasks.push(consumers::serve(state, config, &data, shutdown.clone()).await?);
    }
    tasks.push(tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            if let Err(error) = serve::serve(state, listener, shutdown.clone()).await {
                tracing::error!(error = error_chain(&error), "nothing is served");
                shutdown.cancel();
            }
        }
    }));
    info!(%address, "publisher started");
    Ok(Running { address, shutdown, tasks, _lock: lock })
}

impl Running {
    /// The address that is listened on.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Ends when the publisher has stopped by itself, by a fault.
    pub async fn stopped(&self) {
        self.shutdown.cancelled().await;
    }

    /// Lets transfers and attempts finish, and stops.
    pub async fn stop(self) {
        self.shutdown.cancel();
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a part of the publisher ended by a fault");
            }
        }
    }
}

/// Two publishers on one data directory would overwrite each other's generations.
fn lock(data: &fs::Dir, name: &str) -> Result<fs::File, Error> {
    let file = match data.create_file(b"lock") {
        Err(error) if error.is_already_there() => data.open_file(b"lock")?,
        other => other?,
    };
    if file.try_lock()? { Ok(file) } else { Err(Error::Locked { data: name.into() }) }
}

fn client(identity: &LiveIdentity, api_url: &str) -> Result<Client, Error> {
    let dialer = Dialer { proxy: ProxySettings::from_env()?, ..Dialer::default() };
    let live = LiveClient::new(identity, ServerExpectation::Coordinator, dialer)?;
    Ok(Client::new(api_url, Arc::new(move || live.get())))
}

fn places(fs: &Fs, data: &Dir, config: &Config) -> Result<Places, Error> {
    let name = config.data.display().to_string();
    let in_data = |source| Error::Data { data: name.clone(), source };
    let origin = Arc::new(Directory::open(fs, &config.data).map_err(in_data)?);
    let mut further = Vec::new();
    for config in &config.points {
        let point: Arc<dyn Point> = match &config.place {
            PlaceConfig::Directory { path } => {
                Arc::new(Directory::open(fs, path).map_err(in_data)?)
            }
            PlaceConfig::ObjectStore(store) => {
                let dialer = Dialer { proxy: ProxySettings::from_env()?, ..Dialer::default() };
                let uploads = data.ensure_dir(b"uploads", 0o700)?;
                Arc::new(ObjectStore::open(store, &dialer, uploads, Handle::current())?)
            }
        };
        further.push(Arc::new(Further::new(point, config.trees.clone(), config.required)));
    }
    Ok(Places { origin, further })
}

/// Where agents find a publisher that was told nothing about that: at the address it is bound to,
/// or, bound to all of them, at the name of its host.
fn advertised(address: SocketAddr) -> String {
    if !address.ip().is_unspecified() {
        return address.to_string();
    }
    let host = host_name();
    format!("{host}:{}", address.port())
}

/// The name of this host.
pub(crate) fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".into() } else { name }
}

/// Tells the coordinator where this publisher is, until it has heard it.
async fn announce(state: Arc<State>, presence: Presence, shutdown: CancellationToken) {
    let mut pause = std::time::Duration::from_secs(1);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            told = state.client.announce_presence(&presence) => match told {
                Ok(()) => return info!(advertise = presence.advertise, "the coordinator knows where we are"),
                Err(error) => {
                    let error = error_chain(&error);
                    warn!(error, "the coordinator does not know yet where we are");
                }
            },
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(std::time::Duration::from_secs(60));
    }
}

async fn renew(state: Arc<State>, shutdown: CancellationToken) {
    let renewing = Arc::clone(&state);
    let renew = move |request| {
        let state = Arc::clone(&renewing);
        async move {
            let expired = |error: &protocol::client::Error| {
                error.problem().is_some_and(|problem| problem.kind == ProblemKind::Expired)
            };
            match state.client.renew(&request).await {
                Ok(response) => Ok(response),
                Err(error) if state.identity.has_ended() || expired(&error) => {
                    let dialer = dialer()?;
                    Ok(state.identity.renew_late(&request, &dialer).await?)
                }
                Err(error) => Err(BoxError::from(error)),
            }
        }
    };
    let check = |identity: Arc<directory::Identity>| async move { works(&identity).await };
    state.identity.keep_renewed(renew, check, shutdown).await;
}

/// Asks the coordinator who an identity is: a certificate that it does not accept is not taken.
pub(crate) async fn works(identity: &directory::Identity) -> Result<(), BoxError> {
    let dialer = dialer()?;
    let http = live::http_client(identity, &ServerExpectation::Coordinator, &dialer)?;
    let client = Client::new(&identity.membership.api_url, Arc::new(move || http.clone()));
    client.whoami().await?;
    Ok(())
}

fn dialer() -> Result<Dialer, BoxError> {
    Ok(Dialer { proxy: ProxySettings::from_env()?, ..Dialer::default() })
}

/// Whether a directory can be the data directory of a publisher, for `check-config`.
pub(crate) fn is_enrolled(data: &Path) -> Result<(), directory::Error> {
    directory::Identity::load(data).map(drop)
}
