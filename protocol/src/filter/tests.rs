//! What rules mean, as tables that can be read beside rsync's manual.

use super::*;

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

/// `name/` is a directory.
fn entry(text: &str) -> (TreePath, bool) {
    match text.strip_suffix('/') {
        Some(dir) => (path(dir), true),
        None => (path(text), false),
    }
}

fn keeps(rules: &[&str], text: &str) -> bool {
    let (path, is_dir) = entry(text);
    Filter::parse(rules).unwrap().keeps(&path, is_dir)
}

#[test]
fn patterns_are_compared_with_the_part_of_the_path_that_their_slashes_ask_for() {
    let excluded: &[(&str, &[&str], &[&str])] = &[
        ("- foo", &["foo", "foo/", "a/foo", "foo/x"], &["foobar", "a/food"]),
        ("- foo/", &["foo/", "a/foo/", "foo/x"], &["foo", "a/foo"]),
        ("- /foo", &["foo", "foo/x"], &["a/foo", "foobar"]),
        ("- a/b", &["a/b", "x/a/b", "x/a/b/"], &["b", "a/", "xa/b", "a/x/b"]),
        ("- *.o", &["x.o", "a/x.o", ".o"], &["x.oo", "xo"]),
        ("- a*b", &["ab", "axxb", "d/ab"], &["abc", "a/b"]),
        ("- /*", &["x", "x/"], &[]),
        ("- /*/b", &["a/b"], &["b", "x/a/b", "a/"]),
        ("- a/**/b", &["a/x/b", "a/x/y/b", "z/a/x/b"], &["a/b", "xa/y/b"]),
        ("- **/b", &["b", "a/b", "a/x/b"], &["ab", "a/xb"]),
        ("- a**b", &["ab", "a/x/b", "d/a/b"], &["xab", "b"]),
        ("- d/**", &["d/x", "d/x/y", "z/d/x"], &["d/", "d"]),
        ("- d/***", &["d/", "d/x"], &["d"]),
        ("- ***", &["x", "x/", "a/b"], &[]),
        ("- /**", &["x", "x/", "a/b"], &[]),
        ("- ?", &["a", "d/a"], &["ab", "é"]),
        ("- /??", &["ab", "é"], &["a", "abc"]),
        ("- a[/]b", &[], &["a/b", "ab"]),
        ("- foo\\bar", &["foo\\bar"], &["foobar"]),
        ("- foo\\bar*", &["foobar", "foobarx"], &["foo\\bar"]),
        ("- foo//", &[], &["foo/", "foo/x"]),
        ("- /", &[], &["a", "a/"]),
        ("-! */", &["a", "d/a"], &["d/"]),
        ("-! foo/", &["a", "foo", "d/"], &["foo/"]),
        ("-_a b", &["a b"], &["a", "b"]),
        ("-__a", &["_a"], &["a"]),
        ("exclude,s a", &["a"], &["b"]),
        ("hide_a", &["a"], &["b"]),
        ("P a", &[], &["a"]),
        ("-r a", &[], &["a"]),
        ("-sr a", &["a"], &[]),
    ];
    for (rule, gone, kept) in excluded {
        for text in *gone {
            assert!(!keeps(&[rule], text), "{rule:?} leaves out {text:?}");
        }
        for text in *kept {
            assert!(keeps(&[rule], text), "{rule:?} keeps {text:?}");
        }
    }
}

#[test]
fn rules_that_are_not_accepted_are_named_with_the_column() {
    let cases: &[(&str, usize, Problem)] = &[
        ("zap", 1, Problem::UnknownRule),
        (" - a", 1, Problem::UnknownRule),
        ("excludea", 1, Problem::UnknownRule),
        ("-foo", 2, Problem::BadModifier(b'f')),
        ("-\ta", 2, Problem::BadModifier(b'\t')),
        ("-,, a", 3, Problem::BadModifier(b',')),
        ("hide,s a", 6, Problem::BadModifier(b's')),
        ("-n a", 2, Problem::BadModifier(b'n')),
        (":! .f", 2, Problem::BadModifier(b'!')),
        (":-+ .f", 3, Problem::BadModifier(b'+')),
        ("-", 2, Problem::NoPattern),
        ("- ", 3, Problem::NoPattern),
        ("exclude", 8, Problem::NoPattern),
        ("!x", 2, Problem::TrailingText),
        ("! */", 2, Problem::TrailingText),
        ("clear ", 6, Problem::TrailingText),
        ("- a\0b", 4, Problem::Nul),
        (". /etc/rules", 1, Problem::Unsupported(Unsupported::Merge)),
        ("merge x", 1, Problem::Unsupported(Unsupported::Merge)),
        ("-C", 2, Problem::Unsupported(Unsupported::CvsRules)),
        (":C", 2, Problem::Unsupported(Unsupported::CvsRules)),
        ("-/ a", 2, Problem::Unsupported(Unsupported::AbsolutePath)),
        ("-x a", 2, Problem::Unsupported(Unsupported::Xattr)),
        (": /.f", 3, Problem::Unsupported(Unsupported::RuleFilePath)),
        (": ..", 3, Problem::Unsupported(Unsupported::RuleFilePath)),
    ];
    for (rule, column, problem) in cases {
        let errors = Filter::parse(&["- fine", rule]).unwrap_err().0;
        let [error] = &errors[..] else { panic!("{rule:?}: {errors:?}") };
        let found = (error.index, error.column, &error.problem);
        assert_eq!(found, (1, *column, problem), "{rule:?}");
    }
}

