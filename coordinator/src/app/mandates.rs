//! Mandates: kept for whoever follows them, and understood by nobody here.
//!
//! They are checked all the same, so that a slip is told to the admin who made it and not only to the
//! log of an agent.

use std::collections::BTreeSet;

use certs::signing;
use protocol::{
    role::Role,
    statement::Claim as _,
    v1::mandates::{MAX_MANDATES, Mandate, NewMandates},
};

use super::{App, Error, Refusal, admission::Caller};
use crate::db::Topic;

impl App {
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
