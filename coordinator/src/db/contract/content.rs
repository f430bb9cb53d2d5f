//! Definitions, requests, generations, offers and holds.

use jiff::Timestamp;
use protocol::{
    digest::Digest,
    dsse::{Bytes, Envelope},
    generation::{Epoch, Generation, Revision},
    name::TreeName,
    statement::{GuardVerdict, Offer, Parent, Statement},
    v1::{
        definitions::{Definition, Kind},
        publisher::{Difference, HoldReport},
    },
};

use super::{TestDatabase, on_both};

on_both! {
    definitions_are_replaced_and_removed_by_kind_and_name
    requests_are_counted
    generations_come_newest_first_and_of_each_tree_only_so_many
    an_offer_counts_while_its_target_is_recent
    a_hold_keeps_its_first_report_and_takes_a_decision
}

fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn digest(content: &str) -> Digest {
    Digest::of(content.as_bytes())
}

fn envelope(payload: &str) -> Envelope {
    Envelope {
        payload_type: "t".into(),
        payload: Bytes(payload.as_bytes().to_vec()),
        signatures: vec![],
    }
}

fn tree(name: &str) -> TreeName {
    name.parse().unwrap()
}

fn statement(name: &str, number: u64) -> Statement {
    Statement {
        tree: tree(name),
        epoch: Epoch(1),
        generation: Generation(number),
        manifest: digest(&format!("{name} {number}")),
        manifest_length: 1,
        entries: 2,
        bytes: 3,
        parent: (number > 1).then(|| Parent {
            generation: Generation(number - 1),
            manifest: digest(&format!("{name} {}", number - 1)),
        }),
        guard: GuardVerdict { removed_files: 0, removed_bytes: 0, approved_by: None },
        created: now(),
        expires: now(),
        basis: None,
    }
}

async fn definitions_are_replaced_and_removed_by_kind_and_name(test: &TestDatabase) {
    let definition = |kind, revision, spec: &str| Definition {
        kind,
        name: "x".into(),
        revision: Revision(revision),
        spec: serde_json::json!({ "is": spec }),
    };
    let mut tx = test.database.write().await.unwrap();
    tx.put_definition(&definition(Kind::Tree, 1, "old")).await.unwrap();
    tx.put_definition(&definition(Kind::Site, 1, "site")).await.unwrap();
    tx.put_definition(&definition(Kind::Tree, 2, "new")).await.unwrap();
    let both = [definition(Kind::Site, 1, "site"), definition(Kind::Tree, 2, "new")];
    assert_eq!(tx.definitions().await.unwrap(), both);
    tx.remove_definition(Kind::Tree, "x").await.unwrap();
    assert_eq!(tx.definitions().await.unwrap(), both[..1]);
    tx.commit().await.unwrap();
}

async fn requests_are_counted(test: &TestDatabase) {
    let mut tx = test.database.write().await.unwrap();
    for name in ["a", "b", "a"] {
        tx.add_request("sync", name).await.unwrap();
    }
    let mut found = tx.requests().await.unwrap();
    found.sort();
    assert_eq!(found, [("sync".into(), "a".into(), 2), ("sync".into(), "b".into(), 1)]);
    tx.commit().await.unwrap();
}

