//! `whoami`: under which identity the coordinator knows this user.

use clap::Args;
use protocol::v1::identities::WhoAmI;

use super::{error::Error, print::Print, session::Session, text};

/// Show the identity in use, as the coordinator sees it.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mirrorctl whoami\n  mirrorctl --identity ./admin whoami")]
pub(super) struct Whoami;

impl Whoami {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let who = session.api(print).await?.whoami().await?;
        print.result(&who, shown)
    }
}

pub(super) fn shown(who: &WhoAmI) -> String {
    let site = who.site.as_ref().map(|site| format!(" at site {site}")).unwrap_or_default();
    format!(
        "{}/{}{site} of network {}\ncertificate {} until {}",
        who.role,
        who.name,
        who.network,
        who.serial,
        text::time(who.not_after)
    )
}
