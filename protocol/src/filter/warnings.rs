//! What an admin most likely did not mean, told when the rules are defined.
//!
//! A warning is only given when it is certain. Lists that are too involved to be sure about give
//! none.

use std::fmt;

use super::{
    Filter,
    reach::{Found, MAX_WORK, Reach},
    rule::{Action, RuleRef, Side},
};

/// Something in a filter that has no effect, or too much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// Rules before this one decide about all that it covers.
    Overruled {
        /// The rule without effect.
        rule: RuleRef,
        /// One that decides before it.
        by: RuleRef,
    },
    /// Every entry that this rule covers lies in a directory that is left out.
    CutOff {
        /// The rule without effect.
        rule: RuleRef,
        /// The rule that leaves out such a directory.
        by: RuleRef,
    },
    /// The pattern is malformed, or needs a name that cannot be.
    Impossible {
        /// The rule without effect.
        rule: RuleRef,
    },
    /// No directory at the top of a tree whose versions are directories at the top is kept.
    NoVersionLeft {
        /// The rule that leaves one out.
        by: RuleRef,
    },
}

/// What is doubtful in `filter`, in the order of its rules. `versions` says that the tree is a
/// directory of versions (the layouts `versioned` and `sealed`).
pub fn warnings(filter: &Filter, versions: bool) -> Vec<Warning> {
    let mut all = Vec::new();
    let sender = Reach::explore(filter, Side::Sender, MAX_WORK, |_, _| true);
    let receiver = has_rules_for_receiver_only(filter)
        .then(|| Reach::explore(filter, Side::Receiver, MAX_WORK, |_, _| true))
        .flatten();
    if let Some(reach) = &sender {
        all.extend(without_effect(reach, true));
        if versions && !reach.keeps_top_directory {
            let by = reach.top_directory_left_out_by.map(|at| reach.rules[at].source.clone());
            all.extend(by.map(|by| Warning::NoVersionLeft { by }));
        }
    }
    if let Some(reach) = &receiver {
        all.extend(without_effect(reach, false));
    }
    all
}

/// The rules without effect among those that speak to the sender, or among all others.
fn without_effect<'a>(reach: &'a Reach<'_>, to_sender: bool) -> impl Iterator<Item = Warning> + 'a {
    reach.rules.iter().zip(&reach.found).filter_map(move |(looked, found)| {
        if found.decides || looked.choice.sides.speaks_to(Side::Sender) != to_sender {
            return None;
        }
        let rule = looked.source.clone();
        let source = |at: usize| reach.rules[at].source.clone();
        Some(match *found {
            Found { overruled_by: Some(by), .. } => Warning::Overruled { rule, by: source(by) },
            Found { cut_off_by: Some(by), .. } => Warning::CutOff { rule, by: source(by) },
            _ => Warning::Impossible { rule },
        })
    })
}

fn has_rules_for_receiver_only(filter: &Filter) -> bool {
    let rules = filter.0.limit.rules().iter().chain(filter.0.selection.rules());
    rules
        .into_iter()
        .any(|rule| matches!(&rule.action, Action::Choice(c) if !c.sides.speaks_to(Side::Sender)))
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overruled { rule, by } => write!(
                f,
                "{rule}: never takes effect, because rules before it decide about all that it \
                 covers ({by}); move it up, or remove it"
            ),
            Self::CutOff { rule, by } => write!(
                f,
                "{rule}: never takes effect, because the directories above what it covers are left \
                 out ({by}); include each of them before that rule, as in '+ /a/' and '+ /a/b/'"
            ),
            Self::Impossible { rule } => {
                write!(f, "{rule}: covers no name that can be; look at its brackets and slashes")
            }
            Self::NoVersionLeft { by } => write!(
                f,
                "{by}: with it no version of the tree is kept at all, since versions are the \
                 directories at its top"
            ),
        }
    }
}
