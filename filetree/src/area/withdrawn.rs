//! Paths that a generation removed and that stay readable for a while.
//!
//! *The problem.* A client reads an index and then, for minutes, the files that it names. When the
//! next generation removes some of them, the client gets errors although it did nothing wrong.
//!
//! *The answer.* What a plan removes stays in the tree as an entry like any other, with a time.
//! Which entries these are is a file of its own beside the marks, named in them: the save of the
//! marks that makes a generation the applied one makes its list the true one, in one step. So a
//! list never speaks of a tree that is not there, whenever power is lost.

use protocol::{
    manifest::{Block, BlockBuilder, Entry},
    wire::{Malformed, Reader, Writer},
};
use serde::{Deserialize, Serialize};

use super::{Area, Error};
use crate::{
    plan::{Plan, Withdrawn},
    record,
};

/// What the names of the lists begin with; a number follows.
const LIST: &str = "withdrawn-";
const MAGIC: &[u8] = b"MNGONE\x01\0";

/// The list of what stays readable in the live tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct WithdrawnMark {
    /// The file below the work directory.
    pub(crate) list: String,
    /// When the first of them goes, in seconds since 1970.
    pub(crate) first: i64,
}

impl Area {
    /// When the next removed path that is still readable is to go, in seconds since 1970: plan and
    /// switch to the applied generation then.
    pub fn next_withdrawal(&self) -> Option<i64> {
        Some(self.marks.withdrawn.as_ref()?.first)
    }

    /// How many removed paths are still readable.
    pub fn withdrawn_entries(&self) -> Result<u64, Error> {
        Ok(self.withdrawn()?.len() as u64)
    }

    /// What the live tree has beside its generation.
    pub(crate) fn withdrawn(&self) -> Result<Vec<Withdrawn>, Error> {
        let Some(mark) = &self.marks.withdrawn else { return Ok(Vec::new()) };
        let damaged = match record::load(&self.work, &mark.list) {
            Ok(Some(body)) => match decode(&body) {
                Ok(list) => return Ok(list),
                Err(error) => error.to_string(),
            },
            Ok(None) => "it is gone".to_owned(),
            Err(record::Error::Damaged { .. }) => "it was cut short or altered".to_owned(),
            Err(error) => return Err(error.into()),
        };
        // They are extras then, which a scrub finds; no reason to stop updating the tree.
        tracing::warn!(list = mark.list, damaged, "the list of removed paths cannot be used");
        Ok(Vec::new())
    }

    /// Writes down, durably, what stays readable after a switch at `now`; true once the marks name
    /// it.
    pub(crate) fn save_withdrawn(
        &mut self,
        plan: &Plan,
        now: i64,
    ) -> Result<Option<WithdrawnMark>, Error> {
        let withdrawn = plan.withdrawn_at(now);
        let Some(first) = withdrawn.iter().filter_map(|w| w.until).min() else { return Ok(None) };
        let list = format!("{LIST}{}", self.marks.next_tree);
        // Saved together with the name, so a list that the marks name is never written again.
        self.marks.next_tree += 1;
        let damaged = |error: protocol::manifest::Error| Error::Damaged {
            path: self.work.path().join(&list),
            why: error.to_string(),
        };
        let body = encode(&withdrawn);
        // What cannot be read again must not be relied upon.
        decode(&body).map_err(damaged)?;
        record::save(&self.work, &list, &body)?;
        Ok(Some(WithdrawnMark { list, first }))
    }

    /// Removes the lists that are no longer, or not yet, true.
    pub(crate) fn drop_old_withdrawn(&self) -> Result<(), Error> {
        let current = self.marks.withdrawn.as_ref().map(|mark| mark.list.as_bytes());
        for entry in self.work.entries()? {
            if entry.name.starts_with(LIST.as_bytes()) && current != Some(&entry.name) {
                self.work.unlink(&entry.name)?;
            }
        }
        Ok(())
    }
}

fn encode(list: &[Withdrawn]) -> Vec<u8> {
    let mut out = Writer::new();
    out.raw(MAGIC).varint(list.len() as u64);
    for withdrawn in list {
        out.signed(withdrawn.until.unwrap_or(i64::MAX));
    }
    let mut builder = BlockBuilder::default();
    let mut blocks: Vec<Block> =
        list.iter().filter_map(|withdrawn| builder.push(&withdrawn.entry)).collect();
    blocks.extend(builder.finish());
    for block in blocks {
        out.bytes(block.bytes());
    }
    out.into_bytes()
}

fn decode(bytes: &[u8]) -> Result<Vec<Withdrawn>, protocol::manifest::Error> {
    let mut reader = Reader::new(bytes);
    reader.magic(MAGIC, "a list of removed paths")?;
    let count = reader.varint_up_to("removed paths", protocol::manifest::MAX_ENTRIES)?;
    let mut times = Vec::new();
    for _ in 0..count {
        times.push(reader.signed()?);
    }
    let mut entries: Vec<Entry> = Vec::new();
    while !reader.is_empty() {
        let block = reader.bytes("a block", protocol::manifest::MAX_BLOCK_BYTES)?;
        entries.extend(Block::parse(block.to_vec())?.entries()?);
    }
    let ordered = entries.is_sorted_by(|a, b| a.path < b.path);
    if entries.len() != times.len() || !ordered {
        return Err(Malformed::Invalid { what: "removed paths", at: bytes.len() }.into());
    }
    let pairs = entries.into_iter().zip(times);
    Ok(pairs.map(|(entry, until)| Withdrawn { entry, until: Some(until) }).collect())
}
