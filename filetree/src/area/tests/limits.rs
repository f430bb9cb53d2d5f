//! A file system gives one file only so many names.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use super::{
    model::{Node, Site, Spec},
    *,
};

/// Names that ext4 gives one file.
const MOST: u64 = 65_000;

/// Most names that this disk gives one file, where that is no more than ext4's.
fn most_names(dir: &Path) -> Option<u64> {
    let first = dir.join("0");
    fs::write(&first, "").unwrap();
    for n in 1..=MOST {
        if let Err(error) = fs::hard_link(&first, dir.join(n.to_string())) {
            assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::MLINK.raw_os_error()));
            return Some(n);
        }
    }
    None
}

#[test]
fn more_names_than_a_real_disk_gives_one_file_are_published_all_the_same() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(most) = most_names(scratch.path()) else {
        eprintln!("skipped: a file has more than {MOST} names here");
        return;
    };
    drop(scratch);
    let names = most + 100;
    let spec = |changed: &str| -> Spec {
        let mut spec: Spec = (0..names)
            .map(|n| (format!("d{}/f{n}", n / 1_000).into_bytes(), Node::file("the same")))
            .collect();
        spec.insert(b"changing".to_vec(), Node::file(changed));
        spec
    };
    let mut site = Site::new();
    let report = site.sync(spec("one"));
    assert_eq!(report.changed_entries, names + most / 1_000 + 2);
    let file = |n: u64| fs::metadata(site.live().join(format!("d{}/f{n}", n / 1_000))).unwrap();
    assert!(file(0).nlink() <= most);
    let inodes: std::collections::BTreeSet<u64> = (0..names).map(|n| file(n).ino()).collect();
    assert_eq!(inodes.len(), 2, "one copy takes the names that are too many");
    site.check();
    // The twin finds no name left for most of them.
    site.now += 3600;
    let report = site.sync(spec("two"));
    assert_eq!((report.mode, report.changed_entries), (Some(Mode::Exchange), 1));
    site.check();
    let inodes: std::collections::BTreeSet<u64> = (0..names).map(|n| file(n).ino()).collect();
    assert!(inodes.len() <= 4, "{} copies", inodes.len());
}
