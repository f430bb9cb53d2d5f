//! Every role at every endpoint: what is not said here is not there, and what is there is said here.

use std::{collections::BTreeSet, sync::Arc};

use certs::{dial::Dialer, identity::Identity, live::http_client, tls::ServerExpectation};
use protocol::{
    error::ProblemKind,
    role::Role,
    v1::{
        definitions::Kind,
        identities::{InviteRequest, RevokeRequest},
    },
};
use reqwest::Method;

use crate::support::{DEFINITIONS, Network, Peer, kind};

/// In the order of the columns below.
const ROLES: [Role; 5] = [Role::Admin, Role::Viewer, Role::Operator, Role::Publisher, Role::Agent];

const ALL: &str = "avopg";
const ADMIN: &str = "a----";
const READERS: &str = "av---";
const SITE_READERS: &str = "avo--";
const SITE_MANAGERS: &str = "a-o--";
const PUBLISHER: &str = "---p-";
const AGENT: &str = "----g";
const PEERS: &str = "---pg";

/// Method, path as it is described, path as it is asked, and who may.
const ENDPOINTS: &[(&str, &str, &str, &str)] = &[
    ("get", "/v1/whoami", "/v1/whoami", ALL),
    ("post", "/v1/renew", "/v1/renew", ALL),
    ("post", "/v1/invites", "/v1/invites", SITE_MANAGERS),
    ("get", "/v1/enrollments", "/v1/enrollments", SITE_READERS),
    (
        "post",
        "/v1/enrollments/{fingerprint}/approve",
        "/v1/enrollments/01ab23cd45ef016789abcdef01234567/approve",
        SITE_MANAGERS,
    ),
    (
        "post",
        "/v1/enrollments/{fingerprint}/reject",
        "/v1/enrollments/01ab23cd45ef016789abcdef01234567/reject",
        SITE_MANAGERS,
    ),
    ("get", "/v1/identities", "/v1/identities", SITE_READERS),
    (
        "post",
        "/v1/identities/{role}/{name}/revoke",
        "/v1/identities/agent/nobody/revoke",
        SITE_MANAGERS,
    ),
    ("get", "/v1/crl", "/v1/crl", ALL),
    ("get", "/v1/audit", "/v1/audit", READERS),
    ("get", "/v1/roots", "/v1/roots", ALL),
    ("post", "/v1/roots", "/v1/roots", ADMIN),
    ("get", "/v1/roots/draft", "/v1/roots/draft", READERS),
    ("post", "/v1/definitions", "/v1/definitions", ADMIN),
    ("get", "/v1/definitions/{kind}", "/v1/definitions/site", SITE_READERS),
    ("get", "/v1/definitions/{kind}/{name}", "/v1/definitions/site/lisbon", SITE_READERS),
    ("delete", "/v1/definitions/{kind}/{name}", "/v1/definitions/site/nowhere", ADMIN),
    (
        "get",
        "/v1/assignments/{name}/effective",
        "/v1/assignments/alpha@lisbon/effective",
        SITE_READERS,
    ),
    ("post", "/v1/assignments/{name}/{verb}", "/v1/assignments/alpha@lisbon/enable", SITE_MANAGERS),
    ("post", "/v1/assignments/{name}/undelete", "/v1/assignments/alpha@lisbon/undelete", ADMIN),
    ("get", "/v1/assignments/{name}/log", "/v1/assignments/alpha@lisbon/log", SITE_READERS),
    ("get", "/v1/imported/{system}", "/v1/imported/pulpdist", READERS),
    ("post", "/v1/mandates", "/v1/mandates", ADMIN),
    ("get", "/v1/events", "/v1/events", READERS),
    ("post", "/v1/trees/{tree}/publish", "/v1/trees/alpha/publish", ADMIN),
    ("post", "/v1/trees/{tree}/secret", "/v1/trees/alpha/secret", ADMIN),
    ("post", "/v1/trees/{tree}/approve", "/v1/trees/alpha/approve", ADMIN),
    ("post", "/v1/trees/{tree}/reject", "/v1/trees/alpha/reject", ADMIN),
    ("get", "/v1/publisher/orders", "/v1/publisher/orders", PUBLISHER),
    ("put", "/v1/publisher/presence", "/v1/publisher/presence", PUBLISHER),
    ("post", "/v1/trees/{tree}/statements", "/v1/trees/alpha/statements", PUBLISHER),
    ("post", "/v1/trees/{tree}/offers", "/v1/trees/alpha/offers", PUBLISHER),
    ("post", "/v1/trees/{tree}/holds", "/v1/trees/alpha/holds", PUBLISHER),
    ("delete", "/v1/trees/{tree}/holds", "/v1/trees/alpha/holds", PUBLISHER),
    ("get", "/v1/agent/orders", "/v1/agent/orders", AGENT),
    ("put", "/v1/agent/presence", "/v1/agent/presence", AGENT),
    ("post", "/v1/agent/leases", "/v1/agent/leases", AGENT),
    ("post", "/v1/agent/runs/begun", "/v1/agent/runs/begun", AGENT),
    ("post", "/v1/agent/runs", "/v1/agent/runs", AGENT),
    (
        "get",
        "/v1/trees/{tree}/statements/{from}",
        "/v1/trees/alpha/statements/b3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
        AGENT,
    ),
    ("get", "/v1/trees/{tree}/key", "/v1/trees/alpha/key", PEERS),
    ("get", "/v1/status", "/v1/status", SITE_READERS),
    ("get", "/v1/generations", "/v1/generations?tree=alpha", SITE_READERS),
    ("get", "/v1/runs", "/v1/runs", SITE_READERS),
    ("get", "/v1/runs/{id}", "/v1/runs/018f0000-0000-7000-8000-000000000000", SITE_READERS),
    ("get", "/v1/openapi.json", "/v1/openapi.json", ALL),
    ("get", "/metrics", "/metrics", READERS),
];

