//! Servers outside of the network, under the public PKI: stock daemons behind TLS, and CDNs.
//!
//! They are trusted to be who they are called, by the system's own roots, and are shown nothing of
//! this network's identity; what comes from them is verified as if anyone had sent it.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, RootCertStore, client::Resumption};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::{ClientStream, Error, client::handshake, provider};
use crate::dial::Dialer;

/// Where systems keep the bundle of roots that they trust.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
/// Longest bundle that is read, in bytes; real ones have a quarter of a megabyte.
const MAX_BUNDLE_LEN: u64 = 8 * 1024 * 1024;

/// The roots of the public PKI.
#[derive(Debug, Clone)]
pub struct PublicRoots(Arc<RootCertStore>);

impl PublicRoots {
    /// The roots of the bundle that the variable `SSL_CERT_FILE` names, else of the system's.
    pub fn of_system() -> Result<Self, Error> {
        match std::env::var_os("SSL_CERT_FILE").map(PathBuf::from) {
            Some(named) => Self::from_files(&[&named]),
            None => Self::from_files(&BUNDLES.map(Path::new)),
        }
    }

    /// The roots of the first of `files` that can be read.
    pub fn from_files(files: &[&Path]) -> Result<Self, Error> {
        let bundle = files.iter().find_map(|path| read(path)).ok_or(Error::NoSystemRoots)?;
        let mut roots = RootCertStore::empty();
        // A system's bundle may hold a few that webpki refuses; they only make it smaller.
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&bundle).flatten());
        if roots.is_empty() { Err(Error::NoSystemRoots) } else { Ok(Self(Arc::new(roots))) }
    }

    /// These roots and those of a file besides.
    pub fn and_file(self, file: &Path) -> Result<Self, Error> {
        let bundle = read(file).ok_or_else(|| Error::NoRoots { file: file.into() })?;
        let mut roots = Arc::unwrap_or_clone(self.0);
        let (added, _) =
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&bundle).flatten());
        if added == 0 {
            Err(Error::NoRoots { file: file.into() })
        } else {
            Ok(Self(Arc::new(roots)))
        }
    }

    /// No roots yet, for a machine whose system has none.
    pub fn none() -> Self {
        Self(Arc::new(RootCertStore::empty()))
    }

    /// The TLS library's configuration.
    pub(crate) fn config(&self, alpn: &[&str]) -> Result<ClientConfig, Error> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(Error::Configuration)?
            .with_root_certificates(Arc::clone(&self.0))
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// Opens a stream to the server that is called `host` under the public PKI, within `deadline`.
pub async fn connect_public(
    dialer: &Dialer,
    address: (&str, u16),
    deadline: Duration,
) -> Result<ClientStream, Error> {
    connect_under(&PublicRoots::of_system()?, dialer, address, deadline).await
}

/// Like [`connect_public`], under other roots than the system's.
pub async fn connect_under(
    roots: &PublicRoots,
    dialer: &Dialer,
    address: (&str, u16),
    deadline: Duration,
) -> Result<ClientStream, Error> {
    handshake(dialer, roots.config(&[])?, address, None, deadline).await
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bundle = Vec::new();
    File::open(path).ok()?.take(MAX_BUNDLE_LEN).read_to_end(&mut bundle).ok()?;
    Some(bundle)
}
