//! Signatures of content that its source may change in place.
//!
//! Where a private tree shares content with the source, the old version of a file that is edited
//! in place (a log that grows, an image that is rebuilt onto itself) is lost with the edit. Its
//! signature is not, and a librsync delta needs nothing else. So files of a shared tree that are
//! large enough for a delta get a signature when they are taken; content that is private needs
//! none. `DATA/trees/T/signatures/HEX`, named by the content's digest.

use std::{collections::HashSet, io};

use filetree::{
    fs::{Dir, File},
    signature::StoredSignature,
};
use protocol::{
    digest::Digest,
    manifest::{Entry, Manifest},
};

use crate::durable;

/// Smaller files cost less than their bookkeeping.
const MIN_BYTES: u64 = 16 << 10;
/// Largest stored signature that is read.
const MAX_STORED: u64 = 64 << 20;

/// The signatures of one tree.
#[derive(Debug)]
pub(crate) struct Signatures(Dir);

impl Signatures {
    /// Opens them in a tree's directory.
    pub(crate) fn open(tree: &Dir) -> io::Result<Self> {
        Ok(Self(tree.ensure_dir(b"signatures", 0o700).map_err(durable::io)?))
    }

    /// Stores the signature of every file of a manifest that has none yet. A file that is no
    /// longer what the manifest says gets none.
    pub(crate) fn store(
        &self,
        manifest: &Manifest,
        open: &dyn Fn(&Entry) -> Option<File>,
    ) -> io::Result<()> {
        let mut known = self.names()?;
        for entry in manifest.entries().iter().filter(|entry| entry.size() >= MIN_BYTES) {
            let Some(digest) = entry.digest().filter(|digest| known.insert(*digest)) else {
                continue;
            };
            let Some(file) = open(entry) else { continue };
            match StoredSignature::calculate(&file, entry.size()) {
                Ok(stored) if stored.content == digest => {
                    durable::replace(&self.0, digest.hex().as_bytes(), &stored.encode())?;
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(path = %entry.path, %error, "no signature could be made");
                }
            }
        }
        Ok(())
    }

    /// The signature of some content; one that is damaged is none.
    pub(crate) fn get(&self, content: &Digest) -> Option<StoredSignature> {
        let bytes = durable::read(&self.0, content.hex().as_bytes(), MAX_STORED).ok()?;
        StoredSignature::parse(&bytes).ok().filter(|stored| stored.content == *content)
    }

    /// Removes those that no file of the newest manifest needs.
    pub(crate) fn collect(&self, newest: &Manifest) -> io::Result<()> {
        let needed: HashSet<Digest> = newest.entries().iter().filter_map(Entry::digest).collect();
        for name in self.names()?.difference(&needed) {
            self.0.unlink(name.hex().as_bytes()).map_err(durable::io)?;
        }
        Ok(())
    }

    fn names(&self) -> io::Result<HashSet<Digest>> {
        let entries = self.0.entries().map_err(durable::io)?;
        let name = |name: &[u8]| Digest::from_hex(std::str::from_utf8(name).ok()?).ok();
        Ok(entries.iter().filter_map(|entry| name(&entry.name)).collect())
    }
}
