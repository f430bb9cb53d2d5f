//! Files on a disk: scan, delta, pack, plan, stage and switch.
//!
//! Everything here blocks, and nothing here knows a network, a database or an async runtime. The
//! publisher uses it to read trees, the agent to change them; [`fs`] is the only place where a
//! mirrored tree is changed, and [`confine`] lets the kernel see to it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod area;
pub mod confine;
pub mod deflate;
pub mod delta;
pub mod fs;
#[cfg(test)]
#[path = "../../protocol/src/mutate.rs"]
mod mutate;
pub mod pack;
pub mod plan;
mod record;
pub mod safe_path;
pub mod scan;
pub mod signature;
pub mod staging;
pub mod switch;
