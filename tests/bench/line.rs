//! What a site far away pays: bytes and time over a line of 100 ms and 20 Mbit/s, beside rsync over
//! the same line in the same run.
//!
//! Bytes are IP bytes, both ways, that the line itself counts: handshakes, orders, receipts and all.
//! An update's time ends when a reader of the tree finds the new generation, as rsync's ends when
//! its last file is in place.
//!
//! Nothing is removed between two measurements: file systems without a journal look at each inode that
//! was freed within the last minutes before they make another, which makes files slow for whoever
//! comes next.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tests::{
    Line, Link, Rsyncd,
    fixture::{OneTree, write},
    link::Traffic,
    network::bytes_by,
    programs::{isolate, succeed},
    rsyncd::free_port,
};

use crate::{corpus, figure::Figure};

/// An update of a release, with connections open and from a cold start.
pub(crate) fn update() -> Vec<Figure> {
    let corpus = corpus::releases();
    let mut figures = Vec::new();
    let rsync_az = peer(&corpus.old, &corpus.new, &["-az"]);
    let rsync_a = peer(&corpus.old, &corpus.new, &["-a"]);
    println!("rsync -az: {:?}\nrsync -a: {:?}", rsync_az.cost, rsync_a.cost);
    let solid = solid_patch(&corpus.old, &corpus.new);
    println!("one solid zstd --patch-from -19: {} B, {:.1} s of CPU", solid.0, solid.1);

    let mut kept = Vec::new();
    for open in [true, false] {
        let link = Link::new(Line::THIN).unwrap();
        let net = OneTree::start_over(&link, GUARD, "");
        replace(&corpus.old, &net.upstream);
        net.publish();
        link.set_line(FAST);
        net.sync();
        link.set_line(Line::THIN);
        let agent = open.then(|| net.testbed.run_agent(&net.agent));
        if agent.is_some() {
            // What opens the connections, over the line that they are used over: what TCP learns of a
            // shorter one makes it repeat what is merely on its way.
            net.write("opened", "");
            net.publish();
            net.testbed.wait_for_generation("tree@site", 2);
        }
        replace(&corpus.new, &net.upstream);
        let cpu = cpu_seconds(net.publishing.pid());
        let switched = Switched::watch(net.agent.published("tree"));
        let (run, cost) = if open {
            let (run, traffic, _) = link.measure(|| {
                net.publish();
                net.testbed.wait_for_generation("tree@site", 3)
            });
            let announced = net.testbed.ctl_json(&["get", "generation", "tree@3"]);
            let from = announced[0]["created"].as_str().unwrap().parse().unwrap();
            (run, Cost { traffic, seconds: switched.seconds_since(from) })
        } else {
            net.publish();
            let began = Timestamp::now();
            let (_, traffic, took) = link.measure(|| net.agent.sync());
            println!("until the process ended: {took:?}");
            (net.last_run(), Cost { traffic, seconds: switched.seconds_since(began) })
        };
        let cpu = cpu_seconds(net.publishing.pid()) - cpu;
        net.assert_same();
        println!("{}: {cost:?}\n{:#}", kind(open), run["ways"]);
        let bytes = |what: &str, ours: u64, peer: (&'static str, u64), most| Figure {
            what: format!("release update, {what}"),
            ours: ours as f64,
            unit: "B",
            peer: Some((peer.0, peer.1 as f64)),
            most,
        };
        let az = ("rsync -az", rsync_az.traffic.bytes());
        if open {
            let payload = bytes_by(&run, "pack") + bytes_by(&run, "metadata");
            figures.push(bytes("payload and index", payload, az, 0.33));
            let zstd = ("zstd --patch-from -19", solid.0);
            figures.push(bytes("payload and index", payload, zstd, 1.0));
            figures.push(Figure {
                what: "release update, CPU of scanning and packing".into(),
                ours: cpu,
                unit: "s",
                peer: Some(("zstd --patch-from -19", solid.1)),
                most: 0.25,
            });
        }
        let on_the_wire = format!("on the wire, {}", kind(open));
        figures.push(bytes(&on_the_wire, cost.traffic.bytes(), az, 0.36));
        figures.push(Figure {
            what: format!("release update, time, {}", kind(open)),
            ours: cost.seconds,
            unit: "s",
            peer: Some(("rsync -az", rsync_az.seconds)),
            most: if open { 0.27 } else { 0.34 },
        });
        drop(agent);
        kept.push((net, link));
    }
    figures
}

