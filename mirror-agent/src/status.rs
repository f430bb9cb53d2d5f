//! What `mirror-agent status` tells.

use filetree::confine::Confinement;
use jiff::Timestamp;
use protocol::{
    generation::{Revision, Version},
    name::{IdentityName, NetworkName},
    path::TreePath,
    spec::AssignmentName,
    v1::agent::{RunReport, Stopped},
};
use serde::{Deserialize, Serialize};

use crate::{
    agent::{Agent, result_name},
    fence, ledger, rsync,
    run_log::{Kept, Shelf},
};

/// The agent and all its assignments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// The network it belongs to.
    pub network: NetworkName,
    /// Its name.
    pub agent: IdentityName,
    /// When its certificate ends.
    pub certificate_until: Timestamp,
    /// The orders that are followed; absent before the first.
    pub revision: Option<Revision>,
    /// When the signed head ends; after that nothing new is begun.
    pub head_until: Option<Timestamp>,
    /// Whether it has ended.
    pub stale: bool,
    /// Why the coordinator cannot be asked; absent while it answers, or was not asked yet.
    pub trouble: Option<String>,
    /// The rsync program, absent where there is none.
    pub rsync: Option<String>,
    /// What is known against that rsync; absent where nothing is.
    pub rsync_warning: Option<String>,
    /// How far the kernel keeps the agent to its directories.
    pub confined: Option<Confinement>,
    /// Reports that the coordinator has not taken yet.
    pub unsent_reports: usize,
    /// Whether only what the network's definitions key has signed is carried out.
    #[serde(default)]
    pub strict: bool,
    /// What is ordered and waits for that key's signature.
    #[serde(default)]
    pub without_mandate: Vec<AssignmentName>,
    /// Whether an admin paused the reading of published files.
    pub scrub_paused: bool,
    /// Everything that is, or was, assigned.
    pub assignments: Vec<AssignmentStatus>,
}

/// One assignment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AssignmentStatus {
    /// `TREE@SITE`.
    pub name: AssignmentName,
    /// Below the publish directory.
    pub path: TreePath,
    /// One word: `current`, `behind`, `syncing`, `failed`, `waiting`, `stopped`, `unassigned`.
    pub state: State,
    /// What it holds.
    pub held: Option<Version>,
    /// What it should hold.
    pub target: Option<Version>,
    /// Files that it keeps.
    pub files: u64,
    /// Their content bytes.
    pub bytes: u64,
    /// How the last run ended.
    pub last_result: Option<String>,
    /// When.
    pub last_run: Option<Timestamp>,
    /// What went wrong in it.
    pub error: Option<String>,
    /// When it is tried or asked again.
    pub due: Option<Timestamp>,
    /// How far its published files were read again.
    pub scrub: Option<ledger::Scrub>,
    /// Removed paths that stay readable for now.
    pub withdrawn: Option<ledger::Withdrawn>,
}

/// How an assignment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It holds its target.
    Current,
    /// A newer generation is there.
    Behind,
    /// A run is under way.
    Syncing,
    /// The last run failed.
    Failed,
    /// There is nothing to hold yet.
    Waiting,
    /// An admin disabled it, its grant ended, or it waits for a mandate.
    Stopped,
    /// It ended; its files stay.
    Unassigned,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Current,
        Self::Behind,
        Self::Syncing,
        Self::Failed,
        Self::Waiting,
        Self::Stopped,
        Self::Unassigned,
    ];

    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Behind => "behind",
            Self::Syncing => "syncing",
            Self::Failed => "failed",
            Self::Waiting => "waiting",
            Self::Stopped => "stopped",
            Self::Unassigned => "unassigned",
        }
    }
}

impl Status {
    /// What a person is told of signed definitions; `None` where the network has none.
    pub fn mandates(&self) -> Option<String> {
        let names: Vec<_> = self.without_mandate.iter().map(ToString::to_string).collect();
        match (self.strict, &names[..]) {
            (false, _) => None,
            (true, []) => {
                Some("every assignment is signed by the network's definitions key".into())
            }
            (true, names) => Some(format!(
                "not carried out until the network's definitions key has signed it: {}; its holder uses `mirrorctl mandate sign`",
                names.join(", ")
            )),
        }
    }
}

