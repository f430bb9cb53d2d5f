//! The `inside` encoder: what is compressed already, by its plain text.
//!
//! The deflate streams of a gzip or zip file are replaced by their plain text, in the new file and in
//! the old one; what results are [views](View), and views have in common what the programs that
//! made the files had in common. The other encoders work on them as on files. The new view travels
//! with a recipe: where streams belong, and the [corrections](crate::deflate) that make each again.
//! The old view is described by its [streams](Stream) alone, so a mirror parses no archive and
//! trusts no directory in it: it inflates what it is told to, and compares digests in the end.
//!
//! Streams that are the same in both files stay as they are: they cost nothing, here or there.

mod locate;
mod view;

#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    io::{self, Read},
};

use protocol::{
    pack::{MAX_PLAIN_BYTES, MAX_RECIPE_BYTES, Stream},
    wire::Writer,
};

use self::locate::{Found, Key};
pub use self::{
    locate::is_candidate,
    view::{Part, Store, View},
};
use super::ReadAt;
use crate::deflate::{self, Split, Splitter};

/// The first byte of recipes: streams are made by [`deflate::Recreator`].
pub const DEFLATE: u8 = 1;

/// Streams that are tried before a file without any success is left alone.
const TRIALS: u32 = 3;
/// Plain text that one file may have for each of its bytes: less than the format allows.
const PLAIN_FACTOR: u64 = 48;

/// Two files, each with its streams as plain text where those differ.
#[derive(Debug)]
pub struct Views {
    /// The recipe, and then the new file's view.
    pub new: View,
    /// Bytes of the recipe.
    pub recipe_len: u64,
    /// The old file's view; as it is where it has no such streams.
    pub old: Option<View>,
}

/// A file's content and length.
pub struct File {
    /// Its content.
    pub content: Box<dyn ReadAt>,
    /// Its length.
    pub len: u64,
}

/// Looks inside a new file and, where there is one, its old version. `None` where there is nothing
/// to see, it could not be put together again, or reading or storing failed: files can always go as
/// they are, so neither what an upstream calls an archive nor a full disk keeps a pack from being made.
/// `store` makes places for plain text.
pub fn look(new: File, old: Option<File>, store: &dyn Fn() -> io::Result<Store>) -> Option<Views> {
    try_to_look(new, old, store).unwrap_or_else(|error| {
        tracing::debug!(%error, "a file is not looked inside");
        None
    })
}

fn try_to_look(
    new: File,
    old: Option<File>,
    store: &dyn Fn() -> io::Result<Store>,
) -> io::Result<Option<Views>> {
    let found = locate::streams(&*new.content, new.len)?;
    if found.is_empty() {
        return Ok(None);
    }
    let old_found = match &old {
        Some(old) => locate::streams(&*old.content, old.len)?,
        None => Vec::new(),
    };
    let old_keys: HashSet<Key> = old_found.iter().filter_map(|found| found.key).collect();
    let new_keys: HashSet<Key> = found.iter().filter_map(|found| found.key).collect();
    let Some((view, recipe)) = open_new(&new, &found, &old_keys, store()?)? else {
        return Ok(None);
    };
    let new_view = view.finish(recipe.clone(), new);
    let old_view = match old {
        None => None,
        Some(old) => {
            let view = open_old(&old, &old_found, &new_keys, store()?)?;
            Some(view.finish(Vec::new(), old))
        }
    };
    Ok(Some(Views { new: new_view, recipe_len: recipe.len() as u64, old: old_view }))
}

/// Looks inside an old file by itself: all of its streams.
///
/// # Errors
/// What reading and storing give.
pub fn look_at_old(old: File, store: Store) -> io::Result<View> {
    let found = locate::streams(&*old.content, old.len)?;
    Ok(open_old(&old, &found, &HashSet::new(), store)?.finish(Vec::new(), old))
}

/// Takes the streams apart that the old file has not.
fn open_new(
    file: &File,
    found: &[Found],
    known: &HashSet<Key>,
    store: Store,
) -> io::Result<Option<(view::Builder, Vec<u8>)>> {
    let mut view = view::Builder::new(store);
    let (mut named, mut corrections) = (Writer::new(), Vec::new());
    let (mut splitter, mut failures) = (Splitter::new(), 0);
    let mut left = file.len.saturating_mul(PLAIN_FACTOR).min(MAX_PLAIN_BYTES);
    let mut streams = locate::Walk::new(found);
    while let Some(at) = streams.next(&*file.content, file.len)? {
        if at.key.is_some_and(|key| known.contains(&key)) {
            continue;
        }
        let begin = view.stored();
        match take_apart(file, &at, left, &mut splitter, &mut view)? {
            Some(split) => {
                let gap = at.at - view.covered();
                named.varint(gap).varint(split.plain_len).varint(split.stored_len);
                named.varint(split.corrections.len() as u64);
                corrections.extend_from_slice(&split.corrections);
                left -= split.plain_len;
                streams.passed(at.at + split.stored_len);
                view.push(Stream {
                    at: at.at,
                    stored_len: split.stored_len,
                    plain_len: split.plain_len,
                });
                failures = 0;
            }
            None => {
                view.forget(begin);
                failures += 1;
                if failures >= TRIALS && named.is_empty() {
                    return Ok(None);
                }
            }
        }
    }
    if named.is_empty() {
        return Ok(None);
    }
    let mut recipe = Writer::new();
    recipe.byte(DEFLATE).bytes(named.as_slice()).raw(&corrections);
    let recipe = recipe.into_bytes();
    Ok((recipe.len() as u64 <= MAX_RECIPE_BYTES).then_some((view, recipe)))
}

/// Takes one stream apart.
fn take_apart(
    file: &File,
    found: &Found,
    left: u64,
    splitter: &mut Splitter,
    view: &mut view::Builder,
) -> io::Result<Option<Split>> {
    let open = || Range { file: &*file.content, at: found.at, left: found.room };
    match splitter.split(&open, left, &mut |plain| view.write(plain)) {
        Ok(split) => {
            Ok(split.filter(|split| found.stored_len.is_none_or(|len| len == split.stored_len)))
        }
        Err(error) if is_about_content(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Inflates the streams that the new file has not.
fn open_old(
    file: &File,
    found: &[Found],
    known: &HashSet<Key>,
    store: Store,
) -> io::Result<view::Builder> {
    let mut view = view::Builder::new(store);
    let mut left = file.len.saturating_mul(PLAIN_FACTOR).min(MAX_PLAIN_BYTES);
    let mut streams = locate::Walk::new(found);
    while let Some(at) = streams.next(&*file.content, file.len)? {
        if at.key.is_some_and(|key| known.contains(&key)) {
            continue;
        }
        let begin = view.stored();
        let source = Range { file: &*file.content, at: at.at, left: at.room };
        match deflate::inflate(source, left, &mut |plain| view.write(plain)) {
            Ok((stored_len, plain_len)) => {
                left -= plain_len;
                streams.passed(at.at + stored_len);
                view.push(Stream { at: at.at, stored_len, plain_len });
            }
            Err(error) if is_about_content(&error) => view.forget(begin),
            Err(error) => return Err(error),
        }
    }
    Ok(view)
}

fn is_about_content(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// A part of a file, read in order.
pub(crate) struct Range<'a> {
    pub(crate) file: &'a dyn ReadAt,
    pub(crate) at: u64,
    pub(crate) left: u64,
}

impl Read for Range<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