/// A first sync of many small files.
pub(crate) fn first() -> Vec<Figure> {
    const FILES: usize = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    corpus::small_files(FILES, 128 << 10, &small);
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let theirs = peer(&empty, &small, &["-az"]);
    let link = Link::new(Line::THIN).unwrap();
    let net = OneTree::start_over(&link, "initial-pack = true", "");
    replace(&small, &net.upstream);
    net.publish();
    let (used, (_, traffic, took)) = share_used(&link, || link.measure(|| net.agent.sync()));
    net.assert_same();
    println!("rsync -az: {:?}\nours: {traffic:?} {took:?}", theirs.cost);
    println!("{:#}", net.last_run()["ways"]);
    let figure = |what: &str, unit, ours, peer, most| Figure {
        what: format!("first sync of {FILES} small files, {what}"),
        ours,
        unit,
        peer: Some(("rsync -az", peer)),
        most,
    };
    let bytes = traffic.bytes() as f64;
    vec![
        figure("on the wire", "B", bytes, theirs.traffic.bytes() as f64, 0.8),
        figure("time", "s", took.as_secs_f64(), theirs.seconds, 0.6),
        Figure {
            what: "time of that for which the line stood idle after the first second".into(),
            ours: 1.0 - used,
            unit: "",
            peer: None,
            most: 0.1,
        },
    ]
}

