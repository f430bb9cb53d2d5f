//! Contents from the packs of a chain: the frames are fetched, and files are made of them and of
//! the old content that is published.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    future::poll_fn,
    io,
    os::unix::fs::FileExt,
    pin::pin,
    sync::{Arc, PoisonError},
    task::Poll,
    time::{Duration, Instant},
};

use filetree::{
    delta::ReadAt,
    fs::{self, Dir},
    pack::{
        self,
        read::{Bases, FileSink, FrameSource, OpBlocks, PackIndex, Rebuilder, Rebuilding, Step},
    },
    staging::{StagedWriter, Staging},
};

use protocol::{
    digest::Digest,
    manifest::{Entries, Entry},
    pack::{Frame, Selection, Slice, chain},
    path::TreePath,
    transfer::{Encoder, NoDelta, Way},
};
use tokio::task::{JoinHandle, block_in_place, spawn_blocking};

use super::{BESIDE_BYTES, Error, Failures, Gather, Link, Meanwhile, Pending};
use crate::{
    apply::{self, PlanStage, Site, to_io},
    fetch::{
        self,
        arrivals::Arrivals,
        pack::{Remote, open_work_file},
    },
    report::{Came, Run},
};

/// Where frames come from that an earlier run has fetched.
const LOCAL: &str = "local";

impl Gather<'_> {
    pub(super) async fn by_pack(&self, batch: &[Pending]) -> Result<Failures, Error> {
        let mut failures = Failures::new();
        let made = MadeBases::open(self.site)?;
        for (number, link) in self.sources.chain.iter().enumerate() {
            let Some(step) = self.draw.steps.get(number) else { continue };
            let items: Vec<&Pending> =
                batch.iter().filter(|item| item.in_pack == Some(number)).collect();
            if !step.selection.ops.is_empty() {
                self.by_link(link, step, &items, &made, &mut failures).await?;
            }
        }
        made.clear();
        Ok(failures)
    }

    async fn by_link(
        &self,
        link: &Link,
        step: &chain::Step,
        items: &[&Pending],
        made: &MadeBases,
        failures: &mut Failures,
    ) -> Result<(), Error> {
        let start = Instant::now();
        let selection = &step.selection;
        let dir = self.site.scratch()?.join("packs");
        let file = open_work_file(&dir, &link.offer.pack).map_err(Error::Stage)?;
        let remote = Remote {
            points: self.sources.points,
            tree: self.sources.tree,
            offer: &link.offer,
            patience: self.sources.patience,
        };
        let mut ahead = link.ahead.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut before = self.sources.points.mark();
        if let Some(ahead) = &ahead {
            ahead.count(&mut before, false);
        }
        let progress = Arc::clone(self.run.progress());
        let count = |bytes| progress.add(bytes);
        let arrivals = Arrivals::default();
        let bases = HeldBases { gather: self, made, from: &*link.from };
        let mut sink = Sink {
            stage: &self.stage,
            made,
            only_bases: &step.only_bases,
            run: self.run,
            open: Open::Nothing,
            failed: Vec::new(),
        };
        let mut frames = WorkFile { file: &file, arrivals: &arrivals };
        let rebuilder = Rebuilder::new(&link.index, &bases);
        let (fetched, rebuilt) = {
            let numbers = (&*selection.frames, &mut ahead);
            let fetching = remote.frames(&link.index, numbers, &file, &arrivals, &count);
            let making = block_in_place(|| rebuilder.start(selection, &mut frames, &mut sink));
            match making {
                Ok(making) => self.make_what_comes(fetching, &arrivals, making).await?,
                Err(error) => (Ok(()), Err(error)),
            }
        };
        if self.sources.part.goes_on {
            if let Some(ahead) = &ahead {
                // It counts when it is taken.
                ahead.count(&mut before, true);
            }
            *link.ahead.lock().unwrap_or_else(PoisonError::into_inner) = ahead;
        }
        // Frames that are missing are found so by those who need them.
        let detail = match fetched {
            Ok(()) => None,
            Err(fetch::pack::Error::Io(error)) => return Err(Error::Stage(error)),
            Err(error @ fetch::pack::Error::Damaged { .. }) => {
                Some((NoDelta::Corrupt, crate::chain(&error)))
            }
            Err(error) => Some((NoDelta::PointUnreachable, crate::chain(&error))),
        };
        let failed = sink.failed;
        match rebuilt {
            Ok(()) => {}
            Err(pack::Error::Write { source, .. }) => return Err(Error::Stage(source)),
            Err(error) => {
                let detail = crate::chain(&error);
                let all = items.iter().map(|item| item.need.digest);
                failures.extend(all.map(|digest| (digest, (NoDelta::Corrupt, detail.clone()))));
                return Ok(());
            }
        }
        // A base that could not be made is found missing by what needs it.
        let wanted = failed.iter().filter(|(digest, ..)| !step.only_bases.contains(digest));
        for (digest, path, reason) in wanted {
            let (reason, detail) = match (&detail, reason) {
                (Some((reason, detail)), NoDelta::Corrupt | NoDelta::PointUnreachable) => {
                    (*reason, detail.clone())
                }
                (_, reason) => (*reason, format!("{path}: {reason}")),
            };
            failures.insert(*digest, (reason, detail));
        }
        for (encoder, payload) in payloads(&link.index, selection) {
            self.run.add_encoded(encoder, 0, 0, payload);
        }
        let made = |item: &&&Pending| !failures.contains_key(&item.need.digest);
        let made: Vec<_> = items.iter().filter(made).collect();
        let sum = Came {
            files: made.len() as u64,
            content_bytes: made.iter().map(|item| item.need.size).sum(),
            ..Came::default()
        };
        self.add_way(Way::Pack, &before, LOCAL, sum, start);
        if failed.is_empty() && !self.sources.part.goes_on {
            // It served its purpose; what is left of it would only take room.
            std::fs::remove_file(dir.join(link.offer.pack.hex())).ok();
        }
        Ok(())
    }
}

