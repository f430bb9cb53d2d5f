//! What the publisher knows about one of its trees, on disk.
//!
//! `DATA/trees/T/state.json` lists the generations that are kept; `DATA/trees/T/scan` is the last
//! scan. Both can be lost: numbers and parents come from the coordinator, and a lost scan only
//! means that everything is read once more.

use std::{collections::HashSet, io};

use filetree::{
    fs::{Dir, FileId},
    pack::write::SharedObject,
    scan::ScanRecord,
};
use jiff::Timestamp;
use protocol::{
    digest::Digest,
    dsse::Envelope,
    generation::{Epoch, Generation, Version},
    pack::JOINED_GAP_BYTES,
    statement::{Offer, Statement},
};
use serde::{Deserialize, Serialize};

use crate::{durable, points::Kind};

const STATE: &[u8] = b"state.json";
const SCAN: &[u8] = b"scan";
const MAX_STATE: u64 = 64 << 20;
const MAX_SCAN: u64 = 4 << 30;

/// One tree's generations and offers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Ledger {
    /// Announced generations that are kept, oldest first.
    #[serde(default)]
    pub generations: Vec<Kept>,
    /// Packs that are offered.
    #[serde(default)]
    pub offers: Vec<KeptOffer>,
    /// Packs that were tried and are no better than the chains that there are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_worth: Vec<NotWorth>,
    /// What a guard holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldScan>,
    /// What was signed and may have been sent, of a tree that may go on alone: unless the coordinator
    /// said no, nothing else may ever have its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Sent>,
    /// The newest request to publish that was carried out.
    #[serde(default)]
    pub publish_requests: u64,
}

/// A pack that is not offered, because others lead there for less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NotWorth {
    /// Manifest that it would start from.
    pub from: Digest,
    /// Manifest that it would lead to.
    pub to: Digest,
}

/// A generation that is signed and of which it is not known yet whether the coordinator has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Sent {
    /// The generation.
    pub kept: Kept,
    /// The packs that were made for it.
    pub packs: Vec<KeptOffer>,
}

/// What the coordinator makes of a generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It is part of the tree's history.
    #[default]
    Taken,
    /// It was pointed to while the coordinator could not be reached, and is told when it is back.
    Untold,
    /// It did not take it. Sites may hold it, so packs lead on from it; its number is used up.
    Refused,
}

impl Fate {
    fn is_taken(&self) -> bool {
        *self == Self::Taken
    }
}

/// An announced generation that is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Kept {
    /// Its place in the tree's history.
    pub version: Version,
    /// Its manifest.
    pub manifest: Digest,
    /// Length of the manifest's encoded block list, in bytes.
    pub manifest_length: u64,
    /// The signed statement.
    pub statement: Envelope,
    /// When it was announced.
    pub announced: Timestamp,
    /// What the coordinator makes of it.
    #[serde(default, skip_serializing_if = "Fate::is_taken")]
    pub fate: Fate,
    /// The tree's root directory when it was scanned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<FileId>,
    /// Whether its private tree is there.
    pub content: bool,
    /// Whether the private tree shares content with the source.
    pub shared: bool,
    /// Whether signatures of its files are kept.
    #[serde(default)]
    pub signed: bool,
    /// Whether its content could mostly be neither shared with the source nor linked to it.
    #[serde(default)]
    pub copied: bool,
}

/// A scan that a guard stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HeldScan {
    /// Its manifest; named by the reason where nothing could be seen whole.
    pub manifest: Digest,
    /// Why, as it was reported.
    pub reason: String,
    /// Its content, kept so that exactly this can be published once an admin approves it, whatever
    /// the source has become by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<HeldContent>,
    /// Whether it was held while the coordinator could not be told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untold: bool,
}

/// Retained content of a held scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HeldContent {
    /// The generation that it would become; its private tree has that name.
    pub generation: Generation,
    /// Length of the manifest's encoded block list, in bytes.
    pub manifest_length: u64,
    /// Whether the private tree shares content with the source.
    pub shared: bool,
    /// The tree's root directory when it was scanned.
    pub root: FileId,
}

