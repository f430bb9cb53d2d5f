//! Cron expressions: minute, hour, day of the month, month, day of the week.

use std::str::FromStr;

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};

use super::later;

/// Longest expression that is read, in bytes.
const MAX_LEN: usize = 256;
const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const SHORT: [(&str, &str); 6] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
];

/// Five fields as cron(8) reads them: lists, ranges, steps, names of months and weekdays; a day
/// counts when the day of the month *or* the day of the week says so, where both are given.
/// `@hourly`, `@daily`, `@midnight`, `@weekly`, `@monthly` and `@yearly` are short for five fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    minutes: Set,
    hours: Set,
    days: Set,
    months: Set,
    weekdays: Set,
    any_hour: bool,
    any_day: bool,
    any_weekday: bool,
}

/// Why a text is no cron expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCron {
    /// Not five fields.
    #[error(
        "{0:?} is no cron expression: write minute, hour, day of the month, month and day of the week, as in \"30 2 * * mon-fri\""
    )]
    Fields(String),
    /// A field that cannot be read.
    #[error(
        "{field:?} is no {what} of a cron expression: write numbers from {least} to {most}, *, ranges (1-5), lists (1,3) or steps (*/2)"
    )]
    Field {
        /// What stands there.
        field: String,
        /// Which field it is.
        what: &'static str,
        /// Smallest number.
        least: u8,
        /// Greatest number.
        most: u8,
    },
    /// A date that no calendar has.
    #[error("{0:?} names no time that ever comes, as February 30")]
    Never(String),
}

/// Numbers from 0 to 63.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Set(u64);

impl Set {
    fn has(self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|n| n < 64 && self.0 >> n & 1 == 1)
    }
}

/// What a field may hold.
struct Field {
    what: &'static str,
    least: u8,
    most: u8,
    names: &'static [&'static str],
}

impl Cron {
    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The latest match in (`now` - `within`, `now`].
    pub fn latest(
        &self,
        now: Timestamp,
        within: SignedDuration,
        zone: &TimeZone,
    ) -> Option<Timestamp> {
        let minutes = within.as_secs() / 60;
        let mut at = whole_minute(now);
        for _ in 0..minutes {
            if self.matches(at, zone) {
                return Some(at);
            }
            at = at.saturating_sub(MINUTE).ok()?;
        }
        None
    }

    /// The first match after `after`, at most `within` later.
    pub fn next(
        &self,
        after: Timestamp,
        within: SignedDuration,
        zone: &TimeZone,
    ) -> Option<Timestamp> {
        let end = later(after, within);
        let mut at = later(whole_minute(after), MINUTE);
        while at <= end {
            if self.matches(at, zone) {
                return Some(at);
            }
            let local = zone.to_datetime(at);
            // Nothing of a day that does not count can match, but a gap may reach into its first
            // hours; so what is skipped ends an hour before midnight and days are taken whole.
            if !self.is_day(local) && local.hour() >= 3 && local.hour() < 20 {
                at = later(at, SignedDuration::from_hours(3));
            } else if !self.is_day(local) && local.hour() >= 20 && local.hour() < 23 {
                at = later(at, SignedDuration::from_mins(10));
            } else {
                at = later(at, MINUTE);
            }
        }
        None
    }

    /// Whether the minute that begins at `at` is one of the expression's.
    fn matches(&self, at: Timestamp, zone: &TimeZone) -> bool {
        let local = zone.to_datetime(at);
        if self.is_time(local) {
            // A wall-clock time that comes twice counts when it first comes.
            let first = zone.to_ambiguous_timestamp(local).compatible();
            return self.any_hour || first.is_ok_and(|first| first == at);
        }
        if self.any_hour {
            return false;
        }
        // The first minute after a gap stands for all that the clocks skipped.
        let Ok(before) = at.saturating_sub(MINUTE) else { return false };
        let mut skipped = zone.to_datetime(before);
        for _ in 0..24 * 60 {
            let Ok(next) = skipped.checked_add(MINUTE) else { return false };
            if next >= local {
                return false;
            }
            if self.is_time(next) {
                return true;
            }
            skipped = next;
        }
        false
    }

