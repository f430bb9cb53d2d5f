//! Serving one immutable representation: conditions, ranges and the head of the answer.
//!
//! *Why our own?* A ready-made file service was tried: it follows symlinks out of its root and
//! ignores `If-Range`, so that a resumed download could splice two versions. Here a representation
//! has a strong entity tag made of its digest, and the semantics of RFC 9110 for it fit on a page:
//! one range, no multipart, no content coding, no dates (a tag says all that a date would).

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{
        ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH,
        IF_NONE_MATCH, IF_RANGE, RANGE,
    },
};

use crate::digest::Digest;

/// What is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Representation {
    /// Its length, in bytes.
    pub length: u64,
    /// Names its bytes; the entity tag is made of it.
    pub digest: Digest,
    /// Whether the URL always means these bytes.
    pub immutable: bool,
}

/// What to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// All of it: 200.
    Whole,
    /// `first` to `last`, both included: 206.
    Part {
        /// First byte.
        first: u64,
        /// Last byte.
        last: u64,
    },
    /// The asker has it: 304.
    NotModified,
    /// It is not what the asker insists on: 412.
    PreconditionFailed,
    /// The range begins behind the end: 416.
    Unsatisfiable,
}

impl Representation {
    /// The strong entity tag, with its quotes.
    pub fn etag(&self) -> String {
        format!("\"{}\"", self.digest.hex())
    }
}

/// Decides what a GET or HEAD with these headers gets. `Range` counts for GET alone.
pub fn answer(of: &Representation, headers: &HeaderMap, is_get: bool) -> Answer {
    let etag = of.etag();
    if let Some(wanted) = list(headers, &IF_MATCH)
        && !names(&wanted, &etag, false)
    {
        return Answer::PreconditionFailed;
    }
    if let Some(held) = list(headers, &IF_NONE_MATCH)
        && names(&held, &etag, true)
    {
        return Answer::NotModified;
    }
    let Some(range) = headers.get(RANGE).filter(|_| is_get) else { return Answer::Whole };
    // A resume of something else starts over. A date cannot be compared, so it does too, and a
    // weak tag never means the same bytes.
    if let Some(condition) = headers.get(IF_RANGE)
        && condition.as_bytes() != etag.as_bytes()
    {
        return Answer::Whole;
    }
    range.to_str().map_or(Answer::Whole, |range| part(range, of.length))
}

/// The status and the headers of an answer; the body is [`length`] bytes long.
pub fn head(of: &Representation, answer: Answer) -> (StatusCode, HeaderMap) {
    let mut headers = HeaderMap::new();
    let mut text = |name, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    text(ETAG, of.etag());
    // Private: what one reader may see says nothing about the next one.
    let keep = if of.immutable { "private, max-age=31536000, immutable" } else { "no-cache" };
    text(CACHE_CONTROL, keep.into());
    text(ACCEPT_RANGES, "bytes".into());
    let status = match answer {
        Answer::Whole => StatusCode::OK,
        Answer::Part { first, last } => {
            text(CONTENT_RANGE, format!("bytes {first}-{last}/{}", of.length));
            StatusCode::PARTIAL_CONTENT
        }
        Answer::NotModified => StatusCode::NOT_MODIFIED,
        Answer::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        Answer::Unsatisfiable => {
            text(CONTENT_RANGE, format!("bytes */{}", of.length));
            StatusCode::RANGE_NOT_SATISFIABLE
        }
    };
    if matches!(answer, Answer::Whole | Answer::Part { .. }) {
        text(CONTENT_TYPE, "application/octet-stream".into());
    }
    if answer != Answer::NotModified {
        text(CONTENT_LENGTH, length(of, answer).to_string());
    }
    (status, headers)
}

/// How long the body is, in bytes.
pub fn length(of: &Representation, answer: Answer) -> u64 {
    match answer {
        Answer::Whole => of.length,
        Answer::Part { first, last } => last - first + 1,
        Answer::NotModified | Answer::PreconditionFailed | Answer::Unsatisfiable => 0,
    }
}

/// Where the body begins.
pub fn offset(answer: Answer) -> u64 {
    match answer {
        Answer::Part { first, .. } => first,
        _ => 0,
    }
}

/// One range, or nothing that is understood: then the whole is sent, as RFC 9110 allows.
fn part(range: &str, length: u64) -> Answer {
    let Some(set) = range.trim().strip_prefix("bytes=") else { return Answer::Whole };
    let Some((first, last)) = set.trim().split_once('-') else { return Answer::Whole };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>());
    match (first, last) {
        ("", suffix) => match digits(suffix) {
            Some(Ok(0)) => Answer::Unsatisfiable,
            Some(Ok(_)) if length == 0 => Answer::Unsatisfiable,
            Some(Ok(suffix)) => {
                Answer::Part { first: length.saturating_sub(suffix), last: length - 1 }
            }
            _ => Answer::Whole,
        },
        (first, "") => match digits(first) {
            Some(Ok(first)) if first < length => Answer::Part { first, last: length - 1 },
            Some(Ok(_)) => Answer::Unsatisfiable,
            _ => Answer::Whole,
        },
        (first, last) => match (digits(first), digits(last)) {
            (Some(Ok(first)), Some(Ok(last))) if first > last => Answer::Whole,
            (Some(Ok(first)), Some(Ok(last))) if first < length => {
                Answer::Part { first, last: last.min(length - 1) }
            }
            (Some(Ok(_)), Some(Ok(_))) => Answer::Unsatisfiable,
            _ => Answer::Whole,
        },
    }
}

