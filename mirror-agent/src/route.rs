//! Which way each file takes: a pure decision.
//!
//! The links are thin and long, so bytes decide; where two ways cost about the same, the one with
//! fewer round trips. For every file the decision is a *list* of ways: a way that fails for a file
//! hands just that file to its next one. Every way that is passed over or falls away leaves a
//! [`NotTaken`], so that a report explains itself.

use std::collections::BTreeMap;

use protocol::{
    transfer::{NoDelta, Way, rsync_estimate},
    v1::agent::NotTaken,
};

/// A first sync of more files than this prefers one rsync session to one request per file.
pub const MANY_FILES: usize = 500;
/// What one request costs beside its content: headers both ways.
const REQUEST_BYTES: u64 = 120;
/// What an rsync session costs before its first file: connection, greeting, options.
const RSYNC_SESSION_BYTES: u64 = 2_500;

/// What is known about one content that is needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Candidate {
    /// Content bytes.
    pub size: u64,
    /// The same content lies on the mirror already.
    pub local: bool,
    /// It is drawn from packs.
    pub in_pack: bool,
    /// Why it is not, where that is known; no pack carries it where nothing is said.
    pub no_pack: Option<NoDelta>,
    /// An older version lies at its path.
    pub old_version: bool,
}

/// What the agent has at hand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Means {
    /// Bytes that must be fetched of packs for all candidates that are in one; `None` without one.
    pub pack_bytes: Option<u64>,
    /// Why there is none; no pack leads to the target where nothing is said.
    pub no_pack: Option<NoDelta>,
    /// Why direct rsync is not possible; `None` when it is.
    pub no_rsync: Option<NoDelta>,
    /// Whole content can be fetched.
    pub whole: bool,
    /// Nothing of the tree is held yet.
    pub first_sync: bool,
    /// The candidates are a part of more, with which they share what comes of packs.
    pub part: bool,
}

/// The ways of each candidate, the cheapest first, and what all of it will cost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    /// One list for each candidate, in the same order.
    pub ways: Vec<Vec<Way>>,
    /// Bytes expected on the wire by the first way of each.
    pub expected_bytes: u64,
    /// Ways that would have come first and were not taken.
    pub not_taken: Vec<NotTaken>,
}

/// Decides.
pub fn choose(candidates: &[Candidate], means: &Means) -> Route {
    let pack = pack_verdict(candidates, means);
    let remote = candidates.iter().filter(|c| !(c.local || c.in_pack && pack.is_none()));
    let remote = remote.count();
    let many = remote > MANY_FILES;
    // Each file that would go by rsync bears its part of the session.
    let session = RSYNC_SESSION_BYTES / remote.max(1) as u64;
    let mut reasons = Reasons::default();
    let mut route = Route::default();
    for candidate in candidates {
        let ways = ways_of(candidate, means, pack, (many, session), &mut reasons);
        route.expected_bytes = route.expected_bytes.saturating_add(match ways.first() {
            Some(Way::Whole) => candidate.size + REQUEST_BYTES,
            Some(Way::Rsync) => rsync_bytes(candidate),
            _ => 0,
        });
        route.ways.push(ways);
    }
    let first = |way: Way| route.ways.iter().any(|ways| ways.first() == Some(&way));
    if first(Way::Pack) {
        route.expected_bytes += means.pack_bytes.unwrap_or(0);
    }
    if first(Way::Rsync) {
        route.expected_bytes += RSYNC_SESSION_BYTES;
    }
    route.not_taken = reasons.into_not_taken();
    route
}

fn ways_of(
    candidate: &Candidate,
    means: &Means,
    pack: Option<NoDelta>,
    (many, session): (bool, u64),
    reasons: &mut Reasons,
) -> Vec<Way> {
    let mut ways = Vec::new();
    if candidate.local {
        ways.push(Way::Local);
    }
    match pack {
        None if candidate.in_pack => ways.push(Way::Pack),
        None => {
            let why = candidate.no_pack.unwrap_or(NoDelta::NotPublished);
            reasons.add(Way::Pack, why, candidate);
        }
        Some(why) => reasons.add(Way::Pack, why, candidate),
    }
    let rsync_first = if means.first_sync || !candidate.old_version {
        many
    } else {
        rsync_bytes(candidate) + session < candidate.size + REQUEST_BYTES
    };
    match means.no_rsync {
        Some(why) => {
            reasons.add(Way::Rsync, why, candidate);
            ways.extend(means.whole.then_some(Way::Whole));
        }
        None if !means.whole => ways.push(Way::Rsync),
        None if rsync_first => ways.extend([Way::Rsync, Way::Whole]),
        None => {
            reasons.add(Way::Rsync, NoDelta::LargerThanWhole, candidate);
            ways.extend([Way::Whole, Way::Rsync]);
        }
    }
    ways
}

/// What a candidate is expected to cost without any pack; `None` where there is no other way.
pub fn without_pack(candidate: &Candidate, means: &Means) -> Option<u64> {
    let whole = means.whole.then(|| candidate.size.saturating_add(REQUEST_BYTES));
    let rsync = means.no_rsync.is_none().then(|| rsync_bytes(candidate));
    [whole, rsync].into_iter().flatten().min()
}

