//! Counts of requests, and the OpenMetrics text of everything that is counted.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
};

use axum::http::StatusCode;
use protocol::role::Role;

use crate::app::App;

/// Requests by class of status.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    classes: [AtomicU64; 6],
}

impl Metrics {
    /// Counts one answer.
    pub(super) fn count(&self, status: StatusCode) {
        if let Some(class) = self.classes.get(usize::from(status.as_u16() / 100)) {
            class.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Everything as OpenMetrics text.
    pub(super) fn render(&self, app: &App) -> String {
        let picture = app.picture();
        let mut text = String::new();
        family(&mut text, "mirrornet_requests", "counter", "Requests by class of status.");
        for (class, count) in self.classes.iter().enumerate().skip(1) {
            let count = count.load(Ordering::Relaxed);
            line(&mut text, &format!("mirrornet_requests_total{{class=\"{class}xx\"}}"), count);
        }
        let gauges = [
            ("mirrornet_revision", "Number of the wanted state.", picture.revision.0),
            ("mirrornet_restore_epoch", "Restores from a backup, from 1.", picture.restore_epoch.0),
            ("mirrornet_open_connections", "Open API connections.", count(app.open_connections())),
        ];
        for (name, help, value) in gauges {
            family(&mut text, name, "gauge", help);
            line(&mut text, name, value);
        }
        family(&mut text, "mirrornet_identities", "gauge", "Identities that are not revoked.");
        for role in [Role::Agent, Role::Publisher, Role::Admin, Role::Viewer] {
            let live = |i: &&crate::db::StoredIdentity| i.role == role && i.revoked.is_none();
            let live = picture.fleet.identities().filter(live).count();
            line(&mut text, &format!("mirrornet_identities{{role=\"{role}\"}}"), count(live));
        }
        family(&mut text, "mirrornet_definitions", "gauge", "Definitions by kind.");
        for kind in protocol::v1::definitions::Kind::ALL {
            let names = picture.wanted.definitions.names(kind).len();
            let name = format!("mirrornet_definitions{{kind=\"{}\"}}", kind.as_str());
            line(&mut text, &name, count(names));
        }
        family(&mut text, "mirrornet_holds", "gauge", "Scans that wait for an admin.");
        let holds = picture.contents.trees().flat_map(|(_, contents)| &contents.holds);
        let waiting = holds.filter(|hold| hold.decision.is_none()).count();
        line(&mut text, "mirrornet_holds", count(waiting));
        text.push_str("# EOF\n");
        text
    }
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "# TYPE {name} {kind}\n# HELP {name} {help}");
}

fn line(text: &mut String, name: &str, value: u64) {
    let _ = writeln!(text, "{name} {value}");
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
