//! Replicas: two coordinators on one PostgreSQL, none of which holds anything that the other needs.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use certs::{dial::Dialer, identity::Identity, live::http_client, tls::ServerExpectation};
use jiff::Timestamp;
use protocol::{
    client::Client,
    error::ProblemKind,
    generation::Revision,
    role::Role,
    v1::{
        definitions::{ApplyRequest, DefinitionFile},
        identities::{InviteRequest, RevokeRequest},
    },
};

use super::{Running, start};
use crate::{Config, InitOptions, config::DatabaseConfig, db::testing::Cluster, init};

const SOON: Duration = Duration::from_secs(20);

fn config(data: &Path, url: &str) -> Config {
    Config {
        data: data.into(),
        listen: "127.0.0.1:0".into(),
        enroll_listen: "127.0.0.1:0".into(),
        hostnames: vec!["127.0.0.1".into()],
        database: DatabaseConfig { url: Some(url.into()) },
        ..Config::default()
    }
}

/// Two replicas; the second has only the keys of the first.
async fn replicas(dir: &Path, url: &str) -> (Running, Running) {
    let first = config(&dir.join("first"), url);
    let options = InitOptions {
        config: first.clone(),
        network: "testnet".parse().unwrap(),
        admin: "ann".parse().unwrap(),
        authority: None,
    };
    init(&options, Timestamp::now()).await.unwrap();
    let second = config(&dir.join("second"), url);
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([&first.data, &second.data])
        .status()
        .unwrap();
    assert!(copied.success());
    (start(first).await.unwrap(), start(second).await.unwrap())
}

fn client(running: &Running, identity: &Arc<Identity>) -> Client {
    let http = http_client(identity, &ServerExpectation::Coordinator, &Dialer::default()).unwrap();
    Client::new(running.api_url(), Arc::new(move || http.clone()))
}

