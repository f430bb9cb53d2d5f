//! What admins want: the definitions of `mirrorctl apply`, one type per kind.
//!
//! A `*Spec` is written by admins and never by daemons; what daemons observe are the `*Status`
//! types of [`v1`](crate::v1). Unknown keys are errors, because a misspelled guard is no guard.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    name::{IdentityName, NetworkName, SiteName, SourceName, TreeName, UpstreamName},
    path::TreePath,
    point::PointRef,
    schedule::{Cron, Schedule, SyncHours},
    symlinks::Symlinks,
    units::{ByteSize, Span, Threshold},
};

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn enabled() -> bool {
    true
}

/// What holds for the whole network, where nothing closer says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NetworkSpec {
    /// The network's own name.
    pub name: NetworkName,
    /// Guard for sources and trees that set none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub guard: GuardSpec,
}

/// A server that trees come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UpstreamSpec {
    /// Its name.
    pub name: UpstreamName,
    /// What runs there.
    pub kind: UpstreamKind,
    /// `rsync://HOST[:PORT]/` of a stock daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Identity of the publisher; the upstream's own name by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publisher: Option<IdentityName>,
    /// User at a stock daemon that asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// File with the daemon's password, on the agent's host; never sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
    /// How a stock daemon is reached.
    #[serde(default, skip_serializing_if = "is_default")]
    pub transport: Transport,
    /// File with the private key for ssh, on the agent's host; never sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// The server's ssh host key, `TYPE BASE64`: no other is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// Most connections from this network at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Where agents read what the publisher publishes, in order; the publisher itself comes last
    /// where it is not named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<PointRef>,
}

/// What runs at an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum UpstreamKind {
    /// Our publisher.
    Publisher,
    /// Any stock rsync daemon.
    Rsyncd,
}

/// How a stock rsync daemon is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Transport {
    /// Unencrypted TCP.
    #[default]
    Plain,
    /// TLS, with a server certificate that the agent's system trusts.
    Tls,
    /// ssh, with a key of the agent's and a host key that the definition pins.
    Ssh,
}

impl Transport {
    /// The port where the URL names none.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Plain => 873,
            Self::Tls => 874,
            Self::Ssh => 22,
        }
    }
}

/// A group of trees under one path of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SourceSpec {
    /// Its name.
    pub name: SourceName,
    /// Where it lies.
    pub upstream: UpstreamName,
    /// Absolute directory at a publisher; `MODULE` or `MODULE/PATH` at a stock daemon.
    pub path: String,
    /// Patterns that every tree of the source leaves out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Guard for trees that set none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub guard: GuardSpec,
}