/// Gathers the status.
pub fn status(agent: &Agent) -> Result<Status, ledger::Error> {
    let identity = agent.identity.current();
    let orders = agent.orders();
    let head = orders.as_ref().map(|orders| &orders.head);
    let records = agent.ledger.records()?;
    let ordered = orders.as_ref().map_or(&[][..], |orders| &orders.wanted.assignments);
    let without_mandate = orders.as_ref().map_or_else(Vec::new, |orders| orders.without_mandate());
    let mut assignments = Vec::new();
    for name in crate::reconcile::assignments(ordered, &records) {
        let record = records.iter().find(|record| record.name == *name);
        let order = ordered.iter().find(|order| order.name == *name);
        let held = record.and_then(|record| record.held.as_ref());
        let last = record.and_then(ledger::Record::last_sync);
        let named = head.and_then(|head| head.trees.get(&name.tree));
        let has_target = order.is_some_and(|order| order.target.is_some());
        let target = named.filter(|_| has_target).map(|tree| tree.version);
        let failed = last.is_some_and(|run| !run.error.is_empty());
        let is_behind = target.is_some_and(|target| held.is_none_or(|h| h.version != target));
        let state = match order {
            None if without_mandate.contains(name) => State::Stopped,
            None => State::Unassigned,
            Some(order) if is_stopped(order.stopped.as_ref()) => State::Stopped,
            Some(_) if agent.is_busy(name) => State::Syncing,
            Some(_) if failed => State::Failed,
            Some(_) if is_behind => State::Behind,
            Some(_) if held.is_some() => State::Current,
            Some(_) => State::Waiting,
        };
        let path = order.map(|order| order.path.clone());
        let Some(path) = path.or_else(|| record.map(|record| record.path.clone())) else {
            continue;
        };
        assignments.push(AssignmentStatus {
            name: name.clone(),
            path,
            state,
            held: held.map(|held| held.version),
            target: target.or_else(|| held.map(|held| held.version)),
            files: held.map_or(0, |held| held.files),
            bytes: held.map_or(0, |held| held.bytes),
            last_result: last.map(|run| result_name(run.result)),
            last_run: last.map(|run| run.ended),
            error: last.map(|run| run.error.clone()).filter(|error| !error.is_empty()),
            due: record.and_then(|record| record.due),
            scrub: record.and_then(|record| record.scrub.clone()),
            withdrawn: record.and_then(|record| record.withdrawn),
        });
    }
    Ok(Status {
        network: identity.membership.network.clone(),
        agent: identity.membership.name.clone(),
        certificate_until: identity.not_after,
        revision: orders.as_ref().map(|orders| orders.wanted.revision),
        head_until: head.map(|head| head.expires),
        stale: orders.as_ref().is_some_and(|orders| orders.is_stale(certs::clock::now())),
        trouble: agent.trouble(),
        rsync: agent.rsync.as_ref().map(|rsync| rsync.line.clone()),
        rsync_warning: agent.rsync.as_ref().and_then(rsync::version::Version::warning),
        confined: fence::closed(),
        scrub_paused: agent.is_scrub_paused(),
        strict: orders.as_ref().is_some_and(|orders| orders.is_strict()),
        without_mandate,
        unsent_reports: agent.ledger.unsent()?.len(),
        assignments,
    })
}

/// The runs that are remembered, of one tree or of all, the newest first, with their logs as far as
/// those are kept.
pub fn log(agent: &Agent, tree: Option<&str>) -> Result<Vec<RunReport>, crate::Failure> {
    let names = agent.names_of(tree)?;
    let mut runs = Vec::new();
    for name in names {
        let remembered = agent.ledger.record(&name)?.into_iter().flat_map(|record| record.runs);
        runs.extend(remembered.map(|run| RunReport {
            log: agent.logs.of_run(&name, run.id).unwrap_or_default(),
            ..run
        }));
    }
    runs.sort_by_key(|run| std::cmp::Reverse(run.started));
    Ok(runs)
}

/// The text of an assignment's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LogText {
    /// Which assignment.
    pub assignment: AssignmentName,
    /// Its log; absent where there is none of the kind.
    pub text: Option<String>,
}

/// One log of each of these assignments.
pub fn texts(shelf: &Shelf, names: &[AssignmentName], kept: Kept) -> Vec<LogText> {
    let text = |name: &AssignmentName| match shelf.read(name, kept) {
        Ok(text) => text,
        Err(error) => Some(format!("the log cannot be read: {error}\n")),
    };
    names.iter().map(|name| LogText { assignment: name.clone(), text: text(name) }).collect()
}

fn is_stopped(stopped: Option<&Stopped>) -> bool {
    stopped.is_some()
}
