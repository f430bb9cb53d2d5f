//! Two releases of several Python packages, as wheels unpacked into one tree: source files, data,
//! compiled libraries. Fetched once from the registry of packages and kept below `target`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tests::programs::{self, isolate, succeed};

/// Package, older release, newer release. Chosen to have about as many changed, added and removed
/// files as a release of a distribution: some packages change one file in a hundred, some half.
const PACKAGES: [(&str, &str, &str); 6] = [
    ("numpy", "2.2.0", "2.2.1"),
    ("pandas", "2.2.2", "2.2.3"),
    ("django", "5.1", "5.1.1"),
    ("babel", "2.15.0", "2.16.0"),
    ("botocore", "1.35.0", "1.35.40"),
    ("sympy", "1.12.1", "1.13.0"),
];

/// A tree before and after.
pub(crate) struct Releases {
    pub(crate) old: PathBuf,
    pub(crate) new: PathBuf,
}

/// The corpus, fetched where it is not there yet.
pub(crate) fn releases() -> Releases {
    let dir = programs::directory().join("../corpus");
    let release = |name: &str, pick: fn(&(&str, &'static str, &'static str)) -> &'static str| {
        let release = dir.join(name);
        if !release.is_dir() {
            let unfinished = dir.join(format!("{name}.part"));
            let _ = fs::remove_dir_all(&unfinished);
            for package in &PACKAGES {
                unpack(package.0, pick(package), &dir.join("wheels"), &unfinished);
            }
            fs::rename(unfinished, &release).unwrap();
        }
        release
    };
    Releases { old: release("old", |package| package.1), new: release("new", |package| package.2) }
}

fn unpack(package: &str, version: &str, wheels: &Path, to: &Path) {
    let wheels = wheels.join(format!("{package}-{version}"));
    fs::create_dir_all(&wheels).unwrap();
    let mut pip = Command::new("python3");
    isolate(&mut pip);
    // One platform, wherever this runs: what is compared must be the same everywhere.
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]);
    pip.args(["--platform", "manylinux2014_x86_64", "--implementation", "cp"]);
    pip.args(["--python-version", "3.11", "--dest"]).arg(&wheels);
    pip.arg(format!("{package}=={version}"));
    succeed(&mut pip);
    let wheel = fs::read_dir(&wheels).unwrap().next().unwrap().unwrap().path();
    let place = to.join(package);
    fs::create_dir_all(&place).unwrap();
    let mut unzip = Command::new("python3");
    isolate(&mut unzip);
    unzip.args(["-m", "zipfile", "-e"]).arg(wheel).arg(place);
    succeed(&mut unzip);
}

/// Puts the first `count` files of the newer release that are no larger than `size` below `to`.
pub(crate) fn small_files(count: usize, size: u64, to: &Path) {
    let new = releases().new;
    let files = walkdir::WalkDir::new(&new).sort_by_file_name().into_iter().map(Result::unwrap);
    let small = files.filter(|entry| {
        let meta = entry.metadata().unwrap();
        meta.is_file() && meta.len() <= size
    });
    let mut copied = 0;
    for entry in small.take(count) {
        let copy = to.join(entry.path().strip_prefix(&new).unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(entry.path(), copy).unwrap();
        copied += 1;
    }
    assert_eq!(copied, count, "the corpus has too few files of at most {size} bytes");
}
