//! Contents from the packs of a chain: the frames are fetched, and files are made of them and of
//! the old content that is published.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::Arc,
    time::Instant,
};

use filetree::{
    delta::ReadAt,
    pack::{
        self,
        read::{Bases, FileSink, FrameSource, PackIndex, Rebuilder},
    },
    staging::StagedWriter,
};

use protocol::{
    digest::Digest,
    manifest::{Entry, Manifest},
    pack::{Frame, Selection, Slice},
    path::TreePath,
    transfer::{Encoder, NoDelta, Way},
};
use tokio::task::block_in_place;

use super::{Error, Failures, Gather, Link, Pending};
use crate::{
    apply::{PlanStage, Site, to_io},
    fetch::{
        self,
        pack::{Remote, open_work_file},
    },
    report::{Came, Run},
};

/// Where frames come from that an earlier run has fetched.
const LOCAL: &str = "local";

impl Gather<'_> {
    pub(super) async fn by_pack(&self, batch: &[Pending]) -> Result<Failures, Error> {
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
        let before = self.sources.points.mark();
        let progress = Arc::clone(self.run.progress());
        let count = |bytes| progress.add(bytes);
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
        let sum = Came {
            files: made.len() as u64,
            content_bytes: made.iter().map(|item| item.need.size).sum(),
            ..Came::default()
        };
        // A file may be made of frames from several points; it counts where most bytes came from.
        let mut came: Vec<(&str, u64)> = self.sources.points.since(&before).collect();
        came.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        if came.is_empty() {
            came.push((LOCAL, 0));
        }
        for (number, (point, received_bytes)) in came.into_iter().enumerate() {
            let sum = if number == 0 { sum } else { Came::default() };
            self.run.add_way(Way::Pack, point, Came { received_bytes, ..sum }.since(start));
        }
        if failed.is_empty() {
            // It served its purpose; what is left of it would only take room.
            std::fs::remove_file(dir.join(link.offer.pack.hex())).ok();
        }
        Ok(())
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
