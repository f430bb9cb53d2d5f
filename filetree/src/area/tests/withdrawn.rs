//! Removed paths stay readable for a while, and go when their time is up.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use protocol::manifest::Manifest;

use super::{
    Grace, Target,
    model::{Spec, manifest, place, stage, target, tree},
};
use crate::{
    area::Area,
    fs::{
        FailPlan, Failure, Fs,
        memory::{Dice, MemoryDisk, Seen},
    },
    plan::View,
    switch::{SwitchOptions, SwitchReport, WantedMode},
};

const KEEP: i64 = 900;
const ROOT: &str = "/srv";

/// A mirror on a disk in memory. It remembers nothing itself: what was applied is asked.
#[derive(Clone)]
struct Mirror {
    disk: MemoryDisk,
    mode: WantedMode,
    generations: Vec<Spec>,
}

impl Mirror {
    fn new(mode: WantedMode, generations: &[&[(&str, &str)]]) -> Self {
        let generations = generations.iter().map(|list| tree(list)).collect();
        Self { disk: MemoryDisk::default(), mode, generations }
    }

    fn wanted(&self, generation: usize) -> (Arc<Manifest>, Target) {
        let want = manifest(&self.generations[generation - 1]);
        let target = target(generation as u64, &want);
        (want, target)
    }

    fn try_sync(
        &self,
        plan: Option<Arc<FailPlan>>,
        generation: usize,
        now: i64,
    ) -> Result<SwitchReport, super::Error> {
        let fs = Fs::with_backend(Box::new(self.disk.clone()), plan);
        let mut area = Area::open(&fs, place(Path::new(ROOT)))?;
        let have = match area.applied() {
            Some(target) => self.wanted(target.version.generation.0 as usize).0,
            None => Arc::new(Manifest::empty()),
        };
        let (want, target) = self.wanted(generation);
        let grace = Some(Grace { now, keep: KEEP });
        let plan = area.plan_with_grace(&have, View::AS_IS, &want, View::AS_IS, grace)?;
        stage(&area, &plan.all_needs(), &self.generations[generation - 1])?;
        let options = SwitchOptions { mode: self.mode, ..SwitchOptions::new(now) };
        area.switch(&plan, &target, &options)
    }

    fn sync(&self, generation: usize, now: i64) -> SwitchReport {
        self.try_sync(None, generation, now).unwrap()
    }

    fn due(&self) -> Option<i64> {
        let fs = Fs::with_backend(Box::new(self.disk.clone()), None);
        Area::open(&fs, place(Path::new(ROOT))).unwrap().next_withdrawal()
    }

    /// Every file and symlink that a reader finds, with its content.
    fn readable(&self) -> BTreeSet<(String, String)> {
        let list = self.disk.list(&Path::new(ROOT).join("pub/linux")).unwrap_or_default();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let shown = list.iter().filter_map(|(path, seen)| match seen {
            Seen::File(content, ..) => Some((text(path), text(content))),
            Seen::Symlink(to) => Some((text(path), format!("-> {}", text(to)))),
            Seen::Dir(..) => None,
        });
        shown.collect()
    }
}

fn files(list: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    list.iter().map(|(path, content)| ((*path).into(), (*content).into())).collect()
}

const BOTH: [WantedMode; 2] = [WantedMode::Exchange, WantedMode::InPlace];

#[test]
fn a_removed_path_is_readable_until_its_time_is_up() {
    for mode in BOTH {
        let mirror = Mirror::new(
            mode,
            &[
                &[("a", "1"), ("old/pkg-1", "one"), ("old/l", "-> pkg-1"), ("x", "x")],
                &[("a", "2"), ("new/pkg-2", "two"), ("x", "x")],
                &[("a", "3"), ("new/pkg-2", "two")],
            ],
        );
        mirror.sync(1, 1_000);
        let report = mirror.sync(2, 2_000);
        assert_eq!((report.removed_entries, report.withdrawn_entries), (0, 3));
        let old = [("old/pkg-1", "one"), ("old/l", "-> pkg-1")];
        assert_eq!(
            mirror.readable(),
            files(&[&[("a", "2"), ("new/pkg-2", "two"), ("x", "x")], &old[..]].concat())
        );
        assert_eq!(mirror.due(), Some(2_000 + KEEP));
        // A later generation withdraws more; each goes at its own time.
        mirror.sync(3, 2_500);
        assert_eq!(
            mirror.readable(),
            files(&[&[("a", "3"), ("new/pkg-2", "two"), ("x", "x")], &old[..]].concat())
        );
        let report = mirror.sync(3, 2_000 + KEEP);
        assert_eq!((report.removed_entries, report.withdrawn_entries), (3, 1));
        assert_eq!(mirror.readable(), files(&[("a", "3"), ("new/pkg-2", "two"), ("x", "x")]));
        assert_eq!(mirror.due(), Some(2_500 + KEEP));
        mirror.sync(3, 2_500 + KEEP);
        assert_eq!(mirror.readable(), files(&[("a", "3"), ("new/pkg-2", "two")]));
        assert_eq!(mirror.due(), None);
    }
}

