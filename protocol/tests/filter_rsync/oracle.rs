//! What rsync does with a case, and what our engine says it does.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path as FsPath, PathBuf},
    process::Command,
};

use protocol::{
    filter::{Filter, Level, Origin, Side, Walk, Wanted},
    path::TreePath,
};

use super::case::{Case, Node, Path, Tree, Way};

/// Paths, directories with a slash behind; or that the rules were refused.
#[derive(PartialEq, Eq, Debug, Clone)]
pub(crate) enum Outcome {
    Paths(BTreeSet<Vec<u8>>),
    Refused,
}

/// How both came to agree about a case.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agreement {
    /// On what is kept, or left.
    Paths,
    /// One list cannot say it, and rsync was handed more.
    Wider,
    /// On refusing the rules.
    Refused,
}

/// What both make of a case: `Err` says how they differ.
pub(crate) fn compare(case: &Case, scratch: &FsPath) -> Result<Agreement, String> {
    let ours = ours(case);
    let (theirs, said) = theirs(case, scratch);
    let exact = !matches!(case.way, Way::Arguments | Way::File)
        || filter(case).is_ok_and(|filter| filter.rsync_rules().exact);
    match (&ours, &theirs) {
        (Outcome::Refused, Outcome::Refused) => Ok(Agreement::Refused),
        _ if ours == theirs => Ok(Agreement::Paths),
        (Outcome::Paths(ours), Outcome::Paths(theirs)) if !exact && ours.is_subset(theirs) => {
            Ok(Agreement::Wider)
        }
        (Outcome::Refused, _) if matches!(case.way, Way::Arguments | Way::File) => {
            Ok(Agreement::Refused)
        }
        (Outcome::Paths(ours), Outcome::Paths(theirs)) => {
            let only = |a: &BTreeSet<Vec<u8>>, b: &BTreeSet<Vec<u8>>| {
                let names: Vec<_> = a.difference(b).map(|n| n.escape_ascii().to_string()).collect();
                names.join("  ")
            };
            Err(format!(
                "only ours: {}\nonly rsync's: {}\n{said}",
                only(ours, theirs),
                only(theirs, ours)
            ))
        }
        _ => Err(format!("ours: {ours:?}\nrsync's: {theirs:?}\n{said}")),
    }
}

fn filter(case: &Case) -> Result<Filter, protocol::filter::RuleErrors> {
    if matches!(case.way, Way::Arguments | Way::File) {
        // A hand-over is made from levels, whose rules are text.
        let texts = |rules: &[Vec<u8>]| -> Vec<String> {
            rules.iter().filter_map(|rule| String::from_utf8(rule.clone()).ok()).collect()
        };
        return Filter::build(&[
            Level::rules(Origin::Limit, "t", texts(&case.limit)),
            Level::rules(Origin::Tree, "t", texts(&case.rules)),
        ]);
    }
    let filter = Filter::parse(&case.rules)?;
    match case.way {
        Way::Removal { delete_excluded: true } => Ok(filter.removing_excluded()),
        _ => Ok(filter),
    }
}

pub(crate) fn ours(case: &Case) -> Outcome {
    let Ok(filter) = filter(case) else { return Outcome::Refused };
    let Some(kept) = kept(&filter, &case.upstream) else { return Outcome::Refused };
    if !matches!(case.way, Way::Removal { .. }) {
        return Outcome::Paths(kept.iter().map(|(path, node)| shown(path, node)).collect());
    }
    left(&filter, &kept, &case.mirror)
}

/// The part of the upstream's tree that is sent; `None` when a rule file is refused.
fn kept(filter: &Filter, tree: &Tree) -> Option<Tree> {
    let mut walk = Walk::new(filter, Side::Sender);
    let mut kept = Tree::new();
    let mut open: Vec<Path> = Vec::new();
    walk.enter(None, |name| Ok(rule_file(tree, &[], name))).ok()?;
    for (path, node) in tree {
        while open.last().is_some_and(|dir| !path.is_inside(dir)) {
            open.pop();
            walk.leave();
        }
        if open.len() + 1 != path.0.len() {
            continue;
        }
        let is_dir = *node == Node::Dir;
        let tree_path = TreePath::parse(&path.bytes()).unwrap();
        if !walk.decide(&tree_path, is_dir).kept {
            continue;
        }
        kept.insert(path.clone(), node.clone());
        if is_dir {
            walk.enter(Some(&tree_path), |name| Ok(rule_file(tree, &path.0, name))).ok()?;
            open.push(path.clone());
        }
    }
    Some(kept)
}

