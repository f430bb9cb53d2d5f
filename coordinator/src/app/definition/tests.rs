//! Whole files in, findings with their lines or a plan out.

use protocol::{
    error::Finding,
    v1::definitions::{Action, ApplyRequest, DefinitionFile, Kind},
};

use super::*;

/// What every case below adds to; 38 lines.
const BASE: &str = r#"[[upstream]]
name = "build"
kind = "publisher"

[[upstream]]
name = "other"
kind = "rsyncd"
url = "rsync://mirror.example.org/"

[[source]]
name = "releases"
upstream = "build"
path = "/srv/releases"

[[source]]
name = "debian"
upstream = "other"
path = "debian"

[[tree]]
name = "fedora"
source = "releases"
path = "fedora"

[[site]]
name = "lisbon"

[[grant]]
site = "lisbon"
tree = "fedora"

[[assignment]]
site = "lisbon"
tree = "fedora"
"#;

fn context(agents: &[(&str, &str)]) -> Context {
    let agents = agents.iter().map(|(name, site)| (name.parse().unwrap(), site.parse().unwrap()));
    Context { agents: agents.collect(), now: "2026-06-01T00:00:00Z".parse().unwrap() }
}

fn request(files: &[(&str, &str)]) -> ApplyRequest {
    let files = files
        .iter()
        .map(|(name, text)| DefinitionFile { name: (*name).into(), text: (*text).into() })
        .collect();
    ApplyRequest { files, rule_files: vec![], dry_run: false, prune: false, if_revision: None }
}

fn apply(stored: &Definitions, text: &str) -> Result<PlannedApply, Vec<Finding>> {
    plan_apply(stored, &request(&[("a.toml", text)]), &context(&[]))
}

fn base() -> Definitions {
    let planned = apply(&Definitions::default(), BASE).unwrap();
    assert_eq!(planned.warnings, [] as [&str; 0]);
    planned.next
}

/// Findings as `LINE: MESSAGE`.
fn findings(result: Result<PlannedApply, Vec<Finding>>) -> Vec<String> {
    let line = |finding: Finding| {
        let line = finding.line.map(|line| line.to_string()).unwrap_or_default();
        format!("{line}: {}", finding.message)
    };
    result.map_err(|list| list.into_iter().map(line).collect()).unwrap_err()
}

/// Each case adds text to the base; its only finding stands at that line and says all these words.
fn refused(cases: &[(&str, u32, &[&str])]) {
    let base = base();
    for (text, line, words) in cases {
        let found = findings(apply(&base, text));
        let [only] = &found[..] else { panic!("{text}: {found:#?}") };
        assert!(only.starts_with(&format!("{line}: ")), "{text}: {only}");
        for word in *words {
            assert!(only.contains(word), "{text}: {word:?} is not in: {only}");
        }
    }
}

/// Each case adds text to the base; its only warning says all these words.
fn warned(cases: &[(&str, &[&str])]) {
    let base = base();
    for (text, words) in cases {
        let warnings =
            apply(&base, text).unwrap_or_else(|found| panic!("{text}: {found:#?}")).warnings;
        let [only] = &warnings[..] else { panic!("{text}: {warnings:#?}") };
        for word in *words {
            assert!(only.contains(word), "{text}: {word:?} is not in: {only}");
        }
    }
}

#[test]
fn all_that_is_wrong_in_all_files_is_found_at_once() {
    let one = "[[tree]]\nname = \"Bad Name\"\nsource = \"releases\"\nintervall = \"5m\"\ninterval = \"5\"\n\n[[site]]\nprefix = \"/abs\"\n";
    let two = "[[assignment]]\nsite = \"lisbon\"\ntree = \"fedroa\"\nfilter = [\n  \"- fine\",\n  \"zap\",\n]\nlinger = 5\n\n[[thing]]\n";
    let result =
        plan_apply(&base(), &request(&[("one.toml", one), ("two.toml", two)]), &context(&[]));
    let found: Vec<_> =
        result.unwrap_err().iter().map(|f| (f.file.clone().unwrap(), f.line.unwrap())).collect();
    let expected = [("one.toml", 2), ("one.toml", 4), ("one.toml", 5), ("one.toml", 7)];
    let expected = expected.into_iter().chain([("two.toml", 8), ("two.toml", 10)]);
    assert_eq!(found, expected.map(|(f, l)| (f.to_owned(), l)).collect::<Vec<_>>());
}

