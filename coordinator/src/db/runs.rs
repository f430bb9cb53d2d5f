//! Runs as agents reported them, and what each assignment holds.

use jiff::Timestamp;
use protocol::{
    digest::Digest,
    dsse::Envelope,
    generation::{Epoch, Generation, Version},
    name::{IdentityName, SiteName, TreeName},
    spec::AssignmentName,
    statement::Receipt,
    v1::{
        agent::{RunReport, RunResult},
        history::RunStatus,
    },
};
use uuid::Uuid;

use super::{
    Error, Transaction, execute, from_bigint, from_json, from_micros, from_micros_option, parsed,
    row, rows, to_bigint, to_json, to_micros,
};

/// A stored run.
pub type StoredRun = RunStatus;

/// Which runs are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Of this tree only.
    pub tree: Option<TreeName>,
    /// At this site only.
    pub site: Option<SiteName>,
}

/// How an assignment's newest runs ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Which assignment.
    pub assignment: AssignmentName,
    /// How the last run ended.
    pub last_result: RunResult,
    /// When it ended.
    pub last_run: Timestamp,
    /// When a run last succeeded.
    pub last_success: Option<Timestamp>,
    /// What went wrong in the last one; empty when nothing did.
    pub error: String,
}

/// What an assignment holds by its newest receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReceipt {
    /// Which assignment.
    pub assignment: AssignmentName,
    /// Who holds it.
    pub agent: IdentityName,
    /// Which generation.
    pub version: Version,
    /// Its manifest.
    pub manifest: Digest,
    /// Whether the agent observed it itself.
    pub observed: bool,
    /// Content bytes that it keeps.
    pub bytes: u64,
}

type RunRow = (String, i64, String);
type OutcomeRow = (String, String, String, i64, Option<i64>, String);
type ReceiptRow = (String, String, String, i64, i64, String, bool, i64);

