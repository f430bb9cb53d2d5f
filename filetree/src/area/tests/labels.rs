//! What the published directory carries beside modes, and what new objects get of it.

use super::{
    model::{Site, Spec, tree},
    *,
};
use crate::fs::{Attribute, Dir, FailPlan, Failure, Fs, Kind, memory::MemoryDisk};

const LABEL: &[u8] = b"system_u:object_r:httpd_sys_content_t:s0\0";
const OTHER: &[u8] = b"system_u:object_r:public_content_t:s0\0";

fn spec(round: u64) -> Spec {
    tree(&[
        ("same", "same"),
        ("d/changing", &format!("in {round}")),
        (&format!("d/new-{round}/x"), &format!("x in {round}")),
        (&format!("link-{round}"), "-> same"),
    ])
}

/// The labels of everything below a directory, and of the directory itself.
fn labels(dir: &Dir) -> Vec<(String, Option<Vec<u8>>)> {
    let mut found = vec![(String::new(), dir.attribute(Attribute::Label).unwrap())];
    for entry in dir.entries().unwrap() {
        let name = String::from_utf8_lossy(&entry.name).into_owned();
        if dir.stat(&entry.name).unwrap().unwrap().kind == Kind::Dir {
            let below = labels(&dir.open_child(&entry.name).unwrap());
            found.extend(below.into_iter().map(|(path, label)| (format!("{name}/{path}"), label)));
        } else {
            found.push((name, dir.attribute_of(&entry.name, Attribute::Label).unwrap()));
        }
    }
    found
}

fn assert_all(site: &Site, label: &[u8], which: impl Fn(&str) -> bool) {
    let live = site.fs.open_root(&site.live()).unwrap();
    let found = labels(&live);
    let wrong: Vec<_> = found
        .iter()
        .filter(|(path, found)| which(path) && found.as_deref() != Some(label))
        .collect();
    assert!(found.len() >= 6 && wrong.is_empty(), "{wrong:?}");
}

/// Brings a site through updates of this kind, with labels.
fn labeled(site: &mut Site, mode: WantedMode) {
    site.mode = mode;
    let publish = site.fs.create_root(&site.root().join("pub")).unwrap();
    publish.set_attribute(Attribute::Label, Some(LABEL)).unwrap();
    for round in 1..5 {
        site.now += 3600;
        site.sync(spec(round));
        assert_all(site, LABEL, |_| true);
    }
    // The admin gives the tree another one: what is new follows, the rest is the admin's.
    let live = site.fs.open_root(&site.live()).unwrap();
    live.set_attribute(Attribute::Label, Some(OTHER)).unwrap();
    site.now += 3600;
    site.sync(spec(5));
    assert_all(site, OTHER, |path| path.is_empty() || path.contains('5') || path == "d/changing");
}

const MODES: [WantedMode; 3] = [WantedMode::Auto, WantedMode::InPlace, WantedMode::Symlink];

#[test]
fn new_objects_get_the_label_of_what_is_published() {
    for mode in MODES {
        let mut site = Site::new();
        site.fs = Fs::with_backend(Box::<MemoryDisk>::default(), None);
        labeled(&mut site, mode);
    }
}

#[test]
fn new_objects_get_the_label_on_real_disks_too() {
    let mut tried = 0;
    for dir in [std::env::temp_dir(), "/dev/shm".into()] {
        let Ok(probe) = tempfile::tempdir_in(&dir) else { continue };
        let probe = Fs::disk().open_root(probe.path()).unwrap();
        if let Err(error) = probe.set_attribute(Attribute::Label, Some(LABEL)) {
            eprintln!("no labels can be given in {}: {error}: {}", dir.display(), error.source);
            continue;
        }
        for mode in MODES {
            labeled(&mut Site::new_in(&dir), mode);
            tried += 1;
        }
    }
    eprintln!("{tried} trees with labels on real disks");
}

#[test]
fn a_label_that_cannot_be_given_stops_the_switch_and_says_so() {
    let mut site = Site::new();
    let disk = MemoryDisk::default();
    site.fs = Fs::with_backend(Box::new(disk.clone()), None);
    let publish = site.fs.create_root(&site.root().join("pub")).unwrap();
    publish.set_attribute(Attribute::Label, Some(LABEL)).unwrap();
    site.sync(spec(1));
    let refused = Failure::Errno(rustix::io::Errno::ACCESS.raw_os_error());
    let plan = FailPlan::new(Some(Op::SetAttribute), 1, refused);
    let fs = Fs::with_backend(Box::new(disk), Some(std::sync::Arc::new(plan)));
    let mut area = Area::open(&fs, site.place()).unwrap();
    let options = crate::switch::SwitchOptions::new(site.now);
    let spec = spec(2);
    let failed = super::model::run(&mut area, &site.have, &spec, 2, &options, View::AS_IS);
    let error = failed.unwrap_err();
    assert!(error.to_string().starts_with("cannot set attribute "), "{error}");
    drop(area);
    super::model::assert_same(&super::model::read_on(&site.fs, &site.live()), &site.have);
}

/// As `setfacl -m u:1:rx,m::rx` leaves it on a directory of mode 0755.
fn access_list() -> Vec<u8> {
    let none = u32::MAX;
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(1_u16, 7_u16, none), (2, 5, 1), (4, 5, none), (16, 5, none), (32, 5, none)]
    {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

#[test]
fn the_published_directory_keeps_its_owner_mode_and_access_lists() {
    for in_memory in [true, false] {
        let mut site = Site::new();
        if in_memory {
            site.fs = Fs::with_backend(Box::<MemoryDisk>::default(), None);
        }
        site.sync(spec(1));
        let list = access_list();
        let live = site.fs.open_root(&site.live()).unwrap();
        if let Err(error) = live.set_attribute(Attribute::Acl, Some(&list)) {
            eprintln!("no access lists here: {}", error.source);
            continue;
        }
        live.set_attribute(Attribute::DefaultAcl, Some(&list)).unwrap();
        let root = rustix::process::geteuid().is_root();
        let parent = site.fs.open_root(&site.root().join("pub")).unwrap();
        if root {
            parent.set_owner_of(b"linux", 1).unwrap();
        }
        for round in 2..5 {
            site.now += 3600;
            site.sync(spec(round));
            let live = site.fs.open_root(&site.live()).unwrap();
            for which in [Attribute::Acl, Attribute::DefaultAcl] {
                assert_eq!(live.attribute(which).unwrap().as_ref(), Some(&list), "{round}");
            }
            let meta = live.meta().unwrap();
            assert_eq!((meta.mode & 0o777, meta.uid), (0o755, u32::from(root)), "{round}");
        }
        let live = site.fs.open_root(&site.live()).unwrap();
        live.set_attribute(Attribute::Acl, None).unwrap();
        site.now += 3600;
        site.sync(spec(6));
        let live = site.fs.open_root(&site.live()).unwrap();
        assert_eq!(live.attribute(Attribute::Acl).unwrap(), None);
    }
}
