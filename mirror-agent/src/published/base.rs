//! What a run starts from: what is there, as it was applied or as it was found.

use std::{borrow::Cow, sync::Arc};

use filetree::scan::ScanRecord;
use jiff::Timestamp;
use protocol::{
    digest::Digest,
    manifest::Manifest,
    path::TreePath,
    v1::agent::{AssignmentOrder, RunKind},
};
use tokio::task::block_in_place;

use crate::{
    agent::Agent,
    apply::{self, Applied, Rules, Site},
    removal::{Change, Removals},
    report::Run,
    versions::within,
};

/// What a run starts from.
pub(crate) struct Base {
    /// The manifest of what is there: as it was applied, or as it was found.
    pub(crate) manifest: Manifest,
    /// Its digest, if it is that of an announced generation.
    pub(crate) digest: Option<Digest>,
    /// Through which rules it is held; `None` where it was found.
    pub(crate) rules: Option<Rules>,
    /// Whether files were found that nobody of us put there.
    pub(crate) adopted: bool,
}

impl Base {
    pub(crate) fn find(
        agent: &Agent,
        site: &Site,
        applied: Option<Applied>,
        rules: &Rules,
        run: &Run,
    ) -> Result<Self, apply::Error> {
        if let Some(applied) = &applied
            && let Some(manifest) = agent.manifests.get(&applied.manifest)
        {
            let digest = Some(applied.manifest);
            let rules = Some(applied.rules.clone());
            return Ok(Self { manifest, digest, rules, adopted: false });
        }
        if !site.is_published()? {
            let manifest = Manifest::empty();
            return Ok(Self { manifest, digest: None, rules: None, adopted: false });
        }
        if applied.is_none() {
            run.set_kind(RunKind::Adopt);
            let manifest = Manifest::empty();
            return Ok(Self { manifest, digest: None, rules: None, adopted: true });
        }
        let keep = |path: &TreePath, is_dir: bool| rules.decides(path, is_dir);
        let manifest = read(site, &keep, run)?.0;
        Ok(Self { manifest, digest: None, rules: None, adopted: false })
    }

    /// Takes over what was found, once it is known what is wanted.
    pub(crate) fn adopt(
        &mut self,
        site: &mut Site,
        want: &Arc<Manifest>,
        rules: &Rules,
        record: &ScanRecord,
        run: &Run,
    ) -> Result<(), apply::Error> {
        if !self.adopted {
            self.narrow(want, rules);
            return Ok(());
        }
        let now = Timestamp::now();
        let adopted = block_in_place(|| site.adopt(want, rules, record, run.progress(), now))?;
        self.manifest = adopted.have;
        if let Some(foreign) = &adopted.foreign {
            let filetree::area::ForeignFiles { entries, first, uid, command } = foreign;
            run.notice(format!(
                "{entries} entries belong to user {uid}, the first is {first}; to make them the agent's, run: {command}"
            ));
        }
        let locals = &adopted.locals;
        for path in &locals.held {
            run.notice(format!("kept, though the tree does not have it: {path}"));
        }
        for path in &locals.protected {
            run.notice(format!("not touched, because it holds a PROTECTED file: {path}"));
        }
        for path in &locals.excluded {
            run.notice(format!("kept, though the assignment leaves it out: {path}"));
        }
        Ok(())
    }

    /// What a run takes away from here, and what it leaves.
    pub(crate) fn removals(
        &self,
        want: &Manifest,
        rules: &Rules,
        signed: bool,
        order: &AssignmentOrder,
    ) -> Result<Removals, apply::Error> {
        // Rules are written for the whole tree, so a version is looked at as it lies in it.
        let (have, want) = match rules.version() {
            None => (Cow::Borrowed(&self.manifest), Cow::Borrowed(want)),
            Some(version) => {
                (Cow::Owned(within(&self.manifest, version)), Cow::Owned(within(want, version)))
            }
        };
        let change = Change {
            have: &have,
            have_filter: self.rules.as_ref().map(|rules| &rules.filter),
            want: &want,
            filter: &rules.filter,
            signed,
            on_exclude: order.on_exclude,
        };
        let removals = change.removals()?;
        Ok(match rules.version() {
            None => removals,
            Some(version) => removals.below(version),
        })
    }

    /// The part of the tree's content, from 0 to 1, that these rules keep; all of it where nothing
    /// is known of the tree yet.
    pub(super) fn share(&self, rules: &Rules) -> f64 {
        match (self.digest, self.manifest.content_bytes()) {
            (Some(_), all @ 1..) => rules.sums(&self.manifest).1 as f64 / all as f64,
            _ => 1.0,
        }
    }

    /// Leaves what was found and is not wanted out of the comparison: it is not ours to remove.
    fn narrow(&mut self, want: &Manifest, rules: &Rules) {
        if self.rules.is_some() {
            return;
        }
        let entries = self.manifest.entries().to_vec();
        let is_wanted =
            |path: &TreePath| want.get(path).is_some_and(|entry| rules.keeps(path, entry.is_dir()));
        let kept: Vec<_> = entries.into_iter().filter(|entry| is_wanted(&entry.path)).collect();
        // Parents of wanted paths are wanted, but one may be no directory here.
        self.manifest = Manifest::new(kept).unwrap_or_default();
    }
}

/// Reads and digests what lies at the published path.
pub(crate) fn read(
    site: &Site,
    keep: filetree::scan::Keep<'_>,
    run: &Run,
) -> Result<(Manifest, ScanRecord), apply::Error> {
    run.progress().phase("scan", "bytes", 0);
    let path = site.live.display();
    tracing::info!(assignment = %run.assignment(), %path, "reading what lies there");
    block_in_place(|| site.scan(keep, run.progress(), Timestamp::now()))
}
