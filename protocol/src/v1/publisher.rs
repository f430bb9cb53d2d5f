//! What a publisher is told, and what it announces.
//!
//! - `GET /v1/publisher/orders?revision=N&wait=60s` → [`PublisherOrders`] (role publisher)
//! - `PUT /v1/publisher/presence` ← [`Presence`] → 204 (role publisher)
//! - `POST /v1/trees/{tree}/statements` ← [`Envelope`] → [`Accepted`], or problem
//!   `parent-mismatch` when another statement is current (role publisher of that tree)
//! - `POST /v1/trees/{tree}/offers` ← [`Envelope`] → [`Accepted`] (role publisher of that tree)
//! - `POST /v1/trees/{tree}/holds` ← [`HoldReport`] → 204 (role publisher of that tree)
//! - `DELETE /v1/trees/{tree}/holds` → 204: nothing is held any more (role publisher of that tree)

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    dsse::Envelope,
    filter::Level,
    generation::{Epoch, RestoreEpoch, Revision},
    manifest::{Entries, Entry},
    name::{IdentityName, SiteName, TreeName, UpstreamName},
    path::TreePath,
    schedule::Schedule,
    spec::{EncoderChoice, GuardSpec, Layout},
    symlinks::Symlinks,
    units::Span,
};

/// Everything that one publisher has to do and whom it may serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PublisherOrders {
    /// Number of this wanted state; ask for the next with it.
    pub revision: Revision,
    /// A lower revision is obeyed only under a higher restore epoch.
    pub restore_epoch: RestoreEpoch,
    /// The upstreams that this publisher serves.
    pub upstreams: Vec<UpstreamName>,
    /// The trees that it publishes.
    pub trees: Vec<TreeOrder>,
    /// Certificates that may read, and what. Whoever is not named is refused.
    pub readers: Vec<Reader>,
}

/// One tree that a publisher publishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TreeOrder {
    /// Which tree.
    pub tree: TreeName,
    /// Absolute directory at the publisher.
    pub path: String,
    /// How it is organized.
    pub layout: Layout,
    /// The wall.
    pub limit: Vec<String>,
    /// Which symbolic links are taken.
    #[serde(default)]
    pub symlinks: Symlinks,
    /// Which encoders its packs may use.
    pub encoders: EncoderChoice,
    /// How often it is scanned.
    pub interval: Span,
    /// When it is scanned, in the publisher's zone, where that is not an interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Whether a pack from nothing is published too.
    #[serde(default)]
    pub initial_pack: bool,
    /// Whether what is brought to further points is encrypted.
    #[serde(default, skip_serializing_if = "is_false")]
    pub private: bool,
    /// Grows when a private tree was given another secret: keys and names are asked for anew.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub secrets: u64,
    /// What stops a generation.
    pub guard: GuardSpec,
    /// The tree's epoch.
    pub epoch: Epoch,
    /// Names what the definitions say of what may be published of the tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Digest>,
    /// Whether the publisher goes on, by these orders, while the coordinator cannot be reached.
    #[serde(default, skip_serializing_if = "is_false")]
    pub autonomous: bool,
    /// Signed [`Statement`](crate::statement::Statement) that is current.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Envelope>,
    /// Manifests that agents hold, most wanted first (by sites and by the bytes that they keep):
    /// packs from these are worth making.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<HeldBase>,
    /// The filters through which sites hold the tree, each once, those of most sites first: packs
    /// keep apart what these tell apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Vec<Level>>,
    /// Grows when an admin asks for a scan now.
    #[serde(default)]
    pub publish_requests: u64,
    /// Digests of manifests that an admin approved although a guard stopped them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approved: Vec<Approval>,
    /// Digests of held manifests that an admin rejected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Digest>,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn is_false(value: &bool) -> bool {
    !value
}

/// An admin's word that a held manifest may be published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Approval {
    /// The manifest.
    pub manifest: Digest,
    /// Who approved it.
    pub by: IdentityName,
}

/// A manifest that agents hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeldBase {
    /// The manifest.
    pub manifest: Digest,
    /// How many agents hold it.
    pub agents: u64,
    /// Content bytes that they keep of it, all together: what a pack from it saves grows with that.
    #[serde(default)]
    pub bytes: u64,
}

/// One certificate that may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reader {
    /// Serial number of the certificate, lower-case hex without leading zeros.
    pub serial: String,
    /// Whose it is.
    pub identity: IdentityName,
    /// The identity's site.
    pub site: SiteName,
    /// Trees with a live grant and an assignment that is carried out.
    pub trees: Vec<TreeName>,
}

/// What a publisher says about itself when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Presence {
    /// `HOST:PORT` at which agents reach it.
    pub advertise: String,
    /// Its version.
    pub version: String,
    /// Version of its rsync, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rsync: Option<String>,
}

/// The coordinator took a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Accepted {
    /// The wanted state from which on it counts.
    pub revision: Revision,
}

/// A scan that a guard stopped. It has no generation number, and nothing downstream hears of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HoldReport {
    /// The manifest that was not published.
    pub manifest: Digest,
    /// Which guard, with figures, for an admin.
    pub reason: String,
    /// Files of the current generation that would be gone.
    pub removed_files: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// When it was found.
    pub since: Timestamp,
    /// What it would change besides.
    #[serde(default)]
    pub difference: Difference,
    /// Nothing could be seen whole, so there is no content that an admin could approve.
    #[serde(default)]
    pub unseen: bool,
}

/// How a held scan differs from what is held or announced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Difference {
    /// Files that the current generation has.
    pub of_files: u64,
    /// Their bytes.
    pub of_bytes: u64,
    /// Files that are new.
    pub added_files: u64,
    /// Files with other content.
    pub changed_files: u64,
    /// The first paths that would be gone.
    pub removed: Vec<TreePath>,
}

/// Most bytes of paths that a difference names.
const NAMED_BYTES: usize = 2048;
/// Most paths that a difference names.
const NAMED_PATHS: usize = 10;

impl Difference {
    /// Compares the files of two manifests, the second only as far as it is `kept`.
    pub fn between(
        before: &dyn Entries,
        after: &dyn Entries,
        kept: &dyn Fn(&Entry) -> bool,
    ) -> Result<Self, crate::manifest::Error> {
        let mut difference = Self::default();
        let is_file = |entry: &Entry| entry.is_file() && kept(entry);
        for entry in after.each() {
            let entry = entry?;
            if !is_file(&entry) {
                continue;
            }
            match before.find(&entry.path)?.filter(Entry::is_file) {
                None => difference.added_files += 1,
                Some(old) if old.digest() != entry.digest() => difference.changed_files += 1,
                Some(_) => {}
            }
        }
        for entry in before.each() {
            let entry = entry?;
            if !entry.is_file() {
                continue;
            }
            difference.of_files += 1;
            difference.of_bytes += entry.size();
            if !after.find(&entry.path)?.is_some_and(|entry| is_file(&entry)) {
                difference.name(&entry.path);
            }
        }
        Ok(difference)
    }

    /// Names a path that would be gone, while there is room for it.
    pub fn name(&mut self, path: &TreePath) {
        let named: usize = self.removed.iter().map(|path| path.as_bytes().len()).sum();
        if self.removed.len() < NAMED_PATHS && named + path.as_bytes().len() <= NAMED_BYTES {
            self.removed.push(path.clone());
        }
    }
}
