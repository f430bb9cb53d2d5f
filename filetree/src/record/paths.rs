//! Lists of paths that take little more memory than their bytes.
//!
//! A first sync of a million entries has a million paths in its lists, and several lists are looked
//! at together. So a list stays as it is written: each path as what it adds to the one before, some
//! ten to twenty bytes, and one path in so many whole, to find others by.

use protocol::{
    path::TreePath,
    wire::{Malformed, Reader, Writer},
};

/// One path in this many is kept whole.
const WHOLE: u64 = 64;

/// Paths in which two trees may differ, in order. `had` says whether the older of the two held
/// something of ours there.
#[derive(Debug, Clone, Default)]
pub(crate) struct PathList {
    items: Writer,
    count: u64,
    last: Option<TreePath>,
    marks: Vec<Mark>,
}

/// A place in a list from which it can be read.
#[derive(Debug, Clone)]
struct Mark {
    path: TreePath,
    had: bool,
    /// Where the next item begins.
    next: usize,
}

impl PathList {
    const MAGIC: &[u8] = b"MNPATHS\x01";

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn len(&self) -> u64 {
        self.count
    }

    /// Adds a path; those before it in order have to be there already.
    pub(crate) fn push(&mut self, path: &TreePath, had: bool) {
        debug_assert!(self.last.as_ref().is_none_or(|last| last < path), "{path} comes too late");
        let previous = self.last.as_ref().map_or(&b""[..], TreePath::as_bytes);
        self.items.path_after(previous, path).byte(u8::from(had));
        self.note(path, had, self.items.len());
    }

    fn note(&mut self, path: &TreePath, had: bool, next: usize) {
        if self.count.is_multiple_of(WHOLE) {
            self.marks.push(Mark { path: path.clone(), had, next });
        }
        self.count += 1;
        self.last = Some(path.clone());
    }

    /// The list as it is kept: what comes first, and the items.
    pub(super) fn encoded(&self) -> (Vec<u8>, &[u8]) {
        let mut front = Writer::new();
        front.raw(Self::MAGIC).varint(self.count);
        (front.into_bytes(), self.items.as_slice())
    }

    pub(super) fn decode(bytes: Vec<u8>) -> Result<Self, Malformed> {
        let mut reader = Reader::new(&bytes);
        reader.magic(Self::MAGIC, "a list of paths")?;
        let count = reader.varint_up_to("paths", protocol::manifest::MAX_ENTRIES)?;
        let front = reader.position();
        let mut list = Self::default();
        for _ in 0..count {
            let previous = list.last.as_ref().map_or(&b""[..], TreePath::as_bytes);
            let path = reader.path_after(previous)?;
            if list.last.as_ref().is_some_and(|last| *last >= path) {
                return Err(reader.invalid("order of paths"));
            }
            let had = reader.byte()? != 0;
            list.note(&path, had, reader.position() - front);
        }
        reader.finish()?;
        let mut bytes = bytes;
        bytes.drain(..front);
        list.items = Writer::from(bytes);
        Ok(list)
    }

    /// All of them in order.
    pub(crate) fn iter(&self) -> Paths<'_> {
        Paths { list: self, at: 0, last: None }
    }

    /// Whether the older tree held something of ours at `path`; `None` if the list does not name
    /// it.
    pub(crate) fn had(&self, path: &TreePath) -> Option<bool> {
        let after = self.marks.partition_point(|mark| mark.path <= *path);
        let mark = &self.marks[after.checked_sub(1)?];
        if mark.path == *path {
            return Some(mark.had);
        }
        let rest = Paths { list: self, at: mark.next, last: Some(mark.path.clone()) };
        let mut rest = rest.take(WHOLE as usize).skip_while(|(listed, _)| listed < path);
        rest.next().and_then(|(listed, had)| (listed == *path).then_some(had))
    }

    /// Both lists in one; what either had, it has.
    pub(crate) fn union(&self, other: &Self) -> Self {
        let (mut one, mut two) = (self.iter().peekable(), other.iter().peekable());
        let mut all = Self::default();
        loop {
            let order = match (one.peek(), two.peek()) {
                (Some((one, _)), Some((two, _))) => one.cmp(two),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (None, None) => return all,
            };
            let first = if order.is_le() { one.next() } else { None };
            let second = if order.is_ge() { two.next() } else { None };
            let had = [&first, &second].into_iter().flatten().any(|(_, had)| *had);
            if let Some((path, _)) = first.or(second) {
                all.push(&path, had);
            }
        }
    }
}

