//! Who takes part, and which certificates are live.

use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp};
use protocol::{
    name::{IdentityName, SiteName},
    role::Role,
};

use crate::db::{StoredCertificate, StoredIdentity};

/// How long a certificate is still accepted after its holder got a newer one: connections that are
/// open, and requests that are on their way, must not fail because of a renewal.
const HANDOVER: SignedDuration = SignedDuration::from_hours(1);

/// Every identity with its certificates.
#[derive(Debug, Default)]
pub struct Fleet {
    identities: BTreeMap<(Role, IdentityName), StoredIdentity>,
    certificates: HashMap<String, StoredCertificate>,
    serials: BTreeMap<(Role, IdentityName), Vec<String>>,
    agents: HashMap<SiteName, Vec<(IdentityName, SiteName)>>,
}

impl Fleet {
    /// From what is stored: identities in the order of their enrollment.
    pub fn new(identities: Vec<StoredIdentity>, certificates: Vec<StoredCertificate>) -> Self {
        let mut fleet = Self::default();
        for identity in identities {
            let live = identity.role == Role::Agent && identity.revoked.is_none();
            if let Some(site) = identity.site.clone().filter(|_| live) {
                let agents = fleet.agents.entry(site.clone()).or_default();
                agents.push((identity.name.clone(), site));
            }
            fleet.identities.insert((identity.role, identity.name.clone()), identity);
        }
        for certificate in certificates {
            let holder = (certificate.role, certificate.name.clone());
            fleet.serials.entry(holder).or_default().push(certificate.serial.clone());
            fleet.certificates.insert(certificate.serial.clone(), certificate);
        }
        fleet
    }

    /// One identity, live or revoked.
    pub fn identity(&self, role: Role, name: &IdentityName) -> Option<&StoredIdentity> {
        self.identities.get(&(role, name.clone()))
    }

    /// Every identity, by role and name.
    pub fn identities(&self) -> impl Iterator<Item = &StoredIdentity> {
        self.identities.values()
    }

    /// The live agents of a site, the oldest enrollment first.
    pub fn agents_at(&self, site: &SiteName) -> &[(IdentityName, SiteName)] {
        self.agents.get(site).map_or(&[], Vec::as_slice)
    }

    /// Every live agent with its site; those of one site the oldest enrollment first.
    pub fn agents(&self) -> Vec<(IdentityName, SiteName)> {
        self.agents.values().flatten().cloned().collect()
    }

    /// The certificate with that serial number, if it was issued here and has not ended.
    pub fn certificate(&self, serial: &str) -> Option<&StoredCertificate> {
        self.certificates.get(serial)
    }

    /// The newest certificate of an identity.
    pub fn newest_certificate(
        &self,
        role: Role,
        name: &IdentityName,
    ) -> Option<&StoredCertificate> {
        let serials = self.serials.get(&(role, name.clone()))?;
        serials.last().and_then(|serial| self.certificates.get(serial))
    }

    /// The serial numbers under which an identity may act now.
    pub fn live_serials(&self, role: Role, name: &IdentityName, now: Timestamp) -> Vec<&str> {
        let Some(serials) = self.serials.get(&(role, name.clone())) else { return vec![] };
        let found = serials.iter().filter_map(|serial| self.certificates.get(serial));
        found.filter(|c| is_live(c, now)).map(|c| c.serial.as_str()).collect()
    }

    /// Every serial number that was revoked, with the time.
    pub fn revoked(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        self.certificates.values().filter_map(|c| Some((c.serial.as_str(), c.revoked?)))
    }

    /// Whether the same agents stand at the same sites in the same order.
    pub fn same_agents(&self, other: &Self) -> bool {
        self.agents == other.agents
    }
}

/// Whether a certificate may be used now, for all that is known of it.
pub fn is_live(certificate: &StoredCertificate, now: Timestamp) -> bool {
    let handed_over =
        |superseded: Timestamp| superseded.checked_add(HANDOVER).is_ok_and(|end| now < end);
    certificate.revoked.is_none()
        && now < certificate.not_after
        && certificate.superseded.is_none_or(handed_over)
}
