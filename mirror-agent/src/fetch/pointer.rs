//! The pointer of a tree at a point: which generation is the newest, in the publisher's own words.
//!
//! Bounded like everything that comes from a point, and given out as it came: whoever follows it
//! verifies it first.

use protocol::{latest::Pointer, name::TreeName, origin};

use super::{
    points::Point,
    ranges::{self, Ask, Patience},
    retries::get_from,
};

/// Longest pointer that is read, in bytes: a signed statement and offers, with room.
pub const MAX_LEN: u64 = protocol::latest::MAX_LEN;

/// Why a point has no pointer for us.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It did not come.
    #[error(transparent)]
    Fetch(#[from] ranges::Error),
    /// It is something else.
    #[error("the pointer of {point} is no signed statement")]
    Json {
        /// Which point.
        point: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// Fetches the pointer of a tree from one point.
pub async fn fetch(point: &Point, tree: &TreeName, patience: Patience) -> Result<Pointer, Error> {
    let mut bytes = Vec::new();
    let ask = Ask::up_to(origin::latest_path(tree), MAX_LEN);
    get_from(point, &ask, patience, |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })
    .await?;
    serde_json::from_slice(&bytes)
        .map_err(|source| Error::Json { point: format!("{}{}", point.base, ask.path), source })
}
