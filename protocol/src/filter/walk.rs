//! Rule files inside the tree: what a `:` rule finds in each directory.
//!
//! An upstream's maintainer can put a rule file into a directory, and rsync lets its rules count
//! for that directory and all below. A walk holds, for the directory it is in, the rules of every
//! such file, those of the directory itself before those it inherits.
//!
//! Only the scan at the upstream walks with rule files, and only a tree's limit may ask for them.
//! What an agent keeps is decided by rules that an admin wrote: a file that arrives with a tree can
//! never widen an assignment.
//!
//! The walk itself reads nothing; its caller does, and answers for staying inside the tree (a rule
//! file may be a link). rsync's habits are followed where they matter for what is kept, also the
//! odd ones: a leading `/` anchors at the rule file's directory by putting that directory's path
//! in front of the pattern, so that below a directory with `*`, `?` or `[` in its name an anchored
//! rule is a wildcard pattern; and a name is asked for once, by the first rule that has it.

use std::{io, sync::Arc};

use super::{
    Decision, Filter, MAX_RULES,
    error::{Problem, RuleError, RuleErrors},
    level::Origin,
    list::{List, Verdict},
    pattern::Subject,
    reader::Reader,
    rule::{Action, Question, RuleFile, SharedRule, Side, settle_files},
};
use crate::path::{TreePath, escape};

/// Largest rule file, in bytes.
pub const MAX_RULE_FILE: usize = 64 << 10;

/// Most rule files that are looked for in one directory.
const MAX_NAMES: usize = 64;

/// The state of a walk through a tree: enter and leave directories as the walk does.
#[derive(Clone)]
pub struct Walk {
    filter: Filter,
    side: Side,
    limit: Files,
    selection: Files,
    /// The state outside of each directory that was entered.
    outer: Vec<(Files, Files)>,
}

/// Why a directory's rules are not known, so that nothing in it can be decided.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// The file could not be read.
    #[error(
        "the rule file '{path}' cannot be read, so what it leaves out is unknown and its directory \
         cannot be taken; make it readable, or remove it"
    )]
    Read {
        /// Path of the file in the tree.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The file is larger than [`MAX_RULE_FILE`].
    #[error("the rule file '{path}' is larger than 64 KiB; shorten it, or use patterns")]
    TooLarge {
        /// Path of the file in the tree.
        path: String,
    },
    /// The file has rules that are not accepted.
    #[error("{0}")]
    Rules(RuleErrors),
}

/// The rule files that are looked for, in the order in which they were asked for, and what they
/// say in the current directory.
type Files = Vec<FileRules>;

#[derive(Clone)]
struct FileRules {
    file: RuleFile,
    rules: Arc<[SharedRule]>,
}

impl Walk {
    /// A walk that has not entered anything, not even the tree's root, asked from one side.
    pub fn new(filter: &Filter, side: Side) -> Self {
        let (limit, selection) = (asked_for(&filter.0.limit), asked_for(&filter.0.selection));
        Self { filter: filter.clone(), side, limit, selection, outer: Vec::new() }
    }

    /// Enters a directory (`None`: the root), which must lie in the one entered before. `read` is
    /// called with the base name of each rule file to be looked for there, and answers with its
    /// content, or `None` when there is no such regular file. After an error the walk is where it
    /// was before.
    pub fn enter(
        &mut self,
        dir: Option<&TreePath>,
        mut read: impl FnMut(&[u8]) -> io::Result<Option<Vec<u8>>>,
    ) -> Result<(), WalkError> {
        let dir = dir.map_or(&b""[..], TreePath::as_bytes);
        let mut inner = (self.limit.clone(), self.selection.clone());
        enter_files(&mut inner.0, dir, self.side, &mut read)?;
        enter_files(&mut inner.1, dir, self.side, &mut read)?;
        let outer = (
            std::mem::replace(&mut self.limit, inner.0),
            std::mem::replace(&mut self.selection, inner.1),
        );
        self.outer.push(outer);
        Ok(())
    }

    /// The state inside of a directory that lies in the one entered last, as [`Walk::enter`] makes
    /// it, beside this one: for walks that go through several directories at a time.
    pub fn below(
        &self,
        dir: Option<&TreePath>,
        read: impl FnMut(&[u8]) -> io::Result<Option<Vec<u8>>>,
    ) -> Result<Self, WalkError> {
        let (limit, selection) = (self.limit.clone(), self.selection.clone());
        let (filter, side) = (self.filter.clone(), self.side);
        let mut inside = Self { filter, side, limit, selection, outer: Vec::new() };
        inside.enter(dir, read)?;
        inside.outer.clear();
        Ok(inside)
    }

    /// Leaves the directory entered last.
    pub fn leave(&mut self) {
        if let Some((limit, selection)) = self.outer.pop() {
            (self.limit, self.selection) = (limit, selection);
        }
    }

