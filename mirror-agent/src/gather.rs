//! Brings the contents that a plan needs into staging, each by the cheapest way that works.
//!
//! Every content has its list of ways ([`crate::route`]). The first way of all is tried for all
//! that begin with it; what it does not bring goes on to its next way, with the reason noted.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use filetree::{
    delta::ReadAt,
    fs::Dir,
    pack::{
        self,
        read::{Bases, FileSink, FrameSource, PackIndex, Rebuilder},
    },
    plan::Need,
    staging::StagedWriter,
};
use protocol::{
    digest::Digest,
    manifest::{Entry, Manifest},
    name::TreeName,
    pack::{Frame, Op, Selection, Slice},
    path::TreePath,
    statement::Offer,
    transfer::{Encoder, NoDelta, Way},
};
use tokio::task::block_in_place;

use crate::{
    apply::{self, PlanStage, Site, to_io},
    fetch::{
        self,
        pack::{Remote, open_work_file},
        points::Points,
        ranges::Patience,
        whole,
    },
    report::{Came, Run},
    route::{self, Candidate, Means},
    rsync::{
        child::Error as RsyncError,
        source::{Source, fresh_dir},
    },
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

    async fn by_pack(&self, batch: &[Pending]) -> Result<Failures, Error> {
        let mut failures = Failures::new();
        for (number, link) in self.sources.chain.iter().enumerate() {
            let items: Vec<&Pending> =
                batch.iter().filter(|item| item.in_pack == Some(number)).collect();
            if !items.is_empty() {
                self.by_link(link, &items, &mut failures).await?;
            }
        }
        Ok(failures)
    }

    async fn by_link(
        &self,
        link: &Link,
        items: &[&Pending],
        failures: &mut Failures,
    ) -> Result<(), Error> {
        let start = Instant::now();
        let fail_all = |failures: &mut Failures, reason, detail: String| {
            failures.extend(items.iter().map(|item| (item.need.digest, (reason, detail.clone()))));
        };
        let paths: HashSet<&TreePath> = items.iter().map(|item| &item.need.path).collect();
        let selection = match link.index.select(|path| paths.contains(path)) {
            Ok(selection) => selection,
            Err(error) => {
                fail_all(failures, NoDelta::Corrupt, error.to_string());
                return Ok(());
            }
        };
        let dir = self.site.scratch()?.join("packs");
        let file = open_work_file(&dir, &link.offer.pack).map_err(Error::Stage)?;
        let remote = Remote {
            points: self.sources.points,
            tree: self.sources.tree,
            offer: &link.offer,
            patience: self.sources.patience,
        };
        let received = Counter::default();
        let progress = Arc::clone(self.run.progress());
        let count = |bytes| {
            received.add(bytes);
            progress.add(bytes);
        };
        let fetched = remote.frames(&link.index, &selection.frames, &file, &count).await;
        // Frames that are missing are found so by those who need them.
        let detail = match fetched {
            Ok(()) => None,
            Err(fetch::pack::Error::Io(error)) => return Err(Error::Stage(error)),
            Err(error @ fetch::pack::Error::Damaged { .. }) => {
                Some((NoDelta::Corrupt, crate::chain(&error)))
            }
            Err(error) => Some((NoDelta::PointUnreachable, crate::chain(&error))),
        };
        let bases = LiveBases { site: self.site, from: &link.from, have: self.sources.have };
        let mut sink = Sink { stage: &self.stage, run: self.run, open: None, failed: Vec::new() };
        let rebuilt = block_in_place(|| {
            let rebuilder = Rebuilder::new(&link.index, &bases);
            rebuilder.rebuild(&selection, &mut WorkFile(&file), &mut sink)
        });
        let failed = sink.failed;
        match rebuilt {
            Ok(_) => {}
            Err(pack::Error::Write { source, .. }) => return Err(Error::Stage(source)),
            Err(error) => {
                fail_all(failures, NoDelta::Corrupt, crate::chain(&error));
                return Ok(());
            }
        }
        for (digest, path, reason) in &failed {
            let (reason, detail) = match (&detail, reason) {
                (Some((reason, detail)), NoDelta::Corrupt | NoDelta::PointUnreachable) => {
                    (*reason, detail.clone())
                }
                (_, reason) => (*reason, format!("{path}: {reason}")),
            };
            failures.insert(*digest, (reason, detail));
        }
        for (encoder, payload) in payloads(&link.index, &selection) {
            self.run.add_encoded(encoder, 0, 0, payload);
        }
        let made = |item: &&&Pending| !failures.contains_key(&item.need.digest);
        let made: Vec<_> = items.iter().filter(made).collect();
        let came = Came {
            files: made.len() as u64,
            content_bytes: made.iter().map(|item| item.need.size).sum(),
            received_bytes: received.get(),
            ..Came::default()
        };
        self.run.add_way(Way::Pack, &self.point(), came.since(start));
        if failed.is_empty() {
            // It served its purpose; what is left of it would only take room.
            std::fs::remove_file(dir.join(link.offer.pack.hex())).ok();
        }
        Ok(())
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
        self.run.add_way(Way::Whole, &self.point(), came.since(start));
        Ok(failures)
    }

    async fn by_rsync(&self, batch: &[Pending]) -> Result<Failures, Error> {
        let start = Instant::now();
        let source = match self.sources.rsync {
            Ok(source) => source,
            Err(reason) => {
                let failed = (reason, String::new());
                return Ok(batch.iter().map(|i| (i.need.digest, failed.clone())).collect());
            }
        };
        let work = self.site.scratch()?;
        let stage_dir = stage_dir(&work).map_err(|error| Error::Stage(io::Error::other(error)))?;
        let paths: Vec<TreePath> = batch.iter().map(|item| item.need.path.clone()).collect();
        let base = self.site.is_published()?.then_some(self.site.live.as_path());
        let (passed, result) = source.fetch(&paths, base, &stage_dir, &work).await;
        self.run.progress().add(passed.received);
        let (reason, detail) = match &result {
            Ok(()) => (NoDelta::RsyncFailed, "rsync did not bring it".to_owned()),
            Err(error @ RsyncError::Missing { .. }) => (NoDelta::NoRsync, error.to_string()),
            Err(error) => (NoDelta::RsyncFailed, crate::chain(error)),
        };
        let arrived = Arrived::open(self.site, &stage_dir)?;
        let mut failures = Failures::new();
        for item in batch {
            match block_in_place(|| arrived.take(&self.stage, &item.need))? {
                Taken::Yes => {}
                Taken::Missing => {
                    failures.insert(item.need.digest, (reason, detail.clone()));
                }
                Taken::Wrong(detail) => {
                    failures.insert(item.need.digest, (NoDelta::SourceMoved, detail));
                }
            }
        }
        let done = batch.iter().filter(|item| !failures.contains_key(&item.need.digest));
        let came = Came {
            received_bytes: passed.received,
            sent_bytes: passed.sent,
            ..sums(done.map(|item| item.need.size))
        };
        self.run.add_way(Way::Rsync, &source.host, came.since(start));
        std::fs::remove_dir_all(&stage_dir).ok();
        Ok(failures)
    }

    fn point(&self) -> String {
        self.sources.points.in_order().next().map_or_else(String::new, |point| point.name.clone())
    }
}

