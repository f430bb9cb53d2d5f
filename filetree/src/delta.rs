//! Deltas: how the content of one file is made from old content and few new bytes.
//!
//! The network's links are thin and its mirrors many, so bytes are saved where it is cheap to
//! think: at the publisher, once. Which way saves most depends on what is at hand, so there are
//! several [encoders](protocol::pack::Encoder), each in a module of its own:
//!
//! - [`patch`] aligns the new version with the old one and compresses each segment with the
//!   aligned old bytes as prefix;
//! - [`group`] compresses small neighbors together with their old versions as prefix;
//! - [`rsync`] makes a librsync delta where only a signature of the old version is held;
//! - [`copy`] finds content that the old tree has under another name;
//! - [`inside`] puts the plain text of deflate streams (gzip, zip) in their place, for the others;
//! - [`whole`] compresses the content by itself, and tells what would not shrink;
//! - [`choose`] says which of them a file gets, against which old file, and at what level.
//!
//! What the first two compress against old content travels as [`differences`] where those are smaller.
//!
//! A delta that meets another base than it was made from can give wrong bytes without an error,
//! so nothing here is trusted: whoever uses a result compares its digest with the manifest.
//!
//! Files are read by range, never mapped: a mapped file that someone truncates kills the process.

pub mod choose;
pub mod copy;
pub mod differences;
pub mod frame;
pub mod group;
pub mod inside;
pub mod librsync;
pub mod patch;
pub mod rsync;
pub mod whole;

#[cfg(test)]
mod fuzz;

use std::{fs::File, io, os::unix::fs::FileExt};

/// Content that is read by range, from several threads.
pub trait ReadAt: Send + Sync {
    /// Reads some bytes at `offset` into the front of `buffer`; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Fills `buffer` with the bytes at `offset`.
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    buffer = &mut buffer[read..];
                    offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The `len` bytes at `offset`.
    fn range(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.get(at..)).unwrap_or(&[]);
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.as_slice().read_at(buffer, offset)
    }
}
