//! Hand-made certificates at both ends, over real connections: which are let in, and which are not.
//!
//! What is refused is refused whichever way it shows; what the refused end hears is tested elsewhere.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose as Usage, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Running, SOON};
use crate::{
    dial::Dialer,
    identity::Role,
    testing::TestNetwork,
    tls::{self, ALPN_HTTP1, ClientTls, Credentials, ServerExpectation, ServerTls},
};

/// Not the alphabet of names, but what an attacker may write.
fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

fn local() -> SanType {
    SanType::IpAddress("127.0.0.1".parse().unwrap())
}

/// The network's own authorities, and what else may stand above a leaf.
struct Forge {
    dir: tempfile::TempDir,
    network: TestNetwork,
}

impl Forge {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = TestNetwork::create(dir.path(), "net");
        Self { dir, network }
    }

    fn authority(&self, name: &str) -> (String, KeyPair) {
        let read = |ending: &str| {
            std::fs::read_to_string(self.dir.path().join(format!("ca-net/{name}.{ending}")))
        };
        (read("pem").unwrap(), KeyPair::from_pem(&read("key").unwrap()).unwrap())
    }

    /// A leaf below `issuer`, with that and `beside` sent along.
    fn leaf(
        &self,
        issuer: &str,
        beside: &str,
        key: &KeyPair,
        params: &CertificateParams,
    ) -> Credentials {
        let (pem, issuer_key) = self.authority(issuer);
        let issuer = Issuer::from_ca_cert_pem(&pem, issuer_key).unwrap();
        let chain = params.signed_by(key, &issuer).unwrap().pem() + &pem + beside;
        Credentials::from_pem(&chain, &key.serialize_pem()).unwrap()
    }
}

fn client_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![Usage::ClientAuth];
    params.subject_alt_names = vec![uri("spiffe://net/agent/forged")];
    params.not_after = date_time_ymd(2090, 1, 1);
    params
}

fn server_params() -> CertificateParams {
    let mut params = client_params();
    params.extended_key_usages = vec![Usage::ServerAuth];
    params.subject_alt_names = vec![uri("spiffe://net/coordinator/c"), local()];
    params
}

fn extension(oid: &[u64], critical: bool) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, vec![0x05, 0x00]);
    extension.set_criticality(critical);
    extension
}

type Change = fn(&mut CertificateParams);

