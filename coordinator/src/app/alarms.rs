//! Signs that somebody has what is another's: an invite that was used twice, a certificate that comes
//! up again after its holder went on to a newer one. They stay in sight until the identity was
//! revoked or enrolled anew, or for a week.

use jiff::{SignedDuration, Timestamp};
use protocol::{
    name::IdentityName,
    role::Role,
    v1::{audit::AuditEntry, identities::EnrollmentStatus},
};

use super::{App, Error, Picture, picture::Fleet};
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
        now: Timestamp,
    ) -> Result<Vec<String>, Error> {
        let since = now.saturating_sub(SHOWN).unwrap_or(Timestamp::MIN);
        let alarms = tx.audited_since(since, [INVITE_MISUSED, CLONE_SUSPECTED]).await?;
        let mut texts: Vec<String> = alarms
            .iter()
            .filter(|alarm| !is_settled(&picture.fleet, alarm))
            .map(|alarm| format!("{} ({}): {}", alarm.target, alarm.at, alarm.detail))
            .collect();
        texts.extend(self.enrollments_in(tx, now).await?.iter().map(asks));
        Ok(texts)
    }
}

/// Whether the identity has been shut out, or made anew, since the alarm.
fn is_settled(fleet: &Fleet, alarm: &AuditEntry) -> bool {
    let Some((role, name)) = alarm.target.split_once('/') else { return false };
    let (Ok(role), Ok(name)) = (role.parse::<Role>(), name.parse::<IdentityName>()) else {
        return false;
    };
    fleet
        .identity(role, &name)
        .is_some_and(|identity| identity.revoked.is_some() || identity.created > alarm.at)
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
            site: None,
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
        assert!(!is_settled(&fleet(50, None), &alarm("agent/a")));
        assert!(is_settled(&fleet(50, Some(101)), &alarm("agent/a")));
        assert!(is_settled(&fleet(101, None), &alarm("agent/a")));
        assert!(!is_settled(&fleet(101, None), &alarm("agent/b")), "nobody came of that invite");
        assert!(!is_settled(&fleet(101, None), &alarm("publisher/a")));
    }
}
