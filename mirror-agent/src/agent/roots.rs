//! Following the network's root documents.

use std::sync::{Arc, PoisonError};

use certs::root::{self, TrustedRoot};
use protocol::{dsse::Envelope, generation::RootNumber};

use super::{Agent, AskError, Error, contact};
use crate::{
    ledger::{KnownRoot, Ledger},
    orders::Trust,
};

/// Most answers that are asked for in a row: more roots than any network has.
const MAX_ANSWERS: usize = 1_000;

/// The newest root that was followed from the one that was pinned. A new enrollment pins anew.
pub(super) fn known(ledger: &Ledger, pinned: &Envelope) -> Result<TrustedRoot, Error> {
    let stored = ledger.root()?.filter(|stored| stored.pinned == pinned.payload_digest());
    Ok(TrustedRoot::pin(stored.as_ref().map_or(pinned, |stored| &stored.newest))?)
}

impl Agent {
    /// Whom to believe.
    pub(super) fn trust(&self) -> Trust {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fetches the roots after the one that is known, until `newest`, and follows each.
    pub(super) async fn follow_roots(&self, newest: RootNumber) -> Result<(), AskError> {
        for _ in 0..MAX_ANSWERS {
            let known = self.trust().root.root().number;
            if known >= newest {
                return Ok(());
            }
            let answer = self.client.roots(known).await?;
            if answer.roots.is_empty() {
                break;
            }
            for next in &answer.roots {
                self.follow_root(next)?;
            }
        }
        Err(contact::Error::RootsMissing { newest })
    }

    fn follow_root(&self, next: &Envelope) -> Result<(), AskError> {
        let _one = self.accepting.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.trust().root;
        let read = root::read_unverified(next)?;
        if read.number <= before.root().number {
            // Asked for twice at a time.
            return Ok(());
        }
        let followed = before.follow(next)?;
        let pinned = self.identity.current().membership.root.payload_digest();
        self.ledger.set_root(&KnownRoot { pinned, newest: next.clone() })?;
        let heads = &before.root().head_keys;
        if !followed.root().head_keys.iter().any(|key| heads.contains(key)) {
            self.ledger.raise_marks(|marks| {
                marks.forget_heads();
                Ok::<_, crate::ledger::Error>(())
            })?;
            tracing::warn!(
                "the root names other keys for heads: what the old ones said is forgotten"
            );
        }
        tracing::info!(number = %followed.root().number, "a new root of the network");
        self.trust.lock().unwrap_or_else(PoisonError::into_inner).root = Arc::new(followed);
        Ok(())
    }
}
