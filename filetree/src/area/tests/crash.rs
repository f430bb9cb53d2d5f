//! Loss of power at every step, on the file system in memory.
//!
//! An update is recorded with every moment at which power could be lost. Each moment is turned
//! into disks that a loss of power may leave, in many ways; what a reader sees on them is compared
//! with the old and the new generation, byte by byte, and recovery and a further run must reach
//! the new one, without fetching again what was durably staged. In every eighth state power is
//! lost once more on the way back. The variants with one step of the order left out must be
//! caught, or a green result would mean nothing.

use std::{cell::RefCell, path::Path};

use super::{
    figures::{self, Figure},
    oracle::Oracle,
    scenario::{SCENARIOS, Scenario, scenario},
};
use crate::{
    fs::{
        Fs,
        memory::{Dice, Fate, MemoryDisk, Moment},
    },
    switch::KnownBad,
};

pub(super) const ROOT: &str = "/volume";

/// Up to so many unsynced changes every subset of them is tried, in the small scenarios.
const ALL_SUBSETS: usize = 9;

pub(super) fn on(disk: &MemoryDisk) -> Fs {
    Fs::with_backend(Box::new(disk.clone()), None)
}

/// The disk on which an update begins.
pub(super) fn prepared(scenario: Scenario) -> MemoryDisk {
    let disk = MemoryDisk::default();
    on(&disk).create_root(Path::new(ROOT)).unwrap();
    scenario.prepare(&on(&disk), Path::new(ROOT));
    on(&disk).create_root(Path::new(ROOT)).unwrap().sync_fs().unwrap();
    disk
}

/// How many states are tried over all scenarios together.
fn states() -> u64 {
    figures::count("MIRRORNET_CRASH_STATES", 50_000)
}

/// An update with every moment of it.
struct Recorded {
    moments: Vec<Moment>,
    /// From which moment on so many contents were durably staged.
    sealed: Vec<(usize, usize)>,
    fetched: usize,
    reported: bool,
}

impl Recorded {
    fn of(disk: &MemoryDisk, scenario: Scenario, bad: Option<KnownBad>) -> Self {
        disk.record();
        let sealed = RefCell::new(Vec::new());
        let note = |count| sealed.borrow_mut().push((disk.recorded(), count));
        let run =
            scenario.update_counting(&on(disk), Path::new(ROOT), scenario.after(), bad, &note);
        if let Err(error) = &run {
            eprintln!("{}: {error:?}", scenario.name);
        }
        let (fetched, reported) = (run.as_ref().map_or(0, |(_, n)| *n), run.is_ok());
        Self { moments: disk.moments(), sealed: sealed.into_inner(), fetched, reported }
    }

    /// Contents that a disk must hold at a moment.
    fn sealed_at(&self, moment: usize) -> usize {
        let sealed = self.sealed.iter().filter(|(from, _)| *from <= moment);
        sealed.map(|(_, count)| *count).max().unwrap_or_default()
    }
}

struct Explorer {
    scenario: Scenario,
    oracle: Oracle,
    run: Recorded,
    states: u64,
    violations: Vec<String>,
}

impl Explorer {
    fn new(scenario: Scenario, bad: Option<KnownBad>) -> Self {
        let disk = prepared(scenario);
        let run = Recorded::of(&disk, scenario, bad);
        assert!(run.reported, "{} does not succeed undisturbed", scenario.name);
        let end = disk.list(Path::new(ROOT)).unwrap();
        let oracle = Oracle::new(scenario);
        assert_eq!(oracle.unfinished(&end), None, "{} undisturbed", scenario.name);
        Self { scenario, oracle, run, states: 0, violations: Vec::new() }
    }

    /// Judges one disk that a loss of power at `moment` left.
    fn judge(&mut self, moment: usize, disk: &MemoryDisk, dice: &mut Dice) {
        self.states += 1;
        let last = moment + 1 == self.run.moments.len();
        let found = self.wrong(moment, disk, last, dice);
        let name = self.scenario.name;
        let of = self.run.moments.len();
        self.violations
            .extend(found.map(|what| format!("{name}, moment {moment} of {of}: {what}")));
    }

    fn wrong(
        &self,
        moment: usize,
        disk: &MemoryDisk,
        reported: bool,
        dice: &mut Dice,
    ) -> Option<String> {
        let root = Path::new(ROOT);
        let listing = disk.list(root)?;
        if let Some(wrong) = self.oracle.violation(&listing, reported) {
            return Some(wrong);
        }
        let again = disk.fork();
        if dice.below(8) == 0 {
            // Power is lost once more on the way back.
            let run = Recorded::of(&again, self.scenario, None);
            let at = dice.below(run.moments.len() as u64) as usize;
            let disk = run.moments[at].crash(dice);
            let reported = reported || (run.reported && at + 1 == run.moments.len());
            let wrong = self.oracle.violation(&disk.list(root)?, reported);
            return wrong.or_else(|| self.converge(moment, &disk)).map(|w| format!("twice: {w}"));
        }
        self.converge(moment, &again)
    }

