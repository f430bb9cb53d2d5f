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

#[test]
fn without_nextest_the_tests_of_cargo_itself_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let cargo = |results: &str, code: u32| {
        let text = format!("[ \"$1\" = nextest ] && exit 101\nprintf '{results}'\nexit {code}");
        program(dir.path(), "cargo", &text);
        let output = script("run.sh", &[], &path);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), said.lines().last().unwrap_or_default().to_owned())
    };
    let ok = "test result: ok. 7 passed; 0 failed; 0 ignored\\n";
    let bad = "test result: FAILED. 2 passed; 1 failed; 0 ignored\\n";
    assert_eq!(cargo(&format!("{ok}{ok}"), 0), (true, "14 passed, 0 failed".into()));
    assert_eq!(cargo(&format!("{ok}{bad}"), 101), (false, "9 passed, 1 failed".into()));
    assert!(!cargo("error: could not compile\\n", 101).0, "what was not built has not passed");
}
