//! Generations, the offers that lead to them, and what a guard stopped.

use jiff::Timestamp;
use protocol::{
    digest::Digest,
    dsse::Envelope,
    generation::{Epoch, Generation, Version},
    name::{IdentityName, SiteName, TreeName},
    statement::{Offer, Parent, Statement},
    v1::publisher::{Difference, HoldReport},
};
use serde::{Deserialize, Serialize};

use super::{
    Error, Transaction, execute, from_bigint, from_json, from_micros, from_micros_option, parsed,
    parsed_option, row, rows, to_bigint, to_json, to_micros,
};

/// A generation that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredGeneration {
    /// Which tree.
    pub tree: TreeName,
    /// Its number.
    pub version: Version,
    /// Its manifest.
    pub manifest: Digest,
    /// The generation before.
    pub parent: Option<Parent>,
    /// Entries.
    pub entries: u64,
    /// Content bytes.
    pub bytes: u64,
    /// When the publisher made it.
    pub created: Timestamp,
    /// Who published it.
    pub publisher: IdentityName,
    /// The signed statement.
    pub statement: Envelope,
}

/// An offer that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredOffer {
    /// Which tree.
    pub tree: TreeName,
    /// Manifest that the pack starts from.
    pub from: Option<Digest>,
    /// Manifest that it leads to.
    pub to: Digest,
    /// Length of the pack and of the objects that it shares, in bytes.
    pub length: u64,
    /// The signed offer.
    pub offer: Envelope,
}

/// A manifest that a guard stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredHold {
    /// Which tree.
    pub tree: TreeName,
    /// Who reported it.
    pub publisher: IdentityName,
    /// The site whose agent it was; `None` where the tree's publisher holds it.
    pub site: Option<SiteName>,
    /// What was reported.
    pub report: HoldReport,
    /// What an admin decided, who and when: `true` to publish it.
    pub decision: Option<(bool, IdentityName, Timestamp)>,
}

type GenerationRow =
    (String, i64, i64, String, Option<i64>, Option<String>, i64, i64, i64, String, String);
type OfferRow = (String, Option<String>, String, i64, String);
type HoldRow = (
    String,
    String,
    String,
    String,
    String,
    i64,
    i64,
    i64,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<i64>,
);

/// What is stored of a hold as JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Details {
    difference: Difference,
    unseen: bool,
}

const APPROVED: &str = "approved";
const REJECTED: &str = "rejected";

impl Transaction {
    /// The newest generation of a tree.
    pub async fn current_generation(
        &mut self,
        tree: &TreeName,
    ) -> Result<Option<StoredGeneration>, Error> {
        let sql = "SELECT tree, epoch, generation, manifest, parent_generation, parent_manifest,
                entries, bytes, created, publisher, statement
             FROM generations WHERE tree = $1 ORDER BY epoch DESC, generation DESC LIMIT 1";
        row!(self, GenerationRow, sql, tree.as_str())?.map(generation).transpose()
    }

    /// The newest `depth` generations of every tree, by tree, the newest first.
    pub async fn recent_generations(&mut self, depth: u64) -> Result<Vec<StoredGeneration>, Error> {
        let sql = "SELECT tree, epoch, generation, manifest, parent_generation, parent_manifest,
                entries, bytes, created, publisher, statement
             FROM (SELECT generations.*, ROW_NUMBER() OVER (
                    PARTITION BY tree ORDER BY epoch DESC, generation DESC) AS place
                FROM generations) AS placed
             WHERE place <= $1 ORDER BY tree, epoch DESC, generation DESC";
        rows!(self, GenerationRow, sql, to_bigint(depth))?.into_iter().map(generation).collect()
    }

