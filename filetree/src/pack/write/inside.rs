//! Which files are looked inside, and their views: small ones in memory, on their way into a frame;
//! large ones in files.

use std::io;

use protocol::{
    digest::{Digest, DigestWriter},
    manifest::Entry,
    pack::{Encoder, MAX_BASES, NoDelta},
};

use super::{
    encode::{Batch, Context, Member, Payload, Way},
    output::nameless,
};
use crate::{
    delta::{
        ReadAt,
        choose::{EncoderChoice, FrameKind},
        group,
        inside::{self, File, Store, View},
        patch::Alignment,
        rsync::{self, Delta},
        whole,
    },
    pack::Error,
    signature::{Signature, alignment_block_size},
};

/// From this level on time is too short for looking inside: that takes as long as level 9.
const LEAST_LEVEL: i32 = 9;
/// Plain text of a small file at most: it has to fit into a frame.
const INSIDE_BYTES: usize = 6 << 20;
/// Bytes that are digested at once.
const READ_BYTES: usize = 1 << 20;

/// An old file, or its view, in memory.
pub(super) struct OldContent {
    /// Number of its entry.
    pub(super) number: u64,
    pub(super) content: Vec<u8>,
    pub(super) view: Option<View>,
}

impl OldContent {
    /// Ranges of files that it is made of.
    pub(super) fn pieces(&self) -> usize {
        self.view.as_ref().map_or(1, |view| view.parts(0..view.len()).count())
    }
}

/// Views on their way into a frame.
#[derive(Default)]
pub(super) struct Opened<'a> {
    pub(super) payloads: Vec<Payload<'a>>,
    bytes: u64,
    old_bytes: u64,
    old_pieces: usize,
}

impl<'a> Opened<'a> {
    /// Whether they must go before another.
    pub(super) fn is_full_with(&self, next: &Payload<'_>) -> bool {
        let old = next.old.as_ref();
        !self.payloads.is_empty()
            && (self.bytes + next.bytes.len() as u64 > group::CONTENT_BYTES
                || self.old_bytes + old.map_or(0, |old| old.content.len() as u64)
                    > group::OLD_BYTES
                || self.old_pieces + old.map_or(0, OldContent::pieces) > MAX_BASES / 2)
    }

    pub(super) fn push(&mut self, next: Payload<'a>) {
        self.bytes += next.bytes.len() as u64;
        if let Some(old) = &next.old {
            self.old_bytes += old.content.len() as u64;
            self.old_pieces += old.pieces();
        }
        self.payloads.push(next);
    }
}

