//! Plain text of deflate streams in old files.

use std::io;

use protocol::pack::{NoDelta, Stream};

use super::Bases;
use crate::{
    deflate,
    delta::{ReadAt, inside::Range},
    fs,
};

/// Plain text of one stream that is kept in memory; more goes into a file without a name.
const MEMORY_BYTES: u64 = 16 << 20;
/// Plain text that may be made for each byte of results, and in any case: a pack that names one
/// stream after the other could keep a mirror busy for ever.
const PLAIN_FACTOR: u64 = 64;
const PLAIN_FLOOR: u64 = 256 << 20;
/// Bytes that are written to a file at once.
const WRITE_BYTES: usize = 256 << 10;

/// Inflates streams, and keeps the last one: most that is made from a stream follows in its order.
pub(super) struct Streams<'a> {
    bases: &'a dyn Bases,
    last: Option<(u64, Stream, Plain)>,
    left_bytes: u64,
}

enum Plain {
    Memory(Vec<u8>),
    File(fs::File),
}

impl<'a> Streams<'a> {
    /// For files of so many bytes together.
    pub(super) fn new(bases: &'a dyn Bases, result_bytes: u64) -> Self {
        let left_bytes = result_bytes.saturating_mul(PLAIN_FACTOR).saturating_add(PLAIN_FLOOR);
        Self { bases, last: None, left_bytes }
    }

    /// The plain text of a stream in entry `number` of the `from` manifest.
    pub(super) fn open(&mut self, number: u64, stream: Stream) -> Result<&dyn ReadAt, NoDelta> {
        let is_last = |last: &(u64, Stream, Plain)| last.0 == number && last.1 == stream;
        let last = match self.last.take().filter(is_last) {
            Some(last) => last,
            None => {
                let left = self.left_bytes.checked_sub(stream.plain_len);
                self.left_bytes = left.ok_or(NoDelta::OverLimit)?;
                (number, stream, self.inflate(number, stream)?)
            }
        };
        Ok(match &self.last.insert(last).2 {
            Plain::Memory(bytes) => bytes,
            Plain::File(file) => file,
        })
    }

    fn inflate(&self, number: u64, stream: Stream) -> Result<Plain, NoDelta> {
        let file = super::open(self.bases, number)?;
        let source = Range { file: &*file, at: stream.at, left: stream.stored_len };
        let (plain, stored) = if stream.plain_len <= MEMORY_BYTES {
            // Grows as it comes: what is declared may not be there.
            let mut plain = Vec::new();
            let stored = deflate::inflate(source, stream.plain_len, &mut |bytes| {
                plain.extend_from_slice(bytes);
                Ok(())
            });
            (Plain::Memory(plain), stored)
        } else {
            let scratch = self.bases.scratch().ok().flatten().ok_or(NoDelta::OverLimit)?;
            let (mut at, mut waiting) = (0, Vec::new());
            let mut write = |bytes: &[u8]| {
                scratch.write_at(at, bytes).map_err(|error| error.source)?;
                at += bytes.len() as u64;
                Ok::<(), io::Error>(())
            };
            let stored = deflate::inflate(source, stream.plain_len, &mut |bytes| {
                waiting.extend_from_slice(bytes);
                if waiting.len() >= WRITE_BYTES {
                    write(&waiting)?;
                    waiting.clear();
                }
                Ok(())
            });
            let stored = stored.and_then(|lens| write(&waiting).map(|()| lens));
            (Plain::File(scratch), stored)
        };
        match stored {
            Ok(lens) if lens == (stream.stored_len, stream.plain_len) => Ok(plain),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                tracing::warn!(
                    bytes = stream.plain_len,
                    "the disk has no room for the plain text of an old file; what needs it comes another way"
                );
                Err(NoDelta::OverLimit)
            }
            _ => Err(NoDelta::WrongBase),
        }
    }
}
