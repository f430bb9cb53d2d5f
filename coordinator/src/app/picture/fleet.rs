//! Who takes part, and which certificates are live.

use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp};
use protocol::{
    name::{IdentityName, SiteName},
    role::Role,
};

use crate::db::{StoredCertificate, StoredIdentity};

/// How long a certificate is still accepted after its holder used a newer one: connections that are
/// open, and requests that are on their way, must not fail because of a renewal. One that was issued
/// and never used ends nothing: its holder may have been killed before it could keep it.
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
        fleet.note_replaced();
        fleet
    }

    /// Since when each certificate has a newer one that is known to work.
    fn note_replaced(&mut self) {
        for serials in self.serials.values() {
            let mut works_since: Option<Timestamp> = None;
            for serial in serials.iter().rev() {
                let Some(certificate) = self.certificates.get_mut(serial) else { continue };
                certificate.superseded = works_since;
                works_since = match (works_since, certificate.confirmed) {
                    (Some(newer), Some(own)) => Some(newer.min(own)),
                    (newer, own) => newer.or(own),
                };
            }
        }
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

    /// The newest certificate of an identity that it is known to have used.
    pub fn newest_used(&self, role: Role, name: &IdentityName) -> Option<&StoredCertificate> {
        let serials = self.serials.get(&(role, name.clone()))?;
        let found = serials.iter().rev().filter_map(|serial| self.certificates.get(serial));
        found.into_iter().find(|certificate| certificate.confirmed.is_some())
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

/// Whether a certificate is used although its holder has long been using a newer one: somebody has
/// a copy of the identity.
pub fn is_outlived(certificate: &StoredCertificate, now: Timestamp) -> bool {
    certificate.revoked.is_none() && now < certificate.not_after && !is_live(certificate, now)
}

/// Whether a certificate may be used now, for all that is known of it.
pub fn is_live(certificate: &StoredCertificate, now: Timestamp) -> bool {
    let handed_over =
        |superseded: Timestamp| superseded.checked_add(HANDOVER).is_ok_and(|end| now < end);
    certificate.revoked.is_none()
        && now < certificate.not_after
        && certificate.superseded.is_none_or(handed_over)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(minute * 60).unwrap()
    }

    fn certificate(serial: &str, issued: i64, confirmed: Option<i64>) -> StoredCertificate {
        StoredCertificate {
            serial: serial.into(),
            role: Role::Agent,
            name: "a".parse().unwrap(),
            issued: at(issued),
            not_after: at(10_000),
            superseded: (serial == "old").then(|| at(issued + 1)),
            revoked: None,
            confirmed: confirmed.map(at),
            issuer: None,
            bundle: None,
        }
    }

    #[test]
    fn an_answer_that_was_lost_locks_nobody_out_and_a_copy_is_told_from_a_late_request() {
        let lost =
            Fleet::new(vec![], vec![certificate("old", 0, Some(0)), certificate("new", 100, None)]);
        let old = lost.certificate("old").unwrap();
        assert!(is_live(old, at(9_999)), "the newer one was never used");
        assert!(is_live(lost.certificate("new").unwrap(), at(9_999)));
        let moved_on = Fleet::new(
            vec![],
            vec![certificate("old", 0, Some(0)), certificate("new", 100, Some(200))],
        );
        let old = moved_on.certificate("old").unwrap();
        assert!(is_live(old, at(259)) && !is_outlived(old, at(259)));
        assert!(!is_live(old, at(260)) && is_outlived(old, at(260)));
        assert!(!is_outlived(old, at(10_000)), "what has ended is nobody's copy");
        let revoked = StoredCertificate { revoked: Some(at(1)), ..old.clone() };
        assert!(!is_outlived(&revoked, at(260)));
    }
}
