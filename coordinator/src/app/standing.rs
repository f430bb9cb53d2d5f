//! What others may check about standing here: the revocation lists, and the log of what was done.

use certs::identity::PeerIdentity;
use jiff::SignedDuration;
use protocol::v1::{audit::AuditEntry, events::EventKind};

use super::{
    App, Error, admission::Caller, alarms::CLONE_SUSPECTED, events::Told, picture::is_outlived,
};
use crate::db::Topic;

/// How long a revocation list counts. It is made anew for everyone who asks.
const LIST_LIFE: SignedDuration = SignedDuration::from_hours(24);

impl App {
    /// Notes that a new certificate works, once.
    pub async fn confirm(&self, caller: &Caller) -> Result<(), Error> {
        if caller.confirmed || !self.is_first_use(&caller.serial) {
            return Ok(());
        }
        let mut write = self.write().await?;
        if write.tx.confirm_certificate(&caller.serial, write.now).await? {
            self.commit(write, &[Topic::Identities]).await?;
        }
        Ok(())
    }

    /// Tells of a certificate that comes up again after its holder has gone on to a newer one.
    pub async fn note_outlived(&self, peer: &PeerIdentity) -> Result<(), Error> {
        let serial = peer.serial.to_string();
        let picture = self.picture();
        let Some(certificate) = picture.fleet.certificate(&serial) else { return Ok(()) };
        let live =
            picture.fleet.identity(peer.role, &peer.name).is_some_and(|i| i.revoked.is_none());
        let first = || self.is_first_use(&format!("{serial} outlived"));
        if !live || !is_outlived(certificate, self.now()) || !first() {
            return Ok(());
        }
        let who = format!("{}/{}", peer.role, peer.name);
        let detail = format!(
            "its certificate {serial} was used again, long after a newer one: a copy of its identity is in use, or its disk was set back; if in doubt, revoke {who} and enroll it anew"
        );
        let mut write = self.write().await?;
        write.tx.audit(write.now, "coordinator", CLONE_SUSPECTED, &who, &detail).await?;
        let text = format!("{who}: {detail}");
        let told = Told::new(EventKind::CloneSuspected, &who, text).with("serial", &serial);
        self.tell(&mut write, told).await?;
        self.commit_quietly(write).await
    }

    /// The revoked certificates that have not ended, as standard lists, one of each authority, PEM.
    pub fn revocation_lists(&self) -> Result<String, Error> {
        let picture = self.picture();
        let revoked = picture
            .fleet
            .revoked()
            .filter_map(|(serial, at)| Some((serial.parse().ok()?, at)))
            .collect();
        let authority = &self.parts.authority;
        let number = picture.revision.0;
        let lists = authority.revocation_lists(&revoked, number, LIST_LIFE, self.now())?;
        Ok(lists.concat())
    }

    /// The audit log after entry `after`, the oldest first.
    pub async fn audit_log(&self, after: u64, limit: u64) -> Result<Vec<AuditEntry>, Error> {
        let mut tx = self.parts.database.read().await?;
        let entries = tx.audit_log(after, limit).await?;
        tx.commit().await?;
        Ok(entries)
    }
}
