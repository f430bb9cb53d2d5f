//! The identity directory: everything that makes a program who it is.
//!
//! ```text
//! DATA/identity             -> identity-<serial>; replaced by rename, so it is one or the other
//! DATA/identity-<serial>/   identity.json key.pem cert.pem ca.pem signing.key
//!                           server-key.pem server.pem (publishers, and agents that relay)
//! DATA/identity.new/        keys that have been made and are not certified yet
//! ```
//!
//! Keys and the requests for them are on the disk before anything is asked, so a program that is
//! killed in between asks again for the same keys and gets the same certificate. New certificates
//! take effect by one rename, after they are durable and have been seen to work; until then the old
//! ones stay.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use protocol::{
    dsse::{Bytes, Envelope},
    name::{IdentityName, NetworkName},
    v1::enroll::{Certificates, EnrollResponse, KeysToCertify},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{PeerIdentity, Role, Serial};
use crate::{
    csr::{self, KeyRequest},
    keyfile,
    signing::{self, SigningKey, VerifyingKey},
    tls::{self, Anchors, ClientTls, Credentials, ServerExpectation},
};

const LINK: &str = "identity";
const UNFINISHED: &str = "identity.new";
const MEMBERSHIP: &str = "identity.json";
const REQUEST: &str = "request.json";
const KEY: &str = "key.pem";
const CERTIFICATE: &str = "cert.pem";
const ROOTS: &str = "ca.pem";
const SIGNING_KEY: &str = "signing.key";
const SERVER_KEY: &str = "server-key.pem";
const SERVER_CERTIFICATE: &str = "server.pem";

/// Which network a program belongs to, and as what. Written as `identity.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Membership {
    /// The network.
    pub network: NetworkName,
    /// The role in it.
    pub role: Role,
    /// The name in it.
    pub name: IdentityName,
    /// Where the API is: `https://HOST:PORT`.
    pub api_url: String,
    /// Where the enroll port is, for a renewal after the certificate's end: `https://HOST:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enroll_url: Option<String>,
    /// The root document that was pinned at enrollment, signed.
    pub root: Envelope,
    /// Host names or addresses that it is reached at as a server: publishers, and agents that relay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub server_names: Vec<String>,
}

impl Membership {
    /// What an enrollment at the enroll port `enroll_url` made of us.
    pub fn new(response: &EnrollResponse, enroll_url: String, server_names: Vec<String>) -> Self {
        Self {
            network: response.network.clone(),
            role: response.role,
            name: response.name.clone(),
            api_url: response.api_url.clone(),
            enroll_url: Some(enroll_url),
            root: response.root.clone(),
            server_names,
        }
    }
}

/// An identity with everything that is needed to act under it.
#[derive(Debug)]
pub struct Identity {
    /// Which network it belongs to, and as what.
    pub membership: Membership,
    /// The serial number of the client certificate.
    pub serial: Serial,
    /// The start of the certificates' life.
    pub not_before: Timestamp,
    /// The end of the certificates' life: of the shorter one, where there are two.
    pub not_after: Timestamp,
    /// The key that statements or receipts are signed with.
    pub signing_key: SigningKey,
    /// The network's roots.
    pub anchors: Anchors,
    /// What this program shows as a client.
    pub client: Credentials,
    /// What it shows as a server: publishers, and agents that relay.
    pub server: Option<Credentials>,
}

impl Identity {
    /// Loads the identity in `data`: the data directory of a program, or an identity directory
    /// itself.
    ///
    /// # Errors
    /// [`Error::NotEnrolled`] when there is none; otherwise when a file is loose, foreign,
    /// unreadable, or does not belong to the others.
    pub fn load(data: &Path) -> Result<Arc<Self>, Error> {
        let linked = data.join(LINK);
        if linked.join(MEMBERSHIP).exists() {
            Self::load_directory(&linked)
        } else if data.join(MEMBERSHIP).exists() {
            Self::load_directory(data)
        } else {
            Err(Error::NotEnrolled { data: data.into() })
        }
    }

