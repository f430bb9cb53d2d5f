//! Who may ask, and for what. TLS has proved the key; whether its certificate is live is looked up
//! for every request.

use certs::identity::PeerIdentity;
use jiff::Timestamp;
use protocol::{
    name::{IdentityName, SiteName},
    role::Role,
};

use super::{Picture, Refusal, picture::is_live};

/// An identity whose certificate is live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its role.
    pub role: Role,
    /// Its name.
    pub name: IdentityName,
    /// Its site; agents and operators only.
    pub site: Option<SiteName>,
    /// Serial number of its certificate.
    pub serial: String,
    /// When that certificate ends.
    pub not_after: Timestamp,
    /// Whether it was used before.
    pub confirmed: bool,
}

/// How much of the network somebody may see, and do something about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All of it.
    Network,
    /// What concerns one site.
    Site(SiteName),
}

impl Scope {
    /// Whether something that concerns `site` alone is within it.
    pub fn covers(&self, site: &SiteName) -> bool {
        match self {
            Self::Network => true,
            Self::Site(own) => own == site,
        }
    }

    /// Whether something that concerns `site`, or no site alone, is within it.
    pub fn covers_some(&self, site: Option<&SiteName>) -> bool {
        match (self, site) {
            (Self::Network, _) => true,
            (Self::Site(own), Some(site)) => own == site,
            (Self::Site(_), None) => false,
        }
    }
}

impl Caller {
    /// How much of the network it may see and do something about, if its role may at all.
    pub fn scope(&self) -> Scope {
        match &self.site {
            Some(site) => Scope::Site(site.clone()),
            None => Scope::Network,
        }
    }

    /// Refuses what concerns another site than the caller's.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`].
    pub fn check_site(&self, site: Option<&SiteName>) -> Result<(), Refusal> {
        let scope = self.scope();
        if scope.covers_some(site) {
            return Ok(());
        }
        let Scope::Site(own) = scope else { return Ok(()) };
        Err(Refusal::Forbidden(format!(
            "{self} is an operator of the site {own} and may do only what concerns that site"
        )))
    }
}

impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.role, self.name)
    }
}

/// Looks a peer up.
///
/// # Errors
/// When its certificate is not known here, was revoked or replaced, or has ended.
pub fn admit(picture: &Picture, peer: &PeerIdentity, now: Timestamp) -> Result<Caller, Refusal> {
    let serial = peer.serial.to_string();
    let unknown = || {
        Refusal::Unauthenticated(format!(
            "the certificate {serial} of {peer} is not known here; was the coordinator restored from an older backup? Enroll again"
        ))
    };
    let certificate = picture.fleet.certificate(&serial).ok_or_else(unknown)?;
    if (certificate.role, &certificate.name) != (peer.role, &peer.name) {
        return Err(unknown());
    }
    let identity = picture.fleet.identity(peer.role, &peer.name).ok_or_else(unknown)?;
    if identity.revoked.is_some() || certificate.revoked.is_some() {
        return Err(Refusal::Revoked(format!(
            "{peer} was revoked; what it holds stays as it is. An admin can invite it again"
        )));
    }
    if peer.role.has_site() != identity.site.is_some() {
        // What it may see would depend on it.
        return Err(Refusal::Unauthenticated(format!("{peer} has no site; enroll it again")));
    }
    if !is_live(certificate, now) {
        return Err(Refusal::Unauthenticated(format!(
            "the certificate {serial} of {peer} has ended or was replaced by a newer one; use the newest, or enroll again"
        )));
    }
    Ok(Caller {
        role: peer.role,
        name: peer.name.clone(),
        site: identity.site.clone(),
        serial,
        not_after: certificate.not_after,
        confirmed: certificate.confirmed.is_some(),
    })
}