#[test]
fn text_that_is_no_definition_file_is_named_by_line() {
    refused(&[
        ("[[site]]\nname = \"a\n", 2, &["not TOML"]),
        ("[[site]]\nname = \"a\"\nname = \"b\"\n", 3, &["not TOML", "duplicate"]),
        ("[site]\nname = \"a\"\n", 1, &["[[site]] with two brackets"]),
        ("site = [1]\n", 1, &["[[site]] with two brackets"]),
        ("\n[[sites]]\nname = \"a\"\n", 2, &["unknown key `sites`", "did you mean `site`?"]),
        ("x = 1\n", 1, &["unknown key `x`", "[[upstream]]"]),
        ("[[site]]\nprefix = \"x\"\n", 1, &["this [[site]] has no `name`"]),
        ("[[tree]]\nname = \"t\"\n", 1, &["this [[tree]] has no `source`"]),
        (
            "[[site]]\nname = \"a\"\ntimezon = \"UTC\"\n",
            3,
            &["unknown key `timezon` in [[site]]", "did you mean `timezone`?", "prefix"],
        ),
        (
            "[[tree]]\nname = \"t\"\nsource = \"releases\"\n[tree.guard]\nmax-delete = \"1%\"\n",
            5,
            &["unknown key `guard.max-delete`", "max-delete-files"],
        ),
        ("[[site]]\nname = \"A\"\n", 2, &["site name \"A\" is not valid"]),
        ("[[site]]\nname = 7\n", 2, &["`name` is integer `7`", "in quotes"]),
        ("[[site]]\nname = \"a\"\nexclude = \"x\"\n", 3, &["`exclude`", "as a list"]),
        ("[[site]]\nname = \"a\"\ndefault-rate = \"2MB/s\"\n", 3, &["2MiB/s"]),
        (
            "[[site]]\nname = \"a\"\nbandwidth = [\n { when = \"22-06\" },\n]\n",
            4,
            &["missing field `rate`"],
        ),
        (
            "[[tree]]\nname = \"t\"\nsource = \"releases\"\ninterval = \"5 minutes\"\n",
            4,
            &["\"5 minutes\" is not a time such as 30s"],
        ),
        (
            "[[tree]]\nname = \"t\"\nsource = \"releases\"\nguard = { max-delete-files = \"200%\" }\n",
            4,
            &["guard.max-delete-files", "a percentage such as 10%"],
        ),
        (
            "[[tree]]\nname = \"t\"\nsource = \"releases\"\nlayout = \"flat\"\n",
            4,
            &["`layout`", "simple"],
        ),
        ("[[grant]]\nsite = \"lisbon\"\ntree = \"fedora\"\nuntil = \"soon\"\n", 4, &["`until`"]),
    ]);
}

#[test]
fn names_of_things_that_are_not_defined_are_refused_with_the_closest() {
    refused(&[
        (
            "[[source]]\nname = \"s\"\nupstream = \"biuld\"\npath = \"/x\"\n",
            3,
            &["source s names upstream biuld", "did you mean `build`?", "[[upstream]]"],
        ),
        (
            "[[tree]]\nname = \"t\"\nsource = \"release\"\n",
            3,
            &["tree t names source release", "did you mean `releases`?"],
        ),
        (
            "[[grant]]\nsite = \"porto\"\ntree = \"fedora\"\n",
            2,
            &["grant fedora@porto names site porto, which is not defined;"],
        ),
        (
            "[[grant]]\nsite = \"lisbon\"\ntree = \"fedor\"\n",
            3,
            &["names tree fedor", "did you mean `fedora`?"],
        ),
    ]);
}

#[test]
fn what_is_named_but_could_not_be_read_is_not_reported_twice() {
    let text = "[[site]]\nname = \"porto\"\nprefx = \"x\"\n\n[[grant]]\nsite = \"porto\"\ntree = \"fedora\"\n";
    let found = findings(apply(&base(), text));
    assert_eq!(found.len(), 1, "{found:#?}");
    let broken = "[[site]]\nname = \"porto\"\nprefix = \n";
    let grant = "[[grant]]\nsite = \"porto\"\ntree = \"fedora\"\n";
    let files = request(&[("a.toml", broken), ("b.toml", grant)]);
    let found = plan_apply(&base(), &files, &context(&[])).unwrap_err();
    assert!(found.iter().all(|finding| finding.file.as_deref() == Some("a.toml")), "{found:#?}");
}

