//! Roots of the operator's own, and two roots at once.

use jiff::{SignedDuration, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};

use super::{Running, client};
use crate::{
    authority::{Authority, Error, LIFE, OwnAuthority},
    csr::{KeyRequest, PublicKey},
    identity::Role,
    testing::TestNetwork,
    tls::{ALPN_HTTP1, ConnectionRegistry, Peers, ServerTls},
};

/// An authority as a company may have one, and its key.
fn company(change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Example Corp Issuing CA 7");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_after = rcgen::date_time_ymd(2040, 1, 1);
    change(&mut params);
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// What is different about an authority.
type Change = fn(&mut CertificateParams);

fn network_in(dir: &std::path::Path) -> TestNetwork {
    std::fs::create_dir(dir).unwrap();
    TestNetwork::create(dir, "net")
}

#[tokio::test]
async fn a_network_below_an_authority_of_the_operator_lets_in_its_own_and_keeps_no_root_key() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = company(|_| {});
    let own = OwnAuthority { certificate: &certificate, key: &key };
    let (network, now) = ("net".parse().unwrap(), Timestamp::now());
    let ca = dir.path().join("ca");
    let authority = Authority::create_below(&ca, &own, &network, now).unwrap();
    assert_eq!(authority.network(), &network);
    assert_eq!(authority.root_pem(), certificate);
    let names: Vec<_> = std::fs::read_dir(&ca)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(!names.contains(&"root.key".to_owned()), "{names:?}");
    let opened = Authority::open(&ca).unwrap();
    assert_eq!((opened.network(), opened.pin()), (&network, authority.pin()));
    // A client and a server of it meet.
    let hosts = ["127.0.0.1".to_owned()];
    let (credentials, _) =
        opened.coordinator_server(&"coordinator".parse().unwrap(), &hosts, LIFE, now).unwrap();
    let registry = ConnectionRegistry::new();
    let peers = Peers::Identities { anchors: opened.anchors().unwrap(), registry };
    let server = ServerTls::new(&credentials, peers, &[ALPN_HTTP1]).unwrap();
    let server = Running::start(server).await;
    let mut twin = network_in(&dir.path().join("other"));
    twin.authority = opened;
    let agent = twin.identity(Role::Agent, "lisbon").await;
    let answer = client(&agent).get(server.url("/whoami")).send().await.unwrap();
    assert!(answer.text().await.unwrap().starts_with("spiffe://net/agent/lisbon "));
    // Nothing that it issues outlives it.
    let made = KeyRequest::generate().unwrap();
    let public = PublicKey::from_request(&made.request).unwrap();
    let far = SignedDuration::from_hours(24 * 365 * 30);
    let issued = twin.authority.issue(&public, Role::Agent, &"a".parse().unwrap(), far, now);
    assert!(issued.unwrap().not_after <= "2040-01-01T00:00:00Z".parse().unwrap());
}

#[test]
fn an_authority_below_which_nothing_good_can_be_issued_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (network, now) = ("net".parse().unwrap(), Timestamp::now());
    let refuse = |what: &str, certificate: &str, key: &str| {
        let own = OwnAuthority { certificate, key };
        let refused = Authority::create_below(&dir.path().join("ca"), &own, &network, now);
        assert!(refused.is_err(), "{what}");
        assert!(!dir.path().join("ca").exists(), "{what}");
        refused.err().unwrap()
    };
    let (good, key) = company(|_| {});
    let (other, other_key) = company(|_| {});
    refuse("another key", &good, &other_key);
    refuse("no certificate", "nonsense", &key);
    refuse("no key", &good, "nonsense");
    let two = refuse("a chain", &(good.clone() + &other), &key);
    assert!(matches!(two, Error::NotOneAuthority), "{two:?}");
    let bad: [(&str, Change); 4] = [
        ("a leaf", |params| params.is_ca = IsCa::ExplicitNoCa),
        ("too shallow", |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))),
        ("cannot sign", |params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]),
        ("it is over", |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1)),
    ];
    for (what, change) in bad {
        let (certificate, key) = company(change);
        refuse(what, &certificate, &key);
    }
}

#[tokio::test]
async fn while_a_root_is_replaced_both_are_let_in_and_afterwards_only_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let old = network_in(&dir.path().join("a"));
    let new = network_in(&dir.path().join("b"));
    let (early, late) =
        (old.identity(Role::Agent, "early").await, new.identity(Role::Agent, "late").await);
    let again = |network: &TestNetwork, at: &str| {
        let dir = dir.path().join(at).join("ca-net");
        assert_eq!(Authority::open(&dir).unwrap().pin(), network.authority.pin());
        Authority::open(&dir).unwrap()
    };
    let spreading = again(&old, "a").also_trusting(again(&new, "b"));
    let replacing = again(&new, "b").also_trusting(again(&old, "a"));
    assert_eq!(spreading.bundle_id(), replacing.bundle_id(), "the same roots");
    assert_ne!(spreading.bundle_id(), old.authority.bundle_id());
    assert_ne!(spreading.issuer_id(), replacing.issuer_id());
    let hears = async |authority: &Authority, identity| {
        let hosts = ["127.0.0.1".to_owned()];
        let name = "coordinator".parse().unwrap();
        let (shown, _) =
            old.authority.coordinator_server(&name, &hosts, LIFE, Timestamp::now()).unwrap();
        let registry = ConnectionRegistry::new();
        let peers = Peers::Identities { anchors: authority.anchors().unwrap(), registry };
        let tls = ServerTls::new(&shown, peers, &[ALPN_HTTP1]).unwrap();
        let server = Running::start(tls).await;
        // As a holder of both roots does, whoever issued the server's certificate.
        let mut identity: crate::identity::Identity = identity;
        identity.anchors = spreading.anchors().unwrap();
        client(&identity).get(server.url("/whoami")).send().await.is_ok()
    };
    let load = |network: &TestNetwork, name| {
        let loaded = crate::identity::Identity::load(&network.data(Role::Agent, name)).unwrap();
        std::sync::Arc::into_inner(loaded).unwrap()
    };
    for authority in [&spreading, &replacing] {
        assert!(hears(authority, load(&old, "early")).await);
        assert!(hears(authority, load(&new, "late")).await);
    }
    assert!(!hears(&new.authority, load(&old, "early")).await);
    assert!(hears(&new.authority, load(&new, "late")).await);
    let lists = replacing
        .revocation_lists(&crate::revocation::RevokedSerials::default(), 1, LIFE, Timestamp::now())
        .unwrap();
    assert_eq!(lists.len(), 4, "two authorities of each root");
    drop((early, late));
}
