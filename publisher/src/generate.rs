//! Manifests and packs: from a tree that was taken to what mirrors fetch.
//!
//! Content, then packs and blocks, then the manifest; each is read back and compared before the
//! next step. Nothing here announces anything.

use std::{io, sync::Arc};

use protocol::{
    digest::Digest,
    manifest::{self, Block, BlockList, BlockRef, BlockSource, Manifest, StoredManifest},
    name::TreeName,
    wire,
};

use crate::points::{self, Directory, Further, Kind, Object, Point, put_verified};

/// zstd level of manifests: they are small, fetched by everyone, and written once.
const MANIFEST_LEVEL: i32 = 15;
/// Largest stored block list or block that is read back.
const MAX_STORED: u64 = 128 << 20;

/// Why something was not generated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A publication point did not take it.
    #[error(transparent)]
    Point(#[from] points::Error),
    /// What is stored is not what was.
    #[error("{object} in the publisher's store is damaged")]
    Damaged {
        /// Which object.
        object: String,
    },
    /// The store cannot be read.
    #[error("{object} cannot be read from the publisher's store")]
    Store {
        /// Which object.
        object: String,
        /// Why.
        source: io::Error,
    },
    /// Something in memory could not be encoded.
    #[error("the manifest cannot be compressed")]
    Encode(#[source] io::Error),
    /// The blocks do not make a manifest.
    #[error("the manifest of {tree} does not fit together")]
    Manifest {
        /// Which tree.
        tree: TreeName,
        /// Why.
        source: manifest::Error,
    },
    /// The pack could not be written.
    #[error("no pack of {tree} could be written")]
    Pack {
        /// Which tree.
        tree: TreeName,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The blocks of a tree in the own store.
#[derive(Debug)]
struct Blocks {
    places: Places,
    tree: TreeName,
}

impl BlockSource for Blocks {
    fn read(&self, block: &BlockRef) -> Result<Vec<u8>, manifest::Error> {
        let object = Object { tree: self.tree.clone(), kind: Kind::Block, name: block.digest };
        let unreadable = |error| manifest::Error::Unreadable(crate::state::error_chain(&error));
        self.places.load(&object, block.bytes).map_err(unreadable)
    }
}

/// A manifest that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its digest.
    pub manifest: Digest,
    /// Length of its encoded block list, in bytes.
    pub length: u64,
}

/// The publisher's own store and the further points.
#[derive(Debug, Clone)]
pub struct Places {
    /// The publisher's own store, which it serves itself.
    pub origin: Arc<Directory>,
    /// Further points, in order.
    pub further: Vec<Arc<Further>>,
}

impl Places {
    /// Stores a manifest's blocks, then its list, in the own store. What is there already stays.
    pub fn store_manifest(&self, tree: &TreeName, manifest: &Manifest) -> Result<Stored, Error> {
        let store = |block: Block| {
            self.store(tree, Kind::Block, block.digest(), block.bytes())?;
            Ok(manifest::BlockRef::of(&block))
        };
        let list = manifest.each_block().map(store).collect::<Result<BlockList, Error>>()?;
        let encoded = list.encode();
        let digest = list.digest();
        self.store(tree, Kind::Manifest, digest, &encoded)?;
        Ok(Stored { manifest: digest, length: encoded.len() as u64 })
    }

    /// Reads a manifest back; `length` as its statement says.
    pub fn load_manifest(
        &self,
        tree: &TreeName,
        manifest: &Digest,
        length: u64,
    ) -> Result<Manifest, Error> {
        let list = self.load_list(tree, manifest, length)?;
        let failed = |source| Error::Manifest { tree: tree.clone(), source };
        // Block after block: all of them beside all entries would be half as much again.
        let mut unread = None;
        let block = |named: &BlockRef| {
            self.load_block(tree, named).map_err(|error| {
                let text = crate::state::error_chain(&error);
                unread = Some(error);
                manifest::Error::Unreadable(text)
            })
        };
        let read = Manifest::read(&list, block);
        unread.map_or_else(|| read.map_err(failed), Err)
    }

    /// A manifest whose blocks stay in the store and are read as they are needed.
    pub fn stored_manifest(
        &self,
        tree: &TreeName,
        manifest: &Digest,
        length: u64,
    ) -> Result<StoredManifest, Error> {
        let list = self.load_list(tree, manifest, length)?;
        let blocks = Blocks { places: self.clone(), tree: tree.clone() };
        Ok(StoredManifest::new(list, Arc::new(blocks)))
    }

    /// Reads a manifest's block list back.
    pub fn load_list(
        &self,
        tree: &TreeName,
        manifest: &Digest,
        length: u64,
    ) -> Result<BlockList, Error> {
        let object = Object { tree: tree.clone(), kind: Kind::Manifest, name: *manifest };
        let bytes = self.load(&object, length)?;
        BlockList::parse(&bytes).map_err(|source| Error::Manifest { tree: tree.clone(), source })
    }

    /// Reads one block back.
    pub fn load_block(&self, tree: &TreeName, named: &manifest::BlockRef) -> Result<Block, Error> {
        let object = Object { tree: tree.clone(), kind: Kind::Block, name: named.digest };
        let bytes = self.load(&object, named.bytes)?;
        Block::parse(bytes).map_err(|source| Error::Manifest { tree: tree.clone(), source })
    }

    fn load(&self, object: &Object, length: u64) -> Result<Vec<u8>, Error> {
        use std::io::Read;

        let failed = |source| Error::Store { object: object.to_string(), source };
        let mut stored = Vec::new();
        let reader = self.origin.open(object).map_err(failed)?;
        reader.take(MAX_STORED).read_to_end(&mut stored).map_err(failed)?;
        let damaged = || Error::Damaged { object: object.to_string() };
        let bytes = wire::decompress(&stored, length).map_err(|_| damaged())?;
        if Digest::of(&bytes) == object.name { Ok(bytes) } else { Err(damaged()) }
    }

    fn store(&self, tree: &TreeName, kind: Kind, name: Digest, bytes: &[u8]) -> Result<(), Error> {
        let object = Object { tree: tree.clone(), kind, name };
        // Compression of equal bytes may differ between releases, so what is there already is
        // judged by what it unpacks to.
        if self.holds(&object, bytes) {
            return Ok(());
        }
        let stored = wire::compress(bytes, MANIFEST_LEVEL).map_err(Error::Encode)?;
        let (length, digest) = (stored.len() as u64, Digest::of(&stored));
        Ok(put_verified(&*self.origin, &object, &mut stored.as_slice(), length, &digest)?)
    }

    fn holds(&self, object: &Object, bytes: &[u8]) -> bool {
        use std::io::Read;

        let mut stored = Vec::new();
        let origin: &dyn Point = &*self.origin;
        let read =
            origin.open(object).and_then(|reader| reader.take(MAX_STORED).read_to_end(&mut stored));
        let same =
            |stored: &[u8]| wire::decompress(stored, bytes.len() as u64).is_ok_and(|b| b == bytes);
        match read {
            Ok(_) if same(&stored) => true,
            Ok(_) => {
                tracing::warn!(%object, point = origin.describe(), "damaged; it is written again");
                drop(origin.remove(object));
                false
            }
            Err(_) => false,
        }
    }
}
