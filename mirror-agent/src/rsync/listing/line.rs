//! One line of a listing.

use jiff::{civil::DateTime, tz::TimeZone};
use protocol::{
    manifest::Entry,
    path::{TreePath, escape},
};

use super::{Listed, ListedKind};

/// What a line says.
pub(super) enum Line {
    Entry(Listed),
    /// The root, an empty line, a message that is no entry.
    Nothing,
    Refused(String),
    Unreadable,
}

/// How rsync says, among the entries, that it passed over something.
const SKIPPED: &[u8] = b"skipping non-regular file \"";
const NO_PLAIN_FILE: &str = "a device, fifo or socket";

/// Reads a line, without its end.
pub(super) fn parse_line(line: &[u8]) -> Line {
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
