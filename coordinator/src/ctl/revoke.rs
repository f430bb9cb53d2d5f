//! `revoke`: shuts an identity out.

use clap::Args;
use protocol::{
    name::IdentityName,
    role::Role,
    v1::identities::{IdentityStatus, RevokeRequest},
};

use super::{error::Error, print::Print, session::Session};

/// Shut an identity out, from its next request on, also on connections that are open.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl revoke agent/lisbon-1 --reason 'disk sold'\n  mirrorctl revoke lisbon-1"
)]
pub(super) struct Revoke {
    /// ROLE/NAME, or NAME where no other live identity has it.
    #[arg(value_name = "IDENTITY")]
    who: String,
    /// Why; kept in the log of what admins did.
    #[arg(long, default_value = "")]
    reason: String,
}

impl Revoke {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let wanted = Wanted::parse(&self.who)?;
        let api = session.api(print).await?;
        let (role, name) = match wanted {
            Wanted::Exactly(role, name) => (role, name),
            Wanted::Named(name) => {
                let live = api.identities(None).await?;
                (only_role(&name, &live)?, name)
            }
        };
        let request = RevokeRequest { reason: self.reason };
        let status = api.revoke(role, &name, &request).await?;
        print.result(&status, |status| format!("revoked {}/{}", status.role, status.name))
    }
}

enum Wanted {
    Exactly(Role, IdentityName),
    Named(IdentityName),
}

impl Wanted {
    fn parse(text: &str) -> Result<Self, Error> {
        let name = |text: &str| {
            text.parse::<IdentityName>().map_err(|error| Error::Usage(error.to_string()))
        };
        match text.split_once('/') {
            Some((role, rest)) => {
                let role =
                    role.parse().map_err(|error| Error::Usage(format!("{role:?} is {error}")))?;
                Ok(Self::Exactly(role, name(rest)?))
            }
            None => Ok(Self::Named(name(text)?)),
        }
    }
}

/// The role of the only live identity of that name.
fn only_role(name: &IdentityName, identities: &[IdentityStatus]) -> Result<Role, Error> {
    let live = identities.iter().filter(|i| i.name == *name && i.revoked.is_none());
    let roles: Vec<Role> = live.map(|identity| identity.role).collect();
    match roles[..] {
        [role] => Ok(role),
        [] => Err(Error::Other(anyhow::anyhow!("there is no live identity {name}"))),
        _ => {
            let full: Vec<_> = roles.iter().map(|role| format!("{role}/{name}")).collect();
            Err(Error::Usage(format!("several identities have that name: {}", full.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(role: Role, name: &str, revoked: bool) -> IdentityStatus {
        IdentityStatus {
            role,
            name: name.parse().unwrap(),
            site: None,
            serial: None,
            not_after: None,
            revoked: revoked.then_some(jiff::Timestamp::UNIX_EPOCH),
            reason: String::new(),
            last_seen: None,
        }
    }

    #[test]
    fn a_name_is_enough_where_one_live_identity_has_it() {
        let all = [
            identity(Role::Agent, "a", false),
            identity(Role::Admin, "b", true),
            identity(Role::Viewer, "b", false),
            identity(Role::Agent, "c", false),
            identity(Role::Publisher, "c", false),
        ];
        let role = |name: &str| only_role(&name.parse().unwrap(), &all);
        assert_eq!(role("a").unwrap(), Role::Agent);
        assert_eq!(role("b").unwrap(), Role::Viewer);
        let several = role("c").unwrap_err();
        assert!(several.is_usage() && several.to_string().contains("agent/c, publisher/c"));
        assert!(!role("d").unwrap_err().is_usage());
    }
}
