//! What tests of large manifests share.

use std::{fs, path::PathBuf};

use protocol::manifest::{self, Block, BlockRef, BlockSource};

/// Blocks in a directory, as an agent keeps them.
#[derive(Debug)]
pub(crate) struct Dir(pub(crate) PathBuf);

impl Dir {
    pub(crate) fn put(&self, block: &Block) -> BlockRef {
        fs::write(self.0.join(block.digest().hex()), block.bytes()).unwrap();
        BlockRef::of(block)
    }
}

impl BlockSource for Dir {
    fn read(&self, block: &BlockRef) -> Result<Vec<u8>, manifest::Error> {
        fs::read(self.0.join(block.digest.hex()))
            .map_err(|error| manifest::Error::Unreadable(error.to_string()))
    }
}

/// Largest resident set of this program so far, in bytes.
pub(crate) fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

/// How many entries there are to be: `MIRRORNET_MANIFEST_ENTRIES`, or so many.
pub(crate) fn entries(usual: u64) -> u64 {
    let wanted = std::env::var("MIRRORNET_MANIFEST_ENTRIES").ok();
    wanted.map_or(usual, |n| n.replace('_', "").parse().unwrap())
}