/// Reasons and details by content.
type Failures = HashMap<Digest, (NoDelta, String)>;

/// Where rsync works: kept over an interrupted run, so that it resumes.
pub fn stage_dir(work: &Path) -> Result<PathBuf, RsyncError> {
    let path = work.join("rsync");
    if path.is_dir() { Ok(path) } else { fresh_dir(work, "rsync") }
}

/// What rsync left in its directory.
pub struct Arrived(Dir);

/// What became of one file.
pub enum Taken {
    /// It is staged.
    Yes,
    /// It did not come.
    Missing,
    /// It is something else.
    Wrong(String),
}

impl Arrived {
    /// Opens the directory, without following links.
    pub fn open(site: &Site, stage_dir: &Path) -> Result<Self, Error> {
        let work = site.area().work_dir();
        let mut dir = work.open_child(b"partial").map_err(apply::Error::from)?;
        if let Some(name) = stage_dir.file_name() {
            use std::os::unix::ffi::OsStrExt;
            dir = dir.open_child(name.as_bytes()).map_err(apply::Error::from)?;
        }
        Ok(Self(dir))
    }

    /// The directory.
    pub fn dir(&self) -> &Dir {
        &self.0
    }

    /// Verifies a file and moves it into staging.
    pub fn take(&self, stage: &PlanStage<'_>, need: &Need) -> Result<Taken, Error> {
        let Ok(parent) = self.0.open_parent(&need.path) else { return Ok(Taken::Missing) };
        let name = need.path.name();
        match parent.stat(name) {
            Ok(Some(meta)) if meta.kind == filetree::fs::Kind::File => {}
            _ => return Ok(Taken::Missing),
        }
        use filetree::staging::Error as Staging;
        match stage.staging().take(need, &parent, name) {
            Ok(_) => Ok(Taken::Yes),
            Err(error @ (Staging::Mismatch { .. } | Staging::Length { .. })) => {
                Ok(Taken::Wrong(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Stored bytes of each encoder's files: of a frame that several share, each bears its part.
fn payloads(index: &PackIndex, selection: &Selection) -> BTreeMap<Encoder, u64> {
    let frames = fetch::pack::frames_of(index, &selection.frames).unwrap_or_default();
    let stored: HashMap<u32, (u64, u64)> = selection
        .frames
        .iter()
        .zip(frames)
        .map(|(number, frame)| (*number, (u64::from(frame.stored_len), u64::from(frame.raw_len))))
        .collect();
    let share = |slice: &Slice| match *slice {
        Slice::Frame { frame, len, .. } => stored
            .get(&frame)
            .map_or(0, |(stored, raw)| stored.saturating_mul(u64::from(len)) / (*raw).max(1)),
        Slice::Base { .. } => 0,
    };
    let mut payloads = BTreeMap::new();
    for (number, op) in index.ops().flatten() {
        if selection.ops.binary_search(&number).is_ok()
            && let Some(content) = op.content()
            && let Some(encoder) = content.encoder()
        {
            *payloads.entry(encoder).or_default() +=
                content.slices().iter().map(share).sum::<u64>();
        }
    }
    payloads
}

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

/// Old content from the live tree: an entry of the pack's base is there if what is held has the
/// same content at the same path.
struct LiveBases<'a> {
    site: &'a Site,
    from: &'a Manifest,
    have: &'a Manifest,
}

impl Bases for LiveBases<'_> {
    fn open(&self, number: u64) -> io::Result<Option<Box<dyn ReadAt>>> {
        let entry = usize::try_from(number).ok().and_then(|n| self.from.entries().get(n));
        let Some(entry) = entry else { return Ok(None) };
        let held = self.have.get(&entry.path).and_then(Entry::digest);
        if held.is_none() || held != entry.digest() {
            return Ok(None);
        }
        // What a filter leaves out is not there, and the file is wanted another way then.
        let file = self.site.area().base_file(&entry.path);
        Ok(file.ok().map(|file| Box::new(file) as Box<dyn ReadAt>))
    }
}

struct WorkFile<'a>(&'a File);

impl FrameSource for WorkFile<'_> {
    fn frame(&mut self, _number: u32, frame: &Frame) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; frame.stored_len as usize];
        FileExt::read_exact_at(self.0, &mut bytes, frame.offset)?;
        Ok(bytes)
    }
}

/// Puts files made from a pack into staging.
struct Sink<'a> {
    stage: &'a PlanStage<'a>,
    run: &'a Run,
    open: Option<StagedWriter<'a>>,
    failed: Vec<(Digest, TreePath, NoDelta)>,
}

impl FileSink for Sink<'_> {
    fn begin(&mut self, entry: &Entry) -> io::Result<()> {
        self.open = match entry.digest() {
            Some(digest) => self.stage.begin(&digest)?,
            None => None,
        };
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.open {
            Some(writer) => writer.push(bytes).map_err(to_io),
            None => Ok(()),
        }
    }

    fn end(&mut self, entry: &Entry, made: Result<Encoder, NoDelta>) -> io::Result<()> {
        let writer = self.open.take();
        let Some(digest) = entry.digest() else { return Ok(()) };
        match made {
            Ok(encoder) => {
                if let Some(writer) = writer {
                    writer.finish().map_err(to_io)?;
                    self.run.add_encoded(encoder, 1, entry.size(), 0);
                }
            }
            Err(reason) => self.failed.push((digest, entry.path.clone(), reason)),
        }
        Ok(())
    }
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