    /// What connections to the network are opened with.
    pub fn client_tls(&self) -> ClientTls {
        ClientTls::new(self.client.clone(), self.anchors.clone())
    }

    fn load_directory(dir: &Path) -> Result<Arc<Self>, Error> {
        keyfile::check_dir(dir)?;
        let text = |name: &str| keyfile::read_text(&dir.join(name));
        let pair = |certificate: &str, key: &str| {
            let read = |text| {
                Credentials::from_pem(text, &keyfile::read_text(&dir.join(key))?)
                    .map_err(|source| Error::Certificates { dir: dir.into(), source })
            };
            read(&text(certificate)?)
        };
        let membership: Membership = read_json(&dir.join(MEMBERSHIP))?;
        let unreadable = |source| Error::Certificates { dir: dir.into(), source };
        let client = pair(CERTIFICATE, KEY)?;
        let anchors =
            Anchors::from_pem(membership.network.clone(), &text(ROOTS)?).map_err(unreadable)?;
        let server = match dir.join(SERVER_CERTIFICATE).exists() {
            true => Some(pair(SERVER_CERTIFICATE, SERVER_KEY)?),
            false => None,
        };
        let peer = PeerIdentity::from_client_certificate(client.certificate())
            .map_err(|source| Error::NotOurs { dir: dir.into(), source })?;
        check_member(&peer, &membership, dir)?;
        let mut not_after = peer.not_after;
        if let Some(server) = &server {
            let peer = PeerIdentity::from_server_certificate(server.certificate())
                .map_err(|source| Error::NotOurs { dir: dir.into(), source })?;
            check_member(&peer, &membership, dir)?;
            not_after = not_after.min(peer.not_after);
        }
        let signing_key = SigningKey::load(&dir.join(SIGNING_KEY))
            .map_err(|source| Error::SigningKey { dir: dir.into(), source })?;
        let identity = Self {
            membership,
            serial: peer.serial,
            not_before: peer.not_before,
            not_after,
            signing_key,
            anchors,
            client,
            server,
        };
        // Builds a configuration only to learn now whether key and certificate belong together.
        identity.client_tls().config(&ServerExpectation::Coordinator, &[]).map_err(unreadable)?;
        Ok(Arc::new(identity))
    }
}

/// Keys that have been made, are on the disk, and want certificates.
#[derive(Debug)]
pub struct Pending {
    data: PathBuf,
    dir: PathBuf,
    keys: KeysToCertify,
    signing_key: VerifyingKey,
}

impl Pending {
    /// Keys for an identity to be enrolled in `data`, which is created when missing: those of an enrollment that did not finish,
    /// else new ones. `server_names` are for publishers: where their server is reached.
    pub fn enroll(data: &Path, server_names: &[String]) -> Result<Self, Error> {
        fs::create_dir_all(data).map_err(|error| keyfile::Error::io("create", data, error))?;
        Self::open_or_create(data, server_names, None)
    }

    /// Keys for the renewal of `identity` in `data`: those of a renewal that did not finish, else
    /// new ones. The signing key stays.
    pub fn renew(data: &Path, identity: &Identity) -> Result<Self, Error> {
        Self::renew_as(data, identity, &identity.membership.server_names)
    }

    /// The same, for an identity that is from now on reached as a server at `server_names`.
    pub fn renew_as(
        data: &Path,
        identity: &Identity,
        server_names: &[String],
    ) -> Result<Self, Error> {
        Self::open_or_create(data, server_names, Some(&identity.signing_key))
    }

    /// What is to be certified.
    pub fn keys(&self) -> &KeysToCertify {
        &self.keys
    }

    /// The public half of the signing key.
    pub fn signing_key(&self) -> VerifyingKey {
        self.signing_key
    }

