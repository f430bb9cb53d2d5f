//! The root documents: who may sign what.
//!
//! What the next root should say follows from who is enrolled. Where the coordinator holds a root
//! key that is enough, it signs that at once, in the transaction that made it necessary; where the
//! key is kept elsewhere, an admin fetches the draft, signs it there, and hands it in. A coordinator
//! without the key can keep the network going but cannot name anyone who signs content.

use std::collections::{BTreeMap, BTreeSet};

use certs::root::{self, TrustedRoot};
use jiff::Timestamp;
use protocol::{
    dsse::Envelope,
    generation::RootNumber,
    key::VerifyingKey,
    role::Role,
    root::{PublisherKey, Root, TreePattern},
    v1::roots::{MAX_ROOTS, RootDraft, Roots},
};

use super::{App, Error, Refusal, Write, admission::Caller};
use crate::db::{self, StoredIdentity, Topic};

impl App {
    /// The root documents after number `after`.
    pub async fn roots(&self, after: RootNumber) -> Result<Roots, Error> {
        let mut tx = self.parts.database.read().await?;
        let limit = u64::try_from(MAX_ROOTS).unwrap_or(u64::MAX);
        let roots = tx.roots(after, limit).await?;
        tx.commit().await?;
        let picture = self.picture();
        let newest = picture.root.root();
        Ok(Roots { roots, newest: newest.number, online: self.signs_roots(newest) })
    }

    /// What the next root should say.
    pub fn root_draft(&self) -> RootDraft {
        let picture = self.picture();
        let current = picture.root.root();
        let wanted = self.wanted_root(current, picture.fleet.identities(), self.now());
        RootDraft {
            current: picture.root.envelope().clone(),
            changes: differences(current, &wanted),
            next: wanted,
        }
    }

    /// Signs what the next root should say, where the key is here: at the start, because what it says
    /// may have changed in the data directory.
    pub async fn keep_root(&self) -> Result<(), Error> {
        let mut write = self.write().await?;
        let topics = self.follow_identities(&mut write).await?;
        if topics.is_empty() {
            return self.commit_quietly(write).await;
        }
        self.commit(write, &topics).await?;
        Ok(())
    }

    /// Makes a root that was signed elsewhere the current one.
    pub async fn publish_root(&self, caller: &Caller, next: &Envelope) -> Result<Roots, Error> {
        let mut write = self.write().await?;
        let current = std::sync::Arc::clone(&write.before.root);
        if current.envelope() != next {
            let trusted = current.follow(next).map_err(|error| {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
                Refusal::Invalid(format!("this root is not taken: {error}{cause}"))
            })?;
            self.check_usable(trusted.root())?;
            let changes = differences(current.root(), trusted.root());
            self.store_root(&mut write, &trusted, &caller.to_string(), &changes).await?;
            self.commit(write, &[Topic::Roots]).await?;
        }
        self.roots(RootNumber(next_number(&self.picture().root).0.saturating_sub(2))).await
    }

    /// Signs the root that the identities of the transaction ask for, if it differs and the key is
    /// here. Gives the topics that this concerns.
    pub(super) async fn follow_identities(&self, write: &mut Write) -> Result<Vec<Topic>, Error> {
        let current = std::sync::Arc::clone(&write.before.root);
        let identities = write.tx.identities().await?;
        let wanted = self.wanted_root(current.root(), identities.iter(), write.now);
        let changes = differences(current.root(), &wanted);
        if changes.is_empty() {
            return Ok(vec![]);
        }
        let Some(key) = self.parts.root_key.as_ref().filter(|_| self.signs_roots(current.root()))
        else {
            tracing::warn!(
                changes = changes.join("; "),
                "the root document has to be signed anew by whoever holds the root key: mirrorctl root draft"
            );
            return Ok(vec![]);
        };
        let signed = root::sign(&wanted, &[key]).map_err(unsigned)?;
        let trusted = current.follow(&signed).map_err(unsigned)?;
        self.store_root(write, &trusted, "coordinator", &changes).await?;
        Ok(vec![Topic::Roots])
    }

