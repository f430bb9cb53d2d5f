//! The real `mirrorctl`, as a process, against a real coordinator in this one.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use coordinator::{Config, InitOptions, Running};
use jiff::Timestamp;
use serde_json::Value;
use tempfile::TempDir;

const NETWORK: &str = r#"
[[upstream]]
name = "build"
kind = "publisher"

[[source]]
name = "releases"
upstream = "build"
path = "/srv/releases"

[[tree]]
name = "fedora"
source = "releases"
path = "fedora"
limit = ["- /embargo/"]
filter = ["- *.iso"]

[[site]]
name = "lisbon"
exclude = ["*.tmp"]

[[grant]]
site = "lisbon"
tree = "fedora"

[[assignment]]
site = "lisbon"
tree = "fedora"
filter = ["+ /boot.iso"]
"#;

/// A coordinator, its first admin, and a place for files.
struct Network {
    dir: TempDir,
    running: Running,
}

/// What a call of mirrorctl came to.
struct Done {
    code: i32,
    out: String,
    err: String,
}

impl Network {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            data: dir.path().join("coordinator"),
            listen: "127.0.0.1:0".into(),
            enroll_listen: "127.0.0.1:0".into(),
            hostnames: vec!["127.0.0.1".into()],
            ..Config::default()
        };
        let options = InitOptions {
            config: config.clone(),
            network: "testnet".parse().unwrap(),
            admin: "root".parse().unwrap(),
            authority: None,
        };
        coordinator::init(&options, Timestamp::now()).await.unwrap();
        let running = coordinator::start(config).await.unwrap();
        Self { dir, running }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Calls mirrorctl under the identity in `identity`.
    async fn call_as(&self, identity: &Path, args: &[&str]) -> Done {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mirrorctl"));
        command
            .args(args)
            .env_clear()
            .env("TZ", "UTC")
            .env("MIRRORNET_IDENTITY", identity)
            .env("MIRRORNET_COORDINATOR", self.running.api_url());
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
        Done::of(output.unwrap())
    }

    /// Calls mirrorctl as the first admin.
    async fn call(&self, args: &[&str]) -> Done {
        self.call_as(&self.path("coordinator/admin"), args).await
    }

    /// The same, when it has to succeed.
    async fn ok(&self, args: &[&str]) -> String {
        let done = self.call(args).await;
        assert_eq!(done.code, 0, "{args:?}: {}{}", done.out, done.err);
        done.out
    }

    async fn json(&self, args: &[&str]) -> Value {
        let args: Vec<_> = args.iter().copied().chain(["--output", "json"]).collect();
        serde_json::from_str(&self.ok(&args).await).unwrap()
    }
}