impl Transaction {
    /// Stores a run, its log apart; one that is there already changes nothing. Returns whether it is
    /// new.
    pub async fn add_run(
        &mut self,
        agent: &IdentityName,
        report: &RunReport,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let stored = RunReport { log: String::new(), ..report.clone() };
        let changed = execute!(
            self,
            "INSERT INTO runs (id, agent, tree, site, kind, result, started, ended, received,
                report) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (id) DO NOTHING",
            report.id.to_string(),
            agent.as_str(),
            report.assignment.tree.as_str(),
            report.assignment.site.as_str(),
            to_json("run", &report.kind)?,
            to_json("run", &report.result)?,
            to_micros(report.started),
            to_micros(report.ended),
            to_micros(now),
            to_json("run", &stored)?,
        )?;
        if changed == 1 && !report.log.is_empty() {
            self.put_run_log(report).await?;
        }
        Ok(changed == 1)
    }

    /// A page of runs, the newest first.
    pub async fn runs(
        &mut self,
        filter: &RunFilter,
        skip: u64,
        limit: u64,
    ) -> Result<Vec<StoredRun>, Error> {
        let sql = "SELECT agent, received, report FROM runs
             WHERE ($1 IS NULL OR tree = $1) AND ($2 IS NULL OR site = $2)
             ORDER BY received DESC, id DESC LIMIT $3 OFFSET $4";
        let tree = filter.tree.as_ref().map(TreeName::as_str);
        let site = filter.site.as_ref().map(SiteName::as_str);
        let found = rows!(self, RunRow, sql, tree, site, to_bigint(limit), to_bigint(skip))?;
        found.into_iter().map(run).collect()
    }

    /// One run.
    pub async fn run(&mut self, id: Uuid) -> Result<Option<StoredRun>, Error> {
        let sql = "SELECT agent, received, report FROM runs WHERE id = $1";
        row!(self, RunRow, sql, id.to_string())?.map(run).transpose()
    }

    /// Keeps how a run ended, unless a newer one is known.
    pub async fn put_outcome(&mut self, outcome: &Outcome) -> Result<(), Error> {
        execute!(
            self,
            "INSERT INTO outcomes (tree, site, last_result, last_run, last_success, error)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (tree, site) DO UPDATE SET last_result = excluded.last_result,
                last_run = excluded.last_run, error = excluded.error,
                last_success = COALESCE(excluded.last_success, outcomes.last_success)
             WHERE outcomes.last_run <= excluded.last_run",
            outcome.assignment.tree.as_str(),
            outcome.assignment.site.as_str(),
            to_json("run", &outcome.last_result)?,
            to_micros(outcome.last_run),
            outcome.last_success.map(to_micros),
            outcome.error.as_str(),
        )
        .map(drop)
    }

    /// How the newest runs of every assignment ended.
    pub async fn outcomes(&mut self) -> Result<Vec<Outcome>, Error> {
        let sql = "SELECT tree, site, last_result, last_run, last_success, error FROM outcomes";
        rows!(self, OutcomeRow, sql)?
            .into_iter()
            .map(|(tree, site, last_result, last_run, last_success, error)| {
                Ok(Outcome {
                    assignment: assignment(&tree, &site)?,
                    last_result: from_json("run", &last_result)?,
                    last_run: from_micros(last_run)?,
                    last_success: from_micros_option(last_success)?,
                    error,
                })
            })
            .collect()
    }

    /// Notes that a run of an assignment began to fetch or to change.
    pub async fn put_begun(
        &mut self,
        name: &AssignmentName,
        started: Timestamp,
    ) -> Result<(), Error> {
        let sql = "INSERT INTO begun (tree, site, started) VALUES ($1, $2, $3)
             ON CONFLICT (tree, site) DO UPDATE SET started = excluded.started";
        execute!(self, sql, name.tree.as_str(), name.site.as_str(), to_micros(started)).map(drop)
    }

    /// Notes that the report of an assignment's run is here: it has one run at a time.
    pub async fn end_begun(&mut self, name: &AssignmentName) -> Result<(), Error> {
        let sql = "DELETE FROM begun WHERE tree = $1 AND site = $2";
        execute!(self, sql, name.tree.as_str(), name.site.as_str()).map(drop)
    }

    /// Since when runs fetch or change.
    pub async fn begun(&mut self) -> Result<Vec<(AssignmentName, Timestamp)>, Error> {
        let found = rows!(self, (String, String, i64), "SELECT tree, site, started FROM begun")?;
        let read = |(tree, site, started): (String, String, i64)| {
            Ok((assignment(&tree, &site)?, from_micros(started)?))
        };
        found.into_iter().map(read).collect()
    }

    /// Keeps a receipt, unless a newer one is known. Returns whether it says something new.
    pub async fn put_receipt(
        &mut self,
        receipt: &Receipt,
        envelope: &Envelope,
    ) -> Result<bool, Error> {
        let changed = execute!(
            self,
            "INSERT INTO receipts (tree, site, agent, epoch, generation, manifest, observed,
                applied, receipt, bytes) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (tree, site) DO UPDATE SET agent = excluded.agent,
                epoch = excluded.epoch, generation = excluded.generation,
                manifest = excluded.manifest, observed = excluded.observed,
                applied = excluded.applied, receipt = excluded.receipt, bytes = excluded.bytes
             WHERE receipts.applied < excluded.applied",
            receipt.tree.as_str(),
            receipt.site.as_str(),
            receipt.agent.as_str(),
            to_bigint(receipt.version.epoch.0),
            to_bigint(receipt.version.generation.0),
            receipt.manifest.to_string(),
            receipt.observed,
            to_micros(receipt.applied),
            to_json("receipt", envelope)?,
            to_bigint(receipt.bytes),
        )?;
        Ok(changed == 1)
    }

    /// What every assignment holds.
    pub async fn receipts(&mut self) -> Result<Vec<StoredReceipt>, Error> {
        let sql = "SELECT tree, site, agent, epoch, generation, manifest, observed, bytes
            FROM receipts";
        rows!(self, ReceiptRow, sql)?
            .into_iter()
            .map(|(tree, site, agent, epoch, generation, manifest, observed, bytes)| {
                Ok(StoredReceipt {
                    assignment: assignment(&tree, &site)?,
                    agent: parsed("identity name", &agent)?,
                    version: Version {
                        epoch: Epoch(from_bigint(epoch)),
                        generation: Generation(from_bigint(generation)),
                    },
                    manifest: parsed("digest", &manifest)?,
                    observed,
                    bytes: from_bigint(bytes),
                })
            })
            .collect()
    }
}

fn assignment(tree: &str, site: &str) -> Result<AssignmentName, Error> {
    Ok(AssignmentName { tree: parsed("tree name", tree)?, site: parsed("site name", site)? })
}

fn run((agent, received, report): RunRow) -> Result<StoredRun, Error> {
    Ok(RunStatus {
        agent: parsed("identity name", &agent)?,
        received: from_micros(received)?,
        report: from_json("run", &report)?,
    })
}
