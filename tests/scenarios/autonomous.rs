//! Trees that go on by their publisher's word alone, and those that do not.

mod cut_off;
mod in_a_bucket;
mod restored;

use std::{fs, path::PathBuf};

use serde_json::Value;
use tests::{
    Daemon, Testbed,
    fixture::prose,
    network::{Agent, Publisher, bytes_by},
    programs::{program, succeed, told},
    valve::Valve,
    wait_until,
};

/// How long what the coordinator says counts.
const HEAD_LIFE: &str = "8s";
/// Files besides those that change, so that one of them may go.
const FILES: u64 = 20;

/// The trees `free`, which is autonomous, and `bound`, which is not, at one site.
struct Net {
    testbed: Testbed,
    publisher: Publisher,
    publishing: Option<Daemon>,
    agent: Agent,
    /// What lies between the publisher and the coordinator, if anything does.
    valve: Option<Valve>,
}

/// What is different from the usual.
#[derive(Default)]
struct Setup<'a> {
    /// Further lines for the publisher's configuration.
    publisher: &'a str,
    /// Further lines of the autonomous tree's definition.
    free: &'a str,
    /// Further lines for the agent's configuration.
    agent: &'a str,
    /// What lies between the publisher and the coordinator.
    valve: Option<Valve>,
}

/// A network in which what the coordinator says counts for a short time.
fn testbed() -> Testbed {
    Testbed::start_with(&format!("head-life = \"{HEAD_LIFE}\""))
}

impl Net {
    /// Starts it, with these further lines for the publisher's configuration.
    fn start(config: &str) -> Self {
        Self::start_in(testbed(), Setup { publisher: config, ..Setup::default() })
    }

    /// The same in a network that runs already.
    fn start_in(testbed: Testbed, setup: Setup<'_>) -> Self {
        let Setup { publisher: config, free, agent: more, valve } = setup;
        for tree in ["free", "bound"] {
            let dir = testbed.make_dir(&format!("upstream/{tree}"));
            for number in 0..FILES {
                fs::write(dir.join(format!("file-{number}")), prose(100 + number, 1_000)).unwrap();
            }
        }
        let publisher = {
            let net = testbed.enroll_publisher("build");
            let text = fs::read_to_string(&net.config).unwrap();
            fs::write(&net.config, format!("{text}settle = \"0s\"\n{config}\n")).unwrap();
            net
        };
        define(&testbed, free);
        let agent = testbed.enroll_agent("agent", "site");
        let text = fs::read_to_string(&agent.config).unwrap();
        fs::write(&agent.config, format!("{text}{more}")).unwrap();
        let mut net = Self { testbed, publisher, publishing: None, agent, valve };
        net.write(1);
        net.start_publisher();
        net.publish();
        net.agent.sync();
        assert_eq!((net.held("free"), net.held("bound")), (Some(1), Some(1)));
        net
    }

    fn start_publisher(&mut self) {
        let (testbed, publisher) = (&self.testbed, &self.publisher);
        self.publishing = Some(match &self.valve {
            None => testbed.run_publisher(publisher),
            Some(valve) => testbed.run_publisher_behind(publisher, valve),
        });
    }

    fn stop_publisher(&mut self) {
        assert!(self.publishing.take().unwrap().stop().success());
    }

    fn upstream(&self, path: &str) -> PathBuf {
        self.testbed.path("upstream").join(path)
    }

    /// Gives both trees the same new content.
    fn write(&self, number: u64) {
        for tree in ["free", "bound"] {
            fs::write(self.upstream(tree).join("file"), prose(number, 40_000)).unwrap();
        }
    }

    /// Publishes both trees.
    fn publish(&self) {
        for tree in ["free", "bound"] {
            self.testbed.publish(&self.publisher, tree);
        }
    }

    /// Has the tree `free` taken, whatever comes of it, and takes what is said.
    fn try_publish(&self) -> String {
        let mut command = program("publisher");
        command.args(["publish", "free", "--wait", "--data"]).arg(&self.publisher.data);
        told(&command.output().unwrap())
    }

    fn wait_for_publisher(&self, word: &str) {
        let mut said = String::new();
        wait_until(&format!("the publisher to say: {word}"), || {
            said = self.try_publish();
            said.contains(word)
        });
    }

