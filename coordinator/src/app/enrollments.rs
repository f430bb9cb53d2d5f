//! Enrollments that wait for an admin.
//!
//! An invite that wants approval protects against one that was read on its way: whoever uses it shows
//! keys, and only those whose fingerprint an admin has compared with what the right machine prints
//! become an identity.

use certs::enrollment::key_fingerprint_of;
use jiff::Timestamp;
use protocol::{fingerprint::KeyFingerprint, v1::identities::EnrollmentStatus};

use super::{App, Error, Refusal, admission::Caller, enroll::end_of_wait};
use crate::db::{StoredInvite, Transaction};

impl App {
    /// The enrollments that wait, the longest wait first.
    pub async fn enrollments(&self) -> Result<Vec<EnrollmentStatus>, Error> {
        let mut tx = self.parts.database.read().await?;
        let waiting = self.enrollments_in(&mut tx, self.now()).await?;
        tx.commit().await?;
        Ok(waiting)
    }

    /// The same, within a view of the database.
    pub(super) async fn enrollments_in(
        &self,
        tx: &mut Transaction,
        now: Timestamp,
    ) -> Result<Vec<EnrollmentStatus>, Error> {
        let waiting = waiting(tx, now).await?;
        Ok(waiting.into_iter().map(|(fingerprint, invite)| status(fingerprint, invite)).collect())
    }

    /// Lets the enrollment of the keys `fingerprint` go on, or ends it.
    pub async fn decide_enrollment(
        &self,
        caller: &Caller,
        fingerprint: &KeyFingerprint,
        approve: bool,
    ) -> Result<(), Error> {
        let mut write = self.write().await?;
        let waiting = waiting(&mut write.tx, write.now).await?;
        let found = waiting.into_iter().find(|(keys, _)| keys == fingerprint);
        let (_, invite) = found.ok_or_else(|| {
            Refusal::NotFound(format!(
                "no enrollment with the keys {fingerprint} waits; `mirrorctl enrollments` lists those that do"
            ))
        })?;
        let who = caller.to_string();
        let what = if approve {
            write.tx.approve_invite(&invite.id, &who).await?;
            "enrollment-approved"
        } else {
            write.tx.reject_invite(&invite.id, write.now).await?;
            "enrollment-rejected"
        };
        let target = format!("{}/{}", invite.role, invite.name);
        let detail = format!("invite {}, keys {fingerprint}", invite.id);
        write.tx.audit(write.now, &who, what, &target, &detail).await?;
        self.commit_quietly(write).await
    }
}

async fn waiting(
    tx: &mut Transaction,
    now: Timestamp,
) -> Result<Vec<(KeyFingerprint, StoredInvite)>, Error> {
    let invites = tx.waiting_invites().await?;
    let waiting = invites.into_iter().filter(|invite| now < end_of_wait(invite));
    let named = waiting.filter_map(|invite| {
        let keys = key_fingerprint_of(invite.asking.as_deref()?)?;
        Some((keys, invite))
    });
    Ok(named.collect())
}

fn status(fingerprint: KeyFingerprint, invite: StoredInvite) -> EnrollmentStatus {
    EnrollmentStatus {
        fingerprint,
        expires: end_of_wait(&invite),
        asked: invite.asked.unwrap_or(invite.expires),
        role: invite.role,
        name: invite.name,
        site: invite.site,
        replace: invite.replaces,
        invited_by: invite.made_by,
    }
}
