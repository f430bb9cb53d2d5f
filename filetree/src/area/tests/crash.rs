//! Loss of power at every step, on the file system in memory.
//!
//! An update is stopped at a step, power is lost in one of many ways, and what a reader sees is
//! compared with the old and the new generation, byte by byte. Then recovery and a further run
//! must reach the new one. The variants with one step of the order left out must be caught, or a
//! green result would mean nothing.

use std::{path::Path, sync::Arc};

use super::{
    kill::{Scenario, contents, generation, scenario, update_with},
    model::{assert_same, manifest, read_on},
    *,
};
use crate::{
    fs::{
        FailPlan, Failure,
        memory::{Dice, MemoryDisk},
    },
    switch::KnownBad,
};

const ROOT: &str = "/volume";

fn on(disk: &MemoryDisk, plan: Option<Arc<FailPlan>>) -> Fs {
    Fs::with_backend(Box::new(disk.clone()), plan)
}

/// How many ways of losing power are tried: 1,000 for each test, or `MIRRORNET_CRASH_STATES`.
fn states() -> u64 {
    std::env::var("MIRRORNET_CRASH_STATES").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000)
}

fn prepared(scenario: Scenario) -> MemoryDisk {
    let disk = MemoryDisk::default();
    for number in 1..=scenario.before {
        update_with(&on(&disk, None), Path::new(ROOT), scenario, number, None).unwrap();
    }
    let fs = on(&disk, None);
    fs.create_root(Path::new(ROOT)).unwrap().sync_fs().unwrap();
    disk
}

/// What is wrong with what a reader sees, if anything is.
fn violation(disk: &MemoryDisk, scenario: Scenario, reported: bool) -> Option<String> {
    let fs = on(disk, None);
    let (old, new) = (scenario.before, scenario.before + 1);
    let live = Path::new(ROOT).join("pub/linux");
    let Ok(_) = fs.open_root(&live) else {
        let lost = old > 0 || reported;
        return lost.then(|| "nothing is published any more".to_owned());
    };
    let now = contents(&read_on(&fs, &live));
    let is = |number: u64| now == contents(&manifest(&generation(number)));
    if reported && !is(new) {
        return Some("success was reported, and the new generation is not there".to_owned());
    }
    if scenario.mode == WantedMode::InPlace {
        let (old, new) =
            (contents(&manifest(&generation(old))), contents(&manifest(&generation(new))));
        let whole = |(path, what): (&TreePath, &String)| {
            [old.get(path), new.get(path)].contains(&Some(what))
        };
        return now.iter().find(|entry| !whole(*entry)).map(|(path, _)| format!("{path} is torn"));
    }
    (!(is(new) || (old > 0 && is(old)))).then(|| "neither the old nor the new generation".into())
}

struct Explored {
    states: u64,
    violations: Vec<String>,
}

/// Stops an update at every step in turn and loses power in different ways, until enough states
/// were seen.
fn explore(name: &str, bad: Option<KnownBad>, states: u64) -> Explored {
    let scenario = scenario(name);
    let new = scenario.before + 1;
    let root = Path::new(ROOT);
    let start = prepared(scenario);
    let count = Arc::new(FailPlan::new(None, u64::MAX, Failure::Halt));
    update_with(&on(&start.fork(), Some(count.clone())), root, scenario, new, bad).unwrap();
    let steps = count.seen();
    let mut explored = Explored { states: 0, violations: Vec::new() };
    let mut seed = 0;
    'enough: while explored.states < states {
        // One more step than there are: power is lost after the run has ended.
        for step in 1..=steps + 1 {
            seed += 1;
            let mut dice = Dice::new(seed);
            let disk = start.fork();
            let plan = Arc::new(FailPlan::new(None, step, Failure::Halt));
            let run = update_with(&on(&disk, Some(plan)), root, scenario, new, bad);
            for _ in 0..4 {
                explored.states += 1;
                let mut crashed = disk.crash(&mut dice);
                let mut wrong = violation(&crashed, scenario, run.is_ok());
                if dice.below(3) == 0 {
                    // Power is lost once more on the way back.
                    let again = FailPlan::new(None, 1 + dice.below(steps), Failure::Halt);
                    let fs = on(&crashed, Some(Arc::new(again)));
                    let run = update_with(&fs, root, scenario, new, bad);
                    crashed = crashed.crash(&mut dice);
                    wrong = wrong.or(violation(&crashed, scenario, run.is_ok()));
                }
                let wrong = wrong.or_else(|| converge(&crashed, scenario));
                explored.violations.extend(
                    wrong.map(|what| format!("step {step} of {steps}, seed {seed}: {what}")),
                );
                if bad.is_some() && !explored.violations.is_empty() {
                    break 'enough;
                }
            }
        }
    }
    explored
}

/// Recovery and one more run reach the new generation, whatever a crash left.
fn converge(disk: &MemoryDisk, scenario: Scenario) -> Option<String> {
    let new = scenario.before + 1;
    let fs = on(disk, None);
    match update_with(&fs, Path::new(ROOT), scenario, new, None) {
        Err(error) => Some(format!("recovery failed: {error:?}")),
        Ok(_) => {
            let live = Path::new(ROOT).join("pub/linux");
            let reached = contents(&read_on(&fs, &live)) == contents(&manifest(&generation(new)));
            (!reached).then(|| "recovery did not reach the new generation".to_owned())
        }
    }
}

fn survives(name: &str) {
    let explored = explore(name, None, states());
    let first: Vec<_> = explored.violations.iter().take(5).collect();
    assert!(first.is_empty(), "{} of {}: {first:#?}", explored.violations.len(), explored.states);
}

#[test]
fn power_lost_anywhere_in_a_first_sync_harms_nothing() {
    survives("first");
}

#[test]
fn power_lost_anywhere_in_an_update_with_a_new_twin_harms_nothing() {
    survives("twin");
}

#[test]
fn power_lost_anywhere_in_an_update_with_a_retired_tree_harms_nothing() {
    survives("reused");
}

#[test]
fn power_lost_anywhere_in_place_tears_no_file() {
    survives("in-place");
}

#[test]
fn the_order_with_one_step_left_out_is_caught() {
    for bad in [KnownBad::NoSyncFs, KnownBad::NoParentSync, KnownBad::EarlyMark] {
        let explored = explore("reused", Some(bad), 4_000);
        assert!(!explored.violations.is_empty(), "{bad:?} passed {} states", explored.states);
    }
}

#[test]
fn a_disk_without_power_cuts_gives_the_same_tree_as_a_real_one() {
    let scenario = scenario("reused");
    let disk = prepared(scenario);
    let live = Path::new(ROOT).join("pub/linux");
    let tree = read_on(&on(&disk, None), &live);
    assert_same(&tree, &manifest(&generation(scenario.before)));
}
