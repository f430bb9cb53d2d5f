//! When a tree is due: cron expressions, and hours of the day.
//!
//! Times are those of a site's wall clock, so a schedule is asked together with a zone. What it
//! gives are *slots*: a stretch of time in which one run is due, named by its first instant. A
//! run is due once per slot, however often one looks and whatever was restarted meanwhile, because
//! whoever runs remembers the slot. A slot that passed while nobody looked is not made up: who
//! chose the night does not want the morning.
//!
//! Where the clocks are put forward, a time that the wall clock skips counts as the first instant
//! after the gap; where they are put back, a time that comes twice counts once. Only a cron
//! expression whose hour is `*` goes through both hours, as cron does.

mod cron;

use std::{fmt, str::FromStr};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::cron::{Cron, InvalidCron};

/// How long after its time a run is still begun, or a failed one tried again.
pub const SLOT: SignedDuration = SignedDuration::from_hours(1);
/// How far ahead a next slot is looked for.
const HORIZON: SignedDuration = SignedDuration::from_hours(24 * 366 * 5);

/// When a tree is due, other than by an interval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Schedule {
    /// At the times of a cron expression.
    Cron(Cron),
    /// At every hour of the day that this divides.
    SyncHours(SyncHours),
}

/// A tree is due in an hour of the day (0 to 23) that this number divides: 6 means at 0, 6, 12 and
/// 18, 5 at 0, 5, 10, 15 and 20, 24 and more at 0 only, and 0 never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SyncHours(pub u32);

/// A stretch of time in which one run is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Names the slot.
    pub begins: Timestamp,
    /// A run begins before this or not at all.
    pub ends: Timestamp,
}

impl Schedule {
    /// The slot that `now` is in; the latest where several overlap.
    pub fn slot(&self, now: Timestamp, zone: &TimeZone) -> Option<Slot> {
        match self {
            Self::Cron(cron) => {
                let begins = cron.latest(now, SLOT, zone)?;
                Some(Slot { begins, ends: later(begins, SLOT) })
            }
            Self::SyncHours(hours) => {
                let local = zone.to_datetime(now);
                if !hours.includes(local.hour()) {
                    return None;
                }
                let hour = local.date().at(local.hour(), 0, 0, 0);
                // An hour that comes twice is named by its first coming.
                let begins = zone.to_ambiguous_timestamp(hour).compatible().ok()?;
                let passed = local.duration_since(hour);
                Some(Slot { begins, ends: later(now, SLOT - passed) })
            }
        }
    }

    /// The first slot that begins after `after`; `None` when there is none within five years.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Cron(cron) => cron.next(after, HORIZON, zone),
            Self::SyncHours(SyncHours(0)) => None,
            Self::SyncHours(_) => {
                // Some hour of every day is one, and clocks move by two hours at most.
                let quarters = (1..=30 * 4)
                    .map(|quarter| later(after, SignedDuration::from_mins(15 * quarter)));
                let slots = quarters.filter_map(|at| self.slot(at, zone));
                slots.map(|slot| slot.begins).find(|begins| *begins > after)
            }
        }
    }

    /// The time between two slots of an ordinary day: what is due more often goes first.
    pub fn period(&self) -> SignedDuration {
        match self {
            Self::SyncHours(SyncHours(hours)) => {
                SignedDuration::from_hours(i64::from((*hours).clamp(1, 24)))
            }
            Self::Cron(cron) => {
                // A Monday and the days after it, in a zone whose clocks never move.
                let monday = Timestamp::from_second(345_600).unwrap_or(Timestamp::UNIX_EPOCH);
                let first = cron.next(monday, HORIZON, &TimeZone::UTC);
                let second = first.and_then(|first| cron.next(first, HORIZON, &TimeZone::UTC));
                first.zip(second).map_or(HORIZON, |(first, second)| second.duration_since(first))
            }
        }
    }
}

impl SyncHours {
    /// Whether a run is due in this hour of the day.
    pub fn includes(self, hour: i8) -> bool {
        u32::try_from(hour).is_ok_and(|hour| self.0 != 0 && hour.is_multiple_of(self.0))
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cron(cron) => write!(f, "cron {cron}"),
            Self::SyncHours(SyncHours(0)) => f.write_str("never by itself"),
            Self::SyncHours(SyncHours(1)) => f.write_str("every hour"),
            Self::SyncHours(SyncHours(hours)) => write!(f, "hours divisible by {hours}"),
        }
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Cron {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Cron {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_str(&text).map_err(serde::de::Error::custom)
    }
}

/// The zone of this name, or the system's own.
pub fn zone(name: Option<&str>) -> TimeZone {
    match name {
        None => TimeZone::system(),
        Some(name) => TimeZone::get(name).unwrap_or_else(|_| TimeZone::system()),
    }
}

pub(crate) fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
