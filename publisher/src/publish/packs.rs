//! Which packs are made, and the offers that announce them.
//!
//! The pack from the generation before is made before a generation is announced, so that no agent
//! asks in vain; packs from what agents hold besides follow, most wanted first, once each. A pack
//! that cannot be made stops nothing: there are other ways for every file.

use std::{io, sync::Arc};

use certs::signing;
use filetree::{
    delta::ReadAt,
    pack::{
        self, BaseSource, ContentSource, NoBase,
        write::{MANY_AGENTS, PackOptions, PackSummary, write_pack},
    },
    signature::StoredSignature,
};
use protocol::{
    digest::Digest,
    generation::{Generation, Version},
    manifest::{Entry, Manifest},
    name::TreeName,
    path::TreePath,
    spec,
    statement::{Claim, Offer, PackFigures, PackFront},
    v1::publisher::TreeOrder,
};
use tracing::{info, warn};

use super::{Error, attempt::Base, classes::Classes, objects::Objects, worker::Worker};
use crate::{
    config::RetainMode,
    generate,
    ledger::{Kept, KeptOffer, Ledger, NotWorth, fetch_bytes},
    points::{self, Kind, Object},
    signatures::Signatures,
    state::{State, error_chain},
    view::{self, Files},
};

/// Most packs that are made after a generation, before the tree is looked at again.
const MOST_WANTED: usize = 4;

/// A pack that would help agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WantedPack {
    /// What they hold.
    from: Digest,
    /// What it costs them to come to the newest generation by packs that there are.
    chain_bytes: Option<u64>,
}

/// The base that weighs most among what agents hold and from which no pack leads to the newest
/// generation yet.
pub(super) fn wanted(ledger: &Ledger, order: &TreeOrder) -> Option<WantedPack> {
    let newest = ledger.newest()?.manifest;
    let offered = |from: &Digest| {
        let offers = &mut ledger.offers.iter().map(|kept| &kept.offer);
        offers.any(|offer| offer.to == newest && offer.from.as_ref() == Some(from))
    };
    let tried = |from: &Digest| ledger.not_worth.contains(&NotWorth { from: *from, to: newest });
    let is_base = |kept: &Kept| kept.content || kept.signed;
    let is_kept = |from: &Digest| ledger.with_manifest(from).is_some_and(is_base);
    let mut held = order.held.iter().map(|held| held.manifest);
    let from =
        held.find(|from| *from != newest && is_kept(from) && !offered(from) && !tried(from))?;
    Some(WantedPack { from, chain_bytes: ledger.chain_bytes(&from, &newest) })
}

/// Whether a squashed pack is so much cheaper than the chain that making, keeping and caching
/// another object is worth it.
fn is_worth(length: u64, chain_bytes: Option<u64>) -> bool {
    const WORTH_SHARE: f64 = 0.9;
    let worth = |chain: u64| (fetch_bytes(length) as f64) < chain as f64 * WORTH_SHARE;
    chain_bytes.is_none_or(worth)
}

/// The content of one private tree, as the source or the base of a pack.
struct Retained<'a> {
    /// `None` where the tree is gone.
    files: Option<Files<'a>>,
    signatures: Option<&'a Signatures>,
}

impl Retained<'_> {
    fn file(&self, entry: &Entry) -> Result<filetree::fs::File, view::Error> {
        let gone = || view::Error::Moved { path: entry.path.clone() };
        self.files.as_ref().ok_or_else(gone)?.open(entry)
    }
}

impl ContentSource for Retained<'_> {
    fn open(&self, entry: &Entry) -> io::Result<Box<dyn ReadAt>> {
        match self.file(entry) {
            Ok(file) => Ok(Box::new(file)),
            // To the writer of packs a file that is gone and one that changed are the same.
            Err(view::Error::Moved { .. }) => Err(io::ErrorKind::NotFound.into()),
            Err(view::Error::Fs(error)) => Err(error.source),
            Err(error @ view::Error::Manifest(_)) => Err(io::Error::other(error)),
        }
    }
}

