//! Enrollment: from an invite to an identity, in one transaction.
//!
//! An invite is used once. The same request again gets the same answer, because the first answer
//! may have been lost; another request with a used invite means that the invite was stolen, either
//! before or after it was used, and is an alarm. Nothing is said about an invite to someone who
//! cannot prove to know its secret.

use certs::{
    enrollment::{check_proof, fingerprint, key_fingerprint},
    tls::Exporter,
};
use jiff::{SignedDuration, Timestamp};
use protocol::v1::enroll::{EnrollPending, EnrollRequest, EnrollResponse};

use super::{App, Error, Refusal, alarms::INVITE_MISUSED, identities::topics_of};
use crate::{
    db::{self, StoredIdentity, StoredInvite},
    journal::Revocation,
};

/// How long who asked in time, with an invite that wants approval, may wait for it.
pub(super) const WAIT_FOR_APPROVAL: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Longest identifier of an invite.
const MAX_INVITE_ID: usize = 64;
/// Shortest and longest nonce, in bytes.
const NONCE: std::ops::RangeInclusive<usize> = 16..=64;

impl App {
    /// Turns an invite into an identity, if need be once an admin has approved it. `exporter` is of
    /// the connection that the request came by.
    pub async fn enroll(
        &self,
        request: &EnrollRequest,
        exporter: &Exporter,
    ) -> Result<Enrolled, Error> {
        if request.invite.len() > MAX_INVITE_ID || !NONCE.contains(&request.nonce.0.len()) {
            return Err(Refusal::Invalid("the enrollment request is not well formed".into()).into());
        }
        let mut write = self.write().await?;
        let invite = write.tx.invite(&request.invite).await?;
        let invite = known(invite, request, exporter)?;
        let asked = fingerprint(&request.keys, Some(&request.signing_key));
        let who = format!("{}/{}", invite.role, invite.name);
        if let Some(role) = request.role.filter(|role| *role != invite.role) {
            return Err(Refusal::Invite(format!(
                "the invite is for {who}, but it was used by a program of the role {role}; it is not used up"
            ))
            .into());
        }
        match judge(&invite, &asked, write.now) {
            Use::First => {}
            Use::Again(answer) => return Ok(Enrolled::Member(serde_json::from_str(&answer)?)),
            Use::Waits { first } => {
                let fingerprint = key_fingerprint(&request.keys, &request.signing_key);
                if first {
                    write.tx.ask_with_invite(&invite.id, &asked, write.now).await?;
                    let detail = format!("invite {}, keys {fingerprint}", invite.id);
                    write.tx.audit(write.now, &who, "enrollment-asked", &who, &detail).await?;
                    self.commit_quietly(write).await?;
                    tracing::warn!(identity = who, %fingerprint, "an enrollment waits for approval");
                }
                return Ok(Enrolled::Waits(EnrollPending { fingerprint }));
            }
            Use::Rejected => {
                return Err(Refusal::Invite(format!(
                    "an admin rejected this enrollment as {who}; ask for a new invite"
                ))
                .into());
            }
            Use::Misuse => {
                let detail = format!(
                    "invite {} was used again with other keys: it was stolen, before or after its use; if in doubt, revoke {who}",
                    invite.id
                );
                // Once: whoever has the invite must not be able to fill the log.
                if self.is_first_use(&format!("misuse of invite {}", invite.id)) {
                    let coordinator = "coordinator";
                    write.tx.audit(write.now, coordinator, INVITE_MISUSED, &who, &detail).await?;
                    self.commit_quietly(write).await?;
                    tracing::error!(invite = invite.id, identity = who, "{detail}");
                }
                return Err(Refusal::Invite(format!(
                    "the invite for {who} was used before, with other keys; ask the admin for a new one, and whether they expected this"
                ))
                .into());
            }
            Use::Expired => {
                return Err(Refusal::Invite(format!(
                    "the invite for {who} expired at {}; ask the admin for a new one",
                    invite.expires
                ))
                .into());
            }
        }
        let earlier = write.before.fleet.identity(invite.role, &invite.name);
        if earlier.is_some_and(|earlier| earlier.revoked.is_none()) {
            if !invite.replaces {
                return Err(Refusal::Conflict(format!(
                    "{who} is enrolled and live; its admin can make an invite with --replace"
                ))
                .into());
            }
            let reason = format!("replaced with invite {}", invite.id);
            write.tx.revoke_identity(invite.role, &invite.name, &reason, write.now).await?;
            let (role, name) = (invite.role, invite.name.clone());
            self.note_revocation(&Revocation { role, name, at: write.now, reason });
        }
        let identity = StoredIdentity {
            role: invite.role,
            name: invite.name.clone(),
            site: invite.site.clone(),
            signing_key: request.signing_key,
            trees: invite.trees.clone(),
            created: write.now,
            revoked: None,
            reason: String::new(),
            advertise: None,
            last_seen: None,
        };
        let (certificate, certificates) =
            self.certify(invite.role, &invite.name, &request.keys, write.now)?;
        let response = EnrollResponse {
            network: self.network().clone(),
            role: invite.role,
            name: invite.name.clone(),
            certificates,
            api_url: self.parts.api_url.clone(),
            root: write.before.root.envelope().clone(),
        };
        let answer = serde_json::to_string(&response)?;
        if !write.tx.consume_invite(&invite.id, &asked, &answer, write.now).await? {
            return Err(db::Error::Corrupt {
                what: "invite",
                reason: format!("{} was used within its own transaction", invite.id),
            }
            .into());
        }
        write.tx.put_identity(&identity).await?;
        write.tx.add_certificate(&certificate, &asked, &answer).await?;
        let detail =
            format!("invite {} by {}, serial {}", invite.id, invite.made_by, certificate.serial);
        write.tx.audit(write.now, &who, "enroll", &who, &detail).await?;
        let mut topics = topics_of(&mut write, &identity).await?;
        topics.extend(self.follow_identities(&mut write).await?);
        self.commit(write, &topics).await?;
        tracing::info!(identity = who, serial = certificate.serial, "enrolled");
        Ok(Enrolled::Member(Box::new(response)))
    }
}

