//! Direct rsync when something is wrong with it: its exit, its program, or what it would bring.

use std::{
    fs,
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
};

use serde_json::Value;
use tests::{
    Rsyncd, Testbed, compare,
    fixture::{OneTree, mirrored, prose, write},
    network::{Agent, bytes_by},
    programs::told,
};

/// Has the agent run `script` instead of rsync; `$code` in it is how the real one ended.
fn replace_rsync(agent: &Agent, dir: &Path, script: &str) {
    let program = dir.join("rsync-wrapper");
    let text = format!("#!/bin/sh\nrsync \"$@\"; code=$?\n{script}\nexit $code\n");
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    // Its marks lie where rsync has no business.
    set(agent, &format!("rsync = {program:?}\nconfine = \"off\"\n"));
}

fn set(agent: &Agent, line: &str) {
    let config = fs::read_to_string(&agent.config).unwrap();
    fs::write(&agent.config, config + line).unwrap();
}

/// A site that mirrors a stock rsync daemon with 10 files.
fn stock() -> (Testbed, Agent, Rsyncd) {
    let testbed = Testbed::start();
    let upstream = testbed.make_dir("upstream");
    for n in 0..10 {
        write(&upstream.join(format!("tree/f{n}")), prose(n, 2_000));
    }
    let rsyncd = Rsyncd::start(&testbed.path("rsyncd"), &[("pub", &upstream)], "");
    testbed.apply(&mirrored(&rsyncd, "", "", ""));
    let agent = testbed.enroll_agent("agent", "site");
    (testbed, agent, rsyncd)
}

#[test]
fn files_that_vanish_upstream_are_asked_for_again() {
    let (testbed, agent, _rsyncd) = stock();
    let marks = testbed.make_dir("marks");
    // The first transfer ends as if a file had vanished; every transfer leaves a mark.
    let script = format!(
        "case \" $* \" in *\" --files-from=- \"*) [ -e {0}/1 ] && touch {0}/2; \
         [ -e {0}/1 ] || {{ touch {0}/1; code=24; }};; esac",
        marks.display()
    );
    replace_rsync(&agent, &marks, &script);
    agent.sync();
    assert!(marks.join("2").exists(), "it was not tried again");
    compare::assert_same(&testbed.path("upstream/tree"), &agent.published("tree"), &[]);
}

#[test]
fn a_partial_transfer_is_never_a_success() {
    let (testbed, agent, _rsyncd) = stock();
    let dir = testbed.make_dir("wrapper");
    let script = "case \" $* \" in *\" --files-from=- \"*) code=23;; esac";
    replace_rsync(&agent, &dir, script);
    let output = agent.run_once();
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("only a part") && said.contains("23"), "{said}");
    assert!(!agent.published("tree/f0").exists());
    let run = &testbed.runs("tree@site")[0];
    assert_eq!(run["result"], "SYNC_FAILED", "{run:#}");
}

#[test]
fn a_partial_listing_deletes_nothing() {
    let (testbed, agent, _rsyncd) = stock();
    agent.sync();
    let dir = testbed.make_dir("wrapper");
    fs::remove_file(testbed.path("upstream/tree/f3")).unwrap();
    for code in [23, 24] {
        let script = format!("case \" $* \" in *\" -rlptn \"*) code={code};; esac");
        let config = fs::read_to_string(&agent.config).unwrap();
        replace_rsync(&agent, &dir, &script);
        let output = agent.run_once();
        fs::write(&agent.config, config).unwrap();
        assert_eq!(output.status.code(), Some(1), "{code}: {}", told(&output));
        assert_eq!(fs::read_dir(agent.published("tree")).unwrap().count(), 10, "{code}");
    }
}

/// An update of edited files whose pack is gone, so that direct rsync is the way.
fn update_without_pack() -> OneTree {
    let net = OneTree::start("", "");
    for n in 0..20 {
        net.write(&format!("f{n}"), prose(n, 30_000));
    }
    net.publish_and_sync();
    for n in 0..20 {
        net.write(&format!("f{n}"), format!("{}edited\n", prose(n, 30_000)));
    }
    net.publish();
    for pack in fs::read_dir(net.publisher.data.join("trees/tree/packs")).unwrap() {
        fs::remove_file(pack.unwrap().path()).unwrap();
    }
    net
}

