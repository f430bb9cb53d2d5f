//! Certificates that must not be accepted, at both ends.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Usage, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};

use super::{Running, SOON, client};
use crate::{
    authority::{self, Authority},
    csr::PublicKey,
    dial::Dialer,
    identity::{Identity, PeerIdentity, Role, Serial},
    revocation::RevokedSerials,
    testing::TestNetwork,
    tls::{
        self, ALPN_HTTP1, ClientTls, Credentials, Refusal, ServerExpectation, ServerTls, refusal,
    },
};

/// What the client learns when it asks under `credentials`.
async fn ask_as(network: &TestNetwork, credentials: Credentials, port: u16) -> Option<Refusal> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let tls = ClientTls::new(credentials, network.authority.anchors().unwrap());
    let expected = ServerExpectation::Coordinator;
    let dialer = Dialer::default();
    let connected =
        tls::connect(&dialer, &tls, ("127.0.0.1", port), &expected, ALPN_HTTP1, SOON).await;
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(error) => return Some(refusal(&error).unwrap()),
    };
    let exchange = async {
        let request = b"GET /whoami HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    match tokio::time::timeout(SOON, exchange).await.unwrap() {
        Ok(answer) if answer.contains("urn:mirrornet:problem:revoked") => Some(Refusal::Revoked),
        Ok(answer) if answer.contains("urn:mirrornet:problem:expired") => Some(Refusal::Expired),
        Ok(answer) => {
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            None
        }
        Err(error) => Some(refusal(&error).unwrap_or_else(|| panic!("{error:?}"))),
    }
}

/// A leaf of our own making, signed by one of the network's intermediate authorities.
fn forge(
    dir: &std::path::Path,
    issuer: &str,
    change: impl FnOnce(&mut CertificateParams),
) -> Credentials {
    let ca = dir.join("ca-net");
    let read = |name: String| std::fs::read_to_string(ca.join(name)).unwrap();
    let issuer_pem = read(format!("{issuer}.pem"));
    let issuer_key = KeyPair::from_pem(&read(format!("{issuer}.key"))).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&issuer_pem, issuer_key).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![Usage::ClientAuth];
    params.subject_alt_names = vec![uri("spiffe://net/agent/forged")];
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    Credentials::from_pem(&(certificate.pem() + &issuer_pem), &key.serialize_pem()).unwrap()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

#[tokio::test]
async fn only_the_exact_client_certificate_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let server = Running::start(network.server()).await;
    let ask = async |issuer: &str, change: &dyn Fn(&mut CertificateParams)| {
        let credentials = forge(dir.path(), issuer, change);
        ask_as(&network, credentials, server.port).await
    };
    assert_eq!(ask("clients", &|_| {}).await, None, "the pattern itself is good");
    let no_usage = ask("clients", &|p| p.extended_key_usages.clear()).await;
    assert_eq!(no_usage, Some(Refusal::NotAccepted));
    let both = ask("clients", &|p| p.extended_key_usages.push(Usage::ServerAuth)).await;
    assert_eq!(both, Some(Refusal::NotAccepted));
    let server_only = ask("clients", &|p| p.extended_key_usages = vec![Usage::ServerAuth]).await;
    assert_eq!(server_only, Some(Refusal::NotAccepted));
    let any = ask("clients", &|p| p.extended_key_usages = vec![Usage::Any]).await;
    assert_eq!(any, Some(Refusal::NotAccepted));
    let authority = ask("clients", &|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))).await;
    assert!(authority.is_some(), "a CA is no identity");
    let unsaid = ask("clients", &|p| p.is_ca = IsCa::NoCa).await;
    assert_eq!(unsaid, Some(Refusal::NotAccepted));
    let from_servers = ask("servers", &|_| {}).await;
    assert!(from_servers.is_some(), "the servers' authority certifies no clients");
    let expired = ask("clients", &|p| p.not_after = rcgen::date_time_ymd(2020, 1, 1)).await;
    assert_eq!(expired, Some(Refusal::Expired));
    let early = ask("clients", &|p| p.not_before = rcgen::date_time_ymd(4000, 1, 1)).await;
    assert!(early.is_some());
    for names in [
        vec![],
        vec![uri("spiffe://net/agent/a"), uri("spiffe://net/admin/b")],
        vec![uri("spiffe://net/agent/a"), SanType::DnsName("a".try_into().unwrap())],
        vec![uri("spiffe://other/agent/a")],
        vec![uri("spiffe://net/coordinator/a")],
        vec![uri("spiffe://net/root/a")],
        vec![uri("spiffe://net/agent/a/b")],
        vec![uri("spiffe://net/agent/../a")],
        vec![uri("https://net/agent/a")],
    ] {
        let text = format!("{names:?}");
        let answer = ask("clients", &|p| p.subject_alt_names.clone_from(&names)).await;
        assert_eq!(answer, Some(Refusal::NotAccepted), "{text}");
    }
}

