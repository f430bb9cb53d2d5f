//! Trees that are switched together: all of them or, where one cannot be, none.

use std::fs;

use serde_json::Value;
use tests::{
    Daemon, Testbed,
    fixture::{prose, write},
    network::{Agent, Publisher, inodes},
    programs::told,
};

use super::assignments::{assignment, trees};

const TREES: [&str; 3] = ["base", "extras", "updates"];

struct Group {
    net: Testbed,
    publisher: Publisher,
    _publishing: Daemon,
    agent: Agent,
    definitions: String,
}

impl Group {
    fn start() -> Self {
        let net = Testbed::start();
        for tree in TREES {
            for n in 0..20 {
                write(&net.path(&format!("upstream/{tree}/d/f{n}")), prose(n, 500));
            }
            write(&net.path(&format!("upstream/{tree}/release")), "1");
        }
        let definitions = trees(&net, &TREES);
        net.apply(&definitions);
        let publisher = net.enroll_publisher("build");
        let publishing = net.run_publisher(&publisher);
        let agent = net.enroll_agent("agent", "site");
        let group = Self { net, publisher, _publishing: publishing, agent, definitions };
        group.assign(&[]);
        group.publish(&TREES, "1");
        group.agent.sync();
        assert_eq!(group.releases(), ["1", "1", "1"]);
        group
    }

    /// Some have further lines of their own.
    fn assign(&self, further: &[(&str, &str)]) {
        let order = |tree: &str| {
            let more = further.iter().find(|(of, _)| *of == tree).map_or("", |(_, more)| more);
            assignment(tree, &format!("together = \"release\"\nkeep-withdrawn = \"0s\"\n{more}"))
        };
        let orders: String = TREES.iter().map(|tree| order(tree)).collect();
        self.net.apply(&(self.definitions.clone() + &orders));
    }

    fn publish(&self, trees: &[&str], release: &str) {
        for tree in trees {
            write(&self.net.path(&format!("upstream/{tree}/release")), release);
            self.net.publish(&self.publisher, tree);
        }
    }

    /// What a reader sees of each.
    fn releases(&self) -> [String; 3] {
        TREES.map(|tree| fs::read_to_string(self.agent.published(tree).join("release")).unwrap())
    }

    fn last_run(&self, tree: &str) -> Value {
        self.net.runs(&format!("{tree}@site")).into_iter().next().unwrap()
    }

    /// In the coordinator's eyes, too, each holds what its newest run led to.
    fn assert_told(&self) {
        let status = self.net.ctl_json(&["status"]);
        for (tree, one) in TREES.iter().zip(status["assignments"].as_array().unwrap()) {
            let run = self.last_run(tree);
            assert!(one["holds"]["generation"].is_u64(), "{one:#}");
            assert_eq!(one["holds"]["generation"], run["to"]["generation"], "{run:#}");
        }
    }
}

#[test]
fn trees_that_say_together_are_switched_in_one_run_and_each_has_its_report() {
    let group = Group::start();
    group.publish(&TREES, "2");
    group.agent.sync();
    assert_eq!(group.releases(), ["2", "2", "2"]);
    group.assert_told();
    for tree in TREES {
        let run = group.last_run(tree);
        assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
        assert!(run["switch"].as_str().unwrap().starts_with("exchange: "), "{run:#}");
    }
    let told = group.last_run("base")["notices"].to_string();
    assert!(told.contains("switched together with extras@site"), "{told}");
    // One alone has nothing to wait for.
    group.publish(&["extras"], "3");
    group.agent.sync();
    assert_eq!(group.releases(), ["2", "3", "2"]);
}

#[test]
fn a_kill_between_two_switches_is_gone_forward_from() {
    let group = Group::start();
    for (round, switched) in (2..).zip([0, 1, 2]) {
        let (old, new) = ((round - 1).to_string(), round.to_string());
        group.publish(&TREES, &new);
        let mut run = group.agent.command(&["run", "--once"]);
        run.env("MIRRORNET_FAIL_AT", format!("exchange:{}", switched + 1));
        let output = run.output().unwrap();
        assert_eq!(output.status.code(), None, "it was not killed: {}", told(&output));
        let releases = group.releases();
        let seen = releases.iter().filter(|release| **release == new).count();
        assert_eq!(seen, switched, "{releases:?}");
        assert!(releases.iter().all(|release| [&old, &new].contains(&release)), "{releases:?}");
        group.agent.sync();
        assert_eq!(group.releases(), [new.as_str(); 3]);
        group.assert_told();
    }
}

#[test]
fn a_hold_of_one_holds_all_until_it_is_approved() {
    let group = Group::start();
    group.publish(&TREES, "2");
    // What a changed filter leaves out, no publisher's signature speaks of.
    let filter = "on-exclude = \"remove\"\nfilter = [\"- /d/\"]";
    group.assign(&[("updates", filter)]);
    let output = group.agent.run_once();
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert_eq!(group.releases(), ["1", "1", "1"]);
    let (base, updates) = (group.last_run("base"), group.last_run("updates"));
    let error = base["error"].as_str().unwrap();
    assert!(error.contains("switched together with updates@site"), "{base:#}");
    assert!(updates["error"].as_str().unwrap().contains("held"), "{updates:#}");
    let list = group.net.ctl_json(&["get", "generations", "updates"]);
    let mut holds = list.as_array().unwrap().iter().filter(|item| item["hold"].is_object());
    let id = holds.next().unwrap()["hold"]["id"].as_str().unwrap().to_owned();
    group.net.ctl(&["approve", &id]);
    group.agent.sync();
    assert_eq!(group.releases(), ["2", "2", "2"]);
    assert!(!group.agent.published("updates").join("d").exists());
}

#[test]
fn what_is_only_tried_is_left_out_of_the_switch_and_nothing_of_it_changes() {
    let group = Group::start();
    // One that would work for all, as the first by name, and one that would follow.
    for (tried, number) in [("base", "2"), ("updates", "3")] {
        group.assign(&[(tried, "dry-run-only = true")]);
        let before = inodes(&group.agent.published(tried));
        let old = group.releases();
        group.publish(&TREES, number);
        group.agent.sync();
        for ((tree, seen), old) in TREES.iter().zip(group.releases()).zip(old) {
            let run = group.last_run(tree);
            if *tree == tried {
                assert_eq!(seen, old, "{tree}: {run:#}");
                assert_eq!(run["result"], "SYNC_COMPLETED_DRY_RUN", "{run:#}");
                assert_eq!(run["foreseen"]["would-transfer"][0], "release", "{run:#}");
            } else {
                assert_eq!(seen, number, "{tree}: {run:#}");
                assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
                assert!(!run["notices"].to_string().contains(tried), "{run:#}");
            }
        }
        assert_eq!(inodes(&group.agent.published(tried)), before, "{tried}");
        // Once it may be carried out it follows, alone.
        group.assign(&[]);
        group.agent.sync();
        assert_eq!(group.releases(), [number; 3]);
        group.assert_told();
    }
}
