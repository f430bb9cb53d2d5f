//! Packs: the index first, then only the frames that are needed, each verified as it arrives.
//!
//! Frames lie in a sparse file at the offsets that they have in the pack. A frame is there when
//! its bytes have its digest, and only then, so a run that was interrupted, by anything, goes on
//! with what it has, and no list of what was fetched has to be kept or believed.

use std::{
    collections::HashSet,
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use protocol::{
    digest::Digest,
    manifest::Entries,
    name::TreeName,
    origin,
    pack::{self, Frame, Index, JOINED_GAP_BYTES, Keeps, Outline, SharedPart},
    statement::Offer,
};

use tokio::sync::Semaphore;

use super::{
    ahead::Ahead,
    arrivals::{Arrivals, Arriving, To},
    points::{Point, Points},
    ranges::{self, Ask, Patience},
    retries::{get_accepted, get_from},
};

/// Ranges of one pack that are asked for at a time.
const PARALLEL: usize = 4;
/// Bytes of frames that may be on their way at a time: what is fetched again after an interruption.
const UNDER_WAY: u32 = 8 << 20;

/// Why a pack, or a part of it, is not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No point gave it.
    #[error("pack {pack} cannot be fetched")]
    Fetch {
        /// Which pack.
        pack: Digest,
        /// What the last point said.
        source: ranges::Error,
    },
    /// What came is not what was signed.
    #[error("pack {pack} is damaged wherever it was asked for ({frames} frames)")]
    Damaged {
        /// Which pack.
        pack: Digest,
        /// Frames that no point gave undamaged.
        frames: usize,
        /// What the last point gave.
        source: ranges::Error,
    },
    /// It cannot be read.
    #[error(transparent)]
    Pack(#[from] pack::Error),
    /// The file that collects frames cannot be used.
    #[error("the work file of a pack cannot be used")]
    Io(#[from] io::Error),
}

/// A pack at the points of its tree.
#[derive(Debug)]
pub struct Remote<'a> {
    /// Where it is asked for.
    pub points: &'a Points,
    /// Whose pack it is.
    pub tree: &'a TreeName,
    /// What the publisher signed about it.
    pub offer: &'a Offer,
    /// How patient transfers are.
    pub patience: Patience,
}

impl Remote<'_> {
    fn path(&self) -> String {
        origin::pack_path(self.tree, &self.offer.pack)
    }

    /// Where frames of the pack itself, or of a part of another object, are asked for.
    fn place<'b>(&self, part: Option<&'b SharedPart>) -> Place<'b> {
        match part {
            None => Place { path: self.path(), length: self.offer.length, part },
            Some(shared) => {
                let path = origin::shared_path(self.tree, &shared.name);
                Place { path, length: shared.object_len(), part }
            }
        }
    }

    /// The index: everything before the first frame, verified by the digest that the offer signs.
    pub async fn index(&self) -> Result<Index, Error> {
        self.index_from(self.points.all_in_order()).await
    }

    async fn index_from(&self, points: Vec<&Point>) -> Result<Index, Error> {
        let offer = self.offer;
        let accept = |bytes: Vec<u8>| {
            if Digest::of(&bytes) == offer.index { Ok(bytes) } else { Err("it is damaged") }
        };
        let bytes = self.part(points, 0..self.index_length()?, &accept).await?;
        self.parse(bytes)
    }

    fn index_length(&self) -> Result<u64, Error> {
        let length = self.offer.index_length;
        if length > pack::MAX_INDEX_BYTES || length > self.offer.length {
            return Err(pack::Error::TooLarge("1 GiB of index").into());
        }
        Ok(length)
    }

    fn parse(&self, bytes: Vec<u8>) -> Result<Index, Error> {
        let index = Index::parse(bytes, self.offer.index)?;
        self.check_lengths(&index)?;
        Ok(index)
    }

    /// The index, and the frames behind it on their way, for whoever is likely to need nearly all of
    /// them. `points` are those of this pack.
    pub async fn index_and_more(
        &self,
        points: &Arc<Points>,
    ) -> Result<(Index, Option<Ahead>), Error> {
        let length = self.index_length()?;
        let Some(first) = points.in_order().next() else {
            return Ok((self.index().await?, None));
        };
        let end = self.offer.length.min(length + MAX_RANGE);
        let ask = Ask { total: Some(self.offer.length), ..Ask::part(self.path(), 0..end) };
        let start = Instant::now();
        let mut ahead = Ahead::ask(points, first, ask, self.patience);
        let error = match ahead.exactly(length).await {
            Ok(bytes) if Digest::of(&bytes) == self.offer.index => {
                first.note_good(length, start.elapsed());
                return Ok((self.parse(bytes)?, Some(ahead)));
            }
            Ok(_) => {
                let url = format!("{}{}", first.base, self.path());
                ranges::Error::Wrong { url, what: "it is damaged" }
            }
            // It may well give it a moment later.
            Err(error) if error.is_transient() => return Ok((self.index().await?, None)),
            Err(error) => error,
        };
        first.note_failure(&error);
        let pack = self.offer.pack;
        if error.is_local() || first.is_relay() && matches!(error, ranges::Error::Missing { .. }) {
            return Err(Error::Fetch { pack, source: error });
        }
        let mut others = points.all_in_order();
        others.retain(|point| point.name != first.name);
        match self.index_from(others).await {
            // What the first one said says more.
            Err(Error::Fetch { source: ranges::Error::Missing { .. }, .. }) => {
                Err(Error::Fetch { pack, source: error })
            }
            found => Ok((found?, None)),
        }
    }

    /// What of the index concerns a site that keeps a part of the tree: all of it where that is hardly
    /// more. Every block is verified by the digest that the signed front names.
    ///
    /// A request is worth some bytes ([`JOINED_GAP_BYTES`]), and this way takes up to three more.
    pub async fn index_for(&self, from: &dyn Entries, keeps: Keeps<'_>) -> Result<Index, Error> {
        const MORE: u64 = 3 * JOINED_GAP_BYTES;
        let offer = self.offer;
        let Some(front) = offer.front.filter(|_| offer.index_length > 2 * MORE) else {
            return self.index().await;
        };
        if offer.index_length > pack::MAX_INDEX_BYTES || front.length > offer.index_length {
            return Err(pack::Error::TooLarge("1 GiB of index").into());
        }
        let accept = |bytes: Vec<u8>| {
            if Digest::of(&bytes) == front.digest { Ok(bytes) } else { Err("it is damaged") }
        };
        let points = self.points.all_in_order();
        let bytes = self.part(points, 0..front.length, &accept).await?;
        let mut outline = Outline::parse(&bytes, front.digest, offer.index_length)?;
        let mut ranges = tokio::task::block_in_place(|| outline.concerning(from, keeps))?;
        let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        if bytes + MORE > outline.block_bytes() {
            ranges = outline.all();
        }
        while !ranges.is_empty() {
            let mut fetching = Vec::with_capacity(ranges.len());
            for range in ranges {
                fetching.push(self.blocks(&outline, range));
            }
            let fetched: Vec<(u64, Vec<u8>)> =
                stream::iter(fetching).buffered(PARALLEL).try_collect().await?;
            for (start, bytes) in fetched {
                outline.admit(start, &bytes)?;
            }
            ranges = tokio::task::block_in_place(|| outline.referred_to(keeps))?;
        }
        let index = tokio::task::block_in_place(|| outline.finish())?;
        self.check_lengths(&index)?;
        Ok(index)
    }

    /// Blocks of the index.
    async fn blocks(&self, outline: &Outline, range: Range<u64>) -> Result<(u64, Vec<u8>), Error> {
        let start = range.start;
        let accept = |bytes: Vec<u8>| {
            if outline.is_right(start, &bytes) { Ok(bytes) } else { Err("it is damaged") }
        };
        Ok((start, self.part(self.points.all_in_order(), range, &accept).await?))
    }

    /// A part of the index that `accept` accepts.
    async fn part(
        &self,
        points: Vec<&Point>,
        range: Range<u64>,
        accept: &(dyn Fn(Vec<u8>) -> Result<Vec<u8>, &'static str> + Sync),
    ) -> Result<Vec<u8>, Error> {
        let ask = Ask { total: Some(self.offer.length), ..Ask::part(self.path(), range) };
        let fetched = get_accepted(points, &ask.optional(), self.patience, accept).await;
        let (bytes, _) =
            fetched.map_err(|source| Error::Fetch { pack: self.offer.pack, source })?;
        Ok(bytes)
    }

    fn check_lengths(&self, index: &Index) -> Result<(), Error> {
        let shared = index.shared().iter().map(|part| part.bytes).sum::<u64>();
        if index.pack_len() != self.offer.length || shared != self.offer.shared_length {
            return Err(pack::Error::TooLarge("the length that was signed").into());
        }
        Ok(())
    }

    /// Brings these frames into `file`, at the offsets that the index gives them, those of shared
    /// objects too; `progress` is told bytes as they come, and `arrivals` frames.
    ///
    /// Each range of frames goes from point to point by itself, and is left at the first frame that
    /// is not the signed one, so that a point that lies costs that frame once more and no other.
    /// What is on its way already is `ahead`; of that, what was not needed yet is left there.
    ///
    /// # Errors
    /// When some frame could not be had from any point; the others are in the file.
    pub async fn frames(
        &self,
        index: &Index,
        (numbers, ahead): (&[u32], &mut Option<Ahead>),
        file: &File,
        arrivals: &Arrivals,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Error> {
        let mut missing = frames_of(index, numbers)?;
        missing.retain(|frame| !is_there(file, frame));
        arrivals.wait_for(&missing);
        let absent = Absent::default();
        let room = Semaphore::new(UNDER_WAY as usize);
        // An answer that brings nothing of it is given up at once.
        let coming = ahead.take().map(|coming| (coming.brings(&missing), coming));
        let coming = coming.filter(|(brought, _)| !brought.is_empty());
        let (brought, coming) =
            coming.map_or((0..0, None), |(brought, by)| (brought, Some((by, ahead))));
        let others = [&missing[..brought.start], &missing[brought.end..]];
        let others = others.into_iter().flat_map(batches).map(|batch| (batch, None));
        let first = coming.map(|coming| (&missing[brought], Some(coming)));
        let mut fetching = Vec::new();
        for (batch, coming) in first.into_iter().chain(others) {
            let largest = batch.iter().map(|frame| frame.stored_len).max().unwrap_or(0);
            let turn = room.acquire_many(largest.min(UNDER_WAY));
            let place = self.place(batch.first().and_then(|frame| index.shared_part(frame)));
            let (absent, to) = (&absent, To { file, arrivals, progress });
            fetching.push(async move {
                // Nobody closes it.
                let _turn = turn.await;
                let result = self.batch(place, batch, coming, absent, to).await;
                // What no point gave is not waited for.
                arrivals.settle(batch);
                result
            });
        }
        let mut left = 0;
        let mut last = None;
        let mut results = stream::iter(fetching).buffer_unordered(PARALLEL);
        while let Some(result) = results.next().await {
            match result {
                Ok(()) => {}
                Err((_, error)) if error.is_local() => {
                    return Err(Error::Fetch { pack: self.offer.pack, source: error });
                }
                Err((frames, error)) => {
                    left += frames;
                    last = Some(error);
                }
            }
        }
        let pack = self.offer.pack;
        match last {
            None => Ok(()),
            Some(source @ (ranges::Error::Wrong { .. } | ranges::Error::Long { .. })) => {
                Err(Error::Damaged { pack, frames: left, source })
            }
            Some(source) => Err(Error::Fetch { pack, source }),
        }
    }

    /// Brings neighboring frames: from an answer that brings them already, and asking point after point
    /// for those that are still missing. Gives how many are, where there are any.
    async fn batch(
        &self,
        place: Place<'_>,
        mut frames: &[Frame],
        coming: Option<(Ahead, &mut Option<Ahead>)>,
        absent: &Absent,
        to: To<'_>,
    ) -> Result<(), (usize, ranges::Error)> {
        let mut asked: Vec<String> = Vec::new();
        let mut last = None;
        if let Some((mut coming, left)) = coming {
            let (verified, result) = coming.bring(frames, to).await;
            frames = &frames[verified..];
            match result {
                Ok(()) => *left = Some(coming),
                Err(error) if error.is_local() => return Err((frames.len(), error)),
                // It stood still while others worked, which is not its fault.
                Err(error) if error.is_transient() => {
                    tracing::debug!(error = crate::chain(&error), "frames are asked for once more");
                }
                Err(error) => {
                    if let Some(point) = coming.point() {
                        point.note_failure(&error);
                        asked.push(point.name.clone());
                    }
                    last = Some(error);
                }
            }
        }
        // The order is looked at anew for each: what another range saw counts at once.
        while let Some(point) = self.points.in_order().find(|point| !asked.contains(&point.name)) {
            let Some((first, end)) = frames.first().map(|f| f.offset).zip(frames.last().map(end))
            else {
                break;
            };
            asked.push(point.name.clone());
            if let Some(error) = absent.at(point, &place.path) {
                last = last.or(Some(error));
                match point.is_relay() {
                    // It has asked where the pack would be; other ways have the files.
                    true => break,
                    false => continue,
                }
            }
            let ask = place.ask(first..end);
            let mut arriving = Arriving::new(first, frames, to);
            let start = Instant::now();
            let result =
                get_from(point, &ask, self.patience, |piece| arriving.take(piece).map(drop));
            let result = result.await;
            frames = &frames[arriving.verified()..];
            match result {
                Ok(()) => point.note_good(end - first, start.elapsed()),
                Err(error) if error.is_local() => return Err((frames.len(), error)),
                Err(error) => {
                    let is_missing = matches!(error, ranges::Error::Missing { .. });
                    if is_missing {
                        absent.note(point, &place.path);
                    }
                    if last.is_none() || !matches!(error, ranges::Error::Missing { .. }) {
                        last = Some(error);
                    }
                    if is_missing && point.is_relay() {
                        break;
                    }
                }
            }
        }
        match last {
            Some(error) if !frames.is_empty() => Err((frames.len(), error)),
            None if !frames.is_empty() => {
                Err((frames.len(), ranges::Error::Missing { url: place.path }))
            }
            _ => Ok(()),
        }
    }
}

/// What has some frames: the pack, or an object that it shares with others.
struct Place<'a> {
    path: String,
    length: u64,
    part: Option<&'a SharedPart>,
}

