//! An agent between a coordinator and a publisher that lie: rollback, freeze, mix-and-match,
//! fast-forward, endless answers, roots that nobody signed. Over real TLS, by the real way from the
//! question for orders to the switch of the tree.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::BTreeMap,
    fs, io,
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{Response, StatusCode, Uri},
};
use certs::{
    identity::Role,
    root,
    signing::{SigningKey, sign_json},
    testing::TestNetwork,
    tls::{self, ServerTls},
};
use futures_util::stream;
use jiff::{SignedDuration, Timestamp};
use mirror_agent::{
    agent::{Agent, Forced},
    config::Config,
};
use protocol::{
    digest::Digest,
    dsse::Envelope,
    filter,
    generation::{Epoch, Generation, HeadNumber, RestoreEpoch, Revision, RootNumber, Version},
    manifest::{Entry, EntryKind, Manifest},
    name::TreeName,
    origin,
    path::TreePath,
    root::{PublisherKey, Root, TreePattern},
    spec::{GuardSpec, OnEnd, OnExclude, Switch},
    statement::{Claim, GuardVerdict, Head, HeadTree, Statement},
    units::Span,
    v1::{
        agent::{AgentOrders, AssignmentOrder, Origin, PublisherOrigin, RunResult, Target},
        roots::Roots,
    },
    wire,
};
use tokio_util::sync::CancellationToken;

/// What both servers answer, by path.
#[derive(Default)]
struct Answers {
    bodies: Mutex<BTreeMap<String, Vec<u8>>>,
    /// The path whose answer never ends.
    endless: Mutex<Option<&'static str>>,
}

impl Answers {
    fn set(&self, path: impl Into<String>, body: impl Into<Vec<u8>>) {
        self.bodies.lock().unwrap().insert(path.into(), body.into());
    }

    fn json(&self, path: &str, value: &impl serde::Serialize) {
        self.set(path, serde_json::to_vec(value).unwrap());
    }
}

async fn answer(State(answers): State<Arc<Answers>>, uri: Uri) -> Response<Body> {
    let endless = *answers.endless.lock().unwrap();
    let body = if endless.is_some_and(|path| uri.path().contains(path)) {
        let piece = Bytes::from(vec![b' '; 64 << 10]);
        Body::from_stream(stream::repeat_with(move || Ok::<_, io::Error>(piece.clone())))
    } else if let Some(found) = answers.bodies.lock().unwrap().get(uri.path()) {
        Body::from(found.clone())
    } else {
        return Response::builder().status(StatusCode::NOT_FOUND).body(Body::empty()).unwrap();
    };
    Response::builder().header("content-type", "application/json").body(body).unwrap()
}

