//! One request for a range of bytes, and everything that a server may answer wrongly.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use reqwest::{Response, StatusCode, header};

use super::{
    allowed::MAX_REDIRECTS,
    points::Point,
    sealed::{self, NoKey},
};

use crate::line::BudgetUsed;

/// How patient a transfer is.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the answer to begin, and between two pieces of it.
    pub silence: Duration,
    /// Bytes per second below which a transfer is given up, after the first [`Patience::silence`].
    pub minimum_rate: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { silence: Duration::from_secs(30), minimum_rate: 1_000 }
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Path below the point's base.
    pub path: String,
    /// Which bytes of it.
    pub range: Range<u64>,
    /// Its whole length, where that is signed or otherwise known.
    pub total: Option<u64>,
    /// The validator of an earlier part: continue only the same thing.
    pub etag: Option<String>,
    /// The whole of something that may be shorter than the range: no part of it is asked for.
    pub up_to: bool,
    /// There is another way: what a relay does not have, after asking where it would be, is not asked
    /// for further.
    pub optional: bool,
}

impl Ask {
    /// Everything at `path`, which has exactly `length` bytes.
    pub fn whole(path: String, length: u64) -> Self {
        Self { total: Some(length), ..Self::part(path, 0..length) }
    }

    /// The same, of something that other ways can do without.
    pub fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    /// Everything at `path`, which has at most `length` bytes.
    pub fn up_to(path: String, length: u64) -> Self {
        Self { up_to: true, ..Self::part(path, 0..length) }
    }

    /// These bytes of what is at `path`.
    pub fn part(path: String, range: Range<u64>) -> Self {
        Self { path, range, total: None, etag: None, up_to: false, optional: false }
    }
}

/// Why a request gave nothing, or not everything.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or it broke.
    #[error("{url} cannot be reached")]
    Transport {
        /// What was asked.
        url: String,
        /// What the connection said.
        source: reqwest::Error,
    },
    /// There is no such thing there.
    #[error("{url} is not there (404)")]
    Missing {
        /// What was asked.
        url: String,
    },
    /// The point does not let this agent read.
    #[error(
        "{url} is refused (status {status}): the agent was revoked, or its site has no live grant or assignment for the tree; ask the network's admin"
    )]
    Refused {
        /// What was asked.
        url: String,
        /// The status.
        status: u16,
    },
    /// Any other status that brings no content.
    #[error("{url} answers with status {status}")]
    Status {
        /// What was asked.
        url: String,
        /// The status.
        status: u16,
    },
    /// An answer elsewhere, which this site's admin does not allow to be followed.
    #[error("{url} redirects to {to}, which is not followed (points.redirects)")]
    Redirect {
        /// What was asked.
        url: String,
        /// Whither, as far as that can be read.
        to: String,
    },
    /// Other bytes than were asked for, or bytes in another form.
    #[error("{url} answers with something else than was asked for ({what})")]
    Wrong {
        /// What was asked.
        url: String,
        /// In what way.
        what: &'static str,
    },
    /// It ended early.
    #[error("{url} ended after {received} of {expected} bytes")]
    Short {
        /// What was asked.
        url: String,
        /// Bytes that came.
        received: u64,
        /// Bytes that should have come.
        expected: u64,
    },
    /// It did not end.
    #[error("{url} sends more than the {expected} bytes that were asked for")]
    Long {
        /// What was asked.
        url: String,
        /// Bytes that should have come.
        expected: u64,
    },
    /// It hardly moved.
    #[error("{url} is too slow: {received} bytes in {seconds} s")]
    Slow {
        /// What was asked.
        url: String,
        /// Bytes that came.
        received: u64,
        /// In what time.
        seconds: u64,
    },
    /// It is encrypted, and there is no key.
    #[error("{url} cannot be opened")]
    Key {
        /// What was asked.
        url: String,
        /// Why there is no key.
        source: Box<NoKey>,
    },
    /// The site may receive no more.
    #[error("{url} is not fetched further")]
    Budget {
        /// What was asked.
        url: String,
        /// What is used up.
        source: BudgetUsed,
    },
    /// What came could not be kept.
    #[error("what came from {url} cannot be written")]
    Sink {
        /// What was asked.
        url: String,
        /// Why not.
        source: std::io::Error,
    },
}

