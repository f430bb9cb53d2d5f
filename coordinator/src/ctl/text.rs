//! Times and quantities as people read them.

use jiff::{Timestamp, tz::TimeZone};
use protocol::generation::Version;

/// What stands where there is nothing.
pub(super) const NOTHING: &str = "-";

/// Local time with its zone.
pub(super) fn time(time: Timestamp) -> String {
    in_zone(time, TimeZone::system())
}

fn in_zone(time: Timestamp, zone: TimeZone) -> String {
    time.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// How long ago, in its largest unit: `40s`, `12m`, `3h`, `5d`.
pub(super) fn ago(time: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(time).as_secs();
    match seconds {
        ..0 => "just now".into(),
        0..60 => format!("{seconds}s ago"),
        60..3_600 => format!("{}m ago", seconds / 60),
        3_600..172_800 => format!("{}h ago", seconds / 3_600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

/// A number of bytes with three figures: `8.53 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three figures are shown")]
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// What was saved of `whole` by moving only `moved`, as a share; what went over as a loss.
pub(super) fn saved(moved: u64, whole: u64) -> String {
    if whole == 0 {
        return NOTHING.into();
    }
    format!("{:.1} %", (1.0 - moved as f64 / whole as f64) * 100.0)
}

/// The generation; with its epoch in front once a tree had to start over.
pub(super) fn version(version: Version) -> String {
    if version.epoch.0 <= 1 { version.generation.to_string() } else { version.to_string() }
}

/// The text of something that may not be there.
pub(super) fn or_nothing<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| NOTHING.to_owned(), text)
}

#[cfg(test)]
mod tests {
    use protocol::generation::{Epoch, Generation};

    use super::*;

    #[test]
    fn quantities_have_three_figures_and_their_unit() {
        let cases = [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (8_945_000, "8.53 MiB")];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(bytes(u64::MAX), "16384 PiB");
    }

    #[test]
    fn times_are_local_and_name_their_zone() {
        let time: Timestamp = "2026-07-01T12:00:00Z".parse().unwrap();
        let lisbon = TimeZone::get("Europe/Lisbon").unwrap();
        assert_eq!(in_zone(time, lisbon), "2026-07-01 13:00:00 WEST");
        let later = |seconds| time + jiff::SignedDuration::from_secs(seconds);
        assert_eq!(ago(time, later(59)), "59s ago");
        assert_eq!(ago(time, later(3 * 3600)), "3h ago");
        assert_eq!(ago(time, later(-5)), "just now");
    }

    #[test]
    fn an_epoch_is_shown_once_there_was_more_than_one() {
        let at = |epoch| version(Version { epoch: Epoch(epoch), generation: Generation(7) });
        assert_eq!((at(1).as_str(), at(2).as_str()), ("7", "2.7"));
    }
}
