//! Who may do what, and how a revocation takes hold.

use certs::testing::TestNetwork;
use protocol::{
    client::Error,
    error::ProblemKind,
    generation::Revision,
    role::Role,
    v1::{enroll::RenewRequest, identities::RevokeRequest},
};

use crate::support::{AT_ONCE, DEFINITIONS, Network, SOON, client, digest, kind, request};

#[tokio::test]
async fn each_role_may_ask_its_own_questions_and_no_others() {
    let (network, build, lisbon, _) = Network::with_peers().await;
    let viewer = network.peer(Role::Viewer, "vic", None).await;
    let admin = network.admin();
    let apply = request(DEFINITIONS);
    let decision = protocol::v1::definitions::HoldDecision { manifest: digest("nothing is held") };
    for peer in [&build, &lisbon, &viewer] {
        let client = &peer.client;
        assert_eq!(client.whoami().await.unwrap().name, peer.identity.membership.name);
        assert_eq!(kind(client.apply(&apply).await), ProblemKind::Forbidden);
        let tree = "alpha".parse().unwrap();
        assert_eq!(kind(client.approve(&tree, &decision).await), ProblemKind::Forbidden);
        let revoked =
            client.revoke(Role::Agent, &"oslo-1".parse().unwrap(), &RevokeRequest::default()).await;
        assert_eq!(kind(revoked), ProblemKind::Forbidden);
    }
    for peer in [&build, &lisbon] {
        assert_eq!(kind(peer.client.status().await), ProblemKind::Forbidden);
        assert_eq!(kind(peer.client.identities(None).await), ProblemKind::Forbidden);
    }
    viewer.client.status().await.unwrap();
    admin.status().await.unwrap();
    for client in [&viewer.client, &admin, &build.client] {
        assert_eq!(kind(client.agent_orders(Revision(0), AT_ONCE).await), ProblemKind::Forbidden);
    }
    let orders = lisbon.client.publisher_orders(Revision(0), AT_ONCE).await;
    assert_eq!(kind(orders), ProblemKind::Forbidden);
}

#[tokio::test]
async fn a_certificate_that_the_authority_made_but_nobody_enrolled_is_not_known() {
    let network = Network::start().await;
    // As after a restore from a backup that is older than an enrollment.
    let data = network.dir.path().join("stranger");
    std::fs::create_dir(&data).unwrap();
    let authority = certs::authority::Authority::open(&network.config.data.join("ca")).unwrap();
    let pending = certs::identity::Pending::enroll(&data, &[]).unwrap();
    let keys = certs::enrollment::RequestedKeys::check(pending.keys()).unwrap();
    let (role, name) = (Role::Admin, "ann".parse().unwrap());
    let now = jiff::Timestamp::now();
    let issued = authority.issue(&keys.client, role, &name, certs::authority::LIFE, now).unwrap();
    let admin = certs::identity::Identity::load(&network.config.data.join("admin")).unwrap();
    let certificates = protocol::v1::enroll::Certificates {
        chain: issued.chain_pem,
        server_chain: None,
        ca: authority.root_pem().into(),
    };
    let untried = |_| async { Ok::<(), std::io::Error>(()) };
    let identity = pending.install(&admin.membership, &certificates, untried).await.unwrap();
    let refused = client(&network.url(), &identity).status().await;
    assert_eq!(kind(refused), ProblemKind::Unauthenticated);
}

#[tokio::test]
async fn a_foreign_certificate_does_not_get_past_the_handshake() {
    let network = Network::start().await;
    let foreign = TestNetwork::create(network.dir.path(), "testnet");
    let identity = foreign.identity(Role::Admin, "ann").await;
    let refused = client(&network.url(), &identity).whoami().await;
    assert!(matches!(refused, Err(Error::Transport { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_revocation_closes_the_open_connection_and_ends_the_poll_on_it() {
    let (network, _, lisbon, oslo) = Network::with_peers().await;
    let revision = lisbon.orders().await.revision;
    let waiting = lisbon.client.clone();
    let poll = tokio::spawn(async move { waiting.agent_orders(revision, SOON).await });
    oslo.orders().await;
    let admin = network.admin();
    let reason = RevokeRequest { reason: "stolen".into() };
    let status = admin.revoke(Role::Agent, &"lisbon-1".parse().unwrap(), &reason).await.unwrap();
    assert!(status.revoked.is_some() && status.reason == "stolen");
    let ended = tokio::time::timeout(SOON / 2, poll).await.unwrap().unwrap();
    match ended {
        Err(Error::Transport { .. }) => {}
        Err(Error::Problem(problem)) => assert_eq!(problem.kind, ProblemKind::Revoked),
        other => panic!("{other:?}"),
    }
    assert!(lisbon.client.whoami().await.is_err());
    // The other agent is not touched, and the publisher is told whom to refuse.
    oslo.client.whoami().await.unwrap();
}

#[tokio::test]
async fn revoking_twice_keeps_the_first_time_and_the_last_admin_stays() {
    let (network, ..) = Network::with_peers().await;
    let admin = network.admin();
    let name = "oslo-1".parse().unwrap();
    let first = admin.revoke(Role::Agent, &name, &RevokeRequest::default()).await.unwrap();
    let again = RevokeRequest { reason: "again".into() };
    let second = admin.revoke(Role::Agent, &name, &again).await.unwrap();
    assert_eq!((first.revoked, first.reason), (second.revoked, second.reason));
    let ann = "ann".parse().unwrap();
    let last = admin.revoke(Role::Admin, &ann, &RevokeRequest::default()).await;
    assert_eq!(kind(last), ProblemKind::Conflict);
}

#[tokio::test]
async fn a_renewal_gives_a_working_certificate_and_the_same_one_when_asked_again() {
    let (network, _, lisbon, _) = Network::with_peers().await;
    let data = network.data_of("lisbon-1");
    let pending = certs::identity::Pending::renew(&data, &lisbon.identity).unwrap();
    let request = RenewRequest { keys: pending.keys().clone() };
    let first = lisbon.client.renew(&request).await.unwrap();
    let again = lisbon.client.renew(&request).await.unwrap();
    assert_eq!(first, again);
    let check = async |identity: std::sync::Arc<certs::identity::Identity>| {
        network.client(&identity).whoami().await.map(drop)
    };
    let membership = &lisbon.identity.membership;
    let renewed = pending.install(membership, &first.certificates, check).await.unwrap();
    assert_ne!(renewed.serial, lisbon.identity.serial);
    // The old one still works for requests that are on their way.
    lisbon.client.whoami().await.unwrap();
    let agents = network.admin().identities(Some(Role::Agent)).await.unwrap();
    let shown = agents.iter().find(|agent| agent.name.as_str() == "lisbon-1").unwrap();
    assert_eq!(shown.serial.as_deref(), Some(renewed.serial.to_string().as_str()));
}
