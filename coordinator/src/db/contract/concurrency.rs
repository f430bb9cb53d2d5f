//! Revisions, topics, and several processes at once.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use protocol::generation::Revision;

use super::{TestDatabase, on_both};
use crate::db::{Counter, Database, Error, Topic};

on_both! {
    a_poller_misses_nothing_of_two_writers_with_delayed_commits
    what_is_not_committed_leaves_nothing
    a_reader_sees_one_state_while_a_writer_works
    opening_again_changes_nothing
    a_database_of_a_newer_program_is_refused
    times_and_epochs_are_kept
}

fn tree(writer: usize, number: usize) -> Topic {
    Topic::Tree(format!("t{writer}-{number}").parse().unwrap())
}

async fn a_poller_misses_nothing_of_two_writers_with_delayed_commits(test: &TestDatabase) {
    const EACH: usize = 40;
    let done = Arc::new(AtomicBool::new(false));
    let poller = {
        let (database, done) = (test.again().await, Arc::clone(&done));
        tokio::spawn(async move { poll(&database, &done).await })
    };
    let mut writers = Vec::new();
    for writer in 0..2 {
        let database = test.again().await;
        writers.push(tokio::spawn(async move {
            for number in 0..EACH {
                let mut tx = database.write().await.unwrap();
                tx.next_revision(&[tree(writer, number)]).await.unwrap();
                // The number is taken, and everybody has time to overtake.
                let pause = (number * 7 + writer * 3) % 5;
                tokio::time::sleep(Duration::from_millis(pause as u64)).await;
                tx.commit().await.unwrap();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    let seen = poller.await.unwrap();
    let expected: BTreeSet<_> =
        (0..2).flat_map(|writer| (0..EACH).map(move |number| tree(writer, number))).collect();
    assert_eq!(seen, expected);
}

/// Asks over and over for what is newer than the newest revision that it saw.
async fn poll(database: &Database, done: &AtomicBool) -> BTreeSet<Topic> {
    let mut seen = BTreeSet::new();
    let mut known = Revision(0);
    loop {
        let last = done.load(Ordering::SeqCst);
        let mut tx = database.read().await.unwrap();
        let revision = tx.revision().await.unwrap();
        let news = tx.topics_after(known).await.unwrap();
        tx.commit().await.unwrap();
        assert!(revision >= known, "revisions never go back");
        assert!(news.values().all(|changed| *changed <= revision));
        seen.extend(news.into_keys());
        known = revision;
        if last {
            return seen;
        }
    }
}

async fn what_is_not_committed_leaves_nothing(test: &TestDatabase) {
    let database = &test.database;
    let before = database.read().await.unwrap().revision().await.unwrap();
    let mut tx = database.write().await.unwrap();
    tx.next_revision(&[tree(0, 0)]).await.unwrap();
    drop(tx);
    let mut tx = database.read().await.unwrap();
    assert_eq!(tx.revision().await.unwrap(), before);
    assert!(tx.topics_after(Revision(0)).await.unwrap().is_empty());
}

async fn a_reader_sees_one_state_while_a_writer_works(test: &TestDatabase) {
    let mut reader = test.database.read().await.unwrap();
    let before = reader.revision().await.unwrap();
    let mut writer = test.database.write().await.unwrap();
    writer.next_revision(&[tree(0, 0)]).await.unwrap();
    writer.commit().await.unwrap();
    assert_eq!(reader.revision().await.unwrap(), before);
    assert!(reader.topics_after(Revision(0)).await.unwrap().is_empty());
    reader.commit().await.unwrap();
    let mut reader = test.database.read().await.unwrap();
    assert_eq!(reader.revision().await.unwrap(), before.next());
}

async fn opening_again_changes_nothing(test: &TestDatabase) {
    let mut tx = test.database.write().await.unwrap();
    let revision = tx.next_revision(&[Topic::Heads]).await.unwrap();
    tx.commit().await.unwrap();
    let again = test.again().await;
    assert_eq!(again.read().await.unwrap().revision().await.unwrap(), revision);
}

async fn a_database_of_a_newer_program_is_refused(test: &TestDatabase) {
    let mut tx = test.database.write().await.unwrap();
    let insert = "INSERT INTO migrations (name, applied) VALUES ('9999_later', 0)";
    crate::db::execute!(tx, insert).unwrap();
    tx.commit().await.unwrap();
    let opened = match &test.url {
        Some(url) => Database::connect_postgres(url).await,
        None => Database::open_sqlite(test.dir.path()).await,
    };
    assert!(matches!(opened, Err(Error::Newer { found }) if found == "9999_later"));
}

async fn times_and_epochs_are_kept(test: &TestDatabase) {
    let now = "2026-01-02T03:04:05.678901Z".parse().unwrap();
    let mut tx = test.database.write().await.unwrap();
    let epoch = tx.restore_epoch().await.unwrap();
    let told = Revision(tx.revision().await.unwrap().0 + 1_000_000);
    assert_eq!(tx.raise_restore_epoch().await.unwrap(), epoch.next());
    assert!(tx.revision().await.unwrap() > told, "what the lost database told is passed");
    tx.set_time(Counter::HeadRenewed, now).await.unwrap();
    let head = tx.head_number().await.unwrap();
    tx.next_revision(&[]).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = test.database.read().await.unwrap();
    assert_eq!(tx.time_of(Counter::HeadRenewed).await.unwrap(), now);
    assert_eq!(tx.restore_epoch().await.unwrap(), epoch.next());
    assert_eq!(tx.head_number().await.unwrap(), head.next());
}
