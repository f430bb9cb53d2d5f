//! One attempt: from what is there to what is announced.

use std::{collections::HashSet, path::Path, sync::Arc};

use certs::signing;
use filetree::{
    fs::Dir,
    scan::{Scan, ScanRecord},
};
use jiff::{SignedDuration, Timestamp};
use protocol::{
    digest::Digest,
    dsse::Envelope,
    filter::{Filter, Level, Origin, Side, Walk},
    generation::{Generation, Version},
    manifest::{Manifest, StoredManifest},
    path::TreePath,
    statement::{Basis, Claim, GuardVerdict, Parent, Statement},
    v1::publisher::TreeOrder,
};

use super::{
    Error, Outcome,
    hold::{Seen, is_approved},
    read_statement,
    worker::{Known, Worker},
};
use crate::{
    config::RetainMode,
    generate::Stored,
    guard::{self, Figures, Reason, Step, Verdict},
    ledger::{self, Kept, KeptOffer, Ledger, Sent},
    points::Kind,
    settle::{self, Look},
    view::{self, View},
};

/// How often an attempt starts over because the tree or its history moved on.
const STARTS: u32 = 4;

/// What a worker knows of its tree.
pub(super) struct Standing {
    pub(super) dir: Dir,
    pub(super) ledger: Ledger,
    /// A private tree that was made for a generation that is not announced yet.
    pub(super) prepared: Option<Prepared>,
    /// Packs that were made for it.
    pub(super) packs: Option<PreparedPacks>,
    /// The coordinator may list a hold that is over.
    pub(super) hold_may_stand: bool,
    /// The coordinator was told of what is held since this process began.
    pub(super) hold_told: bool,
    /// Shared objects that announced generations referred to since this process began: who plans a
    /// transfer may still come for them when the pack that named them is no longer offered.
    pub(super) announced_objects: HashSet<Digest>,
    /// Content could mostly be neither shared with the source nor linked to it.
    pub(super) copies: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prepared {
    pub(super) generation: Generation,
    pub(super) manifest: Digest,
    pub(super) shared: bool,
}

#[derive(Debug, Clone)]
pub(super) struct PreparedPacks {
    from: Option<Digest>,
    to: Digest,
    packs: Vec<KeptOffer>,
}

/// Whether the oldest private tree may be made into the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spare {
    Use,
    /// What is only held must not cost a generation that agents may still ask for.
    Keep,
}

/// What a new generation would replace.
pub(super) struct Base {
    pub(super) statement: Statement,
    envelope: Envelope,
}

/// Why an attempt does not simply end.
pub(super) enum Progress {
    Done(Outcome),
    /// The tree or its history moved on.
    Again,
}

impl Standing {
    fn load(dir: Dir) -> std::io::Result<Self> {
        let ledger = Ledger::load(&dir)?;
        let copies = ledger.newest().is_some_and(|kept| kept.copied);
        Ok(Self {
            dir,
            ledger,
            prepared: None,
            packs: None,
            hold_may_stand: true,
            hold_told: false,
            announced_objects: HashSet::new(),
            copies,
        })
    }

    /// Whether orders ask for something that cannot wait for the interval.
    pub(super) fn is_wanted(&self, order: &TreeOrder) -> bool {
        let approved = self.ledger.held.as_ref().is_some_and(|held| is_approved(order, held));
        let current = order.current.as_ref().map(Envelope::payload_digest);
        let ours = self.ledger.newest().map(|kept| kept.statement.payload_digest());
        order.publish_requests > self.ledger.publish_requests
            || approved
            || (current.is_some() && current != ours)
            || super::packs::wanted(&self.ledger, order).is_some()
    }

    /// The announced generation that has a private tree and is the newest.
    fn newest_view(&self) -> Option<&Kept> {
        self.ledger.generations.iter().rev().find(|kept| kept.content)
    }
}

