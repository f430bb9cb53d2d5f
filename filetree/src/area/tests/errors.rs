//! An error of the disk at every single operation, on the file system in memory: that it is full or
//! broken at each, and six others at every place in the code that asks for a change or a sync.
//!
//! After each: what is published is the old generation or the new one, the run says what is wrong
//! (or the failure was of something that it can do without), nobody panics, and the next run gets
//! to the new generation. A failed sync is treated as kernels do: what it should have written is
//! still read back, is called clean, and is gone after the next loss of power.

use std::{path::Path, sync::Arc};

use rustix::io::Errno;

use super::{
    crash::{ROOT, on, prepared},
    figures::{self, Figure},
    oracle::Oracle,
    scenario::{Failed, SCENARIOS, Scenario},
};
use crate::fs::{
    Counted, FailPlan, Failure, Fs, Op,
    memory::{Fate, MemoryDisk},
};

const EVERYWHERE: [Errno; 2] = [Errno::NOSPC, Errno::IO];
const AT_EACH_SITE: [Errno; 6] =
    [Errno::DQUOT, Errno::ROFS, Errno::MFILE, Errno::INTR, Errno::ACCESS, Errno::NOMEM];

fn failing(disk: &MemoryDisk, counted: Counted, nth: u64, failure: Failure) -> (Fs, Arc<FailPlan>) {
    let plan = Arc::new(FailPlan::counting(counted, nth, failure));
    (Fs::with_backend(Box::new(disk.clone()), Some(plan.clone())), plan)
}

/// How many operations of a choice the undisturbed update has.
fn steps(start: &MemoryDisk, scenario: Scenario, counted: &Counted) -> u64 {
    let disk = start.fork();
    let (fs, plan) = failing(&disk, counted.clone(), u64::MAX, Failure::Halt);
    scenario.update(&fs, Path::new(ROOT), scenario.after(), None).unwrap();
    plan.seen()
}

/// Fails the operations of a choice one after the other, each in an update of its own.
fn fail_each(
    scenario: Scenario,
    counted: &Counted,
    failure: Failure,
    stride: usize,
) -> (u64, Vec<String>) {
    let steps = (1..=steps(&prepared(scenario), scenario, counted)).step_by(stride);
    fail_at(scenario, steps.map(|nth| (counted.clone(), nth)), failure)
}

/// Fails the first operation of each site that asks for a change or a sync.
fn fail_sites(scenario: Scenario, failure: Failure) -> (u64, Vec<String>) {
    let noting = Arc::new(FailPlan::noting_sites());
    let fs = Fs::with_backend(Box::new(prepared(scenario)), Some(noting.clone()));
    scenario.update(&fs, Path::new(ROOT), scenario.after(), None).unwrap();
    let sites = noting.sites();
    assert!(sites.len() > 20, "only {} sites", sites.len());
    fail_at(scenario, sites.into_iter().map(|site| (Counted::Site(site), 1)), failure)
}

fn fail_at(
    scenario: Scenario,
    points: impl Iterator<Item = (Counted, u64)>,
    failure: Failure,
) -> (u64, Vec<String>) {
    let (start, oracle) = (prepared(scenario), Oracle::new(scenario));
    let root = Path::new(ROOT);
    let mut wrong = Vec::new();
    let mut ran = 0;
    for (counted, nth) in points {
        ran += 1;
        let disk = start.fork();
        let (fs, plan) = failing(&disk, counted.clone(), nth, failure);
        let run = scenario.update(&fs, root, scenario.after(), None);
        let mut found = oracle.violation(&disk.list(root).unwrap(), run.is_ok());
        if !plan.fired() {
            found = Some("the operation was not reached".to_owned());
        }
        if let Err(error) = &run {
            found = found.or_else(|| unclear(error));
        }
        let found = found.or_else(|| ends(&disk, scenario, &oracle));
        let name = scenario.name;
        wrong.extend(found.map(|what| format!("{name}, {failure:?} at {counted:?} {nth}: {what}")));
    }
    (ran, wrong)
}