async fn enroll(admin: &Client, dir: &Path, name: &str) -> Arc<Identity> {
    let request = InviteRequest {
        role: Role::Agent,
        name: name.parse().unwrap(),
        site: Some("lisbon".parse().unwrap()),
        trees: vec![],
        ttl: None,
        replace: false,
        approve: false,
    };
    let invite = admin.invite(&request).await.unwrap().invite.parse().unwrap();
    let data = dir.join(name);
    std::fs::create_dir(&data).unwrap();
    let untried = async |_: Arc<Identity>| Ok::<(), std::io::Error>(());
    let options = certs::enrollment::EnrollOptions::default();
    certs::enrollment::enroll(&invite, &data, &options, untried).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_one_replica_did_the_other_knows_within_half_a_second() {
    let Some(cluster) = Cluster::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let url = cluster.create_database("replicas");
    let (first, second) = replicas(dir.path(), &url).await;
    let admin = Identity::load(&dir.path().join("first/admin")).unwrap();
    let (here, there) = (client(&first, &admin), client(&second, &admin));
    let site = DefinitionFile { name: "a".into(), text: "[[site]]\nname = \"lisbon\"\n".into() };
    let request = ApplyRequest {
        files: vec![site],
        rule_files: vec![],
        dry_run: false,
        prune: false,
        if_revision: None,
        imported: None,
    };
    here.apply(&request).await.unwrap();
    let agent = enroll(&here, dir.path(), "lisbon-1").await;

    // A certificate that one replica made counts at the other, too, with the next request.
    let at_second = client(&second, &agent);
    let orders = at_second.agent_orders(Revision(0), Duration::ZERO).await.unwrap();
    let known = orders.unwrap().revision;
    // A poll at one replica is woken by a change at the other.
    let waiting = at_second.clone();
    let poll = tokio::spawn(async move { waiting.agent_orders(known, SOON).await });
    let faster = "[[site]]\nname = \"lisbon\"\ndefault-rate = \"1MiB/s\"\n";
    let files = vec![DefinitionFile { name: "a".into(), text: faster.into() }];
    here.apply(&ApplyRequest { files, ..request }).await.unwrap();
    let news = poll.await.unwrap().unwrap().expect("woken by the other replica");
    assert!(news.default_rate.is_some());

    // A revocation at one is effective at the other.
    let name = "lisbon-1".parse().unwrap();
    there.revoke(Role::Agent, &name, &RevokeRequest::default()).await.unwrap();
    let revoked = Instant::now();
    let at_first = client(&first, &agent);
    wait_for(async || at_first.whoami().await.is_err().then_some(())).await;
    assert!(revoked.elapsed() < Duration::from_secs(2), "{:?}", revoked.elapsed());
    first.stop().await;
    second.stop().await;
}

/// No request that begins later than this after the revocation was answered may succeed.
const EVERYWHERE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_revocations_under_load_are_effective_here_at_once_and_elsewhere_within_a_second() {
    let Some(cluster) = Cluster::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let url = cluster.create_database("revocations");
    let (first, second) = replicas(dir.path(), &url).await;
    let admin = Identity::load(&dir.path().join("first/admin")).unwrap();
    let here = client(&first, &admin);
    let site = DefinitionFile { name: "a".into(), text: "[[site]]\nname = \"lisbon\"\n".into() };
    let request = ApplyRequest {
        files: vec![site],
        rule_files: vec![],
        dry_run: false,
        prune: false,
        if_revision: None,
        imported: None,
    };
    here.apply(&request).await.unwrap();
    let (mut slowest, mut under_load) = ([Duration::ZERO; 2], 0);
    for number in 0..50 {
        let name = format!("lisbon-{number}");
        let agent = enroll(&here, dir.path(), &name).await;
        let clients = [client(&first, &agent), client(&second, &agent)];
        for client in &clients {
            wait_for(async || client.whoami().await.ok()).await;
        }
        // Each asks without pause on its open connection, until it is refused: when did the last
        // request begin that was let in?
        let asking = clients.map(|client| {
            tokio::spawn(async move {
                // None, where a busy machine began this task after the revocation.
                let mut let_in = None;
                loop {
                    let asked = Instant::now();
                    if client.whoami().await.is_err() {
                        return let_in;
                    }
                    let_in = Some(asked);
                }
            })
        });
        here.revoke(Role::Agent, &name.parse().unwrap(), &RevokeRequest::default()).await.unwrap();
        let revoked = Instant::now();
        for (asking, slowest) in asking.into_iter().zip(&mut slowest) {
            let let_in = tokio::time::timeout(SOON, asking).await.unwrap().unwrap();
            let late =
                let_in.map_or(Duration::ZERO, |let_in| let_in.saturating_duration_since(revoked));
            *slowest = (*slowest).max(late);
            under_load += u32::from(let_in.is_some());
        }
    }
    let [at_once, elsewhere] = slowest;
    eprintln!(
        "50 revocations: the last request let in began {at_once:?} later here, {elsewhere:?} later at the other replica"
    );
    assert_eq!(at_once, Duration::ZERO, "a request was let in after the revocation was answered");
    assert!(elsewhere <= EVERYWHERE, "{elsewhere:?}");
    assert!(under_load >= 50, "only {under_load} of 100 asked before they were refused");
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_that_lost_its_database_answers_nobody() {
    let Some(cluster) = Cluster::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let url = cluster.create_database("replicas");
    let (first, second) = replicas(dir.path(), &url).await;
    let admin = Identity::load(&dir.path().join("first/admin")).unwrap();
    let client = client(&first, &admin);
    client.whoami().await.unwrap();
    drop(cluster);
    let refused = wait_for(async || match client.whoami().await {
        Err(protocol::client::Error::Problem(problem)) => Some(problem.kind),
        _ => None,
    })
    .await;
    assert_eq!(refused, ProblemKind::Unavailable);
    first.stop().await;
    second.stop().await;
}

/// Asks until there is an answer.
async fn wait_for<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < SOON, "not within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
