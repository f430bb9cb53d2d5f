//! Damage of every kind, at random, found and repaired: each finding is compared with what was
//! done, so that one too few and one too many are both failures.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, time::Duration};

use super::{
    figures::{self, Figure},
    model::*,
    *,
};
use crate::{fs::memory::Dice, switch::SwitchOptions};

const FILES: u64 = 60;
const PER_ROUND: u64 = 20;

fn contents() -> Spec {
    let content = |n: u64| format!("file {n} ").repeat(3 + n as usize % 40);
    let file = |n: u64| (format!("d{}/f{n}", n % 7).into_bytes(), Node::file(&content(n)));
    (0..FILES).map(file).collect()
}

/// Damages one file in a way that the dice choose; gives the path and what a scrub should call it.
fn damage(site: &Site, at: &str, dice: &mut Dice) -> (String, &'static str) {
    let file = site.live().join(at);
    let meta = fs::metadata(&file).unwrap();
    let (time, len) = (meta.modified().unwrap(), meta.len());
    let open = || fs::File::options().write(true).open(&file).unwrap();
    let what = match dice.below(6) {
        0 => {
            let mut bytes = fs::read(&file).unwrap();
            let bit = dice.below(len * 8);
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
            fs::write(&file, bytes).unwrap();
            open().set_modified(time).unwrap();
            "flipped"
        }
        1 => {
            open().set_len(dice.below(len)).unwrap();
            open().set_modified(time).unwrap();
            "length"
        }
        2 => {
            fs::remove_file(&file).unwrap();
            "missing"
        }
        3 => {
            let added = format!("{at}.added");
            fs::write(site.live().join(&added), "added").unwrap();
            return (added, "extra");
        }
        4 => {
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            "attributes"
        }
        _ => {
            open().set_modified(time + Duration::from_secs(1 + dice.below(1 << 20))).unwrap();
            "attributes"
        }
    };
    (at.to_owned(), what)
}

fn name(damage: Damage) -> &'static str {
    match damage {
        Damage::Flipped => "flipped",
        Damage::Length { .. } => "length",
        Damage::Missing => "missing",
        Damage::Extra => "extra",
        Damage::Attributes => "attributes",
        Damage::Unreadable | Damage::Kind => "another",
    }
}

#[test]
fn all_damage_is_found_and_repaired() {
    let wanted = figures::count("MIRRORNET_DAMAGES", 200);
    let (mut done, mut found, mut repaired) = (0, 0, 0);
    let mut dice = Dice::new(5);
    let mut site = Site::new();
    let spec = contents();
    site.sync(spec.clone());
    while done < wanted {
        let mut injected = BTreeMap::new();
        while (injected.len() as u64) < PER_ROUND.min(wanted - done) {
            let n = dice.below(FILES);
            let at = format!("d{}/f{n}", n % 7);
            if !injected.contains_key(&at) && !injected.contains_key(&format!("{at}.added")) {
                let (path, what) = damage(&site, &at, &mut dice);
                injected.insert(path, what);
            }
        }
        done += injected.len() as u64;
        let mut area = site.open();
        let mut parts = Vec::new();
        let mut from = None;
        loop {
            let options =
                ScrubOptions { from: from.as_ref(), most_bytes: 1, ..ScrubOptions::whole() };
            let part = area.scrub(&site.have, View::AS_IS, &options).unwrap();
            assert!(part.read_files <= 1, "{part:?}");
            parts.extend(part.findings);
            from = part.next;
            if from.is_none() {
                break;
            }
        }
        parts.sort_by(|a, b| a.path.cmp(&b.path));
        let report = area.scrub(&site.have, View::AS_IS, &ScrubOptions::whole()).unwrap();
        assert_eq!(parts, report.findings, "in parts it finds the same");
        // A name that came or went shows in the time of its directory, too.
        let files = report.findings.iter().filter(|f| !matches!(f.path.to_string().len(), 2));
        let seen: BTreeMap<String, &str> =
            files.map(|f| (f.path.to_string(), name(f.damage))).collect();
        assert_eq!(seen, injected);
        found += seen.len() as u64;
        let plan = area.plan_repair(&site.have, View::AS_IS, &report.findings).unwrap();
        stage(&area, &plan.all_needs(), &spec).unwrap();
        site.now += 3600;
        let target = target(1, &site.have);
        area.switch(&plan, &target, &SwitchOptions::new(site.now)).unwrap();
        let extras = report.findings.iter().filter(|found| found.damage == Damage::Extra);
        let extras: Vec<_> = extras.map(|found| found.path.clone()).collect();
        area.trash_paths(&extras, site.now).unwrap();
        let clean = area.scrub(&site.have, View::AS_IS, &ScrubOptions::whole()).unwrap();
        let left: Vec<_> =
            clean.findings.iter().filter(|f| f.path.to_string().len() != 2).collect();
        assert!(left.is_empty(), "{left:?}");
        repaired += injected.len() as u64;
    }
    figures::tell(&Figure {
        what: "injected damages, found and repaired by scrub",
        ran: done,
        bad: (done - found) + (done - repaired),
    });
    assert_eq!((found, repaired), (done, done));
}

#[test]
fn a_repair_never_takes_the_damage_from_another_name_of_the_same_file() {
    let spec = tree(&[("a/one", "the same content"), ("z/two", "the same content"), ("x", "x")]);
    let mut site = Site::new();
    site.sync(spec.clone());
    // They share an inode, so both are damaged, but only the first is looked at now.
    let file = site.live().join("a/one");
    let time = fs::metadata(&file).unwrap().modified().unwrap();
    fs::write(&file, "the SAME content").unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
    let mut area = site.open();
    let options = ScrubOptions { most_bytes: 1, ..ScrubOptions::whole() };
    let part = area.scrub(&site.have, View::AS_IS, &options).unwrap();
    assert_eq!(part.next, Some(path("x")));
    let [Finding { damage: Damage::Flipped, .. }] = part.findings[..] else { panic!("{part:?}") };
    let plan = area.plan_repair(&site.have, View::AS_IS, &part.findings).unwrap();
    let options = SwitchOptions::new(site.now + 3600);
    let target = target(1, &site.have);
    let Err(Error::Missing(needs)) = area.switch(&plan, &target, &options) else { panic!() };
    stage(&area, &needs, &spec).unwrap();
    area.switch(&plan, &target, &options).unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"the same content");
    let rest = ScrubOptions { from: part.next.as_ref(), ..ScrubOptions::whole() };
    let rest = area.scrub(&site.have, View::AS_IS, &rest).unwrap();
    let paths: Vec<_> = rest.findings.iter().map(|found| found.path.to_string()).collect();
    assert_eq!(paths, ["z/two"]);
    // What is whole elsewhere is taken from there.
    let plan = area.plan_repair(&site.have, View::AS_IS, &rest.findings).unwrap();
    assert_eq!(plan.all_needs(), []);
    area.switch(&plan, &target, &SwitchOptions::new(site.now + 7200)).unwrap();
    site.check();
}

#[test]
fn what_a_protected_file_shields_is_neither_judged_nor_moved() {
    let mut site = Site::new();
    site.sync(tree(&[("d/f", "1"), ("e/f", "2")]));
    for (path, content) in
        [("d/PROTECTED", ""), ("d/f", "mine"), ("d/own", "mine"), ("own/x/PROTECTED", "")]
    {
        let file = site.live().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }
    let report = site.open().scrub(&site.have, View::AS_IS, &ScrubOptions::whole()).unwrap();
    let wrong: Vec<_> = report.findings.iter().filter(|f| f.path != path("d")).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}
