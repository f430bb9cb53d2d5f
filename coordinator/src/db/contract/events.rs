//! Events, troubles and deliveries.

use jiff::{SignedDuration, Timestamp};
use protocol::v1::events::{Event, EventKind};
use uuid::Uuid;

use super::{TestDatabase, on_both};
use crate::db::{Delivery, MAX_QUEUE, Transaction};

on_both! {
    events_are_numbered_in_their_order_and_numbers_are_never_used_again
    a_trouble_begins_once_and_ends_once
    of_each_subject_only_the_oldest_event_is_due
    only_one_of_two_replicas_takes_a_delivery
    a_webhook_that_takes_nothing_has_a_bounded_queue
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap() + SignedDuration::from_secs(second)
}

async fn add(tx: &mut Transaction, subject: &str, second: i64) -> Event {
    let mut event = Event {
        number: 0,
        id: Uuid::now_v7(),
        at: at(second),
        kind: EventKind::RunFailed,
        subject: subject.into(),
        text: format!("{subject} at {second}"),
        details: [("error".to_owned(), "x".to_owned())].into(),
    };
    tx.add_event(&mut event).await.unwrap();
    event
}

async fn due(tx: &mut Transaction, second: i64) -> Vec<u64> {
    let due = tx.due_deliveries("ops", at(second), 100).await.unwrap();
    due.iter().map(|delivery| delivery.event.number).collect()
}

async fn events_are_numbered_in_their_order_and_numbers_are_never_used_again(test: &TestDatabase) {
    let mut tx = test.database.write().await.unwrap();
    assert_eq!(tx.newest_event().await.unwrap(), 0);
    let first = add(&mut tx, "a@lisbon", 1).await;
    let second = add(&mut tx, "a@lisbon", 2).await;
    assert_eq!((first.number, second.number), (1, 2));
    assert_eq!(tx.events(0, 10).await.unwrap(), [first, second.clone()]);
    assert_eq!(tx.events(1, 10).await.unwrap(), [second]);
    tx.forget_events(at(100)).await.unwrap();
    assert_eq!(tx.events(0, 10).await.unwrap().len(), 1, "the newest stays");
    assert_eq!(add(&mut tx, "a@lisbon", 3).await.number, 3);
    tx.commit().await.unwrap();
}

async fn a_trouble_begins_once_and_ends_once(test: &TestDatabase) {
    let mut tx = test.database.write().await.unwrap();
    let (kind, other) = (EventKind::RunFailed, EventKind::IdentitySilent);
    assert!(!tx.end_trouble(kind, "a@lisbon").await.unwrap());
    assert!(tx.begin_trouble(kind, "a@lisbon", at(1)).await.unwrap());
    assert!(!tx.begin_trouble(kind, "a@lisbon", at(2)).await.unwrap());
    assert!(tx.begin_trouble(other, "a@lisbon", at(2)).await.unwrap());
    assert_eq!(tx.troubles(kind).await.unwrap(), ["a@lisbon"]);
    assert!(tx.end_trouble(kind, "a@lisbon").await.unwrap());
    assert!(!tx.end_trouble(kind, "a@lisbon").await.unwrap());
    assert_eq!(tx.troubles(other).await.unwrap(), ["a@lisbon"]);
    tx.commit().await.unwrap();
}

async fn of_each_subject_only_the_oldest_event_is_due(test: &TestDatabase) {
    let mut tx = test.database.write().await.unwrap();
    for (subject, second) in [("a", 1), ("b", 2), ("a", 3)] {
        let event = add(&mut tx, subject, second).await;
        assert_eq!(tx.deliver("ops", &event).await.unwrap(), 0);
    }
    assert_eq!(due(&mut tx, 10).await, [1, 2]);
    let all = tx.due_deliveries("ops", at(10), 100).await.unwrap();
    tx.put_off_delivery(&all[0], at(20), "refused").await.unwrap();
    assert_eq!(due(&mut tx, 10).await, [2], "the third waits for the first");
    assert_eq!(due(&mut tx, 20).await, [1, 2]);
    let again = tx.due_deliveries("ops", at(20), 100).await.unwrap();
    assert_eq!((again[0].tries, &again[0].event), (1, &all[0].event));
    let queues = tx.queues().await.unwrap();
    assert_eq!((queues[0].tries, queues[0].error.as_str()), (1, "refused"));
    tx.end_delivery(&again[0]).await.unwrap();
    assert_eq!(due(&mut tx, 20).await, [2, 3]);
    let queues = tx.queues().await.unwrap();
    assert_eq!((queues[0].webhook.as_str(), queues[0].events), ("ops", 2));
    tx.forget_events(at(100)).await.unwrap();
    assert_eq!(due(&mut tx, 20).await, [2, 3], "what is to be told is not forgotten");
    tx.commit().await.unwrap();
}

async fn only_one_of_two_replicas_takes_a_delivery(test: &TestDatabase) {
    let mut tx = test.database.write().await.unwrap();
    let event = add(&mut tx, "a", 1).await;
    tx.deliver("ops", &event).await.unwrap();
    let delivery = Delivery { webhook: "ops".into(), event, tries: 0 };
    assert!(tx.claim_delivery(&delivery, at(1), at(60)).await.unwrap());
    assert!(!tx.claim_delivery(&delivery, at(2), at(61)).await.unwrap());
    // The one that took it died.
    assert!(tx.claim_delivery(&delivery, at(60), at(120)).await.unwrap());
    tx.put_off_delivery(&delivery, at(60), "").await.unwrap();
    assert!(!tx.claim_delivery(&delivery, at(60), at(120)).await.unwrap(), "it was tried since");
    tx.commit().await.unwrap();
}

async fn a_webhook_that_takes_nothing_has_a_bounded_queue(test: &TestDatabase) {
    let mut tx = test.database.write().await.unwrap();
    let mut given_up = 0;
    for second in 0..i64::try_from(MAX_QUEUE).unwrap() + 2 {
        let event = add(&mut tx, "a", second).await;
        given_up += tx.deliver("ops", &event).await.unwrap();
    }
    assert_eq!(given_up, 2);
    let queues = tx.queues().await.unwrap();
    assert_eq!((queues[0].events, queues[0].tries), (MAX_QUEUE, 0));
    assert_eq!(due(&mut tx, 9_999).await, [3]);
    tx.commit().await.unwrap();
}
