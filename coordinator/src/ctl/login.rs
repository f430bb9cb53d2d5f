//! `login`: an invite becomes this user's identity.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::Arc,
};

use anyhow::Context as _;
use certs::{
    enrollment::{self, EnrollOptions, Invite},
    identity::{Identity, Role},
};
use clap::Args;
use jiff::Timestamp;

use super::{
    error::Error,
    print::{Format, Print},
    session::{Session, api_of, dialer},
    whoami,
};

const NO_IDENTITY: &str = "this invite gave no identity; `mirrorctl login` is for admins and viewers, agents and publishers have their own `enroll`";

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
        let invite: Invite = text.parse().map_err(|error| Error::Usage(format!("{error}")))?;
        if !self.force {
            refuse_to_replace(&dir)?;
        }
        create_private(&dir).map_err(|source| Error::File {
            verb: "create",
            path: dir.clone(),
            source,
        })?;
        certs::install_provider();
        let identity = enroll(&invite, &dir).await?;
        let who = api_of(&identity)?.whoami().await?;
        print.result(&who, whoami::shown)?;
        print.note(&format!("The identity is kept in {}.", dir.display()));
        Ok(())
    }
}

/// Asks to become an admin, else a viewer. An invite for a daemon is refused for both roles, before
/// it is used up.
async fn enroll(invite: &Invite, dir: &Path) -> anyhow::Result<Arc<Identity>> {
    let mut refused = None;
    for role in [Role::Admin, Role::Viewer] {
        let options = EnrollOptions {
            role: Some(role),
            dialer: dialer()?,
            waiting: |keys| {
                Print::new(Format::Text).note(&enrollment::waiting_for_approval(keys));
            },
            ..EnrollOptions::default()
        };
        match enrollment::enroll(invite, dir, &options, check).await {
            Ok(identity) => return Ok(identity),
            Err(error @ enrollment::Error::Refused { .. }) => refused = Some(error),
            Err(error) => return Err(anyhow::Error::from(error).context(NO_IDENTITY)),
        }
    }
    Err(match refused {
        Some(error) => anyhow::Error::from(error).context(NO_IDENTITY),
        None => anyhow::anyhow!(NO_IDENTITY),
    })
}

/// Whether the coordinator takes the new identity.
async fn check(identity: Arc<Identity>) -> anyhow::Result<()> {
    api_of(&identity)?.whoami().await?;
    Ok(())
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
