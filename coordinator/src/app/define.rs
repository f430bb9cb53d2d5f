//! Storing definitions, and what admins ask for about them.

use jiff::Timestamp;
use protocol::{
    name::TreeName,
    spec::AssignmentName,
    v1::{
        agent::{UndeleteOrder, UndeleteRequest},
        definitions::{ApplyRequest, ApplyResult, Definition, Effective, Imported, Kind, System},
    },
};
use uuid::Uuid;

use super::{
    App, Error, Picture, Refusal, Write,
    admission::{Caller, Scope},
    definition::{self, Enabling, PlannedApply},
    effective,
    orders::{Among, concerned},
    picture::{PUBLISH, SYNC},
};
use crate::db::Topic;

/// Most wishes to undelete that an assignment has at a time.
const MAX_UNDELETES: usize = 100;

impl App {
    /// Adds and changes what the files define; removes the rest where it prunes.
    pub async fn apply(
        &self,
        caller: &Caller,
        request: &ApplyRequest,
    ) -> Result<ApplyResult, Error> {
        let mut write = self.write().await?;
        if request.if_revision.is_some_and(|revision| revision != write.before.revision) {
            return Err(Refusal::Conflict(format!(
                "the wanted state has moved on to revision {}; look at the difference again",
                write.before.revision
            ))
            .into());
        }
        let context = context(&write.before, write.now);
        let stored = &write.before.wanted.definitions;
        let planned =
            definition::plan_apply(stored, request, &context).map_err(Error::Definitions)?;
        if let Some(imported) = request.imported.as_ref().filter(|_| !request.dry_run) {
            let (now, system) = (write.now, imported.system.as_str());
            write.tx.put_imported(imported, now).await?;
            write.tx.audit(now, &caller.to_string(), "import", system, "").await?;
            if planned.changes.is_empty() {
                let PlannedApply { changes, warnings, .. } = planned;
                let revision = write.before.revision;
                self.commit_quietly(write).await?;
                return Ok(ApplyResult { revision, dry_run: false, changes, warnings });
            }
        }
        self.store(caller, write, planned, request.dry_run, "apply").await
    }

    /// The document of another system that definitions were made of last.
    pub async fn imported(&self, system: System) -> Result<Imported, Error> {
        let mut tx = self.parts.database.read().await?;
        let found = tx.imported(system).await?;
        let system = system.as_str();
        Ok(found.ok_or_else(|| {
            Refusal::NotFound(format!(
                "no configuration of {system} was imported; `mirrorctl import {system} FILE --apply` keeps the one that it takes over"
            ))
        })?)
    }

    /// Removes one definition.
    pub async fn delete(
        &self,
        caller: &Caller,
        kind: Kind,
        name: &str,
    ) -> Result<ApplyResult, Error> {
        let write = self.write().await?;
        let stored = &write.before.wanted.definitions;
        if stored.get(kind, name).is_none() {
            return Err(no_such(kind, name).into());
        }
        let context = context(&write.before, write.now);
        let planned =
            definition::plan_delete(stored, kind, name, &context).map_err(Error::Definitions)?;
        self.store(caller, write, planned, false, "delete").await
    }

    /// Enables or disables an assignment.
    pub async fn set_enabled(
        &self,
        caller: &Caller,
        name: &AssignmentName,
        enabling: Enabling,
    ) -> Result<ApplyResult, Error> {
        caller.check_site(Some(&name.site))?;
        let write = self.write().await?;
        let planned = definition::plan_enabled(&write.before.wanted.definitions, name, enabling)
            .ok_or_else(|| no_such(Kind::Assignment, name))?;
        let verb = match enabling {
            Enabling::Enable => "enable",
            Enabling::DryRunOnly => "enable-dry-run",
            Enabling::Disable => "disable",
        };
        self.store(caller, write, planned, false, verb).await
    }

    /// Asks the agent of an assignment for a run now.
    pub async fn request_sync(
        &self,
        caller: &Caller,
        name: &AssignmentName,
    ) -> Result<ApplyResult, Error> {
        caller.check_site(Some(&name.site))?;
        let mut write = self.write().await?;
        let merged = write.before.effective(name, write.now);
        let merged = merged.ok_or_else(|| no_such(Kind::Assignment, name))?;
        if let Some(reason) = merged.why_stopped() {
            return Err(Refusal::Conflict(format!("{name} is not carried out: {reason}")).into());
        }
        let agent = merged.agent.map_err(|reason| Refusal::Conflict(reason.to_string()))?;
        write.tx.add_request(SYNC, &name.to_string()).await?;
        let now = write.now;
        write.tx.audit(now, &caller.to_string(), "sync", &name.to_string(), "").await?;
        let revision = self.commit(write, &[Topic::Definitions, Topic::Agent(agent)]).await?;
        Ok(ApplyResult { revision, dry_run: false, changes: vec![], warnings: vec![] })
    }

