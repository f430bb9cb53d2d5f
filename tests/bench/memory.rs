//! Resident memory of both daemons around one file of 2 GiB, and around a million small ones.

use std::{
    fs,
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tests::{
    Rsyncd, Testbed,
    fixture::{OneTree, mirrored, noise, write},
};

use crate::figure::Figure;

const SIZE: u64 = 2 << 30;
const PIECE: usize = 8 << 20;

pub(crate) fn run() -> Vec<Figure> {
    let net = OneTree::start("", "");
    let path = net.upstream.join("image.iso");
    let mut file = fs::File::create(&path).unwrap();
    for n in 0..SIZE / PIECE as u64 {
        file.write_all(&noise(n, PIECE)).unwrap();
    }
    net.publish();
    let agent = net.testbed.run_agent(&net.agent);
    net.testbed.wait_for_generation("tree@site", 1);
    for n in 0..64 {
        file.write_all_at(&noise(n + 10_000, 4096), n * (SIZE / 64) + 12_345).unwrap();
    }
    drop(file);
    net.publish();
    let run = net.testbed.wait_for_generation("tree@site", 2);
    net.assert_same();
    println!("{}", serde_json::to_string_pretty(&run["ways"]).unwrap());
    let update = "update of a file of 2 GiB";
    vec![
        figure("agent", update, agent.pid(), 128.0),
        figure("publisher", update, net.publishing.pid(), 512.0),
    ]
}

/// A tree of a million files, of which a thousand change. `MIRRORNET_MEMORY_FILES` makes it smaller.
pub(crate) fn entries() -> Vec<Figure> {
    let files = files(1_000_000);
    let (testbed, tree) = with_files(files, path_in_dirs);
    let net = OneTree::start_in(testbed, "initial-pack = true", "");
    timed("publishing it", || net.publish());
    let first = format!("{files} new files");
    let mut figures = vec![figure("publisher", &first, net.publishing.pid(), 512.0)];
    let agent = net.testbed.run_agent(&net.agent);
    timed("the first sync", || wait_for(&net.testbed, 1));
    figures.push(figure("agent", &first, agent.pid(), 128.0));
    drop(agent);
    let agent = net.testbed.run_agent(&net.agent);
    change_some(files, &tree, path_in_dirs);
    timed("publishing the update", || net.publish());
    timed("the update", || wait_for(&net.testbed, 2));
    let update = format!("1,000 changes in {files} files");
    figures.push(figure("agent", &update, agent.pid(), 128.0));
    figures.push(figure("publisher", &update, net.publishing.pid(), 512.0));
    figures
}

/// The same of an agent that mirrors a stock rsync daemon.
pub(crate) fn stock() -> Vec<Figure> {
    let files = files(1_000_000);
    let (testbed, tree) = with_files(files, path_in_dirs);
    let modules = [("pub", &*testbed.path("upstream"))];
    let rsyncd = Rsyncd::start(&testbed.path("rsyncd"), &modules, "");
    let assignment = "keep-withdrawn = \"0s\"";
    testbed.apply(&mirrored(&rsyncd, "", "interval = \"1m\"", assignment));
    let enrolled = testbed.enroll_agent("agent", "site");
    let agent = testbed.run_agent(&enrolled);
    timed("the first sync", || wait_for(&testbed, 1));
    let first = format!("{files} new files of a stock daemon");
    let mut figures = vec![figure("agent", &first, agent.pid(), 128.0)];
    drop(agent);
    change_some(files, &tree, path_in_dirs);
    let agent = testbed.run_agent(&enrolled);
    timed("the update", || wait_for(&testbed, 2));
    let update = format!("1,000 changes in {files} files of a stock daemon");
    figures.push(figure("agent", &update, agent.pid(), 128.0));
    figures
}

/// The same of an agent that holds a publisher's tree in versions.
pub(crate) fn versions() -> Vec<Figure> {
    let files = files(1_000_000);
    let (testbed, tree) = with_files(files, path_in_versions);
    let net = OneTree::start_in(testbed, "initial-pack = true\nlayout = \"versioned\"", "");
    timed("publishing it", || net.publish());
    let agent = net.testbed.run_agent(&net.agent);
    timed("the first sync", || wait_for(&net.testbed, 1));
    let first = format!("{files} new files in ten versions");
    let mut figures = vec![figure("agent", &first, agent.pid(), 128.0)];
    drop(agent);
    let agent = net.testbed.run_agent(&net.agent);
    change_some(files, &tree, path_in_versions);
    timed("publishing the update", || net.publish());
    timed("the update", || wait_for(&net.testbed, 2));
    let update = format!("1,000 changes in {files} files in ten versions");
    figures.push(figure("agent", &update, agent.pid(), 128.0));
    figures
}

fn files(usual: u64) -> u64 {
    let wanted = std::env::var("MIRRORNET_MEMORY_FILES").ok();
    wanted.map_or(usual, |n| n.replace('_', "").parse().unwrap())
}

fn path_in_dirs(n: u64) -> String {
    format!("d{:03}/package-{n:07}.meta", n % 1_000)
}

fn path_in_versions(n: u64) -> String {
    format!("v{}/d{:02}/package-{n:07}.meta", n % 10, n / 10 % 100)
}

/// A network with a tree at its upstream, which nobody looks at before it is complete.
fn with_files(files: u64, path: impl Fn(u64) -> String) -> (Testbed, PathBuf) {
    let testbed = Testbed::start();
    let tree = testbed.make_dir("upstream/tree");
    timed("writing the tree", || {
        (0..files).for_each(|n| write(&tree.join(path(n)), format!("{n}\n")));
    });
    (testbed, tree)
}

fn change_some(files: u64, tree: &Path, path: impl Fn(u64) -> String) {
    for n in (0..1_000).map(|n| n * (files / 1_000 - 3)) {
        write(&tree.join(path(n)), format!("changed {n}\n"));
    }
}

fn figure(who: &str, what: &str, pid: u32, most: f64) -> Figure {
    let what = format!("peak memory of the {who}, {what}");
    Figure { what, ours: peak(pid), unit: "MiB", peer: None, most }
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    println!("{what} took {:.1} s", start.elapsed().as_secs_f64());
    done
}

/// Waits until the site holds a generation, as long as a slow machine needs for a million files.
fn wait_for(testbed: &Testbed, generation: u64) {
    let deadline = Instant::now() + Duration::from_secs(3 * 3600);
    let is_it = |run: &serde_json::Value| {
        run["to"]["generation"] == generation && run["result"] == "SYNC_COMPLETED"
    };
    while !testbed.runs("tree@site").iter().any(is_it) {
        assert!(Instant::now() < deadline, "generation {generation} does not come");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Peak resident set of a running process, in MiB.
fn peak(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}
