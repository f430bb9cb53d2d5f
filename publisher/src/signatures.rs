//! Signatures of content that its source may change in place.
//!
//! Where a private tree shares content with the source, the old version of a file that is edited
//! in place (a log that grows, an image that is rebuilt onto itself) is lost with the edit. Its
//! signature is not, and a librsync delta needs nothing else. So files of a shared tree that are
//! large enough for a delta get a signature when they are taken; content that is private needs
//! none. `DATA/trees/T/signatures/HEX`, named by the content's digest; those of small files are
//! together in [`bundles`].

mod bundles;

use std::{collections::HashSet, io, sync::OnceLock};

use filetree::{
    fs::{Dir, File},
    signature::StoredSignature,
};
use protocol::{
    digest::Digest,
    manifest::{Entries, Entry, Manifest, StoredManifest},
};

use self::bundles::Bundles;
use crate::durable;

/// Smaller files are hardly larger than their deltas.
const MIN_BYTES: u64 = 1 << 10;
/// Signatures of smaller files are bundled.
const BUNDLED_BYTES: u64 = 64 << 10;
/// Largest stored signature that is read.
const MAX_STORED: u64 = 64 << 20;

/// The signatures of one tree.
#[derive(Debug)]
pub(crate) struct Signatures {
    dir: Dir,
    /// Read when first asked for.
    bundles: OnceLock<Bundles>,
}

impl Signatures {
    /// Opens them in a tree's directory.
    pub(crate) fn open(tree: &Dir) -> io::Result<Self> {
        let dir = tree.ensure_dir(b"signatures", 0o700).map_err(durable::io)?;
        Ok(Self { dir, bundles: OnceLock::new() })
    }

    /// Stores the signature of every file of a manifest that has none yet. A file that is no
    /// longer what the manifest says gets none.
    pub(crate) fn store(
        &mut self,
        manifest: &Manifest,
        open: &dyn Fn(&Entry) -> Option<File>,
    ) -> io::Result<()> {
        let mut known = self.names()?;
        known.extend(Bundles::open(&self.dir)?.contents());
        let mut bundled = bundles::Writer::new(&self.dir);
        for entry in manifest.entries().iter().filter(|entry| entry.size() >= MIN_BYTES) {
            let Some(digest) = entry.digest().filter(|digest| known.insert(*digest)) else {
                continue;
            };
            let Some(file) = open(entry) else { continue };
            match StoredSignature::calculate(&file, entry.size()) {
                Ok(stored) if stored.content != digest => {}
                Ok(stored) if entry.size() < BUNDLED_BYTES => {
                    bundled.push(digest, stored.encode())?;
                }
                Ok(stored) => {
                    durable::replace(&self.dir, digest.hex().as_bytes(), &stored.encode())?;
                }
                Err(error) => {
                    tracing::warn!(path = %entry.path, %error, "no signature could be made");
                }
            }
        }
        bundled.finish()?;
        self.bundles = OnceLock::new();
        Ok(())
    }

    /// The signature of some content; one that is damaged is none.
    pub(crate) fn get(&self, content: &Digest) -> Option<StoredSignature> {
        let bundles = self.bundles.get_or_init(|| Bundles::open(&self.dir).unwrap_or_default());
        if let Some(stored) = bundles.get(&self.dir, content) {
            return Some(stored);
        }
        let bytes = durable::read(&self.dir, content.hex().as_bytes(), MAX_STORED).ok()?;
        StoredSignature::parse(&bytes).ok().filter(|stored| stored.content == *content)
    }

    /// Removes those that no file of these manifests needs.
    pub(crate) fn collect(&self, kept: &[StoredManifest]) -> io::Result<()> {
        let (names, bundles) = (self.names()?, Bundles::open(&self.dir)?);
        if names.is_empty() && bundles.is_empty() {
            return Ok(());
        }
        let mut needed = HashSet::new();
        for entry in kept.iter().flat_map(|manifest| manifest.each()) {
            let entry = entry.map_err(io::Error::other)?;
            // Smaller files never have one.
            needed.extend(entry.digest().filter(|_| entry.size() >= MIN_BYTES));
        }
        for name in names.difference(&needed) {
            self.dir.unlink(name.hex().as_bytes()).map_err(durable::io)?;
        }
        bundles.collect(&self.dir, &needed)
    }

    fn names(&self) -> io::Result<HashSet<Digest>> {
        let entries = self.dir.entries().map_err(durable::io)?;
        let name = |name: &[u8]| Digest::from_hex(std::str::from_utf8(name).ok()?).ok();
        Ok(entries.iter().filter_map(|entry| name(&entry.name)).collect())
    }
}

#[cfg(test)]
mod tests;
