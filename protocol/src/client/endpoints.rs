//! One method for each endpoint.

use std::time::Duration;

use reqwest::Method;
use uuid::Uuid;

use super::{Client, Error};
use crate::{
    digest::Digest,
    dsse::Envelope,
    fingerprint::KeyFingerprint,
    generation::{Revision, RootNumber, Version},
    name::{IdentityName, TreeName},
    role::Role,
    spec::AssignmentName,
    v1::{
        Page,
        agent::{AgentOrders, LeaseAnswer, LeaseRequest, RunBegun, RunReport, UndeleteRequest},
        audit::AuditEntry,
        definitions::{
            ApplyRequest, ApplyResult, Definition, Effective, HoldDecision, Imported, Kind, System,
        },
        enroll::{RenewRequest, RenewResponse},
        events::Event,
        history::{GenerationStatus, LogOf, RunStatus},
        identities::{
            EnrollmentStatus, IdentityStatus, InviteAnswer, InviteRequest, RevokeRequest, WhoAmI,
        },
        keys::TreeKey,
        mandates::NewMandates,
        publisher::{Accepted, HoldReport, Presence, PublisherOrders},
        roots::{RootDraft, Roots},
        status::NetworkStatus,
    },
};

impl Client {
    /// `GET /v1/whoami`
    pub async fn whoami(&self) -> Result<WhoAmI, Error> {
        self.get("/v1/whoami").await
    }

    /// `POST /v1/renew`
    pub async fn renew(&self, request: &RenewRequest) -> Result<RenewResponse, Error> {
        self.post("/v1/renew", request).await
    }

    /// `GET /v1/audit`: every page.
    pub async fn audit(&self) -> Result<Vec<AuditEntry>, Error> {
        self.all("/v1/audit").await
    }

    /// `GET /v1/roots`: the root documents that come after number `after`, at most
    /// [`MAX_ROOTS`](crate::v1::roots::MAX_ROOTS) of them.
    pub async fn roots(&self, after: RootNumber) -> Result<Roots, Error> {
        self.get(&format!("/v1/roots?after={after}")).await
    }

    /// `GET /v1/roots/draft`
    pub async fn root_draft(&self) -> Result<RootDraft, Error> {
        self.get("/v1/roots/draft").await
    }

    /// `POST /v1/roots`
    pub async fn publish_root(&self, root: &Envelope) -> Result<Roots, Error> {
        self.post("/v1/roots", root).await
    }

    /// `GET /v1/agent/orders`: `None` when nothing newer than `after` came within `wait`.
    pub async fn agent_orders(
        &self,
        after: Revision,
        wait: Duration,
    ) -> Result<Option<AgentOrders>, Error> {
        self.poll(&poll_path("/v1/agent/orders", after, wait), wait).await
    }

    /// `PUT /v1/agent/presence`
    pub async fn announce_relay(&self, presence: &Presence) -> Result<(), Error> {
        self.send(Method::PUT, "/v1/agent/presence", presence).await
    }

    /// `POST /v1/agent/leases`
    pub async fn lease(&self, request: &LeaseRequest) -> Result<LeaseAnswer, Error> {
        self.post("/v1/agent/leases", request).await
    }

    /// `POST /v1/agent/runs/begun`
    pub async fn report_begun(&self, begun: &RunBegun) -> Result<(), Error> {
        self.send(Method::POST, "/v1/agent/runs/begun", begun).await
    }

    /// `POST /v1/agent/runs`
    pub async fn report_run(&self, report: &RunReport) -> Result<(), Error> {
        self.send(Method::POST, "/v1/agent/runs", report).await
    }

    /// `GET /v1/publisher/orders`: `None` when nothing newer than `after` came within `wait`.
    pub async fn publisher_orders(
        &self,
        after: Revision,
        wait: Duration,
    ) -> Result<Option<PublisherOrders>, Error> {
        self.poll(&poll_path("/v1/publisher/orders", after, wait), wait).await
    }

    /// `PUT /v1/publisher/presence`
    pub async fn announce_presence(&self, presence: &Presence) -> Result<(), Error> {
        self.send(Method::PUT, "/v1/publisher/presence", presence).await
    }

    /// `POST /v1/trees/{tree}/statements`
    pub async fn announce_statement(
        &self,
        tree: &TreeName,
        statement: &Envelope,
    ) -> Result<Accepted, Error> {
        self.post(&format!("/v1/trees/{tree}/statements"), statement).await
    }

    /// `POST /v1/trees/{tree}/offers`
    pub async fn announce_offer(
        &self,
        tree: &TreeName,
        offer: &Envelope,
    ) -> Result<Accepted, Error> {
        self.post(&format!("/v1/trees/{tree}/offers"), offer).await
    }

