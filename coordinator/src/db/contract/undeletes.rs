//! What admins want back from the trash.

use jiff::Timestamp;
use protocol::v1::agent::{UndeleteOrder, UndeleteRequest};
use uuid::Uuid;

use super::{TestDatabase, on_both};

on_both! {
    a_wish_stays_until_its_own_assignment_has_answered_it
}

async fn a_wish_stays_until_its_own_assignment_has_answered_it(test: &TestDatabase) {
    let (fedora, debian) = ("fedora@lisbon".parse().unwrap(), "debian@lisbon".parse().unwrap());
    let path = protocol::path::TreePath::parse(b"a/\xff").ok();
    let one = UndeleteRequest { path, from: Some("1700000000".into()) };
    let one = UndeleteOrder { id: Uuid::now_v7(), what: one };
    let two = UndeleteOrder { id: Uuid::now_v7(), what: UndeleteRequest::default() };
    let mut tx = test.database.write().await.unwrap();
    for (second, (name, order)) in [(&fedora, &one), (&debian, &two)].into_iter().enumerate() {
        let now = Timestamp::from_second(1_700_000_000 + second as i64).unwrap();
        tx.add_undelete(name, order, now).await.unwrap();
    }
    let all = vec![(fedora.clone(), one.clone()), (debian.clone(), two.clone())];
    assert_eq!(tx.undeletes().await.unwrap(), all);
    assert!(!tx.end_undelete(&debian, one.id).await.unwrap(), "it is not debian's");
    assert!(tx.end_undelete(&fedora, one.id).await.unwrap());
    assert!(!tx.end_undelete(&fedora, one.id).await.unwrap(), "once");
    assert_eq!(tx.undeletes().await.unwrap(), [(debian, two)]);
    tx.commit().await.unwrap();
}
