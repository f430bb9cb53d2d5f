//! From what is wanted and what is there to the one next step.
//!
//! A step is found from the orders and the ledger alone, each time anew: nothing remembers what
//! was decided before, so a restart, a lost wakeup or a second activation changes nothing. One
//! activation moves each assignment by one step.

use std::collections::BTreeSet;

use jiff::{Timestamp, tz::TimeZone};
use protocol::{
    digest::Digest,
    filter::Filter,
    generation::Version,
    path::TreePath,
    spec::AssignmentName,
    v1::agent::{AssignmentOrder, Origin},
};

use crate::{calendar, ledger::Record};

/// What is to be done with one assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It ended: note that nobody touches its files any more.
    Release,
    /// Its path changed: rename it on disk.
    Move {
        /// Where it is published now.
        from: TreePath,
        /// Where it is to be.
        to: TreePath,
    },
    /// Bring it to its target, or look at its stock server.
    Sync,
    /// Bring back from the trash what an admin wants.
    Undelete,
    /// Take away removed paths whose time to stay readable is up.
    Withdraw,
}

/// Everything that the decision about one assignment depends on.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The order, if it is still assigned.
    pub order: Option<&'a AssignmentOrder>,
    /// What the ledger knows, if anything.
    pub record: Option<&'a Record>,
    /// The verified target of a publisher's tree.
    pub target: Option<(Version, Digest)>,
    /// Whether the signed head has expired.
    pub stale: bool,
    /// Now.
    pub now: Timestamp,
    /// The site's zone.
    pub zone: &'a TimeZone,
}

/// The next step of one assignment; `None` when it is as it should be, or has to wait.
pub fn next_step(situation: &Situation<'_>) -> Option<Step> {
    let Some(order) = situation.order else {
        return situation.record.filter(|record| !record.unassigned).map(|_| Step::Release);
    };
    if order.stopped.is_some() {
        return None;
    }
    if order.dry_run_only {
        return rehearsal(order, situation);
    }
    let Some(record) = situation.record else {
        return (is_wanted(order, situation) && is_time(order, None, situation))
            .then_some(Step::Sync);
    };
    if record.path != order.path && record.held.is_some() || record.moving.is_some() {
        return Some(Step::Move { from: record.path.clone(), to: order.path.clone() });
    }
    if order.undelete.iter().any(|wish| !record.undeleted.contains(&wish.id)) {
        return Some(Step::Undelete);
    }
    let withdrawal = record.withdrawn.filter(|withdrawn| withdrawn.next <= situation.now);
    sync_step(order, record, situation).or(withdrawal.map(|_| Step::Withdraw))
}

fn sync_step(order: &AssignmentOrder, record: &Record, situation: &Situation<'_>) -> Option<Step> {
    let waits = record.due.is_some_and(|due| due > situation.now);
    let asked = order.sync_requests > record.sync_requests;
    match &order.origin {
        Origin::Rsyncd(_) => {
            // A failed run waits in any case; else the schedule decides, where there is one.
            let waits = waits && (order.schedule.is_none() || record.failures > 0);
            let due = !waits && is_time(order, record.slot, situation);
            // What was only rehearsed is begun at once when it may be carried out.
            let in_earnest = record.rehearsed.is_some();
            (asked || due || in_earnest || filter_changed(order, record)).then_some(Step::Sync)
        }
        Origin::Publisher(_) => {
            let (version, manifest) = situation.target?;
            let held = record.held.as_ref();
            let is_held = held.is_some_and(|held| {
                (held.version, held.manifest) == (version, manifest)
                    && !filter_changed(order, record)
            });
            let new_target = record.failed_target != Some(manifest);
            let begin = asked || !is_held && (new_target || !waits);
            (begin && is_wanted(order, situation)).then_some(Step::Sync)
        }
    }
}

/// The next dry run of an assignment that has no other: of each target and for each change of its rules
/// one, and when a stock server is due. Nothing else is done with it.
fn rehearsal(order: &AssignmentOrder, situation: &Situation<'_>) -> Option<Step> {
    let Some(record) = situation.record else {
        return (is_wanted(order, situation) && is_time(order, None, situation))
            .then_some(Step::Sync);
    };
    let waits = record.due.is_some_and(|due| due > situation.now);
    let asked = order.sync_requests > record.sync_requests;
    let failed = record.failures > 0;
    let is_new =
        record.rehearsed != rehearsed(order, situation.target.map(|(_, manifest)| manifest));
    let due = match &order.origin {
        Origin::Rsyncd(_) => {
            let waits = waits && (order.schedule.is_none() || failed);
            !waits && is_time(order, record.slot, situation) || is_new && !failed
        }
        Origin::Publisher(_) => {
            situation.target?;
            is_new && !(failed && waits)
        }
    };
    ((asked || due) && is_wanted(order, situation)).then_some(Step::Sync)
}

