//! Reads a directory of versions, and repairs each version by itself.

use std::sync::Arc;

use filetree::area::{Damage, Finding};
use protocol::{
    manifest::Entries,
    path::TreePath,
    v1::agent::{AssignmentOrder, Checked, RunResult},
};
use tokio::task::block_in_place;

use super::{Done, Error, Look, MAX_NAMED, Repair, count, scrub, take_extras};
use crate::{
    agent::Agent,
    apply::{self, Applied, Site},
    fetch::kept::KeptManifest,
    report::Run,
};

/// Looks at each version, whole, and repairs it as the order allows. One that cannot be repaired
/// keeps no other waiting.
pub(super) async fn verify(
    agent: &Agent,
    site: &Site,
    order: Option<&AssignmentOrder>,
    whole: &Applied,
    look: &Look<'_>,
    run: &Run,
) -> Result<Done, Error> {
    let mut checked = Checked::default();
    let mut damaged = Vec::new();
    let mut error = None;
    let mut has_changed = false;
    let most_bytes = if look.most_bytes == 0 { 0 } else { u64::MAX };
    let announced = agent.manifests.get(&whole.manifest);
    for version in site.versions_held()? {
        // Found before and not repaired: it is looked at again under its name in the version.
        let inside = |path: &&TreePath| path.is_inside(&version);
        let below = |path: &TreePath| path.as_bytes()[version.as_bytes().len() + 1..].to_vec();
        let suspects = look.suspects.iter().filter(inside).map(below);
        let suspects: Vec<_> = suspects.filter_map(|path| TreePath::parse(&path).ok()).collect();
        let all = Look { from: None, most_bytes, suspects: &suspects, ..*look };
        let mut unit = site.version(&version)?;
        let applied = unit.applied()?.ok_or(Error::NothingHeld)?;
        let have = agent.manifests.get(&applied.manifest).ok_or(Error::NoManifest)?;
        let have = Arc::new(KeptManifest::Whole(have));
        let mut report = block_in_place(|| scrub(&unit, &have, &applied, &all, run))?;
        report.findings.retain(|finding| !is_status_file(finding, whole));
        checked.files += report.read_files;
        checked.bytes += report.read_bytes;
        count(&report.findings, &mut checked);
        let named = |path: &TreePath| version.child(path.as_bytes()).unwrap_or(path.clone());
        for (n, Finding { path, damage }) in report.findings.iter().enumerate() {
            if damaged.len() + n < MAX_NAMED {
                run.notice(format!("{} {damage}", named(path)));
            }
        }
        if report.findings.is_empty() {
            continue;
        }
        let repaired = match look.repairs(order) {
            None => None,
            Some(order) => {
                let (extras, broken) = take_extras(&mut unit, &report.findings)?;
                checked.trashed += extras;
                let repair = Repair {
                    agent,
                    order,
                    run,
                    generation: (whole.version, whole.manifest),
                    have: &have,
                    applied: &applied,
                    within: Some((site, &version)),
                };
                let entry = announced.as_ref().map(|all| all.find(&version)).transpose();
                let dressed = match entry.map_err(apply::Error::from)?.flatten() {
                    Some(entry) => Some((whole.rules.mode_of_dir(entry.mode), entry.mtime)),
                    None => look_of(site, &version)?,
                };
                let mut done = repair.findings(&mut unit, &report.findings).await;
                if done.is_ok() {
                    done = dress(site, &version, dressed).map_err(Error::from);
                }
                checked.repaired += if done.is_ok() { broken } else { 0 };
                Some(done)
            }
        };
        match repaired {
            Some(Ok(())) => {
                has_changed = true;
                continue;
            }
            Some(Err(failed)) => error = error.or(Some(failed)),
            None => {}
        }
        damaged.extend(report.findings.iter().map(|finding| named(&finding.path)));
    }
    let (result, left) = match damaged.first().cloned() {
        None if has_changed => (RunResult::Completed, None),
        None => (RunResult::UpToDate, None),
        Some(first) => {
            let count = damaged.len();
            let error = error.unwrap_or(Error::Differs { count, first });
            (RunResult::Failed, Some((damaged, error)))
        }
    };
    Ok(Done { result, checked, next: None, left })
}

/// Mode and modification time of a version's own directory.
fn look_of(site: &Site, version: &TreePath) -> Result<Option<(u32, i64)>, apply::Error> {
    let Some(directory) = site.area().directory()? else { return Ok(None) };
    let meta = directory.stat(version.name()).map_err(apply::Error::from)?;
    Ok(meta.map(|meta| (meta.mode, meta.mtime)))
}

/// Gives a version's own directory its mode and time, which a switch does not keep.
fn dress(site: &Site, version: &TreePath, wanted: Option<(u32, i64)>) -> Result<(), apply::Error> {
    site.area().gather_trash(version)?;
    if let Some((mode, mtime)) = wanted {
        site.area().dress_unit(version, mode, mtime)?;
    }
    Ok(())
}

/// What this agent itself writes into a version that is finished.
fn is_status_file(finding: &Finding, whole: &Applied) -> bool {
    let sealed = whole.rules.versions().filter(|versions| versions.sealed);
    finding.damage == Damage::Extra
        && sealed.is_some_and(|versions| finding.path.as_bytes() == versions.status_file.as_bytes())
}
