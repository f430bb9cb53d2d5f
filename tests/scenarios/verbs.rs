//! What an admin says to several assignments at once, and what a script can rely on.

use std::{
    io::Write as _,
    process::{Output, Stdio},
};

use tests::{
    Testbed,
    fixture::{OneTree, prose},
    programs::told,
};

/// Two trees at two sites, and one more at the first; nobody runs them.
fn several() -> Testbed {
    let testbed = Testbed::start();
    let mut text = String::from(
        "[[upstream]]\nname = \"stock\"\nkind = \"rsyncd\"\nurl = \"rsync://127.0.0.1:9/\"\n\
         [[source]]\nname = \"one\"\nupstream = \"stock\"\npath = \"one\"\n\
         [[source]]\nname = \"two\"\nupstream = \"stock\"\npath = \"two\"\n\
         [[site]]\nname = \"lisbon\"\n[[site]]\nname = \"porto\"\n",
    );
    for (tree, source, sites) in [
        ("a", "one", &["lisbon", "porto"][..]),
        ("b", "two", &["lisbon", "porto"]),
        ("c", "two", &["lisbon"]),
    ] {
        text += &format!("[[tree]]\nname = \"{tree}\"\nsource = \"{source}\"\npath = \"{tree}\"\n");
        for site in sites {
            text += &format!("[[grant]]\nsite = \"{site}\"\ntree = \"{tree}\"\n");
            text += &format!("[[assignment]]\nsite = \"{site}\"\ntree = \"{tree}\"\n");
        }
    }
    testbed.apply(&text);
    testbed
}