impl BaseSource for Retained<'_> {
    fn content(&self, entry: &Entry) -> Option<Box<dyn ReadAt>> {
        Some(Box::new(self.file(entry).ok()?))
    }

    fn signature(&self, entry: &Entry) -> Option<StoredSignature> {
        self.signatures?.get(&entry.digest()?)
    }
}

impl Worker {
    /// The packs that are announced together with a generation.
    pub(super) fn make_packs(
        &mut self,
        order: &TreeOrder,
        base: Option<&Base>,
        generation: Generation,
        shared: bool,
        target: &Manifest,
    ) -> Result<Vec<KeptOffer>, Error> {
        let (to, (_, above)) = (target.digest(), self.next_number(order, base));
        let ledger = &self.standing()?.ledger;
        let base = base.and_then(|base| ledger.with_manifest(&base.statement.manifest));
        // Sites may have followed what the coordinator did not take.
        let refused = above.and_then(|above| {
            let of_number =
                |kept: &&Kept| kept.version == Version { epoch: order.epoch, generation: above };
            ledger.generations.iter().find(of_number).filter(|kept| kept.content || kept.signed)
        });
        let bases: Vec<Kept> =
            base.into_iter().chain(refused).filter(|from| from.manifest != to).cloned().collect();
        let mut packs = Vec::new();
        for from in &bases {
            packs.extend(self.pack(order, Some(from), (generation, shared), target, &packs)?);
        }
        if order.initial_pack {
            packs.extend(self.pack(order, None, (generation, shared), target, &packs)?);
        }
        if self.is_signed(shared) {
            self.store_signatures(generation, shared, target)?;
        }
        Ok(packs)
    }

    /// Whether signatures are kept of a generation: content may be lost, or will be dropped.
    pub(super) fn is_signed(&self, shared: bool) -> bool {
        match self.state.config.retain.mode {
            RetainMode::Signatures => true,
            RetainMode::Auto => shared || self.copies(),
            RetainMode::Content | RetainMode::HardLink => shared,
        }
    }

    /// Makes more packs, from what agents hold to the newest generation.
    pub(super) fn make_wanted_packs(&mut self, order: &TreeOrder) -> Result<(), Error> {
        for _ in 0..MOST_WANTED {
            let places = self.state.places.clone();
            let tree = self.tree.clone();
            let standing = self.standing()?;
            let Some(pack) = wanted(&standing.ledger, order) else { return Ok(()) };
            let from = standing.ledger.with_manifest(&pack.from).cloned();
            let Some(newest) = standing.ledger.newest().filter(|kept| kept.content).cloned() else {
                return Ok(());
            };
            let target = places.load_manifest(&tree, &newest.manifest, newest.manifest_length)?;
            let to = (newest.version.generation, newest.shared);
            let made = self.pack(order, from.as_ref(), to, &target, &[])?;
            let Some(made) = made else { return Ok(()) };
            if is_worth(made.offer.total_length(), pack.chain_bytes) {
                // Every point has it before anyone is offered it.
                self.carry(&made.objects().collect::<Vec<_>>(), Some(newest.version))?;
                let standing = self.standing()?;
                let ledger = &mut standing.ledger;
                ledger.offers.push(made);
                ledger.save(&standing.dir)?;
                self.serve()?;
                self.announce_offers();
                continue;
            }
            let (bytes, chain_bytes) = (made.offer.total_length(), pack.chain_bytes);
            info!(%tree, bytes, chain_bytes, "not offered: the packs that there are cost no more");
            let standing = self.standing()?;
            let ledger = &mut standing.ledger;
            ledger.not_worth.retain(|other| other.to == newest.manifest);
            ledger.not_worth.push(NotWorth { from: pack.from, to: newest.manifest });
            ledger.save(&standing.dir)?;
            let object = Object { tree: tree.clone(), kind: Kind::Pack, name: made.offer.pack };
            // Nobody was told of it, and no further point has it.
            if let Err(error) = points::Point::remove(&*places.origin, &object) {
                warn!(%object, %error, "cannot be removed");
            }
        }
        Ok(())
    }

