//! Identities, certificates, invites and the audit log.

use jiff::{SignedDuration, Timestamp};
use protocol::{key::VerifyingKey, role::Role, v1::publisher::Presence};

use super::{TestDatabase, on_both};
use crate::db::{StoredCertificate, StoredIdentity, StoredInvite};

on_both! {
    an_identity_reads_back_and_a_revocation_takes_its_certificates
    a_newer_certificate_supersedes_the_older_and_a_repeated_request_finds_its_answer
    an_invite_is_consumed_once
    the_audit_log_is_a_chain
}

fn now() -> Timestamp {
    "2026-01-02T03:04:05.678901Z".parse().unwrap()
}

fn agent(name: &str) -> StoredIdentity {
    StoredIdentity {
        role: Role::Agent,
        name: name.parse().unwrap(),
        site: Some("lisbon".parse().unwrap()),
        signing_key: VerifyingKey::from_bytes([7; 32]),
        trees: vec![],
        created: now(),
        revoked: None,
        reason: String::new(),
        advertise: None,
        last_seen: None,
    }
}

fn certificate(serial: &str, issued: Timestamp) -> StoredCertificate {
    StoredCertificate {
        serial: serial.into(),
        role: Role::Agent,
        name: "a".parse().unwrap(),
        issued,
        not_after: issued + SignedDuration::from_hours(1),
        superseded: None,
        revoked: None,
        confirmed: None,
        issuer: None,
        bundle: None,
    }
}

async fn an_identity_reads_back_and_a_revocation_takes_its_certificates(test: &TestDatabase) {
    let (a, b) = (agent("a"), agent("b"));
    let publisher = StoredIdentity { role: Role::Publisher, site: None, ..agent("p") };
    let mut tx = test.database.write().await.unwrap();
    for identity in [&b, &publisher, &a] {
        tx.put_identity(identity).await.unwrap();
    }
    tx.add_certificate(&certificate("aa", now()), "request", "answer").await.unwrap();
    let presence =
        Presence { advertise: "h:1".into(), version: "1".into(), rsync: Some("3".into()) };
    tx.set_presence(publisher.role, &publisher.name, &presence).await.unwrap();
    tx.set_last_seen(Role::Agent, &b.name, now()).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = test.database.write().await.unwrap();
    let publisher = StoredIdentity { advertise: Some("h:1".into()), ..publisher };
    let b = StoredIdentity { last_seen: Some(now()), ..b };
    assert_eq!(tx.identities().await.unwrap(), [a.clone(), b.clone(), publisher]);
    assert_eq!(tx.identity(Role::Agent, &b.name).await.unwrap(), Some(b.clone()));
    assert_eq!(tx.identity(Role::Admin, &b.name).await.unwrap(), None);
    tx.revoke_identity(Role::Agent, &a.name, "stolen", now()).await.unwrap();
    tx.revoke_identity(Role::Agent, &a.name, "again", Timestamp::MAX).await.unwrap();
    let found = tx.identity(Role::Agent, &a.name).await.unwrap().unwrap();
    assert_eq!((found.revoked, found.reason.as_str()), (Some(now()), "stolen"));
    let found = tx.certificates(now()).await.unwrap();
    assert_eq!(found, [StoredCertificate { revoked: Some(now()), ..certificate("aa", now()) }]);
    // Enrolled again: live, with nothing left of the earlier one.
    tx.put_identity(&a).await.unwrap();
    assert_eq!(tx.identity(Role::Agent, &a.name).await.unwrap(), Some(a));
    tx.commit().await.unwrap();
}

async fn a_newer_certificate_supersedes_the_older_and_a_repeated_request_finds_its_answer(
    test: &TestDatabase,
) {
    let later = now() + SignedDuration::from_mins(30);
    let mut tx = test.database.write().await.unwrap();
    tx.add_certificate(&certificate("aa", now()), "one", "first").await.unwrap();
    tx.add_certificate(&certificate("bb", later), "two", "second").await.unwrap();
    let found = tx.certificates(now()).await.unwrap();
    let first = StoredCertificate { superseded: Some(later), ..certificate("aa", now()) };
    assert_eq!(found, [first, certificate("bb", later)]);
    let name = "a".parse().unwrap();
    let answer = async |tx: &mut crate::db::Transaction, request: &str| {
        tx.renewal_answer(Role::Agent, &name, request).await.unwrap()
    };
    assert_eq!(answer(&mut tx, "two").await.as_deref(), Some("second"));
    assert_eq!(answer(&mut tx, "three").await, None);
    let ended = now() + SignedDuration::from_hours(1);
    assert_eq!(tx.certificates(ended).await.unwrap().len(), 1, "ended ones are left out");
    tx.commit().await.unwrap();
}

