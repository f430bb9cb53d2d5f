//! `status`: how the network is.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use protocol::{
    client::{self, Client},
    v1::{
        agent::RunResult,
        status::{AssignmentStatus, NetworkStatus},
    },
};

use super::{
    error::Error,
    print::{Print, table},
    select::{Origins, Selectors},
    session::Session,
    text::{self, or_nothing},
};

/// Show how the network is: what each site should hold, what it holds, and what needs an admin.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl status\n  mirrorctl status --watch\n  mirrorctl status --site lisbon --upstream kernel"
)]
pub(super) struct Status {
    /// Show it again and again until interrupted.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    selectors: Selectors,
}

const EVERY: Duration = Duration::from_secs(2);

impl Status {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let api = session.api(print).await?;
        let origins = self.selectors.origins(&api).await?;
        if !self.watch {
            let status = looked_up(&api, &self.selectors, &origins).await?;
            return print.result(&status, shown);
        }
        tokio::select! {
            result = watch(&api, &self.selectors, &origins, print) => result,
            // Being interrupted is how watching ends.
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    }
}

/// The status of what is selected; what needs an admin is told in any case.
async fn looked_up(
    api: &Client,
    selectors: &Selectors,
    origins: &Origins,
) -> Result<NetworkStatus, client::Error> {
    let mut status = api.status().await?;
    status.assignments.retain(|of| selectors.means(&of.name, origins));
    Ok(status)
}

/// Shows the status until something else than the connection fails.
async fn watch(
    api: &Client,
    selectors: &Selectors,
    origins: &Origins,
    print: &mut Print,
) -> Result<(), Error> {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        match looked_up(api, selectors, origins).await {
            Ok(status) => {
                if !print.is_json() {
                    print.clear()?;
                }
                print.result(&status, shown)?;
            }
            Err(error @ protocol::client::Error::Transport { .. }) => {
                print.note(&Error::Api(error).story());
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn shown(status: &NetworkStatus) -> String {
    let head = format!(
        "network {}, revision {}, {}",
        status.network,
        status.revision,
        text::time(status.now)
    );
    let assignments = match status.assignments.is_empty() {
        true => "no assignments: define some with `mirrorctl apply`\n".to_owned(),
        false => rows(&status.assignments, status.now),
    };
    let attention: String = status.attention.iter().map(|text| format!("! {text}\n")).collect();
    format!("{head}\n\n{assignments}\n{attention}")
}

/// Assignments as a table.
pub(super) fn shown_assignments<'a>(
    list: impl IntoIterator<Item = &'a AssignmentStatus>,
) -> String {
    rows(list, Timestamp::now())
}

fn rows<'a>(list: impl IntoIterator<Item = &'a AssignmentStatus>, now: Timestamp) -> String {
    let rows = list.into_iter().map(|status| {
        [
            status.name.to_string(),
            or_nothing(status.agent.as_ref(), ToString::to_string),
            or_nothing(status.holds, text::version),
            or_nothing(status.target, text::version),
            state(status),
            or_nothing(status.last_run, |time| text::ago(time, now)),
            or_nothing(status.last_success, |time| text::ago(time, now)),
            or_nothing(status.last_seen, |time| text::ago(time, now)),
        ]
    });
    let headings = [
        "ASSIGNMENT",
        "AGENT",
        "HOLDS",
        "TARGET",
        "STATE",
        "LAST RUN",
        "LAST SUCCESS",
        "AGENT SEEN",
    ];
    table(headings, rows)
}

/// One word or reason that says whether anything is to be done.
fn state(status: &AssignmentStatus) -> String {
    let state = state_alone(status);
    let dry = status.dry_run_only && status.stopped.is_none();
    let notes = [(dry, "dry runs only"), (status.running.is_some(), "running")];
    let notes: Vec<_> = notes.iter().filter(|(is, _)| *is).map(|(_, note)| *note).collect();
    if notes.is_empty() { state } else { format!("{state} ({})", notes.join(", ")) }
}

fn state_alone(status: &AssignmentStatus) -> String {
    if let Some(reason) = &status.stopped {
        return reason.clone();
    }
    let failed = matches!(status.last_result, Some(RunResult::Failed | RunResult::Partial));
    match (status.holds, status.target) {
        _ if failed => format!("failing ({})", result(status.last_result)),
        (Some(holds), Some(target)) if holds == target => "current".into(),
        (Some(_), Some(_)) => "behind".into(),
        (None, Some(_)) => "first sync".into(),
        // A stock upstream has no target: what the last run found is all there is to say.
        (Some(_), None) => "current".into(),
        (None, None) if status.last_result.is_some() => result(status.last_result),
        (None, None) => "waiting".into(),
    }
}

/// A result as it is named everywhere, for example `SYNC_COMPLETED`.
pub(super) fn result(result: Option<RunResult>) -> String {
    match serde_json::to_value(result) {
        Ok(serde_json::Value::String(text)) => text,
        _ => text::NOTHING.into(),
    }
}

#[cfg(test)]
mod tests {
    use protocol::generation::{Epoch, Generation, Version};

    use super::*;

    #[test]
    fn the_state_says_whether_anything_is_to_be_done() {
        let version = |number| Version { epoch: Epoch(1), generation: Generation(number) };
        let with = |holds: Option<u64>, target: Option<u64>, last_result| AssignmentStatus {
            name: "fedora@lisbon".parse().unwrap(),
            agent: None,
            stopped: None,
            dry_run_only: false,
            target: target.map(version),
            holds: holds.map(version),
            last_result,
            last_run: None,
            running: None,
            last_success: None,
            last_seen: None,
        };
        let cases = [
            (with(None, None, None), "waiting"),
            (with(None, Some(1), None), "first sync"),
            (with(Some(1), Some(1), Some(RunResult::Completed)), "current"),
            (with(Some(1), Some(2), Some(RunResult::Completed)), "behind"),
            (with(Some(1), Some(2), Some(RunResult::Failed)), "failing (SYNC_FAILED)"),
            (with(Some(3), None, Some(RunResult::UpToDate)), "current"),
        ];
        for (status, expected) in cases {
            assert_eq!(state(&status), expected);
        }
        let stopped =
            AssignmentStatus { stopped: Some("disabled".into()), ..with(None, None, None) };
        assert_eq!(state(&stopped), "disabled");
        let dry = AssignmentStatus { dry_run_only: true, ..with(None, Some(1), None) };
        assert_eq!(state(&dry), "first sync (dry runs only)");
        let running = AssignmentStatus { running: Some(Timestamp::UNIX_EPOCH), ..dry };
        assert_eq!(state(&running), "first sync (dry runs only, running)");
        let stopped = AssignmentStatus { stopped: Some("disabled".into()), ..running };
        assert_eq!(state(&stopped), "disabled (running)");
    }
}