/// A pack that is offered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KeptOffer {
    /// What it says.
    pub offer: Offer,
    /// The same, signed.
    pub envelope: Envelope,
    /// Whether the coordinator has it.
    pub announced: bool,
    /// The objects besides the pack that have frames of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<SharedObject>,
}

impl Ledger {
    /// Reads a tree's ledger; an empty one where there is none.
    pub fn load(dir: &Dir) -> io::Result<Self> {
        Ok(durable::read_json(dir, STATE, MAX_STATE)?.unwrap_or_default())
    }

    /// Writes it, durably.
    pub fn save(&self, dir: &Dir) -> io::Result<()> {
        durable::replace_json(dir, STATE, self)
    }

    /// The newest generation, of those that the coordinator did not refuse.
    pub fn newest(&self) -> Option<&Kept> {
        self.generations.iter().rev().find(|kept| kept.fate != Fate::Refused)
    }

    /// What the coordinator is to be told of, oldest first.
    pub fn untold(&self) -> impl Iterator<Item = &Kept> {
        self.generations.iter().filter(|kept| kept.fate == Fate::Untold)
    }

    /// What the coordinator took in an epoch and does not know any more, where it knows nothing after
    /// `current`; oldest first.
    pub fn forgotten(&self, epoch: Epoch, current: Option<Version>) -> impl Iterator<Item = &Kept> {
        self.generations.iter().filter(move |kept| {
            let is_known = current.is_some_and(|current| kept.version <= current);
            kept.fate == Fate::Taken && kept.version.epoch == epoch && !is_known
        })
    }

    /// Whether exactly this was refused by the coordinator.
    pub fn is_refused(&self, version: Version, manifest: &Digest) -> bool {
        let of = |kept: &&Kept| (kept.version, &kept.manifest) == (version, manifest);
        self.generations.iter().find(of).is_some_and(|kept| kept.fate == Fate::Refused)
    }

    /// The highest number of an epoch that was refused.
    pub fn refused(&self, epoch: Epoch) -> Option<Generation> {
        let refused = self.generations.iter().filter(|kept| kept.fate == Fate::Refused);
        refused.map(|kept| kept.version).filter(|v| v.epoch == epoch).map(|v| v.generation).max()
    }

    /// Gives up what the coordinator is not told of any more, from one generation on. It stays before
    /// all others: the last one is the newest.
    pub fn give_up(&mut self, from: Version) {
        let epoch = from.epoch;
        let later = |version: Version| version.epoch == epoch && version >= from;
        for kept in self.generations.iter_mut() {
            if kept.fate == Fate::Untold || later(kept.version) {
                kept.fate = Fate::Refused;
            }
        }
        self.generations.sort_by_key(|kept| kept.fate != Fate::Refused);
    }

    /// Offers that lead to the newest generation, directly or in several steps: the nearest first.
    pub fn offers_to_newest(&self, most: usize) -> Vec<&KeptOffer> {
        let mut found: Vec<&KeptOffer> = Vec::new();
        let mut wanted: Vec<Digest> = self.newest().map(|kept| kept.manifest).into_iter().collect();
        let mut visited: HashSet<Digest> = wanted.iter().copied().collect();
        for _ in 0..MAX_CHAIN {
            // Content may return to what it was; a circle leads nowhere.
            let leads = |kept: &&KeptOffer| {
                wanted.contains(&kept.offer.to)
                    && kept.offer.from.is_none_or(|from| !visited.contains(&from))
            };
            let step: Vec<_> = self.offers.iter().filter(leads).collect();
            wanted = step.iter().filter_map(|kept| kept.offer.from).collect();
            wanted.retain(|from| visited.insert(*from));
            found.extend(step);
            if wanted.is_empty() || found.len() >= most {
                break;
            }
        }
        found.truncate(most);
        found
    }

    /// The generation with this manifest, the newest if there are several.
    pub fn with_manifest(&self, manifest: &Digest) -> Option<&Kept> {
        self.generations.iter().rev().find(|kept| kept.manifest == *manifest)
    }

