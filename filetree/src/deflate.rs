//! Deflate streams, taken apart and put together again bit by bit.
//!
//! Most of what mirrors carry is compressed already: wheels, jars, tarballs, indexes. One changed
//! line changes every byte of a deflate stream behind it, so deltas of such files find next to
//! nothing in common. Their plain texts have nearly everything in common. But a mirror must have
//! the very bytes that were published, and many programs make many streams of one plain text.
//!
//! Nearly all of them are zlib or gzip, or take over how those search. So a stream is its plain
//! text and [corrections](split): what a [predictor](predict) that does as zlib does gets wrong. For
//! what zlib and gzip made themselves, that is a few bytes for every 16,000 tokens.
//!
//! Corrections are a format (see `docs/reference/formats.md`): what [`Recreator`] makes of plain
//! text and corrections never changes. Whoever uses it compares a digest all the same.

mod bits;
mod chains;
mod huffman;
mod parse;
mod predict;
mod recreate;
mod split;
mod token;
mod write;

#[cfg(test)]
mod tests;

pub use self::{
    recreate::Recreator,
    split::{Split, Splitter},
};

use std::io::{self, Read};

/// Passes on the plain text of the stream at the beginning of `source`, at most `limit` bytes;
/// returns how many bytes the stream has, and its plain text.
///
/// # Errors
/// `InvalidData` where it is no deflate stream or has more plain text; `UnexpectedEof` where it is cut
/// short; whatever `sink` and `source` give.
pub fn inflate(
    source: impl Read,
    limit: u64,
    sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<(u64, u64)> {
    parse::inflate(source, limit, sink)
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no deflate stream, or not the one that was named")
}