/// What became of an enrollment.
#[derive(Debug)]
pub enum Enrolled {
    /// An identity.
    Member(Box<EnrollResponse>),
    /// Nothing yet: an admin has to approve it.
    Waits(EnrollPending),
}

/// What a proved use of an invite is.
#[derive(Debug, PartialEq, Eq)]
enum Use {
    First,
    Again(String),
    /// An admin has to approve it; `first` when nobody has heard of it yet.
    Waits {
        first: bool,
    },
    Rejected,
    Misuse,
    Expired,
}

fn judge(invite: &StoredInvite, asked: &str, now: Timestamp) -> Use {
    if invite.consumed.is_some() {
        return match (&invite.request, &invite.answer) {
            (Some(request), Some(answer)) if request == asked => Use::Again(answer.clone()),
            (Some(request), None) if request == asked => Use::Rejected,
            _ => Use::Misuse,
        };
    }
    match &invite.asking {
        Some(first) if first != asked => Use::Misuse,
        Some(_) if now >= end_of_wait(invite) => Use::Expired,
        Some(_) if invite.approved_by.is_none() => Use::Waits { first: false },
        Some(_) => Use::First,
        None if now >= invite.expires => Use::Expired,
        None if invite.approve => Use::Waits { first: true },
        None => Use::First,
    }
}

/// When an invite that was asked with ends undecided.
pub(super) fn end_of_wait(invite: &StoredInvite) -> Timestamp {
    let asked = invite.asked.unwrap_or(invite.expires);
    asked.saturating_add(WAIT_FOR_APPROVAL).unwrap_or(Timestamp::MAX)
}

