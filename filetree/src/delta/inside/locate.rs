//! Where deflate streams lie in files.
//!
//! What is found here is only looked at: whether it is a stream is known when it was inflated.

use std::io;

use super::ReadAt;

/// Most entries of a zip file that are looked at, and bytes of its directory.
const MAX_ENTRIES: u64 = 200_000;
const MAX_DIRECTORY_BYTES: u64 = 32 << 20;
/// Most bytes of what a gzip member says before its stream.
const MAX_GZIP_HEADER: usize = 64 << 10;
/// Most members of a gzip file that are looked at.
const MAX_MEMBERS: u64 = 1_000_000;
const GZIP_TRAILER: u64 = 8;

/// What two streams have in common that have the same bytes: checksum and both lengths.
pub(super) type Key = (u32, u64, u64);

/// A place where a stream seems to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) at: u64,
    /// Its bytes, where the file says so.
    pub(super) stored_len: Option<u64>,
    /// Bytes that it has at most.
    pub(super) room: u64,
    pub(super) key: Option<Key>,
}

/// Whether a file that begins like this may have streams.
pub fn is_candidate(front: &[u8]) -> bool {
    front.starts_with(&[0x1f, 0x8b, 8]) || front.starts_with(b"PK\x03\x04")
}

/// Streams of a zip file by its directory, or the first one of a gzip file; in the order of the file,
/// without overlaps.
pub(super) fn streams(file: &dyn ReadAt, len: u64) -> io::Result<Vec<Found>> {
    let front = file.range(0, len.min(4) as usize)?;
    if !is_candidate(&front) {
        return Ok(Vec::new());
    }
    if front.starts_with(b"PK") {
        return Ok(zip(file, len)?.unwrap_or_default());
    }
    Ok(gzip(file, 0, len)?.into_iter().collect())
}

/// Goes through the streams of a file. In a gzip file the next is known only when the end of the one
/// before is.
pub(super) struct Walk<'a> {
    next: std::slice::Iter<'a, Found>,
    is_gzip: bool,
    /// Where the next member of a gzip file would begin.
    member_at: Option<u64>,
    members: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(found: &'a [Found]) -> Self {
        let is_gzip = found.iter().any(|found| found.stored_len.is_none());
        Self { next: found.iter(), is_gzip, member_at: None, members: 0 }
    }

    pub(super) fn next(&mut self, file: &dyn ReadAt, len: u64) -> io::Result<Option<Found>> {
        if let Some(found) = self.next.next() {
            return Ok(Some(*found));
        }
        match self.member_at.take() {
            Some(at) if self.members < MAX_MEMBERS => {
                self.members += 1;
                gzip(file, at, len)
            }
            _ => Ok(None),
        }
    }

    /// The stream that was given last ends there.
    pub(super) fn passed(&mut self, end: u64) {
        self.member_at = self.is_gzip.then(|| end.saturating_add(GZIP_TRAILER));
    }
}

/// The stream of the gzip member at `at`.
fn gzip(file: &dyn ReadAt, at: u64, len: u64) -> io::Result<Option<Found>> {
    let left = len.saturating_sub(at);
    let front = file.range(at, left.min(MAX_GZIP_HEADER as u64) as usize)?;
    let Some(header) = gzip_header(&front) else { return Ok(None) };
    let room = left - header as u64;
    let mut key = None;
    // Most files have one member: then this is what is said at its end. Else it is like nothing.
    if let Some(stored_len) = room.checked_sub(GZIP_TRAILER) {
        let trailer = file.range(len - GZIP_TRAILER, GZIP_TRAILER as usize)?;
        let said = u32_at(&trailer, 0).zip(u32_at(&trailer, 4));
        key = said.map(|(crc, plain_len)| (crc, stored_len, u64::from(plain_len)));
    }
    Ok(Some(Found { at: at + header as u64, stored_len: None, room, key }))
}

fn gzip_header(front: &[u8]) -> Option<usize> {
    const HEADER_CRC: u8 = 2;
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    if !front.starts_with(&[0x1f, 0x8b, 8]) {
        return None;
    }
    let flags = *front.get(3)?;
    let mut at = 10;
    if flags & EXTRA != 0 {
        at += 2 + usize::from(u16_at(front, at)?);
    }
    for _ in 0..(flags & NAME != 0) as u32 + (flags & COMMENT != 0) as u32 {
        at += front.get(at..)?.iter().position(|byte| *byte == 0)? + 1;
    }
    at += if flags & HEADER_CRC != 0 { 2 } else { 0 };
    (at < front.len()).then_some(at)
}