impl Context<'_> {
    /// Whether anything is looked inside.
    pub(super) fn looks_inside(&self) -> bool {
        self.options.encoders == EncoderChoice::Auto
            && self.levels.of(FrameKind::Patch) >= LEAST_LEVEL
    }

    /// Looks inside a large file and its old version; `None` where there is nothing to see.
    pub(super) fn look_inside(
        &self,
        member: Member<'_>,
        (number, old): (u64, &Entry),
    ) -> Result<Option<Way>, Error> {
        let entry = member.entry;
        let read = |source| Error::reading(&entry.path, source);
        if !self.looks_inside() {
            return Ok(None);
        }
        let new_content = self.new.open(entry).map_err(read)?;
        let front = new_content.range(0, entry.size().min(4) as usize).map_err(read)?;
        if !inside::is_candidate(&front) {
            return Ok(None);
        }
        let Some(old_content) = self.base.content(old) else { return Ok(None) };
        if digest(&*old_content, old.size()).ok() != old.digest() {
            return Ok(None);
        }
        if Some(digest(&*new_content, entry.size()).map_err(read)?) != entry.digest() {
            return Err(Error::Changed { path: entry.path.clone() });
        }
        let new = File { content: new_content, len: entry.size() };
        let old = File { content: old_content, len: old.size() };
        let store = || Ok(Store::File(nameless(self.out)?));
        let views = inside::look(new, Some(old), &store);
        let Some((new, Some(old), recipe_len)) = views.map(|v| (v.new, v.old, v.recipe_len)) else {
            return Ok(None);
        };
        let block = alignment_block_size(old.len());
        let delta_error = |source| Error::Delta { path: entry.path.clone(), source };
        let signature = Signature::calculate_with(&old, old.len(), block);
        let Ok((signature, _)) = signature else { return Ok(None) };
        let go_on = || self.options.check_canceled().is_ok();
        let delta = Delta::new(&signature, &new, new.len(), &go_on);
        let delta = delta.map_err(|source| match source {
            rsync::Error::Canceled => Error::Canceled,
            rsync::Error::Io(source) => read(source),
            source => delta_error(source),
        })?;
        let alignment = Alignment::of(&delta, old.len());
        let digest = delta.new_digest;
        Ok(Some(Way::Inside { alignment, new, digest, recipe_len, old, number }))
    }

    /// Looks inside a small file and its old version; whether there was something to see.
    pub(super) fn look_inside_small(&self, payload: &mut Payload<'_>) -> Result<bool, Error> {
        let is_update = !self.from.entries().is_empty();
        if !is_update || !self.looks_inside() || !inside::is_candidate(&payload.bytes) {
            return Ok(false);
        }
        let old = self.old_entry(payload.member.old);
        let old = old.and_then(|(number, entry)| Some((number, self.read_old(entry)?)));
        let file =
            |bytes: &Vec<u8>| File { content: Box::new(bytes.clone()), len: bytes.len() as u64 };
        let new = file(&payload.bytes);
        let store = || Ok(Store::Memory(INSIDE_BYTES));
        let views = inside::look(new, old.as_ref().map(|(_, bytes)| file(bytes)), &store);
        let Some(views) = views else { return Ok(false) };
        let read = |view: &View| view.range(0, view.len() as usize).map_err(Error::Compress);
        payload.bytes = read(&views.new)?;
        payload.recipe_len = Some(views.recipe_len);
        if let Some(((number, _), view)) = old.zip(views.old) {
            let content = read(&view)?;
            payload.old = Some(OldContent { number, content, view: Some(view) });
        }
        Ok(true)
    }

    /// An old file for a prefix, with what is inside if that is wanted.
    pub(super) fn old_content(&self, number: u64, content: Vec<u8>, is_inside: bool) -> OldContent {
        let as_it_is = |content| OldContent { number, content, view: None };
        if !is_inside || !inside::is_candidate(&content) {
            return as_it_is(content);
        }
        let len = content.len() as u64;
        let file = File { content: Box::new(content.clone()), len };
        let view = inside::look_at_old(file, Store::Memory(INSIDE_BYTES)).ok();
        match view.and_then(|view| Some((view.range(0, view.len() as usize).ok()?, view))) {
            Some((content, view)) => OldContent { number, content, view: Some(view) },
            None => as_it_is(content),
        }
    }

    /// Compresses contents that are views, unless they take more than what the files are.
    pub(super) fn add_inside(
        &self,
        payloads: &[Payload<'_>],
        batch: &mut Batch,
    ) -> Result<(), Error> {
        let own_bytes: u64 = payloads.iter().map(|payload| payload.member.entry.size()).sum();
        let bytes: usize = payloads.iter().map(|payload| payload.bytes.len()).sum();
        let share = bytes as f64 / own_bytes.max(1) as f64;
        let level = self.levels.where_new(FrameKind::Inside, share);
        let packed = self.compress_together(payloads, level)?;
        if whole::is_worth(packed.stored.len(), own_bytes as usize) {
            batch.add(packed, payloads, Encoder::Inside);
            return Ok(());
        }
        let mut own = Vec::new();
        for payload in payloads {
            let bytes = self.read_new(payload.member.entry)?;
            let mut payload = Payload::of(payload.member, bytes);
            payload.reason = Some(NoDelta::LargerThanWhole);
            own.push(payload);
        }
        batch.add_raw(&own);
        Ok(())
    }
}

fn digest(file: &dyn ReadAt, len: u64) -> io::Result<Digest> {
    let mut digest = DigestWriter::new();
    let mut at = 0;
    while at < len {
        let bytes = file.range(at, (len - at).min(READ_BYTES as u64) as usize)?;
        digest.update(&bytes);
        at += bytes.len() as u64;
    }
    Ok(digest.finish())
}
