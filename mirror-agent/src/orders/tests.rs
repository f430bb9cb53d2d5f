use std::collections::BTreeMap;

use certs::{
    root,
    signing::{SigningKey, sign_json},
};
use protocol::{
    generation::{Epoch, Generation, HeadNumber, RestoreEpoch, Revision},
    root::{PublisherKey, Root},
    spec::{GuardSpec, OnEnd, OnExclude, Switch},
    statement::{GuardVerdict, HeadTree},
    units::Span,
    v1::{
        agent::{PublisherOrigin, Target},
        mandates::Mandate,
    },
};

use super::*;

struct World {
    root_key: SigningKey,
    head_key: SigningKey,
    patterns: &'static str,
    epoch: Option<Epoch>,
    min: Option<Version>,
    autonomous: bool,
    publisher_key: SigningKey,
    head: Head,
    statement: Statement,
    offers: Vec<Offer>,
}

fn claim<T: Claim>(key: &SigningKey, value: &T) -> Envelope {
    sign_json(key, T::PAYLOAD_TYPE, value).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn offer(from: Option<&str>, to: &str, length: u64) -> Offer {
    Offer {
        tree: "fedora".parse().unwrap(),
        from: from.map(digest),
        to: digest(to),
        pack: digest("pack"),
        length,
        index_length: 1,
        index: digest("index"),
        front: None,
        shared_length: 0,
        encryption: None,
        figures: None,
    }
}

impl World {
    fn new() -> Self {
        let statement = Statement {
            tree: "fedora".parse().unwrap(),
            epoch: Epoch::FIRST,
            generation: Generation(3),
            manifest: digest("three"),
            manifest_length: 1,
            entries: 1,
            bytes: 1,
            parent: None,
            guard: GuardVerdict { removed_files: 0, removed_bytes: 0, approved_by: None },
            created: at(0),
            expires: at(9_000),
            basis: None,
        };
        let head = Head {
            network: "net".parse().unwrap(),
            number: HeadNumber(1),
            root: RootNumber(1),
            restore_epoch: RestoreEpoch(0),
            revision: Revision(5),
            issued: at(0),
            expires: at(1_000),
            trees: Default::default(),
        };
        Self {
            root_key: SigningKey::generate().unwrap(),
            patterns: "*",
            epoch: None,
            min: None,
            autonomous: false,
            head_key: SigningKey::generate().unwrap(),
            publisher_key: SigningKey::generate().unwrap(),
            head,
            statement,
            offers: vec![],
        }
    }

    fn trust(&self) -> Trust {
        Trust {
            network: "net".parse().unwrap(),
            agent: "lisbon-1".parse().unwrap(),
            root: Arc::new(TrustedRoot::pin(&self.root()).unwrap()),
        }
    }

    fn root(&self) -> Envelope {
        let publisher = PublisherKey {
            publisher: "build".parse().unwrap(),
            key: self.publisher_key.verifying_key(),
            trees: vec![self.patterns.parse().unwrap()],
        };
        let root = Root {
            network: "net".parse().unwrap(),
            number: RootNumber(1),
            created: at(0),
            keys: vec![self.root_key.verifying_key()],
            threshold: 1,
            head_keys: vec![self.head_key.verifying_key()],
            definition_keys: vec![],
            authorities: String::new(),
            publishers: vec![publisher],
            epochs: self
                .epoch
                .map(|epoch| ("fedora".parse().unwrap(), epoch))
                .into_iter()
                .collect::<BTreeMap<_, _>>(),
        };
        root::sign(&root, &[&self.root_key]).unwrap()
    }

    fn orders(&self) -> AgentOrders {
        let statement = claim(&self.publisher_key, &self.statement);
        let mut head = self.head.clone();
        let version =
            Version { epoch: self.statement.epoch, generation: self.statement.generation };
        head.trees.insert(
            "fedora".parse().unwrap(),
            HeadTree {
                version,
                statement: statement.payload_digest(),
                manifest: self.statement.manifest,
                min: self.min,
                autonomous: self.autonomous,
            },
        );
        let order = AssignmentOrder {
            name: "fedora@lisbon".parse().unwrap(),
            path: protocol::path::TreePath::parse(b"fedora").unwrap(),
            stopped: None,
            dry_run_only: false,
            filter: vec![],
            versions: None,
            origin: Origin::Publisher(PublisherOrigin {
                publisher: "build".parse().unwrap(),
                address: None,
                points: vec![],
                relays: vec![],
                private: false,
            }),
            fallback: vec![],
            target: Some(Target {
                statement,
                offers: self.offers.iter().map(|o| claim(&self.publisher_key, o)).collect(),
            }),
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
        };
        AgentOrders {
            revision: head.revision,
            restore_epoch: head.restore_epoch,
            root: head.root,
            agent: "lisbon-1".parse().unwrap(),
            site: "lisbon".parse().unwrap(),
            head: claim(&self.head_key, &head),
            readers: vec![],
            default_rate: None,
            bandwidth: vec![],
            budget: None,
            timezone: None,
            sharers: 1,
            assignments: vec![order],
            mandates: vec![],
        }
    }

    fn target(&self, orders: AgentOrders, marks: &mut Marks) -> Result<Option<Verified>, Error> {
        let orders = Orders::verify(orders, &self.trust(), marks)?;
        orders.target(&orders.wanted.assignments[0], marks)
    }
}

#[test]
fn what_everyone_signed_is_believed() {
    let mut world = World::new();
    world.offers = vec![offer(Some("two"), "three", 10)];
    let mut marks = Marks::default();
    let target = world.target(world.orders(), &mut marks).unwrap().unwrap();
    assert_eq!(target.statement, world.statement);
    assert_eq!(target.offers, world.offers);
    assert_eq!(marks.revision, Revision(5));
    assert_eq!(marks.trees[&world.statement.tree].manifest, digest("three"));
}

#[test]
fn a_head_by_another_key_for_another_network_or_agent_changes_nothing() {
    let (world, other) = (World::new(), World::new());
    let mut marks = Marks::default();
    let refused = Orders::verify(other.orders(), &world.trust(), &mut marks);
    assert!(matches!(refused, Err(Error::Head(_))));
    let trust = Trust { network: "else".parse().unwrap(), ..world.trust() };
    let refused = Orders::verify(world.orders(), &trust, &mut marks);
    assert!(matches!(refused, Err(Error::Network { .. })));
    let trust = Trust { agent: "porto-1".parse().unwrap(), ..world.trust() };
    let refused = Orders::verify(world.orders(), &trust, &mut marks);
    assert!(matches!(refused, Err(Error::Agent { .. })));
    assert_eq!(marks, Marks::default());
}

#[test]
fn a_statement_that_the_head_does_not_name_or_the_publisher_did_not_sign_is_refused() {
    let world = World::new();
    let mut newer = World::new();
    newer.head_key = SigningKey::generate().unwrap();
    let mut swapped = world.orders();
    let mut other = world.statement.clone();
    other.manifest = digest("four");
    swapped.assignments[0].target.as_mut().unwrap().statement = claim(&world.publisher_key, &other);
    let refused = world.target(swapped, &mut Marks::default());
    assert!(matches!(refused, Err(Error::NotTheHeads { .. })), "{refused:?}");

    let mut forged = world.orders();
    forged.assignments[0].target.as_mut().unwrap().statement =
        claim(&newer.publisher_key, &world.statement);
    let refused = world.target(forged, &mut Marks::default());
    assert!(matches!(refused, Err(Error::Statement { .. })), "{refused:?}");
}

#[test]
fn older_orders_and_older_content_are_refused_and_leave_the_marks() {
    let mut world = World::new();
    let mut marks = Marks::default();
    world.target(world.orders(), &mut marks).unwrap();
    let before = marks.clone();
    world.head.revision = Revision(4);
    let refused = Orders::verify(world.orders(), &world.trust(), &mut marks);
    assert!(matches!(refused, Err(Error::GoesBack(GoesBack::Revision { .. }))));
    assert_eq!(marks, before);
    world.head.revision = Revision(5);
    world.head.number = HeadNumber(0);
    let refused = Orders::verify(world.orders(), &world.trust(), &mut marks);
    assert!(matches!(refused, Err(Error::GoesBack(GoesBack::Head { .. }))));
    world.head.revision = Revision(6);
    world.head.number = HeadNumber(6);
    world.statement.generation = Generation(2);
    let refused = world.target(world.orders(), &mut marks);
    assert!(matches!(refused, Err(Error::GoesBack(GoesBack::Generation { .. }))));
    assert_eq!(marks.trees, before.trees);
}

#[test]
fn an_expired_head_is_stale_and_still_known() {
    let world = World::new();
    let orders = Orders::verify(world.orders(), &world.trust(), &mut Marks::default()).unwrap();
    assert!(!orders.is_stale(at(999)));
    assert!(orders.is_stale(at(1_000)));
}

#[test]
fn an_offer_that_someone_else_signed_is_not_used() {
    let mut world = World::new();
    world.offers = vec![offer(None, "three", 10)];
    let mut orders = world.orders();
    let stranger = SigningKey::generate().unwrap();
    orders.assignments[0].target.as_mut().unwrap().offers.push(claim(&stranger, &world.offers[0]));
    let target = world.target(orders, &mut Marks::default()).unwrap().unwrap();
    assert_eq!(target.offers.len(), 1);
}

#[test]
fn the_chain_of_packs_that_costs_least_is_found() {
    const MB: u64 = 1 << 20;
    let mut world = World::new();
    world.statement.bytes = 1 << 30;
    world.offers = vec![
        offer(Some("one"), "two", MB),
        offer(Some("two"), "three", MB),
        offer(Some("one"), "three", 3 * MB),
        offer(None, "three", 100 * MB),
        offer(Some("three"), "three", 0),
    ];
    let target = world.target(world.orders(), &mut Marks::default()).unwrap().unwrap();
    let lengths = |from: Option<&str>, share: f64| -> Vec<u64> {
        target.chain(from.map(digest), share).iter().map(|offer| offer.length).collect()
    };
    assert_eq!(lengths(Some("one"), 1.0), [MB, MB]);
    // Who draws little pays for requests, and one pack needs fewer.
    assert_eq!(lengths(Some("one"), 0.01), [3 * MB]);
    assert_eq!(lengths(Some("two"), 1.0), [MB]);
    assert_eq!(lengths(None, 1.0), [100 * MB]);
    assert_eq!(lengths(Some("elsewhere"), 1.0), [100 * MB], "what is held is no base of a pack");
    assert!(lengths(Some("three"), 1.0).is_empty());
}

#[test]
fn a_pack_of_everything_is_not_used_for_a_few_files_where_its_index_is_most_of_it() {
    let mut world = World::new();
    world.statement.bytes = 10_000;
    world.offers = vec![Offer { index_length: 1_000, ..offer(None, "three", 5_000) }];
    let target = world.target(world.orders(), &mut Marks::default()).unwrap().unwrap();
    assert!(target.chain(Some(digest("elsewhere")), 1.0).is_empty());
    assert_eq!(target.chain(None, 1.0).len(), 1);
}

#[test]
fn a_head_beside_a_root_that_was_not_seen_or_of_other_orders_changes_nothing() {
    let mut world = World::new();
    world.head.root = RootNumber(2);
    let refused = Orders::verify(world.orders(), &world.trust(), &mut Marks::default());
    assert!(matches!(refused, Err(Error::NewerRoot { .. })), "{refused:?}");
    world.head.root = RootNumber(1);
    let mut mixed = world.orders();
    mixed.revision = Revision(6);
    let refused = Orders::verify(mixed, &world.trust(), &mut Marks::default());
    assert!(matches!(refused, Err(Error::OtherHead { .. })), "{refused:?}");
}

#[test]
fn a_publisher_signs_only_for_the_trees_that_the_root_names_and_in_their_epoch() {
    let mut world = World::new();
    world.patterns = "debian-*";
    let refused = world.target(world.orders(), &mut Marks::default());
    assert!(matches!(refused, Err(Error::NoKey { .. })), "{refused:?}");
    world.patterns = "fedora*";
    world.target(world.orders(), &mut Marks::default()).unwrap().unwrap();
    // A publisher cannot start its numbers over by itself, nor stay in an epoch that ended.
    for (root, statement) in [(Epoch::FIRST, Epoch(2)), (Epoch(2), Epoch::FIRST)] {
        (world.epoch, world.statement.epoch) = (Some(root), statement);
        let refused = world.target(world.orders(), &mut Marks::default());
        assert!(matches!(refused, Err(Error::Epoch { .. })), "{refused:?}");
    }
}

#[test]
fn a_number_that_nothing_could_follow_is_refused_until_a_new_epoch() {
    let mut world = World::new();
    let mut marks = Marks::default();
    world.target(world.orders(), &mut marks).unwrap();
    world.statement.generation = Generation(u64::MAX);
    let refused = world.target(world.orders(), &mut marks);
    assert!(matches!(refused, Err(Error::GoesBack(GoesBack::FastForward { .. }))), "{refused:?}");
    // What an agent that held nothing took, the root repairs by an epoch.
    world.target(world.orders(), &mut Marks::default()).unwrap();
    (world.epoch, world.statement.epoch) = (Some(Epoch(2)), Epoch(2));
    world.statement.generation = Generation(1);
    world.target(world.orders(), &mut marks).unwrap().unwrap();
}

#[test]
fn what_the_coordinator_knows_to_be_held_is_a_mark_for_an_agent_that_lost_its_own() {
    let mut world = World::new();
    let held = |generation| Version { epoch: Epoch::FIRST, generation: Generation(generation) };
    world.min = Some(held(4));
    let refused = world.target(world.orders(), &mut Marks::default());
    assert!(matches!(refused, Err(Error::GoesBack(GoesBack::Generation { .. }))), "{refused:?}");
    world.min = Some(held(3));
    world.target(world.orders(), &mut Marks::default()).unwrap().unwrap();
}

#[test]
fn an_autonomous_tree_follows_what_its_publisher_signed_and_no_admin_had_to_approve() {
    let mut world = World::new();
    world.autonomous = true;
    let mut marks = Marks::default();
    let orders = Orders::verify(world.orders(), &world.trust(), &mut marks).unwrap();
    let order = &orders.wanted.assignments[0];
    orders.target(order, &mut marks).unwrap();
    let late = at(2_000);
    let find = |world: &World, key: &SigningKey, statement: &Statement, marks: &Marks, now| {
        let offers = world.offers.iter().map(|offer| claim(key, offer)).collect();
        let found = Found { statement: claim(key, statement), offers };
        orders.found(order, &found, &mut marks.clone(), now)
    };
    let mut newer = world.statement.clone();
    newer.generation = Generation(4);
    newer.manifest = digest("four");
    let ask =
        |statement: &Statement, now| find(&world, &world.publisher_key, statement, &marks, now);
    assert_eq!(ask(&newer, late).unwrap().unwrap().statement, newer);
    assert_eq!(ask(&newer, at(500)).unwrap(), None, "while the head is good, it alone counts");
    assert_eq!(ask(&world.statement, late).unwrap(), None, "not newer");
    assert_eq!(ask(&newer, at(9_000)).unwrap(), None, "the statement has expired");
    let mut approved = newer.clone();
    approved.guard.approved_by = Some("ann".parse().unwrap());
    assert_eq!(ask(&approved, late).unwrap(), None, "an approval is the coordinator's to tell");
    let stranger = SigningKey::generate().unwrap();
    let forged = find(&world, &stranger, &newer, &marks, late);
    assert!(matches!(forged, Err(Error::Statement { .. })), "{forged:?}");
    let other = Statement { tree: "debian".parse().unwrap(), ..newer.clone() };
    assert!(matches!(ask(&other, late), Err(Error::NotTheHeads { .. })));
    let mut seen = marks.clone();
    let fifth = Version { epoch: Epoch::FIRST, generation: Generation(5) };
    seen.raise_tree(&newer.tree, fifth, digest("five")).unwrap();
    let back = find(&world, &world.publisher_key, &newer, &seen, late);
    assert!(matches!(back, Err(Error::GoesBack(_))), "{back:?}");
}

#[test]
fn what_was_gone_on_to_is_known_by_the_publishers_word_also_when_heads_are_good_again() {
    let mut world = World::new();
    let mut newer = world.statement.clone();
    newer.generation = Generation(4);
    let ask = |world: &World, key: &SigningKey| {
        let orders = Orders::verify(world.orders(), &world.trust(), &mut Marks::default()).unwrap();
        let found = Found { statement: claim(key, &newer), offers: vec![] };
        orders.went_on_to(&orders.wanted.assignments[0], &found)
    };
    assert_eq!(ask(&world, &world.publisher_key), None, "the tree does not go on by itself");
    world.autonomous = true;
    let fourth = Version { epoch: Epoch::FIRST, generation: Generation(4) };
    assert_eq!(ask(&world, &world.publisher_key), Some(fourth));
    assert_eq!(ask(&world, &SigningKey::generate().unwrap()), None, "somebody else's word");
}

#[test]
fn a_tree_that_is_not_autonomous_waits_for_a_head() {
    let world = World::new();
    let mut marks = Marks::default();
    let orders = Orders::verify(world.orders(), &world.trust(), &mut marks).unwrap();
    let newer = Statement { generation: Generation(4), ..world.statement.clone() };
    let found = Found { statement: claim(&world.publisher_key, &newer), offers: vec![] };
    let order = &orders.wanted.assignments[0];
    assert_eq!(orders.found(order, &found, &mut marks, at(2_000)).unwrap(), None);
}

/// A world whose root names a definitions key, and mandates that it signs.
struct Strict {
    world: World,
    key: SigningKey,
}

impl Strict {
    fn new() -> Self {
        Self { world: World::new(), key: SigningKey::generate().unwrap() }
    }

    fn trust(&self) -> Trust {
        let trust = self.world.trust();
        let mut root = trust.root.root().clone();
        root.definition_keys = vec![self.key.verifying_key()];
        let root = root::sign(&root, &[&self.world.root_key]).unwrap();
        Trust { root: Arc::new(TrustedRoot::pin(&root).unwrap()), ..trust }
    }

    fn mandate(&self, number: u64, change: impl FnOnce(&mut Mandate)) -> Envelope {
        let mut order = self.world.orders().assignments.remove(0);
        (order.target, order.sync_requests) = (None, 0);
        let network = "net".parse().unwrap();
        let mut mandate = Mandate { network, number, agent: None, ended: false, order };
        change(&mut mandate);
        claim(&self.key, &mandate)
    }

    fn told(&self, mandates: Vec<Envelope>) -> AgentOrders {
        AgentOrders { mandates, ..self.world.orders() }
    }

    fn verify(&self, orders: AgentOrders, marks: &mut Marks) -> Result<Orders, Error> {
        Orders::verify(orders, &self.trust(), marks)
    }
}

fn path(text: &str) -> protocol::path::TreePath {
    protocol::path::TreePath::parse(text.as_bytes()).unwrap()
}

#[test]
fn in_a_strict_network_an_assignment_is_carried_out_as_it_was_signed_or_not_at_all() {
    let (strict, mut marks) = (Strict::new(), Marks::default());
    let unsigned = strict.verify(strict.told(vec![]), &mut marks).unwrap();
    assert!(unsigned.wanted.assignments.is_empty(), "nothing begins by the coordinator's word");
    let stranger = SigningKey::generate().unwrap();
    let mandate =
        open::<Mandate>(&strict.mandate(1, |_| {}), &[strict.key.verifying_key()]).unwrap();
    let forged = claim(&stranger, &mandate);
    let forged = strict.verify(strict.told(vec![forged]), &mut marks).unwrap();
    assert!(forged.wanted.assignments.is_empty());
    let foreign = [
        strict.mandate(1, |m| m.network = "other".parse().unwrap()),
        strict.mandate(1, |m| m.order.name = "fedora@oslo".parse().unwrap()),
        strict.mandate(1, |m| m.agent = Some("lisbon-2".parse().unwrap())),
    ];
    for mandate in foreign {
        let orders = strict.verify(strict.told(vec![mandate]), &mut Marks::default()).unwrap();
        assert!(orders.wanted.assignments.is_empty());
    }
    // What the coordinator says besides of the path, the filter and the end does not count.
    let mut told = strict.told(vec![strict.mandate(1, |_| {})]);
    let honest = told.assignments[0].clone();
    told.assignments[0].path = path("elsewhere");
    told.assignments[0].on_end = OnEnd::Trash;
    told.assignments[0].on_exclude = OnExclude::Remove;
    let orders = strict.verify(told, &mut marks).unwrap();
    let [order] = &orders.wanted.assignments[..] else { panic!("one assignment") };
    assert_eq!(order, &honest, "with the target, which the coordinator names");
    let target = orders.target(order, &mut Marks::default()).unwrap().unwrap();
    assert_eq!(target.statement, strict.world.statement);
}

#[test]
fn an_older_mandate_none_or_silence_changes_nothing_and_only_a_signed_end_ends() {
    let (strict, mut marks) = (Strict::new(), Marks::default());
    let second = strict.mandate(2, |m| m.order.path = path("new"));
    strict.verify(strict.told(vec![second]), &mut marks).unwrap();
    let name: AssignmentName = "fedora@lisbon".parse().unwrap();
    // The marks as they come from the disk.
    let mut marks: Marks = serde_json::from_str(&serde_json::to_string(&marks).unwrap()).unwrap();
    for mandates in [vec![], vec![strict.mandate(1, |_| {})]] {
        let orders = strict.verify(strict.told(mandates), &mut marks).unwrap();
        assert_eq!(orders.order(&name).unwrap().path, path("new"));
        assert!(orders.order(&name).unwrap().stopped.is_none());
    }
    let silent = AgentOrders { assignments: vec![], ..strict.told(vec![]) };
    let orders = strict.verify(silent.clone(), &mut marks).unwrap();
    let order = orders.order(&name).unwrap();
    assert_eq!((order.path.clone(), order.stopped.is_some()), (path("new"), true));
    assert!(order.target.is_none() && !orders.may_trash(&name));
    let moved = AgentOrders { site: "oslo".parse().unwrap(), ..strict.told(vec![]) };
    assert!(matches!(strict.verify(moved, &mut marks.clone()), Err(Error::Site { .. })));
    let end = strict.mandate(3, |m| m.ended = true);
    let orders = strict.verify(strict.told(vec![end]), &mut marks).unwrap();
    assert!(orders.order(&name).is_none() && orders.may_trash(&name));
    let again = strict.verify(strict.told(vec![strict.mandate(2, |_| {})]), &mut marks).unwrap();
    assert!(again.order(&name).is_none(), "what has ended stays so until something newer");
    // Without a definitions key all is as it was.
    let plain = strict.world.orders();
    let orders = Orders::verify(plain, &strict.world.trust(), &mut Marks::default()).unwrap();
    assert!(orders.order(&name).is_some() && orders.may_trash(&name));
}
