//! The whole network at a glance, and what needs an admin.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use protocol::{
    hold::HoldId,
    role::Role,
    spec::AssignmentName,
    v1::{
        agent::{Origin, RunResult},
        status::{AssignmentStatus, NetworkStatus},
    },
};

use super::{
    App, Error, Picture, admission::Scope, effective::EffectiveAssignment, mandates::Mandated,
};
use crate::db::{Outcome, Queue, StoredHold};

/// An agent that was not heard of for so long is silent: several long polls are missing.
const SILENT: SignedDuration = SignedDuration::from_mins(10);
/// A certificate that ends within so long should have been renewed days ago.
const ENDING: SignedDuration = SignedDuration::from_hours(48);

/// An authority that ends within so long should be replaced now.
const REPLACED_IN: SignedDuration = SignedDuration::from_hours(90 * 24);

/// An event that was tried so often without success needs somebody to look.
const TRIES_UNNOTICED: u64 = 3;

impl App {
    /// Every assignment within `scope` with what it should hold and what it holds.
    pub async fn status(&self, scope: &Scope) -> Result<NetworkStatus, Error> {
        let picture = self.picture();
        let now = self.now();
        let mut tx = self.parts.database.read().await?;
        let outcomes: HashMap<_, _> =
            tx.outcomes().await?.into_iter().map(|o| (o.assignment.clone(), o)).collect();
        let begun: HashMap<_, _> = tx.begun().await?.into_iter().collect();
        let names = picture.wanted.definitions.assignments.keys();
        let names = names.filter(|name| scope.covers(&name.site));
        let mut mandates = Vec::new();
        let mut assignments: Vec<_> = names
            .filter_map(|name| {
                let merged = picture.effective(name, now)?;
                let mandated = self.mandated(&picture, name, &merged);
                mandates.extend(mandated.and_then(|mandated| mandated.attention(name)));
                let is_followed = mandated.is_none_or(Mandated::is_carried_out);
                let latest = (outcomes.get(name), begun.get(name).copied());
                let mut status = self.assignment_status(&picture, name, latest, merged);
                if !is_followed {
                    status.stopped = status.stopped.or(Some("no mandate".into()));
                }
                Some(status)
            })
            .collect();
        mandates.sort();
        assignments.sort_by(|a, b| (&a.name.site, &a.name.tree).cmp(&(&b.name.site, &b.name.tree)));
        let mut attention = holds(&picture, scope);
        attention.extend(failures(&assignments, &outcomes));
        attention.extend(mandates);
        attention.extend(self.identities_in_need(&picture, scope, now));
        attention.extend(self.suspicions(&mut tx, &picture, scope, now).await?);
        if *scope == Scope::Network {
            attention.extend(self.rotation(&picture));
            attention.extend(authority_in_need(self.authority().not_after(), now));
            attention.extend(tx.queues().await?.iter().filter_map(undelivered));
        }
        tx.commit().await?;
        Ok(NetworkStatus {
            network: self.network().clone(),
            revision: picture.revision,
            now,
            assignments,
            attention,
        })
    }

    fn assignment_status(
        &self,
        picture: &Picture,
        name: &AssignmentName,
        (outcome, running): (Option<&Outcome>, Option<Timestamp>),
        merged: EffectiveAssignment,
    ) -> AssignmentStatus {
        let agent = merged.agent.as_ref().ok().cloned();
        let identity = agent.as_ref().and_then(|agent| picture.fleet.identity(Role::Agent, agent));
        let target = match merged.order.origin {
            Origin::Publisher(_) => picture.contents.tree(&name.tree).current(),
            Origin::Rsyncd(_) => None,
        };
        AssignmentStatus {
            name: name.clone(),
            stopped: merged.why_stopped(),
            dry_run_only: merged.order.dry_run_only,
            target: target.map(|current| current.version),
            holds: picture.receipts.get(name).map(|receipt| receipt.version),
            last_result: outcome.map(|outcome| outcome.last_result),
            last_run: outcome.map(|outcome| outcome.last_run),
            running,
            last_success: outcome.and_then(|outcome| outcome.last_success),
            last_seen: identity
                .and_then(|found| self.seen(Role::Agent, &found.name).max(found.last_seen)),
            agent,
        }
    }

