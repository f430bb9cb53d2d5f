//! Generations of a small tree that differ in everything that a tree can differ in, and what is
//! wrong with a directory that should hold one of them.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path};

use tests::fixture::{prose, write};

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Thing {
    /// Content and mode.
    File(Vec<u8>, u32),
    /// Where it points.
    Link(String),
}

/// Files and symlinks by path; directories follow from them.
pub(crate) type Tree = BTreeMap<String, Thing>;

/// The generation `number` of a tree.
pub(crate) fn generation(number: u64) -> Tree {
    let turn = number.is_multiple_of(2);
    let mut tree = Tree::new();
    let mut file = |path: &str, content: String, mode: u32| {
        tree.insert(path.to_owned(), Thing::File(content.into_bytes(), mode));
    };
    for n in 0..6 {
        file(&format!("d{}/f{n}", n % 3), format!("{number}\n{}", prose(n, 9_000)), 0o644);
    }
    file("same", "same".to_owned(), 0o644);
    file("deep/er/same", "same too".to_owned(), 0o644);
    file(if turn { "old-name" } else { "new-name" }, "moved".to_owned(), 0o644);
    file("attributes", "constant".to_owned(), if turn { 0o755 } else { 0o644 });
    file(&format!("only-in-{number}/x"), "x".to_owned(), 0o644);
    file("repodata/repomd.xml", format!("index {number}"), 0o644);
    if turn {
        file("kind", "a file".to_owned(), 0o644);
        tree.insert("other".to_owned(), Thing::Link("same".to_owned()));
    } else {
        file("kind/with", "content".to_owned(), 0o644);
        file("other/in", "side".to_owned(), 0o644);
    }
    tree
}

/// Makes a directory hold exactly a tree.
pub(crate) fn put(dir: &Path, tree: &Tree) {
    fs::create_dir_all(dir).unwrap();
    // The root itself stays: a publisher takes another one for a disk that is not mounted.
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => fs::remove_dir_all(entry.path()).unwrap(),
            false => fs::remove_file(entry.path()).unwrap(),
        }
    }
    for (path, thing) in tree {
        let at = dir.join(path);
        match thing {
            Thing::File(content, mode) => {
                write(&at, content);
                fs::set_permissions(&at, fs::Permissions::from_mode(*mode)).unwrap();
                // As a build would: what did not change keeps its time.
                let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000);
                fs::File::options().write(true).open(&at).unwrap().set_modified(time).unwrap();
            }
            Thing::Link(target) => {
                fs::create_dir_all(at.parent().unwrap()).unwrap();
                std::os::unix::fs::symlink(target, at).unwrap();
            }
        }
    }
}

/// What a directory holds, without what other programs put there.
pub(crate) fn read(dir: &Path, is_local: impl Fn(&str) -> bool) -> Tree {
    let mut tree = Tree::new();
    for entry in walkdir::WalkDir::new(dir).min_depth(1).into_iter().filter_map(Result::ok) {
        let path = entry.path().strip_prefix(dir).unwrap().to_string_lossy().into_owned();
        if is_local(&path) || path.starts_with(".mirrornet") {
            continue;
        }
        let thing = if entry.path_is_symlink() {
            Thing::Link(fs::read_link(entry.path()).unwrap().to_string_lossy().into_owned())
        } else if entry.file_type().is_file() {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
            Thing::File(fs::read(entry.path()).unwrap(), mode)
        } else {
            continue;
        };
        tree.insert(path, thing);
    }
    tree
}

/// The first difference between two trees.
pub(crate) fn difference(now: &Tree, wanted: &Tree) -> Option<String> {
    let wrong = now.iter().find(|(path, thing)| wanted.get(*path) != Some(*thing));
    let missing = || wanted.keys().find(|path| !now.contains_key(*path));
    wrong
        .map(|(path, _)| format!("{path} is not as it should be"))
        .or_else(|| missing().map(|path| format!("{path} is missing")))
}