/// What the mirror holds once what may go is gone and what is sent has come.
fn left(filter: &Filter, kept: &Tree, mirror: &Tree) -> Outcome {
    let local = mirror
        .iter()
        .map(|(path, node)| (TreePath::parse(&path.bytes()).unwrap(), *node == Node::Dir));
    let split = |path: &TreePath| Path(path.components().map(<[u8]>::to_vec).collect());
    let wanted = |path: &TreePath| match kept.get(&split(path)) {
        None => Wanted::Nothing,
        Some(Node::Dir) => Wanted::Directory,
        Some(_) => Wanted::Other,
    };
    let read = |dir: Option<&TreePath>, name: &[u8]| {
        Ok(rule_file(mirror, &dir.map(&split).map_or(Vec::new(), |path| path.0), name))
    };
    let Ok(removed) = filter.removals(local, wanted, read) else { return Outcome::Refused };
    let mut left = mirror.clone();
    for path in &removed {
        left.remove(&split(path));
    }
    for (path, node) in kept {
        let blocked = *node != Node::Dir && left.keys().any(|other| other.is_inside(path));
        if !blocked {
            left.insert(path.clone(), node.clone());
        }
    }
    Outcome::Paths(left.iter().map(|(path, node)| shown(path, node)).collect())
}

fn rule_file(tree: &Tree, dir: &[Vec<u8>], name: &[u8]) -> Option<Vec<u8>> {
    let mut path = dir.to_vec();
    path.push(name.to_vec());
    match tree.get(&Path(path))? {
        Node::File(content) => Some(content.clone()),
        Node::Dir | Node::Link(_) => None,
    }
}

fn shown(path: &Path, node: &Node) -> Vec<u8> {
    let mut bytes = path.bytes();
    bytes.extend((*node == Node::Dir).then_some(b'/'));
    bytes
}

fn theirs(case: &Case, scratch: &FsPath) -> (Outcome, String) {
    let (source, target) = (scratch.join("s"), scratch.join("t"));
    plant(&source, &case.upstream).unwrap();
    plant(&target, &case.mirror).unwrap();
    let removal = matches!(case.way, Way::Removal { .. });
    let mut command = Command::new("rsync");
    command.args(["-rl8", "--outbuf=N"]).env("LC_ALL", "C");
    match case.way {
        Way::Removal { delete_excluded } => {
            command.arg("--delete");
            command.args(delete_excluded.then_some("--delete-excluded"));
        }
        _ => _ = command.args(["-n", "--out-format=%n"]),
    }
    let argument = |rule: &[u8]| [b"--filter=", rule].concat();
    match (case.way, filter(case)) {
        (Way::Arguments, Ok(filter)) => _ = command.args(filter.rsync_rules().arguments()),
        (Way::File, Ok(filter)) => {
            let file = scratch.join("rules");
            fs::write(&file, filter.rsync_rules().file()).unwrap();
            command.arg("--from0").arg(format!("--filter=merge {}", file.display()));
        }
        _ => {
            for rule in &case.rules {
                command.arg(OsStr::from_bytes(&argument(rule)));
            }
        }
    }
    let mut from = source.clone().into_os_string();
    from.push("/");
    let output = command.arg(from).arg(&target).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let outcome = match output.status.code() {
        Some(0 | 23) if removal => Outcome::Paths(listed(&target)),
        Some(0) => {
            let lines = output.stdout.split(|&b| b == b'\n');
            let names = lines.filter(|line| !line.is_empty() && *line != b"./").map(unescape);
            Outcome::Paths(names.collect())
        }
        _ => Outcome::Refused,
    };
    fs::remove_dir_all(&source).unwrap();
    fs::remove_dir_all(&target).unwrap();
    (outcome, said)
}

fn plant(root: &FsPath, tree: &Tree) -> io::Result<()> {
    fs::create_dir_all(root)?;
    for (path, node) in tree {
        let at = root.join(OsStr::from_bytes(&path.bytes()));
        match node {
            Node::Dir => fs::create_dir(at)?,
            Node::File(content) => fs::write(at, content)?,
            Node::Link(target) => symlink(OsStr::from_bytes(target), at)?,
        }
    }
    Ok(())
}

fn listed(root: &FsPath) -> BTreeSet<Vec<u8>> {
    let mut found = BTreeSet::new();
    let mut open: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let below = entry.path();
            let mut name = below.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
            if entry.file_type().unwrap().is_dir() {
                name.push(b'/');
                open.push(below);
            }
            found.insert(name);
        }
    }
    found
}

/// Undoes `\#ooo`, which is how rsync prints control bytes.
fn unescape(line: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = line;
    while let Some((&byte, tail)) = rest.split_first() {
        if let [b'\\', b'#', a @ b'0'..=b'7', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] = rest {
            out.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
            rest = after;
        } else {
            out.push(byte);
            rest = tail;
        }
    }
    out
}
