//! Signs that somebody has what is another's: an invite that was used twice, a certificate that comes
//! up again after its holder went on to a newer one. They stay in sight until the identity was
//! revoked or enrolled anew, or for a week.

use jiff::{SignedDuration, Timestamp};
use protocol::{
    name::IdentityName,
    role::Role,
    v1::{audit::AuditEntry, identities::EnrollmentStatus},
};

use super::{App, Error, Picture, admission::Scope, picture::Fleet};
use crate::db::Transaction;

/// In the audit log: an invite was used again, with other keys.
pub(super) const INVITE_MISUSED: &str = "invite-misused";
/// In the audit log: a certificate was used again, long after a newer one.
pub(super) const CLONE_SUSPECTED: &str = "clone-suspected";

/// How long an alarm is shown that nobody acts on.
const SHOWN: SignedDuration = SignedDuration::from_hours(7 * 24);

impl App {
    /// What the status says about who came in, or tries to.
    pub(super) async fn suspicions(
        &self,
        tx: &mut Transaction,
        picture: &Picture,
        scope: &Scope,
        now: Timestamp,
    ) -> Result<Vec<String>, Error> {
        let since = now.saturating_sub(SHOWN).unwrap_or(Timestamp::MIN);
        let alarms = tx.audited_since(since, [INVITE_MISUSED, CLONE_SUSPECTED]).await?;
        let mut texts: Vec<String> = alarms
            .iter()
            .filter(|alarm| is_shown(&picture.fleet, alarm, scope))
            .map(|alarm| format!("{} ({}): {}", alarm.target, alarm.at, alarm.detail))
            .collect();
        texts.extend(self.enrollments_in(tx, scope, now).await?.iter().map(asks));
        Ok(texts)
    }
}

/// Whether an alarm is within `scope`, and the identity has neither been shut out nor been made anew
/// since.
fn is_shown(fleet: &Fleet, alarm: &AuditEntry, scope: &Scope) -> bool {
    let target = alarm.target.split_once('/').and_then(|(role, name)| {
        fleet.identity(role.parse::<Role>().ok()?, &name.parse::<IdentityName>().ok()?)
    });
    match target {
        // Nobody came of that invite.
        None => *scope == Scope::Network,
        Some(identity) => {
            let settled = identity.revoked.is_some() || identity.created > alarm.at;
            !settled && scope.covers_some(identity.site.as_ref())
        }
    }
}

fn asks(waiting: &EnrollmentStatus) -> String {
    let EnrollmentStatus { fingerprint, role, name, asked, .. } = waiting;
    format!(
        "{role} {name} asks to be let in since {asked}, with the keys {fingerprint}; compare them with what that machine prints, then `mirrorctl approve-enrollment` or `mirrorctl reject-enrollment`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::StoredIdentity;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn fleet(created: i64, revoked: Option<i64>) -> Fleet {
        let identity = StoredIdentity {
            role: Role::Agent,
            name: "a".parse().unwrap(),
            site: Some("lisbon".parse().unwrap()),
            signing_key: protocol::key::VerifyingKey::from_bytes([0; 32]),
            trees: vec![],
            created: at(created),
            revoked: revoked.map(at),
            reason: String::new(),
            advertise: None,
            last_seen: None,
        };
        Fleet::new(vec![identity], vec![])
    }

    #[test]
    fn an_alarm_is_settled_by_a_revocation_or_a_new_enrollment_and_by_nothing_else() {
        let alarm = |target: &str| AuditEntry {
            number: 1,
            at: at(100),
            who: "coordinator".into(),
            what: INVITE_MISUSED.into(),
            target: target.into(),
            detail: String::new(),
            previous: String::new(),
            digest: String::new(),
        };
        let all = Scope::Network;
        assert!(is_shown(&fleet(50, None), &alarm("agent/a"), &all));
        assert!(!is_shown(&fleet(50, Some(101)), &alarm("agent/a"), &all));
        assert!(!is_shown(&fleet(101, None), &alarm("agent/a"), &all));
        assert!(is_shown(&fleet(101, None), &alarm("agent/b"), &all), "nobody came of that invite");
        assert!(is_shown(&fleet(101, None), &alarm("publisher/a"), &all));
        let of = |site: &str| Scope::Site(site.parse().unwrap());
        assert!(is_shown(&fleet(50, None), &alarm("agent/a"), &of("lisbon")));
        assert!(!is_shown(&fleet(50, None), &alarm("agent/a"), &of("oslo")));
        assert!(!is_shown(&fleet(50, None), &alarm("agent/b"), &of("lisbon")));
    }
}
