//! Which files are looked inside, and their views.

use std::io;

use protocol::{
    digest::{Digest, DigestWriter},
    manifest::Entry,
};

use super::{
    encode::{Context, Member, Way},
    output::nameless,
};
use crate::{
    delta::{
        ReadAt,
        choose::{EncoderChoice, FrameKind},
        inside::{self, File, Store},
        patch::Alignment,
        rsync::{self, Delta},
    },
    pack::Error,
    signature::{Signature, alignment_block_size},
};

/// From this level on time is too short for looking inside: that takes as long as level 9.
const LEAST_LEVEL: i32 = 9;
/// Bytes that are digested at once.
const READ_BYTES: usize = 1 << 20;

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
