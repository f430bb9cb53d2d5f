//! Real files: two published releases of a crate, and a part of `/usr/share`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tests::programs::{isolate, succeed};

/// The part of `/usr/share` that the stock rsync daemon serves, where this machine has it.
pub(crate) const SHARE: &str = "a part of /usr/share";
const CRATE: &str = "tokio";
const RELEASES: [&str; 2] = ["1.40.0", "1.41.0"];

/// Two releases, unpacked.
pub(crate) struct Corpus {
    pub(crate) title: String,
    pub(crate) old: PathBuf,
    pub(crate) new: PathBuf,
}

/// Has cargo fetch both releases from the registry.
pub(crate) fn prepare(dir: &Path) -> Corpus {
    let [old, new] = RELEASES.map(|version| vendor(&dir.join(version), version));
    Corpus { title: format!("{CRATE} {} and then {}", RELEASES[0], RELEASES[1]), old, new }
}

fn vendor(dir: &Path, version: &str) -> PathBuf {
    fs::create_dir_all(dir.join("src")).unwrap();
    fs::write(dir.join("src/lib.rs"), "").unwrap();
    fs::write(
        dir.join("Cargo.toml"),
        format!(
            "[package]\nname = \"corpus\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\
             [workspace]\n[dependencies]\n{CRATE} = {{ version = \"={version}\", default-features = false }}\n"
        ),
    )
    .unwrap();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["vendor", "--quiet", "vendor"]).current_dir(dir);
    let output = cargo.output().unwrap();
    assert!(
        output.status.success(),
        "the demonstration needs {CRATE} {version} from the registry of crates, and cargo cannot \
         fetch it:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    dir.join("vendor").join(CRATE)
}

/// Makes `live` what `release` is, as an upstream's release process would.
pub(crate) fn replace(release: &Path, live: &Path) {
    fs::create_dir_all(live).unwrap();
    let mut rsync = Command::new("rsync");
    isolate(&mut rsync);
    rsync.args(["-a", "--delete", "--checksum"]);
    rsync.arg(format!("{}/", release.display())).arg(live);
    succeed(&mut rsync);
}

/// Changes some lines of some files, as a hotfix would.
pub(crate) fn edit(live: &Path) {
    let mut edited = 0;
    for entry in walkdir::WalkDir::new(live).sort_by_file_name() {
        let entry = entry.unwrap();
        let is_source = entry.path().extension().is_some_and(|extension| extension == "rs");
        if is_source && entry.metadata().unwrap().len() > 8192 && edited < 12 {
            let text = fs::read_to_string(entry.path()).unwrap();
            fs::write(entry.path(), format!("// Corrected after the release.\n{text}")).unwrap();
            edited += 1;
        }
    }
    assert!(edited > 0, "the release has no source files");
}

/// Adds a line to a dozen files, whatever they hold.
pub(crate) fn add_lines(live: &Path) {
    let entries = walkdir::WalkDir::new(live).sort_by_file_name().into_iter();
    let files = entries.map(Result::unwrap).filter(|entry| entry.file_type().is_file());
    for entry in files.filter(|file| file.metadata().unwrap().len() > 1024).take(12) {
        let mut content = fs::read(entry.path()).unwrap();
        content.extend_from_slice(b"One line more.\n");
        fs::write(entry.path(), content).unwrap();
    }
}

/// Copies a part of `/usr/share` that every system has one of.
pub(crate) fn copy_share(to: &Path) {
    let parts = ["zoneinfo", "terminfo", "i18n", "common-licenses", "doc"];
    let from = parts.iter().map(|part| Path::new("/usr/share").join(part)).find(|p| p.is_dir());
    let from = from.unwrap_or_else(|| panic!("/usr/share has none of {parts:?}"));
    fs::create_dir_all(to).unwrap();
    let mut rsync = Command::new("rsync");
    isolate(&mut rsync);
    // A mirror does not carry links that lead out of the tree.
    rsync.args(["-a", "--safe-links", "--max-size=1m"]);
    rsync.arg(format!("{}/", from.display())).arg(to);
    succeed(&mut rsync);
}
