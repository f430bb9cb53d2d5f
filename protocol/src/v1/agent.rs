//! What an agent is told, and what it reports.
//!
//! - `GET /v1/agent/orders?revision=N&wait=60s` → [`AgentOrders`] (role agent; its own only)
//! - `POST /v1/assignments/{name}/undelete` ← [`UndeleteRequest`] → `ApplyResult` (role admin)
//! - `PUT /v1/agent/presence` ← [`Presence`](super::publisher::Presence) → 204 (role agent; one that
//!   relays says where it is reached)
//! - `POST /v1/agent/leases` ← [`LeaseRequest`] → [`LeaseAnswer`] (role agent; for its own assignments)
//! - `POST /v1/agent/runs/begun` ← [`RunBegun`] → 204 (role agent; told once, and lost with the connection)
//! - `POST /v1/agent/runs` ← [`RunReport`] → 204 (role agent; idempotent by run id)

mod report;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::report::{
    Changes, Checked, EncoderReport, Foreseen, MAX_LOG, NotTaken, PointReport, RunKind, RunReport,
    RunResult, SyncStats, WayReport,
};
use super::publisher::{Approval, Reader};
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
    symlinks::Symlinks,
    units::{Span, Threshold},
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
    /// Certificates that this agent serves as their site's relay, and with which trees. Whoever is
    /// not named is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readers: Vec<Reader>,
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
    /// Whether all of its runs are dry runs: nothing of it is changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run_only: bool,
    /// The tree's limit and the merged rules, in order, each level with its origin.
    pub filter: Vec<Level>,
    /// Where the path is a directory of versions: how they are chosen and kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions: Option<VersionsOrder>,
    /// Which symbolic links it keeps.
    #[serde(default)]
    pub symlinks: Symlinks,
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
    /// What admins want back from the trash, and no report has answered yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undelete: Vec<UndeleteOrder>,
}

/// Brings back what lies in an assignment's trash: once, however often it is ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UndeleteOrder {
    /// Names the wish; the report of the run repeats it.
    pub id: Uuid,
    /// What is wanted back, and where from.
    #[serde(flatten)]
    pub what: UndeleteRequest,
}

/// What is wanted back from an assignment's trash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UndeleteRequest {
    /// A file, or a directory with all that is in it; everything where none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<TreePath>,
    /// One batch, as `mirror-agent trash` names it; where none is named, each that has the path,
    /// the newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// How the versions in a directory of versions are chosen and kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VersionsOrder {
    /// Whether a version never changes once it is finished.
    pub sealed: bool,
    /// Pattern for their names.
    pub listing_pattern: String,
    /// Rules for their names, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listing_filter: Vec<String>,
    /// Names that are none, after the rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listing_exclude: Vec<String>,
    /// A link to the version that was completed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_link: Option<String>,
    /// The file in a sealed version that says whether it is finished.
    pub status_file: String,
    /// What it says of a finished version.
    pub finished: String,
    /// Only the newest finished version is fetched.
    #[serde(default)]
    pub sync_latest_only: bool,
    /// Versions that the upstream no longer has are removed.
    #[serde(default)]
    pub delete_old_versions: bool,
    /// Most versions that one run may remove.
    pub max_delete_versions: Threshold,
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
    /// Agents of the site's relay, which are asked before all points.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relays: Vec<Relay>,
    /// Whether what lies at points besides the origin is encrypted ([`keys`](super::keys)).
    #[serde(default, skip_serializing_if = "is_false")]
    pub private: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// An agent that serves others with what its publishers publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Relay {
    /// Its identity, expected in its server certificate.
    pub agent: IdentityName,
    /// `HOST:PORT`.
    pub address: String,
}

/// How a stock rsync daemon is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RsyncdOrigin {
    /// Host name or address.
    pub host: String,
    /// Port.
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
    /// With what, where that is ssh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<SshAccess>,
    /// Most connections of the whole network at a time: one is made only under a lease of the
    /// coordinator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
}

/// What an agent needs to reach a stock rsync daemon through ssh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SshAccess {
    /// File with the private key, on the agent's host.
    pub key_file: String,
    /// The only host key that is accepted: `TYPE BASE64`.
    pub host_key: String,
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

/// A run that begins to fetch or to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunBegun {
    /// The id that its report will have.
    pub id: Uuid,
    /// Which assignment.
    pub assignment: AssignmentName,
    /// When it began.
    pub started: Timestamp,
    /// The generation that it is to bring; none of a stock rsync server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Version>,
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
