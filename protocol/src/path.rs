//! Paths inside a tree.
//!
//! Upstreams, packs and rsync servers all name files, and every one of them may be hostile. A path
//! is checked once, here, and whatever holds a [`TreePath`] may rely on it:
//!
//! - it is relative and not empty, and has no empty, `.` or `..` component;
//! - it has no NUL byte; it is at most 4096 bytes long, each component at most 255;
//! - it is at most 256 components deep;
//! - it is bytes, not text: file systems do not promise UTF-8, so neither do we.
//!
//! Paths have one total order, by components, which is also the order of a sorted depth-first
//! walk: a directory comes directly before what is inside it.

use std::{borrow::Cow, cmp::Ordering, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A checked path inside a tree. See the [module](self) for its invariants.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TreePath(Box<[u8]>);

/// Why some bytes are not a [`TreePath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// No bytes at all.
    #[error("the path is empty")]
    Empty,
    /// Begins with `/`.
    #[error("the path is absolute")]
    Absolute,
    /// Has a `//`, or ends in `/`.
    #[error("the path has an empty component")]
    EmptyComponent,
    /// Has a `.` or `..` component.
    #[error("the path has a '.' or '..' component")]
    DotComponent,
    /// Has a NUL byte.
    #[error("the path has a NUL byte")]
    Nul,
    /// Longer than [`TreePath::MAX_LEN`].
    #[error("the path is longer than 4096 bytes")]
    TooLong,
    /// A component is longer than [`TreePath::MAX_COMPONENT`].
    #[error("a component of the path is longer than 255 bytes")]
    ComponentTooLong,
    /// More than [`TreePath::MAX_DEPTH`] components.
    #[error("the path is deeper than 256 directories")]
    TooDeep,
    /// The text form has a `%` that is not followed by two hex digits.
    #[error("the path has a '%' without two hex digits")]
    BadEscape,
}

impl TreePath {
    /// Longest path, in bytes.
    pub const MAX_LEN: usize = 4096;
    /// Longest component, in bytes.
    pub const MAX_COMPONENT: usize = 255;
    /// Most components.
    pub const MAX_DEPTH: usize = 256;

    /// The only door: checks raw bytes, as a file system or a format delivers them.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidPath> {
        if bytes.is_empty() {
            return Err(InvalidPath::Empty);
        }
        if bytes.len() > Self::MAX_LEN {
            return Err(InvalidPath::TooLong);
        }
        if bytes[0] == b'/' {
            return Err(InvalidPath::Absolute);
        }
        let mut depth = 0;
        for component in bytes.split(|&b| b == b'/') {
            depth += 1;
            match component {
                b"" => return Err(InvalidPath::EmptyComponent),
                b"." | b".." => return Err(InvalidPath::DotComponent),
                _ if component.len() > Self::MAX_COMPONENT => {
                    return Err(InvalidPath::ComponentTooLong);
                }
                _ if component.contains(&0) => return Err(InvalidPath::Nul),
                _ => {}
            }
        }
        if depth > Self::MAX_DEPTH {
            return Err(InvalidPath::TooDeep);
        }
        Ok(Self(bytes.into()))
    }

    /// Reads the text form that `Display` and JSON use.
    pub fn parse_text(text: &str) -> Result<Self, InvalidPath> {
        Self::parse(&unescape(text).ok_or(InvalidPath::BadEscape)?)
    }

    /// The path `name` inside this directory.
    pub fn child(&self, name: &[u8]) -> Result<Self, InvalidPath> {
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        bytes.push(b'/');
        bytes.extend_from_slice(name);
        Self::parse(&bytes)
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The components from the top.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/')
    }

    /// The last component.
    pub fn name(&self) -> &[u8] {
        match self.0.iter().rposition(|&b| b == b'/') {
            Some(at) => &self.0[at + 1..],
            None => &self.0,
        }
    }

    /// The directory that holds this path; `None` when that is the tree's root.
    pub fn parent(&self) -> Option<Self> {
        let at = self.0.iter().rposition(|&b| b == b'/')?;
        Some(Self(self.0[..at].into()))
    }

    /// Every directory above this path within the tree, from the top.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> + '_ {
        let cuts = self.0.iter().enumerate().filter(|&(_, &b)| b == b'/').map(|(at, _)| at);
        cuts.map(|at| Self(self.0[..at].into()))
    }

    /// This path as seen from the directory `above`; `None` where it does not lie inside of it.
    pub fn below(&self, above: &Self) -> Option<Self> {
        self.is_inside(above).then(|| Self(self.0[above.0.len() + 1..].into()))
    }

    /// Whether this path comes after the one that has these bytes.
    pub(crate) fn follows(&self, earlier: &[u8]) -> bool {
        order(&self.0, earlier).is_gt()
    }

    /// Whether this path lies inside the directory `above` (a path does not lie inside itself).
    pub fn is_inside(&self, above: &Self) -> bool {
        self.0.len() > above.0.len()
            && self.0.starts_with(&above.0)
            && self.0[above.0.len()] == b'/'
    }
}