/// Names what a dry run was about: the target, and the rules through which it would be held.
pub fn rehearsed(order: &AssignmentOrder, target: Option<Digest>) -> Option<Digest> {
    let filter = Filter::build(&order.filter).ok()?.digest();
    let target = target.map(|target| *target.as_bytes()).unwrap_or_default();
    Some(Digest::of(&[&target[..], &filter.as_bytes()[..]].concat()))
}

/// Whether the schedule of a stock server's tree says so; without one it is always time.
fn is_time(order: &AssignmentOrder, used: Option<Timestamp>, situation: &Situation<'_>) -> bool {
    let scheduled = matches!(order.origin, Origin::Rsyncd(_)) && order.schedule.is_some();
    !scheduled || calendar::due_slot(order, used, situation.now, situation.zone).is_some()
}

/// What has expired is not begun; what was begun before is brought to its end.
fn is_wanted(order: &AssignmentOrder, situation: &Situation<'_>) -> bool {
    match &order.origin {
        Origin::Rsyncd(_) => true,
        Origin::Publisher(_) => may_follow(situation),
    }
}

/// Whether the target of a publisher's tree may be followed now.
pub fn may_follow(situation: &Situation<'_>) -> bool {
    situation.target.is_some_and(|(_, manifest)| {
        let planned = situation.record.and_then(|record| record.planned);
        !situation.stale || planned == Some(manifest)
    })
}

/// Whether the rules of the order mean something else than those it is held through. Rules that
/// cannot be read change nothing: the run says what is wrong with them.
fn filter_changed(order: &AssignmentOrder, record: &Record) -> bool {
    match (&record.held, Filter::build(&order.filter)) {
        (Some(_), _) if record.versions != order.versions => true,
        (Some(held), Ok(filter)) => held.filter != filter.digest(),
        _ => false,
    }
}

/// Every assignment that the orders or the ledger know.
pub fn assignments<'a>(
    orders: &'a [AssignmentOrder],
    records: &'a [Record],
) -> BTreeSet<&'a AssignmentName> {
    let ordered = orders.iter().map(|order| &order.name);
    ordered.chain(records.iter().map(|record| &record.name)).collect()
}

#[cfg(test)]
mod tests {
    use protocol::{
        generation::{Epoch, Generation},
        schedule::{Schedule, SyncHours},
        spec::{GuardSpec, OnEnd, OnExclude, Switch, Transport},
        units::Span,
        v1::agent::{PublisherOrigin, RsyncdOrigin, Stopped},
    };

    use super::*;
    use crate::ledger::Held;

    static UTC: TimeZone = TimeZone::UTC;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    fn version(generation: u64) -> Version {
        Version { epoch: Epoch(0), generation: Generation(generation) }
    }

    fn order(stock: bool) -> AssignmentOrder {
        let origin = if stock {
            Origin::Rsyncd(RsyncdOrigin {
                host: "h".into(),
                port: 873,
                path: "m".into(),
                user: None,
                password_file: None,
                transport: Transport::Plain,
                ssh: None,
                max_connections: None,
            })
        } else {
            Origin::Publisher(PublisherOrigin {
                publisher: "build".parse().unwrap(),
                address: None,
                points: vec![],
                relays: vec![],
                private: false,
            })
        };
        AssignmentOrder {
            name: "fedora@lisbon".parse().unwrap(),
            path: path("fedora"),
            stopped: None,
            dry_run_only: false,
            filter: vec![],
            versions: None,
            origin,
            fallback: vec![],
            target: None,
            interval: Span::from_secs(600),
            schedule: None,
            splay: None,
            priority: 0,
            quick_list: vec![],
            symlinks: protocol::symlinks::Symlinks::default(),
            sync_requests: 0,
            guard: GuardSpec::default(),
            approved: Vec::new(),
            on_exclude: OnExclude::Keep,
            on_end: OnEnd::Keep,
            switch: Switch::Auto,
            together: None,
            group: None,
            chmod: None,
            linger: Span::from_secs(900),
            keep_withdrawn: Span::from_secs(900),
            undelete: vec![],
        }
    }

    fn record(held: u64) -> Record {
        let mut record = Record::new("fedora@lisbon".parse().unwrap(), path("fedora"));
        record.held = Some(Held {
            version: version(held),
            manifest: Digest::of(&held.to_le_bytes()),
            filter: Filter::all().digest(),
            observed: false,
            applied: at(0),
            files: 0,
            bytes: 0,
        });
        record
    }

