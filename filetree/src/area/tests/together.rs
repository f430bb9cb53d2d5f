//! Trees that are switched together: loss of power, errors and missing content at every step.

use std::{collections::BTreeMap, path::Path};

use super::{
    crash::{ROOT, on},
    model::{self, Spec, manifest, path, stage, target, tree},
    *,
};
use crate::{
    fs::{
        FailPlan, Failure, Fs,
        memory::{Dice, MemoryDisk},
    },
    switch::SwitchOptions,
};

const TREES: [&str; 3] = ["exchanged", "linked", "in-place"];

fn mode(tree: &str) -> WantedMode {
    match tree {
        "linked" => WantedMode::Symlink,
        "in-place" => WantedMode::InPlace,
        _ => WantedMode::Auto,
    }
}

fn spec(number: u64) -> Spec {
    tree(&[
        ("same", "same"),
        ("changing", &format!("content {number}")),
        (&format!("d/only-in-{number}"), "x"),
    ])
}

fn open(fs: &Fs, tree: &str) -> Result<Area, Error> {
    let root = Path::new(ROOT);
    let (publish, work) = (root.join("pub"), root.join("work"));
    Area::open(fs, Place { publish, work, name: tree.into(), path: path(tree) })
}

/// Brings all trees to a generation, as an agent does.
fn update(fs: &Fs, number: u64) -> Result<(), Error> {
    let want = manifest(&spec(number));
    let target = target(number, &want);
    let mut areas = Vec::new();
    let mut plans = Vec::new();
    for tree in TREES {
        let area = open(fs, tree)?;
        let have = area.applied().map(|applied| applied.version.generation.0);
        let have = have.map_or_else(
            || Arc::new(protocol::manifest::Manifest::empty()),
            |n| manifest(&spec(n)),
        );
        let plan = area.plan(&have, View::AS_IS, &want, View::AS_IS)?;
        stage(&area, &plan.all_needs(), &spec(number))?;
        areas.push(area);
        plans.push(plan);
    }
    let now = 1_700_000_000 + number as i64 * 3600;
    let mut switchings: Vec<_> = areas
        .iter_mut()
        .zip(&plans)
        .zip(TREES)
        .map(|((area, plan), tree)| {
            let options = SwitchOptions { mode: mode(tree), ..SwitchOptions::new(now) };
            Switching { area, plan, target: &target, options }
        })
        .collect();
    switch_together(&mut switchings).map(drop).map_err(|(_, error)| error)
}

/// The files of each published tree.
fn seen(disk: &MemoryDisk) -> [BTreeMap<String, String>; 3] {
    TREES.map(|tree| {
        let root = on(disk).open_root(&Path::new(ROOT).join("pub").join(tree)).unwrap();
        let mut files = BTreeMap::new();
        for entry in model::read_on(&on(disk), root.path()).entries() {
            if entry.is_file() {
                let file = root.open_parent(&entry.path).unwrap();
                let file = file.open_file(entry.path.name()).unwrap();
                let mut text = String::new();
                std::io::Read::read_to_string(&mut file.reader(), &mut text).unwrap();
                files.insert(entry.path.to_string(), text);
            }
        }
        files
    })
}

fn expected(number: u64) -> BTreeMap<String, String> {
    let files = spec(number).into_iter().filter_map(|(path, node)| match node {
        model::Node::File(text, ..) => Some((String::from_utf8(path).unwrap(), text)),
        _ => None,
    });
    files.collect()
}

/// A disk that holds the second generation of each.
fn prepared() -> MemoryDisk {
    let disk = MemoryDisk::default();
    on(&disk).create_root(Path::new(ROOT)).unwrap();
    for number in 1..=2 {
        update(&on(&disk), number).unwrap();
    }
    on(&disk).open_root(Path::new(ROOT)).unwrap().sync_fs().unwrap();
    disk
}

/// Each is whole, and a further run goes forward to the new generation, with all of them.
fn check(disk: &MemoryDisk, reported: bool, when: &str) {
    let (old, new) = (expected(2), expected(3));
    for (tree, files) in TREES.iter().zip(seen(disk)) {
        // In place, each file is one or the other.
        let is_whole = match *tree {
            "in-place" => files
                .iter()
                .all(|file| [&old, &new].iter().any(|tree| tree.get(file.0) == Some(file.1))),
            _ => [&old, &new].contains(&&files),
        };
        assert!(is_whole, "{when}: {tree} has {files:?}");
        assert!(!reported || files == new, "{when}: {tree} was said to be switched: {files:?}");
    }
    update(&on(disk), 3).unwrap_or_else(|error| panic!("{when}: {error:?}"));
    assert_eq!(seen(disk), [new.clone(), new.clone(), new], "{when}");
}

#[test]
fn power_lost_anywhere_between_switches_is_gone_forward_from() {
    let disk = prepared();
    disk.record();
    update(&on(&disk), 3).unwrap();
    let moments = disk.moments();
    let mut dice = Dice::new(1);
    let mut between = 0;
    for (at, moment) in moments.iter().enumerate() {
        for _ in 0..4 {
            let disk = moment.crash(&mut dice);
            let new = seen(&disk).iter().filter(|files| **files == expected(3)).count();
            between += u64::from(new == 1 || new == 2);
            check(&disk, at + 1 == moments.len(), &format!("moment {at}"));
        }
    }
    assert!(between > 10, "only {between} states had some switched and some not");
}

#[test]
fn an_error_before_the_first_switch_leaves_all_as_they_were() {
    let start = prepared();
    let count = Arc::new(FailPlan::new(None, u64::MAX, Failure::Halt));
    let with = |disk: &MemoryDisk, plan: &Arc<FailPlan>| {
        Fs::with_backend(Box::new(disk.clone()), Some(plan.clone()))
    };
    update(&with(&start.fork(), &count), 3).unwrap();
    let full = Failure::Errno(rustix::io::Errno::NOSPC.raw_os_error());
    for nth in 1..=count.seen() {
        let disk = start.fork();
        let plan = Arc::new(FailPlan::new(None, nth, full));
        let done = update(&with(&disk, &plan), 3);
        check(&disk, done.is_ok(), &format!("operation {nth}"));
    }
    // Content that one of them lacks keeps all from being switched.
    let disk = start.fork();
    let want = manifest(&spec(3));
    let target = target(3, &want);
    let have = manifest(&spec(2));
    let mut areas = TREES.map(|tree| open(&on(&disk), tree).unwrap());
    let plans =
        areas.each_ref().map(|area| area.plan(&have, View::AS_IS, &want, View::AS_IS).unwrap());
    stage(&areas[0], &plans[0].all_needs(), &spec(3)).unwrap();
    let options = SwitchOptions::new(1_700_100_000);
    let mut switchings: Vec<_> = areas
        .iter_mut()
        .zip(&plans)
        .map(|(area, plan)| Switching { area, plan, target: &target, options })
        .collect();
    let failed = switch_together(&mut switchings).unwrap_err();
    assert!(matches!(failed, (1, Error::Missing(_))), "{failed:?}");
    drop(areas);
    assert_eq!(seen(&disk), [expected(2), expected(2), expected(2)]);
    check(&disk, false, "after missing content");
}