struct Actors {
    network: Network,
    clients: [reqwest::Client; 5],
    operator: Peer,
}

async fn actors() -> Actors {
    let (network, build, lisbon, _) = Network::with_peers().await;
    let private = DEFINITIONS.replace("path = \"alpha\"", "path = \"alpha\"\nprivate = true");
    network.apply(&private).await.unwrap();
    let viewer = network.peer(Role::Viewer, "vic", None).await;
    let operator = network.peer(Role::Operator, "olga", Some("lisbon")).await;
    let admin = Identity::load(&network.config.data.join("admin")).unwrap();
    let identities =
        [&admin, &viewer.identity, &operator.identity, &build.identity, &lisbon.identity];
    let clients = identities.map(http);
    Actors { network, clients, operator }
}

fn http(identity: &Arc<Identity>) -> reqwest::Client {
    http_client(identity, &ServerExpectation::Coordinator, &Dialer::default()).unwrap()
}

#[tokio::test]
async fn each_role_may_ask_at_each_endpoint_exactly_what_the_matrix_says() {
    let Actors { network, clients, .. } = actors().await;
    for (method, _, path, who) in ENDPOINTS {
        assert_eq!(who.len(), ROLES.len());
        for ((role, client), letter) in ROLES.iter().zip(&clients).zip(who.chars()) {
            let method: Method = method.to_uppercase().parse().unwrap();
            let url = format!("{}{path}", network.url());
            let mut request = client.request(method.clone(), url);
            if method != Method::GET {
                request = request.header("content-type", "application/json").body("{}");
            }
            let status = request.send().await.unwrap().status().as_u16();
            let refused = status == 403 || status == 401;
            let at = format!("{role} at {method} {path}: {status}");
            assert_eq!(refused, letter == '-', "{at}");
            assert!(status < 500, "{at}");
        }
    }
}

#[tokio::test]
async fn the_matrix_names_every_endpoint_that_wants_a_certificate() {
    let Actors { network, clients, .. } = actors().await;
    let url = format!("{}/v1/openapi.json", network.url());
    let document: serde_json::Value =
        serde_json::from_slice(&clients[0].get(url).send().await.unwrap().bytes().await.unwrap())
            .unwrap();
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if operation["security"].as_array().is_none_or(|needs| !needs.is_empty()) {
                described.insert(format!("{method} {path}"));
            }
        }
    }
    let named: BTreeSet<_> =
        ENDPOINTS.iter().map(|(method, path, ..)| format!("{method} {path}")).collect();
    assert_eq!(described, named);
}