impl Gather<'_> {
    /// Makes files of what has come while the rest is on its way, and does what else there is to do
    /// while it has to wait.
    ///
    /// The work is cut into short pieces, between which the transfer goes on and the run can be ended.
    async fn make_what_comes(
        &self,
        fetching: impl Future<Output = Result<(), fetch::pack::Error>>,
        arrivals: &Arrivals,
        mut making: Rebuilding<'_>,
    ) -> Result<(Result<(), fetch::pack::Error>, Result<(), pack::Error>), Error> {
        let mut fetching = pin!(fetching);
        let mut fetched = None;
        let mut meanwhile = self.sources.meanwhile;
        let mut writing = Writing::default();
        loop {
            let seen = arrivals.changes();
            let most_bytes = if fetched.is_none() { BESIDE_BYTES } else { u64::MAX };
            let now = block_in_place(|| for_a_moment(&mut making, most_bytes));
            let waits = match now {
                Ok(Step::Done) => break,
                Ok(Step::Made) => false,
                Ok(Step::Waiting) => true,
                Err(error) => return Ok((fetched.unwrap_or(Ok(())), Err(error))),
            };
            let idle = waits && !block_in_place(|| still_working(&mut meanwhile))?;
            if fetched.is_none() {
                if waits {
                    writing.go_on(self.stage.staging())?;
                }
                fetched = poll_fn(|context| match fetching.as_mut().poll(context) {
                    Poll::Ready(result) => Poll::Ready(Some(result)),
                    Poll::Pending if idle && arrivals.changes() == seen => Poll::Pending,
                    Poll::Pending => Poll::Ready(None),
                })
                .await;
                if let Some(Err(fetch::pack::Error::Io(_))) = &fetched {
                    break;
                }
                if fetched.is_some() {
                    arrivals.settle_all();
                }
            } else {
                // The run can be ended here.
                tokio::task::yield_now().await;
            }
        }
        let fetched = match fetched {
            Some(fetched) => fetched,
            None => fetching.await,
        };
        Ok((fetched, Ok(())))
    }
}