fn reasons_of(run: &Value, way: &str) -> Vec<String> {
    let reasons = run["not-taken"].as_array().into_iter().flatten();
    let reasons = reasons.filter(|reason| reason["way"] == way);
    reasons.filter_map(|reason| reason["reason"].as_str().map(str::to_owned)).collect()
}

fn comes_whole_and_says_why_not_by_rsync(net: &OneTree) {
    let run = net.sync();
    net.assert_same();
    assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
    assert!(bytes_by(&run, "whole") > 0, "{run:#}");
    assert!(!reasons_of(&run, "rsync").is_empty(), "{run:#}");
    assert!(!reasons_of(&run, "pack").is_empty(), "{run:#}");
}

#[test]
fn a_site_without_rsync_takes_whole_files_from_its_publisher() {
    let net = update_without_pack();
    set(&net.agent, "rsync = \"/nonexistent/rsync\"\n");
    comes_whole_and_says_why_not_by_rsync(&net);
}

#[test]
fn a_publisher_without_rsync_gives_whole_files() {
    let mut net = update_without_pack();
    let config = fs::read_to_string(&net.publisher.config).unwrap();
    let config = format!("rsync = \"/nonexistent/rsync\"\n{config}");
    fs::write(&net.publisher.config, config).unwrap();
    let OneTree { publishing, .. } = net;
    assert!(publishing.stop().success());
    net.publishing = net.testbed.run_publisher(&net.publisher);
    comes_whole_and_says_why_not_by_rsync(&net);
}

#[test]
fn an_rsync_that_brings_only_a_part_is_completed_by_whole_files() {
    let net = update_without_pack();
    let dir = net.testbed.make_dir("wrapper");
    // As if one file could not be read over there.
    let stage = "for last; do :; done; rm -f \"$last/f7\"; code=23";
    let script = format!("case \" $* \" in *\" --files-from=- \"*) {stage};; esac");
    replace_rsync(&net.agent, &dir, &script);
    let run = net.sync();
    net.assert_same();
    assert!(bytes_by(&run, "rsync") > 0, "{run:#}");
    let whole = run["ways"].as_array().unwrap().iter().find(|way| way["way"] == "whole").unwrap();
    assert_eq!(whole["files"], 1, "{run:#}");
}

#[test]
fn content_that_was_edited_in_place_is_told_and_comes_with_the_next_generation() {
    let net = OneTree::start("", "");
    let config = fs::read_to_string(&net.publisher.config).unwrap();
    let kept_by_link = format!("{config}\n[retain]\nmode = \"hard-link\"\n");
    fs::write(&net.publisher.config, kept_by_link).unwrap();
    let OneTree { testbed, publisher, publishing, agent, upstream } = net;
    assert!(publishing.stop().success());
    let publishing = testbed.run_publisher(&publisher);
    let net = OneTree { testbed, publisher, publishing, agent, upstream };
    for n in 0..20 {
        net.write(&format!("f{n}"), prose(n, 30_000));
    }
    net.publish_and_sync();
    for n in 0..20 {
        let path = net.upstream.join(format!("f{n}"));
        fs::remove_file(&path).unwrap();
        fs::write(&path, format!("{}edited\n", prose(n, 30_000))).unwrap();
    }
    net.publish();
    for pack in fs::read_dir(net.publisher.data.join("trees/tree/packs")).unwrap() {
        fs::remove_file(pack.unwrap().path()).unwrap();
    }
    let file = fs::File::options().write(true).open(net.upstream.join("f7")).unwrap();
    file.write_all_at(b"IN PLACE", 100).unwrap();
    drop(file);
    let held = compare::sha256sums(&net.mirror());
    let output = net.agent.run_once();
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let run = net.last_run();
    assert!(run["error"].as_str().unwrap().contains("f7"), "{run:#}");
    assert!(reasons_of(&run, "rsync").iter().any(|reason| reason == "source-moved"), "{run:#}");
    assert_eq!(compare::sha256sums(&net.mirror()), held);
    net.publish_and_sync();
    net.assert_same();
}
