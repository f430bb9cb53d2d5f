//! Random cases: every construct of the grammar, nested rule files, and names that look like
//! wildcards, rules, comments or not like text at all.

use super::case::{Case, Node, Path, Tree, Way};

/// A generator whose every case can be made again from its number (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

const NAMES: &[&[u8]] = &[
    b"a",
    b"b",
    b"c",
    b"d",
    b"e",
    b"ab",
    b"foo",
    b"foo.o",
    b"x.iso",
    b"[a]",
    b"*",
    b"a*b",
    b"?",
    b"a\\b",
    b"a b",
    b"+ a",
    b"- b",
    b"!",
    b"#x",
    b";y",
    b"^",
    b"a]b",
    b"\xc3\xa9",
    b"\xff",
    b"a\nb",
    b"_a",
    b" ",
    b"-",
    b"[x]",
    b"\\",
    b"a-c",
    b"**",
    b"a\rb",
    b"\x7f",
    b"[!a]",
];
const DIRS: &[&[u8]] =
    &[b"d", b"e", b"d", b"e", b"a", b"[x]", b"a b", b"d*", b"a\\b", b"\xff", b"foo"];
const FILES: &[&[u8]] = &[b".m", b".f", b".m"];
const PIECES: &[&[u8]] = &[
    b"*",
    b"**",
    b"?",
    b"***",
    b"*.o",
    b"a*",
    b"*b",
    b"[a-c]",
    b"[!a]",
    b"[^b-d]",
    b"[]a]",
    b"[[:alpha:]]",
    b"[[:punct:]]",
    b"\\*",
    b"\\a",
    b"a**b",
    b"[c-a]",
    b"[a",
    b"[[:nope:]]",
    b"\\[x]",
    b"[\\]a]",
    b"[a/]",
    b"*a*b*",
    b"[a-]",
    b"[--z]",
    b"a\\",
    b"[\\a-c]",
    b"?*?",
    b"[[:^]",
    b"[[:digit:]-z]",
    b"[^/]",
    b"[x]",
    b"**b",
];

pub(crate) fn case(seed: u64) -> Case {
    let random = &mut Random::new(seed);
    let way = match random.below(8) {
        0..=3 => Way::Written,
        4 => Way::Arguments,
        5 => Way::File,
        _ => Way::Removal { delete_excluded: random.one_in(4) },
    };
    let handed_over = matches!(way, Way::Arguments | Way::File);
    let removal = matches!(way, Way::Removal { .. });
    let rule_files = !handed_over && random.one_in(2);
    let mistakes = !removal && random.one_in(12);
    let shape = Shape { rule_files, mistakes };
    let limit = if handed_over && random.one_in(2) { list(random, shape) } else { Vec::new() };
    let rules = list(random, shape);
    let upstream = tree(random, shape);
    let mut mirror = Tree::new();
    if removal {
        mirror = tree(random, shape);
        // A mirror mostly holds what the upstream has.
        for (path, node) in &upstream {
            let parent = Path(path.0[..path.0.len() - 1].to_vec());
            let has_parent = parent.0.is_empty() || mirror.get(&parent) == Some(&Node::Dir);
            if !random.one_in(3) && has_parent {
                mirror.entry(path.clone()).or_insert_with(|| node.clone());
            }
        }
    }
    Case { way, limit, rules, upstream, mirror }
}

#[derive(Clone, Copy)]
struct Shape {
    rule_files: bool,
    mistakes: bool,
}

fn list(random: &mut Random, shape: Shape) -> Vec<Vec<u8>> {
    let mut rules: Vec<Vec<u8>> = (0..1 + random.below(6)).map(|_| rule(random, shape)).collect();
    if shape.rule_files && !random.one_in(4) {
        let at = random.below(rules.len() + 1);
        rules.insert(at, rule_file(random));
    }
    rules
}

