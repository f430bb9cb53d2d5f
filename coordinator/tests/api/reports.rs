//! Runs, receipts and what they tell others.

use jiff::Timestamp;
use protocol::{
    error::ProblemKind,
    generation::{Epoch, Generation, Version},
    role::Role,
    statement::Receipt,
    v1::{
        agent::{Changes, RunBegun, RunKind, RunReport, RunResult},
        identities::RevokeRequest,
    },
};
use uuid::Uuid;

use crate::support::{AT_ONCE, Network, Peer, digest, kind};

fn version(number: u64) -> Version {
    Version { epoch: Epoch(1), generation: Generation(number) }
}

fn receipt(peer: &Peer, tree: &str, site: &str, content: &str) -> Receipt {
    Receipt {
        agent: peer.identity.membership.name.clone(),
        site: site.parse().unwrap(),
        tree: tree.parse().unwrap(),
        version: version(1),
        manifest: digest(content),
        filter: digest("filter"),
        observed: false,
        files: 10,
        bytes: 1000,
        applied: Timestamp::now(),
    }
}

fn report(assignment: &str) -> RunReport {
    let now = Timestamp::now();
    RunReport {
        id: Uuid::now_v7(),
        assignment: assignment.parse().unwrap(),
        kind: RunKind::Sync,
        started: now,
        ended: now,
        result: RunResult::Completed,
        from: None,
        to: Some(version(1)),
        changes: Changes::default(),
        ways: vec![],
        points: vec![],
        encoders: vec![],
        not_taken: vec![],
        switch: None,
        stats: None,
        foreseen: None,
        error: String::new(),
        notices: vec![],
        hold: None,
        checked: None,
        undelete: None,
        receipt: None,
        log: String::new(),
    }
}

#[tokio::test]
async fn a_receipt_shows_in_the_status_and_tells_the_publisher_what_is_held() {
    let (network, build, lisbon, oslo) = Network::with_peers().await;
    build.state("beta", 1, "one", None).await.unwrap();
    let known = build.publisher_orders().await.revision;
    let before = lisbon.orders().await.revision;
    for (peer, site) in [(&lisbon, "lisbon"), (&oslo, "oslo")] {
        let mut report = report(&format!("beta@{site}"));
        report.receipt = Some(peer.sign(&receipt(peer, "beta", site, "one")));
        peer.client.report_run(&report).await.unwrap();
        peer.client.report_run(&report).await.unwrap();
    }
    let orders = build.client.publisher_orders(known, AT_ONCE).await.unwrap().unwrap();
    let held = &orders.trees[1].held;
    assert_eq!((held[0].manifest, held[0].agents), (digest("one"), 2));
    // What others hold is no news to an agent.
    assert_eq!(lisbon.client.agent_orders(before, AT_ONCE).await.unwrap(), None);

    let status = network.admin().status().await.unwrap();
    let shown = status.assignments.iter().find(|s| s.name.to_string() == "beta@oslo").unwrap();
    assert_eq!((shown.holds, shown.target), (Some(version(1)), Some(version(1))));
    assert_eq!(shown.last_result, Some(RunResult::Completed));
    assert!(shown.last_success.is_some() && shown.last_seen.is_some());
    let runs = network.admin().runs("assignment=beta@oslo").await.unwrap().items;
    assert_eq!(runs.len(), 1, "reported twice, stored once");
    assert_eq!(runs[0].agent.as_str(), "oslo-1");
    assert_eq!(network.admin().runs("site=lisbon").await.unwrap().items.len(), 1);
    assert_eq!(network.admin().runs("tree=alpha").await.unwrap().items.len(), 0);
}

#[tokio::test]
async fn what_weighs_most_among_the_sites_is_named_first() {
    let (_network, build, lisbon, oslo) = Network::with_peers().await;
    build.state("beta", 1, "one", None).await.unwrap();
    for (peer, site, manifest, bytes) in
        [(&lisbon, "lisbon", "zero", 10), (&oslo, "oslo", "one", 1_000)]
    {
        let mut report = report(&format!("beta@{site}"));
        let receipt = Receipt { bytes, ..receipt(peer, "beta", site, manifest) };
        report.receipt = Some(peer.sign(&receipt));
        peer.client.report_run(&report).await.unwrap();
    }
    let held = build.publisher_orders().await.trees[1].held.clone();
    let held: Vec<_> = held.iter().map(|base| (base.manifest, base.agents, base.bytes)).collect();
    assert_eq!(held, [(digest("one"), 1, 1_000), (digest("zero"), 1, 10)]);
}

#[tokio::test]
async fn nobody_reports_for_another_site_and_nobody_signs_for_another_agent() {
    let (_network, _, lisbon, oslo) = Network::with_peers().await;
    let foreign = report("beta@oslo");
    assert_eq!(kind(lisbon.client.report_run(&foreign).await), ProblemKind::Forbidden);
    let mut forged = report("beta@lisbon");
    forged.receipt = Some(oslo.sign(&receipt(&lisbon, "beta", "lisbon", "one")));
    assert_eq!(kind(lisbon.client.report_run(&forged).await), ProblemKind::BadRequest);
    forged.receipt = Some(lisbon.sign(&receipt(&lisbon, "alpha", "lisbon", "one")));
    assert_eq!(kind(lisbon.client.report_run(&forged).await), ProblemKind::BadRequest);
}