#[test]
fn a_definition_may_stand_in_the_files_once() {
    refused(&[(
        "[[site]]\nname = \"a\"\n\n[[site]]\nname = \"a\"\nprefix = \"x\"\n",
        4,
        &["site a is defined twice", "first at a.toml:1"],
    )]);
}

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
fn sites_are_checked_in_themselves() {
    let site = |rest: &str| format!("[[site]]\nname = \"s\"\n{rest}\n");
    refused(&[
        (&site("prefix = \"/srv\""), 3, &["prefix \"/srv\"", "relative to the publish directory"]),
        (&site("prefix = \"a/../b\""), 3, &["'..'"]),
        (&site("prefix = \"a/.mirrornet\""), 3, &["belongs to the agent"]),
        (&site("timezone = \"Lisbon/Europe\""), 3, &["timezone \"Lisbon/Europe\" is not known"]),
        (
            &site("bandwidth = [\n{ when = \"monday\", rate = \"1MiB/s\" }]"),
            4,
            &["when = \"monday\"", "mon-fri"],
        ),
        (&site("default-rate = \"0B/s\""), 3, &["a rate of 0"]),
        (&site("budget = \"500GiB\""), 3, &["`budget`", "500GiB/month"]),
    ]);
    apply(&base(), &site("timezone = \"Europe/Lisbon\"\nbandwidth = [{ when = \"mon-fri 08-18\", rate = \"2MiB/s\" }, { when = \"22-06\", rate = \"unlimited\" }]")).unwrap();
}

#[test]
fn paths_of_one_site_are_apart_also_from_what_is_stored() {
    let more = |path: &str| {
        format!(
            "[[tree]]\nname = \"t\"\nsource = \"releases\"\n[[grant]]\nsite = \"lisbon\"\ntree = \"t\"\n[[assignment]]\nsite = \"lisbon\"\ntree = \"t\"\npath = \"{path}\"\n"
        )
    };
    refused(&[
        (&more("fedora"), 10, &["t@lisbon", "equals", "fedora@lisbon"]),
        (&more("fedora/sub/dir"), 10, &["lies inside of fedora"]),
        (&more("x/.mirrornet/y"), 10, &["belongs to the agent"]),
        (&more("../x"), 10, &["'..'"]),
    ]);
    for apart in ["fedora-2", "fedor", "x/fedora"] {
        apply(&base(), &more(apart)).unwrap();
    }
    let stored = apply(&base(), &more("other/t")).unwrap().next;
    let outer = "[[assignment]]\nsite = \"lisbon\"\ntree = \"fedora\"\npath = \"other\"\n";
    let found = findings(apply(&stored, outer));
    assert!(found[0].starts_with("4: ") && found[0].contains("lies inside of other"), "{found:?}");
}

#[test]
fn assignments_are_checked_in_themselves() {
    let assignment =
        |rest: &str| format!("[[assignment]]\nsite = \"lisbon\"\ntree = \"fedora\"\n{rest}\n");
    refused(&[
        (&assignment("group = \"1001\""), 4, &["\"1001\" is not the name of a group"]),
        (&assignment("group = \"-x\""), 4, &["not the name of a group"]),
        (&assignment("chmod = \"rwx\""), 4, &["chmod \"rwx\"", "D755,F644"]),
        (&assignment("chmod = \"u+s\""), 4, &["set-user"]),
        (&assignment("keep-withdrawn = \"1y\""), 4, &["not a time"]),
    ]);
}

