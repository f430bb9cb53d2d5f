//! Commands of a site, around the runs.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tests::{
    Sink,
    fixture::{OneTree, prose},
    programs::told,
    wait_until,
};

/// Writes a script and gives it as the value of a hook.
fn script(net: &OneTree, name: &str, body: &str) -> String {
    let path = net.testbed.path(name);
    let text =
        if body.starts_with("#!") { body.to_owned() } else { format!("#!/bin/sh\n{body}\n") };
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    format!("[{path:?}]")
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_command_before_a_run_can_stop_it_and_failure_and_recovery_are_each_told_once() {
    let net = OneTree::start("", "");
    let (told_file, mounted) = (net.testbed.path("told"), net.testbed.path("mounted"));
    let say = format!(
        "echo \"$MIRROR_HOOK $MIRROR_ASSIGNMENT $MIRROR_RESULT [$MIRROR_GENERATION_BEFORE>$MIRROR_GENERATION]\" >> {}",
        told_file.display()
    );
    let check = format!("test -e {} || {{ echo the disk is away; exit 7; }}", mounted.display());
    let (before, tell) = (script(&net, "before", &check), script(&net, "tell", &say));
    net.configure_agent(&format!(
        "[hooks]\nbefore = {before}\nafter-change = {tell}\non-failure = {tell}\non-recovery = {tell}"
    ));
    net.write("f", prose(1, 3_000));
    net.publish();
    for _ in 0..2 {
        let output = net.agent.run_once();
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        for part in ["was not begun", "hooks.before", "exit code 7", "the disk is away"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    assert!(!net.mirror().exists());
    assert!(net.last_run()["error"].as_str().unwrap().contains("the disk is away"));
    assert_eq!(lines(&told_file), ["on-failure tree@site SYNC_FAILED [>]"]);

    fs::write(&mounted, "").unwrap();
    assert_eq!(net.sync()["result"], "SYNC_COMPLETED");
    net.assert_same();
    let expected = [
        "on-failure tree@site SYNC_FAILED [>]",
        "on-recovery tree@site SYNC_COMPLETED [>1.1]",
        "after-change tree@site SYNC_COMPLETED [>1.1]",
    ];
    assert_eq!(lines(&told_file), expected);
    net.agent.sync();
    let dry = net.agent.command(&["sync", "--dry-run"]).output().unwrap();
    assert!(dry.status.success(), "{}", tests::programs::told(&dry));
    assert_eq!(lines(&told_file), expected, "nothing changed");
}

#[test]
fn a_change_is_told_of_although_the_agent_was_killed_before_the_command_had_ended() {
    let net = OneTree::start("", "");
    let (begun, told_file) = (net.testbed.path("begun"), net.testbed.path("told"));
    let slow = format!("echo $$ >> {}; exec sleep 600", begun.display());
    let hook = script(&net, "hook", &slow);
    net.configure_agent(&format!("[hooks]\nafter-change = {hook}"));
    net.write("f", prose(1, 3_000));
    net.publish();
    let agent = net.testbed.run_agent(&net.agent);
    wait_until("the command to begin", || !lines(&begun).is_empty());
    net.assert_same();
    assert!(net.testbed.runs("tree@site").is_empty(), "the report waits for the command");
    agent.kill();
    // Nobody could end it with the agent; this test does.
    for pid in lines(&begun) {
        let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
    }
    script(
        &net,
        "hook",
        &format!("echo \"$MIRROR_GENERATION $MIRROR_ADDED\" >> {}", told_file.display()),
    );
    net.agent.sync();
    assert_eq!(lines(&told_file), ["1.1 1"]);
    let completed = |run: &Value| run["result"] == "SYNC_COMPLETED";
    assert!(net.testbed.runs("tree@site").iter().any(completed), "its report came after all");
}

#[test]
fn a_command_that_fails_after_a_change_leaves_the_tree_and_says_so() {
    let net = OneTree::start("", "");
    let hook = script(&net, "hook", "echo the cache is down >&2; exit 1");
    net.configure_agent(&format!("[hooks]\nafter-change = {hook}"));
    net.write("f", prose(1, 3_000));
    let run = net.publish_and_sync();
    net.assert_same();
    assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
    let notices = run["notices"].to_string();
    for part in ["hooks.after-change", "the cache is down", "it is tried again"] {
        assert!(notices.contains(part), "{part}: {notices}");
    }
    let log = net.testbed.ctl(&["log", "tree@site"]);
    assert!(log.contains("after-change: the cache is down"), "{log}");
}

#[test]
fn a_table_of_hooks_that_cannot_be_followed_is_refused_with_its_key() {
    let net = OneTree::start("", "");
    for (line, part) in [
        ("before = [\"mount\"]", "hooks.before"),
        ("after-chance = [\"/bin/true\"]", "after-chance"),
        ("time-limit = \"0s\"", "hooks.time-limit"),
    ] {
        let config = net.testbed.path("refused.toml");
        let text = fs::read_to_string(&net.agent.config).unwrap();
        fs::write(&config, format!("{text}[hooks]\n{line}\n")).unwrap();
        let mut check = tests::programs::program("mirror-agent");
        let output = check.arg("check-config").arg("--config").arg(&config).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains(part), "{}", told(&output));
    }
}

#[test]
fn the_examples_of_the_how_to_work_as_they_stand_there() {
    let net = OneTree::start("", "");
    let sink = Sink::start(200);
    let storage = net.agent.storage.to_str().unwrap();
    let local = |text: &str| {
        text.replace("http://127.0.0.1:6081", &sink.url())
            .replace("https://tracker.example.org", &sink.url())
            .replace("/srv/mirror", storage)
    };
    let page = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/how-to"))
        .join("run-commands-at-a-site.md");
    let page = fs::read_to_string(page).unwrap();
    let examples: Vec<&str> = page
        .split("```sh\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .filter(|example| example.starts_with("#!/bin/sh\n"))
        .collect();
    assert_eq!(examples.len(), 3);
    let config = fs::read_to_string(&net.agent.config).unwrap();
    for (n, example) in (0..).zip(&examples) {
        let hook = script(&net, &format!("example-{n}"), &local(example));
        fs::write(&net.agent.config, format!("{config}[hooks]\nafter-change = {hook}\n")).unwrap();
        net.write(&format!("f{n}"), prose(n, 3_000));
        let run = net.publish_and_sync();
        assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
        assert!(run["notices"].as_array().is_none_or(Vec::is_empty), "{run:#}");
    }
    let got = sink.got();
    let requests: Vec<_> = got.iter().map(|got| got.request.as_str()).collect();
    assert_eq!(requests, ["PURGE /tree/", "POST /report"]);
    let report: Value = serde_json::from_str(&got[1].body).unwrap();
    assert_eq!((&report["site"], &report["generation"]), (&"site".into(), &"1.3".into()));
    assert_eq!(report["files"], 3);
    let trace = fs::read_to_string(net.agent.storage.join("trace/tree")).unwrap();
    assert!(trace.contains("Generation: 1.2\n") && trace.contains("Files: 2\n"), "{trace}");
}
