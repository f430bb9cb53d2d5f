//! Publishers that went on alone: what they pointed to is taken as it is, or refused and told.

use protocol::{
    digest::Digest,
    error::ProblemKind,
    generation::Generation,
    statement::{Basis, Parent, Statement},
    v1::events::EventKind,
};

use super::support::*;

const FREE: &str = "[[tree]]\nname = \"alpha\"\nsource = \"releases\"\npath = \"alpha\"\n";

/// A network whose tree `alpha` is autonomous and has a first generation, and the rules of its order.
async fn free() -> (Network, Peer, Digest) {
    let (network, build, ..) = Network::with_peers().await;
    network.apply(&format!("{FREE}autonomous = true\n")).await.unwrap();
    build.state("alpha", 1, "one", None).await.unwrap();
    let rules = rules(&build).await;
    (network, build, rules)
}

async fn rules(build: &Peer) -> Digest {
    let orders = build.publisher_orders().await;
    let order = orders.trees.into_iter().find(|order| order.tree.as_str() == "alpha").unwrap();
    order.rules.unwrap()
}

fn alone(number: u64, content: &str, parent: &str, rules: Digest) -> Statement {
    let statement = statement("alpha", number, content, Some(parent));
    let basis = Basis { rules, alone: Some(statement.created), above: None };
    Statement { basis: Some(basis), ..statement }
}

async fn announce(build: &Peer, statement: &Statement) -> Result<(), protocol::client::Error> {
    let envelope = build.sign(statement);
    build.client.announce_statement(&statement.tree, &envelope).await.map(drop)
}

async fn numbers(network: &Network) -> Vec<u64> {
    let page = network.admin().generations(Some(&"alpha".parse().unwrap())).await.unwrap();
    page.items.iter().map(|it| it.version.unwrap().generation.0).collect()
}

async fn refusals(network: &Network) -> Vec<String> {
    let events = network.admin().events(None, 100, AT_ONCE).await.unwrap();
    let of_kind = events.into_iter().filter(|event| event.kind == EventKind::GenerationRefused);
    of_kind.map(|event| event.text).collect()
}

#[tokio::test]
async fn what_a_publisher_pointed_to_alone_is_taken_in_order_and_again_without_effect() {
    let (network, build, rules) = free().await;
    let orders = build.publisher_orders().await;
    let free: Vec<bool> = orders.trees.iter().map(|order| order.autonomous).collect();
    assert_eq!(free, [true, false, false]);
    let (two, three) = (alone(2, "two", "one", rules), alone(3, "three", "two", rules));
    let (two, three) = (build.sign(&two), build.sign(&three));
    let tree = "alpha".parse().unwrap();
    for envelope in [&two, &three, &two, &three] {
        build.client.announce_statement(&tree, envelope).await.unwrap();
    }
    // One that was announced before the coordinator was gone, and pointed to after that.
    announce(&build, &statement("alpha", 4, "four", Some("three"))).await.unwrap();
    announce(&build, &alone(4, "four", "three", rules)).await.unwrap();
    assert_eq!(numbers(&network).await, [4, 3, 2, 1]);
    assert_eq!(refusals(&network).await, [""; 0]);
    announce(&build, &statement("alpha", 5, "five", Some("four"))).await.unwrap();
}

#[tokio::test]
async fn what_was_made_by_another_definition_is_refused_and_told_and_its_number_is_passed_over() {
    let (network, build, before) = free().await;
    let hides = format!("{FREE}autonomous = true\nlimit = [\"- /secret/\"]\n");
    network.apply(&hides).await.unwrap();
    let refused = announce(&build, &alone(2, "two", "one", before)).await;
    assert_eq!(kind(refused), ProblemKind::ParentMismatch);
    let told = refusals(&network).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("generation 1.2") && told[0].contains("definition"), "{told:?}");
    // By the new rules, and above what sites may have followed.
    let rules = rules(&build).await;
    assert_ne!(rules, before);
    let parent = Some(Parent { generation: Generation(1), manifest: digest("one") });
    let basis = |above| Some(Basis { rules, alone: None, above: Some(Generation(above)) });
    let next = Statement { parent, ..statement("alpha", 3, "three", None) };
    let wrong = [
        Statement { basis: None, ..next.clone() },
        Statement { basis: basis(3), ..next.clone() },
        Statement { basis: basis(1 << 40), generation: Generation((1 << 40) + 1), ..next.clone() },
    ];
    for statement in &wrong {
        assert_eq!(kind(announce(&build, statement).await), ProblemKind::BadRequest);
    }
    announce(&build, &Statement { basis: basis(2), ..next }).await.unwrap();
    assert_eq!(numbers(&network).await, [3, 1]);
    assert_eq!(refusals(&network).await.len(), 1, "only what was pointed to is told of");
}

#[tokio::test]
async fn a_tree_that_is_autonomous_no_longer_and_a_number_that_is_taken_are_refused_and_told() {
    let (network, build, rules) = free().await;
    announce(&build, &statement("alpha", 2, "rival", Some("one"))).await.unwrap();
    let refused = announce(&build, &alone(2, "two", "one", rules)).await;
    assert_eq!(kind(refused), ProblemKind::ParentMismatch);
    network.apply(FREE).await.unwrap();
    let refused = announce(&build, &alone(3, "three", "rival", rules)).await;
    assert_eq!(kind(refused), ProblemKind::Forbidden);
    let told = refusals(&network).await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(numbers(&network).await, [2, 1]);
}
