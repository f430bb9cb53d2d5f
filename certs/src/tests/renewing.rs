//! The life of an identity: on the disk, in clients, and at its renewal.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use jiff::{SignedDuration, Timestamp};
use protocol::v1::enroll::{LateRenewRequest, RenewRequest, RenewResponse};
use tokio_util::sync::CancellationToken;

use super::{Running, until};
use crate::{
    authority::{self, LIFE},
    dial::Dialer,
    identity::{Identity, Pending, Role, directory},
    keyfile, late,
    live::{LiveClient, LiveIdentity},
    testing::TestNetwork,
    tls::{self, ALPN_HTTP1, ServerExpectation, ServerTls},
};

type Answer = Result<RenewResponse, std::io::Error>;

fn renewed(network: &TestNetwork, name: &str, request: &RenewRequest) -> Answer {
    let now = Timestamp::now();
    let certificates = network.certify(&request.keys, Role::Agent, name, LIFE, now);
    Ok(RenewResponse { certificates, enroll_url: None })
}

async fn works(_: Arc<Identity>) -> Result<(), std::io::Error> {
    Ok(())
}

#[tokio::test]
async fn after_a_renewal_a_client_shows_the_new_certificate_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let first = network.identity(Role::Agent, "lisbon").await;
    let live = LiveIdentity::open(&network.data(Role::Agent, "lisbon")).unwrap();
    let server = Running::start(network.server()).await;
    let client = LiveClient::new(&live, ServerExpectation::Coordinator, Dialer::default()).unwrap();
    let shown = async || {
        let answer = client.get().get(server.url("/whoami")).send().await.unwrap();
        answer.text().await.unwrap()
    };
    assert!(shown().await.ends_with(&first.serial.to_string()));
    let mut told = live.subscribe();
    let renew = async |request: RenewRequest| renewed(&network, "lisbon", &request);
    let second = live.renew_once(&renew, &works).await.unwrap();
    assert_ne!(second.serial, first.serial);
    assert_eq!(second.signing_key.verifying_key(), first.signing_key.verifying_key());
    assert!(shown().await.ends_with(&second.serial.to_string()));
    assert!(told.has_changed().unwrap());
    assert_eq!(told.borrow_and_update().serial, second.serial);
    let stored = Identity::load(&network.data(Role::Agent, "lisbon")).unwrap();
    assert_eq!(stored.serial, second.serial);
}

#[tokio::test]
async fn the_renewed_key_is_a_new_one_and_nothing_of_the_old_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    network.identity(Role::Agent, "lisbon").await;
    let data = network.data(Role::Agent, "lisbon");
    let key = || fs::read_to_string(data.join("identity/key.pem")).unwrap();
    let before = key();
    let live = LiveIdentity::open(&data).unwrap();
    let renew = async |request: RenewRequest| renewed(&network, "lisbon", &request);
    let identity = live.renew_once(&renew, &works).await.unwrap();
    assert_ne!(key(), before);
    let mut names: Vec<String> = fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["identity".to_owned(), format!("identity-{}", identity.serial)]);
}

#[tokio::test]
async fn a_new_certificate_that_does_not_work_leaves_the_old_one_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let first = network.identity(Role::Agent, "lisbon").await;
    let data = network.data(Role::Agent, "lisbon");
    let live = LiveIdentity::open(&data).unwrap();
    let asked = Mutex::new(Vec::new());
    let renew = async |request: RenewRequest| {
        asked.lock().unwrap().push(request.keys.clone());
        renewed(&network, "lisbon", &request)
    };
    let broken = async |_| Err::<(), _>(std::io::Error::other("401 from whoami"));
    live.renew_once(&renew, &broken).await.unwrap_err();
    assert_eq!(live.current().serial, first.serial);
    assert_eq!(Identity::load(&data).unwrap().serial, first.serial);
    live.renew_once(&renew, &works).await.unwrap();
    let asked = asked.into_inner().unwrap();
    assert_eq!(asked[0], asked[1], "the second try asks for the same keys");
}