fn names(testbed: &Testbed, kind: &str) -> Vec<String> {
    let listed = testbed.ctl_json(&["get", kind]);
    let listed = listed.as_array().or_else(|| listed["items"].as_array()).unwrap().clone();
    listed.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

fn run(testbed: &Testbed, args: &[&str]) -> Output {
    testbed.mirrorctl().args(args).stdin(Stdio::null()).output().unwrap()
}

/// The same at a terminal, where somebody types `answer`.
fn at_a_terminal(testbed: &Testbed, args: &[&str], answer: &str) -> Output {
    let plain = testbed.mirrorctl();
    let mut words = vec![plain.get_program().to_str().unwrap().to_owned()];
    words.extend(args.iter().map(|arg| (*arg).to_owned()));
    let line = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let mut script = std::process::Command::new("script");
    script.args(["-qefc", &line, "/dev/null"]).env_clear();
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    script.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("TERM", "dumb");
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = script.spawn().unwrap();
    child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn f72_what_selectors_choose_is_deleted_once_somebody_agreed_and_nothing_else() {
    let testbed = several();
    let all = ["a@lisbon", "a@porto", "b@lisbon", "b@porto", "c@lisbon"];
    assert_eq!(names(&testbed, "assignment"), all);
    let selected = ["delete", "assignments", "--source", "two", "--site", "lisbon"];

    // Where nobody can be asked, and where somebody says no.
    let output = run(&testbed, &selected);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(
        told(&output).contains("b@lisbon") && told(&output).contains("--force"),
        "{}",
        told(&output)
    );
    let output = at_a_terminal(&testbed, &selected, "n\n");
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert_eq!(names(&testbed, "assignment"), all, "nothing was deleted");

    let output = at_a_terminal(&testbed, &selected, "Yes\n");
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(names(&testbed, "assignment"), ["a@lisbon", "a@porto", "b@porto"]);
    assert_eq!(names(&testbed, "grant"), all, "grants are not assignments");
    testbed.ctl(&["delete", "grants", "--tree", "c", "--tree", "b", "--force"]);
    assert_eq!(names(&testbed, "grant"), ["a@lisbon", "a@porto"]);
    // What was named goes without a question, several at once.
    testbed.ctl(&["delete", "assignment", "a@porto", "b@porto"]);
    assert_eq!(names(&testbed, "assignment"), ["a@lisbon"]);

    // The exit code tells wrong calls from what failed.
    for (args, code, part) in [
        (&["delete", "assignments"][..], 2, "say which"),
        (&["delete", "trees", "--site", "lisbon"], 2, "selectors"),
        (&["delete", "assignment", "a@lisbon", "--site", "lisbon"], 2, "not both"),
        (&["delete", "run", "x"], 2, "history"),
        (&["delete", "assignments", "--tree", "nosuch", "--force"], 1, "no assignments"),
        (&["delete", "assignment", "x@lisbon", "y@lisbon"], 1, "failed for 2 of 2"),
        (&["delete", "tree", "a"], 1, "still named"),
    ] {
        let output = run(&testbed, args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", told(&output));
        assert!(told(&output).contains(part), "{args:?}: {}", told(&output));
    }
}

#[test]
fn f67_enabled_for_dry_runs_an_assignment_reports_what_it_would_do_and_does_it_once_it_is_enabled()
{
    let net = OneTree::start("", "");
    net.write("f", prose(1, 3_000));
    net.publish();
    net.testbed.ctl(&["disable", "tree@site"]);
    net.testbed.ctl(&["enable", "tree@site", "--dryrun"]);
    let status = net.testbed.ctl(&["status"]);
    assert!(status.contains("(dry runs only)"), "{status}");
    net.agent.sync();
    let runs = net.testbed.runs("tree@site");
    assert_eq!(runs[0]["result"], "SYNC_COMPLETED_DRY_RUN", "{:#}", runs[0]);
    assert!(runs[0]["foreseen"].to_string().contains('f'), "{:#}", runs[0]);
    assert!(!net.mirror().exists(), "a dry run makes nothing");
    // Once for each target, and again for the next.
    net.agent.sync();
    assert_eq!(net.testbed.runs("tree@site").len(), 1);
    net.write("g", prose(2, 3_000));
    net.publish();
    net.agent.sync();
    assert_eq!(net.testbed.runs("tree@site").len(), 2);
    // Who asks is answered, also by a dry run.
    net.testbed.ctl(&["sync", "tree@site"]);
    net.agent.sync();
    let runs = net.testbed.runs("tree@site");
    assert_eq!((runs.len(), runs[0]["result"].as_str()), (3, Some("SYNC_COMPLETED_DRY_RUN")));
    assert!(!net.mirror().exists());

    net.testbed.ctl(&["enable", "tree@site"]);
    let run = net.sync();
    assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
    net.assert_same();
    assert!(!net.testbed.ctl(&["status"]).contains("(dry runs only)"));
}

#[test]
fn f63_the_history_shows_the_logs_that_are_kept_under_their_runs() {
    let net = OneTree::start("", "");
    for n in 0..3 {
        net.write("f", prose(n, 3_000));
        net.publish_and_sync();
    }
    let shown = net.testbed.ctl(&["history", "tree@site", "-n", "3", "--showlog"]);
    assert_eq!(shown.matches("--- tree@site of ").count(), 3, "{shown}");
    // The logs of all that are meant, where one of them has one.
    let logs = net.testbed.ctl(&["log", "--site", "site"]);
    assert!(logs.starts_with("--- tree@site of ") && logs.contains("run ended"), "{logs}");
    // The latest and the one before it; the first one's is not kept.
    assert_eq!(shown.matches("its log is not kept").count(), 1, "{shown}");
    let runs = net.testbed.ctl_json(&["history", "tree@site", "-n", "2", "--showlog"]);
    let runs = runs.as_array().or_else(|| runs["items"].as_array()).unwrap();
    assert!(runs.iter().all(|run| !run["log"].as_str().unwrap().is_empty()), "{runs:#?}");
    let plain = net.testbed.ctl(&["history", "tree@site"]);
    assert!(!plain.contains("---"), "{plain}");
}

#[test]
fn selectors_choose_what_is_listed_described_and_whose_logs_are_shown() {
    let testbed = several();
    let listed = |args: &[&str]| {
        let text = testbed.ctl(args);
        let names = text.lines().filter_map(|line| line.split_whitespace().next());
        names.filter(|name| name.contains('@')).map(str::to_owned).collect::<Vec<_>>()
    };
    let two = ["--source", "two", "--site", "lisbon"];
    assert_eq!(listed(&[&["get", "assignments"][..], &two].concat()), ["b@lisbon", "c@lisbon"]);
    assert_eq!(listed(&["get", "grants", "--site", "porto"]), ["a@porto", "b@porto"]);
    let described = testbed.ctl_json(&[&["describe", "assignments"][..], &two].concat());
    let names = described.as_array().unwrap().iter().map(|one| one["effective"]["name"].clone());
    assert_eq!(names.collect::<Vec<_>>(), ["b@lisbon", "c@lisbon"]);
    // Of those that have no log yet that is said, of each.
    let output = run(&testbed, &[&["log"][..], &two].concat());
    assert_eq!(output.status.code(), Some(1));
    for name in ["b@lisbon", "c@lisbon"] {
        assert!(told(&output).contains(&format!("no log of a run of {name}")), "{}", told(&output));
    }
    for (args, part) in [
        (&["get", "trees", "--site", "lisbon"][..], "selectors choose"),
        (&["get", "assignment", "a@lisbon", "--site", "lisbon"], "not both"),
        (&["describe", "grants", "--site", "lisbon"], "selectors choose"),
        (&["describe", "assignment"], "NAME"),
    ] {
        let output = run(&testbed, args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", told(&output));
        assert!(told(&output).contains(part), "{args:?}: {}", told(&output));
    }
}