#[tokio::test]
async fn a_foreign_certificate_and_none_at_all_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let server = Running::start(network.server()).await;
    // The same network name, but another authority.
    let elsewhere = tempfile::tempdir().unwrap();
    let twin = TestNetwork::create(elsewhere.path(), "net");
    let stranger = twin.identity(Role::Admin, "eve").await;
    let answer = ask_as(&network, stranger.client.clone(), server.port).await;
    assert_eq!(answer, Some(Refusal::UnknownAuthority));
    // And the stranger does not accept our server either.
    let refused = client(&stranger).get(server.url("/whoami")).send().await.unwrap_err();
    assert_eq!(refusal(&refused), Some(Refusal::ServerNotTrusted), "{refused:?}");

    let root = tls::certificates_from_pem(network.authority.root_pem()).unwrap();
    let root = reqwest::Certificate::from_der(&root[0]).unwrap();
    let nobody = reqwest::Client::builder().tls_certs_only([root]).no_proxy().build().unwrap();
    let refused = nobody.get(server.url("/whoami")).send().await.unwrap_err();
    assert_eq!(refusal(&refused), Some(Refusal::CertificateRequired), "{refused:?}");
}

async fn meet(
    identity: &Arc<Identity>,
    server: &Running,
    host: &str,
    expected: &ServerExpectation,
) -> Result<(), tls::Error> {
    let address = (host, server.port);
    let dialer = Dialer::default();
    tls::connect(&dialer, &identity.client_tls(), address, expected, ALPN_HTTP1, SOON)
        .await
        .map(drop)
}

#[tokio::test]
async fn a_client_accepts_only_the_server_it_means() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let agent = network.identity(Role::Agent, "lisbon").await;
    let build = network.identity(Role::Publisher, "build").await;
    let as_server = |credentials: Credentials| {
        ServerTls::new(&credentials, network.peers(), &[ALPN_HTTP1]).unwrap()
    };
    let coordinator = Running::start(network.server()).await;
    let publisher = Running::start(as_server(build.server.clone().unwrap())).await;
    let the_coordinator = ServerExpectation::Coordinator;
    let the_publisher = ServerExpectation::publisher("build".parse().unwrap());
    let another = ServerExpectation::publisher("other".parse().unwrap());

    meet(&agent, &coordinator, "127.0.0.1", &the_coordinator).await.unwrap();
    meet(&agent, &publisher, "127.0.0.1", &the_publisher).await.unwrap();
    for (server, expected) in
        [(&coordinator, &the_publisher), (&publisher, &the_coordinator), (&publisher, &another)]
    {
        let error = meet(&agent, server, "127.0.0.1", expected).await.unwrap_err();
        assert_eq!(refusal(&error), Some(Refusal::ServerNotTrusted), "{expected}: {error:?}");
    }

    // A name that the certificate does not have: the coordinator's counts, a publisher's does not.
    let name = |host: &str| authority_server(&network.authority, Role::Coordinator, host);
    let elsewhere = Running::start(as_server(name("elsewhere.example.org"))).await;
    let error = meet(&agent, &elsewhere, "127.0.0.1", &the_coordinator).await.unwrap_err();
    assert_eq!(refusal(&error), Some(Refusal::ServerNotTrusted));
    let nameless = authority_server(&network.authority, Role::Publisher, "elsewhere.example.org");
    let nameless = Running::start(as_server(nameless)).await;
    let expected = ServerExpectation::publisher("build".parse().unwrap());
    meet(&agent, &nameless, "127.0.0.1", &expected).await.unwrap();
}