/// A tree as an admin defines it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TreeSpec {
    /// Its name.
    pub name: TreeName,
    /// The source that it belongs to.
    pub source: SourceName,
    /// Sources of other stock rsync upstreams that have the same tree, in the order in which they
    /// are asked while those before them cannot be reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallback: Vec<SourceName>,
    /// Below the source's path; the whole source by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<TreePath>,
    /// How its path is organized.
    #[serde(default, skip_serializing_if = "is_default")]
    pub layout: Layout,
    /// Which directories are its versions: a pattern for their names; all by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listing_pattern: Option<String>,
    /// Default rules for names of versions, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listing_filter: Vec<String>,
    /// Names that are no versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listing_exclude: Vec<String>,
    /// A symbolic link beside the versions, to the one that was completed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_link: Option<String>,
    /// The file in a sealed version that says whether it is finished; `STATUS` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_file: Option<String>,
    /// What that file says of a finished version; `FINISHED` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
    /// Only the newest finished version of a sealed tree is fetched.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sync_latest_only: bool,
    /// Versions that the upstream no longer has are removed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub delete_old_versions: bool,
    /// Most versions that one run may remove (50 % where nothing is set).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_delete_versions: Option<Threshold>,
    /// The wall: rsync rules for what never leaves the upstream.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limit: Vec<String>,
    /// Default rules for assignments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filter: Vec<String>,
    /// Default patterns to leave out, after the rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Which symbolic links it has; others are left out and reported.
    #[serde(default, skip_serializing_if = "is_default")]
    pub symlinks: Symlinks,
    /// Which encoders its packs may use.
    #[serde(default, skip_serializing_if = "is_default")]
    pub encoders: EncoderChoice,
    /// How often a publisher scans it, or an agent asks a stock daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Span>,
    /// Instead of an interval: when it is due, as a cron expression in the site's zone (at a
    /// publisher, in the publisher's own).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Cron>,
    /// Instead of an interval: due in every hour of the day that this divides; 0 is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_hours: Option<SyncHours>,
    /// Runs begin up to so much later, each site always by the same part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub splay: Option<Span>,
    /// Of several runs that are due at an agent, those of the highest priority go first; then
    /// those of the shortest period.
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: i32,
    /// Small files of a stock rsync upstream (paths, or patterns in the last component) that
    /// change with every change of the tree: while they stay as they are, it is not listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quick_list: Vec<String>,
    /// Also publish a pack from nothing, for first syncs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub initial_pack: bool,
    /// Where agents read this tree, instead of its upstream's points.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<PointRef>,
    /// What lies at publication points besides the publisher is encrypted, and named so that it tells
    /// nothing.
    #[serde(default, skip_serializing_if = "is_default")]
    pub private: bool,
    /// While no valid head can be had, agents follow newer statements that they find at the
    /// publication points.
    #[serde(default, skip_serializing_if = "is_default")]
    pub autonomous: bool,
    /// What stops a generation.
    #[serde(default, skip_serializing_if = "is_default")]
    pub guard: GuardSpec,
}

impl TreeSpec {
    /// When it is due, where that is not an interval.
    pub fn when(&self) -> Option<Schedule> {
        let cron = self.schedule.clone().map(Schedule::Cron);
        cron.or_else(|| self.sync_hours.map(Schedule::SyncHours))
    }
}

/// How a tree's path is organized.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Layout {
    /// One tree, updated as a whole.
    #[default]
    Simple,
    /// A directory of versions, each of which may still change.
    Versioned,
    /// A directory of versions that never change once finished.
    Sealed,
}

/// Which encoders a tree's packs may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum EncoderChoice {
    /// Whichever gives the fewest bytes.
    #[default]
    Auto,
    /// Deltas in librsync's format in every pack.
    Rsync,
    /// Whole content only.
    Whole,
}

/// When a generation is stopped for an admin to look at. Unset parts are inherited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GuardSpec {
    /// Most files that one step may remove (10 % where nothing is set).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_delete_files: Option<Threshold>,
    /// Most content bytes that one step may remove (25 % where nothing is set).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_delete_bytes: Option<Threshold>,
    /// Paths without which the tree is not whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub must_contain: Vec<TreePath>,
}

/// A place that hosts mirrors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SiteSpec {
    /// Its name.
    pub name: SiteName,
    /// Put before the path of each of its assignments; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// Patterns that the site never keeps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Names that are no versions here, in trees of several versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listing_exclude: Vec<String>,
    /// Zone of its schedules; the agent's own by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// Windows with a rate; the first that matches holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bandwidth: Vec<BandwidthWindow>,
    /// Rate outside of all windows; unlimited by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_rate: Option<Rate>,
    /// Most bytes that the site may receive in a calendar month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// The site whose agents its own ask first for what publishers publish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<SiteName>,
}

/// A rate during certain hours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BandwidthWindow {
    /// For example `mon-fri 08-18`.
    pub when: String,
    /// Bytes per second, or `unlimited`.
    pub rate: Rate,
}

/// Bytes per second, written `2MiB/s` or `unlimited`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate(pub Option<ByteSize>);

/// Bytes per calendar month, written `500GiB/month`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Budget(pub ByteSize);

/// Permission: this site may hold this tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GrantSpec {
    /// Which site.
    pub site: SiteName,
    /// Which tree.
    pub tree: TreeName,
    /// Until when; for good by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<jiff::Timestamp>,
}

