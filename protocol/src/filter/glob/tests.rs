//! The wildcards one sort at a time, and then against a matcher that is too simple to be wrong.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn matches(pattern: &str, name: &str) -> bool {
    Glob::compile(pattern.as_bytes()).matches(name.as_bytes(), Frame::default())
}

/// `(pattern, names that match, names that do not)`.
type Table = &'static [(&'static str, &'static [&'static str], &'static [&'static str])];

fn check(table: Table) {
    for (pattern, yes, no) in table {
        for name in *yes {
            assert!(matches(pattern, name), "{pattern:?} matches {name:?}");
        }
        for name in *no {
            assert!(!matches(pattern, name), "{pattern:?} does not match {name:?}");
        }
    }
}

#[test]
fn a_question_mark_is_one_byte_that_is_no_slash() {
    check(&[
        ("???", &["tar", "é1"], &["ta", "tars", "a/b"]),
        ("??", &["é"], &["e"]),
        ("bin?sh", &["bin-sh"], &["bin/sh", "binsh"]),
        ("\\??\\?z", &["?x?z"], &["yx?z"]),
    ]);
}

#[test]
fn one_star_stays_within_a_component() {
    check(&[
        ("*", &["", "tar"], &["a/b"]),
        ("t*", &["tar", "t"], &["at"]),
        ("*t", &["at", "t"], &["tar"]),
        ("*ar*", &["ar", "tarred"], &["bra"]),
        ("*ob*a*r*", &["foobar"], &["foobra"]),
        ("*ab", &["aaaaaaabababab"], &["aaaaaaabababa"]),
        ("usr*bin", &["usr-bin"], &["usr/local/bin", "usr/bin"]),
        ("*/bin", &["usr/bin", "/bin"], &["usr/local/bin", "bin"]),
        ("b*a", &["ba", "bxa"], &["aaabbb"]),
        ("*ba*", &["xbax"], &["aabcaa"]),
        ("/*/*/*/m/*", &["/a/b/c/m/d"], &["/a/b/c/x/d", "/a/b/m/d"]),
        ("-*-*-*-12-*-m-*", &["-a-b-c-12-75-m-iso"], &["-a-b-c-12-75-x-iso", "-a-b-c-12-/-x"]),
    ]);
}

#[test]
fn two_and_more_stars_cross_slashes() {
    check(&[
        ("usr**bin", &["usrbin", "usr/bin", "usr/local/bin"], &["usr/bin/x"]),
        ("**/bin", &["/bin", "usr/local/bin"], &["bin"]),
        ("**/bin*", &["a/bin", "a/binx"], &["a/bin/x", "a/b/bin/x/y"]),
        ("**/bin**", &["a/bin", "a/bin/x/y"], &["bin"]),
        ("**/t[o]", &["a/b/to"], &["a/b/ta", "to"]),
        ("***", &["", "a/b/c"], &[]),
        ("a*****b", &["a/x/b", "ab"], &["a/x/c"]),
        ("**/*k*i*s*.txt", &["a/b/kirsche.txt"], &["a/b/kirsche.txts", "a/kis/b.txt"]),
        ("**[!te]", &["tex"], &["te"]),
        ("**[!ten]", &["tex"], &["ten"]),
    ]);
}

#[test]
fn a_class_is_one_byte_of_a_set_and_never_a_slash() {
    check(&[
        ("*[al]?", &["ball"], &["bxyz"]),
        ("[ten]", &["t", "n"], &["ten", "x"]),
        ("t[a-g]n", &["ten"], &["ton", "t-n"]),
        ("t[!a-g]n", &["ton"], &["ten", "t/n"]),
        ("t[^a-g]n", &["ton"], &["ten", "t/n"]),
        ("a[/]b", &[], &["a/b", "ab"]),
        ("[,-.]", &[",", "-", "."], &["+", "-.]"]),
        ("[a^b]", &["^", "a"], &["x"]),
        ("a[c-c]st", &["acst"], &["acrt"]),
        ("[z-a]", &["z"], &["a", "m", "-"]),
    ]);
}

#[test]
fn a_bracket_that_comes_first_in_a_class_is_a_member() {
    check(&[
        ("a[]]b", &["a]b"], &["a[b", "ab"]),
        ("a[]-]b", &["a]b", "a-b"], &["aab"]),
        ("a[]a-]b", &["a]b", "aab", "a-b"], &["abb"]),
        ("[]-a]", &["^", "]", "a"], &["[", "b"]),
        ("[!]-a]", &["["], &["^"]),
        ("[!]-]", &["a"], &["]", "-"]),
        ("]", &["]"], &[""]),
        ("a-]b", &["a-]b"], &["a-b"]),
    ]);
}

#[test]
fn a_dash_is_a_range_only_between_two_members() {
    check(&[
        ("[-]", &["-"], &["a"]),
        ("[a-e-n]", &["-", "c", "n"], &["j"]),
        ("[--A]", &["-", "5", "A"], &[",", "B"]),
        ("[ --]", &[" ", "$", "-"], &["0"]),
        ("[---]", &["-"], &[","]),
        ("[------]", &["-"], &["a"]),
        ("[!------]", &["a"], &["-"]),
        ("[a-]b]", &["-b]", "ab]"], &["bb]", "a"]),
        ("[[-\\]]", &["\\", "[", "]"], &["-"]),
        ("[\\\\-^]", &["]", "\\", "^"], &["[", "_"]),
        ("[A-\\\\]", &["G", "\\"], &["]"]),
    ]);
}

