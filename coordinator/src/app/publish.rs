//! Generations, offers and holds: what publishers announce and admins decide.

use certs::signing;
use jiff::Timestamp;
use protocol::{
    digest::Digest,
    dsse::Envelope,
    generation::{Epoch, Generation, Version},
    hold::HoldId,
    name::TreeName,
    role::Role,
    spec::AssignmentName,
    statement::{Claim, Offer, Statement},
    v1::{
        events::EventKind,
        publisher::{Accepted, HoldReport, Presence},
    },
};

use super::{
    App, Error, Picture, Refusal, Write,
    admission::Caller,
    effective,
    events::Told,
    orders::{is_autonomous, parties, rules, trees_of},
    picture::{SYNC, TreeContents},
};
use crate::db::{Counter, StoredGeneration, Topic};

/// Longest reason of a hold, in bytes.
pub(super) const MAX_REASON: usize = 4096;
/// Longest address that a publisher gives.
const MAX_ADVERTISE: usize = 300;

impl App {
    /// Makes a statement current, if it follows the current one.
    pub async fn announce_statement(
        &self,
        caller: &Caller,
        tree: &TreeName,
        envelope: &Envelope,
    ) -> Result<Accepted, Error> {
        let mut write = self.write().await?;
        let statement: Statement = verified(&write.before, caller, tree, envelope)?;
        let contents = write.before.contents.tree(tree);
        match judge(contents, Said::of(&write.before, tree), &statement, envelope, write.now) {
            Ok(Step::Known) => return Ok(Accepted { revision: write.before.revision }),
            Ok(Step::Next) => {}
            Err(refusal) => return Err(self.refuse(write, caller, &statement, refusal).await),
        }
        write.tx.add_generation(&statement, envelope, &caller.name, write.now).await?;
        // An approval is for one step: whatever comes next is judged against this generation.
        write.tx.end_holds(tree, None, None).await?;
        if let Some(admin) = &statement.guard.approved_by {
            let detail = format!("{} approved by {admin}", statement.manifest);
            let who = caller.to_string();
            write.tx.audit(write.now, &who, "publish-approved", tree.as_str(), &detail).await?;
        }
        let version = Version { epoch: statement.epoch, generation: statement.generation };
        let text = match alone(&statement) {
            Some(since) => format!(
                "tree {tree} has the new generation {version}, with which its publisher went on alone at {}, after {since}",
                statement.created
            ),
            None => format!("tree {tree} has the new generation {version}"),
        };
        let told = Told::new(EventKind::GenerationPublished, tree, text)
            .with("generation", version)
            .with("manifest", statement.manifest)
            .with("entries", statement.entries)
            .with("bytes", statement.bytes)
            .with("publisher", &caller.name);
        self.tell(&mut write, told).await?;
        let topics =
            [Topic::Generations, Topic::Tree(tree.clone()), Topic::Publisher(caller.name.clone())];
        let revision = self.commit(write, &topics).await?;
        Ok(Accepted { revision })
    }

    /// Tells of what sites may hold and what is not taken: a publisher has pointed to it alone, or it was
    /// taken by the database that was lost.
    async fn refuse(
        &self,
        mut write: Write,
        caller: &Caller,
        statement: &Statement,
        refusal: Refusal,
    ) -> Error {
        let restored = match write.tx.time_of(Counter::Restored).await {
            Ok(at) => Some(at).filter(|at| statement.created < *at),
            Err(error) => return error.into(),
        };
        let tree = &statement.tree;
        let version = Version { epoch: statement.epoch, generation: statement.generation };
        let (what, since) = match (alone(statement), restored) {
            (Some(since), _) => (
                format!(
                    "its publisher pointed to generation {version} while it was alone, after {since}"
                ),
                ("alone-since", since),
            ),
            (None, Some(at)) => (
                format!(
                    "generation {version} was made before this coordinator was restored at {at}, from a backup that does not have it"
                ),
                ("restored", at),
            ),
            (None, None) => return refusal.into(),
        };
        let text = format!(
            "tree {tree}: {what}, and it is not taken: {refusal}. Sites that followed it keep it until the publisher's next generation, which gets a higher number by itself; look at what the publisher holds or fails with (`publisher status` there)"
        );
        let told = Told::new(EventKind::GenerationRefused, tree, text)
            .with("generation", version)
            .with("manifest", statement.manifest)
            .with("publisher", &caller.name)
            .with(since.0, since.1);
        let told = match self.tell(&mut write, told).await {
            Ok(()) => self.commit_quietly(write).await,
            Err(error) => Err(error),
        };
        told.err().unwrap_or_else(|| refusal.into())
    }