impl Place<'_> {
    /// A request for what has these offsets among the pack's frames.
    fn ask(&self, offsets: Range<u64>) -> Ask {
        let range = match self.part {
            None => offsets,
            Some(part) => part.within(offsets.start)..part.within(offsets.end),
        };
        Ask { total: Some(self.length), ..Ask::part(self.path.clone(), range) }
    }
}

/// Points that do not have a pack, or an object of it: they are asked for it once.
#[derive(Debug, Default)]
struct Absent(Mutex<HashSet<String>>);

impl Absent {
    fn note(&self, point: &Point, path: &str) {
        let mut absent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        absent.insert(url(point, path));
    }

    fn at(&self, point: &Point, path: &str) -> Option<ranges::Error> {
        let absent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        absent.get(&url(point, path)).map(|url| ranges::Error::Missing { url: url.clone() })
    }
}

fn url(point: &Point, path: &str) -> String {
    format!("{}{path}", point.base)
}

/// Cuts frames into runs of neighbors, each of which is asked for by one range.
fn batches(frames: &[Frame]) -> Vec<&[Frame]> {
    let mut batches = Vec::new();
    let mut rest = frames;
    while let Some(first) = rest.first() {
        let joined = |pair: &[Frame]| {
            pair[1].offset.saturating_sub(end(&pair[0])) <= JOINED_GAP_BYTES
                && end(&pair[1]) - first.offset <= MAX_RANGE
        };
        let len = 1 + rest.windows(2).take_while(|pair| joined(pair)).count();
        let (batch, others) = rest.split_at(len);
        batches.push(batch);
        rest = others;
    }
    batches
}

