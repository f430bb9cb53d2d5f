//! Behaviors of rsync that are easily got wrong, each with what must come out, which is asked of
//! both. Most are what rsync's own tests are about, retold.

use std::collections::BTreeSet;

use super::{
    case::{Case, Node, Tree, Way, tree},
    oracle::{self, Outcome},
    scratch,
};

/// A path and its content: a directory ends in `/`, a link's content is `->` and its target.
type Entries<'a> = &'a [(&'a [u8], &'a [u8])];

fn planted(entries: Entries<'_>) -> Tree {
    let node = |path: &[u8], content: &[u8]| match content.strip_prefix(b"->") {
        _ if path.ends_with(b"/") => Node::Dir,
        Some(target) => Node::Link(target.into()),
        None => Node::File(content.into()),
    };
    let entries: Vec<(&[u8], Node)> = entries
        .iter()
        .map(|(path, content)| (path.strip_suffix(b"/").unwrap_or(path), node(path, content)))
        .collect();
    tree(&entries)
}

fn shows(
    way: Way,
    rules: &[&[u8]],
    upstream: Entries<'_>,
    mirror: Entries<'_>,
    expected: &[&[u8]],
) {
    let rules = rules.iter().map(|rule| rule.to_vec()).collect();
    let (upstream, mirror) = (planted(upstream), planted(mirror));
    let case = Case { way, limit: Vec::new(), rules, upstream, mirror };
    let expected: BTreeSet<Vec<u8>> = expected.iter().map(|path| path.to_vec()).collect();
    assert_eq!(oracle::ours(&case), Outcome::Paths(expected), "{}", case.as_test());
    if let Err(why) = oracle::compare(&case, scratch().path()) {
        panic!("{why}\n{}", case.as_test());
    }
}

/// What is transferred of a tree.
fn sends(rules: &[&[u8]], upstream: Entries<'_>, expected: &[&[u8]]) {
    shows(Way::Written, rules, upstream, &[], expected);
}

/// What a mirror holds afterwards.
fn leaves(rules: &[&[u8]], upstream: Entries<'_>, mirror: Entries<'_>, expected: &[&[u8]]) {
    shows(Way::Removal { delete_excluded: false }, rules, upstream, mirror, expected);
}

#[test]
fn a_deep_include_is_reached_only_through_directories_that_are_included() {
    let upstream: Entries<'_> = &[(b"a/b/c", b""), (b"a/x", b""), (b"z", b"")];
    sends(&[b"+ /a/b/c", b"- *"], upstream, &[]);
    sends(&[b"+ /a/", b"+ /a/b/", b"+ /a/b/c", b"- *"], upstream, &[b"a/", b"a/b/", b"a/b/c"]);
    sends(&[b"+ */", b"+ c", b"- *"], upstream, &[b"a/", b"a/b/", b"a/b/c"]);
    sends(&[b"+ /a/***", b"- *"], upstream, &[b"a/", b"a/b/", b"a/b/c", b"a/x"]);
}

#[test]
fn the_first_rule_that_matches_decides() {
    let upstream: Entries<'_> = &[(b"keep.iso", b""), (b"x.iso", b""), (b"d/keep.iso", b"")];
    sends(&[b"+ keep.iso", b"- *.iso"], upstream, &[b"keep.iso", b"d/", b"d/keep.iso"]);
    sends(&[b"- *.iso", b"+ keep.iso"], upstream, &[b"d/"]);
    sends(&[b"+ /keep.iso", b"- *.iso", b"+ *"], upstream, &[b"keep.iso", b"d/"]);
}

#[test]
fn a_trailing_slash_asks_for_a_directory_and_a_link_is_none() {
    let upstream: Entries<'_> = &[(b"d/x", b""), (b"e/d", b""), (b"l", b"->d"), (b"m/l/y", b"")];
    sends(&[b"- d/", b"- l/"], upstream, &[b"e/", b"e/d", b"l", b"m/"]);
    sends(&[b"-! */"], upstream, &[b"d/", b"e/", b"m/", b"m/l/"]);
}

#[test]
fn names_that_look_like_rules_are_names() {
    let upstream: Entries<'_> =
        &[(b"+ a", b""), (b"- a", b""), (b"a", b""), (b"!", b""), (b"#x", b"")];
    sends(&[b"- + a", b"- !", b"-_#x"], upstream, &[b"- a", b"a"]);
}