/// Cases of one leaf that hold for both ends alike: name, what is different, whether it is let in.
const COMMON: &[(&str, Change, bool)] = &[
    ("as it should be", |_| {}, true),
    ("no use", |p| p.extended_key_usages.clear(), false),
    ("any use", |p| p.extended_key_usages = vec![Usage::Any], false),
    ("its use and any", |p| p.extended_key_usages.push(Usage::Any), false),
    ("both uses", |p| p.extended_key_usages = vec![Usage::ClientAuth, Usage::ServerAuth], false),
    ("code signing too", |p| p.extended_key_usages.push(Usage::CodeSigning), false),
    ("mail too", |p| p.extended_key_usages.push(Usage::EmailProtection), false),
    ("time stamps too", |p| p.extended_key_usages.push(Usage::TimeStamping), false),
    ("OCSP too", |p| p.extended_key_usages.push(Usage::OcspSigning), false),
    ("a use nobody knows too", |p| p.extended_key_usages.push(Usage::Other(vec![1, 2, 3])), false),
    ("only code signing", |p| p.extended_key_usages = vec![Usage::CodeSigning], false),
    ("an authority", |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained), false),
    ("a shallow authority", |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)), false),
    ("nothing about authority", |p| p.is_ca = IsCa::NoCa, false),
    ("not yet", |p| p.not_before = date_time_ymd(2089, 1, 1), false),
    (
        "ends before it begins",
        |p| {
            p.not_before = date_time_ymd(2024, 1, 1);
            p.not_after = date_time_ymd(2023, 1, 1);
        },
        false,
    ),
    ("no names", |p| p.subject_alt_names.clear(), false),
    ("two identities", |p| p.subject_alt_names.push(uri("spiffe://net/agent/other")), false),
    (
        "the same identity twice",
        |p| {
            let own = p.subject_alt_names[0].clone();
            p.subject_alt_names.push(own);
        },
        false,
    ),
    ("another network", |p| p.subject_alt_names[0] = uri("spiffe://other/agent/forged"), false),
    ("a longer network", |p| p.subject_alt_names[0] = uri("spiffe://net.evil/agent/forged"), false),
    ("a role nobody has", |p| p.subject_alt_names[0] = uri("spiffe://net/root/forged"), false),
    ("a role in capitals", |p| p.subject_alt_names[0] = uri("spiffe://net/AGENT/forged"), false),
    ("no role", |p| p.subject_alt_names[0] = uri("spiffe://net/forged"), false),
    ("no name", |p| p.subject_alt_names[0] = uri("spiffe://net/agent/"), false),
    ("a path for a name", |p| p.subject_alt_names[0] = uri("spiffe://net/agent/a/b"), false),
    ("up and down", |p| p.subject_alt_names[0] = uri("spiffe://net/agent/../agent/a"), false),
    ("a query", |p| p.subject_alt_names[0] = uri("spiffe://net/agent/a?admin"), false),
    ("a fragment", |p| p.subject_alt_names[0] = uri("spiffe://net/agent/a#admin"), false),
    ("an escape", |p| p.subject_alt_names[0] = uri("spiffe://net/agent/%61"), false),
    ("a user", |p| p.subject_alt_names[0] = uri("spiffe://net@evil/agent/a"), false),
    ("a port", |p| p.subject_alt_names[0] = uri("spiffe://net:443/agent/a"), false),
    ("another scheme", |p| p.subject_alt_names[0] = uri("https://net/agent/a"), false),
    ("a scheme in capitals", |p| p.subject_alt_names[0] = uri("SPIFFE://net/agent/a"), false),
    ("a space", |p| p.subject_alt_names[0] = uri("spiffe://net/agent/a b"), false),
    ("a line break", |p| p.subject_alt_names[0] = uri("spiffe://net/agent/a\nb"), false),
    ("an end of text", |p| p.subject_alt_names[0] = uri("spiffe://net/agent/a\0"), false),
    (
        "a name without end",
        |p| {
            p.subject_alt_names[0] = uri(&format!("spiffe://net/agent/{}", "a".repeat(2000)));
        },
        false,
    ),
    (
        "mail beside it",
        |p| {
            p.subject_alt_names.push(SanType::Rfc822Name("a@example.org".try_into().unwrap()));
        },
        false,
    ),
    (
        "more names than anyone has",
        |p| {
            p.subject_alt_names.extend((0..70).map(|n| dns(&format!("h{n}.example.org"))));
        },
        false,
    ),
    (
        "larger than any",
        |p| {
            p.custom_extensions =
                vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 1], vec![0x30; 20_000])];
        },
        false,
    ),
    (
        "something unknown",
        |p| p.custom_extensions = vec![extension(&[1, 3, 6, 1, 4, 1, 9], false)],
        true,
    ),
    (
        "something unknown and critical",
        |p| {
            p.custom_extensions = vec![extension(&[1, 3, 6, 1, 4, 1, 9], true)];
        },
        false,
    ),
    (
        "its use said twice",
        |p| p.custom_extensions = vec![extension(&[2, 5, 29, 37], false)],
        false,
    ),
    ("a serial of nothing", |p| p.serial_number = Some(SerialNumber::from_slice(&[0])), false),
    (
        "a serial of 20 bytes",
        |p| p.serial_number = Some(SerialNumber::from_slice(&[0x7f; 20])),
        true,
    ),
    (
        "a serial of 21 bytes",
        |p| p.serial_number = Some(SerialNumber::from_slice(&[0x7f; 21])),
        false,
    ),
];

