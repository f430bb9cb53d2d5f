use std::{fs, os::unix::fs::PermissionsExt as _, time::Instant};

use uuid::Uuid;

use super::*;
use crate::run_log::{Kept, Shelf};

struct Site {
    dir: tempfile::TempDir,
    shelf: Shelf,
    log: RunLog,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::of(dir.path());
        let log = shelf.begin(&"fedora@lisbon".parse().unwrap(), Uuid::now_v7());
        Self { dir, shelf, log }
    }

    /// A script as the command of every hook.
    fn hooks(&self, script: &str, limit: Span) -> HooksConfig {
        let path = self.dir.path().join("hook");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let command = vec![path.display().to_string(), "$(touch /tmp/never) *".to_owned()];
        HooksConfig {
            before: command.clone(),
            after_change: command,
            time_limit: limit,
            ..HooksConfig::default()
        }
    }

    fn logged(&self) -> String {
        self.shelf.read(&"fedora@lisbon".parse().unwrap(), Kept::Current).unwrap().unwrap()
    }
}

#[tokio::test]
async fn a_command_gets_its_arguments_as_they_are_and_nothing_of_our_environment() {
    let site = Site::new();
    let out = site.dir.path().join("out");
    let hooks = site.hooks(&format!("echo \"$1|$#\"; env > {}; pwd; cat", out.display()), LIMIT);
    let variables = [("MIRROR_TREE", "fedora".to_owned()), ("MIRROR_ERROR", "a\0b\nc".to_owned())];
    hooks.run(Hook::Before, &variables, &site.log).await.unwrap();
    assert!(site.logged().contains("before: $(touch /tmp/never) *|1\n"), "{}", site.logged());
    let environment = fs::read_to_string(out).unwrap();
    assert!(environment.contains("MIRROR_TREE=fedora\n"), "{environment}");
    assert!(environment.contains("MIRROR_ERROR=a\u{fffd}b\nc\n"), "{environment}");
    assert!(!environment.contains("CARGO"), "{environment}");
    hooks.run(Hook::OnFailure, &[], &site.log).await.unwrap();
}

#[tokio::test]
async fn a_failure_names_program_hook_code_and_the_last_line() {
    let site = Site::new();
    let hooks = site.hooks("echo first; echo the disk is not mounted >&2; exit 3", LIMIT);
    let error = hooks.run(Hook::Before, &[], &site.log).await.unwrap_err();
    let text = error.to_string();
    for part in ["/hook", "hooks.before", "exit code 3", "the disk is not mounted"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let absent = HooksConfig { before: vec!["/no/such".into()], ..HooksConfig::default() };
    let error = absent.run(Hook::Before, &[], &site.log).await.unwrap_err();
    assert!(matches!(error, Error::Start { .. }), "{error}");
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_ended_with_everything_it_started() {
    let site = Site::new();
    let pids = site.dir.path().join("pids");
    let script = format!("sleep 600 & echo $$ $! > {}; wait", pids.display());
    let hooks = site.hooks(&script, Span::from_secs(1));
    let begin = Instant::now();
    let error = hooks.run(Hook::AfterChange, &[], &site.log).await.unwrap_err();
    assert!(matches!(error, Error::TooLong { .. }), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(60));
    assert_ended(&pids).await;
}

#[tokio::test]
async fn what_a_command_leaves_in_its_group_ends_with_it_and_does_not_hold_the_run() {
    let site = Site::new();
    let pids = site.dir.path().join("pids");
    let script = format!("sleep 600 & echo $! > {}; echo done", pids.display());
    let hooks = site.hooks(&script, Span::from_secs(60));
    let begin = Instant::now();
    hooks.run(Hook::AfterChange, &[], &site.log).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(30), "it waited for what was left behind");
    assert!(site.logged().contains("after-change: done"));
    assert_ended(&pids).await;
}

#[tokio::test]
async fn a_command_that_prints_without_end_fills_no_log() {
    let site = Site::new();
    let hooks = site.hooks("yes 0123456789 | head -n 300000; exit 1", LIMIT);
    let error = hooks.run(Hook::AfterChange, &[], &site.log).await.unwrap_err();
    assert!(error.to_string().contains("0123456789"), "{error}");
    assert!(site.logged().len() < 400_000, "{}", site.logged().len());
    assert!(site.logged().contains("3300000 bytes in all"), "{}", site.logged().len());
}

#[test]
fn a_program_is_named_by_its_absolute_path_and_a_limit_can_be_kept() {
    let config: HooksConfig = toml::from_str("before = [\"purge\", \"x\"]").unwrap();
    assert!(matches!(config.check(), Err(Invalid::Relative { hook: Hook::Before, .. })));
    let config: HooksConfig = toml::from_str("time-limit = \"0s\"").unwrap();
    assert!(matches!(config.check(), Err(Invalid::Limit { .. })));
    assert!(HooksConfig::default().check().is_ok());
    assert!(toml::from_str::<HooksConfig>("after = [\"/bin/true\"]").is_err());
}

/// Waits until no process of the file's ids runs.
async fn assert_ended(pids: &Path) {
    let pids = fs::read_to_string(pids).unwrap();
    let runs = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // A zombie has ended; its parent is whoever takes in orphans.
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
    };
    let until = Instant::now() + Duration::from_secs(20);
    while pids.split_whitespace().any(runs) {
        assert!(Instant::now() < until, "it still runs: {pids}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