/// The streams that the directory of a zip file names.
fn zip(file: &dyn ReadAt, len: u64) -> io::Result<Option<Vec<Found>>> {
    let Some((begin, size)) = zip_directory(file, len)? else { return Ok(None) };
    if size > MAX_DIRECTORY_BYTES || begin.checked_add(size).is_none_or(|end| end > len) {
        return Ok(None);
    }
    let directory = file.range(begin, size as usize)?;
    let (mut rest, mut found) = (&directory[..], Vec::new());
    while let Some((entry, behind)) = zip_entry(rest)
        && (found.len() as u64) < MAX_ENTRIES
    {
        rest = behind;
        let Some((key, header_at)) = entry else { continue };
        // The data begins behind what the entry says again of itself.
        if header_at.checked_add(30).is_none_or(|end| end > begin) {
            continue;
        }
        let header = file.range(header_at, 30)?;
        let lens = u16_at(&header, 26).zip(u16_at(&header, 28));
        let Some((name, extra)) = lens.filter(|_| header.starts_with(b"PK\x03\x04")) else {
            continue;
        };
        let at = header_at + 30 + u64::from(name) + u64::from(extra);
        if at.checked_add(key.1).is_some_and(|end| end <= begin) {
            found.push(Found { at, stored_len: Some(key.1), room: key.1, key: Some(key) });
        }
    }
    found.sort_by_key(|found| found.at);
    let mut end = 0;
    found.retain(|found| {
        let is_apart = found.at >= end;
        if is_apart {
            end = found.at + found.room;
        }
        is_apart
    });
    Ok(Some(found))
}

/// Where the directory of a zip file is, and how long.
fn zip_directory(file: &dyn ReadAt, len: u64) -> io::Result<Option<(u64, u64)>> {
    const END_BYTES: u64 = 22;
    let tail_len = len.min(END_BYTES + u64::from(u16::MAX));
    let tail = file.range(len - tail_len, tail_len as usize)?;
    let is_end = |window: &[u8]| window.starts_with(b"PK\x05\x06");
    let Some(at) = tail.windows(END_BYTES as usize).rposition(is_end) else { return Ok(None) };
    let (size, begin) = (u32_at(&tail, at + 12), u32_at(&tail, at + 16));
    let Some((size, begin)) = size.zip(begin) else { return Ok(None) };
    if begin != u32::MAX && size != u32::MAX {
        return Ok(Some((u64::from(begin), u64::from(size))));
    }
    // Where they do not fit, another record has them.
    let locator = at.checked_sub(20).and_then(|at| tail.get(at..at + 20));
    let Some(locator) = locator.filter(|locator| locator.starts_with(b"PK\x06\x07")) else {
        return Ok(None);
    };
    let fits = |at: &u64| at.checked_add(56).is_some_and(|end| end <= len);
    let Some(record_at) = u64_at(locator, 8).filter(fits) else { return Ok(None) };
    let record = file.range(record_at, 56)?;
    let is_record = record.starts_with(b"PK\x06\x06");
    Ok(u64_at(&record, 48).zip(u64_at(&record, 40)).filter(|_| is_record))
}

/// What one entry of a directory says: key and place, and what follows the entry. The first is `None`
/// for what is no plain deflate stream.
#[expect(clippy::type_complexity, reason = "both are looked at in one place")]
fn zip_entry(rest: &[u8]) -> Option<(Option<(Key, u64)>, &[u8])> {
    const ENCRYPTED: u16 = 1;
    const DEFLATED: u16 = 8;
    if !rest.starts_with(b"PK\x01\x02") {
        return None;
    }
    let (name, extra) = (u16_at(rest, 28)?, u16_at(rest, 30)?);
    let extra_at = 46 + usize::from(name);
    let end = extra_at + usize::from(extra) + usize::from(u16_at(rest, 32)?);
    let behind = rest.get(end..)?;
    if u16_at(rest, 8)? & ENCRYPTED != 0 || u16_at(rest, 10)? != DEFLATED {
        return Some((None, behind));
    }
    let crc = u32_at(rest, 16)?;
    let mut large = large_numbers(&rest[extra_at..extra_at + usize::from(extra)]);
    let mut number = |small: u32| match small {
        u32::MAX => large.next(),
        small => Some(u64::from(small)),
    };
    // In the order in which the record of large numbers has them.
    let plain_len = number(u32_at(rest, 24)?);
    let stored_len = number(u32_at(rest, 20)?);
    let header_at = number(u32_at(rest, 42)?);
    let entry = match (plain_len, stored_len, header_at) {
        (Some(plain), Some(stored), Some(at)) => Some(((crc, stored, plain), at)),
        _ => None,
    };
    Some((entry, behind))
}

/// Numbers that do not fit into 32 bits.
fn large_numbers(mut extra: &[u8]) -> impl Iterator<Item = u64> {
    const LARGE: u16 = 1;
    let mut numbers = Vec::new();
    while let Some((id, len)) = u16_at(extra, 0).zip(u16_at(extra, 2)) {
        let Some(data) = extra.get(4..4 + usize::from(len)) else { break };
        if id == LARGE {
            numbers.extend(data.chunks_exact(8).filter_map(|number| u64_at(number, 0)));
        }
        extra = &extra[4 + usize::from(len)..];
    }
    numbers.into_iter()
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}
