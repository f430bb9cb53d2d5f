//! The files as they are read: what they may say, and how findings are told.

use super::*;

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