/// Why packs are not used at all; `None` when they are.
fn pack_verdict(candidates: &[Candidate], means: &Means) -> Option<NoDelta> {
    let Some(pack_bytes) = means.pack_bytes else {
        return Some(means.no_pack.unwrap_or(NoDelta::NotPublished));
    };
    let carried = candidates.iter().filter(|c| c.in_pack && !c.local);
    let whole: u64 =
        carried.map(|c| c.size.saturating_add(REQUEST_BYTES)).fold(0, u64::saturating_add);
    (means.whole && !means.part && pack_bytes > whole).then_some(NoDelta::LargerThanWhole)
}

fn rsync_bytes(candidate: &Candidate) -> u64 {
    rsync_estimate(candidate.size, candidate.old_version)
}

/// Gathers reasons: one line for each way and reason, with the number of files.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Reasons(BTreeMap<(Way, String), NotTaken>);

impl Reasons {
    fn add(&mut self, way: Way, reason: NoDelta, candidate: &Candidate) {
        if !candidate.local {
            self.note(way, reason, 1, "");
        }
    }

    /// Adds files for which `way` was not taken. The detail of the first is kept.
    pub fn note(&mut self, way: Way, reason: NoDelta, files: u64, detail: &str) {
        let entry = self.0.entry((way, reason.to_string())).or_insert_with(|| NotTaken {
            way,
            reason,
            files: 0,
            detail: detail.to_owned(),
        });
        entry.files += files;
        if entry.detail.is_empty() {
            detail.clone_into(&mut entry.detail);
        }
    }

    /// Adds reasons that were found elsewhere.
    pub fn extend(&mut self, reasons: Vec<NotTaken>) {
        for reason in reasons {
            self.note(reason.way, reason.reason, reason.files, &reason.detail);
        }
    }

    /// The reasons, by way.
    pub fn into_not_taken(self) -> Vec<NotTaken> {
        self.0.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Means = Means {
        pack_bytes: Some(1_000),
        no_pack: None,
        no_rsync: None,
        whole: true,
        first_sync: false,
        part: false,
    };

    fn file(size: u64) -> Candidate {
        Candidate { size, ..Candidate::default() }
    }

    fn reasons(route: &Route) -> Vec<(Way, NoDelta, u64)> {
        route.not_taken.iter().map(|n| (n.way, n.reason, n.files)).collect()
    }

    #[test]
    fn what_is_on_the_mirror_already_costs_nothing_and_a_pack_comes_next() {
        let local = Candidate { local: true, ..file(1 << 20) };
        let packed = Candidate { in_pack: true, old_version: true, ..file(1 << 20) };
        let route = choose(&[local, packed], &ALL);
        assert_eq!(route.ways[0][0], Way::Local);
        assert_eq!(route.ways[1], [Way::Pack, Way::Rsync, Way::Whole]);
        assert_eq!((route.expected_bytes, reasons(&route)), (1_000, vec![]));
    }

    #[test]
    fn without_a_pack_a_held_old_version_makes_rsync_cheaper_and_the_report_says_why() {
        let changed = Candidate { old_version: true, ..file(1 << 20) };
        let small = Candidate { old_version: true, ..file(100) };
        let route = choose(&[changed, small], &Means { pack_bytes: None, ..ALL });
        assert_eq!(route.ways, [[Way::Rsync, Way::Whole], [Way::Whole, Way::Rsync]]);
        let (none, small) = (NoDelta::NotPublished, NoDelta::LargerThanWhole);
        assert_eq!(reasons(&route), [(Way::Pack, none, 2), (Way::Rsync, small, 1)]);
    }

    #[test]
    fn new_files_come_whole_unless_there_are_many() {
        let means = Means { pack_bytes: None, first_sync: true, ..ALL };
        let few = choose(&[file(5_000)], &means);
        assert_eq!(few.ways, [[Way::Whole, Way::Rsync]]);
        assert!(reasons(&few).contains(&(Way::Rsync, NoDelta::LargerThanWhole, 1)));
        let many = choose(&vec![file(5_000); MANY_FILES + 1], &means);
        assert_eq!(many.ways[0], [Way::Rsync, Way::Whole]);
    }

    #[test]
    fn a_pack_of_which_a_filter_needs_little_is_not_fetched_for_more_than_whole_content() {
        let packed = Candidate { in_pack: true, ..file(100) };
        let route = choose(&[packed], &ALL);
        assert_eq!(route.ways, [[Way::Whole, Way::Rsync]]);
        assert!(reasons(&route).contains(&(Way::Pack, NoDelta::LargerThanWhole, 1)));
    }

    #[test]
    fn without_rsync_everything_still_arrives_and_the_reason_is_given() {
        let changed = Candidate { old_version: true, ..file(1 << 20) };
        let means = Means { pack_bytes: None, no_rsync: Some(NoDelta::NoRsync), ..ALL };
        let route = choose(&[changed], &means);
        assert_eq!(route.ways, [[Way::Whole]]);
        assert!(reasons(&route).contains(&(Way::Rsync, NoDelta::NoRsync, 1)));
    }

    #[test]
    fn a_pack_that_could_not_be_used_is_told_from_one_that_does_not_exist() {
        let damaged = Means { pack_bytes: None, no_pack: Some(NoDelta::Corrupt), ..ALL };
        let route = choose(&[file(100)], &damaged);
        assert!(reasons(&route).contains(&(Way::Pack, NoDelta::Corrupt, 1)));
    }

    #[test]
    fn a_file_that_nobody_can_deliver_has_no_way() {
        let means = Means { no_rsync: Some(NoDelta::NoRsync), ..Means::default() };
        assert_eq!(choose(&[file(1)], &means).ways, [vec![]; 1]);
    }
}