#[test]
fn bytes_that_are_not_text_are_compared_as_bytes() {
    let upstream: Entries<'_> =
        &[(b"\xff", b""), (b"\xc3\xa9", b""), (b"a\nb", b""), (b"a b", b""), (b"a\\b", b"")];
    sends(&[b"- ?"], upstream, &[b"\xc3\xa9", b"a\nb", b"a b", b"a\\b"]);
    sends(&[b"- \xff", b"- a\nb", b"- a\\b"], upstream, &[b"\xc3\xa9", b"a b"]);
    sends(&[b"- a?b", b"- [\x80-\xff]*"], upstream, &[]);
}

#[test]
fn a_backslash_escapes_only_where_there_is_a_wildcard() {
    let upstream: Entries<'_> = &[(b"a\\b", b""), (b"ab", b""), (b"*", b""), (b"[x]", b"")];
    sends(&[b"- a\\b"], upstream, &[b"ab", b"*", b"[x]"]);
    sends(&[b"- a\\b*"], upstream, &[b"a\\b", b"*", b"[x]"]);
    sends(&[b"- \\*", b"- \\[x]"], upstream, &[b"a\\b", b"ab"]);
}

#[test]
fn slashes_inside_a_pattern_compare_as_many_components() {
    let upstream: Entries<'_> = &[(b"a/b/c", b""), (b"x/a/b/c", b""), (b"b/c", b""), (b"a/c", b"")];
    sends(&[b"- a/b"], upstream, &[b"a/", b"a/c", b"b/", b"b/c", b"x/", b"x/a/"]);
    sends(
        &[b"- /a/b"],
        upstream,
        &[b"a/", b"a/c", b"b/", b"b/c", b"x/", b"x/a/", b"x/a/b/", b"x/a/b/c"],
    );
    let star = [&b"a/"[..], b"a/b/", b"a/c", b"b/", b"b/c", b"x/", b"x/a/", b"x/a/b/"];
    sends(&[b"- a/*/c"], upstream, &star);
}

#[test]
fn three_stars_are_a_directory_and_all_of_it() {
    let upstream: Entries<'_> = &[(b"d/x/y", b""), (b"z", b"")];
    sends(&[b"- d/***"], upstream, &[b"z"]);
    sends(&[b"- d/**"], upstream, &[b"d/", b"z"]);
    sends(&[b"- ***"], upstream, &[]);
}

#[test]
fn a_rule_file_counts_for_its_directory_and_all_below() {
    let upstream: Entries<'_> = &[(b"a", b""), (b"d/.m", b"- a\n"), (b"d/a", b""), (b"d/e/a", b"")];
    sends(&[b": .m"], upstream, &[b"a", b"d/", b"d/.m", b"d/e/"]);
    sends(&[b":e .m"], upstream, &[b"a", b"d/", b"d/e/"]);
    sends(&[b":n .m"], upstream, &[b"a", b"d/", b"d/.m", b"d/e/", b"d/e/a"]);
}

#[test]
fn the_rules_of_the_nearest_rule_file_come_first() {
    let upstream: Entries<'_> = &[
        (b".m", b"- *.o\n"),
        (b"x.o", b""),
        (b"d/.m", b"+ x.o\n"),
        (b"d/x.o", b""),
        (b"d/y.o", b""),
    ];
    sends(&[b": .m"], upstream, &[b".m", b"d/", b"d/.m", b"d/x.o"]);
    sends(&[b"- x.o", b": .m"], upstream, &[b".m", b"d/", b"d/.m"]);
}

#[test]
fn an_anchor_in_a_rule_file_is_its_directory() {
    let upstream: Entries<'_> = &[
        (b"d/.m", b"- /a\n- /e/b\n"),
        (b"a", b""),
        (b"d/a", b""),
        (b"d/e/a", b""),
        (b"d/e/b", b""),
    ];
    sends(&[b": .m"], upstream, &[b"a", b"d/", b"d/.m", b"d/e/", b"d/e/a"]);
}

#[test]
fn below_a_directory_with_wildcards_in_its_name_an_anchor_is_a_pattern() {
    let upstream: Entries<'_> = &[(b"[x]/.m", b"- /a\n- b\n"), (b"[x]/a", b""), (b"[x]/b", b"")];
    sends(&[b": .m"], upstream, &[b"[x]/", b"[x]/.m", b"[x]/a"]);
}

#[test]
fn clearing_in_a_rule_file_drops_what_it_inherits_and_nothing_else() {
    let upstream: Entries<'_> = &[
        (b".m", b"- a\n"),
        (b"d/.m", b"- b\n!\n- c\n"),
        (b"d/a", b""),
        (b"d/b", b""),
        (b"d/c", b""),
        (b"d/x", b""),
    ];
    sends(&[b": .m", b"- x"], upstream, &[b".m", b"d/", b"d/.m", b"d/a", b"d/b"]);
}

