//! Following the root documents: from the one that was pinned to the newest, step by step.
//!
//! Each next root must be signed by enough keys of the one before *and* by enough of its own, and
//! its number is the next one: none can be left out, and none can be put in without the keys that
//! were trusted until then. What is believed about keys is therefore exactly what the holders of
//! the root keys have said, whoever hands the documents over.

use protocol::{
    dsse::Envelope,
    generation::RootNumber,
    name::NetworkName,
    root::{Invalid, Root},
    statement::Claim as _,
};

use crate::signing::{self, SigningKey};

/// A root that is believed, with the envelope that it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedRoot {
    root: Root,
    envelope: Envelope,
}

impl TrustedRoot {
    /// Takes a root on the word of whoever handed it over: at enrollment, by the pinned
    /// connection. It has to be signed by its own keys.
    pub fn pin(envelope: &Envelope) -> Result<Self, Error> {
        let root = self_signed(envelope)?;
        Ok(Self { root, envelope: envelope.clone() })
    }

    /// The root that replaces this one.
    ///
    /// # Errors
    /// When it is not the next, of another network, or not signed by enough keys of both.
    pub fn follow(&self, next: &Envelope) -> Result<Self, Error> {
        let root = self_signed(next)?;
        if root.network != self.root.network {
            return Err(Error::Network { found: root.network, wanted: self.root.network.clone() });
        }
        let wanted = self.root.number.next();
        if root.number != wanted {
            return Err(Error::Number { found: root.number, wanted });
        }
        check_signatures(&self.root, next)
            .map_err(|source| Error::Predecessor { number: root.number, source })?;
        Ok(Self { root, envelope: next.clone() })
    }

    /// What it says.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The signed document.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }
}

/// Signs a root with each of `keys`.
pub fn sign(root: &Root, keys: &[&SigningKey]) -> Result<Envelope, Error> {
    root.check()?;
    let payload = serde_json::to_vec(root).map_err(signing::Error::Encode)?;
    if payload.len() > Root::MAX_LEN {
        let len = payload.len();
        return Err(signing::Error::TooLong { len, max_len: Root::MAX_LEN }.into());
    }
    let mut envelope = signing::unsigned(Root::PAYLOAD_TYPE, payload);
    for key in keys {
        signing::add_signature(key, &mut envelope)?;
    }
    Ok(envelope)
}

/// Reads what an envelope says without believing it, for people who are about to sign.
pub fn read_unverified(envelope: &Envelope) -> Result<Root, Error> {
    let root: Root =
        serde_json::from_slice(&envelope.payload.0).map_err(signing::Error::Content)?;
    root.check()?;
    Ok(root)
}

fn self_signed(envelope: &Envelope) -> Result<Root, Error> {
    if envelope.payload.0.len() > Root::MAX_LEN {
        let len = envelope.payload.0.len();
        return Err(signing::Error::TooLong { len, max_len: Root::MAX_LEN }.into());
    }
    // Read before it is verified only to learn with which keys; nothing of it is used before.
    let root = read_unverified(envelope)?;
    check_signatures(&root, envelope)
        .map_err(|source| Error::Itself { number: root.number, source })?;
    Ok(root)
}

fn check_signatures(by: &Root, envelope: &Envelope) -> Result<(), signing::Error> {
    let (kind, max_len) = (Root::PAYLOAD_TYPE, Root::MAX_LEN);
    signing::verify_threshold(envelope, kind, &by.keys, by.threshold, max_len)
}

