//! The wanted state and what is known of the fleet, whole, in memory.
//!
//! Every request has to know whether its certificate is live, and every waiting agent has to know
//! at once whether something concerns it; asking the database each time would make both slow and
//! waking expensive. So one immutable picture is kept beside the database, replaced after every
//! commit and, where other replicas write too, at least every [`POLL`]. Its parts are read again
//! only when a revision concerned them. Orders are pure functions of it.

mod contents;
mod fleet;
mod wanted;

use std::{collections::HashMap, sync::Arc, time::Duration};

use certs::root::TrustedRoot;
use jiff::Timestamp;
use protocol::{
    generation::{HeadNumber, RestoreEpoch, Revision},
    name::IdentityName,
    spec::AssignmentName,
};

pub use self::{
    contents::{Contents, TreeContents},
    fleet::{Fleet, is_live, is_outlived},
    wanted::{PUBLISH, SECRET, SYNC, Wanted},
};
use crate::{
    app::effective,
    db::{self, StoredReceipt, Topic, Transaction},
};

/// How often the database is asked whether another replica wrote.
pub const POLL: Duration = Duration::from_millis(250);

/// Generations of a tree that are kept at hand: as far back as chains of packs are offered.
pub const DEPTH: u64 = 9;

/// Everything as of one revision.
#[derive(Debug, Clone)]
pub struct Picture {
    /// Which wanted state.
    pub revision: Revision,
    /// How often the coordinator was restored.
    pub restore_epoch: RestoreEpoch,
    /// Number of the heads of this revision.
    pub head_number: HeadNumber,
    /// The revision that last concerned each topic.
    topics: Arc<HashMap<Topic, Revision>>,
    /// Who may sign what.
    pub root: Arc<TrustedRoot>,
    /// Who takes part.
    pub fleet: Arc<Fleet>,
    /// What admins want.
    pub wanted: Arc<Wanted>,
    /// What the trees hold.
    pub contents: Arc<Contents>,
    /// What the assignments hold.
    pub receipts: Arc<HashMap<AssignmentName, StoredReceipt>>,
    /// The assignments of each agent.
    held_by: Arc<HashMap<IdentityName, Vec<AssignmentName>>>,
}

impl Picture {
    /// Reads what changed since `earlier`; everything when there is none.
    pub async fn load(
        tx: &mut Transaction,
        earlier: Option<&Self>,
        now: Timestamp,
    ) -> Result<Self, db::Error> {
        let (revision, restore_epoch) = (tx.revision().await?, tx.restore_epoch().await?);
        // After a restore, nothing of before holds, whatever the numbers say.
        let earlier =
            earlier.filter(|old| old.restore_epoch == restore_epoch && old.revision <= revision);
        if let Some(earlier) = earlier.filter(|old| old.revision == revision) {
            return Ok(earlier.clone());
        }
        let after = earlier.map_or(Revision(0), |old| old.revision);
        let news = tx.topics_after(after).await?;
        let kept = |topic: Topic| earlier.filter(|_| !news.contains_key(&topic));
        let root = match kept(Topic::Roots) {
            Some(old) => Arc::clone(&old.root),
            None => Arc::new(newest_root(tx).await?),
        };
        let fleet = match kept(Topic::Identities) {
            Some(old) => Arc::clone(&old.fleet),
            None => Arc::new(Fleet::new(tx.identities().await?, tx.certificates(now).await?)),
        };
        let wanted = match kept(Topic::Definitions) {
            Some(old) => Arc::clone(&old.wanted),
            None => Arc::new(Wanted::new(
                tx.definitions().await?,
                tx.requests().await?,
                tx.undeletes().await?,
                tx.mandates().await?,
            )?),
        };
        let contents = match kept(Topic::Generations) {
            Some(old) => Arc::clone(&old.contents),
            None => Arc::new(Contents::new(
                tx.recent_generations(DEPTH).await?,
                tx.recent_offers(DEPTH).await?,
                tx.holds().await?,
            )),
        };
        let receipts = match kept(Topic::Receipts) {
            Some(old) => Arc::clone(&old.receipts),
            None => Arc::new(by_assignment(tx.receipts().await?)),
        };
        let mut topics = earlier.map_or_else(HashMap::new, |old| (*old.topics).clone());
        topics.extend(news);
        Ok(Self {
            revision,
            restore_epoch,
            head_number: tx.head_number().await?,
            topics: Arc::new(topics),
            held_by: held_by(earlier, &wanted, &fleet, now),
            root,
            fleet,
            wanted,
            contents,
            receipts,
        })
    }

