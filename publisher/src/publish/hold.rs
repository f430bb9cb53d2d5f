//! What a guard stopped: retained, reported, and published only by an admin's word.
//!
//! Approving names a manifest, and an admin may take a day to do it. So the content of a held scan
//! is kept as a generation's would be, in a private tree that nobody is served from; what is
//! published in the end is exactly what was looked at, whatever the source has become meanwhile.

use std::sync::Arc;

use filetree::fs::FileId;
use protocol::{
    digest::Digest,
    manifest::Manifest,
    v1::publisher::{Difference, HoldReport, TreeOrder},
};

use super::{
    Error, Outcome,
    attempt::{Base, Prepared, Progress, Spare},
    worker::Worker,
};
use crate::{
    generate::Places,
    guard::{self, Reason, Stop, Verdict},
    ledger::{Fate, HeldContent, HeldScan},
    view,
};

/// A tree as it was scanned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) scanned: &'a Manifest,
    pub(super) root: FileId,
}

impl Worker {
    /// A tree that cannot be seen whole has no manifest, so nothing that an admin could approve:
    /// the report is named by its reason.
    pub(super) fn stopped(&mut self, order: &TreeOrder, reason: Reason) -> Result<Outcome, Error> {
        let stop = Stop { removed: guard::Removed::default(), reasons: vec![reason] };
        self.hold(order, None, Digest::of(stop.to_string().as_bytes()), &stop, None)
    }

    /// Retains what was seen, tells the coordinator once, and waits for an admin.
    pub(super) fn hold(
        &mut self,
        order: &TreeOrder,
        base: Option<&Base>,
        manifest: Digest,
        stop: &Stop,
        seen: Option<Seen<'_>>,
    ) -> Result<Outcome, Error> {
        let reason = stop.to_string();
        let outcome = Outcome::Held { reason: reason.clone(), manifest: manifest.to_string() };
        let is_alone = self.alone.is_some();
        let standing = self.standing()?;
        let known = standing.ledger.held.as_ref();
        let is_known =
            known.is_some_and(|held| (held.manifest, &held.reason) == (manifest, &reason));
        // Alone there is nobody to tell; it is done when the coordinator is back.
        if is_known && (standing.hold_told || is_alone) {
            return Ok(outcome);
        }
        if let Some(first) = known.filter(|held| waits(order, held) && held.manifest != manifest) {
            // One thing at a time: what an admin was shown stays what there is to decide about.
            let (reason, manifest) = (first.reason.clone(), first.manifest.to_string());
            tracing::info!(tree = %self.tree, reason, "still held; the tree has changed since");
            return Ok(Outcome::Held { reason, manifest });
        }
        let content = match seen {
            Some(seen) => Some(self.retain_held(order, base, seen)?),
            None => {
                self.drop_held()?;
                None
            }
        };
        let report = HoldReport {
            manifest,
            reason: reason.clone(),
            removed_files: stop.removed.files,
            removed_bytes: stop.removed.bytes,
            since: self.state.now(),
            difference: self.difference(base, seen)?,
            unseen: seen.is_none(),
        };
        if !is_alone {
            self.handle.block_on(self.state.client.report_hold(&self.tree, &report))?;
        }
        let standing = self.standing()?;
        (standing.hold_may_stand, standing.hold_told) = (true, !is_alone);
        let untold = is_alone;
        standing.ledger.held = Some(HeldScan { manifest, reason, content, untold });
        standing.ledger.save(&standing.dir)?;
        Ok(outcome)
    }

    /// How a held scan differs from what is announced.
    fn difference(
        &mut self,
        base: Option<&Base>,
        seen: Option<Seen<'_>>,
    ) -> Result<Difference, Error> {
        let (Some(base), Some(seen)) = (base, seen) else { return Ok(Difference::default()) };
        let (state, tree) = (Arc::clone(&self.state), self.tree.clone());
        let ledger = &self.standing()?.ledger;
        let Some(known) = ledger.with_manifest(&base.statement.manifest) else {
            return Ok(Difference::default());
        };
        let before = state.places.stored_manifest(&tree, &known.manifest, known.manifest_length)?;
        Ok(Difference::between(&before, seen.scanned, &|_| true)?)
    }

