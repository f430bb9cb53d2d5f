//! Frames that are asked for together with the index before them.
//!
//! Whoever keeps a whole tree and holds what a pack leads from needs nearly all of its frames. Asked for
//! when the index has been read and the update is planned, they would come a round trip later, over a
//! connection that has slowed down meanwhile. So one request asks for both, and the answer stays where
//! it is, in the connection's window, until it is known which frames are wanted: what nobody takes is
//! not sent, but for what fits into that window.

use std::{
    future::poll_fn,
    ops::Range,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Instant,
};

use protocol::pack::{Frame, JOINED_GAP_BYTES};

use super::{
    arrivals::{Arriving, To},
    pack::end,
    points::{Point, Points},
    ranges::{Ask, Error, Got, Patience, get, not_kept},
    retries::room_for,
};

type Transfer = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// An answer that begins with the index of a pack and goes on with frames.
pub struct Ahead {
    points: Arc<Points>,
    /// Name of the point that gives it.
    point: String,
    url: String,
    /// `None` when it has ended.
    transfer: Option<Transfer>,
    /// With what it ended, where that was not told yet.
    failed: Option<Error>,
    /// What came and was not taken yet.
    came: Arc<Mutex<Vec<u8>>>,
    /// Where in the pack what was not taken yet begins.
    at: u64,
    /// Where in the pack the answer ends.
    end: u64,
}

impl Ahead {
    /// Asks a point for the beginning of a pack. Nothing is sent before something is waited for.
    pub fn ask(points: &Arc<Points>, point: &Point, ask: Ask, patience: Patience) -> Self {
        let came = Arc::new(Mutex::new(Vec::new()));
        let (at, end) = (ask.range.start, ask.range.end);
        let url = format!("{}{}", point.base, ask.path);
        let (from, name, into) = (Arc::clone(points), point.name.clone(), Arc::clone(&came));
        let transfer = async move {
            let Some(point) = from.named(&name) else { return Ok(()) };
            get(point, &ask, patience, &mut Got::default(), |piece| {
                lock(&into).extend_from_slice(piece);
                Ok(())
            })
            .await
        };
        Self {
            points: Arc::clone(points),
            point: point.name.clone(),
            url,
            transfer: Some(Box::pin(transfer)),
            failed: None,
            came,
            at,
            end,
        }
    }

    /// Where it comes from.
    pub(super) fn point(&self) -> Option<&Point> {
        self.points.named(&self.point)
    }

    /// Bytes that are here and were not taken yet.
    fn waiting(&self) -> u64 {
        lock(&self.came).len() as u64
    }

    /// Has what is here and was not taken yet count as what came before a mark, or after it.
    pub fn count(&self, mark: &mut [u64], is_before: bool) {
        let bytes = i64::try_from(self.waiting()).unwrap_or(i64::MAX);
        self.points.shift(mark, &self.point, if is_before { bytes } else { -bytes });
    }

    /// The next bytes, as many as are there; `None` at the end.
    ///
    /// # Errors
    /// As [`get`]; after one there is nothing more.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let (transfer, came) = (&mut self.transfer, &self.came);
        let ended = poll_fn(|context| {
            if !lock(came).is_empty() {
                return Poll::Ready(None);
            }
            let Some(running) = transfer else { return Poll::Ready(Some(Ok(()))) };
            match running.as_mut().poll(context) {
                Poll::Ready(ended) => Poll::Ready(Some(ended)),
                Poll::Pending if lock(came).is_empty() => Poll::Pending,
                Poll::Pending => Poll::Ready(None),
            }
        })
        .await;
        if let Some(ended) = ended {
            (self.transfer, self.failed) = (None, ended.err().or(self.failed.take()));
        }
        let bytes = std::mem::take(&mut *lock(&self.came));
        self.at += bytes.len() as u64;
        match self.failed.take_if(|_| bytes.is_empty()) {
            Some(failed) => Err(failed),
            None => Ok(Some(bytes).filter(|bytes| !bytes.is_empty())),
        }
    }

    /// The next `length` bytes, together.
    ///
    /// # Errors
    /// As [`get`], also when it ends before.
    pub async fn exactly(&mut self, length: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = room_for(length);
        while let left @ 1.. = length - bytes.len() as u64 {
            // An answer that is too short has ended with an error.
            let Some(more) = self.next().await? else { break };
            let (wanted, rest) =
                more.split_at(more.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
            bytes.extend_from_slice(wanted);
            self.put_back(rest);
        }
        Ok(bytes)
    }

    /// Which of these frames, which are in order, it brings one after the other: they begin where it is,
    /// and what is not wanted between them is not worth another request.
    pub fn brings(&self, frames: &[Frame]) -> Range<usize> {
        let first = frames.partition_point(|frame| frame.offset < self.at);
        let mut at = self.at;
        let follows = |frame: &&Frame| {
            let gap = frame.offset.saturating_sub(at);
            at = end(frame);
            gap <= JOINED_GAP_BYTES && at <= self.end
        };
        first..first + frames[first..].iter().take_while(follows).count()
    }

    /// Brings frames that it said it would. Gives how many are there and verified, from the first, and
    /// with what it ended before the last.
    pub(super) async fn bring(
        &mut self,
        frames: &[Frame],
        to: To<'_>,
    ) -> (usize, Result<(), Error>) {
        let (start, at, waiting) = (Instant::now(), self.at, self.waiting());
        let mut arriving = Arriving::new(self.at, frames, to);
        while arriving.verified() < frames.len() {
            let piece = match self.next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => {
                    let (received, expected) = (self.at - at, self.end - at);
                    let short = Error::Short { url: self.url.clone(), received, expected };
                    return (arriving.verified(), Err(short));
                }
                Err(error) => return (arriving.verified(), Err(error)),
            };
            match arriving.take(&piece) {
                Ok(rest) => self.put_back(rest),
                Err(error) => return (arriving.verified(), Err(not_kept(&self.url, error))),
            }
        }
        if let Some(point) = self.point() {
            point.note_good((self.at - at).saturating_sub(waiting), start.elapsed());
        }
        (frames.len(), Ok(()))
    }

    /// Takes back the last bytes that it gave.
    fn put_back(&mut self, bytes: &[u8]) {
        self.at -= bytes.len() as u64;
        lock(&self.came).splice(0..0, bytes.iter().copied());
    }
}

impl std::fmt::Debug for Ahead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { point, at, end, .. } = self;
        f.debug_struct("Ahead").field("point", point).field("at", at).field("end", end).finish()
    }
}

fn lock(bytes: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    bytes.lock().unwrap_or_else(PoisonError::into_inner)
}