    /// The same with other definitions: what would be if they were stored.
    pub fn with_wanted(&self, wanted: Wanted, now: Timestamp) -> Self {
        let wanted = Arc::new(wanted);
        let held_by = held_by(Some(self), &wanted, &self.fleet, now);
        Self { wanted, held_by, ..self.clone() }
    }

    /// The same with other identities.
    pub fn with_fleet(&self, fleet: Fleet, now: Timestamp) -> Self {
        let fleet = Arc::new(fleet);
        let held_by = held_by(Some(self), &self.wanted, &fleet, now);
        Self { fleet, held_by, ..self.clone() }
    }

    /// The assignments that an agent holds, carried out or not.
    pub fn assignments_of(&self, agent: &IdentityName) -> &[AssignmentName] {
        self.held_by.get(agent).map_or(&[], Vec::as_slice)
    }

    /// The revision in which an agent's orders changed last.
    pub fn agent_revision(&self, agent: &IdentityName) -> Revision {
        let trees = self.assignments_of(agent).iter().map(|name| Topic::Tree(name.tree.clone()));
        let own = [Topic::Agent(agent.clone()), Topic::Heads, Topic::Roots];
        own.into_iter().chain(trees).map(|topic| self.topic(&topic)).max().unwrap_or_default()
    }

    /// The revision in which a publisher's orders changed last.
    pub fn publisher_revision(&self, publisher: &IdentityName) -> Revision {
        self.topic(&Topic::Publisher(publisher.clone())).max(self.topic(&Topic::Roots))
    }

    /// One assignment with every setting merged.
    pub fn effective(
        &self,
        name: &AssignmentName,
        now: Timestamp,
    ) -> Option<effective::EffectiveAssignment> {
        let agents = self.fleet.agents_at(&name.site);
        effective::assignment(&self.wanted.definitions, name, agents, now)
    }

    fn topic(&self, topic: &Topic) -> Revision {
        self.topics.get(topic).copied().unwrap_or_default()
    }
}

async fn newest_root(tx: &mut Transaction) -> Result<TrustedRoot, db::Error> {
    let stored = tx.newest_root().await?;
    let stored = stored.ok_or_else(|| db::Error::corrupt("root document", "there is none"))?;
    // It was checked when it was stored; this only reads it.
    TrustedRoot::pin(&stored)
        .map_err(|error| db::Error::corrupt("root document", error.to_string()))
}

fn by_assignment(receipts: Vec<StoredReceipt>) -> HashMap<AssignmentName, StoredReceipt> {
    receipts.into_iter().map(|receipt| (receipt.assignment.clone(), receipt)).collect()
}

/// Who holds what. Kept while neither the definitions nor the agents change: a renewed certificate
/// must not cost a walk through everything.
fn held_by(
    earlier: Option<&Picture>,
    wanted: &Arc<Wanted>,
    fleet: &Fleet,
    now: Timestamp,
) -> Arc<HashMap<IdentityName, Vec<AssignmentName>>> {
    if let Some(old) = earlier
        && Arc::ptr_eq(&old.wanted, wanted)
        && old.fleet.same_agents(fleet)
    {
        return Arc::clone(&old.held_by);
    }
    let mut held: HashMap<IdentityName, Vec<AssignmentName>> = HashMap::new();
    for name in wanted.definitions.assignments.keys() {
        let agents = fleet.agents_at(&name.site);
        let merged = effective::assignment(&wanted.definitions, name, agents, now);
        if let Some(Ok(agent)) = merged.map(|merged| merged.agent) {
            held.entry(agent).or_default().push(name.clone());
        }
    }
    Arc::new(held)
}
