//! What the programs say to each other, and nothing else.
//!
//! Names, paths, digests, filters, manifests, packs, statements and the API's types live here, so
//! that the coordinator, a publisher and an agent can never disagree about them. Nothing in this
//! crate touches a disk or a network (the feature `client` adds the typed HTTP client), and every
//! decoder is written for hostile input: bounded before it allocates, and without a panic.

pub mod digest;
pub mod filter;
pub mod name;
pub mod path;