/// All fields of a list header as one; `None` where there is none.
fn list(headers: &HeaderMap, name: &http::HeaderName) -> Option<String> {
    let mut values = headers.get_all(name).iter().peekable();
    values.peek()?;
    let texts: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
    Some(texts.join(","))
}

/// Whether a list of entity tags names this one. Tags of ours have no comma inside.
fn names(list: &str, etag: &str, weakly: bool) -> bool {
    list.split(',')
        .map(str::trim)
        .any(|tag| tag == "*" || tag == etag || (weakly && tag.strip_prefix("W/") == Some(etag)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: fn(u64, u64) -> Answer = |first, last| Answer::Part { first, last };

    fn ten() -> Representation {
        Representation { length: 10, digest: Digest::of(b"ten"), immutable: true }
    }

    fn ask(of: &Representation, headers: &[(&str, &str)]) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        answer(of, &map, true)
    }

    #[test]
    fn one_range_is_served_and_what_is_not_understood_gets_the_whole() {
        let table = [
            ("bytes=0-4", PART(0, 4)),
            ("bytes=5-", PART(5, 9)),
            ("bytes=-3", PART(7, 9)),
            ("bytes=-30", PART(0, 9)),
            ("bytes=9-9", PART(9, 9)),
            ("bytes=0-999", PART(0, 9)),
            ("bytes=10-", Answer::Unsatisfiable),
            ("bytes=10-20", Answer::Unsatisfiable),
            ("bytes=-0", Answer::Unsatisfiable),
            ("bytes=5-4", Answer::Whole),
            ("bytes=0-1,3-4", Answer::Whole),
            ("bytes=", Answer::Whole),
            ("bytes=-", Answer::Whole),
            ("bytes=+1-2", Answer::Whole),
            ("bytes=a-b", Answer::Whole),
            ("bytes=99999999999999999999-", Answer::Whole),
            ("lines=0-1", Answer::Whole),
        ];
        for (range, expected) in table {
            assert_eq!(ask(&ten(), &[("range", range)]), expected, "{range}");
        }
        let empty = Representation { length: 0, ..ten() };
        for range in ["bytes=0-", "bytes=-1", "bytes=0-0"] {
            assert_eq!(ask(&empty, &[("range", range)]), Answer::Unsatisfiable, "{range}");
        }
        assert_eq!(ask(&empty, &[]), Answer::Whole);
    }

    #[test]
    fn a_resume_of_other_bytes_starts_over() {
        let etag = ten().etag();
        let other = Representation { digest: Digest::of(b"other"), ..ten() }.etag();
        let weak = format!("W/{etag}");
        let table = [
            (etag.as_str(), PART(5, 9)),
            (other.as_str(), Answer::Whole),
            (weak.as_str(), Answer::Whole),
            ("Wed, 21 Oct 2026 07:28:00 GMT", Answer::Whole),
            ("", Answer::Whole),
        ];
        for (condition, expected) in table {
            let headers = [("range", "bytes=5-"), ("if-range", condition)];
            assert_eq!(ask(&ten(), &headers), expected, "{condition}");
        }
        let behind = [("range", "bytes=50-"), ("if-range", other.as_str())];
        assert_eq!(ask(&ten(), &behind), Answer::Whole, "no 416 for bytes of something else");
    }

    #[test]
    fn conditions_come_before_ranges() {
        let etag = ten().etag();
        let weak = format!("W/{etag}");
        let several = format!("\"x\", {etag}");
        let range = ("range", "bytes=0-0");
        let table: [(&[(&str, &str)], Answer); 8] = [
            (&[("if-none-match", &etag), range], Answer::NotModified),
            (&[("if-none-match", &weak), range], Answer::NotModified),
            (&[("if-none-match", &several)], Answer::NotModified),
            (&[("if-none-match", "*")], Answer::NotModified),
            (&[("if-none-match", "\"x\""), range], PART(0, 0)),
            (&[("if-match", &weak)], Answer::PreconditionFailed),
            (&[("if-match", "\"x\""), ("if-none-match", &etag)], Answer::PreconditionFailed),
            (&[("if-match", &several), range], PART(0, 0)),
        ];
        for (headers, expected) in table {
            assert_eq!(ask(&ten(), headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn a_head_request_has_no_ranges() {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, "bytes=0-1".parse().unwrap());
        assert_eq!(answer(&ten(), &headers, false), Answer::Whole);
    }

    #[test]
    fn every_answer_says_how_long_it_is_and_what_it_is_of() {
        let of = ten();
        let field = |answer, name: http::HeaderName| {
            head(&of, answer).1.get(name).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(field(Answer::Whole, CONTENT_LENGTH).unwrap(), "10");
        assert_eq!(field(PART(2, 4), CONTENT_LENGTH).unwrap(), "3");
        assert_eq!(field(PART(2, 4), CONTENT_RANGE).unwrap(), "bytes 2-4/10");
        assert_eq!(field(Answer::Unsatisfiable, CONTENT_RANGE).unwrap(), "bytes */10");
        assert_eq!(field(Answer::NotModified, ETAG).unwrap(), of.etag());
        assert_eq!(head(&of, Answer::Unsatisfiable).0, 416);
        assert_eq!(head(&of, PART(0, 0)).0, 206);
        assert_eq!(
            field(Answer::Whole, CACHE_CONTROL).unwrap(),
            "private, max-age=31536000, immutable"
        );
    }
}
