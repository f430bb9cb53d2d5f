//! Brings again what was found damaged, and switches the tree as for a new generation.

use std::sync::Arc;

use filetree::{area::Finding, plan::Need};
use jiff::Timestamp;
use protocol::{
    digest::Digest,
    generation::Version,
    path::TreePath,
    v1::agent::{AssignmentOrder, Origin},
};
use tokio::task::block_in_place;

use super::{Error, MAX_NAMED};
use crate::{
    agent::{Agent, note_switch},
    apply::{self, Applied, Site},
    fetch::{kept::KeptManifest, points::Points},
    gather::{self, Sources, gather},
    observed, published,
    report::Run,
    versions::within,
};

/// What a repair has to know.
pub(super) struct Repair<'a> {
    pub(super) agent: &'a Agent,
    pub(super) order: &'a AssignmentOrder,
    pub(super) run: &'a Run,
    /// The generation of the whole tree that is held: under it contents are asked for.
    pub(super) generation: (Version, Digest),
    /// How everything should be: the tree, or one version as seen from there.
    pub(super) have: &'a Arc<KeptManifest>,
    pub(super) applied: &'a Applied,
    /// Of one version: the place of the directory of versions, and the version's name.
    pub(super) within: Option<(&'a Site, &'a TreePath)>,
}

impl Repair<'_> {
    /// Repairs what was found at `site`.
    pub(super) async fn findings(
        &self,
        site: &mut Site,
        findings: &[Finding],
    ) -> Result<(), Error> {
        let Self { order, run, have, applied, .. } = *self;
        block_in_place(|| site.set_group(&applied.rules))?;
        let plan = block_in_place(|| site.plan_repair(have, &applied.rules, findings))?;
        if plan.is_empty() {
            return Ok(());
        }
        for part in plan.needs_in_parts(gather::AT_A_TIME) {
            let part = part.map_err(apply::Error::from)?;
            let needs = block_in_place(|| site.area().stage_retired(&part));
            self.bring(site, &needs.map_err(apply::Error::from)?).await?;
        }
        let mut tries = 0;
        let report = loop {
            let now = Timestamp::now();
            let generation = (applied.version, applied.manifest);
            run.progress().phase("apply", "entries", plan.change_count());
            let switched = block_in_place(|| {
                site.switch(&plan, generation, &applied.rules, order, run.progress(), now)
            });
            match switched {
                // Another file of the mirror was to give the content, and is damaged as well.
                Err(apply::Error::Area(filetree::area::Error::Missing(missing))) if tries < 2 => {
                    tries += 1;
                    for need in missing.iter().take(MAX_NAMED) {
                        run.notice(format!("{} is missing or damaged as well", need.path));
                    }
                    self.bring(site, &missing).await?;
                }
                other => break other?,
            }
        };
        note_switch(run, site, &report)?;
        Ok(())
    }

    /// Brings contents into the staging of `site`, from wherever the generation that is held can be
    /// had: whole or by rsync, and where neither works from a pack of everything.
    async fn bring(&self, site: &Site, needs: &[Need]) -> Result<(), Error> {
        let Self { agent, order, run, .. } = *self;
        let Some(first) = needs.first() else { return Ok(()) };
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::NotRepaired {
            count: needs.len(),
            first: first.path.clone(),
            source,
        };
        let (home, needs, have) = match self.within {
            None => (site, needs.to_vec(), None),
            Some((home, version)) => {
                let named = |need: &Need| {
                    let path = version.child(need.path.as_bytes()).ok()?;
                    Some(Need { path, ..need.clone() })
                };
                let needs = needs.iter().filter_map(named).collect();
                (home, needs, Some(within(&**self.have, version)))
            }
        };
        let (points, rsync);
        match &order.origin {
            Origin::Publisher(from) => {
                points = published::points(agent, &order.name.tree, from, |why| run.notice(why))
                    .map_err(|error| failed(error.into()))?;
                rsync =
                    published::rsync_source(agent, order, from, self.generation.0.generation, run);
            }
            Origin::Rsyncd(from) => {
                points = Points::new(Vec::new());
                rsync = Ok(observed::source(agent, from, run, &home.scratch()?));
            }
        }
        let points = Arc::new(points);
        run.set_points(&points);
        let sources = Sources {
            tree: &order.name.tree,
            manifest: self.generation.1,
            points: &points,
            patience: agent.patience,
            chain: &[],
            no_pack: None,
            rsync: rsync.as_ref().map_err(|reason| *reason),
            whole: true,
            part: gather::Part::default(),
            have: match &have {
                Some(have) => have,
                None => &**self.have,
            },
            kept: Some(&self.applied.rules.filter),
            meanwhile: None,
        };
        let work = self.gather(home, site, &needs, &sources);
        let brought = agent.under_lease(order, work).await;
        match brought.map_err(|error| failed(error.into()))? {
            Ok(()) => Ok(()),
            Err(gather::Error::Apply(error)) => Err(error.into()),
            Err(error) => Err(failed(error.into())),
        }
    }

    async fn gather(
        &self,
        home: &Site,
        site: &Site,
        needs: &[Need],
        sources: &Sources<'_>,
    ) -> Result<(), gather::Error> {
        let staging = site.area().staging();
        let error = match gather(home, staging, needs, sources, self.run).await {
            Err(error @ gather::Error::NoWay { .. }) => error,
            other => return other,
        };
        // A pack of everything that leads to what is held has what is damaged; one that leads
        // elsewhere may not.
        let target = self.agent.signed_target(self.order);
        let Some(target) = target.filter(|target| target.statement.manifest == self.generation.1)
        else {
            return Err(error);
        };
        let to = published::Intake { site: home, staging, needs };
        match published::from_everything(self.agent, &target, to, sources, self.run).await? {
            true => Ok(()),
            false => Err(error),
        }
    }
}
