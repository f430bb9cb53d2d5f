//! A tree that several stock rsync servers have.

use std::{fs, net::SocketAddr, path::PathBuf, time::SystemTime};

use serde_json::Value;
use tests::{
    Rsyncd, Testbed, compare,
    fixture::{noise, prose, write},
    network::Agent,
    programs::told,
    valve::Valve,
};

struct Servers {
    testbed: Testbed,
    agent: Agent,
    /// The directories of the two servers, which have different paths.
    trees: [PathBuf; 2],
}

/// Two servers, the first of which is asked first, and the port of each.
fn start(ports: [u16; 2], tree: &str) -> Servers {
    let testbed = Testbed::start();
    let trees = ["first/pub/tree", "second/mirrors/tree"].map(|dir| testbed.make_dir(dir));
    testbed.apply(&format!(
        r#"
[[upstream]]
name = "one"
kind = "rsyncd"
url = "rsync://127.0.0.1:{}/"

[[upstream]]
name = "two"
kind = "rsyncd"
url = "rsync://127.0.0.1:{}/"

[[source]]
name = "first"
upstream = "one"
path = "top/pub"

[[source]]
name = "second"
upstream = "two"
path = "mirrors"

[[tree]]
name = "tree"
source = "first"
path = "tree"
fallback = ["second"]
{tree}

[[site]]
name = "site"

[[grant]]
site = "site"
tree = "tree"

[[assignment]]
site = "site"
tree = "tree"
"#,
        ports[0], ports[1]
    ));
    let agent = testbed.enroll_agent("agent", "site");
    Servers { testbed, agent, trees }
}

impl Servers {
    fn serve(&self, which: usize, port: u16) -> Rsyncd {
        let (name, module, path) =
            [("one", "top", "first"), ("two", "mirrors", "second/mirrors")][which];
        let path = self.testbed.path(path);
        Rsyncd::start_on(port, &self.testbed.path(name), &[(module, &path)], "")
    }

    /// Writes a state of the tree to a server; nothing in it is newer than `newest`.
    fn write(&self, which: usize, state: u64, newest: u64) {
        for n in 0..10 {
            self.file(which, &format!("d/f{n}"), &prose(n + 100 * state, 5_000), state);
        }
        self.file(which, "project/trace/master", &format!("state {state}\n"), newest);
        self.file(which, "newest", &format!("{state}"), newest);
    }

    fn file(&self, which: usize, path: &str, content: &str, seconds: u64) {
        let path = self.trees[which].join(path);
        write(&path, content);
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000 + seconds);
        fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }

    fn last_run(&self) -> Value {
        self.testbed.runs("tree@site").into_iter().next().unwrap()
    }

    fn assert_same(&self, which: usize) {
        compare::assert_same(&self.trees[which], &self.agent.published("tree"), &[]);
    }
}

fn ports() -> [u16; 2] {
    [tests::rsyncd::free_port(), tests::rsyncd::free_port()]
}

#[test]
fn the_next_server_is_asked_while_the_first_is_away_and_time_never_goes_back() {
    let ports = ports();
    let net = start(ports, "");
    net.write(0, 1, 10);
    net.write(1, 2, 20);
    let first = net.serve(0, ports[0]);
    let second = net.serve(1, ports[1]);
    net.agent.sync();
    net.assert_same(0);

    first.stop();
    net.agent.sync();
    net.assert_same(1);
    let run = net.last_run();
    assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
    assert!(run["notices"].to_string().contains("is asked instead"), "{run:#}");

    // The first is back, and has what it had: older than what is held now. Both are asked, and
    // the second has what is held.
    let first = net.serve(0, ports[0]);
    net.agent.sync();
    net.assert_same(1);
    let run = net.last_run();
    assert_eq!(run["result"], "SYNC_UP_TO_DATE", "{run:#}");
    assert!(run["notices"].to_string().contains("an earlier state"), "{run:#}");

    // With the second away nothing else is to be had, and nothing is taken.
    second.stop();
    let output = net.agent.run_once();
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(told(&output).contains("an earlier state"), "{}", told(&output));
    net.assert_same(1);

    net.write(0, 3, 30);
    net.agent.sync();
    net.assert_same(0);
    drop(first);
}

