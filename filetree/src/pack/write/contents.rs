//! Where the content of each operation comes from, as far as it is known.
//!
//! A pack from nothing has an operation for every file of a tree, and nearly all of them are a part of
//! one frame: those are kept in 16 bytes each.

use protocol::pack::{Content, Encoder, Slice};

/// The contents of all operations, by number.
#[derive(Default)]
pub(super) struct Contents(Vec<Known>);

enum Known {
    Nothing,
    /// A part of one frame.
    Part {
        encoder: Encoder,
        frame: u32,
        offset: u32,
        len: u32,
    },
    Other(Box<Content>),
}

impl Contents {
    /// For so many operations, of which nothing is known.
    pub(super) fn of(operations: usize) -> Self {
        Self((0..operations).map(|_| Known::Nothing).collect())
    }

    pub(super) fn set(&mut self, op: usize, content: Content) {
        let known = match &content {
            Content::Slices { encoder, slices } => match slices[..] {
                [Slice::Frame { frame, offset, len }] => {
                    Known::Part { encoder: *encoder, frame, offset, len }
                }
                _ => Known::Other(Box::new(content)),
            },
            _ => Known::Other(Box::new(content)),
        };
        if let Some(at) = self.0.get_mut(op) {
            *at = known;
        }
    }

    /// All of them, in the order of the operations.
    pub(super) fn into_each(self) -> impl Iterator<Item = Option<Content>> {
        self.0.into_iter().map(|known| match known {
            Known::Nothing => None,
            Known::Part { encoder, frame, offset, len } => {
                let slices = vec![Slice::Frame { frame, offset, len }];
                Some(Content::Slices { encoder, slices })
            }
            Known::Other(content) => Some(*content),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_comes_back_and_most_of_it_is_small() {
        let part = |frame| Slice::Frame { frame, offset: 7, len: 9 };
        let all = [
            None,
            Some(Content::Copy { from_entry: 3 }),
            Some(Content::Slices { encoder: Encoder::Group, slices: vec![part(1)] }),
            Some(Content::Slices { encoder: Encoder::Whole, slices: vec![part(1), part(2)] }),
            Some(Content::Slices { encoder: Encoder::Whole, slices: Vec::new() }),
            Some(Content::RsyncDelta { base_entry: 1, slices: vec![part(5)] }),
        ];
        let mut contents = Contents::of(all.len());
        for (op, content) in all.iter().enumerate() {
            content.iter().for_each(|content| contents.set(op, content.clone()));
        }
        assert!(contents.into_each().eq(all));
        assert!(size_of::<Known>() <= 16, "{} bytes", size_of::<Known>());
    }
}
