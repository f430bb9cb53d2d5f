//! Upstreams, sources and trees, each in itself.

use super::*;

#[test]
fn upstreams_say_where_they_are_in_the_way_of_their_kind() {
    let rsyncd = |rest: &str| format!("[[upstream]]\nname = \"u\"\nkind = \"rsyncd\"\n{rest}");
    let publisher =
        |rest: &str| format!("[[upstream]]\nname = \"u\"\nkind = \"publisher\"\n{rest}");
    let url = "url = \"rsync://a/\"\n";
    refused(&[
        (&rsyncd(""), 3, &["needs url"]),
        (&rsyncd("url = \"http://a/\"\n"), 4, &["does not begin with rsync://"]),
        (&rsyncd("url = \"rsync://-x/\"\n"), 4, &["begins with '-'"]),
        (&rsyncd("url = \"rsync://a/module\"\n"), 4, &["belong to the source"]),
        (&rsyncd("url = \"rsync://a/\"\npublisher = \"p\"\n"), 5, &["`publisher` is for kind"]),
        (&rsyncd(&format!("{url}user = \"a b\"\n")), 5, &["user \"a b\" is not valid"]),
        (&rsyncd(&format!("{url}user = \"u\"\npassword-file = \"secret\"\n")), 6, &["absolute"]),
        (&rsyncd(&format!("{url}max-connections = 0\n")), 5, &["0 connections"]),
        (&rsyncd(&format!("{url}transport = \"ssh\"\n")), 5, &["ssh needs key-file"]),
        (
            &rsyncd(&format!("{url}host-key = \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5\"\n")),
            5,
            &["is for transport"],
        ),
        (
            &rsyncd(&format!(
                "{url}transport = \"ssh\"\nkey-file = \"/k\"\nhost-key = \"a\\nb c\"\n"
            )),
            7,
            &["host-key", "ssh-keyscan"],
        ),
        (&publisher("url = \"rsync://a/\"\n"), 4, &["`url` is for kind = \"rsyncd\""]),
        (&publisher("transport = \"tls\"\n"), 4, &["`transport` is for kind"]),
    ]);
    let found = findings(apply(&base(), &rsyncd("url = \"rsync://me:hunter2@a/\"\n")));
    assert!(found[0].contains("password-file") && !found[0].contains("hunter2"), "{found:?}");
}

#[test]
fn sources_have_a_directory_at_a_publisher_and_a_module_at_a_stock_daemon() {
    let source = |upstream: &str, path: &str| {
        format!("[[source]]\nname = \"s\"\nupstream = \"{upstream}\"\npath = \"{path}\"\n")
    };
    refused(&[
        (&source("build", "srv"), 4, &["is not absolute", "/srv/releases"]),
        (&source("build", "/srv/../etc"), 4, &["'..'"]),
        (&source("other", "/debian"), 4, &["begins with '/'", "MODULE"]),
        (&source("other", "debian/../x"), 4, &["MODULE/PATH"]),
        (&source("other", ""), 4, &["MODULE/PATH"]),
        (&source("other", "-x"), 4, &["begins with '-'"]),
        (&source("other", "debian/*"), 4, &["wildcard"]),
    ]);
    for good in [source("build", "/"), source("build", "/srv/x/"), source("other", "debian/dists/")]
    {
        apply(&base(), &good).unwrap();
    }
}

#[test]
fn trees_lie_below_their_source() {
    let tree = |rest: &str| format!("[[tree]]\nname = \"t\"\nsource = \"releases\"\n{rest}\n");
    refused(&[
        (&tree("path = \"/x\""), 4, &["`path`: the path is absolute"]),
        (&tree("path = \"a/../b\""), 4, &["`path`", "'..'"]),
        (&tree("interval = \"0s\""), 4, &["at least 1s"]),
        (
            &tree("limit = [\"- /repodata/\"]\nguard = { must-contain = [\"repodata/x\"] }"),
            5,
            &["must-contain names repodata/x", "the tree's limit hides"],
        ),
    ]);
    warned(&[
        (&tree("guard = { max-delete-files = \"100%\" }"), &["tree t", "100%", "stops nothing"]),
        (&tree("guard = { max-delete-bytes = 0 }"), &["max-delete-bytes is 0"]),
        (
            "[[tree]]\nname = \"t\"\nsource = \"debian\"\ninitial-pack = true\n",
            &["`initial-pack` has no effect"],
        ),
    ]);
}