impl Worker {
    /// Compares what is announced with what is there, and moves one step.
    pub(super) fn attempt(&mut self) -> Result<Outcome, Error> {
        if self.standing.is_none() {
            self.standing = Some(Standing::load(self.state.tree_dir(&self.tree)?)?);
            self.tidy()?;
            self.serve()?;
        }
        for _ in 0..STARTS {
            let (mut order, known) = self.order()?;
            self.find_alone(&mut order)?;
            if self.alone.is_none() && self.tell_behind(&order, known)? {
                continue;
            }
            let progress = match self.conclude_sent(&order)? {
                Some(progress) => progress,
                None => self.start(&order, known)?,
            };
            match progress {
                Progress::Done(outcome) => {
                    let standing = self.standing()?;
                    if order.publish_requests > standing.ledger.publish_requests {
                        standing.ledger.publish_requests = order.publish_requests;
                        standing.ledger.save(&standing.dir)?;
                    }
                    self.announce_offers();
                    if let Err(error) = self.make_wanted_packs(&order) {
                        let error = crate::state::error_chain(&error);
                        tracing::warn!(tree = %self.tree, error, "no further pack is made");
                    }
                    if let Err(error) = self.catch_up() {
                        let error = crate::state::error_chain(&error);
                        tracing::warn!(tree = %self.tree, error, "publication points are not tidied");
                    }
                    return Ok(outcome);
                }
                Progress::Again => {}
            }
        }
        Err(Error::Moving)
    }

    pub(super) fn standing(&mut self) -> Result<&mut Standing, Error> {
        self.standing.as_mut().ok_or(Error::Stopping)
    }

    fn start(&mut self, order: &TreeOrder, known: Known) -> Result<Progress, Error> {
        let base = self.base(order, known)?;
        self.check_alone(order, base.as_ref())?;
        let (_, above) = self.next_number(order, base.as_ref());
        if let Some(progress) = self.publish_approved(order, base.as_ref())? {
            return Ok(progress);
        }
        let scan = match self.scan(order, base.as_ref()) {
            Ok(scan) => scan,
            Err(Error::Settle(error @ settle::Error::Root { .. })) => {
                let reason = Reason::NoRoot(crate::state::error_chain(&error));
                return self.stopped(order, reason).map(Progress::Done);
            }
            Err(Error::Settle(settle::Error::Unreadable { reason, record })) => {
                self.keep_record(&record)?;
                return self.stopped(order, Reason::Unreadable(reason)).map(Progress::Done);
            }
            Err(error) => return Err(error),
        };
        for left_out in scan.left_out.iter().take(20) {
            tracing::info!(tree = %self.tree, path = %left_out.path, why = left_out.why, "left out");
        }
        let digest = scan.manifest.digest();
        self.keep_record(&scan.record)?;
        let Scan { manifest: scanned, root, record, .. } = scan;
        drop(record);
        if let Some(base) = &base
            && (base.statement.manifest, base.statement.epoch) == (digest, order.epoch)
            // What sites may have followed instead has to be outnumbered, be it by the same content.
            && above.is_none()
        {
            self.adopt(order, base, &scanned)?;
            self.expire(order)?;
            self.note_root(&base.statement.manifest, root)?;
            self.end_hold()?;
            let generation = base.statement.generation.0;
            return Ok(Progress::Done(Outcome::Unchanged { generation }));
        }
        let verdict = match self.judge(order, base.as_ref(), &scanned, digest, root)? {
            Verdict::Pass(verdict) => verdict,
            Verdict::Hold(stop) => {
                let seen = Seen { scanned: &scanned, root };
                return self
                    .hold(order, base.as_ref(), digest, &stop, Some(seen))
                    .map(Progress::Done);
            }
        };
        if self.alone.is_some() && order.rejected.contains(&digest) {
            let (reason, manifest) =
                ("an admin has rejected exactly this".into(), digest.to_string());
            return Ok(Progress::Done(Outcome::Held { reason, manifest }));
        }
        let step = self.publish(order, base.as_ref(), &scanned, verdict, root);
        match step {
            Err(Error::View(view::Error::Moved { path })) => {
                tracing::info!(tree = %self.tree, %path, "changed after the scan; taken again");
                self.standing()?.prepared = None;
                Ok(Progress::Again)
            }
            other => other,
        }
    }

