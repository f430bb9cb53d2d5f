//! Trees for consumers who are no agents: files by HTTPS, some of them for certain certificates only.
//!
//! What agents are served, and how, has nothing to do with this: another port, another certificate
//! of the server, other certificates of clients, and files by their paths instead of packs. What a
//! consumer gets is always the newest announced generation, from its private tree: nobody reads what
//! a guard of the publisher holds, or what lies outside of the tree's limit.
//!
//! Who may read a tree at a site is the site's own business: its web server knows its consumers.

pub mod config;
mod guards;
pub(crate) mod links;
mod serve;

pub(crate) use self::serve::{check, serve};
pub use self::{config::ConsumersConfig, serve::Error};
