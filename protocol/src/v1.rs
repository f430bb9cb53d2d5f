//! Version 1 of the API: one file per group of endpoints, and in each the bodies it carries.
//!
//! All of it is JSON over mutual TLS at `/v1/…` (`/enroll` apart). Long polls ask with
//! `?revision=N&wait=60s`, are answered at once when something newer than N exists, and end with
//! 304 after the wait. Lists page by cursor.

pub mod agent;
pub mod audit;
pub mod definitions;
pub mod enroll;
pub mod events;
pub mod history;
pub mod identities;
pub mod keys;
pub mod publisher;
pub mod roots;
pub mod status;

use serde::{Deserialize, Serialize};

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Page<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// Ask with `?cursor=` this for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Longest time that a long poll waits, in seconds.
pub const MAX_WAIT_SECONDS: u64 = 120;
