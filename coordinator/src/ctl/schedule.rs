//! `schedule`: what is due when, before it is.

use clap::Args;
use jiff::{Timestamp, civil, tz::TimeZone};
use protocol::{
    schedule::{Schedule as When, zone},
    spec::AssignmentName,
    v1::definitions::Effective,
};
use serde::Serialize;

use super::{
    error::Error,
    print::{Print, table},
    select::Selectors,
    session::Session,
    text::{self, or_nothing},
};

/// Show what would be due at a time, and when each assignment is due next. Nothing is started.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl schedule\n  mirrorctl schedule --at 2026-06-01T03:00 --site lisbon"
)]
pub(super) struct Schedule {
    /// Only these assignments.
    #[arg(value_name = "TREE@SITE")]
    assignments: Vec<AssignmentName>,
    #[command(flatten)]
    selectors: Selectors,
    /// The time to look at; now without it. Without an offset it is this machine's own.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: Option<Timestamp>,
}

/// When one assignment is due.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Due {
    assignment: String,
    /// The schedule, or the interval.
    when: String,
    /// The zone of the schedule; absent where the site names none and the agent's own counts.
    timezone: Option<String>,
    /// Whether a run is due at the time that was asked for. Absent without a schedule: then a run
    /// is due an interval after the one before it.
    due: Option<bool>,
    /// When the next slot begins after it.
    next: Option<Timestamp>,
    /// Why it is not carried out.
    stopped: Option<String>,
}

impl Schedule {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let api = session.api(print).await?;
        let names = self.selectors.and(&self.assignments).select(&api).await?;
        let at = self.at.unwrap_or_else(Timestamp::now);
        let mut all = Vec::with_capacity(names.len());
        for name in &names {
            all.push(due(&api.effective(name).await?, at));
        }
        print.result(&all, |all| shown(all, at))
    }
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let local = text.parse::<civil::DateTime>().map_err(|_| {
        "not a time such as 2026-06-01T03:00, or 2026-06-01T03:00Z for UTC".to_owned()
    })?;
    let zoned = local.to_zoned(TimeZone::system()).map_err(|error| error.to_string())?;
    Ok(zoned.timestamp())
}

fn due(effective: &Effective, at: Timestamp) -> Due {
    let setting = |key: &str| effective.settings.iter().find(|setting| setting.key == key);
    let text = |key: &str| setting(key)?.value.as_str().map(str::to_owned);
    let timezone = text("timezone");
    let schedule: Option<When> =
        setting("schedule").and_then(|setting| serde_json::from_value(setting.value.clone()).ok());
    let zone = zone(timezone.as_deref());
    let when = match &schedule {
        Some(schedule) => schedule.to_string(),
        None => format!("every {}", text("interval").unwrap_or_default()),
    };
    let is_stopped = effective.stopped.is_some();
    Due {
        assignment: effective.name.clone(),
        when,
        timezone,
        due: schedule.as_ref().map(|it| !is_stopped && it.slot(at, &zone).is_some()),
        next: schedule.as_ref().filter(|_| !is_stopped).and_then(|it| it.next(at, &zone)),
        stopped: effective.stopped.clone(),
    }
}

fn shown(all: &[Due], at: Timestamp) -> String {
    if all.is_empty() {
        return "no assignment is selected".into();
    }
    let rows = all.iter().map(|due| {
        let is_due = match (&due.stopped, due.due) {
            (Some(_), _) => "stopped",
            (None, None) => text::NOTHING,
            (None, Some(true)) => "due",
            (None, Some(false)) => "not due",
        };
        let zone = due.timezone.clone().unwrap_or_else(|| "the agent's own".into());
        let next = or_nothing(due.next, text::time);
        [due.assignment.clone(), due.when.clone(), zone, is_due.to_owned(), next]
    });
    let head = format!("at {}\n\n", text::time(at));
    head + &table(["ASSIGNMENT", "SCHEDULE", "ZONE", "IS", "NEXT"], rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn effective(schedule: serde_json::Value, stopped: Option<&str>) -> Effective {
        let setting = |key: &str, value| json!({ "key": key, "value": value, "from": "tree a" });
        let mut settings =
            vec![setting("timezone", json!("Europe/Lisbon")), setting("interval", json!("10m"))];
        if !schedule.is_null() {
            settings.push(setting("schedule", schedule));
        }
        serde_json::from_value(json!({
            "name": "a@lisbon", "settings": settings, "rules": [], "stopped": stopped,
        }))
        .unwrap()
    }

    #[test]
    fn what_is_due_follows_the_site_s_own_clock() {
        let hours = |hours| json!({ "sync-hours": hours });
        // Lisbon is an hour before UTC in June: 23:30Z is half past midnight there.
        let at: Timestamp = "2026-06-01T23:30:00Z".parse().unwrap();
        let midnight = due(&effective(hours(24), None), at);
        assert_eq!(midnight.due, Some(true));
        assert_eq!(midnight.next, Some("2026-06-02T23:00:00Z".parse().unwrap()));
        assert_eq!(
            due(&effective(hours(5), None), at + jiff::SignedDuration::from_hours(1)).due,
            Some(false)
        );
        assert_eq!(due(&effective(hours(0), None), at).next, None);
        let stopped = due(&effective(hours(24), Some("disabled")), at);
        assert_eq!((stopped.due, stopped.next), (Some(false), None));
        let interval = due(&effective(json!(null), None), at);
        assert_eq!((interval.when.as_str(), interval.due), ("every 10m", None));
        assert!(shown(&[midnight], at).contains("due"));
    }

    #[test]
    fn a_time_is_exact_or_this_machine_s() {
        let exact: Timestamp = "2026-06-01T03:00:00Z".parse().unwrap();
        assert_eq!(parse_time("2026-06-01T03:00Z").unwrap(), exact);
        assert!(parse_time("2026-06-01T03:00").is_ok());
        assert!(parse_time("tomorrow").is_err());
    }
}
