//! What an agent is told, and what it reports.
//!
//! - `GET /v1/agent/orders?revision=N&wait=60s` → [`AgentOrders`] (role agent; its own only)
//! - `POST /v1/agent/leases` ← [`LeaseRequest`] → [`LeaseAnswer`] (role agent; for its own assignments)
//! - `POST /v1/agent/runs` ← [`RunReport`] → 204 (role agent; idempotent by run id)

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::publisher::{Approval, HoldReport};
use crate::{
    dsse::Envelope,
    filter::Level,
    generation::{RestoreEpoch, Revision, RootNumber, Version},
    name::{IdentityName, SiteName},
    path::TreePath,
    point::PointRef,
    schedule::Schedule,
    spec::{
        AssignmentName, BandwidthWindow, Budget, GuardSpec, OnEnd, OnExclude, Rate, Switch,
        Transport,
    },
    transfer::{Encoder, NoDelta, Way},
    units::Span,
};

/// Everything that one agent has to do: its assignments, the head and the offers, in one answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentOrders {
    /// Number of this wanted state; ask for the next with it.
    pub revision: Revision,
    /// A lower revision is obeyed only under a higher restore epoch.
    pub restore_epoch: RestoreEpoch,
    /// Whom the orders are for.
    pub agent: IdentityName,
    /// The agent's site.
    pub site: SiteName,
    /// The newest root document; whoever knows an older one asks for those after it first.
    pub root: RootNumber,
    /// Signed [`Head`](crate::statement::Head) over the trees of these assignments.
    pub head: Envelope,
    /// Rate of the site outside of all windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_rate: Option<Rate>,
    /// Windows of the site with a rate; the first that covers a time holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bandwidth: Vec<BandwidthWindow>,
    /// Most bytes that the site may receive in a calendar month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// Zone of the site's windows, months and schedules; the agent's own where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// Agents of the site that share its rates and its budget, each an equal part.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub sharers: u32,
    /// The assignments, enabled or not. One that is no longer named here has ended.
    pub assignments: Vec<AssignmentOrder>,
}

fn one() -> u32 {
    1
}

fn is_one(value: &u32) -> bool {
    *value == 1
}

/// One assignment, with every setting merged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AssignmentOrder {
    /// `TREE@SITE`.
    pub name: AssignmentName,
    /// Where it is published, below the agent's publish directory (the site's prefix included).
    pub path: TreePath,
    /// Why it is not carried out, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
    /// The tree's limit and the merged rules, in order, each level with its origin.
    pub filter: Vec<Level>,
    /// Where the tree comes from.
    pub origin: Origin,
    /// Other stock rsync servers that have the same tree, asked in this order while the origin and
    /// those before them cannot be had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallback: Vec<RsyncdOrigin>,
    /// What it should hold; absent for a stock rsync upstream and before the first generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// How often a stock rsync server is asked.
    pub interval: Span,
    /// When a stock rsync server is asked, where that is not an interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Runs that are due begin up to so much later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub splay: Option<Span>,
    /// The highest goes first.
    #[serde(default)]
    pub priority: i32,
    /// Files of a stock rsync server that tell whether anything changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quick_list: Vec<String>,
    /// Grows when an admin asks for a run now.
    #[serde(default)]
    pub sync_requests: u64,
    /// What stops a switch.
    pub guard: GuardSpec,
    /// Digests of what an agent's guard stopped and an admin approved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approved: Vec<Approval>,
    /// Files that the filter newly leaves out.
    pub on_exclude: OnExclude,
    /// Files of an assignment that ended.
    pub on_end: OnEnd,
    /// How generations are switched.
    pub switch: Switch,
    /// Group of the published files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Changes to modes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chmod: Option<String>,
    /// How long a retired tree is left alone.
    pub linger: Span,
    /// How long removed paths stay readable.
    pub keep_withdrawn: Span,
}

/// Why an assignment is not carried out. Its files stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Stopped {
    /// An admin disabled it.
    Disabled,
    /// The site has no live grant for the tree.
    NoGrant,
}

/// Where a tree comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Origin {
    /// An upstream that runs our publisher.
    Publisher(PublisherOrigin),
    /// A stock rsync daemon.
    Rsyncd(RsyncdOrigin),
}

/// How a publisher is reached. Which key it signs with, the root document says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PublisherOrigin {
    /// The publisher's identity, expected in its server certificate.
    pub publisher: IdentityName,
    /// `HOST:PORT` for HTTPS and rsync; absent until the publisher announced itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Places of the same objects, in the order in which they are preferred; the origin comes last
    /// where it is not named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<PointRef>,
}

/// How a stock rsync daemon is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RsyncdOrigin {
    /// Host name or address.
    pub host: String,
    /// Port, 873 by default.
    pub port: u16,
    /// `MODULE` or `MODULE/PATH` of the tree.
    pub path: String,
    /// User, where the daemon asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// File with the password, on the agent's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
    /// How the connection is made.
    pub transport: Transport,
    /// Most connections of the whole network at a time: one is made only under a lease of the
    /// coordinator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
}

/// Asks for a connection to an upstream that allows only so many, prolongs it, or gives it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeaseRequest {
    /// Made by the agent; the same again prolongs.
    pub id: Uuid,
    /// For which assignment.
    pub assignment: AssignmentName,
    /// The connection has ended.
    #[serde(default)]
    pub release: bool,
}

