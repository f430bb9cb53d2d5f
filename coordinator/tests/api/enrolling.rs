//! Invites and what becomes of them.

use certs::enrollment::Error;
use protocol::{
    error::ProblemKind,
    role::Role,
    units::Span,
    v1::identities::{InviteRequest, RevokeRequest},
};

use crate::support::{DEFINITIONS, Network, kind};

fn agent(name: &str) -> InviteRequest {
    InviteRequest {
        role: Role::Agent,
        name: name.parse().unwrap(),
        site: Some("lisbon".parse().unwrap()),
        trees: vec![],
        ttl: None,
        replace: false,
        approve: false,
    }
}

fn status(result: Result<impl std::fmt::Debug, Error>) -> (u16, String) {
    match result.unwrap_err() {
        Error::Refused { status, detail } => (status, detail),
        error => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn an_invite_makes_exactly_the_identity_that_it_names() {
    let (network, build, lisbon, _) = Network::with_peers().await;
    let who = lisbon.client.whoami().await.unwrap();
    assert_eq!((who.role, who.name.as_str()), (Role::Agent, "lisbon-1"));
    assert_eq!(who.site.unwrap().as_str(), "lisbon");
    assert_eq!(who.network.as_str(), "testnet");
    assert!(build.identity.server.is_some(), "a publisher gets a server certificate");
    assert!(lisbon.identity.server.is_none());
    assert_eq!(lisbon.identity.membership.api_url, network.url());
}

#[tokio::test]
async fn an_invite_that_is_used_with_other_keys_is_refused_and_raises_an_alarm() {
    let network = Network::start().await;
    network.apply(DEFINITIONS).await.unwrap();
    let invite = network.invite(Role::Agent, "lisbon-1", Some("lisbon")).await;
    network.enroll(&invite, "lisbon-1").await.unwrap();
    let (code, detail) = status(network.enroll(&invite, "thief").await);
    assert_eq!(code, 403);
    assert!(detail.contains("used before"), "{detail}");
    let misused = network.audit().await.into_iter().find(|entry| entry.what == "invite-misused");
    assert_eq!(misused.unwrap().target, "agent/lisbon-1");
    // It stays in sight until an admin has acted, and is told once however often it is tried.
    status(network.enroll(&invite, "thief").await);
    let alarms = async || {
        let attention = network.admin().status().await.unwrap().attention;
        attention.iter().filter(|text| text.contains("was used again with other keys")).count()
    };
    assert_eq!(alarms().await, 1);
    let name = "lisbon-1".parse().unwrap();
    network.admin().revoke(Role::Agent, &name, &RevokeRequest::default()).await.unwrap();
    assert_eq!(alarms().await, 0);
}

#[tokio::test]
async fn an_invite_that_has_ended_is_refused() {
    let network = Network::start().await;
    network.apply(DEFINITIONS).await.unwrap();
    let request = InviteRequest { ttl: Some(Span::from_secs(1)), ..agent("lisbon-1") };
    let answer = network.admin().invite(&request).await.unwrap();
    while jiff::Timestamp::now() < answer.expires {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let (code, detail) = status(network.enroll(&answer.invite, "lisbon-1").await);
    assert_eq!(code, 403);
    assert!(detail.contains("expired"), "{detail}");
}

#[tokio::test]
async fn a_guessed_secret_learns_nothing_about_the_invite() {
    let network = Network::start().await;
    network.apply(DEFINITIONS).await.unwrap();
    let invite = network.invite(Role::Agent, "lisbon-1", Some("lisbon")).await;
    let mut parts: Vec<_> = invite.splitn(5, '.').map(str::to_owned).collect();
    let other = network.invite(Role::Agent, "lisbon-2", Some("lisbon")).await;
    parts[2] = other.split('.').nth(2).unwrap().to_owned();
    let wrong_secret = status(network.enroll(&parts.join("."), "guess").await);
    parts[1] = "0".repeat(32);
    let no_such_invite = status(network.enroll(&parts.join("."), "guess-2").await);
    assert_eq!(wrong_secret, no_such_invite);
    network.enroll(&invite, "lisbon-1").await.unwrap();
}

#[tokio::test]
async fn what_an_invite_may_not_give_is_refused_when_it_is_asked_for() {
    let (network, ..) = Network::with_peers().await;
    let admin = network.admin();
    let coordinator = InviteRequest { role: Role::Coordinator, site: None, ..agent("x") };
    assert_eq!(kind(admin.invite(&coordinator).await), ProblemKind::BadRequest);
    let homeless = InviteRequest { site: None, ..agent("x") };
    assert_eq!(kind(admin.invite(&homeless).await), ProblemKind::BadRequest);
    let nowhere = InviteRequest { site: Some("paris".parse().unwrap()), ..agent("x") };
    assert_eq!(kind(admin.invite(&nowhere).await), ProblemKind::NotFound);
    assert_eq!(kind(admin.invite(&agent("lisbon-1")).await), ProblemKind::Conflict);
    let for_ever = InviteRequest { ttl: Some(Span::from_secs(30 * 86_400)), ..agent("x") };
    assert_eq!(kind(admin.invite(&for_ever).await), ProblemKind::BadRequest);
}

#[tokio::test]
async fn a_name_is_taken_over_only_on_purpose_and_the_old_identity_is_revoked() {
    let (network, _, lisbon, _) = Network::with_peers().await;
    let replace = InviteRequest { replace: true, ..agent("lisbon-1") };
    let invite = network.admin().invite(&replace).await.unwrap().invite;
    lisbon.client.whoami().await.unwrap();
    let new = network.enroll(&invite, "new-disk").await.unwrap();
    assert!(lisbon.client.whoami().await.is_err());
    network.client(&new).whoami().await.unwrap();
    let name = "lisbon-1".parse().unwrap();
    let admin = network.admin();
    admin.revoke(Role::Agent, &name, &RevokeRequest::default()).await.unwrap();
    // A revoked name is free again.
    let invite = admin.invite(&agent("lisbon-1")).await.unwrap().invite;
    network.enroll(&invite, "third-disk").await.unwrap();
}

#[tokio::test]
async fn an_answer_that_was_lost_is_given_again_for_the_same_keys_and_no_others() {
    let network = Network::start().await;
    network.apply(DEFINITIONS).await.unwrap();
    let invite = network.invite(Role::Agent, "lisbon-1", Some("lisbon")).await;
    let data = network.data_of("lisbon-1");
    let options = certs::enrollment::EnrollOptions::default();
    let lost = async |_| Err::<(), _>(std::io::Error::other("the power went"));
    let line = invite.parse().unwrap();
    certs::enrollment::enroll(&line, &data, &options, lost).await.unwrap_err();
    let first = std::fs::read(data.join("identity.new/cert.pem")).unwrap();
    let identity = network.enroll(&invite, "lisbon-1").await.unwrap();
    assert_eq!(std::fs::read(data.join("identity/cert.pem")).unwrap(), first);
    network.client(&identity).whoami().await.unwrap();
    assert_eq!(network.audit().await.iter().filter(|entry| entry.what == "enroll").count(), 1);
}

#[tokio::test]
async fn an_invite_that_wants_approval_lets_in_only_the_keys_that_an_admin_compared() {
    let network = std::sync::Arc::new(Network::start().await);
    network.apply(DEFINITIONS).await.unwrap();
    let admin = network.admin();
    let request = InviteRequest { approve: true, ..agent("lisbon-1") };
    let invite = admin.invite(&request).await.unwrap().invite;
    let there = std::sync::Arc::clone(&network);
    let (line, data) = (invite.clone(), network.data_of("lisbon-1"));
    let enrolling = tokio::spawn(async move { there.enroll(&line, "lisbon-1").await });
    let waiting = asked(&network).await;
    // What the admin sees is what the machine can compute of its own keys.
    let pending = certs::identity::Pending::enroll(&data, &[]).unwrap();
    let own = certs::enrollment::key_fingerprint(pending.keys(), &pending.signing_key());
    assert_eq!(waiting.fingerprint, own);
    assert_eq!((waiting.role, waiting.name.as_str()), (Role::Agent, "lisbon-1"));
    let told = admin.status().await.unwrap().attention.join("\n");
    assert!(told.contains(&own.to_string()) && told.contains("approve-enrollment"), "{told}");
    assert!(admin.identities(Some(Role::Agent)).await.unwrap().is_empty(), "nobody is in yet");
    // Somebody else with the same invite is refused and seen, and takes nobody's place.
    let (code, _) = status(network.enroll(&invite, "thief").await);
    assert_eq!(code, 403);
    let told = admin.status().await.unwrap().attention.join("\n");
    assert!(told.contains("was used again with other keys"), "{told}");
    let others = certs::identity::Pending::enroll(&network.data_of("thief"), &[]).unwrap();
    let others = certs::enrollment::key_fingerprint(others.keys(), &others.signing_key());
    assert_eq!(kind(admin.approve_enrollment(&others).await), ProblemKind::NotFound);

    admin.approve_enrollment(&own).await.unwrap();
    let identity = enrolling.await.unwrap().unwrap();
    let who = network.client(&identity).whoami().await.unwrap();
    assert_eq!((who.name.as_str(), who.site.unwrap().as_str()), ("lisbon-1", "lisbon"));
    assert!(admin.enrollments().await.unwrap().is_empty());
    assert_eq!(kind(admin.approve_enrollment(&own).await), ProblemKind::NotFound, "only once");
    let whats: Vec<_> = network.audit().await.into_iter().map(|entry| entry.what).collect();
    for what in ["enrollment-asked", "enrollment-approved", "invite-misused", "enroll"] {
        assert!(whats.iter().any(|found| found == what), "{what} in {whats:?}");
    }
    // The alarm is of before this enrollment, so it is settled by it.
    let told = admin.status().await.unwrap().attention.join("\n");
    assert!(!told.contains("was used again"), "{told}");
}

#[tokio::test]
async fn a_rejected_enrollment_is_told_so_and_its_invite_is_used_up() {
    let network = std::sync::Arc::new(Network::start().await);
    network.apply(DEFINITIONS).await.unwrap();
    let admin = network.admin();
    let request = InviteRequest { approve: true, ..agent("lisbon-1") };
    let invite = admin.invite(&request).await.unwrap().invite;
    let (there, line) = (std::sync::Arc::clone(&network), invite.clone());
    let enrolling = tokio::spawn(async move { there.enroll(&line, "lisbon-1").await });
    let waiting = asked(&network).await;
    admin.reject_enrollment(&waiting.fingerprint).await.unwrap();
    let (code, detail) = status(enrolling.await.unwrap());
    assert!(code == 403 && detail.contains("rejected"), "{code} {detail}");
    let (code, _) = status(network.enroll(&invite, "another").await);
    assert_eq!(code, 403);
}

/// The enrollment that waits, once there is one.
async fn asked(network: &Network) -> protocol::v1::identities::EnrollmentStatus {
    let admin = network.admin();
    let found = async {
        loop {
            if let Some(waiting) = admin.enrollments().await.unwrap().into_iter().next() {
                return waiting;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::support::SOON, found).await.unwrap()
}
