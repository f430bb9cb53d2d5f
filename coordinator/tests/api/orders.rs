//! What peers are told: their own and nothing else.

use certs::{root::TrustedRoot, signing};
use jiff::{SignedDuration, Timestamp};
use protocol::{
    role::Role,
    statement::{Claim as _, Head},
    v1::{
        agent::{AgentOrders, Origin, Stopped},
        identities::RevokeRequest,
        publisher::Presence,
    },
};

use crate::support::{Network, Peer, digest};

fn names(orders: &AgentOrders) -> Vec<String> {
    orders.assignments.iter().map(|order| order.name.to_string()).collect()
}

fn head(peer: &Peer, orders: &AgentOrders) -> Head {
    let root = TrustedRoot::pin(&peer.identity.membership.root).unwrap();
    let (kind, max) = (Head::PAYLOAD_TYPE, Head::MAX_LEN);
    signing::verify::<Head>(&orders.head, kind, &root.root().head_keys, max).unwrap().content
}

#[tokio::test]
async fn an_agent_sees_its_own_assignments_and_trees_and_nothing_else() {
    let (_network, build, lisbon, oslo) = Network::with_peers().await;
    for tree in ["alpha", "beta", "gamma"] {
        build.state(tree, 1, tree, None).await.unwrap();
    }
    let (at_lisbon, at_oslo) = (lisbon.orders().await, oslo.orders().await);
    assert_eq!(names(&at_lisbon), ["alpha@lisbon", "beta@lisbon"]);
    assert_eq!(names(&at_oslo), ["beta@oslo"]);
    let trees = |head: Head| head.trees.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(trees(head(&lisbon, &at_lisbon)), ["alpha", "beta"]);
    assert_eq!(trees(head(&oslo, &at_oslo)), ["beta"]);
    let text = serde_json::to_string(&at_oslo).unwrap();
    for hidden in ["lisbon", "gamma", "alpha"] {
        assert!(!text.contains(hidden), "{hidden} in {text}");
    }
}

#[tokio::test]
async fn the_head_names_the_statement_and_lives_a_day() {
    let (_network, build, lisbon, _) = Network::with_peers().await;
    let statement = build.state("alpha", 1, "one", None).await.unwrap();
    let orders = lisbon.orders().await;
    let head = head(&lisbon, &orders);
    let place = &head.trees[&"alpha".parse().unwrap()];
    assert_eq!(place.statement, statement.payload_digest());
    assert_eq!(place.manifest, digest("one"));
    assert_eq!(head.expires.duration_since(head.issued), SignedDuration::from_hours(24));
    assert_eq!((head.revision, head.restore_epoch), (orders.revision, orders.restore_epoch));
    let alpha = &orders.assignments[0];
    assert_eq!(alpha.target.as_ref().unwrap().statement, statement);
    assert!(orders.assignments[1].target.is_none(), "beta has no generation yet");
}

#[tokio::test]
async fn the_publishers_address_reaches_the_agents_once_it_announced_itself() {
    let (_network, build, lisbon, _) = Network::with_peers().await;
    let origin = |orders: AgentOrders| match &orders.assignments[0].origin {
        Origin::Publisher(origin) => origin.clone(),
        other => panic!("{other:?}"),
    };
    let before = origin(lisbon.orders().await);
    assert_eq!(before.address, None);
    let presence = Presence {
        advertise: "build.example.org:8445".into(),
        version: "0.1.0".into(),
        rsync: Some("3.4.1".into()),
    };
    build.client.announce_presence(&presence).await.unwrap();
    let after = origin(lisbon.orders().await);
    assert_eq!(after.address.as_deref(), Some("build.example.org:8445"));
    let nonsense = Presence { advertise: "http://build/".into(), ..presence };
    assert!(build.client.announce_presence(&nonsense).await.is_err());
}

#[tokio::test]
async fn offers_that_lead_to_the_current_generation_come_with_it_and_others_do_not() {
    let (_network, build, lisbon, _) = Network::with_peers().await;
    build.state("alpha", 1, "one", None).await.unwrap();
    build.state("alpha", 2, "two", Some("one")).await.unwrap();
    build.state("alpha", 3, "three", Some("two")).await.unwrap();
    let from_nothing = build.offer("alpha", None, "three").await;
    let near = build.offer("alpha", Some("two"), "three").await;
    let far = build.offer("alpha", Some("one"), "two").await;
    build.offer("alpha", Some("three"), "one").await;
    build.offer("alpha", Some("two"), "elsewhere").await;
    let orders = lisbon.orders().await;
    let target = orders.assignments[0].target.clone().unwrap();
    assert_eq!(target.offers, [from_nothing, near, far]);
}

#[tokio::test]
async fn a_publisher_is_told_its_trees_and_who_may_read_them() {
    let (network, build, lisbon, oslo) = Network::with_peers().await;
    build.state("beta", 1, "one", None).await.unwrap();
    let orders = build.publisher_orders().await;
    let trees: Vec<_> = orders.trees.iter().map(|tree| tree.tree.to_string()).collect();
    assert_eq!(trees, ["alpha", "beta", "gamma"]);
    assert_eq!(orders.trees[1].path, "/srv/releases/beta");
    assert!(orders.trees[1].current.is_some() && orders.trees[0].current.is_none());
    let may_read = |peer: &Peer| {
        let serial = peer.identity.serial.to_string();
        let reader = orders.readers.iter().find(|reader| reader.serial == serial).unwrap();
        reader.trees.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(may_read(&lisbon), ["alpha", "beta"]);
    assert_eq!(may_read(&oslo), ["beta"]);

    let admin = network.admin();
    let name = "lisbon-1".parse().unwrap();
    admin.revoke(Role::Agent, &name, &RevokeRequest::default()).await.unwrap();
    admin.tell_assignment(&"beta@oslo".parse().unwrap(), "disable").await.unwrap();
    assert!(build.publisher_orders().await.readers.is_empty());
}

#[tokio::test]
async fn a_disabled_assignment_is_still_named_but_carries_no_content() {
    let (network, build, lisbon, _) = Network::with_peers().await;
    build.state("alpha", 1, "one", None).await.unwrap();
    let admin = network.admin();
    admin.tell_assignment(&"alpha@lisbon".parse().unwrap(), "disable").await.unwrap();
    let orders = lisbon.orders().await;
    assert_eq!(orders.assignments[0].stopped, Some(Stopped::Disabled));
    assert!(orders.assignments[0].target.is_none());
    assert!(head(&lisbon, &orders).trees.is_empty());
    admin.tell_assignment(&"alpha@lisbon".parse().unwrap(), "enable").await.unwrap();
    assert!(lisbon.orders().await.assignments[0].target.is_some());
}

#[tokio::test]
async fn a_grant_that_ends_stops_the_assignment_by_itself() {
    let (network, build, _, oslo) = Network::with_peers().await;
    build.state("beta", 1, "one", None).await.unwrap();
    let until = Timestamp::now() + SignedDuration::from_secs(3);
    let grant = format!("[[grant]]\nsite = \"oslo\"\ntree = \"beta\"\nuntil = \"{until}\"\n");
    network.apply(&grant).await.unwrap();
    let known = oslo.orders().await;
    assert_eq!(known.assignments[0].stopped, None);
    let orders = oslo.client.agent_orders(known.revision, crate::support::SOON).await.unwrap();
    let orders = orders.expect("woken by the end of the grant");
    assert_eq!(orders.assignments[0].stopped, Some(Stopped::NoGrant));
    assert!(build.publisher_orders().await.readers.iter().all(|r| r.site.as_str() != "oslo"));
}
