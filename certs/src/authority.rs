//! The network's certificate authority.
//!
//! One root, which enrolling programs pin, and two authorities below it: one for what clients show
//! and one for what servers show. Each may only certify its own use (the extended key usage of an
//! issuer binds what it issues, and chains are checked for it), so a server's certificate never
//! opens the API however it was made, and the root's key may be taken off the machine: daily work
//! needs only the two below it.
//!
//! The root may be an authority of the operator's own, whose key is used once, to certify the two below
//! it, and is not kept. And it may be replaced: for a while two roots are trusted side by side, of which
//! one issues ([`Authority::also_trusting`]).
//!
//! Of a certificate request nothing is believed but the public key. Certificates live a week, so a
//! stolen one is soon worthless and an outage of the coordinator for days harms nobody.

mod profile;

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use protocol::name::{IdentityName, NetworkName};
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::server::danger::ClientCertVerifier as _;
use rustls_pki_types::UnixTime;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use crate::{
    csr::{self, KeyRequest, PublicKey},
    identity::{IdentityUri, Role, Serial},
    keyfile,
    revocation::RevokedSerials,
    sha256,
    tls::{self, Anchors},
};

/// How long a certificate lives where nothing else is said: seven days, renewed at half of them.
pub const LIFE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How long before its making a certificate is already valid, for clocks that are late.
pub const BACKDATED: SignedDuration = SignedDuration::from_mins(5);

const ROOT_KEY: &str = "root.key";
const ROOT: &str = "root.pem";
const CLIENTS_KEY: &str = "clients.key";
const CLIENTS: &str = "clients.pem";
const SERVERS_KEY: &str = "servers.key";
const SERVERS: &str = "servers.pem";
/// Names the network where the root, which is somebody else's, does not.
const NETWORK: &str = "network";
/// When these files were made, which of a root that is somebody else's its dates do not say.
const MADE: &str = "made";

/// The network's certificate authority, as the coordinator holds it.
pub struct Authority {
    network: NetworkName,
    root_pem: String,
    pin: RootPin,
    clients: Intermediate,
    servers: Intermediate,
    made: Timestamp,
    others: Vec<Authority>,
}

/// An authority of the operator's own, below which a network's are made.
#[derive(Clone, Copy)]
pub struct OwnAuthority<'a> {
    /// Its certificate, PEM: what everyone in the network will trust.
    pub certificate: &'a str,
    /// Its private key, PEM. It is used now and not kept.
    pub key: &'a str,
}

impl Authority {
    /// Makes the authority of a new network, in the new directory `dir`: complete or not at all.
    ///
    /// # Errors
    /// When there is already something at `dir`.
    pub fn create(dir: &Path, network: &NetworkName, now: Timestamp) -> Result<Self, Error> {
        Self::create_with(dir, now, |unfinished| write_new(unfinished, network, now))
    }

    /// Makes the two authorities of a network below one of the operator's own, in the new directory
    /// `dir`: complete or not at all.
    ///
    /// # Errors
    /// When there is already something at `dir`; [`Error::NotUsable`] when what would be issued would
    /// not be accepted.
    pub fn create_below(
        dir: &Path,
        own: &OwnAuthority<'_>,
        network: &NetworkName,
        now: Timestamp,
    ) -> Result<Self, Error> {
        Self::create_with(dir, now, |unfinished| {
            write_below(unfinished, own, network, now)?;
            Self::open(unfinished)?.check_usable(now)
        })
    }

    fn create_with(
        dir: &Path,
        now: Timestamp,
        write: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        if dir.symlink_metadata().is_ok() {
            return Err(keyfile::Error::Exists { path: dir.into() }.into());
        }
        let mut unfinished = dir.as_os_str().to_owned();
        unfinished.push(".new");
        let unfinished = PathBuf::from(unfinished);
        keyfile::remove_dir_if_there(&unfinished)?;
        keyfile::create_dir(&unfinished)?;
        keyfile::create(&unfinished.join(MADE), format!("{now}\n").as_bytes())?;
        write(&unfinished)?;
        keyfile::sync_dir(&unfinished)?;
        std::fs::rename(&unfinished, dir)
            .map_err(|error| keyfile::Error::io("rename into place", dir, error))?;
        keyfile::sync_dir(parent(dir))?;
        Self::open(dir)
    }

