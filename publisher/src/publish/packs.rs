//! Which packs are made, and the offers that announce them.

use protocol::{
    digest::Digest, generation::Generation, manifest::Manifest, v1::publisher::TreeOrder,
};

use super::{Error, attempt::Base, worker::Worker};
use crate::{
    ledger::{KeptOffer, Ledger},
    state::error_chain,
};

/// The base that agents hold most, from which no pack leads to the newest generation yet.
pub(super) fn wanted(ledger: &Ledger, order: &TreeOrder) -> Option<Digest> {
    let newest = ledger.newest()?;
    let offered = |from: &Digest| {
        ledger
            .offers
            .iter()
            .any(|kept| kept.offer.to == newest.manifest && kept.offer.from.as_ref() == Some(from))
    };
    let has_content = |from: &Digest| ledger.with_manifest(from).is_some_and(|kept| kept.content);
    order
        .held
        .iter()
        .map(|held| held.manifest)
        .find(|from| *from != newest.manifest && has_content(from) && !offered(from))
}

impl Worker {
    /// The packs that are announced together with a generation.
    pub(super) fn make_packs(
        &mut self,
        _order: &TreeOrder,
        _base: Option<&Base>,
        _generation: Generation,
        _shared: bool,
        _target: &Manifest,
    ) -> Result<Vec<KeptOffer>, Error> {
        Ok(Vec::new())
    }

    /// Makes one more pack, from what agents hold to the newest generation.
    pub(super) fn make_wanted_pack(&mut self, _order: &TreeOrder) {}

    /// Tells the coordinator of packs that it does not know yet; what fails is told again later.
    pub(super) fn announce_offers(&mut self) {
        let (client, handle, tree) =
            (self.state.client.clone(), self.handle.clone(), self.tree.clone());
        let Some(standing) = &mut self.standing else { return };
        let mut told = false;
        for kept in standing.ledger.offers.iter_mut().filter(|kept| !kept.announced) {
            match handle.block_on(client.announce_offer(&tree, &kept.envelope)) {
                Ok(_) => (kept.announced, told) = (true, true),
                Err(error) => {
                    let error = error_chain(&error);
                    tracing::warn!(%tree, pack = %kept.offer.pack, error, "the offer is not taken");
                    break;
                }
            }
        }
        if told && let Err(error) = standing.ledger.save(&standing.dir) {
            tracing::warn!(%tree, %error, "the offers cannot be kept on disk");
        }
    }
}
