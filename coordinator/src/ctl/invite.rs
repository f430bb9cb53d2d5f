//! `invite`: lets somebody or something in.

use clap::Args;
use protocol::{
    name::{IdentityName, SiteName},
    role::Role,
    root::TreePattern,
    units::Span,
    v1::identities::InviteRequest,
};

use super::{error::Error, print::Print, session::Session, text};

/// Make an invite: one line, which can be used once to become an identity.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl invite --role agent --name lisbon-1 --site lisbon\n  mirrorctl invite --role viewer --name dashboard --ttl 1d"
)]
pub(super) struct Invite {
    /// What the new identity is: agent, publisher, admin or viewer.
    #[arg(long)]
    role: Role,
    /// Its name.
    #[arg(long)]
    name: IdentityName,
    /// Its site; agents have one.
    #[arg(long, required_if_eq("role", "agent"))]
    site: Option<SiteName>,
    /// Trees that a publisher may sign for: a name, in which one * may stand for anything; may be
    /// given several times (default: all).
    #[arg(long = "trees", value_name = "PATTERN", value_delimiter = ',')]
    trees: Vec<TreePattern>,
    /// How long the invite can be used (default: 1h).
    #[arg(long)]
    ttl: Option<Span>,
    /// Take the place of a live identity of that name, which is revoked when the invite is used.
    #[arg(long)]
    replace: bool,
    /// Let nobody in before an admin has compared the keys of the machine that uses it (see
    /// `mirrorctl enrollments`).
    #[arg(long)]
    approve: bool,
}

impl Invite {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let Self { role, name, site, trees, ttl, replace, approve } = self;
        let program = match role {
            Role::Agent => "mirror-agent enroll --data DIR --invite",
            Role::Publisher => "publisher enroll --data DIR --invite",
            Role::Admin | Role::Viewer => "mirrorctl login",
            Role::Coordinator => {
                let message = "nobody is invited as a coordinator: `coordinator init` makes one";
                return Err(Error::Usage(message.into()));
            }
        };
        if site.is_some() && role != Role::Agent {
            return Err(Error::Usage(format!("--site is for agents, not for a {role}")));
        }
        let request =
            InviteRequest { role, name: name.clone(), site, trees, ttl, replace, approve };
        let answer = session.api(print).await?.invite(&request).await?;
        print.result(&answer, |answer| answer.invite.clone())?;
        if !print.is_json() {
            print.note(&format!(
                "This line is a secret and works once, until {}. As {role}/{name}:\n  {program} '…'",
                text::time(answer.expires)
            ));
        }
        Ok(())
    }
}