/// The order of paths, on their bytes.
fn order(one: &[u8], other: &[u8]) -> Ordering {
    // A NUL cannot occur, so reading `/` as 0 compares component by component.
    let key = |b: u8| if b == b'/' { 0 } else { b };
    match one.iter().zip(other).position(|(one, other)| one != other) {
        Some(at) => key(one[at]).cmp(&key(other[at])),
        None => one.len().cmp(&other.len()),
    }
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> Ordering {
        order(&self.0, &other.0)
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Prints the reversible text form: valid UTF-8 as it is, but `%`, control characters and bytes
/// that are not UTF-8 as `%XX`. Safe in a log line and on a terminal.
impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0))
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", escape(&self.0))
    }
}

impl Serialize for TreePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&escape(&self.0))
    }
}

impl<'de> Deserialize<'de> for TreePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse_text(&text).map_err(serde::de::Error::custom)
    }
}

/// Writes arbitrary file-name bytes as text that [`unescape`] reads back exactly.
pub fn escape(bytes: &[u8]) -> Cow<'_, str> {
    let plain = |c: char| c != '%' && !c.is_control() && !is_bidi_or_separator(c);
    if let Ok(text) = std::str::from_utf8(bytes)
        && text.chars().all(plain)
    {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(bytes.len() + 8);
    let hex = |bytes: &[u8], out: &mut String| {
        for b in bytes {
            out.push('%');
            out.push_str(&data_encoding::HEXUPPER.encode(&[*b]));
        }
    };
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if plain(c) {
                out.push(c);
            } else {
                hex(c.encode_utf8(&mut [0; 4]).as_bytes(), &mut out);
            }
        }
        hex(chunk.invalid(), &mut out);
    }
    Cow::Owned(out)
}

/// Characters that would reorder or break the line they are printed in.
fn is_bidi_or_separator(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Reads the form that [`escape`] writes; `None` where a `%` lacks its two hex digits.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&b, tail)) = rest.split_first() {
        if b == b'%' {
            let digits = tail.get(..2)?;
            out.extend(data_encoding::HEXLOWER_PERMISSIVE.decode(digits).ok()?);
            rest = &tail[2..];
        } else {
            out.push(b);
            rest = tail;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn paths_that_could_leave_the_tree_do_not_exist() {
        let cases: &[(&[u8], InvalidPath)] = &[
            (b"", InvalidPath::Empty),
            (b"/", InvalidPath::Absolute),
            (b"/etc/passwd", InvalidPath::Absolute),
            (b"..", InvalidPath::DotComponent),
            (b"a/../b", InvalidPath::DotComponent),
            (b"a/..", InvalidPath::DotComponent),
            (b"./a", InvalidPath::DotComponent),
            (b"a//b", InvalidPath::EmptyComponent),
            (b"a/", InvalidPath::EmptyComponent),
            (b"a\0b", InvalidPath::Nul),
            (&[b'a'; 256], InvalidPath::ComponentTooLong),
            (&[b'a'; 4097], InvalidPath::TooLong),
        ];
        for (bytes, why) in cases {
            assert_eq!(TreePath::parse(bytes), Err(*why), "{:?}", escape(bytes));
        }
        let deep = vec!["a"; 257].join("/");
        assert_eq!(TreePath::parse(deep.as_bytes()), Err(InvalidPath::TooDeep));
    }

    #[test]
    fn odd_but_legal_names_survive() {
        for bytes in [&b"..."[..], b"a\nb", b"\xff\xfe", b" ", b"%", &[b'a'; 255], b"-rf", b"*"] {
            let path = TreePath::parse(bytes).unwrap();
            assert_eq!(TreePath::parse_text(&path.to_string()), Ok(path));
        }
        assert_eq!(path("a%b\n").to_string(), "a%25b%0A");
    }

    #[test]
    fn order_is_that_of_a_sorted_depth_first_walk() {
        let sorted = ["a", "a/b", "a/b/c", "a/bb", "a b", "a-b", "a.b", "a0", "ab", "b"];
        for pair in sorted.windows(2) {
            assert!(path(pair[0]) < path(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn parts_are_told_apart() {
        let p = path("a/b/c");
        assert_eq!(p.name(), b"c");
        assert_eq!(p.parent(), Some(path("a/b")));
        assert_eq!(p.ancestors().collect::<Vec<_>>(), [path("a"), path("a/b")]);
        assert!(p.is_inside(&path("a")) && !p.is_inside(&p) && !path("ab").is_inside(&path("a")));
        assert_eq!(path("a").child(b"b"), Ok(path("a/b")));
        assert_eq!(path("a").child(b"../x"), Err(InvalidPath::DotComponent));
    }

    proptest! {
        #[test]
        fn text_form_is_reversible(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let text = escape(&bytes).into_owned();
            prop_assert_eq!(unescape(&text), Some(bytes));
            prop_assert!(!text.chars().any(char::is_control));
        }

        #[test]
        fn order_agrees_with_the_order_of_component_lists(a in "[a-c/.]{1,8}", b in "[a-c/.]{1,8}") {
            if let (Ok(a), Ok(b)) = (TreePath::parse(a.as_bytes()), TreePath::parse(b.as_bytes())) {
                prop_assert_eq!(a.cmp(&b), a.components().cmp(b.components()));
            }
        }
    }
}
