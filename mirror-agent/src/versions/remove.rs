//! Versions that the upstream no longer has.
//!
//! Everything that could make a full directory look like an empty one stands against a removal: a
//! listing that failed or shows nothing ends the run before this, a version that could not be
//! brought keeps all others, what only a rule hides is still there, and no run takes more than its
//! limit. What goes, goes to the trash.

use protocol::units::Threshold;

use super::{Directory, Error, Shown, now};

impl Directory<'_> {
    /// Moves them to the trash, the oldest first.
    pub(super) fn remove_old(&mut self) -> Result<(), Error> {
        if !self.tally.is_whole() {
            self.run.notice("no version is removed, because one could not be brought");
            return Ok(());
        }
        let local = self.local()?;
        let ours = |shown: &&Shown| self.names.may_be_removed(&shown.name);
        let versions = local.iter().filter(ours).count() as u64;
        let latest = if self.versions.sealed { self.latest_here()? } else { None };
        let mut going = Vec::new();
        for shown in local.iter().filter(ours) {
            if self.top.names.contains(&shown.name) || latest.as_ref() == Some(&shown.name) {
                continue;
            }
            if self.site.area().is_protected(&shown.name)? {
                let name = &shown.name;
                self.run.notice(format!("kept, because a PROTECTED file is in it: {name}"));
            } else {
                going.push(shown.clone());
            }
        }
        let allowed = allowed(self.versions.max_delete_versions, versions);
        if going.len() as u64 > allowed {
            self.tally.withhold(format!(
                "{} of {versions} versions are gone at the upstream, more than max-delete-versions allows in one run ({allowed}); none was removed, the first is {}",
                going.len(),
                going[0].name
            ));
            return Ok(());
        }
        for shown in going {
            if self.run.is_dry() {
                self.run.foresee_delete(shown.name.to_string());
            } else if self.site.area().remove_unit(&shown.name, now())? {
                let name = &shown.name;
                self.run.notice(format!(
                    "moved to the trash, as the upstream has it no longer: {name}"
                ));
            } else {
                continue;
            }
            self.tally.remove();
        }
        Ok(())
    }
}

/// How many of so many versions one run may remove: of few, one, unless none is allowed at all.
fn allowed(limit: Threshold, versions: u64) -> u64 {
    match limit {
        Threshold::Percent(0) | Threshold::Count(0) => 0,
        limit => limit.of(versions).max(1),
    }
}
