//! One storage is one agent's.

use std::{fs, process::Command};

use tests::{
    Testbed,
    fixture::OneTree,
    network::{Agent, inodes},
    programs::{program, succeed, told},
};

fn fails(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{command:?}\n{}", told(&output));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Another agent of the site, configured for the storage of `of`.
fn second_agent(net: &Testbed, of: &Agent) -> Agent {
    let second = net.enroll_agent("second", "site");
    let text = format!("data = {:?}\nstorage = {:?}\n", second.data, of.storage);
    fs::write(&second.config, text).unwrap();
    Agent { storage: of.storage.clone(), ..second }
}

#[test]
fn an_agent_refuses_the_storage_of_another_until_it_is_handed_over_on_purpose() {
    let net = OneTree::start("", "agent = \"agent\"");
    net.write("f", "content");
    net.publish_and_sync();
    let before = inodes(&net.agent.storage);
    let second = second_agent(&net.testbed, &net.agent);
    for args in [&["run", "--once"][..], &["run"], &["sync"], &["status"], &["purge", "tree"]] {
        let said = fails(&mut second.command(args));
        for word in
            ["agent agent of", "agent second of", "nothing was touched", "mirror-agent claim"]
        {
            assert!(said.contains(word), "{args:?}: no {word:?} in {said}");
        }
        assert!(said.contains(net.agent.data.to_str().unwrap()), "{said}");
    }
    assert_eq!(inodes(&net.agent.storage), before);

    let mut running = net.testbed.run_agent(&net.agent);
    running.wait_for_log("running");
    let said = fails(&mut second.command(&["claim"]));
    assert!(said.contains("agent agent") && said.contains("running"), "{said}");
    assert!(running.stop().success());

    let claimed = succeed(&mut second.command(&["claim"]));
    assert!(claimed.contains("belonged to agent agent of network test"), "{claimed}");
    let network = fs::read_to_string(net.testbed.path("network.toml")).unwrap();
    net.testbed.apply(&network.replace("agent = \"agent\"", "agent = \"second\""));
    let tree = inodes(&net.mirror());
    second.sync();
    assert_eq!(inodes(&net.mirror()), tree, "the tree was made anew");
    let said = fails(&mut net.agent.command(&["run", "--once"]));
    assert!(said.contains("belongs to agent second"), "{said}");
}

#[test]
fn one_agent_with_two_data_directories_uses_its_storage_once_at_a_time() {
    let net = OneTree::start("", "");
    net.write("f", "content");
    net.publish_and_sync();
    let copy = net.testbed.path("copy");
    succeed(Command::new("cp").arg("-a").arg(&net.agent.data).arg(&copy));
    let mut running = net.testbed.run_agent(&net.agent);
    running.wait_for_log("running");
    let mut other = program("mirror-agent");
    other.args(["run", "--once", "--data"]).arg(&copy).arg("--storage").arg(&net.agent.storage);
    let said = fails(&mut other);
    assert!(said.contains("in use") && said.contains(copy.to_str().unwrap()), "{said}");
    assert!(said.contains(net.agent.data.to_str().unwrap()), "{said}");
    // A crash holds nothing: the system lets go of the lock.
    running.kill();
    succeed(&mut other);
}

#[test]
fn a_marker_that_cannot_be_read_is_named_and_written_anew_on_purpose() {
    let net = OneTree::start("", "");
    net.write("f", "content");
    net.publish_and_sync();
    let marker = net.agent.storage.join("work/agent.json");
    fs::write(&marker, "{").unwrap();
    let said = fails(&mut net.agent.command(&["run", "--once"]));
    assert!(said.contains(marker.to_str().unwrap()) && said.contains("claim"), "{said}");
    succeed(&mut net.agent.command(&["claim"]));
    net.agent.sync();
}
