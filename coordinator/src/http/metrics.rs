//! Counts of requests, and the OpenMetrics text of everything that is counted.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::StatusCode;
use protocol::{
    open_metrics::{Kind, Text},
    role::Role,
};

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
        let mut text = Text::default();
        text.family("mirrornet_requests", Kind::Counter, "Requests by class of status.");
        for (class, count) in self.classes.iter().enumerate().skip(1) {
            let class = format!("{class}xx");
            let count = count.load(Ordering::Relaxed);
            text.sample("mirrornet_requests_total", &[("class", &class)], count);
        }
        let gauges = [
            ("mirrornet_revision", "Number of the wanted state.", picture.revision.0),
            ("mirrornet_restore_epoch", "Restores from a backup, from 1.", picture.restore_epoch.0),
            ("mirrornet_open_connections", "Open API connections.", count(app.open_connections())),
        ];
        for (name, help, value) in gauges {
            text.gauge(name, help, value);
        }
        text.family("mirrornet_identities", Kind::Gauge, "Identities that are not revoked.");
        for role in Role::ALL.into_iter().filter(|role| *role != Role::Coordinator) {
            let live = |i: &&crate::db::StoredIdentity| i.role == role && i.revoked.is_none();
            let live = picture.fleet.identities().filter(live).count();
            text.sample("mirrornet_identities", &[("role", &role.to_string())], live);
        }
        let name = "mirrornet_certificate_expiry_timestamp_seconds";
        text.family(name, Kind::Gauge, "End of the live certificate that ends first, by role.");
        for role in Role::ALL.into_iter().filter(|role| *role != Role::Coordinator) {
            let live = picture.fleet.identities();
            let live = live.filter(|i| i.role == role && i.revoked.is_none());
            let ends = live.filter_map(|i| picture.fleet.newest_certificate(role, &i.name));
            if let Some(first) = ends.map(|certificate| certificate.not_after).min() {
                let seconds = u64::try_from(first.as_second()).unwrap_or(0);
                text.sample(name, &[("role", &role.to_string())], seconds);
            }
        }
        let help = "When the authority ends that certifies everybody.";
        let ends = app.authority().not_after().as_second();
        text.gauge("mirrornet_authority_expiry_timestamp_seconds", help, ends);
        let help =
            "Assignments that agents do not carry out as they are defined, for want of a mandate.";
        text.gauge("mirrornet_assignments_without_mandate", help, app.without_mandate());
        text.gauge("mirrornet_root", "Number of the root document.", picture.root.root().number.0);
        let waiting = app.root_draft().changes.len();
        let help = "Changes that wait for whoever holds the root key.";
        text.gauge("mirrornet_root_changes_waiting", help, waiting);
        text.family("mirrornet_definitions", Kind::Gauge, "Definitions by kind.");
        for kind in protocol::v1::definitions::Kind::ALL {
            let names = picture.wanted.definitions.names(kind).len();
            text.sample("mirrornet_definitions", &[("kind", kind.as_str())], names);
        }
        let holds = picture.contents.trees().flat_map(|(_, contents)| &contents.holds);
        let waiting = holds.filter(|hold| hold.decision.is_none()).count();
        text.gauge("mirrornet_holds", "Scans that wait for an admin.", waiting);
        text.finish()
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
