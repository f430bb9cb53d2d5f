//! A file with some of its streams replaced by their plain text.

use std::{fs, io, ops::Range, os::unix::fs::FileExt};

use protocol::pack::Stream;

use super::{File, ReadAt};

/// Where plain text is kept.
#[derive(Debug)]
pub enum Store {
    /// In memory, at most so many bytes.
    Memory(usize),
    /// In a file, which has nothing else.
    File(fs::File),
}

/// A view: bytes of a file and of the plain text of its streams, in the order of the file.
pub struct View {
    file: Box<dyn ReadAt>,
    plain: Plain,
    /// Bytes before everything else.
    front: Vec<u8>,
    /// In the order of the view, without gaps.
    pieces: Vec<Piece>,
    len: u64,
}

/// Where some bytes of a view are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Bytes of the file.
    File {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Bytes of the plain text of a stream in it.
    Inside {
        /// Which stream.
        stream: Stream,
        /// First byte of the plain text.
        offset: u64,
        /// Bytes.
        len: u64,
    },
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    /// Where in the view.
    at: u64,
    len: u64,
    from: From,
}

#[derive(Debug, Clone, Copy)]
enum From {
    Front,
    File { offset: u64 },
    Plain { stored_at: u64, stream: Stream },
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("pieces", &self.pieces).finish_non_exhaustive()
    }
}

impl View {
    /// Bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where a range of it is.
    pub fn parts(&self, range: Range<u64>) -> impl Iterator<Item = Part> {
        self.within(range).filter_map(|(piece, within)| {
            let (offset, len) = (within.start, within.end - within.start);
            match piece.from {
                From::Front => None,
                From::File { offset: begin } => Some(Part::File { offset: begin + offset, len }),
                From::Plain { stream, .. } => Some(Part::Inside { stream, offset, len }),
            }
        })
    }

    /// The pieces that a range has a part in, and which part of each.
    fn within(&self, range: Range<u64>) -> impl Iterator<Item = (&Piece, Range<u64>)> {
        let first = self.pieces.partition_point(|piece| piece.at + piece.len <= range.start);
        let end = range.end;
        self.pieces[first..].iter().take_while(move |piece| piece.at < end).map(move |piece| {
            let start = range.start.saturating_sub(piece.at);
            (piece, start..(range.end - piece.at).min(piece.len))
        })
    }
}

impl ReadAt for View {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let end = offset.saturating_add(buffer.len() as u64).min(self.len);
        let mut at = 0;
        for (piece, within) in self.within(offset..end) {
            let len = (within.end - within.start) as usize;
            let part = &mut buffer[at..at + len];
            match piece.from {
                From::Front => {
                    part.copy_from_slice(&self.front[within.start as usize..within.end as usize]);
                }
                From::File { offset } => self.file.read_exact_at(part, offset + within.start)?,
                From::Plain { stored_at, .. } => {
                    self.plain.read_exact_at(part, stored_at + within.start)?;
                }
            }
            at += len;
        }
        Ok(at)
    }
}

enum Plain {
    Memory(Vec<u8>, usize),
    File(fs::File),
}

impl ReadAt for Plain {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::Memory(bytes, _) => bytes.read_at(buffer, offset),
            Self::File(file) => ReadAt::read_at(file, buffer, offset),
        }
    }
}

/// A view that is being put together.
pub(super) struct Builder {
    plain: Plain,
    stored: u64,
    pieces: Vec<Piece>,
    len: u64,
    /// Bytes of the file that are in the view, as they are or otherwise.
    covered: u64,
    /// Plain text that belongs to a stream already.
    owned: u64,
}

impl Builder {
    pub(super) fn new(store: Store) -> Self {
        let plain = match store {
            Store::Memory(limit) => Plain::Memory(Vec::new(), limit),
            Store::File(file) => Plain::File(file),
        };
        Self { plain, stored: 0, pieces: Vec::new(), len: 0, covered: 0, owned: 0 }
    }

    /// Bytes of plain text that were written.
    pub(super) fn stored(&self) -> u64 {
        self.stored
    }

    /// Bytes of the file up to the end of the last stream.
    pub(super) fn covered(&self) -> u64 {
        self.covered
    }

    /// Keeps plain text of the next stream.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.plain {
            // As good as no stream: it is left as it is.
            Plain::Memory(plain, limit) if plain.len() + bytes.len() > *limit => {
                return Err(io::ErrorKind::InvalidData.into());
            }
            Plain::Memory(plain, _) => plain.extend_from_slice(bytes),
            Plain::File(file) => file.write_all_at(bytes, self.stored)?,
        }
        self.stored += bytes.len() as u64;
        Ok(())
    }

    /// Forgets the plain text from `stored` on.
    pub(super) fn forget(&mut self, stored: u64) {
        if let Plain::Memory(plain, _) = &mut self.plain {
            plain.truncate(stored as usize);
        }
        self.stored = stored;
    }

    /// All plain text that was written since the last stream is that of this one.
    pub(super) fn push(&mut self, stream: Stream) {
        self.push_file(stream.at);
        let from = From::Plain { stored_at: self.owned, stream };
        self.add(stream.plain_len, from);
        self.covered = stream.at + stream.stored_len;
        self.owned = self.stored;
    }

    fn push_file(&mut self, end: u64) {
        self.add(end - self.covered, From::File { offset: self.covered });
    }

    fn add(&mut self, len: u64, from: From) {
        if len > 0 {
            self.pieces.push(Piece { at: self.len, len, from });
            self.len += len;
        }
    }

    /// The view of `file`, behind some bytes.
    pub(super) fn finish(mut self, front: Vec<u8>, file: File) -> View {
        self.push_file(file.len);
        let shift = front.len() as u64;
        self.pieces.iter_mut().for_each(|piece| piece.at += shift);
        if shift > 0 {
            self.pieces.insert(0, Piece { at: 0, len: shift, from: From::Front });
        }
        let (plain, pieces, len) = (self.plain, self.pieces, self.len + shift);
        View { file: file.content, plain, front, pieces, len }
    }
}
