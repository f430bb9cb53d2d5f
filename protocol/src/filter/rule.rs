//! One rule, read and prepared.

use std::{collections::HashSet, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    level::{Origin, Place},
    pattern::{Pattern, Subject},
};

/// Which rule of which definition: what `why` and `preview` print.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RuleRef {
    /// The definition.
    pub origin: Origin,
    /// Name of the definition; may be empty.
    pub label: String,
    /// Position in the definition's list, from 0 (a line number from 0 in a file).
    pub index: usize,
    /// The rule as it was written, with bytes that are not UTF-8 replaced.
    pub text: String,
}

impl std::fmt::Display for RuleRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = Place(self.origin, &self.label);
        write!(f, "{place}, rule {}: {}", self.index + 1, self.text)
    }
}

/// Which of the two ends a rule speaks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What is taken from the upstream.
    Sender,
    /// What may be removed at the mirror.
    Receiver,
}

/// The sides that a rule names; neither means both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sides {
    pub(super) sender: bool,
    pub(super) receiver: bool,
}

impl Sides {
    pub(super) fn is_named(self) -> bool {
        self.sender || self.receiver
    }

    /// These sides, with the sender's for both.
    pub(super) fn for_sender(self) -> Self {
        Self { sender: self.sender || !self.receiver, ..self }
    }

    pub(super) fn speaks_to(self, side: Side) -> bool {
        match side {
            Side::Sender => self.sender || !self.receiver,
            Side::Receiver => self.receiver || !self.sender,
        }
    }
}

/// A rule that keeps or leaves out what its pattern covers.
#[derive(Clone)]
pub(super) struct Choice {
    pub(super) include: bool,
    pub(super) negated: bool,
    pub(super) perishable: bool,
    pub(super) sides: Sides,
    /// The pattern as it stands in the rule.
    pub(super) written: Box<[u8]>,
    pub(super) pattern: Pattern,
}

/// A rule that stands for the rules of a file in each directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RuleFile {
    /// Base name of the file.
    pub(super) name: Box<[u8]>,
    /// The file holds bare patterns: of includes (`Some(true)`) or of excludes.
    pub(super) bare: Option<bool>,
    /// `n`: the rules do not reach into sub-directories.
    pub(super) local: bool,
    /// `w`: rules are separated by white space.
    pub(super) words: bool,
    /// `e`: the file itself is left out, which becomes a rule of its own.
    pub(super) hides_itself: bool,
    /// `p`, the default of the rules inside.
    pub(super) perishable: bool,
    /// `s` and `r`, the default of the rules inside.
    pub(super) sides: Sides,
    /// What the rules inside leave out does not stay at a mirror, unless they name the receiver.
    pub(super) excluded_go: bool,
}

pub(super) enum Action {
    Choice(Choice),
    RuleFile(RuleFile),
}

/// A rule in its place.
pub(super) struct Rule {
    pub(super) source: RuleRef,
    pub(super) action: Action,
}

/// Rules are shared between the directories that inherit them.
pub(super) type SharedRule = Arc<Rule>;

impl Choice {
    /// Whether this rule decides about the entry.
    pub(super) fn applies(&self, subject: Subject<'_>, question: Question) -> bool {
        self.sides.speaks_to(question.side)
            && !(self.perishable && question.in_removed_directory)
            && self.pattern.matches(subject) != self.negated
    }

    /// The rule in rsync's short form, which every supported rsync reads alike.
    pub(super) fn canonical(&self) -> Vec<u8> {
        let mut line = vec![if self.include { b'+' } else { b'-' }];
        let modifiers = [
            (self.negated, b'!'),
            (self.sides.sender, b's'),
            (self.sides.receiver, b'r'),
            (self.perishable, b'p'),
        ];
        line.extend(modifiers.iter().filter(|(set, _)| *set).map(|(_, letter)| *letter));
        line.push(b' ');
        line.extend_from_slice(&self.written);
        line
    }
}

impl RuleFile {
    /// The rule in rsync's short form.
    pub(super) fn canonical(&self) -> Vec<u8> {
        let mut line = vec![b':'];
        let modifiers = [
            (self.bare == Some(false), b'-'),
            (self.bare == Some(true), b'+'),
            (self.local, b'n'),
            (self.words, b'w'),
            (self.sides.sender, b's'),
            (self.sides.receiver, b'r'),
            (self.perishable, b'p'),
        ];
        line.extend(modifiers.iter().filter(|(set, _)| *set).map(|(_, letter)| *letter));
        line.push(b' ');
        line.extend_from_slice(&self.name);
        line
    }
}

/// Gives each rule file its place: the first rule of a name is the one that counts, and `e` leaves
/// the file itself out from there on, also in a rule that does not count. That exclude speaks to
/// both sides whatever the rule says, and is `perishable` as the file's other rules by default are.
pub(super) fn settle_files(rules: Vec<SharedRule>, perishable: bool) -> Vec<SharedRule> {
    let mut settled = Vec::with_capacity(rules.len());
    let mut names: HashSet<Box<[u8]>> = HashSet::new();
    for rule in rules {
        if let Action::RuleFile(file) = &rule.action {
            if file.hides_itself {
                settled.push(Arc::new(rule.leaving_out(&file.name, perishable)));
            }
            if !names.insert(file.name.clone()) {
                continue;
            }
        }
        settled.push(rule);
    }
    settled
}

impl Rule {
    /// An exclude of `name` that is part of this rule.
    fn leaving_out(&self, name: &[u8], perishable: bool) -> Self {
        let action = Action::Choice(Choice {
            include: false,
            negated: false,
            perishable,
            sides: Sides::default(),
            written: name.into(),
            pattern: Pattern::new(name),
        });
        Self { source: self.source.clone(), action }
    }

    /// Whether the rules of this rule file do not protect what they leave out.
    pub(super) fn excluded_go(&self) -> bool {
        matches!(&self.action, Action::RuleFile(file) if file.excluded_go)
    }

    /// This rule, speaking to the sender only unless it names a side.
    pub(super) fn for_sender(&self) -> Self {
        let action = match &self.action {
            Action::Choice(choice) => {
                Action::Choice(Choice { sides: choice.sides.for_sender(), ..choice.clone() })
            }
            Action::RuleFile(file) => {
                Action::RuleFile(RuleFile { excluded_go: true, ..file.clone() })
            }
        };
        Self { source: self.source.clone(), action }
    }

    pub(super) fn canonical(&self) -> Vec<u8> {
        match &self.action {
            Action::Choice(choice) => choice.canonical(),
            Action::RuleFile(file) => file.canonical(),
        }
    }
}

/// From which end a rule is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) side: Side,
    /// The entry's directory is itself being removed, where perishable rules do not count.
    pub(super) in_removed_directory: bool,
}

impl Question {
    pub(super) const KEPT: Self = Self { side: Side::Sender, in_removed_directory: false };
    pub(super) const PROTECTED: Self = Self { side: Side::Receiver, in_removed_directory: false };
}