    fn situation<'a>(
        order: Option<&'a AssignmentOrder>,
        record: Option<&'a Record>,
        target: u64,
    ) -> Situation<'a> {
        let target = Some((version(target), Digest::of(&target.to_le_bytes())));
        Situation { order, record, target, stale: false, now: at(1_000), zone: &UTC }
    }

    #[test]
    fn what_is_held_is_left_alone_and_what_is_new_is_fetched() {
        let (order, record) = (order(false), record(3));
        assert_eq!(next_step(&situation(Some(&order), Some(&record), 3)), None);
        assert_eq!(next_step(&situation(Some(&order), Some(&record), 4)), Some(Step::Sync));
        assert_eq!(next_step(&situation(Some(&order), None, 4)), Some(Step::Sync));
    }

    #[test]
    fn what_was_withdrawn_goes_when_its_time_is_up_whoever_answers() {
        let (order, mut record) = (order(false), record(3));
        record.withdrawn =
            Some(crate::ledger::Withdrawn { paths: 2, next: at(1_000), failures: 0 });
        let none = Situation { target: None, stale: true, ..situation(Some(&order), None, 3) };
        let look = |record: &Record, now| {
            next_step(&Situation { record: Some(record), now: at(now), ..none })
        };
        assert_eq!(look(&record, 999), None);
        assert_eq!(look(&record, 1_000), Some(Step::Withdraw));
        // What is newer takes it along, and what is stopped or has ended is left alone.
        assert_eq!(next_step(&situation(Some(&order), Some(&record), 4)), Some(Step::Sync));
        let stopped = AssignmentOrder { stopped: Some(Stopped::Disabled), ..order.clone() };
        assert_eq!(next_step(&situation(Some(&stopped), Some(&record), 3)), None);
        record.unassigned = true;
        assert_eq!(next_step(&situation(None, Some(&record), 3)), None);
    }

    #[test]
    fn a_stale_head_begins_nothing() {
        let (order, record) = (order(false), record(3));
        let stale = Situation { stale: true, ..situation(Some(&order), Some(&record), 4) };
        assert_eq!(next_step(&stale), None);
    }

    #[test]
    fn what_was_begun_under_a_good_head_is_finished_under_a_stale_one() {
        let (order, mut record) = (order(false), record(3));
        record.planned = Some(Digest::of(&4u64.to_le_bytes()));
        let stale = Situation { stale: true, ..situation(Some(&order), Some(&record), 4) };
        assert_eq!(next_step(&stale), Some(Step::Sync));
        let newer = Situation { stale: true, ..situation(Some(&order), Some(&record), 5) };
        assert_eq!(next_step(&newer), None);
    }

    #[test]
    fn a_failed_target_waits_and_a_newer_one_does_not() {
        let (order, mut record) = (order(false), record(3));
        record.failed_target = Some(Digest::of(&4u64.to_le_bytes()));
        record.due = Some(at(2_000));
        assert_eq!(next_step(&situation(Some(&order), Some(&record), 4)), None);
        assert_eq!(next_step(&situation(Some(&order), Some(&record), 5)), Some(Step::Sync));
        record.due = Some(at(1_000));
        assert_eq!(next_step(&situation(Some(&order), Some(&record), 4)), Some(Step::Sync));
    }

    #[test]
    fn changed_rules_and_an_admins_wish_are_reasons_too() {
        let record = record(3);
        let mut filtered = order(false);
        filtered.filter =
            vec![protocol::filter::Level::rules(protocol::filter::Origin::Tree, "t", ["- *.iso"])];
        assert_eq!(next_step(&situation(Some(&filtered), Some(&record), 3)), Some(Step::Sync));
        let mut asked = order(false);
        asked.sync_requests = 1;
        assert_eq!(next_step(&situation(Some(&asked), Some(&record), 3)), Some(Step::Sync));
    }

    #[test]
    fn a_stock_server_is_asked_when_it_is_due() {
        let (order, mut record) = (order(true), record(3));
        record.due = Some(at(1_001));
        assert_eq!(next_step(&situation(Some(&order), Some(&record), 0)), None);
        record.due = Some(at(1_000));
        assert_eq!(next_step(&situation(Some(&order), Some(&record), 0)), Some(Step::Sync));
    }

    #[test]
    fn f53_a_scheduled_tree_is_due_once_per_slot_however_often_one_looks_or_starts_again() {
        let (mut order, mut record) = (order(true), record(3));
        order.schedule = Some(Schedule::SyncHours(SyncHours(6)));
        // Six in the morning of the first day.
        let look = |record: &Record, now: i64| {
            next_step(&Situation { now: at(now), ..situation(Some(&order), Some(record), 0) })
        };
        assert_eq!(look(&record, 5 * 3_600 + 3_599), None);
        assert_eq!(look(&record, 6 * 3_600), Some(Step::Sync));
        // A run that failed is tried again within the slot, after its wait.
        (record.failures, record.due) = (1, Some(at(6 * 3_600 + 60)));
        assert_eq!(look(&record, 6 * 3_600 + 59), None);
        assert_eq!(look(&record, 6 * 3_600 + 60), Some(Step::Sync));
        assert_eq!(look(&record, 7 * 3_600), None);
        // One that did not is over until the next slot; the ledger knows it after a restart.
        (record.failures, record.slot) = (0, Some(at(6 * 3_600)));
        let text = serde_json::to_string(&record).unwrap();
        let record: Record = serde_json::from_str(&text).unwrap();
        assert_eq!(look(&record, 6 * 3_600 + 1_800), None);
        assert_eq!(look(&record, 12 * 3_600), Some(Step::Sync));
        // Never by itself, but whenever an admin asks.
        order.schedule = Some(Schedule::SyncHours(SyncHours(0)));
        let never = Situation { now: at(0), ..situation(Some(&order), Some(&record), 0) };
        assert_eq!(next_step(&never), None);
        order.sync_requests = 1;
        let asked = Situation { now: at(0), ..situation(Some(&order), Some(&record), 0) };
        assert_eq!(next_step(&asked), Some(Step::Sync));
    }

    #[test]
    fn a_splay_delays_each_site_by_its_own_part_and_never_past_the_slot() {
        let mut delays = std::collections::BTreeSet::new();
        for site in ["lisbon", "porto", "faro", "braga"] {
            let mut order = order(true);
            order.name = format!("fedora@{site}").parse().unwrap();
            order.schedule = Some(Schedule::SyncHours(SyncHours(24)));
            order.splay = Some(Span::from_secs(7_200));
            let due = |now| calendar::due_slot(&order, None, at(now), &TimeZone::UTC).is_some();
            let first = (0..3_600).find(|now| due(*now)).unwrap();
            assert!(first <= 3_000 && due(3_599) && !due(3_600));
            delays.insert(first);
        }
        assert!(delays.len() > 1, "{delays:?}");
    }

    #[test]
    fn a_changed_path_is_a_rename_and_the_end_of_an_assignment_touches_nothing() {
        let (mut moved, mut record) = (order(false), record(3));
        moved.path = path("linux/fedora");
        let step = Step::Move { from: path("fedora"), to: path("linux/fedora") };
        assert_eq!(next_step(&situation(Some(&moved), Some(&record), 3)), Some(step));
        // Nothing else happens to a tree that may lie at neither of the two.
        let mut begun = record.clone();
        begun.moving = Some(path("linux/fedora"));
        let back = Step::Move { from: path("fedora"), to: path("fedora") };
        assert_eq!(next_step(&situation(Some(&order(false)), Some(&begun), 4)), Some(back));
        assert_eq!(next_step(&situation(None, Some(&record), 3)), Some(Step::Release));
        record.unassigned = true;
        assert_eq!(next_step(&situation(None, Some(&record), 3)), None);
    }

    #[test]
    fn what_is_only_rehearsed_is_rehearsed_once_and_begun_when_it_may_be() {
        for stock in [false, true] {
            let dry = AssignmentOrder { dry_run_only: true, ..order(stock) };
            let target = situation(None, None, 3).target.map(|(_, manifest)| manifest);
            assert_eq!(next_step(&situation(Some(&dry), None, 3)), Some(Step::Sync));
            let mut record = record(1);
            record.due = Some(at(1_000_000));
            assert_eq!(next_step(&situation(Some(&dry), Some(&record), 3)), Some(Step::Sync));
            record.rehearsed = rehearsed(&dry, target);
            assert_eq!(next_step(&situation(Some(&dry), Some(&record), 3)), None, "it was");
            // Neither a new place nor anything from the trash changes that.
            let moved = AssignmentOrder { path: path("elsewhere"), ..dry.clone() };
            assert_eq!(next_step(&situation(Some(&moved), Some(&record), 3)), None);
            let asked = AssignmentOrder { sync_requests: 1, ..dry.clone() };
            assert_eq!(next_step(&situation(Some(&asked), Some(&record), 3)), Some(Step::Sync));
            let other = protocol::filter::Level::rules(
                protocol::filter::Origin::Tree,
                "t",
                ["- /x".to_owned()],
            );
            let filtered = AssignmentOrder { filter: vec![other], ..dry.clone() };
            assert_eq!(next_step(&situation(Some(&filtered), Some(&record), 3)), Some(Step::Sync));
            let earnest = AssignmentOrder { dry_run_only: false, ..dry };
            assert_eq!(next_step(&situation(Some(&earnest), Some(&record), 3)), Some(Step::Sync));
        }
    }

    #[test]
    fn a_stopped_assignment_is_left_alone() {
        let (mut stopped, record) = (order(false), record(3));
        stopped.stopped = Some(Stopped::NoGrant);
        assert_eq!(next_step(&situation(Some(&stopped), Some(&record), 4)), None);
    }
}
