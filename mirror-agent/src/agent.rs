//! The agent itself: who it is, what it was told, what it is doing.

mod bring;
mod contact;
mod gates;
mod latest;
mod leases;
mod moves;
mod names;
mod owed;
mod records;
mod roots;
mod runs;
mod scrubbing;
mod trash;
mod upkeep;

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use certs::{
    dial::Dialer,
    identity::directory,
    live::{self, LiveClient, LiveIdentity, public_http_client},
    tls::{PublicRoots, ServerExpectation},
};
use filetree::switch::{Mode, SwitchReport};
use jiff::Timestamp;
use protocol::{
    client::{Client, HttpSource},
    name::{IdentityName, TreeName},
    point::{self, BaseUrl},
    role::Role,
    spec::AssignmentName,
};
use tokio::sync::Notify;

pub(crate) use self::names::only;
pub use self::{
    contact::Error as AskError,
    names::{Forced, NoSuchTree},
    runs::result_name,
    trash::TrashStatus,
};
use crate::{
    apply::{self, Site},
    breaker::Breaker,
    claim::{self, Claim, Claimed},
    config::{self, Config},
    fetch::{
        self,
        allowed::{Allowed, Refused},
        manifest::Store,
        points::{Point, SharedHealth},
        ranges::Patience,
        sealed::TreeKeys,
    },
    ledger::{self, Ledger, Withdrawn},
    line::Line,
    orders::{Orders, Trust},
    report::{Progress, Run},
    rsync::{self, child::Programs},
    run_log::Shelf,
    turns::Turns,
};