    /// Makes one pack, stores it, and signs its offer; `None` when it cannot be made. What `others`,
    /// which were made a moment ago, have in objects of their own is not made again.
    fn pack(
        &mut self,
        order: &TreeOrder,
        from: Option<&Kept>,
        (generation, shared): (Generation, bool),
        target: &Manifest,
        others: &[KeptOffer],
    ) -> Result<Option<KeptOffer>, Error> {
        let state = Arc::clone(&self.state);
        let tree = self.tree.clone();
        let offers = self.standing()?.ledger.offers.clone();
        let objects = Objects::of(&state.places.origin, &tree, offers.iter().chain(others));
        let signatures = Signatures::open(&self.standing()?.dir)?;
        let load =
            |kept: &Kept| state.places.load_manifest(&tree, &kept.manifest, kept.manifest_length);
        let manifest = from.map(load).transpose()?;
        let files = |generation, shared| state.views.files(&tree, generation, shared);
        let old = from.map(|from| Retained {
            // What cannot be opened is no base; other ways lead to the same content.
            files: files(from.version.generation, from.shared).ok().flatten(),
            signatures: Some(&signatures),
        });
        let new = Retained { files: files(generation, shared)?, signatures: None };
        let classes = Classes::of(&order.filters, target);
        let class = |path: &TreePath| classes.of_path(path);
        let options = PackOptions {
            encoders: encoders(order.encoders),
            class: &class,
            shared: Some(&objects),
            level: state.config.level,
            memory: state.config.memory.0,
            turns: Some(&state.turns),
            cancel: &self.cancel,
            cpu_budget: state.config.pack_time.duration(),
            fan_out: fan_out(order, from),
            ..PackOptions::new()
        };
        let nothing = NoBase;
        let base: &dyn BaseSource = old.as_ref().map_or(&nothing, |old| old);
        let written = write(&state, &tree, manifest.as_ref(), base, target, &new, &options);
        let summary = match written {
            Ok(summary) => summary,
            Err(Error::Generate(generate::Error::Pack { source, .. })) => {
                return match source.downcast_ref::<pack::Error>() {
                    Some(pack::Error::Canceled) => Err(Error::Stopping),
                    Some(pack::Error::Changed { path }) => {
                        Err(Error::View(view::Error::Moved { path: path.clone() }))
                    }
                    _ => {
                        let error = error_chain(&*source);
                        warn!(%tree, error, "no pack is offered; agents take other ways");
                        Ok(None)
                    }
                };
            }
            Err(error) => return Err(error),
        };
        info!(
            %tree, from = from.map(|from| from.version.generation.0), to = generation.0,
            bytes = summary.length, shared_bytes = summary.shared_length(), "pack written"
        );
        let offer = Offer {
            shared_length: summary.shared_length(),
            tree: tree.clone(),
            from: summary.from,
            to: summary.to,
            pack: summary.digest,
            length: summary.length,
            index_length: summary.index_length,
            index: summary.index_digest,
            front: Some(PackFront { length: summary.front_length, digest: summary.front_digest }),
            encryption: order.private.then(|| certs::private::SCHEME.to_owned()),
            figures: Some(PackFigures {
                content_bytes: summary.content_bytes,
                rsync_bytes: summary.rsync_bytes,
                cpu_milliseconds: summary.cpu_milliseconds,
            }),
        };
        let identity = state.identity.current();
        let envelope = signing::sign_json(&identity.signing_key, Offer::PAYLOAD_TYPE, &offer)?;
        Ok(Some(KeptOffer { offer, envelope, announced: false, shared: summary.shared }))
    }

