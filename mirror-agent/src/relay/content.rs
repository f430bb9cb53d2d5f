//! Whole files that lie here already.

use std::fs::File;

use filetree::fs::Fs;
use protocol::{digest::Digest, manifest::Entry, path::TreePath, v1::agent::AssignmentOrder};

use crate::agent::Agent;

/// A published file, if it is the one that the manifest means. Reads the disk.
///
/// Length and time are compared, and not the bytes: whoever asked digests them anyway. Only what a
/// manifest of the tree names is ever opened, so what else lies at a published path is nobody's.
pub(super) fn open(
    agent: &Agent,
    order: &AssignmentOrder,
    manifest: &Digest,
    path: &TreePath,
) -> Option<(Entry, File)> {
    let record = agent.ledger.record(&order.name).ok()??;
    record.held.filter(|held| held.manifest == *manifest && !held.observed)?;
    let entry = entry(agent, manifest, path)?;
    let published = Fs::disk().open_root(&agent.config.publish()).ok()?;
    let file = published.open_dir(&record.path).ok()?.open_parent(path).ok()?;
    let file = file.open_file(path.name()).ok()?;
    let meta = file.meta().ok()?;
    let same = meta.size == entry.size() && meta.mtime == entry.mtime;
    Some((entry, file.into_std().filter(|_| same)?))
}

/// What a manifest that is kept here says of a file.
pub(super) fn entry(agent: &Agent, manifest: &Digest, path: &TreePath) -> Option<Entry> {
    agent.manifests.entry(manifest, path).filter(|entry| entry.digest().is_some())
}