    fn identities_in_need(&self, picture: &Picture, scope: &Scope, now: Timestamp) -> Vec<String> {
        let mut texts = Vec::new();
        for identity in picture.fleet.identities().filter(|found| found.revoked.is_none()) {
            let (role, name) = (identity.role, &identity.name);
            let is_daemon = matches!(role, Role::Agent | Role::Publisher);
            if !is_daemon || !scope.covers_some(identity.site.as_ref()) {
                continue;
            }
            match self.seen(role, name).max(identity.last_seen) {
                Some(seen) if now.duration_since(seen) > SILENT => texts.push(format!(
                    "{role} {name} was last heard of at {seen}; is it running, and can it reach the coordinator?"
                )),
                _ => {}
            }
            match picture.fleet.newest_certificate(role, name) {
                Some(newest) if newest.not_after.duration_since(now) > ENDING => {}
                Some(newest) => texts.push(format!(
                    "the certificate of {role} {name} ends at {} and was not renewed; see its log",
                    newest.not_after
                )),
                None if self.parts.late_renewal.is_zero() => texts.push(format!(
                    "the certificate of {role} {name} has ended; invite it again with --replace"
                )),
                None => texts.push(format!(
                    "the certificate of {role} {name} has ended; it is renewed when that machine comes back within {:#} of the end, later it has to be invited again with --replace",
                    self.parts.late_renewal
                )),
            }
        }
        texts
    }
}

/// Nobody can be certified beyond the end of the authority itself, and its replacement takes a week.
fn authority_in_need(ends: Timestamp, now: Timestamp) -> Option<String> {
    (ends.duration_since(now) < REPLACED_IN).then(|| {
        format!(
            "the network's authority ends at {ends}, and with it all certificates; `coordinator ca rotate` begins to replace it"
        )
    })
}

/// What an admin is told of a webhook that takes nothing.
fn undelivered(queue: &Queue) -> Option<String> {
    let Queue { webhook, events, tries, error } = queue;
    (*tries >= TRIES_UNNOTICED).then(|| {
        format!("{events} events wait for the webhook {webhook}, tried {tries} times: {error}")
    })
}

fn holds(picture: &Picture, scope: &Scope) -> Vec<String> {
    let all = picture.contents.trees().flat_map(|(_, contents)| &contents.holds);
    let mut texts: Vec<_> = all
        .filter(|hold| hold.decision.is_none() && scope.covers_some(hold.site.as_ref()))
        .map(|hold| {
            let StoredHold { tree, report, .. } = hold;
            let id = HoldId::of(&report.manifest);
            let of = match &hold.site {
                Some(site) => format!("{tree}@{site}"),
                None => format!("tree {tree}"),
            };
            if report.unseen {
                return format!("{of} is held ({id}): {}; repair it, there is nothing to approve", report.reason);
            }
            format!(
                "{of} is held ({id}): {}; `mirrorctl get generations {tree}` shows the difference, `mirrorctl approve {id}` or `mirrorctl reject {id}` decides (manifest {})",
                report.reason, report.manifest
            )
        })
        .collect();
    texts.sort();
    texts
}

fn failures(
    assignments: &[AssignmentStatus],
    outcomes: &HashMap<AssignmentName, Outcome>,
) -> Vec<String> {
    let failed = |status: &&AssignmentStatus| {
        status.stopped.is_none()
            && matches!(status.last_result, Some(RunResult::Failed | RunResult::Partial))
    };
    let text = |status: &AssignmentStatus| {
        let error = outcomes.get(&status.name).map_or("", |outcome| outcome.error.as_str());
        format!("{} failed: {error}", status.name)
    };
    assignments.iter().filter(failed).map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_authority_is_told_a_season_before_it_comes() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let ends = at("2030-06-01T00:00:00Z");
        assert_eq!(authority_in_need(ends, at("2030-03-01T00:00:00Z")), None);
        for late in ["2030-03-05T00:00:00Z", "2031-01-01T00:00:00Z"] {
            let told = authority_in_need(ends, at(late)).unwrap();
            assert!(told.contains("2030-06-01") && told.contains("ca rotate"), "{told}");
        }
    }
}
