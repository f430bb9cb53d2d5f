//! What has to happen without anybody asking: time passes grants by, heads grow old, and who was
//! heard of has to be stored. Takes no input; doing it twice does nothing twice.

use jiff::Timestamp;
use protocol::{name::IdentityName, spec::AssignmentName};

use super::{App, Error, Picture, effective};
use crate::db::{Counter, Topic};

/// Heads are renewed after a third of their life, so that an agent which misses one still has two.
const HEADS_IN_A_LIFE: i32 = 3;

impl App {
    /// Acts on everything that time has brought since it was last done, by whichever replica.
    pub async fn keep_up(&self) -> Result<(), Error> {
        let (picture, now) = (self.picture(), self.now());
        let head_renewal = self.parts.head_life / HEADS_IN_A_LIFE;
        let mut tx = self.parts.database.read().await?;
        let looked_at = tx.time_of(Counter::LookedAt).await?;
        let renewed = tx.time_of(Counter::HeadRenewed).await?;
        tx.commit().await?;
        let heads_are_due = now.duration_since(renewed) >= head_renewal;
        if !heads_are_due && ended(&picture, looked_at, now).is_empty() {
            return Ok(());
        }
        let mut write = self.write().await?;
        // Again with the writer's place: another replica may have done it in between.
        let looked_at = write.tx.time_of(Counter::LookedAt).await?;
        let renewed = write.tx.time_of(Counter::HeadRenewed).await?;
        let mut topics = Vec::new();
        if write.now.duration_since(renewed) >= head_renewal {
            write.tx.set_time(Counter::HeadRenewed, write.now).await?;
            topics.push(Topic::Heads);
        }
        let ended = ended(&write.before, looked_at, write.now);
        for name in &ended {
            tracing::info!(assignment = %name, "its grant has ended");
            topics.extend(parties(&write.before, name, write.now));
        }
        write.tx.set_time(Counter::LookedAt, write.now).await?;
        self.commit(write, &topics).await?;
        Ok(())
    }
}

/// The grants that ended after `since` and by `now`.
fn ended(picture: &Picture, since: Timestamp, now: Timestamp) -> Vec<AssignmentName> {
    let grants = picture.wanted.definitions.grants.iter();
    let ended = grants.filter(|(_, grant)| grant.until.is_some_and(|at| since < at && at <= now));
    ended.map(|(name, _)| name.clone()).collect()
}

/// The agent that holds an assignment, and who serves it: the publisher and the site's relay.
fn parties(picture: &Picture, name: &AssignmentName, now: Timestamp) -> Vec<Topic> {
    let agent = picture.effective(name, now).and_then(|merged| merged.agent.ok());
    let publisher: Option<IdentityName> = effective::tree(&picture.wanted.definitions, &name.tree)
        .and_then(|tree| tree.publisher().cloned());
    let relay = picture.wanted.definitions.sites.get(&name.site).and_then(|s| s.relay.as_ref());
    let relays = relay.map_or(&[][..], |site| picture.fleet.agents_at(site)).iter();
    let agents = agent.into_iter().chain(relays.map(|(agent, _)| agent.clone()));
    agents.map(Topic::Agent).chain(publisher.map(Topic::Publisher)).collect()
}