/// Opens the file that collects the frames of a pack, in a private directory.
pub fn open_work_file(dir: &Path, pack: &Digest) -> io::Result<File> {
    std::fs::create_dir_all(dir)?;
    let path = dir.join(pack.hex());
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

/// Longest range that is asked for at once: a long one is cut so that parts come in parallel.
const MAX_RANGE: u64 = 64 << 20;

/// Where a frame ends in its pack.
pub(super) fn end(frame: &Frame) -> u64 {
    frame.offset + u64::from(frame.stored_len)
}

/// The frames of these numbers, as the index describes them.
pub(crate) fn frames_of(index: &Index, numbers: &[u32]) -> Result<Vec<Frame>, Error> {
    let mut frames = Vec::with_capacity(numbers.len());
    let mut around = (0, Vec::new());
    for &number in numbers {
        if number < around.0 || (number - around.0) as usize >= around.1.len() {
            around = index.frames_around(number)?;
        }
        frames.extend(around.1.get((number - around.0) as usize).cloned());
    }
    Ok(frames)
}

/// Whether the file has the frame's bytes, by their digest.
fn is_there(file: &File, frame: &Frame) -> bool {
    let mut bytes = vec![0; frame.stored_len as usize];
    file.read_exact_at(&mut bytes, frame.offset).is_ok() && Digest::of(&bytes) == frame.digest
}
