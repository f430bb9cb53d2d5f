//! Inviting, renewing and revoking.

use certs::enrollment::{Invite, InviteSecret, RequestedKeys, fingerprint};
use jiff::{SignedDuration, Timestamp};
use protocol::{
    name::{IdentityName, SiteName},
    role::Role,
    root::MAX_KEYS,
    v1::{
        enroll::{Certificates, KeysToCertify, RenewRequest, RenewResponse},
        events::EventKind,
        identities::{IdentityStatus, InviteAnswer, InviteRequest, RevokeRequest, WhoAmI},
    },
};
use uuid::Uuid;

use super::{
    App, Error, Picture, Refusal, Write,
    admission::{Caller, Scope},
    events::Told,
    orders::{Among, concerned},
    picture::Fleet,
};
use crate::{
    db::{StoredCertificate, StoredIdentity, StoredInvite, Topic},
    journal::Revocation,
};

/// How long an invite can be used where nothing is said.
const INVITE_LIFE: SignedDuration = SignedDuration::from_hours(1);
/// Longest life of an invite.
const MAX_INVITE_LIFE: SignedDuration = SignedDuration::from_hours(7 * 24);

impl App {
    /// Who the caller is.
    pub fn who_am_i(&self, caller: &Caller) -> WhoAmI {
        WhoAmI {
            network: self.network().clone(),
            role: caller.role,
            name: caller.name.clone(),
            site: caller.site.clone(),
            serial: caller.serial.clone(),
            not_after: caller.not_after,
        }
    }

    /// Makes an invite.
    pub async fn invite(
        &self,
        caller: &Caller,
        request: &InviteRequest,
    ) -> Result<InviteAnswer, Error> {
        let mut write = self.write().await?;
        check_inviter(&write.before, caller, request)?;
        check_invite(&write.before, request)?;
        let life = match request.ttl {
            None => INVITE_LIFE,
            Some(span) => SignedDuration::try_from(span.duration())
                .ok()
                .filter(|life| *life <= MAX_INVITE_LIFE && *life > SignedDuration::ZERO)
                .ok_or_else(|| {
                    Refusal::Invalid("an invite lives for 1s to 7d; choose another ttl".into())
                })?,
        };
        let expires = write.now.saturating_add(life).unwrap_or(Timestamp::MAX);
        let invite = Invite {
            id: Uuid::now_v7().simple().to_string(),
            secret: InviteSecret::generate()?,
            pin: self.parts.authority.pin(),
            url: self.parts.enroll_url.clone(),
        };
        let stored = StoredInvite {
            id: invite.id.clone(),
            verifier: invite.secret.verifier().to_string(),
            role: request.role,
            name: request.name.clone(),
            site: request.site.clone(),
            trees: request.trees.clone(),
            replaces: request.replace,
            approve: request.approve,
            asked: None,
            asking: None,
            approved_by: None,
            made_by: caller.to_string(),
            expires,
            consumed: None,
            request: None,
            answer: None,
        };
        write.tx.add_invite(&stored).await?;
        let target = format!("{}/{}", request.role, request.name);
        let approval = if request.approve { ", wants approval" } else { "" };
        let detail = format!("invite {}, until {expires}{approval}", invite.id);
        write.tx.audit(write.now, &caller.to_string(), "invite", &target, &detail).await?;
        self.commit_quietly(write).await?;
        Ok(InviteAnswer { invite: invite.to_string(), expires })
    }

    /// Replaces the caller's certificate by a new one. The same request gets the same answer.
    pub async fn renew(
        &self,
        caller: &Caller,
        request: &RenewRequest,
    ) -> Result<RenewResponse, Error> {
        let mut write = self.write().await?;
        let asked = fingerprint(&request.keys, None);
        let (role, name) = (caller.role, &caller.name);
        if let Some(answer) = write.tx.renewal_answer(role, name, &asked).await? {
            return Ok(serde_json::from_str(&answer)?);
        }
        let identity = write.before.fleet.identity(role, name).cloned();
        let identity = identity.filter(|identity| identity.revoked.is_none());
        let identity = identity
            .ok_or_else(|| Refusal::Revoked(format!("{caller} was revoked in the meantime")))?;
        let (certificate, certificates) = self.certify(role, name, &request.keys, write.now)?;
        let enroll_url = Some(self.parts.enroll_url.clone());
        let response = RenewResponse { certificates, enroll_url };
        let answer = serde_json::to_string(&response)?;
        write.tx.add_certificate(&certificate, &asked, &answer).await?;
        let who = caller.to_string();
        write.tx.audit(write.now, &who, "renew", &who, &certificate.serial).await?;
        let topics = topics_of(&mut write, &identity).await?;
        self.commit(write, &topics).await?;
        Ok(response)
    }

