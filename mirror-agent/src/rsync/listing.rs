//! Reads what `rsync -n` says about a tree at a stock daemon.
//!
//! The server chooses every byte of it, and rsync's own text format has corners: control bytes
//! are written as `\#ooo`, a link's target follows its name after ` -> `, and either may contain
//! that. So the reader is bounded, takes apart only what has exactly one reading, and gives what
//! it could not take by name and reason instead of guessing.

use jiff::{civil::DateTime, tz::TimeZone};
use protocol::{
    digest::{Digest, DigestWriter},
    manifest::{Entry, EntryKind, MAX_ENTRIES, Manifest},
    path::{TreePath, escape},
    symlinks::Symlinks,
};

/// rsync's `--out-format` that [`Listing`] reads.
pub const OUT_FORMAT: &str = "%i|%B|%l|%M|%n%L";
/// Longest line: the longest path and target with every byte escaped, and the fields before.
pub const MAX_LINE: usize = 5 * (TreePath::MAX_LEN + Entry::MAX_TARGET) + 256;
/// Most entries that could not be taken and are still remembered by name.
const MAX_REFUSED: usize = 1_000;

/// One entry as the server lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Where it is.
    pub path: TreePath,
    /// What it is.
    pub kind: ListedKind,
    /// Permission bits; 0 for symbolic links.
    pub mode: u32,
    /// Modification time in whole seconds since 1970 UTC: rsync prints no more.
    pub mtime: i64,
}

/// What a listed entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListedKind {
    /// A regular file of so many bytes.
    File {
        /// Length in bytes.
        size: u64,
    },
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: Box<[u8]>,
    },
}

/// A whole listing, sorted, with what was left out of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    entries: Vec<Listed>,
    /// Entries that no tree of ours can hold, each with the reason; a bounded number of them.
    pub refused: Vec<String>,
    /// How many there were.
    pub refused_entries: u64,
}

/// Why a listing cannot be used at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A line that is not in our format.
    #[error("rsync's listing has a line that cannot be read: {line:?}")]
    Unreadable {
        /// The line, escaped and shortened.
        line: String,
    },
    /// A line without end.
    #[error("rsync's listing has a line of more than {MAX_LINE} bytes")]
    LineTooLong,
    /// More entries than any manifest may have.
    #[error("the upstream lists more than {MAX_ENTRIES} entries")]
    TooManyEntries,
}

impl Listed {
    /// Whether a manifest's entry is, as far as a listing can tell, the same.
    pub fn agrees_with(&self, entry: &Entry) -> bool {
        let same_kind = match (&self.kind, &entry.kind) {
            (ListedKind::File { size }, EntryKind::File { size: held, .. }) => size == held,
            (ListedKind::Dir, EntryKind::Dir) => true,
            (ListedKind::Symlink { target }, EntryKind::Symlink { target: held }) => target == held,
            _ => false,
        };
        // A link has no time of its own that anyone would miss, and servers differ in giving it.
        let same_time = matches!(self.kind, ListedKind::Symlink { .. })
            || self.mtime == entry.mtime.div_euclid(NANOS);
        same_kind && same_time && self.mode == entry.mode
    }

    /// Whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == ListedKind::Dir
    }
}

/// Nanoseconds of a second.
pub const NANOS: i64 = 1_000_000_000;

impl Listing {
    /// Names exactly this listing: paths, kinds, sizes, times and modes.
    pub fn digest(&self) -> Digest {
        let mut digest = DigestWriter::new();
        for Listed { path, mode, mtime, kind } in &self.entries {
            let (tag, target, size) = match kind {
                ListedKind::File { size } => (b'f', &b""[..], *size),
                ListedKind::Dir => (b'd', &b""[..], 0),
                ListedKind::Symlink { target } => (b'l', &target[..], 0),
            };
            digest.update(&[tag]);
            for text in [path.as_bytes(), target] {
                digest.update(&(text.len() as u64).to_le_bytes());
                digest.update(text);
            }
            digest.update(&size.to_le_bytes());
            digest.update(&mtime.to_le_bytes());
            digest.update(&mode.to_le_bytes());
        }
        digest.finish()
    }

