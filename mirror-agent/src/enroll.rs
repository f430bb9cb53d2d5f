//! From an invite to an identity.

use std::{path::Path, sync::Arc};

use certs::{
    dial::Dialer,
    enrollment::{self, EnrollOptions, Invite},
    identity::{Identity, Role},
    live,
    tls::ServerExpectation,
};
use protocol::{client::Client, fingerprint::KeyFingerprint};

/// Why an agent was not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was given is no invite.
    #[error("this is not an invite; copy the whole line that 'mirrorctl invite' printed")]
    Invite(#[from] enrollment::InvalidInvite),
    /// The coordinator did not take it, or its answer cannot be used.
    #[error(transparent)]
    Enrollment(#[from] enrollment::Error),
    /// The data directory cannot be made.
    #[error("the data directory {path} cannot be made", path = path.display())]
    Data {
        /// Which directory.
        path: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// The identity works, but it is not an agent's, or the API does not accept it.
#[derive(Debug, thiserror::Error)]
enum NotUsable {
    #[error("the invite is for {found}, not for an agent; use it with that program")]
    Role { found: Role },
    #[error("the coordinator does not accept the new certificate")]
    Api(#[from] protocol::client::Error),
    #[error(transparent)]
    Client(#[from] live::Error),
}

/// Uses `invite` to make `data` the data directory of an agent. May be called again after any
/// failure: the same keys are used. `waiting` is told once if an admin has to approve them.
pub async fn enroll(
    data: &Path,
    invite: &str,
    dialer: &Dialer,
    waiting: fn(&KeyFingerprint),
) -> Result<Arc<Identity>, Error> {
    let invite: Invite = invite.trim().parse()?;
    prepare(data).map_err(|source| Error::Data { path: data.to_owned(), source })?;
    let options = EnrollOptions {
        role: Some(Role::Agent),
        dialer: dialer.clone(),
        waiting,
        ..EnrollOptions::default()
    };
    let check = |identity: Arc<Identity>| async move { try_out(&identity, dialer).await };
    Ok(enrollment::enroll(&invite, data, &options, check).await?)
}

async fn try_out(identity: &Identity, dialer: &Dialer) -> Result<(), NotUsable> {
    let role = identity.membership.role;
    if role != Role::Agent {
        return Err(NotUsable::Role { found: role });
    }
    let http = live::http_client(identity, &ServerExpectation::Coordinator, dialer)?;
    let client = Client::new(&identity.membership.api_url, Arc::new(move || http.clone()));
    client.whoami().await?;
    Ok(())
}

/// Makes the data directory; its group may enter, for the control socket.
fn prepare(data: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

    if data.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(data)?;
    std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o750))
}
