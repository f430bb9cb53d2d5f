//! Mandates.

use protocol::dsse::{Bytes, Envelope};

use super::{TestDatabase, on_both};

on_both! {
    the_newest_mandate_of_an_assignment_is_kept
}

async fn the_newest_mandate_of_an_assignment_is_kept(test: &TestDatabase) {
    let (one, two) = ("a@lisbon".parse().unwrap(), "b@lisbon".parse().unwrap());
    let mandate = |text: &str| Envelope {
        payload_type: "mandate".into(),
        payload: Bytes(text.as_bytes().to_vec()),
        signatures: vec![],
    };
    let mut tx = test.database.write().await.unwrap();
    assert!(tx.put_mandate(&one, 5, &mandate("five")).await.unwrap());
    assert!(!tx.put_mandate(&one, 5, &mandate("other")).await.unwrap());
    assert!(!tx.put_mandate(&one, 4, &mandate("four")).await.unwrap());
    assert!(tx.put_mandate(&two, 1, &mandate("one")).await.unwrap());
    assert!(tx.put_mandate(&one, 6, &mandate("six")).await.unwrap());
    let all = [(one, mandate("six")), (two, mandate("one"))];
    assert_eq!(tx.mandates().await.unwrap(), all);
    tx.commit().await.unwrap();
}
