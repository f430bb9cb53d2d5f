//! A pack that lies on a disk.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use protocol::pack::{Frame, MAX_INDEX_BYTES, SharedPart};

use super::{FrameSource, PackIndex};
use crate::{delta::ReadAt, pack::Error};

/// First bytes that are read: most indexes are smaller.
const FRONT_BYTES: u64 = 64 << 10;

/// The frames of a pack's file. What it shares with other packs is looked for where a publication
/// point has it: in `objects` beside the directory of the pack.
#[derive(Debug)]
pub struct PackFile {
    file: File,
    shared: Vec<SharedPart>,
    objects: PathBuf,
}

impl PackFile {
    /// Opens a pack, and reads and checks its index. Without an offer nobody has said what the
    /// pack's digest is; what it makes is verified against manifests all the same.
    pub fn open(path: &Path) -> Result<(PackIndex, Self), Error> {
        let error = |source| Error::File { file: path.to_path_buf(), what: "read", source };
        let file = File::open(path).map_err(error)?;
        let len = file.metadata().map_err(error)?.len();
        let mut front = FRONT_BYTES.min(len);
        let index_len = loop {
            let bytes = file.range(0, front as usize).map_err(error)?;
            match PackIndex::length(&bytes)? {
                Some(index_len) => break index_len,
                None if front < len.min(MAX_INDEX_BYTES) => front = (front * 4).min(len),
                None => return Err(error(io::ErrorKind::UnexpectedEof.into())),
            }
        };
        if index_len > len {
            return Err(error(io::ErrorKind::UnexpectedEof.into()));
        }
        let bytes = file.range(0, index_len as usize).map_err(error)?;
        let index = PackIndex::parse_unsigned(bytes)?;
        if index.pack_len() != len {
            let source = io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("it has {len} bytes instead of {}", index.pack_len()),
            );
            return Err(error(source));
        }
        let shared = index.shared().to_vec();
        let packs = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let objects = packs.unwrap_or(Path::new(".")).join("../objects");
        Ok((index, Self { file, shared, objects }))
    }
}

impl FrameSource for PackFile {
    fn frame(&mut self, _number: u32, frame: &Frame) -> io::Result<Vec<u8>> {
        let len = frame.stored_len as usize;
        match SharedPart::of(&self.shared, frame) {
            None => self.file.range(frame.offset, len),
            Some(part) => {
                let object = File::open(self.objects.join(part.name.hex()))?;
                object.range(part.within(frame.offset), len)
            }
        }
    }
}