    /// What the coordinator calls current; our own newest, until it has heard of that, and while it
    /// cannot be asked: then orders may be older than what it last took.
    fn base(&mut self, order: &TreeOrder, known: Known) -> Result<Option<Base>, Error> {
        let accepted = self.accepted;
        let is_alone = self.alone.is_some();
        let newest = self.standing()?.ledger.newest().map(|kept| kept.statement.clone());
        let read = |envelope: Option<Envelope>| {
            let read =
                |envelope| Ok(Base { statement: read_statement(&self.tree, &envelope)?, envelope });
            envelope.map(read).transpose()
        };
        if known < accepted {
            return read(newest);
        }
        let current = read(order.current.clone())?;
        if !is_alone {
            return Ok(current);
        }
        let version = |base: &Base| (base.statement.epoch, base.statement.generation);
        let newest = read(newest)?;
        Ok(match (newest, current) {
            (Some(newest), Some(current)) if version(&newest) <= version(&current) => Some(current),
            (newest, current) => newest.or(current),
        })
    }

    fn scan(&mut self, order: &TreeOrder, base: Option<&Base>) -> Result<Scan, Error> {
        let limit = limit(order)?;
        let rule_files = limit.asks_for_rule_files().then(|| Walk::new(&limit, Side::Sender));
        let keep = move |path: &TreePath, is_dir: bool| limit.decide(path, is_dir).kept;
        let state = Arc::clone(&self.state);
        let cancel = Arc::clone(&self.cancel);
        let root = Path::new(&order.path);
        let neighbor = self.handle.block_on(state.hub.neighbor(root));
        self.taken = neighbor.as_ref().map(|neighbor| neighbor.tree.manifest);
        let handle = self.handle.clone();
        let is_whole = || {
            let still = |tree| handle.block_on(state.hub.still_has(root, tree));
            neighbor.as_ref().is_some_and(|neighbor| still(&neighbor.tree))
        };
        let look = Look {
            fs: &state.fs,
            root,
            keep: &keep,
            symlinks: order.symlinks,
            rule_files: rule_files.as_ref(),
            announced: base.map(|base| base.statement.manifest),
            vouched: neighbor.as_ref().map(|neighbor| &neighbor.manifest),
            is_whole: &is_whole,
            quiet: state.config.settle.duration(),
            now: &*state.clock,
            progress: &|_| {},
            cancel: &cancel,
        };
        // Only a scan needs it, and of a large tree it is large.
        let earlier = ledger::load_scan(&self.standing()?.dir);
        Ok(settle::take(&look, earlier)?)
    }

    fn keep_record(&mut self, record: &ScanRecord) -> Result<(), Error> {
        Ok(ledger::save_scan(&self.standing()?.dir, record)?)
    }

    pub(super) fn judge(
        &mut self,
        order: &TreeOrder,
        base: Option<&Base>,
        scanned: &Manifest,
        manifest: Digest,
        root_now: filetree::fs::FileId,
    ) -> Result<Verdict, Error> {
        let now = self.state.now();
        let places = self.state.places.clone();
        let tree = self.tree.clone();
        let ledger = &self.standing()?.ledger;
        let known = base.and_then(|base| ledger.with_manifest(&base.statement.manifest));
        let load =
            |kept: &Kept| places.stored_manifest(&tree, &kept.manifest, kept.manifest_length);
        let announced = known.map(load).transpose()?;
        let a_day = SignedDuration::from_hours(24);
        let yesterday = now.checked_sub(a_day).unwrap_or(Timestamp::MIN);
        let a_day_ago = ledger.current_at(yesterday);
        let a_day_ago =
            a_day_ago.filter(|kept| Some(kept.version) != known.map(|kept| kept.version));
        let a_day_ago = a_day_ago.map(load).transpose()?;
        Ok(guard::judge(&Step {
            spec: &order.guard,
            announced: announced.as_ref().map(|known| known as _),
            figures: base.map(|base| Figures {
                entries: base.statement.entries,
                bytes: base.statement.bytes,
            }),
            a_day_ago: a_day_ago.as_ref().map(|known| known as _),
            scanned,
            manifest,
            // An agent exchanges its tree's directory at each switch, and vouches for what lies there.
            root_before: known.and_then(|kept| kept.root).filter(|_| self.taken.is_none()),
            root_now,
            approved: &order.approved,
        })?)
    }