    /// A page of generations, the newest first: of one tree or of all, accepted before `before`.
    pub async fn generations(
        &mut self,
        tree: Option<&TreeName>,
        skip: u64,
        limit: u64,
    ) -> Result<Vec<StoredGeneration>, Error> {
        let sql = "SELECT tree, epoch, generation, manifest, parent_generation, parent_manifest,
                entries, bytes, created, publisher, statement
             FROM generations WHERE ($1 IS NULL OR tree = $1)
             ORDER BY accepted DESC, tree, epoch DESC, generation DESC LIMIT $2 OFFSET $3";
        let tree = tree.map(TreeName::as_str);
        let found = rows!(self, GenerationRow, sql, tree, to_bigint(limit), to_bigint(skip))?;
        found.into_iter().map(generation).collect()
    }

    /// Stores a generation that was accepted.
    pub async fn add_generation(
        &mut self,
        statement: &Statement,
        envelope: &Envelope,
        publisher: &IdentityName,
        now: Timestamp,
    ) -> Result<(), Error> {
        let parent = statement.parent.as_ref();
        execute!(
            self,
            "INSERT INTO generations (tree, epoch, generation, manifest, parent_generation,
                parent_manifest, entries, bytes, publisher, created, accepted, statement)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            statement.tree.as_str(),
            to_bigint(statement.epoch.0),
            to_bigint(statement.generation.0),
            statement.manifest.to_string(),
            parent.map(|parent| to_bigint(parent.generation.0)),
            parent.map(|parent| parent.manifest.to_string()),
            to_bigint(statement.entries),
            to_bigint(statement.bytes),
            publisher.as_str(),
            to_micros(statement.created),
            to_micros(now),
            to_json("statement", envelope)?,
        )
        .map(drop)
    }

    /// Every offer of every tree whose target is among its newest `depth` generations.
    pub async fn recent_offers(&mut self, depth: u64) -> Result<Vec<StoredOffer>, Error> {
        let sql = "SELECT tree, from_manifest, to_manifest, length, offer FROM offers
             WHERE EXISTS (SELECT 1 FROM (SELECT tree AS of_tree, manifest, ROW_NUMBER() OVER (
                    PARTITION BY tree ORDER BY epoch DESC, generation DESC) AS place
                FROM generations) AS placed
                WHERE place <= $1 AND of_tree = offers.tree AND manifest = offers.to_manifest)
             ORDER BY tree, accepted, digest";
        rows!(self, OfferRow, sql, to_bigint(depth))?.into_iter().map(offer).collect()
    }

    /// Stores an offer; an offer that is there already changes nothing. Returns whether it is new.
    pub async fn add_offer(
        &mut self,
        offer: &Offer,
        envelope: &Envelope,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let changed = execute!(
            self,
            "INSERT INTO offers (digest, tree, from_manifest, to_manifest, length, accepted, offer)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (digest) DO NOTHING",
            envelope.payload_digest().to_string(),
            offer.tree.as_str(),
            offer.from.as_ref().map(ToString::to_string),
            offer.to.to_string(),
            to_bigint(offer.total_length()),
            to_micros(now),
            to_json("offer", envelope)?,
        )?;
        Ok(changed == 1)
    }

    /// Every hold, the newest first.
    pub async fn holds(&mut self) -> Result<Vec<StoredHold>, Error> {
        let sql = "SELECT tree, manifest, publisher, site, reason, removed_files, removed_bytes,
                since, details, decision, decided_by, decided
             FROM holds ORDER BY since DESC, tree, manifest";
        rows!(self, HoldRow, sql)?.into_iter().map(hold).collect()
    }

    /// Stores a hold; one that is there already keeps its decision. Returns whether it is new.
    pub async fn add_hold(
        &mut self,
        tree: &TreeName,
        by: &IdentityName,
        site: Option<&SiteName>,
        hold: &HoldReport,
    ) -> Result<bool, Error> {
        let details = Details { difference: hold.difference.clone(), unseen: hold.unseen };
        let changed = execute!(
            self,
            "INSERT INTO holds (tree, manifest, publisher, site, reason, removed_files,
                removed_bytes, since, details) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (tree, manifest, site) DO NOTHING",
            tree.as_str(),
            hold.manifest.to_string(),
            by.as_str(),
            site.map_or("", SiteName::as_str),
            hold.reason.as_str(),
            to_bigint(hold.removed_files),
            to_bigint(hold.removed_bytes),
            to_micros(hold.since),
            to_json("hold", &details)?,
        )?;
        Ok(changed == 1)
    }

    /// Forgets the holds of a tree, with what was decided about them: those of its publisher, or
    /// those of the agent of a site; all but `except`. Returns whether there were any.
    pub async fn end_holds(
        &mut self,
        tree: &TreeName,
        site: Option<&SiteName>,
        except: Option<&Digest>,
    ) -> Result<bool, Error> {
        let changed = execute!(
            self,
            "DELETE FROM holds WHERE tree = $1 AND site = $2 AND manifest <> $3",
            tree.as_str(),
            site.map_or("", SiteName::as_str),
            except.map(ToString::to_string).unwrap_or_default(),
        )?;
        Ok(changed > 0)
    }

    /// Stores what an admin decided about a hold. Returns whether there is such a hold.
    pub async fn decide_hold(
        &mut self,
        tree: &TreeName,
        manifest: &Digest,
        approve: bool,
        by: &IdentityName,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let changed = execute!(
            self,
            "UPDATE holds SET decision = $3, decided_by = $4, decided = $5
             WHERE tree = $1 AND manifest = $2",
            tree.as_str(),
            manifest.to_string(),
            if approve { APPROVED } else { REJECTED },
            by.as_str(),
            to_micros(now),
        )?;
        Ok(changed > 0)
    }
}

