//! `enrollments`, `approve-enrollment` and `reject-enrollment`: who waits to be let in.

use clap::Args;
use jiff::Timestamp;
use protocol::{fingerprint::KeyFingerprint, v1::identities::EnrollmentStatus};

use super::{
    error::Error,
    print::{Print, table},
    session::Session,
    text::{self, or_nothing},
};

/// Show who used an invite that wants approval, and waits for it.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mirrorctl enrollments")]
pub(super) struct Enrollments {}

/// Let an enrollment go on, after its keys were compared with what the machine prints.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl approve-enrollment 01ab-23cd-45ef-0167-89ab-cdef-0123-4567"
)]
pub(super) struct ApproveEnrollment {
    /// The keys, as the enrolling program printed them: not as `mirrorctl enrollments` does, or
    /// nothing was compared.
    #[arg(value_name = "KEYS")]
    keys: KeyFingerprint,
}

/// End an enrollment that waits; its invite is used up.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl reject-enrollment 01ab-23cd-45ef-0167-89ab-cdef-0123-4567"
)]
pub(super) struct RejectEnrollment {
    /// The keys, as `mirrorctl enrollments` shows them.
    #[arg(value_name = "KEYS")]
    keys: KeyFingerprint,
}

impl Enrollments {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let waiting = session.api(print).await?.enrollments().await?;
        print.result(&waiting, |waiting| shown(waiting, Timestamp::now()))
    }
}

impl ApproveEnrollment {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        session.api(print).await?.approve_enrollment(&self.keys).await?;
        print.result(&self.keys, |keys| {
            format!("approved {keys}; the machine is let in when it asks next")
        })
    }
}

impl RejectEnrollment {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        session.api(print).await?.reject_enrollment(&self.keys).await?;
        print.result(&self.keys, |keys| format!("rejected {keys}"))
    }
}

fn shown(waiting: &Vec<EnrollmentStatus>, now: Timestamp) -> String {
    if waiting.is_empty() {
        return "no enrollment waits".into();
    }
    let rows = waiting.iter().map(|status| {
        let replaces = if status.replace { " (replaces it)" } else { "" };
        [
            status.fingerprint.to_string(),
            format!("{}/{}{replaces}", status.role, status.name),
            or_nothing(status.site.as_ref(), ToString::to_string),
            status.invited_by.clone(),
            text::ago(status.asked, now),
            text::time(status.expires),
        ]
    });
    table(["KEYS", "BECOMES", "SITE", "INVITED BY", "ASKED", "ENDS"], rows)
}
