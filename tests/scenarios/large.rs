//! What a large tree takes: in proportion to its entries, and little for each.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use tests::{
    PATIENCE, Rsyncd, Testbed, compare,
    fixture::{OneTree, mirrored, write},
    network::Agent,
    programs::succeed,
};

const SMALL: u64 = 4_000;
const LARGE: u64 = 24_000;
/// Of links there can be more: none of them has to be fetched. What two runs of an agent take by chance
/// differs by some megabytes, and what a list of so many entries takes is several times that.
const FEWER_LINKS: u64 = 2_000;
const MORE_LINKS: u64 = 34_000;
/// Bytes for each further entry, half as much again as was measured: of an agent mostly what it knows of
/// contents while it plans, which does not grow beyond 100,000 of them, and the index of a pack.
const AGENT: u64 = 600;
/// Of a publisher what it found, what it has read, and two records of that.
const PUBLISHER: u64 = 950;
/// Of an agent that compares what a stock daemon lists, or versions, with what it holds, and changes next
/// to nothing of it: twice what was measured at most. One that holds them takes 388 and 720.
const COMPARED: u64 = 250;

/// Peaks of the agent and the publisher around a first sync, in bytes.
fn peaks(files: u64) -> [u64; 2] {
    let testbed = Testbed::start();
    let tree = testbed.make_dir("upstream/tree");
    let file = |n: u64| tree.join(format!("d{:02}/package-{n:07}.meta", n % 50));
    (0..files).for_each(|n| write(&file(n), n.to_string()));
    let net = OneTree::start_in(testbed, "initial-pack = true", "");
    net.publish();
    let agent = net.testbed.run_agent(&net.agent);
    wait_for(&net.testbed, 1);
    [agent.pid(), net.publishing.pid()].map(peak)
}

