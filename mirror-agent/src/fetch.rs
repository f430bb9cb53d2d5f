//! Bytes over HTTPS: manifests, packs and whole content, from points that need not be trusted.
//!
//! A publication point may be a cache of someone else's: it can be slow, stale, truncated, or
//! hostile. Whatever comes from one is asked for by a signed length or a signed digest, is read no
//! further than that, must keep moving, and is believed only after its digest was checked. What
//! breaks off is resumed; what is wrong is asked for elsewhere.

pub mod ahead;
pub mod allowed;
pub mod arrivals;
pub mod kept;
pub mod manifest;
pub mod pack;
pub mod pointer;
pub mod points;
pub mod ranges;
pub mod retries;
pub mod sealed;
pub mod whole;