    /// Adds the next line, without its end.
    pub fn push_line(&mut self, line: &[u8]) -> Result<(), Error> {
        if line.len() > MAX_LINE {
            return Err(Error::LineTooLong);
        }
        if self.entries.len() as u64 + self.refused_entries >= MAX_ENTRIES {
            return Err(Error::TooManyEntries);
        }
        match parse_line(line) {
            Line::Entry(entry) => self.entries.push(entry),
            Line::Nothing => {}
            Line::Refused(why) => self.refuse(why),
            Line::Unreadable => {
                let line = escape(line).chars().take(200).collect();
                return Err(Error::Unreadable { line });
            }
        }
        Ok(())
    }

    /// Sorts what was read, and leaves out what appears twice, what lies in no listed directory,
    /// and what `keep` does not keep.
    pub fn finish(mut self, keep: impl Fn(&TreePath, bool) -> bool) -> Self {
        let mut listed = std::mem::take(&mut self.entries);
        listed.sort_by(|a, b| a.path.cmp(&b.path));
        let mut open: Vec<TreePath> = Vec::new();
        for entry in listed {
            if self.entries.last().is_some_and(|last| last.path == entry.path) {
                self.refuse(format!("{}: listed twice", entry.path));
                continue;
            }
            while open.last().is_some_and(|dir| !entry.path.is_inside(dir)) {
                open.pop();
            }
            let in_kept_dir = entry.path.parent().as_ref() == open.last();
            if !in_kept_dir || !keep(&entry.path, entry.is_dir()) {
                continue;
            }
            if entry.is_dir() {
                open.push(entry.path.clone());
            }
            self.entries.push(entry);
        }
        self
    }

    /// What lies inside the directory `above`, as seen from there.
    pub fn below(&self, above: &TreePath) -> Self {
        let inside = self
            .entries
            .iter()
            .filter_map(|entry| Some(Listed { path: entry.path.below(above)?, ..entry.clone() }));
        Self { entries: inside.collect(), ..Self::default() }
    }

    /// Leaves out the links that a tree may not have.
    pub fn without_links(mut self, symlinks: Symlinks) -> Self {
        for entry in std::mem::take(&mut self.entries) {
            match &entry.kind {
                ListedKind::Symlink { target } if !symlinks.allows(&entry.path, target) => {
                    self.refuse(format!("{}: {}", entry.path, symlinks.why()));
                }
                _ => self.entries.push(entry),
            }
        }
        self
    }

    /// The entries; sorted after [`Listing::finish`].
    pub fn entries(&self) -> &[Listed] {
        &self.entries
    }

    /// The entry at `path`, after [`Listing::finish`].
    pub fn get(&self, path: &TreePath) -> Option<&Listed> {
        let at = self.entries.binary_search_by(|entry| entry.path.cmp(path)).ok()?;
        self.entries.get(at)
    }

    /// Whether the listing shows exactly what `held` says.
    pub fn agrees_with(&self, held: &Manifest) -> bool {
        let held = held.entries();
        self.entries.len() == held.len()
            && self
                .entries
                .iter()
                .zip(held)
                .all(|(listed, entry)| listed.path == entry.path && listed.agrees_with(entry))
    }

    fn refuse(&mut self, why: String) {
        self.refused_entries += 1;
        if self.refused.len() < MAX_REFUSED {
            self.refused.push(why);
        }
    }
}

enum Line {
    Entry(Listed),
    /// The root, an empty line, a message that is no entry.
    Nothing,
    Refused(String),
    Unreadable,
}

/// How rsync says, among the entries, that it passed over something.
const SKIPPED: &[u8] = b"skipping non-regular file \"";
const NO_PLAIN_FILE: &str = "a device, fifo or socket";

fn parse_line(line: &[u8]) -> Line {
    if line.is_empty() {
        return Line::Nothing;
    }
    if let Some(name) = line.strip_prefix(SKIPPED) {
        return refused(&unescape(name.strip_suffix(b"\"").unwrap_or(name)), NO_PLAIN_FILE);
    }
    let mut fields = line.splitn(5, |&b| b == b'|');
    let mut next = || fields.next();
    let (Some(item), Some(mode), Some(size), Some(time), Some(name)) =
        (next(), next(), next(), next(), next())
    else {
        return Line::Unreadable;
    };
    let (Some(mode), Some(size), Some(mtime)) = (mode_bits(mode), number(size), seconds(time))
    else {
        return Line::Unreadable;
    };
    let Some(&kind) = item.get(1).filter(|_| item.len() >= 3) else {
        return Line::Unreadable;
    };
    match kind {
        b'f' => entry(name, ListedKind::File { size }, mode, mtime),
        b'd' if matches!(name, b"./" | b".") => Line::Nothing,
        b'd' => entry(name.strip_suffix(b"/").unwrap_or(name), ListedKind::Dir, mode, mtime),
        b'L' => match split_link(name, size) {
            Some((name, target)) => entry_at(&name, ListedKind::Symlink { target }, 0, mtime),
            None => refused(&unescape(name), "a link whose name and target cannot be told apart"),
        },
        b'D' | b'S' => refused(&unescape(name), NO_PLAIN_FILE),
        _ => Line::Unreadable,
    }
}