    /// Revokes an identity: at the next request, and on the connections that it holds open.
    pub async fn revoke(
        &self,
        caller: &Caller,
        role: Role,
        name: &IdentityName,
        request: &RevokeRequest,
    ) -> Result<IdentityStatus, Error> {
        let mut write = self.write().await?;
        let found = write.before.fleet.identity(role, name).cloned();
        let identity = found.ok_or_else(|| no_such(role, name))?;
        // Of its site an operator shuts out agents, not other operators.
        let site = identity.site.as_ref().filter(|_| role == Role::Agent);
        caller.check_site(site)?;
        if identity.revoked.is_none() {
            let last_admin = role == Role::Admin
                && write.before.fleet.identities().filter(|i| is_live_admin(i)).count() == 1;
            if last_admin {
                return Err(Refusal::Conflict(format!(
                    "{name} is the last admin; invite another one first, or nobody could"
                ))
                .into());
            }
            write.tx.revoke_identity(role, name, &request.reason, write.now).await?;
            self.note_revocation(&Revocation {
                role,
                name: name.clone(),
                at: write.now,
                reason: request.reason.clone(),
            });
            let target = format!("{role}/{name}");
            let who = caller.to_string();
            write.tx.audit(write.now, &who, "revoke", &target, &request.reason).await?;
            let text = match request.reason.as_str() {
                "" => format!("{target} was revoked by {who}"),
                reason => format!("{target} was revoked by {who}: {reason}"),
            };
            let told = Told::new(EventKind::IdentityRevoked, &target, text).with("by", &who);
            self.tell(&mut write, told.with("reason", &request.reason)).await?;
            let mut topics = topics_of(&mut write, &identity).await?;
            topics.extend(self.follow_identities(&mut write).await?);
            self.commit(write, &topics).await?;
        }
        self.identity(role, name)
    }

    /// One identity.
    pub fn identity(&self, role: Role, name: &IdentityName) -> Result<IdentityStatus, Error> {
        let picture = self.picture();
        let found = picture.fleet.identity(role, name);
        Ok(found
            .map(|found| self.identity_status(&picture, found))
            .ok_or_else(|| no_such(role, name))?)
    }

    /// Every identity within `scope`, by role and name.
    pub fn identities(&self, role: Option<Role>, scope: &Scope) -> Vec<IdentityStatus> {
        let picture = self.picture();
        let wanted = |identity: &&StoredIdentity| {
            role.is_none_or(|role| identity.role == role)
                && scope.covers_some(identity.site.as_ref())
        };
        let found = picture.fleet.identities().filter(wanted);
        found.map(|identity| self.identity_status(&picture, identity)).collect()
    }

    /// Certifies keys for an identity.
    pub(super) fn certify(
        &self,
        role: Role,
        name: &IdentityName,
        keys: &KeysToCertify,
        now: Timestamp,
    ) -> Result<(StoredCertificate, Certificates), Error> {
        let requested =
            RequestedKeys::check(keys).map_err(|error| Refusal::Invalid(error.to_string()))?;
        let (authority, life) = (&self.parts.authority, self.parts.certificate_life);
        let server = match (role, &requested.server) {
            (Role::Publisher, Some(key)) => Some(
                authority
                    .issue_server(key, role, name, &keys.server_names, life, now)
                    .map_err(invalid_host)?,
            ),
            // A relay. It is known by its identity, and no host name is certified for it: a program of
            // somebody else's could take it for the server of that name.
            (Role::Agent, Some(key)) => Some(
                authority.issue_server(key, role, name, &[], life, now).map_err(invalid_host)?,
            ),
            (Role::Publisher, None) => {
                return Err(Refusal::Invalid(
                    "a publisher serves agents and needs a server key; its request has none".into(),
                )
                .into());
            }
            _ => None,
        };
        let client = authority.issue(&requested.client, role, name, life, now)?;
        let certificate = StoredCertificate {
            serial: client.serial.to_string(),
            role,
            name: name.clone(),
            issued: now,
            not_after: client.not_after,
            superseded: None,
            revoked: None,
            confirmed: None,
            issuer: Some(authority.issuer_id()),
            bundle: Some(authority.bundle_id()),
        };
        let certificates = Certificates {
            chain: client.chain_pem,
            server_chain: server.map(|server| server.chain_pem),
            ca: authority.bundle_pem(),
        };
        Ok((certificate, certificates))
    }

