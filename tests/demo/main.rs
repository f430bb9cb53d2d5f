//! `make demo`: a whole mirror network on one machine, with real files, as a newcomer sees it.
//!
//! A coordinator, a publisher, a stock rsync daemon and two agents with different filters run as
//! real processes in a directory that goes away. Every tree is checked at the end by `rsync -n`
//! and by `sha256sum`, not by us; the exit status is 0 only if all of them are identical.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a program for a terminal; what it cannot do it says there"
)]

mod corpus;
mod table;

use std::{fs, path::Path};

use serde_json::Value;
use tests::{Rsyncd, Testbed, compare, daemon::Daemon, network::Publisher, programs::told};

/// What the site "porto" leaves out of the tree "release", beyond the tree's own rules.
const PORTO_RULES: &[&str] = &["- /docs/", "- *.md"];

fn main() {
    let testbed = Testbed::start();
    step("A coordinator runs, with a certificate authority and an embedded database of its own.");

    let corpus = corpus::prepare(&testbed.make_dir("corpus"));
    let upstream = testbed.make_dir("upstream");
    let release = upstream.join("release");
    corpus::replace(&corpus.old, &release);
    let stock = testbed.make_dir("stock");
    corpus::copy_share(&stock.join("share"));
    let rsyncd = Rsyncd::start(&testbed.path("rsyncd"), &[("stock", &stock)], "");
    step(&format!(
        "Upstreams: {} as a tree for our publisher; {} behind a stock rsync daemon.",
        corpus.title,
        corpus::SHARE
    ));

    testbed.apply(&definitions(&upstream, &rsyncd.url()));
    step("An admin defined 2 trees, 2 sites, and who holds what through which filter.");

    let publisher = testbed.enroll_publisher("build");
    let publishing = testbed.run_publisher(&publisher);
    let sites = [("lisbon-1", "lisbon"), ("porto-1", "porto")];
    let agents = sites.map(|(name, site)| testbed.enroll_agent(name, site));
    step("A publisher and two agents enrolled, each with a single-use invite and a certificate.");

    let mut table = table::Table::default();
    testbed.publish(&publisher, "release");
    let mut running: Vec<Daemon> = agents.iter().map(|agent| testbed.run_agent(agent)).collect();
    record(&testbed, &mut table, "first sync", "release", 1);
    record(&testbed, &mut table, "stock rsync", "share", 1);
    step("First sync done.");

    corpus::replace(&corpus.new, &release);
    testbed.publish(&publisher, "release");
    let updates = record(&testbed, &mut table, "update by pack", "release", 2);
    check_delta(&updates);
    step("The next release was published and arrived as a pack.");

    stop(&mut running);
    corpus::edit(&release);
    testbed.publish(&publisher, "release");
    remove_packs(&publisher);
    running.extend(agents.iter().map(|agent| testbed.run_agent(agent)));
    let fallbacks = record(&testbed, &mut table, "its pack removed", "release", 3);
    step(&format!(
        "A third generation lost its packs: it came by direct rsync, because {}.",
        reason(&fallbacks)
    ));

    testbed.ctl(&["revoke", "agent/porto-1", "--reason", "demonstration"]);
    stop(&mut running);
    let refused = agents[1].run_once();
    assert!(!refused.status.success(), "a revoked agent synced\n{}", told(&refused));
    let said = String::from_utf8_lossy(&refused.stderr);
    let said =
        said.lines().rev().find(|line| line.to_lowercase().contains("revoked")).unwrap_or_else(
            || panic!("a revoked agent was refused without saying so\n{}", told(&refused)),
        );
    step(&format!("The agent porto-1 was revoked. It says: {}", said.trim()));

    println!("\n{table}\n");
    compare::assert_same(&release, &agents[0].published("release"), &[]);
    compare::assert_same(&release, &agents[1].published("release"), PORTO_RULES);
    for agent in &agents {
        compare::assert_same(&stock.join("share"), &agent.published("share"), &[]);
    }
    assert!(publishing.stop().success(), "the publisher did not end in order");
    println!("All 4 mirrored trees are identical to their upstreams by rsync -n and by sha256sum.");
}

fn definitions(upstream: &Path, rsyncd: &str) -> String {
    let rules: Vec<String> = PORTO_RULES.iter().map(|rule| format!("{rule:?}")).collect();
    format!(
        r#"
[[upstream]]
name = "build"
kind = "publisher"

[[upstream]]
name = "stock"
kind = "rsyncd"
url = "{rsyncd}"

[[source]]
name = "releases"
upstream = "build"
path = {upstream:?}

[[source]]
name = "stock"
upstream = "stock"
path = "stock"

[[tree]]
name = "release"
source = "releases"
path = "release"
interval = "1h"

[[tree]]
name = "share"
source = "stock"
path = "share"
interval = "1h"

[[site]]
name = "lisbon"

[[site]]
name = "porto"

[[grant]]
site = "lisbon"
tree = "release"

[[grant]]
site = "lisbon"
tree = "share"

[[grant]]
site = "porto"
tree = "release"

[[grant]]
site = "porto"
tree = "share"

[[assignment]]
site = "lisbon"
tree = "release"
keep-withdrawn = "0s"

[[assignment]]
site = "lisbon"
tree = "share"
keep-withdrawn = "0s"

[[assignment]]
site = "porto"
tree = "release"
keep-withdrawn = "0s"
filter = [{}]

[[assignment]]
site = "porto"
tree = "share"
keep-withdrawn = "0s"
"#,
        rules.join(", ")
    )
}

/// Waits until both sites hold a generation, and puts the runs that brought it into the table.
fn record(
    testbed: &Testbed,
    table: &mut table::Table,
    what: &str,
    tree: &str,
    generation: u64,
) -> Vec<Value> {
    let runs: Vec<Value> = ["lisbon", "porto"]
        .iter()
        .map(|site| testbed.wait_for_generation(&format!("{tree}@{site}"), generation))
        .collect();
    runs.iter().for_each(|run| table.add(what, run));
    runs
}

/// The update has to have brought files as deltas, at less than a tenth of their size.
fn check_delta(runs: &[Value]) {
    let deltas = runs
        .iter()
        .flat_map(|run| run["encoders"].as_array().unwrap())
        .filter(|e| matches!(e["encoder"].as_str(), Some("patch" | "group" | "rsync")));
    let (content, payload) = deltas.fold((0, 0), |(content, payload), e| {
        let bytes = |key: &str| e[key].as_u64().unwrap();
        (content + bytes("content-bytes"), payload + bytes("payload-bytes"))
    });
    assert!(payload > 0 && payload < content / 10, "{payload} bytes of delta for {content}");
}

/// The reason why the pack was not taken, in the words of the report.
fn reason(runs: &[Value]) -> String {
    let reasons = runs.iter().flat_map(|run| run["not-taken"].as_array().unwrap());
    let mut packs = reasons.filter(|not_taken| not_taken["way"] == "pack");
    let first = packs.next().unwrap_or_else(|| panic!("no run says why not by pack: {runs:#?}"));
    let detail = first["detail"].as_str().unwrap_or_default();
    if detail.is_empty() { first["reason"].to_string() } else { detail.to_owned() }
}

fn remove_packs(publisher: &Publisher) {
    let packs = publisher.data.join("trees/release/packs");
    for entry in fs::read_dir(&packs).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
}

fn stop(agents: &mut Vec<Daemon>) {
    for agent in agents.drain(..) {
        let status = agent.stop();
        assert!(status.success(), "an agent did not end in order: {status}");
    }
}

fn step(text: &str) {
    println!("- {text}");
}
