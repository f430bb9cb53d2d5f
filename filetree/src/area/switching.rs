//! From a plan whose content is staged to the generation that readers see.
//!
//! Several trees can be switched together: each is brought up and made durable first, and only when
//! none can fail any more for want of anything is one exchanged after the other. What a crash leaves
//! in between is found by each area by itself.

use super::{Area, Error, Target};
use crate::{
    plan::Plan,
    record::PathList,
    switch::{Mode, SwitchOptions, SwitchReport, exchange, in_place, sweep},
};

/// A switch of one area.
#[derive(Debug)]
pub struct Switching<'a> {
    /// What is switched.
    pub area: &'a mut Area,
    /// The way from what is there to what is wanted, with all its content staged.
    pub plan: &'a Plan,
    /// What is wanted.
    pub target: &'a Target,
    /// How.
    pub options: SwitchOptions<'a>,
}

/// How far a switch has come.
enum Stage {
    /// Nothing differed.
    Nothing,
    /// A standby is ready.
    Prepared(Box<exchange::Prepared>),
    /// To be done file by file.
    InPlace,
}

/// Switches several areas together, in order: each is brought up before the first is switched.
///
/// # Errors
/// The number of the area that could not be switched. Of an error before the first exchange, every
/// area is as it was.
pub fn switch_together(
    switchings: &mut [Switching<'_>],
) -> Result<Vec<SwitchReport>, (usize, Error)> {
    let mut stages = Vec::with_capacity(switchings.len());
    for (at, one) in switchings.iter_mut().enumerate() {
        stages.push(one.prepare().map_err(|error| (at, error))?);
    }
    let mut failed = None;
    let mut exchanged = 0;
    for (at, (one, (stage, _))) in switchings.iter_mut().zip(&stages).enumerate() {
        if let Stage::Prepared(prepared) = stage
            && let Err(error) = exchange::exchange(one.area, prepared)
        {
            failed = Some((at, error));
            break;
        }
        exchanged = at + 1;
    }
    let mut reports = Vec::with_capacity(switchings.len());
    for (at, (one, (stage, report))) in
        switchings.iter_mut().zip(stages).enumerate().take(exchanged)
    {
        reports.push(one.finish(stage, report).map_err(|error| (at, error))?);
    }
    match failed {
        Some(failed) => Err(failed),
        None => Ok(reports),
    }
}

impl Switching<'_> {
    fn prepare(&mut self) -> Result<(Stage, SwitchReport), Error> {
        let Self { area, plan, target, options } = self;
        let mut report = SwitchReport::default();
        area.check_live()?;
        if area.marks.uncollected {
            area.after_switch(plan, options, &mut report)?;
        }
        report.withdrawn_entries = plan.withdrawn_entries().0;
        area.regroup(plan)?;
        report.exceptions = plan.exceptions().to_vec();
        if plan.is_empty() && area.marks.live.is_some() && area.unsure.is_empty() {
            area.settle_for(options.mode)?;
            area.note_unchanged(plan, target, options)?;
            report.why = "nothing differs".to_owned();
            return Ok((Stage::Nothing, report));
        }
        area.complete_staging(plan, options)?;
        area.learn_protected(plan)?;
        let (mode, why) = area.settle_for(options.mode)?;
        let stage = match mode {
            Mode::Exchange | Mode::Symlink => {
                let prepared = exchange::prepare(area, plan, target, options, mode, &mut report)?;
                Stage::Prepared(Box::new(prepared))
            }
            Mode::InPlace => Stage::InPlace,
        };
        (report.mode, report.why) = (Some(mode), why);
        Ok((stage, report))
    }

    /// What follows once the tree is exchanged, or nothing can keep it from being changed in place.
    fn finish(&mut self, stage: Stage, mut report: SwitchReport) -> Result<SwitchReport, Error> {
        let Self { area, plan, target, options } = self;
        match stage {
            Stage::Nothing => return Ok(report),
            Stage::Prepared(prepared) => exchange::settle(area, &prepared, options)?,
            Stage::InPlace => in_place::run(area, plan, target, options, &mut report)?,
        }
        (options.switched)();
        report.changed_entries = plan.change_count() - plan.removal_count();
        report.removed_entries = plan.removal_count();
        area.unsure = PathList::default();
        area.staging.clear()?;
        area.after_switch(plan, options, &mut report)?;
        Ok(report)
    }
}

impl Area {
    /// Brings the published tree to the plan's generation. When this returns, the new generation
    /// is what readers see, and survives power loss.
    ///
    /// # Errors
    /// [`Error::Missing`] names what has to be staged first; nothing was changed then.
    pub fn switch(
        &mut self,
        plan: &Plan,
        target: &Target,
        options: &SwitchOptions<'_>,
    ) -> Result<SwitchReport, Error> {
        let mut one = [Switching { area: self, plan, target, options: *options }];
        let mut reports = switch_together(&mut one).map_err(|(_, error)| error)?;
        Ok(reports.pop().unwrap_or_default())
    }

    /// Nothing differs; what goes with a generation may, all the same.
    fn note_unchanged(
        &mut self,
        plan: &Plan,
        target: &Target,
        options: &SwitchOptions<'_>,
    ) -> Result<(), Error> {
        // A path may also have come back meanwhile: then the list must not name it any more.
        let (all, new) = plan.withdrawn_entries();
        let withdraws = new > 0 || all != self.withdrawn()?.len() as u64;
        if withdraws {
            self.marks.withdrawn = self.save_withdrawn(plan, options.now)?;
        }
        if withdraws || self.marks.applied.as_ref() != Some(target) {
            self.marks.applied = Some(target.clone());
            self.marks.save(&self.work)?;
            self.drop_old_withdrawn()?;
        }
        Ok(())
    }

    /// What follows a switch that is already marked: looking for local content, and collecting.
    fn after_switch(
        &mut self,
        plan: &Plan,
        options: &SwitchOptions<'_>,
        report: &mut SwitchReport,
    ) -> Result<(), Error> {
        sweep::all(self, plan, options, report)?;
        self.drop_old_withdrawn()?;
        exchange::collect(self, options)
    }
}
