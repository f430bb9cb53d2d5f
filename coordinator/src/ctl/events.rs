//! `events`: what happened, as it happens.

use std::time::Duration;

use clap::Args;
use protocol::v1::events::{Event, EventKind};

use super::{
    error::Error,
    print::{Print, table},
    session::Session,
    text,
};

/// How long the coordinator keeps a question open.
const WAIT: Duration = Duration::from_secs(60);

/// Show what happened: failures and recoveries, new and held generations, agents that fell silent.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl events\n  mirrorctl events --follow --kind run-failed --kind run-recovered"
)]
pub(super) struct Events {
    /// Go on with what happens, until interrupted; with --output json one object on each line.
    #[arg(long, short)]
    follow: bool,
    /// Only events after this number.
    #[arg(long, value_name = "NUMBER")]
    after: Option<u64>,
    /// Only of this kind; several times for several.
    #[arg(long)]
    kind: Vec<EventKind>,
    /// Only of this subject (TREE@SITE, TREE or ROLE/NAME); several times for several.
    #[arg(long)]
    subject: Vec<String>,
    /// At most so many, the newest.
    #[arg(short = 'n', long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1000))]
    number: u64,
}

impl Events {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let api = session.api(print).await?;
        let first = api.events(self.after, self.number, Duration::ZERO).await?;
        let mut newest = first.last().map(|event| event.number).or(self.after).unwrap_or(0);
        let shown = self.wanted(first);
        if !self.follow {
            return print.result(&shown, |events| rows(events));
        }
        shown.iter().try_for_each(|event| line(event, print))?;
        loop {
            let events = api.events(Some(newest), self.number, WAIT).await?;
            newest = events.last().map_or(newest, |event| event.number);
            self.wanted(events).iter().try_for_each(|event| line(event, print))?;
        }
    }

    fn wanted(&self, mut events: Vec<Event>) -> Vec<Event> {
        let is_kind = |event: &Event| self.kind.is_empty() || self.kind.contains(&event.kind);
        let is_subject =
            |event: &Event| self.subject.is_empty() || self.subject.contains(&event.subject);
        events.retain(|event| is_kind(event) && is_subject(event));
        events
    }
}

fn line(event: &Event, print: &mut Print) -> Result<(), Error> {
    if print.is_json() {
        let json = serde_json::to_string(event).map_err(std::io::Error::other)?;
        return print.line(&json);
    }
    print.text(&format!("{}  {}  {}", text::time(event.at), event.kind, event.text))
}

fn rows(events: &[Event]) -> String {
    if events.is_empty() {
        return "no such events".into();
    }
    let row = |event: &Event| {
        [event.number.to_string(), text::time(event.at), event.kind.to_string(), event.text.clone()]
    };
    table(["NUMBER", "AT", "KIND", "WHAT"], events.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_subjects_narrow_what_is_shown() {
        let event = |number, kind, subject: &str| Event {
            number,
            id: uuid::Uuid::nil(),
            at: jiff::Timestamp::UNIX_EPOCH,
            kind,
            subject: subject.into(),
            text: format!("{subject} \u{1b}[2J"),
            details: Default::default(),
        };
        let all = vec![
            event(1, EventKind::RunFailed, "a@lisbon"),
            event(2, EventKind::RunRecovered, "a@lisbon"),
            event(3, EventKind::RunFailed, "a@oslo"),
        ];
        let wanted = |kind: &[EventKind], subject: &[&str]| {
            let subject = subject.iter().map(|&text| text.to_owned()).collect();
            let kind = kind.to_vec();
            let verb = Events { follow: false, after: None, kind, subject, number: 50 };
            verb.wanted(all.clone()).iter().map(|event| event.number).collect::<Vec<_>>()
        };
        assert_eq!(wanted(&[], &[]), [1, 2, 3]);
        assert_eq!(wanted(&[EventKind::RunFailed], &[]), [1, 3]);
        assert_eq!(wanted(&[EventKind::RunFailed], &["a@lisbon"]), [1]);
        assert!(!rows(&all).contains('\u{1b}'));
    }
}