fn authority_server(authority: &Authority, role: Role, host: &str) -> Credentials {
    let made = crate::csr::KeyRequest::generate().unwrap();
    let key = PublicKey::from_request(&made.request).unwrap();
    let hosts = [host.to_owned()];
    let name = "build".parse().unwrap();
    let now = Timestamp::now();
    let issued = authority.issue_server(&key, role, &name, &hosts, authority::LIFE, now).unwrap();
    Credentials::from_pem(&issued.chain_pem, &made.key_pem).unwrap()
}

#[tokio::test]
async fn a_client_refuses_servers_with_certificates_of_the_wrong_kind() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let agent = network.identity(Role::Agent, "lisbon").await;
    let names = || {
        let address = SanType::IpAddress("127.0.0.1".parse().unwrap());
        vec![uri("spiffe://net/coordinator/c"), address]
    };
    let server_like = |change: &dyn Fn(&mut CertificateParams), issuer: &str| {
        forge(dir.path(), issuer, |params| {
            params.extended_key_usages = vec![Usage::ServerAuth];
            params.subject_alt_names = names();
            change(params);
        })
    };
    let good = server_like(&|_| {}, "servers");
    let bad = [
        ("a client's", agent.client.clone()),
        ("by the clients' authority", server_like(&|_| {}, "clients")),
        ("no usage", server_like(&|p| p.extended_key_usages.clear(), "servers")),
        ("both uses", server_like(&|p| p.extended_key_usages.push(Usage::ClientAuth), "servers")),
        ("no identity", server_like(&|p| drop(p.subject_alt_names.remove(0)), "servers")),
        (
            "two identities",
            server_like(&|p| p.subject_alt_names.push(uri("spiffe://net/agent/x")), "servers"),
        ),
        (
            "another network",
            server_like(
                &|p| p.subject_alt_names[0] = uri("spiffe://other/coordinator/c"),
                "servers",
            ),
        ),
    ];
    let expected = ServerExpectation::Coordinator;
    let start = async |credentials: &Credentials| {
        let tls = ServerTls::new(credentials, network.peers(), &[ALPN_HTTP1]).unwrap();
        Running::start(tls).await
    };
    let server = start(&good).await;
    meet(&agent, &server, "127.0.0.1", &expected).await.unwrap();
    for (what, credentials) in bad {
        let server = start(&credentials).await;
        let error = meet(&agent, &server, "127.0.0.1", &expected).await.unwrap_err();
        assert_eq!(refusal(&error), Some(Refusal::ServerNotTrusted), "{what}: {error:?}");
    }
    let (past, future) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(4000, 1, 1));
    for out_of_time in [
        server_like(&|params| params.not_after = past, "servers"),
        server_like(&|params| params.not_before = future, "servers"),
    ] {
        let server = start(&out_of_time).await;
        let error = meet(&agent, &server, "127.0.0.1", &expected).await.unwrap_err();
        assert_eq!(refusal(&error), Some(Refusal::ServerOutOfTime), "{error:?}");
    }
}