#[tokio::test]
async fn an_answer_that_has_expired_spends_its_keys() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let first = network.identity(Role::Agent, "lisbon").await;
    let live = LiveIdentity::open(&network.data(Role::Agent, "lisbon")).unwrap();
    let asked = Mutex::new(Vec::new());
    let long_ago = Timestamp::now() - SignedDuration::from_hours(8 * 24);
    let renew = async |request: RenewRequest| -> Answer {
        asked.lock().unwrap().push(request.keys.clone());
        let certificates = network.certify(&request.keys, Role::Agent, "lisbon", LIFE, long_ago);
        Ok(RenewResponse { certificates, enroll_url: None })
    };
    live.renew_once(&renew, &works).await.unwrap_err();
    live.renew_once(&renew, &works).await.unwrap_err();
    assert_eq!(live.current().serial, first.serial);
    let asked = asked.into_inner().unwrap();
    assert_ne!(asked[0], asked[1]);
}

#[tokio::test]
async fn a_publisher_shows_its_renewed_server_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let first = network.identity(Role::Publisher, "build").await;
    let agent = network.identity(Role::Agent, "lisbon").await;
    let live = LiveIdentity::open(&network.data(Role::Publisher, "build")).unwrap();
    let tls = ServerTls::new(first.server.as_ref().unwrap(), network.peers(), &[ALPN_HTTP1]);
    let tls = tls.unwrap();
    let server = Running::start(Arc::clone(&tls)).await;
    let stop = CancellationToken::new();
    let renew = async |request: RenewRequest| -> Answer {
        let now = Timestamp::now();
        let role = Role::Publisher;
        let certificates = network.certify(&request.keys, role, "build", LIFE, now);
        Ok(RenewResponse { certificates, enroll_url: None })
    };
    let shown = async || shown_to(&agent, &server, &ServerExpectation::publisher(name())).await;
    assert_eq!(shown().await, first.server.as_ref().unwrap().certificate());
    let renewed = async {
        let second = live.renew_once(&renew, &works).await.unwrap();
        let wanted = second.server.as_ref().unwrap().certificate();
        while shown().await != wanted {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let both = async { tokio::join!(live.keep_shown(&tls, stop.clone()), renewed) };
    tokio::time::timeout(super::SOON, both).await.unwrap();
}

fn name() -> protocol::name::IdentityName {
    "build".parse().unwrap()
}

/// The certificate that `server` shows to `identity`.
async fn shown_to(identity: &Identity, server: &Running, expected: &ServerExpectation) -> Vec<u8> {
    let (dialer, tls) = (Dialer::default(), identity.client_tls());
    let address = ("127.0.0.1", server.port);
    let stream = tls::connect(&dialer, &tls, address, expected, ALPN_HTTP1, super::SOON);
    stream.await.unwrap().get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn certificates_for_another_name_network_or_key_are_not_installed() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let elsewhere = TestNetwork::create(dir.path(), "elsewhere");
    let first = network.identity(Role::Agent, "lisbon").await;
    let live = LiveIdentity::open(&network.data(Role::Agent, "lisbon")).unwrap();
    let other_keys = network.data(Role::Agent, "other");
    let other = Pending::enroll(&other_keys, &[]).unwrap();
    let now = Timestamp::now();
    let answers = [
        |network: &TestNetwork, _: &TestNetwork, own: &_, _: &_, now| {
            network.certify(own, Role::Agent, "porto", LIFE, now)
        },
        |network: &TestNetwork, _: &TestNetwork, own: &_, _: &_, now| {
            network.certify(own, Role::Admin, "lisbon", LIFE, now)
        },
        |_: &TestNetwork, elsewhere: &TestNetwork, own: &_, _: &_, now| {
            elsewhere.certify(own, Role::Agent, "lisbon", LIFE, now)
        },
        |network: &TestNetwork, _: &TestNetwork, _: &_, foreign: &_, now| {
            network.certify(foreign, Role::Agent, "lisbon", LIFE, now)
        },
    ];
    for answer in answers {
        let renew = async |request: RenewRequest| -> Answer {
            let certificates = answer(&network, &elsewhere, &request.keys, other.keys(), now);
            Ok(RenewResponse { certificates, enroll_url: None })
        };
        live.renew_once(&renew, &works).await.unwrap_err();
        assert_eq!(live.current().serial, first.serial);
    }
}

#[tokio::test]
async fn renewal_happens_by_itself_at_half_life_also_when_the_first_try_fails() {
    let dir = tempfile::tempdir().unwrap();
    let network = Arc::new(TestNetwork::create(dir.path(), "net"));
    let life = SignedDuration::from_secs(20);
    // Made a while ago: half of its life is over within two seconds.
    let made = Timestamp::now() - SignedDuration::from_secs(10);
    let first = network.identity_with(Role::Agent, "lisbon", life, made).await;
    let live = LiveIdentity::open(&network.data(Role::Agent, "lisbon")).unwrap();
    let tries = Arc::new(AtomicUsize::new(0));
    let (counter, source) = (Arc::clone(&tries), Arc::clone(&network));
    let renew = move |request: RenewRequest| {
        let earlier = counter.fetch_add(1, Ordering::SeqCst);
        let answer = match earlier {
            0 => Err(std::io::Error::other("503")),
            _ => renewed(&source, "lisbon", &request),
        };
        async move { answer }
    };
    let stop = CancellationToken::new();
    let (keeper, ended) = (Arc::clone(&live), stop.clone());
    let task = tokio::spawn(async move { keeper.keep_renewed(renew, works, ended).await });
    until("the certificate is renewed", || live.current().serial != first.serial).await;
    assert_eq!(tries.load(Ordering::SeqCst), 2);
    stop.cancel();
    tokio::time::timeout(super::SOON, task).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_interrupted_enrollment_goes_on_with_the_same_keys() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let names = ["build.example.org".to_owned()];
    let first = Pending::enroll(&data, &names).unwrap();
    let again = Pending::enroll(&data, &names).unwrap();
    assert_eq!(first.keys(), again.keys());
    assert_eq!(first.signing_key(), again.signing_key());
    // Killed before the request was complete: everything is made anew.
    fs::remove_file(data.join("identity.new/request.json")).unwrap();
    let anew = Pending::enroll(&data, &names).unwrap();
    assert_ne!(first.keys(), anew.keys());
    // For other host names another certificate is needed.
    let elsewhere = Pending::enroll(&data, &[]).unwrap();
    assert_eq!(elsewhere.keys().server_csr, None);
}

#[tokio::test]
async fn an_identity_that_is_enrolled_anew_is_taken_up_by_the_running_program() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    network.identity(Role::Agent, "lisbon").await;
    let data = network.data(Role::Agent, "lisbon");
    let live = LiveIdentity::open(&data).unwrap();
    assert!(!live.take_up_replaced());
    let second = network.identity(Role::Agent, "lisbon").await;
    assert!(live.take_up_replaced());
    assert_eq!(live.current().serial, second.serial);
    assert_eq!(
        live.current().signing_key.verifying_key(),
        second.signing_key.verifying_key(),
        "an enrollment brings a new signing key"
    );
    fs::remove_file(data.join("identity")).unwrap();
    assert!(!live.take_up_replaced(), "a damaged directory replaces nothing");
}