fn entry(name: &[u8], kind: ListedKind, mode: u32, mtime: i64) -> Line {
    entry_at(&unescape(name), kind, mode, mtime)
}

fn entry_at(name: &[u8], kind: ListedKind, mode: u32, mtime: i64) -> Line {
    match TreePath::parse(name) {
        Ok(path) => Line::Entry(Listed { path, kind, mode, mtime }),
        Err(why) => refused(name, &why.to_string()),
    }
}

fn refused(name: &[u8], why: &str) -> Line {
    let name: String = escape(name).chars().take(300).collect();
    Line::Refused(format!("{name}: {why}"))
}

/// Takes `NAME -> TARGET` apart. `size` is the target's length, where the server tells it.
fn split_link(text: &[u8], size: u64) -> Option<(Vec<u8>, Box<[u8]>)> {
    const ARROW: &[u8] = b" -> ";
    let cuts: Vec<usize> = (0..text.len().saturating_sub(ARROW.len()))
        .filter(|&at| text[at..].starts_with(ARROW))
        .collect();
    let parts = |at: usize| (unescape(&text[..at]), unescape(&text[at + ARROW.len()..]));
    let fitting: Vec<_> = cuts
        .iter()
        .map(|&at| parts(at))
        .filter(|(_, target)| target.len() as u64 == size)
        .collect();
    let (name, target) = match (fitting.len(), cuts.as_slice()) {
        (1, _) => fitting.into_iter().next()?,
        (0, [only]) => parts(*only),
        _ => return None,
    };
    let usable = !target.is_empty() && target.len() <= Entry::MAX_TARGET && !target.contains(&0);
    usable.then(|| (name, target.into()))
}

/// Undoes `\#ooo`, as rsync writes control bytes.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&b, tail)) = rest.split_first() {
        if let [b'\\', b'#', digits @ ..] = rest
            && let Some(byte) = octal(digits)
        {
            out.push(byte);
            rest = &digits[3..];
        } else {
            out.push(b);
            rest = tail;
        }
    }
    out
}

fn octal(digits: &[u8]) -> Option<u8> {
    let digits = digits.get(..3)?;
    digits
        .iter()
        .try_fold(0u16, |sum, &digit| {
            (b'0'..=b'7').contains(&digit).then(|| sum * 8 + u16::from(digit - b'0'))
        })?
        .try_into()
        .ok()
}

fn number(text: &[u8]) -> Option<u64> {
    let number: u64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    i64::try_from(number).ok().map(|_| number)
}

/// Reads `rwxr-sr-x`; setuid, setgid and sticky are not carried.
fn mode_bits(text: &[u8]) -> Option<u32> {
    let text = text.get(..9).filter(|_| text.len() <= 10)?;
    let mut mode = 0;
    for (at, &c) in text.iter().enumerate() {
        let bit = 1 << (8 - at);
        match c {
            b'r' | b'w' | b'x' | b's' | b't' => mode |= bit,
            b'-' | b'S' | b'T' => {}
            _ => return None,
        }
    }
    Some(mode)
}

