use jiff::Timestamp;
use protocol::{
    dsse::{Bytes, Envelope},
    generation::{Epoch, Version},
};

use super::*;
use crate::ledger::Fate;

fn digest(generation: u64) -> Digest {
    Digest::of(&generation.to_le_bytes())
}

fn envelope() -> Envelope {
    Envelope { payload_type: String::new(), payload: Bytes::default(), signatures: Vec::new() }
}

/// Generations 1 to 5, of which 1 is not kept any more; packs lead from each to the next.
fn ledger() -> Ledger {
    let kept = |generation| Kept {
        version: Version { epoch: Epoch(1), generation: Generation(generation) },
        manifest: digest(generation),
        manifest_length: 0,
        statement: envelope(),
        announced: Timestamp::UNIX_EPOCH,
        fate: Fate::Taken,
        root: None,
        content: generation > 1,
        shared: false,
        signed: false,
        copied: false,
    };
    let mut ledger = Ledger { generations: (1..=5).map(kept).collect(), ..Ledger::default() };
    ledger.offers = (1..5).map(|from| offer(from, from + 1, 1_000_000)).collect();
    ledger
}

fn offer(from: u64, to: u64, length: u64) -> KeptOffer {
    let offer = Offer {
        tree: "fedora".parse().unwrap(),
        from: Some(digest(from)),
        to: digest(to),
        pack: digest(100 * from + to),
        length,
        index_length: 10,
        index: digest(0),
        front: None,
        shared_length: 0,
        encryption: None,
        figures: None,
    };
    KeptOffer { offer, envelope: envelope(), announced: true, shared: Vec::new() }
}

/// What the coordinator says that agents hold, most wanted first.
fn order(held: &[(u64, u64)]) -> TreeOrder {
    let held = held.iter().map(|&(generation, agents)| {
        serde_json::json!({ "manifest": digest(generation), "agents": agents })
    });
    let order = serde_json::json!({
        "tree": "fedora", "path": "/srv/fedora", "layout": "simple", "limit": [],
        "encoders": "auto", "interval": "1h", "guard": {}, "epoch": 1, "publish-requests": 0,
        "held": held.collect::<Vec<_>>(),
    });
    serde_json::from_value(order).unwrap()
}

#[test]
fn a_pack_is_made_from_what_weighs_most_among_what_is_held_and_can_be_led_on_from() {
    let ledger = ledger();
    let from = |held: &[(u64, u64)]| wanted(&ledger, &order(held)).map(|wanted| wanted.from);
    assert_eq!(from(&[]), None);
    // The coordinator has weighed them: the first that helps.
    assert_eq!(from(&[(3, 20), (2, 5)]), Some(digest(3)));
    assert_eq!(from(&[(2, 5), (3, 20)]), Some(digest(2)));
    // The newest needs nothing, the one before has its pack, of the first nothing is kept, and
    // another tree's cannot be told.
    assert_eq!(from(&[(5, 90), (4, 80), (1, 70), (77, 60), (2, 1)]), Some(digest(2)));
    assert_eq!(from(&[(5, 90), (4, 80), (1, 70)]), None);
}

#[test]
fn a_squashed_pack_is_compared_with_the_chain_that_there_is_and_not_tried_twice() {
    let mut ledger = ledger();
    let found = wanted(&ledger, &order(&[(2, 3)])).unwrap();
    let chain = 3 * fetch_bytes(1_000_000);
    assert_eq!(found, WantedPack { from: digest(2), chain_bytes: Some(chain) });
    assert!(is_worth(1_000_000, found.chain_bytes));
    assert!(!is_worth(3_000_000, found.chain_bytes));
    assert!(is_worth(u64::MAX, None), "without a chain there is nothing to compare with");
    ledger.not_worth.push(NotWorth { from: digest(2), to: digest(5) });
    assert_eq!(wanted(&ledger, &order(&[(2, 3)])), None);
}

#[test]
fn how_many_will_fetch_a_pack_is_told_by_who_holds_what_it_starts_from() {
    let (ledger, order) = (ledger(), order(&[(2, 3), (3, 20)]));
    let agents = |generation: u64| fan_out(&order, ledger.with_manifest(&digest(generation)));
    assert_eq!((agents(2), agents(3)), (3, 20));
    assert_eq!((agents(4), fan_out(&order, None)), (MANY_AGENTS, MANY_AGENTS));
}
