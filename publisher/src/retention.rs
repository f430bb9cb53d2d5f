//! What is kept of the past, and what goes.
//!
//! Older generations are kept as bases of packs, for direct rsync and for agents that are behind:
//! as content, or as signatures only. They go by number, by age and by bytes, and what no site
//! holds any more goes first, because nobody will ask for it. Manifests are kept for a day longer,
//! because the guard compares with yesterday. Packs live as long as the content that they lead to.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    time::Duration,
};

use filetree::fs::Dir;
use jiff::{SignedDuration, Timestamp};
use protocol::{
    digest::Digest,
    generation::{Epoch, Generation, Version},
    name::TreeName,
};
use serde::{Deserialize, Serialize};

use crate::{
    durable,
    generate::{self, Places},
    ledger::{Kept, Ledger},
    points::{self, Form, Kind, Object, Point},
    state::error_chain,
};

/// How long manifests are kept at least.
const MANIFESTS: SignedDuration = SignedDuration::from_hours(25);

/// One generation that is kept, as far as retention looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Which generation.
    pub version: Version,
    /// When the next one replaced it; `None` for the newest.
    pub replaced: Option<Timestamp>,
    /// Content bytes that sites keep of it, all together.
    pub held_bytes: u64,
    /// Content bytes that no other kept generation has.
    pub own_bytes: u64,
}

/// How much of the past may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most generations, the newest included.
    pub generations: usize,
    /// Longest time since a generation was replaced, unless sites hold it.
    pub age: Option<SignedDuration>,
    /// Most bytes of what was replaced.
    pub bytes: Option<u64>,
}

/// Which generation goes next; `None` when what is kept is within the limits. The newest never
/// goes.
pub fn victim(kept: &[Candidate], limits: &Limits, now: Timestamp) -> Option<Version> {
    let replaced = || kept.iter().filter(|candidate| candidate.replaced.is_some());
    let too_old = |candidate: &&Candidate| {
        let age = candidate.replaced.map(|replaced| now.duration_since(replaced));
        candidate.held_bytes == 0 && age.zip(limits.age).is_some_and(|(age, most)| age > most)
    };
    let by_need = |candidate: &&Candidate| (candidate.held_bytes, candidate.replaced);
    let too_many = kept.len() > limits.generations.max(1);
    let bytes = replaced().fold(0u64, |sum, candidate| sum.saturating_add(candidate.own_bytes));
    let too_large = limits.bytes.is_some_and(|most| bytes > most);
    let victim = if too_many || too_large {
        replaced().min_by_key(by_need)
    } else {
        replaced().filter(too_old).min_by_key(by_need)
    };
    victim.map(|candidate| candidate.version)
}

/// Generations of which nothing is kept for packs and that were replaced long enough ago.
pub fn forgotten(generations: &[Kept], now: Timestamp) -> Vec<Version> {
    let replaced = generations.iter().zip(generations.iter().skip(1));
    let old = |next: &Kept| now.duration_since(next.announced) > MANIFESTS;
    replaced
        .filter(|(kept, next)| !kept.content && !kept.signed && old(next))
        .map(|(kept, _)| kept.version)
        .collect()
}

/// An object that points should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needed {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: Digest,
    /// The first of the kept generations that needs it: by its key it is sealed where the tree is
    /// private, and stays so while later ones come.
    pub since: Version,
}

/// What the kept generations and the offered packs need, content before manifests. Blocks.
pub fn needed_in_order(
    places: &Places,
    tree: &TreeName,
    ledger: &Ledger,
) -> Result<Vec<Needed>, generate::Error> {
    let mut needed: BTreeMap<(Kind, Digest), Version> = BTreeMap::new();
    for kept in &ledger.generations {
        needed.entry((Kind::Manifest, kept.manifest)).or_insert(kept.version);
        let list = places.load_list(tree, &kept.manifest, kept.manifest_length)?;
        for block in list.blocks() {
            needed.entry((Kind::Block, block.digest)).or_insert(kept.version);
        }
    }
    let newest = ledger.newest().map_or(FIRST, |kept| kept.version);
    for offer in &ledger.offers {
        let target = ledger.with_manifest(&offer.offer.to).map(|kept| kept.version);
        for object in offer.objects() {
            needed.entry(object).or_insert(target.unwrap_or(newest));
        }
    }
    let mut in_order = Vec::with_capacity(needed.len());
    for kind in Kind::ALL {
        let of_kind = needed.iter().filter(|((k, _), _)| *k == kind);
        in_order.extend(of_kind.map(|((kind, name), since)| Needed {
            kind: *kind,
            name: *name,
            since: *since,
        }));
    }
    Ok(in_order)
}

const FIRST: Version = Version { epoch: Epoch::FIRST, generation: Generation(1) };

/// Objects that no kept generation needs, and since when: `DATA/trees/T/unneeded.json`.
///
/// An agent may be in the middle of a transfer that it planned a while ago, and whoever was given a
/// signed URL may still use it. So an object goes only after it was not needed for a whole grace
/// time, counted anew when it was needed in between.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Unneeded(BTreeMap<String, Timestamp>);