/// The invite, if the sender proves to know its secret.
fn known(
    invite: Option<StoredInvite>,
    request: &EnrollRequest,
    exporter: &Exporter,
) -> Result<StoredInvite, Error> {
    // One answer for an unknown invite and for a wrong secret: who guesses learns nothing.
    let refused = || {
        Refusal::Invite(
            "there is no such invite, or its secret was not proved; copy the whole line that `mirrorctl invite` printed".into(),
        )
    };
    let invite = invite.ok_or_else(refused)?;
    let verifier = invite.verifier.parse().map_err(|error| db::Error::Corrupt {
        what: "invite",
        reason: format!("{}: {error}", invite.id),
    })?;
    check_proof(request, &verifier, exporter).map_err(|_| refused())?;
    Ok(invite)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite() -> StoredInvite {
        StoredInvite {
            id: "i".into(),
            verifier: String::new(),
            role: protocol::role::Role::Agent,
            name: "a".parse().unwrap(),
            site: None,
            trees: vec![],
            replaces: false,
            approve: false,
            asked: None,
            asking: None,
            approved_by: None,
            made_by: "admin/ann".into(),
            expires: Timestamp::UNIX_EPOCH,
            consumed: None,
            request: None,
            answer: None,
        }
    }

    #[test]
    fn an_invite_is_good_once_until_it_ends_and_repeats_only_its_own_answer() {
        let before = Timestamp::UNIX_EPOCH - SignedDuration::from_secs(1);
        let after = Timestamp::UNIX_EPOCH;
        assert_eq!(judge(&invite(), "x", before), Use::First);
        assert_eq!(judge(&invite(), "x", after), Use::Expired);
        let used = StoredInvite {
            consumed: Some(before),
            request: Some("x".into()),
            answer: Some("answer".into()),
            ..invite()
        };
        assert_eq!(judge(&used, "x", after), Use::Again("answer".into()));
        assert_eq!(judge(&used, "y", before), Use::Misuse);
    }

    #[test]
    fn an_invite_counts_to_the_last_moment_before_its_end_and_not_at_it() {
        let end = Timestamp::UNIX_EPOCH;
        let (second, moment) = (SignedDuration::from_secs(1), SignedDuration::from_nanos(1));
        let wants_approval = StoredInvite { approve: true, ..invite() };
        for (at, good) in [
            (end - second, true),
            (end - moment, true),
            (end, false),
            (end + moment, false),
            (end + second, false),
        ] {
            assert_eq!(judge(&invite(), "x", at) == Use::First, good, "{at}");
            let waits = judge(&wants_approval, "x", at) == Use::Waits { first: true };
            assert_eq!(waits, good, "{at}");
        }
    }

    #[test]
    fn approval_is_for_the_keys_that_asked_first_and_for_a_week() {
        let asked = Timestamp::UNIX_EPOCH - SignedDuration::from_secs(1);
        let late = asked + WAIT_FOR_APPROVAL;
        let waiting = StoredInvite {
            approve: true,
            asked: Some(asked),
            asking: Some("x".into()),
            ..invite()
        };
        let in_time = late - SignedDuration::from_nanos(1);
        assert_eq!(judge(&waiting, "x", in_time), Use::Waits { first: false });
        assert_eq!(judge(&waiting, "x", late), Use::Expired);
        assert_eq!(judge(&waiting, "y", asked), Use::Misuse, "two have the same invite");
        let approved = StoredInvite { approved_by: Some("admin/ann".into()), ..waiting.clone() };
        assert_eq!(judge(&approved, "x", in_time), Use::First);
        assert_eq!(judge(&approved, "x", late), Use::Expired);
        assert_eq!(judge(&approved, "y", asked), Use::Misuse);
        let rejected =
            StoredInvite { consumed: Some(in_time), request: Some("x".into()), ..waiting };
        assert_eq!(judge(&rejected, "x", in_time), Use::Rejected);
        assert_eq!(judge(&rejected, "y", in_time), Use::Misuse);
    }
}
