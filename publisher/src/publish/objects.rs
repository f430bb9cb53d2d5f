//! Large payloads of one tree, shared by its packs: kept in the publisher's own store beside them.
//!
//! An object lives as long as some offered pack names it, and a grace time longer, as packs do.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use filetree::pack::write::{Shared, SharedObject};
use protocol::{digest::Digest, name::TreeName};

use crate::{
    ledger::KeptOffer,
    points::{self, Directory, Kind, Object, Point as _},
};

/// The objects of one tree, by what they lead from and to.
pub(super) struct Objects<'a> {
    origin: &'a Directory,
    tree: &'a TreeName,
    known: Mutex<HashMap<(Option<Digest>, Digest), SharedObject>>,
}

impl<'a> Objects<'a> {
    /// Those that the given packs name; more as they are written.
    pub(super) fn of<'b>(
        origin: &'a Directory,
        tree: &'a TreeName,
        packs: impl Iterator<Item = &'b KeptOffer>,
    ) -> Self {
        let shared = packs.flat_map(|kept| &kept.shared);
        let known = shared.map(|object| ((object.from, object.to), *object)).collect();
        Self { origin, tree, known: Mutex::new(known) }
    }

    fn dir(&self) -> io::Result<PathBuf> {
        Ok(self.origin.kind(self.tree, Kind::Object)?.path().to_path_buf())
    }

    fn named(&self, name: Digest) -> Object {
        Object { tree: self.tree.clone(), kind: Kind::Object, name }
    }
}

impl Shared for Objects<'_> {
    fn find(&self, from: Option<Digest>, to: Digest) -> Option<(SharedObject, PathBuf)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let object = *known.get(&(from, to))?;
        Some((object, self.dir().ok()?.join(object.name.hex())))
    }

    fn unfinished(&self) -> io::Result<PathBuf> {
        let name = self.origin.unfinished_name();
        Ok(self.dir()?.join(String::from_utf8_lossy(&name).as_ref()))
    }

    fn keep(&self, object: SharedObject, unfinished: &Path) -> io::Result<()> {
        let named = self.named(object.name);
        let name = unfinished.file_name().unwrap_or_default();
        self.origin.adopt(&named, name.as_encoded_bytes())?;
        if points::digest_of(self.origin, &named)? != object.name {
            self.origin.remove(&named)?;
            let damaged = format!("{named} comes back as something else; its storage is damaged");
            return Err(io::Error::new(io::ErrorKind::InvalidData, damaged));
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert((object.from, object.to), object);
        Ok(())
    }
}
