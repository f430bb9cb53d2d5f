//! The trash of the assignments: what goes by itself, what is listed, and what is brought back.
//!
//! `filetree` moves things into it and out of it; here it is decided when. An admin's wish arrives as
//! an order with a name, which is answered once, by a report that repeats the name: a lost report is
//! sent again, and a repeated order does nothing.

use filetree::{
    area::{Batch, Cause, Contents, Ended, Place, Trash},
    fs::Fs,
};
use jiff::Timestamp;
use protocol::{
    path::TreePath,
    spec::AssignmentName,
    v1::agent::{AssignmentOrder, Changes, RunKind, RunReport, RunResult, UndeleteRequest},
};
use serde::{Deserialize, Serialize};
use tokio::task::block_in_place;

use super::{
    Agent,
    runs::{Busy, Error},
};
use crate::{
    apply::{self, Site},
    ledger::Record,
    report::Run,
};

/// One batch of the trash, as it is listed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TrashStatus {
    /// `TREE@SITE`.
    pub assignment: AssignmentName,
    /// Its name: `undelete --from` takes it.
    pub batch: String,
    /// Since when it lies there.
    pub since: Timestamp,
    /// When it goes, unless room is needed earlier.
    pub until: Timestamp,
    /// Why.
    pub cause: Cause,
    /// Files and symlinks in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first of them.
    pub paths: Vec<TreePath>,
}

impl Agent {
    /// Where the assignment of a record lies.
    pub(super) fn place(&self, record: &Record) -> Place {
        Place {
            publish: self.config.publish(),
            work: self.config.work(),
            name: record.name.to_string(),
            path: record.path.clone(),
        }
    }

    /// Lets go what is in the trash for too long.
    pub(super) fn tidy_trash(&self) {
        let now = Timestamp::now().as_second();
        for record in self.ledger.records().unwrap_or_default() {
            let tidied = block_in_place(|| {
                let Some(trash) = Trash::open(&Fs::disk(), &self.place(&record))? else {
                    return Ok(());
                };
                let keep = self.config.trash().keep;
                let is_old = |batch: &Batch| batch.at.saturating_add(keep) <= now;
                if !trash.batches()?.iter().any(is_old) {
                    return Ok(());
                }
                let Some(_busy) = Busy::take(self, &record.name) else { return Ok(()) };
                trash.expire(now, self.config.trash()).map(drop)
            });
            if let Err(error) = tidied {
                let error = crate::chain(&error);
                tracing::warn!(assignment = %record.name, error, "the trash is not tidied");
            }
        }
    }

    /// What can be brought back, of one tree or of all.
    pub fn trash(&self, tree: Option<&str>) -> Result<Vec<TrashStatus>, crate::Failure> {
        let mut all = Vec::new();
        for name in self.names_of(tree)? {
            let Some(record) = self.ledger.record(&name)? else { continue };
            let listed = block_in_place(|| self.list_trash(&record));
            all.extend(listed.map_err(apply::Error::from).map_err(crate::Failure::Trash)?);
        }
        Ok(all)
    }

    fn list_trash(&self, record: &Record) -> Result<Vec<TrashStatus>, filetree::area::Error> {
        let Some(trash) = Trash::open(&Fs::disk(), &self.place(record))? else {
            return Ok(Vec::new());
        };
        let time = |second| Timestamp::from_second(second).unwrap_or(Timestamp::MAX);
        let status = |batch: Batch| {
            let Contents { files, bytes, paths } = trash.contents(&batch)?;
            Ok(TrashStatus {
                assignment: record.name.clone(),
                batch: batch.to_string(),
                since: time(batch.at),
                until: time(batch.at.saturating_add(self.config.trash().keep)),
                cause: batch.cause,
                files,
                bytes,
                paths,
            })
        };
        trash.batches()?.into_iter().map(status).collect()
    }

    /// Answers the oldest wish that was not answered yet.
    pub(super) fn undelete_ordered(&self, order: &AssignmentOrder) -> Option<RunReport> {
        let record = self.ledger.record(&order.name).ok()??;
        let wish = order.undelete.iter().find(|wish| !record.undeleted.contains(&wish.id))?;
        let run = Run::begin(order.name.clone(), false, self.progress(&order.name));
        run.set_undelete(wish.id);
        let report = self.bring_back(&record, &wish.what, run);
        let is_ordered = |id: &uuid::Uuid| order.undelete.iter().any(|wish| wish.id == *id);
        let noted = self.note_upkeep(&report, |record| {
            record.undeleted.retain(is_ordered);
            record.undeleted.push(wish.id);
        });
        if let Err(error) = noted {
            tracing::error!(assignment = %order.name, error = crate::chain(&error), "not recorded");
        }
        Some(report)
    }