    /// Makes the private tree of a held scan. Its manifest stays at this publisher: nothing of a
    /// held scan is put where mirrors could see it.
    fn retain_held(
        &mut self,
        order: &TreeOrder,
        base: Option<&Base>,
        seen: Seen<'_>,
    ) -> Result<HeldContent, Error> {
        let (generation, _) = self.next_number(order, base);
        let shared = self.retain(order, generation, seen.scanned, Spare::Keep)?;
        let own = Places { origin: Arc::clone(&self.state.places.origin), further: Vec::new() };
        let stored = own.store_manifest(&self.tree, seen.scanned)?;
        let manifest_length = stored.length;
        Ok(HeldContent { generation, manifest_length, shared, root: seen.root })
    }

    /// Publishes what was held, exactly as it was held, once an admin has approved it.
    pub(super) fn publish_approved(
        &mut self,
        order: &TreeOrder,
        base: Option<&Base>,
    ) -> Result<Option<Progress>, Error> {
        let (state, tree) = (Arc::clone(&self.state), self.tree.clone());
        let (next, _) = self.next_number(order, base);
        let standing = self.standing()?;
        let held = standing.ledger.held.as_ref().filter(|held| is_approved(order, held));
        let Some((manifest, content)) = held.and_then(|held| Some((held.manifest, held.content?)))
        else {
            return Ok(None);
        };
        if next != content.generation {
            // Another generation became current meanwhile; what is there now is judged beside it.
            return Ok(None);
        }
        let HeldContent { generation, manifest_length, shared, root } = content;
        let target = state.places.load_manifest(&tree, &manifest, manifest_length)?;
        let Verdict::Pass(verdict) = self.judge(order, base, &target, manifest, root)? else {
            return Ok(None);
        };
        self.standing()?.prepared = Some(Prepared { generation, manifest, shared });
        tracing::info!(%tree, %manifest, "approved; publishing what was held");
        match self.publish(order, base, &target, verdict, root) {
            Err(Error::View(view::Error::Moved { path })) => {
                tracing::warn!(%tree, %path, "what was approved is no longer there as it was held");
                self.drop_held()?;
                Ok(Some(Progress::Again))
            }
            // What has become of the tree meanwhile is judged beside what was just published.
            Ok(_) => Ok(Some(Progress::Again)),
            Err(error) => Err(error),
        }
    }

    /// What was held is over: the tree is what is announced.
    pub(super) fn end_hold(&mut self) -> Result<(), Error> {
        if !self.standing()?.hold_may_stand {
            return Ok(());
        }
        self.drop_held()?;
        if self.alone.is_some() {
            return Ok(());
        }
        self.handle.block_on(self.state.client.end_holds(&self.tree))?;
        self.standing()?.hold_may_stand = false;
        Ok(())
    }

    /// Removes what was retained of a held scan.
    fn drop_held(&mut self) -> Result<(), Error> {
        let (state, tree) = (Arc::clone(&self.state), self.tree.clone());
        let standing = self.standing()?;
        let Some(held) = standing.ledger.held.take() else { return Ok(()) };
        standing.prepared = None;
        standing.ledger.save(&standing.dir)?;
        let announced = |generation| {
            let kept = &standing.ledger.generations;
            kept.iter().any(|kept| kept.content && kept.version.generation == generation)
        };
        if let Some(content) = held.content
            && !announced(content.generation)
        {
            state.views.remove(&tree, content.generation)?;
        }
        Ok(())
    }

    /// The root may be another directory than when the announced generation was scanned: a device
    /// has another number after a restart. A root with exactly that content is the right one.
    pub(super) fn note_root(&mut self, manifest: &Digest, root: FileId) -> Result<(), Error> {
        let standing = self.standing()?;
        let mut known = standing.ledger.generations.iter_mut().rev();
        let newest = known.find(|kept| kept.fate != Fate::Refused);
        if let Some(kept) = newest.filter(|k| k.manifest == *manifest && k.root != Some(root)) {
            kept.root = Some(root);
            standing.ledger.save(&standing.dir)?;
        }
        Ok(())
    }
}

/// Whether an admin approved exactly this.
pub(super) fn is_approved(order: &TreeOrder, held: &HeldScan) -> bool {
    held.content.is_some()
        && order.approved.iter().any(|approval| approval.manifest == held.manifest)
}

/// Whether what is held has to stay as it is until an admin decides. A tree without files has
/// nothing that would be lost.
fn waits(order: &TreeOrder, held: &HeldScan) -> bool {
    held.content.is_some()
        // Nobody was shown what was held while there was nobody to tell.
        && !held.untold
        && held.manifest != Manifest::empty().digest()
        && !order.rejected.contains(&held.manifest)
}
