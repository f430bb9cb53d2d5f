//! What a certificate says about its holder.
//!
//! A chain that verifies proves little by itself: any leaf under the root would pass, for any use.
//! So the certificate is read again here, strictly, after the chain was checked: it must be no CA,
//! be usable for exactly one thing (client or server), and name exactly one identity, as the URI
//! `spiffe://NETWORK/ROLE/NAME`. Nothing else in it is believed.

pub mod directory;
mod serial;

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use protocol::name::{IdentityName, NetworkName};
pub use protocol::role::Role;
use x509_parser::{
    extensions::{ExtendedKeyUsage, GeneralName},
    prelude::{FromDer, X509Certificate},
};

pub use self::{
    directory::{Identity, Pending},
    serial::{InvalidSerial, Serial},
};

/// Longest certificate that is read, in bytes of DER.
pub const MAX_CERTIFICATE_LEN: usize = 16 * 1024;
/// Most names that one certificate may carry.
const MAX_NAMES: usize = 64;

/// The name of an identity in the whole network, written `spiffe://NETWORK/ROLE/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityUri {
    /// The network that the identity belongs to.
    pub network: NetworkName,
    /// What it is.
    pub role: Role,
    /// Its name.
    pub name: IdentityName,
}

impl fmt::Display for IdentityUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}/{}", self.network, self.role, self.name)
    }
}

impl FromStr for IdentityUri {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::InvalidUri { uri: text.chars().take(300).collect() };
        let rest = text.strip_prefix("spiffe://").ok_or_else(invalid)?;
        let mut parts = rest.split('/');
        let (Some(network), Some(role), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(invalid());
        };
        Ok(Self {
            network: network.parse().map_err(|_| invalid())?,
            role: role.parse().map_err(|_| invalid())?,
            name: name.parse().map_err(|_| invalid())?,
        })
    }
}

/// The identity at the other end of a connection, as its certificate proves it.
///
/// Whether the serial is still live, and what its holder may do, is not in here: that is looked up
/// for every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The network that the identity belongs to.
    pub network: NetworkName,
    /// What it is.
    pub role: Role,
    /// Its name.
    pub name: IdentityName,
    /// The serial number of its certificate.
    pub serial: Serial,
    /// The start of the certificate's life.
    pub not_before: Timestamp,
    /// The end of the certificate's life.
    pub not_after: Timestamp,
}

impl PeerIdentity {
    /// Reads the certificate of a client.
    ///
    /// # Errors
    /// When it is not exactly a client's leaf, or names no identity or several.
    pub fn from_client_certificate(der: &[u8]) -> Result<Self, Error> {
        let identity = Self::read(der, Use::Client)?;
        if identity.role == Role::Coordinator {
            return Err(Error::CoordinatorAsClient);
        }
        Ok(identity)
    }

    /// Reads the certificate of a server.
    ///
    /// # Errors
    /// When it is not exactly a server's leaf, or names no identity or several.
    pub fn from_server_certificate(der: &[u8]) -> Result<Self, Error> {
        Self::read(der, Use::Server)
    }

    /// The identity's name in the whole network.
    pub fn uri(&self) -> IdentityUri {
        IdentityUri { network: self.network.clone(), role: self.role, name: self.name.clone() }
    }

    fn read(der: &[u8], wanted: Use) -> Result<Self, Error> {
        if der.len() > MAX_CERTIFICATE_LEN {
            return Err(Error::TooLong);
        }
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|_| Error::NotACertificate)?;
        if !rest.is_empty() {
            return Err(Error::NotACertificate);
        }
        check_no_authority(&certificate)?;
        check_use(&certificate, wanted)?;
        let uri = only_uri(&certificate, wanted)?;
        let time = |seconds| Timestamp::from_second(seconds).map_err(|_| Error::NotACertificate);
        let IdentityUri { network, role, name } = uri.parse()?;
        Ok(Self {
            network,
            role,
            name,
            serial: Serial::from_bytes(certificate.raw_serial())
                .map_err(|_| Error::NotACertificate)?,
            not_before: time(certificate.validity().not_before.timestamp())?,
            not_after: time(certificate.validity().not_after.timestamp())?,
        })
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.role, self.name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Client,
    Server,
}