    fn identity_status(&self, picture: &Picture, identity: &StoredIdentity) -> IdentityStatus {
        let (role, name) = (identity.role, &identity.name);
        let certificate = picture.fleet.newest_certificate(role, name);
        IdentityStatus {
            role,
            name: name.clone(),
            site: identity.site.clone(),
            serial: certificate.map(|certificate| certificate.serial.clone()),
            not_after: certificate.map(|certificate| certificate.not_after),
            revoked: identity.revoked,
            reason: identity.reason.clone(),
            last_seen: self.seen(role, name).max(identity.last_seen),
        }
    }
}

/// Whom a change of one identity concerns, as it stands in the transaction.
pub(super) async fn topics_of(
    write: &mut Write,
    identity: &StoredIdentity,
) -> Result<Vec<Topic>, Error> {
    let (role, name) = (identity.role, identity.name.clone());
    let identities = write.tx.identities().await?;
    let certificates = write.tx.certificates(write.now).await?;
    let after = write.before.with_fleet(Fleet::new(identities, certificates), write.now);
    let among = match (role, &identity.site) {
        (Role::Agent, Some(site)) => Among::Site(site),
        (Role::Publisher, _) => Among::All,
        _ => Among::Nobody,
    };
    let mut topics = match role {
        Role::Agent | Role::Publisher => concerned(&write.before, &after, among, write.now),
        Role::Admin | Role::Viewer | Role::Operator | Role::Coordinator => vec![],
    };
    topics.push(Topic::Identities);
    match role {
        Role::Agent => topics.push(Topic::Agent(name)),
        Role::Publisher => topics.push(Topic::Publisher(name)),
        Role::Admin | Role::Viewer | Role::Operator | Role::Coordinator => {}
    }
    Ok(topics)
}

/// Whether an invite may be given.
fn check_invite(picture: &Picture, request: &InviteRequest) -> Result<(), Refusal> {
    let InviteRequest { role, name, site, replace, .. } = request;
    match (role, site) {
        (Role::Coordinator, _) => {
            return Err(Refusal::Invalid(
                "the coordinator's identity is made by `coordinator init`, not by an invite".into(),
            ));
        }
        (role, None) if role.has_site() => {
            return Err(Refusal::Invalid(format!(
                "an {role} belongs to a site; say which: --site"
            )));
        }
        (role, Some(site)) if role.has_site() => check_site(picture, site)?,
        (_, Some(_)) => {
            return Err(Refusal::Invalid(format!(
                "only agents and operators belong to a site, not a {role}"
            )));
        }
        (_, None) => {}
    }
    if !request.trees.is_empty() && *role != Role::Publisher {
        return Err(Refusal::Invalid(format!("only publishers sign for trees, not a {role}")));
    }
    if request.trees.len() > MAX_KEYS {
        return Err(Refusal::Invalid(format!("name at most {MAX_KEYS} patterns of trees")));
    }
    let taken = picture.fleet.identity(*role, name).is_some_and(|found| found.revoked.is_none());
    if taken && !replace {
        return Err(Refusal::Conflict(format!(
            "{role} {name} is enrolled and live; choose another name, or --replace it (it is revoked when the invite is used)"
        )));
    }
    Ok(())
}

/// Whether the caller may let in whom the invite is for: an operator agents of its site, and none
/// that would leave another site for it.
fn check_inviter(
    picture: &Picture,
    caller: &Caller,
    request: &InviteRequest,
) -> Result<(), Refusal> {
    caller.check_site(request.site.as_ref().filter(|_| request.role == Role::Agent))?;
    match picture.fleet.identity(request.role, &request.name) {
        Some(taken) if taken.revoked.is_none() => caller.check_site(taken.site.as_ref()),
        _ => Ok(()),
    }
}

fn check_site(picture: &Picture, site: &SiteName) -> Result<(), Refusal> {
    if picture.wanted.definitions.sites.contains_key(site) {
        return Ok(());
    }
    Err(Refusal::NotFound(format!(
        "there is no site {site}; define it first with `mirrorctl apply` ([[site]] name = \"{site}\")"
    )))
}

fn is_live_admin(identity: &StoredIdentity) -> bool {
    identity.role == Role::Admin && identity.revoked.is_none()
}

fn invalid_host(error: certs::authority::Error) -> Error {
    match error {
        certs::authority::Error::InvalidHost { .. } => Refusal::Invalid(error.to_string()).into(),
        error => error.into(),
    }
}

fn no_such(role: Role, name: &IdentityName) -> Refusal {
    Refusal::NotFound(format!("there is no {role} {name}; `mirrorctl get {role}` lists them"))
}