    /// Keeps signatures of what the source may change in place.
    fn store_signatures(
        &mut self,
        generation: Generation,
        shared: bool,
        target: &Manifest,
    ) -> Result<(), Error> {
        let state = Arc::clone(&self.state);
        let tree = self.tree.clone();
        let mut signatures = Signatures::open(&self.standing()?.dir)?;
        let files = state.views.files(&tree, generation, shared)?;
        let open = |entry: &Entry| files.as_ref()?.open(entry).ok();
        signatures.store(target, &open)?;
        Ok(())
    }

    /// Tells the coordinator of packs that it does not know yet; what fails is told again later.
    pub(super) fn announce_offers(&mut self) {
        if self.alone.is_some() {
            return;
        }
        let Some(mut standing) = self.standing.take() else { return };
        if self.tell_of(&mut standing.ledger.offers)
            && let Err(error) = standing.ledger.save(&standing.dir)
        {
            warn!(tree = %self.tree, %error, "the offers cannot be kept on disk");
        }
        self.standing = Some(standing);
    }

    /// Tells the coordinator of those packs that it does not know yet, and whether it took any.
    pub(super) fn tell_of(&self, packs: &mut [KeptOffer]) -> bool {
        let mut told = false;
        for kept in packs.iter_mut().filter(|kept| !kept.announced) {
            let announced = self.state.client.announce_offer(&self.tree, &kept.envelope);
            match self.handle.block_on(announced) {
                Ok(_) => (kept.announced, told) = (true, true),
                Err(error) => {
                    let error = error_chain(&error);
                    let pack = &kept.offer.pack;
                    warn!(tree = %self.tree, %pack, error, "the offer is not taken");
                    break;
                }
            }
        }
        told
    }
}

/// Writes a pack into the own store, and reads it back.
fn write(
    state: &State,
    tree: &TreeName,
    from: Option<&Manifest>,
    base: &dyn BaseSource,
    target: &Manifest,
    new: &dyn ContentSource,
    options: &PackOptions<'_>,
) -> Result<PackSummary, Error> {
    let failed = |source: pack::Error| generate::Error::Pack {
        tree: tree.clone(),
        source: Box::new(source),
    };
    let origin = &state.places.origin;
    let unfinished = origin.unfinished_name();
    let dir = origin.kind(tree, Kind::Pack)?;
    let path = dir.path().join(String::from_utf8_lossy(&unfinished).as_ref());
    let summary = write_pack(from, base, target, new, &path, options).map_err(failed)?;
    let object = Object { tree: tree.clone(), kind: Kind::Pack, name: summary.digest };
    origin.adopt(&object, &unfinished)?;
    if points::digest_of(&**origin, &object)? != summary.digest {
        points::Point::remove(&**origin, &object)?;
        return Err(generate::Error::Damaged { object: object.to_string() }.into());
    }
    Ok(summary)
}

/// How many agents will fetch a pack, as far as it is known: those that hold where it starts, and
/// whoever is new for a pack from nothing.
fn fan_out(order: &TreeOrder, from: Option<&Kept>) -> u64 {
    let agents = |manifest: &Digest| {
        order.held.iter().filter(|held| held.manifest == *manifest).map(|held| held.agents).sum()
    };
    match from.map(|from| agents(&from.manifest)) {
        None | Some(0) => MANY_AGENTS,
        Some(agents) => agents,
    }
}

fn encoders(choice: spec::EncoderChoice) -> filetree::delta::choose::EncoderChoice {
    use filetree::delta::choose::EncoderChoice;

    match choice {
        spec::EncoderChoice::Auto => EncoderChoice::Auto,
        spec::EncoderChoice::Rsync => EncoderChoice::Rsync,
        spec::EncoderChoice::Whole => EncoderChoice::Whole,
    }
}

#[cfg(test)]
mod tests;
