//! Whether two trees are the same, in the opinion of programs that are not ours.

use std::{path::Path, process::Command};

use crate::programs::{isolate, succeed};

/// What `rsync -n` would still change to make `copy` equal to `original`, one line each; checks
/// content, kind, mode, time, link targets, and what is superfluous. `rules` are filter rules.
pub fn rsync_differences(original: &Path, copy: &Path, rules: &[&str]) -> Vec<String> {
    let mut command = Command::new("rsync");
    isolate(&mut command);
    command.args(["-n", "-rlptc", "--delete", "--itemize-changes", "--omit-dir-times", "-8"]);
    for rule in rules {
        // Both sides: what is left out must not be on the mirror either.
        command.arg(format!("--filter={rule}"));
    }
    if !rules.is_empty() {
        command.arg("--delete-excluded");
    }
    command.arg(slashed(original)).arg(slashed(copy));
    succeed(&mut command).lines().map(str::to_owned).collect()
}

/// `sha256sum` of every file below `dir`, by its path.
pub fn sha256sums(dir: &Path) -> String {
    let mut command = Command::new("sh");
    isolate(&mut command);
    command.args([
        "-c",
        "find . -type f -print0 | sort -z | xargs -0 -r sha256sum --zero | tr '\\0' '\\n'",
    ]);
    command.current_dir(dir);
    succeed(&mut command)
}

/// # Panics
/// When the trees differ in the opinion of `rsync` or of `sha256sum`.
pub fn assert_same(original: &Path, copy: &Path, rules: &[&str]) {
    let differences = rsync_differences(original, copy, rules);
    assert!(
        differences.is_empty(),
        "{} is not {}:\n{}",
        copy.display(),
        original.display(),
        differences.join("\n")
    );
    let (theirs, ours) = (sha256sums(original), sha256sums(copy));
    for line in ours.lines() {
        assert!(theirs.contains(line), "{}: {line}", copy.display());
    }
}

fn slashed(dir: &Path) -> String {
    format!("{}/", dir.display())
}
