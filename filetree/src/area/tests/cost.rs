//! What a switch costs depends on what changes, never on how much there is.

use std::sync::Mutex;

use super::model::{Node, Site, Spec, manifest, stage, target};
use crate::{
    fs::{Counts, Fs, Op, memory::MemoryDisk},
    plan::View,
    switch::{SwitchOptions, SwitchReport},
};

fn spec(entries: usize, changed: usize, round: usize) -> Spec {
    let name = |n: usize| format!("d{:04}/f{:02}", n / 100, n % 100).into_bytes();
    let content = |n: usize| match n < changed {
        true => format!("{n} in {round}"),
        false => format!("{n}"),
    };
    (0..entries).map(|n| (name(n), Node::file(&content(n)))).collect()
}

/// What is counted is the same on every disk, and this one waits for nobody.
fn in_memory() -> Site {
    let mut site = Site::new();
    site.fs = Fs::with_backend(Box::<MemoryDisk>::default(), None);
    site
}

/// Brings the site to `spec`, and counts every operation from the staged content to the moment at
/// which the new generation is what readers see.
fn counted(site: &mut Site, spec: &Spec) -> (Counts, SwitchReport) {
    let want = manifest(spec);
    let mut area = site.open();
    let plan = area.plan(&site.have, View::AS_IS, &want, View::AS_IS).unwrap();
    stage(&area, &plan.all_needs(), spec).unwrap();
    area.staging().seal().unwrap();
    let before = site.fs.counters().snapshot();
    let after = Mutex::new(None);
    let switched = || *after.lock().unwrap() = Some(site.fs.counters().snapshot());
    let options = SwitchOptions { switched: &switched, ..SwitchOptions::new(site.now) };
    let report = area.switch(&plan, &target(site.generation + 1, &want), &options).unwrap();
    let done = after.into_inner().unwrap().unwrap().since(&before);
    drop(area);
    site.have = want;
    site.generation += 1;
    (done, report)
}

#[test]
fn ten_times_the_entries_cost_not_one_operation_more() {
    let [small, large] = [2_000, 20_000].map(|entries| {
        let mut site = in_memory();
        for round in 0..2 {
            site.now += 3600;
            counted(&mut site, &spec(entries, 300, round));
        }
        site.now += 3600;
        let (done, report) = counted(&mut site, &spec(entries, 300, 2));
        assert!(!report.fresh_twin);
        assert_eq!(report.changed_entries, 300);
        done
    });
    assert_eq!(small, large);
    assert_eq!(small.count(Op::Exchange), 1);
    // Each file is linked aside and moved into its place; three directories get their times.
    assert_eq!((small.count(Op::Link), small.count(Op::Rename) >= 300), (300, true));
    assert!(small.mutations() < 700, "{} changes", small.mutations());
}

#[test]
fn updates_that_come_faster_than_the_linger_link_no_new_twins_once_the_queue_is_filled() {
    let mut site = in_memory();
    let mut twins = Vec::new();
    for round in 0..60 {
        // About once a minute: now and then two trees are past their linger at once, or none is.
        site.now += 60 + [0, 9, -14, 3, -20, 25][round % 6];
        let (_, report) = counted(&mut site, &spec(200, 20, round));
        twins.push(report.fresh_twin);
    }
    assert!(twins[1..10].iter().all(|fresh| *fresh), "the linger is kept while it lasts");
    let late = twins[20..].iter().filter(|fresh| **fresh).count();
    assert_eq!(late, 0, "{late} twins after the queue was filled: {twins:?}");
    let waiting = |site: &Site| site.open().marks.trees.len();
    assert!(waiting(&site) <= 18, "{} trees wait", waiting(&site));
    site.now += 3600;
    counted(&mut site, &spec(200, 20, 60));
    assert!(waiting(&site) <= 3, "{} trees wait after a quiet hour", waiting(&site));
}
