//! The `rsync` encoder: a librsync delta against a stored signature, in bounded memory.
//!
//! fast_rsync compares buffers, and files are larger than buffers may be. So the new file passes
//! through a window; each window is compared with the whole signature, and the commands of all
//! windows, joined, are one delta. What a window could not match at its end is kept for the next
//! one, so that a window's edge costs nothing.

mod find;

use std::{io, ops::Range};

use protocol::digest::{Digest, DigestWriter};

use self::find::Sums;
use super::{
    ReadAt,
    librsync::{self, Command},
};
use crate::signature::{self, Signature};

/// Bytes of the new file that are compared at once.
const WINDOW_BYTES: usize = 16 << 20;

/// Why there is no delta.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The signature is not usable.
    #[error(transparent)]
    Signature(#[from] signature::Error),
    /// The comparison gave nonsense.
    #[error("the delta could not be made: {0}")]
    Diff(String),
    /// The new file could not be read.
    #[error("the new content could not be read")]
    Io(#[from] io::Error),
    /// The caller's flag was set.
    #[error("the delta was canceled")]
    Canceled,
}

/// A delta that knows its commands, but not yet the literals' bytes.
#[derive(Debug, Clone)]
pub struct Delta {
    commands: Vec<Command>,
    /// Where each command begins in the delta; one more for the end.
    starts: Vec<u64>,
    /// Digest of the new file as it was read.
    pub new_digest: Digest,
    /// Digest of all literals, one after the other.
    pub literal_digest: Digest,
    /// Bytes of all literals.
    pub literal_bytes: u64,
}

impl Delta {
    /// Compares `new`, `len` bytes, with `signature`. `go_on` is asked between windows.
    pub fn new(
        signature: &Signature,
        new: &dyn ReadAt,
        len: u64,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Self, Error> {
        Self::with_window(signature, new, len, go_on, WINDOW_BYTES)
    }

    fn with_window(
        signature: &Signature,
        new: &dyn ReadAt,
        len: u64,
        go_on: &dyn Fn() -> bool,
        window: usize,
    ) -> Result<Self, Error> {
        let block = signature.block_size() as usize;
        let decoded = signature.decoded()?;
        let (index, sums) = (decoded.index(), Sums::of(signature));
        let window = window.max(2 * block);
        let mut buffer = vec![0; usize::try_from(len).unwrap_or(window).min(window)];
        let mut gathered = Gathered::new(signature);
        // `buffer[..kept]` is what the window before could not match; it lies at `at`.
        let (mut at, mut kept) = (0u64, 0);
        while at < len {
            if !go_on() {
                return Err(Error::Canceled);
            }
            let filled = (len - at).min(buffer.len() as u64) as usize;
            new.read_exact_at(&mut buffer[kept..filled], at + kept as u64)?;
            gathered.digest.update(&buffer[kept..filled]);
            let bytes = &buffer[..filled];
            let commands = sums.commands(&index, bytes)?;
            let last = at + filled as u64 == len;
            kept = gathered.add(&commands, bytes, at, if last { 0 } else { block - 1 });
            at += (filled - kept) as u64;
            buffer.copy_within(filled - kept..filled, 0);
        }
        Ok(gathered.finish())
    }

    /// The commands in order.
    pub fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// Bytes of the delta.
    pub fn len(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0) + librsync::TAIL.len() as u64
    }

    /// Never: a delta has a head and a tail.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// A range of the delta's bytes, and which of them are literals.
    pub fn range(
        &self,
        new: &dyn ReadAt,
        range: Range<u64>,
    ) -> io::Result<(Vec<u8>, Vec<Range<usize>>)> {
        let mut piece = Piece { range, bytes: Vec::new(), literals: Vec::new() };
        piece.add(&librsync::HEAD, 0);
        let first = self.starts.partition_point(|start| *start <= piece.range.start);
        for number in first.saturating_sub(1)..self.commands.len() {
            let start = self.starts[number];
            if start >= piece.range.end {
                break;
            }
            let command = self.commands[number];
            let head = command.head();
            piece.add(&head, start);
            if let Command::Literal { offset, len } = command {
                piece.add_literal(new, offset, len, start + head.len() as u64)?;
            }
        }
        piece.add(&librsync::TAIL, self.len() - librsync::TAIL.len() as u64);
        Ok((piece.bytes, piece.literals))
    }
}

/// Commands of the windows so far.
struct Gathered<'a> {
    signature: &'a Signature,
    commands: Vec<Command>,
    /// Where the old content goes on after the last copy, as far as what followed replaced as much.
    next_old: Option<u64>,
    digest: DigestWriter,
    literals: DigestWriter,
    literal_bytes: u64,
}

impl<'a> Gathered<'a> {
    fn new(signature: &'a Signature) -> Self {
        Self {
            signature,
            commands: Vec::new(),
            next_old: Some(0),
            digest: DigestWriter::new(),
            literals: DigestWriter::new(),
            literal_bytes: 0,
        }
    }

