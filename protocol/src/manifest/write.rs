//! Entries that pass one after the other become a manifest, of which nobody holds more than a block.

use super::{Block, BlockBuilder, BlockList, BlockRef, Entry, Error, MAX_ENTRIES, ParentCheck};

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
    let mut parents = ParentCheck::default();
    let mut builder = BlockBuilder::default();
    let mut blocks = Vec::new();
    let mut count = 0u64;
    let mut full = |block: Block| {
        blocks.push(BlockRef::of(&block));
        keep(block)
    };
    for entry in entries {
        let entry = entry?;
        count += 1;
        if count > MAX_ENTRIES {
            return Err(Error::TooLarge("20,000,000 entries").into());
        }
        parents.admit(&entry)?;
        builder.push(&entry).map_or(Ok(()), &mut full)?;
    }
    builder.finish().map_or(Ok(()), &mut full)?;
    Ok(blocks.into_iter().collect())
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