#[test]
fn levels_merge_in_one_order_and_the_decision_names_the_level() {
    let levels = [
        Level::excludes(Origin::Site, "lisbon", ["*.tmp"]),
        Level::excludes(Origin::Assignment, "fedora", ["*.log"]),
        Level::rules(Origin::Tree, "fedora", ["- *.iso", "- /debug/"]),
        Level::rules(Origin::Assignment, "fedora", ["+ /keep.iso", "+ /embargo/"]),
        Level::rules(Origin::Limit, "fedora", ["- /embargo/"]),
    ];
    let filter = Filter::build(&levels).unwrap();
    let decided = |text: &str| {
        let (path, is_dir) = entry(text);
        let decision = filter.decide(&path, is_dir);
        (decision.kept, decision.rule.map(ToString::to_string).unwrap_or_default())
    };
    let expected = [
        ("keep.iso", true, "assignment 'fedora', rule 1: + /keep.iso"),
        ("other.iso", false, "tree 'fedora', rule 1: - *.iso"),
        ("debug/", false, "tree 'fedora', rule 2: - /debug/"),
        ("a.log", false, "assignment 'fedora', rule 1: *.log"),
        ("a.tmp", false, "site 'lisbon', rule 1: *.tmp"),
        ("embargo/", false, "limit 'fedora', rule 1: - /embargo/"),
        ("a", true, ""),
    ];
    for (text, kept, rule) in expected {
        assert_eq!(decided(text), (kept, rule.to_owned()), "{text}");
    }
    let mut shuffled = levels.to_vec();
    shuffled.reverse();
    assert_eq!(Filter::build(&shuffled).unwrap(), filter);
}

#[test]
fn long_lists_decide_like_short_ones() {
    let mut rules: Vec<String> = (0..100).map(|i| format!("- name{i}")).collect();
    rules.extend((0..100).map(|i| format!("- /dir/path{i}")));
    rules.insert(50, "+ name7*".into());
    let filter = Filter::parse(&rules).unwrap();
    let kept = |text: &str| filter.keeps(&path(text), false);
    assert!(!kept("name7") && !kept("x/name49") && !kept("dir/path99") && !kept("name99"));
    assert!(kept("name70") && kept("name100") && kept("x/dir/path9"));
}

#[test]
fn excludes_are_patterns_and_never_rules() {
    let site = |text: &str| Level::excludes(Origin::Site, "s", [text]);
    for text in ["+ a", "- a", "!"] {
        let error = Filter::build(&[site(text)]).unwrap_err().0.remove(0);
        assert_eq!(error.problem, Problem::RuleAmongExcludes);
    }
    let filter = Filter::build(&[site("P a")]).unwrap();
    assert!(!filter.keeps(&path("P a"), false) && filter.keeps(&path("a"), false));
}

fn limited(limit: &[&str], rules: &[&str]) -> Filter {
    let limit = Level::rules(Origin::Limit, "t", limit.iter().copied());
    let rules = Level::rules(Origin::Assignment, "s", rules.iter().copied());
    Filter::build(&[limit, rules]).unwrap()
}

#[test]
fn an_include_that_the_limit_hides_is_refused() {
    let hidden: &[(&[&str], &str)] = &[
        (&["- /embargo/"], "+ /embargo/report"),
        (&["- /embargo/"], "+ /embargo/"),
        (&["- /embargo/"], "+ /embargo/**.txt"),
        (&["+ /open/***", "- *"], "+ /closed/x"),
        (&["- *.iso"], "+ live-*.iso"),
        (&["- [a-m]*"], "+ b*"),
    ];
    for (limit, rule) in hidden {
        let Err(errors) = within_limit(&limited(limit, &[rule])) else {
            panic!("{rule} is hidden by {limit:?}");
        };
        assert_eq!(errors.0.len(), 1);
        assert!(matches!(errors.0[0].problem, Problem::HiddenByLimit(Some(_))), "{errors}");
    }
    let fine: &[(&[&str], &str)] = &[
        (&[], "+ a"),
        (&["- /embargo/"], "+ embargo/report"),
        (&["- /embargo/"], "+ */"),
        (&["- *.iso"], "+ *.is?"),
        (&["- [a-m]*"], "+ ?z*"),
        (&["- *.iso"], "+ a[.iso"),
        (&["-! */"], "+ x/y"),
        (&["P /embargo/"], "+ /embargo/x"),
        (&["- /embargo"], "- /embargo/x"),
    ];
    for (limit, rule) in fine {
        assert_eq!(within_limit(&limited(limit, &[rule])), Ok(()), "{limit:?} {rule}");
    }
}