/// How often, and after what time, a lock is tried again.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// Not enrolled, or the identity cannot be used.
    #[error(transparent)]
    Identity(#[from] directory::Error),
    /// No client of the API.
    #[error(transparent)]
    Client(#[from] live::Error),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The root that was pinned at enrollment.
    #[error("the root document that was pinned at enrollment cannot be read; enroll again")]
    Root(#[from] certs::root::Error),
    /// The kept manifests.
    #[error(transparent)]
    Manifests(#[from] fetch::manifest::Error),
    /// Another agent works with this data directory.
    #[error("another mirror-agent is running with {data}; talk to it with status and sync, or stop it first", data = data.display())]
    Running {
        /// The data directory.
        data: PathBuf,
    },
    /// The data directory.
    #[error("the data directory {data} cannot be used", data = data.display())]
    Data {
        /// The data directory.
        data: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The storage is not this agent's.
    #[error(transparent)]
    Storage(#[from] claim::Error),
    /// The helper that rsync calls.
    #[error("this program's own path cannot be found; set 'program' in mirror-agent.toml")]
    Program(#[source] std::io::Error),
}

/// One agent with its data directory, locked.
pub struct Agent {
    pub(crate) config: Config,
    pub(crate) identity: Arc<LiveIdentity>,
    pub(crate) dialer: Dialer,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) manifests: Store,
    pub(crate) logs: Shelf,
    pub(crate) patience: Patience,
    pub(crate) programs: Programs,
    /// The rsync of this host; `None` where there is none.
    pub(crate) rsync: Option<rsync::version::Version>,
    trust: Mutex<Trust>,
    client: Client,
    public: reqwest::Client,
    state: Mutex<State>,
    /// Whether an admin of the site lets nothing be scrubbed for now.
    scrub_paused: std::sync::atomic::AtomicBool,
    /// Held while orders are taken up: the daemon asks, and so may a command meanwhile.
    accepting: Mutex<()>,
    /// Held while trees are renamed: their order matters.
    moving: Mutex<()>,
    turns: Turns,
    /// Everything that comes, comes over it.
    pub(crate) line: Arc<Line>,
    /// Something changed that may make a step possible.
    pub(crate) wake: Notify,
    /// A report waits to be sent.
    pub(crate) unsent: Notify,
    /// A run ended, and something else may be published.
    pub(crate) applied: Notify,
    // The storage before the data directory: whoever waits for the latter finds the former free.
    _storage: Claimed,
    _lock: File,
}

#[derive(Default)]
struct State {
    orders: Option<Arc<Orders>>,
    busy: HashSet<AssignmentName>,
    progress: HashMap<AssignmentName, Arc<Progress>>,
    /// Clients of publishers and relays, by whom they expect.
    members: HashMap<(Role, IdentityName), Arc<LiveClient>>,
    /// By `HOST:PORT` of a stock server.
    breakers: HashMap<String, Breaker>,
    /// What was seen of each publication point, by its base URL.
    healths: HashMap<String, SharedHealth>,
    /// Keys of private trees.
    keys: HashMap<TreeName, Arc<TreeKeys>>,
    /// Why the coordinator cannot be asked; `None` while it answers.
    trouble: Option<String>,
    /// When the coordinator last sent the orders, or said that there is nothing newer.
    heard: Option<Timestamp>,
}

impl Agent {
    /// Locks the data directory and the storage, and reads what is known. Nothing is asked of anyone.
    pub async fn open(config: Config) -> Result<Arc<Self>, Error> {
        config.check()?;
        let identity = LiveIdentity::open(&config.data)?;
        let lock = lock_soon(&config).await?;
        let dialer = config.dialer()?;
        let membership = identity.current().membership.clone();
        let storage = claim::claim(&config, &membership)?;
        let api =
            Arc::new(LiveClient::new(&identity, ServerExpectation::Coordinator, dialer.clone())?);
        let client = Client::new(&membership.api_url, Arc::new(move || api.get()));
        let ledger = Arc::new(Ledger::open(&config.data)?);
        let trust = Trust {
            network: membership.network,
            agent: membership.name,
            root: Arc::new(roots::known(&ledger, &membership.root)?),
        };
        let line = Arc::new(Line::new(ledger.account()?));
        let paused = ledger.is_scrub_paused()?;
        let turns = Turns::new(config.parallel);
        let manifests = Store::open(&config.data)?;
        let logs = Shelf::of(&config.data);
        let helper = match &config.program {
            Some(program) => program.clone(),
            None => std::env::current_exe().map_err(Error::Program)?,
        };
        let (program, confine) = (config.rsync.clone(), config.confine);
        let mut programs = Programs { rsync: program, helper, confine, list_first: true };
        let rsync = rsync::version::Version::of(&programs).await;
        if let Some(warning) = rsync.as_ref().and_then(rsync::version::Version::warning) {
            tracing::warn!("{warning}");
        }
        programs.list_first = rsync.as_ref().is_none_or(rsync::version::Version::list_first);
        let public = public_http_client(&roots(&config)?, &dialer, &config.points.reach())?;
        let agent = Self {
            config,
            identity,
            dialer,
            ledger,
            manifests,
            logs,
            patience: Patience::default(),
            programs,
            rsync,
            trust: Mutex::new(trust),
            client,
            public,
            state: Mutex::default(),
            scrub_paused: paused.into(),
            accepting: Mutex::default(),
            moving: Mutex::default(),
            turns,
            line,
            wake: Notify::new(),
            unsent: Notify::new(),
            applied: Notify::new(),
            _storage: storage,
            _lock: lock,
        };
        certs::clock::restore_floor(agent.ledger.marks()?.time.unwrap_or_default());
        agent.recall()?;
        Ok(Arc::new(agent))
    }

    /// Makes the storage that `config` names this agent's, unless another process uses it; tells
    /// whose it was.
    pub async fn claim_storage(config: &Config) -> Result<Option<Claim>, Error> {
        config.check()?;
        let identity = LiveIdentity::open(&config.data)?;
        let _lock = lock_soon(config).await?;
        Ok(claim::take_over(config, &identity.current().membership)?)
    }

    /// Clients for a publisher: they show our certificate and accept nobody else.
    pub(crate) fn publisher_http(&self, name: &IdentityName) -> Result<HttpSource, live::Error> {
        self.member_http(Role::Publisher, name)
    }

    /// The same for an agent of the site's relay.
    pub(crate) fn relay_http(&self, name: &IdentityName) -> Result<HttpSource, live::Error> {
        self.member_http(Role::Agent, name)
    }

    fn member_http(&self, role: Role, name: &IdentityName) -> Result<HttpSource, live::Error> {
        let mut state = self.lock();
        let client = match state.members.get(&(role, name.clone())) {
            Some(client) => Arc::clone(client),
            None => {
                let expectation = ServerExpectation::Named { role, name: name.clone() };
                let client = LiveClient::new(&self.identity, expectation, self.dialer.clone())?;
                let client = Arc::new(client);
                state.members.insert((role, name.clone()), Arc::clone(&client));
                client
            }
        };
        Ok(Arc::new(move || client.get()))
    }

    /// Who it is in the network.
    pub(crate) fn name(&self) -> IdentityName {
        self.identity.current().membership.name.clone()
    }

    /// When the coordinator last stood by the orders that are followed.
    pub(crate) fn heard(&self) -> Option<Timestamp> {
        self.lock().heard
    }

    /// The coordinator.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The point outside of the network at this URL, if this site's admin lets it be asked.
    pub(crate) fn public_point(&self, url: &BaseUrl) -> Result<Point, Refused> {
        let allowed = Allowed::new(&self.config.points);
        allowed.check(url)?;
        let client = self.public.clone();
        let point = Point::new(url.as_str(), url.as_str(), Arc::new(move || client.clone()));
        Ok(point.allowing(allowed).over(&self.line).with_health(self.health_of(url.as_str())))
    }

    /// The publisher's private buckets: `http` asks the publisher, at `base`, for a URL, and what lies
    /// there is asked as a public point is, if this site's admin lets that host be asked.
    pub(crate) fn signed_point(&self, base: &str, http: HttpSource) -> Point {
        let client = self.public.clone();
        Point::new(point::SIGNED, base, http)
            .redirecting_by(Arc::new(move || client.clone()))
            .allowing(Allowed::new(&self.config.points))
            .over(&self.line)
            .with_health(self.health_of(base))
    }

    /// The keys of a private tree.
    pub(crate) fn keys_of(&self, tree: &TreeName) -> Arc<TreeKeys> {
        let mut state = self.lock();
        let keys = state.keys.entry(tree.clone()).or_insert_with(|| {
            let ledger = Arc::clone(&self.ledger);
            Arc::new(TreeKeys::new(tree, self.client.clone(), ledger))
        });
        Arc::clone(keys)
    }

    /// What this process has seen of a point.
    pub(crate) fn health_of(&self, base: &str) -> SharedHealth {
        Arc::clone(self.lock().healths.entry(base.to_owned()).or_default())
    }

    /// The orders that are followed.
    pub fn orders(&self) -> Option<Arc<Orders>> {
        self.lock().orders.clone()
    }

    /// Why the coordinator cannot be asked; `None` while it answers.
    pub fn trouble(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// Where a run of this assignment tells how far it is.
    pub fn progress(&self, name: &AssignmentName) -> Arc<Progress> {
        Arc::clone(self.lock().progress.entry(name.clone()).or_default())
    }

    /// Whether a run of it is under way.
    pub fn is_busy(&self, name: &AssignmentName) -> bool {
        self.lock().busy.contains(name)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("data", &self.config.data).finish_non_exhaustive()
    }
}

/// The authorities that points outside of the network may be certified by.
fn roots(config: &Config) -> Result<PublicRoots, live::Error> {
    let system = PublicRoots::of_system();
    match &config.points.roots {
        Some(file) => Ok(system.unwrap_or_else(|_| PublicRoots::none()).and_file(file)?),
        // Without a bundle of public roots only points under the public PKI are lost.
        None => Ok(system.unwrap_or_else(|error| {
            tracing::debug!(%error, "no point outside of the network can be asked by https");
            PublicRoots::none()
        })),
    }
}

/// Puts a switch into a run's report.
pub(crate) fn note_switch(
    run: &Run,
    site: &Site,
    report: &SwitchReport,
) -> Result<(), apply::Error> {
    let mode = match report.mode {
        None => "none",
        Some(Mode::Exchange) => "exchange",
        Some(Mode::InPlace) => "in-place",
    };
    run.set_switch(format!("{mode}: {}", report.why));
    let withdrawn = site.withdrawn()?;
    if let Some(Withdrawn { paths, next, .. }) = &withdrawn {
        run.notice(format!(
            "{paths} removed paths stay readable for now (keep-withdrawn), the first until {next}"
        ));
    }
    run.set_withdrawn(withdrawn);
    for path in &report.exceptions {
        run.notice(format!("not touched, because a PROTECTED file is there: {path}"));
    }
    for path in &report.carried {
        run.notice(format!("local content was kept: {path}"));
    }
    for path in &report.trashed {
        run.notice(format!("local content was moved to the trash: {path}"));
    }
    Ok(())
}

/// Takes the lock of the data directory, and waits a little for whoever only looked something up:
/// a `status` that was asked for a moment ago must not keep a daemon from starting.
async fn lock_soon(config: &Config) -> Result<File, Error> {
    for _ in 0..LOCK_TRIES {
        match lock(config) {
            Err(Error::Running { .. }) => tokio::time::sleep(LOCK_PAUSE).await,
            taken => return taken,
        }
    }
    lock(config)
}

fn lock(config: &Config) -> Result<File, Error> {
    let failed = |source| Error::Data { data: config.data.clone(), source };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(config.data.join("agent.lock"))
        .map_err(failed)?;
    use rustix::fs::{FlockOperation, flock};
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Running { data: config.data.clone() }),
        Err(errno) => Err(failed(errno.into())),
    }
}
