//! Every kind of event that only time or an admin brings about, as a real receiver gets it: the
//! coordinator's clock is the test's.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use certs::{
    dial::Dialer,
    enrollment::{EnrollOptions, enroll},
    identity::Identity,
    live::{LiveIdentity, http_client},
    tls::ServerExpectation,
};
use coordinator::{Config, InitOptions, Running, init, start_at};
use jiff::{SignedDuration, Timestamp};
use protocol::{
    client::Client,
    digest::Digest,
    role::Role,
    v1::{
        audit::AuditEntry,
        definitions::{ApplyRequest, DefinitionFile, HoldDecision},
        identities::InviteRequest,
        publisher::HoldReport,
    },
};
use serde_json::Value;
use tests::{Sink, wait_until};

const HOUR: i64 = 3_600;

/// A coordinator in this process, whose clock goes when the test says so, and its receiver.
struct Watched {
    dir: tempfile::TempDir,
    sink: Sink,
    clock: Arc<AtomicI64>,
    running: Running,
}

impl Watched {
    async fn start(answer: u16) -> Self {
        Self::start_with(answer, "").await
    }

    /// The same, with further lines of its configuration.
    async fn start_with(answer: u16, lines: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sink = Sink::start(answer);
        let secret = dir.path().join("secret");
        fs::write(&secret, "a secret of sixteen bytes\n").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        // Without kinds: everything that needs attention, and its end.
        let webhook = format!(
            "[[webhooks]]\nname = \"ops\"\nurl = \"{}/\"\nsecret-file = {secret:?}\n",
            sink.url()
        );
        let data = dir.path().join("coordinator");
        let text = format!(
            "data = {data:?}\nlisten = \"127.0.0.1:0\"\nenroll-listen = \"127.0.0.1:0\"\n\
             hostnames = [\"127.0.0.1\"]\n{lines}{webhook}"
        );
        let config: Config = toml::from_str(&text).unwrap();
        let options = InitOptions {
            config: config.clone(),
            network: "test".parse().unwrap(),
            admin: "ann".parse().unwrap(),
            authority: None,
        };
        init(&options, Timestamp::now()).await.unwrap();
        let clock = Arc::new(AtomicI64::new(0));
        let ahead = Arc::clone(&clock);
        let time =
            move || Timestamp::now() + SignedDuration::from_secs(ahead.load(Ordering::Acquire));
        let running = start_at(config, Arc::new(time)).await.unwrap();
        let watched = Self { dir, sink, clock, running };
        let definitions = "[[upstream]]\nname = \"build\"\nkind = \"publisher\"\n\
            [[source]]\nname = \"source\"\nupstream = \"build\"\npath = \"/srv\"\n\
            [[tree]]\nname = \"tree\"\nsource = \"source\"\n[[site]]\nname = \"site\"\n";
        let file = DefinitionFile { name: "test.toml".into(), text: definitions.into() };
        let request = ApplyRequest {
            files: vec![file],
            rule_files: vec![],
            dry_run: false,
            prune: false,
            if_revision: None,
            imported: None,
        };
        watched.admin().apply(&request).await.unwrap();
        watched
    }

    fn admin(&self) -> Client {
        self.client(&Identity::load(&self.dir.path().join("coordinator/admin")).unwrap())
    }

    fn client(&self, identity: &Identity) -> Client {
        let expected = ServerExpectation::Coordinator;
        let http = http_client(identity, &expected, &Dialer::default()).unwrap();
        Client::new(self.running.api_url(), Arc::new(move || http.clone()))
    }

    async fn enroll(&self, role: Role, name: &str) -> Arc<Identity> {
        let request = InviteRequest {
            role,
            name: name.parse().unwrap(),
            site: role.has_site().then(|| "site".parse().unwrap()),
            trees: vec![],
            ttl: None,
            replace: false,
            approve: false,
        };
        let invite = self.admin().invite(&request).await.unwrap().invite.parse().unwrap();
        let data = self.data(name);
        fs::create_dir_all(&data).unwrap();
        let server_names = match role {
            Role::Publisher => vec!["127.0.0.1".to_owned()],
            _ => vec![],
        };
        let options = EnrollOptions { server_names, ..EnrollOptions::default() };
        let works = async |_: Arc<Identity>| Ok::<(), std::io::Error>(());
        enroll(&invite, &data, &options, works).await.unwrap()
    }