/// How much of the line `work` uses while content comes: from a second after it begins to come until all
/// but a hundredth of it is there.
fn share_used<T>(link: &Link, work: impl FnOnce() -> T) -> (f64, T) {
    const BEGUN_BYTES: u64 = 1 << 20;
    let done = AtomicBool::new(false);
    let (samples, result) = thread::scope(|scope| {
        let sampling = scope.spawn(|| {
            let (begin, before) = (Instant::now(), link.traffic().down_bytes);
            let mut samples = Vec::new();
            while !done.load(Ordering::Relaxed) {
                samples.push((begin.elapsed().as_secs_f64(), link.traffic().down_bytes - before));
                thread::sleep(Duration::from_millis(20));
            }
            samples
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        (sampling.join().unwrap(), result)
    });
    let all = samples.last().unwrap().1;
    let at =
        |is_meant: &dyn Fn(&(f64, u64)) -> bool| *samples.iter().find(|s| is_meant(s)).unwrap();
    let begun = at(&|sample| sample.1 > BEGUN_BYTES).0;
    let from = at(&|sample| sample.0 >= begun + 1.0);
    let to = at(&|sample| sample.1 >= all / 100 * 99);
    let most = Line::THIN.bits_per_second as f64 / 8.0 * (to.0 - from.0);
    ((to.1 - from.1) as f64 / most, result)
}

/// A fresh process that finds nothing changed in a large tree.
pub(crate) fn idle() -> Vec<Figure> {
    // Bytes and round trips are the same with fewer, where there is no time for so many.
    let files = std::env::var("MIRRORNET_IDLE_FILES").ok().and_then(|n| n.parse().ok());
    let files: u64 = files.unwrap_or(200_000);
    let link = Link::new(FAST).unwrap();
    let net = OneTree::start_over(&link, "initial-pack = true", "");
    for n in 0..files {
        write(&net.upstream.join(format!("d{:03}/f{n:06}", n % 1_000)), format!("{n}\n"));
    }
    net.publish();
    net.sync();
    let mut bytes = Vec::new();
    let mut timed = |line| {
        link.set_line(line);
        let mut seconds = Vec::new();
        for _ in 0..5 {
            let (_, traffic, took) = link.measure(|| net.agent.sync());
            seconds.push(took.as_secs_f64());
            bytes.push(traffic.bytes() as f64);
        }
        crate::figure::median(seconds)
    };
    // What is done on the spot takes as long on either line: what the longer one adds is waiting.
    let longer = Line { one_way: Line::THIN.one_way * 4, ..Line::THIN };
    let (took, took_longer) = (timed(Line::THIN), timed(longer));
    let added = (longer.one_way - Line::THIN.one_way).as_secs_f64() * 2.0;
    let round_trips = ((took_longer - took) / added).round();
    let theirs = peer(&net.upstream, &net.upstream, &["-az"]);
    println!("ours: {took} s, {took_longer} s, {bytes:?} B\nrsync -az: {:?}", theirs.cost);
    let wire = crate::figure::median(bytes);
    let plain = |what: &str, unit, ours, most| Figure {
        what: format!("nothing changed in {files} files, a fresh process, {what}"),
        ours,
        unit,
        peer: None,
        most,
    };
    vec![
        plain("on the wire", "B", wire, 10_000.0),
        plain("round trips", "", round_trips, 3.0),
        Figure {
            what: format!("nothing changed in {files} files, time"),
            ours: took,
            unit: "s",
            peer: Some(("rsync -az", theirs.seconds)),
            most: 0.1,
        },
    ]
}

/// Fast enough to prepare what is measured later.
const FAST: Line = Line {
    one_way: Duration::from_millis(1),
    bits_per_second: 2_000_000_000,
    queue: Duration::from_millis(200),
    loss: 0.0,
};

/// A release may replace whatever it likes.
const GUARD: &str = "guard = { max-delete-files = \"50%\", max-delete-bytes = \"50%\" }";

/// What something took.
#[derive(Debug)]
struct Cost {
    traffic: Traffic,
    seconds: f64,
}

/// What rsync took, and the copy that it made, to be removed when all is measured.
struct Peer {
    cost: Cost,
    _copy: tempfile::TempDir,
}

impl std::ops::Deref for Peer {
    type Target = Cost;

    fn deref(&self) -> &Cost {
        &self.cost
    }
}

/// What rsync needs over the same line, from a daemon.
fn peer(old: &Path, new: &Path, options: &[&str]) -> Peer {
    let link = Link::new(Line::THIN).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    replace(old, &copy);
    let daemon = dir.path().join("rsyncd");
    let rsyncd = Rsyncd::start_at(&link.origin(), free_port(), &daemon, &[("tree", new)], "");
    let mut rsync = Command::new("rsync");
    isolate(&mut rsync);
    rsync.args(options).arg("--delete").arg(format!("{}tree/", rsyncd.url())).arg(&copy);
    let (_, traffic, took) = link.measure(|| succeed(&mut link.site().run(&rsync)));
    Peer { cost: Cost { traffic, seconds: took.as_secs_f64() }, _copy: dir }
}

/// Bytes and CPU seconds of one patch between two archives of the trees.
pub(crate) fn solid_patch(old: &Path, new: &Path) -> (u64, f64) {
    let dir = tempfile::tempdir().unwrap();
    let tar = |name: &str, tree: &Path| -> PathBuf {
        let file = dir.path().join(name);
        let mut tar = Command::new("tar");
        tar.args(["--sort=name", "--owner=0", "--group=0", "-cf"]).arg(&file).arg("-C").arg(tree);
        succeed(tar.arg("."));
        file
    };
    let (from, to) = (tar("old.tar", old), tar("new.tar", new));
    let patch = dir.path().join("patch");
    let mut zstd = Command::new("bash");
    zstd.args([
        "-c",
        "TIMEFORMAT='%U %S'; time zstd -q -19 --long=28 --patch-from \"$0\" \"$1\" -o \"$2\"",
    ]);
    zstd.args([&from, &to, &patch]);
    let output = zstd.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let times = told.lines().last().unwrap().split_whitespace();
    let seconds = times.map(|time| time.parse::<f64>().unwrap()).sum();
    (fs::metadata(patch).unwrap().len(), seconds)
}

/// Makes `live` what `tree` is; files that are equal stay as they are.
fn replace(tree: &Path, live: &Path) {
    fs::create_dir_all(live).unwrap();
    let mut rsync = Command::new("rsync");
    isolate(&mut rsync);
    rsync.args(["-a", "--delete", "--checksum"]).arg(format!("{}/", tree.display())).arg(live);
    succeed(&mut rsync);
}

/// CPU time that a process has taken, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = |n: usize| fields[n].parse::<f64>().unwrap();
    // Linux counts in hundredths of a second wherever we run.
    (ticks(11) + ticks(12)) / 100.0
}

/// Looks at a tree as a reader does, until it is another one.
struct Switched(thread::JoinHandle<Timestamp>);

impl Switched {
    fn watch(tree: PathBuf) -> Self {
        let now = move || fs::metadata(&tree).map(|meta| meta.ino()).ok();
        let before = now();
        let most = Instant::now() + Duration::from_secs(600);
        Self(thread::spawn(move || {
            while now() == before {
                assert!(Instant::now() < most, "no reader sees the new generation");
                thread::sleep(Duration::from_millis(1));
            }
            Timestamp::now()
        }))
    }

    fn seconds_since(self, from: Timestamp) -> f64 {
        self.0.join().unwrap().duration_since(from).as_secs_f64()
    }
}

fn kind(open: bool) -> &'static str {
    if open { "connections open" } else { "cold" }
}
