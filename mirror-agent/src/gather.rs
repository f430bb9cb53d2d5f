//! Brings the contents that a plan needs into staging, each by the cheapest way that works.
//!
//! Every content has its list of ways ([`crate::route`]). The first way of all is tried for all
//! that begin with it; what it does not bring goes on to its next way, with the reason noted.

mod arrived;
mod packs;

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{Arc, Mutex},
    time::Instant,
};

use filetree::{delta::group::MEMBER_BYTES, pack::read::PackIndex, plan::Need, staging::Staging};
use protocol::{
    digest::Digest,
    filter::Filter,
    manifest::{Entries, Entry, SharedEntries},
    name::TreeName,
    pack::chain::{self, Draw, Wanted},
    path::TreePath,
    statement::Offer,
    transfer::{NoDelta, Way},
};
use tokio::task::block_in_place;

pub use self::arrived::{Arrived, Taken, stage_dir};
use crate::{
    apply::{self, PlanStage, Site, to_io},
    fetch::{
        ahead::Ahead,
        points::{ORIGIN, Points},
        ranges::Patience,
        whole::{self, Beginnings},
    },
    report::{Came, Run},
    route::{self, Candidate, Means},
    rsync::source::Source,
    stage::Content,
};

/// Contents that are brought together. What is decided about them together (which frames to draw,
/// which way to go) takes up to a kilobyte for each, so a first sync is brought in parts.
pub const AT_A_TIME: usize = 8_192;

/// Largest file that is made or copied while content is on its way: the transfer stands still meanwhile,
/// and whoever sends does not wait for ever.
pub const BESIDE_BYTES: u64 = 64 << 20;

/// A pack of the chain that leads to the target.
#[derive(Debug)]
pub struct Link {
    /// What the publisher signed about it.
    pub offer: Offer,
    /// Its verified index.
    pub index: PackIndex,
    /// The manifest that it leads from.
    pub from: SharedEntries,
    /// Frames of it that were asked for together with the index.
    pub ahead: Mutex<Option<Ahead>>,
}

/// Everything by which contents may come.
#[derive(Debug, Clone)]
pub struct Sources<'a> {
    /// Which tree.
    pub tree: &'a TreeName,
    /// The manifest that is wanted, for whole content.
    pub manifest: Digest,
    /// Publication points.
    pub points: &'a Points,
    /// How patient transfers are.
    pub patience: Patience,
    /// The chain of packs, the first leading from what is held.
    pub chain: &'a [Link],
    /// Why there is no chain, though packs were offered: what exactly was seen.
    pub no_pack: Option<(NoDelta, String)>,
    /// Direct rsync, or why it is not possible.
    pub rsync: Result<&'a Source, NoDelta>,
    /// Whether whole files are asked for at the publisher.
    pub whole: bool,
    /// Whether these contents are a part of more.
    pub part: Part,
    /// What is held, whole.
    pub have: &'a dyn Entries,
    /// What of it is there; all where there is no filter.
    pub kept: Option<&'a Filter>,
    /// Work on the disk that can be done while content is on its way.
    pub meanwhile: Option<Meanwhile<'a>>,
}

/// What is brought before and after some contents, in the order of paths. It may need frames that these
/// need, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Part {
    /// Others came before.
    pub is_later: bool,
    /// Others follow.
    pub goes_on: bool,
}

impl Part {
    /// The next `count` of `all`, of which `before` were brought.
    pub fn of(all: u64, before: u64, count: usize) -> Self {
        Self { is_later: before > 0, goes_on: before + (count as u64) < all }
    }
}

/// Works for as long as what it gets says `true`; `false` where nothing is left to do.
type Work<'a> = dyn Fn(&(dyn Fn() -> bool + Sync)) -> Result<bool, apply::Error> + Sync + 'a;

/// Work that waits for nothing.
#[derive(Clone, Copy)]
pub struct Meanwhile<'a>(pub &'a Work<'a>);

impl std::fmt::Debug for Meanwhile<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meanwhile")
    }
}

impl Sources<'_> {
    /// Whether what is held has a file at the path.
    fn has_file(&self, path: &TreePath) -> bool {
        self.have.find(path).ok().flatten().as_ref().is_some_and(Entry::is_file)
    }

    /// Whether a file with this content lies at the path.
    fn holds(&self, path: &TreePath, digest: &Digest) -> bool {
        // What cannot be told is not relied upon: the content comes another way.
        let held = self.have.find(path).ok().flatten();
        held.is_some_and(|entry| entry.digest() == Some(*digest))
            && self.kept.is_none_or(|filter| filter.keeps(path, false))
    }
}

