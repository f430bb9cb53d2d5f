//! When something is tried again, and where.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{
    points::Point,
    ranges::{Ask, Error, Got, Patience, get},
};

/// How often one point is asked for the same thing.
const TRIES: u32 = 3;

/// How long to wait before try number `failures` (from 1): doubling from `first` up to `longest`,
/// of which `chance` (0 to 1) takes up to half away, so that a thousand agents do not come at once.
pub fn backoff(failures: u32, first: Duration, longest: Duration, chance: f64) -> Duration {
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(longest);
    doubled.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0)
}

/// A number from 0 to 1 that spreads load; nothing secret depends on it.
pub fn chance() -> f64 {
    let id = uuid::Uuid::now_v7();
    let bytes = id.as_bytes();
    f64::from(u16::from_be_bytes([bytes[14], bytes[15]])) / f64::from(u16::MAX)
}

/// Asks one point until it gave everything: what breaks off is continued where it broke off. The
/// point remembers how that went; what it gave is for the caller to verify.
pub async fn get_from(
    point: &Point,
    ask: &Ask,
    patience: Patience,
    mut sink: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), Error> {
    let result = get_with_retries(point, ask, patience, &mut sink).await;
    if let Err(error) = &result {
        point.note_failure(error);
    }
    result
}

async fn get_with_retries(
    point: &Point,
    ask: &Ask,
    patience: Patience,
    sink: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), Error> {
    let mut rest = ask.clone();
    let mut tries = 0;
    let (started, mut received) = (Instant::now(), 0);
    loop {
        let mut got = Got::default();
        let result = get(point, &rest, patience, &mut got, &mut *sink).await;
        if !ask.up_to {
            rest.range.start += got.received;
            rest.etag = got.etag.or(rest.etag);
        }
        match result {
            Ok(()) => return Ok(()),
            // Everything came; only the end was not clean.
            Err(error) if error.is_transient() && rest.range.is_empty() => return Ok(()),
            Err(error) if !error.is_transient() || ask.up_to && got.received > 0 => {
                return Err(error);
            }
            Err(error) => {
                // Progress earns new patience: a thin link may break off a hundred times. A byte for
                // each request is no progress.
                received += got.received;
                let seconds = started.elapsed().as_secs().max(1);
                let is_slow = started.elapsed() > patience.silence
                    && received / seconds < patience.minimum_rate;
                tries = if got.received > 0 && !is_slow { 1 } else { tries + 1 };
                if tries >= TRIES {
                    return Err(error);
                }
                let wait =
                    backoff(tries, Duration::from_millis(200), Duration::from_secs(10), chance());
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// Room that is set aside before anything came; it is taken as it fills.
const MOST_RESERVED: u64 = 256 << 20;

/// A buffer for so many bytes. An index may have a hundred megabytes: one that grows would take twice as
/// much.
pub(super) fn room_for(bytes: u64) -> Vec<u8> {
    Vec::with_capacity(usize::try_from(bytes.min(MOST_RESERVED)).unwrap_or_default())
}

/// Asks point after point for something small, until one gave what `accept` accepts. Gives the
/// last error when none did; one that says more than that it is missing, where there is one.
pub async fn get_accepted<T>(
    points: Vec<&Point>,
    ask: &Ask,
    patience: Patience,
    accept: impl Fn(Vec<u8>) -> Result<T, &'static str>,
) -> Result<(T, String), Error> {
    let mut last = None;
    for point in points {
        let mut bytes = room_for(ask.range.end.saturating_sub(ask.range.start));
        let start = Instant::now();
        let result = get_from(point, ask, patience, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        });
        let result = result.await;
        let error = match result.map(|()| (bytes.len() as u64, accept(bytes))) {
            Ok((length, Ok(accepted))) => {
                point.note_good(length, start.elapsed());
                return Ok((accepted, point.name.clone()));
            }
            Ok((_, Err(what))) => {
                let error = Error::Wrong { url: format!("{}{}", point.base, ask.path), what };
                point.note_failure(&error);
                error
            }
            Err(error) if error.is_local() => return Err(error),
            Err(error @ Error::Missing { .. }) if ask.optional && point.is_relay() => {
                return Err(error);
            }
            Err(error) => error,
        };
        if last.is_none() || !matches!(error, Error::Missing { .. }) {
            last = Some(error);
        }
    }
    Err(last.unwrap_or(Error::Missing { url: ask.path.clone() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_are_spread() {
        let wait = |failures, chance| {
            backoff(failures, Duration::from_secs(1), Duration::from_secs(60), chance).as_secs_f64()
        };
        assert_eq!((wait(1, 0.0), wait(2, 0.0), wait(3, 0.0)), (1.0, 2.0, 4.0));
        assert_eq!((wait(10, 0.0), wait(4_000_000, 0.0)), (60.0, 60.0));
        assert_eq!(wait(3, 1.0), 2.0);
    }
}