/// Reads `2026/11/20-15:14:22` as UTC: rsync runs with `TZ=UTC`.
fn seconds(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let time = DateTime::strptime("%Y/%m/%d-%H:%M:%S", text).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&[u8]]) -> Listing {
        let mut listing = Listing::default();
        for line in lines {
            listing.push_line(line).unwrap();
        }
        listing.finish(|_, _| true)
    }

    fn names(listing: &Listing) -> Vec<String> {
        listing.entries().iter().map(|entry| entry.path.to_string()).collect()
    }

    #[test]
    fn what_rsync_prints_is_read() {
        let listing = read(&[
            b".d..t......|rwxr-xr-x|4096|2026/11/20-15:14:22|./",
            b"cd+++++++++|rwxr-xr-x|4096|2026/11/20-15:14:22|b/",
            b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|b/x|y",
            b"cL+++++++++|rwxrwxrwx|3|2026/11/20-15:14:22|a -> b/x",
        ]);
        assert_eq!(names(&listing), ["a", "b", "b/x|y"]);
        let file = &listing.entries()[2];
        assert_eq!((file.mode, file.mtime), (0o644, 1_795_187_662));
        assert_eq!(file.kind, ListedKind::File { size: 7 });
        assert_eq!(listing.entries()[0].kind, ListedKind::Symlink { target: (*b"b/x").into() });
    }

    #[test]
    fn names_that_could_leave_the_tree_are_refused_by_name() {
        let listing = read(&[
            b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|../../etc/passwd",
            b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|/etc/passwd",
            b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|a/./b",
            b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|",
            b"cD+++++++++|rw-r--r--|7|2026/11/20-15:14:22|null",
            b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|orphan/file",
            b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|fine",
            b"skipping non-regular file \"dev/null\"",
        ]);
        assert_eq!(names(&listing), ["fine"]);
        assert_eq!(listing.refused_entries, 6);
        assert!(listing.refused[0].starts_with("../../etc/passwd: "), "{:?}", listing.refused);
    }

    #[test]
    fn a_file_named_twice_or_also_a_directory_is_taken_once() {
        let listing = read(&[
            b"cd+++++++++|rwxr-xr-x|4096|2026/11/20-15:14:22|a/",
            b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|a",
            b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|a/b",
        ]);
        assert_eq!(names(&listing), ["a", "a/b"]);
        assert_eq!(listing.refused, ["a: listed twice"]);
    }

    #[test]
    fn control_bytes_and_backslashes_are_read_back() {
        let listing = read(&[
            br">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|new\#012line",
            br">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|back\slash",
            br">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|esc\#134#012",
            b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|\xff",
        ]);
        let raw: Vec<&[u8]> = listing.entries().iter().map(|e| e.path.as_bytes()).collect();
        assert_eq!(raw, [&br"back\slash"[..], br"esc\#012", b"new\nline", b"\xff"]);
    }

    #[test]
    fn an_arrow_in_a_links_name_is_told_apart_by_the_targets_length_or_refused() {
        let listing = read(&[
            b"cL+++++++++|rwxrwxrwx|1|2026/11/20-15:14:22|a -> b -> c",
            b"cL+++++++++|rwxrwxrwx|0|2026/11/20-15:14:22|d -> e -> f",
            b"cL+++++++++|rwxrwxrwx|0|2026/11/20-15:14:22|g -> h",
        ]);
        assert_eq!(names(&listing), ["a -> b", "g"]);
        assert_eq!(listing.refused_entries, 1);
    }

    #[test]
    fn lines_of_another_form_stop_the_listing() {
        for line in [
            &b"hello"[..],
            b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22",
            b">f+++++++++|rw-r--r--|-7|2026/11/20-15:14:22|x",
            b">f+++++++++|rw-r--r--|7|2026/99/20-15:14:22|x",
            b">f+++++++++|bananas!!|7|2026/11/20-15:14:22|x",
            b">q+++++++++|rw-r--r--|7|2026/11/20-15:14:22|x",
            b">|rw-r--r--|7|2026/11/20-15:14:22|x",
            b">f+++++++++|rw-r--r--|99999999999999999999|2026/11/20-15:14:22|x",
        ] {
            let refused = Listing::default().push_line(line);
            assert!(matches!(refused, Err(Error::Unreadable { .. })), "{:?}", escape(line));
        }
        let long = vec![b'x'; MAX_LINE + 1];
        assert_eq!(Listing::default().push_line(&long), Err(Error::LineTooLong));
    }

    #[test]
    fn what_the_filter_does_not_keep_is_not_there_and_nothing_inside_it() {
        let mut listing = Listing::default();
        for line in [
            &b"cd+++++++++|rwxr-xr-x|4096|2026/11/20-15:14:22|skip/"[..],
            b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|skip/x",
            b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|keep",
        ] {
            listing.push_line(line).unwrap();
        }
        let listing = listing.finish(|path, _| path.as_bytes() != b"skip");
        assert_eq!(names(&listing), ["keep"]);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(line in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            drop(Listing::default().push_line(&line));
            let mut with_front = b">L+++++++++|rwxrwxrwx|3|2026/11/20-15:14:22|".to_vec();
            with_front.extend(line);
            drop(Listing::default().push_line(&with_front));
        }
    }
}
