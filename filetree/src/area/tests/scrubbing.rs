//! Damage of every kind, at random, found and repaired: each finding is compared with what was
//! done, so that one too few and one too many are both failures.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, time::Duration};

use super::{
    figures::{self, Figure},
    model::*,
    *,
};
use crate::{fs::memory::Dice, scan::ScanOptions, switch::SwitchOptions};

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
    let scan = ScanOptions::new(i64::MAX);
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
        let report = area.scrub(&site.have, View::AS_IS, &scan).unwrap();
        // A name that came or went shows in the time of its directory, too.
        let files = report.findings.iter().filter(|f| !matches!(f.path.to_string().len(), 2));
        let seen: BTreeMap<String, &str> =
            files.map(|f| (f.path.to_string(), name(f.damage))).collect();
        assert_eq!(seen, injected);
        found += seen.len() as u64;
        let plan = area.plan_repair(&site.have, View::AS_IS, &report).unwrap();
        stage(&area, plan.needs(), &spec).unwrap();
        site.now += 3600;
        let target = target(1, &site.have);
        area.switch(&plan, &target, &SwitchOptions::new(site.now)).unwrap();
        let extras = report.findings.iter().filter(|found| found.damage == Damage::Extra);
        let extras: Vec<_> = extras.map(|found| found.path.clone()).collect();
        area.trash_paths(&extras, site.now).unwrap();
        let clean = area.scrub(&site.have, View::AS_IS, &scan).unwrap();
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
