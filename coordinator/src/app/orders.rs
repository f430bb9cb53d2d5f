//! What each agent and publisher is told: pure functions of the picture and the time.
//!
//! Each sees its own and nothing else, by construction: what is not put into its orders here does
//! not reach it. [`concerned`] is the other half: after a change of definitions or identities, it
//! finds whose orders differ, so that those and no others are woken.

mod agent;
mod concerned;
mod publisher;
mod relay;

pub use self::{
    agent::agent,
    concerned::{Among, concerned},
    publisher::{is_autonomous, publisher, rules, trees_of},
    relay::parties,
};
