//! Stock rsync daemons as upstreams.

use std::{fs, path::PathBuf};

use serde_json::Value;
use tests::{
    Rsyncd, Testbed, compare,
    fixture::{one_tree, prose, write},
    network::{Agent, inodes},
    programs::told,
};

struct Stock {
    testbed: Testbed,
    agent: Agent,
    upstream: PathBuf,
    rsyncd: Rsyncd,
}

fn start(module: &str) -> Stock {
    let testbed = Testbed::start();
    let upstream = testbed.make_dir("upstream/tree");
    let rsyncd = Rsyncd::start(&testbed.path("rsyncd"), &[("pub", &testbed.path("upstream"))], "");
    let upstream_of = format!("kind = \"rsyncd\"\nurl = \"{}\"", rsyncd.url());
    let filter = "filter = [\"- *.tmp\"]";
    let keep = "keep-withdrawn = \"0s\"";
    testbed.apply(&one_tree("stock", &upstream_of, module, filter, keep));
    let agent = testbed.enroll_agent("agent", "site");
    Stock { testbed, agent, upstream, rsyncd }
}

impl Stock {
    fn sync(&self) -> Value {
        self.agent.sync();
        self.testbed.runs("tree@site").into_iter().next().unwrap()
    }

    fn assert_same(&self) {
        compare::assert_same(&self.upstream, &self.agent.published("tree"), &["- *.tmp"]);
    }
}

#[test]
fn what_differs_comes_and_nothing_new_changes_nothing() {
    let net = start("pub");
    for n in 0..40 {
        write(&net.upstream.join(format!("d{}/f{n}", n % 4)), prose(n, 20_000));
    }
    write(&net.upstream.join("left.tmp"), "out");
    std::os::unix::fs::symlink("d1/f1", net.upstream.join("link")).unwrap();
    net.sync();
    net.assert_same();

    let before = inodes(&net.agent.storage.join("pub"));
    let run = net.sync();
    assert_eq!(run["result"], "SYNC_UP_TO_DATE", "{run:#}");
    assert_eq!(inodes(&net.agent.storage.join("pub")), before);

    write(&net.upstream.join("d1/f1"), format!("{}more\n", prose(1, 20_000)));
    fs::remove_file(net.upstream.join("d2/f2")).unwrap();
    let run = net.sync();
    net.assert_same();
    let ways = run["ways"].as_array().unwrap();
    let content: u64 = ways
        .iter()
        .filter(|w| w["way"] == "rsync")
        .filter_map(|w| w["content-bytes"].as_u64())
        .sum();
    assert!(content < 25_000, "one file of 20 kB changed: {run:#}");
}

#[test]
fn an_empty_module_deletes_nothing() {
    let net = start("pub");
    for n in 0..20 {
        write(&net.upstream.join(format!("f{n}")), prose(n, 100));
    }
    net.sync();
    fs::remove_dir_all(&net.upstream).unwrap();
    fs::create_dir(&net.upstream).unwrap();
    let output = net.agent.run_once();
    assert!(!output.status.success(), "{}", told(&output));
    assert_eq!(fs::read_dir(net.agent.published("tree")).unwrap().count(), 20);
}

#[test]
fn an_unknown_module_and_a_daemon_that_is_gone_are_told_apart() {
    let net = start("nothing-here");
    let output = net.agent.run_once();
    assert!(!output.status.success(), "{}", told(&output));
    let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(said.contains("module") && said.contains("nothing-here"), "{said}");

    let Stock { testbed, agent, rsyncd, .. } = net;
    let port = rsyncd.port();
    rsyncd.stop();
    let output = agent.run_once();
    assert!(!output.status.success(), "{}", told(&output));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&port.to_string()), "{said}");
    drop(testbed);
}

#[test]
fn a_machine_without_rsync_says_what_to_install() {
    let net = start("pub");
    write(&net.upstream.join("f"), "x");
    let output =
        net.agent.command(&["run", "--once"]).env("PATH", "/nonexistent").output().unwrap();
    assert!(!output.status.success(), "{}", told(&output));
    let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(said.contains("rsync") && said.contains("install"), "{said}");
}

#[test]
fn an_unreadable_file_upstream_is_never_taken_for_a_deletion() {
    // As root nothing is unreadable, so the daemon serves as nobody.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let net = start("pub");
    for n in 0..20 {
        write(&net.upstream.join(format!("d/f{n}")), prose(n, 100));
    }
    net.sync();
    let Stock { testbed, agent, upstream, rsyncd } = net;
    let port = rsyncd.port();
    rsyncd.stop();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(upstream.join("d"), fs::Permissions::from_mode(0o700)).unwrap();
    let parent = testbed.path("upstream");
    for dir in parent.ancestors().take(2) {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let _denied = Rsyncd::start_on(
        port,
        &testbed.path("rsyncd2"),
        &[("pub", &parent)],
        "uid = 65534\ngid = 65534\n",
    );
    let output = agent.run_once();
    assert!(!output.status.success(), "{}", told(&output));
    assert_eq!(fs::read_dir(agent.published("tree/d")).unwrap().count(), 20);
}