#[tokio::test]
async fn an_operator_sees_what_concerns_its_site_and_nothing_else() {
    let Actors { network, operator, .. } = actors().await;
    let client = &operator.client;
    assert_eq!(client.whoami().await.unwrap().site.unwrap().as_str(), "lisbon");
    let names = async |kind| {
        let found = client.definitions(kind).await.unwrap();
        found.into_iter().map(|definition| definition.name).collect::<Vec<_>>()
    };
    assert_eq!(names(Kind::Site).await, ["lisbon"]);
    assert_eq!(names(Kind::Assignment).await, ["alpha@lisbon", "beta@lisbon"]);
    assert_eq!(names(Kind::Grant).await, ["alpha@lisbon", "beta@lisbon"]);
    assert_eq!(names(Kind::Tree).await, ["alpha", "beta"], "gamma is not granted to it");
    assert_eq!(names(Kind::Source).await, ["releases"]);
    assert_eq!(names(Kind::Upstream).await, ["build"]);
    assert_eq!(kind(client.definition(Kind::Site, "oslo").await), ProblemKind::NotFound);
    assert_eq!(kind(client.definition(Kind::Tree, "gamma").await), ProblemKind::NotFound);
    let elsewhere = "beta@oslo".parse().unwrap();
    assert_eq!(kind(client.effective(&elsewhere).await), ProblemKind::NotFound);
    client.effective(&"beta@lisbon".parse().unwrap()).await.unwrap();
    let status = client.status().await.unwrap();
    let shown: Vec<_> = status.assignments.iter().map(|one| one.name.to_string()).collect();
    assert_eq!(shown, ["alpha@lisbon", "beta@lisbon"]);
    let shown: Vec<_> = client.identities(None).await.unwrap();
    let shown: BTreeSet<_> = shown.iter().map(|one| format!("{}/{}", one.role, one.name)).collect();
    assert_eq!(shown.into_iter().collect::<Vec<_>>(), ["agent/lisbon-1", "operator/olga"]);
    assert_eq!(kind(client.generations(None).await), ProblemKind::BadRequest);
    client.generations(Some(&"beta".parse().unwrap())).await.unwrap();
    let gamma = "gamma".parse().unwrap();
    assert_eq!(kind(client.generations(Some(&gamma)).await), ProblemKind::NotFound);
    // An alarm about another site is not for it to see; one about its own is.
    for (site, agent, seen) in [("oslo", "oslo-1", false), ("lisbon", "lisbon-1", true)] {
        let replace = InviteRequest { replace: true, ..of(agent, site) };
        let invite = network.admin().invite(&replace).await.unwrap().invite;
        network.enroll(&invite, &format!("{agent}-new")).await.unwrap();
        network.enroll(&invite, &format!("{agent}-thief")).await.unwrap_err();
        let told = client.status().await.unwrap().attention.join("\n");
        assert_eq!(told.contains("was used again"), seen, "{told}");
    }
}

fn of(agent: &str, site: &str) -> InviteRequest {
    InviteRequest {
        role: Role::Agent,
        name: agent.parse().unwrap(),
        site: Some(site.parse().unwrap()),
        ttl: None,
        trees: vec![],
        replace: false,
        approve: false,
    }
}

#[tokio::test]
async fn an_operator_lets_in_runs_and_shuts_out_what_is_at_its_site_and_nothing_else() {
    let Actors { network, operator, .. } = actors().await;
    let client = &operator.client;
    let invite = client.invite(&of("lisbon-2", "lisbon")).await.unwrap().invite;
    network.enroll(&invite, "lisbon-2").await.unwrap();
    let refused = [
        of("oslo-2", "oslo"),
        InviteRequest { role: Role::Admin, site: None, ..of("eve", "lisbon") },
        InviteRequest { role: Role::Operator, ..of("eve", "lisbon") },
        InviteRequest { role: Role::Publisher, site: None, ..of("eve", "lisbon") },
        // An agent of another site would change hands.
        InviteRequest { replace: true, ..of("oslo-1", "lisbon") },
    ];
    for request in refused {
        assert_eq!(kind(client.invite(&request).await), ProblemKind::Forbidden, "{request:?}");
    }
    let why = RevokeRequest { reason: "sold".into() };
    let revoke = async |role, name: &str| client.revoke(role, &name.parse().unwrap(), &why).await;
    assert_eq!(kind(revoke(Role::Agent, "oslo-1").await), ProblemKind::Forbidden);
    assert_eq!(kind(revoke(Role::Admin, "ann").await), ProblemKind::Forbidden);
    assert_eq!(kind(revoke(Role::Publisher, "build").await), ProblemKind::Forbidden);
    assert_eq!(kind(revoke(Role::Operator, "olga").await), ProblemKind::Forbidden);
    revoke(Role::Agent, "lisbon-2").await.unwrap();

    let tell = async |name: &str, verb| client.tell_assignment(&name.parse().unwrap(), verb).await;
    tell("alpha@lisbon", "disable").await.unwrap();
    tell("alpha@lisbon", "enable").await.unwrap();
    assert_eq!(kind(tell("beta@oslo", "disable").await), ProblemKind::Forbidden);
    assert_eq!(kind(tell("beta@oslo", "sync").await), ProblemKind::Forbidden);

    let approve = InviteRequest { approve: true, ..of("oslo-3", "oslo") };
    let invite = network.admin().invite(&approve).await.unwrap().invite;
    let data = network.data_of("oslo-3");
    let options = certs::enrollment::EnrollOptions {
        approval: std::time::Duration::ZERO,
        ..certs::enrollment::EnrollOptions::default()
    };
    let untried = async |_| Ok::<(), std::io::Error>(());
    let line = invite.parse().unwrap();
    certs::enrollment::enroll(&line, &data, &options, untried).await.unwrap_err();
    let waiting = network.admin().enrollments().await.unwrap();
    assert_eq!(waiting.len(), 1);
    assert!(client.enrollments().await.unwrap().is_empty());
    let keys = &waiting[0].fingerprint;
    assert_eq!(kind(client.approve_enrollment(keys).await), ProblemKind::NotFound);
    assert_eq!(kind(client.reject_enrollment(keys).await), ProblemKind::NotFound);
}
