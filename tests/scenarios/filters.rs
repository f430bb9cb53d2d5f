//! Filters that change: what they newly leave out is treated as the assignment says.

use std::{fs, path::PathBuf, process::Output};

use serde_json::Value;
use tests::{
    Rsyncd, Testbed, compare,
    fixture::{OneTree, mirrored, prose, write},
    network::{Agent, inodes},
    programs::told,
};

/// A tree of a publisher or of a stock daemon, and its site; both behave alike.
struct Net {
    testbed: Testbed,
    agent: Agent,
    upstream: PathBuf,
    daemons: Box<dyn std::any::Any>,
    new_generation: Box<dyn Fn(&Testbed)>,
}

impl Net {
    /// Forty small files, three images, and a directory with two more.
    fn of_publisher() -> Self {
        let OneTree { testbed, publisher, publishing, agent, upstream } = OneTree::start("", "");
        let publish = move |testbed: &Testbed| drop(testbed.publish(&publisher, "tree"));
        let daemons = Box::new(publishing);
        Self { testbed, agent, upstream, daemons, new_generation: Box::new(publish) }.filled()
    }

    fn of_stock_daemon() -> Self {
        let testbed = Testbed::start();
        let upstream = testbed.make_dir("upstream/tree");
        let rsyncd =
            Rsyncd::start(&testbed.path("rsyncd"), &[("pub", &testbed.path("upstream"))], "");
        testbed.apply(&mirrored(&rsyncd, "", "", "keep-withdrawn = \"0s\""));
        let agent = testbed.enroll_agent("agent", "site");
        let new_generation = Box::new(|_: &Testbed| ());
        Self { testbed, agent, upstream, daemons: Box::new(rsyncd), new_generation }.filled()
    }

    fn both() -> [Self; 2] {
        [Self::of_publisher(), Self::of_stock_daemon()]
    }

    fn filled(self) -> Self {
        for n in 0..40 {
            write(&self.upstream.join(format!("d{}/f{n}", n % 4)), prose(n, 100));
        }
        for name in ["a.iso", "d1/b.iso", "d2/c.iso", "debug/x", "debug/deep/y"] {
            write(&self.upstream.join(name), prose(50, 100));
        }
        (self.new_generation)(&self.testbed);
        self.agent.sync();
        compare::assert_same(&self.upstream, &self.mirror(), &[]);
        self
    }

    fn mirror(&self) -> PathBuf {
        self.agent.published("tree")
    }

    /// Defines the assignment anew, with these further lines.
    fn assign(&self, lines: &str) {
        let lines = format!("keep-withdrawn = \"0s\"\n{lines}");
        self.testbed.apply(&format!("[[assignment]]\nsite = \"site\"\ntree = \"tree\"\n{lines}\n"));
    }

    fn last_run(&self) -> Value {
        self.testbed.runs("tree@site").into_iter().next().unwrap()
    }

    fn dry_run(&self) -> (Output, Value) {
        let mut command = self.agent.command(&["sync", "--dry-run", "--output", "json"]);
        let output = command.output().unwrap();
        let reports: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}\n{}", told(&output)));
        let report = reports[0].clone();
        (output, report)
    }

    fn has(&self, names: &[&str]) -> Vec<bool> {
        names.iter().map(|name| self.mirror().join(name).exists()).collect()
    }
}

const LEFT_OUT: [&str; 5] = ["a.iso", "d1/b.iso", "d2/c.iso", "debug/x", "debug/deep/y"];
const RULES: &str = "filter = [\"- *.iso\", \"- /debug/\"]";

fn notices(run: &Value) -> String {
    run["notices"].to_string()
}

#[test]
fn what_a_filter_newly_leaves_out_stays_and_is_told() {
    for net in Net::both() {
        let before = inodes(&net.mirror());
        net.assign(RULES);
        let (output, report) = net.dry_run();
        assert!(output.status.success(), "{}", told(&output));
        assert!(notices(&report).contains("5 files of"), "{report:#}");
        assert_eq!(report["changes"]["deleted"], 0, "{report:#}");
        assert_eq!(inodes(&net.mirror()), before);

        net.agent.sync();
        let run = net.last_run();
        assert_eq!(inodes(&net.mirror()), before, "{run:#}");
        assert_eq!(run["changes"]["deleted"], 0, "{run:#}");
        let told = notices(&run);
        assert!(told.contains("5 files of") && told.contains("stay"), "{run:#}");
        assert!(told.contains("a.iso, d1/b.iso, d2/c.iso, …"), "{run:#}");

        // They stay through what comes, also where the upstream removes or changes them.
        write(&net.upstream.join("d1/f1"), "changed");
        write(&net.upstream.join("d1/b.iso"), "changed");
        fs::remove_file(net.upstream.join("d2/c.iso")).unwrap();
        fs::remove_file(net.upstream.join("d3/f3")).unwrap();
        fs::remove_dir_all(net.upstream.join("debug")).unwrap();
        (net.new_generation)(&net.testbed);
        net.agent.sync();
        assert_eq!(net.has(&LEFT_OUT), [true; 5]);
        assert_eq!(fs::read_to_string(net.mirror().join("d1/f1")).unwrap(), "changed");
        assert_ne!(fs::read_to_string(net.mirror().join("d1/b.iso")).unwrap(), "changed");
        assert!(!net.mirror().join("d3/f3").exists());
        drop(net.daemons);
    }
}

#[test]
fn what_a_filter_newly_leaves_out_goes_where_that_is_asked_for() {
    for net in Net::both() {
        write(&net.mirror().join("mine.iso"), "local");
        net.assign(
            "on-exclude = \"remove\"\nfilter = [\"P /a.iso\", \"- *.iso\", \"- /debug/deep/\"]",
        );
        let before = inodes(&net.mirror());
        let (output, report) = net.dry_run();
        assert!(output.status.success(), "{}", told(&output));
        assert_eq!(inodes(&net.mirror()), before);
        let told = notices(&report);
        assert!(told.contains("3 files of") && told.contains("go,"), "{report:#}");
        assert_eq!(report["changes"]["deleted"], 4, "three files, one directory: {report:#}");

        net.agent.sync();
        let run = net.last_run();
        assert_eq!(run["changes"]["deleted"], 4, "{run:#}");
        assert_eq!(net.has(&LEFT_OUT), [true, false, false, true, false], "{run:#}");
        assert!(!net.mirror().join("debug/deep").exists());
        // Nobody brought this file, so nobody takes it away.
        assert_eq!(fs::read_to_string(net.mirror().join("mine.iso")).unwrap(), "local");
        fs::remove_file(net.mirror().join("mine.iso")).unwrap();
        let rules = ["+ /a.iso", "- *.iso", "- /debug/deep/"];
        compare::assert_same(&net.upstream, &net.mirror(), &rules);
        drop(net.daemons);
    }
}

#[test]
fn a_filter_that_would_remove_too_much_is_held() {
    for net in Net::both() {
        let before = inodes(&net.mirror());
        net.assign("on-exclude = \"remove\"\nfilter = [\"- /d*/\"]");
        let (output, report) = net.dry_run();
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        assert!(notices(&report).contains("44 files of"), "{report:#}");

        let output = net.agent.run_once();
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        for part in ["held", "44 of 45 files", "filter", "max-delete-files", "on-exclude"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert_eq!(inodes(&net.mirror()), before);

        net.assign("on-exclude = \"keep\"\nfilter = [\"- /d*/\"]");
        net.agent.sync();
        assert_eq!(inodes(&net.mirror()), before);
        drop(net.daemons);
    }
}