#[tokio::test]
async fn a_switch_that_was_cut_short_is_finished_by_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    network.identity(Role::Agent, "lisbon").await;
    let data = network.data(Role::Agent, "lisbon");
    // What a kill between the renames may leave behind.
    fs::create_dir(data.join("identity-0123")).unwrap();
    std::os::unix::fs::symlink("identity-0123", data.join("identity.tmp")).unwrap();
    let live = LiveIdentity::open(&data).unwrap();
    let renew = async |request: RenewRequest| renewed(&network, "lisbon", &request);
    let renewed = live.renew_once(&renew, &works).await.unwrap();
    let target = fs::read_link(data.join("identity")).unwrap();
    assert_eq!(target.to_str().unwrap(), format!("identity-{}", renewed.serial));
    assert!(!data.join("identity-0123").exists() && !data.join("identity.tmp").exists());
}

#[tokio::test]
async fn every_file_of_an_identity_is_private_and_a_loose_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    network.identity(Role::Publisher, "build").await;
    let data = network.data(Role::Publisher, "build");
    let identity = data.join("identity");
    assert_eq!(fs::metadata(&identity).unwrap().mode() & 0o7777, 0o700);
    let mut count = 0;
    for entry in fs::read_dir(&identity).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600, "{path:?}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = Identity::load(&data).unwrap_err();
        let text = super::renewing::whole(&error);
        assert!(text.contains("chmod 600"), "{path:?}: {text}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        count += 1;
    }
    assert_eq!(count, 7);
    // An identity directory can be named itself, as mirrorctl's --identity does.
    Identity::load(&identity).unwrap();
    fs::set_permissions(&identity, fs::Permissions::from_mode(0o750)).unwrap();
    let error = whole(&Identity::load(&data).unwrap_err());
    assert!(error.contains("chmod 700"), "{error}");
}

