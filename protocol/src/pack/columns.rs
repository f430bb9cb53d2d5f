//! Columns: how a block of the index is laid out.
//!
//! Each kind of field has a column of its own, because like next to like compresses best. A block
//! is the columns in order, each with its length before it, but the last. Places are there only in
//! blocks of operations of an index that says them.

use super::Error;
use crate::wire::{Malformed, Reader, Writer};

/// One value per column.
#[derive(Debug, Default)]
pub(super) struct Columns<T> {
    /// Paths and link targets.
    pub(super) paths: T,
    /// Modification times.
    pub(super) times: T,
    /// Kinds, modes, sizes, link groups.
    pub(super) fields: T,
    /// Where content comes from: slices, base ranges.
    pub(super) content: T,
    /// Where operations stand between the manifests.
    pub(super) places: T,
    /// Digests.
    pub(super) digests: T,
}

impl Columns<Writer> {
    /// Bytes of all columns.
    pub(super) fn len(&self) -> usize {
        let Self { paths, times, fields, content, places, digests } = self;
        [paths, times, fields, content, places, digests].iter().map(|column| column.len()).sum()
    }

    /// The block's bytes; with the column of places where there is one.
    pub(super) fn into_bytes(self, has_places: bool) -> Vec<u8> {
        let mut block = Writer::new();
        for column in [self.paths, self.times, self.fields, self.content] {
            block.bytes(&column.into_bytes());
        }
        if has_places {
            block.bytes(&self.places.into_bytes());
        }
        block.raw(&self.digests.into_bytes());
        block.into_bytes()
    }
}

impl<'a> Columns<Reader<'a>> {
    /// Reads what [`Columns::into_bytes`] wrote.
    pub(super) fn parse(block: &'a [u8], has_places: bool) -> Result<Self, Error> {
        let mut reader = Reader::new(block);
        let mut column = || -> Result<Reader<'a>, Malformed> {
            Ok(Reader::new(reader.bytes("column", block.len() as u64)?))
        };
        let (paths, times, fields, content) = (column()?, column()?, column()?, column()?);
        let places = if has_places { column()? } else { Reader::new(&[]) };
        let digests = Reader::new(&block[reader.position()..]);
        Ok(Self { paths, times, fields, content, places, digests })
    }

    /// Ends the reading: nothing may be left.
    pub(super) fn finish(self) -> Result<(), Malformed> {
        let Self { paths, times, fields, content, places, digests } = self;
        [paths, times, fields, content, places, digests].into_iter().try_for_each(Reader::finish)
    }
}
