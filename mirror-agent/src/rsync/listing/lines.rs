//! Lines become a listing: in path order, whatever order they came in.
//!
//! So many of them are sorted in memory; what was sorted goes to the disk, and in the end all such
//! parts are read side by side.

use std::{cmp::Reverse, collections::BinaryHeap, path::Path, sync::Arc};

use protocol::{
    filter::Filter,
    manifest::{self, Each, Entries, Entry, MAX_ENTRIES, StoredManifest},
    path::{TreePath, escape},
};

use super::{
    Error, Listing, MAX_LINE, MAX_TEXT_BYTES, Refused,
    line::{Line, parse_line},
};
use crate::spool::{Spool, text_bytes};

/// Entries that are sorted together, and bytes of their names.
const PART_ENTRIES: usize = 16_384;
const PART_BYTES: usize = 16 << 20;

/// What was read of a listing so far.
#[derive(Debug)]
pub struct Lines {
    filter: Filter,
    spool: Arc<Spool>,
    /// What came since the last part was sorted, and the bytes of its names.
    part: Vec<Entry>,
    part_bytes: usize,
    /// Sorted parts, the first first.
    parts: Vec<StoredManifest>,
    count: u64,
    text_bytes: u64,
    refused: Refused,
}

impl Lines {
    /// Begins a listing of what `filter` keeps, on the disk of `work`, a private directory.
    pub fn begin(filter: &Filter, work: &Path) -> Result<Self, Error> {
        Ok(Self {
            filter: filter.clone(),
            spool: Spool::begin(work)?,
            part: Vec::new(),
            part_bytes: 0,
            parts: Vec::new(),
            count: 0,
            text_bytes: 0,
            refused: Refused::default(),
        })
    }

    /// Adds the next line, without its end.
    pub fn push_line(&mut self, line: &[u8]) -> Result<(), Error> {
        if line.len() > MAX_LINE {
            return Err(Error::LineTooLong);
        }
        if self.count + self.refused.count >= MAX_ENTRIES {
            return Err(Error::TooManyEntries);
        }
        match parse_line(line) {
            Line::Entry(listed) => {
                self.count += 1;
                if self.filter.keeps(&listed.path, listed.is_dir()) {
                    self.push(listed.to_entry())?;
                }
            }
            Line::Nothing => {}
            Line::Refused(why) => self.refused.add(|| why),
            Line::Unreadable => {
                let line = escape(line).chars().take(200).collect();
                return Err(Error::Unreadable { line });
            }
        }
        Ok(())
    }

    fn push(&mut self, entry: Entry) -> Result<(), Error> {
        let bytes = text_bytes(&entry);
        self.text_bytes += bytes as u64;
        if self.text_bytes > MAX_TEXT_BYTES {
            return Err(Error::TooLong);
        }
        self.part_bytes += bytes;
        self.part.push(entry);
        if self.part.len() >= PART_ENTRIES || self.part_bytes >= PART_BYTES {
            self.sort_part();
            self.parts.push(self.spool.keep_in_pieces(self.part.drain(..))?);
            self.part_bytes = 0;
        }
        Ok(())
    }

    /// Of what is listed twice, what came first counts.
    fn sort_part(&mut self) {
        self.part.sort_by(|a, b| a.path.cmp(&b.path));
        let refused = &mut self.refused;
        self.part.dedup_by(|next, first| {
            let is_twice = next.path == first.path;
            if is_twice {
                refused.add(|| twice(&next.path));
            }
            is_twice
        });
    }

    /// Ends the listing: in path order, without what appears twice and what lies in no listed
    /// directory.
    pub fn finish(mut self) -> Result<Listing, Error> {
        self.sort_part();
        let Self { spool, part, parts, mut refused, .. } = self;
        let sorted = parts.iter().map(|part| part.each());
        let last: Each<'_> = Box::new(part.into_iter().map(Ok));
        let mut sorted = Sorted::of(sorted.chain([last]));
        let mut last: Option<TreePath> = None;
        let mut open: Vec<TreePath> = Vec::new();
        let mut keep = |path: &TreePath, is_dir| {
            if last.as_ref() == Some(path) {
                refused.add(|| twice(path));
                return false;
            }
            while open.last().is_some_and(|dir| !path.is_inside(dir)) {
                open.pop();
            }
            if path.parent().as_ref() != open.last() {
                return false;
            }
            if is_dir {
                open.push(path.clone());
            }
            last = Some(path.clone());
            true
        };
        let kept = std::iter::from_fn(|| {
            sorted.find(|found| found.as_ref().map_or(true, |e| keep(&e.path, e.is_dir())))
        });
        let entries = spool.keep(kept.map(|entry| entry.map_err(Error::from)))?;
        Ok(Listing { entries, spool, refused })
    }
}

fn twice(path: &TreePath) -> String {
    format!("{path}: listed twice")
}

/// Several lists that are in order, as one; of equal paths that of the earlier list comes first.
struct Sorted<'a> {
    lists: Vec<Each<'a>>,
    /// The next entry of each list.
    heads: BinaryHeap<Reverse<Head>>,
    failed: Option<manifest::Error>,
}

struct Head {
    entry: Entry,
    list: usize,
}

impl Head {
    fn order(&self) -> (&TreePath, usize) {
        (&self.entry.path, self.list)
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

impl<'a> Sorted<'a> {
    fn of(lists: impl Iterator<Item = Each<'a>>) -> Self {
        let mut sorted =
            Self { lists: lists.collect(), heads: BinaryHeap::default(), failed: None };
        (0..sorted.lists.len()).for_each(|list| sorted.advance(list));
        sorted
    }

    fn advance(&mut self, list: usize) {
        match self.lists[list].next() {
            Some(Ok(entry)) => self.heads.push(Reverse(Head { entry, list })),
            Some(Err(error)) => self.failed = Some(error),
            None => {}
        }
    }
}

impl Iterator for Sorted<'_> {
    type Item = Result<Entry, manifest::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            self.heads.clear();
            return Some(Err(error));
        }
        let Reverse(Head { entry, list }) = self.heads.pop()?;
        self.advance(list);
        Some(Ok(entry))
    }
}
