//! An index that is fetched in parts.
//!
//! The front of a pack names every block of its index by range and digest, and the offer signs the
//! digest of the front. So a site that keeps a part of the tree fetches the front, then the blocks
//! that can concern it, each verified by itself, and what those refer to in other blocks.
//!
//! A block of operations concerns a site if an operation in it may be about something kept (the
//! directory says below which paths they are), or if something that is held lies between its
//! operations: what it is numbered in the new manifest depends on them.

use std::{collections::BTreeSet, ops::Range};

use super::{Index, read_ops};
use crate::{
    digest::Digest,
    manifest::Entries,
    pack::{
        Content, Error, Header, JOINED_GAP_BYTES, MAX_INDEX_BYTES, Op, coalesce,
        header::{BlockRef, Directory},
    },
    path::TreePath,
    wire::Malformed,
};

/// Whether a site keeps something: a path, and whether it is a directory.
pub type Keeps<'a> = &'a (dyn Fn(&TreePath, bool) -> bool + Sync);

/// The front of a pack, and the blocks of its index that are there so far.
#[derive(Clone)]
pub struct Outline {
    /// Missing blocks are zeros, which were never written to, so that they take no memory.
    bytes: Vec<u8>,
    header: Header,
    directory: Directory,
    ops: Vec<bool>,
    frames: Vec<bool>,
    /// Ranges are joined across so many bytes.
    gap: u64,
}

impl Outline {
    /// Reads the front of a pack, which must have the digest that the pack's offer names. It must
    /// be all of the front of an index of that length, and one that may be read in parts.
    pub fn parse(front: &[u8], expected: Digest, index_length: u64) -> Result<Self, Error> {
        let actual = Digest::of(front);
        if actual != expected {
            return Err(Error::WrongDigest { expected, actual });
        }
        let (header, directory, end) = Header::parse(front)?;
        let len = front.len() as u64;
        let misses = |bytes: u64| Malformed::Trailing { left: bytes as usize };
        if directory.front_len(end) != len {
            return Err(misses(len.abs_diff(directory.front_len(end))).into());
        }
        if end != index_length || end > MAX_INDEX_BYTES {
            return Err(misses(end.abs_diff(index_length)).into());
        }
        if !directory.placed {
            return Err(Error::Partial);
        }
        let mut bytes = vec![0; end as usize];
        bytes[..front.len()].copy_from_slice(front);
        let (ops, frames) = (vec![false; directory.ops.len()], vec![false; directory.frames.len()]);
        Ok(Self { bytes, header, directory, ops, frames, gap: JOINED_GAP_BYTES })
    }

    /// The same, asking for ranges apart where the gap between them is more than this.
    pub fn joining(self, gap: u64) -> Self {
        Self { gap, ..self }
    }

    /// What the pack leads from and to.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes of the blocks: all of the index but the front.
    pub fn block_bytes(&self) -> u64 {
        self.bytes.len() as u64 - self.directory.front_len(self.bytes.len() as u64)
    }

    /// The ranges of the pack that have the blocks of operations which concern whoever holds `from`
    /// and keeps what `keeps` says. Ranges are joined where a request would cost more than the gap.
    pub fn concerning(
        &self,
        from: &dyn Entries,
        keeps: Keeps<'_>,
    ) -> Result<Vec<Range<u64>>, Error> {
        let may_keep = |path: &TreePath| keeps(path, true) || keeps(path, false);
        let blocks = &self.directory.ops;
        let mut wanted: Vec<bool> = blocks
            .iter()
            .map(|named| named.within.is_empty() || named.within.iter().any(may_keep))
            .collect();
        let mut block = 0;
        for (position, entry) in from.each().enumerate() {
            let entry = entry?;
            let number = from.number_at(position as u64);
            while blocks.get(block).is_some_and(|named| named.from <= number) {
                block += 1;
            }
            if let Some(before) = block.checked_sub(1)
                && !wanted[before]
                && keeps(&entry.path, entry.is_dir())
            {
                wanted[before] = true;
            }
        }
        let mut refs: Vec<&BlockRef> = Vec::new();
        refs.extend(wanted.iter().zip(blocks).filter(|(w, _)| **w).map(|(_, named)| &named.block));
        // Few frames are not worth being asked for later.
        let frames = self.directory.frames.iter().map(|(_, block)| block);
        if frames.clone().map(|block| block.stored_len).sum::<u64>() <= self.gap {
            refs.extend(frames);
        }
        Ok(self.ranges(refs))
    }

    /// All of the index that is missing.
    pub fn all(&self) -> Vec<Range<u64>> {
        let ops = self.directory.ops.iter().zip(&self.ops).filter(|(_, here)| !**here);
        let frames = self.directory.frames.iter().zip(&self.frames).filter(|(_, here)| !**here);
        let ops = ops.map(|(named, _)| &named.block);
        self.ranges(ops.chain(frames.map(|((_, block), _)| block)).collect())
    }

