//! Certificates and keys as the TLS library wants them.

use std::{fmt, sync::Arc};

use protocol::name::NetworkName;
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::Error;

/// Most certificates in one chain or bundle.
pub(super) const MAX_CERTIFICATES: usize = 16;

/// A certificate chain and the private key of its first certificate.
pub struct Credentials {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Credentials {
    /// Reads both from PEM. Whether they belong together is found when they are put to use.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, Error> {
        Ok(Self {
            chain: certificates_from_pem(chain)?,
            key: PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| Error::InvalidKey)?,
        })
    }

    /// The certificate itself, DER.
    pub fn certificate(&self) -> &[u8] {
        self.chain.first().map_or(&[], |certificate| certificate.as_ref())
    }
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({} certificates)", self.chain.len())
    }
}

/// The roots of one network: what makes a chain a chain of *this* network.
#[derive(Clone)]
pub struct Anchors {
    pub(super) network: NetworkName,
    pub(super) roots: Arc<RootCertStore>,
}

impl Anchors {
    /// Reads the network's roots from PEM.
    pub fn from_pem(network: NetworkName, pem: &str) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates_from_pem(pem)? {
            roots.add(certificate).map_err(Error::Anchor)?;
        }
        Ok(Self { network, roots: Arc::new(roots) })
    }

    /// The network they are the roots of.
    pub fn network(&self) -> &NetworkName {
        &self.network
    }
}

impl fmt::Debug for Anchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Anchors({}, {} roots)", self.network, self.roots.len())
    }
}

pub(crate) fn certificates_from_pem(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes())
        .take(MAX_CERTIFICATES + 1)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| Error::InvalidPem)?;
    match certificates.len() {
        1..=MAX_CERTIFICATES => Ok(certificates),
        found => Err(Error::CertificateCount { found }),
    }
}
