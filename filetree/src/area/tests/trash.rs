//! The trash: what comes into it, what goes, and what is brought back, whenever power is lost.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use super::{
    super::trash::{Batch, Cause, Ended, TrashLimits, Undeleted},
    model::{Node, Spec, manifest, path, place, stage, target, tree},
};
use crate::{
    area::Area,
    fs::{
        FailPlan, Failure, Fs,
        memory::{Dice, MemoryDisk, Seen},
    },
    plan::View,
    switch::{SwitchOptions, WantedMode},
};

const ROOT: &str = "/srv";
const BOTH: [WantedMode; 2] = [WantedMode::Exchange, WantedMode::InPlace];

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

    fn open(&self, plan: Option<Arc<FailPlan>>) -> Result<Area, super::Error> {
        let fs = Fs::with_backend(Box::new(self.disk.clone()), plan);
        Area::open(&fs, place(Path::new(ROOT)))
    }

    fn try_sync(
        &self,
        plan: Option<Arc<FailPlan>>,
        generation: usize,
        now: i64,
    ) -> Result<(), super::Error> {
        let mut area = self.open(plan)?;
        let wanted = |number: usize| manifest(&self.generations[number - 1]);
        let have = match area.applied() {
            Some(target) => wanted(target.version.generation.0 as usize),
            None => Arc::new(protocol::manifest::Manifest::empty()),
        };
        let want = wanted(generation);
        let plan = area.plan(&have, View::AS_IS, &want, View::AS_IS)?;
        stage(&area, &plan.all_needs(), &self.generations[generation - 1])?;
        let options =
            SwitchOptions { mode: self.mode, trash_removed: true, ..SwitchOptions::new(now) };
        area.switch(&plan, &target(generation as u64, &want), &options).map(drop)
    }

    fn sync(&self, generation: usize, now: i64) {
        self.try_sync(None, generation, now).unwrap();
    }

    fn files(&self, below: &str) -> BTreeSet<(String, String)> {
        let list = self.disk.list(&Path::new(ROOT).join(below)).unwrap_or_default();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let files = list.iter().filter_map(|(path, seen)| match seen {
            Seen::File(content, ..) => Some((text(path), text(content))),
            _ => None,
        });
        files.collect()
    }

    fn live(&self) -> BTreeSet<(String, String)> {
        self.files("pub/linux")
    }

    fn batches(&self) -> Vec<String> {
        let trash = self.open(None).unwrap().trash().unwrap();
        let batches = trash.map(|trash| trash.batches().unwrap()).unwrap_or_default();
        batches.iter().map(ToString::to_string).collect()
    }
}

fn files(list: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    list.iter().map(|(path, content)| ((*path).into(), (*content).into())).collect()
}

const FIRST: &[(&str, &str)] = &[("a", "1"), ("d/b", "two"), ("d/e/c", "three"), ("x", "x")];
const SECOND: &[(&str, &str)] = &[("a", "2"), ("n", "4")];

#[test]
fn names_of_batches_are_read_as_they_are_written() {
    for name in ["1700000000", "1700000000-ended", "1700000000-removed-12", "-5-ended"] {
        let read: Result<Batch, _> = name.parse();
        assert_eq!(
            read.ok().map(|batch| batch.to_string()).as_deref(),
            (name != "-5-ended").then_some(name)
        );
    }
    for name in
        ["", "x", "1-removed", "1-removed-x", "1-ended-2", "01", "1-lost", "../1", "1-removed-012"]
    {
        assert!(name.parse::<Batch>().is_err(), "{name}");
    }
}

