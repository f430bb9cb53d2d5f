//! Opening what was sealed, as it comes: a range of it, or the whole.

use std::{io, ops::Range};

use aws_lc_rs::aead::Aad;
use protocol::{generation::Version, origin::Place, v1::keys::SecretKey};

use super::{CHUNK, HEADER_LEN, Header, ObjectKey, SEALED_CHUNK, TAG, nonce, sealed_len};

/// Which chunks have some bytes of an object, and where they lie when it is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunks {
    /// Number of the first.
    pub first: u64,
    /// Bytes of the sealed object, header not included.
    pub sealed: Range<u64>,
}

impl Chunks {
    /// Of the bytes `wanted` of an object that has `total` of them.
    pub fn of(wanted: &Range<u64>, total: u64) -> Self {
        let chunk = CHUNK as u64;
        let (first, end) = (wanted.start / chunk, wanted.end.div_ceil(chunk));
        let at = |number: u64| (HEADER_LEN as u64) + number * SEALED_CHUNK;
        Self { first, sealed: at(first)..at(end).min(sealed_len(total)) }
    }
}

/// Opens sealed bytes that come in order, and gives out what is wanted of them, chunk by chunk:
/// nothing that was not authenticated.
pub struct Opener<'a> {
    place: &'a Place,
    header: Option<Header>,
    key: Option<ObjectKey>,
    /// Of the chunk that comes next.
    number: u64,
    /// Length of the object, where that is known; else the last chunk is the one that is cut short.
    total: Option<u64>,
    /// Bytes of the object that are wanted.
    wanted: Range<u64>,
    buffer: Vec<u8>,
}

/// What became of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It was taken.
    Taken,
    /// The key of that generation has to be found first; the piece was not taken.
    NeedsKey(Version),
}

impl<'a> Opener<'a> {
    /// Of a whole object, from its header on, that has at most `most` bytes.
    pub fn whole(place: &'a Place, most: u64) -> Self {
        Self::new(place, None, 0, None, 0..most)
    }

    /// Of the bytes `wanted` of an object that has `total` of them. What is pushed begins with the
    /// header where that is `None` (and then the first chunk is that of number 0), else with the
    /// chunk that [`Chunks::of`] names first.
    pub fn part(place: &'a Place, header: Option<Header>, wanted: Range<u64>, total: u64) -> Self {
        let first = wanted.start / CHUNK as u64;
        Self::new(place, header, first, Some(total), wanted)
    }

    fn new(
        place: &'a Place,
        header: Option<Header>,
        number: u64,
        total: Option<u64>,
        wanted: Range<u64>,
    ) -> Self {
        let buffer = Vec::with_capacity(CHUNK + TAG);
        Self { place, header, key: None, number, total, wanted, buffer }
    }

    /// The header, once it came.
    pub fn header(&self) -> Option<Header> {
        self.header
    }

    /// Takes the next bytes. `keys` gives the key of a generation, where it is known.
    ///
    /// # Errors
    /// `InvalidData` for bytes that were not sealed so; whatever `out` fails with.
    pub fn push(
        &mut self,
        mut piece: &[u8],
        keys: &dyn Fn(Version) -> Option<SecretKey>,
        out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<Pushed> {
        while !piece.is_empty() {
            let length = match self.header {
                None => HEADER_LEN,
                Some(_) => self.sealed_length(),
            };
            let take = (length - self.buffer.len()).min(piece.len());
            self.buffer.extend_from_slice(&piece[..take]);
            piece = &piece[take..];
            if self.buffer.len() < length {
                break;
            }
            if self.header.is_none() {
                self.header = Some(Header::parse(&self.buffer).map_err(|_| damaged())?);
                self.buffer.clear();
            }
            if let Some(missing) = self.find_key(keys)? {
                return Ok(Pushed::NeedsKey(missing));
            }
            if self.buffer.len() == self.sealed_length() {
                let last = self.total.is_some_and(|total| self.number == total / CHUNK as u64);
                self.open(last, out)?;
            }
        }
        Ok(Pushed::Taken)
    }

    /// All has come: opens the last chunk of an object whose length was not known.
    ///
    /// # Errors
    /// `InvalidData` when the end is missing.
    pub fn finish(mut self, out: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        match self.total {
            Some(_) if self.buffer.is_empty() => Ok(()),
            None if self.buffer.len() >= TAG => self.open(true, out),
            _ => Err(damaged()),
        }
    }

    fn find_key(
        &mut self,
        keys: &dyn Fn(Version) -> Option<SecretKey>,
    ) -> io::Result<Option<Version>> {
        let Some(header) = self.header.filter(|_| self.key.is_none()) else { return Ok(None) };
        let Some(key) = keys(header.version) else { return Ok(Some(header.version)) };
        self.key = Some(ObjectKey::new(&key, self.place, &header).ok_or_else(damaged)?);
        Ok(None)
    }

    /// Sealed length of the next chunk; where the object's length is not known, of a full one.
    fn sealed_length(&self) -> usize {
        let begins = self.number.saturating_mul(CHUNK as u64);
        let left = self.total.map_or(u64::MAX, |total| total.saturating_sub(begins));
        usize::try_from(left).unwrap_or(CHUNK).min(CHUNK) + TAG
    }

    fn open(&mut self, last: bool, out: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let key = self.key.as_ref().ok_or_else(damaged)?;
        let (nonce, aad) = (nonce(self.number, last), Aad::from(&key.header));
        let opened = key.key.open_in_place(nonce, aad, &mut self.buffer).map_err(|_| damaged())?;
        let begins = self.number * CHUNK as u64;
        let ends = begins + opened.len() as u64;
        if self.total.is_none() && ends > self.wanted.end {
            return Err(damaged());
        }
        let wanted = self.wanted.start.max(begins)..self.wanted.end.min(ends);
        if wanted.start < wanted.end {
            let at = |n: u64| usize::try_from(n - begins).unwrap_or(usize::MAX);
            out(&opened[at(wanted.start)..at(wanted.end)])?;
        }
        self.number += 1;
        self.buffer.clear();
        Ok(())
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is damaged")
}
