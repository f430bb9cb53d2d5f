//! A coordinator in a temporary directory, and the peers that talk to it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use certs::{
    dial::Dialer,
    enrollment::{self, EnrollOptions},
    identity::Identity,
    live::http_client,
    signing,
    tls::ServerExpectation,
};
use coordinator::{Config, InitOptions, Running, db::Database, init, start};
use jiff::{SignedDuration, Timestamp};
use protocol::{
    client::{Client, Error},
    digest::Digest,
    dsse::Envelope,
    error::{Problem, ProblemKind},
    generation::{Epoch, Generation, Revision},
    role::Role,
    statement::{Claim, GuardVerdict, Offer, Parent, Statement},
    v1::{
        agent::AgentOrders,
        audit::AuditEntry,
        definitions::{ApplyRequest, ApplyResult, DefinitionFile},
        identities::InviteRequest,
        publisher::PublisherOrders,
    },
};
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);
/// Shorter than anybody should wait who has nothing to wait for.
pub const AT_ONCE: Duration = Duration::ZERO;

/// One publisher, two sites, three trees; `lisbon` holds `alpha` and `beta`, `oslo` holds `beta`.
pub const DEFINITIONS: &str = r#"
[[upstream]]
name = "build"
kind = "publisher"

[[source]]
name = "releases"
upstream = "build"
path = "/srv/releases"

[[tree]]
name = "alpha"
source = "releases"
path = "alpha"

[[tree]]
name = "beta"
source = "releases"
path = "beta"

[[tree]]
name = "gamma"
source = "releases"
path = "gamma"

[[site]]
name = "lisbon"

[[site]]
name = "oslo"

[[grant]]
site = "lisbon"
tree = "alpha"

[[grant]]
site = "lisbon"
tree = "beta"

[[grant]]
site = "oslo"
tree = "beta"

[[assignment]]
site = "lisbon"
tree = "alpha"

[[assignment]]
site = "lisbon"
tree = "beta"

[[assignment]]
site = "oslo"
tree = "beta"
"#;

pub struct Network {
    pub dir: TempDir,
    pub running: Option<Running>,
    pub config: Config,
}

impl Network {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = config(&dir.path().join("coordinator"));
        make(&config).await;
        let running = Some(start(config.clone()).await.unwrap());
        Self { dir, running, config }
    }

    /// With [`DEFINITIONS`], the publisher `build` and the agents `lisbon-1` and `oslo-1`.
    pub async fn with_peers() -> (Self, Peer, Peer, Peer) {
        let network = Self::start().await;
        network.apply(DEFINITIONS).await.unwrap();
        let build = network.peer(Role::Publisher, "build", None).await;
        let lisbon = network.peer(Role::Agent, "lisbon-1", Some("lisbon")).await;
        let oslo = network.peer(Role::Agent, "oslo-1", Some("oslo")).await;
        (network, build, lisbon, oslo)
    }

    pub fn coordinator(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub async fn stop(&mut self) {
        self.running.take().unwrap().stop().await;
    }

    pub async fn restart(&mut self) {
        self.running = Some(start(self.config.clone()).await.unwrap());
    }

    pub fn url(&self) -> String {
        self.coordinator().api_url().to_owned()
    }

    pub fn admin(&self) -> Client {
        let identity = Identity::load(&self.config.data.join("admin")).unwrap();
        self.client(&identity)
    }

    pub fn client(&self, identity: &Arc<Identity>) -> Client {
        client(&self.url(), identity)
    }

    pub async fn apply(&self, text: &str) -> Result<ApplyResult, Error> {
        self.admin().apply(&request(text)).await
    }

    pub async fn invite(&self, role: Role, name: &str, site: Option<&str>) -> String {
        let request = InviteRequest {
            role,
            name: name.parse().unwrap(),
            site: site.map(|site| site.parse().unwrap()),
            trees: vec![],
            ttl: None,
            replace: false,
            approve: false,
        };
        self.admin().invite(&request).await.unwrap().invite
    }

    /// Everything that was audited.
    pub async fn audit(&self) -> Vec<AuditEntry> {
        let database = Database::open_sqlite(&self.config.data).await.unwrap();
        let entries = database.read().await.unwrap().audit_log(0, 10_000).await.unwrap();
        database.close().await;
        entries
    }

    pub fn data_of(&self, name: &str) -> PathBuf {
        let data = self.dir.path().join(name);
        std::fs::create_dir_all(&data).unwrap();
        data
    }

    pub async fn enroll(
        &self,
        invite: &str,
        name: &str,
    ) -> Result<Arc<Identity>, enrollment::Error> {
        let data = self.data_of(name);
        let options = EnrollOptions {
            server_names: match name {
                "build" | "other" => vec!["127.0.0.1".into()],
                _ => vec![],
            },
            ..EnrollOptions::default()
        };
        let check = async |identity: Arc<Identity>| {
            let url = identity.membership.api_url.clone();
            client(&url, &identity).whoami().await.map(drop)
        };
        enrollment::enroll(&invite.parse().unwrap(), &data, &options, check).await
    }

    pub async fn peer(&self, role: Role, name: &str, site: Option<&str>) -> Peer {
        let invite = self.invite(role, name, site).await;
        let identity = self.enroll(&invite, name).await.unwrap();
        Peer { client: self.client(&identity), identity }
    }
}