    /// Stores the certificates, lets `check` try them, and makes them the identity of `data`.
    ///
    /// # Errors
    /// When they cannot be stored, do not belong to the keys, or `check` fails; then the earlier
    /// identity stays, and the keys wait for another try.
    pub async fn install<F, E>(
        self,
        membership: &Membership,
        certificates: &Certificates,
        check: impl FnOnce(Arc<Identity>) -> F,
    ) -> Result<Arc<Identity>, Error>
    where
        F: Future<Output = Result<(), E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let write =
            |name: &str, content: &str| keyfile::replace(&self.dir.join(name), content.as_bytes());
        write(CERTIFICATE, &certificates.chain)?;
        write(ROOTS, &certificates.ca)?;
        if self.keys.server_csr.is_some() {
            let chain = certificates.server_chain.as_ref().ok_or(Error::NoServerCertificate)?;
            write(SERVER_CERTIFICATE, chain)?;
        }
        let json = serde_json::to_string_pretty(membership)
            .map_err(|source| Error::Json { path: self.dir.join(MEMBERSHIP), source })?;
        write(MEMBERSHIP, &json)?;
        keyfile::sync_dir(&self.dir)?;
        let identity = Identity::load_directory(&self.dir)?;
        if identity.not_after <= Timestamp::now() {
            // The certificate of a try long ago, whose answer was lost: those keys are spent.
            keyfile::remove_dir_if_there(&self.dir)?;
            return Err(Error::Spent { not_after: identity.not_after });
        }
        check(Arc::clone(&identity)).await.map_err(|error| Error::NotWorking(error.into()))?;
        self.switch(&identity.serial)?;
        Ok(identity)
    }

    fn open_or_create(
        data: &Path,
        server_names: &[String],
        signing_key: Option<&SigningKey>,
    ) -> Result<Self, Error> {
        match Self::open(data) {
            Ok(pending)
                if pending.keys.server_names == server_names
                    && signing_key.is_none_or(|key| key.verifying_key() == pending.signing_key) =>
            {
                Ok(pending)
            }
            // Half written, or made for something else.
            _ => Self::create(data, server_names, signing_key),
        }
    }

    fn open(data: &Path) -> Result<Self, Error> {
        let dir = data.join(UNFINISHED);
        keyfile::check_dir(&dir)?;
        let keys: KeysToCertify = read_json(&dir.join(REQUEST))?;
        let signing_key = SigningKey::load(&dir.join(SIGNING_KEY))
            .map_err(|source| Error::SigningKey { dir: dir.clone(), source })?;
        Ok(Self { data: data.into(), keys, signing_key: signing_key.verifying_key(), dir })
    }

    fn create(
        data: &Path,
        server_names: &[String],
        signing_key: Option<&SigningKey>,
    ) -> Result<Self, Error> {
        let dir = data.join(UNFINISHED);
        keyfile::remove_dir_if_there(&dir)?;
        keyfile::create_dir(&dir)?;
        let write = |name: &str, content: &[u8]| keyfile::create(&dir.join(name), content);
        let client = KeyRequest::generate()?;
        write(KEY, client.key_pem.as_bytes())?;
        let mut keys = KeysToCertify {
            csr: Bytes(client.request),
            server_csr: None,
            server_names: server_names.to_vec(),
        };
        if !server_names.is_empty() {
            let server = KeyRequest::generate()?;
            write(SERVER_KEY, server.key_pem.as_bytes())?;
            keys.server_csr = Some(Bytes(server.request));
        }
        let generated;
        let signing_key = match signing_key {
            Some(key) => key,
            None => {
                generated = SigningKey::generate()
                    .map_err(|source| Error::SigningKey { dir: dir.clone(), source })?;
                &generated
            }
        };
        write(SIGNING_KEY, signing_key.to_pem().as_bytes())?;
        // Last: what has a request is complete.
        let json = serde_json::to_vec_pretty(&keys)
            .map_err(|source| Error::Json { path: dir.join(REQUEST), source })?;
        write(REQUEST, &json)?;
        keyfile::sync_dir(&dir)?;
        keyfile::sync_dir(data)?;
        Ok(Self { data: data.into(), keys, signing_key: signing_key.verifying_key(), dir })
    }

    fn switch(&self, serial: &Serial) -> Result<(), Error> {
        let name = format!("{LINK}-{serial}");
        let target = self.data.join(&name);
        let link = self.data.join(LINK);
        let next = self.data.join("identity.tmp");
        // Only left over from a crash between the two renames below; the link never names it then.
        if fs::read_link(&link).ok().as_deref() != Some(Path::new(&name)) {
            keyfile::remove_dir_if_there(&target)?;
        }
        keyfile::remove_if_there(&self.dir.join(REQUEST))?;
        let rename = |from: &Path, to: &Path| {
            fs::rename(from, to).map_err(|error| keyfile::Error::io("rename", from, error))
        };
        rename(&self.dir, &target)?;
        keyfile::sync_dir(&self.data)?;
        keyfile::remove_if_there(&next)?;
        std::os::unix::fs::symlink(&name, &next)
            .map_err(|error| keyfile::Error::io("link", &next, error))?;
        rename(&next, &link)?;
        keyfile::sync_dir(&self.data)?;
        remove_earlier(&self.data, &name);
        Ok(())
    }
}