    /// The ranges that have what the operations which are there, and keep something, refer to in
    /// missing blocks; none when nothing is missing any more.
    pub fn referred_to(&self, keeps: Keeps<'_>) -> Result<Vec<Range<u64>>, Error> {
        let (mut same, mut frames) = (BTreeSet::new(), BTreeSet::new());
        self.each_op(|_, op| {
            let Op::Put { entry, content: Some(content) } = op else { return };
            if keeps(&entry.path, entry.is_dir()) {
                frames.extend(content.frames());
                if let Content::Same { op } = content {
                    same.insert(*op);
                }
            }
        })?;
        self.each_op(|number, op| {
            if same.contains(&number)
                && let Some(content) = op.content()
            {
                frames.extend(content.frames());
            }
        })?;
        let mut refs: Vec<&BlockRef> = Vec::new();
        let mut first = 0;
        for (named, is_here) in self.directory.ops.iter().zip(&self.ops) {
            let numbers = first..first + named.block.count;
            first = numbers.end;
            if !is_here && same.range(numbers).next().is_some() {
                refs.push(&named.block);
            }
        }
        let mut first = 0;
        for ((_, block), is_here) in self.directory.frames.iter().zip(&self.frames) {
            let numbers = first..first + block.count as u32;
            first = numbers.end;
            if !is_here && frames.range(numbers).next().is_some() {
                refs.push(block);
            }
        }
        Ok(self.ranges(refs))
    }

    /// Whether `bytes`, which begin at `start` in the pack, are blocks that the front names there.
    pub fn is_right(&self, start: u64, bytes: &[u8]) -> bool {
        self.blocks_in(start, bytes).is_ok()
    }

    /// Takes the blocks that `bytes` are, which begin at `start` in the pack.
    ///
    /// # Errors
    /// One of them is not what the front names; then none is taken.
    pub fn admit(&mut self, start: u64, bytes: &[u8]) -> Result<(), Error> {
        let numbers = self.blocks_in(start, bytes)?;
        for number in numbers {
            match number.checked_sub(self.ops.len()) {
                None => self.ops[number] = true,
                Some(number) => self.frames[number] = true,
            }
        }
        let start = start as usize;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    /// The numbers of the blocks that `bytes` are, those of frames counted on from those of
    /// operations, each verified.
    fn blocks_in(&self, start: u64, mut bytes: &[u8]) -> Result<Range<usize>, Error> {
        let first = self.blocks().position(|block| block.offset == start);
        let first = first.ok_or(Malformed::Truncated { at: start as usize })?;
        let mut numbers = first..first;
        for block in self.blocks().skip(first) {
            if bytes.is_empty() {
                break;
            }
            let len = block.stored_len as usize;
            let (stored, rest) =
                bytes.split_at_checked(len).ok_or(Malformed::Truncated { at: bytes.len() })?;
            let (expected, actual) = (block.digest, Digest::of(stored));
            if actual != expected {
                return Err(Error::WrongDigest { expected, actual });
            }
            bytes = rest;
            numbers.end += 1;
        }
        match bytes.len() {
            0 => Ok(numbers),
            left => Err(Malformed::Trailing { left }.into()),
        }
    }

    /// All blocks in the order of the pack.
    fn blocks(&self) -> impl Iterator<Item = &BlockRef> {
        let ops = self.directory.ops.iter().map(|named| &named.block);
        ops.chain(self.directory.frames.iter().map(|(_, block)| block))
    }

    fn ranges(&self, blocks: Vec<&BlockRef>) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> =
            blocks.iter().map(|block| block.offset..block.offset + block.stored_len).collect();
        ranges.sort_unstable_by_key(|range| range.start);
        coalesce(ranges, self.gap)
    }

    /// Passes on every operation that is there, with its number.
    fn each_op(&self, mut act: impl FnMut(u64, &Op)) -> Result<(), Error> {
        let mut first = 0;
        for (named, is_here) in self.directory.ops.iter().zip(&self.ops) {
            if *is_here {
                let ops = read_ops(&self.bytes, &self.directory, named, self.header.from_entries)?;
                for (number, (op, _)) in (first..).zip(&ops) {
                    act(number, op);
                }
            }
            first += named.block.count;
        }
        Ok(())
    }

    /// The index, as far as it is there.
    ///
    /// # Errors
    /// Something in it is wrong.
    pub fn finish(self) -> Result<Index, Error> {
        let Self { bytes, header, directory, ops, frames, .. } = self;
        let is_whole = ops.iter().chain(&frames).all(|here| *here);
        let present = (!is_whole).then_some((ops, frames));
        Index::checked(bytes, header, directory, present)
    }
}

#[cfg(test)]
impl Outline {
    pub(in super::super) fn blocks_for_tests(&self) -> Vec<Range<u64>> {
        self.blocks().map(|block| block.offset..block.offset + block.stored_len).collect()
    }

    /// A block that is there is unpacked, damaged, packed again and named as it is now, behind all
    /// others.
    pub(in super::super) fn with_damaged_block(&self, random: &mut crate::mutate::Random) -> Self {
        let mut damaged = self.clone();
        let number = random.below(damaged.directory.ops.len());
        let block = &mut damaged.directory.ops[number].block;
        let mut raw = super::unpack(&self.bytes, block).unwrap();
        random.damage(&mut raw);
        let packed = crate::wire::compress(&raw, 1).unwrap();
        block.raw_len = raw.len() as u64;
        block.offset = damaged.bytes.len() as u64;
        block.stored_len = packed.len() as u64;
        block.digest = Digest::of(&packed);
        damaged.bytes.extend_from_slice(&packed);
        damaged
    }
}
