//! Entries that pass one after the other become a manifest, of which nobody holds more than a block.

use super::{Block, BlockBuilder, BlockList, BlockRef, Entry, Error, MAX_ENTRIES, ParentCheck};

/// Takes entry after entry, and keeps no more of them than one block.
#[derive(Debug, Default)]
pub struct BlockWriter {
    parents: ParentCheck,
    builder: BlockBuilder,
    blocks: Vec<BlockRef>,
    count: u64,
}

impl BlockWriter {
    /// Takes the next entry; `keep` takes a block once it is full.
    ///
    /// # Errors
    /// That of `keep`; an entry that is not in path order, lies in no directory that came before, or
    /// comes after [`MAX_ENTRIES`] others.
    pub fn push<E: From<Error>>(
        &mut self,
        entry: &Entry,
        keep: &mut impl FnMut(Block) -> Result<(), E>,
    ) -> Result<(), E> {
        self.count += 1;
        if self.count > MAX_ENTRIES {
            return Err(Error::TooLarge("20,000,000 entries").into());
        }
        self.parents.admit(entry)?;
        self.builder.push(entry).map_or(Ok(()), |block| self.full(block, keep))
    }

    /// The list of all blocks, after the last one.
    pub fn finish<E>(
        mut self,
        keep: &mut impl FnMut(Block) -> Result<(), E>,
    ) -> Result<BlockList, E> {
        if let Some(block) = std::mem::take(&mut self.builder).finish() {
            self.full(block, keep)?;
        }
        Ok(self.blocks.into_iter().collect())
    }

    fn full<E>(
        &mut self,
        block: Block,
        keep: &mut impl FnMut(Block) -> Result<(), E>,
    ) -> Result<(), E> {
        self.blocks.push(BlockRef::of(&block));
        keep(block)
    }
}

/// Cuts entries into blocks, each of which `keep` takes once it is full, and gives the list that names
/// them. Takes the memory of one block and of the list.
///
/// # Errors
/// The first error of `entries` or of `keep`; entries that are not in path order, lie in no directory
/// that came before, or are more than [`MAX_ENTRIES`].
pub fn write_blocks<E: From<Error>>(
    entries: impl IntoIterator<Item = Result<Entry, E>>,
    mut keep: impl FnMut(Block) -> Result<(), E>,
) -> Result<BlockList, E> {
    let mut writer = BlockWriter::default();
    for entry in entries {
        writer.push(&entry?, &mut keep)?;
    }
    writer.finish(&mut keep)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        digest::Digest,
        manifest::{EntryKind, Manifest},
        path::TreePath,
    };

    fn file(path: &str) -> Entry {
        let kind = EntryKind::File { size: 1, digest: Digest::of(b"x"), link_group: None };
        Entry { path: TreePath::parse(path.as_bytes()).unwrap(), mode: 0o644, mtime: 1, kind }
    }

    fn write(entries: &[Entry]) -> Result<(BlockList, Vec<Block>), Error> {
        let mut blocks = Vec::new();
        let list = write_blocks(entries.iter().cloned().map(Ok), |block| {
            blocks.push(block);
            Ok::<_, Error>(())
        })?;
        Ok((list, blocks))
    }

    #[test]
    fn what_passes_is_the_manifest_that_it_would_be_in_memory() {
        for count in [0, 1, 20_000] {
            let entries: Vec<Entry> = (0..count).map(|n| file(&format!("f{n:06}"))).collect();
            let (list, blocks) = write(&entries).unwrap();
            let whole = Manifest::new(entries).unwrap();
            assert_eq!((list.digest(), &blocks), (whole.digest(), &whole.blocks()));
            assert_eq!(Manifest::from_blocks(&list, &blocks), Ok(whole));
        }
    }

    #[test]
    fn disorder_and_orphans_are_no_manifest_and_what_cannot_be_kept_ends_it() {
        let twice = [file("a"), file("a")];
        assert!(matches!(write(&twice), Err(Error::OutOfOrder { .. })));
        assert!(matches!(write(&[file("d/a")]), Err(Error::NoParent { .. })));
        let full = || Error::Unreadable("the disk is full".into());
        let refused = write_blocks([Ok(file("a"))], |_| Err(full()));
        assert_eq!(refused, Err(full()));
    }
}
