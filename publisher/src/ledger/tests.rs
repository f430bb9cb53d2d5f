use protocol::{
    dsse::{Bytes, Envelope},
    generation::Epoch,
};

use super::*;

fn digest(generation: u64) -> Digest {
    Digest::of(&generation.to_le_bytes())
}

fn envelope() -> Envelope {
    Envelope { payload_type: String::new(), payload: Bytes::default(), signatures: Vec::new() }
}

fn version(generation: u64) -> Version {
    Version { epoch: Epoch(1), generation: Generation(generation) }
}

/// Generations 1 to 4, each announced at the second of its number, of which `alone` were pointed to
/// without the coordinator; packs lead from each to the next.
fn ledger(alone: &[u64]) -> Ledger {
    let kept = |generation: u64| Kept {
        version: version(generation),
        manifest: digest(generation),
        manifest_length: 0,
        statement: envelope(),
        announced: Timestamp::from_second(generation.cast_signed()).unwrap(),
        fate: if alone.contains(&generation) { Fate::Untold } else { Fate::Taken },
        root: None,
        content: true,
        shared: false,
        signed: false,
        copied: false,
    };
    let mut ledger = Ledger { generations: (1..=4).map(kept).collect(), ..Ledger::default() };
    ledger.offers = (1..4).map(|from| offer(Some(from), from + 1)).collect();
    ledger
}

fn offer(from: Option<u64>, to: u64) -> KeptOffer {
    let offer = Offer {
        tree: "fedora".parse().unwrap(),
        from: from.map(digest),
        to: digest(to),
        pack: digest(100 * from.unwrap_or(0) + to),
        length: 1000,
        index_length: 10,
        index: digest(0),
        front: None,
        shared_length: 0,
        encryption: None,
        figures: None,
    };
    KeptOffer { offer, envelope: envelope(), announced: true, shared: Vec::new() }
}

fn numbers<'a>(kept: impl Iterator<Item = &'a Kept>) -> Vec<u64> {
    kept.map(|kept| kept.version.generation.0).collect()
}

#[test]
fn what_is_given_up_is_the_newest_no_more_and_its_number_stays_known() {
    let mut ledger = ledger(&[3, 4]);
    assert_eq!(numbers(ledger.untold()), [3, 4]);
    assert_eq!(numbers(ledger.newest().into_iter()), [4]);
    assert_eq!(ledger.refused(Epoch(1)), None);
    ledger.give_up(version(3));
    assert_eq!(numbers(ledger.untold()), [0; 0]);
    assert_eq!(numbers(ledger.newest().into_iter()), [2]);
    assert_eq!(numbers(ledger.generations.last().into_iter()), [2], "the last is the newest");
    let late = Timestamp::from_second(100).unwrap();
    assert_eq!(numbers(ledger.current_at(late).into_iter()), [2]);
    assert_eq!((ledger.refused(Epoch(1)), ledger.refused(Epoch(2))), (Some(Generation(4)), None));
    assert!(ledger.is_refused(version(3), &digest(3)));
    assert!(
        !ledger.is_refused(version(3), &digest(4)) && !ledger.is_refused(version(2), &digest(2))
    );
}

#[test]
fn what_was_taken_above_what_is_known_is_forgotten_and_given_up_from_where_it_is_refused() {
    let mut ledger = ledger(&[4]);
    let forgotten =
        |current: Option<u64>| numbers(ledger.forgotten(Epoch(1), current.map(version)));
    assert_eq!(forgotten(None), [1, 2, 3]);
    assert_eq!(forgotten(Some(1)), [2, 3]);
    assert_eq!(forgotten(Some(3)), [0; 0], "what was never told is not forgotten");
    assert_eq!(numbers(ledger.forgotten(Epoch(2), None)), [0; 0]);
    ledger.give_up(version(2));
    assert_eq!(numbers(ledger.generations.iter()), [2, 3, 4, 1]);
    assert_eq!(numbers(ledger.newest().into_iter()), [1]);
    assert_eq!(ledger.refused(Epoch(1)), Some(Generation(4)));
    assert_eq!(numbers(ledger.forgotten(Epoch(1), Some(version(1)))), [0; 0]);
}

#[test]
fn a_ledger_of_a_publisher_that_knew_of_no_fates_is_one_of_what_was_taken() {
    let ledger = ledger(&[]);
    let text = serde_json::to_string(&ledger).unwrap();
    assert!(!text.contains("fate") && !text.contains("sent"), "{text}");
    assert_eq!(serde_json::from_str::<Ledger>(&text).unwrap(), ledger);
}

#[test]
fn the_offers_to_the_newest_are_those_of_the_chains_that_lead_there_the_nearest_first() {
    let mut ledger = ledger(&[]);
    // From nothing to what is newest and to what is not; and one that leads in a circle.
    ledger.offers.extend([offer(None, 4), offer(None, 77), offer(Some(4), 3)]);
    let steps = |most| -> Vec<(Option<Digest>, Digest)> {
        let offers = ledger.offers_to_newest(most);
        offers.iter().map(|kept| (kept.offer.from, kept.offer.to)).collect()
    };
    let step = |from: Option<u64>, to| (from.map(digest), digest(to));
    let chain = [step(Some(3), 4), step(None, 4), step(Some(2), 3), step(Some(1), 2)];
    assert_eq!(steps(10), chain);
    assert_eq!(steps(3), chain[..3]);
    assert_eq!(steps(0), []);
}
