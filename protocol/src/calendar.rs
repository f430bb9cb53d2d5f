//! When a site may use its line, and how fast: windows of the week with a rate.

use std::str::FromStr;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use crate::spec::{BandwidthWindow, Rate};

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY: u32 = 24 * 60;

/// `when` of a bandwidth window: days, hours, or both (`mon-fri 08-18`, `22-06`, `sat,sun`).
///
/// Hours that end before they begin go on into the next day, and belong to the day on which they
/// began: `fri 22-06` ends on Saturday morning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Bit 0 is Monday.
    days: u8,
    /// Minutes since midnight, `to` not included.
    from: u32,
    to: u32,
}

/// Why a text is not a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWindow {
    /// Nothing at all, or more than days and hours.
    #[error("write days, hours or both, as in \"mon-fri 08-18\", \"22-06\" or \"sat,sun\"")]
    Form,
    /// Not a day.
    #[error("a day is one of mon, tue, wed, thu, fri, sat and sun; write for example \"mon-fri\"")]
    Day,
    /// Not hours.
    #[error("hours are written 08-18 or 08:30-18:00, from 00 to 24, and the two differ")]
    Hours,
}

impl Window {
    /// Whether a local time is in it: weekday from 0 (Monday), minutes since midnight.
    fn covers(self, weekday: u32, minute: u32) -> bool {
        let on = |day: u32| self.days >> (day % 7) & 1 == 1;
        if self.from < self.to {
            return on(weekday) && (self.from..self.to).contains(&minute);
        }
        // Into the next day.
        on(weekday) && minute >= self.from || on(weekday + 6) && minute < self.to
    }
}

/// All windows of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    windows: Vec<(Window, Rate)>,
    default: Rate,
}

impl Calendar {
    /// The windows, in order, and the rate outside of them all. A window that cannot be read holds
    /// never: definitions with one are not taken.
    pub fn new(windows: &[BandwidthWindow], default: Option<Rate>) -> Self {
        let windows = windows.iter().filter_map(|w| Some((w.when.parse().ok()?, w.rate)));
        Self { windows: windows.collect(), default: default.unwrap_or(Rate(None)) }
    }

    /// The rate at an instant: that of the first window that covers it on the wall clock of
    /// `zone`.
    pub fn rate(&self, now: Timestamp, zone: &TimeZone) -> Rate {
        let local = zone.to_datetime(now);
        let minute = u32::try_from(local.hour()).unwrap_or(0) * 60
            + u32::try_from(local.minute()).unwrap_or(0);
        let weekday = u32::try_from(local.weekday().to_monday_zero_offset()).unwrap_or(0);
        let window = self.windows.iter().find(|(window, _)| window.covers(weekday, minute));
        window.map_or(self.default, |(_, rate)| *rate)
    }
}

/// The calendar month of an instant, as `2026-11`, and when the next begins.
pub fn month(now: Timestamp, zone: &TimeZone) -> (String, Timestamp) {
    let local = zone.to_datetime(now);
    let next = local.date().last_of_month().tomorrow().ok().and_then(|first| {
        zone.to_ambiguous_timestamp(first.to_datetime(jiff::civil::Time::midnight()))
            .compatible()
            .ok()
    });
    let fallback = now.saturating_add(SignedDuration::from_hours(24)).unwrap_or(Timestamp::MAX);
    (format!("{:04}-{:02}", local.year(), local.month()), next.unwrap_or(fallback))
}

impl FromStr for Window {
    type Err = InvalidWindow;

    fn from_str(text: &str) -> Result<Self, InvalidWindow> {
        let parts: Vec<&str> = text.split_ascii_whitespace().collect();
        let (days, (from, to)) = match parts[..] {
            [days, hours] => (read_days(days)?, read_hours(hours)?),
            [one] if one.starts_with(|first: char| first.is_ascii_digit()) => {
                (0x7f, read_hours(one)?)
            }
            [one] => (read_days(one)?, (0, DAY)),
            _ => return Err(InvalidWindow::Form),
        };
        Ok(Self { days, from, to })
    }
}

fn read_days(text: &str) -> Result<u8, InvalidWindow> {
    let day = |name: &str| DAYS.iter().position(|day| *day == name).ok_or(InvalidWindow::Day);
    let mut days = 0;
    for part in text.split(',') {
        let (from, to) = match part.split_once('-') {
            Some((from, to)) => (day(from)?, day(to)?),
            None => (day(part)?, day(part)?),
        };
        let mut at = from;
        loop {
            days |= 1 << at;
            if at == to {
                break;
            }
            at = (at + 1) % 7;
        }
    }
    Ok(days)
}

