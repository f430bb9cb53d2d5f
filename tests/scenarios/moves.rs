//! Several paths change at once: every tree arrives, by renames alone, whatever happens in between.

use std::{collections::BTreeMap, fs, path::PathBuf};

use tests::{
    Testbed,
    fixture::{prose, write},
    network::{Agent, inodes},
    programs::told,
};

use super::assignments::{assignment, trees};

const TREES: [&str; 3] = ["one", "two", "three"];

struct Three {
    net: Testbed,
    _publishing: tests::Daemon,
    agent: Agent,
    definitions: String,
}

impl Three {
    /// Three trees at one site, all of them held.
    fn start(paths: [&str; 3]) -> Self {
        let net = Testbed::start();
        for (n, tree) in TREES.iter().enumerate() {
            for file in 0..3 {
                let path = format!("upstream/{tree}/d{file}/{tree}");
                write(&net.path(&path), prose((n * 10 + file) as u64, 500));
            }
        }
        let definitions = trees(&net, &TREES);
        net.apply(&definitions);
        let publisher = net.enroll_publisher("build");
        let publishing = net.run_publisher(&publisher);
        let agent = net.enroll_agent("agent", "site");
        let this = Self { net, _publishing: publishing, agent, definitions };
        this.assign(paths);
        for tree in TREES {
            this.net.publish(&publisher, tree);
        }
        this.agent.sync();
        this
    }

    fn assign(&self, paths: [&str; 3]) {
        let order = |(tree, path)| assignment(tree, &format!("path = \"{path}\""));
        let orders: String = TREES.iter().copied().zip(paths).map(order).collect();
        self.net.apply(&(self.definitions.clone() + &orders));
    }

    /// What lies at each of the three paths, with its inodes.
    fn held(&self, paths: [&str; 3]) -> [BTreeMap<PathBuf, u64>; 3] {
        paths.map(|path| inodes(&self.agent.published(path)))
    }

    fn assert_arrived(&self, paths: [&str; 3], before: &[BTreeMap<PathBuf, u64>; 3]) {
        for ((tree, path), (now, before)) in
            TREES.iter().zip(paths).zip(self.held(paths).iter().zip(before))
        {
            assert!(self.agent.published(path).join("d0").join(tree).is_file(), "{tree} at {path}");
            assert_eq!(now, before, "{tree} was not merely renamed to {path}");
        }
        let aside = walkdir::WalkDir::new(self.agent.storage.join("work"))
            .into_iter()
            .filter_map(Result::ok)
            .find(|entry| entry.file_name() == "moving");
        assert!(aside.is_none(), "{aside:?} was left aside");
    }

    fn received(&self) -> u64 {
        let runs = TREES.iter().flat_map(|tree| self.net.runs(&format!("{tree}@site")));
        let ways = runs.flat_map(|run| run["ways"].as_array().cloned().unwrap_or_default());
        ways.filter_map(|way| way["received-bytes"].as_u64()).sum()
    }
}

#[test]
fn chains_rings_and_nested_paths_are_renamed_and_cost_nothing() {
    let mut at = ["a", "b", "c"];
    let network = Three::start(at);
    let (before, received) = (network.held(at), network.received());
    for next in [
        ["b", "c", "d"],
        ["c", "d", "b"],
        ["d/in", "b", "c/in/side"],
        ["d", "c", "b/d/e"],
        ["b", "d/e", "c"],
        ["a", "b", "c"],
    ] {
        network.assign(next);
        network.agent.sync();
        network.assert_arrived(next, &before);
        for path in at.iter().filter(|path| !next.iter().any(|new| new.starts_with(*path))) {
            let left = inodes(&network.agent.published(path));
            assert!(left.keys().all(|name| network.agent.published(path).join(name).is_dir()));
        }
        at = next;
    }
    assert_eq!(network.received(), received, "something was fetched for a rename");
}

#[test]
fn a_kill_at_any_step_of_a_swap_loses_nothing_and_the_next_run_ends_it() {
    let paths = [["a", "b", "c"], ["b", "a", "x/c"]];
    let network = Three::start(paths[0]);
    let before = network.held(paths[0]);
    let mut killed = 0;
    for step in 1.. {
        let next = paths[step % 2];
        network.assign(next);
        let mut run = network.agent.command(&["run", "--once"]);
        run.env("MIRRORNET_FAIL_AT", format!("any:{step}"));
        let output = run.output().unwrap();
        if output.status.success() {
            network.assert_arrived(next, &before);
            break;
        }
        assert_eq!(output.status.code(), None, "it was not killed\n{}", told(&output));
        killed += 1;
        if step % 3 == 0 {
            // The admin thinks better of it while the trees are anywhere.
            network.assign(paths[(step + 1) % 2]);
            network.agent.sync();
            network.assert_arrived(paths[(step + 1) % 2], &before);
            network.assign(next);
        }
        network.agent.sync();
        network.assert_arrived(next, &before);
    }
    assert!(killed >= 10, "a swap has more than {killed} steps");
}

#[test]
fn a_rename_onto_what_somebody_put_there_is_refused_and_nothing_is_lost() {
    let at = ["a", "b", "c"];
    let network = Three::start(at);
    let before = network.held(at);
    write(&network.agent.published("z/precious"), "mine");
    network.assign(["z", "b", "c"]);
    let output = network.agent.run_once();
    assert!(!output.status.success(), "{}", told(&output));
    let said = told(&output);
    assert!(said.contains("one@site") && said.contains("rename a to z"), "{said}");
    assert_eq!(network.held(at), before);
    assert_eq!(fs::read(network.agent.published("z/precious")).unwrap(), b"mine");

    fs::remove_dir_all(network.agent.published("z")).unwrap();
    network.agent.sync();
    network.assert_arrived(["z", "b", "c"], &before);
}

#[test]
fn a_tree_that_was_renamed_by_hand_is_found_at_its_new_path() {
    let network = Three::start(["a", "b", "c"]);
    let before = network.held(["a", "b", "c"]);
    fs::create_dir(network.agent.published("by")).unwrap();
    fs::rename(network.agent.published("a"), network.agent.published("by/hand")).unwrap();
    network.assign(["by/hand", "b", "c"]);
    let received = network.received();
    network.agent.sync();
    network.assert_arrived(["by/hand", "b", "c"], &before);
    assert_eq!(network.received(), received);
}
