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