#[test]
fn what_the_upstream_removed_can_be_brought_back_and_stays_through_the_next_switch() {
    for mode in BOTH {
        let third: &[(&str, &str)] = &[("a", "3"), ("n", "4")];
        let mirror = Mirror::new(mode, &[FIRST, SECOND, third, SECOND]);
        mirror.sync(1, 1_000);
        mirror.sync(2, 5_000);
        assert_eq!(mirror.live(), files(SECOND));
        assert_eq!(mirror.batches(), ["5000-removed-9"]);
        let contents = {
            let trash = mirror.open(None).unwrap().trash().unwrap().unwrap();
            trash.contents(&trash.batches().unwrap()[0]).unwrap()
        };
        assert_eq!((contents.files, contents.bytes), (3, 9));
        assert_eq!(contents.paths, [path("d/b"), path("d/e/c"), path("x")]);

        let done = mirror.open(None).unwrap().undelete(Some(&path("d")), None).unwrap();
        let expected = Undeleted { restored: vec![path("d")], ..Undeleted::default() };
        assert_eq!(done, expected);
        let kept = [("d/b", "two"), ("d/e/c", "three")];
        let with = |list: &[(&str, &str)]| files(&[list, &kept[..]].concat());
        assert_eq!(mirror.live(), with(SECOND));
        // What lies there already is never overwritten.
        let done = mirror.open(None).unwrap().undelete(None, None).unwrap();
        assert_eq!((done.restored, done.occupied), (vec![path("x")], vec![]));
        // Now it is local content, whatever comes.
        for (generation, now) in [(3, 10_000), (4, 20_000), (3, 30_000)] {
            mirror.sync(generation, now);
            let here = if generation == 3 { third } else { SECOND };
            assert_eq!(mirror.live(), with(&[here, &[("x", "x")]].concat()), "{mode:?} {now}");
        }
    }
}

#[test]
fn a_place_that_is_taken_keeps_its_content_and_the_trash_its_own() {
    let back: &[(&str, &str)] = &[("a", "2"), ("x", "another")];
    let mirror = Mirror::new(WantedMode::Exchange, &[FIRST, SECOND, back]);
    [(1, 1_000), (2, 5_000), (3, 9_000)].iter().for_each(|(n, now)| mirror.sync(*n, *now));
    let done = mirror.open(None).unwrap().undelete(Some(&path("x")), None).unwrap();
    assert_eq!((done.restored, done.occupied), (vec![], vec![path("x")]));
    assert_eq!(mirror.live(), files(back));
    let from: Batch = mirror.batches()[0].parse().unwrap();
    let contents = mirror.open(None).unwrap().trash().unwrap().unwrap().contents(&from).unwrap();
    assert!(contents.paths.contains(&path("x")));
}

