//! Certificates, requests and invites that were made to break the reader.

use proptest::prelude::*;

use crate::{
    csr::{KeyRequest, PublicKey},
    enrollment::Invite,
    identity::{IdentityUri, PeerIdentity, Role},
    testing::TestNetwork,
    tls::certificates_from_pem,
};

/// Good DER to start from: a client's certificate, a server's, an authority's.
fn certificates() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let publisher = runtime.block_on(network.identity(Role::Publisher, "build"));
    let root = certificates_from_pem(network.authority.root_pem()).unwrap();
    let server = publisher.server.as_ref().unwrap();
    vec![publisher.client.certificate().into(), server.certificate().into(), root[0].to_vec()]
}

/// A small generator with a fixed start, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % limit
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = u8::try_from(random.below(256)).unwrap(),
            2 => bytes[at] = [0, 0x7f, 0x80, 0x84, 0xff][random.below(5)],
            3 => bytes.truncate(at.max(1)),
            4 => bytes.insert(at, 0x30),
            _ => {
                let piece = bytes[at..(at + random.below(40)).min(bytes.len())].to_vec();
                bytes.extend(piece);
            }
        }
    }
}

/// As many as are asked for: `make bench` tries more.
fn rounds() -> usize {
    let asked = std::env::var("MIRRORNET_DAMAGED_CERTIFICATES").ok();
    asked.map_or(10_000, |asked| asked.parse().unwrap())
}

#[test]
fn thousands_of_damaged_certificates_and_requests_are_read_without_a_panic() {
    let mut originals = certificates();
    originals.push(KeyRequest::generate().unwrap().request);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut refused = 0;
    let rounds = rounds();
    for round in 0..rounds {
        let mut bytes = originals[round % originals.len()].clone();
        mutate(&mut bytes, &mut random);
        let client = PeerIdentity::from_client_certificate(&bytes);
        let server = PeerIdentity::from_server_certificate(&bytes);
        assert!(client.is_err() || server.is_err(), "both uses at once");
        refused += usize::from(client.is_err() && server.is_err());
        drop(PublicKey::from_request(&bytes));
    }
    assert!(refused > rounds / 2, "only {refused} were refused: the damage is too slight");
}

#[test]
fn good_certificates_are_read_for_their_own_use_only() {
    let [client, server, root] = &certificates()[..] else { panic!() };
    PeerIdentity::from_client_certificate(client).unwrap();
    PeerIdentity::from_server_certificate(server).unwrap();
    assert!(PeerIdentity::from_client_certificate(server).is_err());
    assert!(PeerIdentity::from_server_certificate(client).is_err());
    assert!(PeerIdentity::from_client_certificate(root).is_err());
    assert!(PeerIdentity::from_server_certificate(root).is_err());
    assert!(PeerIdentity::from_client_certificate(&vec![0x30; 100_000]).is_err());
}

proptest! {
    #[test]
    fn any_bytes_and_any_text_are_read_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        text in ".{0,200}",
    ) {
        prop_assert!(PeerIdentity::from_client_certificate(&bytes).is_err());
        prop_assert!(PublicKey::from_request(&bytes).is_err());
        drop(text.parse::<Invite>());
        drop(format!("mirrornet1.{text}").parse::<Invite>());
        drop(text.parse::<IdentityUri>());
        drop(certificates_from_pem(&text));
    }

    #[test]
    fn an_identity_uri_reads_back_as_it_is_written_or_not_at_all(
        text in "spiffe://[a-z./-]{1,9}/(agent|admin|root|Agent)/[a-z0-9./_-]{0,9}",
    ) {
        if let Ok(uri) = text.parse::<IdentityUri>() {
            prop_assert_eq!(uri.to_string(), text);
        }
    }
}
