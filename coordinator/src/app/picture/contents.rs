//! What the trees hold: newest generations, the offers between them, and holds.

use std::collections::{HashMap, HashSet};

use protocol::{
    digest::Digest,
    dsse::Envelope,
    name::{SiteName, TreeName},
    v1::publisher::Approval,
};

use super::DEPTH;
use crate::db::{StoredGeneration, StoredHold, StoredOffer};

/// Most offers that one order carries for a tree.
const MAX_OFFERS: usize = 64;

/// The content of every tree.
#[derive(Debug, Default)]
pub struct Contents {
    trees: HashMap<TreeName, TreeContents>,
    none: TreeContents,
}

/// The content of one tree.
#[derive(Debug, Default)]
pub struct TreeContents {
    /// The newest generations, the current one first.
    pub generations: Vec<StoredGeneration>,
    /// Offers that lead to one of them.
    pub offers: Vec<StoredOffer>,
    /// What guards stopped, the newest first.
    pub holds: Vec<StoredHold>,
}

impl Contents {
    /// From what is stored: the newest generation of a tree first.
    pub fn new(
        generations: Vec<StoredGeneration>,
        offers: Vec<StoredOffer>,
        holds: Vec<StoredHold>,
    ) -> Self {
        let mut contents = Self::default();
        for generation in generations {
            contents.entry(&generation.tree).generations.push(generation);
        }
        for offer in offers {
            contents.entry(&offer.tree).offers.push(offer);
        }
        for hold in holds {
            contents.entry(&hold.tree).holds.push(hold);
        }
        contents
    }

    /// The content of one tree; empty for a tree that has none yet.
    pub fn tree(&self, name: &TreeName) -> &TreeContents {
        self.trees.get(name).unwrap_or(&self.none)
    }

    /// Every tree that has content or holds.
    pub fn trees(&self) -> impl Iterator<Item = (&TreeName, &TreeContents)> {
        self.trees.iter()
    }

    fn entry(&mut self, tree: &TreeName) -> &mut TreeContents {
        self.trees.entry(tree.clone()).or_default()
    }
}

impl TreeContents {
    /// The current generation.
    pub fn current(&self) -> Option<&StoredGeneration> {
        self.generations.first()
    }

    /// The offers that lead to the current generation, directly or in up to eight steps: the
    /// nearest first.
    pub fn offers_to_current(&self) -> Vec<Envelope> {
        let mut found = Vec::new();
        let mut wanted: Vec<&Digest> = self.current().map(|c| &c.manifest).into_iter().collect();
        let mut visited: HashSet<&Digest> = wanted.iter().copied().collect();
        for _ in 1..DEPTH {
            let mut step: Vec<_> =
                self.offers.iter().filter(|offer| wanted.contains(&&offer.to)).collect();
            // Content may return to what it was; a circle leads nowhere.
            step.retain(|offer| offer.from.as_ref().is_none_or(|from| !visited.contains(from)));
            found.extend(step.iter().map(|offer| offer.offer.clone()));
            wanted = step.iter().filter_map(|offer| offer.from.as_ref()).collect();
            wanted.retain(|digest| visited.insert(digest));
            if wanted.is_empty() || found.len() >= MAX_OFFERS {
                break;
            }
        }
        found.truncate(MAX_OFFERS);
        found
    }

    /// Manifests that an admin approved although a guard stopped them: the publisher's, or that of
    /// the agent of a site.
    pub fn approvals(&self, site: Option<&SiteName>) -> Vec<Approval> {
        let approval = |hold: &StoredHold| match &hold.decision {
            Some((true, by, _)) => {
                Some(Approval { manifest: hold.report.manifest, by: by.clone() })
            }
            _ => None,
        };
        self.holds.iter().filter(|hold| hold.site.as_ref() == site).filter_map(approval).collect()
    }

    /// What the publisher held and an admin rejected.
    pub fn rejections(&self) -> Vec<Digest> {
        let is_rejected =
            |hold: &&StoredHold| hold.site.is_none() && matches!(hold.decision, Some((false, ..)));
        self.holds.iter().filter(is_rejected).map(|hold| hold.report.manifest).collect()
    }

    /// The publisher's hold of that manifest.
    pub fn hold(&self, manifest: &Digest) -> Option<&StoredHold> {
        let of_publisher = self.holds.iter().filter(|hold| hold.site.is_none());
        of_publisher.into_iter().find(|hold| hold.report.manifest == *manifest)
    }
}
