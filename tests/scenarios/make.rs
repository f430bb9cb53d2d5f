//! The scripts behind `make`, on systems that this one is not.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Output},
};

use tests::programs::{isolate, told};

const SCRIPTS: &str = env!("CARGO_MANIFEST_DIR");

fn program(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn script(name: &str, args: &[&str], path: &str) -> Output {
    let mut command = Command::new("/bin/sh");
    isolate(&mut command);
    command.arg(format!("{SCRIPTS}/{name}")).args(args).env("PATH", path).output().unwrap()
}

/// A system with `dnf` and without any of our needs; what `dnf` is asked for stands in `asked`.
fn fedora(uid: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["sh", "cut", "sort", "tr", "cat", "ls"] {
        let there = ["/usr/bin", "/bin"].map(|bin| Path::new(bin).join(name));
        symlink(there.iter().find(|path| path.exists()).unwrap(), dir.path().join(name)).unwrap();
    }
    program(dir.path(), "cargo", "exit 0");
    program(dir.path(), "id", &format!("echo {uid}"));
    program(dir.path(), "dnf", &format!("echo \"$@\" >> {}/asked", dir.path().display()));
    dir
}

#[test]
fn on_fedora_what_is_missing_is_installed_by_its_name_there() {
    let system = fedora(0);
    let output = script("need.sh", &["build", "test"], system.path().to_str().unwrap());
    assert!(output.status.success(), "{}", told(&output));
    let asked = fs::read_to_string(system.path().join("asked")).unwrap();
    assert!(asked.starts_with("install -y "), "{asked}");
    let packages: Vec<&str> = asked.split_whitespace().skip(2).collect();
    for wanted in ["gcc", "make", "rsync", "rdiff", "coreutils", "strace"] {
        assert!(packages.contains(&wanted), "{wanted} is not among {packages:?}");
    }
    assert!(!packages.contains(&"nginx-light"), "a name of Debian's: {packages:?}");
}

#[test]
fn who_may_not_install_is_told_the_exact_command() {
    let system = fedora(1000);
    let output = script("need.sh", &["demo"], system.path().to_str().unwrap());
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let said = told(&output);
    assert!(said.contains("dnf install -y") && said.contains("rsync"), "{said}");
    assert!(!system.path().join("asked").exists(), "it was installed all the same");
}

/// What `run.sh` makes of two passes, the second with encoders forced: whether it succeeds, and what it
/// says last.
fn counted(has_nextest: bool, first: (&str, u32), second: &str) -> (bool, String) {
    let dir = tempfile::tempdir().unwrap();
    let (results, code) = first;
    let text = format!(
        "[ \"$1 $2\" = 'nextest --version' ] && exit {}\n\
         [ -n \"$MIRRORNET_ENCODERS\" ] && printf '{second}' && exit 0\n\
         printf '{results}'\nexit {code}",
        if has_nextest { 0 } else { 101 }
    );
    program(dir.path(), "cargo", &text);
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let output = script("run.sh", &[], &path);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), said.lines().last().unwrap_or_default().to_owned())
}

#[test]
fn without_nextest_the_tests_of_cargo_itself_are_counted() {
    let ok = "test result: ok. 7 passed; 0 failed; 0 ignored\\n";
    let bad = "test result: FAILED. 2 passed; 1 failed; 0 ignored\\n";
    let counted = |first: &str, code| counted(false, (first, code), ok);
    assert_eq!(counted(&format!("{ok}{ok}"), 0), (true, "21 passed, 0 failed".into()));
    assert_eq!(counted(&format!("{ok}{bad}"), 101), (false, "16 passed, 1 failed".into()));
    assert!(!counted("error: could not compile\\n", 101).0, "what was not built has not passed");
}

#[test]
fn both_passes_of_nextest_are_counted() {
    let ok = "     Summary [  12.345s] 8 tests run: 8 passed (1 slow), 3 skipped\\n";
    let bad = "     Summary [ 1.5s] 10 tests run: 6 passed, 2 failed, 1 timed out, 1 exec failed, 3 skipped\\n";
    let counted = |first: &str, code| counted(true, (first, code), ok);
    assert_eq!(counted(ok, 0), (true, "16 passed, 0 failed".into()));
    assert_eq!(counted(bad, 100), (false, "14 passed, 4 failed".into()));
    assert!(!counted("error: could not compile\\n", 101).0, "what was not built has not passed");
}
