//! Filter rules and patterns of PulpDist, in our words.
//!
//! PulpDist gave each version to an rsync of its own, so its rules are relative to a version. Ours
//! are relative to the tree, whatever its layout; a rule that is anchored has to go one deeper.

/// Put before all rules of a tree of versions: no rule that was meant for what is inside of a
/// version may leave out a version.
pub(super) const KEEP_VERSIONS: &str = "+ /*/";

/// A rule with its verb as a sign and a space after it; what is not understood stays as it is.
pub(super) fn rule(text: &str, in_versions: bool) -> String {
    for (verb, sign) in [("exclude", "-"), ("include", "+"), ("+", "+"), ("-", "-")] {
        let Some(rest) = text.strip_prefix(verb) else { continue };
        if let Some(pattern) = rest.strip_prefix(['_', ' ']) {
            return format!("{sign} {}", self::pattern(pattern, in_versions));
        }
    }
    text.to_owned()
}

/// A pattern, relative to the tree.
pub(super) fn pattern(text: &str, in_versions: bool) -> String {
    match text.strip_prefix('/') {
        Some(_) if in_versions => format!("/*{text}"),
        _ => text.to_owned(),
    }
}

/// Python's `fnmatch`: `*` is anything, slashes included.
pub(super) fn fnmatch(name: &str, pattern: &str) -> bool {
    let (name, pattern): (Vec<char>, Vec<char>) =
        (name.chars().collect(), pattern.chars().collect());
    // Where the last `*` stood, and how much of the name it has taken.
    let (mut n, mut p, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            Some(_) => {
                if let Some(next) = one(&pattern, p, name[n]) {
                    (n, p) = (n + 1, next);
                    continue;
                }
            }
            None => {}
        }
        let Some((at, taken)) = star else { return false };
        star = Some((at, taken + 1));
        (n, p) = (taken + 1, at + 1);
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Where the pattern goes on, if its element at `p` takes the character.
fn one(pattern: &[char], p: usize, c: char) -> Option<usize> {
    match pattern[p] {
        '?' => Some(p + 1),
        '[' => {
            let negated = pattern.get(p + 1) == Some(&'!');
            let begin = p + 1 + usize::from(negated);
            // A bracket that comes first is one of the characters.
            let closing = (begin + 1..pattern.len()).find(|at| pattern[*at] == ']');
            let Some(end) = closing else { return (c == '[').then_some(p + 1) };
            let mut found = false;
            let mut at = begin;
            while at < end {
                if at + 2 < end && pattern[at + 1] == '-' {
                    found |= (pattern[at]..=pattern[at + 2]).contains(&c);
                    at += 3;
                } else {
                    found |= pattern[at] == c;
                    at += 1;
                }
            }
            (found != negated).then_some(end + 1)
        }
        literal => (literal == c).then_some(p + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r0b_rules_are_read_with_either_separator_and_anchored_ones_go_one_deeper() {
        for (text, simple, version) in [
            ("exclude_dull/", "- dull/", "- dull/"),
            ("include_/keep", "+ /keep", "+ /*/keep"),
            ("+_x", "+ x", "+ x"),
            ("- /a/b", "- /a/b", "- /*/a/b"),
            ("hide_x", "hide_x", "hide_x"),
        ] {
            assert_eq!((rule(text, false).as_str(), rule(text, true).as_str()), (simple, version));
        }
        assert_eq!(pattern("/skip", true), "/*/skip");
        assert_eq!(pattern("skip", true), "skip");
    }

    #[test]
    fn names_match_as_in_python() {
        for (name, pattern) in [
            ("re*ev", "re*"),
            ("re*ev", "re[*]ev"),
            ("a/b", "a*"),
            ("abc", "a?c"),
            ("b", "[!a]"),
            ("x", "[w-z]"),
            ("[", "["),
            ("", "*"),
            ("aXbXc", "a*b*c"),
        ] {
            assert!(fnmatch(name, pattern), "{name} {pattern}");
        }
        for (name, pattern) in
            [("re*ev", "rel*"), ("ab", "a"), ("a", "[!a]"), ("", "?"), ("a]", "[a]")]
        {
            assert!(!fnmatch(name, pattern), "{name} {pattern}");
        }
    }
}