    /// Retains, generates, verifies, and only then announces.
    pub(super) fn publish(
        &mut self,
        order: &TreeOrder,
        base: Option<&Base>,
        target: &Manifest,
        guard: GuardVerdict,
        root: filetree::fs::FileId,
    ) -> Result<Progress, Error> {
        let same_epoch = base.filter(|base| base.statement.epoch == order.epoch);
        let parent = same_epoch.map(|base| Parent {
            generation: base.statement.generation,
            manifest: base.statement.manifest,
        });
        let (generation, above) = self.next_number(order, base);
        let shared = self.retain(order, generation, target, Spare::Use)?;
        let packs = self.prepare_packs(order, base, (generation, shared), target)?;
        let Stored { manifest, length } = self.state.places.store_manifest(&self.tree, target)?;
        let target_list = self.state.places.load_list(&self.tree, &manifest, length)?;
        let mut new: Vec<_> = packs.iter().flat_map(KeptOffer::objects).collect();
        new.extend(target_list.blocks().iter().map(|block| (Kind::Block, block.digest)));
        new.push((Kind::Manifest, manifest));
        self.carry(&new, Some(Version { epoch: order.epoch, generation }))?;
        let now = self.state.now();
        let lifetime = SignedDuration::try_from(self.state.config.statement_lifetime.duration())
            .unwrap_or(SignedDuration::MAX);
        let statement = Statement {
            tree: self.tree.clone(),
            epoch: order.epoch,
            generation,
            manifest,
            manifest_length: length,
            entries: target.entries().len() as u64,
            bytes: target.content_bytes(),
            parent,
            guard,
            created: now,
            expires: now.checked_add(lifetime).unwrap_or(Timestamp::MAX),
            basis: order.rules.filter(|_| order.autonomous || above.is_some()).map(|rules| Basis {
                rules,
                alone: self.alone,
                above,
            }),
        };
        let identity = self.state.identity.current();
        let envelope =
            signing::sign_json(&identity.signing_key, Statement::PAYLOAD_TYPE, &statement)?;
        let kept = Kept {
            root: Some(root),
            content: true,
            shared,
            signed: self.is_signed(shared),
            copied: self.standing()?.copies,
            ..Kept::new(&statement, envelope, now)
        };
        if order.autonomous {
            let standing = self.standing()?;
            standing.ledger.sent = Some(Sent { kept: kept.clone(), packs: packs.clone() });
            standing.ledger.save(&standing.dir)?;
        }
        self.conclude(order, kept, packs)
    }

    /// Makes the packs of a generation, unless an earlier attempt has made them.
    fn prepare_packs(
        &mut self,
        order: &TreeOrder,
        base: Option<&Base>,
        (generation, shared): (Generation, bool),
        target: &Manifest,
    ) -> Result<Vec<KeptOffer>, Error> {
        let (from, to) = (base.map(|base| base.statement.manifest), target.digest());
        let standing = self.standing()?;
        if let Some(made) = &standing.packs
            && (made.from, made.to) == (from, to)
        {
            return Ok(made.packs.clone());
        }
        standing.packs = None;
        let packs = self.make_packs(order, base, generation, shared, target)?;
        self.standing()?.packs = Some(PreparedPacks { from, to, packs: packs.clone() });
        Ok(packs)
    }

    /// Makes the private tree of a generation, unless an earlier attempt has made it.
    pub(super) fn retain(
        &mut self,
        order: &TreeOrder,
        generation: Generation,
        target: &Manifest,
        use_spare: Spare,
    ) -> Result<bool, Error> {
        let state = Arc::clone(&self.state);
        let tree = self.tree.clone();
        let manifest = target.digest();
        let keep = self.content_generations();
        let standing = self.standing()?;
        if let Some(prepared) = standing.prepared
            && prepared.generation == generation
            && prepared.manifest == manifest
        {
            return Ok(prepared.shared);
        }
        standing.prepared = None;
        let newest = standing.newest_view().cloned();
        let with_content = standing.ledger.generations.iter().filter(|kept| kept.content).count();
        // Advancing what would go anyhow is cheaper than a new tree of links.
        let spare = match use_spare == Spare::Use && with_content >= keep.max(2) {
            true => self.victim(order, &|kept| kept.content, keep.max(2) - 1)?,
            false => None,
        };
        let standing = self.standing()?;
        let spare = spare.and_then(|version| standing.ledger.kept(version).cloned());
        if let Some(spare) = &spare {
            // Before anything is done to it: a half advanced tree is not that generation.
            drop_content(&mut standing.ledger, spare.version);
            standing.ledger.save(&standing.dir)?;
            self.serve()?;
        }
        let load =
            |kept: &Kept| state.places.stored_manifest(&tree, &kept.manifest, kept.manifest_length);
        let newest_manifest = newest.as_ref().map(load).transpose()?;
        let spare_manifest = spare.as_ref().map(load).transpose()?;
        let newest_view = newest.as_ref().zip(newest_manifest.as_ref()).map(as_view);
        let spare_view = spare.as_ref().zip(spare_manifest.as_ref()).map(as_view);
        let source = state
            .fs
            .open_root(Path::new(&order.path))
            .map_err(|error| Error::View(error.into()))?;
        let view::Taken { shared, copied } =
            state.views.prepare(&tree, generation, target, &source, newest_view, spare_view)?;
        let standing = self.standing()?;
        let copies = copied.unwrap_or(standing.copies);
        if copies && !standing.copies && state.config.retain.mode == RetainMode::Auto {
            tracing::info!(
                %tree,
                "its files can neither be shared nor linked: of older generations only signatures \
                 are kept (retain.mode); a 'view' on the file system of the tree would keep them whole"
            );
        }
        standing.copies = copies;
        standing.prepared = Some(Prepared { generation, manifest, shared });
        Ok(shared)
    }