/// How long files are made before the transfer is looked after again. What comes meanwhile waits in
/// the connection's window, which is larger than what long links bring in this time.
const MOMENT: Duration = Duration::from_millis(20);

/// Has the disk write what was made while more is awaited: the tree is switched when all of it is
/// durable, and whoever waits for that waits for the last part alone.
#[derive(Default)]
struct Writing {
    /// What was staged, and not durable, when it was last begun.
    begun_bytes: u64,
    task: Option<JoinHandle<()>>,
}

impl Writing {
    /// So much is worth the trouble: others who write to the same disk pay for it, too.
    const LEAST_BYTES: u64 = 32 << 20;

    /// Begins if there is enough. It takes as long as the disk does, so it never keeps a transfer waiting.
    fn go_on(&mut self, staging: &Staging) -> Result<(), Error> {
        let bytes = staging.unsealed_bytes();
        self.begun_bytes = self.begun_bytes.min(bytes);
        let is_under_way = self.task.as_ref().is_some_and(|task| !task.is_finished());
        if is_under_way || bytes - self.begun_bytes < Self::LEAST_BYTES {
            return Ok(());
        }
        self.begun_bytes = bytes;
        let write = staging.writing().map_err(to_io).map_err(Error::Stage)?;
        self.task = Some(spawn_blocking(move || {
            if let Err(error) = write() {
                tracing::debug!(%error, "the disk does not write yet what was staged");
            }
        }));
        Ok(())
    }
}

fn for_a_moment(making: &mut Rebuilding<'_>, most_bytes: u64) -> Result<Step, pack::Error> {
    let start = Instant::now();
    loop {
        match making.step(most_bytes)? {
            Step::Made if start.elapsed() < MOMENT => {}
            step => return Ok(step),
        }
    }
}

/// Does what else there is to do for a moment; whether there may be more of it.
fn still_working(meanwhile: &mut Option<Meanwhile<'_>>) -> Result<bool, Error> {
    let Some(Meanwhile(work)) = meanwhile else { return Ok(false) };
    let start = Instant::now();
    let more = work(&|| start.elapsed() < MOMENT)?;
    if !more {
        *meanwhile = None;
    }
    Ok(more)
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
        Slice::Base { .. } | Slice::Inside { .. } => 0,
    };
    let mut payloads = BTreeMap::new();
    let mut ops = OpBlocks::default();
    for number in &selection.ops {
        if let Ok(Some(op)) = ops.get(index, *number)
            && let Some(content) = op.content()
            && let Some(encoder) = content.encoder()
        {
            *payloads.entry(encoder).or_default() +=
                content.slices().iter().map(share).sum::<u64>();
        }
    }
    payloads
}

/// Old content: from the live tree, where what is held has the same content at the same path; what
/// an earlier step made; and what is staged already.
struct HeldBases<'a> {
    gather: &'a Gather<'a>,
    made: &'a MadeBases,
    from: &'a dyn Entries,
}

impl Bases for HeldBases<'_> {
    fn open(&self, number: u64) -> io::Result<Option<Box<dyn ReadAt>>> {
        let entry = self.from.numbered(number).map_err(io::Error::other)?;
        let Some((digest, path)) = entry.and_then(|e| Some((e.digest()?, e.path))) else {
            return Ok(None);
        };
        let Gather { site, stage, sources, .. } = self.gather;
        let live = || site.area().base_file(&path).ok();
        // What is not there after all is wanted another way then.
        let file = sources.holds(&path, &digest).then(live).flatten();
        let file = file.or_else(|| self.made.file(&digest));
        let file = file.or_else(|| stage.staging().base_file(stage.need(&digest)?));
        Ok(file.map(|file| Box::new(file) as Box<dyn ReadAt>))
    }

    fn scratch(&self) -> io::Result<Option<fs::File>> {
        let file = pack::nameless(&self.made.0, b"plain");
        Ok(Some(file.map_err(|error| error.source)?))
    }
}

