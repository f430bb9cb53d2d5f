//! What the agent's own guard thinks of a step from what is held to a target.

use protocol::{
    digest::Digest,
    manifest::{self, Entries, Entry},
    statement::Statement,
    v1::{agent::AssignmentOrder, publisher::Difference},
};
use tokio::task::block_in_place;

use super::Error;
use crate::{
    agent::Agent,
    apply::{self, Rules},
    fetch::kept::KeptManifest,
    guard,
    orders::Verified,
    removal::Removals,
    report::Run,
    versions::Union,
};

/// What is held or wanted, all of it.
pub(super) trait Whole: Entries {
    /// The digest that names it.
    fn digest(&self) -> Result<Digest, manifest::Error>;

    /// Its entries and content bytes.
    fn sums(&self) -> Result<(u64, u64), manifest::Error>;
}

impl Whole for KeptManifest {
    fn digest(&self) -> Result<Digest, manifest::Error> {
        Ok(Self::digest(self))
    }

    fn sums(&self) -> Result<(u64, u64), manifest::Error> {
        self.whole_sums()
    }
}

impl Whole for Union {
    fn digest(&self) -> Result<Digest, manifest::Error> {
        Self::digest(self)
    }

    fn sums(&self) -> Result<(u64, u64), manifest::Error> {
        Ok((self.count(), self.sum_bytes()?))
    }
}

/// One step at a mirror, as the guard looks at it.
pub(super) struct Step<'a> {
    pub(super) agent: &'a Agent,
    pub(super) order: &'a AssignmentOrder,
    pub(super) target: &'a Verified,
    /// What is held, and its digest if it is that of an announced generation.
    pub(super) have: &'a dyn Whole,
    pub(super) held: Option<Digest>,
    pub(super) want: &'a dyn Whole,
    pub(super) rules: &'a Rules,
}

impl Step<'_> {
    /// Stops the run if it would take away more than anybody's signature speaks of.
    pub(super) async fn guard(&self, removals: &Removals, run: &Run) -> Result<(), Error> {
        let guard = &self.order.guard;
        let nothing = guard::Explained::default();
        let Err(_) = guard::check_removals(removals, Some(nothing), guard) else { return Ok(()) };
        let chain = self.chain().await;
        let sums = block_in_place(|| self.have.sums());
        let (files, bytes) = sums.map_err(apply::Error::from)?;
        let held = guard::Explained { files, bytes };
        let explained = guard::explained(&chain, held, guard);
        let Err(source) = guard::check_removals(removals, Some(explained), guard) else {
            return Ok(());
        };
        let filter = self.rules.filter.digest();
        let want = block_in_place(|| self.want.digest()).map_err(apply::Error::from)?;
        let step = guard::step_digest(self.held.as_ref(), &want, &filter);
        if let Some(approval) = guard::approval(self.order, &step) {
            run.notice(format!("approved by {}: {source}", approval.by));
            return Ok(());
        }
        let kept = |entry: &Entry| self.rules.filter.keeps(&entry.path, entry.is_dir());
        let compare = || Difference::between(self.have, self.want, &kept);
        let difference = block_in_place(compare).map_err(apply::Error::from)?;
        run.set_hold(guard::report(step, &source, &removals.removed, difference));
        Err(Error::Held { tree: self.order.name.tree.clone(), source })
    }

    /// The statements that lead from what is held to the target, the newest first; empty where
    /// they cannot be had, or do not follow on each other.
    async fn chain(&self) -> Vec<Statement> {
        let Some(held) = self.held else { return Vec::new() };
        let first = self.target.statement.clone();
        if first.parent.as_ref().is_some_and(|parent| parent.manifest == held) {
            return vec![first];
        }
        let tree = &self.order.name.tree;
        let envelopes = match self.agent.client().statements_since(tree, &held).await {
            Ok(envelopes) => envelopes,
            Err(error) => {
                tracing::warn!(%tree, error = crate::chain(&error), "no earlier statements");
                return Vec::new();
            }
        };
        let mut chain = Vec::new();
        let mut wanted = first.manifest;
        for envelope in envelopes {
            let Some(statement) =
                crate::orders::earlier_statement(&envelope, tree, &self.target.keys)
            else {
                return Vec::new();
            };
            // What came after the target that is followed now.
            if chain.is_empty() && statement.manifest != wanted {
                continue;
            }
            let Some(parent) = statement.parent.as_ref().filter(|_| statement.manifest == wanted)
            else {
                return Vec::new();
            };
            wanted = parent.manifest;
            chain.push(statement);
            if wanted == held {
                return chain;
            }
        }
        Vec::new()
    }
}