#[test]
fn what_only_removes_switches_nothing_until_its_time_is_up() {
    let mirror = Mirror::new(WantedMode::Exchange, &[&[("a", "1"), ("b", "2")], &[("a", "1")]]);
    mirror.sync(1, 1_000);
    let report = mirror.sync(2, 2_000);
    assert_eq!((report.mode, report.withdrawn_entries), (None, 1));
    assert_eq!((mirror.readable(), mirror.due()), (files(&[("a", "1"), ("b", "2")]), Some(2_900)));
    assert!(mirror.sync(2, 2_899).mode.is_none());
    assert!(mirror.sync(2, 2_900).mode.is_some());
    assert_eq!((mirror.readable(), mirror.due()), (files(&[("a", "1")]), None));
}

#[test]
fn what_comes_back_stays_and_what_has_no_place_goes_at_once() {
    for mode in BOTH {
        let mirror = Mirror::new(
            mode,
            &[
                &[("a", "1"), ("d/b", "2"), ("e/c", "3")],
                &[("a", "2"), ("d", "a file now")],
                &[("a", "2"), ("d", "a file now"), ("e/c", "3")],
            ],
        );
        mirror.sync(1, 1_000);
        mirror.sync(2, 2_000);
        let now = files(&[("a", "2"), ("d", "a file now"), ("e/c", "3")]);
        assert_eq!(mirror.readable(), now, "only e and e/c are withdrawn");
        mirror.sync(3, 2_100);
        mirror.sync(3, 5_000);
        assert_eq!((mirror.readable(), mirror.due()), (now, None));
    }
}

#[test]
fn a_loss_of_power_forgets_no_withdrawn_path_and_keeps_none_for_ever() {
    let before = files(&[("a", "1"), ("b", "2"), ("d/c", "3"), ("d/e", "5")]);
    let after = files(&[("a", "2"), ("b", "2"), ("d/c", "3"), ("d/e", "5"), ("n", "4")]);
    let end = files(&[("a", "2"), ("d/e", "5"), ("n", "4")]);
    let mut tried = 0;
    for mode in BOTH {
        let start = Mirror::new(
            mode,
            &[
                &[("a", "1"), ("b", "2"), ("d/c", "3"), ("d/e", "5")],
                &[("a", "2"), ("n", "4"), ("d/e", "5")],
            ],
        );
        start.sync(1, 1_000);
        // Power is lost while paths are withdrawn, and while withdrawn paths go.
        for expiring in [false, true] {
            let mut step = 0;
            loop {
                step += 1;
                let mirror = Mirror { disk: start.disk.fork(), ..start.clone() };
                if expiring {
                    mirror.sync(2, 2_000);
                }
                let now = if expiring { 2_000 + KEEP } else { 2_000 };
                let plan = Arc::new(FailPlan::new(None, step, Failure::Halt));
                let done = mirror.try_sync(Some(plan.clone()), 2, now);
                if !plan.fired() {
                    done.unwrap();
                    break;
                }
                for seed in 0..6 {
                    tried += 1;
                    let disk = mirror.disk.crash(&mut Dice::new(step * 64 + seed));
                    let mirror = Mirror { disk, ..mirror.clone() };
                    let at = format!("{mode:?}, expiring {expiring}, step {step}, seed {seed}");
                    let seen = mirror.readable();
                    if mode == WantedMode::Exchange {
                        let whole = if expiring { [&after, &end] } else { [&before, &after] };
                        assert!(whole.contains(&&seen), "{at}: {seen:?}");
                    }
                    mirror.sync(2, now);
                    let due = match expiring {
                        true => None,
                        false => Some(now + KEEP),
                    };
                    let wanted = if expiring { &end } else { &after };
                    assert_eq!((&mirror.readable(), mirror.due()), (wanted, due), "{at}");
                    mirror.sync(2, 9_000);
                    assert_eq!((&mirror.readable(), mirror.due()), (&end, None), "{at}");
                }
            }
        }
    }
    assert!(tried > 400, "{tried}");
}
