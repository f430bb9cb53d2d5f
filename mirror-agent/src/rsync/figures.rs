//! What rsync tells about a run of its own, at its end (`--stats`).

/// Sums of one run or several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Content bytes that came over the wire.
    pub literal_bytes: u64,
    /// Content bytes that were taken from files that are here.
    pub matched_bytes: u64,
    /// Bytes of lists of files.
    pub listing_bytes: u64,
    /// How long the server took to make them, in milliseconds.
    pub listing_creation_milliseconds: u64,
    /// How long they took to come, in milliseconds.
    pub listing_transfer_milliseconds: u64,
}

/// What the lines begin with; entries of a listing begin with `<`, `>`, `c`, `h`, `.` or `*`.
const BEGINNINGS: [&str; 6] =
    ["Number of ", "Total ", "Literal data: ", "Matched data: ", "File list ", "total size is "];

impl Figures {
    /// Takes a line, if it is one of these.
    pub fn take(&mut self, line: &[u8]) -> bool {
        let Ok(line) = std::str::from_utf8(line) else { return false };
        let is_sums = line.starts_with("sent ") && line.ends_with("bytes/sec");
        if !is_sums && !BEGINNINGS.iter().any(|beginning| line.starts_with(beginning)) {
            return false;
        }
        let number = |rest: &str| rest.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        let milliseconds = |rest: &str| {
            let seconds: f64 = rest.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0);
            // A time that a server chose: no more than a day, and never negative.
            (seconds.clamp(0.0, 86_400.0) * 1_000.0) as u64
        };
        if let Some(rest) = line.strip_prefix("Literal data: ") {
            self.literal_bytes = self.literal_bytes.saturating_add(number(rest));
        } else if let Some(rest) = line.strip_prefix("Matched data: ") {
            self.matched_bytes = self.matched_bytes.saturating_add(number(rest));
        } else if let Some(rest) = line.strip_prefix("File list size: ") {
            self.listing_bytes = self.listing_bytes.saturating_add(number(rest));
        } else if let Some(rest) = line.strip_prefix("File list generation time: ") {
            self.listing_creation_milliseconds += milliseconds(rest);
        } else if let Some(rest) = line.strip_prefix("File list transfer time: ") {
            self.listing_transfer_milliseconds += milliseconds(rest);
        }
        true
    }
}

impl std::ops::AddAssign for Figures {
    fn add_assign(&mut self, more: Self) {
        self.literal_bytes += more.literal_bytes;
        self.matched_bytes += more.matched_bytes;
        self.listing_bytes += more.listing_bytes;
        self.listing_creation_milliseconds += more.listing_creation_milliseconds;
        self.listing_transfer_milliseconds += more.listing_transfer_milliseconds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rsyncs_own_sums_are_read_and_entries_are_none() {
        let mut figures = Figures::default();
        for line in [
            "Number of files: 3 (reg: 2, dir: 1)",
            "Total file size: 2500 bytes",
            "Literal data: 1200 bytes",
            "Matched data: 1300 bytes",
            "File list size: 77",
            "File list generation time: 0.012 seconds",
            "File list transfer time: 1.500 seconds",
            "sent 120 bytes  received 64 bytes  368.00 bytes/sec",
            "total size is 2500  speedup is 13.59",
        ] {
            assert!(figures.take(line.as_bytes()), "{line}");
        }
        let expected = Figures {
            literal_bytes: 1_200,
            matched_bytes: 1_300,
            listing_bytes: 77,
            listing_creation_milliseconds: 12,
            listing_transfer_milliseconds: 1_500,
        };
        assert_eq!(figures, expected);
        assert!(!figures.take(b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|Total x"));
        assert!(!figures.take(b"\xff") && !figures.take(b"hello"));
        assert!(figures.take(b"File list transfer time: -1e300 seconds"));
    }
}
