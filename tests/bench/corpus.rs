//! Two releases of several Python packages, as wheels unpacked into one tree: source files, data,
//! compiled libraries. Fetched once from the registry of packages and kept below `target`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tests::programs::{self, isolate, succeed};

/// Package, older release, newer release. Chosen to have about as many files, and changed, added
/// and removed ones, as a release of a distribution: some packages change one file in a hundred,
/// some half.
const PACKAGES: [Package; 8] = [
    ("numpy", "2.2.0", "2.2.1"),
    ("pandas", "2.2.2", "2.2.3"),
    ("django", "5.1", "5.1.1"),
    ("babel", "2.15.0", "2.16.0"),
    ("sympy", "1.12.1", "1.13.0"),
    ("google-api-python-client", "2.140.0", "2.141.0"),
    ("sqlalchemy", "2.0.35", "2.0.36"),
    ("matplotlib", "3.9.1", "3.9.2"),
];

/// Nearly all of what changes in it are files that gzip made.
const GZIPPED: [Package; 1] = [("botocore", "1.35.0", "1.35.40")];

type Package = (&'static str, &'static str, &'static str);

/// A tree before and after.
pub(crate) struct Releases {
    pub(crate) old: PathBuf,
    pub(crate) new: PathBuf,
}

/// Wheels, unpacked.
pub(crate) fn releases() -> Releases {
    unpacked("releases", &PACKAGES)
}

/// Wheels, unpacked, with files in them that are compressed by themselves.
pub(crate) fn gzipped() -> Releases {
    unpacked("gzipped", &GZIPPED)
}

fn unpacked(kind: &str, packages: &[Package]) -> Releases {
    kept(kind, |dir, is_new| {
        for (name, old, new) in packages {
            unpack(name, if is_new { new } else { old }, dir);
        }
    })
}

fn unpack(package: &str, version: &str, to: &Path) {
    let wheels = wheels().join(format!("{package}-{version}"));
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

/// Where wheels are kept, one in a directory of its own.
fn wheels() -> PathBuf {
    programs::directory().join("../corpus/wheels")
}

/// Puts the first `count` files of the newer releases that are no larger than `size` below `to`.
pub(crate) fn small_files(count: usize, size: u64, to: &Path) {
    let mut copied = 0;
    for new in [releases().new, sources().new] {
        let files = walkdir::WalkDir::new(&new).sort_by_file_name().into_iter().map(Result::unwrap);
        let small = files.filter(|entry| {
            let meta = entry.metadata().unwrap();
            meta.is_file() && meta.len() <= size
        });
        for entry in small.take(count - copied) {
            let copy = to.join(entry.path().strip_prefix(&new).unwrap());
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::copy(entry.path(), copy).unwrap();
            copied += 1;
        }
    }
    assert_eq!(copied, count, "the corpus has too few files of at most {size} bytes");
}

/// Crate, older release, newer release.
const CRATES: [(&str, &str, &str); 9] = [
    ("tokio", "1.40.0", "1.41.0"),
    ("hyper", "1.4.0", "1.5.0"),
    ("regex-syntax", "0.8.4", "0.8.5"),
    ("syn", "2.0.70", "2.0.85"),
    ("clap_builder", "4.5.0", "4.5.20"),
    ("rustls", "0.23.10", "0.23.15"),
    ("serde_json", "1.0.120", "1.0.132"),
    ("nix", "0.28.0", "0.29.0"),
    ("libc", "0.2.155", "0.2.160"),
];

/// Two trees that are made once and kept below `target`: `make` gets the directory and whether it
/// is the newer one.
fn kept(kind: &str, make: impl Fn(&Path, bool)) -> Releases {
    let dir = programs::directory().join("../corpus").join(kind);
    let [old, new] = ["old", "new"].map(|side| {
        let tree = dir.join(side);
        if !tree.is_dir() {
            let unfinished = dir.join(format!("{side}.part"));
            let _ = fs::remove_dir_all(&unfinished);
            fs::create_dir_all(&unfinished).unwrap();
            make(&unfinished, side == "new");
            fs::rename(unfinished, &tree).unwrap();
        }
        tree
    });
    Releases { old, new }
}

/// Source trees of several crates and what they depend on.
pub(crate) fn sources() -> Releases {
    kept("sources", |dir, is_new| {
        let project = tempfile::tempdir().unwrap();
        fs::create_dir(project.path().join("src")).unwrap();
        fs::write(project.path().join("src/lib.rs"), "").unwrap();
        let mut manifest = String::from(
            "[package]\nname = \"corpus\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\
             [workspace]\n[dependencies]\n",
        );
        for (name, old, new) in CRATES {
            let version = if is_new { new } else { old };
            manifest.push_str(&format!(
                "{name} = {{ version = \"={version}\", default-features = false }}\n"
            ));
        }
        fs::write(project.path().join("Cargo.toml"), manifest).unwrap();
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["vendor", "--quiet"]).arg(dir.join("vendor")).current_dir(project.path());
        succeed(&mut cargo);
    })
}

/// Wheels as they are published: the newer ones come beside the older.
pub(crate) fn pool() -> Releases {
    releases();
    kept("pool", |dir, is_new| {
        for (name, old, new) in PACKAGES {
            for version in [old, new].into_iter().take(1 + usize::from(is_new)) {
                let from = wheels().join(format!("{name}-{version}"));
                let wheel = fs::read_dir(from).unwrap().next().unwrap().unwrap();
                fs::copy(wheel.path(), dir.join(wheel.file_name())).unwrap();
            }
        }
    })
}

/// A file system with a release in it.
pub(crate) fn image() -> Releases {
    const ID: &str = "6d1b9e30-0000-4000-8000-000000000001";
    let Releases { old, new } = releases();
    kept("image", |dir, is_new| {
        let image = dir.join("disk.img");
        fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
        let mut mke2fs = Command::new("/usr/sbin/mke2fs");
        isolate(&mut mke2fs);
        mke2fs.args(["-q", "-t", "ext4", "-U", ID, "-E"]);
        mke2fs.arg(format!("hash_seed={ID},lazy_itable_init=0"));
        mke2fs.arg("-d").arg(if is_new { &new } else { &old }).arg(&image);
        succeed(&mut mke2fs);
    })
}

/// A web server's log of a day, and what came after it.
pub(crate) fn log() -> Releases {
    kept("log", |dir, is_new| {
        let mut state = 7u64;
        let mut random = |end: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 20) % end
        };
        let agents = ["curl/8.5.0", "Wget/1.21", "Debian APT-HTTP/1.3 (2.6.1)", "libdnf (Fedora)"];
        let mut log = String::new();
        for n in 0..300_000 + if is_new { 30_000 } else { 0 } {
            let client = random(5_000);
            let (file, agent) = (random(3_000), agents[random(4) as usize]);
            let status = [200, 200, 200, 206, 304, 404][random(6) as usize];
            log.push_str(&format!(
                "10.{}.{}.{} - - [27/Nov/2026:{:02}:{:02}:{:02} +0000] \
                 \"GET /pub/package-{file:x}.tar.xz HTTP/1.1\" {status} {} \"-\" \"{agent}\"\n",
                client / 250 % 250,
                client % 250,
                client % 7,
                n / 14_000 % 24,
                n / 233 % 60,
                n / 4 % 60,
                file * 7_919 + 1_000,
            ));
        }
        fs::write(dir.join("access.log"), log).unwrap();
    })
}