#[test]
fn a_request_that_asks_for_everything_gets_a_plain_leaf() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let key = KeyPair::generate().unwrap();
    let mut wishes = CertificateParams::default();
    wishes.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    wishes.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    wishes.extended_key_usages = vec![Usage::Any, Usage::ServerAuth, Usage::CodeSigning];
    wishes.subject_alt_names = vec![uri("spiffe://net/admin/eve")];
    wishes.distinguished_name.push(DnType::CommonName, "eve");
    let request = wishes.serialize_request(&key).unwrap();
    let key = PublicKey::from_request(request.der()).unwrap();
    let name = "lisbon".parse().unwrap();
    let now = Timestamp::now();
    let issued = network.authority.issue(&key, Role::Agent, &name, authority::LIFE, now).unwrap();
    let chain = tls::certificates_from_pem(&issued.chain_pem).unwrap();
    let identity = PeerIdentity::from_client_certificate(&chain[0]).unwrap();
    assert_eq!(identity.uri().to_string(), "spiffe://net/agent/lisbon");
    assert_eq!(identity.serial, issued.serial);
    assert_eq!(identity.not_after.as_second(), issued.not_after.as_second());
    let life = identity.not_after.duration_since(identity.not_before);
    assert_eq!(life, SignedDuration::from_hours(7 * 24) + SignedDuration::from_mins(5));
    let text = String::from_utf8_lossy(&chain[0]);
    assert!(!text.contains("eve"));
    let usage = key_usage(&chain[0]);
    assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign());
}

fn key_usage(der: &[u8]) -> x509_parser::extensions::KeyUsage {
    use x509_parser::prelude::FromDer as _;
    let (_, certificate) = x509_parser::prelude::X509Certificate::from_der(der).unwrap();
    *certificate.key_usage().unwrap().unwrap().value
}

#[test]
fn a_client_certificate_for_the_coordinator_or_a_host_that_is_none_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let made = crate::csr::KeyRequest::generate().unwrap();
    let key = PublicKey::from_request(&made.request).unwrap();
    let (name, now, life) = ("c".parse().unwrap(), Timestamp::now(), authority::LIFE);
    let refused = network.authority.issue(&key, Role::Coordinator, &name, life, now);
    assert!(matches!(refused, Err(authority::Error::CoordinatorAsClient)));
    for host in ["", "a b", "a/b", "*", "..", "https://a"] {
        let hosts = [host.to_owned()];
        let refused =
            network.authority.issue_server(&key, Role::Publisher, &name, &hosts, life, now);
        assert!(matches!(refused, Err(authority::Error::InvalidHost { .. })), "{host:?}");
    }
}

#[test]
fn third_parties_get_a_standard_list_of_what_is_revoked() {
    use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let now = Timestamp::now();
    let serial: Serial = "80a1".parse().unwrap();
    let revoked = RevokedSerials::from_iter([(serial.clone(), now)]);
    let lists = network.authority.revocation_lists(&revoked, 7, authority::LIFE, now).unwrap();
    for (list, issuer) in lists.iter().zip(["clients", "servers"]) {
        let (_, pem) = x509_parser::pem::parse_x509_pem(list.as_bytes()).unwrap();
        let (_, list) = CertificateRevocationList::from_der(&pem.contents).unwrap();
        let issuer = std::fs::read_to_string(dir.path().join(format!("ca-net/{issuer}.pem")));
        let issuer = &tls::certificates_from_pem(&issuer.unwrap()).unwrap()[0];
        let (_, issuer) = X509Certificate::from_der(issuer).unwrap();
        list.verify_signature(issuer.public_key()).unwrap();
        assert_eq!(list.issuer(), issuer.subject());
        assert_eq!(list.crl_number(), Some(&7u32.into()));
        let serials: Vec<Serial> = list
            .iter_revoked_certificates()
            .map(|entry| Serial::from_bytes(entry.raw_serial()).unwrap())
            .collect();
        assert_eq!(serials, std::slice::from_ref(&serial));
        let next = list.next_update().unwrap().timestamp();
        assert_eq!(next, (now + authority::LIFE).as_second());
    }
}