/// Longer than others wait: many files are written.
fn wait_for(testbed: &Testbed, generation: u64) {
    let deadline = Instant::now() + 5 * PATIENCE;
    let has_come = |run: &serde_json::Value| {
        run["to"]["generation"] == generation && run["result"] == "SYNC_COMPLETED"
    };
    while !testbed.runs("tree@site").iter().any(has_come) {
        assert!(Instant::now() < deadline, "generation {generation} does not come");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Largest resident set of a running process so far, in bytes.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

#[test]
fn each_entry_of_a_large_tree_takes_little_memory_of_either_side() {
    let (small, large) = (peaks(SMALL), peaks(LARGE));
    let per_entry = |at: usize| large[at].saturating_sub(small[at]) / (LARGE - SMALL);
    let (agent, publisher) = (per_entry(0), per_entry(1));
    eprintln!("{agent} and {publisher} bytes for each entry, of {small:?} and {large:?} in all");
    assert!(agent <= AGENT, "the agent takes {agent} bytes for each entry");
    assert!(publisher <= PUBLISHER, "the publisher takes {publisher} bytes for each entry");
}

/// The peak of an agent for a run in which one file changes, in bytes.
fn peak_of_update(testbed: &Testbed, agent: &Agent, change: impl FnOnce()) -> u64 {
    let first = testbed.run_agent(agent);
    wait_for(testbed, 1);
    drop(first);
    change();
    let agent = testbed.run_agent(agent);
    wait_for(testbed, 2);
    peak(agent.pid())
}

/// A tree of one file and so many symbolic links to it, in directories of these names by number.
fn links_to_one_file(tree: &Path, count: u64, dir: impl Fn(u64) -> String) {
    write(&tree.join(ONE_FILE), "first");
    for n in 0..count {
        let dir = tree.join(dir(n));
        fs::create_dir_all(&dir).unwrap();
        let up = "../".repeat(dir.strip_prefix(tree).unwrap().components().count() - 1);
        symlink(format!("{up}package.meta"), dir.join(format!("package-{n:07}.meta"))).unwrap();
    }
}

const ONE_FILE: &str = "v0/package.meta";

fn stock_peak(links: u64) -> u64 {
    let testbed = Testbed::start();
    let tree = testbed.make_dir("upstream/tree");
    links_to_one_file(&tree, links, |n| format!("v0/d{:02}", n % 50));
    let rsyncd = Rsyncd::start(&testbed.path("rsyncd"), &[("pub", &*testbed.path("upstream"))], "");
    let assignment = "keep-withdrawn = \"0s\"";
    testbed.apply(&mirrored(&rsyncd, "", "interval = \"15s\"", assignment));
    let agent = testbed.enroll_agent("agent", "site");
    let peak = peak_of_update(&testbed, &agent, || write(&tree.join(ONE_FILE), "changed"));
    compare::assert_same(&tree, &agent.published("tree"), &[]);
    peak
}

fn versions_peak(links: u64) -> u64 {
    let testbed = Testbed::start();
    let tree = testbed.make_dir("upstream/tree");
    links_to_one_file(&tree, links, |n| format!("v{}/d{:02}", n % 4, n % 50));
    let net = OneTree::start_in(testbed, "initial-pack = true\nlayout = \"versioned\"", "");
    net.publish();
    let peak = peak_of_update(&net.testbed, &net.agent, || {
        write(&tree.join(ONE_FILE), "changed");
        net.publish();
    });
    net.assert_same();
    peak
}

/// Compares the peaks of an agent for few and for many entries.
fn assert_grows_little(peak: impl Fn(u64) -> u64, (few, many): (u64, u64), most_bytes: u64) {
    let (small, large) = (peak(few), peak(many));
    let per_entry = large.saturating_sub(small) / (many - few);
    eprintln!("{per_entry} bytes for each entry, of {small} and {large} in all");
    assert!(per_entry <= most_bytes, "the agent takes {per_entry} bytes for each entry");
}

#[test]
fn what_a_stock_daemon_lists_is_not_held_in_memory() {
    assert_grows_little(stock_peak, (FEWER_LINKS, MORE_LINKS), COMPARED);
}

#[test]
fn versions_are_not_held_in_memory() {
    assert_grows_little(versions_peak, (FEWER_LINKS, MORE_LINKS), COMPARED);
}

/// Entries of a tree that lies at the site already: links, which are made fast.
const FEWER_ADOPTED: u64 = 10_000;
const FEW_ADOPTED: u64 = 60_000;
/// Bytes for each of them: what was measured, and what two runs of an agent differ by. One that holds
/// them takes 343 and 412.
const ADOPTED: u64 = 150;

/// Makes a tree of links, and a copy of it where an agent publishes.
fn lie_there(tree: &Path, links: u64, agent: &Agent) {
    links_to_one_file(tree, links, |n| format!("v0/d{:02}", n % 50));
    let mirror = agent.published("tree");
    fs::create_dir_all(mirror.parent().unwrap()).unwrap();
    succeed(Command::new("cp").arg("-a").arg(tree).arg(&mirror));
}

/// The peak of an agent that adopts such a tree, in bytes.
fn adopting_peak(testbed: &Testbed, agent: &Agent, tree: &Path) -> u64 {
    let adopting = testbed.run_agent(agent);
    wait_for(testbed, 1);
    let run = testbed.runs("tree@site").pop().unwrap();
    assert_eq!(run["kind"], "adopt", "{run}");
    compare::assert_same(tree, &agent.published("tree"), &[]);
    peak(adopting.pid())
}

#[test]
fn what_lies_at_a_site_already_is_not_held_in_memory_while_it_is_adopted() {
    let peak = |links| {
        let net = OneTree::start("", "");
        lie_there(&net.upstream, links, &net.agent);
        net.publish();
        adopting_peak(&net.testbed, &net.agent, &net.upstream)
    };
    assert_grows_little(peak, (FEWER_ADOPTED, FEW_ADOPTED), ADOPTED);
}

#[test]
fn nor_is_it_where_a_stock_daemon_has_the_tree() {
    let peak = |links| {
        let testbed = Testbed::start();
        let tree = testbed.make_dir("upstream/tree");
        let dir = testbed.path("rsyncd");
        let rsyncd = Rsyncd::start(&dir, &[("pub", &*testbed.path("upstream"))], "");
        testbed.apply(&mirrored(&rsyncd, "", "interval = \"1h\"", "keep-withdrawn = \"0s\""));
        let agent = testbed.enroll_agent("agent", "site");
        lie_there(&tree, links, &agent);
        adopting_peak(&testbed, &agent, &tree)
    };
    assert_grows_little(peak, (FEWER_ADOPTED, FEW_ADOPTED), ADOPTED);
}
