//! `make demo`: a whole mirror network on one machine, with real files, as a newcomer sees it.
//!
//! A coordinator, two publishers, a stock rsync daemon and two agents with different filters run as
//! real processes in a directory that goes away. One of the publishers is a hub: it publishes
//! further what an agent beside it brings from the stock daemon. Every tree is checked at the end by `rsync -n`
//! and by `sha256sum`, not by us; the exit status is 0 only if all of them are identical.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a program for a terminal; what it cannot do it says there"
)]

mod corpus;
mod table;

use std::{collections::BTreeSet, fs, path::Path};

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

    let sites = [("lisbon-1", "lisbon", 2), ("porto-1", "porto", 3)];
    let [lisbon, _] = sites.map(|(name, ..)| testbed.path(&format!("storage-{name}")));
    testbed.apply(&definitions(&upstream, &rsyncd.url(), &lisbon.join("pub")));
    step("An admin defined 3 trees, 2 sites, and who holds what through which filter.");

    let publisher = testbed.enroll_publisher("build");
    let publishing = testbed.run_publisher(&publisher);
    let agents = sites.map(|(name, site, last)| {
        let agent = testbed.enroll_agent(name, site);
        // An address of its own, by which the stock daemon's log tells one client from another.
        append(&agent.config, &format!("bind = \"127.0.0.{last}\"\n"));
        agent
    });
    let hub = testbed.enroll_publisher("hub");
    append(&hub.config, &format!("agent = {:?}\n", agents[0].data));
    step(
        "Two publishers and two agents enrolled, each with a single-use invite and a certificate.",
    );

    let mut table = table::Table::default();
    testbed.publish(&publisher, "release");
    let mut running: Vec<Daemon> = agents.iter().map(|agent| testbed.run_agent(agent)).collect();
    record(&testbed, &mut table, "first sync", &["release@lisbon", "release@porto"], 1);
    record(&testbed, &mut table, "stock rsync", &["share@lisbon"], 1);
    let publishing_further = testbed.run_publisher(&hub);
    record(&testbed, &mut table, "through the hub", &["share-further@porto"], 1);
    step("First sync done.");

    corpus::add_lines(&stock.join("share"));
    let asked = agents[0].command(&["sync", "share"]).output().unwrap();
    assert!(asked.status.success(), "{}", told(&asked));
    record(&testbed, &mut table, "stock rsync", &["share@lisbon"], 2);
    let further = record(&testbed, &mut table, "through the hub", &["share-further@porto"], 2);
    assert!(tests::network::bytes_by(&further[0], "pack") > 0, "not by pack: {further:#?}");
    let seen = clients(&rsyncd);
    assert_eq!(seen, ["127.0.0.2"], "the stock rsync daemon should see lisbon alone");
    step(&format!(
        "The stock rsync daemon saw one client ({}); porto got its tree, and the next update as a pack, from the hub at lisbon.",
        seen.join(", ")
    ));

    corpus::replace(&corpus.new, &release);
    testbed.publish(&publisher, "release");
    let releases = ["release@lisbon", "release@porto"];
    let updates = record(&testbed, &mut table, "update by pack", &releases, 2);
    check_delta(&updates);
    step("The next release was published and arrived as a pack.");

    stop(&mut running);
    corpus::edit(&release);
    testbed.publish(&publisher, "release");
    remove_packs(&publisher);
    running.extend(agents.iter().map(|agent| testbed.run_agent(agent)));
    let fallbacks = record(&testbed, &mut table, "its pack removed", &releases, 3);
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
    compare::assert_same(&stock.join("share"), &agents[0].published("share"), &[]);
    compare::assert_same(&stock.join("share"), &agents[1].published("share-further"), &[]);
    for publishing in [publishing, publishing_further] {
        assert!(publishing.stop().success(), "a publisher did not end in order");
    }
    println!("All 4 mirrored trees are identical to their upstreams by rsync -n and by sha256sum.");
}

fn append(file: &Path, line: &str) {
    let text = fs::read_to_string(file).unwrap();
    fs::write(file, text + line).unwrap();
}

/// Addresses of the agents that a stock daemon saw; this program itself asked whether it listens.
fn clients(rsyncd: &Rsyncd) -> Vec<String> {
    let log = rsyncd.log();
    let from = log.lines().filter_map(|line| line.split_once("connect from ")?.1.split_once('('));
    let addresses = from.filter_map(|(_, rest)| Some(rest.split_once(')')?.0.to_owned()));
    let others: BTreeSet<String> = addresses.filter(|address| address != "127.0.0.1").collect();
    others.into_iter().collect()
}

fn definitions(upstream: &Path, rsyncd: &str, lisbon: &Path) -> String {
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

[[upstream]]
name = "hub"
kind = "publisher"

[[source]]
name = "lisbon"
upstream = "hub"
path = {lisbon:?}

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

[[tree]]
name = "share-further"
source = "lisbon"
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
tree = "share-further"

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
tree = "share-further"
keep-withdrawn = "0s"
"#,
        rules.join(", ")
    )
}

/// Waits until assignments hold a generation, and puts the runs that brought it into the table.
fn record(
    testbed: &Testbed,
    table: &mut table::Table,
    what: &str,
    assignments: &[&str],
    generation: u64,
) -> Vec<Value> {
    let runs: Vec<Value> = assignments
        .iter()
        .map(|assignment| testbed.wait_for_generation(assignment, generation))
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
