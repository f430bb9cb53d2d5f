//! Scenarios on real directories. What is compared in the end is always the whole published tree,
//! read again from the disk, with a manifest: nothing may be missing, changed or there too much.

mod adopting;
mod blocks;
mod copying;
mod cost;
mod crash;
mod errors;
mod figures;
mod hostile;
mod kill;
mod labels;
mod limits;
mod linked;
mod local;
pub(crate) mod model;
mod oracle;
mod scenario;
mod scrubbing;
mod together;
mod trash;
mod units;
mod withdrawn;

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use self::model::{LATER, Site, path, tree};
use super::*;
use crate::{
    fs::Op,
    switch::{Mode, WantedMode},
};

#[test]
fn a_first_generation_appears_as_a_whole() {
    let mut site = Site::new();
    let report = site.sync(tree(&[("a", "one"), ("d/b", "two"), ("d/l", "-> ../a"), ("e/", "")]));
    assert_eq!(report.mode, Some(Mode::Exchange));
    assert_eq!((report.changed_entries, report.fresh_twin), (5, false));
    site.check();
    assert_eq!(std::fs::read_dir(site.root().join("pub")).unwrap().count(), 1);
}

#[test]
fn an_update_keeps_the_inodes_of_what_did_not_change() {
    let mut site = Site::new();
    site.sync(tree(&[("a", "one"), ("d/b", "two"), ("d/c", "three")]));
    let inode = |site: &Site, name: &str| std::fs::metadata(site.live().join(name)).unwrap().ino();
    let (a, b) = (inode(&site, "a"), inode(&site, "d/b"));
    let report = site.sync(tree(&[("a", "one"), ("d/b", "TWO"), ("d/x", "new")]));
    site.check();
    assert_eq!((report.changed_entries, report.removed_entries), (2, 1));
    assert_eq!(inode(&site, "a"), a);
    assert_ne!(inode(&site, "d/b"), b);
    assert!(report.fresh_twin);
}

#[test]
fn nothing_changed_means_nothing_is_touched() {
    let mut site = Site::new();
    let spec = tree(&[("a", "one"), ("d/b", "two")]);
    site.sync(spec.clone());
    let before = site.fs.counters().snapshot();
    let report = site.sync_as(spec, site.generation);
    let done = site.fs.counters().snapshot().since(&before);
    assert_eq!((report.mode, done.mutations()), (None, 0));
    assert_eq!(done.count(Op::OpenFile), 4, "the lock, opened and taken, the marks and no plan");
    assert_eq!(done.count(Op::SyncFs), 0);
    site.check();
}

#[test]
fn a_retired_tree_is_brought_forward_by_the_differences_alone() {
    let mut site = Site::new();
    let mut names: Vec<(String, String)> =
        (0..400).map(|n| (format!("d{}/f{n}", n % 20), format!("content {n}"))).collect();
    let spec = |names: &[(String, String)]| {
        let list: Vec<_> = names.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        tree(&list)
    };
    site.sync(spec(&names));
    for round in 0..6 {
        names[round * 7].1 = format!("changed in {round}");
        names[round * 11 + 1].1 = format!("changed too in {round}");
        site.now += 3600;
        let before = site.fs.counters().snapshot();
        let report = site.sync(spec(&names));
        let done = site.fs.counters().snapshot().since(&before);
        site.check();
        // The first update links a twin; from then on only the differences of two generations.
        assert_eq!(report.fresh_twin, round == 0, "round {round}");
        if round > 0 {
            assert!(done.count(Op::Link) <= 4, "{} links", done.count(Op::Link));
            assert!(done.mutations() <= 80, "{} changes", done.mutations());
        }
    }
    assert_eq!(site.standbys(), 1);
}

#[test]
fn lingering_trees_are_left_alone_and_the_oldest_is_reused_later() {
    let mut site = Site::new();
    for round in 0..5 {
        site.now += 60;
        site.sync(tree(&[("a", &format!("{round}")), ("b", "same")]));
        site.check();
    }
    assert_eq!(site.standbys(), 4);
    site.now += 3600;
    let report = site.sync(tree(&[("a", "last"), ("b", "same")]));
    assert!(!report.fresh_twin);
    site.check();
    assert_eq!(site.standbys(), 3);
}

