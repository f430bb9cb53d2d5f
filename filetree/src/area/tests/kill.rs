//! A kill, or an error of the disk, at every single step.
//!
//! A child process (this test program again) runs one update and kills itself with SIGKILL at the
//! n-th change or sync, for n all over the run. After each: what is published is
//! exactly the old or exactly the new generation (in place: each file is), a further run gets to
//! the new one, local content is still there, and nothing staged was staged twice.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use super::{
    oracle::{self, Oracle},
    scenario::{Failed, SCENARIOS, Scenario, scenario},
};
use crate::fs::{FailPlan, Failure, Fs};

const DIR_VARIABLE: &str = "MIRRORNET_TEST_KILL_DIR";
const SCENARIO_VARIABLE: &str = "MIRRORNET_TEST_KILL_SCENARIO";

fn scratch() -> tempfile::TempDir {
    // No power is lost here, so memory will do, and is not slowed down by other writers' syncs.
    let shared = Path::new("/dev/shm");
    if shared.is_dir() {
        tempfile::tempdir_in(shared).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

fn prepare(scenario: Scenario) -> tempfile::TempDir {
    let temp = scratch();
    scenario.prepare(&Fs::disk(), temp.path());
    temp
}

fn update(fs: &Fs, root: &Path, scenario: Scenario) -> Result<(), Failed> {
    scenario.update(fs, root, scenario.after(), None).map(drop)
}

fn check_now(root: &Path, scenario: Scenario) {
    let wrong = Oracle::new(scenario).violation(&oracle::list(root), false);
    assert_eq!(wrong, None, "{}", scenario.name);
}

fn check_end(root: &Path, scenario: Scenario) {
    let wrong = Oracle::new(scenario).unfinished(&oracle::list(root));
    assert_eq!(wrong, None, "{}", scenario.name);
}

/// Not a test of its own: what a child process runs.
#[test]
#[ignore = "run as a child by the tests of this module"]
fn child() {
    let (Ok(dir), Ok(name)) = (std::env::var(DIR_VARIABLE), std::env::var(SCENARIO_VARIABLE))
    else {
        return;
    };
    let scenario = scenario(&name);
    update(&Fs::disk(), &PathBuf::from(dir), scenario).unwrap();
}

/// Runs the update in a child that is killed at step `nth`; `true` if it got through.
fn killed_at(root: &Path, scenario: Scenario, nth: u64) -> bool {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "area::tests::kill::child", "--ignored", "--quiet"])
        .env(DIR_VARIABLE, root)
        .env(SCENARIO_VARIABLE, scenario.name)
        .env(crate::fs::FAIL_ENV, format!("any:{nth}"))
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    use std::os::unix::process::ExitStatusExt;
    assert!(status.success() || status.signal() == Some(9), "{nth}: {status}");
    status.success()
}

/// The steps to stop at: all of them with `MIRRORNET_TEST_FULL`, else about `sample`, evenly.
fn steps(scenario: Scenario, sample: u64) -> impl Iterator<Item = u64> {
    let temp = prepare(scenario);
    let count = Arc::new(FailPlan::new(None, u64::MAX, Failure::Kill));
    update(&Fs::disk_failing(count.clone()), temp.path(), scenario).unwrap();
    check_end(temp.path(), scenario);
    let all = count.seen();
    assert!(all > 40, "only {all} steps");
    let full = std::env::var_os("MIRRORNET_TEST_FULL").is_some();
    let stride = if full { 1 } else { (all / sample).max(1) };
    (1..=all).step_by(usize::try_from(stride).unwrap())
}

fn kill_everywhere(name: &str) {
    let scenario = scenario(name);
    for nth in steps(scenario, 30) {
        let temp = prepare(scenario);
        assert!(!killed_at(temp.path(), scenario, nth), "step {nth} was not reached");
        check_now(temp.path(), scenario);
        // And once more on the way back, at a step that moves through the recovery.
        killed_at(temp.path(), scenario, 1 + nth % 40);
        check_now(temp.path(), scenario);
        update(&Fs::disk(), temp.path(), scenario).unwrap();
        check_end(temp.path(), scenario);
    }
}