const UNNEEDED: &[u8] = b"unneeded.json";
const MAX_UNNEEDED: u64 = 256 << 20;

impl Unneeded {
    /// Reads a tree's record. One that cannot be read begins anew: everything stays a while longer.
    pub fn load(dir: &Dir) -> io::Result<Self> {
        match durable::read_json(dir, UNNEEDED, MAX_UNNEEDED) {
            Ok(record) => Ok(record.unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Writes it, where it changed.
    pub fn save(&self, dir: &Dir) -> io::Result<()> {
        let before: Option<Self> = durable::read_json(dir, UNNEEDED, MAX_UNNEEDED).unwrap_or(None);
        if before.unwrap_or_default().0 == self.0 {
            return Ok(());
        }
        durable::replace_json(dir, UNNEEDED, self)
    }

    /// Notes what is not needed now, and removes what was not for the `grace`, from the own store
    /// and from every further point, where the tree has this form. What cannot be removed is tried
    /// again. Blocks.
    pub fn collect(
        &mut self,
        places: &Places,
        tree: &TreeName,
        form: &Form,
        ledger: &Ledger,
        (now, grace): (Timestamp, Duration),
    ) -> Result<(), generate::Error> {
        let at_points = &form.tree(tree);
        let object = |tree: &TreeName, (kind, name)| Object { tree: tree.clone(), kind, name };
        let mut needed = HashSet::new();
        for Needed { kind, name, .. } in needed_in_order(places, tree, ledger)? {
            let own = object(tree, (kind, name));
            needed.extend([form.object(&own).to_string(), own.to_string()]);
        }
        let own: &dyn Point = &*places.origin;
        // By the names that objects have where they are: a private tree has others at points.
        let mut there: BTreeMap<String, Object> = BTreeMap::new();
        for kind in Kind::ALL {
            let failed = |source| points::Error::Io {
                object: format!("trees/{tree}/{}", kind.dir()),
                point: own.describe(),
                source,
            };
            for name in own.list(tree, kind).map_err(failed)? {
                let object = object(tree, (kind, name));
                there.insert(object.to_string(), object);
            }
        }
        let mut everywhere = there.clone();
        let mut further = Vec::new();
        for point in places.further.iter().filter(|further| further.takes(tree)) {
            match point.objects(at_points) {
                Ok(objects) => {
                    for &of in &objects {
                        let object = object(at_points, of);
                        everywhere.insert(object.to_string(), object);
                    }
                    further.push((point, objects));
                }
                Err(error) => {
                    let error = error_chain(&error);
                    tracing::warn!(%tree, error, "a publication point cannot be tidied");
                }
            }
        }
        everywhere.retain(|name, _| !needed.contains(name));
        self.0.retain(|name, _| everywhere.contains_key(name));
        for (name, of) in &everywhere {
            let since = *self.0.entry(name.clone()).or_insert(now);
            let age = Duration::try_from(now.duration_since(since)).unwrap_or_default();
            if age < grace {
                continue;
            }
            let mut gone = !there.contains_key(name) || own.remove(of).is_ok();
            let has = |objects: &HashSet<(Kind, Digest)>| {
                of.tree == *at_points && objects.contains(&(of.kind, of.name))
            };
            for (point, _) in further.iter().filter(|(_, objects)| has(objects)) {
                if let Err(error) = point.remove(of) {
                    gone = false;
                    let error = error_chain(&error);
                    tracing::warn!(%tree, error, "what nobody needs any longer is not removed");
                }
            }
            if gone {
                self.0.remove(name);
            }
        }
        let is_wanted = |name: &str| needed.contains(name) || self.0.contains_key(name);
        for (point, _) in &further {
            if let Err(error) = point.abandon(at_points, &is_wanted) {
                let error = error_chain(&error);
                tracing::warn!(%tree, error, "an upload that nobody needs is not ended");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use filetree::fs::Fs;
    use protocol::{
        dsse::{Bytes, Envelope},
        statement::Offer,
    };

    use super::*;
    use crate::{
        ledger::{Fate, KeptOffer},
        points::{Directory, Further},
    };

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
            fate: Fate::Taken,
            root: None,
            content,
            shared: false,
            signed: false,
            copied: false,
        }
    }

    fn numbers(versions: &[Version]) -> Vec<u64> {
        versions.iter().map(|version| version.generation.0).collect()
    }

    fn at(hour: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hour)
    }

    /// Generation, hour at which it was replaced, bytes held by sites, own bytes.
    fn candidates(rows: &[(u64, Option<i64>, u64, u64)]) -> Vec<Candidate> {
        let candidate =
            |(number, replaced, held_bytes, own_bytes): &(u64, Option<i64>, u64, u64)| {
                let version = Version { epoch: Epoch(1), generation: Generation(*number) };
                let (held_bytes, own_bytes) = (*held_bytes, *own_bytes);
                Candidate { version, replaced: replaced.map(at), held_bytes, own_bytes }
            };
        rows.iter().map(candidate).collect()
    }

    /// Every generation that goes, in order.
    fn going(mut kept: Vec<Candidate>, limits: Limits, now: Timestamp) -> Vec<u64> {
        let mut going = Vec::new();
        while let Some(version) = victim(&kept, &limits, now) {
            kept.retain(|candidate| candidate.version != version);
            going.push(version.generation.0);
        }
        going
    }

    #[test]
    fn what_no_site_holds_goes_first_then_the_oldest_and_never_the_newest() {
        let all =
            [(1, Some(1), 500, 10), (2, Some(2), 0, 10), (3, Some(3), 9, 10), (4, None, 0, 10)];
        let limits = |generations, age, bytes| Limits { generations, age, bytes };
        let kept = || candidates(&all);
        assert_eq!(going(kept(), limits(4, None, None), at(9)), [0; 0]);
        assert_eq!(going(kept(), limits(3, None, None), at(9)), [2]);
        assert_eq!(going(kept(), limits(2, None, None), at(9)), [2, 3]);
        assert_eq!(going(kept(), limits(0, None, None), at(9)), [2, 3, 1]);
        // Old, but a site that was away may come back to it.
        let age = Some(SignedDuration::from_hours(4));
        assert_eq!(going(kept(), limits(9, age, None), at(100)), [2]);
        assert_eq!(going(kept(), limits(9, age, None), at(5)), [0; 0]);
        assert_eq!(going(kept(), limits(9, None, Some(25)), at(9)), [2]);
        assert_eq!(going(kept(), limits(9, None, Some(0)), at(9)), [2, 3, 1]);
    }

    #[test]
    fn a_manifest_outlives_its_replacement_by_a_day() {
        let all = [kept(1, 0, false), kept(2, 10, false), kept(3, 30, false), kept(4, 31, true)];
        assert_eq!(numbers(&forgotten(&all, at(31))), [0; 0]);
        let signed = [Kept { signed: true, ..kept(1, 0, false) }, kept(2, 10, true)];
        assert_eq!(numbers(&forgotten(&signed, at(1000))), [0; 0]);
        assert_eq!(numbers(&forgotten(&all, at(36))), [1]);
        assert_eq!(numbers(&forgotten(&all, at(1000))), [1, 2, 3], "the newest is never forgotten");
    }

    fn offered(pack: Digest) -> KeptOffer {
        let offer = Offer {
            tree: "fedora".parse().unwrap(),
            from: None,
            to: Digest::of(b"to"),
            pack,
            length: 5,
            index_length: 1,
            index: Digest::of(b"index"),
            front: None,
            shared_length: 0,
            encryption: None,
            figures: None,
        };
        KeptOffer {
            offer,
            envelope: kept(1, 0, true).statement,
            announced: true,
            shared: Vec::new(),
        }
    }

    #[test]
    fn what_nobody_needs_goes_from_everywhere_after_a_whole_grace_time_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let fs = Fs::disk();
        let open = |name: &str| Arc::new(Directory::open(&fs, &dir.path().join(name)).unwrap());
        let (origin, away) = (open("own"), open("further"));
        let tree: TreeName = "fedora".parse().unwrap();
        let further = vec![Arc::new(Further::new(away.clone(), vec!["*".into()], false))];
        let places = Places { origin: origin.clone(), further };
        let packs = [b"pack1", b"pack2"].map(|bytes| {
            let name = Digest::of(bytes);
            let object = Object { tree: tree.clone(), kind: Kind::Pack, name };
            origin.put(&object, &mut &bytes[..], 5).unwrap();
            away.put(&object, &mut &bytes[..], 5).unwrap();
            name
        });
        let state = fs.create_root(&dir.path().join("state")).unwrap();
        // Each step opens everything anew, as a publisher that was restarted.
        let collect = |hour: i64, offers: Vec<KeptOffer>| {
            let ledger = Ledger { offers, ..Ledger::default() };
            let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hour);
            let grace = Duration::from_secs(24 * 3600);
            let mut unneeded = Unneeded::load(&state).unwrap();
            unneeded.collect(&places, &tree, &Form::Plain, &ledger, (now, grace)).unwrap();
            unneeded.save(&state).unwrap();
            let there = |point: &Directory| -> HashSet<Digest> {
                point.list(&tree, Kind::Pack).unwrap().into_iter().collect()
            };
            assert_eq!(there(&origin), there(&away), "at hour {hour}");
            packs.map(|pack| there(&origin).contains(&pack))
        };
        let first = || vec![offered(packs[0])];
        assert_eq!(collect(0, first()), [true, true]);
        assert_eq!(collect(23, first()), [true, true], "the grace time is not over");
        assert_eq!(collect(24, first()), [true, false]);
        assert_eq!(collect(30, vec![]), [true, false]);
        assert_eq!(collect(50, first()), [true, false], "it is needed again");
        assert_eq!(collect(60, vec![]), [true, false], "and its time begins anew");
        assert_eq!(collect(83, vec![]), [true, false]);
        assert_eq!(collect(84, vec![]), [false, false]);
    }
}
