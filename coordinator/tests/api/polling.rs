//! Long polls: who is woken, and that nothing is missed.

use std::time::{Duration, Instant};

use protocol::{generation::Revision, role::Role, v1::agent::AgentOrders};

use crate::support::{AT_ONCE, Network, Peer, SOON};

/// Begins to wait for something newer, and returns once the coordinator has the request.
async fn waiting(network: &Network, peer: &Peer) -> tokio::task::JoinHandle<Option<AgentOrders>> {
    let known = peer.orders().await.revision;
    let client = peer.client.clone();
    let open = network.coordinator().app().pictures_watched();
    let poll = tokio::spawn(async move { client.agent_orders(known, SOON).await.unwrap() });
    let began = Instant::now();
    while network.coordinator().app().pictures_watched() <= open {
        assert!(began.elapsed() < SOON, "the poll never arrived");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    poll
}

#[tokio::test]
async fn a_new_generation_wakes_those_who_hold_the_tree_and_no_others() {
    let (network, build, lisbon, oslo) = Network::with_peers().await;
    let at_lisbon = waiting(&network, &lisbon).await;
    let at_oslo = waiting(&network, &oslo).await;
    build.state("alpha", 1, "one", None).await.unwrap();
    let orders = at_lisbon.await.unwrap().expect("lisbon holds alpha");
    assert!(orders.assignments[0].target.is_some());
    assert!(!at_oslo.is_finished(), "oslo holds only beta");
    build.state("beta", 1, "one", None).await.unwrap();
    assert!(at_oslo.await.unwrap().is_some());
}

#[tokio::test]
async fn a_pack_wakes_nobody_before_the_generation_that_it_leads_to_is_there() {
    let (_network, build, lisbon, _) = Network::with_peers().await;
    build.state("alpha", 1, "one", None).await.unwrap();
    let known = lisbon.orders().await.revision;
    let offer = build.offer("alpha", Some("one"), "two").await;
    assert_eq!(lisbon.client.agent_orders(known, AT_ONCE).await.unwrap(), None);
    build.state("alpha", 2, "two", Some("one")).await.unwrap();
    let orders = lisbon.client.agent_orders(known, AT_ONCE).await.unwrap().expect("it is there");
    assert_eq!(orders.assignments[0].target.as_ref().unwrap().offers, [offer]);
    // One more, to what is current, is news at once.
    build.offer("alpha", None, "two").await;
    let orders = lisbon.client.agent_orders(orders.revision, AT_ONCE).await.unwrap();
    assert_eq!(orders.expect("a way more").assignments[0].target.as_ref().unwrap().offers.len(), 2);
}

#[tokio::test]
async fn a_changed_definition_wakes_only_those_whose_orders_differ() {
    let (network, _, lisbon, oslo) = Network::with_peers().await;
    let at_lisbon = waiting(&network, &lisbon).await;
    let at_oslo = waiting(&network, &oslo).await;
    let filter = "[[assignment]]\nsite = \"oslo\"\ntree = \"beta\"\nfilter = [\"- *.iso\"]\n";
    network.apply(filter).await.unwrap();
    let orders = at_oslo.await.unwrap().expect("its filter changed");
    assert!(format!("{:?}", orders.assignments[0].filter).contains("*.iso"));
    assert!(!at_lisbon.is_finished());
    // A site that nobody is at, and a tree that nobody holds, concern nobody.
    network.apply("[[site]]\nname = \"paris\"\n").await.unwrap();
    assert!(!at_lisbon.is_finished());
    network.admin().tell_assignment(&"beta@lisbon".parse().unwrap(), "sync").await.unwrap();
    let orders = at_lisbon.await.unwrap().expect("a run was asked for");
    assert_eq!(orders.assignments[1].sync_requests, 1);
}

#[tokio::test]
async fn whatever_a_site_is_given_is_told_to_its_agents() {
    let (network, _, lisbon, oslo) = Network::with_peers().await;
    let not_concerned = oslo.orders().await.revision;
    let mut known = lisbon.orders().await.revision;
    let given = [
        "default-rate = \"1MiB/s\"",
        "bandwidth = [{ when = \"00-24\", rate = \"256KiB/s\" }]",
        "budget = \"1GiB/month\"",
        "budget = \"2GiB/month\"",
        "timezone = \"Europe/Lisbon\"",
    ];
    let site = |line: &str| format!("[[site]]\nname = \"lisbon\"\n{line}\n");
    let tree = "[[tree]]\nname = \"alpha\"\nsource = \"releases\"\npath = \"alpha\"\n";
    let changes = given.map(site).into_iter().chain([format!("{tree}autonomous = true\n")]);
    for change in changes {
        network.apply(&change).await.unwrap();
        let news = lisbon.client.agent_orders(known, AT_ONCE).await.unwrap();
        known = news.unwrap_or_else(|| panic!("nobody was told of {change}")).revision;
    }
    assert_eq!(oslo.client.agent_orders(not_concerned, AT_ONCE).await.unwrap(), None);
    // Another agent at the site takes half of the line.
    network.peer(Role::Agent, "lisbon-2", Some("lisbon")).await;
    let news = lisbon.client.agent_orders(known, AT_ONCE).await.unwrap();
    assert_eq!(news.expect("the line is shared now").sharers, 2);
}

#[tokio::test]
async fn nothing_that_happens_between_two_polls_is_missed() {
    let (_network, build, lisbon, _) = Network::with_peers().await;
    let mut known = lisbon.orders().await;
    let mut parent: Option<String> = None;
    for number in 1..=20 {
        let content = format!("content {number}");
        build.state("alpha", number, &content, parent.as_deref()).await.unwrap();
        parent = Some(content);
        let news = lisbon.client.agent_orders(known.revision, AT_ONCE).await.unwrap();
        let news = news.expect("it changed between the polls");
        assert!(news.revision > known.revision);
        known = news;
        let nothing = lisbon.client.agent_orders(known.revision, AT_ONCE).await.unwrap();
        assert_eq!(nothing, None);
    }
}

#[tokio::test]
async fn a_restart_loses_no_revision_and_wakes_nobody_without_need() {
    let (mut network, build, lisbon, _) = Network::with_peers().await;
    build.state("alpha", 1, "one", None).await.unwrap();
    let known = lisbon.orders().await.revision;
    network.stop().await;
    network.restart().await;
    let lisbon = network.client(&lisbon.identity);
    assert_eq!(lisbon.agent_orders(known, AT_ONCE).await.unwrap(), None);
    assert!(lisbon.agent_orders(Revision(0), AT_ONCE).await.unwrap().is_some());
    // Whoever knows more than the database was served by one that is lost: answered at once.
    let ahead = Revision(known.0 + 1000);
    assert!(lisbon.agent_orders(ahead, SOON).await.unwrap().is_some());
}

#[tokio::test]
async fn a_stop_ends_the_polls_at_once() {
    let (mut network, _, lisbon, _) = Network::with_peers().await;
    let poll = waiting(&network, &lisbon).await;
    let began = Instant::now();
    network.stop().await;
    assert_eq!(poll.await.unwrap(), None);
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_publisher_is_woken_when_a_scan_is_asked_for() {
    let (network, build, ..) = Network::with_peers().await;
    let known = build.publisher_orders().await;
    let none = build.client.publisher_orders(known.revision, AT_ONCE).await.unwrap();
    assert_eq!(none, None);
    network.admin().request_publish(&"beta".parse().unwrap()).await.unwrap();
    let news = build.client.publisher_orders(known.revision, SOON).await.unwrap().unwrap();
    let requests: Vec<_> = news.trees.iter().map(|tree| tree.publish_requests).collect();
    assert_eq!(requests, [0, 1, 0]);
}