#[test]
fn a_rule_file_may_hold_bare_patterns_or_words() {
    let upstream: Entries<'_> =
        &[(b".m", b"- a\nb\n# c\n"), (b"- a", b""), (b"a", b""), (b"b", b"")];
    sends(&[b":- .m"], upstream, &[b".m", b"a"]);
    sends(&[b":+ .m", b"- *"], upstream, &[b"- a", b"b"]);
    let words: Entries<'_> =
        &[(b".m", b"-_a  -_b\n+_c -_*"), (b"a", b""), (b"b", b""), (b"c", b"")];
    sends(&[b":w .m"], words, &[b"c"]);
}

#[test]
fn a_rule_file_may_ask_for_another() {
    let upstream: Entries<'_> = &[
        (b"d/.m", b": .f\n"),
        (b"d/.f", b"- a\n"),
        (b"d/a", b""),
        (b"d/e/a", b""),
        (b"o/.f", b"- a\n"),
        (b"o/a", b""),
    ];
    sends(&[b": .m"], upstream, &[b"d/", b"d/.m", b"d/.f", b"d/e/", b"o/", b"o/.f", b"o/a"]);
}

#[test]
fn a_file_name_is_asked_for_once_by_the_first_rule_that_has_it() {
    let upstream: Entries<'_> = &[(b".m", b"- a\n"), (b"d/a", b"")];
    sends(&[b":n .m", b": .m"], upstream, &[b".m", b"d/", b"d/a"]);
}

#[test]
fn what_is_left_out_stays_at_the_mirror_and_what_is_hidden_goes() {
    let mirror: Entries<'_> = &[(b"d/x", b""), (b"h/x", b""), (b"p", b""), (b"gone", b"")];
    leaves(&[b"- d/", b"H h/", b"P p"], &[], mirror, &[b"d/", b"d/x", b"p"]);
}

#[test]
fn a_directory_that_holds_something_protected_stays_without_the_rest() {
    let mirror: Entries<'_> =
        &[(b"d/keep", b""), (b"d/e/keep", b""), (b"d/e/x", b""), (b"d/y", b"")];
    leaves(&[b"P keep"], &[], mirror, &[b"d/", b"d/keep", b"d/e/", b"d/e/keep"]);
}

#[test]
fn a_perishable_rule_does_not_keep_its_directory_alive() {
    let mirror: Entries<'_> = &[(b"cache", b""), (b"d/cache", b""), (b"e/cache", b"")];
    leaves(&[b"-p cache"], &[(b"e/", b"")], mirror, &[b"cache", b"e/", b"e/cache"]);
}

#[test]
fn what_takes_the_place_of_a_directory_waits_for_what_is_protected() {
    let mirror: Entries<'_> = &[(b"d/keep", b""), (b"d/x", b""), (b"e/x", b"")];
    let upstream: Entries<'_> = &[(b"d", b""), (b"e", b"")];
    leaves(&[b"P keep"], upstream, mirror, &[b"d/", b"d/keep", b"e"]);
}

#[test]
fn a_directory_that_both_have_is_compared_even_when_it_is_protected() {
    leaves(&[b"P d/"], &[(b"d/a", b"")], &[(b"d/old", b"")], &[b"d/", b"d/a"]);
}

#[test]
fn removing_what_is_excluded_spares_what_names_the_receiver() {
    let way = Way::Removal { delete_excluded: true };
    let mirror: Entries<'_> = &[(b"a", b""), (b"b", b""), (b"c", b""), (b"d", b"")];
    shows(way, &[b"- a", b"P b", b"-sr c", b"-s d"], &[], mirror, &[b"b", b"c"]);
}

#[test]
fn handed_over_rules_keep_every_byte_of_a_pattern() {
    let upstream: Entries<'_> =
        &[(b"a\nb", b""), (b" ", b""), (b"_", b""), (b"#", b""), (b"a", b""), (b"\r", b"")];
    let rules: &[&[u8]] = &[b"- a\nb", b"-  ", b"-__", b"- #", b"exclude \r"];
    for way in [Way::Arguments, Way::File] {
        shows(way, rules, upstream, &[], &[b"a"]);
    }
}

#[test]
fn handed_over_lists_may_be_long() {
    let long = [b"- ", &[b'x'; 4095][..]].concat();
    let mut rules: Vec<Vec<u8>> = (0..5000).map(|i| format!("- name {i}").into_bytes()).collect();
    rules.push(long);
    let rules: Vec<&[u8]> = rules.iter().map(Vec::as_slice).collect();
    let upstream: Entries<'_> = &[(b"name 4999", b""), (b"name 5000", b"")];
    shows(Way::File, &rules, upstream, &[], &[b"name 5000"]);
}