async fn generations_come_newest_first_and_of_each_tree_only_so_many(test: &TestDatabase) {
    let publisher = "p".parse().unwrap();
    let mut tx = test.database.write().await.unwrap();
    for number in 1..=12 {
        for name in ["a", "b"] {
            let claim = statement(name, number);
            let signed = envelope(&format!("{name} {number}"));
            tx.add_generation(&claim, &signed, &publisher, now()).await.unwrap();
        }
    }
    // The same number twice is refused whatever the rules say.
    let mut rival = test.database.read().await.unwrap();
    assert!(rival.current_generation(&tree("a")).await.unwrap().is_none());
    rival.commit().await.unwrap();
    tx.commit().await.unwrap();

    let mut tx = test.database.write().await.unwrap();
    let current = tx.current_generation(&tree("a")).await.unwrap().unwrap();
    assert_eq!(current.version.generation, Generation(12));
    assert_eq!(current.parent, statement("a", 12).parent);
    assert_eq!((current.entries, current.bytes, current.created), (2, 3, now()));
    assert_eq!(current.statement, envelope("a 12"));
    assert_eq!(tx.current_generation(&tree("c")).await.unwrap(), None);
    let numbers = |found: Vec<crate::db::StoredGeneration>| {
        let number = |g: crate::db::StoredGeneration| (g.tree.to_string(), g.version.generation.0);
        found.into_iter().map(number).collect::<Vec<_>>()
    };
    let recent = numbers(tx.recent_generations(2).await.unwrap());
    let expected = [("a", 12), ("a", 11), ("b", 12), ("b", 11)];
    assert_eq!(recent, expected.map(|(name, number)| (name.to_owned(), number)));
    let page = numbers(tx.generations(Some(&tree("b")), 1, 2).await.unwrap());
    assert_eq!(page, [("b".to_owned(), 11), ("b".to_owned(), 10)]);
    assert_eq!(tx.generations(None, 0, 100).await.unwrap().len(), 24);
    let twice = tx.add_generation(&statement("a", 1), &envelope("x"), &publisher, now()).await;
    assert!(twice.is_err());
}

async fn an_offer_counts_while_its_target_is_recent(test: &TestDatabase) {
    let publisher = "p".parse().unwrap();
    let offer = |from: Option<&str>, to: &str| Offer {
        tree: tree("a"),
        from: from.map(digest),
        to: digest(to),
        pack: digest("pack"),
        length: 5,
        index_length: 1,
        index: digest("index"),
        front: None,
        shared_length: 0,
        encryption: None,
        figures: None,
    };
    let mut tx = test.database.write().await.unwrap();
    for number in 1..=3 {
        let claim = statement("a", number);
        tx.add_generation(&claim, &envelope(&number.to_string()), &publisher, now()).await.unwrap();
    }
    assert!(tx.add_offer(&offer(None, "a 3"), &envelope("x"), now()).await.unwrap());
    assert!(!tx.add_offer(&offer(None, "a 3"), &envelope("x"), now()).await.unwrap());
    assert!(tx.add_offer(&offer(Some("a 1"), "a 2"), &envelope("y"), now()).await.unwrap());
    assert!(tx.add_offer(&offer(None, "a 1"), &envelope("z"), now()).await.unwrap());
    let recent = tx.recent_offers(2).await.unwrap();
    let mut found: Vec<_> = recent.iter().map(|o| (o.from, o.to, o.length)).collect();
    found.sort();
    assert_eq!(found.len(), 2);
    assert!(found.contains(&(None, digest("a 3"), 5)));
    assert!(found.contains(&(Some(digest("a 1")), digest("a 2"), 5)));
    tx.commit().await.unwrap();
}

async fn a_hold_keeps_its_first_report_and_takes_a_decision(test: &TestDatabase) {
    let publisher = "p".parse().unwrap();
    let report = |reason: &str| HoldReport {
        manifest: digest("m"),
        reason: reason.into(),
        removed_files: 1,
        removed_bytes: 2,
        since: now(),
        difference: Difference::default(),
        unseen: false,
    };
    let mut tx = test.database.write().await.unwrap();
    assert!(tx.add_hold(&tree("a"), &publisher, None, &report("first")).await.unwrap());
    assert!(!tx.add_hold(&tree("a"), &publisher, None, &report("second")).await.unwrap());
    let holds = tx.holds().await.unwrap();
    assert_eq!((holds.len(), &holds[0].report, &holds[0].decision), (1, &report("first"), &None));
    let ann = "ann".parse().unwrap();
    assert!(tx.decide_hold(&tree("a"), &digest("m"), true, &ann, now()).await.unwrap());
    assert!(!tx.decide_hold(&tree("b"), &digest("m"), true, &ann, now()).await.unwrap());
    assert_eq!(tx.holds().await.unwrap()[0].decision, Some((true, ann.clone(), now())));
    tx.decide_hold(&tree("a"), &digest("m"), false, &ann, now()).await.unwrap();
    assert_eq!(tx.holds().await.unwrap()[0].decision, Some((false, ann, now())));
    tx.commit().await.unwrap();
}