/// Contents that are made only because something of a later pack is made from them. They live as
/// long as the packs are worked on.
struct MadeBases(Dir);

impl MadeBases {
    fn open(site: &Site) -> Result<Self, Error> {
        let partial = site.area().work_dir().ensure_dir(b"partial", 0o700);
        let made = partial.and_then(|partial| partial.ensure_dir(b"bases", 0o700));
        let made = Self(made.map_err(apply::Error::from)?);
        // Nobody vouches for what an interrupted run left.
        made.clear();
        Ok(made)
    }

    fn file(&self, digest: &Digest) -> Option<fs::File> {
        self.0.open_file(digest.hex().as_bytes()).ok()
    }

    fn clear(&self) {
        let unlink = |name: &[u8]| {
            if let Err(error) = self.0.unlink(name) {
                tracing::debug!(%error, "the base of a delta is left over");
            }
        };
        self.0.entries().into_iter().flatten().for_each(|entry| unlink(&entry.name));
    }
}

/// Where frames arrive.
struct WorkFile<'a> {
    file: &'a File,
    arrivals: &'a Arrivals,
}

impl FrameSource for WorkFile<'_> {
    fn frame(&mut self, _number: u32, frame: &Frame) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; frame.stored_len as usize];
        FileExt::read_exact_at(self.file, &mut bytes, frame.offset)?;
        Ok(bytes)
    }

    fn is_settled(&self, frame: &Frame) -> bool {
        self.arrivals.is_settled(frame)
    }
}

/// Puts files made from a pack into staging, and bases of later ones beside it.
struct Sink<'a> {
    stage: &'a PlanStage<'a>,
    made: &'a MadeBases,
    only_bases: &'a HashSet<Digest>,
    run: &'a Run,
    open: Open<'a>,
    failed: Vec<(Digest, TreePath, NoDelta)>,
}

/// Where a file's bytes go.
enum Open<'a> {
    Nothing,
    Staged(Box<StagedWriter<'a>>),
    Base { file: fs::File, at: u64 },
}

impl FileSink for Sink<'_> {
    fn begin(&mut self, entry: &Entry) -> io::Result<()> {
        self.open = match entry.digest() {
            Some(digest) if self.only_bases.contains(&digest) => {
                let name = [digest.hex().as_bytes(), UNVERIFIED].concat();
                let file = self.made.0.create_file(&name).map_err(io::Error::other)?;
                Open::Base { file, at: 0 }
            }
            Some(digest) => match self.stage.begin(&digest)? {
                Some(writer) => Open::Staged(Box::new(writer)),
                None => Open::Nothing,
            },
            None => Open::Nothing,
        };
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.open {
            Open::Nothing => Ok(()),
            Open::Staged(writer) => writer.push(bytes).map_err(to_io),
            Open::Base { file, at } => {
                file.write_at(*at, bytes).map_err(|error| error.source)?;
                *at += bytes.len() as u64;
                Ok(())
            }
        }
    }

    fn end(&mut self, entry: &Entry, made: Result<Encoder, NoDelta>) -> io::Result<()> {
        let open = std::mem::replace(&mut self.open, Open::Nothing);
        let Some(digest) = entry.digest() else { return Ok(()) };
        let is_base = matches!(open, Open::Base { .. });
        match (made, open) {
            (Ok(encoder), Open::Staged(writer)) => {
                writer.finish().map_err(to_io)?;
                self.run.add_encoded(encoder, 1, entry.size(), 0);
            }
            (Ok(_), _) => {}
            (Err(reason), _) => self.failed.push((digest, entry.path.clone(), reason)),
        }
        if is_base {
            let name = digest.hex();
            let unverified = [name.as_bytes(), UNVERIFIED].concat();
            let dir = &self.made.0;
            let done = match made {
                Ok(_) => dir.rename(&unverified, dir, name.as_bytes()),
                Err(_) => dir.unlink(&unverified),
            };
            done.map_err(|error| error.source)?;
        }
        Ok(())
    }
}

/// Ends the name of a base that is still being made.
const UNVERIFIED: &[u8] = b".new";