    /// What the publisher says of itself.
    fn status(&self) -> (String, Value) {
        let ask = |output: &str| {
            let mut command = program("publisher");
            command.args(["status", "--output", output, "--data"]).arg(&self.publisher.data);
            succeed(&mut command)
        };
        (ask("text"), serde_json::from_str(&ask("json")).unwrap())
    }

    /// Which content the mirror of a tree has.
    fn held(&self, tree: &str) -> Option<u64> {
        held(&self.agent, tree)
    }

    /// Has the agent look until the tree `free` has that content.
    fn wait_for_content(&self, number: u64) {
        wait_for_content(&self.agent, number);
    }

    /// The numbers that the coordinator knows, the newest first.
    fn generations(&self, tree: &str) -> Vec<u64> {
        let list = self.testbed.ctl_json(&["get", "generations", tree]);
        let numbers = list.as_array().unwrap().iter();
        numbers.filter_map(|one| one["version"]["generation"].as_u64()).collect()
    }
}

/// Which content an agent's mirror of a tree has.
fn held(agent: &Agent, tree: &str) -> Option<u64> {
    let file = fs::read_to_string(agent.published(tree).join("file")).unwrap();
    (1..10).find(|&number| file == prose(number, 40_000))
}

/// Has an agent look until the tree `free` has that content.
fn wait_for_content(agent: &Agent, number: u64) {
    let mut said = String::new();
    wait_until(&format!("the autonomous tree to have content {number}"), || {
        said = told(&agent.command(&["sync"]).output().unwrap());
        held(agent, "free") == Some(number)
    });
}

/// Defines both trees; `free` are further lines of the autonomous one.
fn define(testbed: &Testbed, free: &str) {
    let source = testbed.path("upstream");
    let mut definitions = format!(
        "[[upstream]]\nname = \"build\"\nkind = \"publisher\"\n\
         [[source]]\nname = \"source\"\nupstream = \"build\"\npath = {source:?}\n\
         [[site]]\nname = \"site\"\n"
    );
    for (tree, more) in [("free", format!("autonomous = true\n{free}")), ("bound", String::new())] {
        definitions.push_str(&format!(
            "[[tree]]\nname = \"{tree}\"\nsource = \"source\"\npath = \"{tree}\"\n\
             interval = \"1s\"\n{more}\n\
             [[grant]]\nsite = \"site\"\ntree = \"{tree}\"\n\
             [[assignment]]\nsite = \"site\"\ntree = \"{tree}\"\n"
        ));
    }
    testbed.apply(&definitions);
}

#[test]
fn an_autonomous_tree_follows_its_publishers_pointer_while_the_coordinator_is_gone_and_no_other_does()
 {
    let mut net = Net::start("");
    // The agent does not run, so it does not hear of this while there is somebody to tell it.
    net.write(2);
    net.publish();
    net.testbed.kill_coordinator();
    net.wait_for_content(2);
    assert_eq!(net.held("bound"), Some(1));
    // Some more rounds, and it still waits for a head.
    let mut said = String::new();
    for _ in 0..3 {
        let output = net.agent.command(&["sync"]).output().unwrap();
        said = told(&output);
    }
    assert_eq!((net.held("free"), net.held("bound")), (Some(2), Some(1)), "{said}");
    net.testbed.start_coordinator();
    net.agent.sync();
    assert_eq!((net.held("free"), net.held("bound")), (Some(2), Some(2)));
}

