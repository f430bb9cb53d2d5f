//! Packs: the index first, then only the frames that are needed, each verified as it arrives.
//!
//! Frames lie in a sparse file at the offsets that they have in the pack. A frame is there when
//! its bytes have its digest, and only then, so a run that was interrupted, by anything, goes on
//! with what it has, and no list of what was fetched has to be kept or believed.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use futures_util::{StreamExt, stream};
use protocol::{
    digest::Digest,
    name::TreeName,
    origin,
    pack::{self, Frame, Index, JOINED_GAP_BYTES, coalesce},
    statement::Offer,
};

use super::{
    points::{Point, Points},
    ranges::{self, Ask, Patience},
    retries::{get_accepted, get_from},
};

/// Ranges of one pack that are asked for at a time.
const PARALLEL: usize = 4;

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

    /// The index: everything before the first frame, verified by the digest that the offer signs.
    pub async fn index(&self) -> Result<Index, Error> {
        let offer = self.offer;
        let length = offer.index_length;
        if length > pack::MAX_INDEX_BYTES || length > offer.length {
            return Err(pack::Error::TooLarge("1 GiB of index").into());
        }
        let ask = Ask { total: Some(offer.length), ..Ask::part(self.path(), 0..length) };
        let accept = |bytes: Vec<u8>| {
            if Digest::of(&bytes) == offer.index { Ok(bytes) } else { Err("it is damaged") }
        };
        let fetched = get_accepted(self.points, &ask, self.patience, accept).await;
        let (bytes, _) = fetched.map_err(|source| Error::Fetch { pack: offer.pack, source })?;
        let index = Index::parse(bytes, offer.index)?;
        if index.pack_len() != offer.length {
            return Err(pack::Error::TooLarge("the length that was signed").into());
        }
        Ok(index)
    }

    /// Brings these frames into `file`; `progress` is told bytes as they come.
    ///
    /// # Errors
    /// When some frame could not be had from any point; the others are in the file.
    pub async fn frames(
        &self,
        index: &Index,
        numbers: &[u32],
        file: &File,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Error> {
        let mut missing = frames_of(index, numbers)?;
        missing.retain(|frame| !is_there(file, frame));
        let mut last = None;
        for point in self.points.in_order() {
            if missing.is_empty() {
                break;
            }
            let ranges = missing.iter().map(|frame| frame.offset..end(frame)).collect();
            let ranges = split(coalesce(ranges, JOINED_GAP_BYTES));
            let mut fetching = Vec::with_capacity(ranges.len());
            for range in ranges {
                fetching.push(self.range(point, range, file, progress));
            }
            let mut results = stream::iter(fetching).buffer_unordered(PARALLEL);
            while let Some(result) = results.next().await {
                match result {
                    Err(error) if error.is_local() => {
                        return Err(Error::Fetch { pack: self.offer.pack, source: error });
                    }
                    Err(error) => last = Some(error),
                    Ok(()) => {}
                }
            }
            let before = missing.len();
            missing.retain(|frame| !is_there(file, frame));
            if missing.len() == before {
                point.note_failure();
            }
        }
        match (missing.len(), last) {
            (0, _) => Ok(()),
            (_, Some(source)) => Err(Error::Fetch { pack: self.offer.pack, source }),
            (frames, None) => Err(Error::Damaged { pack: self.offer.pack, frames }),
        }
    }

    async fn range(
        &self,
        point: &Point,
        range: Range<u64>,
        file: &File,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), ranges::Error> {
        let at = AtomicU64::new(range.start);
        let ask = Ask { total: Some(self.offer.length), ..Ask::part(self.path(), range) };
        get_from(point, &ask, self.patience, |piece| {
            file.write_all_at(piece, at.fetch_add(piece.len() as u64, Ordering::Relaxed))?;
            progress(piece.len() as u64);
            Ok(())
        })
        .await
    }
}

/// Opens the file that collects the frames of a pack, in a private directory.
pub fn open_work_file(dir: &Path, pack: &Digest) -> io::Result<File> {
    std::fs::create_dir_all(dir)?;
    let path = dir.join(pack.hex());
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

/// Longest range that is asked for at once: a long one is cut so that parts come in parallel.
const MAX_RANGE: u64 = 64 << 20;

fn split(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let cut = |range: Range<u64>| {
        let starts = range.clone().step_by(MAX_RANGE as usize);
        starts.map(move |start| start..(start + MAX_RANGE).min(range.end))
    };
    ranges.into_iter().flat_map(cut).collect()
}

fn end(frame: &Frame) -> u64 {
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
