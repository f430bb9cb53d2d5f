//! `when` of a bandwidth window: days, hours, or both (`mon-fri 08-18`, `22-06`, `sat,sun`).

use std::str::FromStr;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A window that reads well; which times it covers is the agent's to decide, in its own zone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Window;

/// Why a text is not a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidWindow {
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

impl FromStr for Window {
    type Err = InvalidWindow;

    fn from_str(text: &str) -> Result<Self, InvalidWindow> {
        let parts: Vec<&str> = text.split_ascii_whitespace().collect();
        match parts[..] {
            [days, hours] => {
                check_days(days)?;
                check_hours(hours)?;
            }
            [one] if one.starts_with(|first: char| first.is_ascii_digit()) => check_hours(one)?,
            [one] => check_days(one)?,
            _ => return Err(InvalidWindow::Form),
        }
        Ok(Self)
    }
}

fn check_days(text: &str) -> Result<(), InvalidWindow> {
    let is_day = |day: &str| DAYS.contains(&day);
    let ok = text.split(',').all(|part| match part.split_once('-') {
        Some((from, to)) => is_day(from) && is_day(to),
        None => is_day(part),
    });
    if ok { Ok(()) } else { Err(InvalidWindow::Day) }
}

fn check_hours(text: &str) -> Result<(), InvalidWindow> {
    let (from, to) = text.split_once('-').ok_or(InvalidWindow::Hours)?;
    match (minutes(from), minutes(to)) {
        (Some(from), Some(to)) if from != to => Ok(()),
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
    (total <= 24 * 60).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_that_people_write_pass_and_others_say_what_is_wrong() {
        for text in ["mon-fri 08-18", "22-06", "sat,sun", "fri-mon", "mon,wed-thu 8:30-24"] {
            assert_eq!(text.parse(), Ok(Window), "{text}");
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
}