impl PartialEq for PathList {
    fn eq(&self, other: &Self) -> bool {
        self.encoded() == other.encoded()
    }
}

impl Eq for PathList {}

/// In order, each path once.
impl FromIterator<(TreePath, bool)> for PathList {
    fn from_iter<I: IntoIterator<Item = (TreePath, bool)>>(paths: I) -> Self {
        let mut list = Self::default();
        paths.into_iter().for_each(|(path, had)| list.push(&path, had));
        list
    }
}

/// The paths of a list.
pub(crate) struct Paths<'a> {
    list: &'a PathList,
    at: usize,
    last: Option<TreePath>,
}

impl Iterator for Paths<'_> {
    type Item = (TreePath, bool);

    fn next(&mut self) -> Option<Self::Item> {
        let mut reader = Reader::starting_at(self.list.items.as_slice(), self.at);
        if reader.is_empty() {
            return None;
        }
        // It was written here, or read with every check.
        let previous = self.last.as_ref().map_or(&b""[..], TreePath::as_bytes);
        let path = reader.path_after(previous).ok()?;
        let had = reader.byte().ok()? != 0;
        self.at = reader.position();
        self.last = Some(path.clone());
        Some((path, had))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &[(&str, bool)]) -> PathList {
        let path = |text: &str| TreePath::parse(text.as_bytes()).unwrap();
        items.iter().map(|(text, had)| (path(text), *had)).collect()
    }

    fn again(list: &PathList) -> Result<PathList, Malformed> {
        let (mut bytes, items) = list.encoded();
        bytes.extend_from_slice(items);
        PathList::decode(bytes)
    }

    #[test]
    fn lists_of_paths_unite_and_come_back() {
        let one = list(&[("a", false), ("a/b", true), ("c", false)]);
        let two = list(&[("a", true), ("b", false)]);
        let both = one.union(&two);
        assert_eq!(both, list(&[("a", true), ("a/b", true), ("b", false), ("c", false)]));
        assert_eq!(again(&both), Ok(both));
    }

    #[test]
    fn a_long_list_is_found_through_and_takes_few_bytes_for_each_path() {
        let path = |n: u32| TreePath::parse(format!("d{:02}/file-{n:06}", n / 5_000).as_bytes());
        let list: PathList = (0..50_000).map(|n| (path(2 * n).unwrap(), n % 3 == 0)).collect();
        for list in [&list, &again(&list).unwrap()] {
            for n in 0..50_000 {
                assert_eq!(list.had(&path(2 * n).unwrap()), Some(n % 3 == 0), "{n}");
                assert_eq!(list.had(&path(2 * n + 1).unwrap()), None);
            }
            assert_eq!(list.iter().count(), 50_000);
            let whole: usize = list.marks.len() * (size_of::<Mark>() + 32);
            assert!(list.items.len() + whole < 50_000 * 8, "{} bytes", list.items.len() + whole);
        }
    }

    #[test]
    fn lists_out_of_order_are_refused() {
        let (mut bytes, _) = list(&[("a", true), ("b", true)]).encoded();
        let mut items = Writer::new();
        for name in [&b"b"[..], b"a"] {
            items.path_after(b"", &TreePath::parse(name).unwrap()).byte(1);
        }
        bytes.extend_from_slice(items.as_slice());
        assert!(PathList::decode(bytes).is_err());
    }
}