/// Cases of clients alone.
const CLIENTS: &[(&str, Change, bool)] = &[
    ("a server's use", |p| p.extended_key_usages = vec![Usage::ServerAuth], false),
    ("a host name beside it", |p| p.subject_alt_names.push(dns("a.example.org")), false),
    ("an address beside it", |p| p.subject_alt_names.push(local()), false),
    ("only a host name", |p| p.subject_alt_names = vec![dns("a.example.org")], false),
    ("the coordinator", |p| p.subject_alt_names = vec![uri("spiffe://net/coordinator/c")], false),
    ("an operator", |p| p.subject_alt_names = vec![uri("spiffe://net/operator/o")], true),
    ("an admin", |p| p.subject_alt_names = vec![uri("spiffe://net/admin/a")], true),
    ("no key usage", |p| p.key_usages.clear(), true),
];

/// Cases of servers alone, where the coordinator on 127.0.0.1 is expected.
const SERVERS: &[(&str, Change, bool)] = &[
    ("a client's use", |p| p.extended_key_usages = vec![Usage::ClientAuth], false),
    ("it is over", |p| p.not_after = date_time_ymd(2020, 1, 1), false),
    ("more host names", |p| p.subject_alt_names.push(dns("c.example.org")), true),
    ("no host name", |p| p.subject_alt_names.truncate(1), false),
    (
        "another address",
        |p| {
            p.subject_alt_names[1] = SanType::IpAddress("127.0.0.2".parse().unwrap());
        },
        false,
    ),
    ("another host", |p| p.subject_alt_names[1] = dns("other.example.org"), false),
    ("every host", |p| p.subject_alt_names[1] = dns("*.example.org"), false),
    ("a publisher", |p| p.subject_alt_names[0] = uri("spiffe://net/publisher/c"), false),
    ("an agent", |p| p.subject_alt_names[0] = uri("spiffe://net/agent/c"), false),
    ("the address as a host name", |p| p.subject_alt_names[1] = dns("127.0.0.1"), false),
];

