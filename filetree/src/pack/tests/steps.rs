//! Files that are made one by one, while frames still arrive.

use std::sync::atomic::{AtomicU64, Ordering};

use protocol::pack::Frame;

use super::support::*;
use crate::{
    delta::choose::EncoderChoice,
    pack::read::{FrameSource, PackFile, Rebuilder, Step},
};

/// A pack of which nothing has come yet but frames up to an offset.
struct Arriving<'a> {
    file: PackFile,
    come: &'a AtomicU64,
}

impl FrameSource for Arriving<'_> {
    fn frame(&mut self, number: u32, frame: &Frame) -> std::io::Result<Vec<u8>> {
        assert!(self.is_settled(frame), "frame {number} was asked for before it came");
        self.file.frame(number, frame)
    }

    fn is_settled(&self, frame: &Frame) -> bool {
        frame.offset < self.come.load(Ordering::Relaxed)
    }
}

#[test]
fn a_file_waits_for_its_frames_and_a_large_one_for_its_time() {
    let trees = release();
    trees.pack(EncoderChoice::Auto);
    let (index, file) = PackFile::open(&trees.path("pack")).unwrap();
    let bases = DirBases { manifest: trees.manifest("old"), source: trees.source("old") };
    let selection = index.select(|_| true).unwrap();
    let come = AtomicU64::new(0);
    let mut frames = Arriving { file, come: &come };
    let mut gather = Gather::default();
    let rebuilder = Rebuilder::new(&index, &bases);
    let mut making = rebuilder.start(&selection, &mut frames, &mut gather).unwrap();
    let mut steps = |most_bytes| {
        let mut made = 0;
        loop {
            match making.step(most_bytes).unwrap() {
                Step::Made => made += 1,
                last => break (made, last),
            }
        }
    };
    // What needs no frame can be made at once.
    let (first, last) = steps(u64::MAX);
    assert_eq!(last, Step::Waiting);
    come.store(u64::MAX, Ordering::Relaxed);
    assert_eq!(steps(0), (0, Step::Waiting), "the next one has more than no bytes");
    let (rest, last) = steps(u64::MAX);
    assert!(rest > 0 && last == Step::Done, "{first} and {rest} files were made");
}
