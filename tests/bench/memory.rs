//! Resident memory of both daemons around one file of 2 GiB, and around a million small ones.

use std::{
    fs,
    io::Write,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use tests::{
    Testbed,
    fixture::{OneTree, noise, write},
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
    let figure = |what: &str, pid: u32, most: f64| Figure {
        what: format!("peak memory of the {what}, update of a file of 2 GiB"),
        ours: peak(pid),
        unit: "MiB",
        peer: None,
        most,
    };
    vec![figure("agent", agent.pid(), 128.0), figure("publisher", net.publishing.pid(), 512.0)]
}

/// A tree of a million files, of which a thousand change. `MIRRORNET_MEMORY_FILES` makes it smaller.
pub(crate) fn entries() -> Vec<Figure> {
    let wanted = std::env::var("MIRRORNET_MEMORY_FILES").ok();
    let files: u64 = wanted.map_or(1_000_000, |n| n.replace('_', "").parse().unwrap());
    let path = |n: u64| format!("d{:03}/package-{n:07}.meta", n % 1_000);
    // Nobody looks at it before it is complete.
    let testbed = Testbed::start();
    let tree = testbed.make_dir("upstream/tree");
    timed("writing the tree", || {
        (0..files).for_each(|n| write(&tree.join(path(n)), format!("{n}\n")));
    });
    let net = OneTree::start_in(testbed, "initial-pack = true", "");
    let figure = |who: &str, what: &str, pid: u32, most: f64| Figure {
        what: format!("peak memory of the {who}, {what}"),
        ours: peak(pid),
        unit: "MiB",
        peer: None,
        most,
    };
    timed("publishing it", || net.publish());
    let first = format!("{files} new files");
    let mut figures = vec![figure("publisher", &first, net.publishing.pid(), 512.0)];
    let agent = net.testbed.run_agent(&net.agent);
    timed("the first sync", || wait_for(&net, 1));
    figures.push(figure("agent", &first, agent.pid(), 128.0));
    drop(agent);
    let agent = net.testbed.run_agent(&net.agent);
    for n in 0..1_000 {
        let n = n * (files / 1_000 - 3);
        write(&net.upstream.join(path(n)), format!("changed {n}\n"));
    }
    timed("publishing the update", || net.publish());
    timed("the update", || wait_for(&net, 2));
    let update = format!("1,000 changes in {files} files");
    figures.push(figure("agent", &update, agent.pid(), 128.0));
    figures.push(figure("publisher", &update, net.publishing.pid(), 512.0));
    figures
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    println!("{what} took {:.1} s", start.elapsed().as_secs_f64());
    done
}

/// Waits until the site holds a generation, as long as a slow machine needs for a million files.
fn wait_for(net: &OneTree, generation: u64) {
    let deadline = Instant::now() + Duration::from_secs(3 * 3600);
    let is_it = |run: &serde_json::Value| {
        run["to"]["generation"] == generation && run["result"] == "SYNC_COMPLETED"
    };
    while !net.testbed.runs("tree@site").iter().any(is_it) {
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