#[tokio::test]
async fn a_failed_run_is_brought_to_attention_with_its_error() {
    let (network, _, lisbon, _) = Network::with_peers().await;
    let failed = RunReport {
        result: RunResult::Failed,
        error: "the disk is full".into(),
        ..report("alpha@lisbon")
    };
    lisbon.client.report_run(&failed).await.unwrap();
    let status = network.admin().status().await.unwrap();
    assert!(status.attention.iter().any(|text| text.contains("the disk is full")));
    lisbon.client.report_run(&report("alpha@lisbon")).await.unwrap();
    let status = network.admin().status().await.unwrap();
    assert!(!status.attention.iter().any(|text| text.contains("the disk is full")));
}

#[tokio::test]
async fn f57_f58_the_history_is_as_long_as_one_asks_and_only_real_success_is_success() {
    let (network, _, lisbon, _) = Network::with_peers().await;
    let status = || async {
        let status = network.admin().status().await.unwrap();
        status.assignments.into_iter().find(|s| s.name.to_string() == "alpha@lisbon").unwrap()
    };
    let mut success = None;
    let results = [
        (RunResult::Partial, false),
        (RunResult::Completed, true),
        (RunResult::Partial, false),
        (RunResult::CompletedDryRun, false),
        (RunResult::UpToDateDryRun, false),
        (RunResult::Failed, false),
        (RunResult::UpToDate, true),
        (RunResult::Disabled, false),
    ];
    let mut ids = Vec::new();
    for (result, is_success) in results {
        let run = RunReport { result, log: "said\n".into(), ..report("alpha@lisbon") };
        lisbon.client.report_run(&run).await.unwrap();
        ids.insert(0, run.id);
        // As exact as the database.
        let ended = run.ended.as_microsecond();
        success = if is_success { Some(ended) } else { success };
        let seen = status().await;
        assert_eq!(seen.last_success.map(|at| at.as_microsecond()), success, "{result:?}");
        assert_eq!(seen.last_result, Some(result));
    }
    let runs = |query: &'static str| {
        let admin = network.admin();
        async move { admin.runs(&format!("assignment=alpha@lisbon{query}")).await.unwrap() }
    };
    let page = runs("&limit=2").await;
    assert_eq!(page.items.iter().map(|run| run.report.id).collect::<Vec<_>>(), ids[..2]);
    assert!(page.next.is_some(), "there are more");
    assert!(page.items.iter().all(|run| run.report.log.is_empty()), "the log is asked for apart");
    let none = runs("&limit=0").await;
    assert_eq!((none.items.len(), none.next), (0, None));
    assert_eq!(runs("").await.items.len(), results.len());
}

#[tokio::test]
async fn f62_a_run_that_goes_on_is_shown_until_its_report_is_here() {
    let (network, _, lisbon, _) = Network::with_peers().await;
    let run = report("alpha@lisbon");
    let begun =
        RunBegun { id: run.id, assignment: run.assignment.clone(), started: run.started, to: None };
    lisbon.client.report_begun(&begun).await.unwrap();
    let running = || async {
        let status = network.admin().status().await.unwrap();
        let all = status.assignments.into_iter().filter(|status| status.running.is_some());
        all.map(|status| status.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(running().await, ["alpha@lisbon"]);
    lisbon.client.report_run(&run).await.unwrap();
    assert_eq!(running().await, [""; 0]);
    // What comes after the report is not told.
    lisbon.client.report_begun(&begun).await.unwrap();
    assert_eq!(running().await, [""; 0]);
}

#[tokio::test]
async fn f79_a_failing_run_and_a_site_without_an_agent_are_lines_of_the_status_and_break_nothing() {
    let (network, _, lisbon, _) = Network::with_peers().await;
    let more = "[[site]]\nname = \"faro\"\n[[grant]]\nsite = \"faro\"\ntree = \"gamma\"\n\
                [[assignment]]\nsite = \"faro\"\ntree = \"gamma\"\n";
    network.apply(more).await.unwrap();
    let error = "an error that is long, \u{1b}[2J and of several\nlines".to_owned();
    let failed = RunReport { result: RunResult::Failed, error, ..report("alpha@lisbon") };
    lisbon.client.report_run(&failed).await.unwrap();
    lisbon.client.report_run(&report("beta@lisbon")).await.unwrap();
    let (gone, request) = ("oslo-1".parse().unwrap(), RevokeRequest { reason: "gone".into() });
    network.admin().revoke(Role::Agent, &gone, &request).await.unwrap();
    let status = network.admin().status().await.unwrap();
    let lines = status.assignments.iter().map(|of| {
        (of.name.to_string(), of.agent.as_ref().map(ToString::to_string), of.last_result)
    });
    let lisbon = Some("lisbon-1".to_owned());
    let expected = [
        ("gamma@faro".to_owned(), None, None),
        ("alpha@lisbon".to_owned(), lisbon.clone(), Some(RunResult::Failed)),
        ("beta@lisbon".to_owned(), lisbon, Some(RunResult::Completed)),
        ("beta@oslo".to_owned(), None, None),
    ];
    assert_eq!(lines.collect::<Vec<_>>(), expected);
}
