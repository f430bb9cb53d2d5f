//! Programs that cannot start say why and what to do.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt, chown},
};

use tests::{
    Testbed,
    programs::{program, told},
};

fn fails(command: &mut std::process::Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{command:?} succeeded\n{}", told(&output));
    assert_ne!(output.status.code(), Some(101), "{command:?} panicked\n{}", told(&output));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_port_that_is_taken_is_named() {
    let net = Testbed::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut serve = program("coordinator");
    serve.args(["serve", "--data"]).arg(net.path("second"));
    serve.args(["--listen", &format!("127.0.0.1:{port}"), "--enroll-listen", "127.0.0.1:0"]);
    let mut init = program("coordinator");
    init.args(["init", "--network", "x", "--hostname", "localhost", "--data"])
        .arg(net.path("second"));
    tests::programs::succeed(&mut init);
    let said = fails(&mut serve);
    assert!(said.contains(&port.to_string()) && said.contains("use"), "{said}");
}

#[test]
fn a_publisher_whose_port_is_taken_names_it() {
    let net = Testbed::start();
    net.apply("[[upstream]]\nname = \"build\"\nkind = \"publisher\"\n");
    let publisher = net.enroll_publisher("build");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut run = program("publisher");
    run.args(["run", "--listen", &address, "--config"]).arg(&publisher.config);
    let said = fails(&mut run);
    assert!(said.contains(&address) && said.contains("use"), "{said}");
}

#[test]
fn a_second_agent_on_a_data_directory_is_told_of_the_first() {
    let net = Testbed::start();
    net.apply("[[site]]\nname = \"site\"\n");
    let agent = net.enroll_agent("agent", "site");
    let mut first = net.run_agent(&agent);
    first.wait_for_log("running");
    for args in [&["run"][..], &["run", "--once"]] {
        let said = fails(&mut agent.command(args));
        assert!(said.contains("another") && said.contains(agent.data.to_str().unwrap()), "{said}");
    }
    let status = agent.command(&["status"]).output().unwrap();
    assert!(status.status.success(), "the first one lost its socket\n{}", told(&status));
    assert!(first.stop().success());
    // A socket that a crash left behind stands in nobody's way.
    let mut crashed = net.run_agent(&agent);
    tests::wait_until("the socket", || agent.data.join("control.sock").exists());
    crashed.wait_for_log("running");
    crashed.kill();
    let status = agent.command(&["status"]).output().unwrap();
    assert!(status.status.success(), "{}", told(&status));
    let mut again = net.run_agent(&agent);
    tests::wait_until("the new agent to answer", || {
        agent.command(&["status"]).output().unwrap().status.success()
    });
    again.wait_for_log("INFO running");
    assert!(again.stop().success());
}

#[test]
fn an_unknown_key_is_named_with_its_file() {
    let dir = tempfile::tempdir().unwrap();
    for (name, args) in [
        ("coordinator", &["check-config", "--config"][..]),
        ("publisher", &["check-config", "--config"]),
        ("mirror-agent", &["check-config", "--config"]),
    ] {
        let file = dir.path().join(format!("{name}.toml"));
        fs::write(&file, "listne = \"0.0.0.0:1\"\n").unwrap();
        let said = fails(program(name).args(args).arg(&file));
        assert!(said.contains("listne") && said.contains(file.to_str().unwrap()), "{name}: {said}");
    }
}

#[test]
fn a_data_directory_of_another_owner_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    chown(&data, Some(12345), Some(12345)).unwrap();
    let mut init = program("coordinator");
    init.args(["init", "--network", "x", "--hostname", "localhost", "--data"]).arg(&data);
    let said = fails(&mut init);
    assert!(said.contains(data.to_str().unwrap()) && said.contains("own"), "{said}");

    let net = Testbed::start();
    net.apply("[[site]]\nname = \"site\"\n[[upstream]]\nname = \"build\"\nkind = \"publisher\"\n");
    let (agent, publisher) = (net.enroll_agent("agent", "site"), net.enroll_publisher("build"));
    let mut publishing = program("publisher");
    publishing.args(["run", "--config"]).arg(&publisher.config);
    for (data, mut command) in
        [(&agent.data, agent.command(&["run", "--once"])), (&publisher.data, publishing)]
    {
        for entry in walkdir::WalkDir::new(data).into_iter().filter_map(Result::ok) {
            std::os::unix::fs::lchown(entry.path(), Some(12345), Some(12345)).unwrap();
        }
        let said = fails(&mut command);
        let names_it = said.contains(data.to_str().unwrap()) && said.contains("12345");
        assert!(names_it && said.contains("chown"), "{said}");
    }
}

#[test]
fn a_network_is_not_made_twice_in_one_directory() {
    let net = Testbed::start();
    let mut init = program("coordinator");
    init.args(["init", "--network", "x", "--hostname", "localhost", "--data"]);
    let said = fails(init.arg(net.coordinator_data()));
    assert!(said.contains("already"), "{said}");
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_chmod() {
    let net = Testbed::start();
    let agent = {
        net.apply("[[site]]\nname = \"site\"\n");
        net.enroll_agent("agent", "site")
    };
    let key = walkdir::WalkDir::new(&agent.data)
        .follow_links(true)
        .into_iter()
        .filter_map(Result::ok)
        .find(|entry| entry.file_name() == "key.pem")
        .unwrap();
    fs::set_permissions(key.path(), fs::Permissions::from_mode(0o644)).unwrap();
    let said = fails(&mut agent.command(&["run", "--once"]));
    assert!(said.contains("chmod") && said.contains("key.pem"), "{said}");
}

#[test]
fn wrong_usage_exits_with_2() {
    for name in ["coordinator", "publisher", "mirror-agent", "mirrorctl"] {
        let output = program(name).arg("--no-such-flag").output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}\n{}", told(&output));
        let help = program(name).arg("--help").output().unwrap();
        assert!(help.status.success(), "{name}\n{}", told(&help));
    }
}

#[test]
fn definitions_with_errors_are_all_told_and_nothing_is_stored() {
    let net = Testbed::start();
    let file = net.path("bad.toml");
    fs::write(
        &file,
        "[[site]]\nname = \"lisbon\"\n\n[[tree]]\nname = \"fedora\"\nsource = \"nowhere\"\n\
         colour = \"red\"\n\n[[assignment]]\nsite = \"lisbonn\"\ntree = \"fedora\"\npath = \"../up\"\n",
    )
    .unwrap();
    let said = net.ctl_fails(&["apply", "-f", file.to_str().unwrap()]);
    for expected in ["bad.toml:7", "colour", "bad.toml:12"] {
        assert!(said.contains(expected), "no {expected} in {said}");
    }
    assert!(!net.ctl(&["get", "site"]).contains("lisbon"));
}