fn check_no_authority(certificate: &X509Certificate<'_>) -> Result<(), Error> {
    match certificate.basic_constraints() {
        // Without the extension it is no CA by RFC 5280, but ours always say so.
        Ok(Some(constraints)) if !constraints.value.ca => Ok(()),
        Ok(_) => Err(Error::IsAuthority),
        Err(_) => Err(Error::NotACertificate),
    }
}

fn check_use(certificate: &X509Certificate<'_>, wanted: Use) -> Result<(), Error> {
    let usage = certificate.extended_key_usage().map_err(|_| Error::NotACertificate)?;
    let ExtendedKeyUsage {
        any,
        server_auth,
        client_auth,
        code_signing,
        email_protection,
        time_stamping,
        ocsp_signing,
        other,
    } = usage.ok_or(Error::WrongUse)?.value;
    let further = *any || *code_signing || *email_protection || *time_stamping || *ocsp_signing;
    let exact = match wanted {
        Use::Client => *client_auth && !*server_auth,
        Use::Server => *server_auth && !*client_auth,
    };
    if exact && !further && other.is_empty() { Ok(()) } else { Err(Error::WrongUse) }
}

fn only_uri<'a>(certificate: &'a X509Certificate<'_>, wanted: Use) -> Result<&'a str, Error> {
    let names = certificate.subject_alternative_name().map_err(|_| Error::NotACertificate)?;
    let names = &names.ok_or(Error::NotOneName)?.value.general_names;
    if names.len() > MAX_NAMES {
        return Err(Error::NotOneName);
    }
    let mut uri = None;
    for name in names {
        match name {
            GeneralName::URI(text) if uri.is_none() => uri = Some(*text),
            // A server also carries the host names that it is reached by.
            GeneralName::DNSName(_) | GeneralName::IPAddress(_) if wanted == Use::Server => {}
            _ => return Err(Error::NotOneName),
        }
    }
    uri.ok_or(Error::NotOneName)
}

/// Why a certificate was not taken as an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Longer than [`MAX_CERTIFICATE_LEN`].
    #[error("the certificate is longer than {MAX_CERTIFICATE_LEN} bytes")]
    TooLong,
    /// Not one well-formed certificate.
    #[error("the certificate is not well formed")]
    NotACertificate,
    /// CA:TRUE, or nothing said about it.
    #[error("the certificate is not that of an identity: it does not say CA:FALSE")]
    IsAuthority,
    /// Extended key usage missing or not exactly the one that is wanted.
    #[error(
        "the certificate is for another use: its extended key usage must be exactly client authentication for clients and server authentication for servers"
    )]
    WrongUse,
    /// No URI, several, or names of another kind.
    #[error("the certificate does not name exactly one identity")]
    NotOneName,
    /// A URI that is no identity's.
    #[error("the certificate names {uri:?}, which is not spiffe://NETWORK/ROLE/NAME")]
    InvalidUri {
        /// What was found, shortened.
        uri: String,
    },
    /// The coordinator never connects to anyone.
    #[error("a coordinator's name was used by a client")]
    CoordinatorAsClient,
    /// An identity of another network.
    #[error("the certificate belongs to the network {found}, but this is {wanted}")]
    WrongNetwork {
        /// The network named in the certificate.
        found: NetworkName,
        /// Ours.
        wanted: NetworkName,
    },
    /// A server that is not the one that was meant.
    #[error("the server is {found}, but {wanted} was expected")]
    WrongServer {
        /// Who answered.
        found: IdentityUri,
        /// Who should have.
        wanted: String,
    },
}