/// Earlier identities are of no use; one that cannot be removed does no harm.
fn remove_earlier(data: &Path, current: &str) {
    let Ok(entries) = fs::read_dir(data) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let serial = name.strip_prefix("identity-").map(str::parse::<Serial>);
        if name != current
            && matches!(serial, Some(Ok(_)))
            && let Err(error) = keyfile::remove_dir_if_there(&entry.path())
        {
            tracing::warn!(%error, "an earlier identity is left behind");
        }
    }
}

fn check_member(peer: &PeerIdentity, membership: &Membership, dir: &Path) -> Result<(), Error> {
    let Membership { network, role, name, .. } = membership;
    if peer.network == *network && peer.role == *role && peer.name == *name {
        return Ok(());
    }
    Err(Error::OtherMember {
        dir: dir.into(),
        found: peer.uri().to_string(),
        wanted: format!("spiffe://{network}/{role}/{name}"),
    })
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = keyfile::read_text(path)?;
    serde_json::from_str(&text).map_err(|source| Error::Json { path: path.into(), source })
}

/// Why an identity was not loaded, made or replaced.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no identity.
    #[error(
        "there is no identity in {data}: this program is not enrolled yet; get an invite with 'mirrorctl invite' and use it with 'enroll'",
        data = data.display()
    )]
    NotEnrolled {
        /// Where it was looked for.
        data: PathBuf,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    KeyFile(#[from] keyfile::Error),
    /// No key could be made.
    #[error(transparent)]
    Request(#[from] csr::Error),
    /// A file that is not the JSON it should be.
    #[error("{path} cannot be read; restore it from a backup or enroll again", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The certificates or keys cannot be used.
    #[error("the certificates in {dir} cannot be used", dir = dir.display())]
    Certificates {
        /// The identity directory.
        dir: PathBuf,
        /// What is wrong with them.
        source: tls::Error,
    },
    /// A certificate that is no identity's.
    #[error("a certificate in {dir} is not that of an identity", dir = dir.display())]
    NotOurs {
        /// The identity directory.
        dir: PathBuf,
        /// What is wrong with it.
        source: super::Error,
    },
    /// A certificate of another identity.
    #[error("the certificate in {dir} is that of {found}, but {wanted} was expected", dir = dir.display())]
    OtherMember {
        /// The identity directory.
        dir: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
    /// The signing key cannot be used.
    #[error("the signing key in {dir} cannot be used", dir = dir.display())]
    SigningKey {
        /// The identity directory.
        dir: PathBuf,
        /// What is wrong with it.
        source: signing::Error,
    },
    /// A server certificate was asked for and not given.
    #[error("the coordinator gave no server certificate; was the invite made for a publisher?")]
    NoServerCertificate,
    /// The certificates have expired already.
    #[error(
        "the coordinator gave certificates that expired at {not_after}: they were made for an earlier try, or one of the two clocks is wrong; the next try is made with new keys"
    )]
    Spent {
        /// When they expired.
        not_after: Timestamp,
    },
    /// The new identity was tried and does not work.
    #[error("the new certificates were tried and do not work, so the earlier ones stay")]
    NotWorking(#[source] Box<dyn std::error::Error + Send + Sync>),
}