fn generation(row: GenerationRow) -> Result<StoredGeneration, Error> {
    let (tree, epoch, number, manifest, parent_number, parent_manifest, entries, bytes, ..) = &row;
    let (.., created, publisher, statement) = &row;
    let parent = match (parent_number, parent_manifest) {
        (Some(number), Some(manifest)) => Some(Parent {
            generation: Generation(from_bigint(*number)),
            manifest: parsed("digest", manifest)?,
        }),
        _ => None,
    };
    Ok(StoredGeneration {
        tree: parsed("tree name", tree)?,
        version: Version {
            epoch: Epoch(from_bigint(*epoch)),
            generation: Generation(from_bigint(*number)),
        },
        manifest: parsed("digest", manifest)?,
        parent,
        entries: from_bigint(*entries),
        bytes: from_bigint(*bytes),
        created: from_micros(*created)?,
        publisher: parsed("identity name", publisher)?,
        statement: from_json("statement", statement)?,
    })
}

fn offer((tree, from, to, length, offer): OfferRow) -> Result<StoredOffer, Error> {
    Ok(StoredOffer {
        tree: parsed("tree name", &tree)?,
        from: parsed_option("digest", from.as_deref())?,
        to: parsed("digest", &to)?,
        length: from_bigint(length),
        offer: from_json("offer", &offer)?,
    })
}

fn hold(row: HoldRow) -> Result<StoredHold, Error> {
    let (tree, manifest, publisher, site, reason, files, bytes, since, details, decision, by, at) =
        row;
    let by: Option<IdentityName> = parsed_option("identity name", by.as_deref())?;
    let decision = match (decision, by, from_micros_option(at)?) {
        (Some(decision), Some(by), Some(at)) => Some((decision == APPROVED, by, at)),
        _ => None,
    };
    let details: Option<Details> = details.map(|text| from_json("hold", &text)).transpose()?;
    let Details { difference, unseen } = details.unwrap_or_default();
    Ok(StoredHold {
        tree: parsed("tree name", &tree)?,
        publisher: parsed("identity name", &publisher)?,
        site: parsed_option("site name", Some(site.as_str()).filter(|site| !site.is_empty()))?,
        report: HoldReport {
            manifest: parsed("digest", &manifest)?,
            reason,
            removed_files: from_bigint(files),
            removed_bytes: from_bigint(bytes),
            since: from_micros(since)?,
            difference,
            unseen,
        },
        decision,
    })
}