#[test]
fn a_backslash_makes_the_next_byte_literal() {
    check(&[
        ("f\\*", &["f*"], &["fx", "f\\*"]),
        ("f\\*x", &["f*x"], &["fyx"]),
        ("f\\\\*", &["f\\", "f\\x"], &["fx"]),
        ("\\[ab]*", &["[ab]", "[ab]x"], &["a", "\\[ab]"]),
        ("\\a\\b?", &["abc"], &["\\a\\bc"]),
        ("[\\-_]", &["-", "_"], &["\\", "a"]),
        ("[\\]]", &["]"], &["\\", "\\]"]),
        ("[\\\\]", &["\\"], &["]"]),
        ("[!\\\\]", &["a"], &["\\"]),
        ("[\\\\,]", &["\\", ","], &["a"]),
    ]);
}

#[test]
fn named_classes_are_those_of_ascii() {
    check(&[
        ("[[:alpha:]][[:digit:]][[:upper:]]", &["a1B"], &["11B", "a1b"]),
        ("[[:digit:][:upper:][:space:]]", &["A", "1", " ", "\t"], &["a", "."]),
        ("[[:digit:][:punct:]]", &[".", "1"], &["a"]),
        ("[[:xdigit:]]", &["5", "f", "D"], &["g"]),
        ("[^[:alnum:][:punct:][:space:][:cntrl:]]", &[], &["a", "_", " ", "\x7f"]),
        ("[^[:alnum:][:cntrl:][:space:]]", &["."], &["7"]),
        ("[[:cntrl:]]", &["\x7f", "\n"], &["a"]),
        ("[[:print:]]", &[" ", "~"], &["\t", "\x7f"]),
        ("[[:graph:]]", &["~"], &[" "]),
        ("[[:blank:]]", &[" ", "\t"], &["\n"]),
        ("[[:digit:]-z]", &["-", "z", "3"], &["y"]),
        ("[[:alpha]", &["[", ":", "a"], &["b", "]"]),
        ("[[:a-z]", &["[", ":", "q"], &["A"]),
    ]);
    let high = Glob::compile(b"[^[:print:][:cntrl:]]");
    assert!(high.matches(b"\xff", Frame::default()) && !high.matches(b"a", Frame::default()));
}

#[test]
fn a_malformed_pattern_matches_nothing() {
    for pattern in
        ["[", "a[", "ab[!", "[-", "[a-", "[!a-", "a[]b", "[\\]", "*[", "a*\\", "[[:nope:]]", "[[:a"]
    {
        for name in ["", "a", "ab", "-", "[", "\\", "]", "a[", "a[]b", "ab[", "a\\", "[-"] {
            assert!(!matches(pattern, name), "{pattern:?} {name:?}");
        }
    }
}

#[test]
fn no_pattern_takes_long() {
    let names = ["a".repeat(4000), "a/".repeat(2000), "ab".repeat(2000)];
    let patterns = [
        format!("{}b", "*a".repeat(2000)),
        format!("{}c", "**a*".repeat(900)),
        format!("{}[^a]", "*?".repeat(1500)),
        format!("**{}", "[a-z]*".repeat(600)),
    ];
    let started = Instant::now();
    for pattern in &patterns {
        let glob = Glob::compile(pattern.as_bytes());
        for name in &names {
            for floating in [false, true] {
                glob.matches(name.as_bytes(), Frame { floating, ..Frame::default() });
            }
        }
    }
    // Exponential time would be years; this only has to hold on a machine that is busy.
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    assert!(matches("*a*a*a*a*b", "aaaaab") && !matches("*a*a*a*a*b", "aaaaaa"));
}

/// Follows the definition word for word, however long it takes.
fn slowly(pattern: &[u8], name: &[u8]) -> bool {
    match pattern {
        [] => name.is_empty(),
        [b'*', rest @ ..] => {
            let run = rest.iter().take_while(|&&b| b == b'*').count();
            let after = &rest[run..];
            let crossable = |taken: &[u8]| run > 0 || !taken.contains(&b'/');
            (0..=name.len()).any(|at| crossable(&name[..at]) && slowly(after, &name[at..]))
        }
        [b'?', rest @ ..] => name.first().is_some_and(|&b| b != b'/') && slowly(rest, &name[1..]),
        [b'\\', escaped, rest @ ..] => name.first() == Some(escaped) && slowly(rest, &name[1..]),
        [byte, rest @ ..] => name.first() == Some(byte) && slowly(rest, &name[1..]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn the_automaton_agrees_with_the_definition(
        pattern in "([ab/?*]|\\*\\*|\\\\[ab*?]){0,9}",
        name in "[ab/?*]{0,9}",
        slash_before: bool,
        slash_after: bool,
        floating: bool,
    ) {
        let framed = [if slash_before { "/" } else { "" }, &name, if slash_after { "/" } else { "" }].concat();
        let text = framed.as_bytes();
        let starts = (0..=text.len()).filter(|&at| at == 0 || floating && text[at - 1] == b'/');
        let expected = starts.into_iter().any(|at| slowly(pattern.as_bytes(), &text[at..]));
        let frame = Frame { slash_before, slash_after, floating };
        let glob = Glob::compile(pattern.as_bytes());
        prop_assert_eq!(glob.matches(name.as_bytes(), frame), expected);
        if expected && frame == Frame::default() && !name.is_empty() {
            prop_assert!(glob.may_begin_with(name.as_bytes()[0]));
            prop_assert!(glob.may_end_with(name.as_bytes()[name.len() - 1]));
        }
    }
}
