//! Bits in the order of RFC 1951: the first is the lowest of the first byte.

use std::io::{self, Read};

const BUFFER_BYTES: usize = 16 << 10;

/// Reads bits; never a byte more than its source gives.
#[derive(Debug)]
pub(super) struct BitReader<R> {
    source: R,
    buffer: Vec<u8>,
    at: usize,
    bits: u64,
    count: u32,
    /// Bytes that were taken from the source into `bits`.
    taken: u64,
}

impl<R: Read> BitReader<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, buffer: Vec::new(), at: 0, bits: 0, count: 0, taken: 0 }
    }

    /// Has at least 32 bits at hand, unless the source ends before.
    #[inline]
    fn fill(&mut self) -> io::Result<()> {
        while self.count <= 56 {
            if self.at == self.buffer.len() && !self.read_more()? {
                return Ok(());
            }
            self.bits |= u64::from(self.buffer[self.at]) << self.count;
            self.at += 1;
            self.taken += 1;
            self.count += 8;
        }
        Ok(())
    }

    #[cold]
    fn read_more(&mut self) -> io::Result<bool> {
        self.buffer.resize(BUFFER_BYTES, 0);
        self.at = 0;
        let read = loop {
            match self.source.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.buffer.truncate(*read.as_ref().unwrap_or(&0));
        Ok(read? > 0)
    }

    /// The next bits, zeros where there are no more; nothing is consumed.
    #[inline]
    pub(super) fn peek(&mut self) -> io::Result<u32> {
        if self.count < 32 {
            self.fill()?;
        }
        Ok(self.bits as u32)
    }

    /// Consumes up to 32 bits that were looked at.
    #[inline]
    pub(super) fn consume(&mut self, count: u32) -> io::Result<()> {
        if count > self.count {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.bits >>= count;
        self.count -= count;
        Ok(())
    }

    /// Takes up to 16 bits.
    #[inline]
    pub(super) fn take(&mut self, count: u32) -> io::Result<u32> {
        let bits = self.peek()? & ((1 << count) - 1);
        self.consume(count)?;
        Ok(bits)
    }

    /// Takes what is left of the last byte.
    pub(super) fn padding(&mut self) -> io::Result<u8> {
        Ok(self.take(self.count % 8)? as u8)
    }

    /// Bytes that were consumed, the last one perhaps in part.
    pub(super) fn consumed_bytes(&self) -> u64 {
        self.taken - u64::from(self.count / 8)
    }
}

/// Writes bits.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    bits: u64,
    count: u32,
}

impl BitWriter {
    /// Appends up to 32 bits.
    #[inline]
    pub(super) fn put(&mut self, bits: u32, count: u32) {
        self.bits |= u64::from(bits) << self.count;
        self.count += count;
        if self.count >= 32 {
            self.bytes.extend_from_slice(&(self.bits as u32).to_le_bytes());
            self.bits >>= 32;
            self.count -= 32;
        }
    }

    /// Appends whole bytes; what was written before must end with a byte.
    pub(super) fn put_bytes(&mut self, bytes: &[u8]) {
        self.pad(0);
        self.bytes.extend_from_slice(bytes);
    }

    /// Ends the last byte with these bits.
    pub(super) fn pad(&mut self, bits: u8) {
        let missing = (8 - self.count % 8) % 8;
        self.put(u32::from(bits) & ((1 << missing) - 1), missing);
        while self.count > 0 {
            self.bytes.push(self.bits as u8);
            self.bits >>= 8;
            self.count -= 8;
        }
    }

    /// The bits, zeros after the last.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.pad(0);
        self.bytes
    }

    /// Takes the whole bytes that were written.
    pub(super) fn drain(&mut self, to: &mut Vec<u8>) {
        to.append(&mut self.bytes);
    }

    /// Appends what another one has.
    pub(super) fn append(&mut self, other: &Self) {
        other.bytes.iter().for_each(|byte| self.put(u32::from(*byte), 8));
        self.put(other.bits as u32, other.count);
    }
}