async fn an_invite_is_consumed_once(test: &TestDatabase) {
    let invite = StoredInvite {
        id: "i".into(),
        verifier: "v".into(),
        role: Role::Agent,
        name: "a".parse().unwrap(),
        site: Some("lisbon".parse().unwrap()),
        trees: vec!["fedora-*".parse().unwrap()],
        replaces: true,
        approve: false,
        asked: None,
        asking: None,
        approved_by: None,
        made_by: "admin/ann".into(),
        expires: now(),
        consumed: None,
        request: None,
        answer: None,
    };
    let mut tx = test.database.write().await.unwrap();
    tx.add_invite(&invite).await.unwrap();
    assert_eq!(tx.invite("i").await.unwrap(), Some(invite.clone()));
    assert_eq!(tx.invite("j").await.unwrap(), None);
    assert!(tx.consume_invite("i", "request", "answer", now()).await.unwrap());
    assert!(!tx.consume_invite("i", "other", "other", now()).await.unwrap());
    let used = StoredInvite {
        consumed: Some(now()),
        request: Some("request".into()),
        answer: Some("answer".into()),
        ..invite
    };
    assert_eq!(tx.invite("i").await.unwrap(), Some(used.clone()));
    // One that wants approval: the first who asks with it counts, and one decision.
    let wanting = |id: &str| StoredInvite {
        id: id.into(),
        approve: true,
        consumed: None,
        request: None,
        answer: None,
        ..used.clone()
    };
    for id in ["k", "l"] {
        tx.add_invite(&wanting(id)).await.unwrap();
        tx.ask_with_invite(id, "keys", now()).await.unwrap();
        tx.ask_with_invite(id, "others", now()).await.unwrap();
    }
    let asked =
        |id: &str| StoredInvite { asked: Some(now()), asking: Some("keys".into()), ..wanting(id) };
    assert_eq!(tx.waiting_invites().await.unwrap(), [asked("k"), asked("l")]);
    tx.approve_invite("k", "admin/bob").await.unwrap();
    tx.reject_invite("l", now()).await.unwrap();
    let approved = StoredInvite { approved_by: Some("admin/bob".into()), ..asked("k") };
    let rejected =
        StoredInvite { consumed: Some(now()), request: Some("keys".into()), ..asked("l") };
    assert_eq!(tx.invite("k").await.unwrap(), Some(approved));
    assert_eq!(tx.invite("l").await.unwrap(), Some(rejected));
    assert!(tx.waiting_invites().await.unwrap().is_empty());
    // After a restore nothing that was open goes on.
    let open = StoredInvite { expires: now() + SignedDuration::from_hours(1), ..wanting("m") };
    tx.add_invite(&open).await.unwrap();
    tx.ask_with_invite("m", "keys", now()).await.unwrap();
    tx.end_open_invites(now()).await.unwrap();
    assert_eq!(tx.invite("m").await.unwrap(), Some(StoredInvite { expires: now(), ..open }));
    assert_eq!(tx.invite("i").await.unwrap(), Some(used));
    tx.commit().await.unwrap();
}

async fn the_audit_log_is_a_chain(test: &TestDatabase) {
    for what in ["one", "two", "three"] {
        let mut tx = test.database.write().await.unwrap();
        tx.audit(now(), "admin/ann", what, "agent/a", "detail").await.unwrap();
        tx.commit().await.unwrap();
    }
    let log = test.database.read().await.unwrap().audit_log(0, 10).await.unwrap();
    let whats: Vec<_> = log.iter().map(|entry| (entry.number, entry.what.as_str())).collect();
    assert_eq!(whats, [(1, "one"), (2, "two"), (3, "three")]);
    assert!(log.iter().all(|entry| entry.digest == entry.expected_digest()));
    assert_eq!(log[0].previous, "");
    assert!(log.windows(2).all(|pair| pair[1].previous == pair[0].digest));
    let after = test.database.read().await.unwrap().audit_log(1, 1).await.unwrap();
    assert_eq!(after[0].what, "two");
    let mut tx = test.database.read().await.unwrap();
    let found = tx.audited_since(now(), ["three", "one"]).await.unwrap();
    let whats: Vec<_> = found.iter().map(|entry| entry.what.as_str()).collect();
    assert_eq!(whats, ["three", "one"], "the newest first");
    let later = now() + SignedDuration::from_secs(1);
    assert!(tx.audited_since(later, ["three", "one"]).await.unwrap().is_empty());
}
