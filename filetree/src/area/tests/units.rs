//! What lies beside the units: links, status files, and units on their way to the trash.

use std::{collections::BTreeMap, path::Path};

use protocol::path::TreePath;

use super::{
    crash::{ROOT, on},
    *,
};
use crate::{
    area::units::{Instead, Linked},
    fs::{
        Dir, Fs,
        memory::{Dice, MemoryDisk, Seen},
    },
};

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn open(fs: &Fs) -> Area {
    let place = Place {
        publish: Path::new(ROOT).join("pub"),
        work: Path::new(ROOT).join("work"),
        name: "tree".into(),
        path: path("tree"),
    };
    Area::open(fs, place).unwrap()
}

fn write(dir: &Dir, name: &[u8], text: &str) {
    let file = dir.create_file(name).unwrap();
    file.write_at(0, text.as_bytes()).unwrap();
    file.sync().unwrap();
}

/// Three directories with a file each, and a link to the first.
fn prepared(fs: &Fs) -> Area {
    fs.create_root(Path::new(ROOT)).unwrap();
    let mut area = open(fs);
    let dir = area.make_directory().unwrap();
    for name in ["v1", "v2", "moves"] {
        let unit = dir.ensure_dir(name.as_bytes(), 0o755).unwrap();
        write(&unit, b"content", name);
    }
    dir.symlink(b"latest", b"v1").unwrap();
    dir.sync_fs().unwrap();
    area
}

#[test]
fn a_link_replaces_what_is_no_directory_and_a_directory_only_where_that_is_asked_for() {
    let disk = MemoryDisk::default();
    let area = prepared(&on(&disk));
    let link = |name: &str, instead| area.set_link(&path(name), b"v1", instead, 7).unwrap();
    assert_eq!(link("latest", Instead::OfEmptyDirectory), Linked::Kept);
    assert_eq!(link("new", Instead::OfEmptyDirectory), Linked::Made);
    assert_eq!(link("moves", Instead::OfEmptyDirectory), Linked::Occupied);
    let live = area.directory().unwrap().unwrap();
    write(&live.open_child(b"v2").unwrap().ensure_dir(b"deep", 0o755).unwrap(), b"PROTECTED", "");
    assert_eq!(link("v2", Instead::OfDirectory), Linked::Protected);
    assert!(area.is_protected(&path("v2")).unwrap() && !area.remove_unit(&path("v2"), 7).unwrap());
    assert_eq!(link("moves", Instead::OfDirectory), Linked::Made);
    let trash = area.work_dir().open_dir(&path("trash/7/moves")).unwrap();
    assert_eq!(trash.open_file(b"content").unwrap().meta().unwrap().size, 5);
    assert_eq!(live.read_link(b"moves").unwrap(), b"v1");
}

#[test]
fn a_units_status_file_keeps_the_units_time_and_replaces_an_older_one() {
    let disk = MemoryDisk::default();
    let area = prepared(&on(&disk));
    area.dress_unit(&path("v1"), 0o755, 5_000_000_000).unwrap();
    for text in ["once", "twice as long"] {
        area.write_in_unit(&path("v1"), b"STATUS", text.as_bytes()).unwrap();
        let unit = area.directory().unwrap().unwrap().open_child(b"v1").unwrap();
        assert_eq!(unit.meta().unwrap().mtime, 5_000_000_000);
        let meta = unit.stat(b"STATUS").unwrap().unwrap();
        assert_eq!((meta.size, meta.mode), (text.len() as u64, 0o644));
    }
}

/// What a reader and an admin could find wrong on a disk.
fn wrong(found: &BTreeMap<Vec<u8>, Seen>) -> Option<String> {
    let at = |path: &str| found.get(path.as_bytes());
    match at("pub/tree/v1/STATUS") {
        None => {}
        Some(Seen::File(content, ..)) if content == b"FINISHED\n" => {}
        other => return Some(format!("STATUS is {other:?}")),
    }
    match at("pub/tree/latest") {
        Some(Seen::Symlink(target)) if target == b"v1" || target == b"v2" => {}
        other => return Some(format!("latest is {other:?}")),
    }
    if at("pub/tree/moves").is_none() {
        return Some("nothing has the name of what is to be a link".into());
    }
    for unit in ["moves", "v2"] {
        let end = format!("/{unit}/content");
        let is_kept = |(path, seen): (&Vec<u8>, &Seen)| {
            path.ends_with(end.as_bytes())
                && matches!(seen, Seen::File(content, ..) if content == unit.as_bytes())
        };
        if !found.iter().any(is_kept) {
            return Some(format!("the content of {unit} is lost"));
        }
    }
    None
}

#[test]
fn r47_r95_power_lost_at_any_moment_leaves_every_name_whole_and_no_content_lost() {
    let disk = MemoryDisk::default();
    drop(prepared(&on(&disk)));
    disk.record();
    let area = open(&on(&disk));
    area.write_in_unit(&path("v1"), b"STATUS", b"FINISHED\n").unwrap();
    area.set_link(&path("latest"), b"v2", Instead::OfEmptyDirectory, 7).unwrap();
    area.set_link(&path("moves"), b"v1", Instead::OfDirectory, 7).unwrap();
    area.set_link(&path("latest"), b"v1", Instead::OfEmptyDirectory, 8).unwrap();
    assert!(area.remove_unit(&path("v2"), 9).unwrap());
    drop(area);
    let mut dice = Dice::new(47);
    let mut states = 0;
    for (number, moment) in disk.moments().iter().enumerate() {
        for _ in 0..20 {
            let left = moment.crash(&mut dice);
            let found = left.list(Path::new(ROOT)).unwrap();
            assert_eq!(wrong(&found), None, "moment {number}");
            // Whatever was on its way to the trash arrives there with the next change.
            let area = open(&on(&left));
            area.set_link(&path("latest"), b"v1", Instead::OfEmptyDirectory, 10).unwrap();
            area.set_link(&path("latest"), b"moves", Instead::OfEmptyDirectory, 10).unwrap();
            let found = left.list(Path::new(ROOT)).unwrap();
            let beside = found.keys().filter(|path| path.starts_with(b"work/tree/beside/"));
            assert_eq!(beside.count(), 0, "moment {number}");
            states += 1;
        }
    }
    assert!(states > 500, "{states}");
}
