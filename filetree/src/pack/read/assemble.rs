//! Puts the deflate streams of a file together again.

use protocol::{
    pack::{MAX_PLAIN_BYTES, MAX_RECIPE_BYTES, NoDelta},
    wire::{Malformed, Reader},
};

use super::{Failure, Out};
use crate::{deflate::Recreator, delta::inside::DEFLATE};

/// Plain text of which streams are made at once.
const PIECE_BYTES: usize = 256 << 10;

/// Takes a recipe, then a content with its streams as plain text; gives the content.
///
/// Both may say anything: whatever comes out is bounded by the file's length and compared with its
/// digest.
pub(super) struct Assembler {
    recipe: Vec<u8>,
    recipe_len: usize,
    /// Where in the recipe the next stream is named, where those end, and where its corrections are.
    named_at: usize,
    named_end: usize,
    corrections_at: usize,
    state: State,
    /// Made for the first stream, used by all.
    recreator: Option<Box<Recreator>>,
    made: Vec<u8>,
}

enum State {
    Recipe,
    /// Bytes as they are before the next stream.
    Gap {
        left: u64,
        then: Named,
    },
    Stream {
        left: u64,
        stored_left: u64,
    },
    /// Bytes as they are after the last stream.
    End,
}

struct Named {
    plain_len: u64,
    stored_len: u64,
    corrections: usize,
}

impl Assembler {
    pub(super) fn new(recipe_len: u64) -> Result<Self, Failure> {
        let recipe_len = Some(recipe_len).filter(|len| *len <= MAX_RECIPE_BYTES);
        let recipe_len = recipe_len.and_then(|len| usize::try_from(len).ok());
        Ok(Self {
            recipe: Vec::new(),
            recipe_len: recipe_len.ok_or(NoDelta::Corrupt)?,
            named_at: 0,
            named_end: 0,
            corrections_at: 0,
            state: State::Recipe,
            recreator: None,
            made: Vec::new(),
        })
    }

    /// Takes more of the recipe or the content.
    pub(super) fn feed(&mut self, mut bytes: &[u8], out: &mut Out<'_>) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let taken = match &mut self.state {
                State::Recipe => {
                    let now = (self.recipe_len - self.recipe.len()).min(bytes.len());
                    self.recipe.extend_from_slice(&bytes[..now]);
                    now
                }
                State::Gap { left, .. } => {
                    let now = upto(*left, bytes.len());
                    out.write(&bytes[..now])?;
                    *left -= now as u64;
                    now
                }
                State::Stream { left, stored_left } => {
                    let now = upto(*left, bytes.len().min(PIECE_BYTES));
                    let recreator = self.recreator.get_or_insert_default();
                    let fed = recreator.feed(&bytes[..now], &mut self.made);
                    fed.map_err(|_| NoDelta::Corrupt)?;
                    *left -= now as u64;
                    pass(&mut self.made, stored_left, out)?;
                    now
                }
                State::End => {
                    out.write(bytes)?;
                    bytes.len()
                }
            };
            bytes = &bytes[taken..];
            self.settle(out)?;
        }
        Ok(())
    }

    /// Everything was fed.
    pub(super) fn finish(self) -> Result<(), Failure> {
        match self.state {
            State::End => Ok(()),
            _ => Err(NoDelta::Corrupt.into()),
        }
    }

    /// Goes on to the next part as long as the one at hand takes no more bytes.
    fn settle(&mut self, out: &mut Out<'_>) -> Result<(), Failure> {
        loop {
            self.state = match std::mem::replace(&mut self.state, State::End) {
                State::Recipe if self.recipe.len() == self.recipe_len => {
                    self.read_front().map_err(|_| NoDelta::Corrupt)?;
                    self.next().map_err(|_| NoDelta::Corrupt)?
                }
                State::Gap { left: 0, then } => {
                    let from = self.corrections_at;
                    self.corrections_at += then.corrections;
                    let corrections = self.recipe.get(from..self.corrections_at);
                    let corrections = corrections.ok_or(NoDelta::Corrupt)?.to_vec();
                    let recreator = self.recreator.get_or_insert_default();
                    recreator.start(corrections).map_err(|_| NoDelta::Corrupt)?;
                    State::Stream { left: then.plain_len, stored_left: then.stored_len }
                }
                State::Stream { left: 0, mut stored_left } => {
                    let recreator = self.recreator.get_or_insert_default();
                    recreator.finish(&mut self.made).map_err(|_| NoDelta::Corrupt)?;
                    pass(&mut self.made, &mut stored_left, out)?;
                    if stored_left > 0 {
                        return Err(NoDelta::Corrupt.into());
                    }
                    self.next().map_err(|_| NoDelta::Corrupt)?
                }
                state => {
                    self.state = state;
                    return Ok(());
                }
            };
        }
    }

    fn read_front(&mut self) -> Result<(), Malformed> {
        let mut reader = Reader::new(&self.recipe);
        if reader.byte()? != DEFLATE {
            return Err(reader.invalid("way of making streams"));
        }
        let named = reader.bytes("streams", MAX_RECIPE_BYTES)?.len();
        self.named_end = reader.position();
        self.named_at = self.named_end - named;
        self.corrections_at = self.named_end;
        Ok(())
    }

    fn next(&mut self) -> Result<State, Malformed> {
        let mut reader = Reader::starting_at(&self.recipe[..self.named_end], self.named_at);
        if reader.is_empty() {
            return Ok(State::End);
        }
        let left = reader.varint()?;
        let then = Named {
            plain_len: reader.varint_up_to("plain text", MAX_PLAIN_BYTES)?,
            stored_len: reader.varint_up_to("stream's length", MAX_PLAIN_BYTES)?,
            corrections: reader.varint_up_to("corrections", MAX_RECIPE_BYTES)? as usize,
        };
        self.named_at = reader.position();
        Ok(State::Gap { left, then })
    }
}

fn upto(left: u64, len: usize) -> usize {
    len.min(usize::try_from(left).unwrap_or(usize::MAX))
}

/// Passes on what was made of a stream that may have `left` bytes more.
fn pass(made: &mut Vec<u8>, left: &mut u64, out: &mut Out<'_>) -> Result<(), Failure> {
    *left = left.checked_sub(made.len() as u64).ok_or(NoDelta::Corrupt)?;
    out.write(made)?;
    made.clear();
    Ok(())
}
