//! A kill, or an error of the disk, at every single step.
//!
//! A child process (this test program again) runs one update and kills itself with SIGKILL at the
//! n-th change or sync, for n all over the run. After each: what is published is
//! exactly the old or exactly the new generation (in place: each file is), a further run gets to
//! the new one, local content is still there, and nothing staged was staged twice.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use super::{model::*, *};
use crate::{
    fs::{FailPlan, Failure},
    switch::{KnownBad, SwitchReport},
};

const DIR_VARIABLE: &str = "MIRRORNET_TEST_KILL_DIR";
const SCENARIO_VARIABLE: &str = "MIRRORNET_TEST_KILL_SCENARIO";

#[derive(Debug, Clone, Copy)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// Generations that are there before.
    pub(super) before: u64,
    pub(super) mode: WantedMode,
    /// Seconds between generations: long makes retired trees reusable.
    apart: i64,
}

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "first", before: 0, mode: WantedMode::Auto, apart: 3600 },
    Scenario { name: "twin", before: 1, mode: WantedMode::Auto, apart: 3600 },
    Scenario { name: "reused", before: 4, mode: WantedMode::Auto, apart: 3600 },
    Scenario { name: "lingering", before: 4, mode: WantedMode::Auto, apart: 1 },
    Scenario { name: "in-place", before: 2, mode: WantedMode::InPlace, apart: 3600 },
];

/// Every generation changes contents, attributes and kinds, adds, removes and moves.
pub(super) fn generation(number: u64) -> Spec {
    let turn = number.is_multiple_of(2);
    let mut spec = tree(&[
        ("same", "same"),
        ("changing", &format!("content {number}")),
        ("deep/er/file", &format!("deep {}", number / 2)),
        ("deep/same", "same too"),
        (if turn { "old-name" } else { "new-name" }, "moved"),
        (&format!("only-in-{number}/x"), "x"),
        ("repodata/repomd.xml", &format!("index {number}")),
    ]);
    let kinds: &[(&str, &str)] = if turn {
        &[("kind", "a file"), ("other", "-> same")]
    } else {
        &[("kind/with", "content"), ("kind/and", "more"), ("other/in", "side")]
    };
    spec.extend(tree(kinds));
    let mode = if turn { 0o600 } else { 0o644 };
    spec.insert(b"attributes".to_vec(), Node::File("constant".into(), mode, LATER));
    spec
}

fn keep(path: &TreePath, _: bool) -> bool {
    !path.as_bytes().ends_with(b".local")
}

