//! A pack that lies on a disk.

use std::{fs::File, io, path::Path};

use protocol::pack::{Frame, MAX_INDEX_BYTES};

use super::{FrameSource, PackIndex};
use crate::{delta::ReadAt, pack::Error};

/// First bytes that are read: most indexes are smaller.
const FRONT_BYTES: u64 = 64 << 10;

/// The frames of a pack's file.
#[derive(Debug)]
pub struct PackFile {
    file: File,
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
        Ok((index, Self { file }))
    }
}

impl FrameSource for PackFile {
    fn frame(&mut self, _number: u32, frame: &Frame) -> io::Result<Vec<u8>> {
        self.file.range(frame.offset, frame.stored_len as usize)
    }
}
