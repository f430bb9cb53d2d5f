//! What is wrong with a rule, where it stands, and what to write instead.

use std::fmt;

use super::level::{Origin, Place};

/// One rule that was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleError {
    /// The level the rule belongs to.
    pub origin: Origin,
    /// Name of the definition; may be empty.
    pub label: String,
    /// Position of the rule in its level, from 0 (a line number from 0 in a file).
    pub index: usize,
    /// Byte of the rule's text at which the trouble begins, from 1.
    pub column: usize,
    /// The rule as it was written.
    pub text: String,
    /// What is wrong.
    pub problem: Problem,
}

/// Why a rule is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Not the name of a rule.
    #[error(
        "this is not a filter rule; begin it with a rule's name, as in '- PATTERN' or '+ PATTERN'"
    )]
    UnknownRule,
    /// A character between the rule's name and its separator that means nothing there.
    #[error(
        "'{}' is no modifier of this rule; put one space (or '_') between the rule and its pattern",
        char::from(*.0).escape_default()
    )]
    BadModifier(u8),
    /// Nothing after the separator.
    #[error("the rule ends before its pattern; write one, as in '- *.tmp'")]
    NoPattern,
    /// Something after `!` or `clear`.
    #[error("'!' and 'clear' take nothing after them; to negate a pattern write '-! PATTERN'")]
    TrailingText,
    /// Longer than rsync takes.
    #[error("the pattern has more than 4095 bytes, which rsync would drop; shorten it")]
    TooLong,
    /// A NUL byte, which no name can hold.
    #[error("the rule has a NUL byte, which no file name has; remove it")]
    Nul,
    /// Means something else at each machine, so that sites could not agree about it.
    #[error("{0}")]
    Unsupported(Unsupported),
    /// A bare exclude pattern that rsync would read as something else.
    #[error(
        "rsync would read this exclude as a rule and not as a pattern; move it to 'filter', or write \
         its first character as a class, as in '[+] name'"
    )]
    RuleAmongExcludes,
    /// A rule inside of a sided rule file has a side of its own.
    #[error(
        "the rule file is read by a rule that has a side ('s' or 'r'), so its rules cannot have \
         their own; remove one of the two"
    )]
    SideInSidedFile,
    /// An include that can never take effect.
    #[error(
        "the limit hides all that this rule includes{}; a limit is a wall: take the path out of the \
         limit, or remove this rule",
        .0.as_ref().map(|rule| format!(" (by '{rule}')")).unwrap_or_default()
    )]
    HiddenByLimit(Option<String>),
    /// More than [`super::MAX_RULES`], or more than [`super::MAX_TEXT`].
    #[error(
        "with this rule there are more than {} rules or 1 MiB; group patterns",
        super::MAX_RULES
    )]
    TooManyRules,
}

/// A construct of rsync whose meaning depends on the machine that reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unsupported {
    /// `.` or `merge`.
    #[error(
        "'merge' reads a file of the machine it runs on, and no two machines hold the same; put the \
         file's rules here"
    )]
    Merge,
    /// The modifier `C`.
    #[error(
        "'C' brings in rules that depend on the user and the environment, and hides names such as \
         'core', 'tags' and '*.so'; write out the patterns you mean"
    )]
    CvsRules,
    /// The modifier `/`.
    #[error(
        "'/' compares with the path on the machine it runs on, and each site has another; begin the \
         pattern with '/' to anchor it at the tree"
    )]
    AbsolutePath,
    /// The modifier `x`.
    #[error("'x' is about extended attributes, which are not carried; remove the rule")]
    Xattr,
    /// A rule file that is named with a path.
    #[error(
        "a rule file is named without a directory: one that lies elsewhere could be outside of the \
         tree; write its base name, as in ': .rsync-filter'"
    )]
    RuleFilePath,
    /// A `:` rule in a level that is not the limit.
    #[error(
        "rule files lie in the tree and are read where it is scanned; put this rule into the tree's \
         limit"
    )]
    RuleFileOutsideLimit,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, label, index, column, text, problem } = self;
        let place = Place(*origin, label);
        write!(f, "{place}, rule {}, column {column}: '{text}': {problem}", index + 1)
    }
}

impl std::error::Error for RuleError {}

/// All rules that were not accepted, in the order of the levels; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleErrors(pub Vec<RuleError>);

impl fmt::Display for RuleErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for RuleErrors {}
