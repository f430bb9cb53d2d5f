//! A thousand changes in a tree of a million entries: from the staged content to what readers see.
//!
//! `MIRRORNET_SWITCH_ENTRIES` makes the tree smaller. How many operations it takes is asserted in
//! `filetree`, where they are counted; here it is the time.

use std::{sync::Arc, sync::Mutex, time::Instant};

use filetree::{
    area::{Area, Place, Target},
    fs::{Fs, Op},
    plan::View,
    switch::SwitchOptions,
};
use protocol::{
    digest::Digest,
    generation::{Epoch, Generation, Version},
    manifest::{Entry, EntryKind, Manifest, StoredManifest},
    path::TreePath,
};

use crate::figure::{Figure, median};

const CHANGES: usize = 1_000;
const IN_A_DIRECTORY: usize = 1_000;
/// Rounds that are hours apart.
const APART: u64 = 5;
/// Rounds that follow each other faster than retired trees are kept for readers.
const CLOSE: u64 = 8;
const TIME: i64 = 1_600_000_000_000_000_000;

/// The same thousand files, from one end of the tree to the other, change in each round. The others
/// have one of a thousand contents, so that the tree is made of links and is there in seconds: its
/// names and directories are what a switch has to do with.
fn content(n: usize, round: u64) -> String {
    match n.is_multiple_of(spread()) {
        true => format!("{n} {round}"),
        false => format!("{}", n % IN_A_DIRECTORY),
    }
}

fn entries() -> usize {
    let wanted = std::env::var("MIRRORNET_SWITCH_ENTRIES").ok();
    wanted.map_or(1_000_000, |n| n.replace('_', "").parse().unwrap())
}

fn spread() -> usize {
    (entries() / CHANGES).max(1)
}

/// In blocks, as an agent keeps it.
fn manifest(round: u64) -> Arc<StoredManifest> {
    let path = |text: String| TreePath::parse(text.as_bytes()).unwrap();
    let mut all = Vec::with_capacity(entries() + entries().div_ceil(IN_A_DIRECTORY));
    for n in 0..entries() {
        let dir = n / IN_A_DIRECTORY;
        if n.is_multiple_of(IN_A_DIRECTORY) {
            let path = path(format!("d{dir:04}"));
            all.push(Entry { path, mode: 0o755, mtime: TIME, kind: EntryKind::Dir });
        }
        let content = content(n, round);
        let (size, digest) = (content.len() as u64, Digest::of(content.as_bytes()));
        let kind = EntryKind::File { size, digest, link_group: None };
        // What did not change has the time that it had.
        let mtime = if n.is_multiple_of(spread()) { TIME + round as i64 } else { TIME };
        let path = path(format!("d{dir:04}/f{:03}", n % IN_A_DIRECTORY));
        all.push(Entry { path, mode: 0o644, mtime, kind });
    }
    Arc::new(StoredManifest::from(Manifest::new(all).unwrap()))
}

/// When a round's update comes. First hours apart, so that every retired tree is past its linger; then
/// every few minutes, so that several are kept for readers at a time.
fn at(round: u64) -> i64 {
    let (apart, close) = (round.min(APART), round.saturating_sub(APART));
    1_700_000_000 + apart as i64 * 3_600 + close as i64 * 360
}

/// One update; seconds from the staged content to what readers see, whether a twin had to be made, and
/// how many operations that took.
fn update(
    fs: &Fs,
    place: &Place,
    have: &StoredManifest,
    want: &Arc<StoredManifest>,
    round: u64,
) -> (f64, bool, u64) {
    let mut area = Area::open(fs, place.clone()).unwrap();
    let begin = Instant::now();
    let plan = area.plan(have, View::AS_IS, want, View::AS_IS).unwrap();
    println!("round {round}: planned in {:.3} s", begin.elapsed().as_secs_f64());
    for need in plan.needs() {
        let need = need.unwrap();
        let name = need.path.to_string();
        let number = |text: &str| text.parse::<usize>().unwrap();
        let n = number(&name[1..5]) * IN_A_DIRECTORY + number(&name[7..10]);
        let mut writer = area.staging().writer(&need).unwrap();
        writer.push(content(n, round).as_bytes()).unwrap();
        writer.finish().unwrap();
    }
    area.staging().seal().unwrap();
    let (begin, before) = (Instant::now(), fs.counters().snapshot());
    let after = Mutex::new(None);
    let switched = || {
        let seen = (begin.elapsed().as_secs_f64(), fs.counters().snapshot());
        *after.lock().unwrap() = Some(seen);
    };
    let options = SwitchOptions { switched: &switched, ..SwitchOptions::new(at(round)) };
    let version = Version { epoch: Epoch(1), generation: Generation(round) };
    let target = Target { version, manifest: want.digest(), note: String::new() };
    let report = area.switch(&plan, &target, &options).unwrap();
    let (seconds, counts) = after.into_inner().unwrap().unwrap();
    let done = counts.since(&before);
    let looks: u64 = [Op::OpenDir, Op::Stat, Op::ReadDir].iter().map(|op| done.count(*op)).sum();
    (seconds, report.fresh_twin, done.mutations() + looks)
}

pub(crate) fn run() -> Vec<Figure> {
    let dir = tempfile::tempdir().unwrap();
    let place = Place {
        publish: dir.path().join("pub"),
        work: dir.path().join("work"),
        name: "tree".into(),
        path: TreePath::parse(b"tree").unwrap(),
    };
    let fs = Fs::disk();
    let mut have = Arc::new(StoredManifest::empty());
    let (mut times, mut operations) = (Vec::new(), 0);
    for round in 1..=APART + CLOSE {
        let want = manifest(round);
        let (seconds, twin, done) = update(&fs, &place, &have, &want, round);
        println!(
            "round {round}: switched in {seconds:.3} s by {done} operations, fresh twin: {twin}"
        );
        have = want;
        if round > 2 && !twin {
            times.push(seconds);
            operations = operations.max(done);
        }
        // Once there are as many as are kept at a time, no tree has to be made anew.
        let is_settled = (3..=APART).contains(&round) || round > APART + CLOSE / 2;
        assert!(!is_settled || !twin, "round {round}: no retired tree was brought forward");
    }
    vec![
        Figure {
            what: format!("switch of {CHANGES} changes in a tree of {} entries", entries()),
            ours: median(times),
            unit: "s",
            peer: None,
            most: 1.0,
        },
        Figure {
            what: "operations on the disk for it, for each change in a directory of its own".into(),
            ours: operations as f64 / CHANGES as f64,
            unit: "",
            peer: None,
            most: 15.0,
        },
    ]
}
