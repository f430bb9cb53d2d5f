//! Renewal of certificates that have ended: for a machine that was off, so that nobody has to travel
//! to it with an invite.
//!
//! Only the newest certificate that its holder is known to have used, or one issued after it, is
//! renewed: whoever has a copy of an older one is a clone, and an alarm. Each identity may ask a few
//! times an hour, because whoever has its key might otherwise make certificates without end.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use certs::{enrollment::fingerprint, identity::PeerIdentity, late, tls::Exporter};
use jiff::{SignedDuration, Timestamp};
use protocol::v1::enroll::{LateRenewRequest, RenewResponse};

use super::{App, Error, Refusal, alarms::CLONE_SUSPECTED, identities::topics_of};
use crate::db::{StoredCertificate, Topic};

/// How often an identity may ask within [`WINDOW`].
const MOST: usize = 10;
const WINDOW: Duration = Duration::from_secs(60 * 60);
/// Shortest and longest nonce, in bytes.
const NONCE: std::ops::RangeInclusive<usize> = 16..=64;
/// Most certificates in a chain.
const MAX_CHAIN: usize = 8;

/// When each identity asked lately. Only those who prove to hold a certificate of the network are in
/// it, so there are never more than identities.
#[derive(Debug, Default)]
pub(super) struct LateAsks(Mutex<HashMap<String, Vec<Instant>>>);

impl LateAsks {
    /// Whether `who` may ask now; counts it.
    fn admit(&self, who: &str, now: Instant) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let asks = all.entry(who.to_owned()).or_default();
        asks.retain(|at| now.duration_since(*at) < WINDOW);
        let admitted = asks.len() < MOST;
        if admitted {
            asks.push(now);
        }
        admitted
    }
}

impl App {
    /// Replaces a certificate that has ended. `exporter` is of the connection that the request came
    /// by. The same request gets the same answer.
    pub async fn renew_late(
        &self,
        request: &LateRenewRequest,
        exporter: &Exporter,
    ) -> Result<RenewResponse, Error> {
        if request.chain.len() > MAX_CHAIN || !NONCE.contains(&request.nonce.0.len()) {
            return Err(Refusal::Invalid("the request is not well formed".into()).into());
        }
        let anchors = self.parts.authority.anchors()?;
        let peer = late::check(request, &anchors, exporter, self.now())
            .map_err(|error| Refusal::Unauthenticated(error.to_string()))?;
        let who = peer.to_string();
        if !self.late_asks.admit(&who, Instant::now()) {
            return Err(Refusal::Unavailable(format!(
                "{who} asked for a renewal {MOST} times within an hour; it has to wait"
            ))
            .into());
        }
        let mut write = self.write().await?;
        let (role, name) = (peer.role, &peer.name);
        let serial = peer.serial.to_string();
        let identity = write.before.fleet.identity(role, name).cloned();
        let certificate = write.tx.certificate(&serial).await?;
        let newest_used = write.tx.newest_confirmed(role, name).await?;
        match judge(&peer, certificate.as_ref(), newest_used, self.parts.late_renewal, write.now) {
            Verdict::Renew => {}
            Verdict::Refuse(refusal) => return Err(refusal.into()),
            Verdict::Clone => {
                let detail = format!(
                    "its certificate {serial} was to be renewed after its end, although a newer one was used: a copy of its identity is in use, or its disk was set back; if in doubt, revoke {who} and enroll it anew"
                );
                if self.is_first_use(&format!("{serial} late")) {
                    let coordinator = "coordinator";
                    write.tx.audit(write.now, coordinator, CLONE_SUSPECTED, &who, &detail).await?;
                    self.commit_quietly(write).await?;
                    tracing::error!(identity = who, serial, "{detail}");
                }
                return Err(Refusal::Unauthenticated(format!(
                    "{who} has used a newer certificate than {serial}; use the newest, or enroll again with a new invite"
                ))
                .into());
            }
        }
        let identity = identity.filter(|identity| identity.revoked.is_none());
        let identity = identity.ok_or_else(|| {
            Refusal::Revoked(format!("{who} was revoked; an admin can invite it again"))
        })?;
        let asked = fingerprint(&request.keys, None);
        if let Some(answer) = write.tx.renewal_answer(role, name, &asked).await? {
            return Ok(serde_json::from_str(&answer)?);
        }
        let (certificate, certificates) = self.certify(role, name, &request.keys, write.now)?;
        let enroll_url = Some(self.parts.enroll_url.clone());
        let response = RenewResponse { certificates, enroll_url };
        let answer = serde_json::to_string(&response)?;
        write.tx.add_certificate(&certificate, &asked, &answer).await?;
        let detail =
            format!("{serial}, which ended at {}, by {}", peer.not_after, certificate.serial);
        write.tx.audit(write.now, &who, "renew-after-expiry", &who, &detail).await?;
        let mut topics = topics_of(&mut write, &identity).await?;
        topics.push(Topic::Identities);
        self.commit(write, &topics).await?;
        tracing::info!(identity = who, serial = certificate.serial, "renewed after its end");
        Ok(response)
    }
}