    /// Opens the authority in `dir`. The root's key is not needed.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        keyfile::check_dir(dir)?;
        let root_path = dir.join(ROOT);
        let root_pem = keyfile::read_text(&root_path)?;
        let invalid = || Error::InvalidCertificate { path: root_path.clone() };
        let root = tls::certificates_from_pem(&root_pem).map_err(|_| invalid())?;
        let [root] = &root[..] else { return Err(invalid()) };
        let (_, root) = X509Certificate::from_der(root).map_err(|_| invalid())?;
        let network = match dir.join(NETWORK).exists() {
            true => {
                keyfile::read_text(&dir.join(NETWORK))?.trim().parse().map_err(|_| invalid())?
            }
            false => network_of(&root).ok_or_else(invalid)?,
        };
        let made = match dir.join(MADE).exists() {
            true => keyfile::read_text(&dir.join(MADE))?.trim().parse().map_err(|_| invalid())?,
            false => Timestamp::from_second(root.validity().not_before.timestamp())
                .map_err(|_| invalid())?,
        };
        Ok(Self {
            made,
            others: Vec::new(),
            network,
            pin: RootPin(sha256(root.public_key().raw)),
            clients: Intermediate::open(&dir.join(CLIENTS), &dir.join(CLIENTS_KEY))?,
            servers: Intermediate::open(&dir.join(SERVERS), &dir.join(SERVERS_KEY))?,
            root_pem,
        })
    }

    /// The network that this authority speaks for.
    pub fn network(&self) -> &NetworkName {
        &self.network
    }

    /// The same, with the root of `other` trusted as well: of one that will issue from now on, or of
    /// one that did.
    pub fn also_trusting(mut self, other: Self) -> Self {
        self.others.push(other);
        self
    }

    /// The root certificate of what is issued, PEM.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// Every root that is trusted, the issuing one first, PEM: what everyone in the network is given.
    pub fn bundle_pem(&self) -> String {
        std::iter::once(self).chain(&self.others).map(|of| of.root_pem.as_str()).collect()
    }

    /// Names what is in the bundle, whichever root of it issues.
    pub fn bundle_id(&self) -> String {
        let mut pins: Vec<_> = std::iter::once(self).chain(&self.others).map(|a| a.pin.0).collect();
        pins.sort_unstable();
        data_encoding::HEXLOWER.encode(&sha256(&pins.concat()))
    }

    /// Names the issuing root.
    pub fn issuer_id(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.pin.0)
    }

    /// Whether another root is trusted beside the issuing one.
    pub fn is_changing(&self) -> bool {
        !self.others.is_empty()
    }

    /// When it was made here: of two, the later one takes the place of the other.
    pub fn made(&self) -> Timestamp {
        self.made
    }

    /// When it can certify nobody any longer.
    pub fn not_after(&self) -> Timestamp {
        self.clients.not_after.min(self.servers.not_after)
    }

    /// What invites pin.
    pub fn pin(&self) -> RootPin {
        self.pin
    }

    /// Every root that is trusted as trust anchor, for the coordinator's own servers.
    pub fn anchors(&self) -> Result<Anchors, Error> {
        Ok(Anchors::from_pem(self.network.clone(), &self.bundle_pem())?)
    }

    /// Whether what it issues passes our own checks: an authority of the operator's own may be
    /// constrained in ways that we cannot list.
    fn check_usable(&self, now: Timestamp) -> Result<(), Error> {
        let made = KeyRequest::generate()?;
        let key = PublicKey::from_request(&made.request)?;
        let name: IdentityName = "trial".parse().map_err(|_| Error::NotUsable)?;
        let issued = self.issue(&key, Role::Agent, &name, LIFE, now)?;
        let chain = tls::certificates_from_pem(&issued.chain_pem)?;
        let seconds = u64::try_from(now.as_second()).unwrap_or(0);
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        tls::ClientVerifier::new(&self.anchors()?)?
            .verify_client_cert(&chain[0], &chain[1..], now)
            .map(drop)
            .map_err(|_| Error::NotUsable)
    }

    /// Certifies a client's key.
    ///
    /// # Errors
    /// [`Error::CoordinatorAsClient`] for that role: the coordinator connects to nobody.
    pub fn issue(
        &self,
        key: &PublicKey,
        role: Role,
        name: &IdentityName,
        life: SignedDuration,
        now: Timestamp,
    ) -> Result<IssuedCertificate, Error> {
        if role == Role::Coordinator {
            return Err(Error::CoordinatorAsClient);
        }
        let params = profile::client(&self.uri(role, name))?;
        self.clients.issue(params, key, life, now)
    }

    /// Certifies a server's key. `hosts` are the host names and addresses it may be reached by;
    /// programs of ours expect the server's identity, so for a publisher they are a convenience
    /// for others.
    pub fn issue_server(
        &self,
        key: &PublicKey,
        role: Role,
        name: &IdentityName,
        hosts: &[String],
        life: SignedDuration,
        now: Timestamp,
    ) -> Result<IssuedCertificate, Error> {
        let params = profile::server(&self.uri(role, name), hosts)?;
        self.servers.issue(params, key, life, now)
    }

    /// Makes a key and a certificate for the coordinator's own servers. The chain ends with the
    /// root itself, so that a program that knows only the pin can check it.
    pub fn coordinator_server(
        &self,
        name: &IdentityName,
        hosts: &[String],
        life: SignedDuration,
        now: Timestamp,
    ) -> Result<(tls::Credentials, IssuedCertificate), Error> {
        let made = KeyRequest::generate()?;
        let key = PublicKey::from_request(&made.request)?;
        let mut issued = self.issue_server(&key, Role::Coordinator, name, hosts, life, now)?;
        issued.chain_pem.push_str(&self.root_pem);
        let credentials = tls::Credentials::from_pem(&issued.chain_pem, &made.key_pem)?;
        Ok((credentials, issued))
    }

    /// The revoked serials as standard lists for third parties (PEM), one per issuer. `number`
    /// must grow from one list to the next.
    pub fn revocation_lists(
        &self,
        revoked: &RevokedSerials,
        number: u64,
        life: SignedDuration,
        now: Timestamp,
    ) -> Result<Vec<String>, Error> {
        let params = profile::revocation_list(revoked, number, life, now)?;
        std::iter::once(self)
            .chain(&self.others)
            .flat_map(|authority| [&authority.clients, &authority.servers])
            .map(|intermediate| {
                let list = params.signed_by(&intermediate.issuer).map_err(Error::Issue)?;
                list.pem().map_err(Error::Issue)
            })
            .collect()
    }

    fn uri(&self, role: Role, name: &IdentityName) -> IdentityUri {
        IdentityUri { network: self.network.clone(), role, name: name.clone() }
    }
}

