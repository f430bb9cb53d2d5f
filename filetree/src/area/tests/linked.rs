//! Trees that are published behind a symbolic link.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use super::{
    model::{Site, Spec, tree},
    *,
};
use crate::switch::{Mode, WantedMode};

fn linked() -> Site {
    let mut site = Site::new();
    site.mode = WantedMode::Symlink;
    site
}

fn spec(round: u64) -> Spec {
    tree(&[("a", "same"), ("d/b", &format!("in {round}")), (&format!("d/only-in-{round}"), "x")])
}

/// The tree that the published link leads to.
fn leads_to(site: &Site) -> PathBuf {
    let target = fs::read_link(site.live()).unwrap();
    assert!(target.is_relative(), "{target:?}");
    target
}

fn trees(site: &Site) -> Vec<String> {
    let dir = site.root().join("pub/.mirrornet/trees/linux");
    let names = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> = names.map(|e| e.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

#[test]
fn a_switch_replaces_the_link_and_old_sessions_keep_their_tree() {
    let mut site = linked();
    let report = site.sync(spec(1));
    assert_eq!(report.mode, Some(Mode::Symlink));
    site.check();
    let (first, old) = (leads_to(&site), site.live().canonicalize().unwrap());
    let report = site.sync(spec(2));
    assert!(report.fresh_twin);
    site.check();
    assert_ne!(leads_to(&site), first);
    assert_eq!(fs::read_to_string(old.join("d/b")).unwrap(), "in 1", "a session sees what it saw");
    assert!(old.join("d/only-in-1").exists());
    assert_eq!(inode(&old.join("a")), inode(&site.live().join("a")));
    for round in 3..7 {
        site.now += 3600;
        let report = site.sync(spec(round));
        assert_eq!((report.mode, report.fresh_twin), (Some(Mode::Symlink), false));
        site.check();
    }
    assert_eq!(trees(&site), ["standby-0", "standby-1"]);
    assert_eq!(site.standbys(), 0);
}

#[test]
fn the_way_to_the_trees_can_be_passed_and_not_listed() {
    let mut site = linked();
    site.sync(spec(1));
    for dir in ["pub/.mirrornet", "pub/.mirrornet/trees", "pub/.mirrornet/trees/linux"] {
        let mode = fs::metadata(site.root().join(dir)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o711, "{dir}");
    }
    let mode = fs::metadata(site.live()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
}

#[test]
fn a_directory_is_put_behind_a_link_and_taken_out_again_as_the_same_one() {
    let mut site = Site::new();
    for round in 1..4 {
        site.now += 3600;
        site.sync(spec(round));
    }
    let (before, spare) = (inode(&site.live()), site.standbys());
    assert_eq!(spare, 1);
    site.mode = WantedMode::Symlink;
    let report = site.sync_as(spec(3), 3);
    assert_eq!(report.mode, None);
    assert!(fs::symlink_metadata(site.live()).unwrap().is_symlink());
    assert_eq!((inode(&site.live()), site.standbys(), trees(&site).len()), (before, 0, 2));
    site.check();
    site.now += 3600;
    assert!(!site.sync(spec(4)).fresh_twin, "the spare tree went along");
    site.check();
    let before = inode(&site.live());
    site.mode = WantedMode::Auto;
    site.sync_as(spec(4), 4);
    assert!(fs::symlink_metadata(site.live()).unwrap().is_dir());
    assert_eq!((inode(&site.live()), site.standbys()), (before, 1));
    let left: Vec<_> = fs::read_dir(site.root().join("pub")).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "nothing of it is left: {left:?}");
    site.now += 3600;
    assert!(!site.sync(spec(5)).fresh_twin);
    site.check();
}

#[test]
fn a_link_of_others_is_not_touched_and_the_error_says_what_to_do() {
    let site = linked();
    fs::create_dir_all(site.root().join("pub/linux-2024")).unwrap();
    symlink("linux-2024", site.live()).unwrap();
    let error = Area::open(&site.fs, site.place()).unwrap_err();
    assert!(matches!(&error, Error::Elsewhere { target, .. } if target == "linux-2024"), "{error}");
    let said = error.to_string();
    assert!(said.contains("mv -T DIRECTORY") && said.contains("remove the link"), "{said}");
    assert_eq!(leads_to(&site), Path::new("linux-2024"));
}

#[test]
fn a_link_that_leads_nowhere_is_replaced_whichever_way_is_asked_for() {
    for mode in [WantedMode::Symlink, WantedMode::Auto, WantedMode::InPlace] {
        let mut site = linked();
        site.sync(spec(1));
        fs::remove_dir_all(site.live().canonicalize().unwrap()).unwrap();
        assert_eq!(*site.open().recovery(), Recovery::Gone);
        site.mode = mode;
        site.have = std::sync::Arc::new(protocol::manifest::Manifest::empty());
        site.sync(spec(2));
        site.check();
        let is_link = fs::symlink_metadata(site.live()).unwrap().is_symlink();
        assert_eq!(is_link, mode == WantedMode::Symlink);
    }
}

#[test]
fn a_link_that_was_turned_by_hand_to_an_older_tree_takes_no_tree_away() {
    let mut site = linked();
    site.sync(spec(1));
    let first = leads_to(&site);
    site.sync(spec(2));
    let second = site.live().canonicalize().unwrap();
    fs::write(second.join("note"), "an admin's").unwrap();
    fs::remove_file(site.live()).unwrap();
    symlink(&first, site.live()).unwrap();
    assert_eq!(*site.open().recovery(), Recovery::Foreign);
    assert_eq!(fs::read_to_string(site.live().join("d/b")).unwrap(), "in 1");
    assert_eq!(fs::read_to_string(second.join("d/b")).unwrap(), "in 2");
    let want = super::model::manifest(&spec(3));
    let scan = crate::scan::ScanOptions::new(i64::MAX);
    let record = crate::scan::ScanRecord::empty();
    let adopted = site.open().adopt(&want, View::AS_IS, &record, &scan).unwrap();
    site.have = std::sync::Arc::new(adopted.have);
    site.now += 3600;
    let report = site.sync(spec(3));
    assert!(report.trashed.iter().any(|path| *path == super::model::path("note")), "{report:?}");
    assert_eq!(fs::read_to_string(site.live().join("d/b")).unwrap(), "in 3");
    assert!(!second.exists(), "the tree that nobody knew is swept and gone");
}

#[test]
fn local_content_that_must_not_move_is_worked_around_behind_the_link() {
    let mut site = linked();
    site.sync(spec(1));
    fs::write(site.live().join("d/PROTECTED"), "").unwrap();
    fs::write(site.live().join("d/own"), "own").unwrap();
    let target = leads_to(&site);
    let report = site.sync(tree(&[("a", "new"), ("d/b", "not here"), ("d/only-in-1", "x")]));
    assert_eq!(report.mode, Some(Mode::InPlace), "{}", report.why);
    assert!(report.why.contains("d holds a PROTECTED file"), "{}", report.why);
    assert_eq!(leads_to(&site), target, "the link stays");
    assert_eq!(fs::read_to_string(site.live().join("a")).unwrap(), "new");
    assert_eq!(fs::read_to_string(site.live().join("d/b")).unwrap(), "in 1");
}

#[test]
fn a_tree_that_ends_or_is_purged_leaves_no_link_and_no_trees() {
    let mut site = linked();
    site.sync(spec(1));
    site.sync(spec(2));
    purge(&site.fs, &site.place()).unwrap();
    assert!(fs::symlink_metadata(site.live()).is_err());
    assert_eq!(trees(&site), [""; 0]);
    let mut site = linked();
    site.sync(spec(1));
    site.sync(spec(2));
    assert_eq!(site.open().end(site.now).unwrap(), Ended::Trashed);
    assert!(fs::symlink_metadata(site.live()).is_err());
    assert!(!site.root().join("pub/.mirrornet").exists());
}
