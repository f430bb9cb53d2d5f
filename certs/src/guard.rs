//! Content for consumers who are no agents: who may read it is told by a certificate of theirs.
//!
//! Yum and its kin ask a web server, with a certificate of whoever sold them the right to. Such a
//! certificate is of another world than the network's own: any authority may have made it, and it
//! may name paths instead of identities. So the connection takes any certificate, or none
//! ([`Peers::Consumers`](crate::tls::Peers)), having proved only that the key is there, and what it
//! is worth is decided for each request, by the guards of what is asked for.

mod entitlement;
mod link;

use std::{collections::HashSet, sync::Arc};

use jiff::Timestamp;
use rustls::{
    RootCertStore,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime, pem::PemObject};
use x509_parser::prelude::{FromDer as _, X509Certificate};

pub use self::{
    entitlement::{Entitlement, NotEntitled},
    link::{BadLink, BadSecrets, Link, LinkSecrets, MIN_SECRET_LEN, Scope},
};
use crate::{sha256, tls::provider};

/// Longest certificate of a consumer, in bytes of DER: those with keys of the next generation, and
/// those that name many paths, are long.
pub const MAX_CERTIFICATE_LEN: usize = 64 * 1024;
/// Most certificates in a consumer's chain.
const MAX_CHAIN: usize = 8;
/// Most authorities of one guard.
const MAX_AUTHORITIES: usize = 1024;
/// Most revocation lists of one guard.
const MAX_LISTS: usize = 64;

/// The chain that a client has shown, its own certificate first. Only that its key is there was
/// proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown(Vec<CertificateDer<'static>>);

impl Shown {
    pub(crate) fn new(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let chain: Vec<_> = chain.iter().map(|one| one.clone().into_owned()).collect();
        let fits = |one: &CertificateDer<'_>| one.len() <= MAX_CERTIFICATE_LEN;
        let valid = (1..=MAX_CHAIN).contains(&chain.len()) && chain.iter().all(fits);
        valid.then_some(Self(chain))
    }

    /// Reads what a proxy that is believed has seen, in PEM.
    pub fn from_pem(text: &str) -> Option<Self> {
        let chain = CertificateDer::pem_slice_iter(text.as_bytes()).take(MAX_CHAIN + 1);
        Self::new(&chain.collect::<Result<Vec<_>, _>>().ok()?)
    }

    /// The client's own certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        self.0.first().map_or(&[], AsRef::as_ref)
    }

    /// SHA-256 of the client's own certificate.
    pub fn fingerprint(&self) -> [u8; 32] {
        sha256(self.certificate())
    }
}

/// Authorities whose certificates open something, with the certificates that they took back.
#[derive(Clone)]
pub struct Authorities {
    verifier: Arc<dyn ClientCertVerifier>,
    /// Authorities of the bundle that others of it have made: links of chains, not their ends, so that
    /// they can be taken back.
    between: Arc<[CertificateDer<'static>]>,
}

/// Why a guard cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Not PEM.
    #[error("the {what} cannot be read as PEM")]
    Pem {
        /// Certificates, or revocation lists.
        what: &'static str,
    },
    /// None, or too many.
    #[error("there have to be 1 to {most} {what}, and there are {found}")]
    Count {
        /// Certificates, or revocation lists.
        what: &'static str,
        /// At most so many.
        most: usize,
        /// So many were found; one more than allowed where there are more.
        found: usize,
    },
    /// One that is none.
    #[error("certificate {number} of the authorities is none that can be trusted: {reason}")]
    Authority {
        /// Its place, from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Refused as a whole.
    #[error("the authorities and revocation lists cannot be used: {0}")]
    Refused(String),
}

/// Why a consumer gets nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No certificate.
    #[error("no client certificate was shown")]
    None,
    /// Not of these authorities, out of date, for another use, or taken back.
    #[error("the client certificate is not good here: {0}")]
    Chain(String),
    /// It names no such path.
    #[error(transparent)]
    NotEntitled(#[from] NotEntitled),
    /// The URL opens nothing, or not this.
    #[error(transparent)]
    Link(#[from] BadLink),
}

impl Authorities {
    /// Reads a bundle of authorities, and the revocation lists that they publish, from PEM. What
    /// stands around the blocks does not matter; every block does.
    pub fn from_pem(bundle: &str, lists: Option<&str>) -> Result<Self, Unusable> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(bundle.as_bytes())
            .take(MAX_AUTHORITIES + 1)
            .collect::<Result<_, _>>()
            .map_err(|_| Unusable::Pem { what: "authorities" })?;
        check_count("authorities", certificates.len(), MAX_AUTHORITIES)?;
        let mut roots = RootCertStore::empty();
        let between = made_by_others(&certificates);
        for (at, certificate) in certificates.into_iter().enumerate() {
            if between.contains(&certificate) {
                continue;
            }
            let refused = |error: rustls::Error| Unusable::Authority {
                number: at + 1,
                reason: error.to_string(),
            };
            roots.add(certificate).map_err(refused)?;
        }
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        if let Some(lists) = lists {
            let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(lists.as_bytes())
                .take(MAX_LISTS + 1)
                .collect::<Result<_, _>>()
                .map_err(|_| Unusable::Pem { what: "revocation lists" })?;
            check_count("revocation lists", lists.len(), MAX_LISTS)?;
            // An authority that publishes no list takes nothing back.
            builder = builder.with_crls(lists).allow_unknown_revocation_status();
        }
        let verifier = builder.build().map_err(|error| Unusable::Refused(error.to_string()))?;
        Ok(Self { verifier, between: between.into() })
    }

    /// Whether a chain leads to one of them, now, for a client.
    pub fn check(&self, shown: &Shown, now: Timestamp) -> Result<(), Denied> {
        let (first, rest) = shown.0.split_first().ok_or(Denied::None)?;
        let seconds = u64::try_from(now.as_second()).unwrap_or(0);
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let rest: Vec<_> = rest.iter().chain(&*self.between).cloned().collect();
        let verified = self.verifier.verify_client_cert(first, &rest, now);
        verified.map(drop).map_err(|error| Denied::Chain(error.to_string()))
    }
}

impl std::fmt::Debug for Authorities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authorities")
    }
}

/// Those of a bundle whose issuer is another one of it. One that cannot be read is none of them, and
/// is refused as an authority.
fn made_by_others(bundle: &[CertificateDer<'static>]) -> Vec<CertificateDer<'static>> {
    let parsed: Vec<_> = bundle.iter().map(|one| X509Certificate::from_der(one).ok()).collect();
    let subjects: HashSet<&[u8]> =
        parsed.iter().flatten().map(|(_, one)| one.subject().as_raw()).collect();
    let is_between = |one: &Option<(&[u8], X509Certificate<'_>)>| {
        one.as_ref().is_some_and(|(_, one)| {
            let issuer = one.issuer().as_raw();
            issuer != one.subject().as_raw() && subjects.contains(issuer)
        })
    };
    let found: Vec<_> = bundle
        .iter()
        .zip(&parsed)
        .filter(|(_, one)| is_between(one))
        .map(|(der, _)| der.clone())
        .collect();
    // Where they have made each other, each is an end.
    if found.len() == bundle.len() { Vec::new() } else { found }
}

fn check_count(what: &'static str, found: usize, most: usize) -> Result<(), Unusable> {
    if (1..=most).contains(&found) {
        return Ok(());
    }
    Err(Unusable::Count { what, most, found })
}

#[cfg(test)]
mod tests;