impl Done {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// It failed, and said all of these.
    fn failed_saying(&self, words: &[&str]) {
        assert_eq!((self.code, self.out.as_str()), (1, ""), "{}", self.err);
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in: {}", self.err);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_go_in_come_out_and_go() {
    let network = Network::start().await;
    let file = network.write("network.toml", NETWORK);
    let dry = network.ok(&["apply", "-f", &file, "--dry-run"]).await;
    assert!(dry.contains("+ tree fedora\n") && dry.ends_with("6 changes, not stored (dry run)\n"));
    assert_eq!(network.json(&["get", "trees"]).await, serde_json::json!([]));

    let done = network.ok(&["apply", "-f", &file]).await;
    assert!(done.contains("+ assignment fedora@lisbon\n") && done.contains("6 changes stored as"));
    let again = network.ok(&["apply", "-f", &file]).await;
    assert!(again.starts_with("nothing changed"), "{again}");

    let trees = network.json(&["get", "trees"]).await;
    assert_eq!(trees[0]["spec"]["filter"], serde_json::json!(["- *.iso"]));
    let shown = network.ok(&["get", "tree", "fedora"]).await;
    let reapplied = network.write("tree.toml", &shown);
    let same = network.ok(&["apply", "-f", &reapplied]).await;
    assert!(same.starts_with("nothing changed"), "{same}");

    network.call(&["delete", "tree", "fedora"]).await.failed_saying(&["assignment fedora@lisbon"]);
    network.ok(&["delete", "assignment", "fedora@lisbon"]).await;
    assert_eq!(network.json(&["get", "assignments"]).await, serde_json::json!([]));
    network.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_wrong_is_listed_with_its_place_and_nothing_is_stored() {
    let network = Network::start().await;
    let bad = "[[tree]]\nname = \"t\"\nsource = \"releases\"\nintervall = \"5m\"\n\n[[site]]\nname = \"s\"\nprefix = \"/x\"\n";
    let file = network.write("bad.toml", &format!("{NETWORK}{bad}"));
    let offset = NETWORK.lines().count();
    let done = network.call(&["apply", "-f", &file]).await;
    done.failed_saying(&[
        &format!("bad.toml:{}: unknown key `intervall`", offset + 4),
        &format!("bad.toml:{}: site s: prefix", offset + 8),
        "nothing was stored",
    ]);
    assert_eq!(network.json(&["get", "sites"]).await, serde_json::json!([]));
    network.call(&["apply", "-f", "/none.toml"]).await.failed_saying(&["cannot read /none.toml"]);
    network.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_cannot_be_meant_are_told_when_they_are_applied() {
    let network = Network::start().await;
    let network_file = network.write("network.toml", NETWORK);
    network.ok(&["apply", "-f", &network_file]).await;
    let assignment = |rules: &str| {
        let text = format!(
            "[[assignment]]\nsite = \"lisbon\"\ntree = \"fedora\"\nfilter = [\n{rules}\n]\n"
        );
        network.write("assignment.toml", &text)
    };
    let before = network.json(&["get", "assignments"]).await;
    let hidden = assignment("\"- *.log\",\n\"+ /embargo/report\"");
    network.call(&["apply", "-f", &hidden]).await.failed_saying(&[
        "assignment.toml:6: assignment fedora@lisbon, filter rule 2: '+ /embargo/report'",
        "the limit hides all",
        "nothing was stored",
    ]);
    assert_eq!(network.json(&["get", "assignments"]).await, before);

    let overruled = assignment("\"- *.log\",\n\"+ a.log\"");
    let said = network.ok(&["apply", "-f", &overruled]).await;
    for word in ["assignment.toml:6: assignment 'fedora@lisbon', rule 2", "never takes effect"] {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    network.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_agreed_prune_removes_what_the_files_do_not_name() {
    let network = Network::start().await;
    let file = network.write("network.toml", NETWORK);
    network.ok(&["apply", "-f", &file]).await;
    let less = NETWORK.split("[[grant]]").next().unwrap();
    let less = network.write("less.toml", less);
    assert!(network.ok(&["apply", "-f", &less]).await.starts_with("nothing changed"));

    // Nothing goes, so nobody is asked.
    assert!(network.ok(&["apply", "-f", &file, "--prune"]).await.starts_with("nothing changed"));
    // There is no terminal here on which anybody could agree.
    let declined = network.call(&["apply", "-f", &less, "--prune"]).await;
    declined.failed_saying(&["- assignment fedora@lisbon", "--yes", "nothing was changed"]);
    assert_eq!(network.json(&["get", "assignments"]).await.as_array().unwrap().len(), 1);

    let done = network.ok(&["apply", "-f", &less, "--prune", "--yes"]).await;
    assert!(done.contains("- grant fedora@lisbon\n- assignment fedora@lisbon\n"), "{done}");
    assert_eq!(network.json(&["get", "grants"]).await, serde_json::json!([]));
    assert_eq!(network.json(&["get", "trees"]).await.as_array().unwrap().len(), 1);
    network.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assignment_is_described_with_what_decided_each_part_of_it() {
    let network = Network::start().await;
    let file = network.write("network.toml", NETWORK);
    network.ok(&["apply", "-f", &file]).await;
    let text = network.ok(&["describe", "assignment", "fedora@lisbon"]).await;
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|l| l.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect())
        .collect();
    for expected in
        [["upstream-path", "/srv/releases/fedora", "tree fedora"], ["interval", "10m", "default"]]
    {
        assert!(lines.iter().any(|line| line[..] == expected), "{expected:?} is not in:\n{text}");
    }
    let rules: Vec<_> = ["- /embargo/", "+ /boot.iso", "- *.iso", "*.tmp"]
        .map(|rule| lines.iter().position(|line| line.first() == Some(&rule)))
        .to_vec();
    assert!(rules.iter().all(Option::is_some) && rules.is_sorted(), "{rules:?}\n{text}");
    assert!(text.contains("site lisbon has no enrolled agent"), "{text}");

    network.ok(&["disable", "fedora@lisbon"]).await;
    let text = network.ok(&["describe", "assignment", "fedora@lisbon"]).await;
    assert!(text.contains("not carried out: disabled"), "{text}");
    network.ok(&["enable", "fedora@lisbon"]).await;

    let tree = network.ok(&["describe", "tree", "fedora"]).await;
    assert!(tree.starts_with("[[tree]]") && tree.contains("fedora@lisbon"), "{tree}");
    let site = network.ok(&["describe", "site", "lisbon"]).await;
    assert!(site.starts_with("[[site]]") && site.contains("fedora@lisbon"), "{site}");
    let unknown = network.call(&["describe", "assignment", "fedora@porto"]).await;
    unknown.failed_saying(&["fedora@porto"]);
    network.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_makes_a_viewer_who_may_look_and_not_touch_until_revoked() {
    let network = Network::start().await;
    let done = network.call(&["invite", "--role", "viewer", "--name", "dash"]).await;
    assert_eq!((done.code, done.out.lines().count()), (0, 1), "{}", done.err);
    assert!(done.out.starts_with("mirrornet1.") && !done.err.contains("mirrornet1."));
    let invite = done.out.trim();

    let home = network.path("home/dash");
    let logged_in = network.call_as(&home, &["login", invite]).await;
    assert_eq!(logged_in.code, 0, "{}", logged_in.err);
    assert!(logged_in.out.starts_with("viewer/dash of network testnet"), "{}", logged_in.out);
    let twice = network.call_as(&home, &["login", invite]).await;
    twice.failed_saying(&["still good", "--force"]);
    let used = network.call_as(&network.path("home/other"), &["login", invite]).await;
    used.failed_saying(&["refused the invite"]);

    let looked = network.call_as(&home, &["status"]).await;
    assert_eq!(looked.code, 0, "{}", looked.err);
    let file = network.write("network.toml", NETWORK);
    let touched = network.call_as(&home, &["apply", "-f", &file]).await;
    touched.failed_saying(&["whoami"]);

    network.ok(&["revoke", "dash", "--reason", "left"]).await;
    let shut_out = network.call_as(&home, &["status"]).await;
    shut_out.failed_saying(&["revoked", "mirrorctl login INVITE"]);
    network.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_for_a_daemon_is_not_one_for_mirrorctl() {
    let network = Network::start().await;
    let file = network.write("network.toml", NETWORK);
    network.ok(&["apply", "-f", &file]).await;
    let args = ["invite", "--role", "agent", "--name", "lisbon-1", "--site", "lisbon"];
    let invite = network.ok(&args).await;
    let home = network.path("home");
    let refused = network.call_as(&home, &["login", invite.trim()]).await;
    refused.failed_saying(&["agent/lisbon-1", "not used up", "have their own `enroll`"]);
    let nobody = network.call_as(&home, &["whoami"]).await;
    nobody.failed_saying(&["no identity", "mirrorctl login INVITE"]);
    network.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_does_not_answer_is_named_with_what_to_check() {
    let network = Network::start().await;
    let admin = network.path("coordinator/admin");
    let who = network.json(&["whoami"]).await;
    assert_eq!((who["role"].as_str(), who["name"].as_str()), (Some("admin"), Some("root")));
    let Network { dir, running } = network;
    let url = running.api_url().to_owned();
    running.stop().await;
    let output = Command::new(env!("CARGO_BIN_EXE_mirrorctl"))
        .args(["status", "--coordinator", &url, "--output", "json"])
        .env("MIRRORNET_IDENTITY", &admin)
        .output()
        .unwrap();
    let done = Done::of(output);
    done.failed_saying(&[&url, "Check that the coordinator runs"]);
    let error: Value = serde_json::from_str(&done.err).unwrap();
    assert_eq!(error["problem"], Value::Null);
    drop(dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn histories_are_empty_at_first_and_say_so() {
    let network = Network::start().await;
    assert_eq!(network.ok(&["history"]).await, "no runs yet\n");
    assert_eq!(network.ok(&["stats"]).await, "no runs yet\n");
    assert!(network.ok(&["status"]).await.contains("no assignments"));
    assert_eq!(network.json(&["get", "generations"]).await, serde_json::json!([]));
    assert_eq!(network.json(&["get", "agents"]).await, serde_json::json!([]));
    network.call(&["approve", "fedora"]).await.failed_saying(&["fedora"]);
    let wrong = network.call(&["delete", "agent", "lisbon-1"]).await;
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("mirrorctl revoke agent/lisbon-1"), "{}", wrong.err);
    network.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f66_selected_assignments_are_told_only_after_a_yes_or_with_force() {
    let network = Network::start().await;
    let more = "\n[[site]]\nname = \"porto\"\n\n[[grant]]\nsite = \"porto\"\ntree = \"fedora\"\n\n\
                [[assignment]]\nsite = \"porto\"\ntree = \"fedora\"\n";
    let file = network.write("network.toml", &format!("{NETWORK}{more}"));
    network.ok(&["apply", "-f", &file]).await;
    let enabled = |name: &'static str| {
        let network = &network;
        async move {
            let all = network.json(&["get", "assignments"]).await;
            let found = all.as_array().unwrap().iter().find(|it| it["name"] == name);
            found.unwrap()["spec"]["enabled"].clone()
        }
    };

    // Nobody can be asked here, so nothing happens.
    let done = network.call(&["disable", "--site", "porto"]).await;
    done.failed_saying(&["fedora@porto", "--force", "nothing was changed"]);
    assert!(!done.err.contains("fedora@lisbon"), "{}", done.err);
    assert_ne!(enabled("fedora@porto").await, false);

    network.ok(&["disable", "--site", "porto", "--upstream", "build", "--force"]).await;
    assert_eq!(enabled("fedora@porto").await, false);
    assert_ne!(enabled("fedora@lisbon").await, false);
    let both = network.ok(&["enable", "--force"]).await;
    assert!(both.contains("fedora@porto") && both.contains("fedora@lisbon"), "{both}");
    assert_ne!(enabled("fedora@porto").await, false);

    network.call(&["sync", "--tree", "debian", "--force"]).await.failed_saying(&["no assignment"]);
    let unknown = network.call(&["sync", "--assignment", "x@y", "--force"]).await;
    unknown.failed_saying(&["x@y"]);
    let status = network.json(&["status", "--site", "porto", "--source", "releases"]).await;
    let shown = status["assignments"].as_array().unwrap();
    assert_eq!(shown.len(), 1, "{status:#}");
    assert_eq!(shown[0]["name"], "fedora@porto");
}

#[tokio::test(flavor = "multi_thread")]
async fn f60_f62_assignments_are_listed_described_and_shown_with_how_they_are() {
    let network = Network::start().await;
    let none = network.ok(&["get", "assignments"]).await;
    assert!(!none.contains('@'), "{none}");
    let more = "\n[[site]]\nname = \"porto\"\n\n[[grant]]\nsite = \"porto\"\ntree = \"fedora\"\n\n\
                [[assignment]]\nsite = \"porto\"\ntree = \"fedora\"\n";
    let file = network.write("network.toml", &format!("{NETWORK}{more}"));
    network.ok(&["apply", "-f", &file]).await;
    let listed = network.ok(&["get", "assignments"]).await;
    assert!(listed.contains("fedora@lisbon") && listed.contains("fedora@porto"), "{listed}");
    network.ok(&["disable", "fedora@lisbon"]).await;
    network.ok(&["enable", "fedora@porto", "--dryrun"]).await;
    let status = network.ok(&["status"]).await;
    let line = |of: &str| status.lines().find(|line| line.starts_with(of)).unwrap_or_default();
    for word in ["STATE", "LAST RUN", "LAST SUCCESS"] {
        assert!(line("ASSIGNMENT").contains(word), "{word}: {status}");
    }
    assert!(line("fedora@lisbon").contains("disabled"), "{status}");
    assert!(
        line("fedora@porto").contains("dry runs only")
            || line("fedora@porto").contains("no enrolled agent"),
        "{status}"
    );
    network.running.stop().await;
}
