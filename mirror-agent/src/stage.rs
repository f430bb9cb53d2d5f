//! Where content goes once it is verified, as the ways of fetching see it.
//!
//! Every way ends here and nowhere else, so none of them can place bytes in a mirror that have not
//! the digest that was signed.

use std::io;

use filetree::fs::Dir;
use protocol::{digest::Digest, path::TreePath};

/// A content that is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// What it must be.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// A path of the wanted generation that has it.
    pub path: TreePath,
}

/// Takes content and verifies it.
pub trait Stage: Send + Sync {
    /// Begins a content.
    fn writer<'s>(&'s self, content: &Content) -> io::Result<Box<dyn StageWriter + 's>>;

    /// Takes a content that lies in a file, which goes if it is the content.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] when it is not.
    fn take(&self, content: &Content, dir: &Dir, name: &[u8]) -> io::Result<()>;
}

/// One content on its way into staging; dropped before its end, it leaves nothing.
pub trait StageWriter: Send {
    /// Adds the next bytes.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Takes it.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] when the bytes are not the content.
    fn finish(self: Box<Self>) -> io::Result<()>;
}