fn read_hours(text: &str) -> Result<(u32, u32), InvalidWindow> {
    let (from, to) = text.split_once('-').ok_or(InvalidWindow::Hours)?;
    match (minutes(from), minutes(to)) {
        (Some(from), Some(to)) if from != to => Ok((from, to)),
        _ => Err(InvalidWindow::Hours),
    }
}

/// Minutes since midnight of `HH` or `HH:MM`.
fn minutes(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':').unwrap_or((text, "00"));
    let number = |text: &str| {
        let digits = matches!(text.len(), 1 | 2) && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u32>().ok()).flatten()
    };
    let total = number(hours)? * 60 + number(minutes).filter(|minutes| *minutes < 60)?;
    (total <= DAY).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::ByteSize;

    #[test]
    fn windows_that_people_write_pass_and_others_say_what_is_wrong() {
        for text in ["mon-fri 08-18", "22-06", "sat,sun", "fri-mon", "mon,wed-thu 8:30-24"] {
            assert!(text.parse::<Window>().is_ok(), "{text}");
        }
        let refused = [
            ("", InvalidWindow::Form),
            ("mon 08-18 x", InvalidWindow::Form),
            ("monday", InvalidWindow::Day),
            ("mon-", InvalidWindow::Day),
            ("Mon", InvalidWindow::Day),
            ("08", InvalidWindow::Hours),
            ("08-25", InvalidWindow::Hours),
            ("08-08", InvalidWindow::Hours),
            ("08:60-09", InvalidWindow::Hours),
            ("mon 8am-9am", InvalidWindow::Hours),
        ];
        for (text, expected) in refused {
            assert_eq!(text.parse::<Window>(), Err(expected), "{text:?}");
        }
    }

    fn calendar(windows: &[(&str, u64)]) -> Calendar {
        let windows: Vec<_> = windows
            .iter()
            .map(|(when, rate)| BandwidthWindow {
                when: (*when).into(),
                rate: Rate(Some(ByteSize(*rate))),
            })
            .collect();
        Calendar::new(&windows, None)
    }

    fn rate(calendar: &Calendar, at: &str, zone: &str) -> Option<u64> {
        let zone = TimeZone::get(zone).unwrap();
        calendar.rate(at.parse().unwrap(), &zone).0.map(|size| size.0)
    }

    #[test]
    fn the_first_window_that_covers_the_local_time_decides() {
        // November 20, 2026 is a Friday.
        let calendar = calendar(&[("mon-fri 08-18", 1), ("fri 22-06", 2), ("sat,sun", 3)]);
        let cases = [
            ("2026-11-20T07:59:59Z", None),
            ("2026-11-20T08:00:00Z", Some(1)),
            ("2026-11-20T17:59:59Z", Some(1)),
            ("2026-11-20T18:00:00Z", None),
            ("2026-11-20T22:00:00Z", Some(2)),
            ("2026-11-21T05:59:59Z", Some(2)),
            ("2026-11-21T06:00:00Z", Some(3)),
            ("2026-11-22T23:59:59Z", Some(3)),
            ("2026-11-23T03:00:00Z", None),
        ];
        for (at, expected) in cases {
            assert_eq!(rate(&calendar, at, "UTC"), expected, "{at}");
        }
    }

    #[test]
    fn windows_follow_the_wall_clock_through_summer_time() {
        let calendar = calendar(&[("08-18", 1)]);
        // Eight in Lisbon is eight in UTC in winter and seven in summer.
        assert_eq!(rate(&calendar, "2026-03-28T07:30:00Z", "Europe/Lisbon"), None);
        assert_eq!(rate(&calendar, "2026-03-29T07:30:00Z", "Europe/Lisbon"), Some(1));
        assert_eq!(rate(&calendar, "2026-10-24T07:30:00Z", "Europe/Lisbon"), Some(1));
        assert_eq!(rate(&calendar, "2026-10-25T07:30:00Z", "Europe/Lisbon"), None);
    }

    #[test]
    fn a_month_is_the_sites_own() {
        let zone = TimeZone::get("Asia/Tokyo").unwrap();
        let (name, next) = month("2026-10-31T15:00:00Z".parse().unwrap(), &zone);
        assert_eq!((name.as_str(), next.to_string().as_str()), ("2026-11", "2026-11-30T15:00:00Z"));
        let (name, _) = month("2026-10-31T14:59:59Z".parse().unwrap(), &zone);
        assert_eq!(name, "2026-10");
    }
}