impl Error {
    /// Whether the same point may give the rest a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport { .. } | Self::Short { .. } | Self::Slow { .. } => true,
            Self::Status { status, .. } => *status >= 500 || matches!(status, 408 | 429),
            _ => false,
        }
    }

    /// Whether another point cannot help.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Sink { .. } | Self::Budget { .. })
    }
}

/// What came.
#[derive(Debug, Default)]
pub struct Got {
    /// Bytes given to the sink.
    pub received: u64,
    /// The strong validator, for a continuation.
    pub etag: Option<String>,
}

/// Asks a point and gives what comes to `sink`, in order. `got` tells how far it went, also when
/// it ends with an error.
pub async fn get(
    point: &Point,
    ask: &Ask,
    patience: Patience,
    got: &mut Got,
    sink: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<(), Error> {
    match point.sealed() {
        Some(sealed) => sealed::get(point, sealed, ask, patience, got, sink).await,
        None => get_plain(point, ask, patience, got, sink).await,
    }
}

/// The same for bytes as they lie at the point.
pub(super) async fn get_plain(
    point: &Point,
    ask: &Ask,
    patience: Patience,
    got: &mut Got,
    mut sink: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<(), Error> {
    let url = format!("{}{}", point.base, ask.path);
    let expected = ask.range.end - ask.range.start;
    if expected == 0 {
        return Ok(());
    }
    let transport = |source| Error::Transport { url: url.clone(), source };
    let slow = |received, seconds| Error::Slow { url: url.clone(), received, seconds };
    point.line.check().map_err(|source| Error::Budget { url: url.clone(), source })?;
    let mut started = Instant::now();
    let mut redirects = 0;
    let mut at = url.clone();
    let mut response = loop {
        let client = if redirects == 0 { point.client() } else { point.client_elsewhere() };
        let sending = request(&client, &at, ask).send();
        let response = match tokio::time::timeout(patience.silence, sending).await {
            Ok(sent) => sent.map_err(transport)?,
            Err(_) => return Err(slow(0, patience.silence.as_secs())),
        };
        if !response.status().is_redirection() {
            break response;
        }
        redirects += 1;
        at = follow(point, &url, &response, redirects)?;
    };
    let more_follows = check(&response, &url, ask)?;
    got.etag = strong_etag(&response);
    loop {
        let chunk = match tokio::time::timeout(patience.silence, response.chunk()).await {
            Ok(chunk) => chunk.map_err(transport)?,
            Err(_) => return Err(slow(got.received, started.elapsed().as_secs())),
        };
        let Some(chunk) = chunk else { break };
        point.count(chunk.len());
        let room = usize::try_from(expected - got.received).unwrap_or(usize::MAX);
        let piece = &chunk[..chunk.len().min(room)];
        sink(piece).map_err(|source| not_kept(&url, source))?;
        got.received += piece.len() as u64;
        if got.received == expected && more_follows {
            return Ok(());
        }
        if chunk.len() > piece.len() {
            return Err(Error::Long { url, expected });
        }
        let came = Instant::now();
        let more = point.line.took(chunk.len()).await;
        more.map_err(|source| Error::Budget { url: url.clone(), source })?;
        // What the site's own rate took is not held against the point.
        started += came.elapsed();
        let seconds = started.elapsed();
        let rate = got.received / seconds.as_secs().max(1);
        if seconds > patience.silence && rate < patience.minimum_rate {
            return Err(slow(got.received, seconds.as_secs()));
        }
    }
    if got.received < expected && !ask.up_to {
        return Err(Error::Short { url, received: got.received, expected });
    }
    Ok(())
}

/// What a sink says of bytes that are not those that were signed.
pub fn not_signed() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, "it is damaged")
}