/// Order: this site holds this tree at this path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AssignmentSpec {
    /// Which site.
    pub site: SiteName,
    /// Which tree.
    pub tree: TreeName,
    /// Below the site's prefix; the tree's name by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<TreePath>,
    /// Which agent of the site; needed where it has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<IdentityName>,
    /// Rules before the tree's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filter: Vec<String>,
    /// Patterns to leave out, after all rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Rules for names of versions, before the tree's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listing_filter: Vec<String>,
    /// Names that are no versions here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listing_exclude: Vec<String>,
    /// Instead of the tree's `sync-latest-only`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_latest_only: Option<bool>,
    /// Instead of the tree's `delete-old-versions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_old_versions: Option<bool>,
    /// What happens to files that the filter newly leaves out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_exclude: OnExclude,
    /// Group of the published files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Changes modes, in rsync's syntax, for example `D755,F644`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chmod: Option<String>,
    /// How a new generation takes the old one's place.
    #[serde(default, skip_serializing_if = "is_default")]
    pub switch: Switch,
    /// How long a retired tree is left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linger: Option<Span>,
    /// How long removed paths stay readable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_withdrawn: Option<Span>,
    /// What becomes of the files when the assignment ends.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_end: OnEnd,
    /// Whether it is carried out.
    #[serde(default = "enabled")]
    pub enabled: bool,
    /// Whether all of its runs are dry runs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dry_run_only: bool,
}

/// How a new generation takes the old one's place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Switch {
    /// By exchange where that is possible, else in place.
    #[default]
    Auto,
    /// File by file, in the published directory.
    InPlace,
    /// By a symbolic link.
    Symlink,
}

/// What happens to files that a changed filter leaves out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnExclude {
    /// They stay as they are.
    #[default]
    Keep,
    /// They are removed, under the delete guard.
    Remove,
}

/// What becomes of the files when an assignment ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnEnd {
    /// They stay published, untouched.
    #[default]
    Keep,
    /// They go to the trash.
    Trash,
}

/// Names an assignment: `TREE@SITE`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssignmentName {
    /// Which tree.
    pub tree: TreeName,
    /// Which site.
    pub site: SiteName,
}

/// Text that is not `TREE@SITE`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} does not name an assignment: write TREE@SITE, for example fedora@lisbon")]
pub struct InvalidAssignmentName(String);

impl AssignmentSpec {
    /// The name by which the assignment is known.
    pub fn name(&self) -> AssignmentName {
        AssignmentName { tree: self.tree.clone(), site: self.site.clone() }
    }
}

impl FromStr for AssignmentName {
    type Err = InvalidAssignmentName;

    fn from_str(text: &str) -> Result<Self, InvalidAssignmentName> {
        let invalid = || InvalidAssignmentName(text.to_owned());
        let (tree, site) = text.split_once('@').ok_or_else(invalid)?;
        Ok(Self {
            tree: tree.parse().map_err(|_| invalid())?,
            site: site.parse().map_err(|_| invalid())?,
        })
    }
}

impl fmt::Display for AssignmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.tree, self.site)
    }
}

impl Serialize for AssignmentName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AssignmentName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(size) => serializer.collect_str(&format_args!("{size}/s")),
            None => serializer.serialize_str("unlimited"),
        }
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "unlimited" {
            return Ok(Self(None));
        }
        let size = text.strip_suffix("/s").and_then(|size| size.parse().ok());
        size.map(|size| Self(Some(size))).ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "{text:?} is not a rate such as 2MiB/s or unlimited"
            ))
        })
    }
}

impl Serialize for Budget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}/month", self.0))
    }
}

impl<'de> Deserialize<'de> for Budget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let size = text.strip_suffix("/month").and_then(|size| size.parse().ok());
        size.map(Self).ok_or_else(|| {
            serde::de::Error::custom(format_args!("{text:?} is not a budget such as 500GiB/month"))
        })
    }
}