#[test]
fn rules_without_effect_are_warned_about() {
    let shown = |rules: &[&str], versions| -> Vec<String> {
        let filter = Filter::parse(rules).unwrap();
        let kind = |warning| match warning {
            Warning::Overruled { rule, by } => format!("{} < {}", rule.text, by.text),
            Warning::CutOff { rule, by } => format!("{} / {}", rule.text, by.text),
            Warning::Impossible { rule } => format!("{} !", rule.text),
            Warning::NoVersionLeft { by } => format!("none by {}", by.text),
        };
        warnings(&filter, versions).into_iter().map(kind).collect()
    };
    assert_eq!(shown(&["- *.iso", "+ live.iso"], false), ["+ live.iso < - *.iso"]);
    assert_eq!(shown(&["+ live.iso", "- *.iso"], false), [""; 0]);
    assert_eq!(shown(&["+ /a/b/c", "- *"], false), ["+ /a/b/c / - *"]);
    assert_eq!(shown(&["+ /a/", "+ /a/b/", "+ /a/b/c", "- *"], false), [""; 0]);
    assert_eq!(shown(&["- a[b", "- x//", "- a[/]b"], false), ["- a[b !", "- x// !", "- a[/]b !"]);
    assert_eq!(shown(&["P a*", "P ab"], false), ["P ab < P a*"]);
    assert_eq!(shown(&["- /old/", "P /old/x"], false), [""; 0]);
    assert_eq!(shown(&["- */"], true), ["none by - */"]);
    assert_eq!(shown(&["+ 4?/", "- */"], true), [""; 0]);
    assert_eq!(shown(&["- a*", "- [!a]*", "- b"], false), ["- b < - [!a]*"]);
}

#[test]
fn a_list_too_involved_to_be_sure_about_gets_no_warning() {
    let mut rules: Vec<String> =
        (0..200).map(|i| format!("- *{i}*{}*{}*", i * 7, i * 13)).collect();
    rules.push("- a[".into());
    let filter = Filter::parse(&rules).unwrap();
    assert_eq!(warnings(&filter, true), []);
    assert_eq!(within_limit(&filter), Ok(()));
}

#[test]
fn a_preview_says_for_each_entry_which_rule_decided_and_sums_it_up() {
    let filter = Filter::parse(&["+ *.rpm", "- /debug/", "- *.iso", ": .rules"]).unwrap();
    let read = |dir: Option<&TreePath>, name: &[u8]| {
        let here = dir.is_some_and(|dir| dir.as_bytes() == b"os") && name == b".rules";
        Ok(here.then(|| b"- boot\n".to_vec()))
    };
    let mut preview = preview::Preview::new(&filter, read).unwrap();
    let listing = [
        ("a.iso", 5),
        ("debug/", 0),
        ("debug/x.rpm", 7),
        ("os/", 0),
        ("os/boot", 3),
        ("os/x.rpm", 2),
    ];
    let shown: Vec<String> = listing
        .iter()
        .map(|(text, bytes)| {
            let (path, is_dir) = entry(text);
            format!("{text} {}", preview.visit(&path, is_dir, *bytes).unwrap())
        })
        .collect();
    assert_eq!(
        shown,
        [
            "a.iso left out by given rules, rule 3: - *.iso",
            "debug/ left out by given rules, rule 2: - /debug/",
            "debug/x.rpm left out with the directory debug/ by given rules, rule 2: - /debug/",
            "os/ kept, since no rule speaks of it",
            "os/boot left out by rule file 'os/.rules', rule 1: - boot",
            "os/x.rpm kept by given rules, rule 1: + *.rpm",
        ]
    );
    let tally = preview.finish();
    assert_eq!(tally.kept, preview::Count { directories: 1, files: 1, bytes: 2 });
    assert_eq!(tally.left_out, preview::Count { directories: 1, files: 3, bytes: 15 });
    let debug = tally.by_rule.iter().find(|tally| tally.rule.text == "- /debug/").unwrap();
    assert_eq!(debug.left_out, preview::Count { directories: 1, files: 1, bytes: 7 });
}

