//! Lines of a file, by offset.

use std::sync::Arc;

use crate::app::definition::findings::Spot;

/// Knows the line of each byte of one file.
pub(super) struct Lines {
    file: Arc<str>,
    /// Offset of each line feed.
    ends: Vec<usize>,
}

impl Lines {
    pub(super) fn new(file: Arc<str>, text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at);
        Self { file, ends: ends.collect() }
    }

    /// The line that holds the byte at `offset`.
    pub(super) fn spot(&self, offset: usize) -> Spot {
        let before = self.ends.partition_point(|end| *end < offset);
        Spot { file: self.file.clone(), line: u32::try_from(before + 1).unwrap_or(u32::MAX) }
    }

    /// The file's name.
    pub(super) fn file(&self) -> &str {
        &self.file
    }
}
