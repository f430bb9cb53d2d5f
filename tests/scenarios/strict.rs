//! Networks with a definitions key: agents carry out what it has signed, and nothing else.

use std::{fs, path::Path};

use tests::{
    fixture::{OneTree, prose},
    programs::succeed,
};

/// Names a definitions key in the root, as an admin does; gives its file.
fn become_strict(net: &OneTree) -> String {
    let path = |name: &str| net.testbed.path(name).display().to_string();
    let (key, draft) = (path("definitions.key"), path("next.json"));
    let public = net.testbed.ctl(&["root", "key", &key]);
    net.testbed.ctl(&["root", "draft", "--add-definition-key", public.trim(), "--out", &draft]);
    let root_key = net.testbed.coordinator_data().join("root.key");
    net.testbed.ctl(&["root", "sign", &draft, "--key", root_key.to_str().unwrap()]);
    net.testbed.ctl(&["root", "publish", &draft]);
    key
}

fn sign(net: &OneTree, key: &str, definitions: &Path, number: u32, more: &[&str]) -> String {
    let out = net.testbed.path(&format!("mandates-{number}.json")).display().to_string();
    let file = definitions.to_str().unwrap();
    let args = ["mandate", "sign", "-f", file, "--network", "test", "--key", key, "--out", &out];
    net.testbed.ctl(&[&args[..], more].concat());
    out
}

fn content(net: &OneTree) -> String {
    fs::read_to_string(net.mirror().join("f")).unwrap()
}

/// What the agent and the coordinator say.
fn told(net: &OneTree) -> (String, String) {
    (succeed(&mut net.agent.command(&["status"])), net.testbed.ctl(&["status"]))
}

#[test]
fn a_coordinator_can_stop_a_strict_agent_and_neither_move_nor_end_what_it_holds() {
    let net = OneTree::start("", "on-end = \"trash\"");
    // The definitions as their admin has them, who signs on another machine.
    let signed = net.testbed.path("signed.toml");
    fs::copy(net.testbed.path("network.toml"), &signed).unwrap();
    net.write("f", prose(1, 2_000));
    net.publish_and_sync();
    net.assert_same();
    let key = become_strict(&net);
    net.agent.run_once();

    // Nothing was signed yet: the files stay, and nothing new comes, and everybody is told why.
    net.write("f", prose(2, 2_000));
    net.publish();
    net.agent.run_once();
    assert_eq!(content(&net), prose(1, 2_000));
    let (here, there) = told(&net);
    assert!(here.contains("not carried out until") && here.contains("tree@site"), "{here}");
    assert!(there.contains("no mandate"), "{there}");
    assert!(there.contains("is signed by no definitions key"), "{there}");

    let first = sign(&net, &key, &signed, 1, &[]);
    net.testbed.ctl(&["mandate", "publish", &first]);
    net.agent.sync();
    net.assert_same();
    let (here, there) = told(&net);
    assert!(here.contains("every assignment is signed"), "{here}");
    assert!(!there.contains("mandate"), "{there}");

    // Whoever has the coordinator moves the tree, filters it away, and ends the assignment.
    net.testbed.apply(
        "[[assignment]]\nsite = \"site\"\ntree = \"tree\"\npath = \"elsewhere\"\nkeep-withdrawn = \"0s\"\n\
         filter = [\"- *\"]\non-exclude = \"remove\"\non-end = \"trash\"\n",
    );
    net.write("f", prose(3, 2_000));
    net.publish();
    net.agent.sync();
    net.assert_same();
    assert!(!net.agent.published("elsewhere").exists());
    let (here, there) = told(&net);
    assert!(here.contains("every assignment is signed"), "{here}");
    assert!(there.contains("otherwise than its mandate says"), "{there}");
    net.testbed.ctl(&["delete", "assignment", "tree@site"]);
    net.agent.run_once();
    assert_eq!(content(&net), prose(3, 2_000), "it was not ended by its definitions key");

    // An older mandate is not taken again, nor one by another key.
    let refused = net.testbed.ctl_fails(&["mandate", "publish", &first]);
    assert!(refused.contains("as new or newer"), "{refused}");
    let other = net.testbed.path("other.key").display().to_string();
    net.testbed.ctl(&["root", "key", &other]);
    let forged = sign(&net, &other, &signed, 2, &[]);
    let refused = net.testbed.ctl_fails(&["mandate", "publish", &forged]);
    assert!(refused.contains("not taken"), "{refused}");

    // A signed end takes the files to the trash, as the signed definition says.
    let end = sign(&net, &key, &signed, 3, &["--end", "tree@site"]);
    net.testbed.ctl(&["mandate", "publish", &end]);
    net.agent.run_once();
    assert!(!net.mirror().join("f").exists());
}