    fn is_time(&self, local: DateTime) -> bool {
        self.minutes.has(local.minute()) && self.hours.has(local.hour()) && self.is_day(local)
    }

    fn is_day(&self, local: DateTime) -> bool {
        let by_date = self.days.has(local.day());
        let by_weekday = self.weekdays.has(local.weekday().to_sunday_zero_offset());
        let day = match (self.any_day, self.any_weekday) {
            (false, false) => by_date || by_weekday,
            _ => by_date && by_weekday,
        };
        day && self.months.has(local.month())
    }
}

fn whole_minute(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second().div_euclid(60) * 60).unwrap_or(at)
}

impl FromStr for Cron {
    type Err = InvalidCron;

    fn from_str(text: &str) -> Result<Self, InvalidCron> {
        let wrong = || InvalidCron::Fields(text.chars().take(80).collect());
        if text.len() > MAX_LEN {
            return Err(wrong());
        }
        let long = SHORT.iter().find(|(short, _)| *short == text.trim());
        let long = long.map_or(text, |(_, long)| long);
        let fields: Vec<&str> = long.split_ascii_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else { return Err(wrong()) };
        let read =
            |text: &str, what, least, most, names| Field { what, least, most, names }.read(text);
        let mut week = read(weekdays, "day of the week", 0, 7, &WEEKDAYS)?;
        // Sunday is 0 and 7.
        week.0 |= week.0 >> 7 & 1;
        let cron = Self {
            text: text.trim().to_owned(),
            minutes: read(minutes, "minute", 0, 59, &[])?,
            hours: read(hours, "hour", 0, 23, &[])?,
            days: read(days, "day of the month", 1, 31, &[])?,
            months: read(months, "month", 1, 12, &MONTHS)?,
            weekdays: week,
            any_hour: hours.starts_with('*'),
            any_day: days.starts_with('*'),
            any_weekday: weekdays.starts_with('*'),
        };
        // Every leap day and every day of the week come within nine years.
        if cron.any_weekday && !cron.some_date_comes() {
            return Err(InvalidCron::Never(cron.text));
        }
        Ok(cron)
    }
}

impl Cron {
    fn some_date_comes(&self) -> bool {
        const DAYS: [i8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        (1i8..)
            .zip(DAYS)
            .any(|(month, days)| self.months.has(month) && (1..=days).any(|day| self.days.has(day)))
    }
}

impl Field {
    fn read(&self, text: &str) -> Result<Set, InvalidCron> {
        let wrong = || InvalidCron::Field {
            field: text.to_owned(),
            what: self.what,
            least: self.least,
            most: self.most,
        };
        let mut set = Set::default();
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => (range, number(step).filter(|step| *step > 0)),
                None => (part, Some(1)),
            };
            let step = step.ok_or_else(wrong)?;
            let (from, to) = match range.split_once('-') {
                _ if range == "*" => (self.least, self.most),
                Some((from, to)) => {
                    (self.one(from).ok_or_else(wrong)?, self.one(to).ok_or_else(wrong)?)
                }
                None => {
                    let one = self.one(range).ok_or_else(wrong)?;
                    (one, if part.contains('/') { self.most } else { one })
                }
            };
            if from > to {
                return Err(wrong());
            }
            for at in (from..=to).step_by(usize::from(step)) {
                set.0 |= 1 << at;
            }
        }
        Ok(set)
    }

    fn one(&self, text: &str) -> Option<u8> {
        let name = self.names.iter().position(|name| text.eq_ignore_ascii_case(name));
        let named = name.and_then(|at| u8::try_from(at).ok());
        // Months begin at 1, weekdays at 0: both at the least number.
        let value = named.map(|at| at + self.least).or_else(|| number(text))?;
        (self.least..=self.most).contains(&value).then_some(value)
    }
}

fn number(text: &str) -> Option<u8> {
    let digits = matches!(text.len(), 1 | 2) && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}