/// A certificate that was just made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// The certificate and its issuer, PEM, without the root.
    pub chain_pem: String,
    /// Its serial number.
    pub serial: Serial,
    /// The end of its life.
    pub not_after: Timestamp,
}

/// SHA-256 of the root's public key (SubjectPublicKeyInfo): what an invite pins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootPin(pub [u8; 32]);

/// One of the two authorities below the root.
struct Intermediate {
    pem: String,
    not_after: Timestamp,
    issuer: Issuer<'static, KeyPair>,
}

impl Intermediate {
    fn open(certificate: &Path, key: &Path) -> Result<Self, Error> {
        let invalid = || Error::InvalidCertificate { path: certificate.into() };
        let pem = keyfile::read_text(certificate)?;
        let pair = KeyPair::from_pem(&keyfile::read_text(key)?)
            .map_err(|source| Error::InvalidKey { path: key.into(), source })?;
        let der = tls::certificates_from_pem(&pem).map_err(|_| invalid())?;
        let [der] = &der[..] else { return Err(invalid()) };
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| invalid())?;
        if parsed.public_key().subject_public_key.data != rcgen::PublicKeyData::der_bytes(&pair) {
            return Err(Error::NotItsKey { certificate: certificate.into(), key: key.into() });
        }
        let not_after = Timestamp::from_second(parsed.validity().not_after.timestamp())
            .map_err(|_| invalid())?;
        let issuer = Issuer::from_ca_cert_der(der, pair).map_err(|_| invalid())?;
        Ok(Self { pem, not_after, issuer })
    }

    fn issue(
        &self,
        mut params: CertificateParams,
        key: &PublicKey,
        life: SignedDuration,
        now: Timestamp,
    ) -> Result<IssuedCertificate, Error> {
        let serial = Serial::random().map_err(Error::Random)?;
        let not_after = profile::end(now, life)?.min(self.not_after);
        if not_after <= now {
            return Err(Error::Expired { not_after: self.not_after });
        }
        profile::set_life(&mut params, &serial, now, not_after)?;
        let certificate = params.signed_by(key, &self.issuer).map_err(Error::Issue)?;
        Ok(IssuedCertificate { chain_pem: certificate.pem() + &self.pem, serial, not_after })
    }
}

fn write_new(dir: &Path, network: &NetworkName, now: Timestamp) -> Result<(), Error> {
    let root_key = generate()?;
    let root = profile::root(network, now)?;
    let root_pem = root.self_signed(&root_key).map_err(Error::Issue)?.pem();
    keyfile::create(&dir.join(ROOT_KEY), root_key.serialize_pem().as_bytes())?;
    keyfile::create(&dir.join(ROOT), root_pem.as_bytes())?;
    write_intermediates(dir, &Issuer::new(root, root_key), network, now, Timestamp::MAX)
}