/// Everything that the network's signers say, to be changed by a test before it is said.
struct World {
    network: TestNetwork,
    publisher_key: SigningKey,
    agent_data: PathBuf,
    coordinator: Arc<Answers>,
    publisher: Arc<Answers>,
    publisher_address: String,
    root: Root,
    head: Head,
    autonomous: bool,
    min: Option<Version>,
    shutdown: CancellationToken,
    dir: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn tree() -> TreeName {
    "fedora".parse().unwrap()
}

fn version(generation: u64) -> Version {
    Version { epoch: Epoch::FIRST, generation: Generation(generation) }
}

async fn serve(
    tls: Arc<ServerTls>,
    answers: &Arc<Answers>,
    shutdown: &CancellationToken,
) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = Router::new().fallback(answer).with_state(Arc::clone(answers));
    let limits = tls::Limits { drain: Duration::ZERO, ..tls::Limits::default() };
    tokio::spawn(tls::serve(listener, tls, router, vec![], limits, shutdown.clone()));
    address
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = TestNetwork::create(dir.path(), "net");
        let shutdown = CancellationToken::new();
        let (coordinator, publisher) = (Arc::<Answers>::default(), Arc::<Answers>::default());
        let api = serve(network.server(), &coordinator, &shutdown).await;
        let build = network.identity(Role::Publisher, "build").await;
        let credentials = build.server.as_ref().unwrap();
        let alpn = [tls::ALPN_H2, tls::ALPN_HTTP1];
        let server = ServerTls::new(credentials, network.peers(), &alpn).unwrap();
        let publisher_address = serve(server, &publisher, &shutdown).await;
        network.identity(Role::Agent, "lisbon-1").await;
        let agent_data = network.data(Role::Agent, "lisbon-1");
        // The identity says where the API is, and pins root 1, in which the publisher signs.
        let publisher_key = SigningKey::generate().unwrap();
        let entry = PublisherKey {
            publisher: "build".parse().unwrap(),
            key: publisher_key.verifying_key(),
            trees: vec![TreePattern::all()],
        };
        let root = Root { publishers: vec![entry], ..network.root() };
        let mut membership = network.membership(Role::Agent, "lisbon-1", vec![]);
        membership.api_url = format!("https://{api}");
        membership.root = network.sign_root(&root);
        let path = agent_data.join("identity/identity.json");
        fs::write(path, serde_json::to_vec(&membership).unwrap()).unwrap();
        let now = Timestamp::now();
        let head = Head {
            network: "net".parse().unwrap(),
            number: HeadNumber(1),
            root: RootNumber(1),
            restore_epoch: RestoreEpoch(1),
            revision: Revision(1),
            issued: now,
            expires: now + SignedDuration::from_hours(24),
            trees: BTreeMap::new(),
        };
        Self {
            network,
            publisher_key,
            agent_data,
            coordinator,
            publisher,
            publisher_address,
            root,
            head,
            autonomous: false,
            min: None,
            shutdown,
            dir,
        }
    }

    async fn agent(&self) -> Arc<Agent> {
        let storage = self.dir.path().join("storage");
        fs::create_dir_all(&storage).unwrap();
        let rsync = "/nonexistent/rsync".into();
        let data = self.agent_data.clone();
        Agent::open(Config { data, storage, rsync, ..Config::default() }).await.unwrap()
    }

    fn mirror(&self) -> Vec<(String, String)> {
        let published = self.dir.path().join("storage/pub/fedora");
        let Ok(entries) = fs::read_dir(published) else { return vec![] };
        let read = |entry: fs::DirEntry| {
            let text = fs::read_to_string(entry.path()).unwrap();
            (entry.file_name().into_string().unwrap(), text)
        };
        let mut found: Vec<_> = entries.map(|entry| read(entry.unwrap())).collect();
        found.sort();
        found
    }

    /// A generation with one file `f`; its manifest and content are put at the publisher.
    fn generation(&self, number: u64, content: &str) -> Statement {
        let entry = Entry {
            path: TreePath::parse(b"f").unwrap(),
            mode: 0o644,
            mtime: 1_000_000_000_000_000_000,
            kind: EntryKind::File {
                size: content.len() as u64,
                digest: Digest::of(content.as_bytes()),
                link_group: None,
            },
        };
        let path = entry.path.clone();
        let manifest = Manifest::new(vec![entry]).unwrap();
        let digest = manifest.digest();
        let put = |path, bytes: &[u8]| self.publisher.set(path, bytes);
        let packed = |bytes: &[u8]| wire::compress(bytes, 3).unwrap();
        put(origin::manifest_path(&tree(), &digest), &packed(&manifest.list().encode()));
        for block in manifest.blocks() {
            put(origin::block_path(&tree(), &block.digest()), &packed(block.bytes()));
        }
        put(origin::content_path(&tree(), &digest, &path), content.as_bytes());
        let now = Timestamp::now();
        Statement {
            tree: tree(),
            epoch: Epoch::FIRST,
            generation: Generation(number),
            manifest: digest,
            manifest_length: manifest.list().encode().len() as u64,
            entries: 1,
            bytes: content.len() as u64,
            parent: None,
            guard: GuardVerdict { removed_files: 0, removed_bytes: 0, approved_by: None },
            created: now,
            expires: now + SignedDuration::from_hours(24 * 30),
            basis: None,
        }
    }

    fn sign<T: Claim>(&self, key: &SigningKey, claim: &T) -> Envelope {
        sign_json(key, T::PAYLOAD_TYPE, claim).unwrap()
    }

    /// Orders that lead to `statement`, as the coordinator would give them, under the next revision.
    fn orders(&mut self, statement: &Statement) -> AgentOrders {
        self.head.revision = self.head.revision.next();
        self.head.number = self.head.number.next();
        let signed = self.sign(&self.publisher_key, statement);
        let place = HeadTree {
            version: Version { epoch: statement.epoch, generation: statement.generation },
            statement: signed.payload_digest(),
            manifest: statement.manifest,
            min: self.min,
            autonomous: self.autonomous,
        };
        self.head.trees = BTreeMap::from([(tree(), place)]);
        let order = AssignmentOrder {
            name: "fedora@lisbon".parse().unwrap(),
            path: TreePath::parse(b"fedora").unwrap(),
            stopped: None,
            dry_run_only: false,
            filter: vec![filter::Level::rules(filter::Origin::Tree, "fedora", [""; 0])],
            versions: None,
            origin: Origin::Publisher(PublisherOrigin {
                publisher: "build".parse().unwrap(),
                address: Some(self.publisher_address.clone()),
                points: vec![],
                relays: vec![],
                private: false,
            }),
            fallback: vec![],
            target: Some(Target { statement: signed, offers: vec![] }),
            interval: Span::from_secs(1),
            schedule: None,
            splay: None,
            priority: 0,
            quick_list: vec![],
            symlinks: protocol::symlinks::Symlinks::default(),
            sync_requests: 0,
            guard: GuardSpec::default(),
            approved: Vec::new(),
            on_exclude: OnExclude::Keep,
            on_end: OnEnd::Keep,
            switch: Switch::Auto,
            together: None,
            group: None,
            chmod: None,
            linger: Span::from_secs(900),
            keep_withdrawn: Span::from_secs(900),
            undelete: vec![],
        };
        AgentOrders {
            revision: self.head.revision,
            restore_epoch: self.head.restore_epoch,
            root: self.head.root,
            agent: "lisbon-1".parse().unwrap(),
            site: "lisbon".parse().unwrap(),
            head: self.sign(&self.network.head_key, &self.head),
            readers: vec![],
            default_rate: None,
            bandwidth: vec![],
            budget: None,
            timezone: None,
            sharers: 1,
            assignments: vec![order],
            mandates: vec![],
        }
    }

    fn say(&self, orders: &AgentOrders) {
        self.coordinator.json("/v1/agent/orders", orders);
    }

    /// Has the agent ask and work, as often as anything is left to do. The error, if there is one.
    async fn sync(&self, agent: &Agent) -> Result<(), String> {
        agent.ask(Revision(0), Duration::ZERO).await.map_err(|error| chain(&error))?;
        for report in agent.activate(&Forced::All, false).await {
            if report.result == RunResult::Failed {
                return Err(report.error);
            }
        }
        Ok(())
    }

    /// A world whose agent holds generation 3.
    async fn holding_three() -> (Self, Arc<Agent>) {
        let mut world = Self::new().await;
        let agent = world.agent().await;
        let three = world.generation(3, "three");
        let orders = world.orders(&three);
        world.say(&orders);
        world.sync(&agent).await.unwrap();
        assert_eq!(world.mirror(), [("f".to_owned(), "three".to_owned())]);
        (world, agent)
    }

    /// The next orders are refused for `reason`, and nothing is changed.
    async fn refuses(&self, agent: &Agent, orders: &AgentOrders, reason: &str) {
        self.say(orders);
        let error = self.sync(agent).await.unwrap_err();
        assert!(error.contains(reason), "{error}");
        assert_eq!(self.mirror(), [("f".to_owned(), "three".to_owned())], "{reason}");
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_goes_back_or_so_far_forward_that_nothing_could_follow() {
    let (mut world, agent) = World::holding_three().await;
    let two = world.generation(2, "two");
    let back = world.orders(&two);
    world.refuses(&agent, &back, "content never goes back").await;
    let far = world.generation(1 << 40, "far");
    let forward = world.orders(&far);
    world.refuses(&agent, &forward, "no tree has so many generations").await;
    let other = world.generation(3, "other");
    let changed = world.orders(&other);
    world.refuses(&agent, &changed, "two different manifests").await;
    // Orders of before, with their own good head.
    let four = world.generation(4, "four");
    let replayed = world.orders(&four);
    world.say(&replayed);
    world.sync(&agent).await.unwrap();
    let five = world.generation(5, "five");
    let newer = world.orders(&five);
    world.say(&newer);
    world.sync(&agent).await.unwrap();
    world.say(&replayed);
    let error = world.sync(&agent).await.unwrap_err();
    assert!(error.contains("went back"), "{error}");
    assert_eq!(world.mirror()[0].1, "five");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_that_were_lost_with_the_disk_are_known_by_the_coordinator() {
    let (mut world, agent) = World::holding_three().await;
    drop(agent);
    fs::remove_dir_all(world.agent_data.join("ledger")).unwrap();
    let agent = world.agent().await;
    world.min = Some(version(3));
    let two = world.generation(2, "two");
    let back = world.orders(&two);
    world.refuses(&agent, &back, "content never goes back").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_belong_together_is_refused() {
    let (mut world, agent) = World::holding_three().await;
    let (four, five) = (world.generation(4, "four"), world.generation(5, "five"));
    let mut mixed = world.orders(&four);
    mixed.assignments[0].target.as_mut().unwrap().statement =
        world.sign(&world.publisher_key, &five);
    world.refuses(&agent, &mixed, "another statement than the signed head names").await;
    let mut forged = world.orders(&four);
    let stranger = SigningKey::generate().unwrap();
    forged.assignments[0].target.as_mut().unwrap().statement = world.sign(&stranger, &four);
    world.refuses(&agent, &forged, "is not signed by publisher build").await;
    let mut by_stranger = world.orders(&four);
    by_stranger.head = world.sign(&stranger, &world.head);
    world.refuses(&agent, &by_stranger, "is not signed by a key that the network's root").await;
    // The publisher's manifest and content of another generation under this one's name.
    let swap = |from: String, to: String| {
        let mut bodies = world.publisher.bodies.lock().unwrap();
        let body = bodies[&from].clone();
        bodies.insert(to, body);
    };
    let at = |statement: &Statement| origin::manifest_path(&tree(), &statement.manifest);
    swap(at(&five), at(&four));
    let orders = world.orders(&four);
    world.refuses(&agent, &orders, "manifest").await;
    let four = world.generation(4, "four");
    let path = TreePath::parse(b"f").unwrap();
    let at = |statement: &Statement| origin::content_path(&tree(), &statement.manifest, &path);
    world.publisher.set(at(&four), "evil");
    let orders = world.orders(&four);
    world.say(&orders);
    world.sync(&agent).await.unwrap_err();
    assert_eq!(world.mirror()[0].1, "three");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_has_expired_freezes_the_tree_and_says_so() {
    let (mut world, agent) = World::holding_three().await;
    world.head.expires = Timestamp::now() - SignedDuration::from_secs(1);
    let four = world.generation(4, "four");
    let old = world.orders(&four);
    world.refuses(&agent, &old, "signed head has expired").await;
}

/// What a process has seen of the time is its own: the other tests of this file would have to live by it.
#[test]
fn a_clock_that_fell_behind_revives_no_head() {
    let child = "a_process_whose_clock_fell_behind_revives_no_head";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", child, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run as a child by the test above"]
async fn a_process_whose_clock_fell_behind_revives_no_head() {
    let (mut world, agent) = World::holding_three().await;
    drop(agent);
    // As if this machine had seen a head of ten days from now, and its clock had died since.
    let path = world.agent_data.join("ledger/marks.json");
    let mut marks: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert!(marks["time"].is_string(), "{marks}");
    let seen = Timestamp::now() + SignedDuration::from_hours(6 * 24);
    marks["time"] = seen.to_string().into();
    fs::write(&path, serde_json::to_vec(&marks).unwrap()).unwrap();
    let agent = world.agent().await;
    assert!(certs::clock::is_behind());
    let four = world.generation(4, "four");
    let replayed = world.orders(&four);
    world.refuses(&agent, &replayed, "signed head has expired").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_without_end_are_cut_off_at_each_kind_of_question() {
    let (mut world, agent) = World::holding_three().await;
    let four = world.generation(4, "four");
    let mut orders = world.orders(&four);
    for path in ["/v1/agent/orders", "/manifests/", "/blocks/", "/content/"] {
        *world.coordinator.endless.lock().unwrap() = Some(path);
        *world.publisher.endless.lock().unwrap() = Some(path);
        world.say(&orders);
        let ended = tokio::time::timeout(Duration::from_secs(60), world.sync(&agent)).await;
        assert!(ended.unwrap().is_err(), "{path}");
        assert_eq!(world.mirror()[0].1, "three", "{path}");
    }
    orders.root = RootNumber(2);
    *world.coordinator.endless.lock().unwrap() = Some("/v1/roots");
    world.say(&orders);
    let ended = tokio::time::timeout(Duration::from_secs(60), world.sync(&agent)).await;
    assert!(ended.unwrap().is_err());
    assert_eq!(world.mirror()[0].1, "three");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roots_are_followed_only_by_the_word_of_their_keys() {
    let (mut world, agent) = World::holding_three().await;
    // A coordinator that was taken over names its own publisher key.
    let evil = SigningKey::generate().unwrap();
    let mut next = Root { number: RootNumber(2), ..world.root.clone() };
    next.publishers[0].key = evil.verifying_key();
    next.keys = vec![evil.verifying_key()];
    let forged = root::sign(&next, &[&evil]).unwrap();
    let four = world.generation(4, "four");
    world.head.root = RootNumber(2);
    let mut orders = world.orders(&four);
    orders.assignments[0].target.as_mut().unwrap().statement = world.sign(&evil, &four);
    let shown = |roots: Vec<Envelope>| Roots { roots, newest: RootNumber(2), online: true };
    world.coordinator.json("/v1/roots", &shown(vec![forged]));
    world.refuses(&agent, &orders, "keys of the root before it").await;
    // Nor does it help to keep the roots to itself.
    world.coordinator.json("/v1/roots", &shown(vec![]));
    world.refuses(&agent, &orders, "does not show the roots").await;
    let mut hidden = orders.clone();
    hidden.root = RootNumber(1);
    world.refuses(&agent, &hidden, "only root 1 is known").await;

    // The holders of the root key take the trust from the head key, and from the publisher's.
    let (head_key, publisher_key) =
        (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    let mut next = Root { number: RootNumber(2), ..world.root.clone() };
    next.head_keys = vec![head_key.verifying_key()];
    next.publishers[0].key = publisher_key.verifying_key();
    world.coordinator.json("/v1/roots", &shown(vec![world.network.sign_root(&next)]));
    let stolen = world.orders(&four);
    world.refuses(&agent, &stolen, "is not signed by a key that the network's root").await;
    world.network.head_key = head_key;
    world.publisher_key = publisher_key;
    // What the stolen key had counted up to no longer binds.
    world.head.revision = Revision(0);
    world.head.number = HeadNumber(0);
    let recovered = world.orders(&four);
    world.say(&recovered);
    world.sync(&agent).await.unwrap();
    assert_eq!(world.mirror()[0].1, "four");
    // A restart begins where this one ended, not at the root of the enrollment.
    drop(agent);
    let agent = world.agent().await;
    let five = world.generation(5, "five");
    let orders = world.orders(&five);
    world.say(&orders);
    world.coordinator.bodies.lock().unwrap().remove("/v1/roots");
    world.sync(&agent).await.unwrap();
    assert_eq!(world.mirror()[0].1, "five");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_autonomous_tree_goes_on_by_its_publishers_word_until_a_head_comes() {
    let mut world = World::new().await;
    world.autonomous = true;
    let agent = world.agent().await;
    let three = world.generation(3, "three");
    let orders = world.orders(&three);
    world.say(&orders);
    world.sync(&agent).await.unwrap();
    let latest = origin::latest_path(&tree());
    let four = world.generation(4, "four");
    world.publisher.json(&latest, &world.sign(&world.publisher_key, &four));
    // While the head is good, it alone counts.
    world.sync(&agent).await.unwrap();
    assert_eq!(world.mirror()[0].1, "three");
    world.head.expires = Timestamp::now() - SignedDuration::from_secs(1);
    let old = world.orders(&three);
    world.say(&old);
    world.sync(&agent).await.unwrap();
    assert_eq!(world.mirror()[0].1, "four");
    // Forged, or older: it stays.
    let pause = Duration::from_millis(1_100);
    for (key, statement) in [
        (SigningKey::generate().unwrap(), world.generation(5, "five")),
        (SigningKey::generate().unwrap(), world.generation(2, "two")),
    ] {
        tokio::time::sleep(pause).await;
        world.publisher.json(&latest, &world.sign(&key, &statement));
        let _ = world.sync(&agent).await;
        assert_eq!(world.mirror()[0].1, "four");
    }
    // The coordinator is back, and was not told yet of what is held: it waits, and is no failure.
    world.head.expires = Timestamp::now() + SignedDuration::from_hours(24);
    let behind = world.orders(&three);
    world.say(&behind);
    world.sync(&agent).await.unwrap();
    assert_eq!(world.mirror()[0].1, "four");
    // With a head that has caught up.
    world.head.expires = Timestamp::now() + SignedDuration::from_hours(24);
    let six = world.generation(6, "six");
    let orders = world.orders(&six);
    world.say(&orders);
    world.sync(&agent).await.unwrap();
    assert_eq!(world.mirror()[0].1, "six");
}