/// Why a sink did not take what came.
pub(super) fn not_kept(url: &str, source: std::io::Error) -> Error {
    let url = url.to_owned();
    match source.kind() {
        std::io::ErrorKind::InvalidData => Error::Wrong { url, what: "it is damaged" },
        _ => Error::Sink { url, source },
    }
}

fn request(client: &reqwest::Client, url: &str, ask: &Ask) -> reqwest::RequestBuilder {
    let mut request = client.get(url).header(header::ACCEPT_ENCODING, "identity");
    let whole = ask.range.start == 0 && ask.total == Some(ask.range.end);
    if !whole && !ask.up_to {
        let range = format!("bytes={}-{}", ask.range.start, ask.range.end - 1);
        request = request.header(header::RANGE, range);
        if let Some(etag) = &ask.etag {
            request = request.header(header::IF_RANGE, etag);
        }
    }
    request
}

/// Where a redirect leads, if it may be followed.
fn follow(point: &Point, url: &str, response: &Response, count: usize) -> Result<String, Error> {
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let allowed = location.filter(|_| count <= MAX_REDIRECTS);
    let next = allowed.and_then(|location| point.allowed.follow(response.url(), location));
    next.map(String::from).ok_or_else(|| {
        let to = location.unwrap_or("nowhere that can be read");
        let to = to.chars().filter(|c| !c.is_control()).take(200).collect();
        Error::Redirect { url: url.to_owned(), to }
    })
}

/// Checks status and headers; whether bytes behind the range will follow and are to be left.
fn check(response: &Response, url: &str, ask: &Ask) -> Result<bool, Error> {
    let wrong = |what| Err(Error::Wrong { url: url.to_owned(), what });
    let status = response.status();
    if let Some(encoding) = response.headers().get(header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        return wrong("it is encoded");
    }
    match status {
        StatusCode::PARTIAL_CONTENT if !ask.up_to => {
            let range = response.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok());
            match range.and_then(parse_content_range) {
                Some((range, total)) if range == ask.range => {
                    if let (Some(total), Some(expected)) = (total, ask.total)
                        && total != expected
                    {
                        return wrong("its length is not the signed one");
                    }
                    Ok(false)
                }
                _ => wrong("another range"),
            }
        }
        StatusCode::OK if ask.up_to => match response.content_length() {
            Some(length) if length > ask.range.end => wrong("it is longer than was signed"),
            _ => Ok(false),
        },
        StatusCode::OK if ask.range.start == 0 => {
            if let (Some(length), Some(total)) = (response.content_length(), ask.total)
                && length != total
            {
                return wrong("its length is not the signed one");
            }
            Ok(ask.total.is_none_or(|total| total > ask.range.end))
        }
        StatusCode::OK => wrong("the whole instead of a range, or another version"),
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(Error::Missing { url: url.to_owned() }),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Err(Error::Refused { url: url.to_owned(), status: status.as_u16() })
        }
        _ => Err(Error::Status { url: url.to_owned(), status: status.as_u16() }),
    }
}

/// Reads `bytes 0-9/100` or `bytes 0-9/*`.
fn parse_content_range(text: &str) -> Option<(Range<u64>, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((first..last.checked_add(1)?, total))
}

fn strong_etag(response: &Response) -> Option<String> {
    let etag = response.headers().get(header::ETAG)?.to_str().ok()?;
    etag.starts_with('"').then(|| etag.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_exactly() {
        assert_eq!(parse_content_range("bytes 0-9/100"), Some((0..10, Some(100))));
        assert_eq!(parse_content_range("bytes 5-5/*"), Some((5..6, None)));
        for text in ["", "bytes", "bytes 0-9", "bytes */100", "0-9/100", "bytes 9-a/1"] {
            assert_eq!(parse_content_range(text), None, "{text}");
        }
    }
}