    /// `POST /v1/trees/{tree}/holds`
    pub async fn report_hold(&self, tree: &TreeName, hold: &HoldReport) -> Result<(), Error> {
        self.send(Method::POST, &format!("/v1/trees/{tree}/holds"), hold).await
    }

    /// `DELETE /v1/trees/{tree}/holds`
    pub async fn end_holds(&self, tree: &TreeName) -> Result<(), Error> {
        self.send(Method::DELETE, &format!("/v1/trees/{tree}/holds"), &()).await
    }

    /// `GET /v1/trees/{tree}/statements/{from}`
    pub async fn statements_since(
        &self,
        tree: &TreeName,
        from: &Digest,
    ) -> Result<Vec<Envelope>, Error> {
        let page: Page<Envelope> = self.get(&format!("/v1/trees/{tree}/statements/{from}")).await?;
        Ok(page.items)
    }

    /// `GET /v1/trees/{tree}/key`: of the current generation where none is named.
    pub async fn tree_key(
        &self,
        tree: &TreeName,
        version: Option<Version>,
    ) -> Result<TreeKey, Error> {
        let path = format!("/v1/trees/{tree}/key");
        match version {
            None => self.get(&path).await,
            Some(Version { epoch, generation }) => {
                self.get(&format!("{path}?epoch={epoch}&generation={generation}")).await
            }
        }
    }

    /// `POST /v1/trees/{tree}/secret`
    pub async fn rotate_tree_secret(&self, tree: &TreeName) -> Result<ApplyResult, Error> {
        self.post(&format!("/v1/trees/{tree}/secret"), &()).await
    }

    /// `POST /v1/trees/{tree}/publish`
    pub async fn request_publish(&self, tree: &TreeName) -> Result<ApplyResult, Error> {
        self.post(&format!("/v1/trees/{tree}/publish"), &()).await
    }

    /// `POST /v1/trees/{tree}/approve`
    pub async fn approve(&self, tree: &TreeName, hold: &HoldDecision) -> Result<(), Error> {
        self.send(Method::POST, &format!("/v1/trees/{tree}/approve"), hold).await
    }

    /// `POST /v1/trees/{tree}/reject`
    pub async fn reject(&self, tree: &TreeName, hold: &HoldDecision) -> Result<(), Error> {
        self.send(Method::POST, &format!("/v1/trees/{tree}/reject"), hold).await
    }

    /// `POST /v1/definitions`
    pub async fn apply(&self, request: &ApplyRequest) -> Result<ApplyResult, Error> {
        self.post("/v1/definitions", request).await
    }

    /// `GET /v1/definitions/{kind}`: every page.
    pub async fn definitions(&self, kind: Kind) -> Result<Vec<Definition>, Error> {
        self.all(&format!("/v1/definitions/{}", kind.as_str())).await
    }

    /// `GET /v1/definitions/{kind}/{name}`
    pub async fn definition(&self, kind: Kind, name: &str) -> Result<Definition, Error> {
        self.get(&format!("/v1/definitions/{}/{}", kind.as_str(), segment(name))).await
    }

    /// `DELETE /v1/definitions/{kind}/{name}`
    pub async fn delete_definition(&self, kind: Kind, name: &str) -> Result<ApplyResult, Error> {
        let path = format!("/v1/definitions/{}/{}", kind.as_str(), segment(name));
        self.answer(Method::DELETE, &path, None::<&()>, super::DEADLINE).await
    }

    /// `GET /v1/assignments/{name}/effective`
    pub async fn effective(&self, name: &AssignmentName) -> Result<Effective, Error> {
        self.get(&format!("/v1/assignments/{name}/effective")).await
    }

    /// `POST /v1/assignments/{name}/{verb}` with `enable`, `disable` or `sync`.
    pub async fn tell_assignment(
        &self,
        name: &AssignmentName,
        verb: &str,
    ) -> Result<ApplyResult, Error> {
        self.post(&format!("/v1/assignments/{name}/{}", segment(verb)), &()).await
    }

    /// `POST /v1/assignments/{name}/undelete`
    pub async fn undelete(
        &self,
        name: &AssignmentName,
        request: &UndeleteRequest,
    ) -> Result<ApplyResult, Error> {
        self.post(&format!("/v1/assignments/{name}/undelete"), request).await
    }

    /// `GET /v1/imported/{system}`
    pub async fn imported(&self, system: System) -> Result<Imported, Error> {
        self.get(&format!("/v1/imported/{}", system.as_str())).await
    }