#[test]
fn the_files_of_quick_list_tell_which_server_is_behind() {
    let ports = ports();
    let net = start(ports, "quick-list = [\"project/trace/master\"]");
    net.write(0, 2, 20);
    // Its trace is older, although one file is newer.
    net.write(1, 1, 10);
    net.file(1, "stray", "x", 99);
    let first = net.serve(0, ports[0]);
    let _second = net.serve(1, ports[1]);
    net.agent.sync();
    net.assert_same(0);
    first.stop();
    let output = net.agent.run_once();
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    net.assert_same(0);
    let error = net.last_run()["error"].to_string();
    assert!(error.contains(&ports[0].to_string()), "the first one's error is told: {error}");
    let notices = net.testbed.ctl(&["log", "tree@site"]);
    assert!(notices.contains("is asked instead"), "{notices}");

    // Whoever wants what the other one has all the same takes the first one out.
    net.testbed.apply("[[tree]]\nname = \"tree\"\nsource = \"second\"\npath = \"tree\"\n");
    net.agent.sync();
    net.assert_same(1);
}

#[test]
fn a_server_that_dies_in_the_middle_of_a_transfer_is_replaced_and_nothing_of_two_is_mixed() {
    let ports = ports();
    let net = start(ports, "");
    net.write(0, 1, 10);
    net.write(1, 2, 20);
    for which in [0, 1] {
        // Larger than what passes, and not the same at both.
        write(&net.trees[which].join("d/large"), noise(which as u64, 6 << 20));
    }
    let first = net.serve(0, ports[0]);
    let _second = net.serve(1, ports[1]);
    let valve = Valve::start(SocketAddr::from(([127, 0, 0, 1], ports[0])), 2 << 20);
    let text = fs::read_to_string(&net.agent.config).unwrap();
    fs::write(&net.agent.config, valve.setting() + &text).unwrap();
    let agent = net.testbed.run_agent(&net.agent);
    valve.wait_until_shut();
    first.stop();
    valve.open();
    net.testbed.wait_for_generation("tree@site", 1);
    drop(agent);
    net.assert_same(1);
    let notices = net.last_run()["notices"].to_string();
    assert!(notices.contains("is asked instead"), "{notices}");
}

#[test]
fn no_version_is_removed_by_the_first_word_of_another_server() {
    let ports = ports();
    let net = start(ports, "");
    let tree = |source: &str| {
        format!(
            "[[tree]]\nname = \"tree\"\nsource = \"{source}\"\npath = \"tree\"\n\
             layout = \"versioned\"\ndelete-old-versions = true\n"
        )
    };
    for (which, version, seconds) in [(0, "v1", 10), (0, "v2", 20), (1, "v2", 20), (1, "v3", 30)] {
        net.file(which, &format!("{version}/f"), version, seconds);
    }
    let _first = net.serve(0, ports[0]);
    let _second = net.serve(1, ports[1]);
    net.testbed.apply(&tree("first"));
    net.agent.sync();
    net.assert_same(0);
    // An admin names the other one, which does not have all.
    net.testbed.apply(&tree("second"));
    net.agent.sync();
    let there = |version: &str| net.agent.published("tree").join(version).join("f").exists();
    assert!(there("v1") && there("v2") && there("v3"), "{:#}", net.last_run());
    let notices = net.last_run()["notices"].to_string();
    assert!(notices.contains("another server than the usual"), "{notices}");
    // What that one has shown twice, it may say.
    net.agent.sync();
    assert!(!there("v1") && there("v2") && there("v3"), "{:#}", net.last_run());
}

#[test]
fn what_cannot_fall_back_is_refused_where_it_is_defined() {
    let testbed = Testbed::start();
    let upstreams = r#"
[[upstream]]
name = "one"
kind = "rsyncd"
url = "rsync://127.0.0.1/"

[[upstream]]
name = "few"
kind = "rsyncd"
url = "rsync://127.0.0.2/"
max-connections = 2

[[upstream]]
name = "build"
kind = "publisher"

[[source]]
name = "first"
upstream = "one"
path = "pub"

[[source]]
name = "few"
upstream = "few"
path = "pub"

[[source]]
name = "ours"
upstream = "build"
path = "/srv"
"#;
    for (source, fallback, part) in [
        ("first", "ours", "alone"),
        ("ours", "first", "alone"),
        ("first", "first", "twice"),
        ("first", "few", "max-connections"),
        ("first", "nothing", "not defined"),
    ] {
        let file = testbed.path("bad.toml");
        let tree = format!(
            "{upstreams}\n[[tree]]\nname = \"tree\"\nsource = \"{source}\"\nfallback = [\"{fallback}\"]\n"
        );
        fs::write(&file, tree).unwrap();
        let said = testbed.ctl_fails(&["apply", "-f", file.to_str().unwrap()]);
        assert!(said.contains(part) && said.contains("bad.toml"), "{fallback}: {said}");
    }
}
