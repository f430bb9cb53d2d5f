//! A coordinator that comes back from a backup, under agents that know more than it does.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use tests::{
    Testbed,
    programs::{program, succeed, told},
};

const TREES: [&str; 5] = ["one", "two", "three", "four", "five"];

fn definitions(testbed: &Testbed, assignment: impl Fn(&str) -> String) -> String {
    let source = testbed.path("upstream");
    let mut text = format!(
        "[[upstream]]\nname = \"build\"\nkind = \"publisher\"\n
[[source]]\nname = \"source\"\nupstream = \"build\"\npath = {source:?}\n
[[site]]\nname = \"site\"\n
[[site]]\nname = \"elsewhere\"\n"
    );
    for tree in TREES {
        write!(
            text,
            "[[tree]]\nname = \"{tree}\"\nsource = \"source\"\npath = \"{tree}\"\ninterval = \"1h\"\n
[[grant]]\nsite = \"site\"\ntree = \"{tree}\"\n
[[assignment]]\nsite = \"site\"\ntree = \"{tree}\"\n{}\n",
            assignment(tree)
        )
        .unwrap();
    }
    text
}

/// Every file below a directory, with its content.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(
                files(&path).into_iter().map(|(below, data)| (format!("{name}/{below}"), data)),
            );
        } else {
            found.insert(name, fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn after_a_restore_agents_obey_the_revoked_stay_out_and_no_mirror_loses_a_file() {
    let mut net = Testbed::start();
    for tree in TREES {
        let dir = net.make_dir(&format!("upstream/{tree}"));
        for number in 0..20 {
            fs::write(dir.join(format!("file-{number}")), format!("{tree} {number}")).unwrap();
        }
    }
    net.apply(&definitions(&net, |_| String::new()));
    let publisher = net.enroll_publisher("build");
    let publishing = net.run_publisher(&publisher);
    let (agent, thief) = (net.enroll_agent("a1", "site"), net.enroll_agent("a2", "elsewhere"));
    for tree in TREES {
        net.publish(&publisher, tree);
    }
    agent.sync();
    let backup = net.path("backup");
    let mut back_up = program("coordinator");
    back_up.args(["backup", "--verify", "--out"]).arg(&backup);
    succeed(back_up.arg("--config").arg(net.path("coordinator.toml")));

    // Forgotten by the backup: five assignments that are no longer carried out, and a revocation.
    net.apply(&definitions(&net, |_| "enabled = false".into()));
    net.ctl(&["revoke", "agent/a2", "--reason", "stolen"]);
    agent.sync();
    let before = files(&agent.storage.join("pub"));
    assert_eq!(before.len(), 100);

    net.kill_coordinator();
    let old = net.path("coordinator.old");
    fs::rename(net.coordinator_data(), &old).unwrap();
    let mut restore = program("coordinator");
    restore.arg("restore").arg(&backup).arg("--data").arg(net.coordinator_data());
    let said = succeed(restore.arg("--revocations").arg(old.join("revocations")));
    assert!(said.contains("Revoked again, because it was done after the backup: 1"), "{said}");
    net.start_coordinator();

    let output = thief.run_once();
    let refused = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(!output.status.success() && refused.contains("revoked"), "{}", told(&output));

    // The assignments are carried out again, although the agent knew newer orders.
    fs::write(net.path("upstream/three/new"), "after the restore").unwrap();
    net.publish(&publisher, "three");
    agent.sync();
    let after = files(&agent.storage.join("pub"));
    assert_eq!(after.get("three/new").map(Vec::as_slice), Some(&b"after the restore"[..]));
    for (path, data) in &before {
        assert_eq!(after.get(path), Some(data), "{path}");
    }
    assert!(net.ctl(&["audit"]).contains("restore epoch 2"));
    drop(publishing);
}
