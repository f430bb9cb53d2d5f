//! Brings the contents that a plan needs into staging, each by the cheapest way that works.
//!
//! Every content has its list of ways ([`crate::route`]). The first way of all is tried for all
//! that begin with it; what it does not bring goes on to its next way, with the reason noted.

mod arrived;
mod packs;

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::Arc,
    time::Instant,
};

use filetree::{pack::read::PackIndex, plan::Need};
use protocol::{
    digest::Digest,
    manifest::{Entry, Manifest},
    name::TreeName,
    pack::Op,
    path::TreePath,
    statement::Offer,
    transfer::{NoDelta, Way},
};
use tokio::task::block_in_place;

pub use self::arrived::{Arrived, Taken, stage_dir};
use crate::{
    apply::{self, PlanStage, Site, to_io},
    fetch::{
        points::{ORIGIN, Points},
        ranges::Patience,
        whole,
    },
    report::{Came, Run},
    route::{self, Candidate, Means},
    rsync::source::Source,
    stage::Content,
};

/// A pack of the chain that leads to the target.
#[derive(Debug)]
pub struct Link {
    /// What the publisher signed about it.
    pub offer: Offer,
    /// Its verified index.
    pub index: PackIndex,
    /// The manifest that it leads from.
    pub from: Arc<Manifest>,
}

/// Everything by which contents may come.
#[derive(Debug)]
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
    /// What is held, whole.
    pub have: &'a Manifest,
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

/// Brings all of `needs` into staging.
pub async fn gather(
    site: &Site,
    needs: &[Need],
    sources: &Sources<'_>,
    run: &Run,
) -> Result<(), Error> {
    let staging = site.area().staging();
    let mut missing = Vec::new();
    for need in needs {
        if !block_in_place(|| staging.has(need))? {
            missing.push(need.clone());
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let carried = carried_by(sources.chain, &missing);
    let mut pending = decide(&missing, &carried, site, sources, run)?;
    let stage = PlanStage::new(staging, &missing);
    let gather = Gather { site, stage, sources, run };
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

/// Which pack of the chain carries each content: the last that puts it at the path it is needed at.
fn carried_by(chain: &[Link], needs: &[Need]) -> HashMap<Digest, usize> {
    let wanted: HashMap<&TreePath, &Digest> =
        needs.iter().map(|need| (&need.path, &need.digest)).collect();
    let mut carried = HashMap::new();
    for (number, link) in chain.iter().enumerate() {
        for op in link.index.ops().flatten() {
            let (_, Op::Put { entry, content: Some(content) }) = op else { continue };
            let is_wanted = wanted.get(&entry.path).is_some_and(|d| entry.digest() == Some(**d));
            if is_wanted && content.encoder().is_some() {
                carried.extend(entry.digest().map(|digest| (digest, number)));
            }
        }
    }
    carried
}

fn decide(
    needs: &[Need],
    carried: &HashMap<Digest, usize>,
    site: &Site,
    sources: &Sources<'_>,
    run: &Run,
) -> Result<Vec<Pending>, Error> {
    let is_published = site.is_published()?;
    let candidates: Vec<Candidate> = needs
        .iter()
        .map(|need| Candidate {
            size: need.size,
            local: false,
            in_pack: carried.contains_key(&need.digest),
            old_version: is_published && sources.have.get(&need.path).is_some_and(Entry::is_file),
        })
        .collect();
    let means = Means {
        pack_bytes: (!sources.chain.is_empty()).then(|| pack_bytes(sources.chain, carried, needs)),
        no_pack: sources.no_pack.as_ref().map(|(reason, _)| *reason),
        no_rsync: sources.rsync.err(),
        whole: sources.points.origin().is_some(),
        first_sync: !is_published,
    };
    let route = route::choose(&candidates, &means);
    let mut not_taken = route.not_taken;
    if let Some((_, detail)) = &sources.no_pack {
        let packs = not_taken.iter_mut().filter(|reason| reason.way == Way::Pack);
        packs.for_each(|reason| reason.detail.clone_from(detail));
    }
    run.extend_not_taken(not_taken);
    run.progress().phase("fetch", "bytes", route.expected_bytes);
    tracing::info!(
        assignment = %run.assignment(),
        files = needs.len(),
        expected_bytes = route.expected_bytes,
        "fetching"
    );
    let pending = needs.iter().zip(route.ways).map(|(need, ways)| {
        let mut ways = ways.into_iter();
        let in_pack = carried.get(&need.digest).copied();
        Pending { need: need.clone(), now: ways.next(), ways, detail: String::new(), in_pack }
    });
    Ok(pending.collect())
}

fn pack_bytes(chain: &[Link], carried: &HashMap<Digest, usize>, needs: &[Need]) -> u64 {
    let bytes = |(number, link): (usize, &Link)| {
        let paths = paths_in(number, carried, needs);
        link.index.select(|path| paths.contains(path)).map_or(0, |s| s.cost.fetched_bytes)
    };
    chain.iter().enumerate().map(bytes).sum()
}

fn paths_in<'a>(
    number: usize,
    carried: &HashMap<Digest, usize>,
    needs: &'a [Need],
) -> HashSet<&'a TreePath> {
    let is_in = |need: &&Need| carried.get(&need.digest) == Some(&number);
    needs.iter().filter(is_in).map(|need| &need.path).collect()
}

struct Gather<'a> {
    site: &'a Site,
    stage: PlanStage<'a>,
    sources: &'a Sources<'a>,
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
        let start = Instant::now();
        let contents: Vec<Content> = batch.iter().map(|item| content(&item.need)).collect();
        let request = whole::Request {
            points: self.sources.points,
            tree: self.sources.tree,
            manifest: self.sources.manifest,
            patience: self.sources.patience,
        };
        let received = Counter::default();
        let progress = Arc::clone(self.run.progress());
        let count = |bytes| {
            received.add(bytes);
            progress.add(bytes);
        };
        let failed =
            whole::fetch(&request, &contents, &self.stage, &count).await.map_err(Error::Stage)?;
        let failures: Failures = failed
            .into_iter()
            .map(|failed| (contents[failed.content].digest, (failed.reason, failed.detail)))
            .collect();
        let done = contents.iter().filter(|content| !failures.contains_key(&content.digest));
        let came = Came { received_bytes: received.get(), ..sums(done.map(|c| c.size)) };
        self.run.add_way(Way::Whole, ORIGIN, came.since(start));
        Ok(failures)
    }
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

#[derive(Default)]
struct Counter(std::sync::atomic::AtomicU64);

impl Counter {
    fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}