    async fn store_root(
        &self,
        write: &mut Write,
        trusted: &TrustedRoot,
        who: &str,
        changes: &[String],
    ) -> Result<(), Error> {
        let number = trusted.root().number;
        write.tx.add_root(number, trusted.envelope(), write.now).await?;
        let target = format!("root/{number}");
        write.tx.audit(write.now, who, "sign-root", &target, &changes.join("; ")).await?;
        tracing::info!(%number, changes = changes.join("; "), "a new root document");
        Ok(())
    }

    /// A root under which this coordinator could not work would cut everybody off.
    fn check_usable(&self, root: &Root) -> Result<(), Refusal> {
        if !root.head_keys.contains(&self.parts.head_key.verifying_key()) {
            return Err(Refusal::Invalid(
                "this root does not name the key that this coordinator signs heads with, so no agent would follow it any more; name both keys, exchange head.key, restart, and then leave the old one out".into(),
            ));
        }
        if !root.authorities.contains(self.parts.authority.root_pem().trim()) {
            return Err(Refusal::Invalid(
                "this root does not hold the certificate of the authority in use, so nobody would be let in any more; `mirrorctl root draft` has it".into(),
            ));
        }
        Ok(())
    }

    fn signs_roots(&self, root: &Root) -> bool {
        let key = self.parts.root_key.as_ref().map(|key| key.verifying_key());
        root.threshold == 1 && key.is_some_and(|key| root.keys.contains(&key))
    }

    fn wanted_root<'a>(
        &self,
        current: &Root,
        identities: impl Iterator<Item = &'a StoredIdentity>,
        now: Timestamp,
    ) -> Root {
        let head_key = self.parts.head_key.verifying_key();
        wanted(current, identities, head_key, &self.parts.authority.bundle_pem(), now)
    }
}

/// The root that should come after `current`.
fn wanted<'a>(
    current: &Root,
    identities: impl Iterator<Item = &'a StoredIdentity>,
    head_key: VerifyingKey,
    authorities: &str,
    now: Timestamp,
) -> Root {
    let mut next = Root { number: current.number.next(), created: now, ..current.clone() };
    if !next.head_keys.contains(&head_key) {
        next.head_keys.push(head_key);
    }
    if certificates(&next.authorities) != certificates(authorities) {
        authorities.clone_into(&mut next.authorities);
    }
    let live = identities.filter(|i| i.role == Role::Publisher && i.revoked.is_none());
    next.publishers = live
        .map(|identity| {
            let known = current.publishers.iter().find(|entry| {
                entry.publisher == identity.name && entry.key == identity.signing_key
            });
            // What whoever signed it has narrowed stays so.
            known.cloned().unwrap_or_else(|| PublisherKey {
                publisher: identity.name.clone(),
                key: identity.signing_key,
                trees: match identity.trees.is_empty() {
                    true => vec![TreePattern::all()],
                    false => identity.trees.clone(),
                },
            })
        })
        .collect();
    next.publishers.sort_by(|a, b| (&a.publisher, a.key).cmp(&(&b.publisher, b.key)));
    next
}

/// The certificates in a PEM text, in whatever order.
fn certificates(pem: &str) -> BTreeSet<&str> {
    const END: &str = "-----END CERTIFICATE-----";
    pem.split(END).map(str::trim).filter(|text| !text.is_empty()).collect()
}