fn rule(random: &mut Random, shape: Shape) -> Vec<u8> {
    if shape.mistakes && random.one_in(6) {
        return random
            .pick(&[
                &b"-foo"[..],
                b"- ",
                b"! ",
                b"zz",
                b"exclude",
                b"-k a",
                b"clear_",
                b"H,s a",
                b"!x",
                b" - a",
            ])
            .to_vec();
    }
    if random.one_in(30) {
        return random.pick(&[&b"!"[..], b"clear", b"!,"]).to_vec();
    }
    if shape.rule_files && random.one_in(10) {
        return rule_file(random);
    }
    let verb: &[u8] = random.pick(&[
        &b"-"[..],
        b"-",
        b"-",
        b"-",
        b"+",
        b"+",
        b"+",
        b"exclude",
        b"include",
        b"H",
        b"S",
        b"P",
        b"R",
        b"hide",
        b"show",
        b"protect",
        b"risk",
    ]);
    let mut rule = verb.to_vec();
    if verb.len() == 1 && random.one_in(8) {
        rule.push(b',');
    }
    let mut letters = Vec::new();
    if random.one_in(12) {
        letters.push(b'!');
    }
    if random.one_in(12) {
        letters.push(b'p');
    }
    if matches!(verb, b"-" | b"+" | b"exclude" | b"include") {
        for letter in [b's', b'r'] {
            if random.one_in(12) {
                letters.push(letter);
            }
        }
    }
    if verb.len() > 1 && !letters.is_empty() {
        rule.push(b',');
    }
    rule.extend(letters);
    rule.push(if random.one_in(4) { b'_' } else { b' ' });
    rule.extend(pattern(random));
    rule
}

fn rule_file(random: &mut Random) -> Vec<u8> {
    let mut rule = random.pick(&[&b":"[..], b":", b"dir-merge"]).to_vec();
    let mut letters = Vec::new();
    for (letter, often) in [(b'e', 4), (b'n', 4), (b'w', 6), (b's', 9), (b'r', 9), (b'p', 9)] {
        if random.one_in(often) {
            letters.push(letter);
        }
    }
    if random.one_in(5) {
        letters.push(if random.one_in(2) { b'-' } else { b'+' });
    }
    if rule.len() > 1 && !letters.is_empty() {
        rule.push(b',');
    }
    rule.extend(letters);
    rule.push(b' ');
    rule.extend_from_slice(random.pick(FILES));
    rule
}

fn pattern(random: &mut Random) -> Vec<u8> {
    let mut text = Vec::new();
    if random.one_in(4) {
        text.push(b'/');
    }
    for part in 0..1 + random.below(6).saturating_sub(3) {
        if part > 0 {
            text.push(b'/');
        }
        for _ in 0..1 + random.below(8) / 7 {
            let from = match random.below(8) {
                0..=2 => NAMES,
                3..=4 => DIRS,
                5 => FILES,
                _ => PIECES,
            };
            text.extend_from_slice(random.pick(from));
        }
    }
    if random.one_in(4) {
        text.push(b'/');
    }
    text
}

fn tree(random: &mut Random, shape: Shape) -> Tree {
    let mut tree = Tree::new();
    let mut dirs = vec![Vec::new()];
    for _ in 0..10 + random.below(16) {
        let mut path = dirs[random.below(dirs.len())].clone();
        let dir = random.one_in(3) && path.len() < 5;
        let file = !dir && shape.rule_files && random.one_in(3);
        path.push(
            random
                .pick(if dir {
                    DIRS
                } else if file {
                    FILES
                } else {
                    NAMES
                })
                .to_vec(),
        );
        let key = Path(path.clone());
        if tree.contains_key(&key) {
            continue;
        }
        let node = if dir {
            dirs.push(path);
            Node::Dir
        } else if file {
            Node::File(rule_file_content(random, shape))
        } else if random.one_in(12) {
            Node::Link(random.pick(&[&b"d"[..], b"nowhere", b"."]).to_vec())
        } else {
            Node::File(Vec::new())
        };
        tree.insert(key, node);
    }
    tree
}

fn rule_file_content(random: &mut Random, shape: Shape) -> Vec<u8> {
    let mut content = Vec::new();
    for _ in 0..random.below(5) {
        let line = match random.below(12) {
            0 => random.pick(&[&b"# a"[..], b"; b", b""]).to_vec(),
            1 => pattern(random),
            2 => b"!".to_vec(),
            _ => rule(random, shape),
        };
        content.extend(line);
        let end: &[u8] = random.pick(&[&b"\n"[..], b"\n", b"\n", b"\r\n", b"\r"]);
        content.extend_from_slice(end);
    }
    content
}