fn fail_everywhere(name: &str, errno: rustix::io::Errno) {
    let scenario = scenario(name);
    for nth in steps(scenario, 20) {
        let temp = prepare(scenario);
        let failure = Failure::Errno(errno.raw_os_error());
        let plan = Arc::new(FailPlan::new(None, nth, failure));
        let outcome = update(&Fs::disk_failing(plan.clone()), temp.path(), scenario);
        check_now(temp.path(), scenario);
        // Either the run says that it failed, or the failure was of something that it can do
        // without; then the result is complete.
        if outcome.is_ok() {
            let wrong = Oracle::new(scenario).violation(&oracle::list(temp.path()), true);
            assert_eq!(wrong, None, "{name}, step {nth}");
        }
        assert!(plan.fired(), "step {nth} was not reached");
        update(&Fs::disk(), temp.path(), scenario).unwrap();
        check_end(temp.path(), scenario);
    }
}

#[test]
fn a_kill_anywhere_in_a_first_sync_leaves_nothing_or_everything() {
    kill_everywhere("first");
}

#[test]
fn a_kill_anywhere_in_an_update_with_a_new_twin_leaves_old_or_new() {
    kill_everywhere("twin");
}

#[test]
fn a_kill_anywhere_in_an_update_with_a_retired_tree_leaves_old_or_new() {
    kill_everywhere("reused");
}

#[test]
fn a_kill_anywhere_while_all_trees_linger_leaves_old_or_new() {
    kill_everywhere("lingering");
}

#[test]
fn a_kill_anywhere_in_place_leaves_whole_files() {
    kill_everywhere("in-place");
}

#[test]
fn a_kill_anywhere_behind_a_link_leaves_old_or_new() {
    kill_everywhere("linked-reused");
    kill_everywhere("to-a-link");
    kill_everywhere("from-a-link");
}

#[test]
fn a_full_disk_at_any_step_leaves_old_or_new() {
    for scenario in SCENARIOS {
        fail_everywhere(scenario.name, rustix::io::Errno::NOSPC);
    }
}

#[test]
fn a_read_only_or_broken_disk_at_any_step_leaves_old_or_new() {
    fail_everywhere("reused", rustix::io::Errno::ROFS);
    fail_everywhere("twin", rustix::io::Errno::IO);
    fail_everywhere("in-place", rustix::io::Errno::IO);
}

/// Runs the update in a child with this umask, as this user.
fn updated_with(umask: &str, user: Option<u32>) -> (tempfile::TempDir, Scenario) {
    use std::os::unix::process::CommandExt;
    let scenario = scenario("first");
    let temp = scratch();
    let program = std::env::current_exe().unwrap();
    let line = format!("umask {umask}; exec \"$0\" --exact area::tests::kill::child --ignored");
    let mut command = Command::new("sh");
    command.args(["-c", &line]).arg(program);
    command.env(DIR_VARIABLE, temp.path()).env(SCENARIO_VARIABLE, scenario.name);
    if let Some(user) = user {
        std::os::unix::fs::chown(temp.path(), Some(user), Some(user)).unwrap();
        command.uid(user).gid(user);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (temp, scenario)
}

#[test]
fn the_umask_never_matters() {
    for umask in ["077", "000", "777"] {
        let (temp, scenario) = updated_with(umask, None);
        check_end(temp.path(), scenario);
    }
}

#[test]
fn root_and_another_user_make_the_same_tree() {
    const NOBODY: u32 = 65_534;
    let program = std::env::current_exe().unwrap();
    let reachable = |dir: &Path| {
        use std::os::unix::fs::PermissionsExt;
        dir.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0)
    };
    // Only root can become somebody else, who then has to be able to reach this program.
    if !rustix::process::geteuid().is_root() || !program.ancestors().all(reachable) {
        return;
    }
    let (temp, scenario) = updated_with("022", Some(NOBODY));
    check_end(temp.path(), scenario);
    let (again, _) = updated_with("022", None);
    let below = |root: &Path| oracle::list(&root.join("pub/linux"));
    assert_eq!(below(temp.path()), below(again.path()));
}
