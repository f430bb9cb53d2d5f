//! Whether anything changed, told by a few small files.
//!
//! Many upstreams write a file with every update (`fullfiletimelist`, `ls-lR.gz`, the files in
//! `project/trace`). While those have the size and the time that they had when the whole tree was
//! listed, it is not listed again: a few hundred bytes instead of megabytes. That is the upstream's
//! word and no more, so the whole tree is listed once a day all the same.

use jiff::{SignedDuration, Timestamp};
use protocol::{
    digest::{Digest, DigestWriter},
    filter::{Filter, Level, Origin},
    manifest,
    v1::agent::AssignmentOrder,
};

use crate::{
    agent::Agent,
    ledger::{self, Quick, Record},
    rsync::listing::{ListedKind, Listing},
};

/// How long the small files are believed.
const BELIEVED: SignedDuration = SignedDuration::from_hours(24);

/// Keeps the small files and the directories above them, and nothing else. `None` where the
/// patterns make no filter: then there is nothing to go by.
pub(super) fn filter(patterns: &[String]) -> Option<Filter> {
    let mut rules: Vec<String> = Vec::new();
    for pattern in patterns {
        let pattern = pattern.trim_matches('/');
        let parents = pattern.match_indices('/').map(|(at, _)| format!("+ /{}/", &pattern[..at]));
        rules.extend(parents);
        rules.push(format!("+ /{pattern}"));
    }
    rules.push("- *".into());
    Filter::build(&[Level::rules(Origin::Tree, "quick-list", rules)]).ok()
}

/// What the listing of the small files shows. `None` when there is no such file.
pub(super) fn digest(listing: &Listing) -> Result<Option<Digest>, manifest::Error> {
    let mut digest = DigestWriter::new();
    let mut files = 0;
    for listed in listing.each() {
        let listed = listed?;
        let ListedKind::File { size } = listed.kind else { continue };
        digest.update(listed.path.as_bytes());
        digest.update(&[0]);
        digest.update(&size.to_le_bytes());
        digest.update(&listed.mtime.to_le_bytes());
        files += 1;
    }
    Ok((files > 0).then(|| digest.finish()))
}

/// Whether they are as they were when the whole tree was listed, not long ago.
pub(super) fn is_unchanged(
    agent: &Agent,
    order: &AssignmentOrder,
    now: Digest,
) -> Result<bool, ledger::Error> {
    let record = agent.ledger.record(&order.name)?;
    let before = record.filter(|record| record.failures == 0).and_then(|record| record.quick);
    Ok(before.is_some_and(|before| is_believed(&before, now, certs::clock::now())))
}

fn is_believed(before: &Quick, now: Digest, at: Timestamp) -> bool {
    let age = at.duration_since(before.listed);
    before.digest == now && age < BELIEVED && !age.is_negative()
}

/// Remembers what they showed before the whole tree was listed and taken.
pub(super) fn remember(
    agent: &Agent,
    order: &AssignmentOrder,
    digest: Option<Digest>,
) -> Result<(), ledger::Error> {
    let record = agent.ledger.record(&order.name)?;
    let mut record = record.unwrap_or_else(|| Record::new(order.name.clone(), order.path.clone()));
    let quick = digest.map(|digest| Quick { digest, listed: certs::clock::now() });
    if quick.is_none() && record.quick.is_none() {
        return Ok(());
    }
    record.quick = quick;
    agent.ledger.set_record(&record)
}

#[cfg(test)]
mod tests {
    use protocol::path::TreePath;

    use super::*;

    #[test]
    fn only_the_small_files_are_asked_for() {
        let filter = filter(&["fullfiletimelist-*".into(), "project/trace/*".into()]).unwrap();
        let keeps = |path: &str, dir| filter.keeps(&TreePath::parse(path.as_bytes()).unwrap(), dir);
        assert!(keeps("fullfiletimelist-fedora", false));
        assert!(keeps("project", true) && keeps("project/trace", true));
        assert!(keeps("project/trace/master", false));
        assert!(!keeps("project/other", false) && !keeps("pool", true) && !keeps("README", false));
        assert!(!keeps("pool/fullfiletimelist-x", false));
    }

    #[test]
    fn they_are_believed_for_a_day_and_only_while_they_are_the_same() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let before = Quick { digest: Digest::of(b"1"), listed: at(1_000) };
        assert!(is_believed(&before, Digest::of(b"1"), at(1_000 + 86_399)));
        assert!(!is_believed(&before, Digest::of(b"1"), at(1_000 + 86_400)));
        assert!(!is_believed(&before, Digest::of(b"1"), at(999)));
        assert!(!is_believed(&before, Digest::of(b"2"), at(2_000)));
    }
}
