//! Mandates: kept only where they are followed, and told to the site that they are about.

use certs::{
    root,
    signing::{self, SigningKey},
};
use protocol::{
    dsse::Envelope,
    error::ProblemKind,
    statement::Claim as _,
    v1::{
        agent::AssignmentOrder,
        mandates::{Mandate, NewMandates},
    },
};

use crate::support::{Network, kind};

fn mandate(key: &SigningKey, network: &str, number: u64, order: &AssignmentOrder) -> Envelope {
    let network = network.parse().unwrap();
    let mandate = Mandate { network, number, agent: None, ended: false, order: order.clone() };
    signing::sign_json(key, Mandate::PAYLOAD_TYPE, &mandate).unwrap()
}

#[tokio::test]
async fn mandates_of_the_roots_definitions_key_reach_the_site_that_they_are_about() {
    let (network, _build, lisbon, oslo) = Network::with_peers().await;
    let admin = network.admin();
    let key = SigningKey::generate().unwrap();
    let order = lisbon.orders().await.assignments.remove(0);
    let new = |mandates: &[&Envelope]| NewMandates {
        mandates: mandates.iter().map(|mandate| (*mandate).clone()).collect(),
    };
    let first = mandate(&key, "testnet", 1, &order);
    let early = admin.put_mandates(&new(&[&first])).await;
    assert_eq!(kind(early), ProblemKind::Conflict, "nobody would follow it");

    let mut next = admin.root_draft().await.unwrap().next;
    next.definition_keys = vec![key.verifying_key()];
    let online = SigningKey::load(&network.config.data.join("root.key")).unwrap();
    admin.publish_root(&root::sign(&next, &[&online]).unwrap()).await.unwrap();
    admin.put_mandates(&new(&[&first])).await.unwrap();
    assert_eq!(lisbon.orders().await.mandates, std::slice::from_ref(&first));
    assert!(oslo.orders().await.mandates.is_empty(), "it learns nothing of other sites");

    let second = mandate(&key, "testnet", 2, &order);
    admin.put_mandates(&new(&[&second])).await.unwrap();
    let stranger = mandate(&SigningKey::generate().unwrap(), "testnet", 3, &order);
    let foreign = mandate(&key, "other", 3, &order);
    let good = mandate(&key, "testnet", 4, &order);
    for (mandates, wanted) in [
        (vec![&first], ProblemKind::Conflict),
        (vec![&good, &stranger], ProblemKind::BadRequest),
        (vec![&good, &foreign], ProblemKind::BadRequest),
    ] {
        assert_eq!(kind(admin.put_mandates(&new(&mandates)).await), wanted);
    }
    assert_eq!(lisbon.orders().await.mandates, [second], "all are taken, or none");
    // A root that follows from who is enrolled keeps the key.
    network.peer(protocol::role::Role::Publisher, "other", None).await;
    let draft = admin.root_draft().await.unwrap();
    assert_eq!(draft.next.definition_keys, [key.verifying_key()]);
}
