//! Leases of connections.

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{TestDatabase, on_both};

on_both! {
    never_more_leases_count_than_the_upstream_allows
    a_lease_that_was_not_prolonged_or_was_given_back_is_free_again
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap() + SignedDuration::from_secs(second)
}

async fn take(test: &TestDatabase, id: Uuid, agent: &str, most: u32, now: i64) -> bool {
    let (upstream, agent) = ("kernel".parse().unwrap(), agent.parse().unwrap());
    let mut tx = test.database.write().await.unwrap();
    let taken = tx.take_lease(id, (&upstream, most), &agent, at(now), at(now + 60)).await.unwrap();
    tx.commit().await.unwrap();
    taken
}

async fn give_back(test: &TestDatabase, id: Uuid, agent: &str) {
    let mut tx = test.database.write().await.unwrap();
    tx.end_lease(id, &agent.parse().unwrap()).await.unwrap();
    tx.commit().await.unwrap();
}

async fn never_more_leases_count_than_the_upstream_allows(test: &TestDatabase) {
    let asked = (0..12).map(|agent| async move {
        let id = Uuid::now_v7();
        take(test, id, &format!("agent-{agent}"), 3, 0).await.then_some((agent, id))
    });
    let taken: Vec<_> = futures_util::future::join_all(asked).await.into_iter().flatten().collect();
    assert_eq!(taken.len(), 3);
    // Who has one may keep it while all are taken; nobody else can take it over.
    let (agent, id) = taken[0];
    assert!(take(test, id, &format!("agent-{agent}"), 3, 30).await);
    assert!(!take(test, id, "another", 4, 30).await);
    // Another upstream has its own.
    let (upstream, agent) = ("debian".parse().unwrap(), "a".parse().unwrap());
    let mut tx = test.database.write().await.unwrap();
    let other = tx.take_lease(Uuid::now_v7(), (&upstream, 1), &agent, at(30), at(90)).await;
    assert!(other.unwrap());
    tx.commit().await.unwrap();
}

async fn a_lease_that_was_not_prolonged_or_was_given_back_is_free_again(test: &TestDatabase) {
    let (one, two, three) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    assert!(take(test, one, "a", 1, 0).await);
    assert!(!take(test, two, "b", 1, 59).await);
    assert!(take(test, two, "b", 1, 60).await, "the first was not prolonged");
    assert!(!take(test, three, "c", 1, 61).await);
    give_back(test, two, "c").await;
    assert!(!take(test, three, "c", 1, 61).await, "only its holder gives it back");
    give_back(test, two, "b").await;
    assert!(take(test, three, "c", 1, 61).await);
}
