//! The delta format of librsync, so that `rdiff` can use what we make.
//!
//! Big-endian: the magic, then commands, then a zero byte. A command is a literal (its length and
//! bytes) or a copy (offset and length in the old file). The format knows neither the result's
//! length nor its digest, and does not name the old file: the manifest does all that.
//!
//! Both directions work in bounded memory: [`Command`]s describe a delta without holding its
//! bytes, and [`Applier`] takes a delta piece by piece.

use std::io;

use super::ReadAt;

const MAGIC: u32 = 0x7273_0236;
const END: u8 = 0;
const LITERAL_64: u8 = 0x40;
const LITERAL_N1: u8 = 0x41;
const LITERAL_N8: u8 = 0x44;
const COPY_N1_N1: u8 = 0x45;
const COPY_N8_N8: u8 = 0x54;
/// Longest head of a command: its code and two numbers of 8 bytes.
const MAX_HEAD: usize = 17;
/// Bytes of the old file that are read at once.
const COPY_BYTES: usize = 256 << 10;

/// Bytes at a delta's beginning.
pub const HEAD: [u8; 4] = MAGIC.to_be_bytes();
/// Byte at a delta's end.
pub const TAIL: [u8; 1] = [END];

/// Why a delta cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a delta, or damaged.
    #[error("the delta is damaged: {0}")]
    Damaged(&'static str),
    /// It gives more bytes than the file has.
    #[error("the delta gives more bytes than its file has")]
    TooLong,
    /// It copies bytes that the old file does not have.
    #[error("the delta copies bytes that the old file does not have")]
    OutsideBase,
    /// The old file cannot be read, or the result cannot be written.
    #[error("a file could not be read or written while a delta was applied")]
    Io(#[from] io::Error),
}

/// One command of a delta that is being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Bytes of the old file.
    Copy {
        /// First byte in the old file.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Bytes of the new file.
    Literal {
        /// First byte in the new file.
        offset: u64,
        /// Bytes.
        len: u64,
    },
}

impl Command {
    /// Bytes of the result.
    pub fn len(&self) -> u64 {
        match self {
            Self::Copy { len, .. } | Self::Literal { len, .. } => *len,
        }
    }

    /// Whether it does nothing; made deltas have no such command.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Joins `next` to this command where both are one run.
    pub fn join(&mut self, next: Self) -> bool {
        match (self, next) {
            (Self::Copy { offset, len }, Self::Copy { offset: then, len: more })
            | (Self::Literal { offset, len }, Self::Literal { offset: then, len: more })
                if *offset + *len == then =>
            {
                *len += more;
                true
            }
            _ => false,
        }
    }

    /// The command's bytes, without the literal's content.
    pub fn head(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(MAX_HEAD);
        match *self {
            Self::Literal { len, .. } if len <= u64::from(LITERAL_64) => head.push(len as u8),
            Self::Literal { len, .. } => {
                let class = width_class(len);
                head.push(LITERAL_N1 + class);
                push_number(&mut head, len, class);
            }
            Self::Copy { offset, len } => {
                let (offset_class, len_class) = (width_class(offset), width_class(len));
                head.push(COPY_N1_N1 + offset_class * 4 + len_class);
                push_number(&mut head, offset, offset_class);
                push_number(&mut head, len, len_class);
            }
        }
        head
    }

    /// Bytes of the delta that this command is.
    pub fn delta_len(&self) -> u64 {
        let literal = if let Self::Literal { len, .. } = self { *len } else { 0 };
        self.head().len() as u64 + literal
    }
}

/// 0 to 3 for numbers of 1, 2, 4 and 8 bytes.
fn width_class(number: u64) -> u8 {
    match number {
        0..=0xff => 0,
        0x100..=0xffff => 1,
        0x1_0000..=0xffff_ffff => 2,
        _ => 3,
    }
}

fn push_number(out: &mut Vec<u8>, number: u64, class: u8) {
    out.extend_from_slice(&number.to_be_bytes()[8 - (1 << class)..]);
}

/// Length of a command's head, from its code; `None` for a code that does not exist.
fn head_len(code: u8) -> Option<usize> {
    match code {
        END..=LITERAL_64 => Some(1),
        LITERAL_N1..=LITERAL_N8 => Some(1 + (1 << (code - LITERAL_N1))),
        COPY_N1_N1..=COPY_N8_N8 => {
            let mode = code - COPY_N1_N1;
            Some(1 + (1 << (mode / 4)) + (1 << (mode % 4)))
        }
        _ => None,
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A parsed head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    End,
    Literal(u64),
    Copy { offset: u64, len: u64 },
}

/// Reads a complete head.
fn parse_head(head: &[u8]) -> Result<Head, Error> {
    let code = head[0];
    match code {
        END => Ok(Head::End),
        1..=LITERAL_64 => Ok(Head::Literal(u64::from(code))),
        LITERAL_N1..=LITERAL_N8 => Ok(Head::Literal(number(&head[1..]))),
        _ => {
            let split = 1 + (1 << ((code - COPY_N1_N1) / 4));
            let (offset, len) = (number(&head[1..split]), number(&head[split..]));
            if len == 0 {
                return Err(Error::Damaged("it copies nothing"));
            }
            Ok(Head::Copy { offset, len })
        }
    }
}

/// The commands of a complete delta in memory. Literal offsets are those of the delta itself.
pub(super) fn commands(delta: &[u8]) -> Result<Vec<Command>, Error> {
    let truncated = Error::Damaged("it ends early");
    let Some(mut rest) = delta.strip_prefix(&HEAD) else {
        return Err(Error::Damaged("it does not begin as one"));
    };
    let mut commands = Vec::new();
    loop {
        let Some(&code) = rest.first() else { return Err(truncated) };
        let len = head_len(code).ok_or(Error::Damaged("an unknown command"))?;
        let Some((head, tail)) = rest.split_at_checked(len) else { return Err(truncated) };
        rest = tail;
        match parse_head(head)? {
            Head::End => return Ok(commands),
            Head::Copy { offset, len } => commands.push(Command::Copy { offset, len }),
            Head::Literal(len) => {
                let offset = (delta.len() - rest.len()) as u64;
                let Some(tail) = usize::try_from(len).ok().and_then(|len| rest.get(len..)) else {
                    return Err(truncated);
                };
                rest = tail;
                commands.push(Command::Literal { offset, len });
            }
        }
    }
}

/// Applies a delta that arrives piece by piece.
pub struct Applier<'a> {
    base: &'a dyn ReadAt,
    /// Bytes that may still be given.
    left: u64,
    state: State,
    head: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Magic,
    Head,
    Literal(u64),
    Ended,
}

impl<'a> Applier<'a> {
    /// Applies to `base`; the result has at most `limit` bytes.
    pub fn new(base: &'a dyn ReadAt, limit: u64) -> Self {
        Self { base, left: limit, state: State::Magic, head: Vec::with_capacity(MAX_HEAD) }
    }

    /// Takes the next piece of the delta and gives what results from it to `out`.
    pub fn feed(
        &mut self,
        mut delta: &[u8],
        out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Error> {
        while !delta.is_empty() {
            match self.state {
                State::Ended => return Err(Error::Damaged("bytes follow its end")),
                State::Literal(len) => {
                    let now = delta.len().min(usize::try_from(len).unwrap_or(usize::MAX));
                    out(&delta[..now])?;
                    delta = &delta[now..];
                    self.state = match len - now as u64 {
                        0 => State::Head,
                        left => State::Literal(left),
                    };
                }
                State::Magic | State::Head => {
                    self.head.push(delta[0]);
                    delta = &delta[1..];
                    self.advance(out)?;
                }
            }
        }
        Ok(())
    }

    /// Ends the delta.
    pub fn finish(self) -> Result<(), Error> {
        match self.state {
            State::Ended => Ok(()),
            _ => Err(Error::Damaged("it ends early")),
        }
    }

    /// Acts on the head, if it is complete.
    fn advance(&mut self, out: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<(), Error> {
        if self.state == State::Magic {
            if !HEAD.starts_with(&self.head) {
                return Err(Error::Damaged("it does not begin as one"));
            }
            if self.head.len() == HEAD.len() {
                self.head.clear();
                self.state = State::Head;
            }
            return Ok(());
        }
        let len = head_len(self.head[0]).ok_or(Error::Damaged("an unknown command"))?;
        if self.head.len() < len {
            return Ok(());
        }
        let head = parse_head(&self.head)?;
        self.head.clear();
        match head {
            Head::End => self.state = State::Ended,
            Head::Literal(0) => {}
            Head::Literal(len) => {
                self.take(len)?;
                self.state = State::Literal(len);
            }
            Head::Copy { offset, len } => {
                self.take(len)?;
                self.copy(offset, len, out)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, len: u64) -> Result<(), Error> {
        self.left = self.left.checked_sub(len).ok_or(Error::TooLong)?;
        Ok(())
    }

    fn copy(
        &self,
        mut offset: u64,
        mut len: u64,
        out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Error> {
        offset.checked_add(len).ok_or(Error::OutsideBase)?;
        let mut buffer = vec![0; COPY_BYTES.min(usize::try_from(len).unwrap_or(COPY_BYTES))];
        while len > 0 {
            let now = buffer.len().min(usize::try_from(len).unwrap_or(usize::MAX));
            self.base.read_exact_at(&mut buffer[..now], offset).map_err(|error| {
                match error.kind() {
                    io::ErrorKind::UnexpectedEof => Error::OutsideBase,
                    _ => Error::Io(error),
                }
            })?;
            out(&buffer[..now])?;
            offset += now as u64;
            len -= now as u64;
        }
        Ok(())
    }
}
