//! The text of one rule: `RULE[,]MODIFIERS SEPARATOR PATTERN`.
//!
//! What rsync reads is read the same here. What rsync refuses is refused here. What rsync reads
//! but cannot mean the same on every machine is refused here too, with a word on what to write
//! instead: a rule is never silently different.

use super::{
    error::{Problem, Unsupported},
    glob::MAX_PATTERN,
    pattern::Pattern,
    rule::{Action, Choice, RuleFile, Sides},
};

/// What the text of a rule says.
pub(super) enum Statement {
    /// Keep, leave out, or read a rule file.
    Rule(Action),
    /// Drop the rules before this one.
    Clear,
}

/// A rule that is not accepted: the byte it begins at, from 0, and why.
pub(super) type Refusal = (usize, Problem);

/// What a rule file adds to the rules inside of it; nothing for the rules of a definition.
#[derive(Clone, Copy, Default)]
pub(super) struct Context<'a> {
    pub(super) perishable: bool,
    pub(super) sides: Sides,
    /// A rule without a side speaks to the sender only.
    pub(super) excluded_go: bool,
    /// The directory of the file, empty for the tree's root.
    pub(super) anchor: &'a [u8],
}

impl Context<'_> {
    /// Prepares a pattern, anchored at the rule file's directory; `None` when that makes it longer
    /// than rsync takes.
    fn pattern(&self, text: &[u8]) -> Option<Pattern> {
        if self.anchor.is_empty() || !text.starts_with(b"/") {
            return Some(Pattern::new(text));
        }
        let anchored = [b"/", self.anchor, text].concat();
        (anchored.len() <= MAX_PATTERN).then(|| Pattern::new(&anchored))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Exclude,
    Include,
    Hide,
    Show,
    Protect,
    Risk,
    RuleFile,
    Merge,
    Clear,
}

const LONG_NAMES: [(&[u8], Verb); 9] = [
    (b"exclude", Verb::Exclude),
    (b"include", Verb::Include),
    (b"hide", Verb::Hide),
    (b"show", Verb::Show),
    (b"protect", Verb::Protect),
    (b"risk", Verb::Risk),
    (b"dir-merge", Verb::RuleFile),
    (b"merge", Verb::Merge),
    (b"clear", Verb::Clear),
];

#[derive(Default)]
struct Modifiers {
    negated: bool,
    perishable: bool,
    sides: Sides,
    bare: Option<bool>,
    hides_itself: bool,
    local: bool,
    words: bool,
}

/// Reads a rule as rsync's `--filter` does; `None` for the empty text, which says nothing.
pub(super) fn read_rule(text: &[u8], context: Context<'_>) -> Result<Option<Statement>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    if let Some(at) = text.iter().position(|&b| b == 0) {
        return Err((at, Problem::Nul));
    }
    let (verb, mut at) = read_verb(text)?;
    if text.get(at) == Some(&b',') {
        at += 1;
    }
    match verb {
        Verb::Clear if at < text.len() => return Err((at, Problem::TrailingText)),
        Verb::Clear => return Ok(Some(Statement::Clear)),
        Verb::Merge => return Err((0, Problem::Unsupported(Unsupported::Merge))),
        _ => {}
    }
    let (modifiers, at) = read_modifiers(text, at, verb)?;
    let pattern = &text[at..];
    if pattern.is_empty() {
        return Err((text.len(), Problem::NoPattern));
    }
    if pattern.len() > MAX_PATTERN {
        return Err((at, Problem::TooLong));
    }
    let named = match verb {
        Verb::Hide | Verb::Show => Sides { sender: true, receiver: false },
        Verb::Protect | Verb::Risk => Sides { sender: false, receiver: true },
        _ => modifiers.sides,
    };
    if named.is_named() && context.sides.is_named() {
        return Err((0, Problem::SideInSidedFile));
    }
    let sides = if named.is_named() { named } else { context.sides };
    let choice_sides = if context.excluded_go { sides.for_sender() } else { sides };
    let perishable = modifiers.perishable || context.perishable;
    if verb == Verb::RuleFile {
        if pattern.contains(&b'/') || matches!(pattern, b"." | b"..") {
            return Err((at, Problem::Unsupported(Unsupported::RuleFilePath)));
        }
        let Modifiers { bare, local, words, hides_itself, .. } = modifiers;
        let name = pattern.into();
        let excluded_go = context.excluded_go;
        let file =
            RuleFile { name, bare, local, words, hides_itself, perishable, sides, excluded_go };
        return Ok(Some(Statement::Rule(Action::RuleFile(file))));
    }
    Ok(Some(Statement::Rule(Action::Choice(Choice {
        include: matches!(verb, Verb::Include | Verb::Show | Verb::Risk),
        negated: modifiers.negated,
        perishable,
        sides: choice_sides,
        written: pattern.into(),
        pattern: context.pattern(pattern).ok_or((at, Problem::TooLong))?,
    }))))
}