    /// Adds a window's commands, `window` being the bytes at `at`. Returns how many unmatched bytes
    /// at its end, at most `keep`, the next window should begin with.
    fn add(&mut self, commands: &[Command], window: &[u8], at: u64, keep: usize) -> usize {
        let mut done = 0usize;
        for (number, command) in commands.iter().enumerate() {
            let len = command.len() as usize;
            let next = match *command {
                Command::Copy { .. } => *command,
                Command::Literal { .. } => {
                    let kept = if number + 1 == commands.len() { keep.min(len) } else { 0 };
                    let len = len - kept;
                    let literal = &window[done..done + len];
                    self.literals.update(literal);
                    self.literal_bytes += len as u64;
                    if kept > 0 {
                        self.push(Command::Literal { offset: at + done as u64, len: len as u64 });
                        return kept;
                    }
                    Command::Literal { offset: at + done as u64, len: len as u64 }
                }
            };
            self.push(next);
            done += len;
        }
        0
    }

    fn push(&mut self, command: Command) {
        match command {
            Command::Copy { offset, len } => self.push_copy(offset, len),
            Command::Literal { len, .. } => {
                self.next_old = self.next_old.and_then(|at| at.checked_add(len));
                self.join(command);
            }
        }
    }

    /// Adds a copy. An old file that repeats itself, as the zeros of an image do, has many blocks like
    /// the one that was found: the one that goes on where the last copy ended makes a long run of what
    /// would be many short ones, each from the same place.
    fn push_copy(&mut self, offset: u64, len: u64) {
        let block = u64::from(self.signature.block_size());
        // Within something new of another length it goes on at the next whole block.
        let next = self.next_old.and_then(|at| at.checked_next_multiple_of(block));
        let next = next.unwrap_or(offset);
        let same = if next == offset { 0 } else { self.signature.equal_bytes(next, offset, len) };
        self.join(Command::Copy { offset: next, len: same });
        self.join(Command::Copy { offset: offset + same, len: len - same });
        let end = if same == len { next } else { offset };
        self.next_old = end.checked_add(len);
    }

    fn join(&mut self, command: Command) {
        if command.is_empty() || self.commands.last_mut().is_some_and(|last| last.join(command)) {
            return;
        }
        self.commands.push(command);
    }

    fn finish(self) -> Delta {
        let mut at = librsync::HEAD.len() as u64;
        let mut starts = vec![at];
        for command in &self.commands {
            at += command.delta_len();
            starts.push(at);
        }
        Delta {
            commands: self.commands,
            starts,
            new_digest: self.digest.finish(),
            literal_digest: self.literals.finish(),
            literal_bytes: self.literal_bytes,
        }
    }
}

/// A range of a delta that is being put together.
struct Piece {
    range: Range<u64>,
    bytes: Vec<u8>,
    literals: Vec<Range<usize>>,
}

impl Piece {
    /// Adds what of `bytes`, which lie at `at` of the delta, is in range.
    fn add(&mut self, bytes: &[u8], at: u64) {
        let start = self.range.start.saturating_sub(at).min(bytes.len() as u64) as usize;
        let end = self.range.end.saturating_sub(at).min(bytes.len() as u64) as usize;
        if start < end {
            self.bytes.extend_from_slice(&bytes[start..end]);
        }
    }

    /// Adds what of a literal of `len` bytes, which lies at `at` of the delta, is in range.
    fn add_literal(&mut self, new: &dyn ReadAt, offset: u64, len: u64, at: u64) -> io::Result<()> {
        let start = self.range.start.saturating_sub(at).min(len);
        let end = self.range.end.saturating_sub(at).min(len);
        if start < end {
            let before = self.bytes.len();
            self.bytes.resize(before + (end - start) as usize, 0);
            new.read_exact_at(&mut self.bytes[before..], offset + start)?;
            self.literals.push(before..self.bytes.len());
        }
        Ok(())
    }
}

/// The delta of a small file that is in memory, against the signature of `old_len` bytes.
pub fn small_delta(signature: &Signature, old_len: u64, new: &[u8]) -> Result<Vec<u8>, Error> {
    let decoded = signature.decoded()?;
    let mut diff = Vec::new();
    fast_rsync::diff(&decoded.index(), new, &mut diff)
        .map_err(|error| Error::Diff(error.to_string()))?;
    let mut commands = librsync::commands(&diff).map_err(|error| Error::Diff(error.to_string()))?;
    copy_tail(&mut commands, signature, old_len, new);
    let mut delta = librsync::HEAD.to_vec();
    let mut done = 0;
    for command in &commands {
        let end = done + command.len() as usize;
        delta.extend_from_slice(&command.head());
        if matches!(command, Command::Literal { .. }) {
            delta.extend_from_slice(&new[done..end]);
        }
        done = end;
    }
    delta.extend_from_slice(&librsync::TAIL);
    Ok(delta)
}

/// fast_rsync looks for full blocks. Old content that ends within one ends in a copy as well where
/// the new content ends alike: of a small file that is a good part.
fn copy_tail(commands: &mut Vec<Command>, signature: &Signature, old_len: u64, new: &[u8]) {
    let tail = old_len % u64::from(signature.block_size());
    let Some(Command::Literal { len, .. }) = commands.last_mut() else { return };
    if tail == 0 || *len < tail || !signature.ends_with(&new[new.len() - tail as usize..]) {
        return;
    }
    *len -= tail;
    if *len == 0 {
        commands.pop();
    }
    let copy = Command::Copy { offset: old_len - tail, len: tail };
    if !commands.last_mut().is_some_and(|last| last.join(copy)) {
        commands.push(copy);
    }
}

#[cfg(test)]
mod tests;
