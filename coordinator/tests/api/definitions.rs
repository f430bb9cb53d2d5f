//! Applying, showing and removing definitions.

use protocol::{
    error::ProblemKind,
    v1::definitions::{Action, ApplyRequest, Kind},
};

use crate::support::{DEFINITIONS, Network, kind, problem, request};

#[tokio::test]
async fn what_is_applied_is_shown_and_applying_it_again_changes_nothing() {
    let network = Network::start().await;
    let first = network.apply(DEFINITIONS).await.unwrap();
    assert!(first.changes.iter().all(|change| change.action == Action::Add));
    let again = network.apply(DEFINITIONS).await.unwrap();
    assert_eq!((again.changes.len(), again.revision), (0, first.revision));
    let admin = network.admin();
    let trees = admin.definitions(Kind::Tree).await.unwrap();
    let names: Vec<_> = trees.iter().map(|tree| tree.name.as_str()).collect();
    assert_eq!(names, ["alpha", "beta", "gamma"]);
    assert_eq!(trees[0].revision, first.revision);
    let one = admin.definition(Kind::Assignment, "beta@oslo").await.unwrap();
    assert_eq!(one.spec["tree"], "beta");
    let effective = admin.effective(&"beta@oslo".parse().unwrap()).await.unwrap();
    assert!(effective.settings.iter().any(|setting| setting.key == "path"));
    assert_eq!(kind(admin.definition(Kind::Tree, "nowhere").await), ProblemKind::NotFound);
}

#[tokio::test]
async fn every_error_is_found_at_once_and_nothing_is_stored() {
    let network = Network::start().await;
    let text =
        "[[tree]]\nname = \"x\"\nsource = \"nowhere\"\n\n[[site]]\nname = \"y\"\nprefixx = \"\"\n";
    let problem = problem(network.apply(text).await);
    assert_eq!((problem.kind, problem.status), (ProblemKind::InvalidDefinition, 422));
    assert!(problem.errors.len() >= 2, "{:?}", problem.errors);
    assert!(problem.errors.iter().all(|e| e.file.as_deref() == Some("network.toml")));
    assert!(network.admin().definitions(Kind::Site).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_dry_run_says_what_would_change_and_changes_nothing() {
    let network = Network::start().await;
    let dry = ApplyRequest { dry_run: true, ..request(DEFINITIONS) };
    let result = network.admin().apply(&dry).await.unwrap();
    assert!(result.dry_run && !result.changes.is_empty());
    assert!(network.admin().definitions(Kind::Tree).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_others_refer_to_is_not_removed_and_pruning_removes_the_rest() {
    let network = Network::start().await;
    network.apply(DEFINITIONS).await.unwrap();
    let admin = network.admin();
    assert_eq!(
        kind(admin.delete_definition(Kind::Tree, "alpha").await),
        ProblemKind::InvalidDefinition
    );
    assert_eq!(kind(admin.delete_definition(Kind::Tree, "nowhere").await), ProblemKind::NotFound);
    admin.delete_definition(Kind::Tree, "gamma").await.unwrap();
    let (without_oslo, _) = DEFINITIONS.split_once("[[grant]]\nsite = \"oslo\"").unwrap();
    let prune = ApplyRequest { prune: true, ..request(without_oslo) };
    let result = admin.apply(&prune).await.unwrap();
    let removed: Vec<_> = result
        .changes
        .iter()
        .filter(|change| change.action == Action::Remove)
        .map(|change| format!("{} {}", change.kind.as_str(), change.name))
        .collect();
    assert!(removed.contains(&"assignment beta@oslo".to_owned()), "{removed:?}");
}

#[tokio::test]
async fn everything_survives_a_restart() {
    let (mut network, build, lisbon, _) = Network::with_peers().await;
    build.state("alpha", 1, "one", None).await.unwrap();
    let before = lisbon.orders().await;
    network.stop().await;
    network.restart().await;
    let client = network.client(&lisbon.identity);
    let after = client
        .agent_orders(protocol::generation::Revision(0), crate::support::AT_ONCE)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((before.revision, before.assignments), (after.revision, after.assignments));
}

#[tokio::test]
async fn an_apply_that_was_agreed_to_is_refused_when_the_state_has_moved_on() {
    let network = Network::start().await;
    let planned = network
        .admin()
        .apply(&ApplyRequest { dry_run: true, ..request(DEFINITIONS) })
        .await
        .unwrap();
    network.apply("[[site]]\nname = \"other\"\n").await.unwrap();
    let agreed =
        ApplyRequest { prune: true, if_revision: Some(planned.revision), ..request(DEFINITIONS) };
    assert_eq!(kind(network.admin().apply(&agreed).await), ProblemKind::Conflict);
    assert!(network.admin().definition(Kind::Site, "other").await.is_ok());
    assert!(network.admin().definitions(Kind::Tree).await.unwrap().is_empty());
}