/// A further run gets to the new generation.
fn ends(disk: &MemoryDisk, scenario: Scenario, oracle: &Oracle) -> Option<String> {
    match scenario.update(&on(disk), Path::new(ROOT), scenario.after(), None) {
        Err(error) => Some(format!("the next run failed: {error:?}")),
        Ok(_) => oracle.unfinished(&disk.list(Path::new(ROOT)).unwrap()),
    }
}

/// What an admin would miss in a message: what was tried, on what, and what the system said.
fn unclear(error: &Failed) -> Option<String> {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        said = format!("{said}: {error}");
        source = error.source();
    }
    let clear = said.contains("cannot ") && said.contains(ROOT) && said.contains("os error");
    (!clear).then(|| format!("the error is unclear: {said}"))
}

/// Fails every sync of an update in turn, lets the next run succeed, and loses power.
fn forget_each(scenario: Scenario) -> (u64, Vec<String>) {
    let (start, oracle) = (prepared(scenario), Oracle::new(scenario));
    let root = Path::new(ROOT);
    let mut wrong = Vec::new();
    for nth in 1.. {
        let disk = start.fork();
        disk.fail_sync(nth);
        let run = scenario.update(&on(&disk), root, scenario.after(), None);
        if disk.is_sync_failing() {
            return (nth - 1, wrong);
        }
        let mut found = oracle.violation(&disk.list(root).unwrap(), run.is_ok());
        found = found.or_else(|| ends(&disk, scenario, &oracle));
        disk.record();
        for moment in disk.moments() {
            let lost = moment.crash_with(|_| Fate::Lost);
            found = found.or_else(|| oracle.violation(&lost.list(root).unwrap(), true));
        }
        let name = scenario.name;
        wrong.extend(found.map(|what| format!("{name}, failed sync {nth}: {what}")));
    }
    (0, wrong)
}

fn conclude(what: &'static str, results: Vec<(u64, Vec<String>)>) {
    let ran = results.iter().map(|(ran, _)| ran).sum();
    let wrong: Vec<String> = results.into_iter().flat_map(|(_, wrong)| wrong).collect();
    figures::tell(&Figure { what, ran, bad: wrong.len() as u64 });
    assert!(wrong.is_empty(), "{} of {ran}: {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
}

#[test]
fn an_error_anywhere_leaves_a_whole_generation_and_a_way_on() {
    let full = figures::is_full();
    let scenarios: Vec<Scenario> =
        SCENARIOS.iter().filter(|scenario| full || !scenario.small).copied().collect();
    let rarely = if full { 1 } else { 41 };
    let writes = (Counted::Kind(Op::Write), Failure::ShortWrite, if full { 1 } else { 3 });
    let errno = |errno: Errno| Failure::Errno(errno.raw_os_error());
    let mut choices = vec![writes];
    for failure in EVERYWHERE.map(errno) {
        choices.push((Counted::Changes, failure, 1));
    }
    for failure in EVERYWHERE.into_iter().chain(AT_EACH_SITE).map(errno) {
        choices.push((Counted::Everything, failure, rarely));
    }
    if full {
        choices.extend(AT_EACH_SITE.map(|one| (Counted::Changes, errno(one), 1)));
    }
    let cases: Vec<_> = scenarios
        .iter()
        .flat_map(|scenario| choices.iter().map(move |choice| (*scenario, choice)))
        .collect();
    let mut results = figures::parallel(&cases, |(scenario, (counted, failure, stride))| {
        fail_each(*scenario, counted, *failure, *stride)
    });
    let at_sites: Vec<_> = scenarios
        .iter()
        .flat_map(|scenario| AT_EACH_SITE.map(|one| (*scenario, errno(one))))
        .collect();
    let at_sites =
        figures::parallel(&at_sites, |(scenario, failure)| fail_sites(*scenario, *failure));
    eprintln!("{} of them at each site in turn", at_sites.iter().map(|(ran, _)| ran).sum::<u64>());
    results.extend(at_sites);
    conclude("errors of the disk, one at each operation", results);
}

#[test]
fn a_failed_sync_is_believed() {
    let scenarios: Vec<Scenario> = SCENARIOS.to_vec();
    conclude(
        "failed syncs, then a run that succeeds, then loss of power",
        figures::parallel(&scenarios, |scenario| forget_each(*scenario)),
    );
}
