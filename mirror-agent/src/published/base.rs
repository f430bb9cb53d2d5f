//! What a run starts from: what is there, as it was applied or as it was found.

use std::sync::Arc;

use jiff::Timestamp;
use protocol::{
    digest::Digest,
    filter::Filter,
    manifest::{self, Entries, StoredManifest},
    path::TreePath,
    v1::agent::{AssignmentOrder, RunKind},
};
use tokio::task::block_in_place;

use crate::{
    agent::Agent,
    apply::{self, Applied, Rules, Site},
    fetch::{kept::KeptManifest, manifest::Error as Unkept},
    removal::{Change, Removals},
    report::Run,
    spool::ScanRecords,
    versions::within,
};

/// What a run starts from. `M` says where its manifest is kept.
pub(crate) struct Base<M = KeptManifest> {
    /// The manifest of what is there: as it was applied, or as it was found.
    pub(crate) manifest: M,
    /// Its digest, if it is that of an announced generation.
    pub(crate) digest: Option<Digest>,
    /// Through which rules it is held; `None` where it was found.
    pub(crate) rules: Option<Rules>,
    /// Whether files were found that nobody of us put there.
    pub(crate) adopted: bool,
}

impl Base {
    /// What lies at a site, its manifest on the disk.
    pub(crate) fn find(
        agent: &Agent,
        site: &Site,
        applied: Option<Applied>,
        rules: &Rules,
        run: &Run,
    ) -> Result<Self, apply::Error> {
        let kept = |held: &Applied| agent.manifests.get_for(&held.manifest, &held.rules.filter);
        Self::find_by(kept, site, applied, rules, run)
    }
}

impl Base {
    /// The part of the tree's content, from 0 to 1, that these rules keep; all of it where nothing
    /// is known of the tree yet.
    pub(super) fn share(&self, rules: &Rules) -> Result<f64, apply::Error> {
        if self.digest.is_none() || rules.filter.is_all() {
            return Ok(1.0);
        }
        Ok(match self.manifest.whole_sums()?.1 {
            0 => 1.0,
            all => rules.sums(&self.manifest)?.1 as f64 / all as f64,
        })
    }

    /// Whether only what these rules keep has to be known of what comes next: nothing is held that
    /// was seen through others, so that a filter which changed cannot hide what it leaves out.
    fn allows_parts(&self, rules: &Rules) -> bool {
        let is_new = self.digest.is_none() && self.manifest.count() == 0 && !self.adopted;
        let is_same = |held: &Rules| held.filter == rules.filter && held.versions().is_none();
        let is_tree = rules.versions().is_none() && rules.version().is_none();
        let is_followed = self.rules.as_ref().map_or(is_new, is_same);
        !rules.filter.is_all() && is_tree && is_followed
    }

    /// What a chain of packs is followed from, and with which filter in parts. `None` where what is
    /// held was seen through another filter, so that all of what comes next has to be fetched.
    pub(super) fn start<'r>(
        &self,
        rules: &'r Rules,
    ) -> Option<(&KeptManifest, Option<&'r Filter>)> {
        let filter = self.allows_parts(rules).then_some(&rules.filter);
        match &self.manifest {
            KeptManifest::Part(_) if filter.is_none() || !self.manifest.serves(&rules.filter) => {
                None
            }
            kept => Some((kept, filter)),
        }
    }
}

impl<M: Entries + From<StoredManifest>> Base<M> {
    /// The same, with the manifest as `kept` gives it.
    pub(crate) fn find_by(
        kept: impl FnOnce(&Applied) -> Option<M>,
        site: &Site,
        applied: Option<Applied>,
        rules: &Rules,
        run: &Run,
    ) -> Result<Self, apply::Error> {
        if let Some(applied) = &applied
            && let Some(manifest) = kept(applied)
        {
            let digest = Some(applied.manifest);
            let rules = Some(applied.rules.clone());
            return Ok(Self { manifest, digest, rules, adopted: false });
        }
        if !site.is_published()? {
            let manifest = StoredManifest::empty().into();
            return Ok(Self { manifest, digest: None, rules: None, adopted: false });
        }
        if applied.is_none() {
            run.set_kind(RunKind::Adopt);
            let manifest = StoredManifest::empty().into();
            return Ok(Self { manifest, digest: None, rules: None, adopted: true });
        }
        let keep = |path: &TreePath, is_dir: bool| rules.decides(path, is_dir);
        let manifest = read(site, &keep, run)?.0.into();
        Ok(Self { manifest, digest: None, rules: None, adopted: false })
    }

    /// Takes over what was found, once it is known what is wanted.
    pub(crate) fn adopt(
        &mut self,
        site: &mut Site,
        want: &Arc<impl Entries + 'static>,
        rules: &Rules,
        records: &ScanRecords,
        run: &Run,
    ) -> Result<(), apply::Error> {
        if !self.adopted {
            return self.narrow(site, want, rules);
        }
        let now = Timestamp::now();
        let (have, adopted) =
            block_in_place(|| site.adopt(want, rules, records, run.progress(), now))?;
        self.manifest = have.into();
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

    /// Leaves what was found and is not wanted out of the comparison: it is not ours to remove.
    fn narrow(
        &mut self,
        site: &Site,
        want: &dyn Entries,
        rules: &Rules,
    ) -> Result<(), apply::Error> {
        if self.rules.is_some() || self.manifest.count() == 0 {
            return Ok(());
        }
        let narrowed = self.narrowed(site, want, rules)?;
        self.manifest = narrowed.into();
        Ok(())
    }

    fn narrowed(
        &self,
        site: &Site,
        want: &dyn Entries,
        rules: &Rules,
    ) -> Result<StoredManifest, apply::Error> {
        let mut kept = site.spool()?.writer();
        for entry in self.manifest.each() {
            let entry = entry?;
            let wanted = want.find(&entry.path)?;
            if wanted.is_some_and(|wanted| rules.keeps(&entry.path, wanted.is_dir())) {
                match kept.push(&entry) {
                    // Parents of wanted paths are wanted, but one may be no directory here.
                    Err(Unkept::Manifest(manifest::Error::NoParent { .. })) => {
                        return Ok(StoredManifest::empty());
                    }
                    other => other?,
                }
            }
        }
        Ok(kept.finish()?)
    }
}

impl<M: Entries> Base<M> {
    /// What a run takes away from here, and what it leaves.
    pub(crate) fn removals(
        &self,
        want: &dyn Entries,
        rules: &Rules,
        signed: bool,
        order: &AssignmentOrder,
    ) -> Result<Removals, apply::Error> {
        let all;
        // Rules are written for the whole tree, so a version is looked at as it lies in it.
        let (have, want): (&dyn Entries, &dyn Entries) = match rules.version() {
            None => (&self.manifest, want),
            Some(version) => {
                all = (within(&self.manifest, version), within(want, version));
                (&all.0, &all.1)
            }
        };
        let change = Change {
            have,
            have_filter: self.rules.as_ref().map(|rules| &rules.filter),
            want,
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
}

/// Reads and digests what lies at the published path.
pub(crate) fn read(
    site: &Site,
    keep: filetree::scan::Keep<'_>,
    run: &Run,
) -> Result<(StoredManifest, ScanRecords), apply::Error> {
    run.progress().phase("scan", "bytes", 0);
    let path = site.live.display();
    tracing::info!(assignment = %run.assignment(), %path, "reading what lies there");
    block_in_place(|| site.scan(keep, run.progress(), Timestamp::now()))
}