    /// Takes an offer. It may come before or after the statement of its target.
    pub async fn announce_offer(
        &self,
        caller: &Caller,
        tree: &TreeName,
        envelope: &Envelope,
    ) -> Result<Accepted, Error> {
        let mut write = self.write().await?;
        let offer: Offer = verified(&write.before, caller, tree, envelope)?;
        if offer.index_length > offer.length {
            let message = "an index cannot be longer than its pack";
            return Err(Refusal::Invalid(message.into()).into());
        }
        if offer.front.is_some_and(|front| front.length > offer.index_length) {
            let message = "the front of a pack cannot be longer than its index";
            return Err(Refusal::Invalid(message.into()).into());
        }
        if !write.tx.add_offer(&offer, envelope, write.now).await? {
            return Ok(Accepted { revision: write.before.revision });
        }
        // What leads to a generation that is still to be announced is in nobody's orders: its
        // statement wakes those whom it concerns, and they need not ask twice over a long line.
        let contents = write.before.contents.tree(tree);
        let leads_somewhere = contents.generations.iter().any(|known| known.manifest == offer.to);
        let mut topics = vec![Topic::Generations];
        topics.extend(leads_somewhere.then(|| Topic::Tree(tree.clone())));
        let revision = self.commit(write, &topics).await?;
        Ok(Accepted { revision })
    }

    /// Keeps a scan that a guard stopped.
    pub async fn report_hold(
        &self,
        caller: &Caller,
        tree: &TreeName,
        hold: &HoldReport,
    ) -> Result<(), Error> {
        if hold.reason.len() > MAX_REASON {
            let message = format!("the reason is longer than {MAX_REASON} bytes");
            return Err(Refusal::Invalid(message).into());
        }
        let mut write = self.write().await?;
        check_publisher(&write.before, caller, tree)?;
        // Only the content that is held now is retained, so only that can be approved.
        let ended = write.tx.end_holds(tree, None, Some(&hold.manifest)).await?;
        let added = write.tx.add_hold(tree, &caller.name, None, hold).await?;
        if !added && !ended {
            return Ok(());
        }
        if added {
            self.tell_of_hold(&mut write, tree, hold).await?;
        }
        self.commit(write, &[Topic::Generations]).await?;
        Ok(())
    }

    /// Forgets what was held: the tree is again what is announced.
    pub async fn end_holds(&self, caller: &Caller, tree: &TreeName) -> Result<(), Error> {
        let mut write = self.write().await?;
        check_publisher(&write.before, caller, tree)?;
        if !write.tx.end_holds(tree, None, None).await? {
            return Ok(());
        }
        self.commit(write, &[Topic::Generations]).await?;
        tracing::info!(%tree, "nothing is held any more");
        Ok(())
    }

    /// Approves or rejects what a guard stopped.
    pub async fn decide_hold(
        &self,
        caller: &Caller,
        tree: &TreeName,
        manifest: &Digest,
        approve: bool,
    ) -> Result<(), Error> {
        let mut write = self.write().await?;
        let (now, by) = (write.now, &caller.name);
        let holds = &write.before.contents.tree(tree).holds;
        let holds: Vec<_> = holds.iter().filter(|hold| hold.report.manifest == *manifest).collect();
        if approve && holds.iter().any(|hold| hold.report.unseen) {
            return Err(Refusal::Invalid(format!(
                "tree {tree} could not be seen whole, so there is nothing to approve; the hold ends by itself once it can be read again"
            ))
            .into());
        }
        let sites: Vec<_> = holds.iter().filter_map(|hold| hold.site.clone()).collect();
        if !write.tx.decide_hold(tree, manifest, approve, by, now).await? {
            return Err(Refusal::NotFound(format!(
                "tree {tree} has no hold of the manifest {manifest}; `mirrorctl get generation` lists the holds"
            ))
            .into());
        }
        let verb = if approve { "approve" } else { "reject" };
        let who = caller.to_string();
        write.tx.audit(now, &who, verb, tree.as_str(), &manifest.to_string()).await?;
        let (kind, done) = match approve {
            true => (EventKind::HoldApproved, "approved"),
            false => (EventKind::HoldRejected, "rejected"),
        };
        let id = HoldId::of(manifest);
        let told = Told::new(kind, tree, format!("{by} {done} the hold {id} of tree {tree}"));
        let told = told.with("hold", id).with("manifest", manifest).with("by", by);
        self.tell(&mut write, told).await?;
        let mut topics = vec![Topic::Generations];
        let merged = effective::tree(&write.before.wanted.definitions, tree);
        topics.extend(merged.and_then(|merged| merged.publisher().cloned()).map(Topic::Publisher));
        for site in sites.into_iter().filter(|_| approve) {
            // The agent waits for its next try; an approval is a wish for one now.
            let name = AssignmentName { tree: tree.clone(), site };
            write.tx.add_request(SYNC, &name.to_string()).await?;
            topics.extend([Topic::Definitions, Topic::Tree(tree.clone())]);
        }
        self.commit(write, &topics).await?;
        Ok(())
    }