#[test]
fn the_trash_goes_by_age_and_what_upstreams_removed_by_size() {
    let one: &[(&str, &str)] = &[("a", "1"), ("big", "1234567890")];
    let two: &[(&str, &str)] = &[("a", "1")];
    let mirror = Mirror::new(WantedMode::Exchange, &[one, two, one, two]);
    [(1, 1_000), (2, 5_000), (3, 9_000), (4, 13_000)].iter().for_each(|(n, t)| mirror.sync(*n, *t));
    assert_eq!(mirror.batches(), ["5000-removed-10", "13000-removed-10"]);
    let expire = |now, keep, removed_bytes| {
        let trash = mirror.open(None).unwrap().trash().unwrap().unwrap();
        let gone = trash.expire(now, TrashLimits { keep, removed_bytes }).unwrap();
        gone.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(expire(14_000, 100_000, 20), [""; 0]);
    assert_eq!(expire(14_000, 100_000, 19), ["5000-removed-10"]);
    assert_eq!(expire(15_999, 3_000, 19), [""; 0]);
    assert_eq!(expire(16_000, 3_000, 19), ["13000-removed-10"]);
    assert_eq!(mirror.batches(), [""; 0]);
}

#[test]
fn an_ended_tree_lies_in_the_trash_and_comes_back_whole() {
    for mode in BOTH {
        let mirror = Mirror::new(mode, &[FIRST, SECOND]);
        mirror.sync(1, 1_000);
        mirror.sync(2, 5_000);
        assert_eq!(mirror.open(None).unwrap().end(6_000).unwrap(), Ended::Trashed);
        assert_eq!(mirror.open(None).unwrap().end(6_001).unwrap(), Ended::Nothing);
        assert_eq!(mirror.live(), files(&[]));
        let area = mirror.open(None).unwrap();
        assert_eq!((area.applied(), area.is_published().unwrap()), (None, false));
        drop(area);
        // What was removed before gives way first.
        let trash = mirror.open(None).unwrap().trash().unwrap().unwrap();
        assert_eq!(trash.give_way().unwrap().unwrap().cause, Cause::Removed);
        drop(trash);
        let done = mirror.open(None).unwrap().undelete(None, None).unwrap();
        assert!(done.root, "{done:?}");
        assert_eq!(mirror.live(), files(SECOND));
        assert_eq!(mirror.batches(), [""; 0]);
    }
}

#[test]
fn a_tree_with_a_protected_file_stays_where_it_is_when_its_assignment_ends() {
    let mirror = Mirror::new(WantedMode::Exchange, &[FIRST]);
    mirror.sync(1, 1_000);
    let fs = Fs::with_backend(Box::new(mirror.disk.clone()), None);
    let dir = fs.open_root(&Path::new(ROOT).join("pub/linux/d/e")).unwrap();
    dir.create_file(b"PROTECTED").unwrap();
    let ended = mirror.open(None).unwrap().end(2_000).unwrap();
    assert!(matches!(&ended, Ended::Kept(why) if why.contains("d/e/PROTECTED")), "{ended:?}");
    assert!(mirror.live().is_superset(&files(FIRST)));
}

#[test]
fn a_loss_of_power_loses_nothing_that_is_on_its_way_to_or_from_the_trash() {
    let mut tried = 0;
    for mode in BOTH {
        let start = Mirror::new(mode, &[FIRST, SECOND]);
        start.sync(1, 1_000);
        for undeleting in [false, true] {
            for step in 1.. {
                let mirror = Mirror { disk: start.disk.fork(), ..start.clone() };
                if undeleting {
                    mirror.sync(2, 5_000);
                }
                let plan = Arc::new(FailPlan::new(None, step, Failure::Halt));
                let done = match undeleting {
                    false => mirror.try_sync(Some(plan.clone()), 2, 5_000),
                    true => mirror
                        .open(Some(plan.clone()))
                        .and_then(|mut area| area.undelete(None, None).map(drop)),
                };
                if !plan.fired() {
                    done.unwrap();
                    break;
                }
                for seed in 0..6 {
                    tried += 1;
                    let disk = mirror.disk.crash(&mut Dice::new(step * 64 + seed));
                    let mirror = Mirror { disk, ..mirror.clone() };
                    let at = format!("{mode:?}, undeleting {undeleting}, step {step}, seed {seed}");
                    mirror.sync(2, 5_000);
                    mirror.open(None).unwrap().undelete(None, None).unwrap();
                    let wanted = files(
                        &[SECOND, &[("d/b", "two"), ("d/e/c", "three"), ("x", "x")]].concat(),
                    );
                    assert_eq!(mirror.live(), wanted, "{at}");
                }
            }
        }
    }
    assert!(tried > 200, "{tried}");
}

#[test]
fn a_file_that_can_have_no_more_names_is_copied() {
    for mode in BOTH {
        let copies: Vec<(String, &str)> = (0..10).map(|n| (format!("d/f{n}"), "same")).collect();
        let with = |own: &[(&'static str, &'static str)]| -> Spec {
            let mut spec = tree(own);
            let same: Vec<(&str, &str)> =
                copies.iter().map(|(name, text)| (&**name, *text)).collect();
            spec.extend(tree(&same));
            spec
        };
        let generations = vec![
            with(&[("a", "1"), ("gone", "same")]),
            with(&[("a", "2")]),
            with(&[("a", "3"), ("b", "same")]),
        ];
        let mirror = Mirror { disk: MemoryDisk::default(), mode, generations };
        mirror.disk.limit_links(3);
        for (generation, now) in [(1, 1_000), (2, 5_000), (3, 9_000), (1, 13_000), (3, 17_000)] {
            mirror.sync(generation, now);
            let wanted: BTreeSet<_> = mirror.generations[generation - 1]
                .iter()
                .filter_map(|(path, node)| match node {
                    Node::File(content, ..) => {
                        Some((String::from_utf8_lossy(path).into_owned(), content.clone()))
                    }
                    _ => None,
                })
                .collect();
            assert_eq!(mirror.live(), wanted, "{mode:?}, generation {generation} at {now}");
        }
    }
}
