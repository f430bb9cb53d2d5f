//! Indexes of any bytes. Rows are damaged before they are packed and named by their digests, so
//! that damage reaches every parser and not only the comparison of digests.

use super::{chain, tests::sample, *};
use crate::{
    manifest::Manifest,
    mutate::{Random, try_many},
};

/// The rows of a pack's operations and of its frames, unpacked.
struct Rows {
    from: Manifest,
    to: Manifest,
    ops: Vec<u8>,
    op_count: u64,
    first: TreePath,
    frames: Vec<u8>,
    frame_bytes: u64,
    frame_count: u64,
}

impl Rows {
    fn new() -> Self {
        let (from, to, ops, frames) = sample();
        let mut columns = columns::Columns::<wire::Writer>::default();
        let mut context = op::Context::default();
        ops.iter().for_each(|op| context.write(op, &mut columns));
        let op_rows = columns.into_bytes(false);
        let mut columns = columns::Columns::<wire::Writer>::default();
        let mut context = frame::Context::default();
        frames.iter().for_each(|frame| context.write(frame, &mut columns));
        Self {
            first: ops[0].path().clone(),
            op_count: ops.len() as u64,
            ops: op_rows,
            frame_bytes: frames.iter().map(|frame| u64::from(frame.stored_len)).sum(),
            frame_count: frames.len() as u64,
            frames: columns.into_bytes(false),
            from,
            to,
        }
    }

    /// An index in which the damage of `random` is well packed.
    fn damaged(&self, random: &mut Random) -> Vec<u8> {
        let (mut ops, mut frames) = (self.ops.clone(), self.frames.clone());
        let which = random.below(4);
        if which != 0 {
            random.damage(&mut ops);
        }
        if which != 1 {
            random.damage(&mut frames);
        }
        let mut blocks = Vec::new();
        let mut block = |raw: &[u8], count: u64| {
            let packed = wire::compress(raw, 1).unwrap();
            blocks.extend_from_slice(&packed);
            let (stored_len, raw_len) = (packed.len() as u64, raw.len() as u64);
            let digest = Digest::of(&packed);
            header::BlockRef { count, offset: 0, stored_len, raw_len, digest }
        };
        let count = |random: &mut Random, count: u64| match random.below(8) {
            0 => count + 1,
            1 => count.saturating_sub(1),
            _ => count,
        };
        let ops = block(&ops, count(random, self.op_count));
        let frames = block(&frames, count(random, self.frame_count));
        let shared = header::SharedRef {
            name: Digest::of(b"object"),
            start: random.below(5) as u64,
            blocks: count(random, 1),
        };
        let directory = header::Directory {
            placed: false,
            inside: random.below(2) == 0,
            differences: random.below(2) == 0,
            ops: vec![header::OpBlockRef {
                first: self.first.clone(),
                block: ops,
                from: 0,
                to: 0,
                within: Vec::new(),
            }],
            frames: vec![(self.frame_bytes, frames)],
            shared: if random.below(2) == 0 { vec![shared] } else { Vec::new() },
        };
        let header = Header {
            from: Some(self.from.digest()),
            from_entries: self.from.entries().len() as u64,
            to: self.to.digest(),
            to_entries: self.to.entries().len() as u64,
        };
        let mut bytes = header.encode(&directory);
        bytes.extend_from_slice(&blocks);
        if which == 3 {
            random.damage(&mut bytes);
        }
        bytes
    }
}

#[test]
fn no_index_panics_leads_astray_or_takes_long() {
    let rows = Rows::new();
    let sound = Index::parse_unsigned(rows.damaged_by_nothing()).unwrap();
    assert_eq!(target_manifest(&sound, &rows.from).as_ref(), Ok(&rows.to));
    try_many("pack index", 20_000, |random| {
        let bytes = rows.damaged(random);
        let _ = Index::length(&bytes);
        let Ok(index) = Index::parse_unsigned(bytes) else { return };
        let selection = index.select(|_| true).unwrap();
        let end = index.shared().last().map_or(index.pack_len(), |part| part.offset + part.bytes);
        assert!(selection.ranges.iter().all(|range| range.end <= end));
        if let Ok(to) = target_manifest(&index, &rows.from) {
            assert_eq!(to.digest(), index.header().to);
        }
        let link = chain::Link { index: &index, from: &rows.from };
        let wanted: Vec<chain::Wanted<'_>> = rows
            .to
            .entries()
            .iter()
            .filter_map(|entry| {
                let (path, digest) = (&entry.path, entry.digest()?);
                Some(chain::Wanted { path, digest, otherwise: Some(5) })
            })
            .collect();
        let held = |path: &TreePath, digest: &Digest| {
            rows.from.get(path).and_then(manifest::Entry::digest) == Some(*digest)
        };
        let draw = chain::draw(&[link, link], &wanted, &held).unwrap();
        assert_eq!(draw.made_by.len(), wanted.len());
    });
}

impl Rows {
    fn damaged_by_nothing(&self) -> Vec<u8> {
        let (_, _, ops, frames) = sample();
        let mut builder = IndexBuilder::new();
        for frame in &frames {
            builder.push_frame(frame).unwrap();
        }
        for op in &ops {
            builder.push_op(op).unwrap();
        }
        let header = Header {
            from: Some(self.from.digest()),
            from_entries: self.from.entries().len() as u64,
            to: self.to.digest(),
            to_entries: self.to.entries().len() as u64,
        };
        builder.finish(&header).unwrap()
    }
}
