//! The pointer of a tree at a publication point (`T/latest`): the one thing there that changes.

use serde::{Deserialize, Serialize};

use crate::dsse::Envelope;

/// Longest pointer that is read, in bytes.
pub const MAX_LEN: u64 = 1 << 20;
/// Most offers that a pointer carries.
pub const MAX_OFFERS: usize = 32;

/// Which generation is the newest, in the publisher's own words. Nothing of it is believed before its
/// signatures were verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// The signed statement. Its fields are those of the pointer itself, so that whoever knows of
    /// nothing else reads a signed statement.
    #[serde(flatten)]
    pub statement: Envelope,
    /// Signed offers of the packs that lead there, the nearest first, where the tree goes on without
    /// the coordinator: nobody else could tell of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offers: Vec<Envelope>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dsse::{Bytes, Signature};

    fn envelope(text: &str) -> Envelope {
        Envelope {
            payload_type: "t".into(),
            payload: Bytes(text.into()),
            signatures: vec![Signature { keyid: "k".into(), sig: Bytes(vec![1]) }],
        }
    }

    #[test]
    fn a_pointer_without_offers_is_a_signed_statement_byte_by_byte() {
        let pointer = Pointer { statement: envelope("one"), offers: vec![] };
        let statement = serde_json::to_string(&pointer.statement).unwrap();
        assert_eq!(serde_json::to_string(&pointer).unwrap(), statement);
        assert_eq!(serde_json::from_str::<Pointer>(&statement).unwrap(), pointer);
    }

    #[test]
    fn whoever_knows_of_no_offers_reads_the_statement_of_a_pointer_that_has_some() {
        let pointer = Pointer { statement: envelope("one"), offers: vec![envelope("a pack")] };
        let text = serde_json::to_string(&pointer).unwrap();
        assert_eq!(serde_json::from_str::<Envelope>(&text).unwrap(), pointer.statement);
        assert_eq!(serde_json::from_str::<Pointer>(&text).unwrap(), pointer);
    }
}
