//! Local content: adopted, protected, excluded, stray. None of it may ever be lost.

use std::{fs, os::unix::fs::MetadataExt};

use protocol::manifest::Manifest;

use super::{model::*, *};
use crate::{
    area::scrub::Damage,
    scan::{ScanOptions, ScanRecord},
};

fn put(site: &Site, name: &str, content: &str) {
    let path = site.live().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn get(site: &Site, name: &str) -> String {
    fs::read_to_string(site.live().join(name)).unwrap()
}

fn trash(site: &Site) -> Vec<String> {
    let dir = site.root().join("work/fedora/trash");
    if !dir.exists() {
        return Vec::new();
    }
    let tree = read(&dir);
    let files = tree.entries().iter().filter(|entry| !entry.is_dir());
    files.map(|e| e.path.to_string().split_once('/').unwrap().1.to_owned()).collect()
}

/// Writes a tree as another program would have: same content, modes and times.
fn write_out(site: &Site, spec: &Spec) {
    for (name, node) in spec {
        if let Node::File(content, ..) = node {
            put(site, std::str::from_utf8(name).unwrap(), content);
        }
    }
    for entry in manifest(spec).entries().iter().rev() {
        let path = site.live().join(entry.path.to_string());
        fs::set_permissions(&path, fs::Permissions::from_mode(entry.mode)).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(entry.mtime as u64);
        fs::File::open(&path).unwrap().set_modified(time).unwrap();
    }
}

#[test]
fn an_adopted_tree_keeps_what_is_equal_and_fetches_only_differences() {
    let mut site = Site::new();
    let names: Vec<(String, String)> =
        (0..300).map(|n| (format!("d{}/f{n}", n % 10), format!("content {n}"))).collect();
    let list: Vec<_> = names.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let want = tree(&list);
    let mut old = want.clone();
    for n in 0..5 {
        old.insert(format!("d{n}/f{n}").into_bytes(), Node::file("older"));
        old.insert(format!("d{n}/local{n}").into_bytes(), Node::file("local"));
    }
    fs::create_dir_all(site.live()).unwrap();
    write_out(&site, &old);
    let inode = |name: &str| fs::metadata(site.live().join(name)).unwrap().ino();
    let kept = inode("d7/f7");
    let mut area = site.open();
    assert_eq!(*area.recovery(), Recovery::Foreign);
    let wanted = manifest(&want);
    let adopted = area
        .adopt(&wanted, View::AS_IS, &ScanRecord::empty(), &ScanOptions::new(i64::MAX))
        .unwrap();
    assert_eq!(adopted.locals.held.len(), 5);
    let options = SwitchOptions::new(site.now);
    let (report, fetched) = run(&mut area, &adopted.have, &want, 1, &options, View::AS_IS).unwrap();
    drop(area);
    assert_eq!((fetched, report.mode), (5, Some(Mode::Exchange)));
    assert_eq!(inode("d7/f7"), kept);
    assert_eq!(report.carried.len(), 5);
    for n in 0..5 {
        assert_eq!(get(&site, &format!("d{n}/local{n}")), "local");
        assert_eq!(get(&site, &format!("d{n}/f{n}")), format!("content {n}"));
    }
    // And again: what is held stays through every later switch.
    site.have = wanted;
    site.generation = 1;
    let mut next = want.clone();
    next.insert(b"d1/f1".to_vec(), Node::file("newer"));
    for round in 0..3 {
        next.insert(b"d1/f1".to_vec(), Node::file(&format!("newer {round}")));
        site.now += 3600;
        site.sync(next.clone());
        assert_eq!(get(&site, "d3/local3"), "local");
    }
    let mut area = site.open();
    let held = area.locals().held.clone();
    let held = area.trash_paths(&held, site.now).unwrap();
    drop(area);
    assert_eq!((held.len(), trash(&site).len()), (5, 5));
    site.check();
}

#[test]
fn adoption_is_refused_where_there_is_nothing() {
    let site = Site::new();
    let adopted = site.open().adopt(
        &manifest(&tree(&[])),
        View::AS_IS,
        &ScanRecord::empty(),
        &ScanOptions::new(1),
    );
    assert!(matches!(adopted, Err(AdoptError::Nothing { .. })));
}

#[test]
fn a_stray_file_goes_to_the_trash_and_an_excluded_one_stays() {
    let mut site = Site::new();
    site.keep = |path, _| !path.as_bytes().ends_with(b".local");
    site.sync(tree(&[("a", "1"), ("d/b", "1")]));
    put(&site, "stray", "stray");
    put(&site, "d/deep/stray", "deep");
    put(&site, "d/mine.local", "mine");
    let report = site.sync(tree(&[("a", "2"), ("d/b", "1")]));
    assert_eq!(report.mode, Some(Mode::Exchange));
    assert_eq!(report.carried, [path("d/mine.local")]);
    assert_eq!(trash(&site), ["d/deep/stray", "stray"]);
    assert_eq!(get(&site, "d/mine.local"), "mine");
    // From now on the tree is known to hold local content, which an exchange would move.
    let report = site.sync(tree(&[("a", "3"), ("d/b", "1")]));
    assert_eq!(report.mode, Some(Mode::InPlace));
    assert!(report.why.contains("d/mine.local"), "{}", report.why);
    assert_eq!(get(&site, "d/mine.local"), "mine");
}

#[test]
fn local_content_that_appears_during_every_round_is_never_lost() {
    for mode in [WantedMode::Auto, WantedMode::InPlace] {
        let mut site = Site::new();
        site.mode = mode;
        for round in 0..6 {
            let gone = format!("d{}/x", round % 2);
            site.now += 3600;
            site.sync(tree(&[("a", &format!("{round}")), (&gone, "x"), ("keep/y", "y")]));
            put(&site, &format!("d{}/local{round}", round % 2), "local");
        }
        site.now += 3600;
        site.sync(tree(&[("a", "end")]));
        let mut found: Vec<String> = trash(&site);
        found.extend(site.read().entries().iter().map(|entry| entry.path.to_string()));
        for round in 0..6 {
            let name = format!("d{}/local{round}", round % 2);
            assert!(found.contains(&name), "{mode:?}: {name} of {found:?}");
        }
    }
}

#[test]
fn a_protected_directory_is_not_touched_and_is_an_exception() {
    let mut site = Site::new();
    site.sync(tree(&[("d/a", "1"), ("d/sub/b", "below"), ("e", "1")]));
    put(&site, "d/PROTECTED", "");
    put(&site, "d/a", "edited");
    let report = site.sync(tree(&[("d/a", "2"), ("d/sub/c", "2"), ("e", "2")]));
    assert_eq!(report.mode, Some(Mode::InPlace), "it is never out of sight");
    assert_eq!(report.exceptions, [path("d/a"), path("d/sub/b"), path("d/sub/c")]);
    assert_eq!((get(&site, "d/a"), get(&site, "e")), ("edited".into(), "2".into()));
    assert_eq!(get(&site, "d/sub/b"), "below");
    let report = site.sync(tree(&[("d/a", "3"), ("e", "3")]));
    assert_eq!(report.mode, Some(Mode::InPlace));
    assert_eq!((get(&site, "d/a"), get(&site, "e")), ("edited".into(), "3".into()));
    assert!(site.live().join("d/PROTECTED").exists());
}

#[test]
fn a_protected_root_stops_everything() {
    let mut site = Site::new();
    site.sync(tree(&[("a", "1")]));
    put(&site, "PROTECTED", "");
    let report = site.sync(tree(&[("a", "2"), ("b", "2")]));
    assert_eq!(report.exceptions.len(), 2);
    assert_eq!(get(&site, "a"), "1");
    assert!(!site.live().join("b").exists());
}

#[test]
fn every_kind_of_damage_is_found_and_repaired() {
    let mut site = Site::new();
    let spec = tree(&[
        ("flip", "content"),
        ("cut", "content that is longer"),
        ("gone", "here"),
        ("mode", "m"),
        ("time", "t"),
        ("d/fine", "fine"),
        ("kind/x", "x"),
        ("link", "-> flip"),
    ]);
    site.sync(spec.clone());
    let live = site.live();
    fs::write(live.join("flip"), "CONTENT").unwrap();
    fs::write(live.join("cut"), "content").unwrap();
    fs::remove_file(live.join("gone")).unwrap();
    fs::set_permissions(live.join("mode"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::File::open(live.join("time")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    fs::remove_dir_all(live.join("kind")).unwrap();
    fs::write(live.join("kind"), "file").unwrap();
    fs::remove_file(live.join("link")).unwrap();
    std::os::unix::fs::symlink("elsewhere", live.join("link")).unwrap();
    fs::write(live.join("d/extra"), "extra").unwrap();
    let mut area = site.open();
    let whole = ScrubOptions::whole();
    let report = area.scrub(&site.have, View::AS_IS, &whole).unwrap();
    let found: Vec<(String, Damage)> =
        report.findings.iter().map(|f| (f.path.to_string(), f.damage)).collect();
    let expected = [
        ("cut", Damage::Length { expected: 22, actual: 7 }),
        ("d", Damage::Attributes),
        ("d/extra", Damage::Extra),
        ("flip", Damage::Flipped),
        ("gone", Damage::Missing),
        ("kind", Damage::Kind),
        ("kind/x", Damage::Missing),
        ("link", Damage::Kind),
        ("mode", Damage::Attributes),
        ("time", Damage::Attributes),
    ];
    assert_eq!(found, expected.map(|(path, damage)| (path.to_owned(), damage)));
    let plan = area.plan_repair(&site.have, View::AS_IS, &report.findings).unwrap();
    let fetched: Vec<String> = plan
        .all_needs()
        .iter()
        .filter(|need| !area.staging().has(need).unwrap())
        .map(|need| need.path.to_string())
        .collect();
    assert_eq!(fetched, ["cut", "flip", "gone", "kind/x"]);
    stage(&area, &plan.all_needs(), &spec).unwrap();
    // What does not belong goes to the trash, as with every switch.
    let extras = area.trash_paths(&[path("d/extra")], site.now).unwrap();
    assert_eq!((extras.len(), trash(&site).len()), (1, 1));
    area.switch(&plan, &target(1, &site.have), &SwitchOptions::new(site.now)).unwrap();
    let clean = area.scrub(&site.have, View::AS_IS, &whole).unwrap();
    assert_eq!(clean.findings, []);
    drop(area);
    site.check();
}

#[test]
fn a_tree_on_another_file_system_than_the_work_is_switched_in_place() {
    let site = Site::new();
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else { return };
    let place = Place { publish: other.path().to_owned(), ..site.place() };
    let live = other.path().join("linux");
    let (one, two) = (tree(&[("a", "1"), ("d/b", "1")]), tree(&[("a", "2"), ("c", "2")]));
    let mut have = Manifest::empty();
    for (number, spec) in [(1, one), (2, two)] {
        let mut area = Area::open(&Fs::disk(), place.clone()).unwrap();
        if fs::metadata(other.path()).unwrap().dev() == fs::metadata(site.root()).unwrap().dev() {
            return;
        }
        let options = SwitchOptions::new(site.now);
        let (report, _) = run(&mut area, &have, &spec, number, &options, View::AS_IS).unwrap();
        assert_eq!(report.mode, Some(Mode::InPlace), "{}", report.why);
        drop(area);
        have = Manifest::clone(&manifest(&spec));
        assert_same(&read(&live), &have);
    }
    let mode = fs::metadata(live.join(".mirrornet")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn another_device_number_after_a_restart_is_still_the_same_tree() {
    let mut site = Site::new();
    site.sync(tree(&[("a", "1"), ("b", "1")]));
    site.now += 3600;
    site.sync(tree(&[("a", "2"), ("b", "1")]));
    // What the marks and a journal would say if the disk had been number 7 then.
    let work = Fs::disk().open_root(&site.root().join("work/fedora")).unwrap();
    let body = crate::record::load(&work, "marks").unwrap().unwrap();
    let dev = fs::metadata(site.root()).unwrap().dev();
    let text = String::from_utf8(body).unwrap();
    let older = text.replace(&format!("\"dev\": {dev}"), "\"dev\": 7");
    assert_ne!(older, text);
    crate::record::save(&work, "marks", older.as_bytes()).unwrap();
    let area = site.open();
    assert_eq!(*area.recovery(), Recovery::Clean);
    assert_eq!(area.applied().unwrap().version.generation.0, 2);
    drop(area);
    site.now += 3600;
    let report = site.sync(tree(&[("a", "3"), ("b", "1")]));
    assert!(!report.fresh_twin, "the retired tree is known, too");
    site.check();
}
