//! Publication points: where packs and manifests can be fetched.
//!
//! What is published is written once and named by its digest, so a point needs to do little: take
//! an object whole or not at all, give it back, list and remove. Only the pointer to the newest
//! generation ever changes, and it is written last. Whatever a point says about an object is not
//! believed: it is read back and digested before anyone is told of it ([`put_verified`]).
//!
//! *Why not an object store's own interface?* Two of its operations (list, delete) and its notion
//! of a key are all that is needed; a wider trait would have to be imitated by a directory.

use std::{
    fmt,
    io::{self, Read, Write},
    time::Duration,
};

use protocol::{
    digest::{Digest, DigestWriter},
    name::TreeName,
};

pub mod aliases;
pub mod directory;
pub mod form;
pub mod further;
pub mod object_store;

pub use aliases::Aliases;
pub use directory::Directory;
pub use form::{Form, KeySource, PrivateTree, PrivateTrees};
pub use further::Further;
pub use protocol::origin::{Kind, Object};

/// How long a signed URL holds: for the longest range over a slow line. Nothing is collected that was
/// needed more recently.
pub const SIGNED_URL_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// A publication point. Its methods block.
pub trait Point: fmt::Debug + Send + Sync {
    /// For messages: what and where it is.
    fn describe(&self) -> String;

    /// Stores an object of `length` bytes whole or not at all, durably. One that is there already
    /// is left alone; content of another length is refused.
    fn put(&self, object: &Object, content: &mut dyn Read, length: u64) -> io::Result<()>;

    /// Opens an object; `NotFound` where there is none.
    fn open(&self, object: &Object) -> io::Result<Box<dyn Read + Send>>;

    /// Names of a tree's objects of one kind, in any order.
    fn list(&self, tree: &TreeName, kind: Kind) -> io::Result<Vec<Digest>>;

    /// Removes an object; one that is not there is no error.
    fn remove(&self, object: &Object) -> io::Result<()>;

    /// The pointer of a tree.
    fn latest(&self, tree: &TreeName) -> io::Result<Option<Vec<u8>>>;

    /// Replaces the pointer of a tree, in one step, where `may_replace` lets what is there go.
    /// Says whether it did.
    fn move_latest(
        &self,
        tree: &TreeName,
        statement: &[u8],
        may_replace: &dyn Fn(&[u8]) -> bool,
    ) -> io::Result<bool>;

    /// Removes the pointer of a tree that has no objects any more, and what else has its name.
    fn end_tree(&self, tree: &TreeName) -> io::Result<()>;

    /// A URL by which whoever has it may read the object for that long, where the point signs such.
    fn signed_url(&self, object: &Object, lifetime: Duration) -> io::Result<Option<String>> {
        let _ = (object, lifetime);
        Ok(None)
    }

    /// Ends what was begun and not finished of a tree's objects, but for those that are `needed`,
    /// by their names ([`Object`] as text).
    fn abandon(&self, tree: &TreeName, needed: &dyn Fn(&str) -> bool) -> io::Result<()> {
        let _ = (tree, needed);
        Ok(())
    }
}

/// Why a point does not hold what was put there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What is private cannot be encrypted, so it stays here.
    #[error(transparent)]
    Form(#[from] form::Error),
    /// The point refused.
    #[error("{object} cannot be written to or read from {point}")]
    Io {
        /// Which object.
        object: String,
        /// Which point.
        point: String,
        /// What it said.
        source: io::Error,
    },
    /// What comes back is something else.
    #[error("{object} comes back from {point} as something else; its storage is damaged")]
    Damaged {
        /// Which object.
        object: String,
        /// Which point.
        point: String,
    },
}

/// Stores an object of `length` bytes and reads it back. `stored` is the digest of its stored bytes.
pub fn put_verified(
    point: &dyn Point,
    object: &Object,
    content: &mut dyn Read,
    length: u64,
    stored: &Digest,
) -> Result<(), Error> {
    let failed = |source| Error::Io { object: object.to_string(), point: point.describe(), source };
    point.put(object, content, length).map_err(failed)?;
    if digest_of(point, object).map_err(failed)? == *stored {
        return Ok(());
    }
    // What is there would be in the way of every later attempt.
    point.remove(object).map_err(failed)?;
    Err(Error::Damaged { object: object.to_string(), point: point.describe() })
}

/// Digest of the stored bytes of an object.
pub fn digest_of(point: &dyn Point, object: &Object) -> io::Result<Digest> {
    let mut reader = point.open(object)?;
    let mut digest = DigestWriter::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(digest.finish()),
            read => digest.write_all(&buffer[..read])?,
        }
    }
}

#[cfg(test)]
pub(crate) mod contract;
