//! Trees that go on by their publisher's word alone, and those that do not.

use std::fs;

use tests::{
    Daemon, Testbed,
    fixture::prose,
    network::{Agent, Publisher},
    programs::told,
    wait_until,
};

/// How long what the coordinator says counts.
const HEAD_LIFE: &str = "8s";

/// The trees `free`, which is autonomous, and `bound`, which is not, at one site.
struct Net {
    testbed: Testbed,
    publisher: Publisher,
    _publishing: Daemon,
    agent: Agent,
}

impl Net {
    fn start() -> Self {
        let testbed = Testbed::start_with(&format!("head-life = \"{HEAD_LIFE}\""));
        let source = testbed.make_dir("upstream");
        let mut definitions = format!(
            "[[upstream]]\nname = \"build\"\nkind = \"publisher\"\n\
             [[source]]\nname = \"source\"\nupstream = \"build\"\npath = {source:?}\n\
             [[site]]\nname = \"site\"\n"
        );
        for (tree, autonomous) in [("free", true), ("bound", false)] {
            testbed.make_dir(&format!("upstream/{tree}"));
            definitions.push_str(&format!(
                "[[tree]]\nname = \"{tree}\"\nsource = \"source\"\npath = \"{tree}\"\n\
                 interval = \"1s\"\nautonomous = {autonomous}\n\
                 [[grant]]\nsite = \"site\"\ntree = \"{tree}\"\n\
                 [[assignment]]\nsite = \"site\"\ntree = \"{tree}\"\n"
            ));
        }
        testbed.apply(&definitions);
        let publisher = testbed.enroll_publisher("build");
        let config = fs::read_to_string(&publisher.config).unwrap();
        fs::write(&publisher.config, config + "settle = \"0s\"\n").unwrap();
        let publishing = testbed.run_publisher(&publisher);
        let agent = testbed.enroll_agent("agent", "site");
        Self { testbed, publisher, _publishing: publishing, agent }
    }

    /// Publishes the same content of both trees.
    fn publish(&self, number: u64) {
        for tree in ["free", "bound"] {
            let file = self.testbed.path("upstream").join(tree).join("file");
            fs::write(file, prose(number, 40_000)).unwrap();
            self.testbed.publish(&self.publisher, tree);
        }
    }

    /// Which content the mirror of a tree has.
    fn held(&self, tree: &str) -> Option<u64> {
        let file = fs::read_to_string(self.agent.published(tree).join("file")).unwrap();
        (1..10).find(|&number| file == prose(number, 40_000))
    }
}

#[test]
fn an_autonomous_tree_follows_its_publishers_pointer_while_the_coordinator_is_gone_and_no_other_does()
 {
    let mut net = Net::start();
    net.publish(1);
    net.agent.sync();
    assert_eq!((net.held("free"), net.held("bound")), (Some(1), Some(1)));
    // The agent does not run, so it does not hear of this while there is somebody to tell it.
    net.publish(2);
    net.testbed.kill_coordinator();
    let mut said = String::new();
    wait_until("the head to end and the autonomous tree to go on", || {
        said = told(&net.agent.command(&["sync"]).output().unwrap());
        net.held("free") == Some(2)
    });
    assert_eq!(net.held("bound"), Some(1), "{said}");
    // Some more rounds, and it still waits for a head.
    for _ in 0..3 {
        let output = net.agent.command(&["sync"]).output().unwrap();
        said = told(&output);
    }
    assert_eq!((net.held("free"), net.held("bound")), (Some(2), Some(1)), "{said}");
    net.testbed.start_coordinator();
    net.agent.sync();
    assert_eq!((net.held("free"), net.held("bound")), (Some(2), Some(2)));
}