#[test]
fn a_name_can_become_a_directory_a_link_and_a_file_again() {
    for mode in [WantedMode::Auto, WantedMode::InPlace] {
        let mut site = Site::new();
        site.mode = mode;
        for spec in [
            tree(&[("x", "file"), ("y/a", "a")]),
            tree(&[("x/in", "side"), ("x/deep/er", "more"), ("y", "-> x")]),
            tree(&[("x", "-> y"), ("y", "file now")]),
            tree(&[("x/in", "side"), ("y/a", "a")]),
            tree(&[("x", "file"), ("y", "-> nowhere")]),
        ] {
            site.now += 3600;
            site.sync(spec);
            site.check();
        }
    }
}

#[test]
fn odd_names_survive_both_ways_of_switching() {
    let long = "n".repeat(255);
    for mode in [WantedMode::Auto, WantedMode::InPlace] {
        let mut site = Site::new();
        site.mode = mode;
        let mut spec =
            tree(&[("new\nline", "1"), (" ", "2"), ("-rf", "3"), ("d/*", "4"), (&long, "5")]);
        spec.insert(b"\xff\xfe/\x80".to_vec(), model::Node::file("6"));
        site.sync(spec.clone());
        site.check();
        spec.insert(b"\xff\xfe/\x80".to_vec(), model::Node::file("7"));
        spec.insert(long.clone().into_bytes(), model::Node::file("8"));
        site.sync(spec);
        site.check();
    }
}

#[test]
fn a_changed_mode_or_time_makes_a_new_inode_and_fetches_nothing() {
    let mut site = Site::new();
    let mut spec = tree(&[("a", "one"), ("d/b", "two")]);
    site.sync(spec.clone());
    let before = std::fs::metadata(site.live().join("a")).unwrap();
    spec.insert(b"a".to_vec(), model::Node::File("one".into(), 0o755, 5_000_000_000));
    site.sync(spec);
    site.check();
    let after = std::fs::metadata(site.live().join("a")).unwrap();
    assert_ne!(after.ino(), before.ino());
    assert_eq!((before.mode() & 0o777, after.mode() & 0o777), (0o644, 0o755));
    assert_eq!(site.fetched, 2, "only the first generation was fetched");
}

#[test]
fn a_moved_file_is_linked_not_fetched() {
    let mut site = Site::new();
    site.sync(tree(&[("old/big", "content"), ("x", "y")]));
    let inode = std::fs::metadata(site.live().join("old/big")).unwrap().ino();
    site.sync(tree(&[("new/big", "content"), ("x", "y")]));
    site.check();
    assert_eq!(std::fs::metadata(site.live().join("new/big")).unwrap().ino(), inode);
    assert_eq!(site.fetched, 2);
}

#[test]
fn directories_that_forbid_writing_are_updated_and_closed_again() {
    for mode in [WantedMode::Auto, WantedMode::InPlace] {
        let mut site = Site::new();
        site.mode = mode;
        let mut spec = tree(&[("d/", ""), ("d/a", "1"), ("d/e/", ""), ("d/e/f", "2")]);
        spec.insert(b"d".to_vec(), model::Node::Dir(0o555));
        spec.insert(b"d/e".to_vec(), model::Node::Dir(0o511));
        for content in ["2", "3", "4"] {
            spec.insert(b"d/e/f".to_vec(), model::Node::file(content));
            site.now += 3600;
            site.sync(spec.clone());
            site.check();
        }
    }
}

#[test]
fn missing_content_is_named_and_nothing_is_changed() {
    let mut site = Site::new();
    site.sync(tree(&[("a", "one")]));
    let want = model::manifest(&tree(&[("a", "two"), ("b", "three")]));
    let mut area = site.open();
    let plan = area.plan(&site.have, View::AS_IS, &want, View::AS_IS).unwrap();
    let error = area.switch(&plan, &model::target(9, &want), &SwitchOptions::new(1)).unwrap_err();
    let Error::Missing(needs) = error else { panic!("{error}") };
    assert_eq!(needs.iter().map(|n| n.path.clone()).collect::<Vec<_>>(), [path("a"), path("b")]);
    drop(area);
    site.check();
}

