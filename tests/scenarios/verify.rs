//! What is damaged in a published tree is found and repaired, when asked and by itself.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde_json::Value;
use tests::{
    Rsyncd, Testbed, compare,
    fixture::{OneTree, mirrored, prose, write},
    programs::{succeed, told},
    wait_for, wait_until,
};

const FILES: u64 = 240;

fn fill(tree: &Path) {
    for n in 0..FILES {
        write(&tree.join(format!("d{}/f{n}", n % 12)), prose(n, 2_000 + n as usize * 7));
    }
}

/// Damages every file but some, each in another way; gives how many were damaged.
fn damage(mirror: &Path, count: u64) -> u64 {
    for n in 0..count {
        let file = mirror.join(format!("d{}/f{n}", n % 12));
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        let write_over = |bytes: &[u8]| {
            // Another inode, as most programs leave it; or the same, as a failing disk does.
            if n % 2 == 0 {
                fs::remove_file(&file).unwrap();
            }
            fs::write(&file, bytes).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
            fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
        };
        let mut bytes = fs::read(&file).unwrap();
        match n % 6 {
            0 | 1 => {
                let at = (n * 37) as usize % bytes.len();
                bytes[at] ^= 1 << (n % 8);
                write_over(&bytes);
            }
            2 => write_over(&bytes[..bytes.len() / 2]),
            3 => fs::remove_file(&file).unwrap(),
            4 => write(&mirror.join(format!("d{}/added{n}", n % 12)), "added"),
            _ if n % 4 == 1 => {
                fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            }
            _ => {
                let file = fs::File::options().write(true).open(&file).unwrap();
                file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(n)).unwrap();
            }
        }
    }
    count
}

fn verify(net: &tests::network::Agent, more: &[&str]) -> (std::process::Output, Value) {
    let args = [&["verify", "tree", "--output", "json"], more].concat();
    let output = net.command(&args).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output, report[0].clone())
}

fn sum(checked: &Value, keys: &[&str]) -> u64 {
    keys.iter().map(|key| checked[*key].as_u64().unwrap()).sum()
}

/// Every damage is found, named, counted, repaired and, where it does not belong, in the trash.
fn is_repaired(report: &Value, damaged: u64) {
    let checked = &report["checked"];
    // A name that came or went shows in the time of its directory, too.
    let found = sum(checked, &["flipped", "cut", "missing", "extra", "attributes"]);
    assert!(found >= damaged && found <= damaged + 12, "{found} of {damaged}: {report:#}");
    assert_eq!(sum(checked, &["repaired", "trashed"]), found, "{report:#}");
    assert_eq!(report["result"], "SYNC_COMPLETED", "{report:#}");
}

