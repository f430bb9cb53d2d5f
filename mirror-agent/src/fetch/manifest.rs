//! Manifests: kept on disk block by block, and fetched as blocks that are not held yet.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use protocol::{
    digest::Digest,
    filter::Filter,
    manifest::{
        self, Block, BlockList, BlockRef, BlockSource, Entries, Entry, PartList, PartManifest,
        StoredManifest, write_blocks,
    },
    name::TreeName,
    origin,
    path::TreePath,
    statement::Statement,
    wire,
};

use super::{
    kept::KeptManifest,
    points::Points,
    ranges::{self, Ask, Patience},
    retries::get_accepted,
};

/// Requests for blocks at a time.
const PARALLEL: usize = 6;
const LEVEL: i32 = 3;
/// Most bytes of what names a part: its list, and 1,000,000 pieces.
const MAX_PART_BYTES: u64 = 96 << 20;

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No point gave it.
    #[error("the manifest of tree {tree} cannot be fetched")]
    Fetch {
        /// Which tree.
        tree: TreeName,
        /// What the last point said.
        source: ranges::Error,
    },
    /// It is not a manifest.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    /// The index of a pack does not lead on from what is held.
    #[error(transparent)]
    Pack(#[from] protocol::pack::Error),
    /// The agent's copy cannot be read or written.
    #[error("the agent's copy of a manifest at {path} cannot be used", path = path.display())]
    Store {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The manifests that the agent keeps: `DATA/manifests/{lists,blocks}/HEX`, and of those of which it
/// keeps a part `parts/HEX-FILTER`, zstd-compressed.
///
/// A neighboring generation shares nearly all blocks, so keeping several costs little more than
/// one.
#[derive(Debug, Clone)]
pub struct Store {
    lists: PathBuf,
    parts: PathBuf,
    blocks: Arc<Blocks>,
}

/// The directory of blocks.
#[derive(Debug)]
struct Blocks(PathBuf);

impl Blocks {
    fn path(&self, digest: &Digest) -> PathBuf {
        self.0.join(digest.hex())
    }
}

impl BlockSource for Blocks {
    fn read(&self, block: &BlockRef) -> Result<Vec<u8>, manifest::Error> {
        let path = self.path(&block.digest);
        let bytes = read(&path, block.bytes);
        bytes.ok_or_else(|| manifest::Error::Unreadable(path.display().to_string()))
    }
}

impl Store {
    /// Opens the store in `data`, or begins one.
    pub fn open(data: &Path) -> Result<Self, Error> {
        let root = data.join("manifests");
        let blocks = Arc::new(Blocks(root.join("blocks")));
        let store = Self { lists: root.join("lists"), parts: root.join("parts"), blocks };
        for dir in [&store.lists, &store.parts, &store.blocks.0] {
            fs::create_dir_all(dir).map_err(|source| Error::Store { path: dir.clone(), source })?;
        }
        Ok(store)
    }

    /// The manifest of that digest, if all of it is kept and undamaged. Its blocks stay on the disk.
    pub fn get(&self, digest: &Digest) -> Option<StoredManifest> {
        let manifest = self.at(self.list(digest)?);
        manifest.check_blocks().is_ok().then_some(manifest)
    }

    /// The manifest of that digest, or of it the part that this filter keeps.
    pub fn get_for(&self, digest: &Digest, filter: &Filter) -> Option<KeptManifest> {
        self.get(digest)
            .map(KeptManifest::Whole)
            .or_else(|| self.part(digest, &filter.digest()).map(KeptManifest::Part))
    }

    fn part(&self, digest: &Digest, filter: &Digest) -> Option<PartManifest> {
        let named = read_part(&self.parts.join(part_name(digest, filter)))?;
        let part = self.part_at(named);
        let is_it = part.named().of == *digest && part.named().filter == *filter;
        (is_it && part.kept().check_blocks().is_ok()).then_some(part)
    }

    /// The part of a list whose blocks are kept.
    pub fn part_at(&self, named: PartList) -> PartManifest {
        PartManifest::new(named, self.blocks.clone())
    }

    /// Keeps the list of a part whose blocks are kept.
    pub fn put_part(&self, part: &PartList) -> Result<(), Error> {
        let bytes = part.encode();
        // No digest elsewhere tells that it is damaged, and what it lacks would be taken for gone.
        let bytes = [Digest::of(&bytes).as_bytes(), &bytes[..]].concat();
        write(&self.parts.join(part_name(&part.of, &part.filter)), &bytes)
    }

    /// The manifest of that digest, or of it the part that the filter of that digest keeps, as a
    /// manifest of its own.
    pub fn get_alone(&self, digest: &Digest, filter: &Digest) -> Option<StoredManifest> {
        self.get(digest).or_else(|| Some(self.part(digest, filter)?.kept().clone()))
    }

    /// The manifest of a list whose blocks are kept.
    pub fn at(&self, list: BlockList) -> StoredManifest {
        StoredManifest::new(list, self.blocks.clone())
    }

    /// Keeps a manifest.
    pub fn put(&self, manifest: &dyn Entries) -> Result<StoredManifest, Error> {
        self.put_each(manifest.each().map(|entry| Ok::<_, Error>(entry?)))
    }

    /// Keeps what these entries make up, without ever holding more of it than a block.
    pub fn put_each<E: From<Error> + From<manifest::Error>>(
        &self,
        entries: impl IntoIterator<Item = Result<Entry, E>>,
    ) -> Result<StoredManifest, E> {
        let manifest = self.put_blocks(entries)?;
        self.put_list(manifest.list())?;
        Ok(manifest)
    }

    /// The same without its list: whoever does not want it after all has nothing to take back.
    pub fn put_blocks<E: From<Error> + From<manifest::Error>>(
        &self,
        entries: impl IntoIterator<Item = Result<Entry, E>>,
    ) -> Result<StoredManifest, E> {
        let list = write_blocks(entries, |block| Ok(self.put_block(&block)?))?;
        Ok(self.at(list))
    }

    /// Removes every manifest that is not among these.
    pub fn keep_only(&self, digests: &HashSet<Digest>) -> Result<(), Error> {
        let mut blocks = HashSet::new();
        let mut parts = HashSet::new();
        for name in names(&self.parts)? {
            let Some(part) = read_part(&self.parts.join(&name)) else { continue };
            // Where all of it is kept, a part is of no use.
            if digests.contains(&part.of) && self.list(&part.of).is_none() {
                blocks.extend(part.list.blocks().iter().map(|block| block.digest.hex()));
                parts.insert(name);
            }
        }
        for digest in digests {
            if let Some(list) = self.list(digest) {
                blocks.extend(list.blocks().iter().map(|block| block.digest.hex()));
            }
        }
        let lists: HashSet<String> = digests.iter().map(Digest::hex).collect();
        remove_others(&self.lists, &lists)?;
        remove_others(&self.parts, &parts)?;
        remove_others(&self.blocks.0, &blocks)
    }

    /// The canonical bytes of a block list that is kept, for a relay.
    pub fn list_bytes(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.list(digest).map(|list| list.encode())
    }

    /// The canonical bytes of a block that is kept, for a relay.
    pub fn block_bytes(&self, digest: &Digest) -> Option<Vec<u8>> {
        let bytes = read(&self.blocks.path(digest), manifest::MAX_BLOCK_BYTES)?;
        (Digest::of(&bytes) == *digest).then_some(bytes)
    }

    /// One entry of a manifest that is kept, or of a part of it: only the block that can have it is
    /// read.
    pub fn entry(&self, manifest: &Digest, path: &TreePath) -> Option<Entry> {
        if let Some(list) = self.list(manifest) {
            return self.at(list).find(path).ok()?;
        }
        let of_it = format!("{}-", manifest.hex());
        let parts = names(&self.parts).ok()?.into_iter().filter(|name| name.starts_with(&of_it));
        let parts = parts.filter_map(|name| read_part(&self.parts.join(name)));
        parts
            .filter(|part| part.of == *manifest)
            .find_map(|part| self.part_at(part).find(path).ok()?)
    }

    fn list(&self, digest: &Digest) -> Option<BlockList> {
        let bytes = read(&self.lists.join(digest.hex()), manifest::MAX_BLOCK_BYTES)?;
        let list = BlockList::parse(&bytes).ok()?;
        (list.digest() == *digest).then_some(list)
    }

    /// Keeps the list of a manifest whose blocks are kept.
    pub fn put_list(&self, list: &BlockList) -> Result<Digest, Error> {
        let digest = list.digest();
        write(&self.lists.join(digest.hex()), &list.encode())?;
        Ok(digest)
    }

    fn has(&self, block: &BlockRef) -> bool {
        self.blocks.read(block).is_ok_and(|bytes| Digest::of(&bytes) == block.digest)
    }

    /// Keeps a block.
    pub fn put_block(&self, block: &Block) -> Result<(), Error> {
        let path = self.blocks.path(&block.digest());
        if path.exists() { Ok(()) } else { write(&path, block.bytes()) }
    }
}

/// Fetches the manifest of a generation: its list, and the blocks that are not kept yet.
pub async fn fetch(
    points: &Points,
    store: &Store,
    tree: &TreeName,
    statement: &Statement,
    patience: Patience,
) -> Result<StoredManifest, Error> {
    if let Some(manifest) = store.get(&statement.manifest) {
        return Ok(manifest);
    }
    let list = fetch_list(points, tree, statement, patience).await?;
    let mut fetching = Vec::with_capacity(list.blocks().len());
    for block in list.blocks() {
        fetching.push(fetch_block(points, store, tree, block, patience));
    }
    // They are kept on the disk and read from there: all at once would be the manifest once more.
    stream::iter(fetching).buffered(PARALLEL).try_for_each(|_| async { Ok(()) }).await?;
    let manifest = store.at(list);
    tokio::task::block_in_place(|| manifest.check_entries())?;
    store.put_list(manifest.list())?;
    Ok(manifest)
}

async fn fetch_list(
    points: &Points,
    tree: &TreeName,
    statement: &Statement,
    patience: Patience,
) -> Result<BlockList, Error> {
    let (length, digest) = (statement.manifest_length, statement.manifest);
    let ask = Ask::up_to(origin::manifest_path(tree, &digest), packed_bound(length));
    let accept = |packed: Vec<u8>| {
        let bytes = wire::decompress(&packed, length).map_err(|_| "it is damaged")?;
        if Digest::of(&bytes) != digest {
            return Err("it has another digest than was signed");
        }
        BlockList::parse(&bytes).map_err(|_| "it is no manifest")
    };
    let fetched = get_accepted(points.all_in_order(), &ask, patience, accept).await;
    fetched.map(|(list, _)| list).map_err(|source| Error::Fetch { tree: tree.clone(), source })
}

async fn fetch_block(
    points: &Points,
    store: &Store,
    tree: &TreeName,
    block: &BlockRef,
    patience: Patience,
) -> Result<(), Error> {
    if store.has(block) {
        return Ok(());
    }
    let ask = Ask::up_to(origin::block_path(tree, &block.digest), packed_bound(block.bytes));
    let accept = |packed: Vec<u8>| {
        let bytes = wire::decompress(&packed, block.bytes).map_err(|_| "it is damaged")?;
        if Digest::of(&bytes) != block.digest {
            return Err("it has another digest than its list names");
        }
        Block::parse(bytes).map_err(|_| "it is no block of a manifest")
    };
    let fetched = get_accepted(points.all_in_order(), &ask, patience, accept).await;
    let (fetched, _) = fetched.map_err(|source| Error::Fetch { tree: tree.clone(), source })?;
    store.put_block(&fetched)
}

/// Most bytes of a zstd frame of so many bytes: what does not shrink hardly grows.
fn packed_bound(unpacked: u64) -> u64 {
    unpacked + unpacked / 64 + 1024
}

/// What a file of ours holds, if that is at most so many bytes.
fn read(path: &Path, most: u64) -> Option<Vec<u8>> {
    let packed = fs::read(path).ok()?;
    let (length, packed) = packed.split_first_chunk::<8>()?;
    let length = u64::from_le_bytes(*length);
    (length <= most).then(|| wire::decompress(packed, length).ok())?
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::Store { path: path.to_owned(), source };
    let mut packed = (bytes.len() as u64).to_le_bytes().to_vec();
    packed.extend(wire::compress(bytes, LEVEL).map_err(failed)?);
    // Not synced: whatever a crash damages fails its digest and is fetched again.
    let new = path.with_extension("new");
    fs::write(&new, packed).and_then(|()| fs::rename(&new, path)).map_err(failed)
}

fn part_name(of: &Digest, filter: &Digest) -> String {
    format!("{}-{}", of.hex(), filter.hex())
}

fn read_part(path: &Path) -> Option<PartList> {
    let bytes = read(path, MAX_PART_BYTES)?;
    let (digest, bytes) = bytes.split_first_chunk::<32>()?;
    (Digest::of(bytes).as_bytes() == digest).then(|| PartList::parse(bytes).ok())?
}

/// The names in a directory of ours.
fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let failed = |source| Error::Store { path: dir.to_owned(), source };
    let entries = fs::read_dir(dir).map_err(failed)?;
    let names = entries.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()));
    names.collect::<io::Result<_>>().map_err(failed)
}

fn remove_others(dir: &Path, keep: &HashSet<String>) -> Result<(), Error> {
    let failed = |source| Error::Store { path: dir.to_owned(), source };
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !entry.file_name().to_str().is_some_and(|name| keep.contains(name)) {
            fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
