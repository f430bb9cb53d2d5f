//! What becomes of each entry of the wanted manifest: one byte for each.

use protocol::manifest::Positions;

/// Where a file comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// From elsewhere.
    Fetch,
    /// The live tree has the very file.
    Live,
    /// The live tree has its content.
    Copy,
}

/// What becomes of one entry; nothing by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mark(u8);

const CHANGES: u8 = 1;
const HAD: u8 = 2;
const OTHER_KIND: u8 = 4;
const FROM: u8 = 8 | 16;
const FETCH: u8 = 8;
const LIVE: u8 = 16;
const COPY: u8 = 8 | 16;
const FIRST: u8 = 32;

impl Mark {
    /// Something that changes.
    pub(super) fn change(had: bool, other_kind: bool) -> Self {
        let flag = |is_set: bool, bit| if is_set { bit } else { 0 };
        Self(CHANGES | flag(had, HAD) | flag(other_kind, OTHER_KIND))
    }

    pub(super) fn changes(self) -> bool {
        self.0 & CHANGES != 0
    }

    /// Whether the older generation has the path.
    pub(super) fn had(self) -> bool {
        self.0 & HAD != 0
    }

    /// Whether one of the two is a directory and the other is not.
    pub(super) fn other_kind(self) -> bool {
        self.0 & OTHER_KIND != 0
    }

    /// Of a file that changes: where it comes from.
    pub(super) fn from(self) -> Option<From> {
        match self.0 & FROM {
            FETCH => Some(From::Fetch),
            LIVE => Some(From::Live),
            COPY => Some(From::Copy),
            _ => None,
        }
    }

    pub(super) fn set_from(&mut self, from: From) {
        let bits = match from {
            From::Fetch => FETCH,
            From::Live => LIVE,
            From::Copy => COPY,
        };
        self.0 = self.0 & !FROM | bits;
    }

    /// Whether it is the first use of a content that has to be staged.
    pub(super) fn is_first(self) -> bool {
        self.0 & FIRST != 0
    }

    pub(super) fn set_first(&mut self) {
        self.0 |= FIRST;
    }
}

/// The marks of all entries, by number. Takes its memory with the first that is set.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    marks: Vec<Mark>,
    entries: usize,
}

impl Marks {
    /// For a manifest of so many entries.
    pub(super) fn new(entries: u64) -> Self {
        Self { marks: Vec::new(), entries: usize::try_from(entries).unwrap_or(usize::MAX) }
    }

    pub(super) fn of(&self, number: u64) -> Mark {
        let at = usize::try_from(number).ok();
        at.and_then(|at| self.marks.get(at)).copied().unwrap_or_default()
    }

    /// The mark of an entry, to be set.
    pub(super) fn set(&mut self, number: u64, mark: Mark) {
        if self.marks.is_empty() {
            self.marks.resize(self.entries, Mark::default());
        }
        if let Some(at) = usize::try_from(number).ok().and_then(|at| self.marks.get_mut(at)) {
            *at = mark;
        }
    }

    /// The numbers of those that are meant, ascending.
    pub(super) fn all<'m>(&'m self, is_meant: impl Fn(Mark) -> bool + Send + 'm) -> Positions<'m> {
        let meant = self.marks.iter().zip(0..).filter(move |(mark, _)| is_meant(**mark));
        Box::new(meant.map(|(_, number)| number))
    }
}
