//! What a tree keeps of its past, and letting go of the rest.

use std::{collections::HashSet, sync::Arc};

use jiff::SignedDuration;
use protocol::{
    digest::Digest,
    generation::{Generation, Version},
    manifest::Entries,
    v1::publisher::TreeOrder,
};

use super::{Error, attempt::drop_content, worker::Worker};
use crate::{config::RetainMode, ledger::Kept, retention, signatures::Signatures};

impl Worker {
    /// Forgets what retention no longer keeps; gives the generations whose private trees go. What
    /// is on the disk is removed by [`Worker::remove`] when nobody is sent there any more.
    pub(super) fn shed(&mut self, order: &TreeOrder) -> Result<Vec<Version>, Error> {
        let (now, retain) = (self.state.now(), self.state.config.retain);
        let content = self.content_generations();
        let before = self.standing()?.ledger.clone();
        let mut gone = Vec::new();
        while let Some(version) = self.victim(order, &|kept| kept.content, content)? {
            drop_content(&mut self.standing()?.ledger, version);
            gone.push(version);
        }
        while let Some(version) =
            self.victim(order, &|kept| kept.signed || kept.content, retain.generations as usize)?
        {
            let ledger = &mut self.standing()?.ledger;
            for kept in ledger.generations.iter_mut().filter(|kept| kept.version == version) {
                if kept.content {
                    gone.push(version);
                }
                (kept.content, kept.signed) = (false, false);
            }
        }
        let standing = self.standing()?;
        let ledger = &mut standing.ledger;
        for version in retention::forgotten(&ledger.generations, now) {
            ledger.generations.retain(|kept| kept.version != version);
        }
        let is_kept = |kept: &&Kept| kept.content || kept.signed;
        let held: Vec<Digest> =
            ledger.generations.iter().filter(is_kept).map(|kept| kept.manifest).collect();
        ledger.offers.retain(|kept| held.contains(&kept.offer.to));
        if *ledger != before {
            ledger.save(&standing.dir)?;
        }
        Ok(gone)
    }

    /// How many generations the content is kept of: where keeping one takes as much room as the tree
    /// itself, `auto` keeps signatures of the older ones.
    pub(super) fn content_generations(&self) -> usize {
        let retain = self.state.config.retain;
        if retain.mode == RetainMode::Auto && self.copies() {
            1
        } else {
            retain.content_generations()
        }
    }

    pub(super) fn copies(&self) -> bool {
        self.standing.as_ref().is_some_and(|standing| standing.copies)
    }

    /// The next of these generations to go, if at most `most` may stay.
    pub(super) fn victim(
        &mut self,
        order: &TreeOrder,
        concerned: &dyn Fn(&Kept) -> bool,
        most: usize,
    ) -> Result<Option<Version>, Error> {
        let (now, retain) = (self.state.now(), self.state.config.retain);
        let state = Arc::clone(&self.state);
        let tree = self.tree.clone();
        let generations = &self.standing()?.ledger.generations;
        let kept: Vec<&Kept> = generations.iter().filter(|kept| concerned(kept)).collect();
        let mut candidates = Vec::new();
        let mut seen = HashSet::new();
        // From the newest on: what a newer one has as well is not an older one's own.
        for kept in kept.iter().rev() {
            let held = order.held.iter().find(|held| held.manifest == kept.manifest);
            let mut own_bytes = 0;
            if retain.bytes.is_some() {
                let length = kept.manifest_length;
                let manifest = state.places.stored_manifest(&tree, &kept.manifest, length)?;
                for entry in manifest.each() {
                    let entry = entry?;
                    if entry.digest().is_some_and(|digest| seen.insert(digest)) {
                        own_bytes += entry.size();
                    }
                }
            }
            let at = generations.iter().position(|other| other.version == kept.version);
            let next = at.and_then(|at| generations.get(at + 1));
            candidates.push(retention::Candidate {
                version: kept.version,
                replaced: next.map(|next| next.announced),
                held_bytes: held.map_or(0, |held| held.bytes.max(1)),
                own_bytes,
            });
        }
        let age = retain.age.map(|age| SignedDuration::try_from(age.duration()));
        let limits = retention::Limits {
            generations: most,
            age: age.map(|age| age.unwrap_or(SignedDuration::MAX)),
            bytes: retain.bytes.map(|bytes| bytes.0),
        };
        Ok(retention::victim(&candidates, &limits, now))
    }

    /// Removes from the disk what retention no longer keeps; `newest` has just taken its number.
    pub(super) fn remove(&mut self, gone: &[Version], newest: Generation) -> Result<(), Error> {
        let state = Arc::clone(&self.state);
        let tree = self.tree.clone();
        for version in gone.iter().filter(|version| version.generation != newest) {
            state.views.remove(&tree, version.generation)?;
        }
        let ledger = &self.standing()?.ledger;
        let signed = ledger.generations.iter().filter(|kept| kept.signed);
        let load =
            |kept: &Kept| state.places.stored_manifest(&tree, &kept.manifest, kept.manifest_length);
        let signed = signed.map(load).collect::<Result<Vec<_>, _>>()?;
        Ok(Signatures::open(&self.standing()?.dir)?.collect(&signed)?)
    }

    /// Lets go what has become too old while nothing changed.
    pub(super) fn expire(&mut self, order: &TreeOrder) -> Result<(), Error> {
        if self.state.config.retain.age.is_none() {
            return Ok(());
        }
        let gone = self.shed(order)?;
        match self.standing()?.ledger.newest().map(|kept| kept.version.generation) {
            Some(newest) if !gone.is_empty() => {
                self.serve()?;
                self.remove(&gone, newest)
            }
            _ => Ok(()),
        }
    }
}
