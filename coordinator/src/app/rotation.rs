//! How far the replacement of the network's root has come.
//!
//! Certificates are renewed at half of their life, and with each one its holder is given the roots to
//! trust. So a new root first travels along with certificates of the old one; once everybody has it, it
//! issues; and once nobody shows a certificate of the old one any more, that is forgotten.

use std::fmt;

use protocol::role::Role;

use super::{App, Picture, picture::Fleet};
use crate::db::StoredCertificate;

/// How far it has come. The coordinator's own certificate is not counted: it is made anew at each start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Live identities.
    pub identities: usize,
    /// Those that are not known to have been given all roots, as `ROLE/NAME`.
    pub without_bundle: Vec<String>,
    /// Those that may still show a certificate of another root than the issuing one.
    pub of_another_issuer: Vec<String>,
}

impl Progress {
    /// Counts. A certificate counts once it was used: its answer may have been lost.
    pub(crate) fn of(fleet: &Fleet, bundle: &str, issuer: &str) -> Self {
        let mut progress =
            Self { identities: 0, without_bundle: vec![], of_another_issuer: vec![] };
        for identity in fleet.identities().filter(|identity| identity.revoked.is_none()) {
            let (role, name) = (identity.role, &identity.name);
            progress.identities += 1;
            let used = fleet.newest_used(role, name);
            let text = || format!("{role}/{name}");
            let has = |of: fn(&StoredCertificate) -> &Option<String>, wanted: &str| {
                used.is_some_and(|used| of(used).as_deref() == Some(wanted))
            };
            if !has(|certificate| &certificate.bundle, bundle) {
                progress.without_bundle.push(text());
            }
            if !has(|certificate| &certificate.issuer, issuer) {
                progress.of_another_issuer.push(text());
            }
        }
        progress
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = |missing: &[String]| self.identities - missing.len();
        write!(
            f,
            "{} of {all} identities hold both roots, {} of {all} have a certificate of the issuing one",
            with(&self.without_bundle),
            with(&self.of_another_issuer),
            all = self.identities
        )
    }
}

impl App {
    /// What the status says while two roots are trusted.
    pub(super) fn rotation(&self, picture: &Picture) -> Option<String> {
        let authority = &self.parts.authority;
        if !authority.is_changing() {
            return None;
        }
        let (bundle, issuer) = (authority.bundle_id(), authority.issuer_id());
        let progress = Progress::of(&picture.fleet, &bundle, &issuer);
        Some(format!(
            "the network's root is being replaced: {progress}; `coordinator ca status` says what comes next"
        ))
    }
}

/// Whether the network needs that identity to go on. Viewers and operators can be invited again.
pub(crate) fn is_needed(who: &str) -> bool {
    let role = who.split_once('/').and_then(|(role, _)| role.parse::<Role>().ok());
    matches!(role, Some(Role::Agent | Role::Publisher | Role::Admin))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::db::StoredIdentity;

    fn identity(name: &str, revoked: bool) -> StoredIdentity {
        StoredIdentity {
            role: Role::Agent,
            name: name.parse().unwrap(),
            site: Some("lisbon".parse().unwrap()),
            signing_key: protocol::key::VerifyingKey::from_bytes([0; 32]),
            trees: vec![],
            created: Timestamp::UNIX_EPOCH,
            revoked: revoked.then_some(Timestamp::UNIX_EPOCH),
            reason: String::new(),
            advertise: None,
            last_seen: None,
        }
    }

    fn certificate(name: &str, issued: i64, used: bool, issuer: &str) -> StoredCertificate {
        let at = Timestamp::from_second(issued).unwrap();
        StoredCertificate {
            serial: format!("{name}{issued}"),
            role: Role::Agent,
            name: name.parse().unwrap(),
            issued: at,
            not_after: Timestamp::MAX,
            superseded: None,
            revoked: None,
            confirmed: used.then_some(at),
            issuer: Some(issuer.into()),
            bundle: Some(if issuer == "new" { "both".into() } else { "one".into() }),
        }
    }

    #[test]
    fn whoever_did_not_use_a_certificate_of_the_new_kind_does_not_count_as_having_one() {
        let fleet = Fleet::new(
            vec![
                identity("a", false),
                identity("b", false),
                identity("c", false),
                identity("d", true),
            ],
            vec![
                certificate("a", 1, true, "old"),
                certificate("a", 2, true, "new"),
                certificate("b", 1, true, "old"),
                certificate("b", 2, false, "new"),
                certificate("d", 1, true, "old"),
            ],
        );
        let progress = Progress::of(&fleet, "both", "new");
        assert_eq!(progress.identities, 3);
        assert_eq!(progress.without_bundle, ["agent/b", "agent/c"]);
        assert_eq!(progress.of_another_issuer, ["agent/b", "agent/c"]);
        assert!(progress.to_string().starts_with("1 of 3 identities hold both roots"));
        assert!(is_needed("agent/b") && is_needed("admin/b") && !is_needed("viewer/b"));
    }
}