    /// The generation of this version.
    pub fn kept(&self, version: Version) -> Option<&Kept> {
        self.generations.iter().find(|kept| kept.version == version)
    }

    /// The generation with this number in the newest epoch.
    pub fn numbered(&self, generation: Generation) -> Option<&Kept> {
        let epoch = self.newest()?.version.epoch;
        self.generations.iter().find(|kept| kept.version == Version { epoch, generation })
    }

    /// What the cheapest chain of offers from one manifest to another costs: bytes, and what its
    /// requests cost; `None` where there is none.
    pub fn chain_bytes(&self, from: &Digest, to: &Digest) -> Option<u64> {
        let mut best = std::collections::HashMap::from([(*from, 0u64)]);
        for _ in 0..MAX_CHAIN {
            let known = best.clone();
            for KeptOffer { offer, .. } in &self.offers {
                let Some(cost) = offer.from.and_then(|from| known.get(&from)) else { continue };
                let cost = cost.saturating_add(fetch_bytes(offer.total_length()));
                let there = best.entry(offer.to).or_insert(cost);
                *there = cost.min(*there);
            }
        }
        best.get(to).copied()
    }

    /// What was current at a moment: the newest generation that was announced before it.
    pub fn current_at(&self, moment: Timestamp) -> Option<&Kept> {
        let was_current = |kept: &&Kept| kept.announced <= moment && kept.fate != Fate::Refused;
        self.generations.iter().rev().find(was_current)
    }
}

impl KeptOffer {
    /// What a point must have for agents to use the pack.
    pub fn objects(&self) -> impl Iterator<Item = (Kind, Digest)> {
        let shared = self.shared.iter().map(|object| (Kind::Object, object.name));
        shared.chain(std::iter::once((Kind::Pack, self.offer.pack)))
    }
}

/// Most packs that agents apply one after the other.
const MAX_CHAIN: usize = 8;

/// What an agent spends on a pack of this length: its bytes, and two requests.
pub fn fetch_bytes(length: u64) -> u64 {
    length.saturating_add(2 * JOINED_GAP_BYTES)
}

impl Kept {
    /// Takes a statement that was announced, or that the coordinator calls current.
    pub fn new(statement: &Statement, envelope: Envelope, announced: Timestamp) -> Self {
        Self {
            version: Version { epoch: statement.epoch, generation: statement.generation },
            manifest: statement.manifest,
            manifest_length: statement.manifest_length,
            statement: envelope,
            announced,
            fate: Fate::Taken,
            root: None,
            content: false,
            shared: false,
            signed: false,
            copied: false,
        }
    }
}

/// Reads the last scan; one that is missing or damaged knows nothing.
pub fn load_scan(dir: &Dir) -> ScanRecord {
    let bytes = match durable::read(dir, SCAN, MAX_SCAN) {
        Ok(bytes) => bytes,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(%error, "the last scan cannot be read; everything is read again");
            }
            return ScanRecord::empty();
        }
    };
    ScanRecord::from_bytes(bytes).unwrap_or_else(|error| {
        tracing::warn!(%error, "the last scan is not used; everything is read again");
        ScanRecord::empty()
    })
}

/// Writes the last scan, durably, unless it is what is there.
pub fn save_scan(dir: &Dir, record: &ScanRecord) -> io::Result<()> {
    if is_saved(dir, record).unwrap_or(false) {
        return Ok(());
    }
    durable::replace(dir, SCAN, &record.encode())
}

/// Whether the scan that is there has the same length and checksum: a tree in which nothing changes
/// is scanned again and again.
fn is_saved(dir: &Dir, record: &ScanRecord) -> Result<bool, filetree::fs::Error> {
    let file = dir.open_file(SCAN)?;
    let mut sum = [0; Digest::LEN];
    let at = file.meta()?.size.checked_sub(Digest::LEN as u64);
    let Some(at) = at.filter(|at| *at == record.encoded_len()) else { return Ok(false) };
    file.read_at(at, &mut sum)?;
    Ok(sum == *record.checksum().as_bytes())
}

#[cfg(test)]
mod tests;