#[derive(Debug)]
enum Verdict {
    Renew,
    Clone,
    Refuse(Refusal),
}

/// Whether a certificate that its holder proved to hold is renewed. `newest_used` is when the newest
/// certificate of the identity that was ever used was issued; `limit` is how long after its end one
/// may be renewed, zero for never.
fn judge(
    peer: &PeerIdentity,
    certificate: Option<&StoredCertificate>,
    newest_used: Option<Timestamp>,
    limit: SignedDuration,
    now: Timestamp,
) -> Verdict {
    let known = certificate.filter(|known| known.role == peer.role && known.name == peer.name);
    let Some(certificate) = known else {
        return Verdict::Refuse(Refusal::Unauthenticated(format!(
            "the certificate {} of {peer} is not known here; was the coordinator restored from an older backup? Enroll again",
            peer.serial
        )));
    };
    if certificate.revoked.is_some() {
        return Verdict::Refuse(Refusal::Revoked(format!(
            "{peer} was revoked; what it holds stays as it is. An admin can invite it again"
        )));
    }
    if newest_used.is_some_and(|newest| newest > certificate.issued) {
        return Verdict::Clone;
    }
    let last = certificate.not_after.saturating_add(limit).unwrap_or(Timestamp::MAX);
    if certificate.not_after <= now && last <= now {
        return Verdict::Refuse(Refusal::Unauthenticated(format!(
            "the certificate of {peer} ended at {} and could be renewed until {last}; enroll again with a new invite (mirrorctl invite --replace)",
            certificate.not_after
        )));
    }
    Verdict::Renew
}

#[cfg(test)]
mod tests {
    use protocol::role::Role;

    use super::*;

    const DAY: i64 = 24 * 3600;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn peer() -> PeerIdentity {
        PeerIdentity {
            network: "net".parse().unwrap(),
            role: Role::Agent,
            name: "a".parse().unwrap(),
            serial: "5a".parse().unwrap(),
            not_before: at(0),
            not_after: at(7 * DAY),
        }
    }

    fn stored() -> StoredCertificate {
        StoredCertificate {
            serial: "5a".into(),
            role: Role::Agent,
            name: "a".parse().unwrap(),
            issued: at(0),
            not_after: at(7 * DAY),
            superseded: None,
            revoked: None,
            confirmed: Some(at(1)),
        }
    }

    #[test]
    fn the_newest_certificate_is_renewed_to_the_last_second_of_its_grace_and_no_other() {
        let month = SignedDuration::from_hours(30 * 24);
        let end = 37 * DAY;
        let judged =
            |certificate: Option<StoredCertificate>, used: Option<i64>, limit, now| match judge(
                &peer(),
                certificate.as_ref(),
                used.map(at),
                limit,
                at(now),
            ) {
                Verdict::Renew => "renew",
                Verdict::Clone => "clone",
                Verdict::Refuse(Refusal::Revoked(_)) => "revoked",
                Verdict::Refuse(_) => "refuse",
            };
        assert_eq!(judged(Some(stored()), Some(0), month, 8 * DAY), "renew");
        assert_eq!(judged(Some(stored()), Some(0), month, end - 1), "renew");
        assert_eq!(judged(Some(stored()), Some(0), month, end), "refuse");
        // Our clocks differ: it is still good here.
        assert_eq!(judged(Some(stored()), Some(0), month, 6 * DAY), "renew");
        assert_eq!(judged(Some(stored()), Some(0), SignedDuration::ZERO, 7 * DAY), "refuse");
        assert_eq!(judged(None, None, month, 8 * DAY), "refuse");
        // Its answer was lost: the one issued later was never used by anybody.
        assert_eq!(judged(Some(stored()), None, month, 8 * DAY), "renew");
        assert_eq!(judged(Some(stored()), Some(1), month, 8 * DAY), "clone");
        let revoked = StoredCertificate { revoked: Some(at(1)), ..stored() };
        assert_eq!(judged(Some(revoked), Some(1), month, 8 * DAY), "revoked");
        let others = StoredCertificate { name: "b".parse().unwrap(), ..stored() };
        assert_eq!(judged(Some(others), Some(0), month, 8 * DAY), "refuse");
    }

    #[test]
    fn one_that_asks_without_end_is_stopped_for_an_hour_and_does_not_stop_others() {
        let asks = LateAsks::default();
        let start = Instant::now();
        for _ in 0..MOST {
            assert!(asks.admit("agent/a", start));
        }
        assert!(!asks.admit("agent/a", start + WINDOW - Duration::from_secs(1)));
        assert!(asks.admit("agent/b", start));
        assert!(asks.admit("agent/a", start + WINDOW));
    }
}