/// An error with its causes.
fn whole(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(whole).unwrap_or_default();
    format!("{error}: {cause}")
}

#[test]
fn without_an_identity_the_next_step_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = Identity::load(dir.path()).unwrap_err();
    assert!(matches!(error, directory::Error::NotEnrolled { .. }));
    assert!(error.to_string().contains("mirrorctl invite"));
}

#[test]
fn an_authority_is_made_once_and_refused_when_a_key_is_loose_or_foreign() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let ca = dir.path().join("ca-net");
    let again = authority::Authority::create(&ca, network.authority.network(), Timestamp::now());
    let again = again.err().unwrap();
    assert!(matches!(again, authority::Error::KeyFile(keyfile::Error::Exists { .. })));

    // The root's key may be elsewhere.
    fs::remove_file(ca.join("root.key")).unwrap();
    let opened = authority::Authority::open(&ca).unwrap();
    assert_eq!(opened.network(), network.authority.network());
    assert_eq!(opened.pin(), network.authority.pin());

    let key = ca.join("clients.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let loose = authority::Authority::open(&ca).err().unwrap();
    assert!(loose.to_string().contains("chmod 600"), "{loose}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::copy(ca.join("servers.key"), &key).unwrap();
    let foreign = authority::Authority::open(&ca).err().unwrap();
    assert!(matches!(foreign, authority::Error::NotItsKey { .. }), "{foreign}");
}

#[tokio::test]
async fn a_request_after_the_end_is_worth_something_for_its_keys_and_connection_only() {
    let dir = tempfile::tempdir().unwrap();
    let made = Timestamp::now() - SignedDuration::from_hours(20 * 24);
    let network = TestNetwork::create_at(dir.path(), "net", made);
    let agent = network.expired_identity(Role::Agent, "late", made).await;
    assert!(agent.not_after < Timestamp::now());
    let (anchors, now) = (network.authority.anchors().unwrap(), Timestamp::now());
    let pending = Pending::renew(&network.data(Role::Agent, "late"), &agent).unwrap();
    let here = tls::Exporter([7; 32]);
    let good = late::sign(&agent, pending.keys(), &here).unwrap();
    let check =
        |request: &LateRenewRequest, exporter| late::check(request, &anchors, exporter, now);
    let peer = check(&good, &here).unwrap();
    assert_eq!((peer.name.as_str(), &peer.serial), ("late", &agent.serial));
    assert!(check(&good, &tls::Exporter([8; 32])).is_err(), "another connection");
    let changes: [fn(&mut LateRenewRequest); 6] = [
        |request| request.keys.csr.0[30] ^= 1,
        |request| request.keys.server_names.push("evil.example.org".into()),
        |request| request.nonce.0[0] ^= 1,
        |request| request.signature.0[10] ^= 1,
        |request| request.chain.truncate(1),
        |request| request.chain.clear(),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut changed = good.clone();
        change(&mut changed);
        assert!(check(&changed, &here).is_err(), "change {number}");
    }
    // Another's certificate with our signature, and a stranger of the same name.
    let other = network.expired_identity(Role::Agent, "other", made).await;
    let mut stolen = good.clone();
    stolen.chain[0] = protocol::dsse::Bytes(other.client.certificate().to_vec());
    assert!(check(&stolen, &here).is_err());
    let elsewhere = tempfile::tempdir().unwrap();
    let twin = TestNetwork::create_at(elsewhere.path(), "net", made);
    let stranger = twin.expired_identity(Role::Agent, "late", made).await;
    let forged = late::sign(&stranger, pending.keys(), &here).unwrap();
    assert!(check(&forged, &here).is_err());
}