/// The same below an authority of the operator's own, whose key is not kept.
fn write_below(
    dir: &Path,
    own: &OwnAuthority<'_>,
    network: &NetworkName,
    now: Timestamp,
) -> Result<(), Error> {
    let key = KeyPair::from_pem(own.key).map_err(|_| Error::NotUsable)?;
    let certificates = tls::certificates_from_pem(own.certificate).map_err(|_| Error::NotUsable)?;
    // What is above it is not trusted, or whoever it certifies too would be.
    let [der] = &certificates[..] else { return Err(Error::NotOneAuthority) };
    let (_, parsed) = X509Certificate::from_der(der).map_err(|_| Error::NotUsable)?;
    if parsed.public_key().subject_public_key.data != rcgen::PublicKeyData::der_bytes(&key) {
        return Err(Error::NotUsable);
    }
    let end = Timestamp::from_second(parsed.validity().not_after.timestamp())
        .map_err(|_| Error::NotUsable)?;
    let constraints = parsed.basic_constraints().ok().flatten();
    let deep_enough = constraints.is_some_and(|constraints| {
        constraints.value.ca && constraints.value.path_len_constraint.is_none_or(|len| len >= 1)
    });
    let usage = parsed.key_usage().map_err(|_| Error::NotUsable)?;
    let signs = usage.is_none_or(|usage| usage.value.key_cert_sign());
    if !deep_enough || !signs {
        return Err(Error::NotUsable);
    }
    let issuer = Issuer::from_ca_cert_der(der, key).map_err(|_| Error::NotUsable)?;
    keyfile::create(&dir.join(ROOT), own.certificate.as_bytes())?;
    keyfile::create(&dir.join(NETWORK), format!("{network}\n").as_bytes())?;
    write_intermediates(dir, &issuer, network, now, end)
}

fn generate() -> Result<KeyPair, Error> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(Error::Issue)
}

fn write_intermediates(
    dir: &Path,
    root: &Issuer<'_, KeyPair>,
    network: &NetworkName,
    now: Timestamp,
    end: Timestamp,
) -> Result<(), Error> {
    let below = [
        (profile::clients(network, now, end)?, CLIENTS_KEY, CLIENTS),
        (profile::servers(network, now, end)?, SERVERS_KEY, SERVERS),
    ];
    for (params, key_file, certificate_file) in below {
        let key = generate()?;
        let certificate = params.signed_by(&key, root).map_err(Error::Issue)?;
        keyfile::create(&dir.join(key_file), key.serialize_pem().as_bytes())?;
        keyfile::create(&dir.join(certificate_file), certificate.pem().as_bytes())?;
    }
    Ok(())
}

/// The network that a root names: its only URI is `spiffe://NETWORK`.
fn network_of(root: &X509Certificate<'_>) -> Option<NetworkName> {
    let names = root.subject_alternative_name().ok()??;
    match &names.value.general_names[..] {
        [GeneralName::URI(uri)] => uri.strip_prefix("spiffe://")?.parse().ok(),
        _ => None,
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Why the authority was not made, opened or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the authority could not be read or written.
    #[error(transparent)]
    KeyFile(#[from] keyfile::Error),
    /// The request holds no key that is taken.
    #[error(transparent)]
    Request(#[from] csr::Error),
    /// The certificates make no server.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// Nothing random.
    #[error(transparent)]
    Random(crate::NoRandomness),
    /// A file that is no certificate of an authority.
    #[error(
        "{path} is not the certificate of this network's authority; restore it from a backup",
        path = path.display()
    )]
    InvalidCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file that is no private key.
    #[error("{path} holds no private key; restore it from a backup", path = path.display())]
    InvalidKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rcgen::Error,
    },
    /// A key and a certificate that do not belong together.
    #[error(
        "the key {key} is not that of {certificate}; restore both from the same backup",
        key = key.display(),
        certificate = certificate.display()
    )]
    NotItsKey {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// An authority of the operator's own below which nothing good can be issued.
    #[error(
        "this authority cannot stand above a network: it needs a certificate with CA:TRUE, a path length of at least 1 or none, keyCertSign, nothing that forbids names such as ours, and its own key (PKCS #8 PEM)"
    )]
    NotUsable,
    /// A chain where one certificate was expected.
    #[error(
        "name the certificate of one authority, without those above it: it is what everyone will trust"
    )]
    NotOneAuthority,
    /// The authority itself has expired.
    #[error("the network's authority expired at {not_after}, so it can certify nobody")]
    Expired {
        /// When it expired.
        not_after: Timestamp,
    },
    /// A host name that cannot stand in a certificate.
    #[error("{host:?} is neither a host name nor an IP address, so no certificate is made for it")]
    InvalidHost {
        /// What was given.
        host: String,
    },
    /// A client certificate was asked for the coordinator.
    #[error("the coordinator connects to nobody and gets no client certificate")]
    CoordinatorAsClient,
    /// A date beyond what certificates can say.
    #[error("a certificate cannot live from {from} for {life:#}")]
    Life {
        /// Its start.
        from: Timestamp,
        /// Its length.
        life: SignedDuration,
    },
    /// Signing failed.
    #[error("the certificate could not be made")]
    Issue(#[source] rcgen::Error),
}