    /// Asks the agent of an assignment to bring something back from its trash.
    pub async fn request_undelete(
        &self,
        caller: &Caller,
        name: &AssignmentName,
        request: UndeleteRequest,
    ) -> Result<ApplyResult, Error> {
        let mut write = self.write().await?;
        let merged = write.before.effective(name, write.now);
        let merged = merged.ok_or_else(|| no_such(Kind::Assignment, name))?;
        if let Some(reason) = merged.why_stopped() {
            return Err(Refusal::Conflict(format!("{name} is not carried out: {reason}")).into());
        }
        let agent = merged.agent.map_err(|reason| Refusal::Conflict(reason.to_string()))?;
        if write.before.wanted.undeletes(name).len() >= MAX_UNDELETES {
            return Err(Refusal::Conflict(format!(
                "{MAX_UNDELETES} wishes for {name} are not answered yet; wait until its agent has reported"
            ))
            .into());
        }
        let detail = serde_json::to_string(&request)?;
        let order = UndeleteOrder { id: Uuid::now_v7(), what: request };
        let now = write.now;
        write.tx.add_undelete(name, &order, now).await?;
        write.tx.audit(now, &caller.to_string(), "undelete", &name.to_string(), &detail).await?;
        let revision = self.commit(write, &[Topic::Definitions, Topic::Agent(agent)]).await?;
        Ok(ApplyResult { revision, dry_run: false, changes: vec![], warnings: vec![] })
    }

    /// Asks the publisher of a tree for a scan now.
    pub async fn request_publish(
        &self,
        caller: &Caller,
        tree: &TreeName,
    ) -> Result<ApplyResult, Error> {
        let mut write = self.write().await?;
        let found = effective::tree(&write.before.wanted.definitions, tree);
        let found = found.ok_or_else(|| no_such(Kind::Tree, tree))?;
        let Some(publisher) = found.publisher().cloned() else {
            return Err(Refusal::Conflict(format!(
                "tree {tree} comes from a stock rsync daemon, which nobody publishes; ask for a sync of its assignments instead"
            ))
            .into());
        };
        write.tx.add_request(PUBLISH, tree.as_str()).await?;
        let now = write.now;
        write.tx.audit(now, &caller.to_string(), "publish", tree.as_str(), "").await?;
        let topics = [Topic::Definitions, Topic::Publisher(publisher)];
        let revision = self.commit(write, &topics).await?;
        Ok(ApplyResult { revision, dry_run: false, changes: vec![], warnings: vec![] })
    }

    /// One definition, if it is within `scope`.
    pub fn definition(&self, kind: Kind, name: &str, scope: &Scope) -> Result<Definition, Error> {
        let wanted = &self.picture().wanted;
        let found = wanted.definition(kind, name);
        let found = found.filter(|_| wanted.definitions.concerns(kind, name, scope));
        Ok(found.ok_or_else(|| no_such(kind, name))?)
    }

    /// Every definition of a kind within `scope`, by name.
    pub fn definitions(&self, kind: Kind, scope: &Scope) -> Vec<Definition> {
        let picture = self.picture();
        let names = picture.wanted.definitions.names(kind);
        let names = names.iter();
        let names = names.filter(|name| picture.wanted.definitions.concerns(kind, name, scope));
        names.filter_map(|name| picture.wanted.definition(kind, name)).collect()
    }

    /// Every setting of an assignment within `scope`, with its provenance.
    pub fn describe(&self, name: &AssignmentName, scope: &Scope) -> Result<Effective, Error> {
        let found = self.picture().effective(name, self.now());
        let found = found.filter(|_| scope.covers(&name.site));
        Ok(found.map(|merged| merged.describe()).ok_or_else(|| no_such(Kind::Assignment, name))?)
    }

    async fn store(
        &self,
        caller: &Caller,
        mut write: Write,
        planned: PlannedApply,
        dry_run: bool,
        verb: &str,
    ) -> Result<ApplyResult, Error> {
        let PlannedApply { next, changes, warnings } = planned;
        if dry_run || changes.is_empty() {
            let revision = write.before.revision;
            return Ok(ApplyResult { revision, dry_run, changes, warnings });
        }
        let after =
            write.before.with_wanted(write.before.wanted.with_definitions(next.clone()), write.now);
        let mut topics = concerned(&write.before, &after, Among::All, write.now);
        topics.push(Topic::Definitions);
        let revision = write.before.revision.next();
        for change in &changes {
            match next.get(change.kind, &change.name) {
                Some(spec) => {
                    let (kind, name) = (change.kind, change.name.clone());
                    let definition = Definition { kind, name, revision, spec: spec.to_value() };
                    write.tx.put_definition(&definition).await?;
                }
                None => write.tx.remove_definition(change.kind, &change.name).await?,
            }
            let target = format!("{}/{}", change.kind.as_str(), change.name);
            let detail = serde_json::to_string(&change)?;
            write.tx.audit(write.now, &caller.to_string(), verb, &target, &detail).await?;
        }
        let revision = self.commit(write, &topics).await?;
        Ok(ApplyResult { revision, dry_run, changes, warnings })
    }
}

fn context(picture: &Picture, now: Timestamp) -> definition::Context {
    definition::Context { agents: picture.fleet.agents(), now }
}

fn no_such(kind: Kind, name: impl std::fmt::Display) -> Refusal {
    Refusal::NotFound(format!(
        "there is no {kind} {name}; `mirrorctl get {kind}` lists them",
        kind = kind.as_str()
    ))
}