    /// `POST /v1/mandates`
    pub async fn put_mandates(&self, mandates: &NewMandates) -> Result<(), Error> {
        self.send(Method::POST, "/v1/mandates", mandates).await
    }

    /// `POST /v1/invites`
    pub async fn invite(&self, request: &InviteRequest) -> Result<InviteAnswer, Error> {
        self.post("/v1/invites", request).await
    }

    /// `GET /v1/enrollments`: every page.
    pub async fn enrollments(&self) -> Result<Vec<EnrollmentStatus>, Error> {
        self.all("/v1/enrollments").await
    }

    /// `POST /v1/enrollments/{fingerprint}/approve`
    pub async fn approve_enrollment(&self, keys: &KeyFingerprint) -> Result<(), Error> {
        self.send(Method::POST, &format!("/v1/enrollments/{keys}/approve"), &()).await
    }

    /// `POST /v1/enrollments/{fingerprint}/reject`
    pub async fn reject_enrollment(&self, keys: &KeyFingerprint) -> Result<(), Error> {
        self.send(Method::POST, &format!("/v1/enrollments/{keys}/reject"), &()).await
    }

    /// `GET /v1/identities`: every page.
    pub async fn identities(&self, role: Option<Role>) -> Result<Vec<IdentityStatus>, Error> {
        match role {
            Some(role) => self.all(&format!("/v1/identities?role={role}")).await,
            None => self.all("/v1/identities").await,
        }
    }

    /// `POST /v1/identities/{role}/{name}/revoke`
    pub async fn revoke(
        &self,
        role: Role,
        name: &IdentityName,
        request: &RevokeRequest,
    ) -> Result<IdentityStatus, Error> {
        self.post(&format!("/v1/identities/{role}/{name}/revoke"), request).await
    }

    /// `GET /v1/generations`: the newest page, of one tree or of all.
    pub async fn generations(
        &self,
        tree: Option<&TreeName>,
    ) -> Result<Page<GenerationStatus>, Error> {
        match tree {
            Some(tree) => self.get(&format!("/v1/generations?tree={tree}")).await,
            None => self.get("/v1/generations").await,
        }
    }

    /// `GET /v1/runs`: the newest page; `query` as in `assignment=fedora@lisbon`, or empty.
    pub async fn runs(&self, query: &str) -> Result<Page<RunStatus>, Error> {
        self.get(&format!("/v1/runs?{query}")).await
    }

    /// `GET /v1/runs/{id}`
    pub async fn run(&self, id: Uuid) -> Result<RunStatus, Error> {
        self.get(&format!("/v1/runs/{id}")).await
    }

    /// `GET /v1/events`: those after number `after`, else the newest; waits for one for at most `wait`.
    pub async fn events(
        &self,
        after: Option<u64>,
        limit: u64,
        wait: Duration,
    ) -> Result<Vec<Event>, Error> {
        let mut path = format!("/v1/events?limit={limit}&wait={}s", wait.as_secs());
        if let Some(after) = after {
            path.push_str(&format!("&after={after}"));
        }
        let page: Option<Page<Event>> = self.poll(&path, wait).await?;
        Ok(page.map(|page| page.items).unwrap_or_default())
    }

    /// `GET /v1/assignments/{name}/log?of=`
    pub async fn run_log(&self, name: &AssignmentName, of: LogOf) -> Result<RunStatus, Error> {
        self.get(&format!("/v1/assignments/{name}/log?of={}", of.as_str())).await
    }

    /// `GET /v1/status`
    pub async fn status(&self) -> Result<NetworkStatus, Error> {
        self.get("/v1/status").await
    }

    /// Follows a list to its end.
    async fn all<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, Error> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        // A server that never ends a list must not keep us for ever.
        for _ in 0..10_000 {
            let glue = if path.contains('?') { '&' } else { '?' };
            let page: Page<T> = match &cursor {
                Some(cursor) => {
                    self.get(&format!("{path}{glue}cursor={}", segment(cursor))).await?
                }
                None => self.get(path).await?,
            };
            items.extend(page.items);
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        Ok(items)
    }
}

fn poll_path(path: &str, after: Revision, wait: Duration) -> String {
    format!("{path}?revision={after}&wait={}s", wait.as_secs())
}

/// Escapes what stands for one segment of a path or one value of a query.
fn segment(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'@');
    text.bytes().fold(String::with_capacity(text.len()), |mut out, b| {
        if plain(b) {
            out.push(char::from(b));
        } else {
            out.push('%');
            out.push_str(&data_encoding::HEXUPPER.encode(&[b]));
        }
        out
    })
}