#[test]
fn rules_that_cannot_be_read_are_named_with_line_and_column() {
    let tree = |rest: &str| format!("[[tree]]\nname = \"t\"\nsource = \"releases\"\n{rest}\n");
    refused(&[
        (
            &tree("filter = [\n\"- a\",\n\"-foo\",\n]"),
            6,
            &["tree t, filter rule 2, column 2: '-foo'", "modifier"],
        ),
        (&tree("limit = [\"zap\"]"), 4, &["limit rule 1, column 1"]),
        (&tree("filter = [\": .rules\"]"), 4, &["put this rule into the tree's limit"]),
        (&tree("exclude = [\"- a\"]"), 4, &["exclude rule 1", "move it to 'filter'"]),
        ("[[site]]\nname = \"a\"\nexclude = [\"x\", \"!\"]\n", 3, &["site a, exclude rule 2"]),
        (
            "[[assignment]]\nsite = \"lisbon\"\ntree = \"fedora\"\nfilter = [\"-C\"]\n",
            4,
            &["assignment fedora@lisbon, filter rule 1, column 2"],
        ),
    ]);
}

#[test]
fn rule_files_are_asked_for_only_where_a_publisher_reads_them() {
    let tree = |source: &str, key: &str| {
        format!("[[tree]]\nname = \"t\"\nsource = \"{source}\"\n{key} = [\": .rules\"]\n")
    };
    assert!(apply(&base(), &tree("releases", "limit")).is_ok());
    refused(&[
        (&tree("debian", "limit"), 4, &["tree t", "rule files", "stock rsync daemon"]),
        (&tree("releases", "filter"), 4, &["tree t, filter rule 1, column 1", "the tree's limit"]),
    ]);
}

#[test]
fn an_include_that_the_limit_hides_is_refused_wherever_either_changes() {
    let tree = |limit: &str| {
        format!("[[tree]]\nname = \"fedora\"\nsource = \"releases\"\npath = \"fedora\"\n{limit}\n")
    };
    let assignment = "[[assignment]]\nsite = \"lisbon\"\ntree = \"fedora\"\nfilter = [\"- a\", \"+ /embargo/x\"]\n";
    let limit = tree("limit = [\"- /embargo/\"]");
    refused(&[
        (
            &format!("{limit}\n{assignment}"),
            10,
            &["assignment fedora@lisbon, filter rule 2", "the limit hides all", "- /embargo/"],
        ),
        (
            &tree("filter = [\"+ /embargo/x\"]\nlimit = [\"- /embargo/\"]"),
            5,
            &["tree fedora, filter rule 1", "the limit hides all"],
        ),
    ]);
    let stored = apply(&base(), assignment).unwrap().next;
    let found = findings(apply(&stored, &limit));
    assert!(found[0].starts_with("5: assignment fedora@lisbon, filter rule 2"), "{found:?}");
}

#[test]
fn a_rule_that_never_takes_effect_is_warned_about_with_its_line() {
    let tree = |rest: &str| format!("[[tree]]\nname = \"t\"\nsource = \"releases\"\n{rest}\n");
    warned(&[
        (
            &tree("filter = [\n\"- *.iso\",\n\"+ a.iso\",\n]"),
            &["a.toml:6: tree 't', rule 2: + a.iso: never takes effect"],
        ),
        (
            &tree("exclude = [\"a/\", \"a/b/\"]"),
            &["a.toml:4:", "a/b/", "directories above what it covers"],
        ),
        (&tree("exclude = [\"[x\"]"), &["a.toml:4:", "covers no name that can be"]),
    ]);
    let sealed = tree("layout = \"sealed\"\nfilter = [\"- /*\"]");
    let warnings = apply(&base(), &sealed).unwrap().warnings;
    assert!(warnings[0].contains("no version of the tree is kept"), "{warnings:?}");
    // A site's rule before the tree's is meant.
    let assignment =
        "[[assignment]]\nsite = \"lisbon\"\ntree = \"fedora\"\nfilter = [\"+ *.iso\"]\n";
    let both = format!(
        "[[tree]]\nname = \"fedora\"\nsource = \"releases\"\nfilter = [\"- *.iso\"]\n{assignment}"
    );
    assert_eq!(apply(&base(), &both).unwrap().warnings, [] as [&str; 0]);
}