#[test]
fn the_example_of_the_documentation_is_taken_without_a_warning() {
    let text = r#"
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
layout = "simple"
limit = ["- /embargo/"]
filter = ["- *.iso", "- /debug/"]
encoders = "auto"
interval = "10m"
guard = { max-delete-files = "10%", max-delete-bytes = "25%", must-contain = ["repodata/repomd.xml"] }

[[site]]
name = "lisbon"
prefix = ""
exclude = ["*.tmp"]
timezone = "Europe/Lisbon"
bandwidth = [{ when = "mon-fri 08-18", rate = "2MiB/s" }, { when = "22-06", rate = "unlimited" }]
budget = "500GiB/month"

[[grant]]
site = "lisbon"
tree = "fedora"

[[assignment]]
site = "lisbon"
tree = "fedora"
path = "fedora"
filter = ["- /source/"]
enabled = true
"#;
    let planned = apply(&Definitions::default(), text).unwrap();
    assert_eq!(planned.changes.len(), 6);
    assert_eq!(planned.warnings, Vec::<String>::new());
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
fn a_link_in_the_place_of_versions_is_taken_with_a_warning() {
    let of = |layout: &str, line: &str| {
        let text = format!(
            "[[tree]]\nname = \"v\"\nsource = \"debian\"\n{layout}\n[[site]]\nname = \"porto\"\n\
             [[grant]]\nsite = \"porto\"\ntree = \"v\"\n\
             [[assignment]]\nsite = \"porto\"\ntree = \"v\"\n{line}\n"
        );
        apply(&base(), &text).unwrap().warnings
    };
    let link = "switch = \"symlink\"";
    assert_eq!(of("", link), of("", ""), "a tree of one unit may be behind a link");
    for layout in ["layout = \"versioned\"", "layout = \"sealed\""] {
        let others = of(layout, "");
        let more = of(layout, link).into_iter().filter(|text| !others.contains(text));
        let [only] = &more.collect::<Vec<_>>()[..] else { panic!("{others:?}") };
        let expected = "assignment v@porto: `switch = \"symlink\"` has no effect";
        assert!(only.starts_with(expected), "{only}");
    }
}

#[test]
fn an_assignment_without_a_live_grant_is_taken_with_a_warning() {
    let site = "[[site]]\nname = \"porto\"\n";
    let assignment = "[[assignment]]\nsite = \"porto\"\ntree = \"fedora\"\n";
    let past = "[[grant]]\nsite = \"porto\"\ntree = \"fedora\"\nuntil = 2026-01-01T00:00:00Z\n";
    warned(&[
        (&format!("{site}{assignment}"), &["fedora@porto has no grant", "[[grant]]"]),
        (&format!("{site}{assignment}{past}"), &["grant fedora@porto has ended already"]),
    ]);
}

#[test]
fn exactly_one_agent_holds_an_assignment() {
    let with = |agent: &str, agents: &[(&str, &str)]| {
        let text =
            format!("[[assignment]]\nsite = \"lisbon\"\ntree = \"fedora\"\npath = \"f\"\n{agent}");
        plan_apply(&base(), &request(&[("a.toml", &text)]), &context(agents))
    };
    let named = "agent = \"lisbon-1\"\n";
    let two = [("lisbon-1", "lisbon"), ("lisbon-2", "lisbon")];
    assert!(with("", &two[..1]).is_ok());
    assert!(with(named, &two).is_ok());
    let found = findings(with("", &two));
    assert!(found[0].starts_with("1: ") && found[0].contains("agent = \"lisbon-1\""), "{found:?}");
    let found = findings(with(named, &[("lisbon-2", "lisbon")]));
    assert!(
        found[0].starts_with("5: ") && found[0].contains("did you mean `lisbon-2`?"),
        "{found:?}"
    );
    let found = findings(with(named, &[("lisbon-1", "porto")]));
    assert!(found[0].contains("belongs to site porto"), "{found:?}");
    let warnings = with(named, &[]).unwrap().warnings;
    assert!(warnings[0].contains("mirrorctl invite --role agent --name lisbon-1"), "{warnings:?}");
    // What is stored is not refused because an agent came.
    let other =
        plan_apply(&base(), &request(&[("b.toml", "[[site]]\nname = \"x\"\n")]), &context(&two));
    assert!(other.is_ok());
}

#[test]
fn the_difference_names_each_field_before_and_after() {
    let text = "[[site]]\nname = \"lisbon\"\nprefix = \"pub\"\n\n[[site]]\nname = \"porto\"\n";
    let planned = apply(&base(), text).unwrap();
    let seen: Vec<_> = planned
        .changes
        .iter()
        .map(|change| (change.kind, change.name.as_str(), change.action, change.fields.len()))
        .collect();
    assert_eq!(
        seen,
        [(Kind::Site, "lisbon", Action::Change, 1), (Kind::Site, "porto", Action::Add, 0)]
    );
    let field = &planned.changes[0].fields[0];
    assert_eq!((field.field.as_str(), &field.from), ("prefix", &None));
    assert_eq!(field.to, Some("pub".into()));
    assert_eq!(apply(&planned.next, text).unwrap().changes, []);
}

#[test]
fn only_prune_removes_and_it_lists_what_goes() {
    let without_assignment =
        BASE.replace("[[assignment]]\nsite = \"lisbon\"\ntree = \"fedora\"\n", "");
    assert_eq!(apply(&base(), &without_assignment).unwrap().changes, []);
    let mut asked = request(&[("a.toml", &without_assignment)]);
    asked.prune = true;
    let planned = plan_apply(&base(), &asked, &context(&[])).unwrap();
    let [change] = &planned.changes[..] else { panic!("{:?}", planned.changes) };
    assert_eq!((change.kind, change.action), (Kind::Assignment, Action::Remove));
    assert!(planned.warnings[0].contains("files stay published"), "{:?}", planned.warnings);
    assert!(planned.next.assignments.is_empty());
}

#[test]
fn what_is_still_named_is_not_deleted() {
    let delete = |kind, name: &str| plan_delete(&base(), kind, name, &context(&[]));
    let found = findings(delete(Kind::Tree, "fedora"));
    assert!(found[0].contains("grant fedora@lisbon, assignment fedora@lisbon"), "{found:?}");
    let found = findings(delete(Kind::Upstream, "biuld"));
    assert!(found[0].contains("there is no upstream biuld (did you mean `build`?)"), "{found:?}");
    let planned = delete(Kind::Grant, "fedora@lisbon").unwrap();
    assert!(planned.warnings[0].contains("assignment fedora@lisbon stops"), "{planned:?}");
    let planned = delete(Kind::Assignment, "fedora@lisbon").unwrap();
    assert_eq!(planned.changes.len(), 1);
    assert!(planned.next.assignments.is_empty());
}

#[test]
fn enabling_changes_that_one_field() {
    let name = "fedora@lisbon".parse().unwrap();
    let off = plan_enabled(&base(), &name, false).unwrap();
    assert_eq!(off.changes[0].fields[0].field, "enabled");
    assert_eq!(plan_enabled(&off.next, &name, false).unwrap().changes, []);
    assert_eq!(plan_enabled(&off.next, &name, true).unwrap().next, base());
    assert_eq!(plan_enabled(&base(), &"x@y".parse().unwrap(), true), None);
}

#[test]
fn every_definition_survives_its_stored_form() {
    let base = base();
    let mut copy = Definitions::default();
    for kind in Kind::ALL {
        for name in base.names(kind) {
            let spec = base.get(kind, &name).unwrap();
            assert_eq!((spec.kind(), spec.name()), (kind, name));
            copy.insert(Spec::from_value(kind, spec.to_value()).unwrap());
        }
    }
    assert_eq!(copy, base);
}

#[test]
fn findings_are_bounded_and_say_how_many_more_there_are() {
    let text = (0..1000).map(|i| format!("[[site]]\nname = \"s{i}\"\nx = 1\n")).collect::<String>();
    let found = apply(&base(), &text).unwrap_err();
    assert_eq!(found.len(), MAX_FINDINGS + 1);
    assert!(found.last().unwrap().message.contains("and 800 more"), "{:?}", found.last());
}

#[test]
fn the_documentation_names_every_key() {
    let reference = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/reference/definitions.md"
    ))
    .unwrap();
    for kind in Kind::ALL {
        let text = format!("[[{}]]\nno-such-key = 1\n", kind.as_str());
        let found = findings(apply(&Definitions::default(), &text));
        let unknown = found.iter().find(|text| text.contains("unknown key")).unwrap();
        let (_, known) = unknown.split_once("known are ").unwrap();
        let section = reference
            .split("\n## ")
            .find(|text| text.starts_with(&format!("`[[{}]]`", kind.as_str())));
        let section = section.unwrap_or_else(|| panic!("no section for {kind:?}"));
        for key in known.split(", ") {
            assert!(section.contains(&format!("`{key}`")), "{kind:?}: {key} is not documented");
        }
    }
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