/// Why contents did not come.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No way brought them.
    #[error(
        "{files} files of tree {tree} could not be had by any way, the first is {path}: {detail}"
    )]
    NoWay {
        /// Which tree.
        tree: TreeName,
        /// How many.
        files: usize,
        /// One of them.
        path: TreePath,
        /// What was seen last.
        detail: String,
    },
    /// Staging does not work: no way would help.
    #[error("what was fetched cannot be staged")]
    Stage(#[source] io::Error),
    /// The disk.
    #[error(transparent)]
    Apply(#[from] apply::Error),
}

impl From<filetree::staging::Error> for Error {
    fn from(error: filetree::staging::Error) -> Self {
        Self::Stage(to_io(error))
    }
}

struct Pending {
    need: Need,
    ways: std::vec::IntoIter<Way>,
    now: Option<Way>,
    detail: String,
    in_pack: Option<usize>,
}

/// Brings all of `needs` into `staging`. `site` is where old content lies, and where the work is
/// done that may be resumed.
pub async fn gather(
    site: &Site,
    staging: &Staging,
    needs: &[Need],
    sources: &Sources<'_>,
    run: &Run,
) -> Result<(), Error> {
    let mut missing = Vec::new();
    for need in needs {
        if !block_in_place(|| staging.has(need))? {
            missing.push(need.clone());
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let left: HashSet<Digest> = missing.iter().map(|need| need.digest).collect();
    let staged: HashSet<Digest> =
        needs.iter().map(|need| need.digest).filter(|digest| !left.contains(digest)).collect();
    let staged = |digest: &Digest| staged.contains(digest);
    let (draw, mut pending) = decide(&missing, &staged, site, sources, run)?;
    let stage = PlanStage::new(staging, needs);
    let gather = Gather { site, stage, sources, draw, run };
    while let Some(way) = pending.iter().find_map(|item| item.now) {
        let (batch, others): (Vec<_>, Vec<_>) =
            pending.into_iter().partition(|item| item.now == Some(way));
        pending = others;
        pending.extend(gather.by(way, batch).await?);
    }
    match pending.first() {
        None => Ok(block_in_place(|| staging.seal())?),
        Some(first) => Err(Error::NoWay {
            tree: sources.tree.clone(),
            files: pending.len(),
            path: first.need.path.clone(),
            detail: first.detail.clone(),
        }),
    }
}

/// Decides what is drawn from packs, and the ways of everything.
fn decide(
    needs: &[Need],
    staged: &dyn Fn(&Digest) -> bool,
    site: &Site,
    sources: &Sources<'_>,
    run: &Run,
) -> Result<(Draw, Vec<Pending>), Error> {
    let is_published = site.is_published()?;
    let mut means = Means {
        pack_bytes: None,
        no_pack: sources.no_pack.as_ref().map(|(reason, _)| *reason),
        no_rsync: sources.rsync.err(),
        whole: sources.whole && sources.points.with_content().next().is_some(),
        first_sync: !is_published,
        part: sources.part != Part::default(),
    };
    let mut candidates: Vec<Candidate> = needs
        .iter()
        .map(|need| Candidate {
            size: need.size,
            old_version: is_published && sources.has_file(&need.path),
            ..Candidate::default()
        })
        .collect();
    let held = |path: &TreePath, digest: &Digest| {
        is_published && sources.holds(path, digest) || staged(digest)
    };
    let draw = block_in_place(|| draw(needs, &candidates, &means, sources, &held));
    for (candidate, made_by) in candidates.iter_mut().zip(&draw.made_by) {
        (candidate.in_pack, candidate.no_pack) = (made_by.is_ok(), made_by.err());
    }
    means.pack_bytes = (!sources.chain.is_empty()).then_some(draw.cost.fetched_bytes);
    let route = route::choose(&candidates, &means);
    let mut not_taken = route.not_taken;
    if let Some((_, detail)) = &sources.no_pack {
        let packs = not_taken.iter_mut().filter(|reason| reason.way == Way::Pack);
        packs.for_each(|reason| reason.detail.clone_from(detail));
    }
    run.extend_not_taken(not_taken);
    run.progress().more("fetch", "bytes", route.expected_bytes);
    tracing::info!(
        assignment = %run.assignment(),
        files = needs.len(),
        expected_bytes = route.expected_bytes,
        packs = sources.chain.len(),
        "fetching"
    );
    let pending = needs.iter().zip(route.ways).enumerate().map(|(at, (need, ways))| {
        let mut ways = ways.into_iter();
        let in_pack = draw.made_by.get(at).and_then(|made_by| made_by.ok());
        Pending { need: need.clone(), now: ways.next(), ways, detail: String::new(), in_pack }
    });
    let pending = pending.collect();
    Ok((draw, pending))
}

fn draw(
    needs: &[Need],
    candidates: &[Candidate],
    means: &Means,
    sources: &Sources<'_>,
    held: &dyn Fn(&TreePath, &Digest) -> bool,
) -> Draw {
    let links = sources.chain.iter();
    let links: Vec<chain::Link<'_>> =
        links.map(|link| chain::Link { index: &link.index, from: &*link.from }).collect();
    let mut wanted: Vec<Wanted<'_>> = needs
        .iter()
        .zip(candidates)
        .map(|(need, candidate)| Wanted {
            path: &need.path,
            digest: need.digest,
            otherwise: route::without_pack(candidate, means),
        })
        .collect();
    // The frame that has the last small files of a part has the first ones of the next, too. Few on
    // either side would not be worth it alone, but the others fetch it anyway.
    let is_small = |at: &usize| needs[*at].size <= MEMBER_BYTES;
    let first = sources.part.is_later.then_some(0);
    let last = sources.part.goes_on.then_some(needs.len() - 1);
    for at in first.into_iter().chain(last).filter(is_small) {
        wanted[at].otherwise = None;
    }
    chain::draw(&links, &wanted, held).unwrap_or_else(|error| {
        // All of it was read when it came, so this is the memory's or the disk's fault.
        tracing::warn!(error = crate::chain(&error), "no pack is used");
        Draw { made_by: vec![Err(NoDelta::Corrupt); wanted.len()], ..Draw::default() }
    })
}

struct Gather<'a> {
    site: &'a Site,
    stage: PlanStage<'a>,
    sources: &'a Sources<'a>,
    draw: Draw,
    run: &'a Run,
}

impl Gather<'_> {
    /// Tries one way; gives what it did not bring, moved on to the next.
    async fn by(&self, way: Way, batch: Vec<Pending>) -> Result<Vec<Pending>, Error> {
        let failed = match way {
            Way::Pack => self.by_pack(&batch).await?,
            Way::Whole => self.whole(&batch).await?,
            Way::Rsync => self.by_rsync(&batch).await?,
            Way::Local | Way::Metadata => HashMap::new(),
        };
        let mut left = Vec::new();
        for mut item in batch {
            if let Some((reason, detail)) = failed.get(&item.need.digest) {
                self.run.not_taken(way, *reason, 1, detail);
                item.now = item.ways.next();
                item.detail.clone_from(detail);
                left.push(item);
            }
        }
        Ok(left)
    }

    async fn whole(&self, batch: &[Pending]) -> Result<Failures, Error> {
        let (start, before) = (Instant::now(), self.sources.points.mark());
        let contents: Vec<Content> = batch.iter().map(|item| content(&item.need)).collect();
        let beginnings = self.beginnings()?;
        let request = whole::Request {
            points: self.sources.points,
            tree: self.sources.tree,
            manifest: self.sources.manifest,
            patience: self.sources.patience,
            beginnings: &beginnings,
        };
        let progress = Arc::clone(self.run.progress());
        let count = |bytes| progress.add(bytes);
        let failed =
            whole::fetch(&request, &contents, &self.stage, &count).await.map_err(Error::Stage)?;
        let failures: Failures = failed
            .into_iter()
            .map(|failed| (contents[failed.content].digest, (failed.reason, failed.detail)))
            .collect();
        let done = contents.iter().filter(|content| !failures.contains_key(&content.digest));
        self.add_way(Way::Whole, &before, ORIGIN, sums(done.map(|c| c.size)), start);
        if failures.is_empty() {
            // Of contents that nobody asks for any more.
            std::fs::remove_dir_all(&beginnings.path).ok();
        }
        Ok(failures)
    }

    /// Reports what came by one way since `before`, from each point; `nowhere` stands for none. Files
    /// count where most bytes came from.
    fn add_way(&self, way: Way, before: &[u64], nowhere: &str, sum: Came, start: Instant) {
        let mut came: Vec<(&str, u64)> = self.sources.points.since(before).collect();
        came.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        if came.is_empty() {
            came.push((nowhere, 0));
        }
        for (number, (point, received_bytes)) in came.into_iter().enumerate() {
            let sum = if number == 0 { sum } else { Came::default() };
            self.run.add_way(way, point, Came { received_bytes, ..sum }.since(start));
        }
    }

    /// Where the beginnings of large contents are kept.
    fn beginnings(&self) -> Result<Beginnings, Error> {
        let path = self.site.scratch()?.join("whole");
        let partial =
            self.site.area().work_dir().open_child(b"partial").map_err(apply::Error::from)?;
        let dir = partial.ensure_dir(b"whole", 0o700).map_err(apply::Error::from)?;
        Ok(Beginnings { path, dir })
    }
}

/// Removes what was fetched of packs from which nothing more is drawn.
pub fn drop_frames(site: &Site, chain: &[Link]) -> Result<(), apply::Error> {
    let dir = site.scratch()?.join("packs");
    for link in chain {
        std::fs::remove_file(dir.join(link.offer.pack.hex())).ok();
    }
    Ok(())
}

/// Reasons and details by content.
type Failures = HashMap<Digest, (NoDelta, String)>;

fn content(need: &Need) -> Content {
    Content { digest: need.digest, size: need.size, path: need.path.clone() }
}

fn sums(sizes: impl Iterator<Item = u64>) -> Came {
    sizes.fold(Came::default(), |came, size| Came {
        files: came.files + 1,
        content_bytes: came.content_bytes + size,
        ..came
    })
}