#[test]
fn a_damaged_local_copy_is_asked_for_instead_of_used() {
    let mut site = Site::new();
    let mut spec = tree(&[("a", "one")]);
    site.sync(spec.clone());
    std::fs::write(site.live().join("a"), "bad").unwrap();
    spec.insert(b"a".to_vec(), model::Node::File("one".into(), 0o644, LATER + 5));
    site.sync(spec);
    site.check();
    assert_eq!(site.fetched, 2);
}

#[test]
fn a_locked_area_is_refused_and_a_dropped_one_is_free_again() {
    let site = Site::new();
    let area = site.open();
    let second = Area::open(&Fs::disk(), site.place());
    assert!(matches!(second, Err(Error::Locked { .. })));
    drop(area);
    site.open();
}

#[test]
fn a_published_directory_that_is_not_ours_is_not_switched() {
    let mut site = Site::new();
    site.sync(tree(&[("a", "one")]));
    std::fs::rename(site.live(), site.root().join("elsewhere")).unwrap();
    std::fs::create_dir(site.live()).unwrap();
    let area = site.open();
    assert_eq!((area.recovery(), area.applied()), (&Recovery::Foreign, None));
}

#[test]
fn files_that_share_an_inode_upstream_share_one_here() {
    let mut site = Site::new();
    let mut spec = tree(&[("a", "one"), ("b", "one"), ("c", "one")]);
    for name in ["a", "c"] {
        spec.insert(name.into(), model::Node::Linked("one".into(), "a".into()));
    }
    site.sync(spec);
    let inode = |name: &str| std::fs::metadata(site.live().join(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("c"));
    assert_ne!(inode("a"), inode("b"));
}

#[test]
fn the_published_directory_keeps_the_mode_that_an_admin_gave_it() {
    let mut site = Site::new();
    site.sync(tree(&[("a", "1")]));
    std::fs::set_permissions(site.live(), std::fs::Permissions::from_mode(0o2775)).unwrap();
    site.sync(tree(&[("a", "2")]));
    let mode = std::fs::metadata(site.live()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o2775);
}

#[test]
fn a_link_that_the_file_system_refuses_becomes_a_copy() {
    use rustix::io::Errno;
    // As for a file that has 65,000 names already, or belongs to somebody else.
    for (nth, errno) in [(1, Errno::MLINK), (2, Errno::PERM), (3, Errno::XDEV)] {
        let mut site = Site::new();
        site.sync(tree(&[("a", "1"), ("b", "2"), ("c", "3")]));
        let failure = crate::fs::Failure::Errno(errno.raw_os_error());
        let plan = Arc::new(crate::fs::FailPlan::new(Some(Op::Link), nth, failure));
        site.fs = Fs::disk_failing(plan.clone());
        site.now += 3600;
        site.sync(tree(&[("a", "1"), ("b", "2"), ("c", "4")]));
        assert!(plan.fired(), "{errno:?}");
        site.check();
    }
}

#[test]
fn a_retired_tree_from_before_a_switch_in_place_does_not_bring_back_what_that_replaced() {
    let mut site = Site::new();
    let steps = [
        (WantedMode::Auto, [("x", "1"), ("y", "1"), ("z", "1")]),
        (WantedMode::Auto, [("x", "1"), ("y", "1"), ("z", "2")]),
        (WantedMode::InPlace, [("x", "3"), ("y", "1"), ("z", "2")]),
        (WantedMode::Auto, [("x", "3"), ("y", "4"), ("z", "2")]),
        (WantedMode::Auto, [("x", "3"), ("y", "5"), ("z", "2")]),
    ];
    for (mode, list) in steps {
        site.mode = mode;
        site.now += 3600;
        site.sync(tree(&list));
        site.check();
    }
}