/// An enrolled program.
pub struct Peer {
    pub client: Client,
    pub identity: Arc<Identity>,
}

impl Peer {
    pub async fn orders(&self) -> AgentOrders {
        self.client.agent_orders(Revision(0), AT_ONCE).await.unwrap().unwrap()
    }

    pub async fn publisher_orders(&self) -> PublisherOrders {
        self.client.publisher_orders(Revision(0), AT_ONCE).await.unwrap().unwrap()
    }

    pub fn sign<T: Claim>(&self, claim: &T) -> Envelope {
        signing::sign_json(&self.identity.signing_key, T::PAYLOAD_TYPE, claim).unwrap()
    }

    /// States the generation `number` of `tree`, with content named `content`, after `parent`.
    pub async fn state(
        &self,
        tree: &str,
        number: u64,
        content: &str,
        parent: Option<&str>,
    ) -> Result<Envelope, Error> {
        let statement = self.sign(&statement(tree, number, content, parent));
        self.client.announce_statement(&tree.parse().unwrap(), &statement).await?;
        Ok(statement)
    }

    /// Offers a pack between two contents of `tree`.
    pub async fn offer(&self, tree: &str, from: Option<&str>, to: &str) -> Envelope {
        let offer = Offer {
            tree: tree.parse().unwrap(),
            from: from.map(digest),
            to: digest(to),
            pack: digest("pack"),
            length: 1000,
            index_length: 100,
            index: digest("index"),
            front: None,
            shared_length: 0,
            encryption: None,
            figures: None,
        };
        let envelope = self.sign(&offer);
        self.client.announce_offer(&offer.tree, &envelope).await.unwrap();
        envelope
    }
}

pub fn config(data: &Path) -> Config {
    Config {
        data: data.into(),
        listen: "127.0.0.1:0".into(),
        enroll_listen: "127.0.0.1:0".into(),
        hostnames: vec!["127.0.0.1".into(), "localhost".into()],
        ..Config::default()
    }
}

pub async fn make(config: &Config) {
    let options = InitOptions {
        config: config.clone(),
        network: "testnet".parse().unwrap(),
        admin: "ann".parse().unwrap(),
        authority: None,
    };
    init(&options, Timestamp::now()).await.unwrap();
}

pub fn client(url: &str, identity: &Arc<Identity>) -> Client {
    let http = http_client(identity, &ServerExpectation::Coordinator, &Dialer::default()).unwrap();
    Client::new(url, Arc::new(move || http.clone()))
}

pub fn request(text: &str) -> ApplyRequest {
    let file = DefinitionFile { name: "network.toml".into(), text: text.into() };
    ApplyRequest {
        files: vec![file],
        rule_files: vec![],
        dry_run: false,
        prune: false,
        if_revision: None,
        imported: None,
    }
}

pub fn digest(content: &str) -> Digest {
    Digest::of(content.as_bytes())
}

pub fn statement(tree: &str, number: u64, content: &str, parent: Option<&str>) -> Statement {
    let now = Timestamp::now();
    Statement {
        tree: tree.parse().unwrap(),
        epoch: Epoch(1),
        generation: Generation(number),
        manifest: digest(content),
        manifest_length: 100,
        entries: 10,
        bytes: 1000,
        parent: parent
            .map(|parent| Parent { generation: Generation(number - 1), manifest: digest(parent) }),
        guard: GuardVerdict { removed_files: 0, removed_bytes: 0, approved_by: None },
        created: now,
        expires: now + SignedDuration::from_hours(24),
        basis: None,
    }
}

/// The problem with which a call was refused.
pub fn problem<T: std::fmt::Debug>(result: Result<T, Error>) -> Problem {
    match result.unwrap_err() {
        Error::Problem(problem) => problem,
        error => panic!("expected a problem, found {error:?}"),
    }
}

pub fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ProblemKind {
    problem(result).kind
}