    fn data(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Lets time pass, and the coordinator look at what that brought.
    async fn pass(&self, seconds: i64) {
        self.clock.fetch_add(seconds, Ordering::AcqRel);
        self.look().await;
    }

    async fn look(&self) {
        self.running.app().store_seen().await.unwrap();
        self.running.app().keep_watch().await.unwrap();
    }

    /// Kinds of what the receiver took about a subject, in order.
    fn kinds(&self, subject: &str) -> Vec<String> {
        let events = self.sink.got().into_iter().filter(|got| got.status == 200);
        let events = events.map(|got| serde_json::from_str::<Value>(&got.body).unwrap());
        let about = events.filter(|event| event["subject"] == subject);
        about.map(|event| event["kind"].as_str().unwrap().to_owned()).collect()
    }

    fn wait_for_kinds(&self, subject: &str, expected: &[&str]) {
        wait_until(&format!("{expected:?} to be told about {subject}"), || {
            self.kinds(subject) == expected
        });
    }
}

/// Asks who it is, also where an open connection has ended meanwhile.
async fn be_heard(client: &Client) {
    if client.whoami().await.is_err() {
        client.whoami().await.unwrap();
    }
}

/// Renews the certificate in a data directory.
async fn renew(watched: &Watched, data: &Path) -> Arc<Identity> {
    let live = LiveIdentity::open(data).unwrap();
    let client = watched.client(&live.current());
    let renew = |request| {
        let client = client.clone();
        async move { client.renew(&request).await }
    };
    let works = async |_: Arc<Identity>| Ok::<(), std::io::Error>(());
    live.renew_once(&renew, &works).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_hears_who_fell_silent_and_who_is_back() {
    let watched = Watched::start(200).await;
    let agent = watched.client(&*watched.enroll(Role::Agent, "lisbon-1").await);
    agent.whoami().await.unwrap();
    watched.pass(HOUR - 60).await;
    watched.pass(120).await;
    watched.wait_for_kinds("agent/lisbon-1", &["identity-silent"]);
    // Told once, however long it goes on.
    watched.pass(HOUR).await;
    be_heard(&agent).await;
    watched.look().await;
    watched.wait_for_kinds("agent/lisbon-1", &["identity-silent", "identity-back"]);
    watched.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_hears_that_a_certificate_ends_and_that_it_was_renewed() {
    // The new one has to be good by this machine's clock, too: it begins five minutes before it is made.
    let watched = Watched::start_with(200, "certificate-life = \"6m\"\n").await;
    let first = watched.enroll(Role::Agent, "lisbon-1").await;
    be_heard(&watched.client(&first)).await;
    watched.pass(4 * 60 + 40).await;
    watched.wait_for_kinds("agent/lisbon-1", &["certificate-ending"]);
    let second = renew(&watched, &watched.data("lisbon-1")).await;
    be_heard(&watched.client(&second)).await;
    watched.look().await;
    watched.wait_for_kinds("agent/lisbon-1", &["certificate-ending", "certificate-renewed"]);
    watched.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_hears_that_a_copy_of_a_certificate_is_used() {
    let watched = Watched::start(200).await;
    let first = watched.enroll(Role::Agent, "lisbon-1").await;
    be_heard(&watched.client(&first)).await;
    let second = renew(&watched, &watched.data("lisbon-1")).await;
    be_heard(&watched.client(&second)).await;
    // Whoever still shows the old one an hour later has a copy of it.
    watched.clock.fetch_add(2 * HOUR, Ordering::AcqRel);
    watched.client(&first).whoami().await.unwrap_err();
    wait_until("the clone to be told", || {
        watched.kinds("agent/lisbon-1").iter().any(|kind| kind == "clone-suspected")
    });
    watched.client(&first).whoami().await.unwrap_err();
    let told = watched.kinds("agent/lisbon-1");
    assert_eq!(told.iter().filter(|kind| *kind == "clone-suspected").count(), 1, "{told:?}");
    watched.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_hears_of_a_hold_and_of_what_an_admin_decided() {
    let watched = Watched::start(200).await;
    let build = watched.client(&*watched.enroll(Role::Publisher, "build").await);
    let tree = "tree".parse().unwrap();
    for (text, approve) in [("first", true), ("second", false)] {
        let hold = HoldReport {
            manifest: Digest::of(text.as_bytes()),
            reason: "30 % of its files would be gone".into(),
            removed_files: 30,
            removed_bytes: 3_000,
            since: Timestamp::now(),
            difference: protocol::v1::publisher::Difference::default(),
            unseen: false,
        };
        build.report_hold(&tree, &hold).await.unwrap();
        let decision = HoldDecision { manifest: hold.manifest };
        match approve {
            true => watched.admin().approve(&tree, &decision).await.unwrap(),
            false => watched.admin().reject(&tree, &decision).await.unwrap(),
        }
    }
    watched.wait_for_kinds(
        "tree",
        &["generation-held", "hold-approved", "generation-held", "hold-rejected"],
    );
    let held = watched.sink.got().into_iter().find(|got| got.body.contains("generation-held"));
    let held: Value = serde_json::from_str(&held.unwrap().body).unwrap();
    assert_eq!(held["details"]["removed-files"], "30", "{held:#}");
    watched.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_receiver_never_takes_is_given_up_after_three_days_and_audited_and_what_follows_is_told()
 {
    let watched = Watched::start(500).await;
    let agent = watched.client(&*watched.enroll(Role::Agent, "lisbon-1").await);
    agent.whoami().await.unwrap();
    watched.pass(2 * HOUR).await;
    watched.sink.wait_for("a try", |got| got.body.contains("identity-silent"));
    let given_up = |entries: &[AuditEntry]| {
        entries.iter().any(|entry| {
            entry.what == "delivery-given-up"
                && entry.target == "ops"
                && entry.detail.contains("identity-silent")
                && entry.detail.contains("500")
        })
    };
    assert!(!given_up(&watched.admin().audit().await.unwrap()));
    watched.pass(3 * 24 * HOUR).await;
    let deadline = std::time::Instant::now() + tests::PATIENCE;
    while !given_up(&watched.admin().audit().await.unwrap()) {
        assert!(std::time::Instant::now() < deadline, "it is never given up");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // The next one of the same subject no longer waits for it.
    watched.sink.answer(200);
    be_heard(&agent).await;
    watched.look().await;
    watched.wait_for_kinds("agent/lisbon-1", &["identity-back"]);
    watched.running.stop().await;
}
