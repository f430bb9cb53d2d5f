//! Reads the lists of levels and rule files, and gathers all that is wrong with them, so that an
//! admin sees every mistake at once.

use std::sync::Arc;

use super::{
    MAX_RULES, MAX_TEXT,
    error::{Problem, RuleError, RuleErrors, Unsupported},
    grammar::{self, Context, Refusal, Statement},
    level::{Level, LevelKind, Origin},
    rule::{Action, Rule, RuleFile, RuleRef, SharedRule},
};

/// Reads lists one after the other.
#[derive(Default)]
pub(super) struct Reader {
    read: usize,
    read_bytes: usize,
    errors: Vec<RuleError>,
}

/// The rules of one list.
#[derive(Default)]
pub(super) struct Read {
    pub(super) rules: Vec<SharedRule>,
    /// A `!` stood in the list, which reaches back to what the list inherits.
    pub(super) cleared: bool,
}

impl Reader {
    /// Reads a level of a definition.
    pub(super) fn level(&mut self, level: &Level) -> Vec<SharedRule> {
        let lines = level.rules.iter().map(String::as_bytes).enumerate();
        let accept = |line: &[u8]| match level.kind {
            LevelKind::Rules => {
                let statement = grammar::read_rule(line, Context::default())?;
                refuse_rule_file_outside_limit(level.origin, statement)
            }
            LevelKind::Excludes => Ok(grammar::read_exclude(line)?.map(Statement::Rule)),
        };
        self.list((level.origin, &level.label), lines, accept).rules
    }

    /// Reads rules that belong to no definition.
    pub(super) fn given<'a>(
        &mut self,
        lines: impl Iterator<Item = (usize, &'a [u8])>,
    ) -> Vec<SharedRule> {
        let accept = |line: &[u8]| grammar::read_rule(line, Context::default());
        self.list((Origin::Given, ""), lines, accept).rules
    }

    /// Reads a file that the rule `file` asked for, found at the path `label`.
    pub(super) fn file(
        &mut self,
        file: &RuleFile,
        bytes: &[u8],
        anchor: &[u8],
        label: &str,
    ) -> Read {
        let RuleFile { perishable, sides, excluded_go, .. } = *file;
        let context = Context { perishable, sides, excluded_go, anchor };
        let accept = |line: &[u8]| match file.bare {
            None => grammar::read_rule(line, context),
            Some(include) => Ok(grammar::read_bare(line, include, context)?.map(Statement::Rule)),
        };
        let place = (Origin::File, label);
        if file.words {
            self.list(place, words(bytes).enumerate(), accept)
        } else {
            self.list(place, lines(bytes), accept)
        }
    }

    fn list<'a>(
        &mut self,
        (origin, label): (Origin, &str),
        lines: impl Iterator<Item = (usize, &'a [u8])>,
        accept: impl Fn(&[u8]) -> Result<Option<Statement>, Refusal>,
    ) -> Read {
        let mut list = Read::default();
        for (index, line) in lines {
            let text = || String::from_utf8_lossy(line).into_owned();
            self.read += 1;
            self.read_bytes += line.len();
            let full = self.read > MAX_RULES || self.read_bytes > MAX_TEXT;
            match if full { Err((0, Problem::TooManyRules)) } else { accept(line) } {
                Ok(None) => {}
                Ok(Some(Statement::Clear)) => {
                    list.rules.clear();
                    list.cleared = true;
                }
                Ok(Some(Statement::Rule(action))) => {
                    let source = RuleRef { origin, label: label.to_owned(), index, text: text() };
                    list.rules.push(Arc::new(Rule { source, action }));
                }
                Err((at, problem)) => {
                    let (label, column) = (label.to_owned(), at + 1);
                    let error = RuleError { origin, label, index, column, text: text(), problem };
                    self.errors.push(error);
                }
            }
            if full {
                break;
            }
        }
        list
    }

    /// Whether all was accepted.
    pub(super) fn finish(self) -> Result<(), RuleErrors> {
        if self.errors.is_empty() { Ok(()) } else { Err(RuleErrors(self.errors)) }
    }
}

fn refuse_rule_file_outside_limit(
    origin: Origin,
    statement: Option<Statement>,
) -> Result<Option<Statement>, Refusal> {
    match &statement {
        Some(Statement::Rule(Action::RuleFile(_))) if origin != Origin::Limit => {
            Err((0, Problem::Unsupported(Unsupported::RuleFileOutsideLimit)))
        }
        _ => Ok(statement),
    }
}

/// The rules of a file, each with its line number from 0: a line ends at LF or CR, empty lines and
/// lines that begin with `#` or `;` say nothing, and all other white space counts.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    // CR LF is one end of a line for who counts lines, and an empty line for who skips those.
    let mut number = 0;
    let mut after_cr = false;
    let ends = bytes.split_inclusive(|&b| b == b'\n' || b == b'\r');
    let numbered = ends.map(move |line| {
        let (text, end) = match line {
            [text @ .., end @ (b'\n' | b'\r')] => (text, Some(*end)),
            _ => (line, None),
        };
        if after_cr && line == b"\n" {
            number -= 1;
        }
        after_cr = end == Some(b'\r');
        number += 1;
        (number - 1, text)
    });
    numbered.filter(|(_, text)| !matches!(text, [] | [b'#' | b';', ..]))
}

/// The words of a file: there are no comments, and no rule has white space in it.
fn words(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let words = bytes.split(|b| matches!(b, b' ' | b'\t'..=b'\r'));
    words.filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_by_lines_whatever_ends_them() {
        let file = b"# c\r\n- a\r\n\n;c\n - b\r+ c \n\n\n#\n- d";
        let expected: Vec<(usize, &[u8])> =
            vec![(1, b"- a"), (4, b" - b"), (5, b"+ c "), (9, b"- d")];
        assert_eq!(lines(file).collect::<Vec<_>>(), expected);
        assert_eq!(words(b" -_a\t#b\n\n! ").collect::<Vec<_>>(), [&b"-_a"[..], b"#b", b"!"]);
    }
}
