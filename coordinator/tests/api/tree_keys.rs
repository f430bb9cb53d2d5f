//! Keys of private trees: given to who may read, when it may, and to nobody else.

use std::time::Duration;

use protocol::{
    error::ProblemKind,
    generation::{Epoch, Generation, Revision, Version},
    role::Role,
    v1::identities::RevokeRequest,
};

use crate::support::{DEFINITIONS, Network, Peer, kind, problem};

fn version(generation: u64) -> Version {
    Version { epoch: Epoch(1), generation: Generation(generation) }
}

/// `alpha` is private, and `lisbon` holds it.
async fn start() -> (Network, Peer, Peer, Peer) {
    let peers = Network::with_peers().await;
    peers.0.apply(&private()).await.unwrap();
    peers
}

fn private() -> String {
    DEFINITIONS.replace("path = \"alpha\"", "path = \"alpha\"\nprivate = true")
}

#[tokio::test]
async fn the_key_of_a_generation_is_for_its_publisher_and_for_agents_that_may_read_it() {
    let (_network, build, lisbon, oslo) = start().await;
    let alpha = "alpha".parse().unwrap();
    let first = build.client.tree_key(&alpha, Some(version(1))).await.unwrap();
    assert_eq!(kind(lisbon.client.tree_key(&alpha, None).await), ProblemKind::NotFound);
    build.state("alpha", 1, "one", None).await.unwrap();
    assert_eq!(lisbon.client.tree_key(&alpha, None).await.unwrap(), first);
    // Nothing that comes later can be opened by who has lost the right by then.
    let ahead = lisbon.client.tree_key(&alpha, Some(version(2))).await;
    assert_eq!(kind(ahead), ProblemKind::NotFound);
    let second = build.client.tree_key(&alpha, Some(version(2))).await.unwrap();
    build.state("alpha", 2, "two", Some("one")).await.unwrap();
    assert_eq!(lisbon.client.tree_key(&alpha, Some(version(2))).await.unwrap(), second);
    assert_eq!(lisbon.client.tree_key(&alpha, Some(version(1))).await.unwrap(), first);
    assert_eq!(first.names, second.names);
    assert_ne!(first.key, second.key, "each generation has its own");
    assert_eq!(kind(oslo.client.tree_key(&alpha, None).await), ProblemKind::Forbidden);
    let key = format!("{second:?}");
    assert!(!key.contains(&second.key.hex()), "{key}");
}

#[tokio::test]
async fn whoever_lost_the_right_to_a_tree_is_given_no_key_of_it() {
    let (network, build, lisbon, oslo) = start().await;
    let (alpha, beta) = ("alpha".parse().unwrap(), "beta".parse().unwrap());
    build.state("alpha", 1, "one", None).await.unwrap();
    build.state("beta", 1, "one", None).await.unwrap();
    lisbon.client.tree_key(&alpha, None).await.unwrap();
    // A tree that is not private has no key, and one that is not there looks the same.
    let refused = problem(oslo.client.tree_key(&beta, None).await);
    assert_eq!(refused.status, 403);
    let unknown = problem(oslo.client.tree_key(&"nowhere".parse().unwrap(), None).await);
    assert_eq!((unknown.status, unknown.kind), (refused.status, refused.kind));
    network.admin().tell_assignment(&"alpha@lisbon".parse().unwrap(), "disable").await.unwrap();
    assert_eq!(problem(lisbon.client.tree_key(&alpha, None).await).status, 403);
    network.admin().tell_assignment(&"alpha@lisbon".parse().unwrap(), "enable").await.unwrap();
    lisbon.client.tree_key(&alpha, None).await.unwrap();
    let ended =
        "[[grant]]\nsite = \"lisbon\"\ntree = \"alpha\"\nuntil = \"2020-01-01T00:00:00Z\"\n";
    network.apply(ended).await.unwrap();
    assert_eq!(problem(lisbon.client.tree_key(&alpha, None).await).status, 403);
    network.apply(&private()).await.unwrap();
    lisbon.client.tree_key(&alpha, None).await.unwrap();
    let name = "lisbon-1".parse().unwrap();
    network.admin().revoke(Role::Agent, &name, &RevokeRequest::default()).await.unwrap();
    lisbon.client.tree_key(&alpha, None).await.unwrap_err();
    let audit = network.audit().await;
    let made = audit.iter().filter(|entry| entry.what == "make-tree-secret").count();
    assert_eq!(made, 1, "{audit:?}");
}

#[tokio::test]
async fn private_is_for_trees_that_a_publisher_encrypts() {
    let network = Network::start().await;
    let stock = r#"
[[upstream]]
name = "stock"
kind = "rsyncd"
url = "rsync://192.0.2.1/"

[[source]]
name = "stock"
upstream = "stock"
path = "module"

[[tree]]
name = "stock"
source = "stock"
private = true
"#;
    let refused = problem(network.apply(stock).await);
    assert!(refused.to_string().contains("private is for trees of a publisher"), "{refused}");
}

#[tokio::test]
async fn a_secret_that_is_exchanged_gives_other_keys_and_other_names_to_the_same_readers() {
    let (network, build, lisbon, _) = start().await;
    let alpha = "alpha".parse().unwrap();
    build.state("alpha", 1, "one", None).await.unwrap();
    let before = lisbon.client.tree_key(&alpha, None).await.unwrap();
    let orders = || async {
        let orders = build.client.publisher_orders(Revision(0), Duration::ZERO).await.unwrap();
        let trees = orders.unwrap().trees;
        let order = trees.into_iter().find(|order| order.tree == alpha).unwrap();
        (order.secrets, order.publish_requests)
    };
    let asked = orders().await;
    network.admin().rotate_tree_secret(&alpha).await.unwrap();
    assert_eq!(orders().await, (asked.0 + 1, asked.1 + 1), "the publisher comes to it at once");
    let after = lisbon.client.tree_key(&alpha, None).await.unwrap();
    assert_ne!((&after.names, &after.key), (&before.names, &before.key));
    assert!(after.names != before.names && after.key != before.key);
    assert_eq!(build.client.tree_key(&alpha, Some(version(1))).await.unwrap(), after);
    // What is not private has none.
    let refused = network.admin().rotate_tree_secret(&"beta".parse().unwrap()).await;
    assert_eq!(kind(refused), ProblemKind::Conflict);
    let refused = network.admin().rotate_tree_secret(&"nowhere".parse().unwrap()).await;
    assert_eq!(kind(refused), ProblemKind::NotFound);
    let audit = network.audit().await;
    let exchanged = audit.iter().filter(|entry| entry.what == "rotate-tree-secret").count();
    assert_eq!(exchanged, 1, "{audit:?}");
}