    /// Has what is announced, where this publisher has lost it or never had it.
    fn adopt(&mut self, order: &TreeOrder, base: &Base, manifest: &Manifest) -> Result<(), Error> {
        let standing = self.standing()?;
        let version =
            Version { epoch: base.statement.epoch, generation: base.statement.generation };
        let held = |kept: &Kept| {
            kept.version == version && kept.manifest == base.statement.manifest && kept.content
        };
        if let Some(newest) = standing.ledger.newest().filter(|kept| held(kept)) {
            if newest.statement == base.envelope {
                return Ok(());
            }
            // The coordinator had taken it from an earlier statement, whose answer was lost.
            let (statement, of) = (base.envelope.clone(), newest.version);
            for kept in standing.ledger.generations.iter_mut().filter(|kept| kept.version == of) {
                kept.statement.clone_from(&statement);
            }
            return Ok(standing.ledger.save(&standing.dir)?);
        }
        tracing::info!(tree = %self.tree, generation = %version, "taking up the announced generation");
        let shared = self.retain(order, version.generation, manifest, Spare::Use)?;
        self.state.places.store_manifest(&self.tree, manifest)?;
        let kept = Kept {
            content: true,
            shared,
            ..Kept::new(&base.statement, base.envelope.clone(), self.state.now())
        };
        self.announced(order, kept, Vec::new())
    }

    /// Writes down what was announced, serves it, moves the pointers, and tidies.
    pub(super) fn announced(
        &mut self,
        order: &TreeOrder,
        kept: Kept,
        packs: Vec<KeptOffer>,
    ) -> Result<(), Error> {
        let standing = self.standing()?;
        standing.prepared = None;
        standing.packs = None;
        // With a new generation the coordinator forgets what was held before it.
        standing.hold_may_stand = false;
        let ledger = &mut standing.ledger;
        ledger.held = None;
        ledger.sent = None;
        ledger.generations.retain(|other| other.version != kept.version);
        // Numbers start over with an epoch, and private trees are named by number.
        let number = kept.version.generation;
        for other in ledger.generations.iter_mut().filter(|o| o.version.generation == number) {
            other.content = false;
        }
        ledger.generations.push(kept);
        ledger.offers.extend(packs);
        ledger.publish_requests = ledger.publish_requests.max(order.publish_requests);
        ledger.save(&standing.dir)?;
        let gone = self.shed(order)?;
        self.serve()?;
        self.point_to_newest()?;
        self.announce_offers();
        self.remove(&gone, number)
    }
}

fn as_view<'a>((kept, manifest): (&'a Kept, &'a StoredManifest)) -> View<'a> {
    View { generation: kept.version.generation, manifest, shared: kept.shared }
}

pub(super) fn drop_content(ledger: &mut Ledger, version: Version) {
    for kept in ledger.generations.iter_mut().filter(|kept| kept.version == version) {
        kept.content = false;
    }
}

/// The tree's wall.
fn limit(order: &TreeOrder) -> Result<Filter, Error> {
    Ok(Filter::build(&[Level::rules(Origin::Limit, order.tree.as_str(), order.limit.clone())])?)
}