    /// Recovery and one more run reach the new generation, whatever a crash left.
    fn converge(&self, moment: usize, disk: &MemoryDisk) -> Option<String> {
        let root = Path::new(ROOT);
        match self.scenario.update(&on(disk), root, self.scenario.after(), None) {
            Err(error) => Some(format!("recovery failed: {error:?}")),
            Ok((_, fetched)) => {
                let most = self.run.fetched - self.run.sealed_at(moment);
                let twice = fetched > most;
                let twice = twice.then(|| format!("{fetched} contents fetched instead of {most}"));
                twice.or_else(|| self.oracle.unfinished(&disk.list(root)?))
            }
        }
    }

    /// Loses power in different ways at every moment in turn, until enough states were seen.
    fn sample(&mut self, states: u64, seed: u64) {
        let mut dice = Dice::new(seed);
        while self.states < states && self.violations.is_empty() {
            for moment in 0..self.run.moments.len() {
                for _ in 0..2 {
                    let disk = self.run.moments[moment].crash(&mut dice);
                    self.judge(moment, &disk, &mut dice);
                }
            }
        }
    }

    /// Loses power at every moment in every way that matters: with few unsynced changes every
    /// subset; else every beginning, whole or torn at its end, each of them with every single
    /// change missing, and every single change alone.
    fn exhaust(&mut self) {
        let mut dice = Dice::new(1);
        for moment in 0..self.run.moments.len() {
            let at = self.run.moments[moment].clone();
            let count = at.unsynced();
            let mut one = |fate: &dyn Fn(usize) -> Fate| {
                let disk = at.crash_with(fate);
                self.judge(moment, &disk, &mut dice);
            };
            let kept = |kept: bool| if kept { Fate::Kept } else { Fate::Lost };
            if count <= ALL_SUBSETS {
                for subset in 0..1_usize << count {
                    one(&|index| kept(subset >> index & 1 == 1));
                }
                continue;
            }
            for end in 0..=count {
                one(&|index| kept(index < end));
                if let Some(len) = end.checked_sub(1).and_then(|last| at.data_len(last)) {
                    let torn = |index| match index + 1 == end {
                        true => Fate::Torn(len / 2),
                        false => kept(index < end),
                    };
                    one(&torn);
                }
                one(&|index| kept(index == end));
                for missing in 0..end.saturating_sub(1) {
                    one(&|index| kept(index < end && index != missing));
                }
            }
        }
    }
}

#[test]
fn power_lost_anywhere_harms_nothing() {
    let sampled: Vec<Scenario> = SCENARIOS.iter().filter(|s| !s.small).copied().collect();
    let small: Vec<Scenario> = SCENARIOS.iter().filter(|s| s.small).copied().collect();
    let exhausted = figures::parallel(&small, |scenario| {
        let mut explorer = Explorer::new(*scenario, None);
        explorer.exhaust();
        (explorer.states, explorer.violations)
    });
    let done: u64 = exhausted.iter().map(|(states, _)| states).sum();
    let share = states().saturating_sub(done) / sampled.len() as u64 + 1;
    let rest = figures::parallel(&sampled, |scenario| {
        let mut explorer = Explorer::new(*scenario, None);
        explorer.sample(share, 1);
        (explorer.states, explorer.violations)
    });
    let (mut states, mut wrong) = (0, Vec::new());
    for (seen, violations) in exhausted.into_iter().chain(rest) {
        states += seen;
        wrong.extend(violations);
    }
    figures::tell(&Figure {
        what: "crash states in memory, recovery included",
        ran: states,
        bad: wrong.len() as u64,
    });
    eprintln!("{done} of them exhaust {} small trees", small.len());
    assert!(wrong.is_empty(), "{} of {states}: {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    assert!(states >= self::states(), "only {states} states");
}

#[test]
fn the_order_with_one_step_left_out_is_caught() {
    for name in ["reused", "linked-reused"] {
        for bad in [KnownBad::NoSyncFs, KnownBad::NoParentSync, KnownBad::EarlyMark] {
            let mut explorer = Explorer::new(scenario(name), Some(bad));
            explorer.sample(4_000, 1);
            let states = explorer.states;
            eprintln!("{name}, {bad:?}: caught after at most {states} states");
            assert!(!explorer.violations.is_empty(), "{name}: {bad:?} passed {states} states");
        }
    }
}

#[test]
fn a_disk_without_power_cuts_gives_the_same_tree_as_a_real_one() {
    let scenario = scenario("reused");
    let (disk, real) = (MemoryDisk::default(), tempfile::tempdir().unwrap());
    scenario.prepare(&on(&disk), Path::new(ROOT));
    scenario.prepare(&Fs::disk(), real.path());
    let below = |listing: super::oracle::Listing| -> super::oracle::Listing {
        listing.into_iter().filter(|(path, _)| path.starts_with(b"pub/linux/")).collect()
    };
    assert_eq!(below(disk.list(Path::new(ROOT)).unwrap()), below(super::oracle::list(real.path())));
}
