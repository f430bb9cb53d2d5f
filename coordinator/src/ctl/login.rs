//! `login`: an invite becomes this user's identity.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use anyhow::{Context as _, bail};
use certs::{
    enrollment::{self, EnrollOptions},
    identity::{Identity, Role},
};
use clap::Args;
use jiff::Timestamp;
use protocol::v1::identities::WhoAmI;

use super::{
    error::Error,
    print::Print,
    session::{Session, api_of, dialer},
    whoami,
};

/// Use an invite: makes keys, has them certified, and keeps them in the identity's directory.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl login mirrornet1.…\n  mirrorctl login - < invite.txt"
)]
pub(super) struct Login {
    /// The line that `mirrorctl invite` printed, or `-` to read it from standard input, where it
    /// does not show in the list of processes.
    invite: String,
    /// Replace an identity that is still good.
    #[arg(long)]
    force: bool,
}

impl Login {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let dir = session.dir()?;
        let text = if self.invite == "-" {
            io::read_to_string(io::stdin()).context("cannot read the invite")?
        } else {
            self.invite
        };
        let invite: certs::enrollment::Invite =
            text.parse().map_err(|error| Error::Usage(format!("{error}")))?;
        if !self.force {
            refuse_to_replace(&dir)?;
        }
        create_private(&dir).map_err(|source| Error::File {
            verb: "create",
            path: dir.clone(),
            source,
        })?;
        certs::install_provider();
        let options = EnrollOptions { dialer: dialer()?, ..EnrollOptions::default() };
        let identity = enrollment::enroll(&invite, &dir, &options, |identity| async move {
            check(&identity).await.map(drop)
        });
        let identity = identity.await.context("this invite gave no identity")?;
        let who = check(&identity).await?;
        print.result(&who, whoami::shown)?;
        print.note(&format!("The identity is kept in {}.", dir.display()));
        Ok(())
    }
}

/// Whether the coordinator takes the new identity, and whether it is one for this program.
async fn check(identity: &Identity) -> anyhow::Result<WhoAmI> {
    let who = api_of(identity)?.whoami().await?;
    match who.role {
        Role::Admin | Role::Viewer => Ok(who),
        Role::Agent => bail!("the invite is for an agent; use it with `mirror-agent enroll`"),
        Role::Publisher => bail!("the invite is for a publisher; use it with `publisher enroll`"),
        Role::Coordinator => bail!("the invite is for a coordinator, which nobody can log in as"),
    }
}

fn refuse_to_replace(dir: &Path) -> Result<(), Error> {
    let Ok(identity) = Identity::load(dir) else { return Ok(()) };
    if identity.not_after <= Timestamp::now() {
        return Ok(());
    }
    let membership = &identity.membership;
    Err(Error::Other(anyhow::anyhow!(
        "{} holds the identity {}/{} of network {}, which is still good; replace it with --force, or choose another directory with --identity",
        dir.display(),
        membership.role,
        membership.name,
        membership.network
    )))
}

/// A directory that only its owner may look into.
fn create_private(dir: &Path) -> io::Result<()> {
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}
