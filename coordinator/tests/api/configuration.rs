//! Starting: what is refused, and how it is said.

use std::{
    os::unix::fs::{PermissionsExt as _, chown},
    process::Stdio,
};

use coordinator::{Config, InitOptions, init, start};
use jiff::Timestamp;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use crate::support::{Network, SOON, config, make};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
    command.env_clear().kill_on_drop(true);
    command
}

/// What a command that must fail says.
async fn complaint(arguments: &[&str]) -> String {
    let output = program().args(arguments).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn an_unknown_key_is_named_with_its_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("coordinator.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:0\"\nlissten = 1\n").unwrap();
    let text = complaint(&["check-config", "--config", file.to_str().unwrap()]).await;
    assert!(text.contains("lissten") && text.contains("line 2"), "{text}");
    assert!(text.contains(file.to_str().unwrap()), "{text}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_its_key() {
    let network = Network::start().await;
    let taken = network.coordinator().api_addr().to_string();
    let dir = tempfile::tempdir().unwrap();
    let other = Config { listen: taken.clone(), ..config(&dir.path().join("other")) };
    make(&other).await;
    let error = start(other).await.err().unwrap().to_string();
    assert!(error.contains(&taken) && error.contains("listen = "), "{error}");
}

#[tokio::test]
async fn two_coordinators_do_not_run_on_one_directory() {
    let network = Network::start().await;
    let error = start(network.config.clone()).await.err().unwrap().to_string();
    assert!(error.contains("another coordinator runs"), "{error}");
}

#[tokio::test]
async fn a_network_is_not_made_over_another_one_or_over_anything_else() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    make(&config(&data)).await;
    let options = InitOptions {
        config: config(&data),
        network: "second".parse().unwrap(),
        admin: "eve".parse().unwrap(),
        authority: None,
    };
    let error = init(&options, Timestamp::now()).await.unwrap_err().to_string();
    assert!(error.contains("holds a network already"), "{error}");
    let used = InitOptions { config: config(dir.path()), ..options };
    let error = init(&used, Timestamp::now()).await.unwrap_err().to_string();
    assert!(error.contains("is not empty (data is in it)"), "{error}");
}

#[tokio::test]
async fn a_data_directory_that_is_foreign_or_open_to_others_is_refused_with_the_repair() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    make(&config(&data)).await;
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = start(config(&data)).await.err().unwrap().to_string();
    assert!(error.contains("chmod 700"), "{error}");
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
    let key = data.join("head.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = start(config(&data)).await.err().unwrap().to_string();
    assert!(error.contains("chmod 600"), "{error}");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    // Only root can give a directory away; others have nothing to test here.
    if chown(&data, Some(65_534), None).is_ok() {
        let error = start(config(&data)).await.err().unwrap().to_string();
        assert!(error.contains("belongs to uid 65534"), "{error}");
    }
}

#[tokio::test]
async fn the_program_is_made_started_and_stopped_as_the_documentation_says() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let data = data.to_str().unwrap();
    let ports = ["--listen", "127.0.0.1:0", "--enroll-listen", "127.0.0.1:0"];
    let made = ["init", "--data", data, "--network", "demo", "--hostname", "localhost"];
    let output = program().args(made).args(ports).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&format!("Next: coordinator serve --data {data}")), "{text}");

    let mut child = program()
        .args(["serve", "--data", data])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(SOON, lines.next_line()).await.unwrap().unwrap().unwrap();
    let address = line.strip_prefix("listening on ").unwrap().to_owned();
    assert_eq!(std::fs::read_to_string(format!("{data}/listen")).unwrap().trim(), address);
    let pid = rustix::process::Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = tokio::time::timeout(SOON, child.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn the_first_admins_identity_knows_the_port_that_was_taken() {
    let mut network = Network::start().await;
    let url = || {
        let admin = network.config.data.join("admin");
        certs::identity::Identity::load(&admin).unwrap().membership.api_url.clone()
    };
    assert_eq!(url(), network.url());
    network.stop().await;
    network.restart().await;
    let admin = certs::identity::Identity::load(&network.config.data.join("admin")).unwrap();
    assert_eq!(admin.membership.api_url, network.url());
}

#[tokio::test]
async fn every_value_is_printed_with_where_it_came_from() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("coordinator.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:1\"\n").unwrap();
    let output = program()
        .args(["check-config", "--print-config", "--log", "debug", "--config"])
        .arg(&file)
        .env("MIRRORNET_ENROLL_LISTEN", "127.0.0.1:2")
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = [
        format!("listen = \"127.0.0.1:1\"  # {}", file.display()),
        "enroll-listen = \"127.0.0.1:2\"  # MIRRORNET_ENROLL_LISTEN".into(),
        "log = \"debug\"  # --log".into(),
        "log-format = \"text\"  # default".into(),
    ];
    for line in lines {
        assert!(text.lines().any(|found| found == line), "{line} not in\n{text}");
    }
}
