//! When and how fast a site works: budgets, rates, limits of the upstream, quick listings.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tests::{
    Rsyncd, Testbed, compare,
    fixture::{noise, prose, write},
    network::{Agent, bytes_by},
    programs::{succeed, told},
};

struct Network {
    testbed: Testbed,
    upstream: PathBuf,
    rsyncd: Rsyncd,
}

/// A stock daemon with one tree; `upstream`, `tree` and `site` are further lines of theirs.
fn start(daemon: &str) -> Network {
    let testbed = Testbed::start();
    let upstream = testbed.make_dir("upstream/tree");
    let daemon = daemon.replace("DIR", testbed.path("").to_str().unwrap());
    let rsyncd =
        Rsyncd::start(&testbed.path("rsyncd"), &[("pub", &testbed.path("upstream"))], &daemon);
    Network { testbed, upstream, rsyncd }
}

impl Network {
    fn apply(&self, upstream: &str, tree: &str, sites: &[(&str, &str)]) {
        let mut text = format!(
            "[[upstream]]\nname = \"stock\"\nkind = \"rsyncd\"\nurl = \"{}\"\n{upstream}\n\
             [[source]]\nname = \"source\"\nupstream = \"stock\"\npath = \"pub\"\n\
             [[tree]]\nname = \"tree\"\nsource = \"source\"\npath = \"tree\"\n{tree}\n",
            self.rsyncd.url()
        );
        for (site, lines) in sites {
            text += &format!(
                "[[site]]\nname = \"{site}\"\n{lines}\n\
                 [[grant]]\nsite = \"{site}\"\ntree = \"tree\"\n\
                 [[assignment]]\nsite = \"{site}\"\ntree = \"tree\"\n"
            );
        }
        self.testbed.apply(&text);
    }

    fn sync(&self, agent: &Agent) -> Value {
        agent.sync();
        self.testbed.runs("tree@site").into_iter().next().unwrap()
    }

    fn assert_same(&self, agent: &Agent) {
        compare::assert_same(&self.upstream, &agent.published("tree"), &[]);
    }
}

#[test]
fn a_tree_whose_small_file_did_not_change_is_not_listed() {
    let net = start("");
    for n in 0..300 {
        write(&net.upstream.join(format!("pool/d{}/file-{n}", n % 7)), prose(n, 300));
    }
    write(&net.upstream.join("project/trace/master"), "1\n");
    net.apply("", "quick-list = [\"project/trace/*\"]", &[("site", "")]);
    let agent = net.testbed.enroll_agent("agent", "site");
    net.sync(&agent);
    net.assert_same(&agent);

    // The upstream is being changed, and says so last.
    write(&net.upstream.join("pool/d1/file-1"), "changed\n");
    let run = net.sync(&agent);
    assert_eq!(run["result"], "SYNC_UP_TO_DATE", "{run:#}");
    let quick = bytes_by(&run, "metadata");
    assert!(quick < 2_000, "{quick} bytes for a look: {run:#}");
    assert_ne!(fs::read(agent.published("tree/pool/d1/file-1")).unwrap(), b"changed\n");

    write(&net.upstream.join("project/trace/master"), "2, longer\n");
    let run = net.sync(&agent);
    assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
    net.assert_same(&agent);
}

#[test]
fn a_budget_that_is_used_up_stops_transfers_and_harms_nothing_until_it_is_raised() {
    let net = start("");
    write(&net.upstream.join("small"), prose(1, 2_000));
    net.apply("", "", &[("site", "budget = \"600KiB/month\"")]);
    let agent = net.testbed.enroll_agent("agent", "site");
    net.sync(&agent);
    write(&net.upstream.join("large"), noise(2, 2 << 20));
    let output = agent.run_once();
    let said = told(&output);
    assert!(!output.status.success() && said.contains("budget"), "{said}");
    assert!(agent.published("tree/small").exists() && !agent.published("tree/large").exists());
    // It stays used up over a restart, and nothing more is asked of the upstream.
    let asked = net.rsyncd.log().lines().count();
    assert!(!agent.run_once().status.success());
    assert_eq!(net.rsyncd.log().lines().count(), asked);

    net.apply("", "", &[("site", "budget = \"1GiB/month\"")]);
    net.sync(&agent);
    net.assert_same(&agent);
}

