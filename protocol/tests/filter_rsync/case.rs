//! One case: rules, a tree at the upstream, perhaps a tree at the mirror; and how it is printed as
//! a test that can be pasted.

use std::{collections::BTreeMap, fmt::Write as _};

/// What lies under a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Node {
    Dir,
    File(Vec<u8>),
    Link(Vec<u8>),
}

/// Paths in the order of a walk: every directory above a path is in the tree too.
pub(crate) type Tree = BTreeMap<Path, Node>;

/// A path, ordered like a `TreePath`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub(crate) struct Path(pub(crate) Vec<Vec<u8>>);

impl Path {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.join(&b'/')
    }

    pub(crate) fn is_inside(&self, other: &Self) -> bool {
        self.0.len() > other.0.len() && self.0.starts_with(&other.0)
    }
}

/// How the rules reach rsync, and what is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// As they are written: what is transferred.
    Written,
    /// Handed over as arguments made by us: what is transferred.
    Arguments,
    /// Handed over in a file made by us: what is transferred.
    File,
    /// As they are written: what is left at the mirror.
    Removal { delete_excluded: bool },
}

#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) way: Way,
    /// Rules of the limit; only with a way that hands over.
    pub(crate) limit: Vec<Vec<u8>>,
    pub(crate) rules: Vec<Vec<u8>>,
    pub(crate) upstream: Tree,
    pub(crate) mirror: Tree,
}

impl Case {
    /// Every case that is smaller by one rule, one line of a rule file or one entry.
    pub(crate) fn smaller(&self) -> Vec<Self> {
        let mut all = Vec::new();
        for at in 0..self.limit.len() {
            let mut case = self.clone();
            case.limit.remove(at);
            all.push(case);
        }
        for at in 0..self.rules.len() {
            let mut case = self.clone();
            case.rules.remove(at);
            all.push(case);
        }
        let trees: [fn(&mut Self) -> &mut Tree; 2] =
            [|case| &mut case.upstream, |case| &mut case.mirror];
        for tree in trees {
            let paths: Vec<Path> = tree(&mut self.clone()).keys().cloned().collect();
            for path in paths {
                let mut case = self.clone();
                tree(&mut case).retain(|other, _| *other != path && !other.is_inside(&path));
                all.push(case);
                if let Some(Node::File(content)) = tree(&mut self.clone()).get(&path) {
                    let lines: Vec<Vec<u8>> =
                        content.split_inclusive(|&b| b == b'\n').map(<[u8]>::to_vec).collect();
                    for at in 0..lines.len() {
                        let mut lines = lines.clone();
                        lines.remove(at);
                        let mut case = self.clone();
                        tree(&mut case).insert(path.clone(), Node::File(lines.concat()));
                        all.push(case);
                    }
                }
            }
        }
        all
    }

    /// The case as a test to keep.
    pub(crate) fn as_test(&self) -> String {
        let mut text = String::from("\n#[test]\nfn name_what_this_shows() {\n    agrees(Case {\n");
        let list = |rules: &[Vec<u8>]| {
            let rules: Vec<String> = rules.iter().map(|rule| literal(rule)).collect();
            rules.join(", ")
        };
        let tree = |tree: &Tree| {
            let mut text = String::new();
            for (path, node) in tree {
                let path = literal(&path.bytes());
                let node = match node {
                    Node::Dir => "Node::Dir".to_owned(),
                    Node::File(content) => format!("Node::File({}.into())", literal(content)),
                    Node::Link(target) => format!("Node::Link({}.into())", literal(target)),
                };
                let _ = write!(text, "\n            ({path}, {node}),");
            }
            text
        };
        let _ = writeln!(text, "        way: Way::{:?},", self.way);
        let _ = writeln!(text, "        limit: rules(&[{}]),", list(&self.limit));
        let _ = writeln!(text, "        rules: rules(&[{}]),", list(&self.rules));
        let _ = writeln!(text, "        upstream: tree(&[{}\n        ]),", tree(&self.upstream));
        let _ = writeln!(text, "        mirror: tree(&[{}\n        ]),", tree(&self.mirror));
        text + "    });\n}\n"
    }
}

fn literal(bytes: &[u8]) -> String {
    format!("b\"{}\"", bytes.escape_ascii())
}

/// Rules from a table.
pub(crate) fn rules(rules: &[&[u8]]) -> Vec<Vec<u8>> {
    rules.iter().map(|rule| rule.to_vec()).collect()
}

/// A tree from a table; directories above an entry need not be listed.
pub(crate) fn tree(entries: &[(&[u8], Node)]) -> Tree {
    let mut tree = Tree::new();
    for (path, node) in entries {
        let parts: Vec<Vec<u8>> = path.split(|&b| b == b'/').map(<[u8]>::to_vec).collect();
        for above in 1..parts.len() {
            tree.entry(Path(parts[..above].to_vec())).or_insert(Node::Dir);
        }
        tree.insert(Path(parts), node.clone());
    }
    tree
}
