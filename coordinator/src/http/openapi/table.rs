//! Every endpoint, in the order of the API's parts.

use protocol::{
    dsse::Envelope,
    error::Problem,
    v1::{
        agent::{AgentOrders, LeaseAnswer, LeaseRequest, RunBegun, RunReport, UndeleteRequest},
        audit::AuditEntry,
        definitions::{ApplyRequest, ApplyResult, Definition, Effective, HoldDecision, Imported},
        enroll::{
            EnrollPending, EnrollRequest, EnrollResponse, LateRenewRequest, RenewRequest,
            RenewResponse,
        },
        events::Event,
        history::{GenerationStatus, RunStatus},
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

use super::Endpoint;

const EVERYONE: &str = "every role";
const ADMIN: &str = "admin";
const READER: &str = "admin and viewer";
const SITE_READER: &str = "admin and viewer; operator what concerns its site";
const SITE_MANAGER: &str = "admin; operator at its site";
const AGENT: &str = "agent, its own only";
const PUBLISHER: &str = "publisher, its own only";
pub(super) const NOBODY: &str = "anyone";

const POLL: &[(&str, &str)] = &[
    ("revision", "What the asker knows; 0 for nothing"),
    ("wait", "How long to wait for something newer, for example 60s; at most 120s"),
];
const PAGE: &[(&str, &str)] =
    &[("cursor", "Where the page begins"), ("limit", "Entries, at most 1000; 100 by default")];
const ROOTS: &[(&str, &str)] = &[("after", "Those after this number; 0 for all")];
const KEY: &[(&str, &str)] = &[
    ("epoch", "Epoch of the generation; the current one where none is named"),
    ("generation", "Its number; an agent's at most that of the current one"),
];
const IDENTITIES: &[(&str, &str)] = &[("role", "Of this role only"), PAGE[0], PAGE[1]];
const GENERATIONS: &[(&str, &str)] = &[("tree", "Of this tree only"), PAGE[0], PAGE[1]];
const EVENTS: &[(&str, &str)] = &[
    ("after", "Those after this number; without it the newest"),
    ("limit", "Entries, at most 1000; 100 by default"),
    ("wait", "How long to wait for one, for example 60s; at most 120s"),
];
const LOG: &[(&str, &str)] =
    &[("of", "Of which run: latest (without it), previous, success or change")];
const RUNS: &[(&str, &str)] = &[
    ("assignment", "Of this assignment only: TREE@SITE"),
    ("tree", "Of this tree only"),
    ("site", "At this site only"),
    PAGE[0],
    PAGE[1],
];

fn get(path: &'static str, roles: &'static str, summary: &'static str) -> Endpoint {
    Endpoint::new("get", path, roles, summary)
}

fn post(path: &'static str, roles: &'static str, summary: &'static str) -> Endpoint {
    Endpoint::new("post", path, roles, summary)
}

/// Every endpoint.
pub(super) fn endpoints() -> Vec<Endpoint> {
    let parts = [identities(), definitions(), publisher(), agent(), history(), about()];
    parts.into_iter().flatten().collect()
}

fn identities() -> Vec<Endpoint> {
    vec![
        post("/enroll", "whoever holds an invite; on the enroll port", "Become an identity; 202 and `EnrollPending` while an admin has to approve it")
            .takes::<EnrollRequest>()
            .answers::<EnrollResponse>()
            .with::<EnrollPending>(),
        post(
            "/renew-after-expiry",
            "whoever signs with the key of a certificate that ended not long ago; on the enroll port",
            "Replace a certificate that has ended",
        )
        .takes::<LateRenewRequest>()
        .answers::<RenewResponse>(),
        get("/v1/whoami", EVERYONE, "Who the asking identity is").answers::<WhoAmI>(),
        post("/v1/renew", EVERYONE, "Replace the asker's certificate")
            .takes::<RenewRequest>()
            .answers::<RenewResponse>(),
        post("/v1/invites", SITE_MANAGER, "Make an invite; an operator for agents of its site")
            .takes::<InviteRequest>()
            .answers::<InviteAnswer>(),
        get("/v1/enrollments", SITE_READER, "Enrollments that wait for an admin's approval")
            .query(PAGE)
            .pages::<EnrollmentStatus>(),
        post("/v1/enrollments/{fingerprint}/approve", SITE_MANAGER, "Let an enrollment go on"),
        post("/v1/enrollments/{fingerprint}/reject", SITE_MANAGER, "End an enrollment"),
        get("/v1/identities", SITE_READER, "Every identity").query(IDENTITIES).pages::<IdentityStatus>(),
        post("/v1/identities/{role}/{name}/revoke", SITE_MANAGER, "Revoke an identity; an operator agents of its site")
            .takes::<RevokeRequest>()
            .answers::<IdentityStatus>(),
        get(
            "/v1/crl",
            "every role; at the enroll port anyone",
            "Certificate revocation lists, PEM",
        )
        .text("application/x-pem-file"),
        get("/v1/audit", READER, "Who did what, the oldest first")
            .query(PAGE)
            .pages::<AuditEntry>(),
        get("/v1/roots", EVERYONE, "The root documents, the oldest first")
            .query(ROOTS)
            .answers::<Roots>(),
        post("/v1/roots", ADMIN, "Make the next root document current")
            .takes::<Envelope>()
            .answers::<Roots>(),
        get("/v1/roots/draft", READER, "What the next root document should say")
            .answers::<RootDraft>(),
    ]
}

fn definitions() -> Vec<Endpoint> {
    vec![
        post("/v1/definitions", ADMIN, "Add, change and, with prune, remove definitions")
            .takes::<ApplyRequest>()
            .answers::<ApplyResult>(),
        get("/v1/definitions/{kind}", SITE_READER, "Every definition of a kind")
            .query(PAGE)
            .pages::<Definition>(),
        get("/v1/definitions/{kind}/{name}", SITE_READER, "One definition").answers::<Definition>(),
        Endpoint::new("delete", "/v1/definitions/{kind}/{name}", ADMIN, "Remove a definition")
            .answers::<ApplyResult>(),
        get(
            "/v1/imported/{system}",
            READER,
            "The configuration of another system that definitions were made of last: system is pulpdist",
        )
        .answers::<Imported>(),
        get(
            "/v1/assignments/{name}/effective",
            SITE_READER,
            "Every setting and rule of an assignment with its provenance",
        )
        .answers::<Effective>(),
        post("/v1/mandates", ADMIN, "Keep signed mandates, and hand them to agents")
            .takes::<NewMandates>(),
        post("/v1/assignments/{name}/undelete", ADMIN, "Bring something back from the trash")
            .takes::<UndeleteRequest>()
            .answers::<ApplyResult>(),
        post(
            "/v1/assignments/{name}/{verb}",
            SITE_MANAGER,
            "Enable or disable an assignment, or ask for a run: verb is enable, enable-dry-run, disable or sync",
        )
        .answers::<ApplyResult>(),
        post("/v1/trees/{tree}/secret", ADMIN, "Draw the keys of a private tree from another secret")
            .answers::<ApplyResult>(),
        post("/v1/trees/{tree}/publish", ADMIN, "Ask the publisher for a scan")
            .answers::<ApplyResult>(),
        post("/v1/trees/{tree}/approve", ADMIN, "Let a held manifest be published")
            .takes::<HoldDecision>(),
        post("/v1/trees/{tree}/reject", ADMIN, "Refuse a held manifest").takes::<HoldDecision>(),
    ]
}

fn publisher() -> Vec<Endpoint> {
    vec![
        get("/v1/publisher/orders", PUBLISHER, "What to publish, and whom to serve")
            .query(POLL)
            .answers::<PublisherOrders>(),
        Endpoint::new("put", "/v1/publisher/presence", PUBLISHER, "Say where it is reached")
            .takes::<Presence>(),
        post("/v1/trees/{tree}/statements", PUBLISHER, "Make a generation current")
            .takes::<Envelope>()
            .answers::<Accepted>(),
        post("/v1/trees/{tree}/offers", PUBLISHER, "Offer a pack")
            .takes::<Envelope>()
            .answers::<Accepted>(),
        post("/v1/trees/{tree}/holds", PUBLISHER, "Report a scan that a guard stopped")
            .takes::<HoldReport>(),
        Endpoint::new("delete", "/v1/trees/{tree}/holds", PUBLISHER, "Nothing is held any more"),
    ]
}

fn agent() -> Vec<Endpoint> {
    vec![
        get("/v1/agent/orders", AGENT, "Assignments, head and offers")
            .query(POLL)
            .answers::<AgentOrders>(),
        Endpoint::new("put", "/v1/agent/presence", AGENT, "Say where it relays")
            .takes::<Presence>(),
        post("/v1/agent/leases", AGENT, "Ask for a connection to an upstream that allows few")
            .takes::<LeaseRequest>()
            .answers::<LeaseAnswer>(),
        post("/v1/agent/runs/begun", AGENT, "Say that a run begins").takes::<RunBegun>(),
        post("/v1/agent/runs", AGENT, "Report a run").takes::<RunReport>(),
        get("/v1/trees/{tree}/statements/{from}", AGENT, "What leads from a manifest to now")
            .pages::<Envelope>(),
        get(
            "/v1/trees/{tree}/key",
            "agent of a site with a live grant; publisher of the tree",
            "The key of a private tree, for one generation",
        )
        .query(KEY)
        .answers::<TreeKey>(),
    ]
}

fn history() -> Vec<Endpoint> {
    vec![
        get("/v1/status", SITE_READER, "The whole network at a glance").answers::<NetworkStatus>(),
        get("/v1/generations", SITE_READER, "Generations, the newest first; holds before all")
            .query(GENERATIONS)
            .pages::<GenerationStatus>(),
        get("/v1/events", READER, "What happened, the oldest first").query(EVENTS).pages::<Event>(),
        get("/v1/runs", SITE_READER, "Runs, the newest first").query(RUNS).pages::<RunStatus>(),
        get("/v1/runs/{id}", SITE_READER, "One run").answers::<RunStatus>(),
        get("/v1/assignments/{name}/log", SITE_READER, "A run of an assignment with its log")
            .query(LOG)
            .answers::<RunStatus>(),
    ]
}

fn about() -> Vec<Endpoint> {
    vec![
        get("/v1/openapi.json", EVERYONE, "This document").text("application/json"),
        get("/healthz", NOBODY, "Whether the program runs").text("text/plain"),
        get("/readyz", NOBODY, "Whether it can answer").text("text/plain"),
        get("/metrics", READER, "OpenMetrics")
            .text("application/openmetrics-text")
            .with::<Problem>(),
    ]
}