#[test]
fn its_publisher_goes_on_alone_and_tells_everything_when_the_coordinator_is_back() {
    let mut net = Net::start("autonomous-after = \"2s\"");
    net.testbed.kill_coordinator();
    for number in [2, 3] {
        net.write(number);
        net.wait_for_publisher(&format!("generation {number}"));
        net.wait_for_content(number);
        assert_eq!(net.held("bound"), Some(1));
    }
    let (text, json) = net.status();
    assert!(text.contains("coordinator silent since"), "{text}");
    assert!(text.contains("2 generations to be told when it is back"), "{text}");
    let free = &json["trees"]["free"];
    assert_eq!((&free["generation"], &free["untold"]), (&3.into(), &2.into()), "{json}");
    assert!(free["alone"].is_string(), "{json}");
    assert!(json["trees"]["bound"]["alone"].is_null(), "{json}");
    let log = fs::read_to_string(net.testbed.path("publisher-build.log")).unwrap();
    assert!(log.contains("went on alone, and the points lead to this generation"), "{log}");

    net.testbed.start_coordinator();
    wait_until("the coordinator to be told", || {
        net.generations("free") == [3, 2, 1] && net.generations("bound").len() > 1
    });
    wait_until("the publisher to be at rest", || net.status().1["trees"]["free"]["untold"] == 0);
    net.agent.sync();
    assert_eq!((net.held("free"), net.held("bound")), (Some(3), Some(3)));
    for number in [2, 3] {
        let run = net.testbed.wait_for_generation("free@site", number);
        assert!(bytes_by(&run, "pack") > 0, "{run}");
        assert_eq!((bytes_by(&run, "whole"), bytes_by(&run, "rsync")), (0, 0), "{run}");
    }
    // From here on it goes as ever.
    net.write(4);
    net.publish();
    net.agent.sync();
    assert_eq!((net.held("free"), net.held("bound")), (Some(4), Some(4)));
    assert_eq!(net.generations("free"), [4, 3, 2, 1]);
    let refused = net.testbed.ctl_json(&["events", "--kind", "generation-refused"]);
    assert_eq!(refused.as_array().map(Vec::len), Some(0), "{refused}");
}

#[test]
fn what_a_definition_hides_meanwhile_is_refused_and_told_and_left_behind_by_a_higher_number() {
    let mut net = Net::start("autonomous-after = \"2s\"");
    net.testbed.kill_coordinator();
    net.write(2);
    net.wait_for_publisher("generation 2");
    net.wait_for_content(2);
    // An admin hides a file while the publisher cannot hear of it.
    net.stop_publisher();
    net.testbed.start_coordinator();
    define(&net.testbed, "limit = [\"- /file-7\"]");
    net.start_publisher();
    wait_until("the coordinator to have what is new", || net.generations("free") == [3, 1]);
    let told = net.testbed.ctl_json(&["events", "--kind", "generation-refused"]);
    let told = told.as_array().unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    let text = told[0]["text"].as_str().unwrap();
    for part in ["tree free", "generation 1.2", "definition of tree free has changed", "higher"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let list = net.testbed.ctl_json(&["get", "generations", "free"]);
    let entries: Vec<_> = list.as_array().unwrap().iter().map(|one| &one["entries"]).collect();
    assert_eq!(entries, [FILES, FILES + 1], "without what is hidden");
    net.agent.sync();
    assert_eq!(net.held("free"), Some(2));
    let run = net.testbed.wait_for_generation("free@site", 3);
    assert_eq!(run["from"]["generation"], 2, "{run}");
    assert_eq!((bytes_by(&run, "whole"), bytes_by(&run, "rsync")), (0, 0), "{run}");
}

#[test]
fn what_a_guard_stops_is_not_pointed_to_alone_and_the_coordinator_hears_of_the_hold() {
    let mut net = Net::start("autonomous-after = \"2s\"");
    net.testbed.kill_coordinator();
    // First something that passes, so that it is alone; then too much goes.
    net.write(2);
    net.wait_for_publisher("generation 2");
    for number in 0..FILES / 2 {
        fs::remove_file(net.upstream(&format!("free/file-{number}"))).unwrap();
    }
    net.write(3);
    net.wait_for_publisher("held");
    net.wait_for_content(2);
    for _ in 0..3 {
        let _ = net.agent.command(&["sync"]).output().unwrap();
        assert_eq!(net.held("free"), Some(2));
    }
    net.testbed.start_coordinator();
    wait_until("the coordinator to hear of the hold", || {
        net.generations("free") == [2, 1]
            && net.testbed.ctl(&["status"]).contains("tree free is held (")
    });
    let status = net.testbed.ctl(&["status"]);
    let id: String = status.split("tree free is held (").nth(1).unwrap().chars().take(17).collect();
    net.testbed.ctl(&["approve", &id]);
    wait_until("what was approved", || net.generations("free") == [3, 2, 1]);
}
