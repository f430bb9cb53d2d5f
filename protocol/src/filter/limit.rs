//! A limit is a wall, and whoever writes an include that it hides is told so.
//!
//! Without this check a site's `+ /embargo/report` would be accepted, do nothing, and be noticed
//! when somebody misses the file.

use super::{
    Filter,
    error::{Problem, RuleError, RuleErrors},
    reach::{MAX_WORK, Reach},
    rule::{Action, Side},
};

/// Refuses every include of the selection of which the limit hides all that it covers. What is
/// hidden in part is fine. Where a limit is too involved to be sure, nothing is refused: the limit
/// holds in any case.
pub fn within_limit(filter: &Filter) -> Result<(), RuleErrors> {
    if filter.0.limit.is_empty() {
        return Ok(());
    }
    let includes: Vec<_> = filter
        .0
        .selection
        .rules()
        .iter()
        .enumerate()
        .filter(|(_, rule)| {
            let side = Side::Sender;
            matches!(&rule.action, Action::Choice(c) if c.include && c.sides.speaks_to(side))
        })
        .collect();
    let max_work = 4 * MAX_WORK / includes.len().max(4);
    let hidden = includes.iter().filter_map(|(at, rule)| {
        let of_interest = |in_limit, i| in_limit || i == *at;
        let reach = Reach::explore(filter, Side::Sender, max_work, of_interest)?;
        let found = reach.found.last()?;
        let by = found.overruled_by.or(found.cut_off_by)?;
        (!found.decides).then(|| RuleError {
            origin: rule.source.origin,
            label: rule.source.label.clone(),
            index: rule.source.index,
            column: 1,
            text: rule.source.text.clone(),
            problem: Problem::HiddenByLimit(Some(reach.rules[by].source.text.clone())),
        })
    });
    let hidden: Vec<RuleError> = hidden.collect();
    if hidden.is_empty() { Ok(()) } else { Err(RuleErrors(hidden)) }
}
