//! Mandates: kept for whoever follows them, and understood by nobody here.
//!
//! They are checked all the same, so that a slip is told to the admin who made it and not only to the
//! log of an agent.

use std::collections::BTreeSet;

use certs::signing;
use protocol::{
    role::Role,
    spec::AssignmentName,
    statement::Claim as _,
    v1::mandates::{MAX_MANDATES, Mandate, NewMandates},
};

use super::{App, Error, Picture, Refusal, admission::Caller, effective::EffectiveAssignment};
use crate::db::Topic;

/// How an assignment of a strict network stands to what its definitions key has signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mandated {
    /// Agents carry it out as it is defined.
    AsDefined,
    /// Nothing was signed: agents do not begin it.
    No,
    /// Something else was signed: agents do that.
    Otherwise,
    /// Its end was signed.
    Ended,
}

impl Mandated {
    /// Whether agents carry the assignment out, in whatever way.
    pub(super) fn is_carried_out(self) -> bool {
        matches!(self, Self::AsDefined | Self::Otherwise)
    }

    /// What an admin has to know.
    pub(super) fn attention(self, name: &AssignmentName) -> Option<String> {
        let what = match self {
            Self::AsDefined => return None,
            Self::No => {
                "is signed by no definitions key of the network: its agent does not begin it"
            }
            Self::Otherwise => {
                "is defined otherwise than its mandate says, and its agent does what the mandate says"
            }
            Self::Ended => "is defined, but its mandate has ended it",
        };
        Some(format!(
            "{name} {what}; `mirrorctl mandate sign` signs the definitions, `mirrorctl mandate publish` brings them here"
        ))
    }
}

impl App {
    /// How an assignment stands to its mandate; `None` where the network has no definitions key.
    pub(super) fn mandated(
        &self,
        picture: &Picture,
        name: &AssignmentName,
        merged: &EffectiveAssignment,
    ) -> Option<Mandated> {
        let keys = &picture.root.root().definition_keys;
        if keys.is_empty() {
            return None;
        }
        let (kind, most) = (Mandate::PAYLOAD_TYPE, Mandate::MAX_LEN);
        let checked = picture
            .wanted
            .mandate(name)
            .and_then(|envelope| signing::verify::<Mandate>(envelope, kind, keys, most).ok());
        // One by a key that the root has dropped counts for agents as none, too.
        let Some(mandate) = checked.map(|checked| checked.content) else {
            return Some(Mandated::No);
        };
        if mandate.ended {
            return Some(Mandated::Ended);
        }
        let named = picture.wanted.definitions.assignments.get(name);
        let agent = named.and_then(|spec| spec.agent.as_ref());
        let is_same =
            mandate.order(Some(&merged.order)) == merged.order && mandate.agent.as_ref() == agent;
        Some(if is_same { Mandated::AsDefined } else { Mandated::Otherwise })
    }

    /// How many assignments are not carried out as they are defined, for want of a mandate.
    pub fn without_mandate(&self) -> usize {
        let (picture, now) = (self.picture(), self.now());
        let names = picture.wanted.definitions.assignments.keys();
        let wants = |name: &&AssignmentName| {
            let merged = picture.effective(name, now);
            let mandated = merged.and_then(|merged| self.mandated(&picture, name, &merged));
            mandated.is_some_and(|mandated| mandated != Mandated::AsDefined)
        };
        match picture.root.root().definition_keys.is_empty() {
            true => 0,
            false => names.filter(wants).count(),
        }
    }

    /// Keeps mandates that a definitions key of the root has signed.
    pub async fn put_mandates(&self, caller: &Caller, new: &NewMandates) -> Result<(), Error> {
        if new.mandates.len() > MAX_MANDATES {
            let message = format!("at most {MAX_MANDATES} mandates are taken at once");
            return Err(Refusal::Invalid(message).into());
        }
        let mut write = self.write().await?;
        let keys = write.before.root.root().definition_keys.clone();
        if keys.is_empty() {
            return Err(Refusal::Conflict(
                "the network's root names no definitions key, so its agents follow no mandates; `mirrorctl root draft --add-definition-key` names one".into(),
            )
            .into());
        }
        let mut topics = BTreeSet::from([Topic::Definitions]);
        for envelope in &new.mandates {
            let (kind, most) = (Mandate::PAYLOAD_TYPE, Mandate::MAX_LEN);
            let checked = signing::verify::<Mandate>(envelope, kind, &keys, most);
            let mandate = checked
                .map_err(|error| {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
                    Refusal::Invalid(format!("a mandate is not taken: {error}{cause}"))
                })?
                .content;
            let name = &mandate.order.name;
            if mandate.network != *self.network() {
                let message =
                    format!("the mandate of {name} is of the network {}", mandate.network);
                return Err(Refusal::Invalid(message).into());
            }
            if !write.tx.put_mandate(name, mandate.number, envelope).await? {
                let message = format!(
                    "a mandate of {name} that is as new or newer was kept before; nothing was stored"
                );
                return Err(Refusal::Conflict(message).into());
            }
            let (who, number) = (caller.to_string(), mandate.number.to_string());
            let verb = if mandate.ended { "mandate-end" } else { "mandate" };
            write.tx.audit(write.now, &who, verb, &name.to_string(), &number).await?;
            let at_site = write.before.fleet.identities().filter(|identity| {
                identity.role == Role::Agent && identity.site.as_ref() == Some(&name.site)
            });
            topics.extend(at_site.map(|identity| Topic::Agent(identity.name.clone())));
        }
        let topics: Vec<Topic> = topics.into_iter().collect();
        self.commit(write, &topics).await?;
        Ok(())
    }
}