/// Whether a client with these credentials gets an answer from its handler.
async fn is_let_in(forge: &Forge, credentials: Credentials, port: u16) -> bool {
    let tls = ClientTls::new(credentials, forge.network.authority.anchors().unwrap());
    let dialer = Dialer::default();
    let address = ("127.0.0.1", port);
    let expected = ServerExpectation::Coordinator;
    let stream = tls::connect(&dialer, &tls, address, &expected, ALPN_HTTP1, SOON).await;
    let Ok(mut stream) = stream else { return false };
    let exchange = async {
        let request = b"GET /whoami HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(SOON, exchange).await.unwrap();
    answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
}

#[tokio::test]
async fn of_the_certificates_that_clients_show_only_the_exact_ones_are_let_in() {
    let forge = Forge::new();
    let server = Running::start(forge.network.server()).await;
    let key = KeyPair::generate().unwrap();
    for (what, change, good) in COMMON.iter().chain(CLIENTS) {
        let mut params = client_params();
        change(&mut params);
        let credentials = forge.leaf("clients", "", &key, &params);
        assert_eq!(is_let_in(&forge, credentials, server.port).await, *good, "{what}");
    }
}

#[tokio::test]
async fn of_the_certificates_that_servers_show_only_the_exact_ones_are_believed() {
    let forge = Forge::new();
    let agent = forge.network.identity(Role::Agent, "lisbon").await;
    let key = KeyPair::generate().unwrap();
    for (what, change, good) in COMMON.iter().chain(SERVERS) {
        let mut params = server_params();
        change(&mut params);
        let credentials = forge.leaf("servers", "", &key, &params);
        let believed = is_believed(&forge, &agent.client, credentials).await;
        assert_eq!(believed, *good, "{what}");
    }
}

async fn is_believed(forge: &Forge, client: &Credentials, shown: Credentials) -> bool {
    let Ok(tls) = ServerTls::new(&shown, forge.network.peers(), &[ALPN_HTTP1]) else {
        // Not even our own server shows it.
        return false;
    };
    let server = Running::start(tls).await;
    is_let_in(forge, client.clone(), server.port).await
}

#[tokio::test]
async fn what_stands_above_a_leaf_has_to_be_the_networks_own_authority_for_its_use() {
    let forge = Forge::new();
    let server = Running::start(forge.network.server()).await;
    let agent = forge.network.identity(Role::Agent, "lisbon").await;
    let key = KeyPair::generate().unwrap();
    let elsewhere = Forge::new();
    let (root, _) = forge.authority("root");
    let flipped = |credentials: Credentials| {
        let mut leaf = credentials.chain[0].to_vec();
        let last = leaf.len() - 1;
        leaf[last] ^= 1;
        let mut chain = credentials.chain;
        chain[0] = leaf.into();
        Credentials { chain, key: credentials.key }
    };
    let alone = |credentials: Credentials| Credentials {
        chain: credentials.chain[..1].to_vec(),
        key: credentials.key,
    };
    // A leaf that signs another leaf.
    let leaf_key = KeyPair::generate().unwrap();
    let below_a_leaf = |params: &CertificateParams, issuer: &str| {
        let above = forge.leaf(issuer, "", &leaf_key, params);
        let as_issuer = Issuer::from_params(params, &leaf_key);
        let below = params.signed_by(&key, &as_issuer).unwrap();
        let mut chain = above.chain;
        chain.insert(0, below.der().clone());
        Credentials {
            chain,
            key: Credentials::from_pem(&below.pem(), &key.serialize_pem()).unwrap().key,
        }
    };
    let mut self_signed = client_params();
    self_signed.not_after = date_time_ymd(2090, 1, 1);
    let self_signed = self_signed.self_signed(&key).unwrap().pem();
    let self_signed = Credentials::from_pem(&self_signed, &key.serialize_pem()).unwrap();
    let (client, served) = (client_params(), server_params());
    let many = root.repeat(8);
    let clients = [
        ("the servers' authority", forge.leaf("servers", "", &key, &client), false),
        ("another network's", elsewhere.leaf("clients", "", &key, &client), false),
        (
            "another network's, ours beside it",
            elsewhere.leaf("clients", &root, &key, &client),
            false,
        ),
        ("itself", self_signed, false),
        ("a leaf", below_a_leaf(&client, "clients"), false),
        ("a changed signature", flipped(forge.leaf("clients", "", &key, &client)), false),
        ("nothing", alone(forge.leaf("clients", "", &key, &client)), false),
        ("too much", forge.leaf("clients", &many, &key, &client), false),
        ("its authority and the root", forge.leaf("clients", &root, &key, &client), true),
    ];
    for (what, credentials, good) in clients {
        assert_eq!(is_let_in(&forge, credentials, server.port).await, good, "clients: {what}");
    }
    let servers = [
        ("the clients' authority", forge.leaf("clients", "", &key, &served), false),
        ("another network's", elsewhere.leaf("servers", "", &key, &served), false),
        ("a leaf", below_a_leaf(&served, "servers"), false),
        ("a changed signature", flipped(forge.leaf("servers", "", &key, &served)), false),
        ("nothing", alone(forge.leaf("servers", "", &key, &served)), false),
        ("too much", forge.leaf("servers", &many, &key, &served), false),
        ("its authority and the root", forge.leaf("servers", &root, &key, &served), true),
    ];
    for (what, credentials, good) in servers {
        let believed = is_believed(&forge, &agent.client, credentials).await;
        assert_eq!(believed, good, "servers: {what}");
    }
    let count = COMMON.len() * 2 + CLIENTS.len() + SERVERS.len() + 9 + 7;
    assert!(count >= 80, "{count} cases");
}

#[tokio::test]
async fn keys_of_every_kind_that_tls_knows_are_taken_where_the_authority_signed_them() {
    let forge = Forge::new();
    let server = Running::start(forge.network.server()).await;
    for algorithm in
        [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519]
    {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let credentials = forge.leaf("clients", "", &key, &client_params());
        assert!(is_let_in(&forge, credentials, server.port).await, "{algorithm:?}");
    }
}