/// Why a root is not believed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The signatures, or the envelope.
    #[error(transparent)]
    Signing(#[from] signing::Error),
    /// It cannot be a root.
    #[error("the root document cannot be one")]
    Invalid(#[from] Invalid),
    /// Not signed by its own keys.
    #[error("root {number} is not signed by enough of its own keys")]
    Itself {
        /// Which root.
        number: RootNumber,
        /// What is wrong.
        source: signing::Error,
    },
    /// Not signed by the keys that were trusted until then.
    #[error("root {number} is not signed by enough keys of the root before it")]
    Predecessor {
        /// Which root.
        number: RootNumber,
        /// What is wrong.
        source: signing::Error,
    },
    /// One is missing, or it goes back.
    #[error("root {found} does not follow: the next one is {wanted}")]
    Number {
        /// What came.
        found: RootNumber,
        /// What follows.
        wanted: RootNumber,
    },
    /// Another network's.
    #[error("the root document is of network {found}, not of {wanted}")]
    Network {
        /// Whose it is.
        found: NetworkName,
        /// Ours.
        wanted: NetworkName,
    },
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;

    use super::*;

    fn key() -> SigningKey {
        SigningKey::generate().unwrap()
    }

    fn root(number: u64, keys: &[&SigningKey], threshold: u32) -> Root {
        Root {
            network: "net".parse().unwrap(),
            number: RootNumber(number),
            created: Timestamp::UNIX_EPOCH,
            keys: keys.iter().map(|key| key.verifying_key()).collect(),
            threshold,
            head_keys: vec![key().verifying_key()],
            definition_keys: vec![],
            authorities: String::new(),
            publishers: vec![],
            epochs: BTreeMap::new(),
        }
    }

    #[test]
    fn a_root_is_followed_if_the_old_keys_and_its_own_signed_it() {
        let (old, new) = (key(), key());
        let pinned = TrustedRoot::pin(&sign(&root(1, &[&old], 1), &[&old]).unwrap()).unwrap();
        let next = root(2, &[&new], 1);
        let followed = pinned.follow(&sign(&next, &[&old, &new]).unwrap()).unwrap();
        assert_eq!(followed.root(), &next);
        let lone = pinned.follow(&sign(&next, &[&new]).unwrap());
        assert!(matches!(lone, Err(Error::Predecessor { .. })), "{lone:?}");
        let unproved = pinned.follow(&sign(&next, &[&old]).unwrap());
        assert!(matches!(unproved, Err(Error::Itself { .. })), "{unproved:?}");
        // Whoever has only the old key afterwards can do nothing any more.
        let stolen = sign(&root(3, &[&old], 1), &[&old]).unwrap();
        assert!(matches!(followed.follow(&stolen), Err(Error::Predecessor { .. })));
    }

    #[test]
    fn no_root_is_left_out_repeated_or_taken_from_another_network() {
        let one = key();
        let pinned = TrustedRoot::pin(&sign(&root(1, &[&one], 1), &[&one]).unwrap()).unwrap();
        for number in [0, 1, 3, u64::MAX] {
            let other = sign(&root(number, &[&one], 1), &[&one]).unwrap();
            assert!(matches!(pinned.follow(&other), Err(Error::Number { .. })), "{number}");
        }
        let foreign = Root { network: "other".parse().unwrap(), ..root(2, &[&one], 1) };
        let foreign = sign(&foreign, &[&one]).unwrap();
        assert!(matches!(pinned.follow(&foreign), Err(Error::Network { .. })));
    }

    #[test]
    fn one_key_that_signs_twice_is_one_signature() {
        let keys = [key(), key(), key()];
        let all: Vec<&SigningKey> = keys.iter().collect();
        let two_of_three = root(1, &all, 2);
        TrustedRoot::pin(&sign(&two_of_three, &[&keys[0], &keys[2]]).unwrap()).unwrap();
        let twice = sign(&two_of_three, &[&keys[0], &keys[0]]).unwrap();
        assert!(matches!(TrustedRoot::pin(&twice), Err(Error::Itself { .. })));
        let stranger = sign(&two_of_three, &[&keys[0], &key()]).unwrap();
        assert!(matches!(TrustedRoot::pin(&stranger), Err(Error::Itself { .. })));
    }

    #[test]
    fn a_changed_or_endless_root_is_refused() {
        let one = key();
        let good = sign(&root(1, &[&one], 1), &[&one]).unwrap();
        let mut changed = good.clone();
        let at = changed.payload.0.iter().position(|byte| *byte == b'1').unwrap();
        changed.payload.0[at] = b'2';
        assert!(TrustedRoot::pin(&changed).is_err());
        let mut endless = good;
        endless.payload.0.resize(Root::MAX_LEN + 1, b' ');
        let refused = TrustedRoot::pin(&endless);
        assert!(matches!(refused, Err(Error::Signing(signing::Error::TooLong { .. }))));
    }
}
