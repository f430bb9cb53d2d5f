//! What the server is told to serve of a tree, and what a restart finds of it.

use std::{collections::HashSet, sync::Arc};

use protocol::{digest::Digest, generation::Generation};

use super::{Error, worker::Worker};
use crate::{
    catalog::{Served, ServedTree},
    ledger::{Kept, KeptOffer, Sent},
    points::{Kind, Point as _},
};

impl Worker {
    /// Tells the server which generations it may serve.
    pub(super) fn serve(&mut self) -> Result<(), Error> {
        self.serve_also(None)
    }

    /// Has the server serve a generation that is about to be announced, too.
    pub(super) fn serve_next(&mut self, next: &Kept, packs: &[KeptOffer]) -> Result<(), Error> {
        let list = self.state.places.load_list(&self.tree, &next.manifest, next.manifest_length)?;
        let next = Served {
            generation: next.version.generation,
            manifest: next.manifest,
            list: Arc::new(list),
            shared: next.shared,
        };
        self.serve_also(Some((next, packs)))
    }

    /// Tells the server which generations it may serve, and the one that is about to be announced.
    fn serve_also(&mut self, next: Option<(Served, &[KeptOffer])>) -> Result<(), Error> {
        let state = Arc::clone(&self.state);
        let tree = self.tree.clone();
        let limit = self.order().map(|(order, _)| order.limit).unwrap_or_default();
        let mut generations = Vec::new();
        for kept in self.standing()?.ledger.generations.iter().filter(|kept| kept.content) {
            let list = state.places.load_list(&tree, &kept.manifest, kept.manifest_length)?;
            generations.push(Served {
                generation: kept.version.generation,
                manifest: kept.manifest,
                list: Arc::new(list),
                shared: kept.shared,
            });
        }
        let there: HashSet<Digest> =
            state.places.origin.list(&tree, Kind::Object)?.into_iter().collect();
        let shared = |packs: &[KeptOffer]| -> Vec<Digest> {
            packs.iter().flat_map(|kept| &kept.shared).map(|object| object.name).collect()
        };
        let standing = self.standing()?;
        standing.announced_objects.extend(shared(&standing.ledger.offers));
        standing.announced_objects.retain(|object| there.contains(object));
        let mut objects = standing.announced_objects.clone();
        if let Some((next, packs)) = next {
            generations.retain(|served| served.generation != next.generation);
            generations.push(next);
            objects.extend(shared(packs));
        }
        let untold = standing.ledger.untold().count() as u64;
        state.catalog.set(tree, ServedTree { generations, limit, objects, untold });
        Ok(())
    }

    /// After a restart: private trees that someone removed are not served; those that nobody
    /// announced are removed, and so is what a crash left unfinished.
    pub(super) fn tidy(&mut self) -> Result<(), Error> {
        let state = Arc::clone(&self.state);
        let tree = self.tree.clone();
        state.places.origin.remove_unfinished(&tree)?;
        let there = state.views.generations(&tree)?;
        let ledger = &mut self.standing()?.ledger;
        if let Some(held) = &ledger.held
            && held.content.is_some_and(|content| !there.contains(&content.generation))
        {
            ledger.held = None;
        }
        for kept in &mut ledger.generations {
            kept.content &= there.contains(&kept.version.generation);
        }
        let gone = |sent: &mut Sent| !there.contains(&sent.kept.version.generation);
        if let Some(sent) = ledger.sent.take_if(gone) {
            // It cannot be served any more, and may have been announced.
            self.set_aside(Kept { content: false, ..sent.kept })?;
        }
        let ledger = &mut self.standing()?.ledger;
        let known: Vec<Generation> = ledger
            .generations
            .iter()
            .filter(|kept| kept.content)
            .map(|kept| kept.version.generation)
            .chain(ledger.held.as_ref().and_then(|held| held.content).map(|c| c.generation))
            .chain(ledger.sent.as_ref().map(|sent| sent.kept.version.generation))
            .collect();
        for generation in there.into_iter().filter(|generation| !known.contains(generation)) {
            state.views.remove(&tree, generation)?;
        }
        Ok(())
    }
}
