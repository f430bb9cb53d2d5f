//! Events: what an admin wants to hear of without asking.
//!
//! A run that fails every ten minutes is one event when it begins to fail and one when it succeeds
//! again: what goes on is shown by the status, and only what turns is told.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Counts up; of two events the later has the greater number.
    pub number: u64,
    /// The same wherever the event is told, however often.
    pub id: Uuid,
    /// When the coordinator learned of it.
    pub at: Timestamp,
    /// What happened.
    pub kind: EventKind,
    /// To what: `TREE@SITE`, `TREE` or `ROLE/NAME`. Events of one subject are told in their order.
    pub subject: String,
    /// In a sentence.
    pub text: String,
    /// Particulars by name, for programs; which there are depends on the kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

/// Kinds of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum EventKind {
    /// A run begins to fetch or to change.
    RunStarted,
    /// A run changed a published tree.
    RunFinished,
    /// An assignment began to fail.
    RunFailed,
    /// It succeeded again.
    RunRecovered,
    /// A tree has a new generation.
    GenerationPublished,
    /// A guard stopped a generation, or a step of one site.
    GenerationHeld,
    /// What a publisher had pointed to while it was alone is not taken into the history.
    GenerationRefused,
    /// An admin let it pass.
    HoldApproved,
    /// An admin refused it.
    HoldRejected,
    /// An agent or a publisher was not heard of for a time.
    IdentitySilent,
    /// It was heard of again.
    IdentityBack,
    /// An identity was revoked.
    IdentityRevoked,
    /// A certificate ends soon and was not renewed.
    CertificateEnding,
    /// It was renewed after all.
    CertificateRenewed,
    /// A certificate was used after its holder had gone on to a newer one.
    CloneSuspected,
    /// A kind that this program does not know yet.
    #[serde(other)]
    Other,
}

impl EventKind {
    /// Every kind that is told.
    pub const ALL: [Self; 15] = [
        Self::RunStarted,
        Self::RunFinished,
        Self::RunFailed,
        Self::RunRecovered,
        Self::GenerationPublished,
        Self::GenerationHeld,
        Self::GenerationRefused,
        Self::HoldApproved,
        Self::HoldRejected,
        Self::IdentitySilent,
        Self::IdentityBack,
        Self::IdentityRevoked,
        Self::CertificateEnding,
        Self::CertificateRenewed,
        Self::CloneSuspected,
    ];

    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RunStarted => "run-started",
            Self::RunFinished => "run-finished",
            Self::RunFailed => "run-failed",
            Self::RunRecovered => "run-recovered",
            Self::GenerationPublished => "generation-published",
            Self::GenerationHeld => "generation-held",
            Self::GenerationRefused => "generation-refused",
            Self::HoldApproved => "hold-approved",
            Self::HoldRejected => "hold-rejected",
            Self::IdentitySilent => "identity-silent",
            Self::IdentityBack => "identity-back",
            Self::IdentityRevoked => "identity-revoked",
            Self::CertificateEnding => "certificate-ending",
            Self::CertificateRenewed => "certificate-renewed",
            Self::CloneSuspected => "clone-suspected",
            Self::Other => "other",
        }
    }

    /// Whether an admin has something to do, or no longer has: what a webhook is told where its
    /// configuration names no kinds.
    pub const fn needs_attention(self) -> bool {
        !matches!(
            self,
            Self::RunStarted | Self::RunFinished | Self::GenerationPublished | Self::Other
        )
    }
}

impl std::fmt::Display for EventKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for EventKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| UnknownKind { text: text.to_owned() })
    }
}

/// A kind that there is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no kind of event {text:?}; there are {}", kinds())]
pub struct UnknownKind {
    text: String,
}

fn kinds() -> String {
    EventKind::ALL.map(EventKind::as_str).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_one_word_in_text_and_json() {
        for kind in EventKind::ALL {
            assert_eq!(kind.as_str().parse::<EventKind>().unwrap(), kind);
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        assert_eq!(serde_json::from_str::<EventKind>("\"new\"").unwrap(), EventKind::Other);
        let error = "run-failde".parse::<EventKind>().unwrap_err().to_string();
        assert!(error.contains("run-failed"), "{error}");
    }
}