#[test]
fn rule_files_are_read_after_the_rules_and_findings_name_their_lines() {
    let text = "[[tree]]\nname = \"t\"\nsource = \"releases\"\nfilter = [\"- a\"]\nfilter-file = \"t.rules\"\n";
    let mut asked = request(&[("conf/a.toml", text)]);
    let rules =
        |text: &str| vec![DefinitionFile { name: "conf/t.rules".into(), text: text.into() }];
    let missing = plan_apply(&base(), &asked, &context(&[])).unwrap_err();
    assert_eq!(missing[0].line, Some(5));
    assert!(missing[0].message.contains("\"conf/t.rules\" was not sent"), "{missing:?}");

    asked.rule_files = rules("# comment\n\n- b\n+ c\n");
    let next = plan_apply(&base(), &asked, &context(&[])).unwrap().next;
    assert_eq!(next.trees[&"t".parse().unwrap()].filter, ["- a", "- b", "+ c"]);

    asked.rule_files = rules("- b\n; comment\nzap\n");
    let bad = plan_apply(&base(), &asked, &context(&[])).unwrap_err();
    let place = (bad[0].file.as_deref(), bad[0].line);
    assert_eq!(place, (Some("conf/t.rules"), Some(3)), "{bad:?}");
}

#[test]
fn when_a_tree_is_due_is_said_once_and_so_that_it_can_be_read() {
    let tree = |lines: &str| {
        let head = "[[tree]]\nname = \"t\"\nsource = \"releases\"\n";
        apply(&base(), &format!("{head}{lines}\n"))
    };
    for lines in
        ["sync-hours = 6", "schedule = \"30 2 * * mon-fri\"\nsplay = \"20m\"\npriority = 3"]
    {
        assert!(tree(lines).is_ok(), "{lines}");
    }
    for lines in [
        "sync-hours = 6\ninterval = \"1h\"",
        "sync-hours = 6\nschedule = \"@daily\"",
        "schedule = \"61 * * * *\"",
        "sync-hours = -1",
        "quick-list = [\"../stamp\"]",
        "quick-list = [\"/stamp\"]",
    ] {
        assert!(tree(lines).is_err(), "{lines}");
    }
}

#[test]
fn what_no_agent_follows_yet_is_taken_with_a_warning() {
    let rest = "[[site]]\nname = \"porto\"\n[[grant]]\nsite = \"porto\"\ntree = \"fedora\"\n\
                [[assignment]]\nsite = \"porto\"\ntree = \"fedora\"\n";
    let of = |line: &str| apply(&base(), &format!("{rest}{line}\n")).unwrap().warnings;
    let others = of("");
    let more = of("switch = \"symlink\"").into_iter().filter(|text| !others.contains(text));
    let [only] = &more.collect::<Vec<_>>()[..] else { panic!("{others:?}") };
    let key = "`switch = \"symlink\"`";
    assert!(only.starts_with(&format!("assignment fedora@porto: {key} is stored")), "{only}");
    let followed =
        "group = \"mirror\"\nswitch = \"in-place\"\non-end = \"trash\"\nkeep-withdrawn = \"1h\"";
    assert_eq!(of(followed), others);
}

#[test]
fn how_versions_are_chosen_is_checked_key_by_key() {
    let tree = |lines: &str| {
        let text = format!("[[tree]]\nname = \"t\"\nsource = \"releases\"\n{lines}\n");
        apply(&base(), &text)
    };
    let fine = tree(
        "layout = \"sealed\"\nlisting-pattern = \"r[0-9]*\"\nlisting-filter = [\"- x\"]\n\
         latest-link = \"latest\"\nstatus-file = \"COMPOSE_ID\"\nfinished = \"DONE\"\n\
         sync-latest-only = true\ndelete-old-versions = true\nmax-delete-versions = 3",
    );
    assert_eq!(fine.unwrap().warnings, [] as [&str; 0]);
    for lines in [
        "listing-pattern = \"a/b\"",
        "listing-pattern = \"\"",
        "listing-filter = [\"nonsense x\"]",
        "latest-link = \"../up\"",
        "latest-link = \"a/b\"",
        "status-file = \"S*\"",
        "finished = \" DONE \"",
        "max-delete-versions = \"120%\"",
    ] {
        assert!(tree(&format!("layout = \"sealed\"\n{lines}")).is_err(), "{lines}");
    }
    let warned = tree("latest-link = \"latest\"\nfinished = \"x\"").unwrap().warnings.join("\n");
    assert!(warned.contains("`latest-link` has no effect"), "{warned}");
    assert!(warned.contains("`finished` has no effect"), "{warned}");
    let warned = tree("layout = \"versioned\"\nsync-latest-only = true").unwrap().warnings;
    assert!(warned[0].contains("`sync-latest-only` has no effect unless"), "{warned:?}");
}