    /// Decides about an entry of the directory entered last. Asked from the sender: whether it is
    /// kept. Asked from the receiver: whether it may be removed where the upstream does not have it.
    pub fn decide(&self, path: &TreePath, is_dir: bool) -> Decision<'_> {
        self.ask(path, is_dir, Question { side: self.side, in_removed_directory: false })
    }

    pub(super) fn ask(&self, path: &TreePath, is_dir: bool, question: Question) -> Decision<'_> {
        let subject = Subject::new(path.as_bytes(), is_dir);
        let lists = &self.filter.0;
        let limit = ask_list(&lists.limit, &self.limit, subject, question);
        Decision::of(limit, || ask_list(&lists.selection, &self.selection, subject, question))
    }
}

fn ask_list<'a>(
    list: &'a List,
    files: &'a Files,
    subject: Subject<'_>,
    question: Question,
) -> Verdict<'a> {
    list.first(subject, question, &|name| ask_file(files, name, subject, question))
}

/// The verdict of a rule file's rules, which may ask for further files. Each name is asked for by
/// one rule only, so this ends.
fn ask_file<'a>(
    files: &'a Files,
    name: &[u8],
    subject: Subject<'_>,
    question: Question,
) -> Verdict<'a> {
    let found = files.iter().find(|found| *found.file.name == *name)?;
    found.rules.iter().find_map(|rule| match &rule.action {
        Action::Choice(choice) if choice.applies(subject, question) => {
            Some((&**rule, choice.include))
        }
        Action::Choice(_) => None,
        Action::RuleFile(nested) => ask_file(files, &nested.name, subject, question),
    })
}

impl Filter {
    /// Whether there are rules that only a [`Walk`] can follow, because they stand for files in the
    /// tree. [`Filter::decide`] passes over them.
    pub fn asks_for_rule_files(&self) -> bool {
        !asked_for(&self.0.limit).is_empty() || !asked_for(&self.0.selection).is_empty()
    }
}

fn asked_for(list: &List) -> Files {
    let files = list.rules().iter().filter_map(|rule| match &rule.action {
        Action::RuleFile(file) => Some(FileRules { file: file.clone(), rules: [].into() }),
        Action::Choice(_) => None,
    });
    files.collect()
}

/// Reads each rule file of `dir`; one that asks for another is followed by it.
fn enter_files(
    files: &mut Files,
    dir: &[u8],
    side: Side,
    read: &mut impl FnMut(&[u8]) -> io::Result<Option<Vec<u8>>>,
) -> Result<(), WalkError> {
    let mut at = 0;
    while at < files.len() {
        let file = files[at].file.clone();
        let inherited = if file.local { [].into() } else { files[at].rules.clone() };
        files[at].rules = match read_file(&file, dir, read)? {
            None => inherited,
            Some(found) => {
                let own = settle_files(found.rules, file.perishable);
                let own = own.into_iter().filter(|rule| keep_own(rule, side, files));
                let mut rules: Vec<SharedRule> = own.collect();
                for rule in &rules {
                    if let Action::RuleFile(nested) = &rule.action {
                        files.push(FileRules { file: nested.clone(), rules: [].into() });
                    }
                }
                if !found.cleared {
                    rules.extend_from_slice(&inherited);
                }
                check_bounds(&rules, files.len(), dir, &file)?;
                rules.into()
            }
        };
        at += 1;
    }
    Ok(())
}

/// A rule for the other side is dropped, and so is one for a file that is asked for already.
fn keep_own(rule: &SharedRule, side: Side, files: &Files) -> bool {
    match &rule.action {
        Action::Choice(choice) => choice.sides.speaks_to(side),
        Action::RuleFile(nested) => {
            nested.sides.speaks_to(side) && files.iter().all(|known| known.file.name != nested.name)
        }
    }
}

fn read_file(
    file: &RuleFile,
    dir: &[u8],
    read: &mut impl FnMut(&[u8]) -> io::Result<Option<Vec<u8>>>,
) -> Result<Option<super::reader::Read>, WalkError> {
    let path = path_text(dir, &file.name);
    let bytes = match read(&file.name) {
        Ok(None) => return Ok(None),
        Ok(Some(bytes)) if bytes.len() > MAX_RULE_FILE => return Err(WalkError::TooLarge { path }),
        Ok(Some(bytes)) => bytes,
        Err(source) => return Err(WalkError::Read { path, source }),
    };
    let mut reader = Reader::default();
    let found = reader.file(file, &bytes, dir, &path);
    reader.finish().map_err(WalkError::Rules)?;
    Ok(Some(found))
}

fn check_bounds(
    rules: &[SharedRule],
    names: usize,
    dir: &[u8],
    file: &RuleFile,
) -> Result<(), WalkError> {
    if rules.len() <= MAX_RULES && names <= MAX_NAMES {
        return Ok(());
    }
    let label = path_text(dir, &file.name);
    let error = RuleError {
        origin: Origin::File,
        label,
        index: 0,
        column: 1,
        text: String::new(),
        problem: Problem::TooManyRules,
    };
    Err(WalkError::Rules(RuleErrors(vec![error])))
}

fn path_text(dir: &[u8], name: &[u8]) -> String {
    let mut path = dir.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    escape(&path).into_owned()
}
