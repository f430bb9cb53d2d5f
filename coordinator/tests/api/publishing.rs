//! Statements, offers and holds.

use jiff::{SignedDuration, Timestamp};
use protocol::{
    error::ProblemKind,
    generation::{Epoch, Generation},
    role::Role,
    statement::{GuardVerdict, Statement},
    v1::{
        definitions::HoldDecision,
        publisher::{Difference, HoldReport},
    },
};

use crate::support::{Network, Peer, digest, kind, problem, statement};

async fn announce(peer: &Peer, statement: &Statement) -> Result<(), protocol::client::Error> {
    let envelope = peer.sign(statement);
    peer.client.announce_statement(&statement.tree, &envelope).await.map(drop)
}

#[tokio::test]
async fn a_statement_is_taken_once_and_only_after_the_current_one() {
    let (network, build, ..) = Network::with_peers().await;
    let first = build.state("alpha", 1, "one", None).await.unwrap();
    // The same again, because the first answer may have been lost.
    let tree = "alpha".parse().unwrap();
    build.client.announce_statement(&tree, &first).await.unwrap();
    // A second publisher's machine, which has not heard of the first generation.
    let problem = problem(build.state("alpha", 1, "other", None).await);
    assert_eq!((problem.kind, problem.status), (ProblemKind::ParentMismatch, 409));
    assert!(problem.detail.contains(&digest("one").to_string()), "{}", problem.detail);
    build.state("alpha", 2, "two", Some("one")).await.unwrap();
    assert_eq!(
        kind(build.state("alpha", 2, "rival", Some("one")).await),
        ProblemKind::ParentMismatch
    );
    let page = network.admin().generations(Some(&tree)).await.unwrap();
    let numbers: Vec<_> = page.items.iter().map(|g| g.version.unwrap().generation.0).collect();
    assert_eq!(numbers, [2, 1]);
}

#[tokio::test]
async fn of_rivals_that_state_at_the_same_time_exactly_one_wins() {
    let (_network, build, ..) = Network::with_peers().await;
    let rivals = (0..8).map(|number| {
        let (client, tree) = (build.client.clone(), "alpha".parse().unwrap());
        let envelope = build.sign(&statement("alpha", 1, &format!("rival {number}"), None));
        tokio::spawn(async move { client.announce_statement(&tree, &envelope).await.is_ok() })
    });
    let mut won = 0;
    for rival in rivals.collect::<Vec<_>>() {
        won += usize::from(rival.await.unwrap());
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_statement_with_a_wrong_number_epoch_date_or_tree_is_refused() {
    let (_network, build, ..) = Network::with_peers().await;
    build.state("alpha", 1, "one", None).await.unwrap();
    let next = statement("alpha", 2, "two", Some("one"));
    let wrong = [
        Statement { generation: Generation(3), ..next.clone() },
        Statement { epoch: Epoch(2), ..next.clone() },
        Statement { expires: Timestamp::now() - SignedDuration::from_secs(1), ..next.clone() },
    ];
    for statement in &wrong {
        assert_eq!(kind(announce(&build, statement).await), ProblemKind::BadRequest);
    }
    let (beta, envelope) = ("beta".parse().unwrap(), build.sign(&next));
    let elsewhere = build.client.announce_statement(&beta, &envelope).await;
    assert_eq!(kind(elsewhere), ProblemKind::BadRequest);
    announce(&build, &next).await.unwrap();
}

#[tokio::test]
async fn only_the_trees_own_publisher_may_speak_for_it_and_only_with_its_registered_key() {
    let (network, build, ..) = Network::with_peers().await;
    let other = network.peer(Role::Publisher, "other", None).await;
    let first = statement("alpha", 1, "one", None);
    assert_eq!(kind(announce(&other, &first).await), ProblemKind::Forbidden);
    // Signed by someone else, sent by the right one.
    let forged = other.sign(&first);
    let refused = build.client.announce_statement(&first.tree, &forged).await;
    assert_eq!(kind(refused), ProblemKind::BadRequest);
    // A statement is no offer, whoever signed it.
    let swapped = build.client.announce_offer(&first.tree, &build.sign(&first)).await;
    assert_eq!(kind(swapped), ProblemKind::BadRequest);
    let nowhere = "nowhere".parse().unwrap();
    let refused = build.client.announce_statement(&nowhere, &build.sign(&first)).await;
    assert_eq!(kind(refused), ProblemKind::Forbidden);
}

#[tokio::test]
async fn a_held_manifest_is_published_only_after_an_admin_approved_exactly_it() {
    let (network, build, ..) = Network::with_peers().await;
    let tree = "alpha".parse().unwrap();
    build.state("alpha", 1, "one", None).await.unwrap();
    let hold = HoldReport {
        manifest: digest("two"),
        reason: "90 % of the files are gone".into(),
        removed_files: 9,
        removed_bytes: 900,
        since: Timestamp::now(),
        difference: Difference::default(),
        unseen: false,
    };
    build.client.report_hold(&tree, &hold).await.unwrap();
    build.client.report_hold(&tree, &hold).await.unwrap();
    let admin = network.admin();
    let held: Vec<_> = admin.generations(Some(&tree)).await.unwrap().items;
    let held: Vec<_> = held.iter().filter_map(|item| item.held.clone()).collect();
    assert_eq!(held, ["90 % of the files are gone"]);
    assert!(admin.status().await.unwrap().attention.iter().any(|text| text.contains("alpha")));

    let approved = Statement {
        guard: GuardVerdict {
            removed_files: 9,
            removed_bytes: 900,
            approved_by: Some("ann".parse().unwrap()),
        },
        ..statement("alpha", 2, "two", Some("one"))
    };
    assert_eq!(kind(announce(&build, &approved).await), ProblemKind::Forbidden);
    let other = HoldDecision { manifest: digest("something else") };
    assert_eq!(kind(admin.approve(&tree, &other).await), ProblemKind::NotFound);
    admin.approve(&tree, &HoldDecision { manifest: digest("two") }).await.unwrap();
    let orders = build.publisher_orders().await;
    assert_eq!(orders.trees[0].approved[0].manifest, digest("two"));
    announce(&build, &approved).await.unwrap();
    assert!(network.audit().await.iter().any(|e| e.what == "approve" && e.who == "admin/ann"));
}

#[tokio::test]
async fn a_rejected_manifest_cannot_be_published_at_all() {
    let (network, build, ..) = Network::with_peers().await;
    let tree = "alpha".parse().unwrap();
    let hold = HoldReport {
        manifest: digest("bad"),
        reason: "empty".into(),
        removed_files: 1,
        removed_bytes: 1,
        since: Timestamp::now(),
        difference: Difference::default(),
        unseen: false,
    };
    build.client.report_hold(&tree, &hold).await.unwrap();
    let decision = HoldDecision { manifest: digest("bad") };
    network.admin().reject(&tree, &decision).await.unwrap();
    assert_eq!(kind(build.state("alpha", 1, "bad", None).await), ProblemKind::Forbidden);
    build.state("alpha", 1, "good", None).await.unwrap();
}