fn scratch() -> tempfile::TempDir {
    // No power is lost here, so memory will do, and is not slowed down by other writers' syncs.
    let shared = Path::new("/dev/shm");
    if shared.is_dir() {
        tempfile::tempdir_in(shared).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

fn update(
    fs: &Fs,
    root: &Path,
    scenario: Scenario,
    number: u64,
) -> Result<(SwitchReport, usize), Error> {
    update_with(fs, root, scenario, number, None)
}

pub(super) fn update_with(
    fs: &Fs,
    root: &Path,
    scenario: Scenario,
    number: u64,
    bad: Option<KnownBad>,
) -> Result<(SwitchReport, usize), Error> {
    let mut area = Area::open(fs, place(root))?;
    // The agent's ledger says which manifest was applied; here the number does.
    let applied = area.applied().map_or(0, |target| target.version.generation.0);
    let have = if applied == 0 { tree(&[]) } else { generation(applied) };
    let keep = keep;
    let view = View { keep: &keep, ..View::AS_IS };
    let options = SwitchOptions {
        keep: &keep,
        mode: scenario.mode,
        bad,
        ..SwitchOptions::new(1_700_000_000 + number as i64 * scenario.apart)
    };
    run(&mut area, &manifest(&have), &generation(number), number, &options, view)
}

fn prepare(scenario: Scenario) -> (tempfile::TempDir, u64) {
    let temp = scratch();
    for number in 1..=scenario.before {
        update(&Fs::disk(), temp.path(), scenario, number).unwrap();
    }
    if scenario.before > 0 {
        let live = temp.path().join("pub/linux");
        std::fs::write(live.join("deep/mine.local"), "mine").unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(LATER as u64);
        std::fs::File::open(live.join("deep")).unwrap().set_modified(time).unwrap();
        std::fs::write(live.join("stray"), "stray").unwrap();
    }
    (temp, scenario.before + 1)
}

/// The published tree without local content; `None` where nothing is published.
fn published(root: &Path) -> Option<Manifest> {
    let live = root.join("pub/linux");
    live.exists().then(|| {
        let entries = read(&live).entries().to_vec();
        let local = |entry: &&protocol::manifest::Entry| {
            !matches!(entry.path.as_bytes(), b"stray" | b"deep/mine.local")
        };
        Manifest::new(entries.iter().filter(local).cloned().collect()).unwrap()
    })
}

pub(super) fn contents(manifest: &Manifest) -> HashMap<TreePath, String> {
    let describe = |entry: &protocol::manifest::Entry| match &entry.kind {
        protocol::manifest::EntryKind::File { digest, .. } => {
            format!("{digest} {:o} {}", entry.mode, entry.mtime)
        }
        other => format!("{other:?}"),
    };
    let files = manifest.entries().iter().filter(|entry| !entry.is_dir());
    files.map(|entry| (entry.path.clone(), describe(entry))).collect()
}

/// What must hold at any moment: one whole generation, or in place, whole files.
fn check_now(root: &Path, scenario: Scenario, new: u64) {
    let published = published(root);
    let old_manifest = manifest(&generation(new - 1));
    let new_manifest = manifest(&generation(new));
    let Some(now) = published.map(|manifest| contents(&manifest)) else {
        assert_eq!(scenario.before, 0, "the published tree is gone");
        return;
    };
    let (old, new) = (contents(&old_manifest), contents(&new_manifest));
    if scenario.mode == WantedMode::InPlace {
        for (path, what) in &now {
            let known = [old.get(path), new.get(path)].contains(&Some(what));
            assert!(known, "{path} is neither old nor new: {what}");
        }
        for (path, what) in &old {
            let stays = new.get(path) == Some(what);
            assert!(!stays || now.contains_key(path), "{path} is gone, and should not change");
        }
    } else {
        assert!(now == new || (scenario.before > 0 && now == old), "a mix of two generations");
    }
}

/// What must hold in the end.
fn check_end(root: &Path, scenario: Scenario, new: u64) {
    assert_same(&published(root).unwrap(), &manifest(&generation(new)));
    if scenario.before == 0 {
        return;
    }
    let live = root.join("pub/linux");
    assert_eq!(std::fs::read_to_string(live.join("deep/mine.local")).unwrap(), "mine");
    let everything = read(root);
    let strays = everything.entries().iter().filter(|entry| entry.path.name() == b"stray");
    assert_eq!(strays.count(), 1, "the stray file is in the tree or in the trash, once");
    let staged = read(&root.join("work/fedora/staging"));
    assert_eq!(staged.entries().len(), 1, "staging was collected");
}

pub(super) fn scenario(name: &str) -> Scenario {
    *SCENARIOS.iter().find(|scenario| scenario.name == name).unwrap()
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
    update(&Fs::disk(), &PathBuf::from(dir), scenario, scenario.before + 1).unwrap();
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
    let (temp, new) = prepare(scenario);
    let count = Arc::new(FailPlan::new(None, u64::MAX, Failure::Kill));
    update(&Fs::disk_failing(count.clone()), temp.path(), scenario, new).unwrap();
    check_end(temp.path(), scenario, new);
    let all = count.seen();
    assert!(all > 40, "only {all} steps");
    let full = std::env::var_os("MIRRORNET_TEST_FULL").is_some();
    let stride = if full { 1 } else { (all / sample).max(1) };
    (1..=all).step_by(usize::try_from(stride).unwrap())
}

fn kill_everywhere(name: &str) {
    let scenario = scenario(name);
    for nth in steps(scenario, 30) {
        let (temp, new) = prepare(scenario);
        assert!(!killed_at(temp.path(), scenario, nth), "step {nth} was not reached");
        check_now(temp.path(), scenario, new);
        // And once more on the way back, at a step that moves through the recovery.
        killed_at(temp.path(), scenario, 1 + nth % 40);
        check_now(temp.path(), scenario, new);
        update(&Fs::disk(), temp.path(), scenario, new).unwrap();
        check_end(temp.path(), scenario, new);
    }
}

fn fail_everywhere(name: &str, errno: rustix::io::Errno) {
    let scenario = scenario(name);
    for nth in steps(scenario, 20) {
        let (temp, new) = prepare(scenario);
        let failure = Failure::Errno(errno.raw_os_error());
        let plan = Arc::new(FailPlan::new(None, nth, failure));
        let outcome = update(&Fs::disk_failing(plan.clone()), temp.path(), scenario, new);
        check_now(temp.path(), scenario, new);
        // Either the run says that it failed, or the failure was of something that it can do
        // without; then the result is complete.
        if outcome.is_ok() {
            assert_same(&published(temp.path()).unwrap(), &manifest(&generation(new)));
        }
        assert!(plan.fired(), "step {nth} was not reached");
        update(&Fs::disk(), temp.path(), scenario, new).unwrap();
        check_end(temp.path(), scenario, new);
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
        check_end(temp.path(), scenario, 1);
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
    check_end(temp.path(), scenario, 1);
    let (again, _) = updated_with("022", None);
    assert_same(&published(temp.path()).unwrap(), &published(again.path()).unwrap());
}
