//! What an agent reports of its runs.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    dsse::Envelope,
    generation::Version,
    spec::AssignmentName,
    transfer::{Encoder, NoDelta, Way},
    v1::publisher::HoldReport,
};

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
    /// Sums over everything that was moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<SyncStats>,
    /// What a dry run found that would be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreseen: Option<Foreseen>,
    /// What went wrong, for an admin; empty when nothing did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// Things that an admin should know (extras kept, PROTECTED paths, left-out entries).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
    /// What the agent's guard stopped; the run failed because of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldReport>,
    /// What was read and compared, of a run that verifies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked: Option<Checked>,
    /// The wish that it answers, of a run that brought something back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undelete: Option<Uuid>,
    /// Signed [`Receipt`](crate::statement::Receipt), when a generation is durably held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Envelope>,
    /// The run's log, or its beginning and its end, at most [`MAX_LOG`] bytes; empty where none is
    /// at hand.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log: String,
}

/// What a run moved, all ways and all units together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SyncStats {
    /// Files that the assignment holds after the run.
    pub total_file_count: u64,
    /// Files whose content came.
    pub transferred_file_count: u64,
    /// Content bytes that the assignment holds after the run.
    pub total_bytes: u64,
    /// Content bytes of the files that came.
    pub transferred_bytes: u64,
    /// Content bytes that came over the wire.
    pub literal_bytes: u64,
    /// Content bytes that did not have to come: they were here, or compression spared them.
    pub matched_bytes: u64,
    /// Bytes sent on the wire.
    pub sent_bytes: u64,
    /// Bytes received on the wire.
    pub received_bytes: u64,
    /// Bytes per second, both directions together, while something was moved.
    pub transfer_bps: u64,
    /// Bytes of rsync's lists of files.
    pub listing_bytes: u64,
    /// Seconds that rsync servers took to make them.
    pub listing_creation_seconds: f64,
    /// Seconds that they took to come.
    pub listing_transfer_seconds: f64,
}

/// What a dry run found that would be done: paths below the assignment's, a bounded number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Foreseen {
    /// Files whose content would come, and links that would be made within a unit.
    pub would_transfer: Vec<String>,
    /// What would be removed.
    pub would_delete: Vec<String>,
    /// Links beside versions that would be made: `NAME -> TARGET`.
    pub would_link: Vec<String>,
    /// So many more that are not named.
    pub unnamed: u64,
}

impl RunKind {
    /// Whether such a run brings, or was to bring, a generation.
    pub const fn is_sync(self) -> bool {
        matches!(self, Self::Sync | Self::Adopt)
    }

    /// Whether it says how an assignment stands: what was only tidied up does not.
    pub const fn is_verdict(self) -> bool {
        !matches!(self, Self::Withdraw | Self::Undelete | Self::End)
    }
}

/// Kinds of run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RunKind {
    /// Brings an assignment to its target.
    Sync,
    /// Compares the published files with the manifest, and repairs them.
    Verify,
    /// Takes over files that were there before.
    Adopt,
    /// Takes away removed paths whose time to stay readable is up.
    Withdraw,
    /// Brings back what lies in the trash.
    Undelete,
    /// Moves what is published to the trash, because the assignment ended.
    End,
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
    /// Dry run: some units would be switched, of others it could not be found out.
    #[serde(rename = "SYNC_PARTIAL_DRY_RUN")]
    PartialDryRun,
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
    /// Entries that are gone, or stay readable only for the assignment's `keep-withdrawn`.
    pub deleted: u64,
    /// Content bytes of added and changed files.
    pub bytes: u64,
    /// What rsync would be expected to move for those: an estimate.
    pub rsync_bytes: u64,
}

/// What was read and compared with the manifest, and what was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Checked {
    /// Files that were read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files with other content of the right length.
    pub flipped: u64,
    /// Files of another length.
    pub cut: u64,
    /// Entries that are missing.
    pub missing: u64,
    /// Entries that cannot be read.
    pub unreadable: u64,
    /// Entries that do not belong there.
    pub extra: u64,
    /// Entries of another kind, or with another mode or time.
    pub attributes: u64,
    /// Entries that were repaired.
    pub repaired: u64,
    /// Entries that were moved to the trash.
    pub trashed: u64,
}

impl Checked {
    /// Adds what another part of the tree came to.
    pub fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.flipped += other.flipped;
        self.cut += other.cut;
        self.missing += other.missing;
        self.unreadable += other.unreadable;
        self.extra += other.extra;
        self.attributes += other.attributes;
        self.repaired += other.repaired;
        self.trashed += other.trashed;
    }

    /// Entries that were not as they should be.
    pub fn wrong(&self) -> u64 {
        self.flipped + self.cut + self.missing + self.unreadable + self.extra + self.attributes
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f24_results_have_pulpdists_names_and_disabled_has_no_suffix() {
        use RunResult as R;
        let table = [
            (R::UpToDate, "SYNC_UP_TO_DATE"),
            (R::Completed, "SYNC_COMPLETED"),
            (R::Partial, "SYNC_PARTIAL"),
            (R::Failed, "SYNC_FAILED"),
            (R::Disabled, "SYNC_DISABLED"),
            (R::UpToDateDryRun, "SYNC_UP_TO_DATE_DRY_RUN"),
            (R::CompletedDryRun, "SYNC_COMPLETED_DRY_RUN"),
            (R::PartialDryRun, "SYNC_PARTIAL_DRY_RUN"),
            (R::FailedDryRun, "SYNC_FAILED_DRY_RUN"),
        ];
        for (result, name) in table {
            assert_eq!(serde_json::to_value(result).unwrap(), name);
            assert_eq!(serde_json::from_value::<R>(name.into()).unwrap(), result);
        }
        assert!(serde_json::from_value::<R>("SYNC_DISABLED_DRY_RUN".into()).is_err());
    }
}