    /// Keeps what a publisher, or an agent that relays, says about itself.
    pub async fn set_presence(&self, caller: &Caller, presence: &Presence) -> Result<(), Error> {
        check_address(&presence.advertise)?;
        let mut write = self.write().await?;
        write.tx.set_presence(caller.role, &caller.name, presence).await?;
        let known = write.before.fleet.identity(caller.role, &caller.name);
        if known.is_some_and(|known| known.advertise.as_deref() == Some(&presence.advertise)) {
            return self.commit_quietly(write).await;
        }
        let mut topics = vec![Topic::Identities];
        match (caller.role, &caller.site) {
            // The agent hears whom it serves, and those whom it serves where it is.
            (Role::Agent, Some(site)) => {
                topics.extend(parties(&write.before, site).into_iter().map(Topic::Agent));
            }
            _ => {
                let trees = trees_of(&write.before, &caller.name);
                topics.extend(trees.into_iter().map(|tree| Topic::Tree(tree.name)));
            }
        }
        self.commit(write, &topics).await?;
        Ok(())
    }
}

/// What a statement is beside the current one.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// It is current already.
    Known,
    /// It follows.
    Next,
}

/// What definitions and root say of a tree.
#[derive(Debug, Clone, Copy)]
struct Said {
    epoch: Epoch,
    /// `None` where it is not defined.
    rules: Option<Digest>,
    autonomous: bool,
}

impl Said {
    fn of(picture: &Picture, tree: &TreeName) -> Self {
        let merged = effective::tree(&picture.wanted.definitions, tree);
        Self {
            epoch: picture.root.root().epoch(tree),
            rules: merged.as_ref().map(rules),
            autonomous: is_autonomous(picture, tree),
        }
    }
}

/// Numbers that one statement may leave out: as many as agents believe that a tree moved on by.
const MAX_LEFT_OUT: u64 = 1 << 20;

/// Since when the publisher was alone that pointed to this without us.
fn alone(statement: &Statement) -> Option<Timestamp> {
    statement.basis.as_ref()?.alone
}