/// How two roots differ, in words.
pub fn differences(old: &Root, new: &Root) -> Vec<String> {
    let mut changes = Vec::new();
    let mut keys = |what: &str, old: &[VerifyingKey], new: &[VerifyingKey]| {
        let added = new.iter().filter(|key| !old.contains(key));
        changes.extend(added.map(|key| format!("adds the {what} key {key}")));
        let removed = old.iter().filter(|key| !new.contains(key));
        changes.extend(removed.map(|key| format!("drops the {what} key {key}")));
    };
    keys("root", &old.keys, &new.keys);
    keys("head", &old.head_keys, &new.head_keys);
    keys("definitions", &old.definition_keys, &new.definition_keys);
    if old.threshold != new.threshold {
        changes.push(format!("asks for {} signatures, not {}", new.threshold, old.threshold));
    }
    if old.authorities.trim() != new.authorities.trim() {
        changes.push("changes the authorities of the network's certificates".into());
    }
    let text = |entry: &PublisherKey| {
        let trees: Vec<String> = entry.trees.iter().map(ToString::to_string).collect();
        format!("publisher {} sign for {} with {}", entry.publisher, trees.join(" "), entry.key)
    };
    let added = new.publishers.iter().filter(|entry| !old.publishers.contains(entry));
    changes.extend(added.map(|entry| format!("lets {}", text(entry))));
    let removed = old.publishers.iter().filter(|entry| !new.publishers.contains(entry));
    changes.extend(removed.map(|entry| format!("no longer lets {}", text(entry))));
    let epochs: BTreeMap<_, _> =
        new.epochs.iter().filter(|(tree, epoch)| old.epochs.get(*tree) != Some(epoch)).collect();
    changes
        .extend(epochs.iter().map(|(tree, epoch)| format!("puts tree {tree} into epoch {epoch}")));
    let forgotten = old.epochs.keys().filter(|tree| !new.epochs.contains_key(*tree));
    changes.extend(forgotten.map(|tree| format!("puts tree {tree} back into its first epoch")));
    changes
}

fn next_number(root: &TrustedRoot) -> RootNumber {
    root.root().number.next()
}

fn unsigned(error: root::Error) -> Error {
    db::Error::Corrupt { what: "root document", reason: error.to_string() }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> VerifyingKey {
        VerifyingKey::from_bytes([byte; 32])
    }

    fn root() -> Root {
        Root {
            network: "net".parse().unwrap(),
            number: RootNumber(4),
            created: Timestamp::UNIX_EPOCH,
            keys: vec![key(1)],
            threshold: 1,
            head_keys: vec![key(2)],
            definition_keys: vec![],
            authorities: "PEM".into(),
            publishers: vec![],
            epochs: BTreeMap::new(),
        }
    }

    fn publisher(name: &str, key: VerifyingKey, trees: &[&str]) -> StoredIdentity {
        StoredIdentity {
            role: Role::Publisher,
            name: name.parse().unwrap(),
            site: None,
            signing_key: key,
            trees: trees.iter().map(|tree| tree.parse().unwrap()).collect(),
            created: Timestamp::UNIX_EPOCH,
            revoked: None,
            reason: String::new(),
            advertise: None,
            last_seen: None,
        }
    }

    #[test]
    fn the_next_root_follows_from_who_is_enrolled() {
        let now = Timestamp::UNIX_EPOCH;
        let live = publisher("build", key(3), &["fedora-*"]);
        let revoked = StoredIdentity { revoked: Some(now), ..publisher("old", key(4), &[]) };
        let agent = StoredIdentity { role: Role::Agent, ..publisher("lisbon", key(5), &[]) };
        let next = wanted(&root(), [&live, &revoked, &agent].into_iter(), key(2), "PEM", now);
        assert_eq!(next.number, RootNumber(5));
        assert_eq!(next.publishers.len(), 1);
        assert_eq!(next.publishers[0].trees, ["fedora-*".parse().unwrap()]);
        let changes = differences(&root(), &next);
        assert!(changes.len() == 1 && changes[0].contains("fedora-*"), "{changes:?}");

        // Narrowed by whoever signed it: it stays narrow, until the key is another.
        let mut narrowed = next.clone();
        narrowed.publishers[0].trees = vec!["fedora-44".parse().unwrap()];
        let same = wanted(&narrowed, [&live].into_iter(), key(2), "PEM", now);
        assert!(differences(&narrowed, &same).is_empty());
        let anew = publisher("build", key(6), &[]);
        let anew = wanted(&narrowed, [&anew].into_iter(), key(2), "PEM", now);
        assert_eq!(anew.publishers[0].trees, [TreePattern::all()]);
    }
}