#[test]
fn what_goes_to_rsync_is_one_list_wherever_one_list_can_say_it() {
    let lines = |limit: &[&str], rules: &[&str]| {
        let handed = limited(limit, rules).rsync_rules();
        let lines = handed.lines.iter().map(|line| String::from_utf8(line.clone()).unwrap());
        (lines.collect::<Vec<_>>(), handed.exact)
    };
    let exact = |lines: &[&str]| (lines.iter().map(ToString::to_string).collect::<Vec<_>>(), true);
    let merged = lines(&["- /embargo/"], &["+ /a.iso", "exclude,! *.iso", "hide_x", "+ end"]);
    assert_eq!(merged, exact(&["- /embargo/", "+ /a.iso", "-! *.iso", "-s x"]));
    let fronts = lines(&["+ /open/", "- /*"], &["- *.iso", "P keep", "+ end"]);
    assert_eq!(fronts, exact(&["- *.iso", "-r keep", "+ /open/", "- /*"]));
    let both = lines(&["- x", "+ /open/", "- /*"], &["- y", "+ a", "- b"]);
    assert_eq!(both, (vec!["- x".into(), "+ /open/".into(), "- /*".into()], false));
    let handed = limited(&[], &["- a b"]).rsync_rules();
    assert_eq!(handed.arguments(), ["--filter=- a b"]);
    assert_eq!(handed.file(), b"- a b\0");
}

#[test]
fn the_worked_example_of_the_reference_page_is_true() {
    let page = include_str!("../../../docs/reference/filters.md");
    let example = page.split("```toml\n").nth(2).unwrap();
    let (definitions, after) = example.split_once("```").unwrap();
    let definitions: toml::Table = definitions.parse().unwrap();
    let list = |kind: &str, key: &str| -> Vec<String> {
        definitions[kind][0][key].clone().try_into().unwrap()
    };
    let filter = Filter::build(&[
        Level::rules(Origin::Limit, "", list("tree", "limit")),
        Level::rules(Origin::Tree, "", list("tree", "filter")),
        Level::rules(Origin::Assignment, "", list("assignment", "filter")),
        Level::excludes(Origin::Site, "", list("site", "exclude")),
    ])
    .unwrap();
    assert_eq!(within_limit(&filter), Ok(()));
    let rows = after.lines().filter(|line| line.starts_with("| `")).take(6).map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        (cells[0].split('`').nth(1).unwrap(), cells[1], cells[2].replace('`', ""))
    });
    let rows: Vec<_> = rows.collect();
    assert_eq!(rows.len(), 6);
    for (text, what, by) in rows {
        let mut preview = preview::Preview::new(&filter, |_, _| Ok(None)).unwrap();
        let (path, is_dir) = entry(text);
        for above in path.ancestors() {
            preview.visit(&above, true, 0).unwrap();
        }
        let explanation = preview.visit(&path, is_dir, 0).unwrap();
        assert_eq!(explanation.kept, what == "kept", "{text}");
        let rule = explanation.rule.map_or("no rule speaks of it".into(), |rule| rule.to_string());
        assert_eq!(rule, by, "{text}");
    }
}

#[test]
fn a_filter_is_named_by_what_it_means() {
    let digest = |rules: &[&str]| Filter::parse(rules).unwrap().digest();
    assert_eq!(digest(&["exclude,! */", "hide_x", "- a"]), digest(&["-!_*/", "-s x", "", "-_a"]));
    assert_eq!(digest(&["- gone", "!", "- a"]), digest(&["- a"]));
    assert_ne!(digest(&["- a", "+ b"]), digest(&["+ b", "- a"]));
    assert_ne!(digest(&["- a"]), limited(&["- a"], &[]).digest());
    let filter = Filter::parse(&["- a", ": .rules"]).unwrap();
    assert_ne!(filter.digest(), filter.removing_excluded().digest());
    assert_eq!(limited(&["- a"], &["+,! b"]).to_string(), "limit - a\n+! b");
}

#[test]
fn a_filter_has_a_bound_on_rules_and_text() {
    let problem = |rules: Vec<String>| Filter::parse(&rules).unwrap_err().0.pop().unwrap().problem;
    assert_eq!(problem(vec!["- a".into(); MAX_RULES + 1]), Problem::TooManyRules);
    assert_eq!(problem(vec![format!("- {}", "x".repeat(4000)); 300]), Problem::TooManyRules);
    assert_eq!(problem(vec![format!("- {}", "a".repeat(4096))]), Problem::TooLong);
    assert!(Filter::parse(&[format!("- {}", "a*".repeat(2047))]).is_ok());
}