#[test]
fn one_rate_holds_for_rsync_and_http_together() {
    const RATE: u64 = 256 << 10;
    let net = start("");
    let publisher = net.testbed.make_dir("published/tree");
    let size = 640 << 10;
    write(&net.upstream.join("by-rsync"), noise(3, size));
    write(&publisher.join("by-http"), noise(4, size));
    let build = net.testbed.enroll_publisher("build");
    net.testbed.apply(&format!(
        "[[upstream]]\nname = \"stock\"\nkind = \"rsyncd\"\nurl = \"{}\"\n\
         [[source]]\nname = \"source\"\nupstream = \"stock\"\npath = \"pub\"\n\
         [[tree]]\nname = \"tree\"\nsource = \"source\"\npath = \"tree\"\n\
         [[upstream]]\nname = \"build\"\nkind = \"publisher\"\n\
         [[source]]\nname = \"own\"\nupstream = \"build\"\npath = {publisher:?}\n\
         [[tree]]\nname = \"other\"\nsource = \"own\"\n\
         [[site]]\nname = \"site\"\nbandwidth = [{{ when = \"00-24\", rate = \"256KiB/s\" }}]\n\
         [[grant]]\nsite = \"site\"\ntree = \"tree\"\n\
         [[grant]]\nsite = \"site\"\ntree = \"other\"\n\
         [[assignment]]\nsite = \"site\"\ntree = \"tree\"\n\
         [[assignment]]\nsite = \"site\"\ntree = \"other\"\n",
        net.rsyncd.url()
    ));
    let _running = net.testbed.run_publisher(&build);
    net.testbed.publish(&build, "other");
    let agent = net.testbed.enroll_agent("agent", "site");
    let begun = Instant::now();
    agent.sync();
    let took = begun.elapsed();
    net.assert_same(&agent);
    compare::assert_same(&publisher, &agent.published("other"), &[]);
    // Both at once take as long as both together would; a quarter of a second may come in advance.
    let least = Duration::from_secs_f64(2.0 * size as f64 / RATE as f64 - 0.5);
    assert!(took >= least, "2 x {size} bytes in {took:?}, expected at least {least:?}");
}

#[test]
fn a_daemon_that_takes_one_connection_is_never_asked_for_two() {
    let net = start("max connections = 1\nlock file = DIR/rsyncd.lock");
    for n in 0..30 {
        write(&net.upstream.join(format!("file-{n}")), noise(n, 100_000));
    }
    let names = ["north", "south", "west"];
    let sites: Vec<_> = names.map(|site| (site, "default-rate = \"1MiB/s\"")).into();
    net.apply("max-connections = 1", "", &sites);
    let agents = names.map(|site| net.testbed.enroll_agent(&format!("{site}-1"), site));
    thread::scope(|scope| {
        for agent in &agents {
            scope.spawn(|| succeed(&mut agent.command(&["run", "--once"])));
        }
    });
    for agent in &agents {
        net.assert_same(agent);
    }
    let log = net.rsyncd.log();
    assert!(!log.contains("max connections"), "the daemon turned somebody away:\n{log}");
    assert!(log.matches("rsync on pub/tree").count() >= 3, "{log}");
}

#[test]
fn a_stock_server_that_limits_connections_is_not_asked_while_nobody_gives_them_out() {
    let mut net = start("");
    write(&net.upstream.join("file"), "one\n");
    net.apply("max-connections = 2", "", &[("site", "")]);
    let agent = net.testbed.enroll_agent("agent", "site");
    net.sync(&agent);
    net.testbed.kill_coordinator();
    let asked = net.rsyncd.log().lines().count();
    let output = agent.run_once();
    let said = told(&output);
    assert!(!output.status.success() && said.contains("2 connections"), "{said}");
    assert_eq!(net.rsyncd.log().lines().count(), asked);
    assert_eq!(fs::read(agent.published("tree/file")).unwrap(), b"one\n");
}

#[test]
fn a_preview_says_what_would_be_due_at_a_time_by_each_site_s_clock_and_starts_nothing() {
    let net = start("");
    let sites =
        [("lisbon", "timezone = \"Europe/Lisbon\""), ("oslo", "timezone = \"Europe/Oslo\"")];
    net.apply("", "sync-hours = 6", &sites);
    net.testbed.enroll_agent("a", "lisbon");
    net.testbed.enroll_agent("b", "oslo");
    // At 11:30Z it is half past twelve in Lisbon and half past one in Oslo, in summer.
    let all = net.testbed.ctl_json(&["schedule", "--at", "2026-06-01T11:30Z"]);
    let due = |name: &str| all.as_array().unwrap().iter().find(|it| it["assignment"] == name);
    let (lisbon, oslo) = (due("tree@lisbon").unwrap(), due("tree@oslo").unwrap());
    assert_eq!((&lisbon["due"], &oslo["due"]), (&true.into(), &false.into()), "{all:#}");
    assert_eq!(lisbon["next"], "2026-06-01T17:00:00Z", "{all:#}");
    assert_eq!(oslo["next"], "2026-06-01T16:00:00Z", "{all:#}");
    net.testbed.ctl(&["disable", "tree@lisbon"]);
    let text = net.testbed.ctl(&["schedule", "--site", "lisbon", "--at", "2026-06-01T11:30Z"]);
    assert!(text.contains("stopped") && !text.contains("tree@oslo"), "{text}");
    assert!(net.testbed.runs("tree@lisbon").is_empty());
    assert!(!net.rsyncd.log().contains("rsync on pub"), "{}", net.rsyncd.log());
}