/// Whether a statement follows the current one.
fn judge(
    contents: &TreeContents,
    Said { epoch, rules, autonomous }: Said,
    statement: &Statement,
    envelope: &Envelope,
    now: Timestamp,
) -> Result<Step, Refusal> {
    let current = contents.current();
    let digest = envelope.payload_digest();
    // A publisher that was alone tells its generations again where an answer was lost, and of one that
    // it had announced before, that it has pointed to it since.
    let version = Version { epoch: statement.epoch, generation: statement.generation };
    let is_known = |known: &StoredGeneration| {
        let same = (known.version, known.manifest) == (version, statement.manifest);
        known.statement.payload_digest() == digest || same && alone(statement).is_some()
    };
    if contents.generations.iter().any(is_known) {
        return Ok(Step::Known);
    }
    let tree = &statement.tree;
    if alone(statement).is_some() && !autonomous {
        return Err(Refusal::Forbidden(format!(
            "tree {tree} is not autonomous (any longer), so that its publisher may not go on alone"
        )));
    }
    if statement.basis.is_some_and(|basis| Some(basis.rules) != rules) {
        return Err(Refusal::ParentMismatch(format!(
            "the definition of tree {tree} has changed since the orders by which this was made; take the new ones and try again"
        )));
    }
    // In a new epoch everything begins anew.
    let before = current.filter(|current| current.version.epoch == epoch);
    let matches = match (before, &statement.parent) {
        (None, None) => true,
        (Some(current), Some(parent)) => {
            (current.version.generation, current.manifest) == (parent.generation, parent.manifest)
        }
        _ => false,
    };
    if !matches {
        return Err(Refusal::ParentMismatch(match before {
            Some(current) => format!(
                "the current statement of tree {tree} is {} with the manifest {}; take it as parent and try again",
                current.version, current.manifest
            ),
            None => {
                format!(
                    "tree {tree} has no generation in epoch {epoch} yet; state the first one without parent"
                )
            }
        }));
    }
    let next = before.map_or(Generation(1), |current| current.version.generation.next());
    let above = statement.basis.and_then(|basis| basis.above).map_or(next, Generation::next);
    if above.0.saturating_sub(next.0) > MAX_LEFT_OUT {
        return Err(Refusal::Invalid(format!(
            "generation {above} of tree {tree} would leave out more than {MAX_LEFT_OUT} numbers after {next}"
        )));
    }
    let number = next.max(above);
    if (statement.epoch, statement.generation) != (epoch, number) {
        return Err(Refusal::Invalid(format!(
            "the next generation of tree {tree} is {epoch}.{number}, not {}.{}",
            statement.epoch, statement.generation
        )));
    }
    if statement.expires <= now {
        return Err(Refusal::Invalid(format!(
            "the statement expired at {}; are the clocks of publisher and coordinator right?",
            statement.expires
        )));
    }
    let decision = contents.hold(&statement.manifest).and_then(|hold| hold.decision.as_ref());
    match (&statement.guard.approved_by, decision) {
        (_, Some((false, by, _))) => Err(Refusal::Forbidden(format!(
            "{by} rejected the manifest {} of tree {tree}",
            statement.manifest
        ))),
        (Some(named), Some((true, by, _))) if named == by => Ok(Step::Next),
        (Some(named), _) => Err(Refusal::Forbidden(format!(
            "{named} has not approved the manifest {} of tree {tree}",
            statement.manifest
        ))),
        (None, _) => Ok(Step::Next),
    }
}

/// Reads a claim about a tree by the publisher of that tree.
fn verified<T: Claim + OfTree>(
    picture: &Picture,
    caller: &Caller,
    tree: &TreeName,
    envelope: &Envelope,
) -> Result<T, Refusal> {
    check_publisher(picture, caller, tree)?;
    let identity = picture.fleet.identity(Role::Publisher, &caller.name);
    let key = identity.map(|identity| identity.signing_key);
    let checked = signing::verify::<T>(envelope, T::PAYLOAD_TYPE, key.as_slice(), T::MAX_LEN)
        .map_err(|error| {
            Refusal::Invalid(format!("not signed by the registered key of {caller}: {error}"))
        })?;
    if checked.content.tree() != tree {
        return Err(Refusal::Invalid(format!(
            "this is about tree {}, but was sent for tree {tree}",
            checked.content.tree()
        )));
    }
    Ok(checked.content)
}

fn check_publisher(picture: &Picture, caller: &Caller, tree: &TreeName) -> Result<(), Refusal> {
    let merged = effective::tree(&picture.wanted.definitions, tree);
    if merged.is_some_and(|merged| merged.publisher() == Some(&caller.name)) {
        return Ok(());
    }
    // The same for a tree that is not there: a publisher learns nothing of others' trees.
    Err(Refusal::Forbidden(format!("{caller} does not publish a tree {tree}")))
}

fn check_address(address: &str) -> Result<(), Refusal> {
    let parts = address.rsplit_once(':');
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
    let valid = parts.is_some_and(|(host, port)| {
        !host.is_empty() && host.chars().all(plain) && port.parse::<u16>().is_ok_and(|p| p > 0)
    });
    if valid && address.len() <= MAX_ADVERTISE {
        return Ok(());
    }
    Err(Refusal::Invalid("advertise is not HOST:PORT, for example build.example.org:8445".into()))
}

/// A claim that is about one tree.
trait OfTree {
    fn tree(&self) -> &TreeName;
}

impl OfTree for Statement {
    fn tree(&self) -> &TreeName {
        &self.tree
    }
}

impl OfTree for Offer {
    fn tree(&self) -> &TreeName {
        &self.tree
    }
}
