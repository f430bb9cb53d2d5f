//! What is kept of the past, and what goes.
//!
//! The content of the newest generations is kept, as bases of packs, for direct rsync and for
//! agents that are behind. Manifests are kept for a day longer, because the guard compares with
//! yesterday. Packs live as long as the content that they lead to.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};
use protocol::{digest::Digest, generation::Version, name::TreeName};

use crate::{
    generate::{self, Places},
    ledger::{Kept, Ledger},
    points::{Kind, Object},
};

/// How long manifests are kept at least.
const MANIFESTS: SignedDuration = SignedDuration::from_hours(25);

/// Generations whose content goes, oldest first, if the newest `keep` stay.
pub fn surplus(generations: &[Kept], keep: u32) -> Vec<Version> {
    let with_content: Vec<&Kept> = generations.iter().filter(|kept| kept.content).collect();
    let surplus = with_content.len().saturating_sub(keep as usize);
    with_content[..surplus].iter().map(|kept| kept.version).collect()
}

/// Generations that are forgotten: without content, and replaced long enough ago.
pub fn forgotten(generations: &[Kept], now: Timestamp) -> Vec<Version> {
    let replaced = generations.iter().zip(generations.iter().skip(1));
    let old = |next: &Kept| now.duration_since(next.announced) > MANIFESTS;
    replaced
        .filter(|(kept, next)| !kept.content && old(next))
        .map(|(kept, _)| kept.version)
        .collect()
}

/// Removes from every point what no kept generation needs. Blocks.
pub fn collect(places: &Places, tree: &TreeName, ledger: &Ledger) -> Result<(), generate::Error> {
    let mut needed: HashSet<(Kind, Digest)> = HashSet::new();
    for kept in &ledger.generations {
        needed.insert((Kind::Manifest, kept.manifest));
        let list = places.load_list(tree, &kept.manifest, kept.manifest_length)?;
        needed.extend(list.blocks().iter().map(|block| (Kind::Block, block.digest)));
    }
    needed.extend(ledger.offers.iter().map(|kept| (Kind::Pack, kept.offer.pack)));
    for point in places.all() {
        for kind in Kind::ALL {
            let names = match point.list(tree, kind) {
                Ok(names) => names,
                Err(error) => {
                    tracing::warn!(%tree, point = point.describe(), %error, "cannot be tidied");
                    continue;
                }
            };
            for name in names {
                let object = Object { tree: tree.clone(), kind, name };
                if !needed.contains(&(kind, name))
                    && let Err(error) = point.remove(&object)
                {
                    tracing::warn!(%object, point = point.describe(), %error, "cannot be removed");
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use protocol::{
        dsse::{Bytes, Envelope},
        generation::{Epoch, Generation},
    };

    use super::*;

    fn kept(generation: u64, hour: i64, content: bool) -> Kept {
        Kept {
            version: Version { epoch: Epoch(1), generation: Generation(generation) },
            manifest: Digest::of(&generation.to_le_bytes()),
            manifest_length: 0,
            statement: Envelope {
                payload_type: String::new(),
                payload: Bytes::default(),
                signatures: vec![],
            },
            announced: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hour),
            root: None,
            content,
            shared: false,
        }
    }

    fn numbers(versions: &[Version]) -> Vec<u64> {
        versions.iter().map(|version| version.generation.0).collect()
    }

    #[test]
    fn the_oldest_content_goes_first_and_the_newest_stays() {
        let all: Vec<Kept> = (1..=6).map(|n| kept(n, 0, n > 1)).collect();
        assert_eq!(numbers(&surplus(&all, 3)), [2, 3]);
        assert_eq!(numbers(&surplus(&all, 5)), [0; 0]);
    }

    #[test]
    fn a_manifest_outlives_its_replacement_by_a_day() {
        let all = [kept(1, 0, false), kept(2, 10, false), kept(3, 30, false), kept(4, 31, true)];
        let at = |hour| Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hour);
        assert_eq!(numbers(&forgotten(&all, at(31))), [0; 0]);
        assert_eq!(numbers(&forgotten(&all, at(36))), [1]);
        assert_eq!(numbers(&forgotten(&all, at(1000))), [1, 2, 3], "the newest is never forgotten");
    }
}
