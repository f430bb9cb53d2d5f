//! Where the programs are, and how one of them is called once.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

/// Directory of the built programs: `MIRRORNET_BIN_DIR`, else beside the running test, brought up
/// to date by cargo first (so that plain `cargo test` never runs yesterday's programs).
pub fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        if let Some(directory) = std::env::var_os("MIRRORNET_BIN_DIR") {
            return directory.into();
        }
        let own = std::env::current_exe().unwrap();
        let profile =
            own.ancestors().find(|dir| dir.join("deps").is_dir() || dir.ends_with("deps"));
        let profile = profile.unwrap_or_else(|| panic!("{} is in no target", own.display()));
        let profile = if profile.ends_with("deps") { profile.parent().unwrap() } else { profile };
        if own.parent().unwrap().ends_with("deps") {
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let mut build = Command::new(cargo);
            build.args(["build", "--locked", "--workspace", "--bins", "--quiet"]);
            build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
            if profile.ends_with("release") {
                build.arg("--release");
            }
            assert!(build.status().unwrap().success(), "the programs do not build");
        }
        profile.to_owned()
    })
}

/// One of the built programs, with an environment that cannot disturb it.
pub fn program(name: &str) -> Command {
    let path = directory().join(name);
    assert!(path.is_file(), "{} is not built", path.display());
    let mut command = Command::new(path);
    isolate(&mut command);
    command
}

/// Takes everything out of the environment that would configure a program from outside.
pub fn isolate(command: &mut Command) {
    for (key, _) in std::env::vars_os() {
        let key = key.to_string_lossy().into_owned();
        let ours = key.starts_with("MIRRORNET_");
        let proxy = key.to_ascii_lowercase().ends_with("_proxy");
        if ours || proxy || key.starts_with("RSYNC_") || key == "NOTIFY_SOCKET" {
            command.env_remove(key);
        }
    }
    // As their units have it.
    command.env("MALLOC_ARENA_MAX", "2");
    command.env("MALLOC_MMAP_THRESHOLD_", "65536").env("MALLOC_TRIM_THRESHOLD_", "1048576");
    command.env("TZ", "UTC").env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
}

/// What a finished command printed, both streams, for a failed assertion.
pub fn told(output: &Output) -> String {
    format!(
        "{}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Runs a command to its end and takes its standard output.
///
/// # Panics
/// With both streams, when it fails.
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}\n{}", told(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