/// Reads a bare pattern, of which `include` says what it does.
pub(super) fn read_bare(
    text: &[u8],
    include: bool,
    context: Context<'_>,
) -> Result<Option<Action>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    if let Some(at) = text.iter().position(|&b| b == 0) {
        return Err((at, Problem::Nul));
    }
    if text.len() > MAX_PATTERN {
        return Err((0, Problem::TooLong));
    }
    let sides = if context.excluded_go { context.sides.for_sender() } else { context.sides };
    Ok(Some(Action::Choice(Choice {
        include,
        negated: false,
        perishable: context.perishable,
        sides,
        written: text.into(),
        pattern: context.pattern(text).ok_or((0, Problem::TooLong))?,
    })))
}

/// Reads a line of a definition's excludes. rsync's `--exclude` takes `+ x`, `- x` and `!` for
/// rules; here they are refused, because who writes one among excludes means one or the other.
pub(super) fn read_exclude(text: &[u8]) -> Result<Option<Action>, Refusal> {
    if text.starts_with(b"+ ") || text.starts_with(b"- ") || text == b"!" {
        return Err((0, Problem::RuleAmongExcludes));
    }
    read_bare(text, false, Context::default())
}

fn read_verb(text: &[u8]) -> Result<(Verb, usize), Refusal> {
    for (name, verb) in LONG_NAMES {
        if let Some(rest) = text.strip_prefix(name)
            && matches!(rest, [] | [b',' | b'_' | b' ' | b'\t'..=b'\r', ..])
        {
            return Ok((verb, name.len()));
        }
    }
    let verb = match text[0] {
        b'-' => Verb::Exclude,
        b'+' => Verb::Include,
        b'H' => Verb::Hide,
        b'S' => Verb::Show,
        b'P' => Verb::Protect,
        b'R' => Verb::Risk,
        b':' => Verb::RuleFile,
        b'.' => Verb::Merge,
        b'!' => Verb::Clear,
        _ => return Err((0, Problem::UnknownRule)),
    };
    Ok((verb, 1))
}

/// Reads up to and over the separator; returns where the pattern begins.
fn read_modifiers(text: &[u8], from: usize, verb: Verb) -> Result<(Modifiers, usize), Refusal> {
    let is_file = verb == Verb::RuleFile;
    let is_sided = matches!(verb, Verb::Hide | Verb::Show | Verb::Protect | Verb::Risk);
    let mut modifiers = Modifiers::default();
    for (at, &letter) in text.iter().enumerate().skip(from) {
        match letter {
            b' ' | b'_' => return Ok((modifiers, at + 1)),
            b'!' if !is_file => modifiers.negated = true,
            b'p' => modifiers.perishable = true,
            b's' if !is_sided => modifiers.sides.sender = true,
            b'r' if !is_sided => modifiers.sides.receiver = true,
            b'-' if is_file && modifiers.bare.is_none() => modifiers.bare = Some(false),
            b'+' if is_file && modifiers.bare.is_none() => modifiers.bare = Some(true),
            b'e' if is_file => modifiers.hides_itself = true,
            b'n' if is_file => modifiers.local = true,
            b'w' if is_file => modifiers.words = true,
            b'/' => return Err((at, Problem::Unsupported(Unsupported::AbsolutePath))),
            b'x' => return Err((at, Problem::Unsupported(Unsupported::Xattr))),
            b'C' if !is_sided => return Err((at, Problem::Unsupported(Unsupported::CvsRules))),
            _ => return Err((at, Problem::BadModifier(letter))),
        }
    }
    Err((text.len(), Problem::NoPattern))
}
