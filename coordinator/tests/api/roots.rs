//! The root documents: signed where the key is, followed from what was pinned.

use certs::{
    root::{self, TrustedRoot},
    signing::SigningKey,
};
use protocol::{
    dsse::Envelope,
    error::ProblemKind,
    generation::{Epoch, RootNumber},
    role::Role,
    root::Root,
    v1::identities::RevokeRequest,
};

use crate::support::{Network, Peer, kind, problem, statement};

async fn newest(network: &Network) -> TrustedRoot {
    let mut trusted: Option<TrustedRoot> = None;
    let admin = network.admin();
    loop {
        let after = trusted.as_ref().map_or(RootNumber(0), |trusted| trusted.root().number);
        let answer = admin.roots(after).await.unwrap();
        for next in &answer.roots {
            trusted = Some(match &trusted {
                None => TrustedRoot::pin(next).unwrap(),
                Some(trusted) => trusted.follow(next).unwrap(),
            });
        }
        let trusted = trusted.as_ref().unwrap();
        if trusted.root().number == answer.newest {
            return trusted.clone();
        }
    }
}

fn online_key(network: &Network) -> SigningKey {
    SigningKey::load(&network.config.data.join("root.key")).unwrap()
}

fn publishers(root: &TrustedRoot) -> Vec<String> {
    root.root().publishers.iter().map(|entry| entry.publisher.to_string()).collect()
}

/// Takes the root key off the coordinator: names a new one, and removes the file.
async fn go_offline(network: &mut Network) -> SigningKey {
    let (old, new) = (online_key(network), SigningKey::generate().unwrap());
    let mut next = network.admin().root_draft().await.unwrap().next;
    next.keys = vec![new.verifying_key()];
    let signed = root::sign(&next, &[&old, &new]).unwrap();
    network.admin().publish_root(&signed).await.unwrap();
    network.stop().await;
    std::fs::remove_file(network.config.data.join("root.key")).unwrap();
    network.restart().await;
    new
}

#[tokio::test]
async fn with_the_key_at_hand_the_root_follows_who_is_enrolled() {
    let (network, build, lisbon, _) = Network::with_peers().await;
    let root = newest(&network).await;
    assert_eq!((root.root().number, publishers(&root)), (RootNumber(2), vec!["build".to_owned()]));
    let key = root.root().keys_for(&"build".parse().unwrap(), &"alpha".parse().unwrap());
    assert_eq!(key, [build.identity.signing_key.verifying_key()]);
    assert_eq!(lisbon.orders().await.root, RootNumber(2));
    let (name, why) = ("build".parse().unwrap(), RevokeRequest { reason: "stolen".into() });
    network.admin().revoke(Role::Publisher, &name, &why).await.unwrap();
    assert!(publishers(&newest(&network).await).is_empty());
    assert_eq!(lisbon.orders().await.root, RootNumber(3));
}

#[tokio::test]
async fn without_the_key_a_coordinator_names_nobody_and_an_admin_brings_the_signed_draft() {
    let mut network = Network::start().await;
    network.apply(crate::support::DEFINITIONS).await.unwrap();
    let key = go_offline(&mut network).await;
    let admin = network.admin();
    assert!(!admin.roots(RootNumber(0)).await.unwrap().online);
    let build: Peer = network.peer(Role::Publisher, "build", None).await;
    assert!(publishers(&newest(&network).await).is_empty());

    let draft = admin.root_draft().await.unwrap();
    assert!(draft.changes.iter().any(|change| change.contains("build")), "{:?}", draft.changes);
    let forged = root::sign(&draft.next, &[&SigningKey::generate().unwrap()]).unwrap();
    assert_eq!(kind(admin.publish_root(&forged).await), ProblemKind::BadRequest);
    assert_eq!(kind(build.client.publish_root(&forged).await), ProblemKind::Forbidden);
    let signed = root::sign(&draft.next, &[&key]).unwrap();
    admin.publish_root(&signed).await.unwrap();
    admin.publish_root(&signed).await.unwrap();
    assert_eq!(publishers(&newest(&network).await), ["build"]);
    assert!(admin.root_draft().await.unwrap().changes.is_empty());
    let audited = network.audit().await;
    assert_eq!(audited.iter().filter(|entry| entry.what == "sign-root").count(), 2);
}

#[tokio::test]
async fn a_root_that_would_cut_everybody_off_is_refused() {
    let network = Network::start().await;
    let (admin, key) = (network.admin(), online_key(&network));
    let publish = |change: fn(&mut Root)| {
        let (admin, key) = (&admin, &key);
        async move {
            let mut next = admin.root_draft().await.unwrap().next;
            change(&mut next);
            problem(admin.publish_root(&root::sign(&next, &[key]).unwrap()).await).detail
        }
    };
    let other = publish(|next| {
        next.head_keys = vec![SigningKey::generate().unwrap().verifying_key()];
    });
    assert!(other.await.contains("head.key"));
    assert!(publish(|next| next.authorities.clear()).await.contains("authority"));
    assert!(publish(|next| next.number = RootNumber(7)).await.contains("next one is 2"));
}

#[tokio::test]
async fn a_new_epoch_lets_a_trees_numbers_start_over() {
    let (network, build, lisbon, _) = Network::with_peers().await;
    build.state("alpha", 1, "one", None).await.unwrap();
    build.state("alpha", 2, "two", Some("one")).await.unwrap();
    let admin = network.admin();
    let mut next = admin.root_draft().await.unwrap().next;
    next.epochs.insert("alpha".parse().unwrap(), Epoch(2));
    let signed: Envelope = root::sign(&next, &[&online_key(&network)]).unwrap();
    admin.publish_root(&signed).await.unwrap();
    let order = build.publisher_orders().await;
    let alpha = order.trees.iter().find(|tree| tree.tree.as_str() == "alpha").unwrap();
    assert_eq!(alpha.epoch, Epoch(2));
    // What went on in the old epoch is over.
    let old = build.state("alpha", 3, "three", Some("two")).await;
    assert_eq!(kind(old), ProblemKind::ParentMismatch);
    let mut first = statement("alpha", 1, "two", None);
    first.epoch = Epoch(2);
    let first = build.sign(&first);
    build.client.announce_statement(&"alpha".parse().unwrap(), &first).await.unwrap();
    let target = lisbon.orders().await.assignments[0].target.clone().unwrap();
    assert_eq!(target.statement, first);
    assert_eq!(network.admin().roots(RootNumber(2)).await.unwrap().roots, [signed]);
}