    /// Brings something back, because an admin of the site says so.
    pub async fn undelete(
        &self,
        name: &AssignmentName,
        what: &UndeleteRequest,
    ) -> Result<RunReport, crate::Failure> {
        let _turn = self.take_turn(name, true).await;
        let record = self.ledger.record(name)?;
        let record = record.ok_or_else(|| super::NoSuchTree { tree: name.to_string() })?;
        let run = Run::begin(name.clone(), false, self.progress(name));
        let report = self.bring_back(&record, what, run);
        self.note_upkeep(&report, |_| ())?;
        Ok(report)
    }

    fn bring_back(&self, record: &Record, what: &UndeleteRequest, run: Run) -> RunReport {
        run.set_kind(RunKind::Undelete);
        let (result, error) = match block_in_place(|| self.bring_back_now(record, what, &run)) {
            Ok(()) => (RunResult::Completed, String::new()),
            Err(error) => (RunResult::Failed, crate::chain(&error)),
        };
        let report = run.finish(result, error);
        self.tell(&report);
        report
    }

    fn bring_back_now(
        &self,
        record: &Record,
        what: &UndeleteRequest,
        run: &Run,
    ) -> Result<(), Error> {
        if let Some(to) = &record.moving {
            return Err(Error::ToBeMoved { from: record.path.clone(), to: to.clone() });
        }
        let from = what.from.as_deref().map(str::parse::<Batch>).transpose()?;
        let mut site = Site::open(&self.config, &record.name.to_string(), &record.path)?;
        let held = site.applied()?.map(|applied| applied.version);
        run.set_versions(held, held);
        let done = site.area_mut().undelete(what.path.as_ref(), from.as_ref());
        let done = done.map_err(apply::Error::from)?;
        let added = done.restored.len() as u64 + u64::from(done.root);
        run.add_changes(Changes { added, ..Changes::default() });
        if done.root {
            run.notice("the whole tree was brought back from the trash");
        }
        for path in &done.restored {
            run.notice(format!("brought back from the trash, and kept from now on: {path}"));
        }
        for path in &done.occupied {
            run.notice(format!("left in the trash, because something is at its place: {path}"));
        }
        match done.occupied.first() {
            _ if added > 0 => Ok(()),
            None => Err(Error::NotInTrash),
            Some(first) => {
                Err(Error::Occupied { count: done.occupied.len(), first: first.clone() })
            }
        }
    }

    /// Moves what is published to the trash: the assignment has ended, and was to end so.
    pub(super) fn end(&self, record: &Record) -> Result<RunReport, Error> {
        let name = &record.name;
        let run = Run::begin(name.clone(), false, self.progress(name));
        run.set_kind(RunKind::End);
        let held = record.held.as_ref().map(|held| held.version);
        run.set_versions(held, None);
        let ended = match self.other_user_of(name, &record.path)? {
            Some(other) => Ended::Kept(format!("they are the files of {other} now")),
            None => block_in_place(|| {
                let mut site = Site::open(&self.config, &name.to_string(), &record.path)?;
                let now = Timestamp::now().as_second();
                site.area_mut().end(now).map_err(apply::Error::from)
            })?,
        };
        run.notice(match &ended {
            Ended::Trashed => format!(
                "the assignment ended; its files are in the trash for {}",
                self.config.trash_keep
            ),
            Ended::Nothing => "the assignment ended; nothing was published".to_owned(),
            Ended::Kept(why) => format!("the assignment ended; its files stay, because {why}"),
        });
        let is_gone = !matches!(ended, Ended::Kept(_));
        let result = if is_gone { RunResult::Completed } else { RunResult::UpToDate };
        let report = run.finish(result, String::new());
        self.tell(&report);
        self.note_upkeep(&report, |record| {
            if is_gone {
                (record.held, record.withdrawn, record.planned) = (None, None, None);
            }
        })?;
        Ok(report)
    }
}
