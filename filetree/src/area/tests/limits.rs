//! A file system gives one file only so many names.

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt, path::Path};

use super::{
    model::{Site, tree},
    *,
};

/// Names that ext4 gives one file.
const MOST: u64 = 65_000;

/// Gives a file names beside the tree until the disk gives it no more, and takes a few away again;
/// says how many it can have. `None` where that is more than ext4 allows.
fn use_up_names(file: &Path, beside: &Path, left: u64) -> Option<u64> {
    fs::create_dir(beside).unwrap();
    for n in 0..MOST {
        if let Err(error) = fs::hard_link(file, beside.join(n.to_string())) {
            assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::MLINK.raw_os_error()));
            let most = fs::metadata(file).unwrap().nlink();
            (0..left).for_each(|n| fs::remove_file(beside.join(n.to_string())).unwrap());
            return Some(most);
        }
    }
    None
}

#[test]
fn more_names_than_a_real_disk_gives_one_file_are_published_all_the_same() {
    let names: Vec<String> = (0..20).map(|n| format!("d/f{n}")).collect();
    let spec = |count: usize, changed: &str| {
        let mut list: Vec<_> = names[..count].iter().map(|name| (&**name, "the same")).collect();
        list.push(("changing", changed));
        tree(&list)
    };
    let mut site = Site::new();
    site.sync(spec(1, "one"));
    let first = site.live().join("d/f0");
    let Some(most) = use_up_names(&first, &site.root().join("beside"), 5) else {
        eprintln!("skipped: a file has more than {MOST} names here");
        return;
    };
    eprintln!("a file has at most {most} names here");
    let inodes = |site: &Site| -> BTreeSet<u64> {
        let inode = |name: &String| fs::metadata(site.live().join(name)).unwrap().ino();
        names.iter().map(inode).collect()
    };
    for (round, changed) in ["two", "three", "four"].into_iter().enumerate() {
        site.now += 3600;
        let report = site.sync(spec(20, changed));
        assert_eq!(report.mode, Some(Mode::Exchange));
        site.check();
        let inodes = inodes(&site).len();
        // Each switch that runs out of names makes one copy, not one for each name.
        assert!(inodes <= round + 2, "{inodes} files in round {round}");
    }
    assert_eq!(fs::metadata(site.root().join("beside/9")).unwrap().nlink(), most);
}