#[test]
fn two_hundred_damages_are_found_and_repaired_from_a_publisher() {
    let net = OneTree::start("", "");
    fill(&net.upstream);
    net.publish_and_sync();
    let damaged = damage(&net.mirror(), 200);
    let before: BTreeSet<PathBuf> = tests::network::inodes(&net.mirror()).into_keys().collect();
    let (output, report) = verify(&net.agent, &["--dry-run"]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(report["error"].as_str().unwrap().contains("not what they should be"), "{report:#}");
    let after: BTreeSet<PathBuf> = tests::network::inodes(&net.mirror()).into_keys().collect();
    assert_eq!(before, after, "it was only to be looked at");

    let (output, report) = verify(&net.agent, &[]);
    assert!(output.status.success(), "{}", told(&output));
    is_repaired(&report, damaged);
    net.assert_same();
    let (_, report) = verify(&net.agent, &[]);
    assert_eq!(
        (&report["result"], &report["checked"]["files"]),
        (&"SYNC_UP_TO_DATE".into(), &FILES.into())
    );
}

#[test]
fn damage_is_repaired_from_a_stock_server_too() {
    let testbed = Testbed::start();
    let upstream = testbed.make_dir("upstream/tree");
    fill(&upstream);
    let rsyncd = Rsyncd::start(&testbed.path("rsyncd"), &[("pub", &testbed.path("upstream"))], "");
    testbed.apply(&mirrored(&rsyncd, "max-connections = 1", "", ""));
    let agent = testbed.enroll_agent("agent", "site");
    agent.sync();
    let damaged = damage(&agent.published("tree"), 60);
    let (output, report) = verify(&agent, &[]);
    assert!(output.status.success(), "{}", told(&output));
    is_repaired(&report, damaged);
    compare::assert_same(&upstream, &agent.published("tree"), &[]);
}

#[test]
fn what_cannot_be_had_is_said_and_repaired_once_it_can() {
    let mut net = OneTree::start("", "");
    fill(&net.upstream);
    net.publish_and_sync();
    assert!(net.publishing.end().success());
    let file = net.mirror().join("d3/f3");
    fs::write(&file, "broken").unwrap();
    let (output, report) = verify(&net.agent, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let error = report["error"].as_str().unwrap();
    assert!(error.contains("could not be repaired") && error.contains("d3/f3"), "{report:#}");
    assert_eq!(fs::read(&file).unwrap(), b"broken", "half a repair is none");

    net.publishing = net.testbed.run_publisher(&net.publisher);
    let mut agent = net.testbed.run_agent(&net.agent);
    wait_until("the agent to repair it by itself", || {
        fs::read(&file).is_ok_and(|now| now == prose(3, 2_021).into_bytes())
    });
    agent.must_run();
    net.assert_same();
}

#[test]
fn the_scrub_goes_round_at_its_rate_survives_restarts_and_can_be_paused() {
    let net = OneTree::start("", "");
    fill(&net.upstream);
    net.publish_and_sync();
    // About 680 kB in parts of five seconds: three to a round.
    net.configure_agent("[scrub]\nevery = \"2s\"\nrate = \"60KiB/s\"");
    let damaged = damage(&net.mirror(), 30);
    let status = || {
        let output = net.agent.command(&["status", "--output", "json"]).output().unwrap();
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        Some((status["scrub-paused"].clone(), status["assignments"][0]["scrub"].clone()))
    };
    let agent = net.testbed.run_agent(&net.agent);
    let first = wait_for("a part to be read", || status().filter(|(_, s)| s["at"].is_string())).1;
    wait_until("its report to arrive", || {
        net.testbed.runs("tree@site").iter().any(|run| run["kind"] == "verify")
    });
    agent.kill();
    let agent = net.testbed.run_agent(&net.agent);
    let second = wait_for("the next part", || {
        let now = status()?.1;
        (now["at"].is_string() && now["at"] != first["at"]).then_some(now)
    });
    assert_eq!(first["begun"], second["begun"], "the round went on: {first:#} {second:#}");
    wait_until("the round to end", || status().is_some_and(|(_, scrub)| scrub["last"].is_string()));
    net.assert_same();
    let runs = net.testbed.runs("tree@site");
    let checks: Vec<&Value> = runs.iter().filter(|run| run["kind"] == "verify").collect();
    let notices: String = checks.iter().map(|run| run["notices"].to_string()).collect();
    // A new twin of the tree brings what is missing before its own turn to be looked at comes.
    for n in (0..damaged).filter(|n| n % 6 != 3) {
        let path = if n % 6 == 4 { format!("added{n}") } else { format!("f{n} ") };
        let path = format!("d{}/{path}", n % 12);
        assert!(notices.contains(&path), "{path} is in no report: {checks:#?}");
    }

    succeed(&mut net.agent.command(&["scrub", "pause"]));
    assert!(agent.stop().success());
    let agent = net.testbed.run_agent(&net.agent);
    let paused = wait_for("the agent to answer", status);
    assert_eq!(paused.0, true);
    fs::write(net.mirror().join("d1/f1"), "broken").unwrap();
    succeed(&mut net.agent.command(&["scrub", "resume"]));
    wait_until("it to go on", || {
        fs::read(net.mirror().join("d1/f1")).is_ok_and(|now| now == prose(1, 2_007).into_bytes())
    });
    assert!(agent.stop().success());
}