/// Whether an agent may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeaseAnswer {
    /// Whether it may.
    pub granted: bool,
    /// How long the lease counts from when it was asked for; where it was not granted, how long to
    /// wait before asking again.
    pub span: Span,
}

/// The generation that an assignment should hold, and the packs that lead to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Target {
    /// Signed [`Statement`](crate::statement::Statement), named by the head.
    pub statement: Envelope,
    /// Signed [`Offer`](crate::statement::Offer)s, to the target and to what leads there.
    pub offers: Vec<Envelope>,
}

/// Longest log that goes with a report, in bytes.
pub const MAX_LOG: usize = 64 << 10;

/// What one run did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunReport {
    /// Made by the agent; reporting a run again changes nothing.
    pub id: Uuid,
    /// `TREE@SITE`.
    pub assignment: AssignmentName,
    /// What kind of run.
    pub kind: RunKind,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// How it ended.
    pub result: RunResult,
    /// What the assignment held before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Version>,
    /// What it holds, or should have held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Version>,
    /// What the run changed in the published tree.
    pub changes: Changes,
    /// What came by which way; a way that brought nothing is not named.
    #[serde(default)]
    pub ways: Vec<WayReport>,
    /// What each publication point did that was asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<PointReport>,
    /// Results and bytes per encoder, of what came by pack.
    #[serde(default)]
    pub encoders: Vec<EncoderReport>,
    /// Why ways were not taken: each reason with the number of files it concerned.
    #[serde(default)]
    pub not_taken: Vec<NotTaken>,
    /// How the tree was switched and why so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch: Option<String>,
    /// What went wrong, for an admin; empty when nothing did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// Things that an admin should know (extras kept, PROTECTED paths, left-out entries).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
    /// What the agent's guard stopped; the run failed because of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldReport>,
    /// Signed [`Receipt`](crate::statement::Receipt), when a generation is durably held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Envelope>,
    /// The run's log, or its beginning and its end, at most [`MAX_LOG`] bytes; empty where none is
    /// at hand.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log: String,
}

/// Kinds of run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RunKind {
    /// Brings an assignment to its target.
    Sync,
    /// Compares the published files with the manifest.
    Verify,
    /// Takes over files that were there before.
    Adopt,
    /// A kind that this program does not know yet.
    #[serde(other)]
    Other,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RunResult {
    /// There was nothing to do.
    #[serde(rename = "SYNC_UP_TO_DATE")]
    UpToDate,
    /// The target is held.
    #[serde(rename = "SYNC_COMPLETED")]
    Completed,
    /// Some units switched, others did not.
    #[serde(rename = "SYNC_PARTIAL")]
    Partial,
    /// Nothing was switched.
    #[serde(rename = "SYNC_FAILED")]
    Failed,
    /// The assignment is not carried out.
    #[serde(rename = "SYNC_DISABLED")]
    Disabled,
    /// Dry run: there would be nothing to do.
    #[serde(rename = "SYNC_UP_TO_DATE_DRY_RUN")]
    UpToDateDryRun,
    /// Dry run: what would be done is in the report.
    #[serde(rename = "SYNC_COMPLETED_DRY_RUN")]
    CompletedDryRun,
    /// Dry run: it could not be found out.
    #[serde(rename = "SYNC_FAILED_DRY_RUN")]
    FailedDryRun,
}

/// Counts of what changed in the published tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Changes {
    /// Entries that are new.
    pub added: u64,
    /// Entries with other content, or of another kind.
    pub changed: u64,
    /// Entries with another mode or time only.
    pub attributes: u64,
    /// Entries that are gone.
    pub deleted: u64,
    /// Content bytes of added and changed files.
    pub bytes: u64,
    /// What rsync would be expected to move for those: an estimate.
    pub rsync_bytes: u64,
}

/// What came by one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WayReport {
    /// Which way.
    pub way: Way,
    /// From which point: `origin`, a base URL, or a host.
    pub point: String,
    /// Files that it completed.
    pub files: u64,
    /// Content bytes of those files.
    pub content_bytes: u64,
    /// Bytes received on the wire.
    pub received_bytes: u64,
    /// Bytes sent on the wire.
    pub sent_bytes: u64,
    /// How long it took.
    pub milliseconds: u64,
}

/// What one publication point did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PointReport {
    /// Which point: `origin`, or a base URL.
    pub point: String,
    /// How often it was asked.
    pub requests: u64,
    /// Bytes of bodies that came from it, good and bad.
    pub received_bytes: u64,
    /// Requests that it gave nothing for, or not everything.
    #[serde(default)]
    pub failed: u64,
    /// Requests that it answered with something else than was signed. What it gave was thrown
    /// away and asked for elsewhere.
    #[serde(default)]
    pub wrong: u64,
    /// What was seen last of that, for an admin.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What came by one encoder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EncoderReport {
    /// Which encoder.
    pub encoder: Encoder,
    /// Files that it completed.
    pub files: u64,
    /// Content bytes of those files.
    pub content_bytes: u64,
    /// Stored bytes of their payload.
    pub payload_bytes: u64,
}

/// Why a way was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NotTaken {
    /// Which way.
    pub way: Way,
    /// Why not.
    pub reason: NoDelta,
    /// For how many files.
    pub files: u64,
    /// What exactly was seen, for an admin.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}
